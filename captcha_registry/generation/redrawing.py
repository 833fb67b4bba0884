"""Draw a sample again with one thing different and all else in its place.

A *pair* differs from the sample in its text alone. What a model makes of it tells whether the two can be told apart.

Of each of the `CAUSES` that make a text hard to read, the sample can be drawn without:

- `curve`, `dots`: none are drawn.
- `rotation`, `warp`: characters stand upright; their corners are where they belong.
- `squeeze`: a text that is wider than the picture is pressed into it. Here it is drawn as `captcha` might have drawn it to be
  narrower: without blanks and, if that is not enough, its characters no larger than the largest size in which it fits; in the
  smallest size, if it fits in none. So a network sees nothing that it could not have met in training.
- `ink`: the text is drawn as opaque as its ink is light (`generation.drawing`). Here the ink is as much lighter as it takes to be
  opaque, as far as the spec allows.
- `chance`: nothing is taken away; the dots are elsewhere. Some samples are so near to being read right that any change does it:
  what cures no more of them than this does is no cause.
"""

import math
import random
from typing import Literal, get_args

import numpy as np

from captcha_registry.generation.drawing import Captcha, Choices, Drawer, Sketch
from captcha_registry.generation.pixels import OPACITIES
from captcha_registry.generation.tape import Tape, number_of

Cause = Literal["curve", "dots", "rotation", "warp", "squeeze", "ink", "chance"]
CAUSES: tuple[Cause, ...] = get_args(Cause)

# Of the luminances, the lowest whose text is opaque.
OPAQUE_LUMINANCE = int(np.argmax(OPACITIES))


class Redrawing:
    """One sample of a dataset, drawn as it is and as it would be."""

    def __init__(self, drawer: Drawer, sample_id: int) -> None:
        """Make the choices of a sample again."""
        self._drawer = drawer
        self.tape = Tape.record(drawer.spec, sample_id)
        self.sketch = self._choose(self.tape)

    def draw(self) -> Captcha:
        """Draw the sample as it is."""
        return self._drawer.paint(self.sketch)

    def can_show(self, text: str) -> bool:
        """Tell whether a text can be drawn in the place of the sample's own."""
        return len(text) == len(self.sketch.label) and set(text) <= set(self._drawer.spec.alphabet)

    def draw_pair(self, text: str) -> Captcha:
        """Draw another text of the same length: each character with the choices of the one in whose place it is.

        Characters differ in width: by a pixel, or in other fonts by many. `captcha` would move all that comes after a wider one,
        and press the text more. Here every character starts where it did, and the text is pressed as it was.
        """
        alphabet = self._drawer.spec.alphabet
        numbers = {f"text[{n}]": number_of(alphabet.index(character), len(alphabet)) for n, character in enumerate(text)}
        other = self._choose(self.tape.replace(numbers))
        placed = [glyph._replace(left=original.left) for glyph, original in zip(other.glyphs, self.sketch.glyphs, strict=True)]
        return self._drawer.paint(other._replace(glyphs=placed, width=self.sketch.width))

    def draw_without(self, cause: Cause) -> Captcha:
        """Draw the sample without what may have made it hard to read."""
        return self._drawer.paint(self._sketch_without(cause))

    def _sketch_without(self, cause: Cause) -> Sketch:
        sketch = self.sketch
        match cause:
            case "curve":
                changed = sketch._replace(noise=sketch.noise._replace(curves=[]))
            case "dots":
                changed = sketch._replace(noise=sketch.noise._replace(dots=[]))
            case "rotation":
                changed = sketch._replace(glyphs=[glyph._replace(cosine=1.0, sine=0.0) for glyph in sketch.glyphs])
            case "warp":
                changed = sketch._replace(glyphs=[glyph._replace(corners=(0, 0, 0, 0)) for glyph in sketch.glyphs])
            case "squeeze":
                changed = self._sketch_narrower()
            case "ink":
                changed = self._sketch_opaque()
            case "chance":
                changed = sketch._replace(noise=sketch.noise._replace(dots=self._scatter_dots()))
        return changed

    def _choose(self, tape: Tape) -> Sketch:
        return self._drawer.choose(Choices(tape.play()), self._drawer.spec.alphabet)

    def _scatter_dots(self) -> list[tuple[int, int]]:
        """Choose other places for the dots, the same ones every time."""
        stream = random.Random(self.tape.numbers["ink.alpha"])  # noqa: S311 - pictures, not secrets
        numbers = {name: stream.random() for name in self.tape.numbers if name.startswith("dot[")}
        return self._choose(self.tape.replace(numbers)).noise.dots

    def _sketch_narrower(self) -> Sketch:
        """Leave out blanks and limit the size of characters, until the text fits."""
        if self.sketch.width == self._drawer.spec.width:
            return self.sketch
        tape = self.tape.replace({f"blank[{n}]": 0.0 for n in range(len(self.sketch.label))})
        for largest in sorted(self._drawer.spec.font_sizes, reverse=True):
            narrower = self._choose(tape.replace(self._limit_sizes(largest)))
            if narrower.width == self._drawer.spec.width:
                break
        return narrower

    def _limit_sizes(self, largest: int) -> dict[str, float]:
        """Return the numbers that give each character its own font, in a size up to the largest."""
        sizes = self._drawer.spec.font_sizes
        num_fonts = max(1, len(self._drawer.spec.fonts)) * len(sizes)
        numbers = {}
        for name in (f"font[{n}]" for n in range(len(self.sketch.label))):
            file, size = divmod(int(self.tape.numbers[name] * num_fonts), len(sizes))
            if sizes[size] > largest:
                numbers[name] = number_of(file * len(sizes) + sizes.index(largest), num_fonts)
        return numbers

    def _sketch_opaque(self) -> Sketch:
        """Make ink that is too dark lighter, by the same share of the way to the lightest ink in each channel."""
        *channels, alpha = self.sketch.ink
        lightest = self._drawer.spec.ink.max
        luminance = 0.299 * channels[0] + 0.587 * channels[1] + 0.114 * channels[2]
        if luminance >= OPAQUE_LUMINANCE:
            return self.sketch
        share = min(1.0, (OPAQUE_LUMINANCE - luminance) / max(lightest - luminance, 1.0))
        red, green, blue = (math.ceil(channel + share * (lightest - channel)) for channel in channels)
        return self.sketch._replace(ink=(red, green, blue, alpha))
