"""What a captcha dataset may be asked to be: the params model behind `datasets.<name>` in params.yaml."""

from math import ceil
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Discriminator, Field, Tag, model_validator

from captcha_registry.params import Section, text_like

MAX_COUNT = 10**9

# What a record takes at least: its frame with an empty picture, every pixel, and the outlines of the characters, which grow with
# the font size and end where they fill half of the pixels. Measured on 60 specs from 16x16 to 1024x1024 this is 0.27 to 1.05 of
# the real size: dots, curves and what is inside the outlines come on top. Used only to refuse what cannot fit.
RECORD_BYTES = 290
PNG_BYTES_PER_PIXEL = 0.005
OUTLINE_BYTES_PER_FONT_PIXEL = 10


def _check_alphabet(alphabet: str) -> str:
    if bad := sorted({character for character in alphabet if not "!" <= character <= "~"}):
        raise ValueError(f"holds {bad}; expected printable ASCII characters without the space")
    if repeated := sorted({character for character in alphabet if alphabet.count(character) > 1}):
        raise ValueError(f"repeats {repeated}; expected each character once")
    return alphabet


class _Range(Section):
    """Two bounds, both included."""

    min: int
    max: int

    @model_validator(mode="after")
    def _check_order(self) -> Self:
        if self.min > self.max:
            raise ValueError(f"min is {self.min} and max is {self.max}; expected min up to max")
        return self


class LengthRange(_Range):
    """How many characters a text has, each number equally likely."""

    min: int = Field(ge=1, le=16)
    max: int = Field(ge=1, le=16)


class ChannelRange(_Range):
    """Where red, green and blue of a colour are drawn from, each on its own."""

    min: int = Field(ge=0, le=255)
    max: int = Field(ge=0, le=255)


# The tags choose whose error is told; `params` leaves them out of the key.
TextLength = Annotated[
    Annotated[int, Field(ge=1, le=16), Tag("<int>")] | Annotated[LengthRange, Tag("<range>")],
    Discriminator(lambda value: "<range>" if isinstance(value, dict | LengthRange) else "<int>"),
]
FontName = Annotated[
    str,
    text_like(
        "[A-Za-z0-9][A-Za-z0-9._-]*", "the name of a file in fonts/: letters, digits and . _ -, the first a letter or a digit"
    ),
]


class DatasetSpec(Section):
    """The settings of a dataset: together with the drawing code and the fonts they decide every byte of it.

    Attributes:
        alphabet: characters that are drawn, each equally likely; printable ASCII, each once.
        length: characters on a picture, or `{min: 3, max: 6}`.
        width: of a picture in pixels.
        height: of a picture in pixels.
        count: number of samples.
        shard_size: samples in a file.
        seed: the same seed gives the same bytes.
        style: `stock` is `captcha` 0.7.1; `classic` is 0.6.0 and 0.7.0, which warp the characters more, and whose curve
            reaches the right side of the picture. Releases 0.3 to 0.5.0, with which most published accuracies were measured,
            do the same in larger cells.
        fonts: names of TrueType or OpenType files in `fonts/`; without any, the font that comes with `captcha`.
        font_sizes: in pixels, each equally likely for every character.
        ink: range of the colour of text, dots and curves.
        background: range of the colour of the background.
        dots: number of dots.
        curves: number of curves.
    """

    alphabet: Annotated[str, Field(min_length=2, max_length=94), AfterValidator(_check_alphabet)]
    length: TextLength = 4
    width: int = Field(default=128, ge=16, le=1024)
    height: int = Field(default=64, ge=16, le=1024)
    count: int = Field(default=100_000, ge=1, le=MAX_COUNT)
    shard_size: int = Field(default=5_000, ge=1, le=1_000_000)
    seed: int = Field(default=1, ge=0, lt=2**63)
    style: Literal["stock", "classic"] = "stock"
    fonts: tuple[FontName, ...] = Field(default=(), strict=False)
    font_sizes: Annotated[tuple[Annotated[int, Field(ge=8, le=500)], ...], Field(min_length=1, strict=False)] = (42, 50, 56)
    ink: ChannelRange = ChannelRange(min=10, max=200)
    background: ChannelRange = ChannelRange(min=238, max=255)
    dots: int = Field(default=30, ge=0, le=10_000)
    curves: int = Field(default=1, ge=0, le=100)

    @property
    def min_length(self) -> int:
        """Characters of the shortest text."""
        return self.length if isinstance(self.length, int) else self.length.min

    @property
    def max_length(self) -> int:
        """Characters of the longest text."""
        return self.length if isinstance(self.length, int) else self.length.max

    @property
    def described_length(self) -> str:
        """The length in words: `4`, or `3 to 6`."""
        return str(self.length) if isinstance(self.length, int) else f"{self.length.min} to {self.length.max}"

    @property
    def num_texts(self) -> int:
        """Number of different texts that may be drawn."""
        return sum(len(self.alphabet) ** length for length in range(self.min_length, self.max_length + 1))

    @property
    def num_shards(self) -> int:
        """Number of shards, the last one possibly short."""
        return ceil(self.count / self.shard_size)

    @property
    def estimated_bytes(self) -> int:
        """Low estimate of the encoded dataset's size on disk, half of the real size or less for the shipped specs."""
        num_pixels = self.width * self.height
        outlines = OUTLINE_BYTES_PER_FONT_PIXEL * self.min_length * min(*self.font_sizes, self.height)
        return int(self.count * (RECORD_BYTES + PNG_BYTES_PER_PIXEL * num_pixels + min(outlines, num_pixels / 2)))

    def shard_sample_ids(self, shard_number: int) -> range:
        """Return the ids of the samples that a shard holds."""
        start = shard_number * self.shard_size
        return range(start, min(start + self.shard_size, self.count))


class SplitRule(Section):
    """How a dataset is divided into train and test: the params model behind `split`.

    Attributes:
        test_size: share of the samples that is test.
        by: `shard`: each file is train or test. `sample`: the share is exact, as with `train_test_split` of scikit-learn.
            `label`: the share is exact, and no text is on both sides. `sample_hash` and `label_hash`: a hash of id or text
            decides, so no sample changes sides when `count` grows; the share is only close to `test_size`.
        seed: another seed gives another division.
    """

    test_size: float = Field(gt=0, lt=1)
    by: Literal["shard", "sample", "label", "sample_hash", "label_hash"]
    seed: int = Field(ge=0, lt=2**32)
