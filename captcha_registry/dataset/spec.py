"""What a captcha dataset may be asked to be: the params model behind `datasets.<name>` in params.yaml."""

from math import ceil
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from captcha_registry.params import Section

MAX_COUNT = 10**9

# Measured on 5,000 PNGs of each shipped spec: 0.6 to 0.9 bytes a pixel; used only to refuse what cannot fit.
PNG_BYTES_PER_PIXEL = 0.9


def _check_alphabet(alphabet: str) -> str:
    if bad := sorted({character for character in alphabet if not "!" <= character <= "~"}):
        raise ValueError(f"holds {bad}; expected printable ASCII characters without the space")
    if repeated := sorted({character for character in alphabet if alphabet.count(character) > 1}):
        raise ValueError(f"repeats {repeated}; expected each character once")
    return alphabet


class DatasetSpec(Section):
    """One dataset: together with the drawing code this decides every byte of it."""

    alphabet: Annotated[str, Field(min_length=2, max_length=94), AfterValidator(_check_alphabet)]
    length: int = Field(ge=1, le=16)
    width: int = Field(ge=16, le=1024)
    height: int = Field(ge=16, le=1024)
    count: int = Field(ge=1, le=MAX_COUNT)
    shard_size: int = Field(ge=1, le=1_000_000)
    seed: int = Field(ge=0, lt=2**63)

    @property
    def num_shards(self) -> int:
        """Number of shards, the last one possibly short."""
        return ceil(self.count / self.shard_size)

    @property
    def estimated_bytes(self) -> int:
        """Rough size of the encoded dataset on disk."""
        return int(self.count * self.width * self.height * PNG_BYTES_PER_PIXEL)

    def shard_sample_ids(self, shard_number: int) -> range:
        """Return the ids of the samples that a shard holds."""
        start = shard_number * self.shard_size
        return range(start, min(start + self.shard_size, self.count))


class SplitRule(Section):
    """How a dataset is divided into train and test: the params model behind `split`."""

    test_size: float = Field(gt=0, lt=1)
    by: Literal["shard", "sample", "label"]
    seed: int = Field(ge=0, lt=2**32)
