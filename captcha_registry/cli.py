"""The `captcha-registry` command: check and repair datasets."""

import argparse
import json
import sys
import time
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from typing import get_args

from captcha_registry.dataset.verify import Depth, Problem, verify_dataset
from captcha_registry.errors import report_errors
from captcha_registry.generation.executors import count_usable_cores, local_processes

MAX_PROBLEMS_SHOWN = 20


def verify(arguments: argparse.Namespace) -> int:
    """Check a dataset; return 1 if anything is wrong with it."""
    started = time.perf_counter()
    workers = count_usable_cores()
    # Hashing runs beside other threads; looking into records does not.
    executor: AbstractContextManager[Executor] = (
        local_processes(workers) if arguments.depth == "deep" else ThreadPoolExecutor(workers)
    )
    with executor as running:
        problems = verify_dataset(arguments.path, arguments.depth, running)
    if arguments.json:
        print(json.dumps(_to_json(arguments.path, arguments.depth, problems), indent=2))
    else:
        _print_problems(problems)
        seconds = time.perf_counter() - started
        found = f"{len(problems):,} problem{'s' if len(problems) > 1 else ''}" if problems else "nothing wrong"
        print(f"{arguments.path}: {found} at depth {arguments.depth}, {seconds:.1f} s")
    return 1 if problems else 0


def _to_json(root: Path, depth: Depth, problems: list[Problem]) -> dict[str, object]:
    listed = [{"path": p.path.relative_to(root).as_posix(), "kind": p.kind, "what": p.what} for p in problems]
    return {"path": str(root), "depth": depth, "ok": not problems, "problems": listed}


def _print_problems(problems: list[Problem]) -> None:
    for problem in problems[:MAX_PROBLEMS_SHOWN]:
        print(problem)
    if len(problems) > MAX_PROBLEMS_SHOWN:
        print(f"... and {len(problems) - MAX_PROBLEMS_SHOWN:,} more: --json lists all")


def repair(arguments: argparse.Namespace) -> int:
    """Redraw what is damaged in a dataset."""
    # The compiler and all else that drawing needs take seconds to load, which `verify` should not wait for.
    from captcha_registry.generation.repair import repair_dataset  # noqa: PLC0415

    started = time.perf_counter()
    with local_processes(arguments.workers) as executor:
        lines = repair_dataset(arguments.path, executor)
    for line in lines:
        print(line)
    done = "repaired" if lines else "nothing to repair"
    print(f"{arguments.path}: {done}, {time.perf_counter() - started:.1f} s")
    return 0


def make_parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    parser = argparse.ArgumentParser(prog="captcha-registry", description="Check and repair captcha datasets.")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    command = commands.add_parser(
        "verify",
        help="name whatever is wrong with a dataset",
        description="Name whatever is wrong with a dataset. Exit code: 0 nothing, 1 something, 2 it could not be checked.",
    )
    command.add_argument("path", type=Path, help="folder of the dataset, such as data/digits")
    command.add_argument(
        "--depth",
        choices=get_args(Depth),
        default="full",
        help="quick: names, sizes, counts | full: every byte's SHA-256 (default) | deep: every record, picture and label",
    )
    command.add_argument("--json", action="store_true", help="print one JSON object with every problem")
    command.set_defaults(run=verify)

    command = commands.add_parser(
        "repair",
        help="redraw exactly what is damaged",
        description="Put back renamed and swapped files, redraw damaged ones, and prove that the bytes are the old ones.",
    )
    command.add_argument("path", type=Path, help="folder of the dataset, such as data/digits")
    command.add_argument("--workers", type=int, default=count_usable_cores(), help="processes (default: every core)")
    command.set_defaults(run=repair)
    return parser


def main() -> None:
    """Run the command."""
    arguments = make_parser().parse_args()
    with report_errors():
        sys.exit(arguments.run(arguments))


if __name__ == "__main__":
    main()
