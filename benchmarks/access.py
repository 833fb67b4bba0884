"""Measure on one core how quickly samples at random places of a dataset are read, and how quickly it is opened and compared.

Reads `data/digits`, which `make repro` or `dvc pull` makes. The baseline is a folder with one PNG file per sample, read with
Pillow and not checked; ours reads a record out of its shard, checks both its checksums and the hash of its pixels.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from PIL import Image
from timing import (
    describe_run,
    format_table,
    format_title,
    measure_in_turn,
    median_rates,
    median_ratios,
    parse_arguments,
    report_result,
    time_images,
)

import captcha_registry
from captcha_registry.dataset.dataset import CaptchaDataset
from captcha_registry.errors import UserError, report_errors
from captcha_registry.registry.diff import DatasetVersion, diff_datasets
from captcha_registry.registry.export import export_dataset
from captcha_registry.registry.versions import read_folder

DATASET = Path("data/digits")
DEFAULT_SAMPLES, MIN_SAMPLES = 5_000, 10
OPEN = """
import sys, time
started = time.perf_counter()
from captcha_registry import load
imported = time.perf_counter()
load("data/digits")
print(imported - started, time.perf_counter() - imported)
assert not {"tensorflow", "pandas"} & set(sys.modules)
"""


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
    rates, ratios = result["images_per_second"]["random"], result["ratios"]["random"]
    rows = [[way, f"{rate:,.0f}", f"{ratios[way]:.2f}" if way in ratios else ""] for way, rate in rates.items()]
    table = format_table(["random samples", "per second", "times files"], rows)
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
    # One core, as the goal says.
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    dataset = captcha_registry.load(DATASET)
    numbers = np.random.default_rng(1).permutation(len(dataset))[: arguments.samples].tolist()
    with tempfile.TemporaryDirectory(prefix="access-") as folder:
        export_dataset(dataset[sorted(numbers)], "images", Path(folder) / "files")
        files = {int(path.stem): path for path in Path(folder).rglob("*.png")}
        work: dict[str, Callable[[], None]] = {
            "files": partial(read_files, [files[number] for number in numbers]),
            "ours": partial(read_samples, dataset, numbers),
        }
        ways = {name: partial(time_images, way, len(numbers)) for name, way in work.items()}
        rounds = measure_in_turn({"random": ways}, arguments.pairs)
    result = describe_run("benchmarks/access.py", arguments)
    result |= {"images_per_second": median_rates(rounds), "ratios": median_ratios(rounds)}
    import_seconds, open_seconds = map(median, zip(*(time_opening() for _ in range(arguments.pairs)), strict=True))
    seconds = {"import": import_seconds, "open": open_seconds, "diff": median(time_diff() for _ in range(arguments.pairs))}
    result |= {"rows": len(dataset), "seconds": {name: round(value, 4) for name, value in seconds.items()}}
    report_result(result, format_result, arguments.json)


if __name__ == "__main__":
    with report_errors():
        main()
