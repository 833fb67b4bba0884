"""Train a network as the stage does, on the clock, and read with it on the way; shared by what measures trainings."""

import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
from timing import time_images

from captcha_registry.dataset.dataset import CaptchaDataset
from captcha_registry.recognition.batches import divide_train_split, load_training_batches
from captcha_registry.recognition.frameworks import choose_precision, keras, tf
from captcha_registry.recognition.reading import find_logits_with, read_samples
from captcha_registry.recognition.recipe import ModelParams
from captcha_registry.recognition.scoring import HARD_PAIR, compute_metrics
from captcha_registry.recognition.tables import find_confusions
from captcha_registry.recognition.training import (
    build_network,
    build_training_network,
    choose_strategy,
    compile_network,
    import_family,
    prepare_training,
)

TEST_SAMPLES, MORE_TEST_SAMPLES, MORE_ABOVE = 20_000, 100_000, 0.995
TARGETS = (0.98, 0.99, 0.995)
# What the speed is measured on that makes views of seconds.
MEASURED_STEPS = 40
# Until all is compiled, and every worker draws.
WARM_STEPS = 5


class Clock(keras.callbacks.Callback):
    """Tells the seconds of training from those of compiling and of reading, and notes what is read at the end of every epoch."""

    def __init__(self, read: Callable[[keras.Model], pd.DataFrame] | None, batch_size: int) -> None:
        super().__init__()
        self.read, self.batch_size, self.num_views = read, batch_size, 0
        self.compile_seconds, self.training_seconds, self.reading_seconds = 0.0, 0.0, 0.0
        self.curve: list[dict[str, float]] = []

    @property
    def images_per_second(self) -> float:
        """Without the first step, which compiles."""
        return (self.num_views - self.batch_size) / self.training_seconds

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:  # noqa: ARG002 - Keras calls it so
        self.went_on = time.perf_counter()

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:  # noqa: ARG002 - Keras calls it so
        self.num_views += self.batch_size
        if not self.compile_seconds:
            self.compile_seconds = time.perf_counter() - self.went_on
            self.went_on = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:  # noqa: ARG002 - Keras calls it so
        self.training_seconds += (stopped := time.perf_counter()) - self.went_on
        if self.read is None:
            return
        readings = self.read(self.model)
        self.reading_seconds += time.perf_counter() - stopped
        point = {"views": self.num_views, "seconds": round(self.training_seconds, 2), "loss": round((logs or {})["loss"], 5)}
        self.curve.append(point | {"exact_match": float((readings["label"] == readings["text"]).mean())})
        told = ", ".join(f"{name} {value:,}" for name, value in self.curve[-1].items())
        print(f"{told}, reading {self.reading_seconds:.0f} s in all", file=sys.stderr, flush=True)


def train(
    params: ModelParams,
    dataset: CaptchaDataset,
    num_steps: int,
    num_points: int,
    read: Callable[[keras.Model], pd.DataFrame] | None = None,
) -> tuple[keras.Model, Clock]:
    """Train a network for a number of steps as the stage does its first phase, and read with it at a number of points."""
    keras.utils.clear_session()
    prepare_training(params)
    steps_per_point = num_steps // num_points
    params = span_phase(params, dataset, steps_per_point * num_points)
    with open_batches(params, dataset) as batches, choose_strategy().scope():
        network = build_training_network(params, dataset.manifest.spec)
        compile_network(network, params, params.recipe.learning_rates[0], num_points * steps_per_point)
        clock = Clock(read, params.recipe.batch_size)
        steps = {"epochs": num_points, "steps_per_epoch": steps_per_point}
        network.fit(batches, **steps, callbacks=[clock], shuffle=False, verbose=0)
    return network, clock


def span_phase(params: ModelParams, dataset: CaptchaDataset, num_steps: int) -> ModelParams:
    """Let a phase have a number of steps, also where that makes a fraction of an epoch: what is drawn may depend on its end."""
    _, samples = divide_train_split(dataset, params)
    num_epochs = num_steps / max(1, len(samples) // params.recipe.batch_size)
    return params.model_copy(update={params.preset: params.recipe.model_copy(update={"epochs": num_epochs})})


@contextmanager
def open_batches(params: ModelParams, dataset: CaptchaDataset) -> Iterator[tf.data.Dataset]:
    """Open what the stage trains on from the first step on, without end."""
    first_class = import_family(params).FIRST_CLASS
    with (
        tempfile.TemporaryDirectory() as folder,
        load_training_batches(dataset, params, first_class=first_class, cache_dir=Path(folder)) as batches,
    ):
        yield batches.train_from(0, 0)


def measure_seed(
    params: ModelParams, dataset: CaptchaDataset, num_steps: int, num_points: int, draw_test: Callable[[int], CaptchaDataset]
) -> dict[str, Any]:
    """Train with one seed; tell what it came to and when.

    Args:
        params: of the model, with the seed.
        dataset: to train on.
        num_steps: the budget.
        num_points: how often it is read meanwhile.
        draw_test: draws a number of samples that no training sees.
    """
    spec, few = dataset.manifest.spec, draw_test(TEST_SAMPLES)

    def read(network: keras.Model, samples: CaptchaDataset) -> pd.DataFrame:
        rows = read_samples(find_logits_with(network), samples, family=params.family, alphabet=spec.alphabet)
        return rows.select(["label", "text", "confidence"]).to_pandas()

    network, clock = train(params, dataset, num_steps, num_points, partial(read, samples=few))
    keras.config.set_dtype_policy("float32")
    final = build_network(params, spec)
    final.set_weights(network.get_weights())
    readings = read(final, few)
    if compute_metrics(readings, spec.alphabet)["exact_match"] > MORE_ABOVE:
        readings = read(final, draw_test(MORE_TEST_SAMPLES))
    return {
        "seed": params.seed,
        "precision": choose_precision(params.recipe.precision),
        "parameters": final.count_params(),
        "views": clock.num_views,
        **compute_metrics(readings, spec.alphabet),
        "pair_error": measure_pair_error(readings, spec.alphabet),
        "images_per_second": round(clock.images_per_second, 1),
        **{f"{name}_seconds": round(getattr(clock, f"{name}_seconds"), 2) for name in ("training", "compile", "reading")},
        "reached": {f"{target:.1%}": find_first(clock.curve, target) for target in TARGETS},
        "curve": clock.curve,
    }


def measure_speed(params: ModelParams, dataset: CaptchaDataset) -> float:
    """Tell how many images a second a training takes in."""
    _, clock = train(params, dataset, MEASURED_STEPS, num_points=1)
    return clock.images_per_second


def measure_pair_error(readings: pd.DataFrame, alphabet: str) -> float | None:
    """Compute the share of all 0 and O that are misread; None where the alphabet has not both."""
    num_pair = int(readings["label"].str.count(f"[{HARD_PAIR}]").sum())
    num_misread = int(find_confusions(readings)["actual"].isin(list(HARD_PAIR)).sum())
    return round(num_misread / num_pair, 6) if num_pair and set(HARD_PAIR) <= set(alphabet) else None


def measure_input(params: ModelParams, dataset: CaptchaDataset, num_steps: int) -> float:
    """Tell how many images a second are there for a network that takes no time."""
    with open_batches(params, dataset) as batches:
        read = iter(batches.skip(WARM_STEPS).take(num_steps + 1))
        next(read)
        return time_images(lambda: list(map(len, read)), num_steps * params.recipe.batch_size)


def measure_waiting(params: ModelParams, dataset: CaptchaDataset, num_steps: int) -> float:
    """Tell how many percent of a training's time its network waits for the next batch."""
    keras.utils.clear_session()
    prepare_training(params)
    network = build_training_network(params, dataset.manifest.spec)
    compile_network(network, params, params.recipe.learning_rates[0], num_steps)
    waited, started = 0.0, 0.0
    with open_batches(params, dataset) as batches:
        read = iter(batches)
        for step in range(WARM_STEPS + num_steps):
            asked = time.perf_counter()
            images, classes = next(read)
            if step >= WARM_STEPS:
                started = started or asked
                waited += time.perf_counter() - asked
            network.train_on_batch(images, classes)
        return 100 * waited / (time.perf_counter() - started)


def find_first(curve: Sequence[dict[str, float]], target: float) -> dict[str, float] | None:
    """Find the first point at which as much was right as is wanted."""
    return next(({key: point[key] for key in ("views", "seconds")} for point in curve if point["exact_match"] >= target), None)
