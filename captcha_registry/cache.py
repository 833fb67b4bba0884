"""The user's cache: fetched files, each under its own SHA-256, so that versions share what they have in common; and locks.

Several users may share one: what is made in it is as open to others as its folder is, and what is complete is read without a
lock, in a cache that cannot be written to as well.
"""

import hashlib
import os
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import platformdirs
from filelock import BaseFileLock, FileLock, SoftFileLock, Timeout

from captcha_registry.errors import UserError
from captcha_registry.machine import expand_home, is_writable, own_temporary_dir, settle_user

VARIABLE = "CAPTCHA_REGISTRY_CACHE"
# What a process waits for that fetches the same files as another one.
_LONGEST_WAIT_SECONDS = 6 * 3600


def find_cache_dir() -> Path:
    """Return `$CAPTCHA_REGISTRY_CACHE`, or the folder that the system has for caches, or one among temporary files.

    Raises:
        UserError: it is a file.
    """
    settle_user()
    chosen = os.environ.get(VARIABLE)
    folder = (expand_home(chosen) if chosen else platformdirs.user_cache_path("captcha-registry")).absolute()
    if chosen and folder.exists() and not folder.is_dir():
        raise UserError(f"{VARIABLE} is {folder}, which is a file; expected a folder, which need not exist yet")
    return folder if chosen or folder.is_dir() or is_writable(folder) else own_temporary_dir()


def make_cache_folder(folder: Path) -> Path:
    """Make a folder of the cache, as open to other users as the cache itself, whatever the umask is.

    Raises:
        UserError: the cache cannot be written to.
    """
    root = find_cache_dir()
    if not is_writable(folder):
        raise UserError(f"{folder} cannot be written to: set {VARIABLE} to a folder that can, or get the rights from its owner")
    root.mkdir(parents=True, exist_ok=True)
    for part in reversed((folder, *folder.parents)):
        if root in part.parents and not part.exists():
            # Another process may be quicker.
            with suppress(FileExistsError):
                part.mkdir()
            # Some file systems have no modes.
            with suppress(OSError):
                part.chmod(stat.S_IMODE(root.stat().st_mode))
    return folder


def share_file(path: Path) -> None:
    """Let those read a file of the cache who may read the cache."""
    with suppress(OSError):
        path.chmod(0o200 | find_cache_dir().stat().st_mode & 0o444)


def make_work_dir(name: str) -> Path:
    """Make a folder that has to be written to: in the cache, or elsewhere if the cache can only be read."""
    folder = find_cache_dir() / name
    if is_writable(folder):
        return make_cache_folder(folder)
    folder = own_temporary_dir() / name
    folder.mkdir(exist_ok=True)
    return folder


def find_lock(work: str, folder: Path) -> Path:
    """Name the lock of some work on a folder: outside of it, as a lock that is deleted keeps nobody away."""
    return make_work_dir("locks") / f"{work}-{hashlib.sha256(os.fsencode(os.path.realpath(folder))).hexdigest()[:16]}.lock"


@contextmanager
def hold_lock(path: Path, *, wait: bool = True) -> Iterator[None]:
    """Hold a lock, which any user may; it ends with the process, however that ends.

    Raises:
        filelock.Timeout: another process holds it, and this one was not to wait.
        UserError: another process has held it for longer than anything takes.
    """
    try:
        lock = _acquire_lock(path, 0)
    except Timeout:
        if not wait:
            raise
        print("another process fetches the same: waiting for it to end", file=sys.stderr, flush=True)
        lock = _wait_for_lock(path)
    try:
        yield
    finally:
        lock.release()


def _wait_for_lock(path: Path) -> BaseFileLock:
    try:
        return _acquire_lock(path, _LONGEST_WAIT_SECONDS)
    except Timeout as error:
        hours = _LONGEST_WAIT_SECONDS // 3600
        raise UserError(
            f"another process has held {error.lock_file} for {hours} hours: end it, or delete this file if there is none"
        ) from None


def _acquire_lock(path: Path, wait_seconds: float) -> BaseFileLock:
    """Take a lock.

    Where the file system refuses `flock`, as network file systems may, a file with the name of its process stands for it; one
    that a process of this host has left is no lock.
    """
    lock: BaseFileLock = FileLock(path, wait_seconds, mode=0o666, fallback_to_soft=False)
    try:
        lock.acquire()
    except OSError as error:
        # One that names a file is not of `flock`.
        if isinstance(error, Timeout) or error.filename:
            raise
        lock = SoftFileLock(f"{path}.held", wait_seconds)
        lock.acquire()
    return lock
