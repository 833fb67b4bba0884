"""Draw a dataset straight to a URL that fsspec knows, such as `s3://bucket/digits`, without a folder that workers share.

    <url>/00000.tfrecord ...                              each drawn into a temporary file of a worker, then uploaded whole
    <url>/.unfinished-<fingerprint>/00000.parquet ...     the shard's index rows
    <url>/.unfinished-<fingerprint>/00000.sha256 ...      proves the rows; comes after them: with it the shard counts as done
    <url>/index.parquet
    <url>/manifest.json                                   comes last; then the unfinished folder goes

The bytes are those of a local run. A run that was stopped is taken up by the same command.
"""

import tempfile
from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
from fsspec.implementations.local import LocalFileSystem

from captcha_registry.dataset.index import INDEX_NAME
from captcha_registry.dataset.manifest import MANIFEST_NAME, FileEntry, Manifest, parse_manifest, write_manifest
from captcha_registry.dataset.records import shard_name
from captcha_registry.errors import UserError
from captcha_registry.generation.drawing import DRAWING_VERSION, Drawer, hash_fonts
from captcha_registry.generation.generating import draw_shards, make_manifest, write_shard_rows
from captcha_registry.generation.shards import draw_shard, proof_path, read_proved_entry, rows_path

UNFINISHED = ".unfinished-"


@dataclass(frozen=True)
class Target:
    """Where a dataset goes: the URL of its folder, and the name of the part that is there only while it is unfinished."""

    url: str
    unfinished: str

    def open(self) -> tuple[Any, str]:
        """Return the file system and the folder's path in it."""
        # What another worker has just written must be seen.
        fs, root = fsspec.url_to_fs(self.url, use_listings_cache=False, skip_instance_cache=True)
        return fs, root.rstrip("/")


@contextmanager
def explain_remote_errors(url: str) -> Iterator[None]:
    """Say what could not be reached, whatever the file system calls its errors."""
    try:
        yield
    except UserError:
        raise
    except ImportError as error:
        raise UserError(
            f"{url} needs a package that is not installed: {error}; for S3: pip install 'captcha-registry[s3]'"
        ) from error
    except Exception as error:
        raise UserError(
            f"{url}: {error or type(error).__name__}: check the address and your access, then run it again"
        ) from error


def draw_remote_dataset(name: str, drawer: Drawer, url: str, fingerprint: str, executor: Executor) -> tuple[Manifest, int]:
    """Draw a dataset to a URL, or the rest of it; return its manifest and how many of its shards were there already.

    Raises:
        UserError: another dataset is there, or the URL cannot be reached.
    """
    target = Target(url.rstrip("/"), UNFINISHED + fingerprint)
    with explain_remote_errors(target.url):
        if manifest := _find_finished_dataset(drawer, target):
            return manifest, len(manifest.shards)
        finished = _find_finished_shards(drawer, target)
    shards = draw_shards(drawer, finished, partial(draw_remote_shard, target=target), executor)
    with explain_remote_errors(target.url):
        return _finish(name, drawer, shards, target), len(finished)


def draw_remote_shard(drawer: Drawer, shard_number: int, target: Target) -> FileEntry:
    """Draw one shard and upload it, after it its index rows, and after them what proves them."""
    with tempfile.TemporaryDirectory() as folder, explain_remote_errors(target.url):
        entry = draw_shard(drawer, shard_number, Path(folder))
        fs, root = target.open()
        if isinstance(fs, LocalFileSystem):
            fs.makedirs(f"{root}/{target.unfinished}", exist_ok=True)
        for name in _names_of(shard_number, target):
            fs.put_file(f"{folder}/{Path(name).name}", f"{root}/{name}")
    return entry


def _find_finished_dataset(drawer: Drawer, target: Target) -> Manifest | None:
    """Return the manifest of the same dataset if it is complete at the target, names and sizes.

    Raises:
        UserError: the target holds another dataset.
    """
    fs, root = target.open()
    try:
        content = fs.cat_file(f"{root}/{MANIFEST_NAME}")
    except FileNotFoundError:
        return None
    manifest = parse_manifest(content, f"{target.url}/{MANIFEST_NAME}")
    fonts = hash_fonts(drawer.spec.fonts, drawer.font_files)
    if (manifest.spec, manifest.drawing_version, manifest.fonts) != (drawer.spec, DRAWING_VERSION, fonts):
        raise UserError(
            f"{target.url} holds another dataset: {manifest.name}, {manifest.spec.count:,} samples, seed {manifest.spec.seed}, "
            f"id {manifest.dataset_id[:12]}: choose an empty place, or delete what is there"
        )
    sizes = _list_sizes(fs, root)
    if any(sizes.get(entry.path) != entry.size_bytes for entry in (*manifest.shards, manifest.index)):
        # Without it the dataset counts as unfinished, and is drawn again.
        fs.rm_file(f"{root}/{MANIFEST_NAME}")
        return None
    _remove_unfinished(fs, root, target)
    return manifest


def _list_sizes(fs: Any, root: str) -> dict[str, int]:
    """List the sizes in bytes of all files at the target, by their paths inside it."""
    return {path[len(root) + 1 :]: info["size"] for path, info in fs.find(root, detail=True).items()}


def _remove_unfinished(fs: Any, root: str, target: Target) -> None:
    """Remove what only unfinished work needs."""
    if fs.exists(f"{root}/{target.unfinished}"):
        fs.rm(f"{root}/{target.unfinished}", recursive=True)


def _find_finished_shards(drawer: Drawer, target: Target) -> dict[int, FileEntry]:
    """Find what an earlier run of the same work left at the target; refuse a target that holds anything else."""
    fs, root = target.open()
    sizes = _list_sizes(fs, root)
    own = {drawn_name for n in range(drawer.spec.num_shards) for drawn_name in _names_of(n, target)} | {INDEX_NAME}
    if foreign := sorted(set(sizes) - own):
        raise UserError(f"{target.url} already holds {foreign[0]}: choose an empty place, or delete what is there")
    finished = {}
    for number in range(drawer.spec.num_shards):
        shard, rows, proof = names = _names_of(number, target)
        if all(name in sizes for name in names):
            entry = read_proved_entry(*(fs.cat_file(f"{root}/{name}") for name in (rows, proof)))
            if entry and entry.size_bytes == sizes[shard]:
                finished[number] = entry
    return finished


def _names_of(shard_number: int, target: Target) -> tuple[str, str, str]:
    """Name the files of a shard inside the target, in the order in which they are written."""
    folder = Path(target.unfinished)
    rows, proof = rows_path(folder, shard_number), proof_path(folder, shard_number)
    return shard_name(shard_number), rows.as_posix(), proof.as_posix()


def _finish(name: str, drawer: Drawer, shards: list[FileEntry], target: Target) -> Manifest:
    """Upload the index and, last, the manifest; then clean up."""
    fs, root = target.open()
    with tempfile.TemporaryDirectory() as folder:
        local = Path(folder)
        write_shard_rows(local / INDEX_NAME, (_read_rows(fs, f"{root}/{_names_of(n, target)[1]}") for n in range(len(shards))))
        manifest = make_manifest(name, drawer, shards, FileEntry.of(local, INDEX_NAME, num_samples=drawer.spec.count))
        write_manifest(local, manifest)
        for file in (INDEX_NAME, MANIFEST_NAME):
            fs.put_file(f"{folder}/{file}", f"{root}/{file}")
    _remove_unfinished(fs, root, target)
    return manifest


def _read_rows(fs: Any, path: str) -> pa.Table:
    with fs.open(path) as file:
        return pq.read_table(file)
