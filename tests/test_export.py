"""What is exported is read by the tool that it is for, record for record; bytes are equal, and nothing is left half-written."""

import ast
import hashlib
import json
import re
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from glob import glob
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import ROOT, hash_files, replace_index
from huggingface_hub import DatasetCard
from PIL import Image

import captcha_registry
from captcha_registry.cli import main
from captcha_registry.dataset import dataset as dataset_module
from captcha_registry.dataset.dataset import CaptchaDataset
from captcha_registry.dataset.index import SCHEMA, read_index
from captcha_registry.dataset.manifest import read_fetched_splits
from captcha_registry.dataset.records import DamagedRecordError, iterate_records
from captcha_registry.dataset.spec import DatasetSpec
from captcha_registry.dataset.verify import verify_dataset
from captcha_registry.describing.export_card import describe_reader
from captcha_registry.errors import UserError
from captcha_registry.export import FORMATS, Format, export_dataset


@pytest.fixture(scope="module")
def tiny(tiny_dataset: CaptchaDataset) -> CaptchaDataset:
    return captcha_registry.load(tiny_dataset.root)


def expect(tiny: CaptchaDataset, split: str) -> dict[int, tuple[str, bytes]]:
    """Return label and pixels of each sample of a split, by its id."""
    return {sample.id: (sample.label, sample.image.tobytes()) for sample in tiny.split(split)}


@pytest.fixture
def load_dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., datasets.DatasetDict]:
    """Hugging Face's function, with a cache of its own."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    return partial(datasets.load_dataset, cache_dir=str(tmp_path / "cache"))


@pytest.mark.parametrize(
    ("export_format", "builder"), [("huggingface", None), ("images", None), ("images", "imagefolder"), ("webdataset", None)]
)
def test_hugging_face_reads_splits_pictures_and_texts(
    tiny: CaptchaDataset,
    tmp_path: Path,
    load_dataset: Callable[..., datasets.DatasetDict],
    export_format: Format,
    builder: str | None,
) -> None:
    export_dataset(tiny, export_format, tmp_path / "hub")
    folder = str(tmp_path / "hub")
    read = load_dataset(builder, data_dir=folder) if builder else load_dataset(folder)
    assert {*read} == {"train", "test"}
    for split in ("train", "test"):
        rows = read[split].rename_columns({"png": "image", "txt": "label"}) if export_format == "webdataset" else read[split]
        ids = rows["__key__"] if export_format == "webdataset" else rows["id"]
        found = {int(i): (row["label"], np.asarray(row["image"]).tobytes()) for i, row in zip(ids, rows, strict=True)}
        assert found == expect(tiny, split)


@pytest.mark.parametrize("export_format", ["huggingface", "images"])
def test_hugging_face_reads_a_dataset_that_was_not_split(
    generated_dataset: CaptchaDataset,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    load_dataset: Callable[..., datasets.DatasetDict],
    export_format: Format,
) -> None:
    monkeypatch.setattr(dataset_module, "SAMPLES_AT_ONCE", 4)
    export_dataset(generated_dataset, export_format, tmp_path / "hub")
    read = load_dataset(str(tmp_path / "hub"))
    assert {*read} == {"train"}
    assert read["train"]["label"][:] == generated_dataset.index["label"].to_pylist()


@pytest.mark.parametrize("export_format", FORMATS)
@pytest.mark.parametrize("fixture", ["tiny_dataset", "generated_dataset"])
def test_every_export_carries_its_licence_and_a_line_that_reads_it(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, export_format: Format, fixture: str
) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    dataset = request.getfixturevalue(fixture)
    folder = tmp_path / "path/to/folder"
    export_dataset(dataset, export_format, folder)
    card = DatasetCard.load(folder / "README.md")
    assert (card.data.license, card.data.pretty_name) == ("apache-2.0", "tiny")
    assert "Apache-2.0" in card.text
    example = re.findall(r"```python\n(.*?)```", card.text, re.DOTALL)[0]
    monkeypatch.chdir(folder if export_format == "tfrecord" else tmp_path)
    read: dict[str, Any] = {}
    if export_format == "webdataset":
        # In a process of its own, as webdataset leaves files open.
        code = f"{example}\nprint(sum(1 for _ in samples))"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert int(done.stdout) == len(dataset.split("train") if dataset.manifest.split else dataset)
        return
    exec(example, read)  # noqa: S102 - what a reader of the card would type
    samples = read["samples"]
    labels = samples["labels"] if export_format == "numpy" else samples["label"]
    expected = (dataset.split("train") if dataset.manifest.split else dataset).index["label"].to_pylist()
    assert [str(label) for label in labels] == expected


@pytest.mark.parametrize("export_format", FORMATS)
def test_the_line_that_reads_an_export_works_whatever_its_path(
    tiny_dataset: CaptchaDataset, tmp_path: Path, export_format: Format
) -> None:
    of_datasets = export_format in {"images", "huggingface"}
    folder = tmp_path / f"""it's "quoted", {"(1)" if of_datasets else "[1]"} {{split}} \\ ü"""
    export_dataset(tiny_dataset, export_format, folder)
    line = describe_reader(export_format, str(folder), "test")
    texts = [node.value for node in ast.walk(ast.parse(line)) if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    if export_format == "webdataset":
        (tars,) = [text for text in texts if text.endswith(".tar")]
        assert sorted(glob(tars)) == sorted(map(str, folder.glob("test-*.tar")))  # noqa: PTH207 - as in the line
    else:
        assert texts[0] == str(folder / "test.npz" if export_format == "numpy" else folder)
    if export_format in {"tfrecord", "numpy"}:
        read = eval(line, {"captcha_registry": captcha_registry, "numpy": np})  # noqa: S307 - what a reader would type
        assert len(read if export_format == "tfrecord" else read["labels"]) >= len(tiny_dataset.split("test"))
    if of_datasets:
        assert len(eval(line, {"datasets": datasets})) == len(tiny_dataset.split("test"))  # noqa: S307
        assert describe_reader(export_format, "of [1]", "test") == (
            "`datasets` takes *, ? and [ in the name of a folder for a pattern: rename it first"
        )
    if export_format in {"tfrecord", "images", "huggingface"}:
        assert '"./~mine"' in describe_reader(export_format, "~mine", "test")


def test_texts_of_digits_stay_texts_in_pandas(generate: Callable[..., CaptchaDataset], tmp_path: Path) -> None:
    spec = DatasetSpec(alphabet="01", length=3, width=48, height=32, count=10, shard_size=5, seed=7)
    dataset = captcha_registry.load(generate(spec).root)
    export_dataset(dataset, "images", tmp_path / "files")
    expected = dataset.labels.tolist()
    assert any(label.startswith("0") for label in expected)
    tables = [pd.read_parquet(tmp_path / "files/all/metadata.parquet"), dataset.to_huggingface().to_pandas()]
    assert [table["label"].tolist() for table in tables] == [expected, expected]


# In a process of its own, as webdataset leaves files open.
READ_TARS = """
import hashlib, json, sys, webdataset
for paths in json.loads(sys.argv[1]):
    samples = webdataset.WebDataset(paths, shardshuffle=False).decode("rgb8").to_tuple("__key__", "png", "txt")
    print(json.dumps({int(key): [text, hashlib.sha256(image.tobytes()).hexdigest()] for key, image, text in samples}))
"""


def test_webdataset_reads_every_sample(tiny: CaptchaDataset, tmp_path: Path) -> None:
    export_dataset(tiny, "webdataset", tmp_path / "tars")
    splits = ("train", "test")
    paths = [sorted(map(str, (tmp_path / "tars").glob(f"{split}-*.tar"))) for split in splits]
    done = subprocess.run([sys.executable, "-c", READ_TARS, json.dumps(paths)], capture_output=True, text=True, check=True)
    for split, line in zip(splits, done.stdout.splitlines(), strict=True):
        rows = {sample.id: [sample.label, hashlib.sha256(sample.image.tobytes()).hexdigest()] for sample in tiny.split(split)}
        assert {int(key): value for key, value in json.loads(line).items()} == rows


def test_numpy_reads_images_labels_and_ids_without_pickle(tiny: CaptchaDataset, tmp_path: Path) -> None:
    export_dataset(tiny, "numpy", tmp_path / "arrays")
    for split in ("train", "test"):
        with np.load(tmp_path / "arrays" / f"{split}.npz", allow_pickle=False) as arrays:
            images, labels, ids = (arrays[name] for name in ("images", "labels", "ids"))
        assert images.dtype == np.uint8
        rows = {int(i): (str(label), image.tobytes()) for image, label, i in zip(images, labels, ids, strict=True)}
        assert rows == expect(tiny, split)


def test_pictures_lie_beside_a_table_of_their_labels(tiny: CaptchaDataset, tmp_path: Path) -> None:
    export_dataset(tiny, "images", tmp_path / "files")
    for split in ("train", "test"):
        folder = tmp_path / "files" / split
        rows = pq.read_table(folder / "metadata.parquet").to_pylist()
        read = {row["id"]: (row["label"], np.asarray(Image.open(folder / row["file_name"])).tobytes()) for row in rows}
        assert read == expect(tiny, split)
        assert len(list(folder.glob("*.png"))) == len(rows)


def test_shards_are_copied_as_they_are_and_can_be_changed(
    tiny: CaptchaDataset, tiny_dataset: CaptchaDataset, tmp_path: Path
) -> None:
    export_dataset(tiny.split("test"), "tfrecord", tmp_path / "shards")
    shards = sorted(tmp_path.glob("shards/test/*.tfrecord"))
    assert sum(1 for shard in shards for _ in iterate_records(shard)) == len(tiny.split("test"))
    assert hash_files(tmp_path / "shards/test") == hash_files(tiny_dataset.root / "test")
    assert all(shard.stat().st_nlink == 1 for shard in shards)


@pytest.mark.parametrize("split", [None, "test"])
def test_exported_shards_are_a_dataset(tiny: CaptchaDataset, tmp_path: Path, split: str | None) -> None:
    chosen = tiny.split(split) if split else tiny
    export_dataset(chosen, "tfrecord", tmp_path / "shards")
    loaded = captcha_registry.load(tmp_path / "shards", split=split)
    assert loaded.index.equals(chosen.index)
    assert loaded.manifest == tiny.manifest
    np.testing.assert_array_equal(loaded.to_numpy()[0], chosen.to_numpy()[0])
    with ThreadPoolExecutor(1) as executor:
        splits = read_fetched_splits(tmp_path / "shards")
        assert verify_dataset(tmp_path / "shards", "deep", executor, splits=splits) == []


def test_what_was_not_exported_is_named_when_it_is_read(tiny: CaptchaDataset, tmp_path: Path) -> None:
    export_dataset(tiny.split("test"), "tfrecord", tmp_path / "shards")
    with pytest.raises(
        UserError, match=r"train/\d+\.tfrecord is missing: only test was fetched: load it with split='test', .* --split test"
    ):
        captcha_registry.load(tmp_path / "shards").to_numpy()


@pytest.mark.parametrize(
    ("numbers", "export_format", "message"),
    [
        ([], "images", "no sample is selected, so there is nothing to export"),
        ([1, 1], "webdataset", "a sample is selected more than once"),
        ([1, 2], "tfrecord", r"2 of their \d+ samples are selected: export a dataset, or a split of it"),
    ],
)
def test_a_selection_that_a_format_cannot_hold_is_refused(
    tiny: CaptchaDataset, tmp_path: Path, numbers: list[int], export_format: Format, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        export_dataset(tiny[numbers], export_format, tmp_path / "out" / "export")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("export_format", FORMATS)
def test_two_processes_write_the_same_bytes(
    tiny_dataset: CaptchaDataset, tiny: CaptchaDataset, tmp_path: Path, export_format: Format
) -> None:
    export_dataset(tiny, export_format, tmp_path / "here")
    command = ["export", str(tiny_dataset.root), "--format", export_format, "--to", str(tmp_path / "there"), "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "captcha_registry.cli", *command], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert json.loads(done.stdout)["num_samples"] == len(tiny)
    assert hash_files(tmp_path / "here") == hash_files(tmp_path / "there")


@pytest.mark.parametrize("export_format", FORMATS)
def test_a_damaged_shard_is_refused_before_anything_is_written(dataset_copy: Path, tmp_path: Path, export_format: Format) -> None:
    shard = next((dataset_copy / "test").iterdir())
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    with pytest.raises(UserError, match=f"{shard.name} has other bytes than the manifest says"):
        export_dataset(captcha_registry.load(dataset_copy), export_format, tmp_path / "out" / "export")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("export_format", [name for name in FORMATS if name != "tfrecord"])
def test_a_sample_that_the_index_contradicts_leaves_nothing_behind(
    dataset_copy: Path, tmp_path: Path, export_format: Format
) -> None:
    rows = read_index(dataset_copy / "index.parquet").to_pylist()
    rows[50]["label"] = "ABC"
    replace_index(dataset_copy, pa.Table.from_pylist(rows, schema=SCHEMA))
    with pytest.raises(DamagedRecordError, match=r"holds sample 50, .* the index says 50, 'ABC'"):
        export_dataset(captcha_registry.load(dataset_copy), export_format, tmp_path / "out" / "export")
    assert list((tmp_path / "out").iterdir()) == []


def test_nothing_is_exported_into_the_dataset_itself(tiny_dataset: CaptchaDataset) -> None:
    target, root = tiny_dataset.root / "train" / ".." / "exported", re.escape(str(tiny_dataset.root.resolve()))
    with pytest.raises(UserError, match=f"lies in the dataset {root}, where it would be taken for damage"):
        export_dataset(captcha_registry.load(tiny_dataset.root), "numpy", target)
    assert not target.exists()


def test_nothing_is_exported_into_another_dataset(tiny_dataset: CaptchaDataset, dataset_copy: Path) -> None:
    target = dataset_copy / "new/exported"
    with pytest.raises(UserError, match=f"lies in the dataset {re.escape(str(dataset_copy.resolve()))}, where it would be taken"):
        export_dataset(captcha_registry.load(tiny_dataset.root), "numpy", target)
    assert not target.parent.exists()


@pytest.mark.parametrize("export_format", FORMATS)
@pytest.mark.parametrize("name", ["run:1/out", "n\udce9", "file:x/out"])
def test_an_export_may_have_any_name(
    tiny_dataset: CaptchaDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, export_format: Format, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    export_dataset(captcha_registry.load(tiny_dataset.root, split="test"), export_format, Path(name))
    assert (Path(name) / "README.md").is_file()
    assert [path.name for path in tmp_path.iterdir()] == [Path(name).parts[0]]


def test_a_link_in_the_place_of_unfinished_work_is_removed_but_not_what_it_leads_to(
    tiny_dataset: CaptchaDataset, tmp_path: Path
) -> None:
    (tmp_path / "big").mkdir()
    (tmp_path / "big/kept").touch()
    (tmp_path / ".out.unfinished").symlink_to(tmp_path / "big")
    export_dataset(captcha_registry.load(tiny_dataset.root), "numpy", tmp_path / "out")
    assert {path.name for path in tmp_path.iterdir()} == {"big", "out"}
    assert (tmp_path / "big/kept").is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["PATH", "--format", "numpy", "--to", "PATH"], "exists already, and nothing is overwritten"),
        (["PATH", "--format", "numpy", "--to", "loop"], "loop exists already, and nothing is overwritten"),
        (["PATH", "--format", "numpy", "--to", "new", "--split", "tset"], "has no split 'tset'; expected train or test"),
        (["PATH", "--format", "numpy", "--to", "new", "--split", ""], "has no split ''; expected train or test"),
        (["me@corp/nowhere", "--format", "numpy", "--to", "new"], "there is no folder me@corp/nowhere"),
        ([".", "--format", "onnx", "--to", "new"], ". holds no model: model.json is missing"),
        (["nowhere", "--format", "numpy", "--to", "new"], "there is no folder nowhere"),
        (["PATH", "--format", "zip", "--to", "new"], "invalid choice: 'zip'"),
    ],
)
def test_bad_input_is_named_and_nothing_written(
    tiny_dataset: CaptchaDataset,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("loop").symlink_to("loop")
    with pytest.raises(SystemExit) as end:
        main(["export", *(str(tiny_dataset.root) if argument == "PATH" else argument for argument in arguments)])
    assert end.value.code == 2
    assert message in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["loop"]


def test_a_dataset_that_was_not_split_is_one_part(generated_dataset: CaptchaDataset, tmp_path: Path) -> None:
    export_dataset(captcha_registry.load(generated_dataset.root), "numpy", tmp_path / "arrays")
    assert sorted(path.name for path in (tmp_path / "arrays").iterdir()) == ["README.md", "all.npz"]
