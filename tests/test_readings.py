"""What models read: the texts that logits stand for, as data, and joined with a dataset."""

import itertools
import subprocess
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rapidfuzz.distance import Levenshtein

import captcha_registry
from captcha_registry.dataset.dataset import CaptchaDataset
from captcha_registry.dataset.readings import SCHEMA, describe_samples, read_readings
from captcha_registry.errors import UserError
from captcha_registry.recognition.frameworks import keras
from captcha_registry.recognition.readings import decode, tabulate_readings, write_readings


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


def test_readings_that_pandas_held_are_the_same(tiny_dataset: CaptchaDataset, rows: pa.Table, tmp_path: Path) -> None:
    frame = rows.to_pandas()
    frame.to_parquet(tmp_path / "readings.parquet")
    expected = tiny_dataset.with_readings(rows).index
    for readings in (pa.Table.from_pandas(frame), tmp_path / "readings.parquet"):
        read = tiny_dataset.with_readings(readings)
        assert read.index.equals(expected)
        assert len(read.filter("text != label and 'O' in text")) == 1
    with pytest.raises(UserError, match=r"readings are a DataFrame; expected a table, .* `pyarrow\.Table\.from_pandas` makes"):
        captcha_registry.load(tiny_dataset.root).with_readings(frame)
    wrong = pa.Table.from_pandas(frame.assign(confidence="sure"))
    with pytest.raises(UserError, match="the column confidence of the readings is large_string; expected float"):
        tiny_dataset.with_readings(wrong)


def test_readings_put_nothing_in_the_place_of_what_the_index_says(tiny_dataset: CaptchaDataset, rows: pa.Table) -> None:
    read = tiny_dataset.with_readings(rows)
    # Of a table that was joined before, such as one that somebody has worked on.
    assert tiny_dataset.with_readings(read.index).index.equals(read.index)
    for name, values in (("length", pa.array([4] * 12)), ("shard", pa.array(["gpu0"] * 12)), ("ink", pa.array(range(12)))):
        with pytest.raises(UserError, match=f"^the readings have other values of {name} than the index, which has this column"):
            tiny_dataset.with_readings(rows.append_column(name, values))


def test_readings_that_are_not_one_for_a_sample_are_refused(tiny_dataset: CaptchaDataset, rows: pa.Table) -> None:
    first = rows["id"][0].as_py()
    with pytest.raises(UserError, match=f"^the readings have several rows for 12 samples, the first is sample {first}: keep one"):
        tiny_dataset.with_readings(pa.concat_tables([rows, rows]))
    frame = rows.to_pandas().assign(text=range(12))
    with pytest.raises(UserError, match=r"^the column text of the readings is int64, which has lost zeros in front; expected"):
        tiny_dataset.with_readings(pa.Table.from_pandas(frame))
    without = rows.set_column(0, "id", pa.array([None, *rows["id"].to_pylist()[1:]], pa.int64()))
    with pytest.raises(UserError, match=r"^the readings have 1 rows without an id: drop these$"):
        tiny_dataset.with_readings(without)


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


def test_what_looks_at_readings_imports_no_framework(tiny_dataset: CaptchaDataset, rows: pa.Table, tmp_path: Path) -> None:
    pq.write_table(rows, tmp_path / "readings.parquet")
    code = (
        "import sys, captcha_registry\n"
        "from captcha_registry.describing.model_card import write_model_card\n"
        "from captcha_registry.recognition.scoring import compute_metrics\n"
        f"readings = captcha_registry.load_readings({str(tmp_path)!r})\n"
        f"read = captcha_registry.load({str(tiny_dataset.root)!r}, split='test').with_readings(readings)\n"
        "print(len(read.filter('text != label')), compute_metrics(read.index.to_pandas(), 'O')['test_samples'])\n"
        "captcha_registry.load_model, captcha_registry.CaptchaModel\n"
        "assert not {'tensorflow', 'keras', 'torch', 'onnxruntime'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["1", "12"]


def test_what_are_no_readings_is_refused(tiny_dataset: CaptchaDataset, rows: pa.Table, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"models/none is missing: run `dvc repro`"):
        tiny_dataset.with_readings("models/none")
    with pytest.raises(UserError, match=r"there is no cnn; expected .* `captcha_registry.load_readings\('NAME@"):
        captcha_registry.load(tiny_dataset.root).with_readings("cnn")
    with pytest.raises(UserError, match="expected label among them"):
        tiny_dataset.with_readings(pa.table({"id": [1]}))
    path = tmp_path / "readings.parquet"
    path.write_bytes(b"no Parquet")
    with pytest.raises(UserError, match="is not a readable Parquet file"):
        read_readings(path)
    pq.write_table(rows.drop_columns("confidence"), path)
    with pytest.raises(UserError, match=r"expected one of them to be .*confidence: float"):
        read_readings(path)


@pytest.mark.parametrize("name", ["confidence", "characters", "confidences"])
@pytest.mark.parametrize("wrong", [-0.5, 1.5, float("nan"), float("inf"), None])
def test_a_confidence_that_is_none_is_refused(rows: pa.Table, name: str, wrong: float | None, tmp_path: Path) -> None:
    values = rows[name].to_pylist()
    values[3] = wrong if name == "confidence" else [wrong, *values[3][1:]]
    path = tmp_path / "readings.parquet"
    column = pa.array(values, rows.schema.field(name).type)
    pq.write_table(rows.set_column(rows.schema.get_field_index(name), name, column), path)
    with pytest.raises(UserError, match=f"damaged: not all of its {name} are from 0|expected one of them to be .*{name}"):
        read_readings(path)


@st.composite
def logits_of_a_few_texts(draw: st.DrawFn) -> npt.NDArray[np.float32]:
    """Logits of 1 to 3 texts, 1 to 5 steps or positions and 2 to 4 classes."""
    num_texts, num_steps, num_classes = draw(st.integers(1, 3)), draw(st.integers(1, 5)), draw(st.integers(2, 4))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    return rng.normal(scale=draw(st.sampled_from([0.0, 1.0, 20.0])), size=(num_texts, num_steps, num_classes)).astype(np.float32)


def list_products(logits: npt.NDArray[np.float32]) -> dict[tuple[int, ...], float]:
    """List the probability of every choice of a class for each step, by definition."""
    of_step = np.exp(logits - np.logaddexp.reduce(logits.astype(float), axis=-1, keepdims=True))
    steps = np.arange(len(logits))
    return {path: of_step[steps, path].prod() for path in itertools.product(range(logits.shape[1]), repeat=len(logits))}


@given(logits_of_a_few_texts())
@settings(max_examples=60)
def test_positions_are_read_as_the_three_most_probable_of_all_texts(logits: npt.NDArray[np.float32]) -> None:
    for reading, of_text in zip(decode("cnn", logits, "abcd"), logits, strict=True):
        texts = {"".join("abcd"[c] for c in path): product for path, product in list_products(of_text).items()}
        assert (reading.text, reading.confidence) == reading.alternatives[0]
        assert len({text for text, _ in reading.alternatives}) == min(3, len(texts))
        assert [part for _, part in reading.alternatives] == pytest.approx(sorted(texts.values(), reverse=True)[:3], abs=1e-12)
        assert [texts[text] for text, _ in reading.alternatives] == pytest.approx([part for _, part in reading.alternatives])
        assert np.prod(reading.characters) == pytest.approx(reading.confidence)


@given(logits_of_a_few_texts())
@settings(max_examples=100)
def test_no_text_of_one_edit_is_more_probable_than_the_one_read(logits: npt.NDArray[np.float32]) -> None:
    for reading, of_text in zip(decode("crnn", logits, "abc"), logits, strict=True):
        texts: dict[str, float] = {}
        paths = list_products(of_text)
        for path, product in paths.items():
            text = collapse_by_definition(path)
            texts[text] = texts.get(text, 0.0) + product
        assert reading.confidence == pytest.approx(texts[reading.text], abs=1e-12)
        assert reading.confidence >= texts[collapse_by_definition(max(paths, key=lambda path: paths[path]))] * (1 - 1e-6)

        near = {text: part for text, part in texts.items() if Levenshtein.distance(text, reading.text) <= 1 and part > 0}
        best = sorted(near.values(), reverse=True)[:3]
        assert [part for _, part in reading.alternatives] == pytest.approx(best, abs=1e-12)
        assert [near[text] for text, _ in reading.alternatives] == pytest.approx(best, abs=1e-12)
        assert len({text for text, _ in reading.alternatives}) == len(best)
        for place, part in enumerate(reading.characters):
            others = [text for text in texts if len(text) == len(reading.text)]
            like = [text for text in others if all(text[n] == c for n, c in enumerate(reading.text) if n != place)]
            assert part == pytest.approx(texts[reading.text] / sum(texts[text] for text in like), abs=1e-9)


def collapse_by_definition(path: tuple[int, ...]) -> str:
    """CTC's collapse as the paper says it: merge repeats, then drop blanks."""
    return "".join("abc"[c - 1] for c, _ in itertools.groupby(path) if c != 0)


def test_a_text_is_more_probable_than_that_of_the_best_path_if_more_paths_come_to_it() -> None:
    # The best path is blank in both steps, with 0.36; "a" has the other three.
    (reading,) = decode("crnn", np.log(np.array([[[0.6, 0.4], [0.6, 0.4]]])), "a")
    assert reading.text == "a"
    assert reading.alternatives == (("a", pytest.approx(0.64)), ("", pytest.approx(0.36)))


@pytest.mark.parametrize("family", ["cnn", "crnn"])
def test_a_picture_is_read_alike_alone_and_in_a_batch(family: str) -> None:
    logits = np.random.default_rng(1).normal(scale=3, size=(20, 16, 6)).astype(np.float32)
    together = decode(family, logits, "abcdef")
    assert len({len(reading.text) for reading in together}) > 1 or family == "cnn"
    for alone, reading in zip((decode(family, row[None], "abcdef")[0] for row in logits), together, strict=True):
        assert alone.text == reading.text
        assert alone.characters == pytest.approx(reading.characters)
        assert [part for _, part in alone.alternatives] == pytest.approx([part for _, part in reading.alternatives])


def test_the_probability_of_a_text_is_what_the_loss_says() -> None:
    alphabet = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"
    logits = np.random.default_rng(1).normal(scale=3, size=(6, 16, 37)).astype(np.float32)
    readings = decode("crnn", logits, alphabet)
    classes = [[alphabet.index(c) + 1 for c in reading.text] for reading in readings]
    filled = np.array([[*row, *[0] * (16 - len(row))] for row in classes], np.int32)
    losses = keras.losses.CTC(reduction="none")(filled, logits)
    assert [-np.log(reading.confidence) for reading in readings] == pytest.approx(np.asarray(losses), rel=1e-4)


def test_readings_are_data_in_order_of_id_with_the_same_bytes_each_time(tiny_dataset: CaptchaDataset, tmp_path: Path) -> None:
    samples = tiny_dataset.split("test")[::-1]
    logits = np.random.default_rng(1).normal(scale=3, size=(len(samples), 3, 12)).astype(np.float32)
    readings = decode("cnn", logits, tiny_dataset.manifest.spec.alphabet)
    for name in ("first", "second"):
        write_readings(tmp_path / name, tabulate_readings(samples, readings))
    assert (tmp_path / "first").read_bytes() == (tmp_path / "second").read_bytes()
    rows = read_readings(tmp_path / "first")
    assert rows["id"].to_pylist() == sorted(samples.index["id"].to_pylist())
    by_id = dict(zip(samples.index["id"].to_pylist(), readings, strict=True))
    labels = dict(zip(*(samples.index[name].to_pylist() for name in ("id", "label")), strict=True))
    for row in rows.to_pylist():
        reading = by_id[row["id"]]
        assert (row["label"], row["text"]) == (labels[row["id"]], reading.text)
        assert row["confidence"] == pytest.approx(reading.confidence)
        assert row["characters"] == pytest.approx(reading.characters)
        assert list(zip(row["texts"], row["confidences"], strict=True)) == [
            (t, pytest.approx(p)) for t, p in reading.alternatives
        ]
    assert len(tiny_dataset.with_readings(rows).filter("confidence >= 0")) == len(samples)
