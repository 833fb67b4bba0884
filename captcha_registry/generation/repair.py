"""Put a damaged dataset right: what is under a wrong name goes back, the rest is drawn again from the seed.

Every file is verified to have the SHA-256 that the manifest says before it takes its place; the good ones are not touched, and
one that cannot be verified is left as it is.
"""

import hashlib
import json
import os
import shlex
import shutil
from collections.abc import Iterator
from concurrent.futures import Executor, as_completed
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import Timeout
from tqdm import tqdm

from captcha_registry.cache import find_lock, hold_lock
from captcha_registry.dataset.folder import open_folder
from captcha_registry.dataset.index import read_index
from captcha_registry.dataset.manifest import MANIFEST_NAME, FileEntry, Manifest, read_fetched_splits, read_manifest
from captcha_registry.dataset.records import ShardWriter
from captcha_registry.dataset.verify import STAGING_NAME, Depth, Problem, ShardRows, require_dataset, verify_dataset
from captcha_registry.errors import UserError, find_remedy
from captcha_registry.generation.drawing import Drawer, make_drawer
from captcha_registry.generation.generating import DATASET_PACKAGES, assemble_dataset, draw_missing_shards
from captcha_registry.generation.shards import draw_record
from captcha_registry.generation.splitting import split_dataset
from captcha_registry.machine import settle_user
from captcha_registry.workspace import copy_completely, link_or_copy, remove, tool_versions, write_atomically

if TYPE_CHECKING:
    from dvc.repo import Repo

# As DVC has it.
_CACHED_MODE = 0o444

# What is looked for; what only `deep` finds is covered by the hashes of the manifest, which a repair restores.
REPAIR_DEPTH: Depth = "full"


@dataclass(frozen=True, slots=True)
class Repair:
    """What became of a dataset.

    Attributes:
        repaired: a line for each file that was put right, by its path inside the dataset.
        failed: why a file could not be put right, by its path inside the dataset.
        extras: files that belong to nobody: it is not for a repair to delete them.
    """

    repaired: dict[str, str]
    failed: dict[str, str]
    extras: list[Path]


def repair_dataset(root: Path, executor: Executor) -> Repair:
    """Repair a dataset in place, as far as its files can be verified.

    Raises:
        UserError: there is no dataset, its manifest is damaged, or another repair runs.
    """
    require_dataset(root)
    cache = _find_cache(root)
    with _open_staging(root) as staging:
        # What was never fetched is not missing.
        problems = verify_dataset(root, REPAIR_DEPTH, executor, splits=read_fetched_splits(root))
        if broken := [problem for problem in problems if problem.kind == "manifest"]:
            raise UserError(_tell_how_to_restore(root, broken[0]))
        manifest = read_manifest(root)
        sources = _find_sources(root, problems)
        wrong = _find_wrong(problems)
        damaged = [entry for path, entry in manifest.entries.items() if path in sources or root / path in wrong]
        blocked = {entry.path: why_not for entry in damaged if (why_not := _find_obstacle((root / entry.path).parent))}
        damaged = [entry for entry in damaged if entry.path not in blocked]

        named = {root / path for path in manifest.entries}
        failed = {
            _inside(root, p.path): p.what
            for p in problems
            if p.kind in {"folder", "index"} or (p.kind == "unreadable" and p.path not in named)
        }
        failed |= blocked | _stage_files(root, manifest, damaged, sources, staging, executor)
        for entry in [entry for entry in damaged if entry.path not in failed]:
            if why_not := _put_in_place(staging, root, entry.path):
                failed[entry.path] = why_not
        repaired = [entry for entry in damaged if entry.path not in failed]
        used = {sources[entry.path] for entry in repaired if entry.path in sources}
        for problem in problems:
            if problem.kind == "renamed" and problem.path in used:
                problem.path.unlink()
                _remove_empty(problem.path.parent, root)
        told = {entry.path: _describe(entry, sources, root) for entry in repaired}
        right = [entry for path, entry in manifest.entries.items() if path not in failed]
        for path, why_not in (_restore_cached(root, right, cache, executor) if cache else {}).items():
            if why_not:
                failed[path] = why_not
            else:
                told[path] = f"{told[path]}; in DVC's cache too" if path in told else "is right, and was restored in DVC's cache"
    extras = [p.path for p in problems if p.kind == "extra" or (p.kind == "renamed" and p.path not in used)]
    return Repair(told, failed, [path for path in extras if STAGING_NAME not in path.relative_to(root).parts])


def _find_obstacle(folder: Path) -> str:
    """Say what is in the place of a folder that belongs there; nothing if it is there or can be made."""
    if folder.is_symlink() and not folder.exists():
        return f"{folder} is a symbolic link that leads nowhere: mount what it leads to, or remove it, and run this again"
    if folder.exists() and not folder.is_dir():
        return f"{folder} is a file; expected a folder: move it away, and run this again"
    return ""


def _remove_empty(folder: Path, root: Path) -> None:
    """Remove a folder out of which files were put back, and those around it, if they are empty now."""
    # Another program may write into it, or it may be somebody else's.
    with suppress(OSError):
        while folder != root:
            folder.rmdir()
            folder = folder.parent


def _put_in_place(staging: Path, root: Path, path: str) -> str:
    """Give a finished file its name, as open to others as the manifest is, whatever the umask of who repairs.

    Returns:
        Why that is not possible; an empty text if it is done.
    """
    target = root / path
    # Some file systems have no modes.
    with suppress(OSError):
        shutil.copymode(root / MANIFEST_NAME, staging / path)
    try:
        if not target.parent.is_dir():
            target.parent.mkdir(parents=True)
            with suppress(OSError):
                shutil.copymode(root, target.parent)
        if target.parent.stat().st_dev == staging.stat().st_dev:
            (staging / path).replace(target)
        else:
            # A folder of the dataset may be a link to another disk.
            copy_completely(staging / path, target)
    except OSError as error:
        # What is refused is a new name in the folder.
        place = OSError(error.errno, error.strerror, f"{target}.new")
        return f"{error.strerror} in {target.parent}{find_remedy(place)}"
    return ""


def _restore_cached(root: Path, entries: list[FileEntry], cache: Path, executor: Executor) -> dict[str, str]:
    """Restore what DVC's cache has of these files, which are right now.

    Damage in place reaches the cache through a hard link. DVC trusts what is read-only there, and would bring it back.

    Returns:
        For each that was damaged there, by its path, why it still is; an empty text if it is not.
    """
    paths, restored = [root / entry.path for entry in entries if (root / entry.path).is_file()], {}
    for path, md5 in zip(paths, executor.map(_hash_for_dvc, paths), strict=True):
        cached = cache / md5[:2] / md5[2:]
        if cached.is_file() and not cached.samefile(path) and _hash_for_dvc(cached) != md5:
            restored[_inside(root, path)] = ""
            try:
                write_atomically(cached, path.read_bytes())
                cached.chmod(_CACHED_MODE)
            except OSError as error:
                # Somebody else's, perhaps, or full.
                restored[_inside(root, path)] = (
                    f"is right, but {cached} in DVC's cache is damaged and cannot be written ({error.strerror}): have its owner "
                    "delete that file"
                )
    return restored


@contextmanager
def _open_project(folder: Path) -> Iterator["Repo | None"]:
    """Open the DVC project that a folder is in; None if it is in none, or in one without Git, where DVC does nothing.

    Raises:
        UserError: DVC cannot read its settings.
    """
    if not any((parent / ".dvc").is_dir() for parent in folder.resolve().parents):
        yield None
        return
    # A second to import.
    from dvc.config import ConfigError  # noqa: PLC0415
    from dvc.exceptions import DvcException  # noqa: PLC0415
    from dvc.repo import Repo  # noqa: PLC0415

    settle_user()
    try:
        repo = Repo(str(folder.resolve()))
    except ConfigError as error:
        raise UserError(f"DVC cannot read its settings, this project's or your own ({error}): correct them first") from None
    except DvcException:
        yield None
        return
    with repo:
        yield repo


def _find_cache(root: Path) -> Path | None:
    """Find where DVC keeps the files of the project that a folder is in, by their MD5; None if it is in none."""
    with _open_project(root) as repo:
        return Path(repo.cache.local.path) if repo else None


def _tell_how_to_restore(root: Path, broken: Problem) -> str:
    """Tell how a manifest comes back; DVC would bring back one that was damaged in its cache, too, through a hard link."""
    path = root / MANIFEST_NAME
    if not os.path.lexists(path) or (path.is_file() and _is_of_newer_release(path)):
        # It says itself what to do; a newer one may be as it should.
        return str(broken)
    cached, is_folder = _find_cached(path), path.is_dir()
    is_good = cached is not None and cached.is_file() and _hash_for_dvc(cached) == cached.parent.name + cached.name
    # What is no file may be somebody's folder.
    files = [] if is_folder else [str(path)]
    files += [str(cached)] if cached and cached.exists() and not is_good else []
    steps = ["move that folder away"] if is_folder else []
    steps += [f"`{shlex.join(['rm', '-f', *files])}`"] if files else []
    if is_good:
        steps.append(f"`{shlex.join(['dvc', 'checkout', str(path)])}`")
    elif cached:
        steps.append(f"`{shlex.join(['dvc', 'pull', str(path)])}`, or `dvc repro` if it is on no remote")
    else:
        steps.append("fetch or draw the dataset again, which keeps what is right")
    return f"{broken}: nothing can be verified with it: {', then '.join(steps)}"


def _is_of_newer_release(manifest: Path) -> bool:
    """Tell whether a manifest says that it has a later format than this release reads."""
    try:
        version = json.loads(manifest.read_bytes())["format_version"]
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return False
    return isinstance(version, int) and version > Manifest.model_fields["format_version"].default


def _find_cached(path: Path) -> Path | None:
    """Find where DVC's cache has a file, or should have it; None if DVC does not track it."""
    from dvc.exceptions import DvcException  # noqa: PLC0415

    with _open_project(path.parent) as repo, suppress(DvcException, KeyError):
        if repo is None:
            return None
        # The file itself may be a link into the cache.
        entry = repo.index.data["repo"][(path.parent.resolve() / path.name).relative_to(repo.root_dir).parts]
        if entry.hash_info and entry.hash_info.value:
            md5 = str(entry.hash_info.value)
            return Path(repo.cache.local.path) / md5[:2] / md5[2:]
    return None


def _hash_for_dvc(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()


def _find_wrong(problems: list[Problem]) -> set[Path]:
    """Find the files that are not there with their own bytes."""
    return {problem.path for problem in problems if problem.kind in {"missing", "changed", "swapped", "unreadable"}}


def _find_sources(root: Path, problems: list[Problem]) -> dict[str, Path]:
    """Find where the bytes of damaged files are, by the paths of these inside the dataset."""
    wrong = _find_wrong(problems)
    # A file may also be a copy of one, or a link to one, that is where it belongs.
    return {p.holds: p.path for p in problems if p.holds and (p.kind == "renamed" or root / p.holds in wrong)}


def _inside(root: Path, path: Path) -> str:
    return path.relative_to(root).as_posix()


@contextmanager
def _open_staging(root: Path) -> Iterator[Path]:
    """Make an empty folder for what will take its place; it is removed in the end."""
    staging = root / STAGING_NAME
    try:
        with hold_lock(find_lock("repair", root), wait=False):
            if staging.is_dir():
                # A killed run left it.
                remove(staging)
            (staging / "at_work").mkdir(parents=True)
            try:
                yield staging / "at_work/new"
            finally:
                # A task that is still at work would put files into a folder that is being removed; it finds no renamed one.
                (staging / "at_work").rename(staging / "over")
                shutil.rmtree(staging)
    except Timeout:
        raise UserError(f"another repair of {root} is at work: wait for it to end, or stop it") from None


def _stage_files(
    root: Path, manifest: Manifest, damaged: list[FileEntry], sources: dict[str, Path], staging: Path, executor: Executor
) -> dict[str, str]:
    """Make the damaged files again in `staging`; return why some could not be made, by their paths."""
    failed: dict[str, str] = {}
    for entry in damaged:
        if entry.path in sources:
            link_or_copy(sources[entry.path].resolve(), staging / entry.path)
    redrawn = [entry for entry in damaged if entry.path not in sources]
    if redrawn:
        try:
            _draw_again(root, manifest, redrawn, staging, executor)
        except UserError as error:
            failed = {entry.path: str(error) for entry in redrawn}
    made = [entry for entry in damaged if entry.path not in failed]
    return failed | {
        entry.path: _explain_other_bytes(manifest, root / entry.path) for entry in made if not _is_verified(staging, entry)
    }


def _is_verified(staging: Path, entry: FileEntry) -> bool:
    """Tell whether a file is, to the byte, what the manifest says."""
    return (staging / entry.path).is_file() and FileEntry.of(staging, entry.path, entry.num_samples) == entry


def _draw_again(root: Path, manifest: Manifest, entries: list[FileEntry], staging: Path, executor: Executor) -> None:
    """Draw files of a dataset into `staging`: all of the dataset if there is no good index, as it tells who is where."""
    drawer = make_drawer(manifest, "fetch each damaged file with `dvc pull --force FILE`")
    index_paths = [path for folder in (staging, root) if (path := folder / manifest.index.path).is_file()]
    if manifest.index in entries or not index_paths:
        whole = _draw_dataset(manifest, drawer, staging.with_name("drawing"), executor)
        for entry in entries:
            if (whole / entry.path).exists():
                link_or_copy(whole / entry.path, staging / entry.path)
        return
    rows = ShardRows(read_index(index_paths[0]))
    with tqdm(total=sum(e.num_samples for e in entries), unit=" samples", desc="drawing", disable=None) as progress:
        futures = {}
        for entry in entries:
            ids = rows.take(entry.path)["id"].to_pylist()
            (staging / entry.path).parent.mkdir(parents=True, exist_ok=True)
            futures[executor.submit(_draw_records, drawer, ids, staging / entry.path)] = entry
        for future in as_completed(futures):
            future.result()
            progress.update(futures[future].num_samples)


def _draw_records(drawer: Drawer, sample_ids: list[int], path: Path) -> None:
    """Draw samples into one shard."""
    with ShardWriter(path) as writer:
        for sample_id in sample_ids:
            draw_record(drawer, sample_id, writer, path.name)


def _draw_dataset(manifest: Manifest, drawer: Drawer, folder: Path, executor: Executor) -> Path:
    """Draw and split a complete dataset below `folder`; return where it is."""
    for name in ("work", "split"):
        (folder / name).mkdir(parents=True)
    shards = draw_missing_shards(drawer, {}, folder / "work", executor)
    assemble_dataset(manifest.name, drawer, shards, folder / "work", folder / "generated")
    if manifest.split is None:
        return folder / "generated"
    split_dataset(open_folder(folder / "generated"), manifest.split, folder / "split")
    return folder / "split"


def _explain_other_bytes(manifest: Manifest, path: Path) -> str:
    """Say why a file may have come out different."""
    here = tool_versions(DATASET_PACKAGES)
    other = [f"{n} {v}, here {here.get(n)}" for n, v in manifest.tool_versions.items() if here.get(n) != v]
    cure = (
        f"It was drawn with {', '.join(other)}: install these"
        if other
        else f"`{shlex.join(['dvc', 'pull', '--force', str(path)])}` fetches it if DVC has it"
    )
    return f"drawn again it has other bytes than the manifest says, and was left as it is. {cure}"


def _describe(entry: FileEntry, sources: dict[str, Path], root: Path) -> str:
    how = f"put back from {_inside(root, sources[entry.path])}" if entry.path in sources else "drawn again"
    return f"{how}, {entry.num_samples:,} samples, with the SHA-256 of the manifest"
