"""The `captcha-registry` command; each of its commands is a module of `captcha_registry.commands`."""

import argparse
import logging
import sys
from collections.abc import Sequence

from captcha_registry import __version__
from captcha_registry.commands import diff, export, get, list, publish, repair, show, verify  # noqa: A004 - the name of the command
from captcha_registry.errors import hide_secrets, printable, report_errors

COMMANDS = {
    "publish": publish,
    "list": list,
    "show": show,
    "get": get,
    "diff": diff,
    "export": export,
    "verify": verify,
    "repair": repair,
}


def make_parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    parser = argparse.ArgumentParser(
        prog="captcha-registry", description="Publish, find, fetch, compare, check and repair captcha datasets."
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for name, module in COMMANDS.items():
        command = commands.add_parser(name, help=module.HELP, description=module.DESCRIPTION)
        module.add_arguments(command)
        command.set_defaults(run=module.run)
    return parser


def _make_printable(record: logging.LogRecord) -> bool:
    """Clean a warning of DVC's, which may hold a repository's words."""
    record.msg, record.args = hide_secrets(printable(record.getMessage())), ()
    return True


def main(command_line: Sequence[str] | None = None) -> None:
    """Run the command that the process was started with, or another."""
    for handler in logging.getLogger("dvc").handlers:
        handler.addFilter(_make_printable)
    arguments = make_parser().parse_args(command_line)
    with report_errors():
        sys.exit(arguments.run(arguments))


if __name__ == "__main__":
    main()
