"""Read a Parquet file of the project's own, whose columns are known."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from captcha_registry.errors import MAKE_OR_PULL, UserError, require_regular


def read_rows(path: Path, schema: pa.Schema) -> pa.Table:
    """Read rows; columns that a later release may have added are kept.

    Raises:
        UserError: the file is missing, is no Parquet, or lacks a column of `schema`, or values in it.
    """
    require_regular(path)
    try:
        # `pq.read_table` would import pandas, which takes as long as the reading; to Arrow all paths are UTF-8.
        with pq.ParquetFile(pa.BufferReader(path.read_bytes())) as file:
            rows = file.read()
    except FileNotFoundError:
        raise UserError(f"{path} is missing: {MAKE_OR_PULL}; if it was fetched, fetch it again") from None
    except (pa.ArrowException, OSError) as error:
        raise UserError(
            f"{path} is not a readable Parquet file; restore it, with `dvc checkout` if DVC has it, or fetch it again: {error}"
        ) from error
    for field in schema:
        found = rows[field.name] if rows.schema.names.count(field.name) == 1 else None
        if found is None or found.type != field.type or (found.null_count and not field.nullable):
            raise UserError(f"{path} has the columns {rows.schema.names}; expected one of them to be {field}")
    return rows
