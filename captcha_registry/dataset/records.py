"""TFRecord shards: write them with known offsets, read one record at an offset, check every CRC.

A record is laid out as (https://www.tensorflow.org/tutorials/load_data/tfrecord):

    uint64 length | uint32 masked CRC-32C of length | data[length] | uint32 masked CRC-32C of data

all little-endian. The data is a serialized `tf.train.Example` with the features `id` (int64), `image` (encoded
bytes) and `label` (bytes). TensorFlow itself is not needed: the message is declared here, field for field.
"""

import struct
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

import google_crc32c
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError

from captcha_registry.errors import UserError
from captcha_registry.workspace import open_atomically

HEADER = struct.Struct("<QI")
FOOTER = struct.Struct("<I")
OVERHEAD_BYTES = HEADER.size + FOOTER.size


class DamagedRecordError(UserError):
    """A record whose bytes are not what was written."""

    def __init__(self, path: Path, offset: int, problem: str) -> None:
        """Name the file, the offset in bytes at which the record starts, and what is wrong."""
        super().__init__(f"{path}: record at byte {offset:,}: {problem}")
        self.path, self.offset, self.problem = path, offset, problem

    def __reduce__(self) -> tuple[type[Self], tuple[Path, int, str]]:
        """Let it pass from a worker to its parent; the default would rebuild it from the message alone and fail."""
        return type(self), (self.path, self.offset, self.problem)


@dataclass(frozen=True, slots=True)
class Sample:
    """One captcha as it is stored."""

    id: int
    image: bytes
    label: str


def _declare_example() -> type[Any]:
    """Build the message class of `tf.train.Example` (tensorflow/core/example/{example,feature}.proto)."""
    field = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="captcha_registry/example.proto", package="captcha_registry")
    file.syntax = "proto3"

    feature = file.message_type.add(name="Feature")
    feature.oneof_decl.add(name="kind")
    kinds = (("bytes_list", field.TYPE_BYTES), ("float_list", field.TYPE_FLOAT), ("int64_list", field.TYPE_INT64))
    for number, (name, kind) in enumerate(kinds, start=1):
        file.message_type.add(name=name).field.add(name="value", number=1, label=field.LABEL_REPEATED, type=kind)
        choice = feature.field.add(name=name, number=number, label=field.LABEL_OPTIONAL, type=field.TYPE_MESSAGE)
        choice.type_name = f".captcha_registry.{name}"
        choice.oneof_index = 0

    # A protobuf map is a repeated nested message with key and value, marked as an entry.
    features = file.message_type.add(name="Features")
    entry = features.nested_type.add(name="FeatureEntry")
    entry.options.map_entry = True
    entry.field.add(name="key", number=1, label=field.LABEL_OPTIONAL, type=field.TYPE_STRING)
    entry_value = entry.field.add(name="value", number=2, label=field.LABEL_OPTIONAL, type=field.TYPE_MESSAGE)
    entry_value.type_name = ".captcha_registry.Feature"
    features_map = features.field.add(name="feature", number=1, label=field.LABEL_REPEATED, type=field.TYPE_MESSAGE)
    features_map.type_name = ".captcha_registry.Features.FeatureEntry"

    example = file.message_type.add(name="Example")
    features_field = example.field.add(name="features", number=1, label=field.LABEL_OPTIONAL, type=field.TYPE_MESSAGE)
    features_field.type_name = ".captcha_registry.Features"

    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("captcha_registry.Example"))


_Example = _declare_example()


def encode_sample(sample: Sample) -> bytes:
    """Serialize a sample; the same sample gives the same bytes in every process."""
    example = _Example()
    features = example.features.feature
    features["id"].int64_list.value.append(sample.id)
    features["image"].bytes_list.value.append(sample.image)
    features["label"].bytes_list.value.append(sample.label.encode())
    # Without `deterministic` the order of the map differs from process to process.
    return bytes(example.SerializeToString(deterministic=True))


def decode_sample(data: bytes) -> Sample:
    """Parse a serialized sample.

    Raises:
        ValueError: the bytes are no Example, or a feature is missing or not single.
    """
    example = _Example()
    try:
        example.ParseFromString(data)
        features = example.features.feature
        (sample_id,) = features["id"].int64_list.value
        (image,) = features["image"].bytes_list.value
        (label,) = features["label"].bytes_list.value
        return Sample(id=sample_id, image=image, label=label.decode())
    except (DecodeError, ValueError) as error:
        raise ValueError(f"not an Example with one id, image and label each: {error}") from error


def masked_crc(data: bytes) -> int:
    """Compute TFRecord's masked CRC-32C: rotated right by 15 bits, plus a constant."""
    crc = int(google_crc32c.value(data))
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def shard_name(shard_number: int) -> str:
    """Name a shard; the total is left out, so that a dataset can grow."""
    return f"{shard_number:05d}.tfrecord"


class ShardWriter(AbstractContextManager["ShardWriter"]):
    """Write one shard; it appears under its name only when it is complete and flushed."""

    _file: BinaryIO

    def __init__(self, path: Path) -> None:
        """Prepare to write; nothing is opened before the `with` block."""
        self._opened = open_atomically(path)

    def write(self, data: bytes) -> tuple[int, int]:
        """Append one record; return its offset and its length in bytes, framing included."""
        offset = self._file.tell()
        length = struct.pack("<Q", len(data))
        self._file.write(HEADER.pack(len(data), masked_crc(length)))
        self._file.write(data)
        self._file.write(FOOTER.pack(masked_crc(data)))
        return offset, len(data) + OVERHEAD_BYTES

    def __enter__(self) -> Self:
        """Open a temporary file beside the shard's place."""
        self._file = self._opened.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Commit the shard, or remove the temporary file after an error."""
        self._opened.__exit__(kind, error, trace)


def read_record(path: Path, offset: int) -> bytes:
    """Read the data of the record that starts at `offset`, with one seek.

    Raises:
        DamagedRecordError: the record is cut short or one of its checksums is wrong.
    """
    with path.open("rb") as file:
        return _read_next(file, path, offset, path.stat().st_size)


def unframe_record(framed: bytes, path: Path, offset: int) -> bytes:
    """Return the data of one record whose bytes, framing included, are at hand.

    Args:
        framed: all bytes of the record, and no others.
        path: the shard that they come from, for the error.
        offset: at which byte of the shard they start, for the error.

    Raises:
        DamagedRecordError: one of its checksums is wrong, or it is not complete.
    """
    header, data, footer = framed[: HEADER.size], framed[HEADER.size : -FOOTER.size], framed[-FOOTER.size :]
    if len(framed) < OVERHEAD_BYTES or HEADER.unpack(header) != (len(data), masked_crc(header[:8])):
        raise DamagedRecordError(path, offset, f"the {len(framed):,} bytes that the index points to are not a record")
    if masked_crc(data) != FOOTER.unpack(footer)[0]:
        raise DamagedRecordError(path, offset, "wrong checksum of the data")
    return data


def iterate_records(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yield the offset and the data of every record of a shard, in order.

    Raises:
        DamagedRecordError: at the first record that is cut short or fails a checksum.
    """
    size_bytes = path.stat().st_size
    with path.open("rb") as file:
        offset = 0
        while offset < size_bytes:
            data = _read_next(file, path, offset, size_bytes)
            yield offset, data
            offset += len(data) + OVERHEAD_BYTES


def _read_next(file: BinaryIO, path: Path, offset: int, size_bytes: int) -> bytes:
    file.seek(offset)
    header = file.read(HEADER.size)
    if len(header) < HEADER.size:
        raise DamagedRecordError(path, offset, f"file ends inside the header, at byte {size_bytes:,}")
    length, length_crc = HEADER.unpack(header)
    # Both checked before anything of that length is allocated.
    if masked_crc(header[:8]) != length_crc:
        raise DamagedRecordError(path, offset, "wrong checksum of the length")
    if offset + OVERHEAD_BYTES + length > size_bytes:
        raise DamagedRecordError(path, offset, f"file ends inside the record, at byte {size_bytes:,}")
    data, footer = file.read(length), file.read(FOOTER.size)
    if masked_crc(data) != FOOTER.unpack(footer)[0]:
        raise DamagedRecordError(path, offset, "wrong checksum of the data")
    return data
