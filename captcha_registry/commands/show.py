"""`captcha-registry show`: the card of a published version, in the terminal."""

import argparse
import json
import sys

from rich.console import Console
from rich.markdown import Markdown
from rich.theme import Theme

from captcha_registry.errors import UserError, printable
from captcha_registry.registry.fetching import find_files
from captcha_registry.registry.repository import Published, find_published, open_repository, parse_reference

HELP = "show the card of a published dataset or model"
DESCRIPTION = (
    "Show the card of a published version. On a terminal it is laid out; in a pipe it is plain Markdown. "
    "Exit code: 0, or 2 if there is no such card."
)

CARD = "README.md"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the command takes."""
    parser.add_argument("reference", metavar="NAME[@VERSION]", help="such as digits@1.0.0 (default: the newest release)")
    # For those who write the version apart.
    parser.add_argument("version", nargs="?", help=argparse.SUPPRESS)
    parser.add_argument("--repo", metavar="URL", help="Git URL or path of the repository (default: the one of this folder)")
    parser.add_argument("--json", action="store_true", help="print one JSON object with the card as a text")


def run(arguments: argparse.Namespace) -> int:
    """Print the card."""
    name, version = parse_reference(arguments.reference, arguments.version)
    with open_repository(arguments.repo) as repo:
        published = find_published(repo, name, version)
        sources = find_files(repo, published)
    if CARD not in sources:
        raise UserError(f"{published} was published without a card, {CARD}: `captcha-registry get` fetches what there is")
    text = printable(sources[CARD].read_verified().decode(errors="replace"))
    if arguments.json:
        print(json.dumps(_to_json(published, text), indent=2))
    elif sys.stdout.isatty():
        # The terminal's own colours, light or dark: rich would lay code on black.
        console = Console(theme=Theme({"markdown.code": "bold", "markdown.code_block": "none"}))
        console.print(Markdown(_without_front_matter(text), code_theme="ansi_light"))
    else:
        print(text)
    return 0


def _to_json(published: Published, card: str) -> dict[str, str | None]:
    named = {"artifact": published.name, "version": str(published.version), "commit": published.revision}
    return named | {"type": published.type, "description": published.description, "card": card}


def _without_front_matter(text: str) -> str:
    """Leave out the YAML between the first two lines of dashes, which is for machines."""
    return text.split("\n---\n", 1)[-1] if text.startswith("---\n") else text
