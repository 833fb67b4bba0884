"""The report: what was run, what it came to and why, as one HTML file that needs nothing else, or as Markdown.

Equal results give equal bytes. Neither needs TensorFlow, nor a network.
"""

import base64
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from io import BytesIO
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
from markupsafe import Markup
from PIL import Image

from captcha_registry.dataset.readings import READINGS_NAME
from captcha_registry.dataset.spec import DatasetSpec
from captcha_registry.params import load_section
from captcha_registry.recognition.recipe import load_model_params
from captcha_registry.seeing.album import Album
from captcha_registry.seeing.change_section import show_changes
from captcha_registry.seeing.charts import PALETTE
from captcha_registry.seeing.comparing import Changes
from captcha_registry.seeing.document import Code, Gallery, Heading, Paragraph, Part, Section, Table
from captcha_registry.seeing.health_section import show_health
from captcha_registry.seeing.results import ModelResult, hash_md5
from captcha_registry.seeing.sections import (
    show_calibration,
    show_confusion,
    show_errors,
    show_learning_curves,
    show_pairs,
    show_results,
    show_slices,
)
from captcha_registry.seeing.svg import DARK_PALETTE, draw_svg

# Of a file of 3 MB: base64 makes a third more of pictures, and the rest are tables and charts.
MAX_PICTURE_BYTES = 1_400_000
# By this line a comment is found again, to be replaced.
MARKER = "<!-- captcha-registry report -->"
# What GitHub takes as a comment is shorter than 65,536.
MAX_MARKDOWN_BYTES = 65_000
# Rows of a table or gallery, fewer until a comment is short enough.
ROW_LIMITS = (40, 20, 10, 5, 2)
# Longer tables are folded.
NUM_ROWS_OPEN = 14


@dataclass(frozen=True, slots=True)
class Report:
    """What is shown, and the PNG bytes of its pictures by key."""

    sections: Sequence[Section]
    pictures: Mapping[str, bytes]


def compose_report(results: Sequence[ModelResult], changes: Changes | None = None, origin: Paragraph | None = None) -> Report:
    """Say all that there is to say.

    Args:
        results: of each model.
        changes: since another revision, where it is compared with one.
        origin: the commit that the results are of, in words; None where only dvc.lock knows.
    """
    if not results:
        return Report([Section("results", "Results", [Paragraph.of("There is no model, so nothing has been trained.")])], {})
    album = Album(MAX_PICTURE_BYTES)
    sections = [
        show_results(results),
        show_changes(results, changes, album),
        show_errors(results, album),
        show_pairs(results, album),
        show_confusion(results),
        show_calibration(results),
        show_slices(results),
        show_learning_curves(results),
        show_health(results),
        show_way(results, changes, origin),
    ]
    if album.lacking:
        errors = sections[2]
        sections[2] = Section(errors.anchor, errors.title, [*map(Paragraph.quote, album.lacking), *errors.parts])
    return Report(sections, album.pictures)


def show_way(results: Sequence[ModelResult], changes: Changes | None, origin: Paragraph | None) -> Section:
    """Say how to come to the same results."""
    hashes = {r.name: hash_md5(Path("models") / r.name / READINGS_NAME) for r in results}
    found = Code(f"git log --reverse --format=%H -S{hashes[results[0].name]} -- dvc.lock")
    compare = f" --compare {changes.revision}" if changes else ""
    parts: list[Part] = [
        origin or Paragraph.of("The first that ", found, " names is the commit."),
        Paragraph.of(
            Code("git checkout COMMIT"),
            ", ",
            Code("make repro"),
            " and ",
            Code(f"captcha-registry report{compare}"),
            " make all of it.",
        ),
        Table.of(
            "What it was made from and came to",
            ("model", "dataset id", "SHA-256 of the weights", "MD5 of the readings"),
            [
                (Code(r.name), Code(r.card.dataset_id[:16]), Code(r.card.model_sha256[:16]), Code(hashes[r.name][:16]))
                for r in results
            ],
        ),
    ]
    for result in results:
        model = load_model_params(result.name).model_dump(mode="json")
        of_preset = {key: value for key, value in model.items() if key not in {"fast", "lab"} or key == model["preset"]}
        dataset = load_section(DatasetSpec, f"datasets.{result.card.dataset}").model_dump(mode="json")
        rows = [
            (Code(key), Code(value))
            for key, value in [*_flatten(of_preset), *_flatten(dataset, f"datasets.{result.card.dataset}.")]
        ]
        parts += [Heading(result.name), Table.of(f"Parameters of {result.name} and its dataset", ("key", "value"), rows)]
    return Section("way", "How to reproduce it", parts)


def _flatten(section: Mapping[str, object], prefix: str = "") -> list[tuple[str, str]]:
    """List the values of a section with their dotted keys."""
    lines = []
    for key, value in section.items():
        lines += _flatten(value, f"{prefix}{key}.") if isinstance(value, Mapping) else [(f"{prefix}{key}", str(value))]
    return lines


def render_html(report: Report) -> bytes:
    """Write a report as one HTML file."""
    template = _make_environment().get_template("report.html.j2")
    return template.render(report=report, light=PALETTE, dark=DARK_PALETTE, folded=NUM_ROWS_OPEN).encode()


def render_markdown(report: Report) -> str:
    """Write a report as Markdown that fits into a comment; tables are cut until it does, and then sections."""
    environment = _make_environment()
    environment.globals |= {"marker": MARKER, "folded": NUM_ROWS_OPEN}
    sections = list(report.sections)
    while True:
        for limit in ROW_LIMITS:
            environment.globals["limit"] = limit
            template = environment.get_template("report.md.j2")
            text = template.render(sections=sections, left_out=len(report.sections) - len(sections))
            text = re.sub(r"\n{3,}", "\n\n", text)
            if len(text.encode()) < MAX_MARKDOWN_BYTES:
                return text
        sections.pop()


def _make_environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=select_autoescape(["html.j2"], default=False),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "base64": lambda png: base64.b64encode(png).decode(),
        "html": _write_html,
        "lines": _list_readings,
        "markdown": _write_markdown,
        "size": lambda png: Image.open(BytesIO(png), formats=["png"]).size,
        "svg": lambda chart: Markup(draw_svg(chart.spec, chart.title)),  # noqa: S704 - Vega escapes the texts in it
    }
    return environment


def _list_readings(gallery: Gallery) -> list[tuple[str, ...]]:
    """Write the readings of a gallery as rows of a table."""
    return [(str(item.id), Code(item.drawn), Code(item.read), "; ".join(item.remarks)) for item in gallery.items]


def _write_html(text: str) -> Markup:
    return Markup("<code>{}</code>").format(text) if isinstance(text, Code) else Markup("{}").format(text)


def _write_markdown(text: str) -> str:
    """Write a text so that nothing in it is markup, a link or somebody's name."""
    if not isinstance(text, Code):
        return escape(text, quote=False).replace("|", "&#124;")
    return f"<code>{''.join(c if c.isalnum() or c in ' .-' else f'&#{ord(c)};' for c in text)}</code>"
