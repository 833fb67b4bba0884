"""Draw one shard from (spec, shard number): the same bytes whoever draws it, complete or absent.

A finished shard is a pair of files, `00000.tfrecord` and `00000.parquet`. The second holds the shard's index rows, and in
its metadata the shard's size and SHA-256. It is written last: with it the shard counts as done.
"""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from captcha_registry.dataset.index import SCHEMA, write_index
from captcha_registry.dataset.manifest import FileEntry
from captcha_registry.dataset.records import Sample, ShardWriter, encode_sample, shard_name
from captcha_registry.dataset.spec import DatasetSpec
from captcha_registry.generation.drawing import describe_pixels, draw_captcha, encode_png

_ENTRY_KEY = b"shard"


def draw_shard(spec: DatasetSpec, shard_number: int, folder: Path) -> FileEntry:
    """Draw, encode and write one shard into `folder`."""
    name = shard_name(shard_number)
    rows = []
    with ShardWriter(folder / name) as writer:
        for sample_id in spec.shard_sample_ids(shard_number):
            drawn = draw_captcha(spec, sample_id)
            data = encode_sample(Sample(id=sample_id, image=encode_png(drawn.image), label=drawn.label))
            offset, length = writer.write(data)
            place = {"id": sample_id, "label": drawn.label, "split": None, "shard": name, "offset": offset, "length": length}
            rows.append(place | describe_pixels(drawn))

    entry = FileEntry.of(folder, name, num_samples=len(rows))
    table = pa.Table.from_pylist(rows, schema=SCHEMA.with_metadata({_ENTRY_KEY: entry.model_dump_json()}))
    write_index(_rows_path(folder, shard_number), table)
    return entry


def read_finished_shard(shard_number: int, folder: Path) -> FileEntry | None:
    """Return what is known of a shard that an earlier run finished in `folder`; None if it is absent or damaged."""
    try:
        entry = FileEntry.model_validate_json(pq.read_schema(_rows_path(folder, shard_number)).metadata[_ENTRY_KEY])
        return entry if entry == FileEntry.of(folder, entry.path, entry.num_samples) else None
    except (FileNotFoundError, pa.ArrowInvalid):
        return None


def read_shard_rows(num_shards: int, folder: Path) -> pa.Table:
    """Join the index rows of all shards in `folder`, in order."""
    return pa.concat_tables(
        pq.read_table(_rows_path(folder, shard_number)).replace_schema_metadata(None) for shard_number in range(num_shards)
    )


def _rows_path(folder: Path, shard_number: int) -> Path:
    return folder / Path(shard_name(shard_number)).with_suffix(".parquet")
