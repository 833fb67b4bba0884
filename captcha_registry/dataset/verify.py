"""Find what is wrong with a dataset: its index as a whole, and every byte, record and picture of its shards."""

import hashlib
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image

from captcha_registry.dataset.dataset import CaptchaDataset
from captcha_registry.dataset.manifest import FileEntry
from captcha_registry.dataset.records import OVERHEAD_BYTES, DamagedRecordError, decode_sample, iterate_records
from captcha_registry.dataset.spec import DatasetSpec


def find_index_problems(dataset: CaptchaDataset) -> Iterator[str]:
    """Check the index against spec and manifest, and the samples against each other; yield each problem in a line."""
    spec, rows, path = dataset.manifest.spec, dataset.index, dataset.root / dataset.manifest.index.path
    if (found := FileEntry.of(dataset.root, dataset.manifest.index.path, rows.num_rows)) != dataset.manifest.index:
        yield f"{path}: SHA-256 is {found.sha256}, the manifest says {dataset.manifest.index.sha256}"

    for pair in pc.value_counts(rows["id"]).filter(pc.greater(pc.value_counts(rows["id"]).field("counts"), 1)).to_pylist():
        yield f"{path}: id {pair['values']} stands in {pair['counts']} rows; expected one"
    for row in rows.filter(pc.or_(pc.less(rows["id"], 0), pc.greater_equal(rows["id"], spec.count))).to_pylist():
        yield f"{path}: id {row['id']} ({row['shard']}) is outside 0 to {spec.count - 1}"
    pattern = (
        "^[" + "".join(f"\\x{ord(character):02x}" for character in spec.alphabet) + f"]{{{spec.min_length},{spec.max_length}}}$"
    )
    for row in rows.filter(pc.invert(pc.match_substring_regex(rows["label"], pattern))).to_pylist():
        yield (
            f"{path}: sample {row['id']} ({row['shard']}) has the label {row['label']!r}; "
            f"expected {spec.described_length} characters of {spec.alphabet!r}"
        )

    listed = {pair["values"]: pair["counts"] for pair in pc.value_counts(rows["shard"]).to_pylist()}
    for shard in dataset.manifest.shards:
        if (num_rows := listed.pop(shard.path, 0)) != shard.num_samples:
            yield f"{path}: {num_rows:,} rows for {shard.path}; the manifest says {shard.num_samples:,}"
    for shard_path, num_rows in listed.items():
        yield f"{path}: {num_rows:,} rows for {shard_path}, which the manifest does not name"
    yield from _find_split_problems(dataset, path)


def _find_split_problems(dataset: CaptchaDataset, path: Path) -> Iterator[str]:
    """Check that every sample is on one side only, and that the sides share no more than the split allows."""
    rows = dataset.index
    folders = pc.replace_substring_regex(rows["shard"], "/?[^/]*$", "")
    for row in rows.filter(pc.not_equal(folders, pc.fill_null(rows["split"], ""))).to_pylist():
        yield f"{path}: sample {row['id']} is in {row['shard']}, its split is {row['split']!r}"

    if dataset.manifest.split and dataset.manifest.split.by == "label":
        sides = rows.group_by("label").aggregate([("split", "count_distinct")])
        for label in sides.filter(pc.greater(sides["split_count_distinct"], 1))["label"].to_pylist():
            yield f"{path}: the label {label!r} is in train and in test, which a split by label rules out"

    for pixels in find_leaked_pictures(rows):
        twins = rows.filter(pc.equal(rows["pixel_sha256"], pixels)).to_pylist()
        places = ", ".join(f"sample {twin['id']} in {twin['shard']}" for twin in twins)
        yield f"{path}: the same picture is in train and in test: {places}"


def find_leaked_pictures(rows: pa.Table) -> list[pa.Scalar]:
    """Return the pixel hashes that stand in more than one split."""
    sides = rows.group_by("pixel_sha256").aggregate([("split", "count_distinct")])
    return list(sides.filter(pc.greater(sides["split_count_distinct"], 1))["pixel_sha256"])


def find_shard_problems(root: Path, shard: FileEntry, rows: pa.Table, spec: DatasetSpec) -> list[str]:
    """Check one shard to the last byte: file, checksums, records against index rows, pictures.

    Args:
        root: the dataset's folder.
        shard: what the manifest says of it.
        rows: the index rows of this shard.
        spec: the dataset's.
    """
    path = root / shard.path
    if not path.is_file():
        return [f"{path}: missing, with {shard.num_samples:,} samples"]
    problems = []
    if (found := FileEntry.of(root, shard.path, shard.num_samples)) != shard:
        problems.append(
            f"{path}: {found.size_bytes:,} bytes with SHA-256 {found.sha256}; "
            f"the manifest says {shard.size_bytes:,} bytes with {shard.sha256}"
        )
    expected = {row["offset"]: row for row in rows.to_pylist()}
    try:
        for offset, data in iterate_records(path):
            if row := expected.pop(offset, None):
                problems += [f"{path}: sample {row['id']} at byte {offset:,}: {p}" for p in _compare(data, row, spec)]
            else:
                problems.append(f"{path}: a record at byte {offset:,} that the index does not name")
        problems += [f"{path}: sample {row['id']} is missing at byte {offset:,}" for offset, row in expected.items()]
    except DamagedRecordError as error:
        known = f" (sample {expected[error.offset]['id']})" if error.offset in expected else ""
        problems.append(f"{error}{known}")
    return problems


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
