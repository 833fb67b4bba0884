"""Read Parquet files of the project's own."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from captcha_registry.errors import MAKE_OR_PULL, UserError, require_regular


def parse_rows(content: bytes) -> pa.Table:
    """Read all rows of a Parquet file that is in memory.

    Raises:
        pa.ArrowException: the content is not Parquet.
        OSError: the content is damaged.
    """
    # `pq.read_table` would import pandas, which takes as long as the reading.
    with pq.ParquetFile(pa.BufferReader(content)) as file:
        # A thread of Arrow's may hold the content after the last row is read, in a third of the readings. If it lets go while
        # Python ends, that ends in SIGABRT (https://github.com/apache/arrow/issues/34314). 100,000 rows: 39 ms, 27 with threads.
        return file.read(use_threads=False)


def read_rows(path: Path, schema: pa.Schema) -> pa.Table:
    """Read rows; columns that a later release may have added are kept.

    Raises:
        UserError: the file is missing, is no Parquet, or lacks a column of `schema`, or values in it.
    """
    require_regular(path)
    try:
        # Not by its path: to Arrow all paths are UTF-8.
        rows = parse_rows(path.read_bytes())
    except FileNotFoundError:
        raise UserError(f"{path} is missing: {MAKE_OR_PULL}; if it was fetched, fetch it again") from None
    except (pa.ArrowException, OSError) as error:
        raise UserError(
            f"{path} is not a readable Parquet file; restore it, with `dvc checkout` if DVC has it, or fetch it again: {error}"
        ) from error
    for field in schema:
        found = rows[field.name] if rows.schema.names.count(field.name) == 1 else None
        if found is not None and pa.types.is_large_string(found.type) and pa.types.is_string(field.type):
            # As pandas writes texts.
            found = found.cast(field.type)
            rows = rows.set_column(rows.schema.get_field_index(field.name), field, found)
        if found is None or found.type != field.type or (found.null_count and not field.nullable):
            nulls = f" with {found.null_count:,} nulls" if found is not None and found.null_count else ""
            there = "" if found is None else f", found {found.type}{nulls}"
            raise UserError(
                f"{path} has the columns {rows.schema.names}; expected one of them to be {field.name}: {field.type}{there}"
            )
    return rows
