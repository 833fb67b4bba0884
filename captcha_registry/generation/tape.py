"""The random numbers of a sample, each under the name of what it chooses. A sample can be drawn again with some of them replaced.

Every choice takes one number from 0 up to 1: 0 is the lowest value, 1 the highest. The order of the choices depends only on the
length of the text and on the blanks (`Drawer.choose`). Whatever is not replaced stays as it was drawn.

| name                                                 | chooses                                                            |
|------------------------------------------------------|--------------------------------------------------------------------|
| `length`                                             | the number of characters, if the spec leaves a choice              |
| `text[0]`                                            | a character of the alphabet                                        |
| `background.red`, `.green`, `.blue`                  | the colour of the background                                       |
| `ink.alpha`                                          | hardly anything: lighter text is more opaque, whatever this is     |
| `ink.red`, `.green`, `.blue`                         | the colour of text, dots and curves                                |
| `blank[0]`                                           | whether there is a blank before a character: if above 0.5          |
| `font[0]`                                            | font and size: all sizes of the first font, then of the next       |
| `offset[0].x`, `.y`                                  | what the edge cuts off of a character that juts out of its cell    |
| `rotation[0]`                                        | -30 to 30 degrees to the left; 0.5 is upright                      |
| `warp[0].reach_x`, `.reach_y`                        | by how much the corners of a character may move                    |
| `warp[0].x1`, `.y1`, `.x2`, `.y2`                    | by how much they move; 0.5 is not at all                           |
| `overlap[0]`                                         | how far the next character overlaps this one                       |
| `blank_font[0]`, ..., `blank_overlap[0]`             | the same for the blank before it; only size and overlap show       |
| `dot[0].x`, `.y`                                     | the place of a dot                                                 |
| `curve[0].x1`, `.x2`, `.y1`, `.y2`, `.end`, `.start` | the box of a curve, and the angles between which it is drawn       |
"""

import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Self

from captcha.image import ImageCaptcha

from captcha_registry.dataset.spec import DatasetSpec
from captcha_registry.errors import UserError
from captcha_registry.generation.drawing import sample_stream

# What a choice takes that the sample did not make, of a blank where there was none.
MIDDLE = 0.5

_OF_PICTURE = ("background.red", "background.green", "background.blue", "ink.alpha", "ink.red", "ink.green", "ink.blue")
_OF_GLYPH = (
    *("font[{}]", "offset[{}].x", "offset[{}].y", "rotation[{}]", "warp[{}].reach_x", "warp[{}].reach_y"),
    *("warp[{}].x1", "warp[{}].y1", "warp[{}].x2", "warp[{}].y2"),
)
_OF_DOT = ("dot[{}].x", "dot[{}].y")
_OF_CURVE = ("curve[{}].x1", "curve[{}].x2", "curve[{}].y1", "curve[{}].y2", "curve[{}].end", "curve[{}].start")


@dataclass(frozen=True, slots=True)
class Tape:
    """The random numbers of one sample of a spec, from 0 up to 1, by name."""

    spec: DatasetSpec
    numbers: Mapping[str, float]

    @classmethod
    def record(cls, spec: DatasetSpec, sample_id: int) -> Self:
        """Record the numbers that a sample is drawn with."""
        stream, numbers = sample_stream(spec.seed, sample_id), {}

        def take(name: str) -> float:
            numbers[name] = stream.random()
            return numbers[name]

        _take_all(spec, take)
        return cls(spec, numbers)

    def replace(self, numbers: Mapping[str, float]) -> Self:
        """Return a tape with other numbers.

        Raises:
            UserError: nothing of this sample is chosen by such a name, or with such a number.
        """
        changed = replace(self, numbers={**self.numbers, **numbers})
        known = self.numbers.keys() | {name for name, _ in changed}
        for name, number in numbers.items():
            if name not in known:
                raise UserError(f"nothing of this sample is chosen by {name!r}; its choices are {', '.join(self.numbers)}")
            if not 0 <= number < 1:
                raise UserError(f"{name} is {number}; expected a number from 0 up to 1, without 1 itself")
        return changed

    def __iter__(self) -> Iterator[tuple[str, float]]:
        """Yield names and numbers in the order in which a picture is drawn with them."""
        played: dict[str, float] = {}

        def take(name: str) -> float:
            played[name] = self.numbers.get(name, MIDDLE)
            return played[name]

        _take_all(self.spec, take)
        return iter(played.items())

    def play(self) -> random.Random:
        """Return a stream for `Drawer.draw_from` that ends when the picture is drawn."""
        return _Playback(number for _, number in self)


class _Playback(random.Random):
    """Gives the numbers that it was given."""

    def __init__(self, numbers: Iterator[float]) -> None:
        super().__init__()
        self._numbers = numbers

    def random(self) -> float:
        return next(self._numbers)


def number_of(choice: int, num_choices: int) -> float:
    """Return a number that chooses one of so many, from 0."""
    return (choice + 0.5) / num_choices


def _take_all(spec: DatasetSpec, take: Callable[[str], float]) -> None:
    """Take the number of every choice, in the order of `Drawer.choose`."""
    length = spec.min_length
    if spec.min_length < spec.max_length:
        length += int(take("length") * (spec.max_length - spec.min_length + 1))
    for name in (*(f"text[{n}]" for n in range(length)), *_OF_PICTURE):
        take(name)
    glyphs = []
    for n in range(length):
        # `captcha` compares 32 bits of the number.
        if int(take(f"blank[{n}]") * (1 << 32)) > ImageCaptcha.word_space_probability * (1 << 32):
            glyphs.append(("blank_", n))
            _take_each(_OF_GLYPH, n, take, prefix="blank_")
        glyphs.append(("", n))
        _take_each(_OF_GLYPH, n, take)
    for prefix, n in glyphs:
        take(f"{prefix}overlap[{n}]")
    for names, number in ((_OF_DOT, spec.dots), (_OF_CURVE, spec.curves)):
        for n in range(number):
            _take_each(names, n, take)


def _take_each(names: tuple[str, ...], number: int, take: Callable[[str], float], prefix: str = "") -> None:
    for name in names:
        take(prefix + name.format(number))
