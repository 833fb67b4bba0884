"""Draw captchas from (spec, sample id), each with a random stream of its own, to the pixel as the `captcha` package would.

Sample *i* depends on nothing but the spec's seed, alphabet, length, size and style and on *i*, so it can be drawn in any
order, by any worker. A sample's stream is `random.Random` keyed by seed and id, of which only `random()` is used, the one
method whose sequence Python promises to keep. It is consumed call for call as `captcha` 0.7.1 would consume `secrets`.

`captcha` makes each picture with about 150 calls into Pillow. Here its random choices are kept, and what follows from
them is done in a few compiled passes (`generation.pixels`); blank characters, which it draws half of the time before
a character and which leave no trace, keep only their choices and their width.

The text is blended in by its own luminance, so dark ink comes out faint.
"""

import hashlib
import itertools
import math
import os
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from captcha.image import DEFAULT_FONTS, ImageCaptcha
from PIL import Image, ImageDraw, ImageFont

from captcha_registry.dataset.manifest import Manifest
from captcha_registry.dataset.spec import ChannelRange, DatasetSpec
from captcha_registry.errors import UserError
from captcha_registry.generation.pixels import OPACITIES, PlacedGlyph, cover, mark, paint_glyph, resize, smooth

# Raise by one with every change that gives any sample other pixels, another label or other bytes.
DRAWING_VERSION = 2

# Packages whose version may change the pixels or the encoded bytes.
DRAWING_PACKAGES = ("captcha", "numba", "pillow", "zlib-ng")

FONTS_DIR = Path("fonts")

_FONT_SUFFIXES = frozenset({".ttf", ".otf", ".ttc", ".otc", ".woff", ".woff2", ".bdf", ".pcf", ".pfb"})

# No font has a glyph for the last code point: what is drawn for it is drawn for every character that a font lacks.
_MISSING = "\U0010ffff"

# Of drawn characters, kept until there are more. All of captcha's own font in its own sizes are 0.3 MB; in large italics, where
# each may be cut off in 35 ways, they would be hundreds.
MAX_GLYPH_BYTES = 32 << 20

# Of the libraries that draw characters, FreeType and HarfBuzz; they are read when Pillow is imported, too early to set them back.
_FONT_SETTINGS = ("FREETYPE_PROPERTIES", "HB_FONT_FUNCS", "HB_OPTIONS", "HB_SHAPER_LIST")

_DOT_WIDTH = 3
_BLANK = np.empty((0, 0), np.uint8)

Colour = tuple[int, int, int]
Ink = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class Captcha:
    """One drawn captcha: pixels `(height, width, 3)` uint8, the text on it, and the colours that were used."""

    pixels: npt.NDArray[np.uint8]
    label: str
    ink: Colour
    background: Colour


class Noise(NamedTuple):
    """What is drawn on top of a text.

    Attributes:
        dots: x and y of each.
        curves: x1, y1, x2 and y2 of the box of each, and the degrees at which it starts and ends.
    """

    dots: list[tuple[int, int]]
    curves: list[tuple[int, int, int, int, int, int]]


class Sketch(NamedTuple):
    """All that is chosen for one captcha, before anything is painted.

    Attributes:
        label: the text.
        ink: red, green, blue and alpha of text, dots and curves.
        background: of the ground.
        glyphs: characters and the blanks between them, from left to right.
        width: columns of the ground that the text is painted on, which is pressed into the picture's width.
        noise: dots and curves.
    """

    label: str
    ink: Ink
    background: Colour
    glyphs: list[PlacedGlyph]
    width: int
    noise: Noise


def sample_stream(seed: int, sample_id: int) -> random.Random:
    """Make the random stream of one sample."""
    key = hashlib.blake2b(f"{seed}/{sample_id}".encode(), digest_size=16)
    return random.Random(int.from_bytes(key.digest(), "little"))  # noqa: S311 - pictures, not secrets


class Choices:
    """Random choices over a stream of floats from 0 to 1, one float for each."""

    def __init__(self, stream: random.Random) -> None:
        self._next: Callable[[], float] = stream.random

    def below(self, bound: int) -> int:
        """Choose 0 to `bound` - 1."""
        return int(self._next() * bound)

    def between(self, low: int, high: int) -> int:
        """Choose `low` to `high`."""
        return low + int(self._next() * (high - low + 1))

    def share(self) -> float:
        """Choose 0 to 1, in the 32 bits that `captcha` takes."""
        return int(self._next() * (1 << 32)) / (1 << 32)

    def colour(self, channels: ChannelRange) -> Colour:
        """Choose red, green and blue."""
        low, high = channels.min, channels.max
        return self.between(low, high), self.between(low, high), self.between(low, high)


class Drawer:
    """Draws the samples of one dataset. A pickled drawer is small: glyphs are drawn again where it arrives."""

    def __init__(self, spec: DatasetSpec, font_files: tuple[bytes, ...] | None = None) -> None:
        """Prepare to draw.

        Args:
            spec: the dataset.
            font_files: contents of the files that the spec names; read from `fonts/` if not given.
        """
        if changed := [name for name in _FONT_SETTINGS if os.environ.get(name)]:
            raise UserError(f"the environment sets {changed[0]}, which changes how characters look: `unset {changed[0]}`")
        self.spec = spec
        self.font_files = read_fonts(spec) if font_files is None else font_files
        self._glyphs: dict[tuple[str, int, int, int], npt.NDArray[np.uint8]] = {}
        self._glyph_bytes = 0

    def __reduce__(self) -> tuple[object, ...]:
        return Drawer, (self.spec, self.font_files)

    @cached_property
    def _fonts(self) -> list[ImageFont.FreeTypeFont]:
        files = self.font_files or (Path(DEFAULT_FONTS[0]).read_bytes(),)
        return [ImageFont.truetype(BytesIO(file), size) for file in files for size in self.spec.font_sizes]

    @cached_property
    def _boxes(self) -> dict[tuple[str, int], tuple[int, int, int, int]]:
        """Left, top, right and bottom of every character in every font, one pixel from the corner: its cell."""
        canvas = ImageDraw.Draw(Image.new("RGB", (1, 1)))
        characters = (*self.spec.alphabet, " ")
        boxes = {}
        for (n, font), character in itertools.product(enumerate(self._fonts), characters):
            left, top, right, bottom = canvas.multiline_textbbox((1, 1), character, font=font)
            boxes[character, n] = (int(left), int(top), int(right), int(bottom))
        return boxes

    @cached_property
    def _dot(self) -> npt.NDArray[np.int64]:
        """Pixels of a dot, x and y from its place."""
        canvas = Image.new("1", (9, 9))
        ImageDraw.Draw(canvas).line(((4, 4), (3, 3)), fill=1, width=_DOT_WIDTH)
        return np.argwhere(np.asarray(canvas))[:, ::-1] - 4

    def check_fonts(self) -> None:
        """Make sure that every font shows every character in every size.

        Raises:
            UserError: a file is not a font, is damaged, or lacks characters or sizes.
        """
        fonts = zip(self.spec.fonts, self.font_files, strict=True)
        for (name, file), size in itertools.product(fonts, self.spec.font_sizes):
            try:
                font = ImageFont.truetype(BytesIO(file), size)
                # Captchas may have a blank between characters.
                font.getmask(" ")
                missing = bytes(font.getmask(_MISSING))
                lacking = [c for c in self.spec.alphabet if not any(mask := bytes(font.getmask(c))) or mask == missing]
            except (OSError, ValueError) as error:
                raise UserError(
                    f"{FONTS_DIR / name} cannot be drawn at {size} pixels ({error}): it is damaged, no TrueType or OpenType "
                    "font, or has other sizes only: use another font or size"
                ) from None
            if lacking:
                raise UserError(f"{FONTS_DIR / name} has no glyph for {''.join(lacking)!r}: use another font or alphabet")

    def draw(self, sample_id: int) -> Captcha:
        """Draw one sample."""
        return self.draw_from(sample_stream(self.spec.seed, sample_id), self.spec.alphabet)

    def draw_from(self, stream: random.Random, characters: str) -> Captcha:
        """Draw a captcha of its own stream, its text of `characters`; one that stands there twice is drawn twice as often."""
        return self.paint(self.choose(Choices(stream), characters))

    def choose(self, choices: Choices, characters: str) -> Sketch:
        """Make all choices of a captcha, in the order in which `captcha` makes them."""
        spec = self.spec
        length = spec.min_length if spec.min_length == spec.max_length else choices.between(spec.min_length, spec.max_length)
        label = "".join(characters[choices.below(len(characters))] for _ in range(length))

        background = choices.colour(spec.background)
        alpha = choices.between(220, 255)
        ink = (*choices.colour(spec.ink), alpha)
        glyphs, width = self._choose_glyphs(label, choices)
        return Sketch(label, ink, background, glyphs, width, self.choose_noise(choices))

    def paint(self, sketch: Sketch) -> Captcha:
        """Paint what was chosen."""
        picture = self._paint_text(sketch)
        self.paint_noise(picture, sketch.ink, sketch.noise)
        return Captcha(pixels=smooth(picture), label=sketch.label, ink=sketch.ink[:3], background=sketch.background)

    def choose_noise(self, choices: Choices) -> Noise:
        """Choose the dots and curves of one captcha."""
        spec = self.spec
        dots = [(choices.below(spec.width + 1), choices.below(spec.height + 1)) for _ in range(spec.dots)]
        return Noise(dots, [self._choose_curve(choices) for _ in range(spec.curves)])

    def paint_noise(self, picture: npt.NDArray[np.uint8], ink: Ink, noise: Noise) -> None:
        """Paint dots and curves, in place."""
        if noise.dots:
            mark(picture, np.array(noise.dots), self._dot, ink)
        for *box, start, end in noise.curves:
            canvas = Image.new("L", (self.spec.width, self.spec.height))
            ImageDraw.Draw(canvas).arc(box, start, end, fill=255)
            cover(picture, np.frombuffer(canvas.tobytes(), np.uint8).reshape(self.spec.height, self.spec.width), ink)

    def draw_cell(self, character: str, font: int) -> npt.NDArray[np.uint8]:
        """Draw the coverage of a character, upright, in the size that it has on a picture; `(height, width)`."""
        _, _, width, height = self._boxes[character, font]
        mask = self._glyph(character, font, 0, 0)
        if not mask.size:
            return np.zeros((height, width), np.uint8)
        stretched = Image.fromarray(mask[1:-1, 1:-1]).resize((width, height), Image.Resampling.BICUBIC)
        return np.asarray(stretched)

    def _choose_glyphs(self, label: str, choices: Choices) -> tuple[list[PlacedGlyph], int]:
        """Choose the characters and the blanks before them, and their places; return how wide the ground must be, too."""
        glyphs = []
        for character in label:
            if choices.share() > ImageCaptcha.word_space_probability:
                glyphs.append(self._choose_glyph(" ", choices))
            glyphs.append(self._choose_glyph(character, choices))
        text_width = sum(glyph.width for glyph in glyphs)
        average = int(text_width / len(label))

        placed, left = [], int(average * 0.1)
        for glyph in glyphs:
            placed.append(glyph._replace(left=left))
            left += glyph.width - choices.below(int(ImageCaptcha.word_offset_dx * average) + 1)
        return placed, max(text_width, self.spec.width)

    def _paint_text(self, sketch: Sketch) -> npt.NDArray[np.uint8]:
        """Paint the text on its ground; `(height, width, 4)`."""
        picture = np.empty((self.spec.height, sketch.width, 4), np.uint8)
        picture.view(np.uint32)[:] = np.array((*sketch.background, 0), np.uint8).view(np.uint32)
        for glyph in sketch.glyphs:
            if glyph.mask.size:
                paint_glyph(picture, glyph, sketch.ink, OPACITIES)
        fitted: npt.NDArray[np.uint8] = resize(picture, self.spec.width, self.spec.height)
        return fitted

    def _choose_glyph(self, character: str, choices: Choices) -> PlacedGlyph:
        """Choose font, rotation and warp of one character."""
        font = choices.below(len(self._fonts))
        left, top, width, height = self._boxes[character, font]
        dx, dy = choices.between(*ImageCaptcha.character_offset_dx), choices.between(*ImageCaptcha.character_offset_dy)
        # Only what juts out above or to the left can be cut off by the edge of the cell; all else is the same anywhere.
        place = (dx, dy) if left < 1 or top < 1 else (0, 0)
        mask = self._glyph(character, font, *place)

        low, high = ImageCaptcha.character_rotate
        angle = -math.radians((low + choices.share() * (high - low)) % 360.0)
        reach_x = self._choose_reach(width, ImageCaptcha.character_warp_dx, choices)
        reach_y = self._choose_reach(height, ImageCaptcha.character_warp_dy, choices)
        x1, y1, x2, y2 = (int(choices.share() * (reach - -reach) + -reach) for reach in (reach_x, reach_y, reach_x, reach_y))
        # Pillow rounds so, too.
        cosine, sine = round(math.cos(angle), 15), round(math.sin(angle), 15)
        return PlacedGlyph(mask, cosine, sine, width, height, corners=(x1, y1, x2, y2), left=0)

    def _choose_reach(self, size: int, warp: tuple[float, float], choices: Choices) -> float:
        """Choose by how much the corners of a character may move."""
        low, high = warp
        if self.spec.style == "classic":
            return size * (low + (high - low) * choices.share())
        # 0.7.1 lost a pair of brackets, and with it most of the warp.
        return size * choices.share() * (high - low) + low

    def _choose_curve(self, choices: Choices) -> tuple[int, int, int, int, int, int]:
        """Choose the box of a curve, and where it starts and ends."""
        width, height = self.spec.width, self.spec.height
        x1 = choices.between(0, int(width / 5))
        first = width - int(width / 5) if self.spec.style == "classic" else int(width / 5)
        x2 = choices.between(first, width)
        y1 = choices.between(int(height / 5), height - int(height / 5))
        y2 = choices.between(y1, height - int(height / 5))
        end, start = choices.between(160, 200), choices.between(0, 20)
        return x1, y1, x2, y2, start, end

    def _glyph(self, character: str, font: int, dx: int, dy: int) -> npt.NDArray[np.uint8]:
        """Draw the coverage of a character, once; cropped to what is not empty, its border repeated. A blank one has none."""
        key = (character, font, dx, dy)
        if key not in self._glyphs:
            if self._glyph_bytes > MAX_GLYPH_BYTES:
                self._glyphs, self._glyph_bytes = {}, 0
            _, _, width, height = self._boxes[character, font]
            canvas = Image.new("L", (width + dx, height + dy))
            ImageDraw.Draw(canvas).text((dx, dy), character, font=self._fonts[font], fill=255)
            box = canvas.getbbox()
            self._glyphs[key] = np.pad(np.asarray(canvas.crop(box)), 1, mode="edge") if box else _BLANK
            self._glyph_bytes += self._glyphs[key].nbytes
        return self._glyphs[key]


def read_fonts(spec: DatasetSpec, folder: Path = FONTS_DIR) -> tuple[bytes, ...]:
    """Read the font files that a spec names.

    Raises:
        UserError: one is missing.
    """
    for name in spec.fonts:
        if not (folder / name).is_file():
            files = (path.name for path in folder.glob("*") if path.is_file() and path.suffix.lower() in _FONT_SUFFIXES)
            problem = "no file" if os.path.lexists(folder / name) else "not"
            raise UserError(
                f"fonts names {name!r}, which is {problem} in {folder.absolute()}; font files there: "
                f"{', '.join(sorted(files)) or 'none'}"
            )
    return tuple((folder / name).read_bytes() for name in spec.fonts)


def hash_fonts(names: Sequence[str], files: Sequence[bytes]) -> dict[str, str]:
    """Compute the SHA-256 of font files by their names."""
    return {name: hashlib.sha256(file).hexdigest() for name, file in zip(names, files, strict=True)}


def make_drawer(manifest: Manifest, instead: str) -> Drawer:
    """Make the drawer of a dataset, if this version of the project and the fonts at hand are those that drew it.

    Args:
        manifest: of the dataset.
        instead: what to do where this is another version.

    Raises:
        UserError: it is another version, or a font is missing or another.
    """
    if manifest.drawing_version != DRAWING_VERSION:
        raise UserError(
            f"{manifest.name} was drawn by drawing version {manifest.drawing_version}, this is {DRAWING_VERSION}: "
            f"check out the commit that drew it, or {instead}"
        )
    where = f"run the command in the folder of the project that drew {manifest.name}, whose {FONTS_DIR}/ has its fonts"
    try:
        drawer = Drawer(manifest.spec)
    except UserError as error:
        raise UserError(f"{error}: {where}") from None
    for name, sha256 in hash_fonts(manifest.spec.fonts, drawer.font_files).items():
        if sha256 != manifest.fonts[name]:
            raise UserError(
                f"{FONTS_DIR / name} has SHA-256 {sha256}; expected {manifest.fonts[name]}: bring the file back that drew "
                f"{manifest.name}, or {where}"
            )
    return drawer


def describe_pixels(drawn: Captcha) -> dict[str, object]:
    """Return the index columns that speak of the picture; names as in `dataset.index`."""
    red, green, blue = drawn.ink
    return {
        "pixel_sha256": hashlib.sha256(drawn.pixels.data).digest(),
        "ink": _hex_colour(drawn.ink),
        "background": _hex_colour(drawn.background),
        "ink_luminance": round(0.299 * red + 0.587 * green + 0.114 * blue),
    }


def _hex_colour(colour: Colour) -> str:
    return "#{:02x}{:02x}{:02x}".format(*colour)
