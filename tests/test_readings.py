"""What models read, as data: joined with a dataset, from which the wrong ones are selected."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import captcha_registry
from captcha_registry.dataset.dataset import CaptchaDataset
from captcha_registry.dataset.readings import SCHEMA, describe_samples, read_readings
from captcha_registry.errors import UserError


def make_rows(samples: CaptchaDataset, wrong: dict[int, str]) -> pa.Table:
    """Make the readings of a model that reads all samples right but some; its confidence is id / 100."""
    ids, labels = samples.index["id"].to_pylist(), samples.index["label"].to_pylist()
    texts = [wrong.get(number, label) for number, label in zip(ids, labels, strict=True)]
    confidence = [number / 100 for number in ids]
    columns = {
        "id": ids,
        "label": labels,
        "text": texts,
        "confidence": confidence,
        "characters": [[0.5] * len(text) for text in texts],
        "texts": [[text, "A", ""] for text in texts],
        "confidences": [[part, 0.0, 0.0] for part in confidence],
    }
    return pa.table(columns, SCHEMA.with_metadata(describe_samples(samples.manifest)))


@pytest.fixture
def rows(tiny_dataset: CaptchaDataset) -> pa.Table:
    """Readings of the test samples, of which the second has one character more."""
    samples = tiny_dataset.split("test")
    number, label = samples.index["id"][1].as_py(), samples.index["label"][1].as_py()
    return make_rows(samples, {number: f"{label}O"})


@pytest.mark.parametrize("where", ["table", "file", "folder"])
def test_wrong_readings_are_selected_from_a_dataset(
    tiny_dataset: CaptchaDataset, rows: pa.Table, tmp_path: Path, where: str
) -> None:
    pq.write_table(rows, tmp_path / "readings.parquet")
    source = {"table": rows, "file": str(tmp_path / "readings.parquet"), "folder": tmp_path}[where]
    read = captcha_registry.load(tiny_dataset.root).with_readings(source)
    assert len(read) == 60
    (wrong,) = read.filter("text != label").index.to_pylist()
    assert wrong["id"] == rows["id"][1].as_py()
    assert wrong["text"] == f"{wrong['label']}O"
    assert wrong["texts"] == [wrong["text"], "A", ""]
    # What was not read is neither right nor wrong.
    assert len(read.filter("text == label")) == 11
    assert read.filter("'O' in text").index["id"].to_pylist() == [wrong["id"]]
    less = read.filter("confidence < 0.3")
    assert less.index["id"].to_pylist() == [number for number in rows["id"].to_pylist() if number < 30]
    assert less[0].label == less.index["label"][0].as_py()


def test_readings_find_their_samples_in_any_order(tiny_dataset: CaptchaDataset, rows: pa.Table) -> None:
    order = np.random.default_rng(1).permutation(60)
    read = tiny_dataset[order].with_readings(rows.take(np.random.default_rng(2).permutation(12)))
    by_id = {row["id"]: row["text"] for row in rows.to_pylist()}
    assert read.index["id"].to_pylist() == order.tolist()
    assert read.index["text"].to_pylist() == [by_id.get(number) for number in order.tolist()]


def test_readings_joined_later_take_the_place_of_others(tiny_dataset: CaptchaDataset, rows: pa.Table) -> None:
    test = tiny_dataset.split("test")
    again = test.with_readings(rows).with_readings(make_rows(test, {}))
    assert len(again.filter("text == label")) == len(test)
    assert again.index.column_names == test.with_readings(rows).index.column_names


def test_readings_of_a_dataset_fit_what_it_grew_to(grown_dataset: CaptchaDataset, rows: pa.Table) -> None:
    assert len(grown_dataset.with_readings(rows).filter("text != label")) == 1


def test_readings_of_other_samples_are_refused(tiny_dataset: CaptchaDataset, rows: pa.Table) -> None:
    with pytest.raises(UserError, match="none of these 48 samples of tiny is among the 12 that the model read: take the split"):
        tiny_dataset.split("train").with_readings(rows)
    manifest = tiny_dataset.manifest
    other = manifest.model_copy(update={"name": "bigger", "spec": manifest.spec.model_copy(update={"font_sizes": (60,)})})
    with pytest.raises(UserError, match="other samples, of the dataset 'bigger', which were drawn with another seed, size, font"):
        tiny_dataset.with_readings(rows.replace_schema_metadata(describe_samples(other)))
    number, label = rows["id"][3].as_py(), rows["label"][3].as_py()
    labels = ["other" if n == number else text for n, text in zip(*(rows[c].to_pylist() for c in ("id", "label")), strict=True)]
    relabelled = rows.set_column(1, "label", pa.array(labels))
    with pytest.raises(
        UserError, match=f"1 labels differ from those of tiny, .* sample {number}, 'other' there and '{label}' here"
    ):
        tiny_dataset.with_readings(relabelled)


def test_what_are_no_readings_is_refused(tiny_dataset: CaptchaDataset, rows: pa.Table, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"models/none is missing: run `dvc repro`"):
        tiny_dataset.with_readings("models/none")
    with pytest.raises(UserError, match="expected label among them"):
        tiny_dataset.with_readings(pa.table({"id": [1]}))
    path = tmp_path / "readings.parquet"
    path.write_bytes(b"no Parquet")
    with pytest.raises(UserError, match="is not a readable Parquet file"):
        read_readings(path)
    pq.write_table(rows.drop_columns("confidence"), path)
    with pytest.raises(UserError, match=r"expected one of them to be .*confidence: float"):
        read_readings(path)
