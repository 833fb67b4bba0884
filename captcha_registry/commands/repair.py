"""`captcha-registry repair`: draw damaged files of a dataset again."""

import argparse
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING

from captcha_registry.dataset.manifest import count_samples
from captcha_registry.dataset.verify import require_dataset
from captcha_registry.errors import show_path
from captcha_registry.extras import needs
from captcha_registry.generation.executors import FEW_SAMPLES, open_local
from captcha_registry.machine import expand_home

if TYPE_CHECKING:
    from captcha_registry.generation.repair import Repair

HELP = "draw damaged files of a dataset again"
DESCRIPTION = (
    "Put renamed and swapped files back, draw damaged ones again, and verify that their bytes are the old ones. "
    "Exit code: 0 if all is well, 1 if files are left that the manifest does not name, 2 if a file could not be repaired."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the command takes."""
    parser.add_argument("path", help="folder of the dataset, such as data/digits")
    parser.add_argument(
        "--workers",
        type=int,
        help=f"processes (default: one a core, as memory allows; none for up to {FEW_SAMPLES:,} samples)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object with what was repaired and what was left")


def run(arguments: argparse.Namespace) -> int:
    """Draw again what is damaged in a dataset; return 1 if something is left that does not belong there, 2 if damage is left."""
    started, root = time.perf_counter(), expand_home(arguments.path)
    require_dataset(root)
    # The compiler and all else that drawing needs take seconds to load, which the other commands should not wait for.
    with needs("repair", extra="draw"):
        from captcha_registry.generation.repair import REPAIR_DEPTH, repair_dataset  # noqa: PLC0415

    with open_local(count_samples(root), arguments.workers) as executor:
        repair = repair_dataset(root, executor)
    if arguments.json:
        print(json.dumps(_to_json(root, REPAIR_DEPTH, repair), indent=2))
    else:
        _print_lines(repair)
        print(f"{show_path(root)}: {_sum_up(repair, REPAIR_DEPTH)}, {time.perf_counter() - started:.1f} s")
    return 2 if repair.failed else 1 if repair.extras else 0


def _to_json(root: Path, depth: str, repair: "Repair") -> dict[str, object]:
    repaired, failed = (
        [{"path": path, "what": what} for path, what in files.items()] for files in (repair.repaired, repair.failed)
    )
    extras = [extra.relative_to(root).as_posix() for extra in repair.extras]
    told = {"repaired": repaired, "not_repaired": failed, "left_alone": extras}
    return {"path": str(root), "depth": depth, "ok": not (failed or extras), **told}


def _print_lines(repair: "Repair") -> None:
    for path, what in repair.repaired.items():
        print(f"{show_path(path)}: {what}")
    for path, why in repair.failed.items():
        print(f"{show_path(path)}: NOT repaired: {why}")
    for extra in repair.extras:
        print(f"{show_path(extra)}: left alone, the manifest does not name it")


def _sum_up(repair: "Repair", depth: str) -> str:
    """Say in a few words what was done and what is left."""
    done = "repaired" if repair.repaired else f"nothing to repair at depth {depth}"
    if repair.failed:
        done = f"{len(repair.repaired):,} repaired, {len(repair.failed):,} NOT repaired"
    return done + (f"; {len(repair.extras)} left alone: move them out of the folder" if repair.extras else "")
