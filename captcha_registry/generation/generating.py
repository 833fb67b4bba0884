"""Draw a whole dataset through an executor, shard by shard, and put it in place when every shard is there."""

import shutil
from concurrent.futures import Executor, as_completed
from pathlib import Path

from tqdm import tqdm

from captcha_registry.dataset.index import INDEX_NAME, open_index
from captcha_registry.dataset.manifest import FileEntry, Manifest, write_manifest
from captcha_registry.generation.drawing import DRAWING_PACKAGES, DRAWING_VERSION, Drawer, hash_fonts
from captcha_registry.generation.shards import draw_shard, read_finished_shard, read_shard_rows
from captcha_registry.workspace import link_or_copy, require_free_space, tool_versions

# They decide the bytes of a dataset together with the spec and the code.
DATASET_PACKAGES = (*DRAWING_PACKAGES, "google-crc32c", "protobuf", "pyarrow")


def draw_missing_shards(drawer: Drawer, work_dir: Path, executor: Executor) -> list[FileEntry]:
    """Draw the shards that `work_dir` does not hold yet, with a progress bar; return all of them in order.

    Raises:
        UserError: the disk cannot hold what is missing.
    """
    spec = drawer.spec
    present = sorted(int(path.stem) for path in work_dir.glob("*.parquet"))
    finished = {number: entry for number in present if (entry := read_finished_shard(number, work_dir))}
    num_done = sum(entry.num_samples for entry in finished.values())
    require_free_space(work_dir, int(spec.estimated_bytes * (1 - num_done / spec.count)))

    missing = [number for number in range(spec.num_shards) if number not in finished]
    with tqdm(total=spec.count, initial=num_done, unit=" samples", desc="drawing", disable=None) as progress:
        futures = {executor.submit(draw_shard, drawer, number, work_dir): number for number in missing}
        for future in as_completed(futures):
            entry = finished[futures[future]] = future.result()
            progress.update(entry.num_samples)
    return [finished[number] for number in range(spec.num_shards)]


def assemble_dataset(name: str, drawer: Drawer, shards: list[FileEntry], work_dir: Path, out_dir: Path) -> Manifest:
    """Link the finished shards of `work_dir` into `out_dir` and write index and manifest, the manifest last."""
    shutil.rmtree(out_dir, ignore_errors=True)
    out_dir.mkdir(parents=True)
    for shard in shards:
        link_or_copy(work_dir / shard.path, out_dir / shard.path)
    with open_index(out_dir / INDEX_NAME) as index:
        for rows in read_shard_rows(len(shards), work_dir):
            index.write(rows)
        index.finish()
    manifest = Manifest.create(
        name=name,
        spec=drawer.spec,
        drawing_version=DRAWING_VERSION,
        fonts=hash_fonts(drawer.spec.fonts, drawer.font_files),
        split=None,
        shards=tuple(shards),
        index=FileEntry.of(out_dir, INDEX_NAME, num_samples=drawer.spec.count),
        tool_versions=tool_versions(DATASET_PACKAGES),
    )
    write_manifest(out_dir, manifest)
    return manifest
