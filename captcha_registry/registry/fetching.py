"""Files of a published version: read in place where the remote can seek, else fetched and verified."""

import glob
import hashlib
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, as_completed, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple
from uuid import uuid4

from dvc.repo import Repo
from dvc.repo.index import Index
from dvc.stage import Stage
from dvc_data.index import DataIndexDirError, DataIndexEntry, FileStorage, StorageInfo
from dvc_objects.fs.base import FileSystem
from pydantic import TypeAdapter, ValidationError
from tqdm import tqdm

from captcha_registry.cache import find_cache_dir, hold_lock, make_cache_folder, share_file
from captcha_registry.dataset.files import LocalFiles
from captcha_registry.dataset.manifest import MANIFEST_NAME, FileEntry, InsidePath, Manifest, parse_manifest
from captcha_registry.errors import FULL_DISK, UserError
from captcha_registry.registry.repository import Published, open_revision
from captcha_registry.workspace import link_or_copy, name_full_disk

# Remotes answer slowly rather than narrowly: several files are under way at once.
PARALLEL_FETCHES = 4
# What is under way when a fetch is stopped gets so long to end.
ENDING_SECONDS = 0.5
# What a fetch that was killed left is older than any that is under way.
LONGEST_FETCH_SECONDS = 24 * 3600
# What to do about an object that a remote does not have; plain `dvc push` sends those of the commit that is checked out.
LOST = "its owner has to run `dvc push --all-commits`, or the address is wrong"
# File systems live as long as the process, as most of fsspec's do: it cannot close an HTTP session that becomes garbage in the
# thread of its own event loop, and aiohttp then complains on stderr.
kept_file_systems: set[FileSystem] = set()
# What is being written by the threads of this process, and has no place if that is stopped.
_unfinished: set[Path] = set()


class Checksum(NamedTuple):
    """What a file's bytes must hash to; DVC has an MD5 for every file, a manifest a SHA-256 for its own."""

    algorithm: str
    hexdigest: str

    def fits(self, path: Path) -> bool:
        """Say whether a file exists and has these bytes."""
        if not path.is_file():
            return False
        with path.open("rb") as file:
            return hashlib.file_digest(file, self.algorithm).hexdigest() == self.hexdigest


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """One file of a published version.

    Attributes:
        filesystem: where its bytes are, at `location`.
        md5: what the commit has for it.
        kept: whether this is the copy in the repository's own DVC cache.
        remote: the same file at the remote, to take if a copy that is kept has other bytes.
    """

    name: str
    filesystem: FileSystem
    location: str
    md5: str
    kept: bool = False
    remote: "RemoteFile | None" = None

    def read(self, offset: int = 0, length: int | None = None) -> bytes:
        """Read some bytes; a remote that cannot seek returns all of them.

        Raises:
            UserError: the remote does not give them.
        """
        with self._explain_errors():
            return bytes(self.filesystem.cat_file(self.location, start=offset, end=None if length is None else offset + length))

    def read_verified(self) -> bytes:
        """Read the complete file and compare it with the MD5 that the commit has.

        Raises:
            UserError: the remote does not give it, or other bytes.
        """
        content = self.read()
        if hashlib.md5(content, usedforsecurity=False).hexdigest() == self.md5:
            return content
        if self.remote:
            return self.remote.read_verified()
        raise self._damaged(Checksum("md5", self.md5))

    def fetch(self, checksum: Checksum, target: Path) -> None:
        """Copy the complete file to `target`, which gets its name only when its bytes are verified.

        Raises:
            UserError: the remote does not give them, or others.
        """
        target.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(target)
        temporary = target.with_name(f"{target.name}.{uuid4().hex[:12]}.tmp")
        _unfinished.add(temporary)
        try:
            with self._explain_errors(temporary), name_full_disk(target):
                self.filesystem.get_file(self.location, str(temporary))
            if checksum.fits(temporary):
                temporary.replace(target)
            elif self.remote:
                self.remote.fetch(checksum, target)
            else:
                raise self._damaged(checksum)
        finally:
            temporary.unlink(missing_ok=True)
            _unfinished.discard(temporary)

    def _damaged(self, checksum: Checksum) -> UserError:
        cure = (
            "the DVC cache of that repository is damaged; delete that file"
            if self.kept
            else "the remote is damaged; its owner has to delete that file there, and to run "
            "`dvc push --all-commits` from a checkout that has the right one"
        )
        return UserError(
            f"{self.name}: {self.location} has other bytes than were published, {checksum.algorithm} {checksum.hexdigest}: {cure}"
        )

    @contextmanager
    def _explain_errors(self, written: Path | None = None) -> Iterator[None]:
        """Tell of errors of the remote; those of a full disk, and of the file that is `written` here, are this machine's."""
        try:
            yield
        # Every kind of remote has errors of its own, and no common ancestor.
        except Exception as error:
            if isinstance(error, OSError):
                if error.errno in FULL_DISK:
                    raise
                if written and isinstance(error.filename, str) and Path(error.filename).absolute() == written.absolute():
                    raise OSError(error.errno, error.strerror, str(written.parent)) from None
            if isinstance(error, FileNotFoundError):
                raise UserError(f"{self.name}: {self.location} is not on the remote: {LOST}") from None
            problem = " ".join(str(error).split()) or type(error).__name__
            raise UserError(
                f"{self.name}: {self.location} could not be read ({problem}): check the network and your rights"
            ) from None


def _remove_leftovers(target: Path) -> None:
    """Remove what killed processes fetched of a file; others may be fetching it now."""
    for left in target.parent.glob(f"{glob.escape(target.name)}.*.tmp"):
        # Another process may be quicker, and another user's file may be nothing to remove.
        with suppress(OSError):
            if time.time() - left.stat().st_mtime > LONGEST_FETCH_SECONDS:
                left.unlink()


def find_files(repo: Repo, published: Published) -> dict[str, RemoteFile]:
    """List the files of a version by their path inside it; only listings are read, no file.

    Raises:
        UserError: DVC does not know them, they come from elsewhere, a path leaves the artifact, or the remote cannot be reached.
    """
    return find_tracked_files(repo, published.revision, published.path, str(published))


def find_tracked_files(repo: Repo, revision: str, folder: str, where: str) -> dict[str, RemoteFile]:
    """List the files below a folder that DVC tracks at a commit; `where` opens each line of an error.

    Raises:
        UserError: as `find_files`.
    """
    prefix = tuple(folder.split("/"))
    with open_revision(repo, revision):
        index = Index(repo, stages=_find_stages(repo, folder, where)).data["repo"]
        remotes = [storage.remote for storage in index.storage_map.values() if storage.remote]
        kept_file_systems.update(remote.fs for remote in remotes)
        if named := [remote.path for remote in remotes if isinstance(remote, FileStorage)]:
            raise UserError(
                f"{where}: DVC's settings say that its remote {named[0]} is version_aware or a worktree, which holds files under "
                "their names; expected a plain one: take that out with `dvc remote modify --unset NAME version_aware` or "
                "`worktree`, where it is set with --local or --global also with that"
            )
        try:
            entries = [entry for _, entry in index.iteritems(prefix) if not (entry.meta and entry.meta.isdir)]
        except DataIndexDirError as error:
            problem = error.__cause__ or error
            cure = LOST if isinstance(problem, FileNotFoundError) else "check address and rights"
            other = "" if repo.url else "; if its commit names another remote than today's, name the repository with --repo URL"
            raise UserError(f"{where}: the remote does not list its files ({problem}): {cure}{other}") from None
        except KeyError:
            raise UserError(f"{where}: DVC tracks nothing under {folder} there") from None
        paths = [_check_path(where, entry.key[len(prefix) :]) for entry in entries]
        places = zip(paths, entries, strict=True)
        return {path: _locate(f"{where}: {path}", entry, index.storage_map[entry.key]) for path, entry in places}


def _find_stages(repo: Repo, folder: str, where: str) -> list[Stage]:
    """List the stages that a folder's files come from; whatever else is in the repository is not looked into.

    Raises:
        UserError: one takes its data from elsewhere, which DVC would follow to any repository, server or file of this machine.
    """
    place = repo.fs.join(repo.root_dir, folder)
    outs = [out for out in repo.index.outs if repo.fs.isin_or_eq(out.fs_path, place) or repo.fs.isin(place, out.fs_path)]
    stages = list({out.stage.addressing: out.stage for out in outs}.values())
    for stage in stages:
        imported = not stage.cmd and stage.deps
        # What is set for one file only can name commands of this machine, as the settings of a remote can.
        configured = any(out.def_fs_config for out in (*stage.outs, *stage.deps))
        if imported or configured or not all(out.is_in_repo for out in stage.outs):
            raise UserError(f"{where}: {stage.path_in_repo} is imported from elsewhere; fetch it from where it is published")
    return stages


def measure_version(repo: Repo, published: Published) -> int:
    """Return the bytes of a version, as its commit has them."""
    with open_revision(repo, published.revision):
        folder = repo.fs.join(repo.root_dir, published.path)
        return sum(out.meta.size or 0 for out in repo.index.outs if repo.fs.isin_or_eq(out.fs_path, folder))


def _check_path(where: str, key: tuple[str, ...]) -> str:
    try:
        return TypeAdapter(InsidePath).validate_python("/".join(key) or ".")
    except ValidationError:
        raise UserError(f"{where}: the path {'/'.join(key)!r} leaves the artifact; nothing was fetched") from None


def _locate(name: str, entry: DataIndexEntry, storage: StorageInfo) -> RemoteFile:
    """Find a file in the repository's own cache if that has it, else at its remote."""
    if not (entry.hash_info and entry.hash_info.value):
        raise UserError(f"{name}: the commit has no hash for it: its owner has to run `dvc repro` and commit dvc.lock")
    md5 = entry.hash_info.value
    remote = RemoteFile(name, *storage.remote.get(entry), md5) if storage.remote else None
    if storage.cache and storage.cache.exists(entry):
        filesystem, location = storage.cache.get(entry)
        # DVC takes the cache for the remote of a repository that has none.
        other = remote if remote and remote.location != location else None
        return RemoteFile(name, filesystem, location, md5, kept=True, remote=other)
    if not remote:
        raise UserError(f"{name}: the repository names no DVC remote: its owner has to add one with `dvc remote add -d`")
    return remote


@dataclass
class PublishedFiles:
    """The files of a published dataset (see `dataset.files.Files`); what was fetched once is kept and verified when first used.

    Attributes:
        sources: where each file is, by its path inside the dataset.
        entries: what the manifest says of it.
        root: the folder of the files that were fetched, each under its path; it is shared by all who read this dataset.
    """

    sources: Mapping[str, RemoteFile]
    entries: Mapping[str, FileEntry]
    root: Path
    verified: set[str] = field(default_factory=set)

    def read(self, path: str, offset: int, length: int) -> bytes:
        """Read some bytes of a file, at the remote unless it was fetched."""
        if path not in self.verified and not self._verify(path):
            content = self.sources[path].read(offset, length)
            if len(content) <= length:
                return content
            # A server that sends the complete file for a part of it is asked once.
            self.make_local([path])
        return LocalFiles(self.root, self.entries).read(path, offset, length)

    def make_local(self, paths: Iterable[str]) -> Path:
        """Fetch the files that are not here yet, several at once, with a progress bar."""
        # What is all here needs no lock, which a cache that can only be read does not give.
        if missing := self._list_missing(paths):
            with hold_lock(make_cache_folder(self.root).with_suffix(".lock")):
                fetch_all({path: self.entries[path].size_bytes for path in self._list_missing(missing)}, self._fetch)
        return self.root

    def _list_missing(self, paths: Iterable[str]) -> list[str]:
        return [path for path in paths if path not in self.verified and not self._verify(path)]

    def _verify(self, path: str) -> bool:
        if verified := Checksum("sha256", self.entries[path].sha256).fits(self.root / path):
            self.verified.add(path)
        return verified

    def _fetch(self, path: str) -> None:
        checksum = Checksum("sha256", self.entries[path].sha256)
        kept = find_cache_dir() / "files" / checksum.hexdigest[:2] / checksum.hexdigest
        if not checksum.fits(kept):
            make_cache_folder(kept.parent)
            self.sources[path].fetch(checksum, kept)
            share_file(kept)
        make_cache_folder((self.root / path).parent)
        (self.root / path).unlink(missing_ok=True)
        link_or_copy(kept, self.root / path)
        self.verified.add(path)


def fetch_parts(published: Published, sources: Mapping[str, RemoteFile], paths: Collection[str]) -> Path:
    """Fetch some files of a version, each verified by the MD5 that its commit has, and return the folder of the cache with them.

    Raises:
        UserError: one of them was not published, or the remote does not give it.
    """
    if lacking := [path for path in paths if path not in sources]:
        raise UserError(f"{published} holds no {lacking[0]}; it holds {', '.join(sorted(sources))}")
    checksums = {path: Checksum("md5", sources[path].md5) for path in sorted(paths)}
    folder = find_cache_dir() / "parts" / hashlib.sha256(repr(checksums).encode()).hexdigest()

    def list_missing() -> list[str]:
        return [path for path, checksum in checksums.items() if not checksum.fits(folder / path)]

    # What is all here needs no lock, which a cache that can only be read does not give.
    if list_missing():
        with hold_lock(make_cache_folder(folder).with_suffix(".lock")):
            missing = list_missing()
            fetch_all(dict.fromkeys(missing, 0), lambda path: sources[path].fetch(checksums[path], folder / path))
            for path in missing:
                share_file(folder / path)
    return folder


def open_files(published: Published, sources: Mapping[str, RemoteFile]) -> tuple[PublishedFiles, Manifest]:
    """Open a version of a dataset whose files have been found.

    Raises:
        UserError: it is not a complete dataset.
    """
    manifest, content = read_published_manifest(published, sources)
    folder = find_cache_dir() / "datasets" / hashlib.sha256(content).hexdigest()
    return PublishedFiles(sources, manifest.entries, folder), manifest


def read_published_manifest(published: Published, sources: Mapping[str, RemoteFile]) -> tuple[Manifest, bytes]:
    """Read the manifest of a version, verified by the MD5 that Git has, and make sure that all its files were published.

    Raises:
        UserError: there is none, it is not the one that was published, or it names files that were not.
    """
    if MANIFEST_NAME not in sources:
        raise UserError(f"{published} is not a dataset: it has no {MANIFEST_NAME}; `load_model` opens a model")
    content = sources[MANIFEST_NAME].read_verified()
    manifest = parse_manifest(content, sources[MANIFEST_NAME].name)
    if lacking := [path for path in manifest.entries if path not in sources]:
        raise UserError(f"{published}: its manifest names {lacking[0]}, which was not published ({len(lacking)} such files)")
    return manifest, content


def fetch_all(sizes: Mapping[str, int], fetch: Callable[[str], None]) -> None:
    """Fetch files, several at once, with a progress bar over their bytes; the first error ends it."""
    executor = ThreadPoolExecutor(PARALLEL_FETCHES)
    running: dict[Future[None], int] = {}
    hidden = None if sizes else True
    with tqdm(total=sum(sizes.values()), desc="fetch", unit="B", unit_scale=True, disable=hidden, leave=False) as bar:
        try:
            for path, size in sizes.items():
                running[executor.submit(fetch, path)] = size
            for future in as_completed(running):
                future.result()
                bar.update(running[future])
        except KeyboardInterrupt:
            # The threads may wait for a server that does not answer; the process ends without them, but not while one that
            # does not wait is about to make a file.
            executor.shutdown(wait=False, cancel_futures=True)
            wait(running, ENDING_SECONDS)
            for temporary in list(_unfinished):
                temporary.unlink(missing_ok=True)
            raise
        except Exception:
            executor.shutdown(cancel_futures=True)
            raise
    executor.shutdown()
