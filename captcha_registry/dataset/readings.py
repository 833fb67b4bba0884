"""readings.parquet: what a model read on each sample, one row per sample in order of id; written by `recognition.readings`.

| column      | type          | meaning                                                                  |
|-------------|---------------|--------------------------------------------------------------------------|
| id          | int64         | number of the sample in its dataset; the key                             |
| label       | string        | the text on the picture                                                  |
| text        | string        | what the model read                                                      |
| confidence  | float         | probability of the text, 0 to 1                                          |
| characters  | list of float | confidence of each character of the text                                 |
| texts       | list of string | the three most probable texts, the most probable first                  |
| confidences | list of float | their probabilities                                                      |

The file also has the name of the dataset, and a hash of what decided how its samples were drawn.
"""

import hashlib
import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from captcha_registry.dataset.index import SCHEMA as INDEX_SCHEMA
from captcha_registry.dataset.manifest import Manifest
from captcha_registry.dataset.parquet import read_rows
from captcha_registry.errors import UserError

READINGS_NAME = "readings.parquet"

SCHEMA = pa.schema(
    [
        pa.field("id", pa.int64(), nullable=False),
        pa.field("label", pa.string(), nullable=False),
        pa.field("text", pa.string(), nullable=False),
        pa.field("confidence", pa.float32(), nullable=False),
        pa.field("characters", pa.list_(pa.float32()), nullable=False),
        pa.field("texts", pa.list_(pa.string()), nullable=False),
        pa.field("confidences", pa.list_(pa.float32()), nullable=False),
    ]
)

# By so much may a sum of probabilities exceed 1.
ROUNDING = 1e-5

# What is not joined: the index has it.
KEYS = ("id", "label")


def describe_samples(manifest: Manifest) -> dict[str, str]:
    """Name a dataset, and hash what decides how sample *n* of it looks; it may have grown, or be in other shards."""
    fields = {"drawing_version", "fonts", "spec"}
    drawing = manifest.model_dump(mode="json", include=fields, exclude={"spec": {"count", "shard_size"}})
    return {"dataset": manifest.name, "drawing": hashlib.sha256(json.dumps(drawing, sort_keys=True).encode()).hexdigest()}


def read_readings(path: Path) -> pa.Table:
    """Read the readings of a model.

    Args:
        path: the file, or the folder of the model.

    Raises:
        UserError: the file is missing, is no Parquet, lacks a column of `SCHEMA`, or holds confidences that are none.
    """
    path = path / READINGS_NAME if path.is_dir() else path
    rows = read_rows(path, SCHEMA)
    for name in ("confidence", "characters", "confidences"):
        values = rows[name] if name == "confidence" else pc.list_flatten(rows[name])
        # NaN is in no range.
        in_range = pc.and_(pc.greater_equal(values, 0), pc.less_equal(values, 1 + ROUNDING))
        if not pc.all(in_range, skip_nulls=False, min_count=0).as_py():
            raise UserError(
                f"{path} is damaged: not all of its {name} are from 0 to 1; restore it, with `dvc checkout` if DVC has it, or "
                "fetch it again"
            )
    return rows


def join_readings(index: pa.Table, readings: pa.Table, manifest: Manifest) -> pa.Table:
    """Add what a model read to the rows of an index, in the place of other readings; null where it read nothing.

    Raises:
        UserError: it read other samples.
    """
    _require_same_samples(readings, manifest)
    readings = _restore_types(readings)
    _require_one_reading(readings)
    places, is_read = _find_places(index, readings)
    rows = readings.take(pa.array(places, mask=~is_read))
    if len(index) and not is_read.any():
        raise UserError(
            f"none of these {len(index):,} samples of {manifest.name} is among the {len(readings):,} that the model read: "
            "take the split that it was evaluated on, which is test"
        )
    differs = pc.fill_null(pc.not_equal(index["label"], rows["label"]), False)
    if (count := pc.sum(differs).as_py() or 0) > 0:
        pairs = pa.table({"id": index["id"], "here": index["label"], "there": rows["label"]})
        (row,) = pairs.filter(differs).slice(0, 1).to_pylist()
        raise UserError(
            f"the readings are of other samples: {count:,} labels differ from those of {manifest.name}, the first is of "
            f"sample {row['id']}, {row['there']!r} there and {row['here']!r} here"
        )
    for name in [name for name in readings.column_names if name not in KEYS]:
        if name in INDEX_SCHEMA.names:
            _require_equal_column(name, index.filter(is_read)[name], rows.filter(is_read)[name])
            continue
        index = index.drop_columns([name] if name in index.column_names else []).append_column(name, rows[name])
    return index


def _require_same_samples(readings: pa.Table, manifest: Manifest) -> None:
    """Refuse readings without key or text, and those of samples that were drawn otherwise."""
    if lacking := [name for name in (*KEYS, "text") if name not in readings.column_names]:
        raise UserError(f"the readings have the columns {readings.column_names}; expected {lacking[0]} among them")
    known = {key.decode(): value.decode() for key, value in (readings.schema.metadata or {}).items()}
    here = describe_samples(manifest)
    if known.get("drawing", here["drawing"]) != here["drawing"]:
        raise UserError(
            f"the readings are of other samples, of the dataset {known.get('dataset')!r}, which were drawn with another seed, "
            f"size, font or style than those of {manifest.name!r}: load that one, or evaluate the model on this one"
        )


def _restore_types(readings: pa.Table) -> pa.Table:
    """Give columns the types that they had before pandas held them.

    Raises:
        UserError: a column holds something else.
    """
    if pa.types.is_integer(readings["text"].type) or pa.types.is_floating(readings["text"].type):
        raise UserError(
            f"the column text of the readings is {readings['text'].type}, which has lost zeros in front; expected string: with "
            "pandas, `read_csv(..., dtype={'text': str, 'label': str})`"
        )
    for field in SCHEMA:
        number = readings.schema.get_field_index(field.name)
        if number >= 0 and readings[number].type != field.type:
            try:
                readings = readings.set_column(number, field.name, readings[number].cast(field.type))
            except pa.ArrowException as error:
                raise UserError(
                    f"the column {field.name} of the readings is {readings[number].type}; expected {field.type}: {error}"
                ) from None
    return readings


def _require_one_reading(readings: pa.Table) -> None:
    """Refuse a table with several readings of a sample, or without its key."""
    if readings["id"].null_count:
        raise UserError(f"the readings have {readings['id'].null_count:,} rows without an id: drop these")
    counts = pc.value_counts(readings["id"])
    if len(counts) < len(readings):
        twice = counts.field("values").filter(pc.greater(counts.field("counts"), 1))
        raise UserError(
            f"the readings have several rows for {len(twice):,} samples, the first is sample {twice[0]}: keep one of each"
        )


def _require_equal_column(name: str, here: pa.ChunkedArray, there: pa.ChunkedArray) -> None:
    """Refuse to put something else in the place of what the index says of a sample."""
    try:
        is_equal = there.cast(here.type).equals(here)
    except pa.ArrowException:
        is_equal = False
    if not is_equal:
        raise UserError(f"the readings have other values of {name} than the index, which has this column, too: rename or drop it")


def _find_places(index: pa.Table, readings: pa.Table) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """Find for each row of an index the row of its reading, and tell whether there is one."""
    # Not `to_numpy`, which imports pandas.
    ids, read_ids = (np.from_dlpack(rows["id"].combine_chunks()) for rows in (index, readings))
    order = np.argsort(read_ids, kind="stable")
    numbers = np.searchsorted(read_ids, ids, sorter=order)
    numbers[numbers == len(read_ids)] = 0
    places = order[numbers] if len(read_ids) else numbers
    is_read = read_ids[places] == ids if len(read_ids) else np.zeros(len(ids), np.bool_)
    return places, is_read
