"""Measure the project beside the way of the lab note that it started from: `python benchmarks/lab_note.py`.

drawing        the note: one process, one image file per sample and a list of labels; ours: `draw_shard`, in one process too
feeding        the note: a Python generator opens the files one by one, on every pass; ours: tf.data, decoded in the first
               pass and kept as uint8 for the later ones; no network
training_cnn   120x100, 4 digits; the note: the lab network on that generator; ours: the lab and the fast preset on tf.data
training_crnn  128x64, 4 of digits and capitals; as above, but the note draws its captchas while it trains

The note trains in float32; ours as params.yaml says. Its generator is off by one and yields 65 samples: here it yields the 64
that were meant. Training is timed in steady state: networks are built and traced, and our caches filled, before. The lab
network trains on a quarter of the samples in either way, for the sake of time. About 5 minutes on 2 idle cores.
"""

import random
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
from captcha.image import ImageCaptcha
from PIL import Image
from timing import Way, measure_in_turn, parse_arguments, report_rounds, time_images

from captcha_registry.dataset.dataset import CaptchaDataset
from captcha_registry.dataset.folder import open_folder
from captcha_registry.dataset.spec import DatasetSpec, SplitRule
from captcha_registry.ends import report_errors
from captcha_registry.errors import UserError
from captcha_registry.generation.drawing import Drawer
from captcha_registry.generation.generating import assemble_dataset
from captcha_registry.generation.shards import draw_shard
from captcha_registry.generation.splitting import split_dataset
from captcha_registry.recognition.batches import load_training_batches
from captcha_registry.recognition.frameworks import keras, tf
from captcha_registry.recognition.recipe import ModelParams, load_model_params
from captcha_registry.recognition.training import (
    build_network,
    build_training_network,
    compile_network,
    import_family,
    prepare_training,
)

PARAMS_PATH = Path(__file__).resolve().parent.parent / "params.yaml"

# Pinned, so that a change of params.yaml does not change what is measured.
ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"
DIGITS = DatasetSpec(alphabet=ALPHABET[:10], length=4, width=120, height=100, count=1, shard_size=1, seed=2023)
ALNUM = DatasetSpec(alphabet=ALPHABET, length=4, width=128, height=64, count=1, shard_size=1, seed=2024)
NOTE_PARAMETERS = {"cnn": 1_345_448, "crnn": 3_157_317}
NOTE_WORKERS = 4

MIN_SAMPLES = 128  # one batch of the CRNN
DEFAULT_SAMPLES = 2000
LAB_SHARE = 4
LATER_EPOCHS = 5
NUM_SHARDS = 8

FloatArray = npt.NDArray[np.floating]


def draw_files(spec: DatasetSpec, folder: Path) -> None:
    """Draw the note's way: a file per sample and a list of labels."""
    drawer = ImageCaptcha(width=spec.width, height=spec.height)
    with (folder / "labels.txt").open("w", encoding="utf-8") as labels:
        for number in range(spec.count):
            label = _random_label(spec)
            drawer.write(label, str(folder / f"{number}.png"))
            labels.write(f"{number}.png,{label}\n")


def read_files(spec: DatasetSpec, folder: Path, batch_size: int) -> Iterator[tuple[FloatArray, FloatArray]]:
    """Feed the note's way, without end: open file after file, scale to 0..1 in float64, make labels one-hot."""
    rows = [line.split(",") for line in (folder / "labels.txt").read_text(encoding="utf-8").split()]
    images, labels = [], []
    while True:
        for name, label in rows:
            with Image.open(folder / name) as image:
                images.append(np.array(image) / 255.0)
            labels.append(keras.utils.to_categorical(_label_classes(spec, label), len(spec.alphabet)))
            if len(images) == batch_size:
                yield np.array(images), np.array(labels)
                images, labels = [], []


class DrawnBatches(keras.utils.PyDataset):
    """What the note feeds its CRNN: threads draw every captcha when it is asked for, and none is kept."""

    def __init__(self, spec: DatasetSpec, batch_size: int, num_batches: int) -> None:
        super().__init__(workers=NOTE_WORKERS)
        self._spec, self._batch_size, self._num_batches = spec, batch_size, num_batches
        self._drawer = ImageCaptcha(width=spec.width, height=spec.height)

    def __len__(self) -> int:
        """Count the batches of an epoch."""
        return self._num_batches

    def __getitem__(self, index: int) -> tuple[FloatArray, npt.NDArray[np.int32]]:
        """Draw one batch; class 0 is the blank."""
        images = np.zeros((self._batch_size, self._spec.height, self._spec.width, 3), np.float32)
        classes = np.zeros((self._batch_size, self._spec.max_length), np.int32)
        for place in range(self._batch_size):
            label = _random_label(self._spec)
            images[place] = np.array(self._drawer.generate_image(label)) / 255.0
            classes[place] = np.array(_label_classes(self._spec, label)) + 1
        return images, classes


def _random_label(spec: DatasetSpec) -> str:
    return "".join(random.choices(spec.alphabet, k=spec.max_length))  # noqa: S311 - pictures, not secrets


def _label_classes(spec: DatasetSpec, label: str) -> list[int]:
    return [spec.alphabet.index(character) for character in label]


def make_dataset(name: str, spec: DatasetSpec, folder: Path) -> CaptchaDataset:
    """Draw a dataset with two samples more than the spec says: one is for the test split, one for validation."""
    count = spec.count + 2
    larger = spec.model_copy(update={"count": count, "shard_size": -(-count // NUM_SHARDS)})
    for part in ("work", "split"):
        (folder / part).mkdir(parents=True)
    drawer = Drawer(larger)
    shards = [draw_shard(drawer, number, folder / "work") for number in range(larger.num_shards)]
    assemble_dataset(name, drawer, shards, folder / "work", folder / "generated")
    split_dataset(open_folder(folder / "generated"), SplitRule(test_size=1 / count, by="sample", seed=1), folder / "split")
    return open_folder(folder / "split")


def load_batches(params: ModelParams, dataset: CaptchaDataset, cache_dir: Path) -> tf.data.Dataset:
    """Load the project's batches: all of the train split but one sample."""
    params = params.model_copy(update={"validation_size": 1 / dataset.manifest.spec.count})
    with load_training_batches(dataset, params, first_class=import_family(params).FIRST_CLASS, cache_dir=cache_dir) as loaded:
        return loaded.train_from(0, 0).take(loaded.num_steps)


def load_preset(family: str, preset: str) -> ModelParams:
    """Read a model's params, with another preset, which is to train on what the dataset holds."""
    params = load_model_params(family, PARAMS_PATH)
    recipe = getattr(params, preset).model_copy(update={"fresh": 0.0})
    return params.model_copy(update={"preset": preset, preset: recipe})


def plan_drawing(spec: DatasetSpec, folder: Path) -> dict[str, Way]:
    """Name the ways of drawing; every run draws into a new folder."""
    one_shard = spec.model_copy(update={"shard_size": spec.count})

    def measure(draw: Callable[[Path], object]) -> float:
        with tempfile.TemporaryDirectory(dir=folder) as target:
            return time_images(partial(draw, Path(target)), spec.count)

    return {
        "note": lambda: measure(partial(draw_files, spec)),
        "ours": lambda: measure(partial(draw_shard, Drawer(one_shard), 0)),
    }


def plan_feeding(spec: DatasetSpec, dataset: CaptchaDataset, files_dir: Path, cache_dir: Path) -> dict[str, Way]:
    """Name the ways of feeding; the note's cost the same in every epoch, ours do not."""
    lab = load_preset("cnn", "lab")
    num_images = spec.count // lab.recipe.batch_size * lab.recipe.batch_size

    def feed_note() -> None:
        batches = read_files(spec, files_dir, lab.recipe.batch_size)
        for _ in range(num_images // lab.recipe.batch_size):
            next(batches)

    def measure_ours(*, skipped_epochs: int, epochs: int) -> float:
        batches = load_batches(lab, dataset, cache_dir)
        _exhaust(batches, skipped_epochs)
        return time_images(partial(_exhaust, batches, epochs), epochs * num_images)

    return {
        "note": lambda: time_images(feed_note, num_images),
        "ours_first_epoch": lambda: measure_ours(skipped_epochs=0, epochs=1),
        "ours_later_epochs": lambda: measure_ours(skipped_epochs=1, epochs=LATER_EPOCHS),
    }


def _exhaust(batches: tf.data.Dataset, num_epochs: int) -> None:
    for _ in range(num_epochs):
        for _ in batches:
            pass


class _EpochClock(keras.callbacks.Callback):
    """Times one epoch, without what `fit` does before: for a PyDataset it draws two batches that nobody trains on."""

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:  # noqa: ARG002 - Keras calls it so
        self._started = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:  # noqa: ARG002 - Keras calls it so
        self.seconds = time.perf_counter() - self._started


def train_batches(network: keras.Model, batches: object, num_batches: int) -> float:
    """Train on a number of batches; return the seconds they took."""
    clock = _EpochClock()
    network.fit(batches, steps_per_epoch=num_batches, callbacks=[clock], shuffle=False, verbose=0)
    return clock.seconds


def compile_note_network(params: ModelParams, spec: DatasetSpec) -> keras.Model:
    """Build the lab preset for pictures that are scaled already, and compile it as the note does.

    Raises:
        UserError: it is not the network of the note.
    """
    keras.config.set_dtype_policy("float32")
    network = build_network(params, spec)
    if network.count_params() != NOTE_PARAMETERS[params.family]:
        raise UserError(
            f"{PARAMS_PATH}: models.{params.family} gives a lab network of {network.count_params():,} parameters; expected the "
            f"note's {NOTE_PARAMETERS[params.family]:,}: measure with the settings that it is delivered with"
        )
    scaled = keras.Model(network.layers[1].output, network.output)
    is_cnn = params.family == "cnn"
    loss = keras.losses.CategoricalCrossentropy(from_logits=True) if is_cnn else import_family(params).build_loss()
    scaled.compile(keras.optimizers.Adam(1e-3, amsgrad=not is_cnn), loss=loss, metrics=["accuracy"] if is_cnn else None)
    return scaled


def compile_our_network(params: ModelParams, spec: DatasetSpec) -> keras.Model:
    """Build a preset and compile it as a training does."""
    prepare_training(params)
    network = build_training_network(params, spec)
    compile_network(network, params, params.recipe.learning_rates[0], num_steps=1000)
    return network


def prepare_note_training(params: ModelParams, spec: DatasetSpec, files_dir: Path) -> Way:
    """Trace the note's network; return the way that trains it on what the note feeds it."""
    network, batch_size = compile_note_network(params, spec), params.recipe.batch_size

    def train(num_batches: int) -> float:
        if params.family == "cnn":
            return train_batches(network, read_files(spec, files_dir, batch_size), num_batches)
        return train_batches(network, DrawnBatches(spec, batch_size, num_batches), num_batches)

    train(1)
    num_batches = max(1, spec.count // LAB_SHARE // batch_size)
    return lambda: num_batches * batch_size / train(num_batches)


def prepare_our_training(params: ModelParams, spec: DatasetSpec, dataset: CaptchaDataset, cache_dir: Path) -> Way:
    """Fill the cache and trace the network; return the way that trains it on the project's batches."""
    network, batches = compile_our_network(params, spec), load_batches(params, dataset, cache_dir)
    _exhaust(batches, 1)
    train_batches(network, batches, 1)
    share = LAB_SHARE if params.preset == "lab" else 1
    batch_size = int(batches.element_spec[0].shape[0])
    num_batches = max(1, spec.count // share // batch_size)
    return lambda: num_batches * batch_size / train_batches(network, batches, num_batches)


def plan_training(family: str, spec: DatasetSpec, dataset: CaptchaDataset, folder: Path) -> dict[str, Way]:
    """Name the ways of training one family."""
    lab, fast = load_preset(family, "lab"), load_preset(family, "fast")
    return {
        "note": prepare_note_training(lab, spec, folder / "files"),
        "ours_lab": prepare_our_training(lab, spec, dataset, folder / f"cache_{family}_lab"),
        "ours_fast": prepare_our_training(fast, spec, dataset, folder / f"cache_{family}_fast"),
    }


def plan_steps(num_samples: int, folder: Path) -> dict[str, dict[str, Way]]:
    """Draw what is read and make every way ready to be timed."""
    digits, alnum = (spec.model_copy(update={"count": num_samples}) for spec in (DIGITS, ALNUM))
    digits_dataset = make_dataset("digits", digits, folder / "digits")
    alnum_dataset = make_dataset("alnum", alnum, folder / "alnum")
    (folder / "files").mkdir()
    draw_files(digits, folder / "files")
    return {
        "drawing": plan_drawing(digits, folder),
        "feeding": plan_feeding(digits, digits_dataset, folder / "files", folder / "cache_feeding"),
        "training_cnn": plan_training("cnn", digits, digits_dataset, folder),
        "training_crnn": plan_training("crnn", alnum, alnum_dataset, folder),
    }


def main() -> None:
    """Measure, then print or write what came out."""
    arguments = parse_arguments(__doc__ or "", default_samples=DEFAULT_SAMPLES, min_samples=MIN_SAMPLES)
    # Six networks are traced once each, which TensorFlow takes for one that is traced again and again.
    tf.get_logger().setLevel("ERROR")
    with tempfile.TemporaryDirectory(prefix="lab-note-") as folder:
        rounds = measure_in_turn(plan_steps(arguments.samples, Path(folder)), arguments.pairs)
    report_rounds(rounds, "benchmarks/lab_note.py", arguments)


if __name__ == "__main__":
    with report_errors():
        main()
