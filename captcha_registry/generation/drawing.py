"""Draw one captcha from (spec, sample id): the `captcha` package, with a random stream of its own for every sample.

Sample *i* depends on nothing but the spec's seed, alphabet, length and size and on *i*, so it can be drawn in any order,
by any worker. `captcha` takes its random numbers from the module `secrets`; a stand-in over `random.Random` takes its place
for the time of one drawing. Only `Random.random()` is used, the one method whose sequence Python promises to keep.

The text is pasted through a mask made of its own luminance, so dark ink comes out faint.
"""

import hashlib
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from io import BytesIO
from typing import Any, TypeVar
from unittest import mock

import captcha.image
from PIL import Image

from captcha_registry.dataset.spec import DatasetSpec

# Raise by one with every change that gives any sample other pixels, another label or other bytes.
DRAWING_VERSION = 1

# Packages whose version may change the pixels or the encoded bytes.
DRAWING_PACKAGES = ("captcha", "pillow")

# zlib's level 3: 7.3 kB in 0.38 ms a picture; level 1 7.7 kB in 0.34 ms, Pillow's default 6 7.0 kB in 0.61 ms.
PNG_COMPRESS_LEVEL = 3

ItemT = TypeVar("ItemT")


@dataclass(frozen=True, slots=True)
class Captcha:
    """One drawn captcha: the picture, the text on it, and the colours that were used."""

    image: Image.Image
    label: str
    ink: tuple[int, int, int]
    background: tuple[int, int, int]


class _SeededSecrets:
    """The three functions that `captcha` calls in `secrets`, over a seeded stream."""

    def __init__(self, stream: random.Random) -> None:
        self._random = stream.random

    def randbelow(self, bound: int) -> int:
        return int(self._random() * bound)

    def randbits(self, num_bits: int) -> int:
        return int(self._random() * (1 << num_bits))

    def choice(self, items: Sequence[ItemT]) -> ItemT:
        return items[int(self._random() * len(items))]


class _ObservedCaptcha(captcha.image.ImageCaptcha):
    """The stock drawing, which also remembers the colours that it drew."""

    ink: tuple[int, int, int]
    background: tuple[int, int, int]

    def create_captcha_image(self, chars: str, color: Any, background: Any) -> Image.Image:
        self.ink, self.background = color[:3], background
        return super().create_captcha_image(chars, color, background)


@cache
def _drawer(width: int, height: int) -> _ObservedCaptcha:
    """Keep one drawer per size: making one loads the fonts, which takes longer than a drawing."""
    return _ObservedCaptcha(width=width, height=height)


@contextmanager
def _random_numbers_from(source: _SeededSecrets) -> Iterator[None]:
    with mock.patch.object(captcha.image, "secrets", source):
        yield


def sample_stream(seed: int, sample_id: int) -> random.Random:
    """Make the random stream of one sample."""
    key = hashlib.blake2b(f"{seed}/{sample_id}".encode(), digest_size=16)
    return random.Random(int.from_bytes(key.digest(), "little"))  # noqa: S311 - pictures, not secrets


def draw_captcha(spec: DatasetSpec, sample_id: int) -> Captcha:
    """Draw one sample. Not thread-safe: `captcha` has one random source per process."""
    source = _SeededSecrets(sample_stream(spec.seed, sample_id))
    label = "".join(source.choice(spec.alphabet) for _ in range(spec.length))
    drawer = _drawer(spec.width, spec.height)
    with _random_numbers_from(source):
        image = drawer.generate_image(label)
    return Captcha(image=image, label=label, ink=drawer.ink, background=drawer.background)


def encode_png(image: Image.Image) -> bytes:
    """Encode without loss."""
    buffer = BytesIO()
    image.save(buffer, format="png", compress_level=PNG_COMPRESS_LEVEL)
    return buffer.getvalue()


def describe_pixels(captcha_drawn: Captcha) -> dict[str, object]:
    """Return the index columns that speak of the picture; names as in `dataset.index`."""
    red, green, blue = captcha_drawn.ink
    return {
        "pixel_sha256": hashlib.sha256(captcha_drawn.image.tobytes()).digest(),
        "ink": _hex_colour(captcha_drawn.ink),
        "background": _hex_colour(captcha_drawn.background),
        "ink_luminance": round(0.299 * red + 0.587 * green + 0.114 * blue),
    }


def _hex_colour(colour: tuple[int, int, int]) -> str:
    return "#{:02x}{:02x}{:02x}".format(*colour)
