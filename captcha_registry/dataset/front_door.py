"""What `captcha_registry.load` returns: a dataset with what people need at a prompt or in a notebook.

    digits = captcha_registry.load("digits@1.1.0", repo=URL)
    digits  # in a notebook a wall of pictures with the facts; digits[0] is a picture with its text
    digits.labels, digits["ink_luminance"], digits.splits, digits.features
    for sample in digits.split("test").shuffle(seed=1): ...

Trainings use the base class, `CaptchaDataset`, so a change to what is only shown here makes no model out of date.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, overload

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from captcha_registry.dataset.dataset import CaptchaDataset, DecodedSample
from captcha_registry.dataset.files import LocalFiles
from captcha_registry.dataset.notebook import encode_png, show_dataset, show_sample
from captcha_registry.dataset.read_ahead import read_ahead
from captcha_registry.dataset.records import DamagedRecordError, Sample
from captcha_registry.errors import UserError
from captcha_registry.extras import needs
from captcha_registry.machine import expand_home

if TYPE_CHECKING:
    import pandas as pd


class CaptchaSample(DecodedSample):
    """One captcha: pixels `(height, width, 3)` uint8, the text on it, and its number in the dataset."""

    __slots__ = ()
    # Else Python would try the numbers from 0.
    __iter__ = None

    def __eq__(self, other: object) -> bool:
        """Tell whether two samples have the same number, the same text and the same pixels."""
        if not isinstance(other, CaptchaSample):
            return NotImplemented
        return (self.id, self.label) == (other.id, other.label) and np.array_equal(self.image, other.image)

    def __hash__(self) -> int:
        return hash((self.id, self.label))

    def __getitem__(self, name: str) -> Any:
        """Return the image, the label or the id, as other libraries have them in a dict.

        Raises:
            KeyError: a sample has no part with this name.
        """
        if name not in self.__dataclass_fields__:
            raise KeyError(f"a sample has {', '.join(self.__dataclass_fields__)}, no {name!r}")
        return getattr(self, name)

    def __repr__(self) -> str:
        height, width, _ = self.image.shape
        return f"<CaptchaSample {self.id:,}: {self.label!r}, {width}x{height}>"

    def _repr_png_(self) -> bytes:
        return encode_png(self)

    def _repr_html_(self) -> str:
        return show_sample(self)


@dataclass(frozen=True, eq=False, repr=False)
class LoadedDataset(CaptchaDataset):
    """Some or all samples of a dataset, in a certain order, as `load` returns them; selecting makes a new one and reads no file.

    Attributes:
        files: from which the shards are read.
        manifest: that of the complete dataset.
        index: the rows of these samples, a pyarrow table with the columns of `dataset.index`; `.to_pandas()` makes a frame.
        version: under which it is published, such as `1.1.0`; None for a dataset in a folder.
    """

    version: str | None = None

    @classmethod
    def of(cls, samples: CaptchaDataset, version: str | None = None) -> "LoadedDataset":
        """Make a `LoadedDataset` of samples."""
        return cls(samples.files, samples.manifest, samples.index, version)

    def __repr__(self) -> str:
        version = f"@{self.version}" if self.version else ""
        return f"<LoadedDataset {self.name}{version}: {len(self):,} of {self.manifest.spec.count:,} samples>"

    @overload
    def __getitem__(self, key: int) -> CaptchaSample: ...
    @overload
    def __getitem__(self, key: str) -> npt.NDArray[Any]: ...
    @overload
    def __getitem__(self, key: slice | Sequence[int] | npt.NDArray[np.integer[Any] | np.bool_]) -> "LoadedDataset": ...
    def __getitem__(self, key: Any) -> "CaptchaSample | npt.NDArray[Any] | LoadedDataset":
        """Read one sample by its place, a column of the index by its name, or select samples.

        Samples are selected by a slice, a list of numbers, or a mask with a truth value for each. Negative numbers count from
        the end.

        Raises:
            IndexError: there is no such number, or the mask has another length.
            TypeError: the key is none of these.
            UserError: the index has no such column.
        """
        return self._read_column(key) if isinstance(key, str) else super().__getitem__(key)

    def __iter__(self) -> Iterator[CaptchaSample]:
        return read_ahead(self)

    def _repr_html_(self) -> str:
        return show_dataset(self)

    @property
    def name(self) -> str:
        """The name of the dataset."""
        return self.manifest.name

    @property
    def labels(self) -> npt.NDArray[np.str_]:
        """The texts of the samples; no picture is read."""
        return self["label"]

    @property
    def splits(self) -> dict[str, int]:
        """How many of these samples are in each split, train first; empty if the dataset was not split."""
        counts = {name: int(pc.sum(pc.equal(self.index["split"], name)).as_py() or 0) for name in ("train", "test")}
        return {name: count for name, count in counts.items() if count}

    @property
    def features(self) -> dict[str, str]:
        """The parts of a sample with their types: the picture, and the columns of the index."""
        spec = self.manifest.spec
        return {"image": f"uint8 ({spec.height}, {spec.width}, 3)"} | {f.name: str(f.type) for f in self.index.schema}

    @property
    def column_names(self) -> list[str]:
        """What `dataset[name]` gives an array of: the columns of the index."""
        return list(self.index.column_names)

    def to_pandas(self) -> "pd.DataFrame":
        """Return the index, a row for each sample, without the pictures; texts of digits stay texts."""
        with needs("to_pandas"):
            # PyArrow makes the frame.
            import pandas as pd  # noqa: PLC0415
        frame: pd.DataFrame = self.index.to_pandas()
        return frame

    def select(self, numbers: Iterable[int]) -> "LoadedDataset":
        """Select the samples at some places, in the order in which they are given."""
        return self[numbers if isinstance(numbers, np.ndarray) else list(numbers)]

    def shuffle(self, seed: int) -> "LoadedDataset":
        """Put the samples into an order that depends on the seed alone; it is the same on every machine.

        Raises:
            UserError: the seed is not a whole number from 0.
        """
        if not isinstance(seed, Integral) or isinstance(seed, bool) or seed < 0:
            raise UserError(f"seed is {seed!r}; expected a whole number from 0")
        return self[np.random.default_rng(int(seed)).permutation(len(self))]

    def with_readings(self, readings: pa.Table | str | Path) -> Self:
        """Add what a model read, as `CaptchaDataset.with_readings` does.

        Raises:
            UserError: there is no such file, or it belongs to other samples.
        """
        if not isinstance(readings, pa.Table | str | Path):
            raise UserError(
                f"readings are a {type(readings).__name__}; expected a table, as `captcha_registry.load_readings` gives it and "
                "`pyarrow.Table.from_pandas` makes it of a frame, or the folder of a model, such as models/cnn"
            )
        if not isinstance(readings, pa.Table) and not expand_home(readings).exists():
            raise UserError(
                f"there is no {readings}; expected the folder of a model, such as models/cnn, which `dvc repro` makes in a "
                "project, or the table that `captcha_registry.load_readings('NAME@VERSION', repo=URL)` gives of a published one"
            )
        return super().with_readings(readings)

    def _read_column(self, name: str) -> npt.NDArray[Any]:
        """Return a column of the index as an array: of texts or numbers if each sample has one, else of objects."""
        if name in self.splits:
            raise UserError(f"{name!r} is a split, not a column: {self.name}.split({name!r}) selects its samples")
        if name not in self.index.column_names:
            raise UserError(
                f"{name!r} is not a column of {self.name}; expected one of {', '.join(self.index.column_names)}. Pictures come "
                "with samples, as in dataset[0].image, or all at once with dataset.to_numpy()"
            )
        column = self.index[name]
        if column.null_count == 0 and pa.types.is_string(column.type):
            return np.array(column.to_pylist(), dtype=np.str_)
        if column.null_count == 0 and pa.types.is_primitive(column.type):
            return np.asarray(column)
        return np.fromiter(column.to_pylist(), dtype=object, count=len(column))

    def read_sample(self, number: int) -> Sample:
        """Read a sample with its image still encoded, as `CaptchaDataset.read_sample` does.

        Raises:
            IndexError: there is no such number.
            DamagedRecordError: the record is not the one that the index names; says what to do.
        """
        try:
            return super().read_sample(number)
        except DamagedRecordError as error:
            raise self._advise(error) from None

    def _decode(self, sample: Sample, number: int) -> CaptchaSample:
        try:
            decoded = super()._decode(sample, number)
        except DamagedRecordError as error:
            raise self._advise(error) from None
        return CaptchaSample(decoded.image, decoded.label, decoded.id)

    def _advise(self, error: DamagedRecordError) -> DamagedRecordError:
        """Say where a damaged record is, and what brings a right one."""
        if self.version:
            where, cure = error.path, f"`captcha-registry get {self.name}@{self.version}` fetches and verifies all files"
        else:
            where, cure = self.root / error.path, LocalFiles(self.root, self.manifest.entries).find_cure()
        return DamagedRecordError(where, error.offset, f"{error.problem}: {cure}")
