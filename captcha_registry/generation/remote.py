"""Draw a dataset straight to a URL that fsspec knows, such as `s3://bucket/digits`, without a folder that workers share.

    <url>/.bid-<seconds>-<process>-<host>                 while a run looks whether it is alone; of several the first one stays
    <url>/.claim-<seconds>-<process>-<host>               while a run is at work there, written again every now and then
    <url>/00000.tfrecord ...                              each drawn into a temporary file of a worker, then uploaded in one piece
    <url>/.unfinished-<fingerprint>/00000.parquet ...     the shard's index rows
    <url>/.unfinished-<fingerprint>/00000.sha256 ...      the hash of the rows; comes after them: with it the shard counts as done
    <url>/index.parquet
    <url>/README.md, <url>/croissant.json                 the card and the metadata
    <url>/manifest.json                                   comes last; then the unfinished folder goes

The bytes are those of a local run. A run that was stopped is taken up by the same command: at once on the same host, elsewhere
when its claim has become old.
"""

import json
import os
import re
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import fsspec
import pyarrow as pa
from fsspec.implementations.local import LocalFileSystem

from captcha_registry.dataset.index import INDEX_NAME
from captcha_registry.dataset.manifest import MANIFEST_NAME, FileEntry, Manifest, parse_manifest, write_manifest
from captcha_registry.dataset.parquet import parse_rows
from captcha_registry.dataset.records import shard_name
from captcha_registry.errors import FULL_DISK, UserError, hide_login
from captcha_registry.extras import advise_install
from captcha_registry.generation.drawing import DRAWING_VERSION, Drawer, hash_fonts
from captcha_registry.generation.generating import draw_shards, make_manifest, write_shard_rows
from captcha_registry.generation.shards import draw_shard, proof_path, read_verified_entry, rows_path
from captcha_registry.machine import expand_home
from captcha_registry.workspace import name_full_disk

UNFINISHED = ".unfinished-"
DESCRIPTIONS = {"README.md", "croissant.json"}
Describe = Callable[[Manifest], dict[str, str]]
_MARK = re.compile(r"\.(?P<kind>bid|claim)-(?P<seconds>\d+)-(?P<process>\d+)-(?P<host>.+)")

# A bid or claim that was not written again for so long is of a dead run.
CLAIM_SECONDS = 120
_RENEWAL_SECONDS = 20

# So long a run waits for others that have bid after it to leave, and looks so often.
_BID_SECONDS = 20
_PAUSE_SECONDS = 0.1


@dataclass(frozen=True)
class Target:
    """Where a dataset goes: the URL of its folder, and the name of the part that is there only while it is unfinished."""

    # Dask prints the arguments of a task that failed.
    url: str = field(repr=False)
    unfinished: str


def require_url(url: str) -> None:
    """Refuse what names no folder that other processes can write to, before anything is drawn.

    Raises:
        UserError: it is empty, a mistyped URL, which would become a folder called `s3:`, or memory that ends with its process.
    """
    address = url.strip().rstrip("/")
    problem = "" if address else "names no folder"
    if ":" in address.partition("/")[0] and "://" not in address:
        # It may be an address with a login, of which a part was left out.
        problem = f"is {re.sub(':.*@', ':***@', url)}, neither a URL nor a plain folder"
    if address.startswith("memory:"):
        problem = f"is {url}, memory that ends with the process that fills it"
    if problem:
        raise UserError(f"--to {problem}; expected a place that fsspec knows, such as s3://bucket/digits or /mnt/share/digits")


class Place:
    """The folder at a URL. Names are paths inside it; whatever the file system calls its errors, they say what is the matter."""

    def __init__(self, url: str) -> None:
        """Find the file system; nothing is read yet."""
        self.url = url
        with self._explain_errors():
            if "://" in url:
                self._fs, root = fsspec.url_to_fs(url, skip_instance_cache=True)
            else:
                # fsspec would take `::` in a path for a chain of file systems.
                self._fs, root = LocalFileSystem(), str(expand_home(url).absolute())
            # What another worker has just written must be seen. No option, which SSH would take for one of its own.
            self._fs.dircache.use_listings_cache = False
        self._root = root.rstrip("/")

    @contextmanager
    def _explain_errors(self) -> Iterator[None]:
        try:
            with name_full_disk(self.url):
                yield
        except ImportError as error:
            # fsspec's own words are of the package, but its cause names it.
            name = getattr(error.__cause__, "name", None)
            cure = f": {advise_install(name)}" if name else ""
            raise UserError(f"{self.url} needs a package that is not installed: {error}{cure}") from error
        except NotImplementedError as error:
            raise UserError(
                f"{self.url} can only be read: choose a place that takes files, such as s3://bucket/digits"
            ) from error
        except Exception as error:
            if isinstance(error, OSError) and error.errno in FULL_DISK:
                raise
            problem = hide_login(str(error), self.url) or type(error).__name__
            raise UserError(f"{self.url}: {problem}: check the address and your access, then run it again") from error

    def list_sizes(self) -> dict[str, int]:
        """List the sizes in bytes of all files, by their names."""
        with self._explain_errors():
            return {path[len(self._root) + 1 :]: info["size"] for path, info in self._fs.find(self._root, detail=True).items()}

    def read(self, name: str) -> bytes | None:
        """Read a file; None if there is none."""
        with self._explain_errors():
            try:
                return bytes(self._fs.cat_file(f"{self._root}/{name}"))
            except FileNotFoundError:
                return None

    def write(self, name: str, content: bytes = b"") -> None:
        """Write a small file."""
        self._make_folder_of(name)
        with self._explain_errors():
            self._fs.pipe_file(f"{self._root}/{name}", content)

    def upload(self, file: Path, name: str) -> None:
        """Write what a local file holds."""
        self._make_folder_of(name)
        with self._explain_errors():
            self._fs.put_file(str(file), f"{self._root}/{name}")

    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""
        with self._explain_errors(), suppress(FileNotFoundError):
            self._fs.rm_file(f"{self._root}/{name}")

    def remove_folder(self, name: str) -> None:
        """Remove a folder with all that is in it, if it is there."""
        with self._explain_errors(), suppress(FileNotFoundError):
            self._fs.rm(f"{self._root}/{name}", recursive=True)

    def _make_folder_of(self, name: str) -> None:
        if isinstance(self._fs, LocalFileSystem):
            with self._explain_errors():
                self._fs.makedirs(os.path.dirname(f"{self._root}/{name}"), exist_ok=True)  # noqa: PTH120 - not always a path


def draw_remote_dataset(
    name: str, drawer: Drawer, url: str, fingerprint: str, executor: Executor, describe: Describe
) -> tuple[Manifest, int]:
    """Draw a dataset to a URL, or the rest of it; return its manifest and how many of its shards were there already.

    Args:
        name: of the dataset.
        drawer: of the dataset.
        url: of its folder.
        fingerprint: of all that decides its bytes.
        executor: runs the drawing.
        describe: makes of a manifest the texts of the files in `DESCRIPTIONS`.

    Raises:
        UserError: another dataset is there, another run is at work there, or the URL cannot be reached.
    """
    target = Target(url.rstrip("/"), UNFINISHED + fingerprint)
    place = Place(target.url)
    # Looks only: into a place of others nothing is written.
    if _read_own_manifest(drawer, place) is None:
        _list_own_sizes(drawer, place, target)
    with claim_place(place):
        if manifest := _find_finished_dataset(drawer, place, target):
            _write_descriptions(place, describe(manifest))
            return manifest, len(manifest.shards)
        finished = _find_finished_shards(drawer, place, target)
        shards = draw_shards(drawer, finished, partial(draw_remote_shard, target=target), executor)
        return _finish(name, drawer, shards, target, describe), len(finished)


def draw_remote_shard(drawer: Drawer, shard_number: int, target: Target) -> FileEntry:
    """Draw one shard and upload it, after it its index rows, and after them their hash."""
    with tempfile.TemporaryDirectory() as folder:
        entry = draw_shard(drawer, shard_number, Path(folder))
        place = Place(target.url)
        for name in _names_of(shard_number, target):
            place.upload(Path(folder) / Path(name).name, name)
    return entry


@contextmanager
def claim_place(place: Place) -> Iterator[None]:
    """Keep other runs away from a place; of several that start at the same moment one stays.

    Raises:
        UserError: another run is at work there, or was a moment earlier.
    """
    claims, is_over = [_win_place(place)], threading.Event()

    def renew() -> None:
        while not is_over.wait(_RENEWAL_SECONDS):
            # What does not succeed now may do so next time.
            with suppress(UserError):
                claims.append(_name_mark("claim"))
                place.write(claims[-1])
                place.remove(claims[-2])

    renewal = threading.Thread(target=renew, daemon=True)
    renewal.start()
    try:
        yield
    finally:
        is_over.set()
        renewal.join()
        for claim in claims[-2:]:
            place.remove(claim)


def _win_place(place: Place) -> str:
    """Bid for a place, and claim it when nobody else does; return the name of the claim.

    Of two runs, the one that lists the place last sees the other: it leaves if that one has claimed, or has bid earlier, and
    otherwise waits until that one leaves or claims.
    """
    _refuse_runs(place, list_other_runs(place, "claim"))
    bid, deadline = _name_mark("bid"), time.monotonic() + _BID_SECONDS
    place.write(bid)
    try:
        while others := list_other_runs(place):
            _refuse_runs(place, [mark for mark in others if _is_before(mark, bid) or time.monotonic() > deadline])
            time.sleep(_PAUSE_SECONDS)
        claim = _name_mark("claim")
        place.write(claim)
    finally:
        place.remove(bid)
    return claim


def _name_mark(kind: str) -> str:
    return f".{kind}-{int(time.time())}-{os.getpid()}-{socket.gethostname()}"


def _is_before(mark: re.Match[str], bid: str) -> bool:
    """Tell whether a run is at work, or has bid before this one did; in the same second, its process and host decide."""
    own = _MARK.fullmatch(bid)
    assert own is not None  # noqa: S101 - it is ours
    return mark["kind"] == "claim" or _order_of(mark) < _order_of(own)


def _order_of(mark: re.Match[str]) -> tuple[int, int, str]:
    return int(mark["seconds"]), int(mark["process"]), mark["host"]


def list_other_runs(place: Place, *kinds: str) -> list[re.Match[str]]:
    """List the bids and claims, or those of some kinds, of other runs that may live; remove those of dead ones."""
    found = []
    for mark in filter(None, map(_MARK.fullmatch, place.list_sizes())):
        process, is_here = int(mark["process"]), mark["host"] == socket.gethostname()
        if (is_here and process == os.getpid()) or mark["kind"] not in (kinds or ("bid", "claim")):
            continue
        if _count_seconds_left(mark) <= 0 or (is_here and not _is_alive(process)):
            place.remove(mark[0])
        else:
            found.append(mark)
    return found


def _count_seconds_left(mark: re.Match[str]) -> int:
    return int(mark["seconds"]) + CLAIM_SECONDS - int(time.time())


def _refuse_runs(place: Place, marks: list[re.Match[str]]) -> None:
    """Leave the place to another run, if there is one."""
    for mark in marks[:1]:
        raise UserError(
            f"another run, process {mark['process']} on {mark['host']}, is at work in {place.url}: wait for it to end, or "
            f"stop it; if it was killed, run again in {_count_seconds_left(mark)} seconds, or delete {place.url}/{mark[0]}"
        )


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        # It is someone else's.
        return True
    return True


def _read_own_manifest(drawer: Drawer, place: Place) -> Manifest | None:
    """Read the manifest of the same dataset; None if there is none, or a cut one.

    Raises:
        UserError: the place holds another dataset.
    """
    content = place.read(MANIFEST_NAME) or b""
    try:
        json.loads(content)
    except ValueError:
        return None
    manifest = parse_manifest(content, f"{place.url}/{MANIFEST_NAME}")
    fonts = hash_fonts(drawer.spec.fonts, drawer.font_files)
    if (manifest.spec, manifest.drawing_version, manifest.fonts) != (drawer.spec, DRAWING_VERSION, fonts):
        raise UserError(
            f"{place.url} holds another dataset: {manifest.name}, {manifest.spec.count:,} samples, seed {manifest.spec.seed}, "
            f"id {manifest.dataset_id[:12]}: choose an empty place, or delete what is there"
        )
    if manifest.split:
        raise UserError(
            f"{place.url} holds {manifest.name} after its split into train and test, which comes later: choose an empty place"
        )
    return manifest


def _find_finished_dataset(drawer: Drawer, place: Place, target: Target) -> Manifest | None:
    """Return the manifest of the same dataset if it is complete, names and sizes."""
    manifest = _read_own_manifest(drawer, place)
    sizes = place.list_sizes()
    if manifest is None or any(sizes.get(entry.path) != entry.size_bytes for entry in manifest.entries.values()):
        # Without it the dataset counts as unfinished, and is drawn again.
        place.remove(MANIFEST_NAME)
        return None
    place.remove_folder(target.unfinished)
    return manifest


def _list_own_sizes(drawer: Drawer, place: Place, target: Target) -> dict[str, int]:
    """List the sizes of what runs of the same work left; refuse a place that holds anything else."""
    sizes = {name: size for name, size in place.list_sizes().items() if not _MARK.fullmatch(name)}
    own = {name for number in range(drawer.spec.num_shards) for name in _names_of(number, target)}
    own |= {INDEX_NAME, MANIFEST_NAME}
    # A README.md that is there alone is somebody's.
    own |= DESCRIPTIONS if own & set(sizes) else set()
    if foreign := sorted(set(sizes) - own):
        raise UserError(f"{target.url} already holds {foreign[0]}: choose an empty place, or delete what is there")
    return sizes


def _find_finished_shards(drawer: Drawer, place: Place, target: Target) -> dict[int, FileEntry]:
    """Find the shards that an earlier run of the same work finished."""
    sizes = _list_own_sizes(drawer, place, target)
    finished = {}
    for number in range(drawer.spec.num_shards):
        shard, rows, proof = names = _names_of(number, target)
        if all(name in sizes for name in names):
            entry = read_verified_entry(place.read(rows) or b"", place.read(proof) or b"")
            if entry and entry.size_bytes == sizes[shard]:
                finished[number] = entry
    return finished


def _names_of(shard_number: int, target: Target) -> tuple[str, str, str]:
    """Name the files of a shard inside the target, in the order in which they are written."""
    folder = Path(target.unfinished)
    rows, proof = rows_path(folder, shard_number), proof_path(folder, shard_number)
    return shard_name(shard_number), rows.as_posix(), proof.as_posix()


def _finish(name: str, drawer: Drawer, shards: list[FileEntry], target: Target, describe: Describe) -> Manifest:
    """Upload the index, the descriptions and, last, the manifest; then clean up."""
    place = Place(target.url)
    with tempfile.TemporaryDirectory() as folder:
        local = Path(folder)
        write_shard_rows(local / INDEX_NAME, (_read_rows(place, _names_of(n, target)[1]) for n in range(len(shards))))
        manifest = make_manifest(name, drawer, shards, FileEntry.of(local, INDEX_NAME, num_samples=drawer.spec.count))
        write_manifest(local, manifest)
        place.upload(local / INDEX_NAME, INDEX_NAME)
        _write_descriptions(place, describe(manifest))
        place.upload(local / MANIFEST_NAME, MANIFEST_NAME)
    place.remove_folder(target.unfinished)
    return manifest


def _write_descriptions(place: Place, texts: dict[str, str]) -> None:
    for name, text in texts.items():
        place.write(name, text.encode())


def _read_rows(place: Place, name: str) -> pa.Table:
    content = place.read(name)
    if content is None:
        raise UserError(f"{place.url}/{name} is missing: someone else is at work there; run the same command again")
    return parse_rows(content)
