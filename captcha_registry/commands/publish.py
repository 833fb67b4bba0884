"""`captcha-registry publish`: give an artifact of the commit that is checked out a version that others can fetch."""

import argparse
import json
from dataclasses import asdict

from captcha_registry.errors import UserError
from captcha_registry.registry.publishing import Release, publish
from captcha_registry.registry.repository import parse_reference, parse_version

HELP = "publish an artifact under a version"
DESCRIPTION = (
    "Publish a dataset or a model of this repository under a version. First everything is checked: that all is committed and "
    "pushed, that the pipeline would make the same files, that these are intact, that readers can fetch them, and that the "
    "version number is high enough for the change. Then the data is pushed, and the tag last. If it is interrupted, "
    "run it again. Exit code: 0, or 2 if it was refused or failed."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the command takes."""
    parser.add_argument(
        "reference", metavar="NAME@VERSION", help="an artifact of dvc.yaml with MAJOR.MINOR.PATCH, such as digits@1.0.0"
    )
    # For those who write the version apart.
    parser.add_argument("version", nargs="?", help=argparse.SUPPRESS)
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="run every check but your pre-push hook, and say what would be done; change nothing",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the closing lines")


def run(arguments: argparse.Namespace) -> int:
    """Publish the version."""
    name, version = parse_reference(arguments.reference, arguments.version)
    if not version:
        raise UserError(f"name the version, such as {name}@1.0.0; `captcha-registry list` shows those that are published")
    release = publish(name, version, dry_run=arguments.dry_run)
    if arguments.json:
        print(json.dumps({"dry_run": arguments.dry_run} | asdict(release), indent=2))
    else:
        print(_describe(release, f"{name}@{parse_version(version)}", dry_run=arguments.dry_run))
    return 0


def _describe(release: Release, reference: str, *, dry_run: bool) -> str:
    if release.already_published:
        said = "was published before, and all of it is there" if not dry_run else "is published already"
    else:
        said = "would be published" if dry_run else "is published"
    details = [f"commit {release.commit[:8]}", *release.summary.splitlines()]
    return "\n  ".join([f"{reference} {said}: {release.size_bytes / 1e6:,.1f} MB", *details])
