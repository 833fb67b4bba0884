"""A trained model as other people's code meets it: pictures in, readings out, the same whatever they come as."""

import glob
import re
import shutil
from contextlib import chdir
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from checkouts import Checkout
from PIL import ExifTags, Image
from ruamel.yaml import YAML

import captcha_registry
from captcha_registry.dataset.dataset import CaptchaDataset
from captcha_registry.dataset.readings import READINGS_NAME
from captcha_registry.errors import UserError
from captcha_registry.recognition import trained
from captcha_registry.recognition.frameworks import keras
from captcha_registry.recognition.model import CaptchaModel
from captcha_registry.recognition.reading import find_logits_with
from captcha_registry.recognition.readings import Reading, decode
from captcha_registry.recognition.recipe import load_model_params
from captcha_registry.recognition.trained import save_model
from captcha_registry.recognition.training import build_network
from stages import evaluate

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="session")
def model_folder(tiny_dataset: CaptchaDataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `train` and `evaluate` leave of a crnn that has learnt nothing, but is certain. Shared: read it, never write to it."""
    root = tmp_path_factory.mktemp("project")
    folder = root / "models/reader"
    params = load_model_params("crnn", ROOT / "params.yaml")
    keras.utils.set_random_seed(1)
    network = build_network(params, tiny_dataset.manifest.spec)
    last = network.get_layer("logits")
    last.set_weights([weights * 20 for weights in last.get_weights()])
    history = pd.DataFrame({"phase": [0], "epoch": [1], "loss": [1.0], "exact_match": [0.0]})
    save_model(folder, network, history, params, tiny_dataset.manifest)
    (root / "data").mkdir()
    (root / "data/tiny").symlink_to(tiny_dataset.root)
    with chdir(root):
        evaluate.main("reader")
    return folder


@pytest.fixture(scope="module")
def model(model_folder: Path) -> CaptchaModel:
    return captcha_registry.load_model(model_folder)


def require_alike(found: list[Reading], expected: list[Reading]) -> None:
    """Make sure of equal texts; the size of a batch shows in the last digits of a network's sums."""
    assert [reading.text for reading in found] == [reading.text for reading in expected]
    assert [reading.confidence for reading in found] == pytest.approx([reading.confidence for reading in expected], abs=1e-3)


def test_pictures_are_read_as_evaluate_reads_them_whatever_they_come_as(
    model: CaptchaModel, model_folder: Path, tiny_dataset: CaptchaDataset, tmp_path: Path
) -> None:
    test = tiny_dataset.split("test")
    images, _ = test.to_numpy()
    expected = model.read(images)
    rows = captcha_registry.load_readings(model_folder).to_pylist()
    assert [row["id"] for row in rows] == test.index["id"].to_pylist()
    assert [reading.text for reading in expected] == [row["text"] for row in rows]
    assert [reading.confidence for reading in expected] == pytest.approx([row["confidence"] for row in rows], abs=1e-3)
    assert len({reading.text for reading in expected}) > 3

    paths = [tmp_path / f"{number}.png" for number in range(len(test))]
    for path, sample in zip(paths, test.read_samples(), strict=True):
        path.write_bytes(sample.image)
    pictures = [Image.fromarray(image) for image in images]
    require_alike(model.read(paths), expected)
    require_alike(model.read(pictures), expected)
    require_alike(model.read(iter([str(paths[0]), pictures[1], images[2]])), expected[:3])
    require_alike(model.read(test), expected)
    for one in (paths[0], str(paths[0]), pictures[0], images[0], test[0]):
        require_alike(model.read(one), expected[:1])
    assert model.read([]) == []


def test_what_is_transparent_is_read_on_white(model: CaptchaModel) -> None:
    layer = Image.new("RGBA", (48, 32), (0, 0, 0, 0))
    require_alike(model.read(layer), model.read(np.full((32, 48, 3), 255, np.uint8)))


def test_a_picture_of_another_size_is_refused_with_both_sizes(model: CaptchaModel, tmp_path: Path) -> None:
    Image.new("RGB", (60, 50)).save(tmp_path / "other.png")
    others = [
        tmp_path / "other.png",
        Image.new("RGB", (60, 50)),
        np.zeros((50, 60, 3), np.uint8),
        np.zeros((2, 50, 60, 3), np.uint8),
    ]
    for other in others:
        with pytest.raises(UserError, match="60x50 pixels; the model reads 48x32"):
            model.read(other)
    with pytest.raises(UserError, match=r"other\.png: 60x50"):
        model.read([Image.new("RGB", (48, 32)), tmp_path / "other.png"])


def test_a_picture_that_lies_on_its_side_is_read_as_a_file_of_it_is(model: CaptchaModel, tmp_path: Path) -> None:
    on_its_side = Image.new("RGB", (32, 48), "red")
    on_its_side.getexif()[ExifTags.Base.Orientation] = 6
    on_its_side.save(tmp_path / "side.png", exif=on_its_side.getexif())
    with Image.open(tmp_path / "side.png") as picture:
        require_alike(model.read(picture), model.read(tmp_path / "side.png"))


def test_what_is_no_picture_is_refused(model: CaptchaModel, tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("no picture")
    with pytest.raises(UserError, match=r"text\.png: no picture"):
        model.read(tmp_path / "text.png")
    with pytest.raises(UserError, match=r"nowhere\.png: there is no such file"):
        model.read("nowhere.png")
    with pytest.raises(UserError, match="x: cannot be read: File name too long"):
        model.read("x" * 300)
    Image.new("RGB", (48, 32)).save(tmp_path / "one.png")
    (tmp_path / "text.png").unlink()
    for many, kind in ((tmp_path, "folder"), (f"{tmp_path}/*.png", "pattern")):
        with pytest.raises(UserError, match=rf": a {kind}; `read` takes files, such as model\.read\(sorted") as raised:
            model.read(many)
        (files,) = re.findall(r"model\.read\((.*)\) after `import glob`", str(raised.value))
        assert eval(files, {"glob": glob}) == [str(tmp_path / "one.png")]  # noqa: S307 - as a reader would type it
    with pytest.raises(UserError, match="a URL, which is not read: download") as raised:
        model.read("https://me:s3cret@example.org/one.png?signature=s3cret")
    assert "s3cret" not in str(raised.value)
    with pytest.raises(UserError, match=r"a picture is an array float32 \(32, 48, 3\); expected uint8 \(32, 48, 3\)"):
        model.read(np.zeros((2, 32, 48, 3), np.float32))
    with pytest.raises(UserError, match=r"array uint8 \(32, 48\); expected uint8 \(32, 48, 3\)"):
        model.read(np.zeros((32, 48), np.uint8))
    content = BytesIO()
    for other in (b"bytes", content, None, 7, [None], [b"bytes"]):
        with pytest.raises(UserError, match=r"a picture is a path, .* found one of the type (bytes|BytesIO|NoneType|int),"):
            model.read(other)  # type: ignore[arg-type]
    Image.new("1", (20_000, 20_000)).save(content, "png")
    (tmp_path / "bomb.png").write_bytes(content.getvalue())
    with pytest.raises(UserError, match=r"bomb\.png: "):
        model.read(tmp_path / "bomb.png")


def test_a_model_that_is_taken_for_a_dataset_is_named_with_what_opens_it(
    model_folder: Path, tiny_dataset: CaptchaDataset
) -> None:
    with pytest.raises(UserError, match="is a model, which `load_model` opens; expected a dataset"):
        captcha_registry.load(model_folder)
    with pytest.raises(UserError, match="is a dataset, which `load` opens; expected a model"):
        captcha_registry.load_model(tiny_dataset.root)


def test_a_model_says_what_it_reads(model: CaptchaModel, tiny_dataset: CaptchaDataset) -> None:
    assert repr(model) == ("<CaptchaModel reader: read(images or paths) of 48x32 pixels with 3 characters of '0123456789AB'>")
    assert (model.spec, model.alphabet) == (tiny_dataset.manifest.spec, "0123456789AB")


def test_any_network_makes_a_model(model: CaptchaModel) -> None:
    # Steps 0, 2 and 4 at the classes of the first three characters, whatever is on the picture.
    path = np.eye(13, dtype=np.float32)[[1, 0, 2, 0, 3, 0]] * 50
    other = replace(model, find_logits=lambda images: np.stack([path] * len(images)))
    assert [reading.text for reading in other.read(np.zeros((2, 32, 48, 3), np.uint8))] == ["012", "012"]


def test_the_card_of_a_model_ends_with_lines_that_read_a_picture(
    model: CaptchaModel,
    model_folder: Path,
    tiny_dataset: CaptchaDataset,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    card = (model_folder / "README.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    assert card.endswith(f"```python\n{code}```\n")
    assert READINGS_NAME in card
    for path in model_folder.iterdir():
        (tmp_path / path.name).hardlink_to(path)
    (tmp_path / "captcha.png").write_bytes(tiny_dataset.read_sample(0).image)
    monkeypatch.chdir(tmp_path)
    exec(code, {})  # noqa: S102 - what people copy out of a card
    (reading,) = model.read("captcha.png")
    text, confidence = capsys.readouterr().out.split()
    assert (text, float(confidence)) == (reading.text, pytest.approx(reading.confidence, abs=1e-3))


def test_a_published_model_is_verified_and_reads_and_comes_with_its_readings(
    unpublished: Checkout, model: CaptchaModel, model_folder: Path, tiny_dataset: CaptchaDataset, tmp_path: Path
) -> None:
    checkout = unpublished.copy_to(tmp_path)
    for path in model_folder.iterdir():
        (checkout.root / "reader").mkdir(exist_ok=True)
        (checkout.root / "reader" / path.name).write_bytes(path.read_bytes())
    pipeline = YAML(typ="safe").load(checkout.root / "dvc.yaml")
    pipeline["artifacts"]["reader"] = {"path": "reader", "type": "model"}
    YAML().dump(pipeline, checkout.root / "dvc.yaml")
    checkout.dvc("add", "--quiet", "reader")
    checkout.commit("a model")
    assert checkout.run("publish", "reader", "1.0.0").returncode == 0

    published = captcha_registry.load_model("reader", repo=checkout.origin, version="1.0.0")
    assert repr(published).startswith("<CaptchaModel reader@1.0.0: ")
    picture = tiny_dataset[0].image
    require_alike(published.read(picture), model.read(picture))
    readings = captcha_registry.load_readings("reader@1.0.0", repo=checkout.origin)
    assert readings.equals(captcha_registry.load_readings(model_folder))
    checkout.run("publish", "tiny", "1.0.0")
    with pytest.raises(UserError, match=r"tiny@1\.0\.0 is a dataset, which `load` opens; expected a model"):
        captcha_registry.load_model("tiny", repo=checkout.origin)


def test_what_is_no_model_is_refused_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"there is no folder .*none: digits and alnum come with the package, in a project run `dvc repro`"
    ):
        captcha_registry.load_model(tmp_path / "none")
    for mistyped in ("digit", "Digits"):
        with (
            chdir(tmp_path),
            pytest.raises(UserError, match=rf"there is no folder {mistyped}: did you mean `digits`\? digits and"),
        ):
            captcha_registry.load_model(mistyped)
    with pytest.raises(UserError, match=r"there is no file a\.onnx: `captcha-registry export MODEL --format onnx --to a\.onnx`"):
        captcha_registry.load_model("a.onnx")
    with pytest.raises(UserError, match=r"None is no name; expected a text or a path"):
        captcha_registry.load_model(None)  # type: ignore[arg-type]
    (tmp_path / "models/reader").mkdir(parents=True)
    with chdir(tmp_path), pytest.raises(UserError, match=r"there is no folder reader: did you mean models/reader\?"):
        captcha_registry.load_model("reader")
    (tmp_path / "model.keras").touch()
    with pytest.raises(UserError, match=r"model\.keras is a file; expected the folder of one of the models, such as models/crnn"):
        captcha_registry.load_model(tmp_path / "model.keras")
    with pytest.raises(UserError, match=r"holds no model: model\.json is missing"):
        captcha_registry.load_model(tmp_path)
    (tmp_path / "model.json").touch()
    with pytest.raises(UserError, match=rf"model\.keras is a file; expected the folder of one of the models, such as {tmp_path}"):
        captcha_registry.load_model(tmp_path / "model.keras")
    with pytest.raises(UserError, match=r"readings\.parquet is missing: run `dvc repro`"):
        captcha_registry.load_readings(tmp_path)
    with pytest.raises(UserError, match=r"the model alnum, which comes with the package, has no readings"):
        captcha_registry.load_readings("alnum")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"crnn"', '"cnn"', r"model\.keras is refused: it maps .* to \[6, 13\]; model\.json has .* to \[.*, 12\]"),
        ('"0123456789AB"', '"0123456789A"', r"it maps .* to \[6, 13\]; model\.json has .* to \[6, 12\]"),
        ('"width": ', '"width": 1', r"it maps \[32, 48, 3\] to .*; model\.json has \[32, 148, 3\]"),
        ('"crnn"', '"rnn"', r"model\.json is not a valid model card; .* fetch it again: family is 'rnn'; expected"),
        ("}", "", r"model\.json is not a valid model card; .* fetch it again: Invalid JSON: EOF"),
    ],
)
def test_a_card_that_is_another_networks_is_refused(model_folder: Path, old: str, new: str, message: str, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(model_folder, tmp_path / "model"))
    card = (folder / "model.json").read_text()
    assert old in card
    (folder / "model.json").write_text(card.replace(old, new))
    with pytest.raises(UserError, match=message) as raised:
        trained.load_model(folder)
    assert "\n" not in str(raised.value)


def test_a_network_is_traced_twice_for_batches_of_all_sizes(model_folder: Path, tiny_dataset: CaptchaDataset) -> None:
    network, card = trained.load_model(model_folder)
    model, (images, _) = CaptchaModel("it", card, find_logits_with(network)), tiny_dataset.to_numpy()
    expected = decode(card.family, np.asarray(network(images, training=False)), model.alphabet)
    for number in (1, 3, 7, 60, 2):
        require_alike(model.read(images[:number]), expected[:number])
    assert network.predict_function.experimental_get_tracing_count() == 2
