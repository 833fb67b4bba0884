"""What keeps a command from its work: a path that leads nowhere, a limit of the machine, a working folder that was deleted.

Python and libraries tell of these in many ways, and often of something else that came of them.
"""

import errno
import os
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from captcha_registry.errors import UserError, find_remedy, list_causes

# What the system says of a path that leads nowhere, or to something else than is expected there.
WRONG_PATHS = {errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ELOOP}

_MOVE = "move it away, or name another path"

# What Python, Arrow, onnxruntime and Git say if no thread or process can be started, or for want of memory.
NO_MEMORY = (
    *("can't start new thread", "Failed to launch worker thread", "PosixThread", "cannot fork", "Cannot fork"),
    *("bad_alloc", "bad allocation", "Failed to allocate memory"),
)
# What `tempfile` says if no folder can be written to; how libraries of compiled code end, and what numba says of its own; and
# where Python makes locks that processes share.
NO_TEMPORARY_DIR = "No usable temporary directory"
LIBRARY = (".so", ".pyd")
LOADING = "find/load shared object"
SEMAPHORES = ("multiprocessing", "synchronize.py")


@contextmanager
def explain_obstacles() -> Iterator[None]:
    """Turn an error that comes of an obstacle into one that names it, and says what to do."""
    with _name_lost_folder(), _explain_paths():
        yield


@contextmanager
def _name_lost_folder() -> Iterator[None]:
    """Say that the working folder was deleted, where that is why something is not found: such an error may name nothing."""
    try:
        yield
    except FileNotFoundError:
        try:
            Path.cwd()
        except FileNotFoundError:
            raise UserError(
                'the folder that you are in was deleted: go to another, or back with `cd "$PWD"` if it was made again, and run '
                "the same command again"
            ) from None
        raise


@contextmanager
def _explain_paths() -> Iterator[None]:
    """Say what to do where the system refuses a path that a person gave, or one that follows from it."""
    try:
        yield
    except OSError as error:
        if isinstance(error.filename, int):
            # What libraries have opened themselves has no name.
            raise UserError(f"a file of Git or DVC in this folder, such as .gitignore: {error.strerror}: correct it") from error
        # A path that a variable has led to is no matter of those that were given.
        if error.filename is None or error.errno not in WRONG_PATHS or find_remedy(error):
            raise
        name = os.fsdecode(error.filename)
        raise UserError(f"{name}: {error.strerror}: {_find_obstacle(Path(name))}") from error


def _find_obstacle(path: Path) -> str:
    """Say what is in the way to a path that nothing can be read from, or written to."""
    there = next(part for part in (path, *path.absolute().parents) if os.path.lexists(part))
    if there.is_symlink() and not there.exists():
        return f"{there} is a symbolic link that leads nowhere: {_MOVE}"
    if not there.is_dir():
        return f"{there} is there, and is no folder: {_MOVE}"
    if there == path:
        return f"{there} is a folder: {_MOVE}"
    return f"it is not in {there}, and cannot be made there: name another path, here or in the setting that this one is from"


def name_limit(error: BaseException) -> BaseException:
    """Return an error that says which limit of the machine was met, or else the error itself.

    What meets a limit is often said to be something else.
    """
    if not isinstance(error, Exception):
        return error
    causes = list_causes(error)
    said = " ".join(map(str, causes))
    if any(isinstance(cause, MemoryError) for cause in causes) or any(words in said for words in NO_MEMORY):
        return OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))
    if cure := _find_cure(error, said):
        return UserError(f"{error}: {cure}")
    return error


def _find_cure(error: Exception, said: str) -> str:
    """Tell what to do about an error of the machine that names no file; nothing if it is another error."""
    if NO_TEMPORARY_DIR in said:
        return "free some space, or set TMPDIR to a folder that can be written to"
    if LOADING in str(error) or (isinstance(error, ImportError) and str(error.path).endswith(LIBRARY)):
        return "a package is damaged, or memory is limited: install it again, or raise the limit (`ulimit -v`)"
    places = [Path(frame.f_code.co_filename).parts[-2:] for frame, _ in traceback.walk_tb(error.__traceback__)]
    # Such a lock takes a process, too.
    if isinstance(error, OSError) and error.errno != errno.EAGAIN and error.filename is None and SEMAPHORES in places:
        return "worker processes share locks in /dev/shm: make that writable; a container gets it with `--tmpfs /dev/shm`"
    if isinstance(error, ValueError) and ("fsspec", "config.py") in places:
        return "this is in a file in ~/.config/fsspec, or where FSSPEC_CONFIG_DIR leads: correct it, or set FSSPEC_CONFIG_DIR"
    if isinstance(error, ValueError) and ("tqdm", "utils.py") in places:
        return "a variable whose name begins with TQDM_ has this value, which does not fit: unset it"
    return ""
