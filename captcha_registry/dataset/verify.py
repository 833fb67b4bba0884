"""Find what is wrong with a dataset and name it, at three depths.

| depth | reads                       | finds                                                                     |
|-------|-----------------------------|---------------------------------------------------------------------------|
| quick | manifest, names, sizes      | what is missing, extra, cut or longer; a manifest that contradicts itself |
| full  | every byte                  | flipped bytes; swapped, renamed and unreadable files                      |
| deep  | every record and picture    | which samples are hit; an index that is wrong though its hash is right    |

Of ink and background, deep checks that they are colours, and that the luminance is that of the ink; whether the picture was drawn
in these colours is not looked at.
"""

import hashlib
import os
import shlex
from collections import Counter
from collections.abc import Collection, Iterator
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from dataclasses import dataclass
from fnmatch import fnmatchcase
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from PIL import Image
from tqdm import tqdm

from captcha_registry.dataset.index import INDEX_NAME, read_index
from captcha_registry.dataset.manifest import FETCHED_NAME, MANIFEST_NAME, FileEntry, Manifest, read_manifest
from captcha_registry.dataset.records import OVERHEAD_BYTES, DamagedRecordError, decode_sample, read_record
from captcha_registry.dataset.spec import DatasetSpec
from captcha_registry.errors import UserError, show_path
from captcha_registry.machine import count_usable_cores

Depth = Literal["quick", "full", "deep"]
Kind = Literal[
    "missing", "extra", "renamed", "swapped", "changed", "unreadable", "folder", "record", "index", "manifest", "duplicate"
]

# What may be beside the files that a manifest names: itself, descriptions, and what DVC writes.
COMPANIONS = {MANIFEST_NAME, FETCHED_NAME, "README.md", "croissant.json", ".gitignore"}

# Files and folders that file managers, editors and file systems leave everywhere; .dvcignore and .gitignore have them too.
LITTER = (
    ".DS_Store",
    "._*",
    ".AppleDouble",
    ".Spotlight-V100",
    ".Trashes",
    ".fseventsd",
    "Thumbs.db",
    "ehthumbs.db",
    "[Dd]esktop.ini",
    ".directory",
    ".ipynb_checkpoints",
    ".nfs*",
    ".fuse_hidden*",
    ".Trash-*",
    ".localized",
    ".apdisk",
    ".TemporaryItems",
    ".VolumeIcon.icns",
    ".DocumentRevisions-V100",
    "lost+found",
    ".smbdelete*",
    ".~lock.*#",
    ".#*",
    "[#]*#",
    ".goutputstream-*",
    ".dropbox",
    "Thumbs.db:encryptable",
    "@eaDir",
    "*~",
    ".*.sw[op]",
)

# Where `repair` works, inside the dataset, so that a finished file takes its place in one step.
STAGING_NAME = ".repair"

# Of pictures that are there more than once, and of the samples that show each.
MAX_TWINS_SHOWN = 3

# Shards that wait for a worker or are with one; each has its index rows in memory.
MAX_SHARDS_IN_FLIGHT = 2 * count_usable_cores()

COLOUR_PATTERN = "^#[0-9a-f]{6}$"


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong with one file; `holds` names the file of the dataset whose bytes it has instead of its own."""

    path: Path
    kind: Kind
    what: str
    holds: str | None = None

    def __str__(self) -> str:
        return f"{show_path(self.path)}: {self.what}"


def verify_dataset(root: Path, depth: Depth, executor: Executor, *, splits: Collection[str] | None = None) -> list[Problem]:
    """Check a dataset in an executor, with a progress bar; return every problem, those of a file together.

    Args:
        root: its folder.
        depth: how deep.
        executor: hashes and reads.
        splits: those that have to be there, if not all; what is there of the others is checked too.

    Raises:
        UserError: there is no dataset.
    """
    require_dataset(root)
    try:
        manifest = read_manifest(root)
    except (UserError, OSError) as error:
        return [Problem(root / MANIFEST_NAME, "manifest", str(error).removeprefix(f"{root / MANIFEST_NAME} "))]
    spared = {root / shard.path for shard in manifest.shards if splits is not None and shard.path.split("/")[0] not in splits}

    def is_wanted(problem: Problem) -> bool:
        return problem.kind != "missing" or problem.path not in spared

    problems = [*find_manifest_problems(root, manifest), *filter(is_wanted, find_name_and_size_problems(root, manifest))]
    if depth == "quick":
        return problems
    # The other kinds are found again, with more to say.
    problems = [problem for problem in problems if problem.kind in {"manifest", "index"}]

    index, index_problems = _inspect_index(root, manifest, depth)
    found, shard_problems = _inspect_shards(root, manifest, index, depth, executor)
    found |= _hash_extras(root, manifest)
    problems += filter(is_wanted, _compare_files(root, manifest, found | {manifest.index.path: _measure(root, manifest.index)}))
    swapped = {problem.path for problem in problems if problem.kind == "swapped"}
    # What follows from a swap is said by naming it.
    problems += index_problems + [problem for problem in shard_problems if problem.path not in swapped]
    return sorted(problems, key=lambda problem: problem.path)


def require_dataset(root: Path) -> None:
    """Make sure that a folder holds a dataset, or what is left of one.

    Raises:
        UserError: says what is there instead.
    """
    if not root.is_dir():
        # A path has one slash less than the URL that it was made from.
        where = " of this machine: copy the dataset here and" if ":/" in str(root) else ":"
        raise UserError(f"{root} is not a folder{where} name the folder of a dataset, with its {MANIFEST_NAME}")
    parent = root.absolute().parent if root == Path() else root.parent
    if not (root / MANIFEST_NAME).exists() and root.absolute().name in {"train", "test"} and (parent / MANIFEST_NAME).exists():
        raise UserError(f"{root} is a part of the dataset in {parent}: name that folder")
    if not any((root / name).exists() for name in (MANIFEST_NAME, INDEX_NAME)) and not any(root.glob("*.tfrecord")):
        raise UserError(
            f"{root} holds no dataset, neither {MANIFEST_NAME} nor {INDEX_NAME}: name the folder that does; in a project "
            "`dvc repro` makes it, or `dvc pull --allow-missing` where a DVC remote has it"
        )


def advise_cure(root: Path, problems: list[Problem]) -> str:
    """Say what to do about problems of a dataset; nothing about equal pictures, which say that themselves."""
    kinds = {problem.kind for problem in problems}
    if kinds <= {"duplicate"}:
        return ""
    if all(STAGING_NAME in problem.path.relative_to(root).parts for problem in problems):
        clear = shlex.join(["captcha-registry", "repair", str(root)])
        return f"a repair is at work, or was killed: wait for its end, or run `{clear}`, which clears it away"
    if kinds == {"extra"}:
        return f"move what is not of the dataset out of {root}"
    # Kinds that `deep` finds in files with the right bytes, too; only the index may also be damaged without another kind.
    index = read_manifest(root).index if kinds <= {"record", "index", "duplicate"} else None
    if index and _measure(root, index) == index:
        return (
            "these files have the bytes that the manifest says, so they were written like this, and `captcha-registry repair` "
            "changes nothing: draw the dataset again"
        )
    return (
        f"`{shlex.join(['captcha-registry', 'repair', str(root)])}` repairs it, or tells how; if it was fetched, "
        "the same `captcha-registry get` as before fetches it again"
    )


def find_manifest_problems(root: Path, manifest: Manifest) -> Iterator[Problem]:
    """Check that a manifest does not contradict itself."""

    def problem(what: str) -> Problem:
        return Problem(root / MANIFEST_NAME, "manifest", what)

    dataset_id = Manifest.create(**{name: value for name, value in manifest if name != "dataset_id"}).dataset_id
    if manifest.dataset_id != dataset_id:
        yield problem(f"dataset_id is {manifest.dataset_id}; expected {dataset_id}, the hash of what it says")
    counts = {"the shards hold": sum(s.num_samples for s in manifest.shards), "the index holds": manifest.index.num_samples}
    for who, num_samples in counts.items():
        if num_samples != manifest.spec.count:
            yield problem(f"{who} {num_samples:,} samples; spec.count is {manifest.spec.count:,}")
    for path, times in Counter(entry.path for entry in (*manifest.shards, manifest.index)).items():
        if times > 1:
            yield problem(f"names {path} {times} times; expected once")


def find_name_and_size_problems(root: Path, manifest: Manifest) -> Iterator[Problem]:
    """Compare names and sizes of the files with the manifest, and the number of index rows."""
    for entry in (*manifest.shards, manifest.index):
        path = root / entry.path
        try:
            if absent := _find_absence(path, entry):
                yield absent
            elif (size_bytes := path.stat().st_size) != entry.size_bytes:
                yield Problem(path, "changed", f"{size_bytes:,} bytes; the manifest says {entry.size_bytes:,}")
            elif entry is manifest.index:
                yield from _count_index_rows(path, entry)
        except OSError as error:
            yield _unreadable(path, error)
    yield from (_extra(root / path) for path in list_extra_paths(root, manifest))


def _count_index_rows(path: Path, entry: FileEntry) -> Iterator[Problem]:
    try:
        with path.open("rb") as file:
            num_rows = pq.read_metadata(file).num_rows
    except (pa.ArrowException, OSError) as error:
        yield Problem(path, "index", f"not a readable Parquet file: {error}")
        return
    if num_rows != entry.num_samples:
        yield Problem(path, "index", f"{num_rows:,} rows; the manifest says {entry.num_samples:,}")


def list_extra_paths(root: Path, manifest: Manifest) -> list[str]:
    """List the files, links, empty and unreadable folders that a dataset's manifest does not name, as paths inside it."""
    known = {*manifest.entries, *COMPANIONS}
    folders = {parent for path in manifest.entries for parent in Path(path).parents}
    known |= {folder.as_posix() for folder in folders if not (root / folder).is_file()}
    found: list[Path] = []
    unreadable: list[OSError] = []
    for folder, subfolders, names in os.walk(root, onerror=unreadable.append):
        # What a link leads to is not walked through.
        links = [name for name in subfolders if Path(folder, name).is_symlink()]
        found += [Path(folder, name) for name in (*names, *links)] if names or subfolders else [Path(folder)]
    found += [Path(error.filename) for error in unreadable]
    return sorted(path for path in {path.relative_to(root).as_posix() for path in found} - known if not is_litter(path))


def is_litter(path: str) -> bool:
    """Tell whether a path inside a dataset is of something that other tools leave, and nobody means."""
    return any(fnmatchcase(part, pattern) for part in path.split("/") for pattern in LITTER)


def _find_absence(path: Path, entry: FileEntry) -> Problem | None:
    """Tell what is there in place of a file, if it is not there."""
    if path.is_file():
        return None
    if path.is_dir() and not path.is_symlink():
        return Problem(path, "folder", f"a folder; expected a file with {entry.num_samples:,} samples: move the folder away")
    if path.exists() and not path.is_dir():
        return Problem(path, "changed", f"a pipe, socket or device; expected a file with {entry.num_samples:,} samples")
    return Problem(path, "missing", f"missing, with {entry.num_samples:,} samples")


def _unreadable(path: Path, error: OSError) -> Problem:
    return Problem(path, "unreadable", f"cannot be read: {error.strerror or error}")


def _extra(path: Path) -> Problem:
    if path.is_symlink() or not path.is_dir():
        return Problem(path, "extra", "a file that the manifest does not name")
    try:
        next(path.iterdir(), None)
    except OSError as error:
        return _unreadable(path, error)
    return Problem(path, "extra", "an empty folder that the manifest does not name")


def _measure(root: Path, entry: FileEntry) -> FileEntry | Problem:
    """Measure and hash the file of an entry, or tell why that cannot be done."""
    path = root / entry.path
    try:
        return _find_absence(path, entry) or FileEntry.of(root, entry.path, entry.num_samples)
    except OSError as error:
        return _unreadable(path, error)


def _hash_extras(root: Path, manifest: Manifest) -> dict[str, FileEntry | Problem]:
    """Hash those extra files that may be a missing one under another name."""
    sizes = {entry.size_bytes for entry in manifest.entries.values() if _find_size(root / entry.path) is None}
    extras = [path for path in list_extra_paths(root, manifest) if _find_size(root / path) in sizes]
    return {path: _measure(root, manifest.index.model_copy(update={"path": path})) for path in extras}


def _find_size(path: Path) -> int | None:
    """Return the size of a file; None if there is none, or it cannot be looked at."""
    try:
        return path.stat().st_size if path.is_file() else None
    except OSError:
        return None


def _tell_difference(file: FileEntry, entry: FileEntry) -> str:
    """Say in a short line how a file differs from what the manifest says of it."""
    if file.size_bytes != entry.size_bytes:
        return f"{file.size_bytes:,} bytes; the manifest says {entry.size_bytes:,}"
    return f"SHA-256 {file.sha256[:12]}...; the manifest says {entry.sha256[:12]}..."


def _compare_files(root: Path, manifest: Manifest, found: dict[str, FileEntry | Problem]) -> Iterator[Problem]:
    """Compare every byte of the files, by their hashes, with the manifest."""
    entries = manifest.entries
    owners = {entry.sha256: entry.path for entry in entries.values()}
    hashes = {path: file.sha256 for path, file in found.items() if isinstance(file, FileEntry)}
    renamed = {owners[sha256] for path, sha256 in hashes.items() if path not in entries and sha256 in owners}
    for path, entry in entries.items():
        file = found[path]
        if isinstance(file, Problem):
            if file.kind != "missing" or path not in renamed:
                yield file
        elif file.sha256 != entry.sha256:
            if owner := owners.get(file.sha256):
                yield Problem(root / path, "swapped", f"holds the bytes of {owner}", holds=owner)
            else:
                yield Problem(root / path, "changed", _tell_difference(file, entry))
    for path in list_extra_paths(root, manifest):
        owner = owners.get(hashes.get(path, ""))
        if owner and owner not in hashes:
            yield Problem(root / path, "renamed", f"is {owner} under another name", holds=owner)
        else:
            yield _extra(root / path)


def _inspect_index(root: Path, manifest: Manifest, depth: Depth) -> tuple[pa.Table | None, list[Problem]]:
    """Read and check the index for a deep verification; an index of other bytes than the manifest's is not read."""
    if depth != "deep" or _measure(root, manifest.index) != manifest.index:
        return None, []
    path = root / manifest.index.path
    try:
        rows = read_index(path)
    except UserError as error:
        return None, [Problem(path, "index", str(error).removeprefix(f"{path} "))]
    problems = [Problem(path, "index", what) for what in find_index_problems(manifest, rows)]
    return rows, [*problems, *_find_duplicates(path, rows)]


def _inspect_shards(
    root: Path, manifest: Manifest, index: pa.Table | None, depth: Depth, executor: Executor
) -> tuple[dict[str, FileEntry | Problem], list[Problem]]:
    """Hash every shard and, at depth, look into it; return what each file is, or why it has no hash, and the problems."""
    found: dict[str, FileEntry | Problem] = {}
    problems: list[Problem] = []
    rows, waiting = None if index is None else ShardRows(index), iter(manifest.shards)
    running: dict[Future[tuple[FileEntry | Problem, list[Problem]]], FileEntry] = {}
    with tqdm(total=manifest.spec.count, unit=" samples", desc="verifying", disable=None) as progress:
        while True:
            for shard in islice(waiting, MAX_SHARDS_IN_FLIGHT - len(running)):
                mine = rows and rows.take(shard.path)
                running[executor.submit(inspect_shard, root, shard, mine, manifest.spec, deep=depth == "deep")] = shard
            if not running:
                return found, problems
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                shard = running.pop(future)
                found[shard.path], found_problems = future.result()
                problems += found_problems
                progress.update(shard.num_samples)


class ShardRows:
    """The index rows of each shard, sorted once: to search them all for every shard would take long with many."""

    def __init__(self, index: pa.Table) -> None:
        """Sort the rows by shard and offset."""
        # In one chunk, or each `take` would copy all of the column.
        self._index = index.combine_chunks()
        self._order = pc.sort_indices(self._index, sort_keys=[("shard", "ascending"), ("offset", "ascending")])
        self._places: dict[str, tuple[int, int]] = {}
        start = 0
        for pair in sorted(pc.value_counts(self._index["shard"]).to_pylist(), key=lambda pair: str(pair["values"]).encode()):
            self._places[pair["values"]] = (start, pair["counts"])
            start += pair["counts"]

    def take(self, shard_path: str) -> pa.Table:
        """Return the rows of a shard in the order of their offsets."""
        return self._index.take(self._order.slice(*self._places.get(shard_path, (0, 0))))


def inspect_shard(
    root: Path, shard: FileEntry, rows: pa.Table | None, spec: DatasetSpec, *, deep: bool
) -> tuple[FileEntry | Problem, list[Problem]]:
    """Hash one shard, and look into it if asked to.

    Args:
        root: the dataset's folder.
        shard: what the manifest says of it.
        rows: the index rows of this shard; without them records are only checked for themselves.
        spec: the dataset's.
        deep: check every record and picture.
    """
    found, path = _measure(root, shard), root / shard.path
    if isinstance(found, Problem) or not deep:
        return found, []
    try:
        return found, [Problem(path, "record", what) for what in find_record_problems(path, rows, spec)]
    except OSError as error:
        return _unreadable(path, error), []


def find_record_problems(path: Path, rows: pa.Table | None, spec: DatasetSpec) -> Iterator[str]:
    """Check every record of a shard against its index row; after a damaged one, go on where the next row says."""
    size_bytes = path.stat().st_size
    expected = {} if rows is None else {row["offset"]: row for row in rows.to_pylist()}
    offset = 0
    while offset < size_bytes:
        row = expected.pop(offset, None)
        try:
            data = read_record(path, offset)
        except DamagedRecordError as error:
            yield f"record at byte {offset:,}: {error.problem}" + (f" (sample {row['id']})" if row else "")
            offset = min((place for place in expected if place > offset), default=size_bytes)
            continue
        if row:
            yield from (f"sample {row['id']} at byte {offset:,}: {difference}" for difference in _compare(data, row, spec))
        elif rows is not None:
            yield f"a record at byte {offset:,} that the index does not name"
        offset += len(data) + OVERHEAD_BYTES
    yield from (f"sample {row['id']} is missing at byte {place:,}" for place, row in sorted(expected.items()))


def find_index_problems(manifest: Manifest, rows: pa.Table) -> Iterator[str]:
    """Check the index against spec and manifest, and the samples against each other; yield each problem in a line."""
    spec = manifest.spec
    counts = pc.value_counts(rows["id"])
    for pair in counts.filter(pc.greater(counts.field("counts"), 1)).to_pylist():
        yield f"id {pair['values']} stands in {pair['counts']} rows; expected one"
    for row in rows.filter(pc.or_(pc.less(rows["id"], 0), pc.greater_equal(rows["id"], spec.count))).to_pylist():
        yield f"id {row['id']} ({row['shard']}) is outside 0 to {spec.count - 1}"
    for row in rows.slice(1).filter(pc.less(rows["id"].slice(1), rows["id"].slice(0, rows.num_rows - 1))).to_pylist():
        yield f"id {row['id']} ({row['shard']}) stands after a larger one; expected the order of the ids"
    pattern = (
        "^[" + "".join(f"\\x{ord(character):02x}" for character in spec.alphabet) + f"]{{{spec.min_length},{spec.max_length}}}$"
    )
    for row in rows.filter(pc.invert(pc.match_substring_regex(rows["label"], pattern))).to_pylist():
        yield (
            f"sample {row['id']} ({row['shard']}) has the label {row['label']!r}; "
            f"expected {spec.described_length} characters of {spec.alphabet!r}"
        )
    yield from _find_colour_problems(rows)
    yield from _find_shard_count_problems(manifest, rows)
    yield from _find_split_problems(manifest, rows)


def _find_colour_problems(rows: pa.Table) -> Iterator[str]:
    """Check that ink and background are colours, and that the luminance is that of the ink."""
    for name in ("ink", "background"):
        for row in rows.filter(pc.invert(pc.match_substring_regex(rows[name], COLOUR_PATTERN))).to_pylist():
            yield f"sample {row['id']} ({row['shard']}) has the {name} {row[name]!r}; expected a colour such as '#0a64c8'"
    rows = rows.filter(pc.match_substring_regex(rows["ink"], COLOUR_PATTERN))
    digits = "".join(ink[1:] for ink in rows["ink"].to_pylist())
    channels = np.frombuffer(bytes.fromhex(digits), np.uint8).reshape(-1, 3).astype(np.float64)
    # As `generation.drawing` computes it, half to even.
    expected = np.rint(0.299 * channels[:, 0] + 0.587 * channels[:, 1] + 0.114 * channels[:, 2]).astype(np.uint8)
    found = rows["ink_luminance"].to_numpy()
    for number in np.flatnonzero(found != expected).tolist():
        row = rows.slice(number, 1).to_pylist()[0]
        yield (
            f"sample {row['id']} ({row['shard']}) has the ink_luminance {row['ink_luminance']}; "
            f"expected {expected[number]}, that of {row['ink']}"
        )


def _find_shard_count_problems(manifest: Manifest, rows: pa.Table) -> Iterator[str]:
    """Check that the index has as many rows for each shard as the manifest says."""
    listed = {pair["values"]: pair["counts"] for pair in pc.value_counts(rows["shard"]).to_pylist()}
    for shard in manifest.shards:
        if (num_rows := listed.pop(shard.path, 0)) != shard.num_samples:
            yield f"{num_rows:,} rows for {shard.path}; the manifest says {shard.num_samples:,}"
    for shard_path, num_rows in listed.items():
        yield f"{num_rows:,} rows for {shard_path}, which the manifest does not name"


def _find_split_problems(manifest: Manifest, rows: pa.Table) -> Iterator[str]:
    """Check that every sample is on the side that its shard is on, and no label on both where the split rules that out."""
    folders = pc.replace_substring_regex(rows["shard"], "/?[^/]*$", "")
    for row in rows.filter(pc.not_equal(folders, pc.fill_null(rows["split"], ""))).to_pylist():
        yield f"sample {row['id']} is in {row['shard']}, its split is {row['split']!r}"

    if manifest.split and manifest.split.by in {"label", "label_hash"}:
        sides = rows.group_by("label").aggregate([("split", "count_distinct")])
        for label in sides.filter(pc.greater(sides["split_count_distinct"], 1))["label"].to_pylist():
            yield f"the label {label!r} is in train and in test, which a split by label rules out"


def _find_duplicates(path: Path, rows: pa.Table) -> Iterator[Problem]:
    """Tell of pictures that are in train and in test. No file is damaged by them: the spec has too few different pictures."""
    leaked = find_leaked_pictures(rows)
    if not leaked:
        return
    ids: dict[bytes, list[int]] = {}
    twins = rows.filter(pc.is_in(rows["pixel_sha256"], value_set=pa.array(leaked, rows.schema.field("pixel_sha256").type)))
    for sample_id, pixels in zip(twins["id"].to_pylist(), twins["pixel_sha256"].to_pylist(), strict=True):
        ids.setdefault(pixels, []).append(sample_id)
    shown = "; ".join(" and ".join(map(str, each[:MAX_TWINS_SHOWN])) for each in list(ids.values())[:MAX_TWINS_SHOWN])
    verb = "picture is" if len(leaked) == 1 else "pictures are"
    yield Problem(
        path,
        "duplicate",
        f"{len(leaked):,} {verb} in train and in test, such as that of the samples {shown}. No file is damaged: the dataset has "
        "too few different pictures. In params.yaml raise its `dots`, `curves`, `length` or size, or lower its `count`",
    )


def find_leaked_pictures(rows: pa.Table) -> list[pa.Scalar]:
    """Return the pixel hashes that stand in more than one split."""
    sides = rows.group_by("pixel_sha256").aggregate([("split", "count_distinct")])
    return list(sides.filter(pc.greater(sides["split_count_distinct"], 1))["pixel_sha256"])


def _compare(data: bytes, row: dict[str, object], spec: DatasetSpec) -> Iterator[str]:
    """Compare a record with its index row; yield each difference."""
    try:
        sample = decode_sample(data)
    except ValueError as error:
        yield str(error)
        return
    for name, found in (("id", sample.id), ("label", sample.label), ("length", len(data) + OVERHEAD_BYTES)):
        if found != row[name]:
            yield f"{name} is {found!r}, the index says {row[name]!r}"
    try:
        with Image.open(BytesIO(sample.image), formats=["png"]) as image:
            if image.size != (spec.width, spec.height) or image.mode != "RGB":
                yield f"picture is {image.width}x{image.height} {image.mode}; expected {spec.width}x{spec.height} RGB"
            elif hashlib.sha256(image.tobytes()).digest() != row["pixel_sha256"]:
                yield "pixels differ from the index's hash"
    except Exception as error:  # noqa: BLE001 - on broken bytes Pillow also raises ValueError, struct.error and others
        yield f"picture does not decode: {error}"
