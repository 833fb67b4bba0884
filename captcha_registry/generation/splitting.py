"""Divide a generated dataset into train and test.

By shard, the default, no record is copied: every sample is an independent draw, so complete shards are an honest split,
and people can fetch the test set alone. Which side a shard is on depends on its number alone, never on how many there are,
so a dataset that grows keeps its split.

All other ways copy records, without re-encoding them. By sample and by label are exact for the samples that are there, as in
scikit-learn, and so divide a dataset that grows again. By sample_hash and by label_hash a hash of id or text decides: nothing
changes sides when the dataset grows, and the share is not exact.
"""

import hashlib
import itertools
from collections.abc import Iterator, Sequence
from fractions import Fraction
from math import floor, sqrt
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from tqdm import tqdm

from captcha_registry.dataset.dataset import CaptchaDataset
from captcha_registry.dataset.index import INDEX_NAME, write_index
from captcha_registry.dataset.manifest import FileEntry, Manifest, write_manifest
from captcha_registry.dataset.records import ShardWriter, read_record, shard_name
from captcha_registry.dataset.spec import DatasetSpec, SplitRule
from captcha_registry.errors import UserError
from captcha_registry.workspace import link_or_copy

SPLITS = ("train", "test")

# Orders of the labels that a split by label tries: one leaves a rest that no label fits in 3 of 200 seeds of `digits`.
MAX_TRIES = 100

# So many datasets are made up to tell whether a split by label can work.
NUM_TRIALS = 5

# So many ids or texts are looked at before anything is drawn, to tell what a split will give; with more, no side is left empty.
MAX_HASHED = 10_000

BoolArray = npt.NDArray[np.bool_]


def is_test_shard(shard_number: int, rule: SplitRule) -> bool:
    """Tell the side of a shard.

    Of the first *n* shards, n * test_size are test whenever that is a whole number, and less than one more or fewer
    otherwise. The seed shifts which ones.
    """
    return _count_test_shards(shard_number + 1, rule) > _count_test_shards(shard_number, rule)


def _count_test_shards(num_shards: int, rule: SplitRule) -> int:
    """Count the test shards among the first ones."""
    digest = hashlib.blake2b(str(rule.seed).encode(), digest_size=4).digest()
    shift = Fraction(int.from_bytes(digest, "little"), 2**32)
    return floor(num_shards * Fraction(str(rule.test_size)) + shift)


def is_test_key(key: object, rule: SplitRule) -> bool:
    """Tell the side of a sample from its id, or from its text, and the seed alone."""
    digest = hashlib.blake2b(f"{rule.seed}/{key}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") < Fraction(str(rule.test_size)) * 2**64


def check_split(spec: DatasetSpec, rule: SplitRule) -> int:
    """Count the test samples that a split will give, for a hash about, and refuse one that leaves a side empty.

    Raises:
        UserError: says what would be on each side, and what to change.
    """
    num_test = round(spec.count * rule.test_size)
    found, cure = f"{num_test} of {spec.count} samples", "raise `count`, or change `split.test_size`"
    if rule.by == "shard":
        num_shards, last = _count_test_shards(spec.num_shards, rule), spec.num_shards - 1
        # All are full but the last.
        lacking = spec.shard_size - len(spec.shard_sample_ids(last)) if is_test_shard(last, rule) else 0
        num_test = num_shards * spec.shard_size - lacking
        found, cure = f"{num_shards} of {spec.num_shards} shards", "lower `shard_size`, or split by sample"
    elif rule.by == "label" and _exceeds(spec.count / spec.num_texts, min(num_test, spec.count - num_test)):
        found, cure = f"{num_test} of {spec.count} samples, while each of {spec.num_texts} texts has more", "raise `length`"
        num_test = 0
    elif rule.by == "sample_hash" and spec.count <= MAX_HASHED:
        num_test = sum(is_test_key(sample_id, rule) for sample_id in range(spec.count))
        found, cure = f"{num_test} of {spec.count} samples", "raise `count`, or change `split.seed`"
    elif rule.by == "label_hash" and spec.num_texts <= MAX_HASHED:
        share = _find_test_share(spec, rule)
        num_test = round(spec.count * share)
        found, cure = f"{share:.0%} of {spec.num_texts} texts", "raise `length`, or change `split.seed`"
    if not 0 < num_test < spec.count:
        raise UserError(f"a test share of {rule.test_size} is {found}, and leaves one side empty: {cure}")
    if rule.by == "label" and spec.num_texts <= MAX_HASHED and not _can_divide_labels(spec, rule, num_test):
        raise UserError(
            f"{spec.num_texts} texts hardly ever divide such that some of them hold exactly {rule.test_size} of "
            f"{spec.count:,} samples: raise `length`, or split by label_hash, which need not be exact"
        )
    return num_test


def _can_divide_labels(spec: DatasetSpec, rule: SplitRule, num_test: int) -> bool:
    """Tell whether complete labels hold exactly the test samples, in one of some datasets whose texts are as chance has them."""
    lengths = range(spec.min_length, spec.max_length + 1)
    numbers = [len(spec.alphabet) ** length for length in lengths]
    shares = np.concatenate([np.full(number, 1 / number / len(lengths)) for number in numbers])
    generator = np.random.default_rng(rule.seed)
    trials = (generator.multinomial(spec.count, shares) for _ in range(NUM_TRIALS))
    return any(_find_labels(sizes[sizes > 0], num_test, generator) is not None for sizes in trials)


def _exceeds(mean: float, limit: int) -> bool:
    """Tell whether a number of samples is above a limit, five standard deviations of chance set aside."""
    return mean - 5 * sqrt(mean) > limit


def _find_test_share(spec: DatasetSpec, rule: SplitRule) -> float:
    """Compute the share of all texts that their hash puts into test, each length of them being equally likely."""
    shares = []
    for length in range(spec.min_length, spec.max_length + 1):
        texts = map("".join, itertools.product(spec.alphabet, repeat=length))
        shares.append(np.mean([is_test_key(text, rule) for text in texts]))
    return float(np.mean(shares))


def describe_sides(num_samples: int, num_test: int, rule: SplitRule) -> str:
    """Say how many samples are on each side, and the share of test where it is not the wanted one."""
    share = num_test / num_samples
    wanted = f"{rule.test_size:.1%}"
    other = f", {share:.1%} test and not {wanted}" if f"{share:.1%}" != wanted else ""
    why = ", by chance of the hash" if rule.by.endswith("_hash") else f", as {rule.by}s are not divided"
    sides = f"{num_samples - num_test:,} train and {num_test:,} test samples, by {rule.by}"
    return f"{sides}{other}{why if other else ''}"


def choose_test_samples(index: pa.Table, rule: SplitRule) -> BoolArray:
    """Choose the samples that are test, one by one or by label; True is test, in index order.

    Raises:
        UserError: no choice of labels holds exactly `test_size` of them, or a hash leaves one side empty.
    """
    if rule.by in {"sample_hash", "label_hash"}:
        keys = index["id" if rule.by == "sample_hash" else "label"].to_pylist()
        is_test = np.array([is_test_key(key, rule) for key in keys])
        if is_test.all() or not is_test.any():
            raise UserError(f"{rule.by} leaves one side empty: raise `count`, or change `split.seed`")
        return is_test
    num_test = round(index.num_rows * rule.test_size)
    is_test = np.zeros(index.num_rows, dtype=bool)
    if rule.by == "sample":
        # A second to import, which the other ways of splitting need not wait for.
        from sklearn.model_selection import train_test_split  # noqa: PLC0415

        is_test[train_test_split(np.arange(index.num_rows), test_size=num_test, random_state=rule.seed)[1]] = True
        return is_test

    labels, label_numbers = np.unique(index["label"].to_numpy(), return_inverse=True)
    sizes = np.bincount(label_numbers)
    is_test_label = _find_labels(sizes, num_test, np.random.default_rng(rule.seed))
    if is_test_label is None:
        raise UserError(
            f"found no texts of the {len(labels):,} that hold exactly {rule.test_size} of {index.num_rows:,} samples: "
            "raise `length`, or split by label_hash, which need not be exact"
        )
    return is_test_label[label_numbers]


def _find_labels(sizes: npt.NDArray[np.int64], num_samples: int, generator: np.random.Generator) -> BoolArray | None:
    """Find labels that hold exactly `num_samples`, if one of some orders leads to them."""
    for _ in range(MAX_TRIES):
        is_taken = _fill_with_labels(sizes, num_samples, generator.permutation(len(sizes)))
        if sizes[is_taken].sum() == num_samples:
            return is_taken
    return None


def _fill_with_labels(sizes: npt.NDArray[np.int64], num_samples: int, order: npt.NDArray[np.int64]) -> BoolArray:
    """Take the labels that still fit into `num_samples`, in the given order."""
    is_taken = np.zeros(len(sizes), dtype=bool)
    for label_number in order:
        if sizes[label_number] <= num_samples:
            is_taken[label_number] = True
            num_samples -= sizes[label_number]
    return is_taken


def split_dataset(source: CaptchaDataset, rule: SplitRule, work_dir: Path) -> Manifest:
    """Write the split dataset into `work_dir`: shards below `train/` and `test/`, the index, and the manifest last.

    Raises:
        UserError: the split would leave one side empty, cannot be exact, or a file of the source is not what its manifest says.
        DamagedRecordError: a record to be copied is damaged.
    """
    check_split(source.manifest.spec, rule)
    source.make_local()
    rows, shards = _link_shards(source, rule, work_dir) if rule.by == "shard" else _copy_records(source, rule, work_dir)
    write_index(work_dir / INDEX_NAME, rows.sort_by("id"))

    manifest = Manifest.create(
        name=source.manifest.name,
        spec=source.manifest.spec,
        drawing_version=source.manifest.drawing_version,
        fonts=source.manifest.fonts,
        split=rule,
        shards=tuple(sorted(shards, key=lambda shard: shard_order(shard.path))),
        index=FileEntry.of(work_dir, INDEX_NAME, num_samples=rows.num_rows),
        tool_versions=source.manifest.tool_versions,
    )
    write_manifest(work_dir, manifest)
    return manifest


def shard_order(path: str) -> tuple[str, int, str]:
    """Return what sorts the paths of shards by side and number; from 100,000 on, a number has more digits."""
    side, _, name = path.rpartition("/")
    return side, len(name), name


def _link_shards(source: CaptchaDataset, rule: SplitRule, work_dir: Path) -> tuple[pa.Table, list[FileEntry]]:
    """Link every shard to its side; return the index rows with their new places, and the shards."""
    sides = {shard.path: SPLITS[is_test_shard(n, rule)] for n, shard in enumerate(source.manifest.shards)}
    for path, side in sides.items():
        link_or_copy(source.root / path, work_dir / side / path)
    # Not hashed again: what a copy changed is to be found.
    shards = [shard.model_copy(update={"path": f"{sides[shard.path]}/{shard.path}"}) for shard in source.manifest.shards]
    paths = source.index["shard"].to_pylist()
    split, shard = [sides[path] for path in paths], [f"{sides[path]}/{path}" for path in paths]
    return _with_columns(source.index, split=split, shard=shard), shards


def _copy_records(source: CaptchaDataset, rule: SplitRule, work_dir: Path) -> tuple[pa.Table, list[FileEntry]]:
    """Copy every record to its side, in the order of the ids; return the index rows with their new places, and the shards."""
    is_test = choose_test_samples(source.index, rule)
    copied, shards = [], []
    with tqdm(total=len(source), unit=" samples", desc="splitting", disable=None) as progress:
        for side, chosen in zip(SPLITS, (~is_test, is_test), strict=True):
            (work_dir / side).mkdir()
            rows = source.index.filter(pa.array(chosen))
            for number, start in enumerate(range(0, rows.num_rows, source.manifest.spec.shard_size)):
                part = rows.slice(start, source.manifest.spec.shard_size)
                path = f"{side}/{shard_name(number)}"
                offsets = list(_copy_shard(source.root, part, work_dir / path))
                names = [path] * part.num_rows
                copied.append(_with_columns(part, split=[side] * part.num_rows, shard=names, offset=offsets))
                shards.append(FileEntry.of(work_dir, path, part.num_rows))
                progress.update(part.num_rows)
    return pa.concat_tables(copied), shards


def _copy_shard(root: Path, rows: pa.Table, target: Path) -> Iterator[int]:
    """Copy the records of index rows into one shard; yield their new offsets."""
    with ShardWriter(target) as writer:
        for shard, offset in zip(rows["shard"].to_pylist(), rows["offset"].to_pylist(), strict=True):
            yield writer.write(read_record(root / shard, offset))[0]


def _with_columns(rows: pa.Table, **columns: Sequence[object]) -> pa.Table:
    for name, values in columns.items():
        place = rows.schema.get_field_index(name)
        rows = rows.set_column(place, rows.schema.field(place), pa.array(values, rows.schema.field(place).type))
    return rows
