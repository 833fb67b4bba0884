"""A dataset's bytes follow from its spec, whoever draws it, in how many goes, and whatever comes in between."""

import itertools
import os
import re
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Literal

import psutil
import pytest
from conftest import HANG_SECONDS, ROOT, Project, Section, hash_files, wait_until
from processes import Process

from captcha_registry.dataset.dataset import CaptchaDataset
from captcha_registry.dataset.spec import DatasetSpec, SplitRule
from captcha_registry.errors import UserError
from captcha_registry.generation.drawing import DRAWING_VERSION, Drawer
from captcha_registry.generation.executors import FEW_SAMPLES, open_local
from captcha_registry.generation.generating import DATASET_PACKAGES, assemble_dataset, draw_missing_shards, find_finished_shards
from captcha_registry.generation.shards import draw_shard, read_finished_shard
from captcha_registry.workspace import tool_versions

# Some seconds of drawing: long enough to be hit in the middle.
LONG = DatasetSpec(alphabet="0123456789", length=4, width=48, height=32, count=2_000, shard_size=100, seed=3)


def test_bytes_are_the_same_whatever_the_number_of_workers(
    make_project: Callable[[str], Project], tiny_spec: DatasetSpec, shard_rule: SplitRule, generated_dataset: CaptchaDataset
) -> None:
    expected = hash_files(generated_dataset.root)
    assert set(expected) == {"index.parquet", "manifest.json", *(f"{n:05d}.tfrecord" for n in range(10))}
    # Two work in the runs below that are killed, none in most of the others.
    project = make_project("project")
    project.write_params(datasets={"tiny": tiny_spec.model_dump()}, split=shard_rule.model_dump())
    done = project.run("generate", "tiny", "--workers", "3")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("tiny: 60 samples in 10 shards, ")
    assert hash_files(project.root / "data/generated/tiny") == expected


def test_few_samples_are_drawn_without_another_process_unless_one_is_asked_for() -> None:
    for num_samples, num_workers, is_here in ((FEW_SAMPLES, None, True), (FEW_SAMPLES + 1, None, False), (1, 1, False)):
        with open_local(num_samples, num_workers) as executor:
            assert (executor.submit(os.getpid).result() == os.getpid()) == is_here


def test_after_an_error_nothing_more_of_few_samples_is_drawn() -> None:
    drawn: list[Future[None]] = [Future()]

    def fail() -> None:
        with open_local(1) as executor:
            # Of the one that is the last then.
            drawn.append(executor.submit(wait_until, lambda: drawn[-1].cancelled(), "its end"))  # noqa: PLW0108
            drawn.append(executor.submit(print))
            raise UserError("the disk is full")

    with pytest.raises(UserError, match="the disk is full"):
        fail()
    assert drawn[1].result() is None


# SHA-256 of a small shard in the locked environment, as this drawing version makes it.
PINNED = {
    (2, "stock"): "ada0df1e6c9ffe6446e9423e47afbc4c1ef88182063ec50c7b269852133545f9",
    (2, "classic"): "d1526334b19c0670e2f079f657c00ba55e5f68d635dba69af73c365e4ec2ebaf",
}


@pytest.mark.parametrize("style", ["stock", "classic"])
def test_other_bytes_have_another_drawing_version(tmp_path: Path, style: Literal["stock", "classic"]) -> None:
    locked = dict(re.findall(r"^([\w-]+)==([\w.]+)", (ROOT / "requirements.lock").read_text(), re.MULTILINE))
    if other := {name: here for name, here in tool_versions(DATASET_PACKAGES).items() if locked[name] != here}:
        pytest.skip(f"not the locked environment, which decides the bytes: {other}")
    spec = DatasetSpec(alphabet="0123456789AB", length=4, width=128, height=64, count=20, shard_size=20, seed=7, style=style)
    found = draw_shard(Drawer(spec), 0, tmp_path).sha256
    assert found == PINNED.get((DRAWING_VERSION, style)), (
        "drawing gives other bytes: raise DRAWING_VERSION and pin what it gives now, or find out what changed"
    )


def test_what_an_earlier_run_left_changes_nothing(
    project: Project, tiny_spec: DatasetSpec, generated_dataset: CaptchaDataset
) -> None:
    out_dir, other_work = project.root / "data/generated/tiny", project.root / ".work/generate/tiny/0123456789abcdef"
    for folder in (out_dir, other_work):
        folder.mkdir(parents=True)
        draw_shard(Drawer(tiny_spec.model_copy(update={"seed": 1})), 0, folder)
    done = project.run("generate", "tiny")
    assert done.returncode == 0, done.stderr
    assert hash_files(out_dir) == hash_files(generated_dataset.root)
    assert set(hash_files(project.root / ".work")) == {"generate/tiny.lock"}


@pytest.mark.parametrize("shard_size", [1, 7, 59, 60, 1000])
def test_pictures_are_the_same_whatever_the_shard_size(
    generate: Callable[..., CaptchaDataset],
    generated_dataset: CaptchaDataset,
    tiny_spec: DatasetSpec,
    shard_size: int,
) -> None:
    other = generate(tiny_spec.model_copy(update={"shard_size": shard_size}))
    columns = ["id", "label", "pixel_sha256", "ink", "background", "ink_luminance"]
    assert other.index.select(columns).equals(generated_dataset.index.select(columns))
    assert max(shard.num_samples for shard in other.manifest.shards) == min(shard_size, 60)


def test_growing_keeps_the_bytes_of_every_full_shard(generate: Callable[..., CaptchaDataset], tiny_spec: DatasetSpec) -> None:
    small, large = (generate(tiny_spec.model_copy(update={"count": count})) for count in (20, 40))
    assert small.manifest.shards[:3] == large.manifest.shards[:3]
    assert small.manifest.shards[3].num_samples == 2
    assert large.index.slice(0, 18).equals(small.index.slice(0, 18))


@pytest.mark.parametrize(
    "change",
    [{"seed": 8}, {"alphabet": "BA9876543210"}, {"length": 4}, {"width": 49}, {"height": 33}],
    ids=lambda change: next(iter(change)),
)
def test_another_spec_gives_another_dataset(
    generate: Callable[..., CaptchaDataset], tiny_spec: DatasetSpec, change: Section
) -> None:
    small = tiny_spec.model_copy(update={"count": 6})
    one, other = generate(small), generate(small.model_copy(update=change))
    assert one.manifest.shards[0].sha256 != other.manifest.shards[0].sha256
    assert one.manifest.dataset_id != other.manifest.dataset_id


def test_a_shard_that_is_damaged_or_half_there_is_drawn_again(tmp_path: Path, tiny_spec: DatasetSpec) -> None:
    entries = [draw_shard(Drawer(tiny_spec), number, tmp_path) for number in range(6)]
    first = hash_files(tmp_path)
    assert [read_finished_shard(number, tmp_path) for number in range(6)] == entries

    (tmp_path / "00000.tfrecord").unlink()
    (tmp_path / "00001.parquet").unlink()
    (tmp_path / "00002.tfrecord").write_bytes(b"")
    (tmp_path / "00003.parquet").write_bytes(b"PAR1")
    (tmp_path / "00004.sha256").unlink()
    assert [read_finished_shard(number, tmp_path) for number in range(6)] == [None, None, None, None, None, entries[5]]
    spec = tiny_spec.model_copy(update={"count": 36})
    with ThreadPoolExecutor(max_workers=1) as executor:
        assert draw_missing_shards(Drawer(spec), find_finished_shards(tmp_path), tmp_path, executor) == entries
    assert hash_files(tmp_path) == first


@pytest.mark.parametrize(("name", "step"), [("00000.tfrecord", 101), ("00000.parquet", 1), ("00000.sha256", 1)])
def test_a_shard_with_any_wrong_byte_in_any_of_its_files_is_drawn_again(
    tmp_path: Path, tiny_spec: DatasetSpec, name: str, step: int
) -> None:
    spec = tiny_spec.model_copy(update={"count": 6})
    entry = draw_shard(Drawer(spec), 0, tmp_path)
    first, content = hash_files(tmp_path), (tmp_path / name).read_bytes()
    # In place: what is written over from its start is sent to the disk each time.
    with (tmp_path / name).open("r+b", buffering=0) as file:
        for place, mask in itertools.product(range(0, len(content), step), (0x01, 0xFF)):
            os.pwrite(file.fileno(), bytes([content[place] ^ mask]), place)
            assert find_finished_shards(tmp_path) == {}, f"byte {place:,} of {name} with {mask:#x}"
            os.pwrite(file.fileno(), content[place : place + 1], place)
        os.pwrite(file.fileno(), bytes([content[0] ^ 1]), 0)
    with ThreadPoolExecutor(max_workers=1) as executor:
        assert draw_missing_shards(Drawer(spec), {}, tmp_path, executor) == [entry]
    assert hash_files(tmp_path) == first


def test_the_manifest_comes_last(tmp_path: Path, tiny_spec: DatasetSpec) -> None:
    work, out = tmp_path / "work", tmp_path / "out"
    work.mkdir()
    shards = [draw_shard(Drawer(tiny_spec), number, work) for number in range(tiny_spec.num_shards)]
    (work / "00009.parquet").unlink()
    with pytest.raises(FileNotFoundError):
        assemble_dataset("tiny", Drawer(tiny_spec), shards, work, out)
    assert (out / "00000.tfrecord").exists()
    assert not (out / "manifest.json").exists()


class Killed(BaseException):
    """What nothing catches, like the end of a process."""


def test_an_old_dataset_looks_finished_as_long_as_it_is_whole(
    tmp_path: Path, tiny_spec: DatasetSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, work = tmp_path / "out", tmp_path / "work"
    work.mkdir()
    drawer = Drawer(tiny_spec)
    shards = [draw_shard(drawer, number, work) for number in range(tiny_spec.num_shards)]
    assemble_dataset("tiny", drawer, shards, work, out)
    num_files, unlink = len(list(out.iterdir())), os.unlink
    for num_deleted in range(num_files):
        moments = iter(range(num_deleted))

        def unlink_until_killed(path: str, moments: Iterator[int] = moments, **options: int) -> None:
            if next(moments, None) is None:
                raise Killed
            unlink(path, **options)

        with monkeypatch.context() as patch:
            patch.setattr(os, "unlink", unlink_until_killed)
            with pytest.raises(Killed):
                assemble_dataset("tiny", drawer, shards, work, out)
        left = {path.name for path in out.iterdir()}
        assert (len(left), "manifest.json" in left) == (num_files - num_deleted, num_deleted == 0)
        assemble_dataset("tiny", drawer, shards, work, out)
        assert len(list(out.iterdir())) == num_files


def start_drawing(project: Project, wanted: str, num_wanted: int) -> tuple[Process, Path]:
    """Start to draw with two workers; return the process and the work folder as soon as it holds the wanted files."""
    process = project.start("generate", "long", "--workers", "2")
    work_dirs = project.root / ".work/generate/long"
    wait_until(lambda: process.poll() is not None or len([*work_dirs.glob(f"*/{wanted}")]) >= num_wanted, wanted)
    assert process.poll() is None, process.communicate()
    (work_dir,) = work_dirs.iterdir()
    return process, work_dir


@pytest.fixture
def long_project(make_project: Callable[[str], Project], shard_rule: SplitRule) -> Project:
    project = make_project("long")
    project.write_params(datasets={"long": LONG.model_dump()}, split=shard_rule.model_dump())
    return project


@pytest.mark.slow
def test_a_killed_run_leaves_no_worker_and_is_taken_up_where_it_stopped(
    long_project: Project, generate: Callable[..., CaptchaDataset]
) -> None:
    process, work_dir = start_drawing(long_project, "*.sha256", 1)
    process.kill()
    process.communicate(timeout=HANG_SECONDS)
    wait_until(lambda: not long_project.list_processes(), "the end of every worker", seconds=10)
    assert not (long_project.root / "data").exists()
    finished = {path.stem: (work_dir / f"{path.stem}.tfrecord").stat() for path in work_dir.glob("*.sha256")}
    assert 0 < len(finished) < LONG.num_shards

    done = long_project.run("generate", "long")
    assert done.returncode == 0, done.stderr
    out_dir = long_project.root / "data/generated/long"
    for name, before in finished.items():
        after = (out_dir / f"{name}.tfrecord").stat()
        assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert hash_files(out_dir) == hash_files(generate(LONG, "long").root)


@pytest.mark.parametrize("workers_too", [False, True], ids=["parent alone", "all, as a terminal does"])
def test_ctrl_c_stops_at_once_and_says_how_to_go_on(
    make_project: Callable[[str], Project], shard_rule: SplitRule, workers_too: bool
) -> None:
    # A shard takes much longer than a person would wait, so that its worker has to be stopped in the middle.
    project = make_project("endless")
    spec = LONG.model_copy(update={"count": 200_000, "shard_size": 100_000})
    project.write_params(datasets={"long": spec.model_dump()}, split=shard_rule.model_dump())
    process, work_dir = start_drawing(project, "*.tmp", 2)
    for one in project.list_processes() if workers_too else [process]:
        # The first of them may have ended the others.
        with suppress(psutil.NoSuchProcess):
            one.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=3)
    assert process.returncode == 130
    assert (output, errors) == ("", "stopped; run the same command again to go on\n")
    wait_until(lambda: not project.list_processes(), "the end of every worker", seconds=10)
    assert not [path for path in work_dir.iterdir() if path.suffix != ".tmp"]
    assert not (project.root / "data").exists()


def test_a_worker_that_is_killed_ends_the_run_with_a_remedy(long_project: Project) -> None:
    process, _ = start_drawing(long_project, "*.sha256", 1)
    workers = [child for child in long_project.list_processes() if "spawn_main" in " ".join(child.cmdline())]
    assert len(workers) == 2
    workers[0].kill()
    output, errors = process.communicate(timeout=HANG_SECONDS)
    assert (process.returncode, output) == (2, "")
    assert errors == (
        "error: a worker process was killed, most often for lack of memory: run the same command again, it goes on from here\n"
    )
    wait_until(lambda: not long_project.list_processes(), "the end of every worker", seconds=10)
