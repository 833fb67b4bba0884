"""Write a dataset in the form that another tool reads: every sample proved on the way, equal bytes for equal datasets.

| format      | files, for each split                                          | reads it                          |
|-------------|----------------------------------------------------------------|-----------------------------------|
| tfrecord    | `train/00000.tfrecord`, the shards as they are; index.parquet   | tf.data, any TFRecord reader      |
| webdataset  | `train-00000.tar` with `000000000.png` and `000000000.txt`      | webdataset                        |
| huggingface | `data/train-00000.parquet` and a README.md that names them      | `datasets.load_dataset(folder)`   |
| images      | `train/000000000.png` and `train/labels.csv`                    | anything                          |
| numpy       | `train.npz` with images, labels, ids                            | `numpy.load`                      |

Names are numbers, not labels: these may hold `/`, or differ in case only.
"""

import csv
import io
import json
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
from captcha_registry.dataset.dataset import CaptchaDataset
from captcha_registry.dataset.index import INDEX_NAME, write_index
from captcha_registry.dataset.records import Sample
from captcha_registry.errors import UserError
from captcha_registry.workspace import name_full_disk

Format = Literal["tfrecord", "webdataset", "huggingface", "images", "numpy"]
FORMATS: tuple[Format, ...] = get_args(Format)

# Told how many more samples are done.
Advance = Callable[[int], object]

# What a dataset that was not split is called.
WHOLE = "all"

# How `datasets` knows that a column of bytes is a picture, with no need of the package here.
_FEATURES = {
    "image": {"_type": "Image"},
    "label": {"dtype": "string", "_type": "Value"},
    "id": {"dtype": "int64", "_type": "Value"},
}
_SCHEMA = pa.schema(
    {"image": pa.struct({"bytes": pa.binary(), "path": pa.string()}), "label": pa.string(), "id": pa.int64()},
    metadata={"huggingface": json.dumps({"info": {"features": _FEATURES}})},
)


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written."""

    num_samples: int
    num_files: int
    size_bytes: int


def export_dataset(dataset: CaptchaDataset, export_format: Format, target: Path) -> Exported:
    """Write a dataset, or a part of one, into a new folder, whole or not at all, with a progress bar.

    Raises:
        UserError: the folder exists already, another export is making it, or a sample is not what manifest and index say.
    """
    if target.exists():
        raise UserError(f"{target} exists already, and nothing is overwritten: name another folder with --to, or remove it")
    dataset.make_local()
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        with hold_lock(find_lock("export", target), wait=False), name_full_disk(target):
            return _export(dataset, export_format, target)
    except Timeout:
        raise UserError(f"another export to {target} is at work: wait for it to end, or stop it") from None


def _export(dataset: CaptchaDataset, export_format: Format, target: Path) -> Exported:
    """Write a dataset beside its place, and put it there when it is complete."""
    unfinished = target.with_name(f".{target.name}.unfinished")
    if unfinished.exists():
        # A killed run left it.
        shutil.rmtree(unfinished)
    try:
        unfinished.mkdir()
        with tqdm(total=len(dataset), desc=f"export {dataset.manifest.name}", unit="sample", disable=None) as bar:
            for split, part in _list_splits(dataset):
                WRITERS[export_format](unfinished, split, part, bar.update)
        if export_format == "tfrecord":
            write_index(unfinished / INDEX_NAME, dataset.index)
        if export_format == "huggingface":
            (unfinished / "README.md").write_text(_write_hub_card(dataset), encoding="utf-8")
        files = [path for path in unfinished.rglob("*") if path.is_file()]
        exported = Exported(len(dataset), len(files), sum(path.stat().st_size for path in files))
        unfinished.replace(target)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return exported


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
        samples = list(_read_samples(shard, advance))
        columns = {
            "image": [{"bytes": sample.image, "path": None} for sample in samples],
            "label": [sample.label for sample in samples],
            "id": [sample.id for sample in samples],
        }
        pq.write_table(pa.table(columns, schema=_SCHEMA), folder / "data" / f"{split}-{number:05}.parquet")


def _write_images(folder: Path, split: str, dataset: CaptchaDataset, advance: Advance) -> None:
    (folder / split).mkdir()
    with (folder / split / "labels.csv").open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(["file", "label", "id"])
        for sample in _read_samples(dataset, advance):
            name = f"{sample.id:09}.png"
            (folder / split / name).write_bytes(sample.image)
            rows.writerow([name, sample.label, sample.id])


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


def _write_hub_card(dataset: CaptchaDataset) -> str:
    splits = "".join(f"  - split: {split}\n    path: data/{split}-*.parquet\n" for split, _ in _list_splits(dataset))
    return (
        f"---\nconfigs:\n- config_name: default\n  data_files:\n{splits}---\n# {dataset.manifest.name}\n\n"
        f"{len(dataset):,} captchas with their text, of the dataset with the id `{dataset.manifest.dataset_id}`.\n"
    )


WRITERS: dict[Format, Callable[[Path, str, CaptchaDataset, Advance], None]] = {
    "tfrecord": _write_tfrecord,
    "webdataset": _write_webdataset,
    "huggingface": _write_huggingface,
    "images": _write_images,
    "numpy": _write_numpy,
}
