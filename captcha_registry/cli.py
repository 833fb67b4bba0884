"""The `captcha-registry` command; each of its commands is a module of `captcha_registry.commands`."""

import argparse
import logging
import shutil
import signal
import sys
import textwrap
from collections.abc import Sequence
from importlib import import_module

from captcha_registry import __version__
from captcha_registry.ends import prepare_process, report_errors
from captcha_registry.errors import CommandLine, hide_secrets, printable
from captcha_registry.nearest import suggest
from captcha_registry.obstacles import explain_obstacles

COMMANDS = ("publish", "list", "show", "get", "diff", "export", "verify", "repair", "predict", "report")
HELP_WIDTH = 100
MIN_WIDTH = 11


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


def _see_exit_codes() -> None:
    """Have the kernel keep the exit codes of what is started: else a `git` that failed is taken for one that did its work."""
    if hasattr(signal, "SIGCHLD") and signal.getsignal(signal.SIGCHLD) is signal.SIG_IGN:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)


def main(command_line: Sequence[str] | None = None) -> None:
    """Run the command that the process was started with, or another."""
    if command_line is None:
        prepare_process()
        _see_exit_codes()
    with report_errors(), explain_obstacles():
        arguments = parse_arguments(sys.argv[1:] if command_line is None else command_line)
        for handler in logging.getLogger("dvc").handlers:
            handler.addFilter(_make_printable)
        sys.exit(arguments.run(arguments))


if __name__ == "__main__":
    main()
