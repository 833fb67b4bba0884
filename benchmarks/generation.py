"""Measure drawing, and predict what a billion samples would cost: `python benchmarks/generation.py`.

draw_ratio    pictures only, one core: `ImageCaptcha.generate_image` of the stock package beside `Drawer.draw`
stage_ratio   from random text to files, one core: `ImageCaptcha.write`, a file per text, beside `draw_shard`, which also hashes,
              indexes and flushes to the disk
cores_ratio   the same shards in one worker process and in two
loop_ratio    a loop that does nothing, in one worker process and in two: what two cores of this machine are worth just now

Each is the median of the ratios within a round, in which both ways run right after each other; random choices belong to both.
Compiling, loading fonts and starting workers come before the clock starts, but for the cost model, which measures runs.
Then, for digits: PNG encoders on the same pictures, the peak memory of a worker, and the cost model (`cost_model.py`).
About 4 minutes on 2 idle cores.
"""

import os
import random
import resource
import sys
import tempfile
import time
import tracemalloc
import zlib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import asdict
from functools import partial
from io import BytesIO
from itertools import product, repeat
from pathlib import Path
from platform import python_version
from statistics import median
from typing import Any
from unittest import mock

import numpy as np
import numpy.typing as npt
from captcha.image import ImageCaptcha
from cost_model import MAX_SHARD_MB, SHARD_SIZES, Cost, Job, fit_costs, predict_dataset, recommend_shard_size, relative_errors
from PIL import Image, features
from timing import (
    Way,
    describe_run,
    format_table,
    format_title,
    measure_in_turn,
    median_rates,
    parse_arguments,
    report_result,
    round_ratios,
    time_images,
)
from tqdm import tqdm

from captcha_registry.dataset.manifest import MANIFEST_NAME, FileEntry, read_manifest
from captcha_registry.dataset.spec import DatasetSpec
from captcha_registry.ends import report_errors
from captcha_registry.generation import png
from captcha_registry.generation.drawing import Drawer
from captcha_registry.generation.executors import local_processes
from captcha_registry.generation.generating import DATASET_PACKAGES, assemble_dataset
from captcha_registry.generation.shards import draw_shard
from captcha_registry.params import load_section
from captcha_registry.workspace import tool_versions

PARAMS_PATH = Path(__file__).resolve().parent.parent / "params.yaml"
DATASETS = ("digits", "alnum")

MIN_SAMPLES, DEFAULT_SAMPLES, DEFAULT_PAIRS = 40, 2000, 5
NUM_WARM_UPS = 200
# Enough for two workers to end at nearly the same time.
NUM_SHARDS = 8
LOOP_TURNS = 10_000

MAX_PICTURES = 100
PILLOW_LEVELS, OUR_LEVELS = (1, 3, 6, 9), range(1, 7)
# Pillow's own choice is level 6, filtered.
PILLOW_STRATEGIES = {
    "default": zlib.Z_DEFAULT_STRATEGY,
    "filtered": zlib.Z_FILTERED,
    "Huffman only": zlib.Z_HUFFMAN_ONLY,
    "RLE": zlib.Z_RLE,
    "fixed": zlib.Z_FIXED,
}

# The model is fitted to all products of: times `--samples` samples, in shards of a part of `--samples`, on so many workers.
POINT_COUNTS, POINT_PARTS, POINT_WORKERS = (1, 8), (20, 2), (1, 2)
# Assembling takes milliseconds here, so once would not do.
NUM_ASSEMBLIES = 7
LARGE_COUNTS = (10_000_000, 1_000_000_000)
POINT_COLUMNS = (
    *("count", "shard_size", "num_workers", "drawing_seconds", "drawing_seconds_error"),
    *("assembling_seconds", "assembling_seconds_error"),
)

Row = dict[str, Any]


def resize_spec(spec: DatasetSpec, count: int, shard_size: int) -> DatasetSpec:
    """Return a spec with another number of samples and shards."""
    return spec.model_copy(update={"count": count, "shard_size": shard_size})


def draw_stock(use: Callable[[str], object], spec: DatasetSpec) -> None:
    """Let the stock package draw random texts."""
    for _ in range(spec.count):
        use("".join(random.choices(spec.alphabet, k=spec.max_length)))  # noqa: S311 - pictures, not secrets


def write_stock(stock: ImageCaptcha, spec: DatasetSpec, folder: Path) -> None:
    """Draw the note's way: a file per text."""
    numbers = iter(range(spec.count))
    draw_stock(lambda text: stock.write(text, str(folder / f"{next(numbers)}-{text}.png")), spec)


def draw_ours(drawer: Drawer) -> int:
    """Draw all samples; return the id of this process."""
    for sample_id in range(drawer.spec.count):
        drawer.draw(sample_id)
    return os.getpid()


def draw_shards(drawer: Drawer, executor: Executor, folder: Path) -> list[FileEntry]:
    """Draw all shards of a dataset."""
    return list(executor.map(draw_shard, repeat(drawer), range(drawer.spec.num_shards), repeat(folder)))


def run_loops(num_loops: int) -> None:
    """Count, for about as long as it takes to draw so many samples."""
    for _ in range(num_loops * LOOP_TURNS):
        pass


def warm_up(executor: Executor, num_workers: int, drawer: Drawer) -> None:
    """Wait until every worker has started and drawn."""
    ready: set[int] = set()
    while len(ready) < num_workers:
        ready.update(executor.map(draw_ours, [drawer] * num_workers))


def time_in_folder(write: Callable[[Path], object], num_images: int) -> float:
    """Write into a new folder; return images per second."""
    with tempfile.TemporaryDirectory(prefix="generation-") as folder:
        return time_images(partial(write, Path(folder)), num_images)


def plan_steps(spec: DatasetSpec, one: Executor, two: Executor) -> dict[str, dict[str, Way]]:
    """Name the ways of every step, and make them warm."""
    stock = ImageCaptcha(spec.width, spec.height, font_sizes=spec.font_sizes)
    few = resize_spec(spec, NUM_WARM_UPS, NUM_WARM_UPS)
    drawer = Drawer(resize_spec(spec, spec.count, spec.count))
    sharded = Drawer(resize_spec(spec, 2 * spec.count, -(-2 * spec.count // NUM_SHARDS)))
    time_in_folder(partial(write_stock, stock, few), few.count)
    time_in_folder(partial(draw_shard, Drawer(few), 0), few.count)
    for sample_id in range(few.count):
        drawer.draw(sample_id)
    warm_up(one, 1, Drawer(few))
    warm_up(two, 2, Drawer(few))
    return {
        "draw": {
            "stock": partial(time_images, partial(draw_stock, stock.generate_image, spec), spec.count),
            "ours": partial(time_images, partial(draw_ours, drawer), spec.count),
        },
        "stage": {
            "note": partial(time_in_folder, partial(write_stock, stock, spec), spec.count),
            "ours": partial(time_in_folder, partial(draw_shard, drawer, 0), spec.count),
        },
        "cores": {
            "one": partial(time_in_folder, partial(draw_shards, sharded, one), sharded.spec.count),
            "two": partial(time_in_folder, partial(draw_shards, sharded, two), sharded.spec.count),
        },
        "loop": {
            name: partial(time_images, lambda e=executor: list(e.map(run_loops, [spec.count // 4] * NUM_SHARDS)), 2 * spec.count)
            for name, executor in (("one", one), ("two", two))
        },
    }


def measure_speed(spec: DatasetSpec, num_pairs: int) -> Row:
    """Measure every step of a dataset; return images per second, and how the ratios spread over the rounds."""
    with local_processes(1) as one, local_processes(2) as two:
        rounds = measure_in_turn(plan_steps(spec, one, two), num_pairs)
    speed: Row = {"images_per_second": median_rates(rounds)}
    for step, ways in rounds.items():
        (ratios,) = round_ratios(ways).values()
        speed[f"{step}_ratio"] = {"median": median(ratios), "min": min(ratios), "max": max(ratios), "rounds": ratios}
    return speed


def encode_with_pillow(images: Sequence[Image.Image], level: int, strategy: int) -> int:
    """Encode images; return their bytes."""
    total = 0
    for image in images:
        image.save(file := BytesIO(), "png", compress_level=level, compress_type=strategy)
        total += file.tell()
    return total


def encode_with_ours(pictures: Sequence[npt.NDArray[np.uint8]], level: int) -> int:
    """Encode pictures with our encoder at any level; return their bytes."""
    with mock.patch.object(png, "_COMPRESSION_LEVEL", level):
        return sum(len(png.encode_png(pixels)) for pixels in pictures)


def measure_png(drawer: Drawer, num_pictures: int, num_pairs: int) -> list[Row]:
    """Measure PNG encoders on the same pictures."""
    pictures = [drawer.draw(sample_id).pixels for sample_id in range(num_pictures)]
    images = [Image.fromarray(pixels) for pixels in pictures]
    encoders = {
        f"Pillow, level {level}, {name}": partial(encode_with_pillow, images, level, strategy)
        for level, (name, strategy) in product(PILLOW_LEVELS, PILLOW_STRATEGIES.items())
    } | {f"ours, level {level}": partial(encode_with_ours, pictures, level) for level in OUR_LEVELS}
    sizes = {name: encode() / num_pictures for name, encode in encoders.items()}
    ways = {name: partial(time_images, encode, num_pictures) for name, encode in encoders.items()}
    rates = measure_in_turn({"png": ways}, num_pairs)["png"]
    return [{"encoder": name, "microseconds": 1e6 / median(rates[name]), "bytes": sizes[name]} for name in encoders]


def draw_and_weigh(drawer: Drawer, shard_number: int, folder: Path) -> float:
    """Draw a shard; return the most memory that this process has held, in MB."""
    draw_shard(drawer, shard_number, folder)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6


def measure_memory(spec: DatasetSpec) -> list[Row]:
    """Measure the peak memory of a new worker after one shard of all samples, and after three."""
    drawer = Drawer(resize_spec(spec, 3 * spec.count, spec.count))
    with local_processes(1) as executor, tempfile.TemporaryDirectory(prefix="generation-") as folder:
        peaks = list(executor.map(draw_and_weigh, repeat(drawer), range(3), repeat(Path(folder))))
    return [{"samples": num_shards * spec.count, "peak_mb": peaks[num_shards - 1]} for num_shards in (1, 3)]


def measure_job(spec: DatasetSpec, job: Job, folder: Path) -> dict[str, float]:
    """Draw a dataset as the stage does, workers' start included; return what it takes."""
    drawer = Drawer(resize_spec(spec, job.count, job.shard_size))
    started = time.perf_counter()
    with local_processes(job.num_workers) as executor:
        shards = draw_shards(drawer, executor, folder)
    drawing_seconds = time.perf_counter() - started
    assembling_seconds = []
    for number in range(NUM_ASSEMBLIES):
        started = time.perf_counter()
        manifest = assemble_dataset("measured", drawer, shards, folder, dataset_dir := folder / f"dataset-{number}")
        assembling_seconds.append(time.perf_counter() - started)
    tracemalloc.start()
    read_manifest(dataset_dir)
    _, manifest_memory = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return {
        "drawing_seconds": drawing_seconds,
        "assembling_seconds": median(assembling_seconds),
        "shard_bytes": sum(shard.size_bytes for shard in shards),
        "index_bytes": manifest.index.size_bytes,
        "manifest_bytes": (dataset_dir / MANIFEST_NAME).stat().st_size,
        "manifest_memory_bytes": manifest_memory,
    }


def measure_costs(spec: DatasetSpec) -> Row:
    """Measure small runs, fit the model to them, and predict large ones."""
    points: list[Row] = []
    for times, part, num_workers in tqdm(list(product(POINT_COUNTS, POINT_PARTS, POINT_WORKERS)), "fitting", disable=None):
        job = Job(times * spec.count, spec.count // part, num_workers)
        with tempfile.TemporaryDirectory(prefix="generation-") as folder:
            points.append(asdict(job) | measure_job(spec, job, Path(folder)))
    costs = fit_costs(points)
    shard_size = recommend_shard_size(costs["shard_bytes"].per_sample)
    return {
        "terms": {name: asdict(cost) for name, cost in costs.items()},
        "points": [point | relative_errors(costs, point) for point in points],
        "predictions": [predict_dataset(costs, count, size) for count, size in product(LARGE_COUNTS, SHARD_SIZES)],
        "recommended_shard_size": shard_size,
        "reason": explain_shard_size(costs, shard_size),
    }


def explain_shard_size(costs: Mapping[str, Cost], shard_size: int) -> str:
    """Say what a shard size means for the largest dataset, beside the smallest of `SHARD_SIZES`."""
    count, smallest_size = max(LARGE_COUNTS), min(SHARD_SIZES)
    chosen, smallest = (predict_dataset(costs, count, size) for size in (shard_size, smallest_size))
    return (
        f"{shard_size:,} samples are {chosen['shard_mb']:.0f} MB: the largest of these sizes within {MAX_SHARD_MB} MB, so that a "
        f"shard is quick to fetch, to check and to draw again. {count:,} samples are then {chosen['shards']:,} shards; reading "
        f"their manifest takes {chosen['manifest_memory_mb']:.0f} MB of memory, and {smallest['manifest_memory_mb']:.0f} MB with "
        f"{smallest_size:,} samples in a shard."
    )


def measure_everything(num_samples: int, num_pairs: int) -> Row:
    """Run every measurement."""
    specs = {
        name: resize_spec(load_section(DatasetSpec, f"datasets.{name}", PARAMS_PATH), num_samples, num_samples)
        for name in DATASETS
    }
    digits = specs["digits"]
    # First, while this process is small: a new process starts with the peak of the one that made it.
    memory = measure_memory(digits)
    speeds = {name: measure_speed(spec, num_pairs) for name, spec in specs.items()}
    return {
        "versions": tool_versions((*DATASET_PACKAGES, "numpy"))
        | {"python": python_version(), "zlib of pillow": str(features.version("zlib"))},
        **{key: ratio["median"] for key, ratio in speeds["digits"].items() if key.endswith("_ratio")},
        "datasets": speeds,
        "png": measure_png(Drawer(digits), min(num_samples, MAX_PICTURES), num_pairs),
        "memory": memory,
        "cost_model": measure_costs(digits),
    }


def format_result(result: Mapping[str, Any]) -> str:
    """Lay a result out as Markdown."""
    model = result["cost_model"]
    speeds = []
    for name, speed in result["datasets"].items():
        for step, ways in speed["images_per_second"].items():
            (base, base_rate), (way, rate) = ways.items()
            ratio = {key: value for key, value in speed[f"{step}_ratio"].items() if key != "rounds"}
            speeds.append({"step": f"{name}, {step}: {way} / {base}", "per_second": rate, "baseline": base_rate} | ratio)
    tables = {
        "Images per second": format_rows(speeds),
        "PNG encoders, each picture": format_rows(result["png"]),
        "Peak memory of a worker": format_rows(result["memory"]),
        "Terms of the cost model": format_rows([{"cost": name} | terms for name, terms in model["terms"].items()]),
        "Measured runs and the model's relative errors": format_rows(
            [{key: row[key] for key in POINT_COLUMNS} for row in model["points"]]
        ),
        "Predictions": format_rows(model["predictions"]) + "\n\n" + model["reason"],
    }
    return "\n\n".join([format_title(result), *(f"## {title}\n\n{table}" for title, table in tables.items())])


def format_rows(rows: Sequence[Row]) -> str:
    """Lay rows with the same keys out as a table."""
    cells = [[_format_value(value) for value in row.values()] for row in rows]
    return format_table([key.replace("_", " ") for key in rows[0]], cells)


def _format_value(value: float | str) -> str:
    if isinstance(value, float):
        return f"{value:,.0f}" if "e+" in f"{value:.3g}" else f"{value:.3g}"
    return value if isinstance(value, str) else f"{value:,}"


def main() -> None:
    """Measure, then print or write what came out."""
    arguments = parse_arguments(
        __doc__ or "", default_samples=DEFAULT_SAMPLES, min_samples=MIN_SAMPLES, default_pairs=DEFAULT_PAIRS
    )
    result = describe_run("benchmarks/generation.py", arguments) | measure_everything(arguments.samples, arguments.pairs)
    report_result(shorten(result), format_result, arguments.json)


def shorten(value: Any) -> Any:
    """Round all numbers inside to five digits."""
    if isinstance(value, dict):
        return {key: shorten(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [shorten(inner) for inner in value]
    return float(f"{value:.5g}") if isinstance(value, float) else value


if __name__ == "__main__":
    with report_errors():
        main()
