"""Measure ways of doing the same step side by side, and tell what came out; shared by the benchmarks.

A *step* is what is to be done, such as drawing; a *way* is how, and the first way of a step is its baseline. The ways of a step
run one after the other, in an order that turns round from one round to the next, so that a machine that slows down slows all of
them. Ratios are taken within a round.
"""

import argparse
import json
import os
import platform
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

from tqdm import tqdm

from captcha_registry.machine import count_usable_cores

MAX_SAMPLES, MAX_PAIRS = 1_000_000, 100
STDOUT = Path("-")

# Does its work once and returns images per second.
Way = Callable[[], float]
Rounds = Mapping[str, Mapping[str, list[float]]]
Figures = dict[str, dict[str, float]]


def parse_arguments(description: str, *, default_samples: int, min_samples: int, default_pairs: int = 3) -> argparse.Namespace:
    """Read the command line that every benchmark has: `samples`, `pairs` and `json`."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--samples",
        type=_whole_number(min_samples, MAX_SAMPLES),
        default=default_samples,
        help=f"images of each dataset, {min_samples} to {MAX_SAMPLES:,} (default: {default_samples})",
    )
    parser.add_argument(
        "--pairs",
        type=_whole_number(1, MAX_PAIRS),
        default=default_pairs,
        help=f"runs of every way, 1 to {MAX_PAIRS} (default: {default_pairs})",
    )
    parser.add_argument("--json", type=_writable_file, metavar="PATH", help="write JSON to a file, or to stdout with -")
    return parser.parse_args()


def _whole_number(low: int, high: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not (text.isdecimal() and low <= int(text) <= high):
            raise argparse.ArgumentTypeError(f"{text!r} will not do; expected a whole number from {low} to {high:,}")
        return int(text)

    return parse


def _writable_file(text: str) -> Path:
    """Refuse a place that the result could not be written to before minutes are spent on it."""
    path = Path(text)
    if path.is_dir() or not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"{text!r} is a folder or lies in none; expected a file in a folder that exists, or -")
    return path


def time_images(work: Callable[[], object], num_images: int) -> float:
    """Do some work; return images per second."""
    started = time.perf_counter()
    work()
    return num_images / (time.perf_counter() - started)


def measure_in_turn(steps: Mapping[str, Mapping[str, Way]], num_pairs: int) -> Rounds:
    """Run the ways of each step in turn, `num_pairs` times; return what every run gave."""
    rounds: dict[str, dict[str, list[float]]] = {step: {way: [] for way in ways} for step, ways in steps.items()}
    with tqdm(total=num_pairs * sum(map(len, steps.values())), unit=" runs", desc="measuring", disable=None) as progress:
        for step, ways in steps.items():
            for number in range(num_pairs):
                for way in reversed(list(ways)) if number % 2 else ways:
                    progress.set_postfix_str(f"{step}, {way}")
                    rounds[step][way].append(ways[way]())
                    progress.update()
    return rounds


def median_rates(rounds: Rounds) -> Figures:
    """Return the median images per second of every way."""
    return {step: {way: round(median(rates), 1) for way, rates in ways.items()} for step, ways in rounds.items()}


def round_ratios(ways: Mapping[str, list[float]]) -> dict[str, list[float]]:
    """Return how many times as fast as the first way every other one is, in each round."""
    (_, base_rates), *others = ways.items()
    return {way: [rate / base for rate, base in zip(rates, base_rates, strict=True)] for way, rates in others}


def median_ratios(rounds: Rounds) -> Figures:
    """Return the medians over the rounds of the ratios within a round."""
    return {step: {way: round(median(ratios), 3) for way, ratios in round_ratios(ways).items()} for step, ways in rounds.items()}


def describe_machine() -> dict[str, Any]:
    """Name the processor and count its usable cores."""
    cpu_info = Path("/proc/cpuinfo")
    lines = cpu_info.read_text(encoding="utf-8").splitlines() if cpu_info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {"cpu": names[0] if names else platform.processor() or platform.machine(), "cores": count_usable_cores()}


def describe_run(program: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Say what was run, when and where: how the result of every benchmark starts."""
    return {
        "command": f"python {program} --samples {arguments.samples} --pairs {arguments.pairs}",
        "date": datetime.now(UTC).date().isoformat(),
        "machine": describe_machine(),
        "samples": arguments.samples,
        "pairs": arguments.pairs,
    }


def report_rounds(rounds: Rounds, program: str, arguments: argparse.Namespace) -> None:
    """Print the result as Markdown, or write it as JSON where the arguments want it."""
    figures = {"images_per_second": median_rates(rounds), "ratios": median_ratios(rounds)}
    report_result(describe_run(program, arguments) | figures, format_markdown, arguments.json)


def report_result(result: Mapping[str, Any], format_result: Callable[[Mapping[str, Any]], str], path: Path | None) -> None:
    """Print a result as text, or write it as JSON to a path or to stdout."""
    text = json.dumps(result, indent=2)
    if path is None:
        print(format_result(result))
    elif path == STDOUT:
        print(text)
    else:
        path.write_text(f"{text}\n", encoding="utf-8")


def format_markdown(result: Mapping[str, Any]) -> str:
    """Lay a result out as a table below its command, date and machine."""
    rows = []
    for step, ways in result["images_per_second"].items():
        for way, rate in ways.items():
            ratio = result["ratios"][step].get(way)
            names = [step.replace("_", " "), way.replace("_", " ")]
            rows.append([*names, f"{rate:,.1f}", "" if ratio is None else f"{ratio:.2f}"])
    heads = ["step", "way", "images per second", "times the note"]
    return f"{format_title(result)}\n\n{format_table(heads, rows, num_names=2)}"


def format_title(result: Mapping[str, Any]) -> str:
    """Say in one line what was run, when and where."""
    pairs = "1 pair" if result["pairs"] == 1 else f"median of {result['pairs']} pairs"
    machine = f"{result['machine']['cpu']}, {result['machine']['cores']} cores"
    return f"`{result['command']}`, {result['date']}, {machine}, {pairs}"


def format_table(heads: Sequence[str], rows: Iterable[Sequence[str]], *, num_names: int = 1) -> str:
    """Lay cells out as Markdown: first columns of names, then columns of numbers."""
    rule = ["---"] * num_names + ["---:"] * (len(heads) - num_names)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (heads, rule, *rows))


@contextmanager
def on_one_core() -> Iterator[None]:
    """Leave this process, and what it starts, one core."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(cores)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)
