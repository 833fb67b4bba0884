"""The `captcha-registry` command; each of its commands is a module of `captcha_registry.commands`."""

import argparse
import errno
import logging
import os
import re
import shutil
import signal
import sys
import textwrap
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from types import TracebackType

from captcha_registry import __version__, errors
from captcha_registry.errors import CommandLine, UserError, hide_secrets, prepare_process, printable, report_errors
from captcha_registry.nearest import suggest

COMMANDS = ("publish", "list", "show", "get", "diff", "export", "verify", "repair", "predict", "report")
HELP_WIDTH = 100
MIN_WIDTH = 11
ERROR = "error:"
# A path has one slash less than the URL that it was made from; what is asked of that is a secret all the same.
ASKED = re.compile(r"\b(?P<place>(?!file:)[a-z][a-z0-9+.-]+:/[^\s'\"?#]*[?#])[^\s'\"`)]+", re.IGNORECASE)
# What the system says of a path that leads nowhere, or to something else than is expected there.
WRONG_PATHS = {errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ELOOP}

# What Python, Arrow, onnxruntime and Git say if no thread or process can be started, or for want of memory.
NO_MEMORY = (
    *("can't start new thread", "Failed to launch worker thread", "PosixThread", "cannot fork", "Cannot fork"),
    *("bad_alloc", "bad allocation", "Failed to allocate memory"),
)
# What `tempfile` says if no folder can be written to; how libraries of compiled code end; and where Python makes locks that
# processes share.
NO_TEMPORARY_DIR = "No usable temporary directory"
LIBRARY = (".so", ".pyd")
SEMAPHORES = ("multiprocessing", "synchronize.py")


def make_parser(names: Sequence[str]) -> CommandLine:
    """Describe the command line of these commands; only their modules are imported, as some take a second."""
    parser = CommandLine(
        prog="captcha-registry",
        description="Publish, find, fetch, compare, check and repair captcha datasets; read captchas with models.",
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    parser.set_defaults(parser=parser)
    # Two columns less, as argparse itself has it, and at least as many as it takes.
    width = max(MIN_WIDTH, min(HELP_WIDTH, shutil.get_terminal_size().columns - 2))
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    for name in names:
        module = import_module(f"captcha_registry.commands.{name}")
        command = commands.add_parser(
            name,
            help=module.HELP,
            description=_lay_out(module.DESCRIPTION, width),
            epilog=getattr(module, "EXAMPLES", None),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        module.add_arguments(command)
        command.set_defaults(run=module.run, parser=command)
    return parser


def _lay_out(description: str, width: int) -> str:
    """Break a description between words; what it says of exit codes gets a paragraph of its own."""
    paragraphs = description.replace(" Exit code:", "\nExit code:").splitlines()
    return "\n\n".join(textwrap.fill(paragraph, width) for paragraph in paragraphs)


def parse_arguments(command_line: Sequence[str]) -> argparse.Namespace:
    """Find out what is to be done; a mistake ends the process with the usage of the command that it is in."""
    given = command_line[0] if command_line else ""
    parser = make_parser([given] if given in COMMANDS else COMMANDS)
    if not command_line:
        parser.print_help(sys.stderr)
        sys.exit(2)
    if given not in COMMANDS and not given.startswith("-"):
        hint = suggest(given, COMMANDS) or f"expected one of {', '.join(COMMANDS)}"
        parser.error(f"there is no command {given!r}; {hint}")
    arguments, unknown = parser.parse_known_args(command_line)
    if unknown or arguments.parser is parser:
        arguments.parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    return arguments


def _make_printable(record: logging.LogRecord) -> bool:
    """Clean a warning of DVC's, which may hold a repository's words."""
    record.msg, record.args = hide_secrets(printable(record.getMessage())), ()
    return True


def break_at_words(text: str, width: int) -> str:
    """Break lines that are longer than `width` between words; what stands between backticks, to be copied, stays together."""
    lines = re.sub("`[^`\n]+`", lambda quoted: quoted[0].replace(" ", "\0"), text).split("\n")
    parts = [
        textwrap.fill(line, width, break_long_words=False, break_on_hyphens=False) if len(line) > width else line
        for line in lines
    ]
    return "\n".join(parts).replace("\0", " ")


def _see_exit_codes() -> None:
    """Have the kernel keep the exit codes of what is started: else a `git` that failed is taken for one that did its work."""
    if hasattr(signal, "SIGCHLD") and signal.getsignal(signal.SIGCHLD) is signal.SIG_IGN:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)


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
        if error.filename is None or error.errno not in WRONG_PATHS or errors._find_remedy(error):  # noqa: SLF001
            raise
        name = os.fsdecode(error.filename)
        raise UserError(f"{name}: {error.strerror}: {_find_obstacle(Path(name))}, so name another path") from error


def _find_obstacle(path: Path) -> str:
    """Say what is in the way to a path that nothing can be read from, or written to."""
    there = next(part for part in (path, *path.absolute().parents) if os.path.lexists(part))
    if there.is_symlink() and not there.exists():
        return f"{there} is a symbolic link that leads nowhere"
    if not there.is_dir():
        return f"{there} is there, and is no folder"
    return f"{there} is a folder" if there == path else f"it is not in {there}, and cannot be made there"


@contextmanager
def _fit_errors() -> Iterator[None]:
    """Let errors break between words on a terminal, which itself would break them anywhere; in a pipe they stay one line."""
    try:
        yield
    except UserError as error:
        said = ASKED.sub(r"\g<place>***", str(error))
        try:
            width = os.get_terminal_size(sys.stderr.fileno()).columns
        except OSError:
            raise UserError(said) from None
        raise UserError(break_at_words(f"{ERROR} {said}", width or HELP_WIDTH).removeprefix(ERROR).lstrip()) from error


@contextmanager
def _name_limits() -> Iterator[None]:
    """Say which limit of the machine was met, whatever else that led to: what meets one is often said to be something else."""
    try:
        yield
    except Exception as error:
        causes: list[BaseException] = [error]
        while causes[-1].__context__:
            causes.append(causes[-1].__context__)
        said = " ".join(map(str, causes))
        if any(isinstance(cause, MemoryError) for cause in causes) or any(words in said for words in NO_MEMORY):
            raise MemoryError from error
        if cure := _find_cure(error, said):
            raise UserError(f"{error}: {cure}") from error
        raise


def _find_cure(error: Exception, said: str) -> str:
    """Tell what to do about an error of the machine that names no file; nothing if it is another error."""
    if NO_TEMPORARY_DIR in said:
        return "free some space, or set TMPDIR to a folder that can be written to"
    if isinstance(error, ImportError) and str(error.path).endswith(LIBRARY):
        return "a package is damaged, or memory is limited: install it again, or raise the limit (`ulimit -v`)"
    places = [Path(frame.f_code.co_filename).parts[-2:] for frame, _ in traceback.walk_tb(error.__traceback__)]
    # Such a lock takes a process, too.
    if isinstance(error, OSError) and error.errno != errno.EAGAIN and error.filename is None and SEMAPHORES in places:
        return "worker processes share locks in /dev/shm: make that writable; a container gets it with `--tmpfs /dev/shm`"
    return ""


def show_traceback(_kind: type[BaseException], error: BaseException, _trace: TracebackType | None) -> None:
    """Print the traceback of an error of ours as Python does, but for secrets: it is for a report to us."""
    print(hide_secrets("".join(traceback.format_exception(error))), end="", file=sys.stderr)


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


def main(command_line: Sequence[str] | None = None) -> None:
    """Run the command that the process was started with, or another."""
    if command_line is None:
        sys.excepthook = show_traceback
        prepare_process()
        _see_exit_codes()
    with report_errors(), _fit_errors(), _name_lost_folder(), _explain_paths(), _name_limits():
        arguments = parse_arguments(sys.argv[1:] if command_line is None else command_line)
        for handler in logging.getLogger("dvc").handlers:
            handler.addFilter(_make_printable)
        sys.exit(arguments.run(arguments))


if __name__ == "__main__":
    main()
