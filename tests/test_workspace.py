"""Unfinished work waits where no other work can pick it up, and a file is there complete or not at all."""

import errno
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path

import pyarrow as pa
import pytest

from captcha_registry.ends import report_errors
from captcha_registry.errors import UserError
from captcha_registry.workspace import (
    fingerprint,
    link_or_copy,
    open_atomically,
    open_work_dir,
    require_free_space,
    tool_versions,
    write_atomically,
)


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_same_facts_have_the_same_fingerprint() -> None:
    facts = {"seed": 1, "alphabet": "01"}
    assert fingerprint(facts, "captcha") == fingerprint(dict(reversed(facts.items())), "captcha")


@pytest.mark.parametrize(
    "facts",
    [
        pytest.param([{"seed": 2}, {"captcha": "1"}], id="value"),
        pytest.param([{"seed": "1"}, {"captcha": "1"}], id="type"),
        pytest.param([{"seed": 1}, {"captcha": "2"}], id="version"),
        pytest.param([{"seed": 1}], id="number"),
    ],
)
def test_another_fact_has_another_fingerprint(facts: list[object]) -> None:
    assert fingerprint(*facts) != fingerprint({"seed": 1}, {"captcha": "1"})


def test_tool_versions_are_sorted_and_of_what_is_installed() -> None:
    versions = tool_versions(["pyarrow", "captcha"])
    assert list(versions) == ["captcha", "pyarrow"]
    assert versions["pyarrow"] == pa.__version__


def test_a_work_folder_is_found_again_with_what_it_holds(workplace: Path) -> None:
    class Killed(Exception):  # noqa: N818 - no error of ours
        pass

    def work_until_killed() -> None:
        with open_work_dir("generate", "tiny", "aaaa") as folder:
            (folder / "00000.tfrecord").touch()
            (folder / "00001.tfrecord.77.tmp").touch()
            raise Killed

    with pytest.raises(Killed):
        work_until_killed()
    folder = Path(".work/generate/tiny/aaaa")
    with open_work_dir("generate", "tiny", "aaaa") as again:
        assert again == folder
        assert [path.name for path in again.iterdir()] == ["00000.tfrecord"]
    assert not (workplace / folder).exists()


@pytest.mark.usefixtures("workplace")
def test_work_of_another_fingerprint_is_deleted_and_other_work_kept() -> None:
    stale, other_name, other_stage = (
        Path(".work") / place for place in ("generate/tiny/aaaa", "generate/other/aaaa", "train/tiny/aaaa")
    )
    for folder in (stale, other_name, other_stage):
        folder.mkdir(parents=True)
    (stale / "00000.tfrecord").touch()
    with open_work_dir("generate", "tiny", "bbbb"):
        assert not stale.exists()
        assert other_name.exists()
        assert other_stage.exists()


@contextmanager
def keep_writing(folder: Path) -> Iterator[None]:
    """Write to a folder, as a worker does that has not noticed the end of its run, for as long as the block takes."""
    is_over = threading.Event()

    def write() -> None:
        for number in count():
            if is_over.is_set():
                return
            with suppress(FileNotFoundError), open_atomically(folder / f"{number % 50:05d}.tfrecord") as file:
                file.write(b"late")

    with ThreadPoolExecutor(4) as executor:
        writers = [executor.submit(write) for _ in range(4)]
        try:
            yield
        finally:
            is_over.set()
        for writer in writers:
            writer.result()


@pytest.mark.usefixtures("workplace")
@pytest.mark.parametrize("work_fingerprint", ["aaaa", "bbbb"], ids=["the same work", "other work"])
def test_a_folder_is_reopened_and_deleted_though_others_still_write_to_it(work_fingerprint: str) -> None:
    folder = Path(".work/generate/tiny/aaaa")
    for _ in range(20):
        folder.mkdir(parents=True)
        with keep_writing(folder):
            with open_work_dir("generate", "tiny", work_fingerprint) as work_dir:
                assert work_dir.is_dir()
            assert list(Path(".work/generate/tiny").iterdir()) == []


@pytest.mark.usefixtures("workplace")
def test_a_file_that_is_gone_before_it_is_deleted_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Path(".work/generate/tiny/aaaa")
    folder.mkdir(parents=True)
    for name in ("00000.tfrecord.77.tmp", "00001.tfrecord.77.tmp"):
        (folder / name).touch()
    unlink = os.unlink

    def come_too_late(path: str, **options: int) -> None:
        unlink(path, **options)
        unlink(path, **options)

    monkeypatch.setattr(os, "unlink", come_too_late)
    with open_work_dir("generate", "tiny", "aaaa") as work_dir:
        assert list(work_dir.iterdir()) == []
        (work_dir / "00000.tfrecord").touch()
    assert list(Path(".work/generate/tiny").iterdir()) == []


@pytest.mark.usefixtures("workplace")
def test_two_runs_at_the_same_work_are_one_too_many() -> None:
    with open_work_dir("generate", "tiny", "aaaa"), open_work_dir("generate", "other", "aaaa"):
        with pytest.raises(UserError, match=r"another run is at work in \.work/generate/tiny: wait for it to end"):
            open_work_dir("generate", "tiny", "bbbb").__enter__()
        assert Path(".work/generate/tiny/aaaa").is_dir()


def test_a_file_appears_only_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "manifest.json"
    with open_atomically(path) as file:
        file.write(b"whole")
        file.flush()
        assert not path.exists()
    assert path.read_bytes() == b"whole"
    assert list(tmp_path.iterdir()) == [path]


def fail_halfway(path: Path) -> None:
    with open_atomically(path) as file:
        file.write(b"half")
        raise OSError


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    write_atomically(tmp_path / "manifest.json", b"old")
    with pytest.raises(OSError):  # noqa: PT011 - the one raised above
        fail_halfway(tmp_path / "manifest.json")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("manifest.json", b"old")]


def test_a_write_makes_its_folder(tmp_path: Path) -> None:
    write_atomically(tmp_path / "metrics" / "plots" / "a.json", b"{}")
    assert (tmp_path / "metrics" / "plots" / "a.json").read_bytes() == b"{}"


def test_a_finished_file_gets_a_second_name(tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(b"shard")
    link_or_copy(tmp_path / "source", tmp_path / "train" / "target")
    assert (tmp_path / "train" / "target").samefile(tmp_path / "source")


@pytest.mark.skipif(not os.access("/dev/shm", os.W_OK), reason="needs a second file system")  # noqa: S108
def test_a_file_is_copied_where_a_link_cannot_reach(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    source = Path("/dev/shm") / f"{request.node.name}-{os.getpid()}"  # noqa: S108
    source.write_bytes(b"shard")
    request.addfinalizer(source.unlink)
    if source.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("one file system")
    link_or_copy(source, tmp_path / "target")
    assert (tmp_path / "target").read_bytes() == b"shard"


@pytest.mark.parametrize(
    "number", [errno.ENOSYS, errno.EACCES, errno.EINVAL, errno.EOPNOTSUPP, errno.EMLINK, errno.EPERM, errno.ENOTTY, errno.EIO]
)
def test_a_file_is_copied_whatever_a_file_system_calls_its_lack_of_links(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "link", refuse)
    (tmp_path / "source").write_bytes(b"shard")
    (tmp_path / "source").chmod(0o444)
    link_or_copy(tmp_path / "source", tmp_path / "train" / "target")
    assert [path.name for path in (tmp_path / "train").iterdir()] == ["target"]
    assert (tmp_path / "train" / "target").read_bytes() == b"shard"
    assert not (tmp_path / "train" / "target").samefile(tmp_path / "source")


def test_a_file_that_can_neither_be_linked_nor_copied_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as raised:
        link_or_copy(tmp_path / "missing", tmp_path / "target")
    assert raised.value.filename == str(tmp_path / "missing")


def test_an_existing_target_is_not_overwritten(tmp_path: Path) -> None:
    for name in ("source", "target"):
        (tmp_path / name).write_text(name)
    with pytest.raises(FileExistsError):
        link_or_copy(tmp_path / "source", tmp_path / "target")
    assert (tmp_path / "target").read_text() == "target"


def test_what_the_disk_cannot_hold_is_refused_with_both_numbers(tmp_path: Path) -> None:
    require_free_space(tmp_path / "not" / "yet" / "there", 1)
    with pytest.raises(
        UserError, match=r"needs about 1,000,000\.0 GB and the disk has [\d,]+\.\d GB free: free some space, or low"
    ):
        require_free_space(tmp_path / "not" / "yet" / "there", 10**15)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        pytest.param(UserError("params.yaml: count is -5"), 2, "error: params.yaml: count is -5\n", id="user error"),
        pytest.param(KeyboardInterrupt(), 130, "stopped; run the same command again to go on\n", id="Ctrl-C"),
    ],
)
def test_errors_that_a_person_can_mend_are_one_line(
    capsys: pytest.CaptureFixture[str], error: BaseException, code: int, line: str
) -> None:
    with pytest.raises(SystemExit) as ended, report_errors():
        raise error
    assert ended.value.code == code
    assert capsys.readouterr() == ("", line)


def test_an_error_of_ours_keeps_its_traceback() -> None:
    with pytest.raises(ZeroDivisionError), report_errors():
        raise ZeroDivisionError
