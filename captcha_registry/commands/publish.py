"""`captcha-registry publish`: give the checked out commit's artifact a version that others can fetch."""

import argparse
import json
from dataclasses import asdict

from captcha_registry.registry.publishing import Release, publish

HELP = "publish an artifact under a version"
DESCRIPTION = (
    "Publish an artifact of this repository under a version: check that tree, pipeline and data are in order, that readers can "
    "fetch it with what Git has, and that the version says enough about the change since the one below it, of which there may "
    "be none above in the same major version; push the data, look for it on the remote, tag the commit and push the tag. "
    "Interrupted, it is run again and goes on. Exit code: 0, or 2 if it was refused or failed."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the command takes."""
    parser.add_argument("name", metavar="NAME", help="an artifact of dvc.yaml, such as digits")
    parser.add_argument("version", metavar="VERSION", help="MAJOR.MINOR.PATCH, such as 1.0.0")
    parser.add_argument("--dry-run", action="store_true", help="run every check and say what would be done; change nothing")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the closing lines")


def run(arguments: argparse.Namespace) -> int:
    """Publish the version."""
    release = publish(arguments.name, arguments.version, dry_run=arguments.dry_run)
    if arguments.json:
        print(json.dumps({"dry_run": arguments.dry_run} | asdict(release), indent=2))
    else:
        print(_describe(release, dry_run=arguments.dry_run))
    return 0


def _describe(release: Release, *, dry_run: bool) -> str:
    if release.already_published:
        said = "was published before, and all of it is there" if not dry_run else "is published already"
    else:
        said = "would be published" if dry_run else "is published"
    details = release.summary.replace("\n", "; ")
    return f"{release.tag} {said}: {release.size_bytes / 1e6:,.1f} MB, commit {release.commit[:8]}; {details}"
