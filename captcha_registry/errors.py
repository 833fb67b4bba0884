"""How a process ends: an error that a person can fix is one line: where, what was found, what is expected, what to do.

| end                              | said on stderr      | exit code     |
|----------------------------------|---------------------|---------------|
| an error that a person can fix   | the error           | 2             |
| Ctrl-C, SIGTERM, SIGHUP          | that it was stopped | 130, 143, 129 |
| nobody reads the output any more | nothing             | 141           |
| an error of ours                 | its traceback       | 1             |
"""

import argparse
import atexit
import errno
import io
import os
import re
import shlex
import signal
import sqlite3
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn, TextIO
from urllib.parse import unquote

# What a full disk, a quota and a limit on the size of files are called.
FULL_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}

# What to do about what the machine refuses.
_AGAIN = "and run the same command again"
_REMEDIES = dict.fromkeys(FULL_DISK, f": free some space {_AGAIN}")
_REMEDIES |= {errno.EFBIG: f": raise the limit on the size of files (`ulimit -f`) {_AGAIN}"}
_REMEDIES |= {errno.EROFS: ": make it writable, or work in another folder", errno.ENAMETOOLONG: ": choose a shorter name"}
# What the limits of a process and of a machine are called; such an error names no file, or one that has nothing to do with it.
_LIMITS = dict.fromkeys((errno.EMFILE, errno.ENFILE), ": raise the limit on open files (`ulimit -n`)")
_LIMITS |= dict.fromkeys((errno.EAGAIN, errno.ENOMEM), ": raise the limits on processes and memory (`ulimit -u`, `ulimit -v`)")
_REMEDIES |= {number: f"{cure}, or end other programs, {_AGAIN}" for number, cure in _LIMITS.items()}

# Variables that name folders, which libraries make and fill.
_FOLDER_VARIABLES = (
    *("DVC_SITE_CACHE_DIR", "DVC_GLOBAL_CONFIG_DIR", "DVC_SYSTEM_CONFIG_DIR", "NUMBA_CACHE_DIR"),
    *("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME"),
)

# Where they are if no variable says so, for those that are elsewhere than in a home.
_DEFAULT_FOLDERS = {"DVC_SITE_CACHE_DIR": "/var/tmp/dvc"}  # noqa: S108 - what DVC itself has chosen

# By the beginning of the name that SQLite has for an error.
_DATABASE_CURES = dict.fromkeys(
    ("SQLITE_READONLY", "SQLITE_CANTOPEN", "SQLITE_PERM"),
    "set the variable DVC_SITE_CACHE_DIR to a folder that can be made or written to",
)
_DATABASE_CURES |= dict.fromkeys(("SQLITE_BUSY", "SQLITE_LOCKED"), f"wait for other commands of DVC to end, {_AGAIN}")
_DATABASE_CURES |= {"SQLITE_FULL": f"free some space, raise the limit on the size of files (`ulimit -f`) {_AGAIN}"}

# What ends a process; Windows has no SIGHUP.
_ENDING_SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
_BROKEN_PIPE_CODE = 128 + 13

# So long a stopped process may clean up undisturbed; a signal that comes later ends it at once.
_CLEANING_SECONDS = 5.0
_SWALLOWED_SECONDS = 0.1

_STDOUT = "standard output"

# What brings an output of the pipeline that is missing.
MAKE_OR_PULL = "run `dvc repro`, or `dvc pull --allow-missing` if a DVC remote has it"


# User and password of an address; a password may hold any character, and a token may stand in the place of the user. Whoever
# mistypes the address may leave out a slash, or have one too many.
_LOGIN = re.compile(
    r"\b(?P<scheme>https?:///|[a-z][a-z0-9+.-]+:/{1,2})(?P<login>[^\s/]*|[^\s/:@]*:(?!\d+/)\S*)@",
    re.IGNORECASE,
)
# The same where the scheme was left out, which Git takes for a host and a path; `image:tag@sha256:...` is none.
_BARE_LOGIN = re.compile(r"(?<![\w/:@.-])(?P<user>[\w.-]+):[^\s/]+@(?!sha256:)(?=(\[|[\w-]+(\.[\w-]+)*[:/]))")
# What is asked of an address, such as the signature of a link that was shared; a file has none. The `?` may have been escaped.
_QUERY = re.compile(
    r"\b(?P<place>(?!file:)[a-z][a-z0-9+.-]*://[^\s'\"?#]*?([?#]|%3f(?=[^\s'\"]*=)))[^\s'\"`)]+",
    re.IGNORECASE,
)
# What stands for a byte that is no text has a number from DC80 to DCFF; the other surrogates stand for nothing.
_NO_BYTES = re.compile("[\\ud800-\\udc7f\\udd00-\\udfff]")


class UserError(Exception):
    """Something in the input, the parameters or the machine that its owner has to change; it never holds a secret."""

    def __init__(self, message: str) -> None:
        super().__init__(hide_secrets(message))


def hide_secrets(text: str) -> str:
    """Leave out of the addresses in a text who logs in and what is asked; `ssh://git@host` says nothing that is secret."""

    def hide_login(match: re.Match[str]) -> str:
        open_to_all = match["scheme"].lower().endswith("ssh://") and ":" not in match["login"]
        return match[0] if open_to_all else f"{match['scheme']}***@"

    return _QUERY.sub(r"\g<place>***", _BARE_LOGIN.sub(r"\g<user>:***@", _LOGIN.sub(hide_login, text)))


def hide_login(text: str, url: str) -> str:
    """Leave out of a text what is secret in the login of a URL, as libraries take addresses apart in their messages."""
    for match in _LOGIN.finditer(url):
        secret = match["login"].rpartition(":")[2] if hide_secrets(match[0]) != match[0] else ""
        for form in {secret, unquote(secret)} - {""}:
            text = text.replace(form, "***")
    return text


def require_regular(path: Path) -> None:
    """Refuse what is no file, such as a named pipe, from which reading would wait without end.

    Raises:
        UserError: something else has the name of the file.
    """
    if not path.is_file() and path.exists():
        raise UserError(
            f"{path} is not a regular file: move it away, and restore it from Git or with `dvc checkout`, or fetch it again"
        )


def list_causes(error: BaseException) -> list[BaseException]:
    """List an error and those that led to it, the first cause last."""
    causes = [error]
    while causes[-1].__context__:
        causes.append(causes[-1].__context__)
    return causes


class CommandLine(argparse.ArgumentParser):
    """What a process was called with; what is wrong with it is said without secrets."""

    def error(self, message: str) -> NoReturn:
        """End the process with the usage and the message."""
        super().error(hide_secrets(message))


class StoppedError(KeyboardInterrupt):
    """A signal has come that ends the process; what handles Ctrl-C handles the others alike."""

    def __init__(self, number: int) -> None:
        """Stop because of the signal of this number."""
        super().__init__(number)
        self.number = number


class _NamedOutput(io.FileIO):
    """Standard output, whose errors say so: Python's name no file."""

    def write(self, content: Any, /) -> int | None:  # type: ignore[override]
        """Write some bytes."""
        try:
            return super().write(content)
        except OSError as error:
            error.filename = _STDOUT
            raise


def printable(text: object) -> str:
    """Leave out of a text what could steer a terminal: a repository's words may be a stranger's.

    Bytes of a path that the locale does not know are shown as the text that they most likely are.
    """
    encoded = _NO_BYTES.sub("", str(text)).encode("utf-8", "surrogateescape")
    return "".join(c for c in encoded.decode("utf-8", "backslashreplace") if c.isprintable() or c in "\n\t")


def prepare_process() -> None:
    """Make a process that has just started ready for any end; comes before the seconds of imports, as signals do not wait."""
    for number in _ENDING_SIGNALS:
        # What is ignored, as `nohup` has it, stays so.
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _end_at_once)
    _warn_only()
    # The next files that are opened would be taken for outputs that are closed.
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:  # noqa: PLR2004 - stdin, stdout, stderr
        os.set_inheritable(descriptor, True)
    os.close(descriptor)
    # Python has None for them.
    sys.stderr = sys.stderr or open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115 - as long as the process
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115 - as long as the process
    else:
        old: Any = sys.stdout
        sys.stdout = io.TextIOWrapper(
            io.BufferedWriter(_NamedOutput(1, "w", closefd=False)),
            encoding=old.encoding,
            # Where a locale has no umlauts, a text that has some is no reason to stop.
            errors="backslashreplace",
            line_buffering=old.line_buffering or old.write_through,
        )


def _warn_only() -> None:
    """Let no warning of a library end a command, or a process that it starts, as PYTHONWARNINGS or `-W` may have it."""
    sys.warnoptions[:] = [option for option in sys.warnoptions if not option.startswith("e")]
    warnings.filters = [known for known in warnings.filters if known[0] != "error"]
    # A terminal that is closed ends this helper of `multiprocessing`, too, which ignores other signals.
    warnings.filterwarnings("ignore", "resource_tracker: process died unexpectedly", UserWarning)
    if "PYTHONWARNINGS" in os.environ:
        os.environ["PYTHONWARNINGS"] = ",".join(sys.warnoptions)


@contextmanager
def report_errors() -> Iterator[None]:
    """Turn an error that a person can fix into one line on stderr and an exit code, as the table of this module has it."""
    signals: list[int] = []
    code: int | None = None
    try:
        with _raise_on_signals(signals):
            yield
    except BaseException as error:  # noqa: BLE001 - what is not known is raised again
        is_ours = _ignore_more_signals() if signals else False
        # Whatever comes after a signal comes of it.
        code = _report(StoppedError(signals[0]) if signals else error)
        if is_ours:
            _finish_output(code)
            # The interpreter would wait for threads, and these perhaps for a server.
            atexit._run_exitfuncs()  # noqa: SLF001 - there is no other way to do only this
            os._exit(code)
    code = _finish_output(code)
    if code is not None:
        sys.exit(code)


@contextmanager
def _raise_on_signals(received: list[int]) -> Iterator[None]:
    """Let the first signal that ends the process raise an error, so that all is cleaned up on the way out."""
    if threading.current_thread() is not threading.main_thread():
        # Only the main thread gets signals.
        yield
        return
    deadline = 0.0

    def stop(number: int, _frame: FrameType | None) -> None:
        nonlocal deadline
        if not received:
            received.append(number)
            deadline = time.monotonic() + _CLEANING_SECONDS
            # Code in C may swallow the error, as PyArrow does while it imports pandas: then it is raised again.
            before[signal.SIGALRM] = signal.signal(signal.SIGALRM, stop) or signal.SIG_DFL
            signal.setitimer(signal.ITIMER_REAL, _SWALLOWED_SECONDS, _SWALLOWED_SECONDS)
        elif _is_cleaning_up():
            if number != signal.SIGALRM and time.monotonic() > deadline:
                _end_at_once(number, None)
            return
        raise StoppedError(received[0])

    before = {n: handler for n in _ENDING_SIGNALS if (handler := signal.getsignal(n)) not in {signal.SIG_IGN, None}}
    try:
        for number in list(before):
            signal.signal(number, stop)
        yield
    finally:
        # Before a signal has come, the timer is not ours.
        if received:
            signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in before.items():
            signal.signal(number, handler)


def _is_cleaning_up() -> bool:
    """Tell whether the error of a signal is on its way out."""
    error = sys.exc_info()[1]
    while error is not None and not isinstance(error, StoppedError):
        error = error.__context__
    return error is not None


def _ignore_more_signals() -> bool:
    """Let the end of a process of ours be as it was told, whatever comes meanwhile; tell whether it is one of ours."""
    numbers = [number for number in _ENDING_SIGNALS if signal.getsignal(number) is _end_at_once]
    for number in numbers:
        signal.signal(number, signal.SIG_IGN)
    return bool(numbers)


def _end_at_once(number: int, _frame: FrameType | None) -> None:
    """End the process where nothing has to be cleaned up, or that takes too long."""
    with suppress(OSError):
        # Not `print`: the signal may have come during one.
        os.write(2, f"{_describe_stop(number)}\n".encode())
    os._exit(128 + number)


def _describe_stop(number: int) -> str:
    by = "" if number == signal.SIGINT else f" by {signal.Signals(number).name}"
    return f"stopped{by}; run the same command again to go on"


def _report(error: BaseException) -> int:
    """Say what ended the work; return the exit code. What is no matter of the user's is raised again."""
    if isinstance(error, SystemExit) and (error.code is None or isinstance(error.code, int)):
        return error.code or 0
    if isinstance(error, KeyboardInterrupt):
        number = error.number if isinstance(error, StoppedError) else signal.SIGINT
        _say(_describe_stop(number))
        return 128 + number
    if isinstance(error, UserError):
        _say(f"error: {error}")
        return 2
    if isinstance(error, BrokenPipeError) and error.filename == _STDOUT:
        return _BROKEN_PIPE_CODE
    if isinstance(error, sqlite3.Error):
        # It names no file.
        kind = getattr(error, "sqlite_errorname", "")
        cure = next((cure for name, cure in _DATABASE_CURES.items() if kind.startswith(name)), _DATABASE_CURES["SQLITE_FULL"])
        _say(f"error: the database in which DVC notes the hashes of files: {error}: {cure}")
        return 2
    if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and "can't start new thread" in error.args):
        error = OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))
    # Most that have no file are no matter of the machine.
    if isinstance(error, OSError) and (error.filename is not None or error.errno in FULL_DISK or error.errno in _LIMITS):
        where = "" if isinstance(error.filename, int | None) or error.errno in _LIMITS else f"{os.fsdecode(error.filename)}: "
        _say(f"error: {where}{error.strerror or error}{find_remedy(error)}")
        return 2
    raise error


def find_remedy(error: OSError) -> str:
    """Tell what to do about what the machine refuses."""
    if error.filename == _STDOUT and error.errno in FULL_DISK:
        # Most commands print when their work is done.
        return (
            ": the work may be complete though its output is not: free some space, and see what is there before you run it again"
        )
    if isinstance(error.filename, int):
        # What libraries have opened themselves has no name.
        return _REMEDIES.get(error.errno or 0, "")
    path = Path(os.fsdecode(error.filename or "")).absolute()
    for name in _FOLDER_VARIABLES if error.filename and error.errno not in FULL_DISK else ():
        if (folder := os.environ.get(name, _DEFAULT_FOLDERS.get(name))) and path.is_relative_to(Path(folder).absolute()):
            unset = ", or unset it" if name in os.environ else ""
            return f": set the variable {name} to a folder that can be made or written to{unset}"
    if error.errno not in {errno.EACCES, errno.EPERM} or error.filename is None:
        return _REMEDIES.get(error.errno or 0, "")
    # What is not there was to be made, or cannot be seen, in the nearest folder that is.
    there = next(place for place in (path, *path.parents) if os.path.lexists(place))
    needed = os.R_OK | (os.X_OK if there.is_dir() else 0)
    what = "it" if there == path else str(there)
    if not os.access(there, needed, effective_ids=os.access in os.supports_effective_ids):
        return f": you may not read {what}: run `chmod u+rX {shlex.quote(str(there))}` if it is yours, or ask its owner"
    return f": make {what} writable, or work in another folder"


def _say(line: str) -> None:
    """Print a line on stderr, if somebody listens there."""
    with suppress(OSError):
        print(hide_secrets(printable(line)), file=sys.stderr, flush=True)


def _finish_output(code: int | None) -> int | None:
    """Write out what waits, as an error of the interpreter's own last flush is no line; return the exit code with that."""
    error = _flush(sys.stdout, 1)
    _flush(sys.stderr, 2)
    # What went wrong before says more, but a finding that nobody got is none.
    return _report(error) if error and code in {None, 0, 1} else code


def _flush(stream: TextIO, descriptor: int) -> OSError | None:
    try:
        stream.flush()
    except OSError as error:
        # What is left goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)
        return error
    return None
