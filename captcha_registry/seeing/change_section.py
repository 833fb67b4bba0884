"""The section of the report that says what changed since another revision."""

from collections.abc import Sequence

import pandas as pd

from captcha_registry.registry.diff import Change
from captcha_registry.seeing.album import Album
from captcha_registry.seeing.comparing import Changes, Comparison
from captcha_registry.seeing.document import Code, Gallery, Heading, Paragraph, Part, Section, Table
from captcha_registry.seeing.results import ModelResult
from captcha_registry.seeing.sections import interval, percent, show_readings

NUM_CHANGED_SHOWN = 12
# So small a p is hardly chance, as is usual.
SIGNIFICANT = 0.05
# The digits of a smaller one mean nothing.
TINY = 1e-15


def show_changes(results: Sequence[ModelResult], changes: Changes | None, album: Album) -> Section:
    """Say what differs from a revision, or how to ask for that."""
    if changes is None:
        nothing = Paragraph.of(
            "Nothing is compared here. ", Code("captcha-registry report --compare main"), " compares with main."
        )
        return Section("changes", "What changed", [nothing])
    parts: list[Part] = [
        Paragraph.of("Compared with ", Code(changes.revision), ", which is the commit ", Code(changes.commit[:12]), "."),
        *_list_params(changes),
    ]
    for result in results:
        parts.append(Heading(result.name))
        if reason := changes.lacking.get(result.name):
            parts.append(Paragraph.quote(f"Readings are not compared: {reason}."))
        else:
            parts += _show_comparison(result, changes.comparisons[result.name], Code(changes.revision), album)
        if metrics := changes.metrics[result.name]:
            parts.append(_tabulate(f"Metrics of {result.name} that differ", metrics, Code(changes.revision)))
    return Section("changes", "What changed", parts)


def _list_params(changes: Changes) -> list[Part]:
    if not changes.params:
        return [Paragraph.of("No parameter differs.")]
    return [_tabulate("Parameters that differ", changes.params, Code(changes.revision))]


def _tabulate(caption: str, changes: Sequence[Change], revision: Code) -> Table:
    rows = [(Code(change.field), _write(change.old), _write(change.new)) for change in changes]
    return Table.of(caption, ("name", revision, "here"), rows)


def _write(value: object) -> str:
    return "-" if value is None else Code(f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else value)


def _show_comparison(result: ModelResult, comparison: Comparison, revision: Code, album: Album) -> list[Part]:
    """Count and show the pictures that are read otherwise now."""
    rows, fixed, broken = comparison.rows, comparison.fixed, comparison.broken
    if rows.empty:
        return [Paragraph.of("No picture was read by both.")]
    num_old, num_new, num = int(rows["right_old"].sum()), int(rows["right_new"].sum()), len(rows)
    table = Table.of(
        f"The {num:,} pictures that {result.name} has read on both sides",
        ("at", "right", "share", "95 % interval"),
        [
            (revision, f"{num_old:,}", percent(num_old / num), interval(num_old, num)),
            ("here", f"{num_new:,}", percent(num_new / num), interval(num_new, num)),
        ],
    )
    otherwise = ~rows["right_old"] & ~rows["right_new"] & (rows["text_old"] != rows["text_new"])
    words = Paragraph.of(
        f"{len(fixed):,} fixed, {len(broken):,} broken, {int(otherwise.sum()):,} wrong on both sides in different ways. "
        f"Exact McNemar {write_p(comparison.p_value)}: {_judge(comparison)}."
    )
    galleries = [
        _show(result, album, "Fixed: read wrong there, right here", fixed, "old"),
        _show(result, album, "Broken: read right there, wrong here", broken, "new"),
    ]
    return [table, words, *(gallery for gallery in galleries if gallery.items)]


def write_p(value: float) -> str:
    """Write how likely chance is; it is never impossible."""
    return f"p = {value:.2g}" if value >= TINY else f"p < {TINY:g}"


def _judge(comparison: Comparison) -> str:
    if comparison.p_value >= SIGNIFICANT:
        return "so small a difference may well be chance"
    better = len(comparison.fixed) > len(comparison.broken)
    return f"chance alone hardly ever makes such a difference, it reads {'better' if better else 'worse'} here"


def _show(result: ModelResult, album: Album, title: str, rows: pd.DataFrame, side: str) -> Gallery:
    """Show changed readings; `side` has the wrong ones."""
    chosen = rows.head(NUM_CHANGED_SHOWN)
    shown = chosen.rename(columns={f"text_{side}": "text", f"confidence_{side}": "confidence"})
    caption = f"{title}{f', the first {len(chosen)} of {len(rows):,}' if len(rows) > len(chosen) else ''}"
    return Gallery(caption, show_readings(result, shown, album))
