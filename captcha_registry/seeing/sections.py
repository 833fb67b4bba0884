"""The sections of the report that speak of models, each made of the results of all of them."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from math import floor
from typing import Any

import numpy as np
import pandas as pd

from captcha_registry.errors import MAKE_OR_PULL
from captcha_registry.recognition.scoring import wilson_interval
from captcha_registry.recognition.tables import (
    NOTHING,
    count_confusions,
    find_confusions,
    score_by_character,
    score_by_confidence,
    score_by_ink,
    score_by_position,
)
from captcha_registry.seeing.album import Album
from captcha_registry.seeing.charts import draw_accuracy, draw_lines, draw_reliability
from captcha_registry.seeing.document import Chart, Code, Gallery, Heading, Paragraph, Part, Section, Shown, Table, align
from captcha_registry.seeing.results import ModelResult

NUM_ERRORS_SHOWN, NUM_PAIRS_SHOWN, NUM_CONFUSIONS_SHOWN = 24, 12, 12

# What others have shown, each with what they read, how often it was right, and of how many pictures, where they say so.
Record = tuple[str, str, str, int | None]
RECORDS: Mapping[str, Sequence[Record]] = {
    "0123456789": (
        (
            "the lab note's network (preset lab), as its public ancestor was trained",
            "four digits",
            "99.8 % of the characters",
            None,
        ),
        ("the highest exact match that is published", "four digits", "about 99.2 %", None),
    ),
    "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ": (
        ("the lab note's network (preset lab), as its public ancestor was trained", "128x64", "99.22 %", None),
        ("other published trainings", "128x64", "98.7 to 99.5 %", 2_560),
        ("the highest that is published, the same network in PyTorch", "192x64", "99.64 %", 12_800),
    ),
}

SHARE_HEAD = ("right", "95 % interval", "how many")
TARGETS = (0.99, 0.995, 0.999, 0.9995, 1.0)
# Points of a curve: more cannot be told apart.
NUM_POINTS = 120
NBSP = "\N{NO-BREAK SPACE}"
PIXEL_LIMITS = (10, 30, 100, 200, 400)

# What was drawn without, by the name that `cured_by` has for it.
CURES = {
    "curve": "without its curve",
    "dots": "without its dots",
    "rotation": "with upright characters",
    "warp": "with unwarped characters",
    "squeeze": "without the squeeze to the picture's width",
    "ink": "in full ink",
    "chance": "with its dots elsewhere, to compare with: any change cures some",
}
# The same in a caption.
SHORT_CURES = {
    "curve": "no curve",
    "dots": "no dots",
    "rotation": "upright",
    "warp": "unwarped",
    "squeeze": "unsqueezed",
    "ink": "full ink",
    "chance": "dots elsewhere",
}


def percent(share: float, digits: int = 2) -> str:
    """Write a share as people do; what is not all is never rounded to all, nor what is not nothing to nothing."""
    rounded, least = round(100 * share, digits), 10.0**-digits
    if rounded == 100 and share < 1:  # noqa: PLR2004 - per cent
        return f"> {100 - least:.{digits}f}{NBSP}%"
    if rounded == 0 and share > 0:
        return f"< {least:.{digits}f}{NBSP}%"
    return f"{100 * share:.{digits}f}{NBSP}%"


def interval(num_right: int, num_samples: int) -> str:
    """Write the 95 % interval of a share."""
    low, high = wilson_interval(num_right, num_samples)
    return f"{percent(low)} to {percent(high)}"


def count(num: int, what: str) -> str:
    """Write a number of things; `what` is one of them."""
    return f"{num:,} {what}{'s' * (num != 1)}"


def show_results(results: Sequence[ModelResult]) -> Section:
    """Say what was run, what it came to, and what others have shown."""
    ran = Table.of(
        "What was run",
        ("model", "network", "preset", "reads", "parameters", "trained on", "epochs"),
        [_describe_run(result) for result in results],
    )
    came_to = Table.of(
        "Exact match on the test split: texts that are right in every character",
        ("model", "right", "95 % interval", "test pictures", "characters right", "calibration error"),
        [_describe_score(result) for result in results],
    )
    parts: list[Part] = [ran, came_to]
    if records := [
        record for alphabet in dict.fromkeys(result.alphabet for result in results) for record in _list_records(alphabet)
    ]:
        parts += [
            Table.of("What the public record has", ("what", "pictures", "right", "95 % interval", "test pictures"), records),
            Paragraph.of(
                "These figures are what others say; none was measured here. They are of releases of the package captcha before "
                "0.7.1, which warp more; the style ",
                Code("classic"),
                " draws as the last of them did. The test split is never seen in training, nor in the choice of the epoch.",
            ),
        ]
    return Section("results", "What was run, and what it came to", parts)


def _describe_run(result: ModelResult) -> tuple[str, ...]:
    card, spec = result.card, result.card.spec
    mixed = f"{percent(card.fresh, 0)} drawn meanwhile, else train"
    trained = {0.0: "the train split", 1.0: "pictures drawn meanwhile"}.get(card.fresh, mixed)
    reads = f"{card.dataset}: {spec.width}x{spec.height}, {spec.described_length} of {len(spec.alphabet)} characters"
    return (Code(result.name), card.family, card.preset, reads, f"{card.num_parameters:,}", trained, f"{len(result.history):,}")


def _describe_score(result: ModelResult) -> tuple[str, ...]:
    right, num = int(result.readings["right"].sum()), len(result.readings)
    metrics = result.metrics
    accuracy, calibration = percent(metrics["character_accuracy"]), percent(metrics["expected_calibration_error"])
    return (Code(result.name), percent(right / num), interval(right, num), f"{num:,}", accuracy, calibration)


def _list_records(alphabet: str) -> Iterator[tuple[str, ...]]:
    for what, pictures, right, num in RECORDS.get(alphabet, ()):
        share = float(right.removesuffix(" %")) / 100 if num and right.count(" ") == 1 else None
        spread = interval(round(share * num), num) if share and num else "not given"
        yield what, pictures, right, spread, f"{num:,}" if num else "not given"


def show_errors(results: Sequence[ModelResult], album: Album) -> Section:
    """Show the wrong readings of which a model was most certain, each with what cures it."""
    parts: list[Part] = []
    for result in results:
        parts += [Heading(result.name), _summarize_errors(result)]
        if not result.wrong.empty:
            parts += _count_cures(result)
            rows = result.wrong.head(NUM_ERRORS_SHOWN)
            caption = f"The {len(rows)} wrong readings of which {result.name} was most certain"
            parts.append(Gallery(caption, show_readings(result, rows, album)))
    return Section("errors", "Errors, and what causes them", parts)


def _summarize_errors(result: ModelResult) -> Paragraph:
    wrong = result.wrong
    lengths = (wrong["label"].str.len() != wrong["text"].str.len()).sum()
    edits = find_confusions(wrong)
    return Paragraph.of(
        f"{len(wrong):,} of {count(len(result.readings), 'reading')} are wrong, in {count(len(edits), 'character')}; "
        f"{lengths:,} have another length than the text on the picture."
    )


def _count_cures(result: ModelResult) -> list[Part]:
    """Count what cures wrong readings, where somebody has drawn them again."""
    if (explained := result.errors).empty:
        return []
    cures = [list(names) for names in explained["cured_by"]]
    counts, num = Counter(name for names in cures for name in names), len(cures)
    rows = [
        (words, f"{counts[name]:,}", percent(counts[name] / num, 1), interval(counts[name], num)) for name, words in CURES.items()
    ]
    rows.append(
        ("none of these helps", f"{(none := sum(not names for names in cures)):,}", percent(none / num, 1), interval(none, num))
    )
    table = Table.of(
        f"Wrong pictures of {result.name} that are read right when they are drawn again",
        ("drawn again", "read right", "share", "95 % interval"),
        rows,
    )
    return [table]


def show_readings(
    result: ModelResult, rows: pd.DataFrame, album: Album, remarks: Mapping[int, Sequence[str]] | None = None
) -> list[Shown]:
    """Show readings with their pictures.

    Args:
        result: whose readings they are.
        rows: `id`, `label`, `text`, `confidence`.
        album: where the pictures go.
        remarks: what is said of a reading, by id; without it, how certain it was and what cures it.
    """
    keys = album.add(result, rows["id"].tolist())
    cures = dict(zip(result.errors["id"], result.errors["cured_by"], strict=True))
    shown = []
    for row in rows.to_dict("records"):
        number = row["id"]
        certain = f"{percent(row['confidence'], 1)} certain"
        cured = ", ".join(SHORT_CURES.get(name, name) for name in cures.get(number, ()))
        words = (certain, *([f"right if: {cured}"] if cured else [])) if remarks is None else tuple(remarks[number])
        shown.append(Shown(number, keys.get(number), *align(row["label"], row["text"]), words))
    return shown


def show_pairs(results: Sequence[ModelResult], album: Album) -> Section:
    """Say how little tells a wrong picture from the one that it was taken for."""
    parts: list[Part] = [
        Paragraph.of(
            "Each wrong reading of the right length is drawn again with the characters that were read, and every other choice "
            "as it was: that is the other picture of a pair. Pixels count that differ visibly, by more than 32 levels of 255. "
            "Where few do, hardly anybody could tell the two apart."
        )
    ]
    for result in results:
        pairs = result.errors[result.errors["pair_pixels"].notna()]
        if pairs.empty:
            parts += [Heading(result.name), Paragraph.of("No wrong reading of the right length was drawn again.")]
            continue
        parts += [Heading(result.name), _count_pairs(result, pairs)]
        parts.append(Gallery("The pairs that differ least", _show_closest(result, pairs, album)))
    return Section("pairs", "Minimal pairs", parts)


def _count_pairs(result: ModelResult, pairs: pd.DataFrame) -> Table:
    num = len(pairs)
    below = [(limit, int((pairs["pair_pixels"] < limit).sum())) for limit in PIXEL_LIMITS]
    texts = dict(zip(result.readings["id"], result.readings["text"], strict=True))
    same = sum(pair_text == texts[number] for number, pair_text in zip(pairs["id"], pairs["pair_text"], strict=True))
    rows = [(f"differ visibly in fewer than {limit} pixels", f"{below:,}", percent(below / num, 1)) for limit, below in below]
    rows.append(("are both read as the wrong text", f"{same:,}", percent(same / num, 1)))
    return Table.of(f"Of {count(num, 'pair')} of {result.name}", ("pairs that", "pairs", "share"), rows)


def _show_closest(result: ModelResult, pairs: pd.DataFrame, album: Album) -> list[Shown]:
    closest = pairs.sort_values(["pair_pixels", "id"]).head(NUM_PAIRS_SHOWN)
    rows = closest[["id", "pair_pixels", "pair_text"]].merge(result.readings, on="id")
    remarks = {
        row["id"]: (f"{int(row['pair_pixels']):,} pixels differ", f"the other is read {row['pair_text'] or 'as nothing'}")
        for row in rows.to_dict("records")
    }
    pictures = album.add_pairs(result, dict(zip(rows["id"], rows["text"], strict=True)))
    return [replace(shown, pair=pictures.get(shown.id)) for shown in show_readings(result, rows, album, remarks)]


def show_confusion(results: Sequence[ModelResult]) -> Section:
    """List which characters are taken for which, beside how often they occur."""
    parts: list[Part] = []
    for result in results:
        counted = count_confusions(result.characters)
        wrong = counted[counted["actual"] != counted["predicted"]].sort_values(["count", "actual"], ascending=[False, True])
        rows = [
            (_name(row["actual"]), _name(row["predicted"]), f"{row['count']:,}", *_compare_with_total(row["count"], row["total"]))
            for row in wrong.head(NUM_CONFUSIONS_SHOWN).to_dict("records")
        ]
        caption = f"{result.name}: the commonest of {count(int(wrong['count'].sum()), 'misread character')}"
        parts.append(Table.of(caption, ("on the picture", "read as", "times", "of", "share"), rows))
    return Section("confusion", "Confusion", parts)


def _name(character: str) -> str:
    return "nothing" if character == NOTHING else Code(character)


def _compare_with_total(num: int, total: Any) -> tuple[str, str]:
    return ("-", "-") if pd.isna(total) else (f"{total:,}", percent(num / total))


def show_calibration(results: Sequence[ModelResult]) -> Section:
    """Say whether confidence can be relied on, and how much can be answered at a given share of right answers."""
    parts: list[Part] = [Paragraph.of(_answer(result, 0.999)) for result in results]
    curves = [point for result in results for point in find_risk_curve(result)]
    targets = [(Code(result.name), *_answer_all(result)) for result in results]
    numbers = Table.of(
        "Pictures that can be answered", ("model", *(f"at {percent(target, 2)} right" for target in TARGETS)), targets
    )
    spec = draw_lines(
        curves,
        x={"field": "answered", "title": "share of pictures answered, the most certain first", "axis": {"format": "~%"}},
        y={"field": "wrong", "title": "share of answers that are wrong", "axis": {"format": "~%"}},
    )
    parts.append(Chart("How much can be answered, and how much of that is wrong", spec, numbers))
    bins = pd.concat([score_by_confidence(result.readings).assign(rev=result.name) for result in results])
    title = "What share was right of the texts of a confidence; on the line is a model that is right as often as it says"
    lines = [(Code(row["rev"]), percent(row["confidence"]), *_describe_share(row)) for row in bins.to_dict("records")]
    numbers = Table.of(title, ("model", "confidence", *SHARE_HEAD), lines)
    parts.append(Chart(title, draw_reliability(bins.to_dict("records")), numbers))
    return Section("calibration", "Calibration, and what can be answered", parts)


def find_answerable(readings: pd.DataFrame, target: float) -> tuple[float, float]:
    """Find how many readings can be answered such that a share of the answers is right, the most certain first.

    Args:
        readings: `confidence` and `right`.
        target: of the answers, right; 0 to 1.

    Returns:
        The share of readings that are answered, and the least confidence of one; 0 and 1 where there is no such threshold.
    """
    ordered = readings.sort_values("confidence", ascending=False)
    right = ordered["right"].to_numpy().cumsum() / np.arange(1, len(ordered) + 1)
    confidence = ordered["confidence"].to_numpy()
    # Readings of the same confidence are answered together.
    is_threshold = np.append(confidence[1:] < confidence[:-1], True)
    reached = np.flatnonzero((right >= target) & is_threshold)
    return ((int(reached[-1]) + 1) / len(ordered), float(confidence[reached[-1]])) if len(reached) else (0.0, 1.0)


def _answer(result: ModelResult, target: float) -> str:
    share, threshold = find_answerable(result.readings, target)
    if not share:
        return f"At {percent(target, 1)} right {result.name} can answer no picture: no threshold of confidence gives that."
    return (
        f"At {percent(target, 1)} right {result.name} can answer {percent(share, 1)} of the pictures, those of which it is "
        f"at least {percent(floor(threshold * 1e6) / 1e6, 4)} certain."
    )


def _answer_all(result: ModelResult) -> tuple[str, ...]:
    return tuple(percent(find_answerable(result.readings, target)[0], 1) for target in TARGETS)


def find_risk_curve(result: ModelResult) -> Iterator[dict[str, object]]:
    """Compute what share of the answers is wrong when only the most certain readings are answered, for many shares."""
    ordered = result.readings.sort_values("confidence", ascending=False)
    wrong, num = (~ordered["right"]).to_numpy().cumsum(), len(ordered)
    for answered in np.unique(np.linspace(1, num, min(NUM_POINTS, num)).astype(int)).tolist():
        yield {"rev": result.name, "answered": answered / num, "wrong": float(wrong[answered - 1] / answered)}


def _describe_share(row: Mapping[Any, Any]) -> tuple[str, str, str]:
    return percent(row["accuracy"]), f"{percent(row['low'])} to {percent(row['high'])}", f"{row['samples']:,}"


def show_slices(results: Sequence[ModelResult]) -> Section:
    """Show exact match on parts of the test split."""
    parts: list[Part] = []
    for result in results:
        parts.append(Heading(result.name))
        for name, table in slice_readings(result).items():
            title = f"{result.name}: share read right by {name}, with 95 % intervals"
            key, rows = table.columns[0], table.assign(rev=result.name).to_dict("records")
            numbers = Table.of(title, (name, *SHARE_HEAD), [(str(row[key]), *_describe_share(row)) for row in rows])
            parts.append(Chart(title, draw_accuracy(rows, key=key, key_label=name, label="share read right"), numbers))
        if result.dataset is None:
            parts.append(Paragraph.quote(f"By ink: the index of the dataset {result.card.dataset} is not here: {MAKE_OR_PULL}."))
    return Section("slices", "Slices", parts)


def slice_readings(result: ModelResult) -> dict[str, pd.DataFrame]:
    """Compute the share of texts read right by luminance of the ink, and of characters by place and by what they are."""
    pairs = result.characters
    slices = {"position of the character": score_by_position(pairs), "character": score_by_character(pairs)}
    if result.dataset is None:
        return slices
    index = result.dataset.index.select(["id", "ink_luminance"]).to_pandas()
    return {"luminance of the ink": score_by_ink(result.readings.merge(index, on="id"))} | slices


def show_learning_curves(results: Sequence[ModelResult]) -> Section:
    """Show how exact match on the validation part grew."""
    points, rows = [], []
    for result in results:
        for number, epoch in enumerate(result.history, 1):
            share = float(epoch["val_exact_match"])
            points.append({"rev": result.name, "epoch": number, "exact_match": share})
            losses = (f"{float(epoch['loss']):.4f}", f"{float(epoch['val_loss']):.4f}")
            rows.append((Code(result.name), str(number), percent(share), percent(float(epoch["exact_match"])), *losses))
    title = "Exact match on the validation part after each epoch"
    spec = draw_lines(
        points,
        x={"field": "epoch", "title": "epoch", "axis": {"tickMinStep": 1}},
        y={"field": "exact_match", "title": "exact match", "axis": {"format": "~%"}, "scale": {"zero": False}},
    )
    head = ("model", "epoch", "validation", "training", "loss", "validation loss")
    return Section("learning", "Learning curves", [Chart(title, spec, Table.of(title, head, rows))])
