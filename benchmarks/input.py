"""Measure how fast trainings get their input: input alone, in images a second, and how much of its time a network waits for it.

Reads the datasets of all models, which `make repro` or `dvc pull` makes.

cold    reads and decodes every sample of the train split
cached  shuffles pictures that are decoded and in memory: what `fresh: 0.0` trains on from the first step
fresh   draws every picture: `fresh: 1.0`
recipe  what the model trains on: as many of both as its own `fresh` says
"""

import argparse
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from timing import (
    Way,
    describe_run,
    format_table,
    format_title,
    measure_in_turn,
    median_rates,
    parse_arguments,
    report_result,
    time_images,
)

from captcha_registry.dataset.dataset import CaptchaDataset
from captcha_registry.dataset.folder import open_folder
from captcha_registry.ends import report_errors
from captcha_registry.machine import keep_freed_memory
from captcha_registry.params import read_params
from captcha_registry.recognition.recipe import ModelParams, load_model_params

DEFAULT_SAMPLES, MIN_SAMPLES = 5_000, 40
ALONE, WAITING = "images a second", "% of the time waiting"


def change_fresh(params: ModelParams, fresh: float) -> ModelParams:
    """Let a model train on another share of fresh pictures."""
    return params.model_copy(update={params.preset: params.recipe.model_copy(update={"fresh": fresh})})


def read_cold(samples: CaptchaDataset, batch_size: int) -> float:
    """Read and decode all samples once, in a shuffled order; return images a second."""
    batches = samples.to_tf(batch_size=batch_size, shuffle=True, seed=1)
    return time_images(lambda: list(map(len, batches)), len(samples))


def plan_steps(name: str, num_samples: int) -> dict[str, dict[str, Way]]:
    """Name the ways of feeding a model, alone and with the network."""
    # Not at the top: the processes that draw import this file, too, and need no TensorFlow.
    from timed_training import measure_input, measure_waiting  # noqa: PLC0415

    params = load_model_params(name)
    samples = open_folder(Path("data") / params.dataset).split("train")[:num_samples]
    num_steps = max(1, num_samples // params.recipe.batch_size)
    ways = {"cached": change_fresh(params, 0.0), "fresh": change_fresh(params, 1.0), "recipe": params}
    return {
        f"{name}, {ALONE}": {
            "cold": partial(read_cold, samples, params.recipe.batch_size),
            **{way: partial(measure_input, changed, samples, num_steps) for way, changed in ways.items()},
        },
        f"{name}, {WAITING}": {way: partial(measure_waiting, changed, samples, num_steps) for way, changed in ways.items()},
    }


def format_result(result: Mapping[str, Any]) -> str:
    """Lay the result out as a table."""
    rows = [[step, way, f"{value:,.1f}"] for step, ways in result["medians"].items() for way, value in ways.items()]
    return f"{format_title(result)}\n\n{format_table(['training', 'input', 'median'], rows, num_names=2)}"


def main(arguments: argparse.Namespace) -> dict[str, Any]:
    """Measure every model; return what came out."""
    steps = {step: ways for name in read_params()["models"] for step, ways in plan_steps(name, arguments.samples).items()}
    return describe_run("benchmarks/input.py", arguments) | {"medians": median_rates(measure_in_turn(steps, arguments.pairs))}


if __name__ == "__main__":
    with report_errors():
        chosen = parse_arguments(__doc__ or "", default_samples=DEFAULT_SAMPLES, min_samples=MIN_SAMPLES)
        keep_freed_memory()
        from captcha_registry.recognition.training import order_operations

        order_operations()
        report_result(main(chosen), format_result, chosen.json)
