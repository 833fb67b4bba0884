"""Where unfinished work waits: `.work/<stage>/<name>/<fingerprint>/`, ignored by Git and DVC.

DVC deletes a stage's outputs before it runs the stage, so what a killed run had finished must live elsewhere. The
fingerprint covers all that the work follows from: parameters, inputs, what the library's code computes, and versions of packages.
Other work is never picked up.
"""

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from typing import BinaryIO
from uuid import uuid4

from filelock import Timeout

from captcha_registry.cache import hold_lock
from captcha_registry.errors import FULL_DISK, UserError, list_causes

WORK_ROOT = Path(".work")

# To delete a folder in which files come and go.
_NUM_TRIES = 10


def fingerprint(*facts: object) -> str:
    """Hash JSON-like facts."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def tool_versions(packages: Iterable[str]) -> dict[str, str]:
    """Look up the installed versions of packages that decide the bytes of a result."""
    return {package: version(package) for package in sorted(packages)}


@contextmanager
def lock_work(stage: str, name: str) -> Iterator[Path]:
    """Keep other runs away from one piece of work; yield its folder. The lock ends with the process, however that ends.

    Raises:
        UserError: another run is at it.
    """
    folder = WORK_ROOT / stage / name
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with hold_lock(folder.with_name(f"{name}.lock"), wait=False):
            yield folder
    except Timeout:
        raise UserError(f"another run is at work in {folder}: wait for it to end, or stop it") from None


@contextmanager
def open_work_dir(stage: str, name: str, work_fingerprint: str) -> Iterator[Path]:
    """Make or reopen the folder of one piece of work, which is deleted when the work is done.

    What is left of work on the same thing with another fingerprint is deleted at once.

    Raises:
        UserError: another run is at work on it.
    """
    with lock_work(stage, name) as parent:
        for stale in list(parent.iterdir()):
            if stale.name != work_fingerprint:
                _delete_folder(stale)
        folder = parent / work_fingerprint
        folder.mkdir(exist_ok=True)
        for half_written in list(folder.glob("*.*.tmp")):
            half_written.unlink(missing_ok=True)
        yield folder
        _delete_folder(folder)


def _delete_folder(folder: Path) -> None:
    """Delete a folder of work, though workers of a cluster whose run was killed may not have stopped writing to it.

    Under another name they find it no more. What they have just made there takes another try, and what a network file
    system keeps nevertheless is stale work to the next run.
    """
    renamed = folder.with_name(f"deleted-{uuid4().hex[:12]}")
    folder.rename(renamed)
    for _ in range(_NUM_TRIES):
        try:
            shutil.rmtree(renamed)
        except OSError as error:
            if error.errno not in {errno.ENOENT, errno.ENOTEMPTY}:
                raise
        else:
            return


@contextmanager
def name_full_disk(path: Path | str) -> Iterator[None]:
    """Say in the error of a full disk what did not fit: libraries name no file or the one that was read, or hide the error."""
    try:
        yield
    except Exception as error:
        for cause in list_causes(error):
            if isinstance(cause, OSError) and cause.errno in FULL_DISK:
                # Of two names the first is that of what was copied.
                named = cause.filename if cause.filename2 is None else None
                raise OSError(cause.errno, os.strerror(cause.errno), named or str(path)) from error
        raise


@contextmanager
def open_atomically(path: Path) -> Iterator[BinaryIO]:
    """Open a file for writing that gets its name when the block ends, flushed to the disk; an error leaves nothing behind."""
    # Not the process id, which another host of a shared folder may use too.
    temporary = path.with_name(f"{path.name}.{uuid4().hex[:12]}.tmp")
    try:
        with name_full_disk(path), temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        # Python names no file whose bytes it could not write, and of two names it has the temporary one first.
        if error.filename is None or error.filename2 is not None:
            error.filename = str(path)
        raise
    finally:
        temporary.unlink(missing_ok=True)


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file completely or not at all, flushed to the disk; its folder is made if need be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open_atomically(path) as file:
        file.write(content)


def link_or_copy(source: Path, target: Path) -> None:
    """Give a finished file a second name; copy it where that does not work: file systems have many ways to say so."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        target.hardlink_to(source)
    except FileExistsError:
        raise
    except OSError:
        copy_completely(source, target)


def copy_completely(source: Path, target: Path) -> None:
    """Copy a file, completely or not at all; what makes that fail makes a link fail, too."""
    with source.open("rb") as original, open_atomically(target) as copy:
        shutil.copyfileobj(original, copy)
    with suppress(OSError):
        shutil.copymode(source, target)


def remove(path: Path) -> None:
    """Remove a file, a folder or a link, but not what a link leads to."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _format_bytes(count: int) -> str:
    return f"{count / 1e9:,.1f} GB" if count >= 1e8 else f"{count / 1e6:,.1f} MB"  # noqa: PLR2004 - a tenth of a GB


def require_free_space(folder: Path, needed_bytes: int) -> None:
    """Refuse to start what the disk cannot hold.

    Raises:
        UserError: says how much is needed and how much is free.
    """
    existing = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.exists())
    free_bytes = shutil.disk_usage(existing).free
    if needed_bytes > free_bytes:
        raise UserError(
            f"{folder} needs about {_format_bytes(needed_bytes)} and the disk has {_format_bytes(free_bytes)} free: "
            "free some space, or lower `count` in params.yaml if it is drawn"
        )
