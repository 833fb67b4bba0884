"""Fetch a published version, or a split of it, into a folder of one's own."""

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from captcha_registry.cache import find_lock, hold_lock
from captcha_registry.dataset.manifest import (
    FETCHED_NAME,
    MANIFEST_NAME,
    Manifest,
    read_fetched_splits,
    require_outside_datasets,
    write_fetched_splits,
)
from captcha_registry.dataset.verify import is_litter
from captcha_registry.errors import UserError
from captcha_registry.registry.fetching import Checksum, RemoteFile, fetch_all, read_published_manifest
from captcha_registry.registry.repository import Published

# The path, inside an artifact that is one file, of that file.
WHOLE = "."
# What a killed call leaves of a file.
LEFTOVER = re.compile(r"(.+)\.[0-9a-f]{12}\.tmp")


@dataclass(frozen=True, slots=True)
class Wanted:
    """The files that a folder has to hold, with their checksums; the one that completes it comes last."""

    checksums: dict[str, Checksum]
    sizes: dict[str, int]
    num_samples: int | None
    manifest: Manifest | None


@dataclass(frozen=True, slots=True)
class Received:
    """What is in the folder now."""

    num_files: int
    num_fetched: int
    size_bytes: int
    num_samples: int | None


def get_version(published: Published, sources: Mapping[str, RemoteFile], target: Path, *, split: str | None = None) -> Received:
    """Fetch a version into a folder; files that are right stay, so an interrupted call is made again to go on.

    Raises:
        UserError: the folder holds something else, there is no such split, or the remote has not what was published.
    """
    require_outside_datasets(target)
    wanted = list_wanted(published, sources, split)
    with hold_lock(find_lock("get", target)):
        _require_room(published, sources, wanted, target)
        missing = [path for path, checksum in wanted.checksums.items() if not checksum.fits(target / path)]
        _require_nothing_lost(published, missing, target)

        def fetch(path: str) -> None:
            sources[path].fetch(wanted.checksums[path], target / path)

        fetch_all({path: wanted.sizes.get(path, 0) for path in missing if path != MANIFEST_NAME}, fetch)
        if wanted.manifest:
            _note_splits(target, wanted.manifest, split)
        if MANIFEST_NAME in missing:
            # It says that the rest is there.
            fetch(MANIFEST_NAME)
    size_bytes = sum((target / path).stat().st_size for path in wanted.checksums)
    return Received(len(wanted.checksums), len(missing), size_bytes, wanted.num_samples)


def list_wanted(published: Published, sources: Mapping[str, RemoteFile], split: str | None) -> Wanted:
    """List what has to be fetched: of a dataset its index, descriptions and the shards of a split, else everything.

    Raises:
        UserError: there is no such split.
    """
    checksums = {path: Checksum("md5", source.md5) for path, source in sources.items()}
    if MANIFEST_NAME not in sources:
        if split:
            raise UserError(f"{published} is not a dataset, so it has no split {split!r}: leave --split out")
        return Wanted(checksums, {}, None, None)
    manifest, _ = read_published_manifest(published, sources)
    shards = [shard for shard in manifest.shards if split is None or shard.path.startswith(f"{split}/")]
    if not shards:
        raise UserError(f"{published} has no split {split!r}; expected {' or '.join(manifest.splits) or 'none'}")
    entries = [*shards, manifest.index]
    written_here = {FETCHED_NAME, *(shard.path for shard in manifest.shards)}
    described = {path: checksum for path, checksum in checksums.items() if path not in written_here}
    verified = {entry.path: Checksum("sha256", entry.sha256) for entry in entries}
    sizes = {entry.path: entry.size_bytes for entry in entries}
    return Wanted(described | verified, sizes, sum(shard.num_samples for shard in shards), manifest)


def _note_splits(target: Path, manifest: Manifest, split: str | None) -> None:
    """Note for `verify` and `repair` which splits are here now; a folder with a manifest and no note has all of them."""
    before = read_fetched_splits(target) if (target / MANIFEST_NAME).is_file() else frozenset()
    if split is None or before is None or before | {split} >= {*manifest.splits}:
        write_fetched_splits(target, manifest, None)
    else:
        write_fetched_splits(target, manifest, before | {split})


def _require_room(published: Published, sources: Mapping[str, RemoteFile], wanted: Wanted, target: Path) -> None:
    """Refuse a folder that holds something else, or from which a link leads elsewhere."""
    if target.is_symlink() and not target.exists():
        raise UserError(f"{target} is a symbolic link that leads nowhere: remove it, or choose another folder with --to")
    if target.exists() and not target.is_dir() and list(wanted.checksums) != [WHOLE]:
        raise UserError(f"{target} is a file; expected a folder, or a name that is free: choose another with --to")
    for path in wanted.checksums:
        _require_place(target / path, target)
    leftovers, expected = [], {*sources, FETCHED_NAME}
    for path in _list_files(target):
        if (match := LEFTOVER.fullmatch(path)) and match[1] in sources:
            leftovers.append(target / path)
        elif path not in expected and not is_litter(path):
            raise UserError(f"{target} holds {path}, which is not part of {published}: choose an empty folder with --to")
    # What a killed call left.
    for leftover in leftovers:
        leftover.unlink()
    manifest = target / MANIFEST_NAME
    if manifest.is_file() and MANIFEST_NAME in sources and not Checksum("md5", sources[MANIFEST_NAME].md5).fits(manifest):
        raise UserError(f"{target} holds another dataset or version than {published}: choose another folder with --to")


def _require_place(path: Path, target: Path) -> None:
    """Refuse a link on the way to a file, or a folder in its place."""
    if link := next((part for part in [path, *path.parents] if _is_below(part, target) and part.is_symlink()), None):
        raise UserError(f"{link} is a symbolic link, which leads out of {target}: remove it, or choose another folder with --to")
    # An artifact that is one file takes the name of its target, or one in it.
    if path.is_dir() and path != target / WHOLE:
        raise UserError(f"{path} is a folder; expected a file: move it away, or choose another folder with --to")


def _list_files(target: Path) -> Iterator[str]:
    """Yield the files in a folder, as paths inside it, one by one: it may be somebody's home, or all of the disk."""
    for folder, subfolders, names in os.walk(target):
        subfolders.sort()
        yield from (path.relative_to(target).as_posix() for name in sorted(names) if (path := Path(folder, name)).is_file())


def _require_nothing_lost(published: Published, missing: list[str], target: Path) -> None:
    """Refuse to replace a file that may be somebody's own.

    Files get their names when they are complete, so one with other bytes was damaged since, or never came from here; only the
    manifest, which comes last, shows that all was fetched once.
    """
    if (target / MANIFEST_NAME).is_file():
        return
    if own := [path for path in missing if (target / path).exists()]:
        raise UserError(
            f"{target / own[0]} is there already, with other bytes than {published} has, and would be lost: "
            "move it away, or choose another folder with --to"
        )


def _is_below(path: Path, root: Path) -> bool:
    return root in path.parents
