"""Whoever runs it, and wherever: a container's limits, users without name or home, shared and read-only folders, odd paths."""

import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from captcha_registry.machine import WORKER_BYTES, available_memory_bytes, count_usable_cores, count_workers

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
