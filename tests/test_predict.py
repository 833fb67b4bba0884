"""`captcha-registry predict`: a record for every picture, in order and as they come, whatever the files are."""

import csv
import io
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from captcha.image import ImageCaptcha
from conftest import HANG_SECONDS, ROOT
from packaging.requirements import Requirement
from PIL import Image
from scipy.stats import binom
from test_model import model_folder  # noqa: F401 - a fixture
from test_pictures import png_that_claims

import captcha_registry
from captcha_registry.cli import main
from captcha_registry.commands.predict import FORMATS
from captcha_registry.dataset.dataset import CaptchaDataset
from captcha_registry.dataset.spec import DatasetSpec
from captcha_registry.export import export_dataset
from captcha_registry.recognition import predicting
from captcha_registry.recognition.card import CARD_NAME, NETWORK_NAME
from captcha_registry.recognition.model import CaptchaModel
from captcha_registry.recognition.onnx_conversion import convert_model
from captcha_registry.recognition.onnx_network import CHECKSUMS, ONNX_NAME, open_onnx
from captcha_registry.recognition.predicting import Record, list_places, read_pictures
from captcha_registry.recognition.readings import Reading
from captcha_registry.recognition.recipe import load_model_params
from captcha_registry.registry import loading
from captcha_registry.registry.publishing import verify_folder

Predict = Callable[..., tuple[int, str]]


@pytest.fixture(scope="module")
def onnx_file(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:  # noqa: F811 - as above
    """A model that has learnt nothing. Shared: read it, never write to it."""
    path = tmp_path_factory.mktemp("onnx") / "reader.onnx"
    path.write_bytes(convert_model(model_folder))
    return path


@pytest.fixture(scope="module")
def model(onnx_file: Path) -> CaptchaModel:
    return open_onnx(onnx_file.read_bytes(), "reader")


@pytest.fixture(scope="module")
def pictures(tiny_dataset: CaptchaDataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with 20 pictures, `00.png` and so on. Shared: read it, never write to it."""
    folder = tmp_path_factory.mktemp("pictures")
    for number, sample in enumerate(tiny_dataset[:20].read_samples()):
        (folder / f"{number:02}.png").write_bytes(sample.image)
    return folder


@pytest.fixture
def predict(onnx_file: Path, capfd: pytest.CaptureFixture[str]) -> Predict:
    """A function that calls the command and returns its exit code and what it prints."""

    def call(*arguments: object) -> tuple[int, str]:
        with pytest.raises(SystemExit) as end:
            main(["predict", *map(str, arguments), "--model", str(onnx_file)])
        output, errors = capfd.readouterr()
        assert errors == ""
        return int(end.value.code or 0), output

    return call


def list_records(output: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in output.splitlines()]


def test_files_folders_and_patterns_are_read_in_their_order(
    predict: Predict, pictures: Path, model: CaptchaModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Seven batches of three.
    monkeypatch.setattr(predicting, "MAX_PICTURES", 3)
    code, output = predict(pictures / "07.png", pictures, f"{pictures}/1[01].png", "--format", "jsonl")
    paths = [str(pictures / f"{number:02}.png") for number in (7, *range(20), 10, 11)]
    assert code == 0
    records = list_records(output)
    assert [record["path"] for record in records] == paths
    assert [record["text"] for record in records] == [reading.text for reading in model.read(paths)]
    assert len({record["text"] for record in records}) > 3


def test_a_record_has_the_text_its_probability_its_characters_and_the_likeliest_texts(
    predict: Predict, pictures: Path, model: CaptchaModel
) -> None:
    picture = pictures / "00.png"
    (reading,) = model.read(picture)
    (record,) = list_records(predict(picture, "--format", "jsonl")[1])
    assert list(record) == ["path", "text", "confidence", "characters", "alternatives"]
    assert (record["path"], record["text"]) == (str(picture), reading.text)
    assert record["confidence"] == pytest.approx(reading.confidence, abs=1e-5)
    assert [entry["char"] for entry in record["characters"]] == list(reading.text)
    assert [entry["confidence"] for entry in record["characters"]] == pytest.approx(reading.characters, abs=1e-5)
    assert [(entry["text"], pytest.approx(entry["confidence"], abs=1e-5)) for entry in record["alternatives"]] == list(
        reading.alternatives
    )

    (row,) = csv.DictReader(io.StringIO(predict(picture, "--format", "csv", "--top", "2")[1]))
    assert list(row) == ["path", "error", "text", "confidence", "text_2", "confidence_2"]
    assert (row["error"], row["text"], row["text_2"]) == ("", *(text for text, _ in reading.alternatives[:2]))
    assert predict(picture)[1] == f"{picture}: {reading.text} {min(reading.confidence, 0.9999):.4f}\n"
    assert predict(picture, "--top", 3)[1].count("  ") == 2


def test_a_file_that_cannot_be_read_is_a_record_and_the_others_are_read(predict: Predict, pictures: Path, tmp_path: Path) -> None:
    (tmp_path / "bomb.png").write_bytes(png_that_claims(12_000, 12_000))
    (tmp_path / "cut.png").write_bytes((pictures / "00.png").read_bytes()[:-40])
    (tmp_path / "empty").mkdir()
    Image.new("RGB", (60, 50)).save(tmp_path / "large.png")
    (tmp_path / "text.png").write_text("a text")
    (tmp_path / "whole.png").write_bytes((pictures / "00.png").read_bytes())
    places = [tmp_path, tmp_path / "empty", tmp_path / "none.png", f"{tmp_path}/*.gif", ""]
    code, output = predict(*places, "--format", "jsonl")
    assert code == 1
    records = {str(record["path"]).rpartition("/")[2]: record.get("error") for record in list_records(output)}
    assert list(records) == ["bomb.png", "cut.png", "large.png", "text.png", "whole.png", "empty", "none.png", "*.gif", ""]
    problems = ["12,000x12,000 pixels", "truncated", "60x50 pixels; the model reads 48x32", "no picture", None]
    problems += ["a folder without pictures", "there is no such file or folder", "no file has a name like this"]
    problems += ["the path is empty, perhaps because a variable is not set"]
    for error, problem in zip(records.values(), problems, strict=True):
        assert error == problem if problem is None else problem in str(error)

    rows = list(csv.DictReader(io.StringIO(predict(*places, "--format", "csv")[1])))
    assert [bool(row["error"]) for row in rows] == [error is not None for error in records.values()]
    lines = predict(*places)[1].splitlines()
    assert [": error: " in line for line in lines] == [error is not None for error in records.values()]

    code, output = predict(tmp_path / "large.png", "--resize", "--format", "jsonl")
    assert (code, "text" in list_records(output)[0]) == (0, True)


def test_readings_that_are_not_sure_enough_are_refused(predict: Predict, pictures: Path) -> None:
    all_records = list_records(predict(pictures, "--format", "jsonl")[1])
    confidences = sorted(float(str(record["confidence"])) for record in all_records)
    least = confidences[10]
    code, output = predict(pictures, "--format", "jsonl", "--min-confidence", least - 1e-6)
    assert code == 1
    for before, record in zip(all_records, list_records(output), strict=True):
        assert ("error" in record) == (float(str(before["confidence"])) < least - 1e-6)
        if "error" in record:
            (told,) = re.findall(rf"^read as '{before['text']}' with confidence (.*), below ", str(record["error"]))
            assert float(told) < least


def test_records_come_while_the_list_is_still_being_written(
    model: CaptchaModel, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reading, writing = os.pipe()
    with open(reading) as stdin:  # noqa: PTH123 - a descriptor
        monkeypatch.setattr(sys, "stdin", stdin)
        batches = read_pictures(model, list_places(["-"]), resize=False)
        for name in ("03.png", "01.png"):
            os.write(writing, f"{pictures / name}\n\n".encode())
            assert [record.path for record in next(batches)] == [str(pictures / name)]
        os.write(writing, os.fsencode(pictures / "na\udcffme.png"))
        os.close(writing)
        (record,) = next(batches)
        assert (record.path, record.error) == (f"{pictures}/na\udcffme.png", "there is no such file or folder")
        assert list(batches) == []


def test_a_list_from_a_pipe_that_does_not_wait_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    with open(reading) as stdin, ThreadPoolExecutor(1) as thread:  # noqa: PTH123 - a descriptor
        monkeypatch.setattr(sys, "stdin", stdin)
        listed = thread.submit(lambda: list(list_places(["-"])))
        with pytest.raises(TimeoutError):
            listed.result(timeout=0.2)
        os.write(writing, b"a.png\n")
        os.close(writing)
        assert listed.result(timeout=HANG_SECONDS) == ["a.png"]


def test_a_list_that_cannot_be_read_is_told(
    onnx_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with (tmp_path / "list").open("w") as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        with pytest.raises(SystemExit) as end:
            main(["predict", "-", "--model", str(onnx_file)])
    assert (end.value.code, *capsys.readouterr()) == (2, "", "error: standard input: Bad file descriptor\n")


def test_a_list_may_have_lines_as_windows_ends_them_and_places_below_home(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = min(pictures.iterdir())
    (tmp_path / "list").write_bytes(f"~/{first.name}\r\n\r\n  \n~/{first.name}".encode())
    monkeypatch.setenv("HOME", str(pictures))
    with (tmp_path / "list").open() as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        assert list(list_places(["-"])) == [str(first)] * 2
    # As `find -print0` writes them, one cut by the end of what is read at once.
    (tmp_path / "list").write_bytes(b"a\nb.png\0" + b"c" * 65_531 + b".png\0d.png\0")
    with (tmp_path / "list").open() as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        assert list(list_places(["-"])) == ["a\nb.png", "c" * 65_531 + ".png", "d.png"]
    assert list(list_places([f"~/{first.name}"])) == [str(first)]


def test_a_list_without_a_picture_is_told(
    onnx_file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with open(os.devnull) as stdin:  # noqa: PTH123 - no file
        monkeypatch.setattr(sys, "stdin", stdin)
        with pytest.raises(SystemExit) as end:
            main(["predict", "-", "--model", str(onnx_file)])
    assert not end.value.code
    assert capsys.readouterr() == ("", "no picture was named\n")


def test_a_picture_on_standard_input_is_one_error(pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (pictures / "00.png").open() as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        with pytest.raises(captcha_registry.UserError, match="standard input holds a picture; expected a list of files"):
            list(list_places(["-"]))


@pytest.mark.parametrize(
    ("confidence", "text", "number"),
    [
        (1.0, "1.0000", 1.0),
        (0.99999999, "0.9999", 0.999999),
        (0.999486, "0.9995", 0.999486),
        (0.5000006, "0.5000", 0.500001),
        (0.0, "0.0000", 0.0),
    ],
)
def test_a_confidence_is_rounded_but_never_to_certainty(
    capsys: pytest.CaptureFixture[str], confidence: float, text: str, number: float
) -> None:
    record = Record("a.png", Reading("7", confidence, (confidence,), (("7", confidence),)))
    for form in ("text", "jsonl", "csv"):
        FORMATS[form](record, 1)
    as_text, as_json, as_csv = capsys.readouterr().out.splitlines()
    assert as_text == f"a.png: 7 {text}"
    told = json.loads(as_json)
    assert [told["confidence"], told["characters"][0]["confidence"], told["alternatives"][0]["confidence"]] == [number] * 3
    assert as_csv == f"a.png,,7,{number:.6f}"


def test_what_is_not_wanted_any_more_is_not_named_on(model: CaptchaModel, pictures: Path) -> None:
    named = []

    def name_without_end() -> Iterator[str]:
        while True:
            named.append(str(pictures / "00.png"))
            yield named[-1]

    batches = read_pictures(model, name_without_end(), resize=False)
    next(batches)
    batches.close()
    assert len(named) < 10 * predicting.MAX_PICTURES


def test_an_error_of_what_names_pictures_is_not_lost(model: CaptchaModel) -> None:
    def fail() -> Iterator[str]:
        yield "none.png"
        raise OSError(5, "Input/output error", "standard input")

    with pytest.raises(OSError, match="Input/output error"):
        list(read_pictures(model, fail(), resize=False))


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (["--top", "4"], "invalid choice: 4"),
        (["--min-confidence", "1.5"], "'1.5' is not a probability; expected a number from 0 to 1"),
        (["--min-confidence", "high"], "'high' is not a probability; expected a number from 0 to 1"),
        (["--format", "xml"], "invalid choice: 'xml'"),
    ],
)
def test_a_mistake_in_the_options_is_told(capsys: pytest.CaptureFixture[str], options: list[str], problem: str) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["predict", "a.png", "--model", "digits", *options])
    assert problem in capsys.readouterr().err


def test_the_help_has_examples(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["predict", "--help"])
    assert "\n  captcha-registry predict picture.png --model digits\n" in capsys.readouterr().out


def test_a_thousand_files_are_read_as_evaluate_reads_their_records(
    generate: Callable[..., CaptchaDataset],
    tiny_spec: DatasetSpec,
    model_folder: Path,  # noqa: F811 - as above
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from captcha_registry.recognition.reading import open_model, read_samples  # noqa: PLC0415 - TensorFlow takes seconds

    dataset = generate(tiny_spec.model_copy(update={"count": 1_000, "shard_size": 500}))
    export_dataset(dataset, "images", tmp_path / "images")
    with pytest.raises(SystemExit, match="0"):
        main(["predict", str(tmp_path / "images"), "--model", str(model_folder), "--format", "jsonl"])
    records = list_records(capsys.readouterr().out)
    network = open_model(model_folder, "reader")
    rows = read_samples(network.find_logits, dataset, family="crnn", alphabet=tiny_spec.alphabet)
    assert [record["text"] for record in records] == rows["text"].to_pylist()
    assert [record["confidence"] for record in records] == pytest.approx(rows["confidence"].to_pylist(), abs=1e-3)


# What nobody has who has installed the base and onnxruntime.
WITHOUT = ("captcha", "keras", "numba", "onnx", "pandas", "sklearn", "tensorflow")
PREDICT = f"""
import sys
for name in {WITHOUT}:
    sys.modules[name] = None
from captcha_registry.cli import main
try:
    main(sys.argv[1:])
finally:
    assert not any(sys.modules.get(name) for name in {WITHOUT}), "imported"
"""


def test_where_tensorflow_is_not_installed_onnxruntime_reads(
    predict: Predict,
    model_folder: Path,  # noqa: F811 - as above
    pictures: Path,
) -> None:
    command = [sys.executable, "-c", PREDICT, "predict", str(pictures), "--model"]
    done = subprocess.run([*command, str(model_folder)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == predict(pictures)[1]


@pytest.fixture
def folder_without_tensorflow(
    model_folder: Path,  # noqa: F811 - as above
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Path:
    """A copy of a model that may be damaged, where TensorFlow is not installed."""
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    return Path(shutil.copytree(model_folder, tmp_path / "reader"))


def test_where_there_is_nothing_to_read_a_model_with_it_says_what_to_do(
    folder_without_tensorflow: Path, onnx_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder_without_tensorflow / ONNX_NAME).unlink()
    with pytest.raises(
        captcha_registry.UserError, match=r"holds no model\.onnx to read without TensorFlow: `.*tensorflow.*`.*export`"
    ):
        loading.load_model(folder_without_tensorflow)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(captcha_registry.UserError, match=r"needs the package onnxruntime, which is not installed: `") as raised:
        loading.load_model(onnx_file)
    (command,) = re.findall("`(.*)`", str(raised.value))
    program, *words = shlex.split(command)
    assert (program, words[:-1]) in (
        (sys.executable, ["-m", "pip", "install"]),
        ("uv", ["pip", "install", "--python", sys.executable]),
    )
    # As typed, `>` redirects nothing, and what it names is what is installed here.
    need = Requirement(words[-1])
    assert (need.name, version("onnxruntime") in need.specifier) == ("onnxruntime", True)


def test_an_onnx_file_with_other_bytes_than_its_checksum_says_is_refused(folder_without_tensorflow: Path) -> None:
    assert loading.load_model(folder_without_tensorflow).name == "reader"
    path = folder_without_tensorflow / ONNX_NAME
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(captcha_registry.UserError, match=rf"model\.onnx has other bytes than {CHECKSUMS} says: run `dvc repro`"):
        loading.load_model(folder_without_tensorflow)
    path.with_name(CHECKSUMS).write_bytes(b"\xff")
    with pytest.raises(captcha_registry.UserError, match=rf"{CHECKSUMS} is not a list of checksums: run `dvc repro`"):
        loading.load_model(folder_without_tensorflow)
    path.with_name(CHECKSUMS).unlink()
    with pytest.raises(captcha_registry.UserError, match=rf"{CHECKSUMS} is missing: run `dvc repro`"):
        loading.load_model(folder_without_tensorflow)


@pytest.mark.parametrize("name", [ONNX_NAME, CHECKSUMS, CARD_NAME])
def test_a_pipe_in_the_place_of_a_file_of_a_model_is_refused_and_not_waited_for(
    folder_without_tensorflow: Path, name: str
) -> None:
    (folder_without_tensorflow / name).unlink()
    os.mkfifo(folder_without_tensorflow / name)
    for place in (
        (folder_without_tensorflow, folder_without_tensorflow / name) if name == ONNX_NAME else [folder_without_tensorflow]
    ):
        with pytest.raises(captcha_registry.UserError, match=f"({name} is not a regular file|holds no model)"):
            loading.load_model(place)


def test_a_model_without_its_network_is_read_by_onnxruntime_though_tensorflow_is_there(
    model_folder: Path,  # noqa: F811 - as above
    model: CaptchaModel,
    pictures: Path,
    tmp_path: Path,
) -> None:
    folder = Path(shutil.copytree(model_folder, tmp_path / "reader"))
    (folder / NETWORK_NAME).write_bytes(b"damage")
    with pytest.raises(captcha_registry.UserError, match=r"model\.keras has the SHA-256 .*: do not load it"):
        loading.load_model(folder)
    (folder / NETWORK_NAME).unlink()
    assert verify_folder(folder).card["model_sha256"] == model.card.model_sha256
    assert loading.load_model(folder).read(pictures / "00.png") == model.read(pictures / "00.png")

    card = folder / CARD_NAME
    card.write_text(card.read_text().replace(model.card.model_sha256, "0" * 64))
    for load in (loading.load_model, verify_folder):
        with pytest.raises(
            captcha_registry.UserError, match=r"model\.onnx was made of another network than model\.json tells of"
        ):
            load(folder)
    (folder / ONNX_NAME).write_bytes(b"damage")
    for load in (loading.load_model, verify_folder):
        with pytest.raises(captcha_registry.UserError, match=rf"model\.onnx has other bytes than {CHECKSUMS} says"):
            load(folder)
    (folder / ONNX_NAME).unlink()
    with pytest.raises(captcha_registry.UserError, match=r"model\.keras is missing: run `dvc repro`"):
        loading.load_model(folder)
    with pytest.raises(captcha_registry.UserError, match=r"model\.keras is not the model that .*model\.json describes"):
        verify_folder(folder)


def test_an_onnx_file_of_an_earlier_training_is_refused_and_keras_reads_the_new_one(
    model_folder: Path,  # noqa: F811 - as above
    pictures: Path,
    tiny_dataset: CaptchaDataset,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from captcha_registry.recognition import trained  # noqa: PLC0415 - TensorFlow takes seconds

    folder = Path(shutil.copytree(model_folder, tmp_path / "reader"))
    network, _ = trained.load_model(folder)
    network.set_weights([weights * 1.5 for weights in network.get_weights()])
    params, history = load_model_params("crnn", ROOT / "params.yaml"), trained.read_history(folder)
    trained.save_model(folder, network, history, params, tiny_dataset.manifest)
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "tensorflow", None)
        with pytest.raises(
            captcha_registry.UserError, match=r"model\.onnx was made of another network than model\.json tells of"
        ):
            loading.load_model(folder)
    of_onnx = open_onnx((folder / ONNX_NAME).read_bytes(), "old").read(pictures / "00.png")
    assert loading.load_model(folder).read(pictures / "00.png") != of_onnx


@pytest.mark.parametrize(("name", "model_name"), [("digits", "cnn"), ("alnum", "crnn")])
def test_pictures_of_the_stock_package_are_read_as_often_as_the_test_set_says(
    name: str, model_name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = captcha_registry.load_model(name).spec
    stock, rng = ImageCaptcha(spec.width, spec.height), np.random.default_rng()
    texts = ["".join(rng.choice(list(spec.alphabet), 4)) for _ in range(500)]
    for number, text in enumerate(texts):
        stock.write(text, str(tmp_path / f"{number:03}-{text}.png"))
    with pytest.raises(SystemExit, match="0"):
        main(["predict", str(tmp_path), "--model", name, "--format", "csv"])
    # As the docs say: without a type, pandas makes numbers of digits.
    rows = pd.read_csv(io.StringIO(capsys.readouterr().out), dtype={"text": str}, keep_default_na=False)
    num_right = (rows["text"] == rows["path"].map(lambda path: Path(path).stem[4:])).sum()
    expected = json.loads((ROOT / f"metrics/{model_name}.json").read_text())["exact_match"]
    assert binom.cdf(num_right, 500, expected) > 1e-6
