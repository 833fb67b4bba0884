"""The Parquet label index: one row per sample, enough to find, filter and read any sample with one seek.

| column        | type       | meaning                                                              |
|---------------|------------|----------------------------------------------------------------------|
| id            | int64      | number of the sample, from 0; the key                                |
| label         | string     | the text on the picture                                              |
| split         | string     | `train` or `test`; null before the dataset is split                  |
| shard         | string     | path of the shard inside the dataset's folder, `/` between parts     |
| offset        | int64      | byte at which the record starts in its shard                         |
| length        | int64      | bytes of the whole record, framing included                          |
| pixel_sha256  | binary(32) | SHA-256 of the decoded pixels (row by row, RGB); survives re-encoding |
| ink           | string     | colour of text, dots and curve as `#rrggbb`                          |
| background    | string     | colour of the ground as `#rrggbb`                                    |
| ink_luminance | uint8      | Rec. 601 luma of the ink; dark ink is faint, see `generation.drawing` |
"""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from captcha_registry.errors import UserError
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

# Part of the file's bytes, so fixed here rather than left to the library's default.
ROW_GROUP_SIZE = 100_000


def write_index(path: Path, rows: pa.Table) -> None:
    """Write index rows and their metadata, whole or not at all; equal rows give equal bytes in a locked environment."""
    # Empty metadata would be other bytes than none.
    schema = SCHEMA.with_metadata(rows.schema.metadata) if rows.schema.metadata else SCHEMA
    with open_atomically(path) as file:
        pq.write_table(rows.cast(schema), file, row_group_size=ROW_GROUP_SIZE, compression="zstd")


def read_index(path: Path) -> pa.Table:
    """Read index rows.

    Raises:
        UserError: the file is missing, is no Parquet, or has other columns.
    """
    try:
        rows = pq.read_table(path)
    except FileNotFoundError:
        raise UserError(f"{path} is missing: run `dvc repro`, or `dvc pull` in a clone") from None
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{path} is not a readable Parquet file: {error}") from error
    if not rows.schema.equals(SCHEMA):
        raise UserError(f"{path} has the columns {rows.schema.names}; expected {SCHEMA.names} with the types of SCHEMA")
    return rows
