"""Whoever runs it, and wherever: a container's limits, users without name or home, shared and read-only folders, odd paths."""

import errno
import fcntl
import os
import re
import resource
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import filelock
import platformdirs
import psutil
import pytest
from checkouts import Checkout
from conftest import Project, hash_files

from captcha_registry import load
from captcha_registry.cache import find_cache_dir, find_lock, hold_lock, make_cache_folder
from captcha_registry.cli import main
from captcha_registry.dataset.dataset import CaptchaDataset
from captcha_registry.dataset.spec import DatasetSpec
from captcha_registry.dataset.verify import verify_dataset
from captcha_registry.errors import UserError, printable
from captcha_registry.export import FORMATS, export_dataset
from captcha_registry.generation.drawing import Drawer
from captcha_registry.generation.remote import Place, draw_remote_dataset
from captcha_registry.generation.repair import repair_dataset
from captcha_registry.machine import (
    WORKER_BYTES,
    available_memory_bytes,
    count_usable_cores,
    count_workers,
    expand_home,
    is_writable,
    own_temporary_dir,
)
from captcha_registry.registry.repository import find_published, open_repository

ROOT = Path(__file__).parent.parent

V2_MOUNT = "30 23 0:26 / /sys/fs/cgroup rw,nosuid,nodev,noexec,relatime shared:9 - cgroup2 cgroup2 rw,nsdelegate\n"
V1_MOUNTS = (
    "32 31 0:29 {shown} /sys/fs/cgroup/cpu,cpuacct rw,nosuid shared:11 - cgroup cgroup rw,cpu,cpuacct\n"
    "35 31 0:32 {shown} /sys/fs/cgroup/memory rw,nosuid master:12 - cgroup cgroup rw,memory\n"
    "41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n"
)
V1_GROUPS = "11:memory:{path}\n4:cpu,cpuacct:{path}\n1:name=systemd:{path}\n0::/\n"
NO_LIMIT = 9223372036854771712


def make_root(root: Path, mounts: str, groups: str, files: dict[str, object]) -> Path:
    """Make what a process sees of its control groups."""
    told = {"proc/self/mountinfo": f"23 1 254:0 / / rw - ext4 /dev/vda rw\n{mounts}", "proc/self/cgroup": groups}
    for name, content in (told | {f"sys/fs/cgroup/{name}": f"{content}\n" for name, content in files.items()}).items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(str(content))
    return root


def v2_memory(limit: object, *, high: object = "max", used: int = 0, files: int = 0) -> dict[str, object]:
    stat = f"anon 4096\nfile {files}\nactive_file 0\ninactive_file {files}"
    return {"memory.max": limit, "memory.high": high, "memory.current": used, "memory.stat": stat}


def v1_memory(limit: int, *, used: int = 0, files: int = 0) -> dict[str, object]:
    stat = f"cache 0\ninactive_file 1\ntotal_cache {files}\ntotal_inactive_file {files}"
    return {"memory.limit_in_bytes": limit, "memory.usage_in_bytes": used, "memory.stat": stat}


def below(folder: str, files: dict[str, object]) -> dict[str, object]:
    return {f"{folder}/{name}": content for name, content in files.items()}


MEMORY_CASES = [
    pytest.param(V2_MOUNT, "0::/\n", v2_memory(1000, used=300), 700, id="v2, a container's own namespace"),
    pytest.param(V2_MOUNT, "0::/\n", v2_memory(1000, used=900, files=500), 600, id="v2, files that can be dropped are free"),
    pytest.param(V2_MOUNT, "0::/\n", v2_memory("max", high=800, used=300), 500, id="v2, throttled above high"),
    pytest.param(V2_MOUNT, "0::/a/b\n", below("a", v2_memory(900)) | below("a/b", v2_memory("max")), 900, id="v2, around it"),
    pytest.param(V2_MOUNT, "0::/a/b\n", below("a", v2_memory(900)) | below("a/b", v2_memory(400)), 400, id="v2, the lowest"),
    pytest.param(V2_MOUNT, "0::/../other\n", v2_memory(900), 900, id="v2, outside of its namespace"),
    pytest.param(V2_MOUNT, "0::/\n", v2_memory(100, used=300), 0, id="v2, over the limit"),
    pytest.param(
        V1_MOUNTS.format(shown="/"), V1_GROUPS.format(path="/docker/7f"), below("memory/docker/7f", v1_memory(700)), 700, id="v1"
    ),
    pytest.param(
        V1_MOUNTS.format(shown="/docker/7f"),
        V1_GROUPS.format(path="/docker/7f"),
        below("memory", v1_memory(700, used=600, files=200)),
        300,
        id="v1, a container that is shown its own group",
    ),
    pytest.param(
        V1_MOUNTS.format(shown="/docker/7f"),
        V1_GROUPS.format(path="/docker/7f/inner"),
        below("memory", v1_memory(NO_LIMIT)) | below("memory/inner", v1_memory(300)),
        300,
        id="v1, a group inside of a container",
    ),
    pytest.param(
        V1_MOUNTS.format(shown="/kube/pod"),
        V1_GROUPS.format(path="/elsewhere"),
        below("memory", v1_memory(300)),
        300,
        id="v1, moved",
    ),
]
CPU_CASES = [
    pytest.param(V2_MOUNT, "0::/\n", {"cpu.max": "100000 100000"}, 1, id="v2"),
    pytest.param(V2_MOUNT, "0::/a/b\n", {"a/cpu.max": "50000 100000", "a/b/cpu.max": "max 100000"}, 1, id="v2, around it"),
    pytest.param(V2_MOUNT, "0::/\n", {"cpu.max": "150000 100000"}, 2, id="v2, a core and a half"),
    pytest.param(V2_MOUNT, "0::/\n", {"cpu.max": "max 100000"}, 3, id="v2, no limit"),
    pytest.param(
        V1_MOUNTS.format(shown="/"),
        V1_GROUPS.format(path="/docker/7f"),
        below("cpu,cpuacct/docker/7f", {"cpu.cfs_quota_us": 20000, "cpu.cfs_period_us": 10000}),
        2,
        id="v1",
    ),
    pytest.param(
        V1_MOUNTS.format(shown="/"),
        V1_GROUPS.format(path="/docker/7f"),
        below("cpu,cpuacct/docker/7f", {"cpu.cfs_quota_us": -1, "cpu.cfs_period_us": 100000}),
        3,
        id="v1, no limit",
    ),
]


@pytest.mark.parametrize(("mounts", "groups", "files", "room"), MEMORY_CASES)
def test_a_containers_memory_is_what_its_groups_leave(
    tmp_path: Path, mounts: str, groups: str, files: dict[str, object], room: int
) -> None:
    assert available_memory_bytes(make_root(tmp_path, mounts, groups, files)) == room


@pytest.mark.parametrize(("mounts", "groups", "files", "cores"), CPU_CASES)
def test_a_containers_cores_are_those_of_its_quota(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mounts: str, groups: str, files: dict[str, object], cores: int
) -> None:
    def refuse(_process: int) -> set[int]:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "sched_getaffinity", refuse)
    assert count_usable_cores(tmp_path) == os.cpu_count()
    monkeypatch.setattr(os, "sched_getaffinity", lambda _process: {0, 1, 2})
    assert count_usable_cores(make_root(tmp_path, mounts, groups, files)) == cores


def test_without_control_groups_the_machine_is_the_limit(tmp_path: Path) -> None:
    assert count_usable_cores(tmp_path) == len(os.sched_getaffinity(0))
    assert 0 < available_memory_bytes(tmp_path) <= psutil.virtual_memory().total


def test_a_process_of_limited_size_has_no_more_memory_than_that(tmp_path: Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (psutil.Process().memory_info().vms + 200_000_000, limits[1]))
    try:
        assert 0 < available_memory_bytes(tmp_path) <= 200_000_000
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)


def test_no_more_processes_are_started_than_memory_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _process: set(range(64)))
    for workers, limit in ((1, WORKER_BYTES // 2), (3, WORKER_BYTES * 3), (64, "max")):
        root = make_root(tmp_path, V2_MOUNT, "0::/\n", v2_memory(limit))
        assert count_workers(root) == min(workers, available_memory_bytes(root) // WORKER_BYTES or 1)


@pytest.fixture
def cpu_group() -> Iterator[Path]:
    """A real control group that may use half a core."""
    group = Path("/sys/fs/cgroup/cpu") / f"captcha-registry-test-{os.getpid()}"
    try:
        group.mkdir()
    except OSError:
        pytest.skip("needs control groups of version 1, and root")
    (group / "cpu.cfs_quota_us").write_text("50000")
    yield group
    group.rmdir()


def test_the_quota_of_a_real_control_group_is_seen(cpu_group: Path) -> None:
    script = "import os, sys; from captcha_registry.machine import *\n"
    script += "open(sys.argv[1], 'w').write(str(os.getpid())); print(count_usable_cores())"
    command = [sys.executable, "-c", script, cpu_group / "cgroup.procs"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "1\n"


Stranger = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def stranger(tmp_path: Path) -> Stranger:
    """A function that runs Python as a user id without a name, who owns what we own but has no right beyond."""
    prefix = ["unshare", "--user", "--map-user=54321", "--map-group=54321"]
    try:
        subprocess.run([*prefix, "true"], capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("needs user namespaces")
    (tmp_path / "temporary").mkdir()

    def run(script: str, *arguments: str | Path, **environment: str | Path | None) -> subprocess.CompletedProcess[str]:
        names = ("USER", "LOGNAME", "LNAME", "USERNAME")
        known = (*names, "CAPTCHA_REGISTRY_CACHE", "DVC_SITE_CACHE_DIR", "DVC_GLOBAL_CONFIG_DIR", "XDG_CONFIG_HOME")
        changed = dict.fromkeys(known) | {"TMPDIR": tmp_path / "temporary"} | environment
        variables = {name: str(value) for name, value in (os.environ | changed).items() if value is not None}
        command = [*prefix, sys.executable, "-B", "-c", script, *map(str, arguments)]
        return subprocess.run(command, env=variables, cwd=tmp_path, capture_output=True, text=True, check=False)

    return run


USE_REGISTRY = """
import sys
from pathlib import Path
from captcha_registry import load
from captcha_registry.cli import main
for command in (["list"], ["get", "tiny@1.0.0", "--to", "here"]):
    try:
        main([*command, "--repo", sys.argv[1]])
    except SystemExit as end:
        assert not end.code, end
tiny = load("tiny", repo=sys.argv[1], version="1.0.0")
tiny.make_local()
print(len(tiny.to_numpy()[1]), tiny.files.root.is_relative_to(Path(sys.argv[2])))
"""


@pytest.mark.parametrize("home", ["/proc", "/dev/null", None], ids=["read-only", "a file", "unset"])
def test_a_user_without_a_name_or_a_home_lists_gets_and_loads(
    stranger: Stranger, published: Checkout, tmp_path: Path, home: str | None
) -> None:
    done = stranger(USE_REGISTRY, published.root, tmp_path / "temporary", HOME=home, XDG_CACHE_HOME=None)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1] == "60 True"
    assert {path.name for path in tmp_path.iterdir()} == {"temporary", "here"}


WORK_IN_PROJECTS = """
import os, runpy, sys
from captcha_registry.cli import main
checkout, project = sys.argv[1:]
os.chdir(checkout)
for command in (["repair", "data/tiny"], ["publish", "tiny@1.0.0"]):
    try:
        main(command)
    except SystemExit as end:
        assert not end.code, (command, end)
os.chdir(project)
sys.argv = ["stages.check"]
runpy.run_module("stages.check", run_name="__main__")
"""


@pytest.mark.parametrize("home", ["/proc", None], ids=["read-only", "unset"])
def test_a_user_without_a_name_or_a_home_publishes_repairs_and_checks(
    stranger: Stranger, unpublished: Checkout, project: Project, tmp_path: Path, home: str | None
) -> None:
    checkout = unpublished.copy_to(tmp_path / "owner")
    dataset = checkout.root / "data/tiny"
    before = hash_files(dataset)
    (dataset / "test/00009.tfrecord").unlink()
    done = stranger(WORK_IN_PROJECTS, checkout.root, project.root, HOME=home, XDG_CACHE_HOME=None)
    assert done.returncode == 0, done.stderr
    assert checkout.list_origin_tags() == ["tiny@v1.0.0"]
    assert hash_files(dataset) == before
    assert (project.root / "data/tools").is_dir()


def test_a_complete_cache_is_used_though_it_can_only_be_read(
    stranger: Stranger, published: Checkout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CAPTCHA_REGISTRY_CACHE", str(cache := tmp_path / "cache"))
    load("tiny", repo=str(published.root), version="1.0.0", split="test").make_local()
    everything = [cache, *cache.rglob("*")]
    for path in everything:
        path.chmod(path.stat().st_mode & 0o555)
    script = "import sys, captcha_registry\n"
    script += "tiny = captcha_registry.load('tiny', repo=sys.argv[1], version='1.0.0')\n"
    script += "print(len(tiny.split('test').to_numpy()[1]), tiny.files.root.is_relative_to(sys.argv[2]))\n"
    script += "tiny.split('train').to_numpy()"
    done = stranger(script, published.root, cache, CAPTCHA_REGISTRY_CACHE=cache)
    assert done.stdout == "12 True\n"
    assert f"UserError: {cache}" in done.stderr
    assert "set CAPTCHA_REGISTRY_CACHE to a folder that can" in done.stderr
    for path in everything:
        path.chmod(path.stat().st_mode | 0o200)


def test_what_is_made_in_a_cache_is_as_open_as_the_cache(
    published: Checkout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CAPTCHA_REGISTRY_CACHE", str(cache := tmp_path / "cache"))
    cache.mkdir()
    cache.chmod(0o1777)
    usual = os.umask(0o077)
    try:
        load("tiny", repo=published.root, version="1.0.0").make_local()
        with hold_lock(find_lock("get", tmp_path)):
            pass
    finally:
        os.umask(usual)
    for path in [path for name in ("files", "datasets", "locks") for path in (cache / name, *(cache / name).rglob("*"))]:
        mode = 0o1777 if path.is_dir() else 0o666 if path.suffix == ".lock" else 0o644
        assert oct(stat.S_IMODE(path.stat().st_mode)) == oct(mode), path


def test_the_cache_is_where_the_variable_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    for said, meant in (
        ("~/mine", tmp_path / "mine"),
        ("mine", tmp_path / "mine"),
        ("", platformdirs.user_cache_path("captcha-registry")),
    ):
        monkeypatch.setenv("CAPTCHA_REGISTRY_CACHE", said)
        assert find_cache_dir() == meant
    (tmp_path / "mine").write_text("a file")
    monkeypatch.setenv("CAPTCHA_REGISTRY_CACHE", "~/mine")
    with pytest.raises(UserError, match=r"CAPTCHA_REGISTRY_CACHE is /.*/mine, which is a file; expected a folder"):
        find_cache_dir()


WHERE_COMPILED = """
import sys, tempfile
tempfile.tempdir = sys.argv[1]
from captcha_registry.generation import pixels
print(pixels.KEEPS, pixels.config.CACHE_DIR or None)
"""


@pytest.mark.parametrize("home", ["/proc", None], ids=["read-only home", "no home"])
def test_what_is_compiled_is_kept_among_temporary_files_where_package_and_home_are_read_only(
    stranger: Stranger, tmp_path: Path, home: str | None
) -> None:
    package = shutil.copytree(ROOT / "captcha_registry", tmp_path / "installed" / "captcha_registry")
    shutil.rmtree(package / "generation" / "__pycache__", ignore_errors=True)
    (package / "generation").chmod(0o555)
    environment = {"HOME": home, "PYTHONPATH": package.parent, "NUMBA_CACHE_DIR": None, "XDG_CACHE_HOME": "/proc"}
    for temporary, told in (
        (tmp_path / "temporary", f"True {tmp_path}/temporary/captcha-registry-54321/numba\n"),
        ("/proc", "False None\n"),
    ):
        done = stranger(WHERE_COMPILED, temporary, **environment)
        if home is None and temporary == "/proc":
            assert "there is no folder for temporary files" in done.stderr
        else:
            assert (done.stdout, done.stderr) == (told, "")
    (package / "generation").chmod(0o755)


@pytest.mark.parametrize("name", ["FREETYPE_PROPERTIES", "HB_SHAPER_LIST"])
def test_a_setting_that_changes_how_characters_look_is_refused(
    monkeypatch: pytest.MonkeyPatch, tiny_spec: DatasetSpec, name: str
) -> None:
    monkeypatch.setenv(name, "truetype:interpreter-version=35")
    with pytest.raises(UserError, match=f"the environment sets {name}, which changes how characters look: `unset {name}`"):
        Drawer(tiny_spec)


def test_a_temporary_folder_that_others_can_write_to_is_not_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    own_temporary_dir().chmod(0o777)
    with pytest.raises(UserError, match="is not a folder that only its user can write to: remove it, or set TMPDIR"):
        own_temporary_dir()
    own = tmp_path / f"captcha-registry-{os.getuid()}"
    own.rmdir()
    own.symlink_to(tmp_path)
    with pytest.raises(UserError, match="is not a folder that only its user can write to"):
        own_temporary_dir()


def test_no_process_waits_for_a_lock_without_end_or_a_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("captcha_registry.cache._LONGEST_WAIT_SECONDS", 0.1)
    lock = tmp_path / "get.lock"
    with (
        hold_lock(lock),
        pytest.raises(UserError, match=r"another process has held .*get\.lock for .* delete this file"),
        hold_lock(lock),
    ):
        pass
    assert capsys.readouterr().err == "another process fetches the same: waiting for it to end\n"


def test_a_cache_may_be_where_files_have_no_modes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))

    monkeypatch.setenv("CAPTCHA_REGISTRY_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(Path, "chmod", refuse)
    assert make_cache_folder(tmp_path / "cache/files/ab").is_dir()


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EIO, errno.ESTALE, errno.EINVAL])
def test_a_file_system_without_locks_gets_a_lock_of_another_kind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with hold_lock(tmp_path / "work.lock"), pytest.raises(filelock.Timeout), hold_lock(tmp_path / "work.lock", wait=False):
        pass
    with hold_lock(tmp_path / "work.lock", wait=False):
        pass


def test_a_home_stands_for_a_tilde_if_there_is_such_a_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    assert expand_home("~/x") == Path("/home/me/x")
    assert expand_home("~nobody-of-this-name/x") == Path("~nobody-of-this-name/x")


@pytest.mark.parametrize(
    "command",
    [["verify", ""], ["export", "data", "--to", ""], ["get", "digits", "--to="], ["repair", ""], ["list", "--repo="]],
    ids=str,
)
def test_an_empty_path_is_refused(capsys: pytest.CaptureFixture[str], command: list[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(command)
    assert end.value.code == 2
    assert "a path is empty, perhaps because a variable is not set" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("command", [["list"], ["list", "--repo=/no/such"], ["diff", "a", "b"], ["get", "digits"]], ids=str)
def test_a_working_folder_that_was_deleted_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: list[str]
) -> None:
    (tmp_path / "deleted").mkdir()
    monkeypatch.chdir(tmp_path / "deleted")
    (tmp_path / "deleted").rmdir()
    with pytest.raises(SystemExit) as end:
        main(command)
    assert end.value.code == 2
    assert "the folder that you are in was deleted: go to another" in capsys.readouterr().err


def run_command(*arguments: str) -> str:
    """Run a command in this process, to a good end; return what it prints."""
    output = StringIO()
    with redirect_stdout(output), pytest.raises(SystemExit) as end:
        main(arguments)
    assert not end.value.code, output.getvalue()
    return output.getvalue()


def test_a_tilde_is_a_home_wherever_a_path_is_taken(
    tiny_dataset: CaptchaDataset, published: Checkout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    shutil.copytree(tiny_dataset.root, tmp_path / "tiny")
    (tmp_path / "theirs").symlink_to(published.root)
    assert len(load("~/tiny")) == 60
    assert "nothing wrong" in run_command("verify", "~/tiny", "--depth=quick")
    assert "calls for NONE" in run_command("diff", "~/tiny", "~/tiny")
    run_command("export", "~/tiny", "--format=numpy", "--split=test", "--to=~/out")
    run_command("get", "tiny@1.0.0", "--repo=~/theirs", "--split=test", "--to=~/got")
    Place("~/drawn").write("file")
    assert {path.name for path in tmp_path.iterdir()} == {"elsewhere", "tiny", "theirs", "out", "got", "drawn"}
    assert list((tmp_path / "elsewhere").iterdir()) == []


ODD = "ä b#c%20[x] + ?::d"


def test_a_dataset_is_drawn_verified_repaired_exported_and_loaded_below_an_odd_path(
    tiny_spec: DatasetSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / ODD
    root.mkdir()
    monkeypatch.chdir(root)
    with ThreadPoolExecutor(1) as executor:
        draw_remote_dataset("tiny", Drawer(tiny_spec), "to [all]#1::2%20", "work", executor, lambda _manifest: {})
        drawn = root / "to [all]#1::2%20"
        assert hash_files(drawn).keys() >= {"00000.tfrecord", "00009.tfrecord", "index.parquet", "manifest.json"}
        (drawn / "00003.tfrecord").rename(drawn / "00011.tfrecord")
        (drawn / "00004.tfrecord").unlink()
        assert set(repair_dataset(drawn, executor).repaired) == {"00003.tfrecord", "00004.tfrecord"}
        assert verify_dataset(drawn, "deep", executor) == []
    for export_format in FORMATS:
        export_dataset(load(drawn), export_format, root / f"{export_format} [%20]#::?")
    batches = load(drawn).to_tf(batch_size=20)
    assert sum(len(labels) for _, labels in batches) == 60


def test_a_locale_without_umlauts_neither_stops_nor_hides_a_path(
    tiny_dataset: CaptchaDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONOPTIMIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    shutil.copytree(tiny_dataset.root, tmp_path / "hölzern")
    command = [sys.executable, "-m", "captcha_registry"]
    export = ["export", "hölzern", "--format=huggingface", "--to=für"]
    done = subprocess.run([*command, *export], cwd=tmp_path, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b""), done.stderr.decode()
    assert (tmp_path / "für" / "README.md").is_file()
    done = subprocess.run([*command, "verify", "hölzern/none"], cwd=tmp_path, capture_output=True, check=False)
    assert done.returncode == 2
    assert b"h\\xf6lzern" in done.stderr


def test_bytes_of_a_path_that_are_no_text_are_shown_and_nothing_steers_the_terminal() -> None:
    assert printable("h\udcc3\udcb6lzern \udcff \ud800 \x1b[31m") == "hölzern \\xff  [31m"
    assert printable("\udcc2\udc9b31m") == "31m"


END = """
import os, signal, sys
from pathlib import Path
from captcha_registry.machine import tell_of_kill
vmstat, kills_later, is_killed = Path(sys.argv[1]), sys.argv[2], sys.argv[3] == "killed"
vmstat.write_text("pgfault 7\\noom_kill 4\\nthp_split 0\\n")
with tell_of_kill("the training", vmstat):
    vmstat.write_text(f"pgfault 8\\noom_kill {kills_later}\\nthp_split 0\\n")
    if is_killed:
        os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize(("kills", "end", "is_told"), [("5", "killed", True), ("4", "killed", False), ("5", "done", False)])
def test_a_kill_for_want_of_memory_is_told(tmp_path: Path, kills: str, end: str, is_told: bool) -> None:
    command = [sys.executable, "-c", END, tmp_path / "vmstat", kills, end]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == (-9 if end == "killed" else 0)
    assert done.stderr.startswith("error: the kernel killed the training for want of memory, of which ") is is_told
    assert bool(done.stderr) is is_told


def test_a_folder_is_writable_if_it_can_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert is_writable(tmp_path / "not" / "yet")
    assert not is_writable(tmp_path / "file")
    assert not is_writable(Path("/proc/1"))


@pytest.mark.skipif(os.getuid() != 0, reason="only root gives files to others")
def test_a_repository_of_another_user_is_read_as_soon_as_git_trusts_it(
    published: Checkout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = shutil.copytree(published.root, tmp_path / "theirs")
    for path in (root, *root.rglob("*")):
        os.chown(path, 54321, 54321)
    trust = re.escape(f"git config --global --add safe.directory {root}")
    with pytest.raises(UserError, match=f"detected dubious ownership .*{trust}"), open_repository(str(root)) as repo:
        find_published(repo, "tiny")
    for name, value in {"COUNT": "1", "KEY_0": "safe.directory", "VALUE_0": str(root)}.items():
        monkeypatch.setenv(f"GIT_CONFIG_{name}", value)
    with open_repository(str(root)) as repo:
        assert find_published(repo, "tiny").name == "tiny"
