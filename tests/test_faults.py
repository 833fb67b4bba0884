"""A full disk, a read-only folder, a kill at any moment, two runs at once: a clear end, and the same bytes afterwards."""

import os
import random
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from checkouts import Checkout
from conftest import HANG_SECONDS, Project, hash_files, wait_until

from captcha_registry.dataset.dataset import CaptchaDataset
from captcha_registry.dataset.spec import DatasetSpec, SplitRule
from captcha_registry.export import FORMATS

SPEC = DatasetSpec(alphabet="0123456789", length=4, width=48, height=32, count=1_600, shard_size=100, seed=3)
# As many shards, sooner drawn.
KILLED_SPEC = SPEC.model_copy(update={"count": 400, "shard_size": 25})
NUM_KILLS = 50


@pytest.fixture(scope="module")
def expected(generate: Callable[..., CaptchaDataset]) -> dict[str, str]:
    """The dataset as an undisturbed run draws it."""
    return hash_files(generate(SPEC).root)


@pytest.fixture
def mount() -> Iterator[Callable[..., Path]]:
    """A function that mounts a small disk of its own."""
    mounted: list[Path] = []

    def mount_disk(folder: Path, size: str) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        if shutil.which("mount") is None or os.geteuid() != 0:
            pytest.skip("only root can mount a disk")
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], check=True)
        mounted.append(folder)
        return folder

    yield mount_disk
    for folder in mounted:
        subprocess.run(["umount", "--lazy", folder], check=True)


def remount(folder: Path, option: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{option}", folder], check=True)


def write_params(project: Project, rule: SplitRule, spec: DatasetSpec = SPEC) -> None:
    project.write_params(datasets={"tiny": spec.model_dump()}, split=rule.model_dump())


@pytest.fixture
def drawing_project(make_project: Callable[[str], Project], shard_rule: SplitRule) -> Project:
    project = make_project("drawing")
    write_params(project, shard_rule)
    return project


def assert_as_expected(project: Project, expected: dict[str, str]) -> None:
    done = project.run("generate", "tiny")
    assert done.returncode == 0, done.stderr
    assert hash_files(project.root / "data/generated/tiny") == expected
    assert set(hash_files(project.root / ".work")) == {"generate/tiny.lock"}


def test_a_disk_that_fills_up_ends_in_one_line_and_a_rerun_with_room_goes_on(
    drawing_project: Project, mount: Callable[..., Path], expected: dict[str, str]
) -> None:
    disk = mount(drawing_project.root / ".work", "3600k")
    # Room enough at the start, and then someone else takes it.
    process = drawing_project.start("generate", "tiny", "--workers", "1")
    wait_until(lambda: [*disk.glob("generate/tiny/*/*.sha256")], "the end of a shard")
    free = shutil.disk_usage(disk).free
    (disk / "someone").write_bytes(bytes(max(0, free - 400_000)))
    output, errors = process.communicate(timeout=HANG_SECONDS)
    assert (process.returncode, output) == (2, "")
    (line,) = errors.splitlines()
    assert line.startswith("error: ")
    assert line.endswith(": No space left on device: free some space and run the same command again")
    assert not (drawing_project.root / "data").exists()
    wait_until(lambda: not drawing_project.list_processes(), "the end of every worker")
    finished = [*disk.glob("generate/tiny/*/*.sha256")]
    assert 0 < len(finished) < SPEC.num_shards

    (disk / "someone").unlink()
    remount(disk, "size=64m")
    assert_as_expected(drawing_project, expected)


def test_a_disk_without_room_is_refused_before_anything_is_drawn(drawing_project: Project, mount: Callable[..., Path]) -> None:
    disk = mount(drawing_project.root / ".work", "1600k")
    done = drawing_project.run("generate", "tiny")
    assert done.returncode == 2
    assert re.search(r"needs about \d\.\d MB and the disk has \d\.\d MB free: free some space", done.stderr)
    assert not [*disk.glob("generate/tiny/*/*")]


@pytest.mark.parametrize(
    ("folder", "is_there_already"),
    [(".work", False), ("data", False), ("data", True)],
    ids=["work folder", "outputs", "an earlier output"],
)
def test_a_read_only_folder_ends_in_one_line_and_a_rerun_gives_the_same_bytes(
    project: Project, mount: Callable[..., Path], generated_dataset: CaptchaDataset, folder: str, *, is_there_already: bool
) -> None:
    expected = hash_files(generated_dataset.root)
    disk = mount(project.root / folder, "64m")
    if is_there_already:
        assert_as_expected(project, expected)
    remount(disk, "ro")
    done = project.run("generate", "tiny")
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"error: {folder}")
    assert line.endswith(": Read-only file system: make it writable, or work in another folder")

    remount(disk, "rw")
    assert_as_expected(project, expected)


def kill_all(project: Project) -> None:
    for process in project.list_processes():
        # It may have ended since.
        with suppress(psutil.NoSuchProcess):
            process.kill()


def run_until(project: Project, seconds: float, *options: str) -> bool:
    """Start a run and kill it after so many seconds; tell whether it was still at work then."""
    process = project.start("generate", "tiny", *options)
    with suppress(subprocess.TimeoutExpired):
        process.wait(seconds)
    is_killed = process.poll() is None
    process.kill()
    kill_all(project)
    process.communicate(timeout=HANG_SECONDS)
    return is_killed


@pytest.mark.thorough
def test_a_run_that_is_killed_at_any_moment_is_taken_up(
    make_project: Callable[[str], Project], shard_rule: SplitRule, generate: Callable[..., CaptchaDataset]
) -> None:
    expected = hash_files(generate(KILLED_SPEC).root)
    choices = random.Random(1)  # noqa: S311 - moments, not secrets
    num_kills = 0
    while num_kills < NUM_KILLS:
        project = make_project(f"after-{num_kills}")
        write_params(project, shard_rule, KILLED_SPEC)
        for _ in range(10):
            # In a thread and in two processes; so long an undisturbed run takes about.
            seconds, options = choices.choice(((0.7, ()), (1.5, ("--workers", "2"))))
            num_kills += run_until(project, choices.uniform(0, seconds), *options)
            manifest = project.root / "data/generated/tiny/manifest.json"
            # Whatever looks finished is finished.
            assert not manifest.exists() or hash_files(manifest.parent) == expected
        assert_as_expected(project, expected)


def test_two_runs_at_once_in_one_folder_do_not_disturb_each_other(drawing_project: Project, expected: dict[str, str]) -> None:
    first = drawing_project.start("generate", "tiny", "--workers", "1")
    wait_until(lambda: [*(drawing_project.root / ".work/generate/tiny").glob("*/*")], "the start of the first run")
    with first.paused():
        second = drawing_project.run("generate", "tiny")
    assert (second.returncode, second.stdout) == (2, "")
    assert second.stderr == "error: another run is at work in .work/generate/tiny: wait for it to end, or stop it\n"
    _, errors = first.communicate(timeout=HANG_SECONDS)
    assert first.returncode == 0, errors
    assert hash_files(drawing_project.root / "data/generated/tiny") == expected


def test_an_export_get_or_repair_onto_a_full_disk_is_one_line_that_names_what_did_not_fit(
    published: Checkout,
    mount: Callable[..., Path],
    tmp_path: Path,
    tiny_dataset: CaptchaDataset,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    disk = mount(tmp_path / "disk", "64k")
    (disk / "someone").write_bytes(bytes(shutil.disk_usage(disk).free - 24_576))
    with monkeypatch.context() as patch:
        patch.setattr(tempfile, "tempdir", str(disk))
        done = published.run("list", "--repo", published.origin)
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(rf"error: {disk}/\S+clone.git: No space left on device: free some space and run .*\n", done.stderr)
    (disk / "someone").unlink()
    source = str(published.root / "data/tiny")
    calls = [["export", source, "--format", each, "--to", str(disk / "out")] for each in FORMATS]
    for call in [*calls, ["get", "tiny@1.0.0", "--repo", published.origin, "--to", str(disk / "got")]]:
        done = published.run(*call)
        assert (done.returncode, done.stdout) == (2, ""), done.stderr
        assert re.fullmatch(rf"error: {disk}/\S+: No space left on device: free some space and run .*\n", done.stderr)
        left = {path.relative_to(disk).as_posix() for path in disk.rglob("*") if path.is_file()}
        # Of what was fetched, complete files stay for the next call; the manifest comes last.
        assert not left or (call[0] == "get" and left < {f"got/{path}" for path in hash_files(published.root / "data/tiny")})
        assert "got/manifest.json" not in left
    shutil.rmtree(disk / "got")

    remount(disk, "size=1m")
    root = Path(shutil.copytree(tiny_dataset.root, disk / "tiny"))
    next((root / "test").iterdir()).unlink()
    before = hash_files(root)
    (disk / "someone").write_bytes(bytes(shutil.disk_usage(disk).free - 8192))
    done = published.run("repair", str(root))
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(rf"error: {root}/\S+: No space left on device: free some space and run .*\n", done.stderr)
    assert hash_files(root) == before
    (disk / "someone").unlink()
    assert published.run("repair", str(root)).returncode == 0
    assert hash_files(root) == hash_files(tiny_dataset.root)


def test_a_stage_on_a_full_disk_is_one_line_and_leaves_what_was_there(
    project: Project, mount: Callable[..., Path], generated_dataset: CaptchaDataset
) -> None:
    disk = mount(project.root / "data", "2m")
    shutil.copytree(generated_dataset.root, disk / "generated/tiny")
    assert project.run("split", "tiny").returncode == 0
    before = hash_files(disk)
    project.write_params(
        datasets={"tiny": generated_dataset.manifest.spec.model_dump()}, split={"test_size": 0.2, "by": "sample", "seed": 1}
    )
    (disk / "someone").write_bytes(bytes(shutil.disk_usage(disk).free - 4096))
    for command in (["split", "tiny"], ["describe", "tiny"], ["generate", "tiny", "--to", str(disk / "other")]):
        done = project.run(*command)
        assert (done.returncode, done.stdout) == (2, "")
        (line,) = done.stderr.splitlines()
        assert re.fullmatch(rf"error: (data|{disk})/.*: No space left on device: free some space and run the same .*", line)
    shutil.rmtree(disk / "other")
    (disk / "someone").unlink()
    assert hash_files(disk) == before


def test_a_remote_on_a_full_disk_refuses_a_publication_in_one_line(
    tiny_dataset: CaptchaDataset, mount: Callable[..., Path], tmp_path: Path
) -> None:
    remote = mount(tmp_path / "remote", "64k")
    checkout = Checkout.create(tmp_path)
    checkout.make(tiny_dataset.root)
    done = checkout.run("publish", "tiny", "1.0.0")
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert "No space left on device" in line
    assert line.endswith("run the same command again")
    assert checkout.list_origin_tags() == []
    remount(remote, "size=2m")
    assert checkout.run("publish", "tiny", "1.0.0").returncode == 0
