"""`captcha-registry repair`: redraw exactly what is damaged in a dataset."""

import argparse
import time
from pathlib import Path

from captcha_registry.generation.executors import count_usable_cores, local_processes

HELP = "redraw exactly what is damaged"
DESCRIPTION = "Put back renamed and swapped files, redraw damaged ones, and prove that the bytes are the old ones."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the command takes."""
    parser.add_argument("path", help="folder of the dataset, such as data/digits")
    parser.add_argument("--workers", type=int, default=count_usable_cores(), help="processes (default: every core)")


def run(arguments: argparse.Namespace) -> int:
    """Redraw what is damaged in a dataset."""
    # The compiler and all else that drawing needs take seconds to load, which the other commands should not wait for.
    from captcha_registry.generation.repair import repair_dataset  # noqa: PLC0415

    started = time.perf_counter()
    with local_processes(arguments.workers) as executor:
        lines = repair_dataset(Path(arguments.path), executor)
    for line in lines:
        print(line)
    done = "repaired" if lines else "nothing to repair"
    print(f"{arguments.path}: {done}, {time.perf_counter() - started:.1f} s")
    return 0
