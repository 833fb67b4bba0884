"""`captcha-registry diff`: what changed between two versions, and which version bump the change calls for."""

import argparse
import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import cache

import numpy as np
from dvc.repo import Repo

from captcha_registry.errors import printable
from captcha_registry.machine import expand_home
from captcha_registry.registry.diff import Change, DatasetDiff, Ids, ModelDiff
from captcha_registry.registry.fetching import find_files
from captcha_registry.registry.repository import find_published, open_repository, parse_reference
from captcha_registry.registry.versions import Version, diff_versions, read_folder, read_published

HELP = "compare two versions, sample by sample"
DESCRIPTION = (
    "Compare two versions of a dataset, sample by sample, or of a model, and say which version bump the change calls for. "
    "Exit code: 0, or 2 if one cannot be read."
)

MAX_EXAMPLES = 5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the command takes."""
    for name in ("old", "new"):
        parser.add_argument(
            name, metavar=name.upper(), help="NAME@VERSION, such as digits@1.0.0, or the folder of a dataset or model"
        )
    parser.add_argument("--repo", metavar="URL", help="Git URL or path of the repository (default: the one of this folder)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(arguments: argparse.Namespace) -> int:
    """Compare the two."""
    with ExitStack() as stack:
        # A repository may have to be cloned, so it is opened once, and only if it is needed.
        open_once = cache(lambda: stack.enter_context(open_repository(arguments.repo)))
        diff = diff_versions(*(_read(reference, open_once) for reference in (arguments.old, arguments.new)))
    if arguments.json:
        said = {"old": arguments.old, "new": arguments.new} | to_json(diff)
        # A line for each key: with `indent` it would be one for each of perhaps 100,000 ids.
        print("{\n" + ",\n".join(f"  {json.dumps(key)}: {json.dumps(value)}" for key, value in said.items()) + "\n}")
    else:
        print(printable("\n".join([f"{arguments.old} -> {arguments.new}", *format_diff(diff)])))
    return 0


def _read(reference: str, open_once: Callable[[], Repo]) -> Version:
    if (folder := expand_home(reference)).exists():
        return read_folder(folder)
    name, version = parse_reference(reference)
    published = find_published(open_once(), name, version)
    return read_published(published, find_files(open_once(), published))


def format_diff(diff: DatasetDiff | ModelDiff) -> Iterator[str]:
    """Say in lines what differs; of the samples the first few ids."""
    if isinstance(diff, DatasetDiff):
        for kind, ids in diff.samples.items():
            examples = ", ".join(map(str, ids[:MAX_EXAMPLES])) + (", ..." if len(ids) > MAX_EXAMPLES else "")
            yield f"samples {kind:11} {len(ids):>13,}{'   ids ' + examples if len(ids) else ''}"
        yield from (f"column added: {column}" for column in diff.columns_added)
        yield from (f"column removed: {column}" for column in diff.columns_removed)
    yield from (f"changed: {_format_change(change)}" for change in diff.params)
    yield f"files that differ   {len(diff.files):>13,}"
    yield f"calls for {diff.bump.upper()}: {diff.reason}"


def _format_change(change: Change) -> str:
    return f"{change.field} from {change.old} to {change.new}"


def to_json(diff: DatasetDiff | ModelDiff) -> dict[str, object]:
    """Arrange a diff for a script; every sample is in it, ids that follow each other as `[first, last]`."""
    changed = diff.samples if isinstance(diff, DatasetDiff) else {}
    samples = {kind: {"count": len(ids), "ranges": _list_ranges(ids)} for kind, ids in changed.items()}
    columns = {"added": diff.columns_added, "removed": diff.columns_removed} if isinstance(diff, DatasetDiff) else {}
    params = {change.field: {"old": change.old, "new": change.new} for change in diff.params}
    return {"bump": diff.bump, "samples": samples, "columns": columns, "params": params, "files": diff.files}


def _list_ranges(ids: Ids) -> list[list[int]]:
    """List the first and the last of ids, in ascending order, that follow each other."""
    is_first = np.diff(ids, prepend=ids[:1] - 2) != 1
    is_last = np.diff(ids, append=ids[-1:] + 2) != 1
    return [[int(first), int(last)] for first, last in zip(ids[is_first], ids[is_last], strict=True)]
