"""Measure the project beside the way of the lab note that it started from: `python benchmarks/lab_note.py`.

The note draws one file per captcha in one process, opens the files one by one in a Python generator, and trains in float32;
its CRNN has its captchas drawn while it trains. The note's batches of 65 are a slip: here they hold 64. Each step is timed
for both ways in turn, several times, on the same numbers of pictures; what is shown is the median.
"""

import argparse
import json
import platform
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from statistics import median

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf
from captcha.image import ImageCaptcha
from PIL import Image
from tqdm import tqdm

from captcha_registry.dataset.dataset import CaptchaDataset, open_dataset
from captcha_registry.dataset.spec import DatasetSpec, SplitRule
from captcha_registry.generation.executors import count_usable_cores
from captcha_registry.generation.generating import assemble_dataset
from captcha_registry.generation.shards import draw_shard
from captcha_registry.generation.splitting import split_dataset
from captcha_registry.params import load_section
from captcha_registry.recognition.batches import load_training_batches
from captcha_registry.recognition.decoding import exact_match_metric
from captcha_registry.recognition.recipe import ModelParams
from captcha_registry.recognition.training import FAMILIES, build_network, build_optimizer, choose_precision, load_model_params

ROOT = Path(__file__).resolve().parent.parent
NOTE_BATCH = {"cnn": 64, "crnn": 128}
WARM_UP_BATCHES = 2
FEED_EPOCHS = 2

Float32Array = npt.NDArray[np.float32]
Batch = tuple[Float32Array, npt.NDArray[np.int32]]


def draw_files(spec: DatasetSpec, count: int, folder: Path) -> None:
    """Draw the note's way: one file per captcha and a list of labels."""
    drawer = ImageCaptcha(width=spec.width, height=spec.height)
    with (folder / "labels.txt").open("w") as labels:
        for number in range(count):
            label = "".join(random.choices(spec.alphabet, k=spec.length))  # noqa: S311 - pictures, not secrets
            drawer.write(label, str(folder / f"{number}.jpg"))
            labels.write(f"{number}.jpg,{label}\n")


def read_files(spec: DatasetSpec, folder: Path, batch_size: int) -> Iterator[Batch]:
    """Feed the note's way, without end: open, divide, collect, one file after the other."""
    rows = [line.split(",") for line in (folder / "labels.txt").read_text().split()]
    while True:
        images, classes = [], []
        for name, label in rows:
            with Image.open(folder / name) as image:
                images.append(np.asarray(image) / 255.0)
            classes.append([spec.alphabet.index(character) for character in label])
            if len(images) == batch_size:
                yield np.array(images, np.float32), np.array(classes, np.int32)
                images, classes = [], []


class DrawnBatches(keras.utils.PyDataset):
    """The note's CRNN input: every captcha is drawn when it is asked for."""

    def __init__(self, spec: DatasetSpec, num_batches: int) -> None:
        super().__init__()
        self._spec, self._num_batches = spec, num_batches
        self._drawer = ImageCaptcha(width=spec.width, height=spec.height)

    def __len__(self) -> int:
        """Return the batches of an epoch."""
        return self._num_batches

    def __getitem__(self, index: int) -> Batch:
        """Draw one batch."""
        labels = ["".join(random.choices(self._spec.alphabet, k=self._spec.length)) for _ in range(NOTE_BATCH["crnn"])]  # noqa: S311
        images = np.stack([np.asarray(self._drawer.generate_image(label)) for label in labels]) / 255.0
        classes = [[self._spec.alphabet.index(character) + 1 for character in label] for label in labels]
        return images.astype(np.float32), np.array(classes, np.int32)


def make_dataset(name: str, spec: DatasetSpec, folder: Path) -> CaptchaDataset:
    """Make a dataset the project's way in `folder`; a fifth of its samples is test."""
    for part in ("work", "split"):
        (folder / part).mkdir(parents=True)
    shards = [draw_shard(spec, number, folder / "work") for number in range(spec.num_shards)]
    assemble_dataset(name, spec, shards, folder / "work", folder / "generated")
    split_dataset(open_dataset(folder / "generated"), SplitRule(test_size=0.2, by="shard", seed=42), folder / "split")
    return open_dataset(folder / "split")


def compile_network(params: ModelParams, spec: DatasetSpec, *, scaled: bool) -> keras.Model:
    """Build and compile a preset; `scaled` cuts off the layer that scales pictures, which the note scales itself."""
    keras.config.set_dtype_policy(choose_precision(params.recipe))
    network = build_network(params, spec)
    if scaled:
        network = keras.Model(network.layers[1].output, network.output)
    optimizer = build_optimizer(params.recipe, params.recipe.learning_rates[0], num_steps=10_000)
    network.compile(optimizer, loss=FAMILIES[params.family].build_loss(), metrics=[exact_match_metric(params.family)])
    return network


def time_fit(network: keras.Model, batches: object, num_batches: int) -> float:
    """Time the training on some batches, after a few that pay for the graph."""
    network.fit(batches, steps_per_epoch=WARM_UP_BATCHES, verbose=0, shuffle=False)
    started = time.perf_counter()
    network.fit(batches, steps_per_epoch=num_batches, verbose=0, shuffle=False)
    return time.perf_counter() - started


def time_training(params: ModelParams, spec: DatasetSpec, batches: object, batch_size: int, *, scaled: bool = False) -> float:
    """Return pictures per second of training one preset on endless batches."""
    num_batches = max(1, spec.count // batch_size)
    return num_batches * batch_size / time_fit(compile_network(params, spec, scaled=scaled), batches, num_batches)


def time_work(work: Callable[[], object], num_pictures: int) -> float:
    """Return pictures per second of some work."""
    started = time.perf_counter()
    work()
    return num_pictures / (time.perf_counter() - started)


def load_batches(params: ModelParams, dataset: CaptchaDataset, folder: Path) -> tf.data.Dataset:
    """Load the project's training batches."""
    loaded = load_training_batches(
        dataset,
        first_class=FAMILIES[params.family].FIRST_CLASS,
        batch_size=min(params.recipe.batch_size, dataset.rows("train").num_rows // 2),
        validation_size=0.01,
        seed=1,
        cache_dir=folder / "cache",
    )
    return loaded.train


def plan_drawing(specs: dict[str, DatasetSpec], folder: Path) -> dict[str, Callable[[], float]]:
    """Name the ways of drawing digits; each draws into a fresh folder."""
    spec = specs["digits"]

    def measure(draw: Callable[[Path], object]) -> float:
        with tempfile.TemporaryDirectory(dir=folder) as target:
            return time_work(partial(draw, Path(target)), spec.count)

    one_shard = spec.model_copy(update={"shard_size": spec.count})
    return {
        "drawing, note": lambda: measure(lambda target: draw_files(spec, spec.count, target)),
        "drawing, ours": lambda: measure(lambda target: draw_shard(one_shard, 0, target)),
    }


def plan_feeding(
    specs: dict[str, DatasetSpec], datasets: dict[str, CaptchaDataset], folder: Path
) -> dict[str, Callable[[], float]]:
    """Name the ways of feeding digits: two epochs, of which ours decodes in the first alone."""
    spec, params = specs["digits"], load_model_params("cnn", ROOT / "params.yaml")
    (folder / "files").mkdir()
    draw_files(spec, spec.count, folder / "files")
    num_batches = FEED_EPOCHS * (spec.count // NOTE_BATCH["cnn"])

    def feed_note() -> None:
        batches = read_files(spec, folder / "files", NOTE_BATCH["cnn"])
        for _ in range(num_batches):
            next(batches)

    def feed_ours() -> float:
        batches = load_batches(params, datasets["digits"], folder)
        started = time.perf_counter()
        num_pictures = sum(len(images) for _ in range(FEED_EPOCHS) for images, _ in batches)
        return num_pictures / (time.perf_counter() - started)

    return {"feeding, note": lambda: time_work(feed_note, num_batches * NOTE_BATCH["cnn"]), "feeding, ours": feed_ours}


def plan_training(model: str, spec: DatasetSpec, dataset: CaptchaDataset, folder: Path) -> dict[str, Callable[[], float]]:
    """Name the ways of training one model."""
    params = load_model_params(model, ROOT / "params.yaml")
    lab, fast = (params.model_copy(update={"preset": preset}) for preset in ("lab", "fast"))

    def train_note() -> float:
        batch_size = NOTE_BATCH[model]
        drawn = DrawnBatches(spec, max(1, spec.count // batch_size)) if model == "crnn" else None
        batches = drawn or read_files(spec, folder / "files", batch_size)
        return time_training(lab, spec, batches, batch_size, scaled=True)

    def train_ours(chosen: ModelParams) -> float:
        batches = load_batches(chosen, dataset, folder).repeat()
        return time_training(chosen, spec, batches, int(batches.element_spec[0].shape[0]))

    return {
        f"training {model}, note": train_note,
        f"training {model}, ours, lab": lambda: train_ours(lab),
        f"training {model}, ours, fast": lambda: train_ours(fast),
    }


def measure_all(num_samples: int, num_pairs: int, folder: Path) -> dict[str, float]:
    """Time every way in turn, `num_pairs` times in changing order; return the median pictures per second of each."""
    changes = {"count": num_samples, "shard_size": max(1, num_samples // 10)}
    params_path = ROOT / "params.yaml"
    specs = {
        name: load_section(DatasetSpec, f"datasets.{name}", params_path).model_copy(update=changes)
        for name in ("digits", "alnum")
    }
    datasets = {name: make_dataset(name, spec, folder / name) for name, spec in specs.items()}
    plan = plan_drawing(specs, folder) | plan_feeding(specs, datasets, folder)
    for model, name in (("cnn", "digits"), ("crnn", "alnum")):
        plan |= plan_training(model, specs[name], datasets[name], folder)

    rates: dict[str, list[float]] = {way: [] for way in plan}
    with tqdm(total=num_pairs * len(plan), unit=" runs", desc="measuring", disable=None) as progress:
        for pair in range(num_pairs):
            for way in reversed(plan) if pair % 2 else plan:
                rates[way].append(plan[way]())
                progress.update()
    return {way: round(median(found), 1) for way, found in rates.items()}


def compare(rates: dict[str, float]) -> dict[str, float]:
    """Divide every rate of ours by the note's for the same step."""
    return {way: round(rate / rates[f"{way.split(',')[0]}, note"], 2) for way, rate in rates.items() if "ours" in way}


def describe_machine() -> str:
    """Name the processor and its cores."""
    cpu_info = Path("/proc/cpuinfo")
    names = (
        [line.split(": ")[1] for line in cpu_info.read_text().splitlines() if line.startswith("model name")]
        if cpu_info.exists()
        else []
    )
    return f"{names[0] if names else platform.processor() or platform.machine()}, {count_usable_cores()} cores"


def format_table(result: dict[str, object], rates: dict[str, float], ratios: dict[str, float]) -> str:
    """Compose the result as Markdown."""
    rows = [f"| {way} | {rate:,.1f} | {ratios.get(way, 1.0):.2f} |" for way, rate in rates.items()]
    head = (
        f"`{result['command']}`, {result['machine']}, {result['date']}, {result['samples']} pictures, median of {result['pairs']}"
    )
    return "\n".join([head, "", "| way | pictures a second | times the note's |", "|---|---|---|", *rows])


def main() -> None:
    """Measure, then print a table or write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=640, help="pictures of each dataset, from 320 (default: 640)")
    parser.add_argument("--pairs", type=int, default=3, help="times that every way is measured (default: 3)")
    parser.add_argument("--json", metavar="PATH", help="write one JSON object to a file, or with - to standard output")
    arguments = parser.parse_args()
    if arguments.samples < 320 or arguments.pairs < 1:  # noqa: PLR2004 - two batches of 128 from four fifths
        parser.error(f"--samples is {arguments.samples} and --pairs {arguments.pairs}; expected at least 320 and 1")

    with tempfile.TemporaryDirectory() as folder:
        rates = measure_all(arguments.samples, arguments.pairs, Path(folder))
    ratios = compare(rates)
    result: dict[str, object] = {
        "command": f"python benchmarks/lab_note.py --samples {arguments.samples} --pairs {arguments.pairs}",
        "machine": describe_machine(),
        "date": datetime.now(UTC).date().isoformat(),
        "samples": arguments.samples,
        "pairs": arguments.pairs,
    }
    text = json.dumps(result | {"images_per_second": rates, "ratios": ratios}, indent=2)
    if arguments.json and arguments.json != "-":
        Path(arguments.json).write_text(f"{text}\n", encoding="utf-8")
    else:
        print(text if arguments.json else format_table(result, rates, ratios))


if __name__ == "__main__":
    sys.exit(main())
