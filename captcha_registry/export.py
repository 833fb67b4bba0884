"""Write a dataset in the form that another tool reads. Every sample is verified on the way; equal datasets give equal bytes.

| format      | files, for each split                                          | reads it                          |
|-------------|----------------------------------------------------------------|-----------------------------------|
| tfrecord    | the dataset as it is, `train/00000.tfrecord` and all others     | `captcha_registry.load`, tf.data  |
| webdataset  | `train-00000.tar` with `000000000.png` and `000000000.txt`      | webdataset                        |
| huggingface | `data/train-00000.parquet`                                     | `datasets.load_dataset(folder)`   |
| images      | `train/000000000.png` and `train/metadata.parquet`              | `datasets.load_dataset(folder)`, anything |
| numpy       | `train.npz` with images, labels, ids                            | `numpy.load`                      |

Each export has a README.md with the licence and a line of code that reads it. Labels are in Parquet, not in CSV, because pandas
would read the text 0012 in a CSV as the number 12. File names are numbers, not labels, because labels may contain `/` or differ
only in case.
"""

import io
import json
import os
import shutil
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal, get_args

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from filelock import Timeout
from tqdm import tqdm

from captcha_registry.cache import find_lock, hold_lock
from captcha_registry.dataset.dataset import IMAGE_TYPE, CaptchaDataset
from captcha_registry.dataset.manifest import require_outside_datasets, write_fetched_splits, write_manifest
from captcha_registry.dataset.records import Sample
from captcha_registry.describing.card import write_dataset_card
from captcha_registry.describing.croissant import write_croissant
from captcha_registry.describing.export_card import WHOLE, write_export_card
from captcha_registry.describing.statistics import summarize_dataset, summarize_manifest
from captcha_registry.errors import UserError
from captcha_registry.extras import needs
from captcha_registry.recognition.card import NETWORK_NAME
from captcha_registry.recognition.onnx_network import ONNX_NAME
from captcha_registry.workspace import name_full_disk, remove, write_atomically

Format = Literal["tfrecord", "webdataset", "huggingface", "images", "numpy"]
FORMATS: tuple[Format, ...] = get_args(Format)

# Told how many more samples are done.
Advance = Callable[[int], object]

# How `datasets` knows that a column of bytes is a picture, with no need of the package here.
_FEATURES = {
    "image": {"_type": "Image"},
    "label": {"dtype": "string", "_type": "Value"},
    "id": {"dtype": "int64", "_type": "Value"},
}
_SCHEMA = pa.schema(
    {"image": IMAGE_TYPE, "label": pa.string(), "id": pa.int64()},
    metadata={"huggingface": json.dumps({"info": {"features": _FEATURES}})},
)
# What beside pictures tells their texts, under the names that `imagefolder` of `datasets` expects.
_METADATA_SCHEMA = pa.schema({"file_name": pa.string(), "label": pa.string(), "id": pa.int64()})


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written; `splits` are the samples of each part."""

    num_samples: int
    splits: dict[str, int]
    num_files: int
    size_bytes: int


def export_dataset(dataset: CaptchaDataset, export_format: Format, target: Path) -> Exported:
    """Write a dataset, or a part of one, into a new folder, completely or not at all, with a progress bar.

    Raises:
        UserError: the folder exists already, another export is making it, or a sample is not what manifest and index say.
    """
    _require_free_name(target)
    require_outside_datasets(target)
    _require_exportable(dataset, export_format)
    dataset.make_local()
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        with hold_lock(find_lock("export", target), wait=False), name_full_disk(target):
            return _export(dataset, export_format, target)
    except Timeout:
        raise UserError(f"another export to {target} is at work: wait for it to end, or stop it") from None


def export_model(folder: Path, target: Path, *, half: bool) -> int:
    """Write a trained model as an ONNX file; return its bytes.

    Args:
        folder: of the model.
        target: the file.
        half: keep the weights in half the bytes.

    Raises:
        UserError: the file exists already, there is no complete model, or the packages to load it are not installed.
    """
    _require_free_name(target)
    if target.suffix != ".onnx":
        raise UserError(
            f"{target} is no name for an ONNX file; expected one that ends in .onnx, such as {target / folder.name}.onnx"
        )
    if not (folder / NETWORK_NAME).exists() and (folder / ONNX_NAME).is_file():
        raise UserError(
            f"{folder} was published without its Keras network, as the ONNX file {folder / ONNX_NAME}: copy that file"
        )
    with needs("export of a model", extra="train"):
        # It takes seconds.
        from captcha_registry.recognition.onnx_conversion import convert_model  # noqa: PLC0415

    content = convert_model(folder, half=half)
    write_atomically(target, content)
    return len(content)


def _require_free_name(target: Path) -> None:
    if os.path.lexists(target):
        raise UserError(f"{target} exists already, and nothing is overwritten: name another place with --to, or remove it")


def _export(dataset: CaptchaDataset, export_format: Format, target: Path) -> Exported:
    """Write a dataset beside its place, and put it there when it is complete."""
    unfinished = target.with_name(f".{target.name}.unfinished")
    if unfinished.is_dir():
        # A killed run left it.
        remove(unfinished)
    try:
        unfinished.mkdir()
        with tqdm(total=len(dataset), desc=f"export {dataset.manifest.name}", unit="sample", disable=None) as bar:
            for split, part in _list_splits(dataset):
                WRITERS[export_format](unfinished, split, part, bar.update)
        counts = {name: len(part) for name, part in _list_splits(dataset)}
        if export_format == "tfrecord":
            _complete_dataset(unfinished, dataset)
        else:
            card = write_export_card(dataset.manifest, export_format, counts)
            (unfinished / "README.md").write_text(card, encoding="utf-8")
        files = [path for path in unfinished.rglob("*") if path.is_file()]
        exported = Exported(len(dataset), counts, len(files), sum(path.stat().st_size for path in files))
        unfinished.replace(target)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return exported


def _require_exportable(dataset: CaptchaDataset, export_format: Format) -> None:
    """Refuse a selection that a format cannot hold.

    Raises:
        UserError: it is empty, holds a sample twice, or is to be a dataset and no complete split.
    """
    if not len(dataset):
        raise UserError("no sample is selected, so there is nothing to export")
    if pc.count_distinct(dataset.index["id"]).as_py() != len(dataset):
        raise UserError("a sample is selected more than once; expected each once, as files are named by its number")
    shards = [shard for shard in dataset.manifest.shards if (shard.path.rpartition("/")[0] or None) in _find_splits(dataset)]
    num_samples = sum(shard.num_samples for shard in shards)
    if export_format == "tfrecord" and len(dataset) != num_samples:
        raise UserError(
            f"tfrecord exports shards as they are, and {len(dataset):,} of their {num_samples:,} samples are selected: "
            "export a dataset, or a split of it; or choose another format"
        )


def _find_splits(dataset: CaptchaDataset) -> set[str | None]:
    return set(pc.unique(dataset.index["split"]).to_pylist())


def _complete_dataset(folder: Path, dataset: CaptchaDataset) -> None:
    """Add to exported shards what makes them a dataset: index, descriptions, a note which splits are here, and the manifest."""
    manifest, splits = dataset.manifest, {name for name in _find_splits(dataset) if name}
    shutil.copyfile(dataset.files.make_local([manifest.index.path]) / manifest.index.path, folder / manifest.index.path)
    is_split = len(manifest.splits) == len(splits) > 0
    metrics = summarize_dataset(dataset) if is_split else summarize_manifest(manifest)
    (folder / "README.md").write_text(write_dataset_card(manifest, metrics), encoding="utf-8")
    (folder / "croissant.json").write_text(write_croissant(manifest), encoding="utf-8")
    write_fetched_splits(folder, manifest, None if splits == {*manifest.splits} else splits)
    write_manifest(folder, manifest)


def _list_splits(dataset: CaptchaDataset) -> Iterator[tuple[str, CaptchaDataset]]:
    for name in pc.unique(dataset.index["split"]).to_pylist():
        yield (name, dataset.split(name)) if name else (WHOLE, dataset)


def _list_shards(dataset: CaptchaDataset) -> Iterator[tuple[str, CaptchaDataset]]:
    """Yield the samples of each shard, with the shard's path."""
    shards = dataset.index["shard"]
    for path in pc.unique(shards).to_pylist():
        yield path, dataset[np.flatnonzero(np.asarray(pc.equal(shards, path)))]


def _read_samples(dataset: CaptchaDataset, advance: Advance) -> Iterator[Sample]:
    for sample in dataset.read_samples():
        yield sample
        advance(1)


def _write_tfrecord(folder: Path, split: str, dataset: CaptchaDataset, advance: Advance) -> None:  # noqa: ARG001 - one form
    for path, samples in _list_shards(dataset):
        (folder / path).parent.mkdir(exist_ok=True)
        # Not linked: whoever changes an export must not change the dataset.
        shutil.copyfile(dataset.files.make_local([path]) / path, folder / path)
        advance(len(samples))


def _write_webdataset(folder: Path, split: str, dataset: CaptchaDataset, advance: Advance) -> None:
    for number, (_, samples) in enumerate(_list_shards(dataset)):
        with tarfile.open(folder / f"{split}-{number:05}.tar", "w", format=tarfile.USTAR_FORMAT) as archive:
            for sample in _read_samples(samples, advance):
                for suffix, content in (("png", sample.image), ("txt", sample.label.encode())):
                    # Its time is 0 and its owner nobody, so that equal samples make equal bytes.
                    member = tarfile.TarInfo(f"{sample.id:09}.{suffix}")
                    member.size = len(content)
                    archive.addfile(member, io.BytesIO(content))


def _write_huggingface(folder: Path, split: str, dataset: CaptchaDataset, advance: Advance) -> None:
    (folder / "data").mkdir(exist_ok=True)
    for number, (_, shard) in enumerate(_list_shards(dataset)):
        path = folder / "data" / f"{split}-{number:05}.parquet"
        with path.open("wb") as file, pq.ParquetWriter(file, _SCHEMA) as writer:
            for rows in shard.read_tables():
                writer.write_table(rows.select(_SCHEMA.names).cast(_SCHEMA))
                advance(rows.num_rows)


def _write_images(folder: Path, split: str, dataset: CaptchaDataset, advance: Advance) -> None:
    (folder / split).mkdir()
    # Not by its path, which Arrow may take for a URL.
    with (folder / split / "metadata.parquet").open("wb") as file, pq.ParquetWriter(file, _METADATA_SCHEMA) as writer:
        for rows in dataset.read_tables():
            names = [f"{number:09}.png" for number in rows["id"].to_pylist()]
            for name, image in zip(names, rows["image"].to_pylist(), strict=True):
                (folder / split / name).write_bytes(image["bytes"])
                advance(1)
            writer.write_table(pa.table([names, rows["label"], rows["id"]], schema=_METADATA_SCHEMA))


def _write_numpy(folder: Path, split: str, dataset: CaptchaDataset, advance: Advance) -> None:
    spec = dataset.manifest.spec
    labels = np.array(dataset.index["label"].to_pylist(), dtype=np.str_)
    with zipfile.ZipFile(folder / f"{split}.npz", "w") as archive:
        # The pictures are more than memory may hold, so they are written one by one behind the header that NumPy expects.
        with _open_member(archive, "images") as file:
            shape = (len(dataset), spec.height, spec.width, 3)
            np.lib.format.write_array_header_2_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
            for sample in dataset:
                file.write(sample.image.tobytes())
                advance(1)
        for name, values in (("labels", labels), ("ids", np.asarray(dataset.index["id"]))):
            with _open_member(archive, name) as file:
                np.lib.format.write_array(file, values, allow_pickle=False)


def _open_member(archive: zipfile.ZipFile, name: str) -> BinaryIO:
    # A `ZipInfo` of its own has the date of 1980, not today's.
    return archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True)  # type: ignore[return-value]


WRITERS: dict[Format, Callable[[Path, str, CaptchaDataset, Advance], None]] = {
    "tfrecord": _write_tfrecord,
    "webdataset": _write_webdataset,
    "huggingface": _write_huggingface,
    "images": _write_images,
    "numpy": _write_numpy,
}
