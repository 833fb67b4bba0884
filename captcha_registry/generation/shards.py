"""Draw one shard from (spec, shard number): the same bytes whoever draws it, complete or absent.

A finished shard is three files, each proving the one before it:

    00000.tfrecord   the samples
    00000.parquet    their index rows, with the size and the SHA-256 of the shard in the metadata
    00000.sha256     the SHA-256 of the index rows, in hex; written last: with it the shard counts as done
"""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from captcha_registry.dataset.index import SCHEMA, open_index
from captcha_registry.dataset.manifest import FileEntry
from captcha_registry.dataset.parquet import parse_rows
from captcha_registry.dataset.records import Sample, ShardWriter, encode_sample, shard_name
from captcha_registry.generation.drawing import Drawer, describe_pixels
from captcha_registry.generation.png import encode_png
from captcha_registry.workspace import write_atomically

_ENTRY_KEY = "shard"

# Index rows that wait in Python before they become a table.
_ROWS_AT_A_TIME = 1_000


def draw_shard(drawer: Drawer, shard_number: int, folder: Path) -> FileEntry:
    """Draw, encode and write one shard into `folder`."""
    name = shard_name(shard_number)
    ids = drawer.spec.shard_sample_ids(shard_number)
    with open_index(rows_path(folder, shard_number)) as index:
        with ShardWriter(folder / name) as writer:
            for start in range(ids.start, ids.stop, _ROWS_AT_A_TIME):
                some = range(start, min(start + _ROWS_AT_A_TIME, ids.stop))
                rows = [draw_record(drawer, sample_id, writer, name) for sample_id in some]
                index.write(pa.Table.from_pylist(rows, schema=SCHEMA))
        entry = FileEntry.of(folder, name, num_samples=len(ids))
        index.finish(**{_ENTRY_KEY: entry.model_dump_json()})
    proof = hashlib.sha256(rows_path(folder, shard_number).read_bytes()).hexdigest()
    write_atomically(proof_path(folder, shard_number), proof.encode())
    return entry


def draw_record(drawer: Drawer, sample_id: int, writer: ShardWriter, shard: str) -> dict[str, object]:
    """Append one sample to its shard; return its index row."""
    drawn = drawer.draw(sample_id)
    offset, length = writer.write(encode_sample(Sample(id=sample_id, image=encode_png(drawn.pixels), label=drawn.label)))
    place = {"id": sample_id, "label": drawn.label, "split": None, "shard": shard, "offset": offset, "length": length}
    return place | describe_pixels(drawn)


def read_finished_shard(shard_number: int, folder: Path) -> FileEntry | None:
    """Return what is known of a shard that an earlier run finished in `folder`; None if it is absent or damaged."""
    try:
        rows = rows_path(folder, shard_number).read_bytes()
        entry = read_verified_entry(rows, proof_path(folder, shard_number).read_bytes())
        return entry if entry and entry == FileEntry.of(folder, entry.path, entry.num_samples) else None
    except FileNotFoundError:
        return None


def read_verified_entry(rows: bytes, proof: bytes) -> FileEntry | None:
    """Return what the bytes of a file of index rows say of its shard; None if they are not those that were written."""
    if hashlib.sha256(rows).hexdigest().encode() != proof:
        return None
    metadata = pq.read_metadata(pa.BufferReader(rows)).metadata
    return FileEntry.model_validate_json(metadata[_ENTRY_KEY.encode()])


def read_shard_rows(num_shards: int, folder: Path) -> Iterator[pa.Table]:
    """Yield the index rows of each shard in `folder`, in order."""
    for shard_number in range(num_shards):
        yield parse_rows(rows_path(folder, shard_number).read_bytes())


def rows_path(folder: Path, shard_number: int) -> Path:
    """Name the file of a shard's index rows."""
    return folder / Path(shard_name(shard_number)).with_suffix(".parquet")


def proof_path(folder: Path, shard_number: int) -> Path:
    """Name the file with the hash of a shard's index rows."""
    return rows_path(folder, shard_number).with_suffix(".sha256")
