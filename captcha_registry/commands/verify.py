"""`captcha-registry verify`: check a dataset and list its problems."""

import argparse
import json
import time
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from typing import get_args

from captcha_registry.dataset.manifest import count_samples, read_fetched_splits
from captcha_registry.dataset.verify import Depth, Problem, advise_cure, verify_dataset
from captcha_registry.errors import show_path
from captcha_registry.generation.executors import open_local
from captcha_registry.machine import count_usable_cores, expand_home

HELP = "check a dataset and list its problems"
DESCRIPTION = (
    "Check a dataset and list its problems. Exit code: 0 if there are none, 1 if there are some, 2 if it could not be checked."
)

MAX_PROBLEMS_SHOWN = 20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the command takes."""
    parser.add_argument("path", help="folder of the dataset, such as data/digits")
    parser.add_argument(
        "--depth",
        choices=get_args(Depth),
        default="full",
        help="quick: names and sizes | full: every byte, by SHA-256 (default) | deep: every record and picture",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object with every problem")


def run(arguments: argparse.Namespace) -> int:
    """Check a dataset; return 1 if anything is wrong with it."""
    started = time.perf_counter()
    root = expand_home(arguments.path)
    # Hashing runs beside other threads; looking into records does not.
    executor: AbstractContextManager[Executor] = (
        open_local(count_samples(root)) if arguments.depth == "deep" else ThreadPoolExecutor(count_usable_cores())
    )
    with executor as running:
        splits = read_fetched_splits(root)
        problems = verify_dataset(root, arguments.depth, running, splits=splits)
    if arguments.json:
        print(json.dumps(_to_json(root, arguments.depth, splits, problems), indent=2))
    else:
        _print_problems(problems)
        seconds = time.perf_counter() - started
        found = f"{len(problems):,} problem{'s' if len(problems) > 1 else ''}" if problems else "nothing wrong"
        only = f"; only {' and '.join(sorted(splits))} was fetched" if splits else ""
        said = f"{show_path(root)}: {found} at depth {arguments.depth}{only}, {seconds:.1f} s"
        print(": ".join(filter(None, [said, advise_cure(root, problems)])))
    return 1 if problems else 0


def _to_json(root: Path, depth: Depth, splits: frozenset[str] | None, problems: list[Problem]) -> dict[str, object]:
    listed = [{"path": p.path.relative_to(root).as_posix(), "kind": p.kind, "what": p.what} for p in problems]
    fetched = None if splits is None else sorted(splits)
    return {"path": str(root), "depth": depth, "fetched": fetched, "ok": not problems, "problems": listed}


def _print_problems(problems: list[Problem]) -> None:
    # One cut shard has hundreds of records; what is wrong with a complete file comes first.
    problems = sorted(problems, key=lambda problem: problem.kind == "record")
    for problem in problems[:MAX_PROBLEMS_SHOWN]:
        print(problem)
    if len(problems) > MAX_PROBLEMS_SHOWN:
        print(f"... and {len(problems) - MAX_PROBLEMS_SHOWN:,} more: --json lists all")
