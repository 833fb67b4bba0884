"""Measure how quickly samples at random places of a dataset are read and decoded, on one core, and how quickly it is opened.

Reads `data/digits`, which `make repro` or `dvc pull` makes. The baseline is a folder with one PNG file per sample, read with
Pillow and not checked; ours reads a record out of its shard, checks both its checksums and the hash of its pixels.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median

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
from captcha_registry.registry.export import export_dataset

DATASET = Path("data/digits")
DEFAULT_SAMPLES, MIN_SAMPLES = 5_000, 10
OPEN = """
import sys, time
from captcha_registry import load
started = time.perf_counter()
load("data/digits")
print(time.perf_counter() - started)
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


def time_opening() -> float:
    """Open the dataset in a fresh process; return the seconds that this took after `load` was imported."""
    done = subprocess.run([sys.executable, "-c", OPEN], capture_output=True, text=True, check=True)
    return float(done.stdout)


def format_result(result: dict[str, object]) -> str:
    """Lay the result out as a table."""
    rates, ratios = result["images_per_second"]["random"], result["ratios"]["random"]  # type: ignore[index]
    rows = [[way, f"{rate:,.0f}", f"{ratios[way]:.2f}" if way in ratios else ""] for way, rate in rates.items()]
    table = format_table(["random samples", "per second", "times files"], rows)
    return f"{format_title(result)}\n\n{table}\n\nOpened in {result['open_seconds']:.3f} s, in a fresh process."  # type: ignore[arg-type]


def main() -> None:
    """Measure, then print or write what came out."""
    arguments = parse_arguments(__doc__ or "", default_samples=DEFAULT_SAMPLES, min_samples=MIN_SAMPLES)
    if not DATASET.is_dir():
        raise UserError(f"{DATASET} is not here: run `make repro`, or `dvc pull {DATASET}`, in the project's folder")
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
    result |= {"open_seconds": round(median(time_opening() for _ in range(arguments.pairs)), 4)}
    report_result(result, format_result, arguments.json)


if __name__ == "__main__":
    with report_errors():
        main()
