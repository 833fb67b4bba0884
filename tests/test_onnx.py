"""An ONNX file reads as the network that it was made of, in a fraction of the packages."""

import json
import shutil
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import pandas as pd
import pytest
from test_recognition import SPECS, small_params

from captcha_registry.cli import main
from captcha_registry.dataset.dataset import CaptchaDataset
from captcha_registry.dataset.spec import DatasetSpec
from captcha_registry.errors import UserError
from captcha_registry.generation.drawing import Drawer
from captcha_registry.recognition.card import ModelCard
from captcha_registry.recognition.frameworks import keras
from captcha_registry.recognition.onnx_conversion import convert_network
from captcha_registry.recognition.onnx_network import open_onnx
from captcha_registry.recognition.readings import decode
from captcha_registry.recognition.trained import load_model, save_model
from captcha_registry.recognition.training import build_network


def make_network(model: str, preset: str = "fast", recurrent: str = "gru") -> tuple[keras.Model, ModelCard]:
    """Make an untrained network, with its card."""
    spec = SPECS["digits" if model == "cnn" else "alnum"]
    params = small_params(model, preset=preset, **({"recurrent": recurrent} if model == "crnn" else {}))
    keras.utils.set_random_seed(1)
    return vary(build_network(params, spec)), make_card(model, preset, spec)


def vary(network: keras.Model) -> keras.Model:
    """Give a network such weights as a training leaves: none is just zero or one."""
    rng = np.random.default_rng(1)
    varied = [weights * rng.uniform(0.5, 1.5, weights.shape) for weights in network.get_weights()]
    network.set_weights([weights + rng.normal(scale=0.1 if weights.ndim < 2 else 0.0, size=weights.shape) for weights in varied])
    return network


def make_card(family: str, preset: str, spec: DatasetSpec) -> ModelCard:
    facts = {"dataset": "digits", "dataset_id": "0" * 64, "num_parameters": 1, "model_sha256": "1" * 64}
    return ModelCard(family=family, preset=preset, spec=spec, **facts)


def draw(spec: DatasetSpec, count: int) -> npt.NDArray[np.uint8]:
    return np.stack([Drawer(spec).draw(number).pixels for number in range(count)])


@pytest.fixture(scope="module")
def model_dir(tiny_dataset: CaptchaDataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CNN for the tiny dataset, as `train` leaves it."""
    manifest, params = tiny_dataset.manifest, small_params("cnn")
    folder = tmp_path_factory.mktemp("models") / "cnn"
    save_model(folder, vary(build_network(params, manifest.spec)), pd.DataFrame({"epoch": [1]}), params, manifest)
    return folder


@pytest.mark.parametrize(
    ("family", "preset", "recurrent"),
    [("cnn", "fast", ""), ("cnn", "lab", ""), *(("crnn", p, r) for p in ("fast", "lab") for r in ("gru", "lstm"))],
)
def test_every_network_gives_the_same_logits_in_onnx(family: str, preset: str, recurrent: str) -> None:
    network, card = make_network(family, preset, recurrent)
    content = convert_network(network, card.model_dump_json())
    onnx.checker.check_model(onnx.load_from_string(content), full_check=True)
    model = open_onnx(content, "it")
    assert model.card == card
    images = draw(card.spec, 5)
    expected = np.asarray(network(images, training=False))
    assert np.ptp(expected, axis=0).max() > 1e-3
    np.testing.assert_allclose(model.find_logits(images), expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())
    assert model.find_logits(images[:0]).shape == (0, *expected.shape[1:])


@pytest.mark.parametrize("model", ["cnn", "crnn"])
def test_a_thousand_pictures_have_the_same_texts_in_onnx(model: str) -> None:
    network, card = make_network(model)
    images = draw(card.spec, 1_000)
    of_onnx = open_onnx(convert_network(network, card.model_dump_json()), "it").read(images)
    of_keras = decode(card.family, network.predict_on_batch(images), card.spec.alphabet)
    assert [reading.text for reading in of_onnx] == [reading.text for reading in of_keras]
    assert [reading.confidence for reading in of_onnx] == pytest.approx([r.confidence for r in of_keras], rel=1e-3, abs=1e-9)
    assert len({reading.text for reading in of_onnx}) > 1


def test_a_recurrent_layer_is_one_node_and_axes_are_turned_four_times() -> None:
    network, card = make_network("crnn")
    kinds = [node.op_type for node in onnx.load_from_string(convert_network(network, card.model_dump_json())).graph.node]
    assert kinds.count("GRU") == 1
    assert "Loop" not in kinds
    assert kinds.count("Transpose") == 4


def test_half_precision_takes_half_the_bytes_and_next_to_nothing_of_the_precision() -> None:
    network, card = make_network("crnn")
    whole, half = (convert_network(network, card.model_dump_json(), half=half) for half in (False, True))
    assert 0.5 < len(half) / len(whole) < 0.55
    images = draw(card.spec, 20)
    expected, found = (open_onnx(content, "it").find_logits(images) for content in (whole, half))
    assert 0 < np.abs(found - expected).max() < 5e-3 * np.abs(expected).max()


def test_equal_networks_make_equal_bytes() -> None:
    first, second = (
        convert_network(network, card.model_dump_json()) for network, card in (make_network("cnn") for _ in range(2))
    )
    assert first == second


def test_a_layer_or_an_option_that_is_not_known_is_named() -> None:
    images = keras.Input((8, 8, 3), dtype="uint8")
    x = keras.layers.Rescaling(1 / 255)(images)
    for layer, problem in (
        (keras.layers.AveragePooling2D(2, name="pool"), "the network has pool, a AveragePooling2D; export to ONNX knows only"),
        (
            keras.layers.Conv2D(2, 3, dilation_rate=2, name="wide"),
            r"wide: dilation_rate is \(2, 2\); export to ONNX knows \(1, 1\)",
        ),
        (keras.layers.Conv2D(2, 3, activation="gelu", name="odd"), "odd: activation is .*gelu.*export to ONNX knows .*relu"),
    ):
        with pytest.raises(UserError, match=problem):
            convert_network(keras.Model(images, layer(x)), "{}")


def test_what_is_no_model_of_ours_is_refused() -> None:
    network, card = make_network("cnn")
    content = convert_network(network, card.model_dump_json())
    other = convert_network(network, make_card("crnn", "fast", card.spec).model_dump_json())
    for damaged in (b"", b"no protobuf", content[: len(content) // 2], convert_network(network, "{}"), other):
        with pytest.raises(UserError, match=r"^x\.onnx is not a model that `captcha-registry export --format onnx` made: ."):
            open_onnx(damaged, "x.onnx")


def export(*arguments: object) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["export", *map(str, arguments)])


def test_a_model_is_exported_to_a_file_only_and_from_keras_only(
    model_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(model_dir, tmp_path / "exported", ignore=shutil.ignore_patterns("model.keras"))
    (tmp_path / "exported/model.onnx").touch()
    for model, target, message in (
        (model_dir, "folder", f"expected one that ends in .onnx, such as {tmp_path}/folder/{model_dir.name}.onnx"),
        (tmp_path / "exported", "x.onnx", f"as the ONNX file {tmp_path}/exported/model.onnx: copy that file"),
    ):
        with pytest.raises(SystemExit, match="2"):
            main(["export", str(model), "--format", "onnx", "--to", str(tmp_path / target)])
        assert message in capsys.readouterr().err


def test_a_model_is_exported_to_a_file_with_its_card_inside(
    model_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    export(model_dir, "--format", "onnx", "--to", tmp_path / "new/cnn.onnx")
    export(model_dir, "--format", "onnx", "--half", "--to", tmp_path / "half.onnx", "--json")
    line, reader, told = capsys.readouterr().out.split("\n", 2)
    assert line.startswith(f"{tmp_path / 'new/cnn.onnx'}: 1.")
    assert reader == f'read it in Python: captcha_registry.load_model("{tmp_path / "new/cnn.onnx"}").read(pictures)'
    content, half = (tmp_path / "new/cnn.onnx").read_bytes(), (tmp_path / "half.onnx").read_bytes()
    assert json.loads(told) == {"path": str(tmp_path / "half.onnx"), "format": "onnx", "half": True, "size_bytes": len(half)}
    assert len(half) < 0.6 * len(content)
    network, card = load_model(model_dir)
    assert open_onnx(content, "it").card == card
    assert onnx.load_from_string(content).metadata_props[0].value == (model_dir / "model.json").read_text()
    images = draw(card.spec, 3)
    np.testing.assert_allclose(
        open_onnx(content, "it").find_logits(images), network(images, training=False), rtol=1e-3, atol=1e-4
    )


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["MODEL", "--format", "numpy"], "cnn is a model; expected --format onnx, not numpy"),
        (["DATASET", "--format", "onnx"], "expected a format for datasets, not onnx"),
        (["MODEL", "--format", "onnx", "--split", "test"], "--split goes with a dataset, not with --format onnx"),
        (["MODEL", "--format", "onnx", "--repo", "."], "--repo goes with a dataset, not with --format onnx"),
        (["DATASET", "--format", "numpy", "--half"], "--half goes with a model, not with --format numpy"),
        (["MODEL", "--format", "onnx", "--to", "MODEL"], "exists already, and nothing is overwritten"),
        (["nothing", "--format", "onnx"], "nothing/model.json is missing"),
    ],
)
def test_an_export_that_does_not_fit_is_refused(
    model_dir: Path,
    tiny_dataset: CaptchaDataset,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    problem: str,
) -> None:
    places = {"MODEL": str(model_dir), "DATASET": str(tiny_dataset.root)}
    with pytest.raises(SystemExit, match="2"):
        main(["export", "--to", str(tmp_path / "out.onnx"), *(places.get(argument, argument) for argument in arguments)])
    assert problem in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
