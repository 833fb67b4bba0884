"""What a report is made of, whatever it is written as: sections of paragraphs, tables, charts and pictures."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from captcha_registry.recognition.tables import align_texts

# A number with its sign and unit, and maybe the other end of a range.
NUMBER = re.compile(r"[<>+-]?\s?\d[\d,.]*(\s?%)?((-| to )[<>]?\s?\d[\d,.]*(\s?%)?)?")
# Stands where an alignment has no character.
GAP = "\N{MIDDLE DOT}"


class Code(str):
    """A text of a dataset, a name or a command: shown as it is, and nothing in it means anything to HTML or Markdown."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Paragraph:
    """Some sentences."""

    parts: tuple[str, ...]
    kind: str = "paragraph"

    @classmethod
    def of(cls, *parts: str) -> "Paragraph":
        """Make a paragraph of texts, some of which may be `Code`."""
        return cls(parts)

    @classmethod
    def quote(cls, text: str) -> "Paragraph":
        """Make a paragraph of a text in which commands stand between backticks, as in an error."""
        return cls(tuple(Code(part) if number % 2 else part for number, part in enumerate(text.split("`"))))


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of texts below a head; columns that hold numbers are aligned at their right."""

    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    numeric: frozenset[int] = frozenset()
    kind: str = "table"

    @classmethod
    def of(cls, caption: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> "Table":
        """Make a table; a column holds numbers if each of its cells is one, or a range of them."""

        def is_number(cell: str) -> bool:
            return not isinstance(cell, Code) and NUMBER.fullmatch(cell) is not None

        numeric = (n for n in range(len(head)) if rows and all(is_number(row[n]) for row in rows))
        return cls(caption, head, rows, frozenset(numeric))


@dataclass(frozen=True, slots=True)
class Chart:
    """A Vega-Lite chart, what it shows in a sentence, and its numbers."""

    title: str
    spec: Mapping[str, object]
    numbers: Table
    kind: str = "chart"


@dataclass(frozen=True, slots=True)
class Heatmap:
    """A grid of shares, 0 to 1, each row from left to right, with what it shows in a sentence."""

    title: str
    png: bytes
    numbers: Table
    kind: str = "heatmap"


@dataclass(frozen=True, slots=True)
class Shown:
    """One captcha with what stands on it, what was read, and remarks.

    Attributes:
        picture: the key of its picture in the `Album`; None where there is none.
        pair: the key of the picture that shows what was read; None where there is none.
        drawn: the text on it, aligned with `read`: both have the same length, and `GAP` where the other has one character more.
    """

    id: int
    picture: str | None
    drawn: str
    read: str
    remarks: tuple[str, ...] = ()
    pair: str | None = None

    @property
    def columns(self) -> list[tuple[str, str]]:
        """The characters of both, one above the other."""
        return list(zip(self.drawn, self.read, strict=True))


@dataclass(frozen=True, slots=True)
class Gallery:
    """Captchas side by side."""

    caption: str
    items: Sequence[Shown]
    kind: str = "gallery"


@dataclass(frozen=True, slots=True)
class Heading:
    """What the following parts of a section speak of."""

    text: str
    kind: str = "heading"


Part = Paragraph | Table | Chart | Heatmap | Gallery | Heading


@dataclass(frozen=True, slots=True)
class Section:
    """A titled part of the report; `anchor` is its address in the file."""

    anchor: str
    title: str
    parts: Sequence[Part]


def align(label: str, text: str) -> tuple[str, str]:
    """Write a label and what was read one above the other, with gaps, such that the fewest characters differ."""
    pairs = align_texts(label, text)
    return "".join(drawn or GAP for drawn, _ in pairs), "".join(read or GAP for _, read in pairs)
