"""Networks, batches, decoding, scoring and trained models."""

import hashlib
import itertools
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from captcha_registry.dataset.dataset import CaptchaDataset
from captcha_registry.dataset.folder import open_folder
from captcha_registry.dataset.spec import DatasetSpec, LengthRange, SplitRule
from captcha_registry.errors import UserError
from captcha_registry.generation.drawing import Drawer
from captcha_registry.generation.generating import assemble_dataset
from captcha_registry.generation.shards import draw_shard
from captcha_registry.generation.splitting import split_dataset
from captcha_registry.recognition import batches as batches_module
from captcha_registry.recognition import optimizers
from captcha_registry.recognition.batches import load_training_batches
from captcha_registry.recognition.decoding import collapse_best_path, ctc_exact_match, position_exact_match
from captcha_registry.recognition.frameworks import keras, tf
from captcha_registry.recognition.layers import (
    CompiledBidirectional,
    FusedBatchNormalization,
    build_training_twin,
    find_text_rows,
    show_contrast,
)
from captcha_registry.recognition.optimizers import ConvolutionMuon, build_optimizer
from captcha_registry.recognition.paths import collapse
from captcha_registry.recognition.reading import open_model, read_split
from captcha_registry.recognition.recipe import ModelParams, Recipe, load_model_params
from captcha_registry.recognition.scoring import (
    compute_metrics,
    find_calibration_error,
    wilson_interval,
)
from captcha_registry.recognition.trained import load_model, save_model
from captcha_registry.recognition.training import (
    TrainingState,
    build_network,
    compile_network,
    find_best_epoch,
    train_model,
)

ROOT = Path(__file__).parent.parent
DIGITS = DatasetSpec(alphabet="0123456789", length=4, width=120, height=100, count=80, shard_size=8, seed=1)
ALNUM = DatasetSpec(
    alphabet="0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ", length=4, width=128, height=64, count=80, shard_size=8, seed=2
)
# To train on: a quarter of the pixels takes a quarter of the time.
SPECS = {
    "digits": DIGITS.model_copy(update={"width": 60, "height": 50}),
    "alnum": ALNUM.model_copy(update={"width": 64, "height": 32}),
}


@pytest.fixture(scope="session")
def datasets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `digits` and `alnum`, 80 samples each, split by shard."""
    folder = tmp_path_factory.mktemp("datasets")
    for name, spec in SPECS.items():
        draw_and_split(name, spec, folder)
    return folder


@pytest.fixture
def uncompiled() -> Iterator[None]:
    """TensorFlow runs a few steps sooner than it compiles a network, which other tests have it do."""
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


def draw_and_split(name: str, spec: DatasetSpec, folder: Path) -> None:
    """Make the dataset `folder/name`."""
    work = folder / "work" / name
    work.mkdir(parents=True)
    drawer = Drawer(spec)
    shards = [draw_shard(drawer, number, work) for number in range(spec.num_shards)]
    assemble_dataset(name, drawer, shards, work, folder / "generated" / name)
    (folder / name).mkdir()
    split_dataset(open_folder(folder / "generated" / name), SplitRule(test_size=0.2, by="shard", seed=42), folder / name)


def small_params(name: str, **changes: object) -> ModelParams:
    """The project's own params with a recipe for 80 samples."""
    params = load_model_params(name, ROOT / "params.yaml")
    of_recipe = {key: changes.pop(key) for key in list(changes) if key in Recipe.model_fields}
    recipe_changes = {"batch_size": 16, "epochs": 1, "fresh": 0.0} | of_recipe
    recipes = {preset: getattr(params, preset).model_copy(update=recipe_changes) for preset in ("fast", "lab")}
    return params.model_copy(update=recipes | changes)


@pytest.mark.parametrize(("model", "spec", "num_parameters"), [("cnn", DIGITS, 1_345_448), ("crnn", ALNUM, 3_157_317)])
def test_lab_presets_have_the_parameters_of_the_note(model: str, spec: DatasetSpec, num_parameters: int) -> None:
    assert build_network(small_params(model, preset="lab"), spec).count_params() == num_parameters


@pytest.mark.parametrize(("preset", "recurrent"), list(itertools.product(("fast", "lab"), ("gru", "lstm"))))
def test_crnn_gives_logits_for_every_class_and_the_blank(preset: str, recurrent: str) -> None:
    network = build_network(small_params("crnn", preset=preset, recurrent=recurrent), ALNUM)
    assert network.output_shape == (None, 16, 37)
    assert any(recurrent in layer.name for layer in network.layers) or recurrent in str(network.to_json()).lower()


@pytest.mark.parametrize(
    ("alphabet", "height", "rows"),
    [("0123456789", 100, (18, 82)), ("0123456789", 64, (0, 64)), (ALNUM.alphabet, 100, (10, 90)), ("gjQ|(", 200, (60, 140))],
)
def test_the_rows_that_a_network_looks_at_hold_all_text(alphabet: str, height: int, rows: tuple[int, int]) -> None:
    spec = DIGITS.model_copy(update={"alphabet": alphabet, "height": height, "dots": 0, "curves": 0, "style": "classic"})
    top, bottom = find_text_rows(spec)
    assert (top, bottom) == rows
    drawer = Drawer(spec)
    drawn = [drawer.draw(n).pixels.astype(int) for n in range(60)]
    inked = np.any([np.ptp(pixels, axis=(1, 2)) > np.ptp(pixels[0], axis=(0, 1)) for pixels in drawn], axis=0)
    assert not inked[:top].any()
    assert not inked[bottom:].any()


def test_all_rows_are_looked_at_where_fonts_are_not_the_usual_one() -> None:
    assert find_text_rows(DIGITS.model_copy(update={"fonts": ("a.ttf",)})) == (0, 100)


def test_contrast_is_the_same_for_all_inks_and_grounds_and_finite_for_none() -> None:
    spec = ALNUM.model_copy(update={"width": 16, "height": 16})
    images = keras.Input((16, 16, 3), dtype="uint8")
    contrast = keras.Model(images, show_contrast(images, spec))
    mask = np.random.default_rng(1).random((16, 16, 1))
    mask.flat[:2] = 0, 1
    inks, ground = np.array([[200, 150, 190], [140, 200, 160]]), np.array([250, 240, 245])
    pictures = np.stack([ground + mask * (ink - ground) for ink in inks]).round().astype(np.uint8)
    of_light, of_dark = contrast.predict_on_batch(pictures)
    np.testing.assert_allclose(of_light, of_dark, atol=0.05)
    np.testing.assert_allclose(of_light[..., 0], mask[..., 0], atol=0.05)
    assert np.isfinite(contrast.predict_on_batch(np.full((1, 16, 16, 3), 7, np.uint8))).all()


def test_faint_ink_is_shown_as_if_it_were_not() -> None:
    images = keras.Input((16, 16, 3), dtype="uint8")
    contrast = keras.Model(images, show_contrast(images, ALNUM.model_copy(update={"width": 16, "height": 16})))
    picture = np.full((1, 16, 16, 3), 250, np.uint8)
    # A dot is opaque; text in ink of luminance 20 is blended in with 1.97 * 20 / 255.
    picture[0, 0, 0], picture[0, 8, 8] = 20, round(250 + (20 - 250) * 1.97 * 20 / 255)
    assert contrast.predict_on_batch(picture)[0, 8, 8] == pytest.approx([0.155, 1.0], abs=0.03)


def test_fused_normalization_is_that_of_keras_and_its_weights_fit() -> None:
    keras.utils.set_random_seed(1)
    stock = build_network(small_params("cnn"), SPECS["digits"])
    fused = build_training_twin(stock)
    assert any(isinstance(layer, FusedBatchNormalization) for layer in fused.layers)
    fused.set_weights(stock.get_weights())
    pictures = np.random.default_rng(1).integers(0, 256, (8, 50, 60, 3), np.uint8)
    outputs = [np.asarray(network(pictures, training=True)) for network in (stock, fused)]
    np.testing.assert_allclose(*outputs, rtol=1e-4, atol=1e-4)
    # But for the n / (n - 1) of the variance, whose n is 8 times the places of a picture.
    for of_stock, of_fused in zip(stock.get_weights(), fused.get_weights(), strict=True):
        np.testing.assert_allclose(of_stock, of_fused, rtol=2e-2, atol=1e-4)


@pytest.mark.parametrize("recurrent", ["gru", "lstm"])
def test_compiled_recurrent_layers_are_those_of_keras_and_their_weights_fit(recurrent: str) -> None:
    keras.utils.set_random_seed(1)
    stock = build_network(small_params("crnn", recurrent=recurrent), SPECS["alnum"])
    compiled = build_training_twin(stock)
    assert any(isinstance(layer, CompiledBidirectional) for layer in compiled.layers)
    compiled.set_weights(stock.get_weights())
    pictures = np.random.default_rng(1).integers(0, 256, (8, *stock.input_shape[1:]), np.uint8)

    def find_gradients(network: keras.Model) -> list[np.ndarray]:
        with tf.GradientTape() as tape:
            value = tf.reduce_mean(tf.square(network(pictures)))
        return [np.asarray(gradient) for gradient in tape.gradient(value, [v.value for v in network.trainable_variables])]

    for of_stock, of_compiled in zip(find_gradients(stock), find_gradients(compiled), strict=True):
        np.testing.assert_allclose(of_compiled, of_stock, rtol=1e-3, atol=1e-5)


def test_what_is_saved_is_made_of_stock_layers() -> None:
    for model in ("cnn", "crnn"):
        network = build_network(small_params(model), SPECS["digits" if model == "cnn" else "alnum"])
        assert {type(layer).__module__.split(".")[0] for layer in network._operations} == {"keras"}  # noqa: SLF001 - all of them


def test_muon_gives_all_kernels_but_the_first_steps_of_one_size() -> None:
    params = small_params("crnn")
    network = build_network(params, SPECS["alnum"])
    compile_network(network, params, 1.0, num_steps=10)
    optimizer = network.optimizer
    optimizer.build(network.trainable_variables)
    kernels = [v for v, of_adam in zip(network.trainable_variables, optimizer.adam_velocities, strict=True) if of_adam is None]
    assert [kernel.path for kernel in kernels] == [
        layer.kernel.path for layer in network.layers if isinstance(layer, keras.layers.Conv2D) and layer.name != "stem"
    ]
    for kernel in kernels[:2]:
        gradient = np.random.default_rng(1).normal(size=kernel.shape).astype(np.float32)
        step = np.asarray(optimizer.zeropower_via_newtonschulz5(gradient, 5))
        values = np.linalg.svd(step.reshape(-1, kernel.shape[-1]), compute_uv=False)
        expected = 0.2 * max(step.size // kernel.shape[-1], kernel.shape[-1]) ** 0.5
        assert values == pytest.approx(expected, rel=0.4)


class PlainMuon(ConvolutionMuon):
    """Multiplies the matrix in each step, as Keras does."""

    def zeropower_via_newtonschulz5(self, x: tf.Tensor, steps: int) -> tf.Tensor:
        matrix = keras.optimizers.Muon.zeropower_via_newtonschulz5(self, tf.reshape(x, (-1, x.shape[-1])), steps)
        return tf.reshape(keras.optimizers.Muon.lr_adjust(self, matrix), x.shape)


@pytest.mark.parametrize("shape", [(3, 3, 32, 64), (3, 3, 4, 64), (1, 1, 24, 24)], ids=["tall", "wide", "square"])
def test_muon_of_the_gram_matrix_is_that_of_the_matrix(shape: tuple[int, ...]) -> None:
    gradient = tf.constant(np.random.default_rng(1).normal(size=shape).astype(np.float32))
    step, plain = (muon(1.0).zeropower_via_newtonschulz5(gradient, 5) for muon in (ConvolutionMuon, PlainMuon))
    assert np.abs(step - plain).max() < 1e-4 * np.abs(plain).max()


def test_a_training_with_either_muon_has_the_same_losses(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = np.random.default_rng(1)
    images, classes = stream.normal(size=(32, 8, 8, 3)), stream.integers(0, 10, 32)
    losses = []
    for muon in (ConvolutionMuon, PlainMuon):
        monkeypatch.setattr(optimizers, "ConvolutionMuon", muon)
        keras.utils.set_random_seed(1)
        convolutions = [keras.layers.Conv2D(channels, 3, activation="relu") for channels in (8, 32)]
        network = keras.Sequential([keras.Input((8, 8, 3)), *convolutions, keras.layers.Flatten(), keras.layers.Dense(10)])
        optimizer = build_optimizer(small_params("cnn", warmup=0.0).recipe, 1.0e-2, num_steps=10)
        network.compile(optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        losses.append([float(network.train_on_batch(images, classes)) for _ in range(8)])
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)
    assert losses[0][-1] < 0.5 * losses[0][0]


def test_amsgrad_without_adamw_is_refused() -> None:
    recipe = load_model_params("crnn", ROOT / "params.yaml").fast.model_dump()
    with pytest.raises(ValueError, match="amsgrad is true and optimizer is muon; expected adamw, or amsgrad: false"):
        Recipe.model_validate(recipe | {"amsgrad": True})


@pytest.mark.parametrize(("width", "height"), [(61, 47), (200, 80), (60, 33)])
@pytest.mark.parametrize("model", ["cnn", "crnn"])
def test_fast_networks_fit_any_picture_size(model: str, width: int, height: int) -> None:
    spec = DIGITS.model_copy(update={"width": width, "height": height})
    network = build_network(small_params(model), spec)
    assert network(np.zeros((2, height, width, 3), np.uint8)).shape[0] == 2


def test_pictures_too_small_for_a_network_are_refused_with_their_size() -> None:
    spec = DIGITS.model_copy(update={"width": 20, "height": 20})
    with pytest.raises(UserError, match="no cnn of preset lab fits 4 characters on pictures of 20x20"):
        build_network(small_params("cnn", preset="lab"), spec)


@pytest.mark.parametrize("preset", ["fast", "lab"])
def test_texts_too_long_for_the_columns_of_ctc_are_refused(preset: str) -> None:
    spec = ALNUM.model_copy(update={"width": 64, "length": 5})
    params = small_params("crnn", preset=preset)
    with pytest.raises(UserError, match=r"a crnn sees 8 columns .* and needs 9 for 5 characters: raise `width` to 72, or lower"):
        build_network(params, spec)
    assert build_network(params, spec.model_copy(update={"width": 72})).output_shape[1] == 9


def test_a_cnn_refuses_texts_that_differ_in_length() -> None:
    spec = DIGITS.model_copy(update={"length": LengthRange(min=3, max=6)})
    with pytest.raises(UserError, match="reads texts of one length; these have 3 to 6 characters: use the family crnn"):
        build_network(small_params("cnn"), spec)


def test_a_short_text_matches_only_itself() -> None:
    logits = np.eye(3, dtype=np.float32)[np.array([[1, 0, 0], [1, 0, 2], [0, 0, 0]])]
    labels = np.array([[1, 0]] * 3)
    assert np.asarray(ctc_exact_match(labels, keras.ops.convert_to_tensor(logits))).tolist() == [1, 0, 0]


def train_save_and_read(params: ModelParams, dataset: CaptchaDataset, folder: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Train a model, load it from where it was saved and let it read test; return history and readings."""
    network, history = train_model(params, dataset, folder)
    assert history["phase"].nunique() == len(params.recipe.learning_rates)
    assert set(history.columns) == {"phase", "epoch", "loss", "exact_match", "val_loss", "val_exact_match"}
    save_model(folder / "model", network, history, params, dataset.manifest)
    loaded, _ = load_model(folder / "model")
    assert {variable.dtype for variable in loaded.weights} <= {"float32", "uint32"}
    assert not any("bfloat16" in str(layer.dtype_policy.name) for layer in loaded.layers)
    readings = read_split(open_model(folder / "model", "model"), dataset, "test").to_pandas()
    assert readings["label"].tolist() == dataset.split("test").index["label"].to_pylist()
    assert readings["confidence"].between(0, 1).all()
    return history, readings


@pytest.mark.usefixtures("uncompiled")
@pytest.mark.filterwarnings("ignore:Even though the `tf.config.experimental_run_functions_eagerly` option is set")
def test_a_crnn_learns_from_texts_that_differ_in_length(tmp_path: Path) -> None:
    spec = ALNUM.model_copy(update={"width": 72, "height": 32, "length": LengthRange(min=1, max=5), "style": "classic"})
    draw_and_split("mixed", spec, tmp_path)
    dataset = open_folder(tmp_path / "mixed")
    assert {len(label) for label in dataset.index["label"].to_pylist()} == {1, 2, 3, 4, 5}
    params = small_params("crnn", epochs=2)
    wider = params.model_copy(update={"validation_size": 0.25})
    with load_training_batches(dataset, wider, first_class=1, cache_dir=tmp_path / "cache") as loaded:
        images, classes = read_all(loaded.validation)
    labels = {row["pixel_sha256"]: row["label"] for row in dataset.split("train").index.to_pylist()}
    for image, row in zip(images, classes, strict=True):
        assert labels[hashlib.sha256(image.tobytes()).digest()] == "".join(spec.alphabet[c - 1] for c in row if c)
        assert len(row) == 5

    history, readings = train_save_and_read(params, dataset, tmp_path)
    assert history["loss"].iloc[-1] < history["loss"].iloc[0]
    assert compute_metrics(readings, spec.alphabet)["test_samples"] == 16


def collapse_by_definition(path: list[int]) -> list[int]:
    """CTC's collapse as the paper says it: merge repeats, then drop blanks."""
    return [c for c, _ in itertools.groupby(path) if c != 0]


@given(st.lists(st.lists(st.integers(0, 4), min_size=7, max_size=7), min_size=1, max_size=5))
@settings(max_examples=60)
def test_best_path_merges_repeats_and_drops_blanks(paths: list[list[int]]) -> None:
    logits = np.eye(5, dtype=np.float32)[np.array(paths)]
    collapsed = np.asarray(collapse_best_path(keras.ops.convert_to_tensor(logits), 7))
    assert [[c for c in row if c] for row in collapsed.tolist()] == [collapse_by_definition(path) for path in paths]
    # As the metric of the training, so what makes texts.
    assert np.array_equal(collapse(np.array(paths)), collapsed)


@given(st.lists(st.integers(0, 2), min_size=6, max_size=6), st.lists(st.integers(1, 2), min_size=2, max_size=2))
@settings(max_examples=60)
def test_ctc_exact_match_wants_the_label_and_nothing_more(path: list[int], label: list[int]) -> None:
    logits = np.eye(3, dtype=np.float32)[np.array([path])]
    match = float(ctc_exact_match(keras.ops.convert_to_tensor(np.array([label])), keras.ops.convert_to_tensor(logits))[0])
    assert match == (collapse_by_definition(path) == label)


def test_position_exact_match_wants_every_position() -> None:
    logits = np.eye(3, dtype=np.float32)[np.array([[0, 1], [0, 2], [2, 1]])]
    assert np.asarray(position_exact_match(np.array([[0, 1]] * 3), logits)).tolist() == [1, 0, 0]


@given(st.integers(1, 20_000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_interval_is_the_one_of_scipy(counts: tuple[int, int]) -> None:
    interval = binomtest(*counts).proportion_ci(method="wilson")
    assert wilson_interval(*counts) == pytest.approx((interval.low, interval.high), abs=1e-6)


def make_readings(pairs: list[tuple[str, str]]) -> pd.DataFrame:
    readings = pd.DataFrame(pairs, columns=["label", "text"])
    confidence = np.linspace(0.1, 0.9, len(pairs))
    return readings.assign(id=range(len(pairs)), confidence=confidence, ink_luminance=[30, 90] * (len(pairs) // 2))


def test_metrics_count_texts_and_edits() -> None:
    readings = make_readings([("1234", "1234"), ("1234", "124"), ("0000", "0O00"), ("7777", "7777")])
    metrics = compute_metrics(readings, "0123456789O")
    assert metrics["exact_match"] == 0.5
    assert (metrics["character_accuracy"], metrics["cer"]) == (1 - 2 / 16, 2 / 16)
    assert metrics["test_samples"] == 4
    # Four confidences in four bins, of which the second and the third are of wrong texts.
    off = [1 - 0.1, 0.1 + 0.8 / 3, 0.1 + 1.6 / 3, 1 - 0.9]
    assert metrics["expected_calibration_error"] == pytest.approx(np.mean(off), abs=1e-6)


def test_metrics_tell_what_0_and_o_alone_cost_where_both_may_occur() -> None:
    readings = make_readings([("A0B1", "AOB1"), ("OOOO", "0OO0"), ("O123", "O123"), ("1234", "1234"), ("77", "7"), ("88", "88")])
    metrics = compute_metrics(readings, "01234578ABO")
    assert metrics["exact_match_0_is_o"] == pytest.approx(5 / 6, abs=1e-6)
    assert metrics["exact_match_with_0_or_o"] == pytest.approx(1 / 3, abs=1e-6)
    assert metrics["exact_match_without_0_or_o"] == pytest.approx(2 / 3, abs=1e-6)
    assert "exact_match_with_0_or_o" not in compute_metrics(readings[3:], "01234578ABO")
    assert not any("0" in name for name in compute_metrics(readings, "0123456789"))


def test_a_model_is_calibrated_that_is_right_as_often_as_it_says() -> None:
    confidence, right = pd.Series([0.75] * 4 + [0.0] * 2), pd.Series([True] * 3 + [False] * 3)
    assert find_calibration_error(confidence, right) == 0
    # The bin of 0.75 is off by a quarter of 4 texts, that of 1.0 by 1 of 2.
    assert find_calibration_error(confidence.replace(0, 1), right | (confidence > 0)) == pytest.approx((4 * 0.25 + 2) / 6)


def read_all(batches: tf.data.Dataset) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int32]]:
    images, classes = zip(*batches.as_numpy_iterator(), strict=True)
    return np.concatenate(images), np.concatenate(classes)


def picture_set(images: npt.NDArray[np.uint8]) -> set[bytes]:
    return {image.tobytes() for image in images}


@pytest.mark.parametrize("memory_share", [0.5, 0.0], ids=["cache in memory", "cache on disk"])
def test_train_and_validation_are_disjoint_cover_train_and_leave_test_closed(
    datasets: Path, tmp_path: Path, memory_share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches_module, "CACHE_MEMORY_SHARE", memory_share)
    shutil.copytree(datasets / "digits", tmp_path / "digits")
    shutil.rmtree(tmp_path / "digits/test")
    dataset = open_folder(tmp_path / "digits")
    params = small_params("cnn", batch_size=3, validation_size=0.25)
    with load_training_batches(dataset, params, first_class=0, cache_dir=tmp_path / "cache") as loaded:
        assert (loaded.num_train, loaded.num_validation, loaded.num_steps) == (48, 16, 16)
        (train, _), (train_again, _) = (read_all(loaded.train_from(epoch, epoch).take(16)) for epoch in range(2))
        validation, classes = read_all(loaded.validation)
    assert len(picture_set(train)) == 48
    assert picture_set(train) == picture_set(train_again)
    assert not np.array_equal(train, train_again)
    assert not picture_set(train) & picture_set(validation)
    rows = dataset.split("train").index
    labels = dict(zip(rows["pixel_sha256"].to_pylist(), rows["label"].to_pylist(), strict=True))
    for image, row in zip(validation, classes, strict=True):
        assert labels[hashlib.sha256(image.tobytes()).digest()] == "".join(map(str, row))


def test_a_training_that_goes_on_sees_the_orders_that_it_would_have_seen(datasets: Path, tmp_path: Path) -> None:
    params = small_params("cnn", batch_size=8, validation_size=0.25)
    with load_training_batches(open_folder(datasets / "digits"), params, first_class=0, cache_dir=tmp_path) as loaded:
        images, _ = read_all(loaded.train_from(0, 0).take(3 * loaded.num_steps))
        third, _ = read_all(loaded.train_from(2, 2).take(loaded.num_steps))
    epochs = np.split(images, 3)
    assert not np.array_equal(epochs[1], epochs[2])
    assert np.array_equal(third, epochs[2])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "preset"), [("cnn", "fast"), ("cnn", "lab"), pytest.param("crnn", "lab", marks=pytest.mark.thorough)]
)
def test_every_family_and_preset_trains_saves_and_reads(datasets: Path, tmp_path: Path, model: str, preset: str) -> None:
    # The fast crnn learns from texts that differ in length, above. One phase: each is traced again, for ten seconds.
    params = small_params(model, preset=preset, learning_rates=(1.0e-3,))
    train_save_and_read(params, open_folder(datasets / params.dataset), tmp_path)


def test_a_model_whose_bytes_changed_is_not_loaded(datasets: Path, tmp_path: Path) -> None:
    params = small_params("cnn")
    network = build_network(params, SPECS["digits"])
    save_model(tmp_path, network, pd.DataFrame({"epoch": [1]}), params, open_folder(datasets / "digits").manifest)
    model = tmp_path / "model.keras"
    content = bytearray(model.read_bytes())
    content[len(content) // 2] ^= 1
    model.write_bytes(content)
    with pytest.raises(UserError, match="do not load it"):
        load_model(tmp_path)


def test_a_model_reads_no_pictures_of_another_size(datasets: Path, tmp_path: Path) -> None:
    params = small_params("cnn")
    network = build_network(params, SPECS["digits"])
    save_model(tmp_path, network, pd.DataFrame(), params, open_folder(datasets / "digits").manifest)
    with pytest.raises(UserError, match="reads pictures of 60x50"):
        read_split(open_model(tmp_path, "digits"), open_folder(datasets / "alnum"), "test")


def test_the_learning_rate_rises_to_its_peak_and_falls_to_the_final_share() -> None:
    recipe = small_params("cnn", warmup=0.2, final_rate=0.01).fast
    rate = build_optimizer(recipe, 1e-3, num_steps=100)._learning_rate  # noqa: SLF001 - the schedule itself
    values = [float(rate(step)) for step in (0, 10, 20, 60, 100)]
    assert values == pytest.approx([0, 0.5e-3, 1e-3, 0.505e-3, 1e-5], rel=1e-3)


def test_state_goes_on_from_the_newest_epoch_and_keeps_the_best_weights(tmp_path: Path) -> None:
    network = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False)])
    state = TrainingState(tmp_path)
    for weight, exact_match in enumerate([0.3, 0.8, 0.5, 0.4]):
        network.set_weights([np.full((1, 1), weight)])
        state.save_epoch(network, 0, {"val_exact_match": exact_match, "val_loss": 1.0})
    found = TrainingState(tmp_path)
    assert found.history["epoch"].tolist() == [1, 2, 3, 4]
    assert found.patience_spent() == 2
    network.load_weights(found.folder / "best.weights.h5")
    assert network.get_weights()[0].item() == 1
    assert [path.name for path in tmp_path.iterdir()] == ["epoch-00004"]


def test_weights_that_do_not_fit_on_the_disk_are_an_error_that_names_them(tmp_path: Path) -> None:
    network = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000, limits[1]))
    try:
        with pytest.raises(OSError, match=r"File too large: '.*/latest.weights.h5'"):
            TrainingState(tmp_path).save_epoch(network, 0, {"val_exact_match": 0.1, "val_loss": 1.0})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.mark.usefixtures("uncompiled")
@pytest.mark.filterwarnings("ignore:Even though the `tf.config.experimental_run_functions_eagerly` option is set")
def test_patience_ends_a_phase_and_the_next_starts_from_the_best_weights(datasets: Path, tmp_path: Path) -> None:
    params = small_params("cnn", preset="lab", learning_rates=(1e-3, 1e-9), epochs=9, patience=1)
    _, history = train_model(params, open_folder(datasets / "digits"), tmp_path)
    first, second = (history[history["phase"] == phase] for phase in (0, 1))
    best = first.sort_values(["val_exact_match", "val_loss"], ascending=[False, True]).iloc[0]
    assert len(first) == 9 or best["epoch"] == first["epoch"].iloc[-2]
    assert second["val_loss"].iloc[0] == pytest.approx(best["val_loss"], rel=1e-3)


@pytest.mark.parametrize(
    ("exact_matches", "losses", "best"),
    [
        ([0.1, 0.9, 0.8], [3.0, 2.0, 1.0], 1),
        ([0.9, 0.9, 0.9], [3.0, 1.0, 2.0], 1),
        ([0.9, 0.9], [1.0, 1.0], 0),
        ([0.0], [7.0], 0),
    ],
    ids=["most right", "then the lowest loss", "then the first", "the only one"],
)
def test_the_best_epoch_reads_most_right(exact_matches: list[float], losses: list[float], best: int) -> None:
    assert find_best_epoch(pd.DataFrame({"val_exact_match": exact_matches, "val_loss": losses})) == best


@pytest.mark.thorough
@pytest.mark.parametrize("model", ["cnn", "crnn"])
def test_two_devices_train_one_model(datasets: Path, tmp_path: Path, model: str) -> None:
    # Two logical devices of one processor stand for two GPUs; a process can be given them only before TensorFlow starts.
    program = f"""
import sys

from captcha_registry.recognition.frameworks import tf

cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
sys.path[:0] = [{str(ROOT)!r}, {str(ROOT / "tests")!r}]

from pathlib import Path
from captcha_registry.recognition.training import choose_strategy
from test_recognition import open_folder, small_params, train_model

assert choose_strategy().num_replicas_in_sync == 2
params = small_params({model!r}, validation_size=0.25, fresh=0.5)
network, history = train_model(params, open_folder(Path({str(datasets)!r}) / params.dataset), Path({str(tmp_path)!r}))
assert history["loss"].notna().all()
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
