"""The front door: samples by number, selections, and what each framework gets, all equal to what was drawn."""

import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf
from conftest import ROOT, replace_index
from hypothesis import given, settings
from hypothesis import strategies as st

import captcha_registry
from captcha_registry.dataset import dataset as dataset_module
from captcha_registry.dataset.dataset import CaptchaDataset, make_dataset
from captcha_registry.dataset.files import LocalFiles
from captcha_registry.dataset.filtering import select_rows
from captcha_registry.dataset.index import SCHEMA, read_index, write_index
from captcha_registry.dataset.manifest import read_manifest
from captcha_registry.dataset.records import DamagedRecordError, ShardWriter, decode_sample, encode_sample, iterate_records
from captcha_registry.dataset.spec import DatasetSpec
from captcha_registry.errors import UserError
from captcha_registry.generation.drawing import Drawer


@pytest.fixture(scope="module")
def tiny(tiny_dataset: CaptchaDataset) -> CaptchaDataset:
    return captcha_registry.load(tiny_dataset.root)


def test_every_sample_is_the_one_that_was_drawn(tiny: CaptchaDataset, tiny_spec: DatasetSpec) -> None:
    drawer = Drawer(tiny_spec)
    assert len(tiny) == tiny_spec.count
    for number, sample in enumerate(tiny):
        drawn = drawer.draw(number)
        assert (sample.id, sample.label) == (number, drawn.label)
        assert sample.image.dtype == np.uint8
        np.testing.assert_array_equal(sample.image, drawn.pixels)


@pytest.mark.parametrize(
    ("source", "repo", "message"),
    [
        ("nowhere", None, "there is no folder nowhere: .* for a published one add --repo URL, in Python repo=URL"),
        ("tests", None, "tests holds no dataset, neither manifest.json nor index.parquet: name the folder that does"),
        (
            "data/digits",
            "URL",
            "data/digits is a path, which goes without repo and version; expected the name .* such as digits$",
        ),
        ("tiny@", "URL", r"'tiny@' names no version; expected NAME or NAME@VERSION"),
    ],
    ids=["no folder", "no dataset", "a path", "no version"],
)
def test_what_cannot_be_loaded_is_refused_with_what_can(source: str, repo: str | None, message: str) -> None:
    with pytest.raises(UserError, match=message):
        captcha_registry.load(source, repo=repo)


def test_loading_imports_no_framework(tiny_dataset: CaptchaDataset) -> None:
    code = (
        "import sys, json, captcha_registry\n"
        "before = sorted(sys.modules)\n"
        f"samples = captcha_registry.load({str(tiny_dataset.root)!r}, split='test')\n"
        "loaded = sorted(sys.modules)\n"
        "samples[0].image\n"
        "print(json.dumps([before, loaded, sorted(sys.modules)]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    before, loaded, after = json.loads(done.stdout)
    assert not {"numpy", "pyarrow"} & set(before)
    # It takes longer to import than 100,000 rows to open.
    assert "pandas" not in loaded
    assert not {"tensorflow", "torch", "datasets", "keras", "sklearn", "numba"} & set(after)


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_split_holds_its_own_samples_only(tiny: CaptchaDataset, tiny_dataset: CaptchaDataset, split: str) -> None:
    samples = captcha_registry.load(str(tiny_dataset.root), split=split)
    assert samples.index.equals(tiny_dataset.split(split).index)
    assert samples.index.equals(tiny.split(split).index)


def test_a_split_that_is_not_there_is_refused(tiny: CaptchaDataset, generated_dataset: CaptchaDataset) -> None:
    with pytest.raises(UserError, match=r"tiny has no split 'validation'; expected (test or train|train or test)"):
        tiny.split("validation")
    with pytest.raises(UserError, match="tiny has no split ''; expected"):
        captcha_registry.load(generated_dataset.root, split="")
    with pytest.raises(UserError, match=r"tiny has no split \['test'\]; expected"):
        tiny.split(["test"])  # type: ignore[arg-type]
    for selection, split in ((tiny[:0], "test"), (tiny.split("test"), "train")):
        with pytest.raises(UserError, match=f"^of these {len(selection)} samples of tiny none is in the split '{split}'$"):
            selection.split(split)
    with pytest.raises(UserError, match=r"tiny has no split 'test'; expected none, it is not split"):
        captcha_registry.load(generated_dataset.root, split="test")


@settings(max_examples=50)
@given(numbers=st.slices(60) | st.lists(st.integers(-60, 59), max_size=20))
def test_selecting_is_what_a_list_does(tiny: CaptchaDataset, numbers: slice | list[int]) -> None:
    ids = list(range(60))
    expected = ids[numbers] if isinstance(numbers, slice) else [ids[number] for number in numbers]
    chosen = tiny[numbers]
    assert chosen.index["id"].to_pylist() == expected
    assert [sample.id for sample in chosen] == expected
    assert len(chosen) == len(expected)


@pytest.mark.parametrize("number", [60, -61, np.int64(60)])
def test_a_number_outside_is_an_index_error(tiny: CaptchaDataset, number: int) -> None:
    with pytest.raises(IndexError, match="of 60"):
        tiny[number]
    with pytest.raises(IndexError):
        tiny[[number]]


def put_a_file_in_place_of_the_folder(shard: Path) -> None:
    """As after `mv` of one thing over another."""
    shutil.rmtree(shard.parent)
    shard.parent.touch()


def link_to_itself(shard: Path) -> None:
    shard.unlink()
    shard.symlink_to(shard.name)


@pytest.mark.parametrize("remove", [Path.unlink, put_a_file_in_place_of_the_folder, link_to_itself])
def test_a_shard_that_was_not_fetched_is_named_with_what_to_do(dataset_copy: Path, remove: Callable[[Path], None]) -> None:
    samples = captcha_registry.load(dataset_copy)
    remove(dataset_copy / samples.index["shard"][3].as_py())
    for read in (lambda: samples[3], samples.to_numpy):
        with pytest.raises(UserError, match=r"\.tfrecord is missing: if only one split was fetched, load that one"):
            read()


def test_a_mask_selects_where_it_is_true(tiny: CaptchaDataset) -> None:
    dark = tiny.index["ink_luminance"].to_numpy() < 90
    assert 0 < dark.sum() < 60
    assert tiny[dark].index["id"].to_pylist() == np.flatnonzero(dark).tolist()
    assert tiny[dark.tolist()].index.equals(tiny[dark].index)
    with pytest.raises(IndexError):
        tiny[dark[:10]]


def test_a_pandas_mask_of_rows_in_another_order_is_refused(tiny: CaptchaDataset) -> None:
    everything = tiny.index.to_pandas()
    # Of a part of a frame, too, and whatever its rows are called.
    for samples, frame in ((tiny, everything), (tiny.split("test"), everything[everything["split"] == "test"])):
        expected = samples[(frame["ink_luminance"] < 90).to_numpy()].index
        ordered = frame.sort_values("ink_luminance")
        for right in (frame, frame.set_index("id"), ordered.sort_index(), frame.set_index(frame.index * 1.5)):
            assert samples[right["ink_luminance"] < 90].index.equals(expected)
        for other in (frame[::-1], ordered, ordered.set_index(ordered.index * 1.5), frame.set_index(frame.index // 2)):
            with pytest.raises(
                TypeError, match=r"in another order than the samples: bring it back with `\.sort_index\(\)`, or give"
            ):
                samples[other["ink_luminance"] < 90]
        for unclear in (
            ordered.set_index("id"),
            frame.set_index("split"),
            ordered.set_index("label"),
            frame.set_index(["id", "label"]),
        ):
            with pytest.raises(
                TypeError, match=r"does not tell whether .*: give `\.to_numpy\(\)` of a mask that is in their order$"
            ):
                samples[unclear["ink_luminance"] < 90]
    # Where the samples are in another order than their ids, no numbers tell.
    chosen = tiny[[5, 3, 1]]
    for numbers in ([5, 3, 1], [1, 3, 5]):
        with pytest.raises(TypeError, match="does not tell whether"):
            chosen[everything.loc[numbers, "ink_luminance"] < 90]
    assert chosen[chosen.index.to_pandas().set_index("id")["ink_luminance"] < 256].index.equals(chosen.index)
    with pytest.raises(IndexError):
        tiny.split("test")[everything.set_index("id")["ink_luminance"] < 90]


@pytest.mark.parametrize("key", [True, 1.0, [1.9, 2.2], ["1"], [[1, 2]], None], ids=str)
def test_what_is_no_number_selects_nothing(tiny: CaptchaDataset, key: object) -> None:
    with pytest.raises(TypeError, match="selected by whole numbers, a slice or a mask"):
        tiny[key]


FILTERS = [
    "ink_luminance < 40",
    "100 <= ink_luminance <= 150",
    "not ink_luminance < 90 and split == 'test'",
    "label in ('00A', '111') or id == 3",
    "id not in [1, 2, 3] and (split != 'train' or ink_luminance > 120)",
    "id > -1",
    "offset < length",
    "ink_luminance in (300, 90, 91, 92, 93, 94) or id in [1, 2]",
    "ink_luminance in (90.5, 91) or id == 4.0",
]
# What pandas' own grammar has not.
TEXT_FILTERS = {
    "'0' in label": lambda row: "0" in row["label"],
    "'0A' in label or 'B' in label": lambda row: "0A" in row["label"] or "B" in row["label"],
    "'0' not in label and 'ain' in split": lambda row: "0" not in row["label"] and row["split"] == "train",
    "label != split and 'test' in split": lambda row: row["split"] == "test",
}


def test_a_column_of_shares_is_compared_with_whole_numbers(tiny: CaptchaDataset) -> None:
    shares = pa.array([0.0, 0.5, 1.0] * 20, pa.float32())
    rows = tiny.index.append_column("share", shares)
    assert len(select_rows(rows, "share in (0, 1)")) == 40
    assert len(select_rows(rows, "share not in (0, 1)")) == 20


@pytest.mark.parametrize("expression", FILTERS)
def test_a_filter_selects_what_pandas_would(tiny: CaptchaDataset, expression: str) -> None:
    expected = tiny.index.to_pandas().query(expression)
    assert tiny.filter(expression).index["id"].to_pylist() == expected["id"].tolist()


@pytest.mark.parametrize("expression", TEXT_FILTERS)
def test_a_filter_selects_texts_that_hold_a_text(tiny: CaptchaDataset, expression: str) -> None:
    expected = [row["id"] for row in tiny.index.to_pylist() if TEXT_FILTERS[expression](row)]
    assert expected
    assert tiny.filter(expression).index["id"].to_pylist() == expected


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("luminance < 40", "filter 'luminance < 40': 'luminance' is no column; expected one of id, label, split"),
        ("ink_luminance <", "filter 'ink_luminance <': invalid syntax at character 16, after 'ink_luminance <'"),
        ("  id < 3 and and id > 1", "filter 'id < 3 and and id > 1': invalid syntax at character 12, after 'id < 3 and '"),
        ("(id < 3 and\n ?)", r"filter '\(id < 3 and\\n \?\)': invalid syntax at character 14, after '\(id < 3 and\\n '"),
        ("id = 3", "invalid syntax"),
        ("label == '12", "unterminated string literal"),
        ("", "filter '': it is empty; expected comparisons"),
        ("ink_luminance", "filter 'ink_luminance': it is not a condition on a column"),
        ("1 < 2", "it is not a condition on a column"),
        ("id < 9 and label < 3", "'label < 3' compares texts with numbers; expected values of one kind, texts in quotes"),
        ("label == 0012", "leading zeros in decimal integer literals are not permitted"),
        ("label == A12", "'A12' is no column; .*, and texts in quotes"),
        ("id == '3'", "compares numbers with texts"),
        ("pixel_sha256 == 'ab'", "compares bytes with texts"),
        ("id in 3", "has `in` without a column before it and a list of values behind it"),
        ("label in '12'", "has `in` without a column before it and a list"),
        ("'1' in id", "has `in` without a column before it"),
        ("1 in label", "has `in` without a column before it .* or '1' in label"),
        ("label in split", "has `in` without a column before it"),
        ("label in (1, 2)", "compares texts with numbers"),
        ("label in (1, '2')", "holds numbers and texts; expected values of one kind"),
        ("id < (1, 2)", "compares with a list, which only `in` does"),
        ("id in (1, label)", "is no value; expected numbers, or texts in quotes"),
        ("split == None", "'None' holds None; expected numbers"),
        ("id == True", "compares numbers with truth values"),
        ("id and label == 'A'", "'id' is no condition, it stands for numbers; expected a comparison"),
        ("not label", "'label' is no condition, it stands for texts"),
        ("id < -'a'", "is no value"),
        ("ink_luminance < 10**99", r"'10 \*\* 99' is not understood"),
        ("ink_luminance < 99999999999999999999", "is too large a number; expected less than 2"),
        ("ink_luminance is None", "'None' holds None"),
        ("ink_luminance is 3", "`is`, which is not understood"),
        ("__import__('os').system('touch hacked')", "is not understood"),
        ("label.__class__ == 1", "is not understood"),
        ("[x for x in id] == 1", "is not understood"),
        ("(" * 600 + "id" + ")" * 600, "1,202 characters; expected at most 1,000"),
        ("id < " + "-" * 900 + "1", "nested deeper than can be read|is not understood"),
        ("id < 0" + "+1" * 400, "nested deeper than can be read|is not understood"),
    ],
)
def test_what_is_no_filter_is_refused(tiny: CaptchaDataset, expression: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        tiny.filter(expression)


def test_a_value_is_in_a_set_and_in_no_empty_list(tiny: CaptchaDataset) -> None:
    assert tiny.filter("id in {1, 2} and id not in []").index["id"].to_pylist() == [1, 2]
    assert len(tiny.filter("label in []")) == 0


def test_numpy_gets_every_selected_sample(tiny: CaptchaDataset) -> None:
    chosen = tiny[[5, 3, 5]]
    images, labels = chosen.to_numpy()
    assert images.shape == (3, 32, 48, 3)
    assert labels.tolist() == chosen.index["label"].to_pylist()
    np.testing.assert_array_equal(images[1], tiny[3].image)
    np.testing.assert_array_equal(images[0], images[2])


def read_all(batches: tf.data.Dataset) -> list[tuple[str, str]]:
    """List label and hash of the picture of every sample of one epoch."""
    return [
        (label.decode(), hashlib.sha256(image).hexdigest())
        for images, labels in batches.as_numpy_iterator()
        for image, label in zip(images, labels, strict=True)
    ]


CACHES = ["none", "memory", "disk"]


def choose_cache(name: str, folder: Path) -> bool | Path:
    return {"none": False, "memory": True, "disk": folder / "cache"}[name]


@pytest.mark.parametrize("cache", CACHES)
def test_tensorflow_gets_the_selection_in_its_order(tiny: CaptchaDataset, tmp_path: Path, cache: str) -> None:
    # Backwards over several shards, and one sample three times.
    chosen = tiny[[*range(50, 10, -1), 3, 3, 3]]
    expected = [(sample.label, hashlib.sha256(sample.image).hexdigest()) for sample in chosen]
    batches = chosen.to_tf(batch_size=8, cache=choose_cache(cache, tmp_path))
    assert [len(images) for images, _ in batches] == [8, 8, 8, 8, 8, 3]
    assert len(batches) == 6
    assert read_all(batches) == read_all(batches) == expected
    dropped = chosen.to_tf(batch_size=8, cache=choose_cache(cache, tmp_path), drop_remainder=True)
    assert len(dropped) == 5
    assert dropped.element_spec[0].shape == (8, 32, 48, 3)
    assert read_all(dropped) == expected[:40]
    # Numbers for which TensorFlow has no room.
    for batch_size in (10**12, 10**20):
        everything, nothing = (chosen.to_tf(batch_size=batch_size, drop_remainder=drop) for drop in (False, True))
        assert (read_all(everything), read_all(nothing), len(nothing)) == (expected, [], 0)


def test_pictures_are_kept_in_the_home_that_a_tilde_stands_for(
    tiny: CaptchaDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    tiny[:1].to_tf(batch_size=1, cache="~/kept")
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]
    with pytest.raises(UserError, match="a path is empty, perhaps because a variable is not set"):
        tiny[:1].to_tf(batch_size=1, cache="")
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"^cache is .*/file, which is no folder; expected one, which need not exist yet$"):
        tiny[:1].to_tf(batch_size=1, cache=tmp_path / "file")


@pytest.mark.parametrize("cache", CACHES)
def test_a_seed_and_an_epoch_decide_the_order_wherever_pictures_are_kept(
    tiny: CaptchaDataset, tmp_path: Path, cache: str
) -> None:
    def read_epochs(number: int, **arguments: int) -> list[list[tuple[str, str]]]:
        batches = tiny.to_tf(batch_size=7, shuffle=True, cache=choose_cache(cache, tmp_path), **arguments)
        return [read_all(batches) for _ in range(number)]

    first, second, third = read_epochs(3, seed=1)
    assert sorted(first) == sorted(second) == sorted(read_all(tiny.to_tf(batch_size=60)))
    assert first != second != third != first
    assert read_epochs(1, seed=1, epoch=2) == [third]
    assert read_epochs(1, seed=2) != [first]
    assert read_all(tiny.to_tf(batch_size=60, shuffle=True, seed=1)) == first


def test_without_a_seed_no_order_comes_again(tiny: CaptchaDataset) -> None:
    batches = tiny.to_tf(batch_size=60, shuffle=True)
    assert len({tuple(read_all(batches)) for _ in range(3)}) == 3


@pytest.mark.parametrize("cache", CACHES)
def test_an_empty_selection_gives_no_batch(tiny: CaptchaDataset, tmp_path: Path, cache: str) -> None:
    batches = tiny.filter("id < 0").to_tf(batch_size=8, shuffle=True, seed=1, cache=choose_cache(cache, tmp_path))
    assert len(batches) == 0
    assert list(batches) == []
    assert batches.element_spec[0].shape[1:] == (32, 48, 3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": 0}, "batch_size is 0; expected a whole number from 1"),
        ({"batch_size": -8}, "batch_size is -8; expected a whole number from 1"),
        ({"batch_size": 8.0}, r"batch_size is 8\.0; expected a whole number from 1"),
        ({"batch_size": "8"}, "batch_size is '8'; expected a whole number from 1"),
        ({"batch_size": True}, "batch_size is True; expected a whole number from 1"),
        ({"batch_size": None}, "batch_size is None; expected a whole number from 1"),
        ({"batch_size": 8, "seed": -1}, "seed is -1; expected a whole number from 0"),
        ({"batch_size": 8, "seed": 1}, "seed is 1, and samples come in the order of the selection: add shuffle=True"),
        ({"batch_size": 8, "epoch": 0.5}, r"epoch is 0\.5; expected a whole number from 0"),
    ],
)
def test_a_number_that_tensorflow_could_not_take_is_refused(
    tiny: CaptchaDataset, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        tiny.to_tf(**arguments)
    assert len(tiny.to_tf(batch_size=np.int64(60), shuffle=True, seed=np.int32(1))) == 1


# Opens a cache on disk, and waits to be killed.
KEEP_ON_DISK = """
import sys
from captcha_registry import load
batches = load(sys.argv[1]).to_tf(batch_size=8, cache=sys.argv[2])
next(iter(batches))
print("kept", flush=True)
sys.stdin.read()
"""


def test_a_killed_process_leaves_no_cache_behind(tiny: CaptchaDataset, tmp_path: Path) -> None:
    command = [sys.executable, "-c", KEEP_ON_DISK, str(tiny.root), str(tmp_path / "cache")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT) as killed:
        assert killed.stdout is not None
        assert killed.stdout.readline() == "kept\n"
        killed.kill()
    assert list((tmp_path / "cache").iterdir()) == []


def test_tensorflow_is_given_no_record_that_the_index_does_not_name(dataset_copy: Path) -> None:
    first, second = read_index(dataset_copy / "index.parquet").to_pylist()[:2]
    place = {name: first[name] for name in ("shard", "offset", "length")}
    replace_index(dataset_copy, change_row(dataset_copy, second["id"], **place))
    with pytest.raises(tf.errors.InvalidArgumentError, match="a record is not the one that the index names"):
        list(captcha_registry.load(dataset_copy).to_tf(batch_size=8))


def test_a_shard_that_is_damaged_while_it_is_read_is_named(dataset_copy: Path) -> None:
    samples = captcha_registry.load(dataset_copy)
    batches = samples.to_tf(batch_size=8)
    row = samples.index.slice(9, 1).to_pylist()[0]
    with (dataset_copy / row["shard"]).open("r+b") as file:
        file.seek(row["offset"] + 40)
        file.write(b"damage")
    with pytest.raises(tf.errors.OpError, match=f"{row['shard']}: record at byte {row['offset']:,}: wrong checksum"):
        list(batches)


@pytest.mark.peers
@pytest.mark.parametrize("num_workers", [0, 2])
def test_pytorch_loads_the_selection_in_its_order(tiny: CaptchaDataset, num_workers: int) -> None:
    from torch.utils.data import DataLoader  # noqa: PLC0415 - not in the lock file

    chosen = tiny.split("test").shuffle(1)
    samples = chosen.to_torch()
    start = "spawn" if num_workers else None
    batches = list(DataLoader(samples, batch_size=5, num_workers=num_workers, multiprocessing_context=start))
    images, labels = chosen.to_numpy()
    found = np.concatenate([batch.numpy() for batch, _ in batches])
    np.testing.assert_array_equal(found, images.transpose(0, 3, 1, 2))
    assert [label for _, batch in batches for label in batch] == labels.tolist()
    for key in (slice(2), [1], "label"):
        with pytest.raises(TypeError, match="cannot be interpreted as an integer"):
            samples[key]


def test_hugging_face_gets_every_sample(tiny: CaptchaDataset) -> None:
    chosen = tiny.filter("split == 'test'")
    samples = chosen.to_huggingface()
    assert samples.column_names == ["image", "label", "id", "split"]
    for row, sample in zip(samples, chosen, strict=True):
        assert (row["id"], row["label"], row["split"]) == (sample.id, sample.label, "test")
        np.testing.assert_array_equal(np.asarray(row["image"]), sample.image)


@pytest.mark.parametrize(("limit", "value"), [("SAMPLES_AT_ONCE", 7), ("TABLE_BYTES", 7 * 48 * 32 * 3)])
def test_hugging_face_gets_parts_that_arrow_can_hold(
    tiny: CaptchaDataset, monkeypatch: pytest.MonkeyPatch, limit: str, value: int
) -> None:
    monkeypatch.setattr(dataset_module, limit, value)
    samples = tiny.to_huggingface()
    assert max(len(chunk) for chunk in samples.data["image"].chunks) == 7
    assert samples["label"][:] == tiny.index["label"].to_pylist()
    np.testing.assert_array_equal(np.asarray(samples[59]["image"]), tiny[59].image)


def test_hugging_face_gets_an_empty_selection(tiny: CaptchaDataset) -> None:
    assert len(tiny.filter("id < 0").to_huggingface()) == 0


def test_what_memory_cannot_hold_is_refused_with_what_can(tiny: CaptchaDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dataset_module, "available_memory_bytes", lambda: 1000)
    # A selection that no test before has read into memory.
    samples = tiny[:]
    ways = {
        "`to_tf`, which reads batches": samples.to_numpy,
        "export --format huggingface": samples.to_huggingface,
        "cache='a folder'": lambda: samples.to_tf(batch_size=8, cache=True),
    }
    for cure, way in ways.items():
        with pytest.raises(UserError, match=rf"60 samples need 0\.0 GB of memory and 0\.0 GB are free: .*{cure}"):
            way()


def change_row(root: Path, number: int, **values: object) -> pa.Table:
    rows = read_index(root / "index.parquet").to_pylist()
    rows[number] |= values
    return pa.Table.from_pylist(rows, SCHEMA)


@pytest.mark.parametrize(
    "values",
    [
        {"offset": -1},
        {"length": 15},
        {"length": 2**40},
        {"offset": 2**63 - 1},
        {"shard": "../secret"},
        {"shard": "/etc/passwd"},
        {"offset": 2**40},
    ],
    ids=str,
)
def test_an_index_that_points_outside_its_shards_is_refused(dataset_copy: Path, values: dict[str, object]) -> None:
    replace_index(dataset_copy, change_row(dataset_copy, 7, **values))
    with pytest.raises(UserError, match=r"the index of tiny points outside its shards: sample 7, "):
        captcha_registry.load(dataset_copy)


@pytest.mark.parametrize("split", ["/owned", "../owned", "validation", None])
def test_an_index_with_a_split_that_is_not_the_shards_folder_is_refused(dataset_copy: Path, split: str | None) -> None:
    replace_index(dataset_copy, change_row(dataset_copy, 7, split=split))
    with pytest.raises(UserError, match=rf"the index of tiny has the split {split!r} for 't.*'; expected the shard's folder"):
        captcha_registry.load(dataset_copy)


@pytest.mark.parametrize("sample_id", [60, -3, 8])
def test_an_index_that_does_not_number_its_samples_is_refused(dataset_copy: Path, sample_id: int) -> None:
    replace_index(dataset_copy, change_row(dataset_copy, 7, id=sample_id))
    with pytest.raises(UserError, match=r"the index of tiny has 60 rows, .*expected one for each of 60 samples"):
        captcha_registry.load(dataset_copy)


def test_an_index_that_is_not_the_manifests_is_refused(dataset_copy: Path) -> None:
    write_index(dataset_copy / "index.parquet", change_row(dataset_copy, 7, label="AAA"))
    with pytest.raises(UserError, match=r"index\.parquet has other bytes than the manifest says"):
        captcha_registry.load(dataset_copy)


def test_shards_are_proved_before_they_are_read_whole(dataset_copy: Path) -> None:
    samples = captcha_registry.load(dataset_copy)
    first = samples.index.slice(0, 1).to_pylist()[0]
    records = [decode_sample(data) for _, data in iterate_records(dataset_copy / first["shard"])]
    # Records in another order: every checksum is right.
    with ShardWriter(dataset_copy / first["shard"]) as writer:
        for record in reversed(records):
            writer.write(encode_sample(record))
    for read in (samples.to_numpy, samples.to_huggingface, lambda: samples.to_tf(batch_size=2)):
        with pytest.raises(UserError, match=f"{first['shard']} has other bytes than the manifest says"):
            read()


def test_an_index_of_other_rows_is_refused(dataset_copy: Path) -> None:
    rows = read_index(dataset_copy / "index.parquet").slice(1)
    with pytest.raises(UserError, match=r"the index of tiny has 59 rows, .*expected one for each of 60 samples"):
        make_dataset(LocalFiles(dataset_copy, {}), read_manifest(dataset_copy), rows)


def test_a_record_that_is_not_the_one_of_the_index_is_refused(dataset_copy: Path) -> None:
    manifest, first = read_manifest(dataset_copy), read_index(dataset_copy / "index.parquet").to_pylist()[0]
    place = {name: first[name] for name in ("shard", "offset", "length")}
    rows = {
        "holds sample 0, ": change_row(dataset_copy, 1, **place),
        "its pixels differ": change_row(dataset_copy, 1, pixel_sha256=bytes(32)),
        "are not a record": change_row(dataset_copy, 1, length=first["length"] - 1),
    }
    for message, index in rows.items():
        samples = make_dataset(LocalFiles(dataset_copy, {}), manifest, index)
        with pytest.raises(DamagedRecordError, match=message):
            samples[1]


@settings(max_examples=30)
@given(place=st.integers(0, 10**6), flip=st.integers(1, 255))
def test_no_flipped_byte_is_read(tiny_dataset: CaptchaDataset, place: int, flip: int) -> None:
    rows = tiny_dataset.index.slice(9, 1)
    (row,) = rows.to_pylist()

    class Flipped:
        def read(self, path: str, offset: int, length: int) -> bytes:
            content = bytearray(LocalFiles(tiny_dataset.root, {}).read(path, offset, length))
            content[place % length] ^= flip
            return bytes(content)

    samples = CaptchaDataset(Flipped(), tiny_dataset.manifest, rows)
    with pytest.raises(DamagedRecordError, match=f"{row['shard']}: record at byte {row['offset']:,}: "):
        samples[0]
