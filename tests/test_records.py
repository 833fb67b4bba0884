"""Records keep their bytes, and no byte of a shard can change unnoticed."""

import os
import pickle
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from captcha_registry.dataset.dataset import CaptchaDataset
from captcha_registry.dataset.records import (
    FOOTER,
    HEADER,
    OVERHEAD_BYTES,
    DamagedRecordError,
    Sample,
    ShardWriter,
    decode_sample,
    encode_sample,
    iterate_records,
    masked_crc,
    read_record,
)

SAMPLES = st.builds(Sample, id=st.integers(-(2**63), 2**63 - 1), image=st.binary(max_size=200), label=st.text(max_size=16))
RECORDS = [b"first", b"second record", b"last"]
SECOND = OVERHEAD_BYTES + len(RECORDS[0])


@pytest.fixture
def shard(tmp_path: Path) -> Path:
    """A shard of three small records."""
    write_shard(path := tmp_path / "00000.tfrecord", RECORDS)
    return path


def write_shard(path: Path, records: list[bytes]) -> list[tuple[int, int]]:
    with ShardWriter(path) as writer:
        return [writer.write(data) for data in records]


@given(SAMPLES)
def test_a_sample_comes_back_as_it_was(sample: Sample) -> None:
    assert decode_sample(encode_sample(sample)) == sample


ENCODE_SOME = """
from hashlib import sha256
from captcha_registry.dataset.records import Sample, encode_sample
print(sha256(b"".join(encode_sample(Sample(id=n, image=bytes(range(n % 256)), label=str(n))) for n in range(300))).hexdigest())
"""


def test_encoded_bytes_are_the_same_in_every_process() -> None:
    hashes = set()
    for hash_seed in ("0", "1", "2023", "random"):
        environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONHASHSEED": hash_seed}
        done = subprocess.run([sys.executable, "-c", ENCODE_SOME], env=environment, capture_output=True, text=True, check=True)
        hashes.add(done.stdout.strip())
    assert hashes == {"72863cca040dca32081f7304704c14bc6cdd4fa455bcf3e0e4bd91945ff58763"}


def test_encoded_bytes_are_an_example_with_sorted_features() -> None:
    feature_id = b"\x0a\x02id\x12\x05\x1a\x03\x0a\x01\x05"
    feature_image = b"\x0a\x05image\x12\x06\x0a\x04\x0a\x02\x89P"
    feature_label = b"\x0a\x05label\x12\x07\x0a\x05\x0a\x03abc"
    features = b"".join(b"\x0a" + bytes([len(entry)]) + entry for entry in (feature_id, feature_image, feature_label))
    assert encode_sample(Sample(id=5, image=b"\x89P", label="abc")) == b"\x0a" + bytes([len(features)]) + features


WHOLE = encode_sample(Sample(id=1, image=b"x", label="y"))


@pytest.mark.parametrize(
    "data", [b"", b"\xff\xff", WHOLE[:-1], WHOLE[:13], WHOLE[:2]], ids=["empty", "no message", "cut", "one feature", "no feature"]
)
def test_bytes_that_are_no_complete_example_are_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="not an Example with one id, image and label each"):
        decode_sample(data)


def test_tensorflow_reads_the_same_samples(tiny_dataset: CaptchaDataset) -> None:
    import tensorflow as tf  # noqa: PLC0415 - slow to import

    features = {
        name: tf.io.FixedLenFeature([], kind) for name, kind in {"id": tf.int64, "image": tf.string, "label": tf.string}.items()
    }
    for shard_path in [tiny_dataset.root / shard.path for shard in tiny_dataset.manifest.shards]:
        theirs = [tf.io.parse_single_example(record, features) for record in tf.data.TFRecordDataset(str(shard_path))]
        ours = [decode_sample(data) for _, data in iterate_records(shard_path)]
        assert [(int(t["id"]), t["label"].numpy().decode()) for t in theirs] == [(s.id, s.label) for s in ours]
        for their, our in zip(theirs, ours, strict=True):
            pixels = np.asarray(Image.open(BytesIO(our.image)))
            np.testing.assert_array_equal(tf.io.decode_png(their["image"], channels=3).numpy(), pixels)


def test_tensorflow_writes_the_same_bytes(tmp_path: Path) -> None:
    import tensorflow as tf  # noqa: PLC0415 - slow to import

    write_shard(tmp_path / "ours", records := [b"", b"one", os.urandom(1000)])
    with tf.io.TFRecordWriter(str(tmp_path / "theirs")) as writer:
        for data in records:
            writer.write(data)
    assert (tmp_path / "ours").read_bytes() == (tmp_path / "theirs").read_bytes()


@settings(max_examples=50)
@given(st.lists(st.binary(max_size=300), max_size=8))
def test_one_seek_gives_what_reading_in_order_gives(records: list[bytes]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "00000.tfrecord"
        places = write_shard(path, records)
        in_order = list(iterate_records(path))
        assert [data for _, data in in_order] == records
        assert [offset for offset, _ in in_order] == [offset for offset, _ in places]
        assert [read_record(path, offset) for offset, _ in places] == records
        assert sum(length for _, length in places) == path.stat().st_size


def test_every_index_row_points_at_its_record(tiny_dataset: CaptchaDataset) -> None:
    rows = tiny_dataset.index.to_pylist()
    assert len(rows) == tiny_dataset.manifest.spec.count
    for row in rows:
        data = read_record(tiny_dataset.root / row["shard"], row["offset"])
        assert (decode_sample(data).id, decode_sample(data).label, len(data) + OVERHEAD_BYTES) == (
            row["id"],
            row["label"],
            row["length"],
        )


@pytest.mark.parametrize(
    ("start", "size", "problem"),
    [
        pytest.param(0, 8, "wrong checksum of the length", id="length"),
        pytest.param(8, 4, "wrong checksum of the length", id="checksum of the length"),
        pytest.param(HEADER.size, len(RECORDS[1]), "wrong checksum of the data", id="data"),
        pytest.param(HEADER.size + len(RECORDS[1]), FOOTER.size, "wrong checksum of the data", id="checksum of the data"),
    ],
)
def test_every_flipped_bit_is_found_and_named(shard: Path, start: int, size: int, problem: str) -> None:
    whole = shard.read_bytes()
    for bit in range(8 * (SECOND + start), 8 * (SECOND + start + size)):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        shard.write_bytes(damaged)
        with pytest.raises(DamagedRecordError) as error:
            read_record(shard, SECOND)
        assert str(error.value) == f"{shard}: record at byte {SECOND}: {problem}"
        with pytest.raises(DamagedRecordError) as error:
            list(iterate_records(shard))
        assert (error.value.path, error.value.offset) == (shard, SECOND)


@pytest.mark.parametrize("kept", range(1, OVERHEAD_BYTES + len(RECORDS[1])))
def test_a_shard_cut_inside_a_record_is_found_and_named(shard: Path, kept: int) -> None:
    os.truncate(shard, SECOND + kept)
    place = "header" if kept < HEADER.size else "record"
    message = f"{shard}: record at byte {SECOND}: file ends inside the {place}, at byte {SECOND + kept}"
    with pytest.raises(DamagedRecordError) as error:
        read_record(shard, SECOND)
    assert str(error.value) == message
    records = iterate_records(shard)
    assert next(records) == (0, RECORDS[0])
    with pytest.raises(DamagedRecordError, match=f"byte {SECOND}: file ends inside the {place}"):
        next(records)


def test_a_huge_length_is_refused_before_it_is_allocated(shard: Path) -> None:
    length = (2**62).to_bytes(8, "little")
    shard.write_bytes(length + bytes(4) + bytes(100))
    with pytest.raises(DamagedRecordError, match="wrong checksum of the length"):
        read_record(shard, 0)
    shard.write_bytes(HEADER.pack(2**62, masked_crc(length)) + bytes(100))
    with pytest.raises(DamagedRecordError, match="file ends inside the record, at byte 112"):
        read_record(shard, 0)


def test_an_error_keeps_its_words_on_the_way_from_a_worker() -> None:
    error = DamagedRecordError(Path("train/00000.tfrecord"), 1234, "wrong checksum of the data")
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own bytes
    assert (type(copy), str(copy), copy.offset) == (DamagedRecordError, str(error), 1234)


def test_a_shard_appears_only_when_it_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "00000.tfrecord"
    with ShardWriter(path) as writer:
        writer.write(b"one")
        assert not path.exists()
    assert [data for _, data in iterate_records(path)] == [b"one"]
    assert list(tmp_path.iterdir()) == [path]


def test_a_failed_write_leaves_the_folder_as_it_was(shard: Path) -> None:
    before = shard.read_bytes()

    def fail() -> None:
        with ShardWriter(shard) as writer:
            writer.write(b"half of it")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert list(shard.parent.iterdir()) == [shard]
    assert shard.read_bytes() == before


@contextmanager
def file_size_limit(size_bytes: int) -> Iterator[None]:
    """Let no file grow beyond a size, as on a disk that is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_leaves_nothing_behind(tmp_path: Path) -> None:
    with file_size_limit(1000), pytest.raises(OSError, match="File too large"):
        write_shard(tmp_path / "00000.tfrecord", [bytes(500)] * 3)
    assert list(tmp_path.iterdir()) == []
