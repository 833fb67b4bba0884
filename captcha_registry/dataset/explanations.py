"""errors.parquet: what became of each wrong reading when its sample was drawn again; written by `recognition.explaining`.

| column      | type           | meaning                                                                                       |
|-------------|----------------|-----------------------------------------------------------------------------------------------|
| id          | int64          | number of the sample in its dataset; the key; in ascending order                              |
| pair_text   | string         | what the model reads where the text is drawn that it had read; null if that cannot be drawn   |
| pair_pixels | int32          | pixels that differ visibly between that picture and the sample; null likewise                 |
| cured_by    | list of string | what made the reading right when it was taken away; null if the error was not explained       |

How samples are drawn again, and what may be taken away, is told in `generation.redrawing`.
"""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from captcha_registry.dataset.parquet import read_rows
from captcha_registry.workspace import open_atomically

EXPLANATIONS_NAME = "errors.parquet"

SCHEMA = pa.schema(
    [
        pa.field("id", pa.int64(), nullable=False),
        pa.field("pair_text", pa.string()),
        pa.field("pair_pixels", pa.int32()),
        pa.field("cured_by", pa.list_(pa.string())),
    ]
)


def write_explanations(path: Path, rows: pa.Table) -> None:
    """Write what explains wrong readings."""
    with open_atomically(path) as file, pq.ParquetWriter(file, SCHEMA, compression="zstd") as writer:
        writer.write_table(rows)


def read_explanations(path: Path) -> pa.Table:
    """Read what explains the wrong readings of a model.

    Args:
        path: the file, or the folder of the model.

    Raises:
        UserError: the file is missing, is no Parquet, or lacks a column of `SCHEMA`.
    """
    return read_rows(path / EXPLANATIONS_NAME if path.is_dir() else path, SCHEMA)
