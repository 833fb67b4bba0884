"""Measure how long it takes to verify a dataset at each depth, and to repair a copy of it with one cut shard.

Reads `data/digits`, which `make repro` or `dvc pull` makes, once before anything is measured, so that the cache is warm. What is
measured are complete commands, with the start of Python.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

from timing import describe_machine, format_table, format_title, report_result

from captcha_registry.dataset.manifest import Manifest, read_manifest
from captcha_registry.ends import report_errors
from captcha_registry.errors import UserError
from captcha_registry.workspace import link_or_copy

DATASET = Path("data/digits")
DEPTHS = ("quick", "full", "deep")


def time_command(*arguments: str | Path, stdout: str) -> float:
    """Run a command of ours that must succeed and say so; return its seconds."""
    started = time.perf_counter()
    done = subprocess.run([sys.executable, "-m", "captcha_registry.cli", *arguments], capture_output=True, text=True, check=False)
    if done.returncode or stdout not in done.stdout:
        raise UserError(f"{' '.join(map(str, arguments))} says {done.stdout}{done.stderr}; expected {stdout!r}: repair {DATASET}")
    return time.perf_counter() - started


def time_repair(manifest: Manifest) -> float:
    """Cut the first shard of a copy made of links, and repair it; return the seconds of the repair."""
    with tempfile.TemporaryDirectory(prefix="verify-") as folder:
        root = Path(shutil.copytree(DATASET, Path(folder) / "copy", copy_function=lambda a, b: link_or_copy(Path(a), Path(b))))
        shard = root / manifest.shards[0].path
        # Not in place: the bytes belong to the dataset, too.
        content = shard.read_bytes()
        shard.unlink()
        shard.write_bytes(content[: len(content) // 2])
        return time_command("repair", root, stdout="drawn again")


def format_result(result: Mapping[str, Any]) -> str:
    """Lay the result out as a table."""
    rows = [[name, f"{seconds:.2f}"] for name, seconds in result["seconds"].items()]
    head = f"{result['rows']:,} samples in {result['shards']:,} shards"
    return f"{format_title(result)}\n\n{format_table([head, 'seconds'], rows)}"


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, choices=range(1, 101), metavar="1..100", default=3, help="runs of each (default: 3)")
    parser.add_argument("--json", type=Path, metavar="PATH", help="write JSON to a file, or to stdout with -")
    return parser.parse_args()


def main() -> None:
    """Measure, then print or write what came out."""
    arguments = parse()
    if not DATASET.is_dir():
        raise UserError(f"{DATASET} is not here: run `make repro`, or `dvc pull --allow-missing`, in the project's folder")
    manifest = read_manifest(DATASET)
    time_command("verify", DATASET, stdout="nothing wrong")
    runs: dict[str, list[float]] = {name: [] for name in (*DEPTHS, "repair")}
    for _ in range(arguments.pairs):
        for depth in DEPTHS:
            runs[depth].append(time_command("verify", DATASET, "--depth", depth, stdout="nothing wrong"))
        runs["repair"].append(time_repair(manifest))
    result = {
        "command": f"python benchmarks/verify.py --pairs {arguments.pairs}",
        "date": datetime.now(UTC).date().isoformat(),
        "machine": describe_machine(),
        "pairs": arguments.pairs,
        "rows": manifest.spec.count,
        "shards": len(manifest.shards),
        "seconds": {name: round(median(seconds), 3) for name, seconds in runs.items()},
    }
    report_result(result, format_result, arguments.json)


if __name__ == "__main__":
    with report_errors():
        main()
