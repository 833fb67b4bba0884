"""What this process may use of its machine: cores, memory, a name, a home, a folder for temporary files.

A container sees the cores and the memory of its host; what it may use of them its control groups tell:

| | version 2 | version 1 |
|---|---|---|
| cores | `cpu.max`: quota and period | `cpu.cfs_quota_us`, `cpu.cfs_period_us` |
| memory, in bytes | `memory.max`, `memory.high` | `memory.limit_in_bytes` |
| memory in use | `memory.current` | `memory.usage_in_bytes` |
| of it, files that can be dropped | `inactive_file` in `memory.stat` | `total_inactive_file` in `memory.stat` |

A limit of a group holds for all groups below it (https://docs.kernel.org/admin-guide/cgroup-v2.html).
"""

import ctypes
import getpass
import math
import os
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath

import psutil

from captcha_registry.errors import UserError

ROOT = Path("/")

# Of a process that draws or verifies: 210 MB of its own were measured.
WORKER_BYTES = 300_000_000


def count_usable_cores(root: Path = ROOT) -> int:
    """Count the cores that this process may use, at least 1; a limit of 1.5 cores counts as 2."""
    try:
        cores = len(os.sched_getaffinity(0))
    except (AttributeError, OSError):
        # Not Linux, or a container that may not ask.
        cores = os.cpu_count() or 1
    limits = [math.ceil(share) for group in _find_groups("cpu", root) for share in _read_cpu_share(group)]
    return max(1, min([cores, *limits]))


def count_workers(root: Path = ROOT) -> int:
    """Count the processes that draw or verify best: one for each core, as far as the memory goes."""
    return max(1, min(count_usable_cores(root), available_memory_bytes(root) // WORKER_BYTES))


def available_memory_bytes(root: Path = ROOT) -> int:
    """Tell how many more bytes this process may use: what is free, within its limits."""
    rooms = [psutil.virtual_memory().available]
    rooms += [room for group in _find_groups("memory", root) for room in _read_memory_room(group)]
    if (limit := find_address_limit()) is not None:
        rooms.append(limit - psutil.Process().memory_info().vms)
    return max(0, min(rooms))


def find_address_limit() -> int | None:
    """Find out how many bytes of addresses this process may have, as `ulimit -v` sets it; nothing without a limit."""
    process = psutil.Process()
    if not hasattr(process, "rlimit"):
        # macOS and Windows.
        return None
    limit, _ = process.rlimit(psutil.RLIMIT_AS)
    return None if limit == psutil.RLIM_INFINITY else limit


def keep_freed_memory() -> None:
    """Have glibc keep what is freed for what is asked for next, for as long as this process lives.

    For a process that trains or reads: a tensor lives for an operation or two. glibc gives the memory of a large one back to the
    kernel each time, which clears every page again at its next use: 138,000 pages in a training step. What threads have asked
    for is still given back in part. Constants and what they do: `malloc.h`, https://man7.org/linux/man-pages/man3/mallopt.3.html.
    Where there is no `mallopt`, nothing changes.
    """
    trim_threshold, mmap_max = -1, -4
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "mallopt"):
        libc.mallopt(mmap_max, 0)
        libc.mallopt(trim_threshold, -1)


@contextmanager
def tell_of_kill(work: str, vmstat: Path = ROOT / "proc/vmstat") -> Iterator[None]:
    """Have it said on stderr if the kernel kills this process in the block for want of memory, which ends it without a word.

    A shell waits for the end of the block. If it is the process that ends, the kernel's count of such kills tells why.
    """
    try:
        kills = dict(line.split() for line in vmstat.read_text().splitlines())["oom_kill"]
        free = f"{available_memory_bytes() / 1e9:,.1f} GB"
        message = f"error: the kernel killed {work} for want of memory, of which {free} were free at its start: raise the limit"
        message += " of the container, or end other programs, and run the same command again"
        script = 'read -r ended || [ "$(sed -n "s/^oom_kill //p" "$1")" = "$2" ] || echo "$0" >&2'
        watcher = subprocess.Popen(["sh", "-c", script, message, vmstat, kills], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
    except (OSError, KeyError):
        # Not Linux, or no shell: nobody can tell.
        yield
        return
    try:
        yield
    finally:
        watcher.communicate(b"ended\n")


def _find_groups(controller: str, root: Path) -> Iterator[Path]:
    """Yield the folders of the control groups whose limits hold for this process: its own, and those around it."""
    with suppress(OSError):
        mounts = [line.split() for line in (root / "proc/self/mountinfo").read_text().splitlines()]
        for line in (root / "proc/self/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            # Version 2 has one hierarchy, for all controllers, and names none.
            if controllers and controller not in controllers.split(","):
                continue
            for mount in mounts:
                kind, _, options = mount[mount.index("-", 6) + 1 :][:3]
                if kind == ("cgroup" if controllers else "cgroup2") and (not controllers or controller in options.split(",")):
                    yield from _climb(root / mount[4].lstrip("/"), mount[3], path)


def _climb(top: Path, shown: str, path: str) -> Iterator[Path]:
    """Yield the folder of a group and all above it up to `top`, where the hierarchy from the group `shown` on is mounted."""
    try:
        inside = PurePosixPath(path).relative_to(shown)
    except ValueError:
        # A container that is shown its own group only, under the name that the host has for it, or for which `..` leads out.
        inside = PurePosixPath()
    yield from (top / part for part in (inside, *inside.parents) if ".." not in part.parts)


def _read_cpu_share(group: Path) -> Iterator[float]:
    """Yield the cores that a group may use, if there is a limit."""
    with suppress(OSError, ValueError):
        quota, period = (group / "cpu.max").read_text().split()
        yield int(quota) / int(period)
    with suppress(OSError, ValueError):
        quota, period = ((group / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        if int(quota) > 0:
            yield int(quota) / int(period)


def _read_memory_room(group: Path) -> Iterator[int]:
    """Yield how many more bytes a group may use, by each limit that there is."""
    for limit, usage, files in (
        ("memory.max", "memory.current", "inactive_file"),
        ("memory.high", "memory.current", "inactive_file"),
        ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    ):
        # Without a limit the first is "max", or larger than any memory.
        with suppress(OSError, ValueError, KeyError):
            counts = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
            used = int((group / usage).read_text()) - int(counts[files])
            yield int((group / limit).read_text()) - used


def settle_user() -> None:
    """Give a user id without a name or a home, as containers have them, what libraries and other programs ask for.

    Git takes a home of somebody else, which it may not look into, for a reason to stop.
    """
    try:
        getpass.getuser()
    except (KeyError, OSError):
        os.environ["LOGNAME"] = f"user-{os.getuid()}"
    with suppress(RuntimeError):
        # It may be a file, such as /dev/null.
        if not os.path.exists(home := Path.home()) or (os.path.isdir(home) and os.access(home, os.X_OK)):  # noqa: PTH110, PTH112
            return
    os.environ["HOME"] = str(own_temporary_dir())


def own_temporary_dir() -> Path:
    """Return a folder among the temporary files that is this user's alone, and the same again in every process.

    Raises:
        UserError: there is no place for temporary files, or another user has taken the name.
    """
    user = os.getuid() if hasattr(os, "getuid") else "user"
    try:
        folder = Path(tempfile.gettempdir()) / f"captcha-registry-{user}"
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
    except OSError as error:
        raise UserError(f"there is no folder for temporary files ({error}): set TMPDIR to one that can be written") from None
    # What is here is trusted, compiled code too, so nobody else may have put it there.
    if not stat.S_ISDIR(found.st_mode) or (hasattr(os, "getuid") and (found.st_uid != os.getuid() or found.st_mode & 0o022)):
        raise UserError(f"{folder} is not a folder that only its user can write to: remove it, or set TMPDIR to another place")
    return folder


def is_writable(folder: Path) -> bool:
    """Tell whether files can be made in a folder, which need not exist yet."""
    existing = next((parent for parent in (folder, *folder.parents) if os.path.lexists(parent)), folder)
    return existing.is_dir() and os.access(existing, os.W_OK | os.X_OK)


def expand_home(text: str | Path) -> Path:
    """Make a path of what a person typed: a `~` that the shell has left is a home, if there is such a home.

    Raises:
        UserError: it is empty, as a variable that is not set leaves it; nobody means the working folder by that.
    """
    if not str(text):
        raise UserError("a path is empty, perhaps because a variable is not set; expected a path, such as . for this folder")
    try:
        return Path(text).expanduser()
    except RuntimeError:
        return Path(text)
