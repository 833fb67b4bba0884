"""Wrong readings are explained: what the other text would look like, and without what they would have been right."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from test_recognition import datasets, draw_and_split, small_params  # noqa: F401 - a fixture

from captcha_registry.dataset.dataset import CaptchaDataset
from captcha_registry.dataset.explanations import SCHEMA, read_explanations, write_explanations
from captcha_registry.dataset.folder import open_folder
from captcha_registry.dataset.manifest import Manifest, read_manifest, write_manifest
from captcha_registry.dataset.spec import DatasetSpec
from captcha_registry.errors import UserError
from captcha_registry.generation.drawing import Drawer, describe_pixels
from captcha_registry.generation.redrawing import CAUSES, Cause, Redrawing
from captcha_registry.recognition import explaining
from captcha_registry.recognition.explaining import explain_errors, leave_unexplained, sum_up_explanations
from captcha_registry.recognition.model import BATCH_SIZE
from captcha_registry.recognition.trained import save_model
from captcha_registry.recognition.training import build_network
from stages import evaluate

Read = Callable[[npt.NDArray[np.uint8]], list[str]]


@pytest.fixture(scope="session")
def drawer(tiny_dataset: CaptchaDataset) -> Drawer:
    return Drawer(tiny_dataset.manifest.spec)


def misread(dataset: CaptchaDataset, mistake: Callable[[str], str]) -> pa.Table:
    """Return the rows of test with what a model would have read."""
    rows = dataset.split("test").index
    return rows.append_column("text", pa.array([mistake(label) for label in rows["label"].to_pylist()]))


def other_first(label: str) -> str:
    return ("1" if label[0] == "0" else "0") + label[1:]


def always(text: str) -> Read:
    return lambda images: [text] * len(images)


def know(pictures: dict[bytes, str]) -> Read:
    """Make a reader that knows some pictures and takes all others for a question mark."""
    return lambda images: [pictures.get(image.tobytes(), "?") for image in images]


def test_no_error_is_explained_by_nothing(tiny_dataset: CaptchaDataset, drawer: Drawer) -> None:
    none = misread(tiny_dataset, str).slice(0, 0)
    explained = explain_errors(none, drawer, always("never asked"))
    assert (explained.schema, len(explained)) == (SCHEMA, 0)
    assert sum_up_explanations(explained, none) == {"errors_explained": 0}


def test_a_model_that_reads_a_sample_and_its_pair_alike_cannot_tell_them_apart(
    tiny_dataset: CaptchaDataset, drawer: Drawer
) -> None:
    wrong = misread(tiny_dataset, other_first)
    pairs = {row["text"]: Redrawing(drawer, row["id"]).draw_pair(row["text"]).pixels for row in wrong.to_pylist()}
    explained = explain_errors(wrong, drawer, know({pixels.tobytes(): text for text, pixels in pairs.items()}))
    assert explained["id"].to_pylist() == sorted(wrong["id"].to_pylist())
    texts = dict(zip(wrong["id"].to_pylist(), wrong["text"].to_pylist(), strict=True))
    for row in explained.to_pylist():
        assert row["pair_text"] == texts[row["id"]]
        difference = np.abs(pairs[row["pair_text"]].astype(int) - drawer.draw(row["id"]).pixels)
        assert row["pair_pixels"] == (difference > 32).any(axis=2).sum()
        assert row["cured_by"] == []
    sums = sum_up_explanations(explained, wrong)
    assert sums["pairs_read_as_drawn"] == 1
    assert sums["pairs_under_30_pixels"] == pytest.approx(np.mean([n < 30 for n in explained["pair_pixels"].to_pylist()]))
    assert sums["pairs_under_10_pixels"] <= sums["pairs_under_30_pixels"] <= sums["pairs_under_100_pixels"]
    assert sum_up_explanations(explain_errors(wrong, drawer, always("?")), wrong)["pairs_read_as_drawn"] == 0


@pytest.mark.parametrize("cause", CAUSES)
def test_an_error_is_cured_by_what_makes_the_model_right_when_it_is_taken_away(
    tiny_dataset: CaptchaDataset, drawer: Drawer, cause: Cause
) -> None:
    wrong = misread(tiny_dataset, other_first)
    changes = {row["id"]: Redrawing(drawer, row["id"]).draw_without(cause).pixels for row in wrong.to_pylist()}
    labels = dict(zip(wrong["id"].to_pylist(), wrong["label"].to_pylist(), strict=True))
    explained = explain_errors(wrong, drawer, know({changes[number].tobytes(): label for number, label in labels.items()}))
    # Ink that is light enough, or a text that fits, is no cause.
    had = {number: not np.array_equal(pixels, drawer.draw(number).pixels) for number, pixels in changes.items()}
    assert {row["id"]: row["cured_by"] for row in explained.to_pylist()} == {
        number: [cause] if there else [] for number, there in had.items()
    }
    assert any(had.values())
    sums = sum_up_explanations(explained, wrong)
    assert {name: share for name, share in sums.items() if "cured" in name} == {
        f"errors_cured_by_{each}": pytest.approx(np.mean([*had.values()]), abs=1e-6) if each == cause else 0 for each in CAUSES
    }


def test_pictures_of_errors_that_are_explained_together_fit_into_one_batch() -> None:
    assert explaining._AT_A_TIME * (len(CAUSES) + 1) <= BATCH_SIZE  # noqa: SLF001 - with a picture for each cause, and a pair


def test_a_text_that_cannot_stand_in_the_place_of_the_label_has_no_pair(tiny_dataset: CaptchaDataset, drawer: Drawer) -> None:
    for mistake in (lambda label: label[1:], lambda label: label + "0", lambda label: "Z" + label[1:], lambda _: ""):
        wrong = misread(tiny_dataset, mistake)
        explained = explain_errors(wrong, drawer, always("?"))
        assert explained["pair_text"].null_count == explained["pair_pixels"].null_count == len(wrong)
        assert explained["cured_by"].null_count == 0
        assert not any(name.startswith("pairs") for name in sum_up_explanations(explained, wrong))


def test_of_many_errors_the_first_are_explained(
    tiny_dataset: CaptchaDataset, drawer: Drawer, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = misread(tiny_dataset, other_first)
    everything = explain_errors(wrong, drawer, always("?"))
    monkeypatch.setattr(explaining, "MAX_EXPLAINED", 5)
    monkeypatch.setattr(explaining, "_AT_A_TIME", 2)
    explained = explain_errors(wrong.take(list(reversed(range(len(wrong))))), drawer, always("?"))
    assert explained.slice(0, 5) == everything.slice(0, 5)
    assert explained["id"] == everything["id"]
    assert explained["cured_by"].null_count == len(wrong) - 5
    assert sum_up_explanations(explained, wrong)["errors_explained"] == 5


def test_a_sample_that_is_drawn_with_other_pixels_here_explains_nothing(tiny_dataset: CaptchaDataset) -> None:
    other = Drawer(tiny_dataset.manifest.spec.model_copy(update={"dots": 29}))
    with pytest.raises(UserError, match=r"sample \d+ has other pixels when it is drawn here than the index says"):
        explain_errors(misread(tiny_dataset, other_first), other, always("?"))


def test_explanations_are_read_as_they_were_written(tmp_path: Path) -> None:
    rows = pa.Table.from_pylist([{"id": 3, "pair_text": "0O", "pair_pixels": 7, "cured_by": ["dots", "ink"]}], SCHEMA)
    rows = pa.concat_tables([rows, leave_unexplained([4, 9])])
    write_explanations(tmp_path / "errors.parquet", rows)
    assert read_explanations(tmp_path) == read_explanations(tmp_path / "errors.parquet") == rows


def test_what_holds_no_explanations_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"errors\.parquet is missing: run `dvc repro`"):
        read_explanations(tmp_path)
    path = tmp_path / "errors.parquet"
    path.write_bytes(b"no Parquet")
    with pytest.raises(UserError, match=r"errors\.parquet is not a readable Parquet file"):
        read_explanations(path)
    pq.write_table(pa.table({"id": [1]}), path)
    with pytest.raises(UserError, match=r"errors\.parquet has the columns \['id'\]; expected one of them to be"):
        read_explanations(path)


@pytest.fixture
def save(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """A function that saves a `cnn` for a dataset, in the working directory, that says the same of all pictures."""
    monkeypatch.chdir(tmp_path)

    def save(dataset: str, text: str) -> None:
        manifest = read_manifest(tmp_path / "data" / dataset)
        params = small_params("cnn", dataset=dataset)
        network = build_network(params, manifest.spec)
        bias = network.trainable_variables[-1]
        wanted = np.array([[character == other for other in manifest.spec.alphabet] for character in text], np.float32)
        bias.assign(50 * wanted.reshape(bias.shape))
        save_model(tmp_path / "models/cnn", network, pd.DataFrame({"epoch": [1]}), params, manifest)

    return save


def test_evaluate_explains_every_error_and_draws_each_sample_as_the_index_says(
    datasets: Path,  # noqa: F811 - the fixture
    tmp_path: Path,
    save: Callable[[str, str], None],
) -> None:
    shutil.copytree(datasets / "digits", tmp_path / "data/digits")
    dataset = open_folder(tmp_path / "data/digits")
    save("digits", "1111")
    evaluate.main("cnn")
    metrics = json.loads((tmp_path / "metrics/cnn.json").read_text())
    errors = read_explanations(tmp_path / "models/cnn")
    assert len(errors) == metrics["errors_explained"] == metrics["test_samples"] == 16
    assert set(errors["pair_text"].to_pylist()) == {"1111"}
    assert metrics["pairs_read_as_drawn"] == 1
    drawer, rows = Drawer(dataset.manifest.spec), {row["id"]: row for row in dataset.index.to_pylist()}
    for number in errors["id"].to_pylist():
        row, again = rows[number], Redrawing(drawer, number)
        assert describe_pixels(again.draw_pair(row["label"]))["pixel_sha256"] == row["pixel_sha256"]
    assert {f"errors_cured_by_{cause}" for cause in CAUSES} <= metrics.keys()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"drawing_version": 1}, "tiny was drawn by drawing version 1, this is"),
        ({"fonts": {"lost.ttf": "0" * 64}}, "fonts names 'lost.ttf', which is not in"),
    ],
    ids=["version", "font"],
)
def test_errors_on_a_dataset_that_cannot_be_drawn_here_are_left_unexplained_with_the_reason(
    dataset_copy: Path,
    change: dict[str, object],
    told: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    manifest = read_manifest(dataset_copy)
    if "fonts" in change:
        change |= {"spec": manifest.spec.model_copy(update={"fonts": ("lost.ttf",)})}
    fields = {name: content for name, content in manifest if name != "dataset_id"}
    write_manifest(dataset_copy, Manifest.create(**fields | change))
    (dataset_copy.parent / "models/crnn").mkdir(parents=True)
    monkeypatch.chdir(dataset_copy.parent)
    dataset = open_folder(dataset_copy)
    wrong = misread(dataset, other_first)
    assert evaluate.explain("crnn", dataset, wrong, pytest.fail) == {"errors_explained": 0}
    assert capsys.readouterr().err.startswith(f"warning: no error of crnn is explained: {told}")
    left = read_explanations(Path("models/crnn"))
    assert left["id"].to_pylist() == wrong["id"].to_pylist()
    assert left["cured_by"].null_count == len(wrong)


def test_evaluate_has_nothing_to_explain_where_every_reading_is_right(tmp_path: Path, save: Callable[[str, str], None]) -> None:
    spec = DatasetSpec(alphabet="01", length=2, width=32, height=32, count=5, shard_size=1, seed=1)
    draw_and_split("single", spec, tmp_path / "data")
    (label,) = open_folder(tmp_path / "data/single").split("test").index["label"].to_pylist()
    save("single", label)
    evaluate.main("cnn")
    metrics = json.loads((tmp_path / "metrics/cnn.json").read_text())
    assert (metrics["exact_match"], metrics["errors_explained"]) == (1, 0)
    assert not any("cured" in name or "pairs" in name for name in metrics)
    assert len(read_explanations(tmp_path / "models/cnn")) == 0
