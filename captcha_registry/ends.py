"""How a process ends, and what it says then.

| end                              | said on stderr      | exit code     |
|----------------------------------|---------------------|---------------|
| an error that a person can fix   | the error           | 2             |
| Ctrl-C, SIGTERM, SIGHUP          | that it was stopped | 130, 143, 129 |
| nobody reads the output any more | nothing             | 141           |
| an error of ours                 | its traceback       | 1             |
"""

import atexit
import io
import multiprocessing
import os
import re
import select
import signal
import sqlite3
import sys
import textwrap
import threading
import time
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType, TracebackType
from typing import Any, NoReturn, TextIO

from captcha_registry.errors import AGAIN, FULL_DISK, LIMITS, STDOUT, UserError, find_remedy, hide_secrets, printable
from captcha_registry.obstacles import name_limit
from captcha_registry.stopping import ENDING_SIGNALS, describe_stop, end_at_once, heed_signals

# By the beginning of the name that SQLite has for an error.
_DATABASE_CURES = dict.fromkeys(
    ("SQLITE_READONLY", "SQLITE_CANTOPEN", "SQLITE_PERM"),
    "set the variable DVC_SITE_CACHE_DIR to a folder that can be made or written to",
)
_DATABASE_CURES |= dict.fromkeys(("SQLITE_BUSY", "SQLITE_LOCKED"), f"wait for other commands of DVC to end, {AGAIN}")
_DATABASE_CURES |= {"SQLITE_FULL": f"free some space, raise the limit on the size of files (`ulimit -f`) {AGAIN}"}

_BROKEN_PIPE_CODE = 128 + 13

# So long a stopped process may clean up undisturbed; a signal that comes later ends it at once.
_CLEANING_SECONDS = 5.0
# After that long it ends in any case, as does what libraries do at the end of a process. The signal may have come where one had
# just taken a lock, as `subprocess` does while it waits for a program: it stays taken, and who needs it next waits for ever.
_CLEANING_LIMIT_SECONDS = 60.0
_SWALLOWED_SECONDS = 0.1

# Of a terminal that does not say how wide it is.
_WIDTH = 100


class StoppedError(KeyboardInterrupt):
    """A signal has come that ends the process; what handles Ctrl-C handles the others alike."""

    def __init__(self, number: int) -> None:
        """Stop because of the signal of this number."""
        super().__init__(number)
        self.number = number


class _NamedOutput(io.FileIO):
    """Standard output, whose errors say so: Python's name no file."""

    def write(self, content: Any, /) -> int | None:  # type: ignore[override]
        """Write some bytes; wait for a pipe that does not wait itself, as some programs hand on."""
        try:
            while (written := super().write(content)) is None:
                select.select([], [self], [])
        except OSError as error:
            error.filename = STDOUT
            raise
        return written


def prepare_process() -> None:
    """Make a process that has just started ready for any end; comes before the seconds of imports, as signals do not wait."""
    sys.excepthook = show_error
    sys.unraisablehook = show_unraisable
    # As the last of the exit functions: what takes time comes before it, and is stopped as ever.
    atexit.register(_ignore_signals)
    heed_signals()
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


def show_error(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """End as `report_errors` does with an error from outside of it, as while modules are imported.

    The traceback of an error of ours is as Python prints it, but for secrets: it is for a report to us.
    """
    code = _report(error)
    if code is None:
        print(hide_secrets("".join(traceback.format_exception(kind, error, trace))), end="", file=sys.stderr)
    _end(1 if code is None else code)


def show_unraisable(error: "sys.UnraisableHookArgs") -> None:
    """Tell what Python cannot raise, but an attribute that `__del__` misses: an error left its object half made."""
    is_deletion = getattr(error.object, "__name__", "") == "__del__"
    if not (is_deletion and isinstance(error.exc_value, AttributeError)):
        sys.__unraisablehook__(error)


def _silence_unraisable() -> None:
    """Tell nothing more that Python cannot raise: a signal has come, and it comes of that."""
    if sys.unraisablehook is show_unraisable:
        sys.unraisablehook = lambda _: None


@contextmanager
def report_errors() -> Iterator[None]:
    """Turn an error that a person can fix into one line on stderr and an exit code, as the table of this module has it."""
    signals: list[int] = []
    code: int | None = None
    try:
        with _raise_on_signals(signals):
            yield
    except BaseException as error:
        # Whatever comes after a signal comes of it.
        code = _report(StoppedError(signals[0]) if signals else error)
        if code is None:
            raise
        is_ours = sys.excepthook is show_error and threading.current_thread() is threading.main_thread()
        if is_ours and (signals or not isinstance(error, SystemExit)):
            # What is held there may have to be cleaned up.
            traceback.clear_frames(error.__traceback__)
            _end(code)
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
    came = 0.0

    def stop(number: int, _frame: FrameType | None) -> None:
        nonlocal came
        if not received:
            came = time.monotonic()
            received.append(number)
            _silence_unraisable()
        elif _is_cleaning_up():
            is_alarm = number == signal.SIGALRM
            if time.monotonic() > came + (_CLEANING_LIMIT_SECONDS if is_alarm else _CLEANING_SECONDS):
                end_at_once(received[0] if is_alarm else number, None)
            return
        # Code in C may swallow the error, as PyArrow does while it imports pandas: then it is raised again.
        before.setdefault(signal.SIGALRM, signal.getsignal(signal.SIGALRM) or signal.SIG_DFL)
        signal.signal(signal.SIGALRM, stop)
        signal.setitimer(signal.ITIMER_REAL, _SWALLOWED_SECONDS, _SWALLOWED_SECONDS)
        raise StoppedError(received[0])

    before = {n: handler for n in ENDING_SIGNALS if (handler := signal.getsignal(n)) not in {signal.SIG_IGN, None}}
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


def _end(code: int) -> NoReturn:
    """End the process, which has said its last word: wait for no thread, as it may wait for a server, or for a process."""
    _ignore_signals()
    _finish_output(code)
    for process in multiprocessing.active_children():
        process.kill()
    _end_in_any_case(code)
    atexit._run_exitfuncs()  # noqa: SLF001 - there is no other way to do only this
    os._exit(code)


def _end_in_any_case(code: int) -> None:
    """End the process after a while even if what libraries do at its end waits for ever."""
    timer = threading.Timer(_CLEANING_LIMIT_SECONDS, os._exit, (code,))
    timer.daemon = True
    # As where memory or the number of threads is limited.
    with suppress(RuntimeError):
        timer.start()


def _ignore_signals() -> None:
    """Let nothing change the end of a process whose work is over."""
    for number in ENDING_SIGNALS:
        if signal.getsignal(number) is end_at_once:
            signal.signal(number, signal.SIG_IGN)


def _report(error: BaseException) -> int | None:
    """Say what ended the work; return the exit code, or nothing for an error of ours."""
    if isinstance(error, SystemExit) and (error.code is None or isinstance(error.code, int)):
        return error.code or 0
    if isinstance(error, KeyboardInterrupt):
        number = error.number if isinstance(error, StoppedError) else signal.SIGINT
        _say(describe_stop(number))
        return 128 + number
    if isinstance(error, BrokenPipeError) and error.filename == STDOUT:
        return _BROKEN_PIPE_CODE
    line = _describe_error(name_limit(error))
    if line is None:
        return None
    _say(f"error: {line}")
    return 2


def _describe_error(error: BaseException) -> str | None:
    """Say what a person can fix, or nothing if it is no matter of theirs."""
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, sqlite3.Error):
        # It names no file.
        kind = getattr(error, "sqlite_errorname", "")
        cure = next((cure for name, cure in _DATABASE_CURES.items() if kind.startswith(name)), _DATABASE_CURES["SQLITE_FULL"])
        return f"the database in which DVC notes the hashes of files: {error}: {cure}"
    # Most that have no file are no matter of the machine.
    if isinstance(error, OSError) and (error.filename is not None or error.errno in FULL_DISK or error.errno in LIMITS):
        where = "" if isinstance(error.filename, int | None) or error.errno in LIMITS else f"{os.fsdecode(error.filename)}: "
        return f"{where}{error.strerror or error}{find_remedy(error)}"
    return None


def _say(line: str) -> None:
    """Print a line on stderr, if somebody listens there; a terminal, which would break it anywhere, gets it between words."""
    line = hide_secrets(printable(line))
    # An output of somebody else's may have no number, or be closed.
    with suppress(OSError, AttributeError, ValueError):
        line = break_at_words(line, os.get_terminal_size(sys.stderr.fileno()).columns or _WIDTH)
    with suppress(OSError):
        print(line, file=sys.stderr, flush=True)


def break_at_words(text: str, width: int) -> str:
    """Break lines that are longer than `width` between words; what stands between backticks, to be copied, stays together."""
    lines = re.sub("`[^`\n]+`", lambda quoted: quoted[0].replace(" ", "\0"), text).split("\n")
    parts = [
        textwrap.fill(line, width, break_long_words=False, break_on_hyphens=False) if len(line) > width else line
        for line in lines
    ]
    return "\n".join(parts).replace("\0", " ")


def _finish_output(code: int | None) -> int | None:
    """Write out what waits, as an error of the interpreter's own last flush is no line; return the exit code with that."""
    error = _flush(sys.stdout, 1)
    _flush(sys.stderr, 2)
    # What went wrong before says more, but a finding that nobody got is none.
    if not error or code not in {None, 0, 1}:
        return code
    if (code := _report(error)) is None:
        raise error
    return code


def _flush(stream: TextIO, descriptor: int) -> OSError | None:
    try:
        stream.flush()
    except OSError as error:
        # What is left goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)
        return error
    return None
