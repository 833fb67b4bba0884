"""The Parquet label index: one row per sample, enough to find, filter and read any sample with one seek.

| column        | type       | meaning                                                              |
|---------------|------------|----------------------------------------------------------------------|
| id            | int64      | number of the sample, from 0; the key                                |
| label         | string     | the text on the picture                                              |
| split         | string     | `train` or `test`; null before the dataset is split                  |
| shard         | string     | path of the shard inside the dataset's folder, `/` between parts     |
| offset        | int64      | byte at which the record starts in its shard                         |
| length        | int64      | bytes of the complete record, framing included                       |
| pixel_sha256  | binary(32) | SHA-256 of the decoded pixels (row by row, RGB); survives re-encoding |
| ink           | string     | colour of text, dots and curve as `#rrggbb`                          |
| background    | string     | colour of the background as `#rrggbb`                                |
| ink_luminance | uint8      | Rec. 601 luma of the ink; dark ink is faint, see `generation.drawing` |
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from captcha_registry.dataset.parquet import read_rows
from captcha_registry.workspace import open_atomically

INDEX_NAME = "index.parquet"

SCHEMA = pa.schema(
    [
        pa.field("id", pa.int64(), nullable=False),
        pa.field("label", pa.string(), nullable=False),
        pa.field("split", pa.string()),
        pa.field("shard", pa.string(), nullable=False),
        pa.field("offset", pa.int64(), nullable=False),
        pa.field("length", pa.int64(), nullable=False),
        pa.field("pixel_sha256", pa.binary(32), nullable=False),
        pa.field("ink", pa.string(), nullable=False),
        pa.field("background", pa.string(), nullable=False),
        pa.field("ink_luminance", pa.uint8(), nullable=False),
    ]
)

# Rows that are kept in memory and written at a time; part of the file's bytes, so not left to the library.
ROW_GROUP_SIZE = 20_000


class IndexWriter:
    """Writes index rows as they come, a row group at a time, so that memory does not grow with their number."""

    def __init__(self, writer: pq.ParquetWriter) -> None:
        """Write through an open Parquet writer."""
        self._writer = writer
        self._waiting = SCHEMA.empty_table()

    def write(self, rows: pa.Table) -> None:
        """Append rows."""
        self._waiting = pa.concat_tables([self._waiting, rows.replace_schema_metadata(None).cast(SCHEMA)])
        while self._waiting.num_rows >= ROW_GROUP_SIZE:
            self._writer.write_table(self._waiting.slice(0, ROW_GROUP_SIZE))
            self._waiting = self._waiting.slice(ROW_GROUP_SIZE)

    def finish(self, **metadata: str) -> None:
        """Write what is left; `metadata` goes into the end of the file."""
        if self._waiting.num_rows:
            self._writer.write_table(self._waiting)
        if metadata:
            self._writer.add_key_value_metadata(metadata)


@contextmanager
def open_index(path: Path) -> Iterator[IndexWriter]:
    """Open an index file for writing, completely or not at all; equal rows give equal bytes in a locked environment."""
    with open_atomically(path) as file, pq.ParquetWriter(file, SCHEMA, compression="zstd") as writer:
        yield IndexWriter(writer)


def write_index(path: Path, rows: pa.Table) -> None:
    """Write an index file from rows that are in memory."""
    with open_index(path) as index:
        index.write(rows)
        index.finish()


def read_index(path: Path) -> pa.Table:
    """Read index rows, as `dataset.parquet` reads any."""
    return read_rows(path, SCHEMA)
