"""`captcha-registry get`: fetch a published version, or a split of it, and verify every byte."""

import argparse
import json
import time
from dataclasses import asdict
from pathlib import Path

from captcha_registry.errors import show_path
from captcha_registry.places import take_place
from captcha_registry.registry.fetching import find_files
from captcha_registry.registry.getting import get_version
from captcha_registry.registry.repository import find_published, open_repository, parse_reference

HELP = "fetch a published version, and verify every byte"
DESCRIPTION = (
    "Fetch a published version into a folder and verify every byte. If it is interrupted, run it again: it goes on where it was. "
    "Exit code: 0, or 2 if not everything was fetched."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the command takes."""
    parser.add_argument("reference", metavar="NAME[@VERSION]", help="such as digits@1.0.0 (default: the newest release)")
    # For those who write the version apart.
    parser.add_argument("version", nargs="?", help=argparse.SUPPRESS)
    parser.add_argument("--repo", metavar="URL", help="Git URL or path of the repository (default: the one of this folder)")
    parser.add_argument("--split", help="fetch one split only, such as test")
    parser.add_argument("--to", metavar="DIR", type=take_place, help="folder to fill (default: NAME in this folder)")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the closing line")


def run(arguments: argparse.Namespace) -> int:
    """Fetch the version."""
    started = time.perf_counter()
    name, version = parse_reference(arguments.reference, arguments.version)
    with open_repository(arguments.repo) as repo:
        published = find_published(repo, name, version)
        sources = find_files(repo, published)
    target = arguments.to or Path(name)
    received = get_version(published, sources, target, split=arguments.split)
    if arguments.json:
        print(
            json.dumps({"artifact": str(published), "path": str(target), "split": arguments.split} | asdict(received), indent=2)
        )
        return 0
    samples = "" if received.num_samples is None else f"{received.num_samples:,} samples, "
    split = f", split {arguments.split} only" if arguments.split else ""
    kept = received.num_files - received.num_fetched
    print(
        f"{show_path(target)}: {published}{split}: {samples}{received.num_files} files, {received.size_bytes / 1e6:,.1f} MB, "
        f"each verified{f' ({kept} were there)' if kept else ''}, {time.perf_counter() - started:.1f} s"
    )
    return 0
