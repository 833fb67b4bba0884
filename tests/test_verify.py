"""Verification finds whatever is wrong with a dataset and names file and sample; manifest and index are read strictly."""

import errno
import hashlib
import json
import os
import re
import shutil
import struct
import subprocess
import zlib
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from io import BufferedReader, BytesIO
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import ROOT, Project, as_another_user
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from captcha_registry.dataset.dataset import CaptchaDataset
from captcha_registry.dataset.folder import open_folder
from captcha_registry.dataset.index import INDEX_NAME, read_index, write_index
from captcha_registry.dataset.manifest import (
    FETCHED_NAME,
    MANIFEST_NAME,
    FileEntry,
    Manifest,
    read_fetched_splits,
    read_manifest,
    write_manifest,
)
from captcha_registry.dataset.records import Sample, ShardWriter, decode_sample, encode_sample, iterate_records
from captcha_registry.dataset.spec import ChannelRange, DatasetSpec, SplitRule
from captcha_registry.dataset.verify import LITTER, Depth, Problem, find_record_problems, verify_dataset
from captcha_registry.errors import UserError
from captcha_registry.generation.splitting import split_dataset
from stages import describe as describe_stage

Row = dict[str, object]


def verify(root: Path, depth: Depth) -> list[Problem]:
    with ThreadPoolExecutor(1) as executor:
        return verify_dataset(root, depth, executor)


def find_problems(root: Path) -> list[str]:
    """Return all that is said of a dataset when its last byte is looked at."""
    return [str(problem) for problem in verify(root, "deep")]


def rewrite_manifest(root: Path, **changes: object) -> None:
    """Change what the manifest says, and make its id agree with that."""
    fields = dict(read_manifest(root)) | changes
    del fields["dataset_id"]
    write_manifest(root, Manifest.create(**fields))


def rewrite_index(root: Path, change: Callable[[list[Row]], None]) -> None:
    """Change the index rows, and make the manifest agree with the new file."""
    rows = read_index(root / INDEX_NAME)
    changed = rows.to_pylist()
    change(changed)
    write_index(root / INDEX_NAME, pa.Table.from_pylist(changed, schema=rows.schema))
    rewrite_manifest(root, index=FileEntry.of(root, INDEX_NAME, rows.num_rows))


def rewrite_shard(root: Path, path: str, change: Callable[[Sample], Sample]) -> None:
    """Change the samples of a shard, and make the places in the index and the hashes in the manifest agree with it."""
    samples = [change(decode_sample(data)) for _, data in iterate_records(root / path)]
    with ShardWriter(root / path) as writer:
        places = [writer.write(encode_sample(sample)) for sample in samples]

    def move(rows: list[Row]) -> None:
        mine = [row for row in rows if row["shard"] == path]
        for row, (offset, length) in zip(mine, places, strict=True):
            row.update(offset=offset, length=length)

    rewrite_index(root, move)
    shards = read_manifest(root).shards
    rewrite_manifest(root, shards=tuple(FileEntry.of(root, s.path, s.num_samples) if s.path == path else s for s in shards))


def find_shard_of(root: Path, sample_id: int) -> str:
    return str(read_index(root / INDEX_NAME)["shard"][sample_id])


def test_nothing_is_wrong_with_a_good_dataset(tiny_dataset: CaptchaDataset, generated_dataset: CaptchaDataset) -> None:
    assert find_problems(tiny_dataset.root) == []
    assert find_problems(generated_dataset.root) == []


def test_rewriting_alone_makes_no_problem(dataset_copy: Path) -> None:
    rewrite_index(dataset_copy, lambda _: None)
    rewrite_shard(dataset_copy, find_shard_of(dataset_copy, 0), lambda sample: sample)
    assert find_problems(dataset_copy) == []


def swap_splits(rows: list[Row]) -> None:
    rows[5]["split"] = "test" if rows[5]["split"] == "train" else "train"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param(
            lambda rows: rows[5].update(label="0X0"), "sample 5 ({shard}) has the label '0X0'; expected 3 char", id="character"
        ),
        pytest.param(
            lambda rows: rows[5].update(label="0123"), "sample 5 ({shard}) has the label '0123'; expected 3 char", id="long"
        ),
        pytest.param(lambda rows: rows[5].update(label=""), "sample 5 ({shard}) has the label ''; expected 3 char", id="empty"),
        pytest.param(lambda rows: rows[5].update(label="012\n"), "has the label '012\\n'; expected 3 char", id="line break"),
        pytest.param(lambda rows: rows[5].update(id=4), "id 4 stands in 2 rows; expected one", id="id twice"),
        pytest.param(lambda rows: rows[5].update(id=60), "id 60 ({shard}) is outside 0 to 59", id="id too large"),
        pytest.param(lambda rows: rows[5].update(id=-1), "id -1 ({shard}) is outside 0 to 59", id="id below 0"),
        pytest.param(
            lambda rows: rows[5].update(shard="train/9.tfrecord"), "1 rows for train/9.tfrecord, which the man", id="shard"
        ),
        pytest.param(lambda rows: rows[5].update(shard="train/9.tfrecord"), "5 rows for {shard}; the manifest says 6", id="rows"),
        pytest.param(
            lambda rows: rows[5].update(ink="red"), "sample 5 ({shard}) has the ink 'red'; expected a colour such as", id="ink"
        ),
        pytest.param(
            lambda rows: rows[5].update(background="#FFFFFF"), "sample 5 ({shard}) has the background '#FFFFFF'", id="background"
        ),
        pytest.param(
            lambda rows: rows[5].update(ink="#010203", ink_luminance=3),
            "sample 5 ({shard}) has the ink_luminance 3; expected 2, that of #010203",
            id="luminance",
        ),
        pytest.param(swap_splits, "sample 5 is in {shard}, its split is ", id="split"),
        pytest.param(lambda rows: rows[5].update(split=None), "sample 5 is in {shard}, its split is None", id="no split"),
    ],
)
def test_a_wrong_index_row_is_named(dataset_copy: Path, change: Callable[[list[Row]], None], message: str) -> None:
    shard = find_shard_of(dataset_copy, 5)
    rewrite_index(dataset_copy, change)
    found = [problem for problem in find_problems(dataset_copy) if message.format(shard=shard) in problem]
    assert len(found) == 1
    assert found[0].startswith(f"{dataset_copy / INDEX_NAME}: ")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param({"label": "BBB"}, "label is '{label}', the index says 'BBB'", id="label"),
        pytest.param({"length": 7}, "length is {length}, the index says 7", id="length"),
        pytest.param({"pixel_sha256": bytes(32)}, "pixels differ from the index's hash", id="pixels"),
    ],
)
def test_a_record_that_differs_from_its_row_is_named(dataset_copy: Path, change: Row, message: str) -> None:
    row = read_index(dataset_copy / INDEX_NAME).to_pylist()[5]
    rewrite_index(dataset_copy, lambda rows: rows[5].update(change))
    place = f"{dataset_copy / row['shard']}: sample 5 at byte {row['offset']:,}"
    assert find_problems(dataset_copy) == [f"{place}: {message.format(**row)}"]


def test_an_offset_that_points_nowhere_is_named(dataset_copy: Path) -> None:
    row = read_index(dataset_copy / INDEX_NAME).to_pylist()[5]
    rewrite_index(dataset_copy, lambda rows: rows[5].update(offset=row["offset"] + 1))
    path = dataset_copy / row["shard"]
    assert find_problems(dataset_copy) == [
        f"{path}: a record at byte {row['offset']:,} that the index does not name",
        f"{path}: sample 5 is missing at byte {row['offset'] + 1:,}",
    ]


def test_an_index_with_a_row_too_few_is_refused(dataset_copy: Path) -> None:
    row = read_index(dataset_copy / INDEX_NAME).to_pylist()[-1]
    rewrite_index(dataset_copy, lambda rows: rows.pop())
    assert find_problems(dataset_copy) == [
        f"{dataset_copy / INDEX_NAME}: 59 rows; the manifest says 60",
        f"{dataset_copy / INDEX_NAME}: 5 rows for {row['shard']}; the manifest says 6",
        f"{dataset_copy / row['shard']}: a record at byte {row['offset']:,} that the index does not name",
    ]
    with pytest.raises(UserError, match="the index of tiny has 59 rows"):
        open_folder(dataset_copy)


def test_an_index_whose_rows_are_in_another_order_is_named(dataset_copy: Path) -> None:
    rewrite_index(dataset_copy, lambda rows: rows.insert(3, rows.pop(5)))
    shard = find_shard_of(dataset_copy, 3)
    message = f"id 3 ({shard}) stands after a larger one; expected the order of the ids"
    assert find_problems(dataset_copy) == [f"{dataset_copy / INDEX_NAME}: {message}"]


def test_an_index_that_is_not_the_manifests_is_named(dataset_copy: Path) -> None:
    manifest = read_manifest(dataset_copy)
    rewrite_index(dataset_copy, lambda rows: rows[5].update(ink_luminance=1))
    write_manifest(dataset_copy, manifest)
    found = FileEntry.of(dataset_copy, INDEX_NAME, manifest.index.num_samples)
    told = f"SHA-256 {found.sha256[:12]}...; the manifest says {manifest.index.sha256[:12]}..."
    if found.size_bytes != manifest.index.size_bytes:
        told = f"{found.size_bytes:,} bytes; the manifest says {manifest.index.size_bytes:,}"
    assert find_problems(dataset_copy) == [f"{dataset_copy / INDEX_NAME}: {told}"]


def test_a_picture_in_train_and_in_test_is_named(dataset_copy: Path) -> None:
    dataset = open_folder(dataset_copy)
    train, test = (dataset.split(side).index.slice(0, 1).to_pylist()[0] for side in ("train", "test"))
    original = dataset.split("train").read_sample(0)
    rewrite_shard(dataset_copy, test["shard"], lambda s: replace(s, image=original.image) if s.id == test["id"] else s)
    rewrite_index(dataset_copy, lambda rows: rows[test["id"]].update(pixel_sha256=train["pixel_sha256"]))
    twins = " and ".join(str(row["id"]) for row in sorted((train, test), key=lambda row: row["id"]))
    (problem,) = verify(dataset_copy, "deep")
    assert problem.kind == "duplicate"
    assert problem.what.startswith(
        f"1 picture is in train and in test, such as that of the samples {twins}. No file is damaged: "
    )


def test_equal_pictures_fail_the_run_in_one_line_that_says_what_to_change(
    generate: Callable[..., CaptchaDataset],
    tiny_spec: DatasetSpec,
    shard_rule: SplitRule,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plain = {"alphabet": "01", "length": 1, "width": 16, "height": 16, "font_sizes": (8,), "dots": 0, "curves": 0}
    colours = {"ink": ChannelRange(min=100, max=100), "background": ChannelRange(min=255, max=255)}
    source = generate(tiny_spec.model_copy(update=plain | colours | {"count": 400, "shard_size": 40}))
    (tmp_path / "data/tiny").mkdir(parents=True)
    split_dataset(source, shard_rule, tmp_path / "data/tiny")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as error:
        describe_stage.main("tiny")
    line = str(error.value)
    assert re.match(
        r"data/tiny/index\.parquet: \d+ picture(s are| is) in train and in test, such as that of the samples \d+ and ", line
    )
    assert line.endswith("In params.yaml raise its `dots`, `curves`, `length` or size, or lower its `count`")
    assert "\n" not in line
    assert len(line) < 400
    assert "repair" not in line

    # As advised.
    source = generate(source.manifest.spec.model_copy(update={"dots": 10, "length": 2}))
    shutil.rmtree(tmp_path / "data/tiny")
    (tmp_path / "data/tiny").mkdir()
    split_dataset(source, shard_rule, tmp_path / "data/tiny")
    describe_stage.main("tiny")


# Pillow refuses it with a ValueError, unlike most broken pictures.
SHORT_HEADER = b"\x89PNG\r\n\x1a\n" + struct.pack(">I4s5sI", 5, b"IHDR", bytes(5), zlib.crc32(b"IHDR" + bytes(5)))


def encode_image(mode: str, size: tuple[int, int], kind: str = "png") -> bytes:
    buffer = BytesIO()
    Image.new(mode, size).save(buffer, format=kind)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("image", "message"),
    [
        pytest.param(b"", "picture does not decode: cannot identify image file", id="empty"),
        pytest.param(b"\x89PNG\r\n\x1a\n", "picture does not decode: ", id="only the signature"),
        pytest.param(SHORT_HEADER, "picture does not decode: Truncated IHDR chunk", id="short header"),
        pytest.param(encode_image("RGB", (48, 32))[:50], "picture does not decode: ", id="cut"),
        pytest.param(encode_image("RGB", (48, 32), "bmp"), "picture does not decode: cannot identify", id="bitmap"),
        pytest.param(encode_image("RGB", (32, 48)), "picture is 32x48 RGB; expected 48x32 RGB", id="size"),
        pytest.param(encode_image("L", (48, 32)), "picture is 48x32 L; expected 48x32 RGB", id="grey"),
        pytest.param(encode_image("RGB", (48, 32)), "pixels differ from the index's hash", id="other pixels"),
    ],
)
def test_a_wrong_picture_is_named(dataset_copy: Path, image: bytes, message: str) -> None:
    shard = find_shard_of(dataset_copy, 5)
    rewrite_shard(dataset_copy, shard, lambda sample: replace(sample, image=image) if sample.id == 5 else sample)
    (problem,) = find_problems(dataset_copy)
    assert problem.startswith(f"{dataset_copy / shard}: sample 5 at byte ")
    assert message in problem


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_picture_breaks_the_gate(tiny_dataset: CaptchaDataset, tmp_path: Path, data: st.DataObject) -> None:
    row = tiny_dataset.index.slice(0, 1)
    sample = tiny_dataset.read_sample(0)
    image = bytearray(sample.image)
    # The first 60 bytes hold what Pillow's parser looks at first.
    for place in data.draw(st.lists(st.integers(0, 59), min_size=1, max_size=4)):
        image[place] = data.draw(st.integers(0, 255))
    with ShardWriter(tmp_path / "00000.tfrecord") as writer:
        _, length = writer.write(encode_sample(replace(sample, image=bytes(image))))
    rows = row.set_column(row.schema.get_field_index("length"), row.schema.field("length"), pa.array([length], pa.int64()))
    problems = list(find_record_problems(tmp_path / "00000.tfrecord", rows, tiny_dataset.manifest.spec))
    if problems:
        assert problems[0].startswith("sample 0 at byte 0: pi")
    else:
        assert hashlib.sha256(Image.open(BytesIO(image)).tobytes()).digest() == row["pixel_sha256"][0].as_py()


def test_a_record_that_is_no_example_is_named(dataset_copy: Path) -> None:
    path = find_shard_of(dataset_copy, 5)
    records = [data for _, data in iterate_records(dataset_copy / path)]
    with ShardWriter(dataset_copy / path) as writer:
        for data in records:
            writer.write(bytes(len(data)))
    problems = find_problems(dataset_copy)
    assert sum("not an Example with one id, image and label each" in problem for problem in problems) == 6
    assert any(f"{path}: sample 5 at byte " in problem for problem in problems)


def test_a_flipped_bit_is_named_with_its_sample(dataset_copy: Path) -> None:
    row = read_index(dataset_copy / INDEX_NAME).to_pylist()[5]
    path = dataset_copy / row["shard"]
    damaged = bytearray(path.read_bytes())
    damaged[row["offset"] + 100] ^= 4
    path.write_bytes(damaged)
    file_problem, record_problem = find_problems(dataset_copy)
    assert file_problem.startswith(f"{path}: SHA-256 {hashlib.sha256(damaged).hexdigest()[:12]}...; the manifest says ")
    assert record_problem == f"{path}: record at byte {row['offset']:,}: wrong checksum of the data (sample 5)"


def test_a_shard_cut_between_two_records_is_named_with_what_is_gone(dataset_copy: Path) -> None:
    rows = [row for row in read_index(dataset_copy / INDEX_NAME).to_pylist() if row["shard"] == find_shard_of(dataset_copy, 0)]
    path = dataset_copy / rows[0]["shard"]
    path.write_bytes(path.read_bytes()[: rows[4]["offset"]])
    file_problem, *missing = find_problems(dataset_copy)
    assert file_problem.startswith(f"{path}: {rows[4]['offset']:,} bytes; the manifest says ")
    assert missing == [f"{path}: sample {row['id']} is missing at byte {row['offset']:,}" for row in rows[4:]]


def test_an_empty_shard_is_named_with_what_is_gone(dataset_copy: Path) -> None:
    path = dataset_copy / find_shard_of(dataset_copy, 0)
    path.write_bytes(b"")
    file_problem, *missing = find_problems(dataset_copy)
    assert file_problem.startswith(f"{path}: 0 bytes; the manifest says ")
    assert [problem.split(" at ")[0] for problem in missing] == [f"{path}: sample {n} is missing" for n in range(6)]


def test_a_missing_shard_is_named(dataset_copy: Path) -> None:
    path = dataset_copy / find_shard_of(dataset_copy, 0)
    path.unlink()
    assert find_problems(dataset_copy) == [f"{path}: missing, with 6 samples"]


def test_a_folder_in_the_place_of_a_shard_is_named(dataset_copy: Path) -> None:
    path = dataset_copy / find_shard_of(dataset_copy, 0)
    path.unlink()
    path.mkdir()
    for depth in ("quick", "full", "deep"):
        (problem,) = verify(dataset_copy, depth)
        assert str(problem) == f"{path}: a folder; expected a file with 6 samples: move the folder away"


def test_folders_and_links_that_the_manifest_does_not_name_are_found(dataset_copy: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/file").touch()
    (dataset_copy / "train/linked").symlink_to(tmp_path / "elsewhere")
    (dataset_copy / "train/dangling").symlink_to("nowhere")
    (dataset_copy / "outer/empty").mkdir(parents=True)
    for depth in ("quick", "full", "deep"):
        assert sorted(str(problem) for problem in verify(dataset_copy, depth)) == [
            f"{dataset_copy}/outer/empty: an empty folder that the manifest does not name",
            f"{dataset_copy}/train/dangling: a file that the manifest does not name",
            f"{dataset_copy}/train/linked: a file that the manifest does not name",
        ]


@pytest.mark.parametrize("name", [INDEX_NAME, "shard"])
def test_a_file_that_cannot_be_read_is_named_and_the_others_are_checked(
    dataset_copy: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    (bad, gone) = sorted((dataset_copy / "train").iterdir())[:2]
    bad = dataset_copy / name if name == INDEX_NAME else bad
    gone.unlink()
    digest = hashlib.file_digest

    def fail(file: BufferedReader, kind: str) -> object:
        if file.name == str(bad):
            # As a bad disk has it: no name of a file.
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return digest(file, kind)

    monkeypatch.setattr(hashlib, "file_digest", fail)
    for depth in ("full", "deep"):
        assert sorted((p.path, p.kind, p.what) for p in verify(dataset_copy, depth)) == sorted(
            [(bad, "unreadable", "cannot be read: Input/output error"), (gone, "missing", "missing, with 6 samples")]
        )


def test_only_so_many_shards_wait_at_a_time_and_each_with_its_own_rows(
    tiny_dataset: CaptchaDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("captcha_registry.dataset.verify.MAX_SHARDS_IN_FLIGHT", 3)
    running: set[Future[object]] = set()
    seen = []

    class CountingExecutor(ThreadPoolExecutor):
        def submit(self, function, root, shard, rows, spec, *, deep):  # type: ignore[no-untyped-def,override] # noqa: ANN001, ANN202
            future = super().submit(function, root, shard, rows, spec, deep=deep)
            running.add(future)
            future.add_done_callback(running.discard)
            assert len(running) <= 3
            seen.append((shard.path, rows["offset"].to_pylist() == sorted(rows["offset"].to_pylist()), rows["shard"].unique()))
            return future

    with CountingExecutor(2) as executor:
        assert verify_dataset(tiny_dataset.root, "deep", executor) == []
    assert [(path, True, [path]) for path, *_ in seen] == [(path, sort, names.to_pylist()) for path, sort, names in seen]
    assert [path for path, *_ in seen] == [shard.path for shard in tiny_dataset.manifest.shards]


def swap(one: Path, other: Path) -> None:
    one.rename(one.with_suffix(".aside"))
    other.rename(one)
    one.with_suffix(".aside").rename(other)


def test_swapped_shards_are_both_named(dataset_copy: Path) -> None:
    (one, other, *_) = sorted((dataset_copy / "train").iterdir())
    swap(one, other)
    assert find_problems(dataset_copy) == [
        f"{one}: holds the bytes of train/{other.name}",
        f"{other}: holds the bytes of train/{one.name}",
    ]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        pytest.param(
            '"name"', '"colour": 1, "name"', "colour is not a known key; known keys: format_version", id="unknown field"
        ),
        pytest.param('"count"', '"cuont"', "spec.cuont is not a known key; did you mean `count`?", id="typing error"),
        pytest.param('"name": "tiny",', "", "name is missing; expected keys: ", id="missing field"),
        pytest.param('"train/00000.tfrecord"', '"../x"', "path: '../x' does not stay inside the dataset", id="above"),
        pytest.param('"train/00000.tfrecord"', '"a/../../x"', "path: 'a/../../x' does not stay inside", id="above, hidden"),
        pytest.param('"train/00000.tfrecord"', '"/etc/passwd"', "path: '/etc/passwd' does not stay inside", id="absolute"),
        pytest.param(
            '"train/00000.tfrecord"', '"a\\\\..\\\\x"', "does not stay inside the dataset; expected a plain", id="backslash"
        ),
        pytest.param(
            '"index.parquet"', '"../index.parquet"', "index.path: '../index.parquet' does not stay inside", id="index above"
        ),
        pytest.param('"num_samples": 6,', '"num_samples": "6",', "num_samples is '6'; expected a whole number", id="quoted"),
        pytest.param('"sha256": "', '"sha256": "../', "expected 64 digits of 0-9 and a-f", id="no hash"),
        pytest.param('"format_version": 1', '"format_version": 2', "format_version is 2; expected 1", id="newer format"),
        pytest.param("{", "", "Invalid JSON: ", id="no JSON"),
    ],
)
def test_a_manifest_that_is_not_as_expected_is_refused(dataset_copy: Path, old: str, new: str, message: str) -> None:
    path = dataset_copy / MANIFEST_NAME
    content = path.read_text(encoding="utf-8")
    assert old in content
    path.write_text(content.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(UserError) as error:
        open_folder(dataset_copy)
    assert str(error.value).startswith(f"{path} is not a valid manifest; restore it")
    assert message in str(error.value)


def test_a_manifest_comes_back_as_it_was(tiny_dataset: CaptchaDataset, tmp_path: Path) -> None:
    write_manifest(tmp_path, tiny_dataset.manifest)
    assert read_manifest(tmp_path) == tiny_dataset.manifest
    assert (tmp_path / MANIFEST_NAME).read_bytes() == (tiny_dataset.root / MANIFEST_NAME).read_bytes()


@pytest.mark.parametrize("content", [b"", b"PAR1", b"PAR1 nothing PAR1", b"id,label\n"])
def test_an_index_that_is_no_parquet_is_refused(dataset_copy: Path, content: bytes) -> None:
    (dataset_copy / INDEX_NAME).write_bytes(content)
    rewrite_manifest(dataset_copy, index=FileEntry.of(dataset_copy, INDEX_NAME, 60))
    for depth in ("quick", "full", "deep"):
        assert any(f"{INDEX_NAME}: not a readable Parquet file: " in str(problem) for problem in verify(dataset_copy, depth))
    with pytest.raises(UserError, match=r"index\.parquet is not a readable Parquet file; restore it"):
        open_folder(dataset_copy)


def test_an_index_with_other_columns_is_refused(dataset_copy: Path) -> None:
    rows = read_index(dataset_copy / INDEX_NAME)
    pq.write_table(rows.drop_columns(["ink"]), dataset_copy / INDEX_NAME)
    rewrite_manifest(dataset_copy, index=FileEntry.of(dataset_copy, INDEX_NAME, 60))
    (problem,) = find_problems(dataset_copy)
    assert f"{INDEX_NAME}: has the columns [" in problem
    with pytest.raises(UserError, match=r"index\.parquet has the columns .*; expected one of them to be .*ink: string"):
        open_folder(dataset_copy)


def test_a_missing_index_is_named(dataset_copy: Path) -> None:
    (dataset_copy / INDEX_NAME).unlink()
    assert find_problems(dataset_copy) == [f"{dataset_copy / INDEX_NAME}: missing, with 60 samples"]
    with pytest.raises(UserError, match=r"index\.parquet is missing: .*`captcha-registry repair "):
        open_folder(dataset_copy)


@pytest.mark.parametrize("depth", ["quick", "full", "deep"])
def test_a_damaged_or_missing_manifest_is_named_at_every_depth(dataset_copy: Path, depth: Depth) -> None:
    path = dataset_copy / MANIFEST_NAME
    content = path.read_text(encoding="utf-8")
    for damaged, message in (
        (content.replace('"train/00000.tfrecord"', '"../x"'), "path: '../x' does not stay inside the dataset"),
        (content.replace('"count": 60', '"count": 61'), "the shards hold 60 samples; spec.count is 61"),
        (content.replace('"seed": 7', '"seed": 8'), "dataset_id is "),
        (content.replace('"train/00000.tfrecord"', '"index.parquet"'), "names index.parquet 2 times; expected once"),
    ):
        path.write_text(damaged, encoding="utf-8")
        mine = [problem for problem in verify(dataset_copy, depth) if problem.kind == "manifest"]
        assert any(message in problem.what for problem in mine), mine
        assert {problem.path for problem in mine} == {path}
    path.unlink()
    (problem,) = verify(dataset_copy, depth)
    assert (problem.path, problem.kind) == (path, "manifest")
    assert "is missing, so" in str(problem)


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nothing is not a folder: name the folder of a dataset, with its manifest\.json"):
        verify(tmp_path / "nothing", "quick")


@pytest.fixture
def described(project: Project, tiny_dataset: CaptchaDataset) -> Project:
    """A project with the split dataset in its place."""
    shutil.copytree(tiny_dataset.root, project.root / "data/tiny")
    return project


def test_a_good_dataset_is_described(described: Project) -> None:
    done = described.run("describe", "tiny")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("tiny: 60 samples checked, nothing wrong, ")
    metrics = json.loads((described.root / "metrics/tiny.json").read_text())
    assert (metrics["samples"], metrics["train_samples"], metrics["test_samples"], metrics["shards"]) == (60, 48, 12, 10)
    assert metrics["duplicate_pictures"] == 0
    assert all(0 <= metrics[f"balance_position_{n}"] <= 1 for n in (1, 2, 3))
    assert "60 synthetic captchas of 3 characters, 48x32 pixels" in (described.root / "data/tiny/README.md").read_text()
    with Image.open(described.root / "metrics/plots/tiny/samples.png") as sheet:
        assert sheet.width > 6 * 48


def test_a_damaged_dataset_fails_the_run_and_is_not_described(described: Project) -> None:
    path = next((described.root / "data/tiny/test").iterdir())
    path.write_bytes(path.read_bytes()[:-1])
    before = described.list_files()
    done = described.run("describe", "tiny")
    assert done.returncode == 2
    first, *lines = done.stderr.splitlines()
    advice = (
        "`captcha-registry repair data/tiny` repairs it, or tells how; if it was fetched, the "
        "same `captcha-registry get` as before fetches it again"
    )
    assert first == f"error: data/tiny is not as its manifest says; {advice}:"
    assert [line.split(": ")[0] for line in lines] == [f"data/tiny/test/{path.name}"] * 2
    assert re.search(r"file ends inside the record, at byte [\d,]+ \(sample \d+\)$", lines[1])
    assert described.list_files() == before


def test_what_is_not_part_of_a_dataset_is_to_be_moved_and_not_called_damage(tiny_dataset: CaptchaDataset) -> None:
    extra = Problem(tiny_dataset.root / "notes.txt", "extra", "a file that the manifest does not name")
    first, second = describe_stage.explain_problems(tiny_dataset.root, [extra]).splitlines()
    root = tiny_dataset.root
    assert first == f"{root} is not as its manifest says; move what is not of the dataset out of {root}:"
    assert second == str(extra)


def test_of_many_problems_the_first_are_told_and_the_rest_counted(described: Project) -> None:
    for path in (described.root / "data/tiny/train").iterdir():
        path.write_bytes(b"")
    done = described.run("describe", "tiny")
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 12
    # 8 shards, each with a line for the file and one for each of its 6 samples.
    assert done.stderr.splitlines()[-1] == f"... and {8 * 7 - 10} more"


@pytest.mark.parametrize(
    "name",
    [
        ".DS_Store",
        "train/._00000.tfrecord",
        "Thumbs.db",
        "test/.nfs0000000001",
        "manifest.json~",
        "lost+found",
        "test/#card#",
        ".#card",
        ".~lock.index.csv#",
    ],
)
def test_what_other_tools_leave_is_passed_over(dataset_copy: Path, name: str) -> None:
    (dataset_copy / name).touch()
    (dataset_copy / "train/.ipynb_checkpoints").mkdir()
    (dataset_copy / "train/.ipynb_checkpoints/00000.tfrecord").touch()
    for depth in ("quick", "full"):
        assert verify(dataset_copy, depth) == []


def test_a_file_in_the_place_of_a_folder_is_named(dataset_copy: Path) -> None:
    shutil.rmtree(dataset_copy / "test")
    (dataset_copy / "test").write_text("x")
    for depth in ("quick", "full"):
        assert Problem(dataset_copy / "test", "extra", "a file that the manifest does not name") in verify(dataset_copy, depth)


def test_git_and_dvc_pass_over_what_verification_passes_over() -> None:
    for name in (".gitignore", ".dvcignore"):
        assert set(LITTER) <= set((ROOT / name).read_text().splitlines())


@pytest.mark.parametrize("name", ["train/00000.tfrecord", INDEX_NAME])
def test_a_pipe_in_the_place_of_a_file_is_named_and_not_waited_for(dataset_copy: Path, name: str) -> None:
    (dataset_copy / name).unlink(missing_ok=True)
    os.mkfifo(dataset_copy / name)
    for depth in ("quick", "full", "deep"):
        assert f"{dataset_copy / name}: a pipe, socket or device; expected a file with" in str(verify(dataset_copy, depth)[0])


def test_a_pipe_in_the_place_of_the_manifest_is_not_waited_for(dataset_copy: Path) -> None:
    (dataset_copy / MANIFEST_NAME).unlink()
    os.mkfifo(dataset_copy / MANIFEST_NAME)
    (problem,) = verify(dataset_copy, "full")
    assert str(problem).startswith(f"{dataset_copy / MANIFEST_NAME}: is not a regular file: move it away, and restore it")


def test_a_pipe_in_the_place_of_what_tells_the_fetched_splits_is_not_waited_for(dataset_copy: Path) -> None:
    os.mkfifo(dataset_copy / FETCHED_NAME)
    with pytest.raises(UserError, match=f"{FETCHED_NAME} is not a regular file: move it away"):
        read_fetched_splits(dataset_copy)


def test_folders_that_cannot_be_read_are_named_at_every_depth(tiny_dataset: CaptchaDataset, public_folder: Path) -> None:
    root = Path(shutil.copytree(tiny_dataset.root, public_folder / "tiny"))
    (root / "other").mkdir()
    subprocess.run(["chmod", "-R", "a+rX", root], check=True)
    shards = [root / shard.path for shard in tiny_dataset.manifest.shards if shard.path.startswith("test/")]
    for folder in ("test", "other"):
        (root / folder).chmod(0)
    for depth in ("quick", "full", "deep"):
        with as_another_user():
            problems = verify(root, depth)
        assert sorted((p.path, p.kind, p.what) for p in problems) == [
            (path, "unreadable", "cannot be read: Permission denied") for path in [root / "other", *shards]
        ]
