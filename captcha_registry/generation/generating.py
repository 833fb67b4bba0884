"""Draw a complete dataset through an executor, shard by shard, and put it in place when every shard is there."""

import shutil
from collections.abc import Callable, Iterable
from concurrent.futures import Executor, as_completed
from functools import partial
from pathlib import Path

import pyarrow as pa
from tqdm import tqdm

from captcha_registry.dataset.index import INDEX_NAME, open_index
from captcha_registry.dataset.manifest import MANIFEST_NAME, FileEntry, Manifest, write_manifest
from captcha_registry.generation.drawing import DRAWING_PACKAGES, DRAWING_VERSION, Drawer, hash_fonts
from captcha_registry.generation.executors import share
from captcha_registry.generation.shards import draw_shard, read_finished_shard, read_shard_rows
from captcha_registry.meaning import hash_modules
from captcha_registry.workspace import link_or_copy, require_free_space, tool_versions

# They decide the bytes of a dataset together with the spec and the code.
DATASET_PACKAGES = (*DRAWING_PACKAGES, "google-crc32c", "protobuf", "pyarrow")


def describe_tools(module: str = "generating") -> dict[str, str]:
    """Tell the versions of all that decides the bytes of a dataset besides its spec; workers must agree on them.

    Args:
        module: of this package, which draws: `remote` to a URL.
    """
    return {**tool_versions(DATASET_PACKAGES), **hash_modules(f"captcha_registry.generation.{module}")}


def draw_shards(
    drawer: Drawer, finished: dict[int, FileEntry], draw: Callable[[Drawer, int], FileEntry], executor: Executor
) -> list[FileEntry]:
    """Draw the shards that are not finished yet, with a progress bar; return all of them in order.

    Args:
        drawer: of the dataset.
        finished: what earlier runs left, by shard number.
        draw: draws the shard of a number.
        executor: runs `draw`.
    """
    spec, shards = drawer.spec, dict(finished)
    num_done = sum(entry.num_samples for entry in finished.values())
    with tqdm(total=spec.count, initial=num_done, unit=" samples", desc="drawing", disable=None) as progress:
        missing = [number for number in range(spec.num_shards) if number not in finished]
        # A drawer carries its fonts.
        shared = share(executor, drawer)
        futures = {executor.submit(draw, shared, number): number for number in missing}
        for future in as_completed(futures):
            entry = shards[futures[future]] = future.result()
            progress.update(entry.num_samples)
    return [shards[number] for number in range(spec.num_shards)]


def find_finished_shards(work_dir: Path) -> dict[int, FileEntry]:
    """Find the shards that an interrupted run finished, by their numbers."""
    present = sorted(int(path.stem) for path in work_dir.glob("*.sha256"))
    return {number: entry for number in present if (entry := read_finished_shard(number, work_dir))}


def draw_missing_shards(drawer: Drawer, finished: dict[int, FileEntry], work_dir: Path, executor: Executor) -> list[FileEntry]:
    """Draw into `work_dir` the shards that are not finished yet; return all of them in order.

    Raises:
        UserError: the disk cannot hold what is missing.
    """
    num_done = sum(entry.num_samples for entry in finished.values())
    require_free_space(work_dir, int(drawer.spec.estimated_bytes * (1 - num_done / drawer.spec.count)))
    return draw_shards(drawer, finished, partial(draw_shard, folder=work_dir.absolute()), executor)


def assemble_dataset(name: str, drawer: Drawer, shards: list[FileEntry], work_dir: Path, out_dir: Path) -> Manifest:
    """Link the finished shards of `work_dir` into `out_dir` and write index and manifest, the manifest last."""
    # First, lest what is left of a run that is killed in the midst of it look finished.
    (out_dir / MANIFEST_NAME).unlink(missing_ok=True)
    if out_dir.exists():
        shutil.rmtree(out_dir)
    out_dir.mkdir(parents=True)
    for shard in shards:
        link_or_copy(work_dir / shard.path, out_dir / shard.path)
    write_shard_rows(out_dir / INDEX_NAME, read_shard_rows(len(shards), work_dir))
    manifest = make_manifest(name, drawer, shards, FileEntry.of(out_dir, INDEX_NAME, num_samples=drawer.spec.count))
    write_manifest(out_dir, manifest)
    return manifest


def write_shard_rows(path: Path, tables: Iterable[pa.Table]) -> None:
    """Write the index from the rows of each shard, one shard at a time in memory."""
    with open_index(path) as index:
        for rows in tables:
            index.write(rows)
        index.finish()


def make_manifest(name: str, drawer: Drawer, shards: list[FileEntry], index: FileEntry) -> Manifest:
    """Make the manifest of a dataset that was just drawn."""
    return Manifest.create(
        name=name,
        spec=drawer.spec,
        drawing_version=DRAWING_VERSION,
        fonts=hash_fonts(drawer.spec.fonts, drawer.font_files),
        split=None,
        shards=tuple(shards),
        index=index,
        tool_versions=tool_versions(DATASET_PACKAGES),
    )
