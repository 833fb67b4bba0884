"""Put a damaged dataset right: what is under a wrong name goes back, the rest is drawn again from the seed.

Every file is proved to have the SHA-256 that the manifest says before it takes its place; the good ones are not touched.
"""

import shutil
from collections.abc import Iterator
from concurrent.futures import Executor, as_completed
from contextlib import contextmanager
from pathlib import Path

import pyarrow.compute as pc
from filelock import FileLock, Timeout
from tqdm import tqdm

from captcha_registry.dataset.folder import open_folder
from captcha_registry.dataset.index import read_index
from captcha_registry.dataset.manifest import FileEntry, Manifest, read_manifest
from captcha_registry.dataset.records import ShardWriter
from captcha_registry.dataset.verify import require_dataset, verify_dataset
from captcha_registry.errors import UserError
from captcha_registry.generation.drawing import DRAWING_VERSION, Drawer, hash_fonts
from captcha_registry.generation.generating import DATASET_PACKAGES, assemble_dataset, draw_missing_shards
from captcha_registry.generation.shards import draw_record
from captcha_registry.generation.splitting import split_dataset
from captcha_registry.workspace import link_or_copy, tool_versions

# Inside the dataset, so that a finished file takes its place in one step.
STAGING_NAME = ".repair"


def repair_dataset(root: Path, executor: Executor) -> tuple[list[str], list[Path]]:
    """Repair a dataset in place.

    Returns:
        A line for each file that was put right, and the files that belong to nobody: it is not for a repair to delete them.

    Raises:
        UserError: there is no dataset, its manifest is damaged, it was drawn by another version or other tools, or another
            repair runs.
    """
    require_dataset(root)
    manifest = read_manifest(root)
    with _open_staging(root) as staging:
        problems = verify_dataset(root, "full", executor)
        if broken := [problem for problem in problems if problem.kind == "manifest"]:
            raise UserError(f"{broken[0]}: nothing can be proved with it; restore it from Git or with `dvc checkout`")
        wrong = {problem.path for problem in problems if problem.kind in {"missing", "changed", "swapped"}}
        # A file may also be a copy of one, or a link to one, that is where it belongs.
        sources = {p.holds: p.path for p in problems if p.holds and (p.kind == "renamed" or root / p.holds in wrong)}
        damaged = [e for e in (*manifest.shards, manifest.index) if e.path in sources or root / e.path in wrong]

        for entry in damaged:
            if entry.path in sources:
                link_or_copy(sources[entry.path].resolve(), staging / entry.path)
        redrawn = [entry for entry in damaged if entry.path not in sources]
        if redrawn:
            _draw_again(root, manifest, redrawn, staging, executor)
        _prove(staging, damaged, manifest)
        for entry in damaged:
            (root / entry.path).parent.mkdir(parents=True, exist_ok=True)
            (staging / entry.path).replace(root / entry.path)
        for problem in problems:
            if problem.kind == "renamed":
                problem.path.unlink()
    extras = [problem.path for problem in problems if problem.kind == "extra"]
    return [_describe(entry, sources, root) for entry in damaged], [path for path in extras if staging.parent not in path.parents]


@contextmanager
def _open_staging(root: Path) -> Iterator[Path]:
    """Make an empty folder for what will take its place; it is gone in the end."""
    staging = root / STAGING_NAME
    staging.mkdir(exist_ok=True)
    try:
        with FileLock(staging / "lock", timeout=0):
            for left_by_a_killed_run in [path for path in staging.iterdir() if path.is_dir()]:
                shutil.rmtree(left_by_a_killed_run)
            try:
                yield staging / "new"
            finally:
                shutil.rmtree(staging)
    except Timeout:
        raise UserError(f"another repair of {root} is at work: wait for it to end, or stop it") from None


def _draw_again(root: Path, manifest: Manifest, entries: list[FileEntry], staging: Path, executor: Executor) -> None:
    """Draw files of a dataset into `staging`: all of the dataset if the index is among them, as it tells who is where."""
    drawer = _make_drawer(manifest)
    if manifest.index in entries:
        whole = _draw_dataset(manifest, drawer, staging.with_name("drawing"), executor)
        for entry in entries:
            link_or_copy(whole / entry.path, staging / entry.path)
        return
    index_path = staging / manifest.index.path
    rows = read_index(index_path if index_path.exists() else root / manifest.index.path)
    with tqdm(total=sum(e.num_samples for e in entries), unit=" samples", desc="drawing", disable=None) as progress:
        futures = {}
        for entry in entries:
            ids = rows.filter(pc.equal(rows["shard"], entry.path)).sort_by("offset")["id"].to_pylist()
            (staging / entry.path).parent.mkdir(parents=True, exist_ok=True)
            futures[executor.submit(_draw_records, drawer, ids, staging / entry.path)] = entry
        for future in as_completed(futures):
            future.result()
            progress.update(futures[future].num_samples)


def _make_drawer(manifest: Manifest) -> Drawer:
    """Make the drawer of a dataset, if this version of the project and the fonts at hand are those that drew it."""
    if manifest.drawing_version != DRAWING_VERSION:
        raise UserError(
            f"{manifest.name} was drawn by drawing version {manifest.drawing_version}, this is {DRAWING_VERSION}: "
            "check out the commit that drew it, or `dvc pull` the damaged files"
        )
    drawer = Drawer(manifest.spec)
    for name, sha256 in hash_fonts(manifest.spec.fonts, drawer.font_files).items():
        if sha256 != manifest.fonts[name]:
            raise UserError(f"the font {name} has SHA-256 {sha256}; {manifest.name} was drawn with {manifest.fonts[name]}")
    return drawer


def _draw_records(drawer: Drawer, sample_ids: list[int], path: Path) -> None:
    """Draw samples into one shard."""
    with ShardWriter(path) as writer:
        for sample_id in sample_ids:
            draw_record(drawer, sample_id, writer, path.name)


def _draw_dataset(manifest: Manifest, drawer: Drawer, folder: Path, executor: Executor) -> Path:
    """Draw and split a whole dataset below `folder`; return where it is."""
    for name in ("work", "split"):
        (folder / name).mkdir(parents=True)
    shards = draw_missing_shards(drawer, {}, folder / "work", executor)
    assemble_dataset(manifest.name, drawer, shards, folder / "work", folder / "generated")
    if manifest.split is None:
        return folder / "generated"
    split_dataset(open_folder(folder / "generated"), manifest.split, folder / "split")
    return folder / "split"


def _prove(staging: Path, entries: list[FileEntry], manifest: Manifest) -> None:
    """Make sure that every file in `staging` is, to the byte, what the manifest says."""
    for entry in entries:
        if FileEntry.of(staging, entry.path, entry.num_samples) != entry:
            here = tool_versions(DATASET_PACKAGES)
            other = [f"{n} {v}, here {here.get(n)}" for n, v in manifest.tool_versions.items() if here.get(n) != v]
            raise UserError(
                f"{entry.path} drawn again has other bytes than the manifest says; nothing was changed. "
                + (f"It was drawn with {', '.join(other)}: install these" if other else "The manifest is of another dataset.")
            )


def _describe(entry: FileEntry, sources: dict[str, Path], root: Path) -> str:
    how = f"put back from {sources[entry.path].relative_to(root)}" if entry.path in sources else "drawn again"
    return f"{entry.path}: {how}, {entry.num_samples:,} samples, SHA-256 {entry.sha256} as the manifest says"
