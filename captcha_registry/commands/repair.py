"""`captcha-registry repair`: redraw exactly what is damaged in a dataset."""

import argparse
import time
from pathlib import Path

from captcha_registry.generation.executors import count_usable_cores, local_processes

HELP = "redraw exactly what is damaged"
DESCRIPTION = (
    "Put back renamed and swapped files, redraw damaged ones, and prove that the bytes are the old ones. "
    "Exit code: 0 all is well, 1 files that the manifest does not name are left, 2 it could not be repaired."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the command takes."""
    parser.add_argument("path", help="folder of the dataset, such as data/digits")
    parser.add_argument("--workers", type=int, default=count_usable_cores(), help="processes (default: every core)")


def run(arguments: argparse.Namespace) -> int:
    """Redraw what is damaged in a dataset; return 1 if something is left that does not belong there."""
    # The compiler and all else that drawing needs take seconds to load, which the other commands should not wait for.
    from captcha_registry.generation.repair import repair_dataset  # noqa: PLC0415

    started = time.perf_counter()
    with local_processes(arguments.workers) as executor:
        mended, extras = repair_dataset(Path(arguments.path), executor)
    for line in mended:
        print(line)
    for path in extras:
        print(f"{path}: left alone, the manifest does not name it")
    done = "repaired" if mended else "nothing to repair"
    left = f"; {len(extras)} left alone: delete what you do not need" if extras else ""
    print(f"{arguments.path}: {done}{left}, {time.perf_counter() - started:.1f} s")
    return 1 if extras else 0
