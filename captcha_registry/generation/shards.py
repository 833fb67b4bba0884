"""Draw one shard from (spec, shard number): the same bytes whoever draws it, complete or absent.

A finished shard is a pair of files, `00000.tfrecord` and `00000.parquet`. The second holds the shard's index rows, and in
its metadata the shard's size and SHA-256. It is written last: with it the shard counts as done.
"""

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from captcha_registry.dataset.index import SCHEMA, open_index
from captcha_registry.dataset.manifest import FileEntry
from captcha_registry.dataset.records import Sample, ShardWriter, encode_sample, shard_name
from captcha_registry.generation.drawing import Drawer, describe_pixels
from captcha_registry.generation.png import encode_png

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
        entry = parse_entry(pq.read_metadata(rows_path(folder, shard_number)))
        return entry if entry == FileEntry.of(folder, entry.path, entry.num_samples) else None
    except (FileNotFoundError, pa.ArrowInvalid):
        return None


def parse_entry(metadata: pq.FileMetaData) -> FileEntry:
    """Return what the metadata of a shard's index rows say of the shard."""
    return FileEntry.model_validate_json(metadata.metadata[_ENTRY_KEY.encode()])


def read_shard_rows(num_shards: int, folder: Path) -> Iterator[pa.Table]:
    """Yield the index rows of each shard in `folder`, in order."""
    for shard_number in range(num_shards):
        yield pq.read_table(rows_path(folder, shard_number))


def rows_path(folder: Path, shard_number: int) -> Path:
    """Name the file of a shard's index rows."""
    return folder / Path(shard_name(shard_number)).with_suffix(".parquet")
