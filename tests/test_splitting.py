"""Train and test are exact, disjoint and complete, and no record changes on its way."""

import os
import random
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import pyarrow as pa
import pytest
from conftest import HANG_SECONDS, Project, hash_files, wait_until
from hypothesis import given
from hypothesis import strategies as st
from sklearn.model_selection import train_test_split

from captcha_registry.dataset.dataset import CaptchaDataset
from captcha_registry.dataset.folder import open_folder
from captcha_registry.dataset.index import read_index, write_index
from captcha_registry.dataset.records import read_record, shard_name
from captcha_registry.dataset.spec import DatasetSpec, SplitRule
from captcha_registry.dataset.verify import verify_dataset
from captcha_registry.errors import UserError
from captcha_registry.generation.splitting import (
    check_split,
    choose_test_samples,
    describe_sides,
    is_test_key,
    is_test_shard,
    shard_order,
    split_dataset,
)
from stages.split import put_in_place

Way = Literal["shard", "sample", "label", "sample_hash", "label_hash"]
WAYS: tuple[Way, ...] = get_args(Way)
EXACT: tuple[Way, ...] = ("shard", "sample", "label")
LASTING: tuple[Way, ...] = ("shard", "sample_hash", "label_hash")
SEEDS = st.integers(0, 2**32 - 1)
# Shares as people write them, with up to four decimals.
SHARES = st.integers(1, 9999).map(lambda number: number / 10_000)


def split(source: CaptchaDataset, way: Way, root: Path, seed: int = 1) -> CaptchaDataset:
    root.mkdir()
    split_dataset(source, SplitRule(test_size=0.2, by=way, seed=seed), root)
    return open_folder(root)


def sides_by_id(dataset: CaptchaDataset) -> dict[int, str]:
    return dict(zip(dataset.index["id"].to_pylist(), dataset.index["split"].to_pylist(), strict=True))


@pytest.mark.parametrize("way", EXACT)
@pytest.mark.parametrize("seed", [0, 1, 2**32 - 1])
def test_every_sample_is_on_one_side_and_a_fifth_is_test(
    generated_dataset: CaptchaDataset, tmp_path: Path, way: Way, seed: int
) -> None:
    dataset = split(generated_dataset, way, tmp_path / "out", seed)
    train, test = (dataset.split(side).index["id"].to_pylist() for side in ("train", "test"))
    assert (len(train), len(test)) == (48, 12)
    assert sorted(train + test) == list(range(60))
    assert dataset.index["id"].to_pylist() == list(range(60))
    assert sum(shard.num_samples for shard in dataset.manifest.shards if shard.path.startswith("test/")) == 12
    assert {str(path.relative_to(dataset.root)) for path in dataset.root.glob("t*/*")} == {
        s.path for s in dataset.manifest.shards
    }
    assert dataset.manifest.split == SplitRule(test_size=0.2, by=way, seed=seed)


@pytest.mark.parametrize("way", WAYS)
def test_records_are_copied_byte_for_byte_and_the_index_points_at_them(
    generated_dataset: CaptchaDataset, tmp_path: Path, way: Way
) -> None:
    dataset = split(generated_dataset, way, tmp_path / "out")
    for before, after in zip(generated_dataset.index.to_pylist(), dataset.index.to_pylist(), strict=True):
        old = read_record(generated_dataset.root / before["shard"], before["offset"])
        assert read_record(dataset.root / after["shard"], after["offset"]) == old
        assert after["shard"].startswith(f"{after['split']}/")
        unmoved = ["id", "label", "length", "pixel_sha256", "ink", "background", "ink_luminance"]
        assert [before[name] for name in unmoved] == [after[name] for name in unmoved]


@pytest.mark.parametrize("way", WAYS)
def test_nothing_is_wrong_with_a_split_dataset(generated_dataset: CaptchaDataset, tmp_path: Path, way: Way) -> None:
    dataset = split(generated_dataset, way, tmp_path / "out")
    with ThreadPoolExecutor(1) as executor:
        assert verify_dataset(dataset.root, "deep", executor) == []
    listed = {shard.path for shard in dataset.manifest.shards} | {"index.parquet", "manifest.json"}
    assert {path.relative_to(dataset.root).as_posix() for path in dataset.root.rglob("*") if path.is_file()} == listed


@pytest.mark.parametrize("way", WAYS)
def test_the_same_split_gives_the_same_bytes(generated_dataset: CaptchaDataset, tmp_path: Path, way: Way) -> None:
    one, other = split(generated_dataset, way, tmp_path / "one"), split(generated_dataset, way, tmp_path / "other")
    assert one.manifest == other.manifest
    assert split(generated_dataset, way, tmp_path / "third", seed=5).manifest.dataset_id != one.manifest.dataset_id


def test_split_by_shard_links_files_instead_of_copying_them(generated_dataset: CaptchaDataset, tmp_path: Path) -> None:
    # A copy beside the target: links do not cross file systems.
    source = open_folder(Path(shutil.copytree(generated_dataset.root, tmp_path / "source")))
    dataset = split(source, "shard", tmp_path / "out")
    paths = [dataset.root / shard.path for shard in dataset.manifest.shards]
    assert {path.name: path.stat().st_ino for path in paths} == {
        shard.path: (source.root / shard.path).stat().st_ino for shard in source.manifest.shards
    }


@given(SHARES, SEEDS, st.integers(0, 2000))
def test_the_first_shards_hold_the_share_to_within_one_shard(share: float, seed: int, num_shards: int) -> None:
    num_test = sum(is_test_shard(number, SplitRule(test_size=share, by="shard", seed=seed)) for number in range(num_shards))
    assert abs(num_test - num_shards * Fraction(str(share))) < 1


@given(st.integers(1, 99), SEEDS, st.integers(0, 10))
def test_the_share_is_exact_whenever_it_is_a_whole_number_of_shards(percent: int, seed: int, hundreds: int) -> None:
    rule = SplitRule(test_size=percent / 100, by="shard", seed=seed)
    assert sum(is_test_shard(number, rule) for number in range(100 * hundreds)) == percent * hundreds


@given(SEEDS)
def test_a_fifth_is_exact_for_every_five_shards(seed: int) -> None:
    rule = SplitRule(test_size=0.2, by="shard", seed=seed)
    assert all(sum(is_test_shard(number, rule) for number in range(first, first + 5)) == 1 for first in range(50))


def test_the_seed_chooses_which_shards_are_test() -> None:
    chosen = {next(n for n in range(5) if is_test_shard(n, SplitRule(test_size=0.2, by="shard", seed=s))) for s in range(50)}
    assert chosen == set(range(5))


def test_the_test_shards_of_the_shipped_datasets_stay_what_they_are() -> None:
    rule = SplitRule(test_size=0.2, by="shard", seed=42)
    assert [number for number in range(20) if is_test_shard(number, rule)] == [3, 8, 13, 18]


@pytest.mark.parametrize("way", LASTING)
@pytest.mark.parametrize("count", [61, 100])
def test_growing_never_moves_an_old_sample(
    generate: Callable[..., CaptchaDataset],
    generated_dataset: CaptchaDataset,
    tiny_spec: DatasetSpec,
    tmp_path: Path,
    way: Way,
    count: int,
) -> None:
    old = split(generated_dataset, way, tmp_path / "old")
    grown = split(generate(tiny_spec.model_copy(update={"count": count})), way, tmp_path / "out")
    assert sides_by_id(grown).items() >= sides_by_id(old).items()
    full = {shard for shard in old.manifest.shards if shard.num_samples == tiny_spec.shard_size}
    assert full
    assert set(grown.manifest.shards) >= full


def choose(labels: list[str], rule: SplitRule) -> list[bool]:
    try:
        return list(choose_test_samples(pa.table({"id": range(len(labels)), "label": labels}), rule))
    except UserError as error:
        assert "leaves one side empty: raise `count`, or change `split.seed`" in str(error)  # noqa: PT017 - both are right
        return []


@given(st.lists(st.text("AB01", min_size=1, max_size=3), min_size=2, max_size=80), st.data(), SHARES, SEEDS)
def test_a_hash_chooses_the_same_however_many_samples_there_are(
    labels: list[str], data: st.DataObject, share: float, seed: int
) -> None:
    fewer = data.draw(st.integers(1, len(labels)))
    for way in ("sample_hash", "label_hash"):
        rule = SplitRule.model_validate({"test_size": share, "by": way, "seed": seed})
        few, many = choose(labels[:fewer], rule), choose(labels, rule)
        assert not few or many[:fewer] == few
        if many and way == "label_hash":
            sides = set(zip(labels, many, strict=True))
            assert len(sides) == len(set(labels)), "no text is on both sides"


@pytest.mark.parametrize("way", ["sample_hash", "label_hash"])
@pytest.mark.parametrize("share", [0.05, 0.2, 0.5])
def test_a_hash_chooses_about_the_share(way: str, share: float) -> None:
    labels = [f"{number:04d}" for number in range(10_000)]
    chosen = choose(labels, SplitRule.model_validate({"test_size": share, "by": way, "seed": 1}))
    assert abs(sum(chosen) / 10_000 - share) < 5 * (share * (1 - share) / 10_000) ** 0.5


@given(SHARES, SHARES, SEEDS, st.integers(0, 10**9))
def test_a_larger_share_moves_samples_from_train_to_test_only(one: float, other: float, seed: int, sample_id: int) -> None:
    small, large = (SplitRule(test_size=share, by="sample_hash", seed=seed) for share in sorted((one, other)))
    assert is_test_key(sample_id, large) or not is_test_key(sample_id, small)


@given(st.integers(1, 300), st.integers(1, 60), st.integers(0, 99))
def test_the_test_samples_are_counted_before_they_are_there(
    tiny_spec: DatasetSpec, count: int, shard_size: int, seed: int
) -> None:
    spec, rule = (
        tiny_spec.model_copy(update={"count": count, "shard_size": shard_size}),
        SplitRule(test_size=0.4, by="shard", seed=seed),
    )
    num_test = sum(len(spec.shard_sample_ids(number)) for number in range(spec.num_shards) if is_test_shard(number, rule))
    if 0 < num_test < count:
        assert check_split(spec, rule) == num_test
    else:
        with pytest.raises(UserError, match="leaves one side empty"):
            check_split(spec, rule)


def test_a_billion_shards_are_counted_at_once(tiny_spec: DatasetSpec, shard_rule: SplitRule) -> None:
    assert check_split(tiny_spec.model_copy(update={"count": 10**9, "shard_size": 1}), shard_rule) == 2 * 10**8


def test_files_and_links_in_the_place_of_a_split_are_replaced(tiny_dataset: CaptchaDataset, tmp_path: Path) -> None:
    out_dir, elsewhere = tmp_path / "tiny", tmp_path / "elsewhere"
    for folder in (out_dir, elsewhere):
        folder.mkdir()
    (out_dir / "train").write_text("a file")
    (out_dir / "test").symlink_to(elsewhere)
    put_in_place(Path(shutil.copytree(tiny_dataset.root, tmp_path / "work")), out_dir)
    assert hash_files(out_dir) == hash_files(tiny_dataset.root)
    assert elsewhere.is_dir()


@pytest.mark.parametrize(
    ("num_test", "way", "said"),
    [
        (12, "shard", "48 train and 12 test samples, by shard"),
        (10, "shard", "50 train and 10 test samples, by shard, 16.7% test and not 20.0%, as shards are not divided"),
        (13, "label_hash", "47 train and 13 test samples, by label_hash, 21.7% test and not 20.0%, by chance of the hash"),
        (12, "sample", "48 train and 12 test samples, by sample"),
        (11, "sample", "49 train and 11 test samples, by sample, 18.3% test and not 20.0%, as samples are not divided"),
    ],
)
def test_the_share_is_said_where_it_is_another(num_test: int, way: Way, said: str) -> None:
    assert describe_sides(60, num_test, SplitRule(test_size=0.2, by=way, seed=1)) == said


@pytest.mark.parametrize("seed", [0, 42])
def test_split_by_sample_is_that_of_scikit_learn(generated_dataset: CaptchaDataset, tmp_path: Path, seed: int) -> None:
    dataset = split(generated_dataset, "sample", tmp_path / "out", seed)
    train, test = train_test_split(np.arange(60), test_size=0.2, random_state=seed)
    assert set(dataset.split("train").index["id"].to_pylist()) == set(train.tolist())
    assert set(dataset.split("test").index["id"].to_pylist()) == set(test.tolist())


def test_split_by_label_has_no_label_on_both_sides(
    generate: Callable[..., CaptchaDataset], tiny_spec: DatasetSpec, tmp_path: Path
) -> None:
    source = generate(tiny_spec.model_copy(update={"length": 1, "alphabet": "".join(map(chr, range(ord("!"), ord("!") + 40)))}))
    dataset = split(source, "label", tmp_path / "out")
    train, test = (set(dataset.split(side).index["label"].to_pylist()) for side in ("train", "test"))
    assert train.isdisjoint(test)
    assert len(train | test) < 60, "labels repeat, or this test shows nothing"
    assert len(dataset.split("test").index) == 12


@given(st.lists(st.integers(1, 12), min_size=2, max_size=60), SEEDS)
def test_split_by_label_is_exact_or_refused(sizes: list[int], seed: int) -> None:
    labels = [f"{number:03d}" for number, size in enumerate(sizes) for _ in range(size)]
    try:
        is_test = choose_test_samples(pa.table({"label": labels}), SplitRule(test_size=0.2, by="label", seed=seed))
    except UserError as error:
        assert f"found no texts of the {len(sizes)} that hold exactly 0.2 of" in str(error)  # noqa: PT017 - both outcomes are right
        return
    assert is_test.sum() == round(0.2 * len(labels))
    chosen = {label for label, test in zip(labels, is_test, strict=True) if test}
    assert chosen.isdisjoint(label for label, test in zip(labels, is_test, strict=True) if not test)


@pytest.mark.parametrize("seed", range(20))
def test_split_by_label_tries_again_where_the_first_labels_leave_a_rest(seed: int) -> None:
    # 36 of 180 is twelve threes, or three fives and seven threes, but nothing with one five or two.
    labels = [f"{number:02d}" for number, size in enumerate([5] * 12 + [3] * 40) for _ in range(size)]
    assert choose_test_samples(pa.table({"label": labels}), SplitRule(test_size=0.2, by="label", seed=seed)).sum() == 36


@pytest.mark.parametrize(
    ("change", "way", "message"),
    [
        pytest.param({"shard_size": 60}, "shard", "is . of 1 shards, and leaves one side empty: lower `shard_size`", id="one"),
        pytest.param({"count": 2}, "sample", "is 0 of 2 samples, and leaves one side empty: raise `count`", id="sample"),
        pytest.param({"count": 1}, "label", "is 0 of 1 samples, and leaves one side empty: raise `count`", id="label"),
    ],
)
def test_a_split_that_leaves_a_side_empty_is_refused(
    tiny_spec: DatasetSpec, change: dict[str, int], way: Way, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        check_split(tiny_spec.model_copy(update=change), SplitRule(test_size=0.2, by=way, seed=1))


def test_a_split_by_label_that_hardly_ever_works_is_refused_before_anything_is_drawn(tiny_spec: DatasetSpec) -> None:
    rule = SplitRule(test_size=0.2, by="label", seed=1)
    spec = tiny_spec.model_copy(update={"alphabet": "0123456789", "length": 1, "count": 100_000})
    with pytest.raises(UserError, match=r"10 texts hardly ever divide .* exactly 0.2 of 100,000 samples: raise `length`"):
        check_split(spec, rule)
    # As it is advised.
    assert check_split(spec.model_copy(update={"length": 4}), rule) == 20_000
    assert check_split(spec, rule.model_copy(update={"by": "label_hash"}))


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def change_a_row(path: Path) -> None:
    rows = read_index(path)
    write_index(path, rows.set_column(1, rows.schema.field(1), pa.array(["000", *rows["label"].to_pylist()[1:]])))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("name", "damage"),
    [
        pytest.param("00003.tfrecord", flip, id="flipped shard"),
        pytest.param("00003.tfrecord", lambda path: shutil.copy(path.with_name("00004.tfrecord"), path), id="another shard"),
        pytest.param("00003.tfrecord", Path.unlink, id="missing shard"),
        pytest.param("index.parquet", flip, id="flipped index"),
        pytest.param("index.parquet", change_a_row, id="readable index"),
        pytest.param("index.parquet", Path.unlink, id="missing index"),
    ],
)
def test_a_damaged_source_is_named_and_gives_no_manifest(
    generated_dataset: CaptchaDataset, tmp_path: Path, way: Way, name: str, damage: Callable[[Path], object]
) -> None:
    source = Path(shutil.copytree(generated_dataset.root, tmp_path / "source"))
    damage(source / name)
    with pytest.raises(UserError, match=rf"{name} (is missing: |has other bytes ).*`captcha-registry repair {source}`"):
        split(open_folder(source), way, tmp_path / "out")
    assert not (tmp_path / "out" / "manifest.json").exists()


def test_shards_are_in_the_order_of_their_numbers_however_many() -> None:
    paths = [f"{side}/{shard_name(number)}" for side in ("test", "train") for number in (0, 9, 99_999, 100_000, 1_000_000)]
    assert sorted(paths[3:] + paths[:3], key=shard_order) == paths
    assert sorted(paths[:2] + paths[5:7]) == sorted(paths[:2] + paths[5:7], key=shard_order)


@pytest.mark.parametrize("way", EXACT)
def test_the_stage_replaces_what_was_there(
    project: Project, generated_dataset: CaptchaDataset, tiny_spec: DatasetSpec, way: Way
) -> None:
    project.write_params(datasets={"tiny": tiny_spec.model_dump()}, split={"test_size": 0.2, "by": way, "seed": 1})
    shutil.copytree(generated_dataset.root, project.root / "data/generated/tiny")
    (project.root / "data/tiny/test").mkdir(parents=True)
    (project.root / "data/tiny/test/99999.tfrecord").touch()
    done = project.run("split", "tiny")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"tiny: 48 train and 12 test samples, by {way}, ")
    dataset = open_folder(project.root / "data/tiny")
    shards = [dataset.root / shard.path for shard in dataset.manifest.shards if shard.path.startswith("test/")]
    assert sorted(shards) == sorted((dataset.root / "test").iterdir())
    assert {path.name for path in (project.root / "data").iterdir()} == {"generated", "tiny"}


@pytest.fixture
def other_disk(project: Project) -> Iterator[Path]:
    """The project's data folder, on a disk of its own."""
    if shutil.which("mount") is None or os.geteuid() != 0:
        pytest.skip("only root can mount a disk")
    folder = project.root / "data"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", folder], check=True)
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


@pytest.mark.parametrize("is_killed_before", [False, True], ids=["first run", "rerun"])
def test_the_stage_splits_data_on_another_disk(
    project: Project, generated_dataset: CaptchaDataset, tiny_dataset: CaptchaDataset, other_disk: Path, is_killed_before: bool
) -> None:
    shutil.copytree(generated_dataset.root, other_disk / "generated/tiny")
    if is_killed_before:
        shutil.copytree(tiny_dataset.root, other_disk / "tiny")
        (other_disk / ".tiny.split/train").mkdir(parents=True)
    done = project.run("split", "tiny")
    assert (done.returncode, done.stderr) == (0, "")
    assert hash_files(other_disk / "tiny") == hash_files(tiny_dataset.root)
    assert {path.name for path in other_disk.iterdir()} == {"generated", "tiny"}
    shard = other_disk / "generated/tiny/00000.tfrecord"
    assert shard.stat().st_nlink == 2, "linked, not copied"


NUM_KILLS = 20


@pytest.mark.slow
def test_a_split_that_is_killed_at_any_moment_is_done_again(
    make_project: Callable[[str], Project], generated_dataset: CaptchaDataset, shard_rule: SplitRule, tiny_dataset: CaptchaDataset
) -> None:
    expected = hash_files(tiny_dataset.root)
    project = make_project("killed")
    project.write_params(datasets={"tiny": generated_dataset.manifest.spec.model_dump()}, split=shard_rule.model_dump())
    shutil.copytree(generated_dataset.root, project.root / "data/generated/tiny")
    staging, choices = project.root / "data/.tiny.split", random.Random(1)  # noqa: S311 - moments, not secrets
    num_kills = 0
    while num_kills < NUM_KILLS:
        shutil.rmtree(staging, ignore_errors=True)
        process = project.start("split", "tiny")
        wait_until(lambda: staging.exists() or process.poll() is not None, "the start of the split", pause_seconds=0.001)  # noqa: B023
        # The rest of an undisturbed run takes about 0.1 seconds.
        time.sleep(choices.uniform(0, 0.1))
        num_kills += process.poll() is None
        process.kill()
        process.communicate(timeout=HANG_SECONDS)
        # Whatever looks finished is finished.
        assert not (project.root / "data/tiny/manifest.json").exists() or hash_files(project.root / "data/tiny") == expected
    done = project.run("split", "tiny")
    assert done.returncode == 0, done.stderr
    assert hash_files(project.root / "data/tiny") == expected
    assert hash_files(project.root / "data/generated/tiny") == hash_files(generated_dataset.root)
    assert {path.name for path in (project.root / "data").iterdir()} == {"generated", "tiny"}


def test_the_stage_says_what_to_do_without_a_dataset(project: Project) -> None:
    done = project.run("split", "tiny")
    assert done.returncode == 2
    assert done.stderr == (
        "error: data/generated/tiny/manifest.json is missing, so data/generated/tiny is not a complete dataset: "
        "run `dvc repro`, or `dvc pull --allow-missing` if a DVC remote has it; if it was fetched, fetch it again with the "
        "same `captcha-registry get` as before\n"
    )
