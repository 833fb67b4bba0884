"""A dataset for other people's code: samples by number, filters, and conversion for their framework.

    digits = captcha_registry.load("data/digits", split="train")
    digits[0].image, digits[0].label
    dark = digits.filter("ink_luminance < 40")
    wrong = digits.with_readings("models/cnn").filter("text != label")
    batches = digits.to_tf(batch_size=64, shuffle=True, seed=1)

No framework is imported before you ask for it. All that is read is verified: a single sample by the checksums of its record and
by the hash of its pixels in the index, complete shards by their SHA-256 in the manifest.
"""

import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cached_property
from io import BytesIO
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, overload

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image

from captcha_registry.dataset.files import Files, LocalFiles
from captcha_registry.dataset.filtering import select_rows
from captcha_registry.dataset.manifest import Manifest
from captcha_registry.dataset.readings import join_readings, read_readings
from captcha_registry.dataset.records import OVERHEAD_BYTES, DamagedRecordError, Sample, decode_sample, unframe_record
from captcha_registry.dataset.spec import DatasetSpec
from captcha_registry.errors import UserError
from captcha_registry.extras import needs
from captcha_registry.machine import available_memory_bytes, expand_home

if TYPE_CHECKING:
    import datasets

    from captcha_registry.dataset.quiet_tensorflow import tf
    from captcha_registry.dataset.torch_samples import TorchSamples

# What one Arrow table holds at most: an array of bytes cannot have more than 2 GiB.
SAMPLES_AT_ONCE, TABLE_BYTES = 1_000, 2**30
# How Hugging Face keeps a picture.
IMAGE_TYPE = pa.struct({"bytes": pa.binary(), "path": pa.string()})


@dataclass(frozen=True, slots=True, eq=False)
class DecodedSample:
    """One captcha: pixels `(height, width, 3)` uint8, the text on it, and its number in the dataset."""

    image: npt.NDArray[np.uint8]
    label: str
    id: int


@dataclass(frozen=True, eq=False, repr=False)
class CaptchaDataset:
    """Some or all samples of a dataset, in a certain order; selecting makes a new one and reads no record.

    The pipeline uses this class. `captcha_registry.load` gives a `LoadedDataset`, which has columns and pictures, too.

    Attributes:
        files: from which the shards are read.
        manifest: that of the complete dataset.
        index: the rows of these samples, a pyarrow table with the columns of `dataset.index`; `.to_pandas()` makes a frame.
    """

    files: Files
    manifest: Manifest
    index: pa.Table

    def __repr__(self) -> str:
        return f"<CaptchaDataset {self.manifest.name}: {len(self):,} of {self.manifest.spec.count:,} samples>"

    def __len__(self) -> int:
        return int(self.index.num_rows)

    @overload
    def __getitem__(self, key: int) -> DecodedSample: ...
    @overload
    def __getitem__(self, key: slice | Sequence[int] | npt.NDArray[np.integer[Any] | np.bool_]) -> "CaptchaDataset": ...
    def __getitem__(self, key: Any) -> "DecodedSample | CaptchaDataset":
        """Read one sample, or select several by a slice, a list of numbers, or a mask with a truth value for each.

        Negative numbers count from the end.

        Raises:
            IndexError: there is no such number, or the mask has another length.
            TypeError: the key is none of these.
        """
        if isinstance(key, Integral) and not isinstance(key, bool):
            return self._decode(self.read_sample(int(key)), int(key))
        if not isinstance(key, slice):
            found = key
            key = np.asarray(key)
            # An empty list has no type that numbers could have.
            key = key if key.size else key.astype(np.int64)
            if key.ndim != 1 or key.dtype.kind not in "iub":
                of = f" of {key.dtype}" if key.ndim else ""
                raise TypeError(f"samples are selected by whole numbers, a slice or a mask, not by {type(found).__name__}{of}")
            if key.dtype.kind == "b" and len(key) == len(self):
                _require_same_order(found, self.index)
        return self._of(self.index.take(np.arange(len(self))[key]))

    def __iter__(self) -> Iterator[DecodedSample]:
        return (self[number] for number in range(len(self)))

    def split(self, name: str) -> Self:
        """Select the samples of `train` or `test`.

        Raises:
            UserError: the dataset has no such split, or none of these samples is in it.
        """
        splits = self.index["split"]
        known = {value.as_py(): value for value in pc.unique(splits) if value.is_valid}
        if name not in list(known):
            if name in self.manifest.splits:
                raise UserError(f"of these {len(self):,} samples of {self.manifest.name} none is in the split {name!r}")
            raise UserError(
                f"{self.manifest.name} has no split {name!r}; expected {' or '.join(known) or 'none, it is not split'}"
            )
        # Not with `name`, for which PyArrow would import pandas, as it does to make any of its values.
        return self._of(self.index.filter(pc.equal(splits, known[name])))

    def filter(self, expression: str) -> Self:
        """Select the samples whose index rows fulfil an expression, such as `ink_luminance < 40` (see `dataset.filtering`).

        Raises:
            UserError: the expression is not understood, or names an unknown column.
        """
        return self._of(select_rows(self.index, expression))

    def with_readings(self, readings: pa.Table | str | Path) -> Self:
        """Add what a model read: `index` gets `text`, `confidence` and more, null where it read nothing (see `dataset.readings`).

        Args:
            readings: the model's folder, such as `models/crnn`, the readings.parquet in it, or the table in that file.

        Raises:
            UserError: there is no such file, or it belongs to other samples.
        """
        rows = readings if isinstance(readings, pa.Table) else read_readings(expand_home(readings))
        return self._of(join_readings(self.index, rows, self.manifest))

    def read_sample(self, number: int) -> Sample:
        """Read a sample with its image still encoded.

        Raises:
            IndexError: there is no such number.
            DamagedRecordError: the record is not the one that the index names.
        """
        if not -len(self) <= number < len(self):
            raise IndexError(f"sample {number} of {len(self):,}")
        shards, offsets, lengths, ids, labels = self._places
        shard, offset = shards[number], int(offsets[number])
        record = unframe_record(self.files.read(shard, offset, int(lengths[number])), Path(shard), offset)
        try:
            sample = decode_sample(record)
        except ValueError as error:
            raise DamagedRecordError(Path(shard), offset, str(error)) from None
        if (sample.id, sample.label) != (ids[number], labels[number]):
            found = f"holds sample {sample.id}, {sample.label!r}; the index says {ids[number]}, {labels[number]!r}"
            raise DamagedRecordError(Path(shard), offset, found)
        return sample

    def read_samples(self) -> Iterator[Sample]:
        """Read all samples with their images still encoded.

        Raises:
            DamagedRecordError: a record is not the one that the index names.
        """
        return map(self.read_sample, range(len(self)))

    def read_tables(self) -> Iterator[pa.Table]:
        """Read all samples as Arrow tables of a bounded size, with the columns image (encoded), label, id and split.

        Raises:
            DamagedRecordError: a record is not the one that the index names.
        """
        spec = self.manifest.spec
        num_samples = max(1, min(SAMPLES_AT_ONCE, TABLE_BYTES // (spec.width * spec.height * 3)))
        for start in range(0, len(self), num_samples):
            part = self[start : start + num_samples]
            images = pa.array([{"bytes": sample.image, "path": None} for sample in part.read_samples()], IMAGE_TYPE)
            yield part.index.select(["label", "id", "split"]).add_column(0, "image", images)

    def read_records(self, numbers: npt.NDArray[np.int64]) -> npt.NDArray[np.object_]:
        """Read the records of some samples whose shards are on this disk, each shard opened once.

        Raises:
            DamagedRecordError: what the index points to is not a record, or damaged.
        """
        shards, offsets, lengths, *_ = self._places
        with ExitStack() as opened:
            paths = {shard: self.root / shard for shard in set(shards[numbers])}
            files = {shard: opened.enter_context(path.open("rb", buffering=0)).fileno() for shard, path in paths.items()}
            places = zip(shards[numbers], offsets[numbers].tolist(), lengths[numbers].tolist(), strict=True)
            records = [unframe_record(os.pread(files[s], length, offset), paths[s], offset) for s, offset, length in places]
        return np.array(records, dtype=object)

    @property
    def root(self) -> Path:
        """The folder on this disk with the dataset, or with those of its files that were fetched."""
        return self.files.root

    def make_local(self) -> Path:
        """Fetch the shards of these samples if they are not on this disk, verify them, and return the folder that holds them.

        Raises:
            UserError: a shard cannot be fetched, or has other bytes than the manifest says.
        """
        return self.files.make_local(sorted(self._shard_paths))

    def to_numpy(self) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.str_]]:
        """Read all into memory: images `(samples, height, width, 3)` uint8, and their labels.

        Raises:
            UserError: memory cannot hold them, or a shard is missing or damaged.
        """
        self._require_memory(self.images_bytes, "`to_tf`, which reads batches, or `captcha-registry export --format numpy`")
        self.make_local()
        spec = self.manifest.spec
        images = np.empty((len(self), spec.height, spec.width, 3), np.uint8)
        for number, sample in enumerate(self):
            images[number] = sample.image
        return images, np.array(self.index["label"].to_pylist(), dtype=np.str_)

    def to_tf(
        self,
        *,
        batch_size: int,
        shuffle: bool = False,
        seed: int | None = None,
        epoch: int = 0,
        cache: bool | str | Path = False,
        drop_remainder: bool = False,
    ) -> "tf.data.Dataset":
        """Make a `tf.data.Dataset` of `(images uint8 (batch, height, width, 3), labels string (batch,))`.

        Args:
            batch_size: samples in a batch; the last one holds those that are left, or with `drop_remainder` is left out.
            shuffle: give every epoch, which is one iteration, its own order; otherwise samples keep the order of the selection.
            seed: the same seed gives the same orders; only with `shuffle`.
            epoch: number of the first epoch: a training that goes on after three epochs says 3 and gets the order of the fourth.
            cache: decode every picture once, now. True keeps them in memory; a folder keeps them there until the process ends.
            drop_remainder: see `batch_size`.

        Raises:
            UserError: a number is out of range, a shard is missing or not as the manifest says, or the disk is full.
        """
        with needs("to_tf"):
            from captcha_registry.dataset.tensorflow_batches import Order, make_batches  # noqa: PLC0415

        _require_whole_number("batch_size", batch_size, 1)
        _require_whole_number("epoch", epoch, 0)
        if seed is not None:
            _require_whole_number("seed", seed, 0)
            if not shuffle:
                raise UserError(
                    f"seed is {seed}, and samples come in the order of the selection: add shuffle=True, or leave it out"
                )
        self.make_local()
        images = None
        # An empty text, as a variable that is not set makes it, is no folder.
        if cache is not False and cache is not None:
            images = self._keep_images(None if cache is True else expand_home(cache))
        order = Order(len(self), shuffle, seed, epoch)
        return make_batches(self, order, batch_size, drop_remainder=drop_remainder, images=images)

    def _keep_images(self, folder: Path | None) -> "tf.Tensor":
        """Decode every picture for `to_tf` into memory or a folder, or take what was decoded there before."""
        from captcha_registry.dataset.tensorflow_batches import keep_images  # noqa: PLC0415

        if folder and not folder.is_dir() and os.path.lexists(folder):
            raise UserError(f"cache is {folder}, which is no folder; expected one, which need not exist yet")
        if folder not in self._kept_images:
            if folder is None:
                self._require_memory(self.images_bytes, "a cache on disk, with cache='a folder'")
            self._kept_images[folder] = keep_images(self, folder)
        return self._kept_images[folder]

    def to_torch(self) -> "TorchSamples":
        """Make a map-style dataset for PyTorch's DataLoader, of `(image uint8 tensor (3, height, width), label)`."""
        with needs("to_torch"):
            from captcha_registry.dataset.torch_samples import TorchSamples  # noqa: PLC0415

        # A connection to a remote cannot be handed to worker processes.
        return TorchSamples(replace(self, files=LocalFiles(self.make_local(), self.manifest.entries)))

    def to_huggingface(self) -> "datasets.Dataset":
        """Make a `datasets.Dataset` with the columns image, label, id and split; the encoded images are in memory.

        Raises:
            UserError: the package is not installed, memory cannot hold them, or a shard is missing or damaged.
        """
        with needs("to_huggingface"):
            import datasets  # noqa: PLC0415
        self._require_memory(pc.sum(self.index["length"]).as_py() or 0, "`captcha-registry export --format huggingface`")
        self.make_local()
        text = datasets.Value("string")
        features = datasets.Features(image=datasets.Image(), label=text, id=datasets.Value("int64"), split=text)
        # In many parts, as one holds no more than 2 GiB.
        rows = pa.concat_tables([features.arrow_schema.empty_table(), *self.read_tables()], promote_options="permissive")
        return datasets.Dataset(rows, info=datasets.DatasetInfo(features=features))

    @property
    def images_bytes(self) -> int:
        """The size of all pictures, decoded."""
        return len(self) * self.manifest.spec.height * self.manifest.spec.width * 3

    def _require_memory(self, needed_bytes: int, instead: str) -> None:
        free_bytes = available_memory_bytes()
        if needed_bytes > free_bytes:
            raise UserError(
                f"{len(self):,} samples need {needed_bytes / 1e9:,.1f} GB of memory and {free_bytes / 1e9:,.1f} GB are free: "
                f"select fewer, or use {instead}"
            )

    def _of(self, index: pa.Table) -> Self:
        # Not by its name: a class below this one has more to hand on.
        return replace(self, index=index)

    @cached_property
    def _places(self) -> tuple[Any, ...]:
        """Where each sample is and what it must be, as columns that are quick to look into."""
        shards = np.array(self.index["shard"].to_pylist(), dtype=object)
        numbers = (self.index[name].to_numpy() for name in ("offset", "length", "id"))
        return (shards, *numbers, self.index["label"].to_pylist())

    @cached_property
    def _kept_images(self) -> dict[Path | None, "tf.Tensor"]:
        """Pictures that were decoded for `to_tf`, by the folder that holds them; None is memory."""
        return {}

    @cached_property
    def _pixel_hashes(self) -> list[bytes]:
        return list(self.index["pixel_sha256"].to_pylist())

    @cached_property
    def _shard_paths(self) -> set[str]:
        return set(pc.unique(self.index["shard"]).to_pylist())

    def _decode(self, sample: Sample, number: int) -> DecodedSample:
        try:
            image = _decode_image(sample.image, self.manifest.spec, self._pixel_hashes[number])
        except (OSError, ValueError, SyntaxError) as error:
            shards, offsets, *_ = self._places
            problem = f"picture of sample {sample.id}: {error}"
            raise DamagedRecordError(Path(shards[number]), int(offsets[number]), problem) from None
        return DecodedSample(image, sample.label, sample.id)


def _require_whole_number(name: str, value: object, low: int) -> None:
    if not isinstance(value, Integral) or isinstance(value, bool) or value < low:
        raise UserError(f"{name} is {value!r}; expected a whole number from {low}")


def _decode_image(encoded: bytes, spec: DatasetSpec, pixel_sha256: bytes) -> npt.NDArray[np.uint8]:
    """Decode a PNG whose size, mode and pixels are known."""
    with Image.open(BytesIO(encoded), formats=["png"]) as picture:
        # Before anything of that size is decoded.
        if picture.size != (spec.width, spec.height) or picture.mode != "RGB":
            raise ValueError(f"{picture.width}x{picture.height} {picture.mode}; expected {spec.width}x{spec.height} RGB")
        image = np.array(picture)
    if hashlib.sha256(image.data).digest() != pixel_sha256:
        raise ValueError("its pixels differ from the index's hash")
    return image


def make_dataset(files: Files, manifest: Manifest, index: pa.Table) -> CaptchaDataset:
    """Make a dataset of all samples, if its index has a row for each and stays inside the shards.

    Raises:
        UserError: the index has other rows than the manifest says, points outside the shards, or names no known split.
    """
    ids = np.from_dlpack(index["id"].combine_chunks())
    if index.num_rows != manifest.spec.count or not np.array_equal(np.sort(ids), np.arange(len(ids))):
        raise UserError(
            f"the index of {manifest.name} has {index.num_rows:,} rows, with ids up to {ids.max(initial=-1):,}; "
            f"expected one for each of {manifest.spec.count:,} samples"
        )
    _require_places_inside(manifest, index)
    _require_known_splits(manifest, index)
    return CaptchaDataset(files, manifest, index)


def _require_places_inside(manifest: Manifest, index: pa.Table) -> None:
    """Refuse an index that points outside the shards."""
    sizes = {shard.path: shard.size_bytes for shard in manifest.shards}
    shards = index["shard"].combine_chunks().dictionary_encode()
    # Not `to_numpy`, which imports pandas; that takes longer than all the rest.
    numbers, offsets, lengths = map(np.from_dlpack, (shards.indices, *(index[c].combine_chunks() for c in ("offset", "length"))))
    ends = np.array([sizes.get(shard, 0) for shard in shards.dictionary.to_pylist()])[numbers]
    # Not offset + length, which could overflow.
    outside = (offsets < 0) | (lengths < OVERHEAD_BYTES) | (lengths > ends - offsets)
    if outside.any():
        (row,) = index.slice(int(outside.argmax()), 1).to_pylist()
        raise UserError(
            f"the index of {manifest.name} points outside its shards: sample {row['id']}, {row['length']:,} bytes at "
            f"{row['offset']:,} of {row['shard']}, which has {sizes.get(row['shard'], 0):,}"
        )


def _require_known_splits(manifest: Manifest, index: pa.Table) -> None:
    """Refuse a split that is not the shard's folder; exports make file names of it."""
    # Not `group_by`, which imports pandas, too.
    shards, splits = (index[name].combine_chunks().dictionary_encode("encode") for name in ("shard", "split"))
    paths, names = shards.dictionary.to_pylist(), splits.dictionary.to_pylist()
    codes = [np.from_dlpack(column.indices).astype(np.int64) for column in (shards, splits)]
    for code in np.unique(codes[0] * len(names) + codes[1]).tolist():
        path, split = paths[code // len(names)], names[code % len(names)]
        if split != (path.rpartition("/")[0] or None) or split not in {None, "train", "test"}:
            raise UserError(
                f"the index of {manifest.name} has the split {split!r} for {path!r}; expected the shard's folder, "
                "which is train, test or none"
            )


def _require_same_order(mask: object, rows: pa.Table) -> None:
    """Refuse a pandas mask whose rows are in another order than the samples, or in one that cannot be told.

    Raises:
        TypeError: says how to bring it into their order.
    """
    if (labels := getattr(mask, "index", None)) is None or callable(labels):
        return
    names = np.asarray(labels)
    if labels.name == "id" and np.array_equal(names, rows["id"].to_numpy()):
        return
    ids = rows["id"].to_numpy()
    if labels.name in rows.column_names or names.dtype.kind not in "iuf" or np.any(ids[1:] <= ids[:-1]):
        raise TypeError(
            "the index of this pandas mask does not tell whether its rows are in the order of the samples: give `.to_numpy()` "
            "of a mask that is in their order"
        )
    # Those of a part of a frame increase, too, as the ids of these samples do.
    if not np.all(names[1:] > names[:-1]):
        raise TypeError(
            "the rows of this pandas mask are in another order than the samples: bring it back with `.sort_index()`, or give "
            "`.to_numpy()` of a mask that is in their order"
        )
