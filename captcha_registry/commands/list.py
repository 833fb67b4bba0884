"""`captcha-registry list`: what a repository has published."""

import argparse
import json
import sys
from dataclasses import dataclass

from dvc.repo import Repo

from captcha_registry.dataset.manifest import MANIFEST_NAME
from captcha_registry.errors import UserError
from captcha_registry.registry.fetching import find_files, measure_version, read_published_manifest
from captcha_registry.registry.repository import Published, list_published, open_repository
from captcha_registry.registry.versions import MODEL_CARD, parse_model_card

HELP = "list what a repository has published"
DESCRIPTION = "List what a repository has published: artifacts, versions, samples, size. Exit code: 0, or 2 if it cannot be read."


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
    size_bytes: int
    description: str | None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the command takes."""
    parser.add_argument("--repo", metavar="URL", help="Git URL or path of a repository; without it the one of this folder")
    parser.add_argument("--json", action="store_true", help="print one JSON array with an object for each version")


def run(arguments: argparse.Namespace) -> int:
    """List the versions, those of an artifact from the newest to the oldest."""
    with open_repository(arguments.repo) as repo:
        rows = [_describe(repo, published) for published in list_published(repo)]
    if arguments.json:
        print(json.dumps([{slot: getattr(row, slot) for slot in Row.__slots__} for row in rows], indent=2))
    elif rows:
        print("\n".join(format_rows(rows)))
    else:
        print("nothing is published here: `captcha-registry publish NAME VERSION` does it", file=sys.stderr)
    return 0


def format_rows(rows: list[Row]) -> list[str]:
    """Lay the rows out as a table."""
    names, versions = (max(map(len, column)) for column in (["name", *(r.name for r in rows)], [r.version for r in rows]))
    lines = [f"{'name':{names}}  {'version':{max(versions, 7)}}  {'type':7}  {'samples':>13}  {'size':>9}"]
    for row in rows:
        samples = f"{row.samples:,}" if row.samples is not None else "-"
        size = f"{row.size_bytes / 1e6:,.1f} MB"
        lines.append(f"{row.name:{names}}  {row.version:{max(versions, 7)}}  {row.type or '-':7}  {samples:>13}  {size:>9}")
    return lines


def _describe(repo: Repo, published: Published) -> Row:
    samples = dataset_id = None
    try:
        sources = find_files(repo, published)
        if MANIFEST_NAME in sources:
            manifest, _ = read_published_manifest(published, sources)
            samples, dataset_id = manifest.spec.count, manifest.dataset_id
        elif MODEL_CARD in sources:
            dataset_id = parse_model_card(sources[MODEL_CARD].read_proved(), sources[MODEL_CARD].name).get("dataset_id")
    except UserError as error:
        print(f"note: {error}", file=sys.stderr)
    size_bytes = measure_version(repo, published)
    return Row(published.name, str(published.version), published.type, samples, dataset_id, size_bytes, published.description)
