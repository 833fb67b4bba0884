"""`captcha-registry report`: the results of all models, and the causes of their errors, in one file."""

import argparse
import os
import sys
from pathlib import Path

from captcha_registry.errors import UserError
from captcha_registry.extras import needs
from captcha_registry.places import take_place
from captcha_registry.workspace import write_atomically

HELP = "report what the models read right and wrong, as one HTML file or as Markdown"
DESCRIPTION = (
    "Write a report of all models: their results, what changed since a revision, what is misread and why. It is one HTML "
    "file that needs no network, or Markdown for a pull request. Run it in the project's top folder, after `dvc repro`. "
    "Exit code: 0, or 2 if results are missing."
)

HTML_PATH, STDOUT = Path("report.html"), Path("-")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the command takes."""
    parser.add_argument(
        "--compare",
        metavar="REV",
        help="compare with this branch, tag or commit; its readings come from the DVC cache or remote",
    )
    parser.add_argument("--format", choices=("html", "markdown"), default="html", help="html unless given")
    parser.add_argument(
        "--output",
        metavar="FILE",
        type=take_place,
        help=f"where to write, - to print; without it HTML goes to {HTML_PATH}, Markdown is printed",
    )


def run(arguments: argparse.Namespace) -> int:
    """Write the report."""
    with needs("report", "report"):
        from captcha_registry.seeing.origin import describe_origin  # noqa: PLC0415
        from captcha_registry.seeing.report import MARKER, compose_report, render_html, render_markdown  # noqa: PLC0415
        from captcha_registry.seeing.results import load_results  # noqa: PLC0415
        from captcha_registry.seeing.svg import start_vega  # noqa: PLC0415

    path = arguments.output or (HTML_PATH if arguments.format == "html" else STDOUT)
    if path.is_dir():
        raise UserError(f"{path} is a folder; expected a file, such as {path / HTML_PATH}")
    if path != STDOUT and path.is_file() and not path.is_relative_to("/dev") and not _may_be_replaced(path, MARKER):
        raise UserError(f"{path} is there, and is no report of this command: name another file with --output")
    if arguments.format == "html":
        start_vega()
    results = load_results()
    changes = None
    if arguments.compare is not None:
        # With all of DVC that reads another commit.
        from captcha_registry.seeing.revision import find_changes  # noqa: PLC0415

        changes = find_changes(arguments.compare, results)
    report = compose_report(results, changes, describe_origin(results))
    content = render_html(report).decode() if arguments.format == "html" else render_markdown(report)
    if path == STDOUT:
        print(content)
        return 0
    _write(path, content.encode())
    print(f"{path}: {', '.join(result.name for result in results) or 'no models'}, {len(content) / 1e6:,.2f} MB", file=sys.stderr)
    return 0


def _may_be_replaced(path: Path, marker: str) -> bool:
    """Tell whether a file is empty, or holds what this command writes; Markdown of it begins with the marker."""
    with path.open("rb") as file:
        beginning = file.read(4_096)
    is_html = beginning.startswith(b"<!DOCTYPE html>") and b"<title>captcha-registry: report</title>" in beginning
    return not beginning or is_html or beginning.startswith(marker.encode())


def _write(path: Path, content: bytes) -> None:
    """Write a report into a file, or through a link, or into a pipe or a device such as /dev/stdout, which stays what it is."""
    if not os.path.lexists(path) or (path.is_file() and not path.is_symlink()):
        write_atomically(path, content)
        return
    try:
        with path.open("wb") as file:
            file.write(content)
    except OSError as error:
        # Python names no file whose bytes it could not write.
        error.filename = error.filename or str(path)
        raise
