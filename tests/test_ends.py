"""However a command or stage ends, it ends as other tools do: a line or none, an exit code, nothing half-written or left."""

import errno
import fcntl
import itertools
import json
import os
import pty
import re
import runpy
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import termios
import threading
import time
from collections.abc import Callable
from contextlib import nullcontext, suppress
from pathlib import Path

import pyarrow as pa
import pytest
from checkouts import Checkout
from conftest import HANG_SECONDS, ROOT, Project, as_another_user, wait_until
from processes import Process

from captcha_registry import cli
from captcha_registry.dataset.dataset import CaptchaDataset
from captcha_registry.dataset.index import INDEX_NAME
from captcha_registry.dataset.parquet import parse_rows
from captcha_registry.dataset.spec import DatasetSpec, SplitRule
from captcha_registry.ends import break_at_words, report_errors, show_error, show_unraisable
from captcha_registry.errors import CommandLine, UserError

# Of every command a call that prints something, in the checkout of `published`; TMP is a folder of the call's own.
COMMANDS = {
    "publish": ["publish", "tiny", "1.1.0", "--dry-run", "--json"],
    "list": ["list", "--json"],
    "show": ["show", "tiny"],
    "get": ["get", "tiny", "--to", "TMP/got"],
    "diff": ["diff", "tiny@1.0.0", "tiny@1.1.0", "--json"],
    "export": ["export", "data/tiny", "--format", "images", "--to", "TMP/exported", "--json"],
    "verify": ["verify", "data/tiny"],
    "repair": ["repair", "data/tiny", "--json"],
    "predict": ["predict", str(ROOT / "metrics/plots/digits/samples.png"), "--resize", "--model", "digits"],
    # A checkout without models has nothing else to print.
    "report": ["report", "--help"],
}
STAGES = sorted(path.stem for path in (ROOT / "stages").glob("[a-z]*.py"))
EXAMPLES = ["examples/demo.py", "examples/quickstart.py", "examples/two_teams/run.py"]

# Runs each call in a child of its own, which has all that takes long imported already, and ends as a fresh process does.
RUN_ALL = """
import json, os, runpy, sys
import tests.preloaded

def connect(descriptor, what):
    if what == "closed":
        os.close(descriptor)
    elif what == "full":
        os.dup2(os.open("/dev/full", os.O_WRONLY), descriptor)
    elif what == "pipe":
        reader, writer = os.pipe()
        os.close(reader)
        os.dup2(writer, descriptor)

results = []
for call in json.load(sys.stdin):
    errors = os.memfd_create("errors")
    child = os.fork()
    if not child:
        os.dup2(errors, 2)
        connect(1, call["stdout"])
        connect(2, call["stderr"])
        os.chdir(call["folder"])
        module, *sys.argv[1:] = call["command"]
        sys.argv[0] = "-m"
        if module.endswith(".py"):
            runpy.run_path(module, run_name="__main__")
        else:
            runpy.run_module(module, run_name="__main__", alter_sys=True)
        break
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    results.append([code, os.pread(errors, 100_000, 0).decode()])
else:
    sys.stdout.write(json.dumps(results))
"""

# The state of stdout and stderr, the exit code that it leads to, and what stderr gets.
FULL = (
    "error: standard output: No space left on device: the work may be complete though its output is not: free some space, "
    "and see what is there before you run it again\n"
)
OUTPUTS = [("pipe", "there", 141, ""), ("pipe", "pipe", 141, ""), ("closed", "closed", 0, ""), ("full", "there", 2, FULL)]


def run_all(cases: list[tuple[Path, list[str], str, str, int, str]]) -> None:
    """Run commands in folders whose outputs are closed, full, or pipes that nobody reads, and look how they end."""
    calls = [
        {"folder": str(folder), "command": command, "stdout": stdout, "stderr": stderr}
        for folder, command, stdout, stderr, *_ in cases
    ]
    done = subprocess.run(
        [sys.executable, "-c", RUN_ALL],
        input=json.dumps(calls),
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=3 * HANG_SECONDS,
        check=True,
    )
    ends = [(*case[:4], code, errors) for case, (code, errors) in zip(cases, json.loads(done.stdout), strict=True)]
    assert ends == cases


def test_every_command_stands_in_the_table_of_this_test() -> None:
    assert set(cli.COMMANDS) == set(COMMANDS)


def test_a_command_stage_or_example_whose_output_cannot_be_written_ends_as_other_tools_do(
    published: Checkout, generated_dataset: CaptchaDataset, project: Project, tmp_path: Path
) -> None:
    calls = [[part.replace("TMP", str(tmp_path)) for part in call] for call in COMMANDS.values()]
    # Each in its way, one in every way.
    pairs = [*zip(calls, itertools.cycle(OUTPUTS), strict=False), *((["list"], output) for output in OUTPUTS)]
    commands = [(published.root, ["captcha_registry.cli", *call], *output) for call, output in pairs]
    shutil.copytree(generated_dataset.root, project.root / "data/generated/tiny")
    stages = [(project.root, ["stages.split", "tiny"], *output) for output in OUTPUTS]
    helps = [[f"stages.{stage}", "--help"] for stage in STAGES] + [[str(ROOT / name), "--help"] for name in EXAMPLES]
    run_all(commands + stages + [(project.root, each, *OUTPUTS[1]) for each in helps])


# --- signals

SPEC = DatasetSpec(alphabet="0123456789", length=4, width=48, height=32, count=4_000, shard_size=250, seed=3)
AT_WORK = {
    "export": ["captcha_registry.cli", "export", "data/large", "--format", "images", "--to", "exported"],
    "verify": ["captcha_registry.cli", "verify", "data/large", "--depth", "deep"],
    "repair": ["captcha_registry.cli", "repair", "data/damaged", "--workers", "1"],
    "generate": ["stages.generate", "large", "--workers", "1"],
    "generate --to": ["stages.generate", "large", "--workers", "1", "--to", "elsewhere"],
    "split": ["stages.split", "large"],
    "describe": ["stages.describe", "large"],
}
# What is there while the work is in progress.
SIGNS = {
    "export": ".exported.unfinished/*",
    "verify": "temporary/captcha-registry-*",
    "repair": "data/damaged/.repair/*/drawing/*/*",
    "generate": ".work/generate/large/*/00001.tfrecord",
    "generate --to": "temporary/*/*/*.tmp",
    "split": "data/.large.split/*/*",
    "describe": "temporary/captcha-registry-*",
}


@pytest.fixture
def large_project(make_project: Callable[[str], Project], shard_rule: SplitRule, large: Path) -> Project:
    """A project with the dataset `large`, generated and split, and one like it that has lost its index and shards."""
    project = make_project("large")
    project.write_params(datasets={"large": SPEC.model_dump()}, split=shard_rule.model_copy(update={"by": "sample"}).model_dump())
    for name in ("generated/large", "large", "damaged"):
        shutil.copytree(large, project.root / "data" / name)
    for path in [*(project.root / "data/damaged").glob("*.tfrecord"), project.root / "data/damaged" / INDEX_NAME]:
        path.unlink()
    (project.root / "temporary").mkdir()
    return project


@pytest.fixture(scope="module")
def large(generate: Callable[..., CaptchaDataset]) -> Path:
    return generate(SPEC, "large").root


def get_environment(project: Project) -> dict[str, str]:
    """Return the variables of a process that has a folder of its own for temporary files."""
    return os.environ | {"PYTHONPATH": str(ROOT), "TMPDIR": str(project.root / "temporary")}


def start(project: Project, command: list[str]) -> Process:
    return Process(command, project.root, get_environment(project))


def start_fresh(project: Project, command: list[str], *prefix: str) -> subprocess.Popen[str]:
    """Start a command with all its imports, in a process group of its own, perhaps by another program."""
    return subprocess.Popen(
        [*prefix, sys.executable, "-m", *command],
        cwd=project.root,
        env=get_environment(project),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def expect_stopped(project: Project, process: Process | subprocess.Popen[str], number: int) -> None:
    """Make sure that a process has ended because of a signal, with all of its workers, and without many words."""
    output, errors = process.communicate(timeout=HANG_SECONDS)
    by = "" if number == signal.SIGINT else f" by {signal.Signals(number).name}"
    assert (process.returncode, output, errors) == (128 + number, "", f"stopped{by}; run the same command again to go on\n")
    wait_until(lambda: not project.list_processes(), "the end of every worker")
    assert [*(project.root / "temporary").iterdir()] == []


def is_at_work(project: Project, work: str) -> bool:
    """Tell whether the sign of some work is there; a folder for its workers is made an instant before they are."""
    return bool([*project.root.glob(SIGNS[work])]) and (
        "captcha-registry" not in SIGNS[work] or len(project.list_processes()) > 1
    )


@pytest.mark.parametrize(
    ("work", "number", "times", "to_group"),
    [
        ("export", signal.SIGTERM, 1, False),
        ("export", signal.SIGINT, 2, True),
        ("verify", signal.SIGHUP, 1, True),
        ("repair", signal.SIGTERM, 1, True),
        ("generate", signal.SIGHUP, 1, False),
        ("generate", signal.SIGTERM, 2, True),
        ("generate --to", signal.SIGTERM, 1, False),
        ("split", signal.SIGTERM, 1, False),
        ("describe", signal.SIGTERM, 1, False),
    ],
)
def test_a_signal_ends_the_work_in_one_line_and_leaves_nothing(
    large_project: Project, work: str, number: int, times: int, *, to_group: bool
) -> None:
    root = large_project.root
    before = large_project.list_files()
    process = start(large_project, AT_WORK[work])
    wait_until(lambda: is_at_work(large_project, work) or process.poll() is not None, "the work", pause_seconds=0.001)
    for time_of_signal in range(times):
        # The first may have ended it.
        with suppress(ProcessLookupError) if time_of_signal else nullcontext():
            (os.killpg if to_group else os.kill)(process.pid, number)
        time.sleep(0.02)
    expect_stopped(large_project, process, number)
    left = {path for path in large_project.list_files() - before if not path.startswith((".work", "elsewhere"))}
    assert left == set()
    assert not [*root.glob("elsewhere/.claim*")]


@pytest.mark.parametrize("stage", ["generate", "split", "describe", "train", "evaluate"])
@pytest.mark.parametrize("name", ["tiny/", "../tiny", ""])
def test_a_stage_takes_no_path_for_a_name(project: Project, stage: str, name: str) -> None:
    before = project.list_files()
    done = project.run(stage, name)
    assert (done.returncode, done.stdout) == (2, "")
    assert re.match(
        r"error: params\.yaml: (the name '.*' is not allowed; expected text|(datasets|models)\..* is missing)", done.stderr
    )
    assert project.list_files() == before


def test_a_stage_ends_with_the_dvc_that_runs_it(large_project: Project) -> None:
    # As DVC does: it tells the stage's name to a shell, which waits.
    script = 'DVC_STAGE=generate@large sh -c \'"$@"; exit\' sh "$@"; exit'
    process = start_fresh(large_project, AT_WORK["generate"], "sh", "-c", script, "dvc")
    wait_until(lambda: [*large_project.root.glob(SIGNS["generate"])], "the work", pause_seconds=0.001)
    process.kill()
    _, errors = process.communicate(timeout=HANG_SECONDS)
    assert errors == "stopped by SIGTERM; run the same command again to go on\n"
    wait_until(lambda: not large_project.list_processes(), "the end of every worker")


def test_what_a_killed_export_left_is_cleared_by_the_next(large_project: Project) -> None:
    root = large_project.root
    process = start(large_project, AT_WORK["export"])
    wait_until(lambda: [*root.glob(SIGNS["export"])] or process.poll() is not None, "the work", pause_seconds=0.001)
    process.kill()
    process.communicate(timeout=HANG_SECONDS)
    assert (root / ".exported.unfinished").exists()
    output, _ = (again := start(large_project, AT_WORK["export"])).communicate(timeout=HANG_SECONDS)
    assert (again.returncode, output.startswith("exported: 4,000 samples")) == (0, True)
    assert not (root / ".exported.unfinished").exists()


# Modules of the first imports, and of later ones.
@pytest.mark.parametrize("sign", ["_sqlite3", "numpy"])
@pytest.mark.parametrize("command", [["captcha_registry", "list"], ["stages.split", "tiny"]])
def test_ctrl_c_during_the_imports_is_one_line(project: Project, command: list[str], sign: str) -> None:
    (project.root / "temporary").mkdir()
    process = start_fresh(project, command)
    wait_until(lambda: sign in Path(f"/proc/{process.pid}/maps").read_text(), "the imports", pause_seconds=0.001)
    os.killpg(process.pid, signal.SIGINT)
    expect_stopped(project, process, signal.SIGINT)


STALLED = """
import sys, time
from captcha_registry.ends import prepare_process, report_errors
from captcha_registry.registry.fetching import fetch_all
prepare_process()
with report_errors():
    fetch_all({"file": 1}, lambda path: print("at work", flush=True) or time.sleep(1_000))
"""


def test_a_server_that_does_not_answer_does_not_keep_from_ending() -> None:
    process = subprocess.Popen([sys.executable, "-c", STALLED], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout
    assert process.stdout.readline() == "at work\n"
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=HANG_SECONDS)
    assert (process.returncode, errors) == (143, "stopped by SIGTERM; run the same command again to go on\n")


LAST_WORDS = """
import atexit, multiprocessing, os, pathlib, signal, sys, threading, time
from captcha_registry.ends import prepare_process, report_errors

def keep():
    try:
        yield
    finally:
        print("closed")

def fail():
    print("at work")
    kept = keep()
    next(kept)
    raise FileNotFoundError(2, "No such file", "x") if sys.argv[1] == "theirs" else ValueError("https://me:s3cret@host/x")

if __name__ == "__main__":
    prepare_process()
    atexit.register(os.kill, os.getpid(), signal.SIGTERM)
    threading.Thread(target=time.sleep, args=(1_000,)).start()
    multiprocessing.get_context("spawn").Process(target=time.sleep, args=(1_000,)).start()
    if sys.argv[2] == "later":
        with report_errors():
            fail()
    fail()
"""


@pytest.mark.parametrize("when", ["while importing", "later"])
@pytest.mark.parametrize("whose", ["theirs", "ours"])
def test_an_error_is_the_last_that_a_process_says_and_it_waits_for_nothing(whose: str, when: str, tmp_path: Path) -> None:
    (tmp_path / "last.py").write_text(LAST_WORDS)
    command = [sys.executable, str(tmp_path / "last.py"), whose, when]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=HANG_SECONDS)
    if whose == "theirs":
        assert (done.returncode, done.stderr) == (2, "error: x: No such file\n")
    else:
        assert done.returncode == 1
        assert re.fullmatch(r"Traceback \(most .*in fail\n.*\nValueError: https://\*\*\*@host/x\n", done.stderr, re.DOTALL)
        assert "s3cret" not in done.stderr
    assert done.stdout == ("at work\nclosed\n" if (whose, when) == ("theirs", "later") else "at work\n")


def test_a_pipe_that_does_not_wait_gets_all_of_the_output() -> None:
    """Node and some runners of CI hand on such pipes."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    script = "from captcha_registry.ends import *; prepare_process()\nwith report_errors(): print('x' * 1_000_000)"
    process = subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, stdout=writer, stderr=subprocess.PIPE)
    os.close(writer)
    wait_until(lambda: int.from_bytes(fcntl.ioctl(reader, termios.FIONREAD, bytes(4)), sys.byteorder) >= 65_536, "a full pipe")
    with os.fdopen(reader, "rb") as output:
        assert output.read() == b"x" * 1_000_000 + b"\n"
    _, errors = process.communicate(timeout=HANG_SECONDS)
    assert (process.returncode, errors) == (0, b"")


LOCK_LEFT_TAKEN = """
import atexit, signal, sys, threading
from captcha_registry import ends

ends._CLEANING_LIMIT_SECONDS = 0.5
ends.prepare_process()
lock = threading.Lock()
if sys.argv[1] == "at the end":
    atexit.register(lock.acquire)
with ends.report_errors():
    lock.acquire()
    try:
        signal.raise_signal(signal.SIGTERM)
    finally:
        if sys.argv[1] == "while it cleans up":
            lock.acquire()
"""


@pytest.mark.parametrize("when", ["while it cleans up", "at the end"])
def test_a_process_does_not_wait_for_ever_for_a_lock_that_a_signal_left_taken(when: str) -> None:
    command = [sys.executable, "-c", LOCK_LEFT_TAKEN, when]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=HANG_SECONDS)
    assert (done.returncode, done.stdout, done.stderr) == (143, "", STOPPED)


def test_a_signal_after_the_work_changes_nothing() -> None:
    # As TensorFlow does where Python ends, when handlers of signals are no more.
    begin = "import os, signal, sys; from captcha_registry.ends import prepare_process, report_errors; prepare_process()"
    late = "class Late:\n    def __del__(self): os.kill(os.getpid(), signal.SIGTERM)\n"
    script = f"{begin}\n{late}\nsys.late = Late()\nwith report_errors():\n    print('done')"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")


def test_a_thread_whose_error_is_told_ends_alone(capfd: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        with pytest.raises(SystemExit), report_errors():
            raise UserError("no")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "excepthook", show_error)
        (thread := threading.Thread(target=fail)).start()
        thread.join()
    assert capfd.readouterr().err == "error: no\n"


def test_the_alarm_of_who_calls_the_library_stays_theirs(capsys: pytest.CaptureFixture[str]) -> None:
    rings: list[int] = []
    before = signal.signal(signal.SIGALRM, lambda number, _frame: rings.append(number))
    signal.setitimer(signal.ITIMER_REAL, 0.05)
    try:
        with report_errors():
            pass
        assert signal.getitimer(signal.ITIMER_REAL)[0] > 0
        with report_errors():
            wait_until(lambda: rings, "the alarm")
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("name", ["DVC_SITE_CACHE_DIR", "XDG_CONFIG_HOME"])
@pytest.mark.parametrize("number", [errno.EACCES, errno.ENOTDIR])
def test_the_variable_that_names_an_unusable_folder_is_named(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, number: int, name: str
) -> None:
    monkeypatch.setenv(name, "/nowhere")
    with pytest.raises(SystemExit), report_errors():
        raise OSError(number, os.strerror(number), "/nowhere/repo")
    advice = f"set the variable {name} to a folder that can be made or written to, or unset it"
    assert capsys.readouterr().err == f"error: /nowhere/repo: {os.strerror(number)}: {advice}\n"


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError("Could not find/load shared object file 'x.so'"), "a package is damaged, or memory is limited"),
        (MemoryError(), "Cannot allocate memory"),
    ],
)
def test_an_error_while_a_stage_is_imported_names_a_limit(error: Exception, said: str) -> None:
    script = f"from captcha_registry.ends import prepare_process; prepare_process(); raise {error!r}"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert said in done.stderr


def test_a_warning_ends_neither_a_process_nor_what_it_starts() -> None:
    warn = "import warnings; warnings.warn('careful', stacklevel=1)"
    start = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {warn!r}], check=True)"
    script = f"from captcha_registry.ends import prepare_process; prepare_process(); {warn}; {start}"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script],
        env=os.environ | {"PYTHONWARNINGS": "error"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr.count("careful")) == (0, 2), done.stderr


# Where DVC has its databases if no variable says so.
SITE_CACHE = "/var/tmp/dvc"  # noqa: S108


def make_database_error(name: str) -> sqlite3.Error:
    error = sqlite3.OperationalError("no")
    error.sqlite_errorname = name
    return error


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError(errno.EMFILE, "Too many open files", "/dev/null"), "Too many open files: raise the limit on open files"),
        (BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable"), "Resource temporarily unavailable: raise the limits"),
        (OSError(errno.ENAMETOOLONG, "File name too long", "x"), "x: File name too long: choose a shorter name"),
        (OSError(errno.EISDIR, "Is a directory", 7), "Is a directory"),
        (sqlite3.OperationalError("disk I/O error"), "the database in which DVC notes the hashes of files: disk I/O error: free"),
        (
            make_database_error("SQLITE_READONLY_DBMOVED"),
            "the database in which DVC notes the hashes of files: no: set the variable",
        ),
        (make_database_error("SQLITE_BUSY"), "the database in which DVC notes the hashes of files: no: wait for other commands"),
        (
            OSError(errno.EROFS, "Read-only file system", f"{SITE_CACHE}/repo"),
            f"{SITE_CACHE}/repo: Read-only file system: set the",
        ),
        (MemoryError(), "Cannot allocate memory: raise the limits on processes and memory"),
        (RuntimeError("can't start new thread"), "Cannot allocate memory: raise the limits on processes and memory"),
    ],
)
def test_a_limit_of_the_machine_is_named(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, error: Exception, message: str
) -> None:
    monkeypatch.delenv("DVC_SITE_CACHE_DIR")
    with pytest.raises(SystemExit) as end, report_errors():
        raise error
    assert end.value.code == 2
    assert capsys.readouterr().err.startswith(f"error: {message}")


def raise_in_synchronize() -> None:
    """Fail as Python does where it cannot make a lock that processes share."""
    code = "raise OSError(30, 'Read-only file system')"
    exec(compile(code, "/lib/multiprocessing/synchronize.py", "exec"))  # noqa: S102


def raise_while(first: Exception, error: Exception) -> None:
    try:
        raise first
    except type(first):
        raise error  # noqa: B904 - as libraries do


@pytest.mark.parametrize(
    ("fail", "message"),
    [
        (
            lambda: raise_while(RuntimeError("can't start new thread"), RuntimeError("cannot join thread before it is started")),
            "Cannot allocate memory: raise the limits on processes and memory",
        ),
        (
            lambda: raise_while(pa.ArrowMemoryError("malloc of size 64 failed"), UserError("index.parquet is not readable")),
            "Cannot allocate memory: raise the limits on processes and memory",
        ),
        (
            lambda: raise_while(
                pa.ArrowException("Failed to launch worker thread: Resource temporarily"), UserError("is not readable")
            ),
            "Cannot allocate memory: raise the limits on processes and memory",
        ),
        (
            lambda: raise_while(RuntimeError("PosixThread: pthread_create failed"), UserError("digits is not a model")),
            "Cannot allocate memory: raise the limits on processes and memory",
        ),
        (raise_in_synchronize, "[Errno 30] Read-only file system: worker processes share locks in /dev/shm: make that writable"),
        (
            lambda: raise_while(ImportError("x.so: failed to map", path="/x.so"), ImportError("failed to map", path="/x.so")),
            "failed to map: a package is damaged, or memory is limited: install it again, or raise the limit (`ulimit -v`)",
        ),
    ],
)
def test_a_limit_is_named_whatever_it_led_to(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, fail: Callable[[], None], message: str
) -> None:
    monkeypatch.setattr("captcha_registry.commands.list.run", lambda _: fail())
    with pytest.raises(SystemExit) as end:
        cli.main(["list"])
    assert end.value.code == 2
    assert capsys.readouterr().err.startswith(f"error: {message}")


@pytest.mark.parametrize(
    ("setting", "value", "message"),
    [
        (
            "FSSPEC_CONFIG_DIR",
            "settings",
            "Expecting property name .* this is in a file in ~/.config/fsspec, or where FSSPEC_CONFIG",
        ),
        ("TQDM_MININTERVAL", "abc", "could not convert string to float: 'abc': a variable whose name begins with TQDM_ has this"),
    ],
)
def test_a_setting_that_a_library_cannot_read_is_told(
    setting: str, value: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "settings").mkdir()
    (tmp_path / "settings/conf.json").write_text('{"s3": {"anon": true},}')
    monkeypatch.setenv(setting, value)
    # Libraries read their settings when they are imported.
    command = [sys.executable, "-m", "captcha_registry.cli", "list"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=HANG_SECONDS)
    assert (done.returncode, done.stdout) == (2, "")
    assert re.match(f"error: {message}", done.stderr)
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("stage", sorted(path.stem for path in (ROOT / "stages").glob("[a-z]*.py")))
def test_a_stage_names_a_limit_as_commands_do(
    stage: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def meet_limit(*_: object) -> None:
        raise RuntimeError("PosixThread: pthread_create failed")

    monkeypatch.setattr(CommandLine, "parse_args", meet_limit)
    # Python warns of a module that is run, and was imported before.
    monkeypatch.delitem(sys.modules, f"stages.{stage}", raising=False)
    with pytest.raises(SystemExit, match="2"):
        runpy.run_module(f"stages.{stage}", run_name="__main__")
    assert capsys.readouterr().err.startswith("error: Cannot allocate memory: raise the limits on processes and memory")


def test_a_machine_without_a_folder_for_temporary_files_is_told(published: Checkout, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", lambda: ["/proc"])
    errors = published.run("list", "--repo", published.origin).stderr
    assert "No usable temporary directory found in ['/proc']: free some space, or set TMPDIR to a folder that can be" in errors


def test_a_git_that_failed_is_not_taken_for_one_that_did_its_work(tmp_path: Path) -> None:
    # As some supervisors start what they start; then no process learns how another has ended.
    code = "import signal, sys; signal.signal(signal.SIGCHLD, signal.SIG_IGN); from captcha_registry.cli import main; main()"
    command = [sys.executable, "-c", code, "list", "--repo", str(tmp_path / "nowhere")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, "No git repository was found there" in done.stderr) == (2, True), done.stderr


def test_nohup_keeps_a_command_at_work(large_project: Project) -> None:
    process = start_fresh(large_project, AT_WORK["export"], "nohup")
    wait_until(lambda: [*large_project.root.glob(SIGNS["export"])], "the work", pause_seconds=0.001)
    process.send_signal(signal.SIGHUP)
    output, _ = process.communicate(timeout=HANG_SECONDS)
    assert (process.returncode, output.startswith("exported: 4,000 samples")) == (0, True)


# --- rights


@pytest.mark.parametrize(
    ("mode", "remedy"),
    [
        (0o000, ": Permission denied: you may not read it: run `chmod u+rX {file}` if it is yours, or ask its owner"),
        (0o444, ": Permission denied: make it writable, or work in another folder"),
    ],
)
def test_the_advice_is_of_reading_or_of_writing(
    public_folder: Path, capsys: pytest.CaptureFixture[str], mode: int, remedy: str
) -> None:
    file = public_folder / "file"
    file.touch()
    file.chmod(mode)
    with pytest.raises(SystemExit) as end, as_another_user(), report_errors():
        file.open("r" if mode == 0 else "w")
    assert (end.value.code, capsys.readouterr().err) == (2, f"error: {file}{remedy.format(file=file)}\n")


def test_the_advice_names_the_folder_that_cannot_be_entered_or_written(
    public_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (public_folder / "closed").mkdir(0)
    public_folder.chmod(0o555)
    for path, words in (
        (public_folder / "closed/file", f"you may not read {public_folder}/closed: run `chmod u+rX {public_folder}/closed` if"),
        (public_folder / "new", f"make {public_folder} writable, or work in another folder"),
    ):
        with pytest.raises(SystemExit), as_another_user(), report_errors():
            path.open("w")
        assert f"error: {path}: Permission denied: {words}" in capsys.readouterr().err


# --- mistakes on the command line


def test_a_mistake_is_told_before_tensorflow_is_imported() -> None:
    code = f"import sys; from stages import {', '.join(STAGES)}; print(sorted({{'keras', 'tensorflow'}} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize(
    ("command_line", "usage", "message"),
    [
        ([], "captcha-registry ", "commands:"),
        (["--nope"], "captcha-registry ", "unrecognized arguments: --nope"),
        (["veriff", "x"], "captcha-registry ", "there is no command 'veriff'; did you mean `verify`?"),
        (["frobnicate"], "captcha-registry ", "there is no command 'frobnicate'; expected one of publish, list, "),
        *(([name, "a", "b", "--nope"], f"captcha-registry {name} ", f"captcha-registry {name}: error: ") for name in COMMANDS),
    ],
)
def test_a_mistake_shows_the_usage_of_its_command(
    capsys: pytest.CaptureFixture[str], command_line: list[str], usage: str, message: str
) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main(command_line)
    output, errors = capsys.readouterr()
    assert (end.value.code, output) == (2, "")
    assert errors.startswith(f"usage: {usage}")
    assert message in errors


@pytest.mark.parametrize("columns", [40, 80])
def test_a_long_error_breaks_between_words_on_a_terminal(columns: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    terminal, end = pty.openpty()
    termios.tcsetwinsize(terminal, (24, columns))
    with os.fdopen(end, "w") as screen:
        monkeypatch.setattr(sys, "stderr", screen)
        with pytest.raises(SystemExit):
            cli.main(["show", "digits"])
    lines = os.read(terminal, 4_096).decode().splitlines()
    os.close(terminal)
    error = Checkout(tmp_path).run("show", "digits").stderr
    assert error.count("\n") == 1, "where nobody looks at a terminal"
    assert " ".join(lines) == error.rstrip("\n")
    assert len(lines) > 1
    assert all(len(line) <= columns or " " not in line.removeprefix("error: ") for line in lines)


def test_help_and_commands_know_what_to_do_on_the_narrowest_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "1")
    assert cli.parse_arguments(["list"]).repo is None


@pytest.mark.parametrize(("error", "is_told"), [(AttributeError("file"), False), (PermissionError("file"), True)])
def test_of_errors_in_del_only_a_missing_attribute_is_passed_over(
    error: Exception, is_told: bool, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    class Ending:
        def __del__(self) -> None:
            raise error

    monkeypatch.setattr(sys, "unraisablehook", show_unraisable)
    ending = Ending()
    del ending
    assert ("Exception ignored in" in capfd.readouterr().err) == is_told


STOP, STOPPED = "signal.raise_signal(signal.SIGTERM)", "stopped by SIGTERM; run the same command again to go on\n"


@pytest.mark.parametrize(
    ("end", "deletion", "work", "code", "said"),
    [
        pytest.param(STOP, "len(None)", "Bar()", 143, STOPPED, id="stop"),
        pytest.param(
            STOP, "len(None)", "with suppress(BaseException): Bar()\n    time.sleep(10)", 143, STOPPED, id="swallowed stop"
        ),
        pytest.param(
            "raise UserError('no such dataset')", "self.file.close()", "Bar()", 2, "error: no such dataset\n", id="error"
        ),
    ],
)
def test_an_object_that_an_end_leaves_half_made_says_nothing(end: str, deletion: str, work: str, code: int, said: str) -> None:
    script = f"""
import signal, time
from contextlib import suppress
from captcha_registry.ends import prepare_process, report_errors
from captcha_registry.errors import UserError

class Bar:
    def __init__(self):
        {end}
        self.file = None

    def __del__(self):
        {deletion}

prepare_process()
with report_errors():
    {work}
"""
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False, timeout=HANG_SECONDS
    )
    assert (done.returncode, done.stdout, done.stderr) == (code, "", said)


def test_a_command_that_is_to_be_copied_stays_in_one_piece() -> None:
    broken = break_at_words("error: a/b is missing: run `dvc pull --allow-missing`, or ask\n    its owner", 30)
    assert broken == "error: a/b is missing: run\n`dvc pull --allow-missing`, or\nask\n    its owner"


def test_no_thread_of_arrow_keeps_what_was_read_so_that_it_meets_the_end_of_python(tiny_dataset: CaptchaDataset) -> None:
    content = (tiny_dataset.root / INDEX_NAME).read_bytes()
    held = sys.getrefcount(content)
    for _ in range(100):
        parse_rows(content)
        assert sys.getrefcount(content) == held
