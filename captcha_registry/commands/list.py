"""`captcha-registry list`: what a repository has published."""

import argparse
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass

from dvc.repo import Repo
from semver import Version
from tqdm import tqdm

from captcha_registry.dataset.manifest import MANIFEST_NAME
from captcha_registry.errors import UserError, hide_secrets, printable
from captcha_registry.recognition.card import CARD_NAME
from captcha_registry.registry.fetching import RemoteFile, find_files, measure_version, read_published_manifest
from captcha_registry.registry.repository import (
    Published,
    list_versions,
    open_repository,
    read_artifact,
    say_what_is_lacking,
)
from captcha_registry.registry.versions import parse_model_card

HELP = "list what a repository has published"
DESCRIPTION = (
    "List what a repository has published: artifacts, versions, samples, size. Exit code: 0, or 2 if none of it can be read."
)


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the list; what a model does not have, or the remote does not tell, is None.

    Attributes:
        dataset_id: of a dataset its own, of a model that of the dataset it was trained on.
    """

    name: str
    version: str
    type: str | None
    samples: int | None
    dataset_id: str | None
    size_bytes: int | None
    description: str | None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the command takes."""
    parser.add_argument("--repo", metavar="URL", help="Git URL or path of the repository (default: the one of this folder)")
    parser.add_argument("--json", action="store_true", help="print one JSON array with an object for each version")


def run(arguments: argparse.Namespace) -> int:
    """List the versions, those of an artifact from the newest to the oldest."""
    with open_repository(arguments.repo) as repo:
        versions = list_versions(repo)
        lacking = "" if versions else say_what_is_lacking(repo)
        where = repo.url or repo.root_dir
        with tqdm(versions.items(), desc="list", unit="version", disable=None, leave=False) as bar:
            rows = [row for key, commit in bar if (row := _describe(repo, key, commit))]
    if arguments.json:
        print(json.dumps([{slot: getattr(row, slot) for slot in Row.__slots__} for row in rows], indent=2))
    elif rows:
        print(printable("\n".join(format_rows(rows))))
    if not versions:
        cure = " yet: `captcha-registry publish NAME@VERSION` does that; --repo URL names another repository"
        print(hide_secrets(f"nothing is published in {where}{lacking or cure}"), file=sys.stderr)
    return 2 if (versions or lacking) and not rows else 0


def format_rows(rows: list[Row]) -> list[str]:
    """Lay the rows out as a table."""
    names, versions = (max(map(len, column)) for column in (["name", *(r.name for r in rows)], [r.version for r in rows]))
    lines = [f"{'name':{names}}  {'version':{max(versions, 7)}}  {'type':7}  {'samples':>13}  {'size':>9}"]
    for row in rows:
        kind = " ".join(printable(row.type or "-").split())
        samples = f"{row.samples:,}" if row.samples is not None else "-"
        size = f"{row.size_bytes / 1e6:,.1f} MB" if row.size_bytes is not None else "-"
        lines.append(f"{row.name:{names}}  {row.version:{max(versions, 7)}}  {kind:7}  {samples:>13}  {size:>9}")
    return lines


def _describe(repo: Repo, key: tuple[str, Version], commit: str) -> Row | None:
    """Find out what there is to say of a version; None, and a note on stderr, if its commit cannot be read."""
    try:
        published = read_artifact(repo, key, commit)
    except UserError as error:
        _note(key, error)
        return None
    samples = dataset_id = size_bytes = None
    try:
        size_bytes = measure_version(repo, published)
        samples, dataset_id = _identify(published, find_files(repo, published))
    except UserError as error:
        _note(key, error)
    return Row(published.name, str(published.version), published.type, samples, dataset_id, size_bytes, published.description)


def _identify(published: Published, sources: Mapping[str, RemoteFile]) -> tuple[int | None, str | None]:
    """Return the number of samples of a dataset, and its id or that of the dataset that a model was trained on."""
    if MANIFEST_NAME in sources:
        manifest, _ = read_published_manifest(published, sources)
        return manifest.spec.count, manifest.dataset_id
    if CARD_NAME in sources:
        return None, parse_model_card(sources[CARD_NAME].read_verified(), sources[CARD_NAME].name).get("dataset_id")
    return None, None


def _note(key: tuple[str, Version], error: UserError) -> None:
    reference, problem = "{}@{}".format(*key), printable(error)
    tqdm.write(f"note: {problem if problem.startswith(reference) else f'{reference}: {problem}'}", file=sys.stderr)
