"""Measure how quickly a dataset is read: in batches for TensorFlow, and at random places; how quickly it is opened and compared.

Reads `data/digits`, which `make repro` or `dvc pull` makes.

- Batches, on all cores: `to_tf` beside plain tf.data, with interleaved shards whose records nothing but their checksums verifies.
  *cold* reads and decodes every picture, *cached* shuffles pictures that an epoch before has decoded and kept in memory.
- A loop over samples, which reads ahead, beside one sample after the other: from this disk, and from files of which each read
  takes 20 ms, as at a remote, in the order of the index and in another.
- Random samples, on one core: the baseline is a folder with one PNG file per sample, read with Pillow and not checked; ours
  reads a record out of its shard, checks both its checksums and the hash of its pixels.
"""

import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from PIL import Image
from timing import (
    Way,
    describe_run,
    format_table,
    format_title,
    measure_in_turn,
    median_rates,
    median_ratios,
    on_one_core,
    parse_arguments,
    report_result,
    time_images,
)

import captcha_registry
from captcha_registry import LoadedDataset
from captcha_registry.dataset.dataset import CaptchaDataset
from captcha_registry.dataset.files import LocalFiles
from captcha_registry.dataset.quiet_tensorflow import tf
from captcha_registry.ends import report_errors
from captcha_registry.errors import UserError
from captcha_registry.export import export_dataset
from captcha_registry.registry.diff import DatasetVersion, diff_datasets
from captcha_registry.registry.versions import read_folder

DATASET = Path("data/digits")
# What a read takes at a remote.
DELAY_SECONDS = 0.02
DEFAULT_SAMPLES, MIN_SAMPLES = 5_000, 10
# So many samples are read there, and so many of them one by one.
MAX_REMOTE_SAMPLES, MAX_ALONE = 2_000, 100
BATCH_SIZE, CACHED_EPOCHS = 128, 5
OPEN = """
import sys, time
started = time.perf_counter()
from captcha_registry import load
imported = time.perf_counter()
load("data/digits")
print(imported - started, time.perf_counter() - imported)
assert not {"tensorflow", "pandas"} & set(sys.modules)
"""


class SlowFiles(LocalFiles):
    """The files of a dataset, as if they were at a remote."""

    def read(self, path: str, offset: int, length: int) -> bytes:
        """Read some bytes of a file."""
        time.sleep(DELAY_SECONDS)
        return super().read(path, offset, length)


def plan_loops(samples: LoadedDataset) -> dict[str, dict[str, Way]]:
    """Name the ways of reading one sample after the other."""
    away = replace(samples[:MAX_REMOTE_SAMPLES], files=SlowFiles(samples.root, samples.manifest.entries))

    def compare(chosen: LoadedDataset, num_alone: int) -> dict[str, Way]:
        alone = partial(read_samples, chosen, list(range(num_alone)))
        return {
            "one by one": partial(time_images, alone, num_alone),
            "loop": partial(time_images, partial(deque, chosen, 0), len(chosen)),
        }

    num_alone = min(len(samples), MAX_ALONE)
    return {
        "disk": compare(samples, len(samples)),
        "remote": compare(away, num_alone),
        "remote, any order": compare(away.shuffle(seed=1), num_alone),
    }


def plan_batches(samples: CaptchaDataset) -> dict[str, dict[str, Way]]:
    """Name the ways of feeding batches, cold and cached."""
    plain, ours = make_plain_samples(samples), partial(samples.to_tf, batch_size=BATCH_SIZE)
    cached = plain.cache().shuffle(len(samples), seed=1, reshuffle_each_iteration=True)

    def measure(batches: tf.data.Dataset, *, skipped: int = 0, epochs: int = 1) -> float:
        read_epochs(batches, skipped)
        return time_images(partial(read_epochs, batches, epochs), epochs * len(samples))

    def batch(images: tf.data.Dataset) -> tf.data.Dataset:
        return images.batch(BATCH_SIZE, num_parallel_calls=tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)

    return {
        "cold": {"plain": lambda: measure(batch(plain)), "ours": lambda: measure(ours())},
        "cached": {
            "plain": lambda: measure(batch(cached), skipped=1, epochs=CACHED_EPOCHS),
            "ours": lambda: measure(ours(shuffle=True, seed=1, cache=True), skipped=1, epochs=CACHED_EPOCHS),
        },
    }


def make_plain_samples(samples: CaptchaDataset) -> tf.data.Dataset:
    """Read the same shards with tf.data alone, as many pictures and labels as there are samples."""
    features = {name: tf.io.FixedLenFeature([], tf.string) for name in ("image", "label")}
    height, width = samples.manifest.spec.height, samples.manifest.spec.width

    def decode(record: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        sample = tf.io.parse_single_example(record, features)
        return tf.ensure_shape(tf.io.decode_png(sample["image"], channels=3), (height, width, 3)), sample["label"]

    paths = [str(samples.root / path) for path in dict.fromkeys(samples.index["shard"].to_pylist())]
    records = tf.data.Dataset.from_tensor_slices(paths).interleave(
        tf.data.TFRecordDataset, cycle_length=4, block_length=16, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True
    )
    return records.take(len(samples)).map(decode, num_parallel_calls=tf.data.AUTOTUNE)


def read_epochs(batches: tf.data.Dataset, num_epochs: int) -> None:
    """Read all batches a number of times."""
    for _ in range(num_epochs):
        for _batch in batches:
            pass


def read_files(paths: list[Path]) -> None:
    """Decode picture files."""
    for path in paths:
        with Image.open(path) as picture:
            np.asarray(picture)


def read_samples(dataset: CaptchaDataset, numbers: list[int]) -> None:
    """Decode samples."""
    for number in numbers:
        _ = dataset[number].image


def time_opening() -> tuple[float, float]:
    """Open the dataset in a fresh process; return the seconds that importing `load` took, and that the call took."""
    done = subprocess.run([sys.executable, "-c", OPEN], capture_output=True, text=True, check=True)
    import_seconds, open_seconds = map(float, done.stdout.split())
    return import_seconds, open_seconds


def time_diff() -> float:
    """Compare the dataset with itself without its last sample; return the seconds, reading and hashing of indexes included."""
    started = time.perf_counter()
    old, new = read_folder(DATASET), read_folder(DATASET)
    if not isinstance(old, DatasetVersion) or not isinstance(new, DatasetVersion):
        raise UserError(f"{DATASET} holds a model; expected a dataset")
    diff_datasets(replace(old, index=old.index.slice(0, old.index.num_rows - 1)), new)
    return time.perf_counter() - started


def format_result(result: Mapping[str, Any]) -> str:
    """Lay the result out as a table."""
    rows = []
    for step, rates in result["images_per_second"].items():
        ratios = result["ratios"][step]
        rows += [[step, way, f"{rate:,.0f}", f"{ratios[way]:.2f}" if way in ratios else ""] for way, rate in rates.items()]
    table = format_table(["samples", "way", "per second", "times the first way"], rows, num_names=2)
    seconds = result["seconds"]
    rest = (
        f"A fresh process imports `load` in {seconds['import']:.3f} s, of which most are NumPy's, PyArrow's and pydantic's, and "
        f"opens {result['rows']:,} samples in {seconds['open']:.3f} s. Comparing two indexes of as many takes "
        f"{seconds['diff']:.2f} s."
    )
    return f"{format_title(result)}\n\n{table}\n\n{rest}"


def main() -> None:
    """Measure, then print or write what came out."""
    arguments = parse_arguments(__doc__ or "", default_samples=DEFAULT_SAMPLES, min_samples=MIN_SAMPLES)
    if not DATASET.is_dir():
        raise UserError(f"{DATASET} is not here: run `make repro`, or `dvc pull --allow-missing`, in the project's folder")
    dataset = captcha_registry.load(DATASET)
    chosen = dataset[: arguments.samples]
    rounds = dict(measure_in_turn(plan_batches(chosen) | plan_loops(chosen), arguments.pairs))
    # As the goal says.
    with on_one_core():
        numbers = np.random.default_rng(1).permutation(len(dataset))[: arguments.samples].tolist()
        with tempfile.TemporaryDirectory(prefix="access-") as folder:
            export_dataset(dataset[sorted(numbers)], "images", Path(folder) / "files")
            files = {int(path.stem): path for path in Path(folder).rglob("*.png")}
            work: dict[str, Callable[[], None]] = {
                "files": partial(read_files, [files[number] for number in numbers]),
                "ours": partial(read_samples, dataset, numbers),
            }
            ways = {name: partial(time_images, way, len(numbers)) for name, way in work.items()}
            rounds |= measure_in_turn({"random": ways}, arguments.pairs)
        result = describe_run("benchmarks/access.py", arguments)
        result |= {"images_per_second": median_rates(rounds), "ratios": median_ratios(rounds)}
        import_seconds, open_seconds = map(median, zip(*(time_opening() for _ in range(arguments.pairs)), strict=True))
        seconds = {"import": import_seconds, "open": open_seconds, "diff": median(time_diff() for _ in range(arguments.pairs))}
        result |= {"rows": len(dataset), "seconds": {name: round(value, 4) for name, value in seconds.items()}}
    report_result(result, format_result, arguments.json)


if __name__ == "__main__":
    with report_errors():
        main()
