"""How the pages are built: `make docs`, then open docs/build/index.html. They ask nothing of any other machine."""

import argparse
import ast
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from captcha_registry import __version__
from captcha_registry.cli import COMMANDS

ROOT = Path(__file__).resolve().parent.parent

project = "captcha-registry"
version = release = __version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton"]
exclude_patterns = ["build"]

myst_enable_extensions = ["deflist"]
myst_heading_anchors = 3

# What docstrings have between single backticks is code, as in Markdown.
default_role = "code"
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented_params"
python_use_unqualified_type_names = True

copybutton_prompt_text = "$ "
copybutton_only_copy_prompt_lines = True

html_theme = "furo"
html_title = f"captcha-registry {version}"
html_static_path = ["static"]
html_css_files = ["docs.css"]
html_copy_source = False
html_show_copyright = False
# The search would fetch each page for its summary, which a browser refuses to pages that were opened from a folder.
html_show_search_summary = False


class Docstring(SphinxDirective):
    """The docstring of a module, whose path in the project is given; nothing is imported."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Return what the docstring says, which is Markdown."""
        path = ROOT / self.arguments[0]
        self.env.note_dependency(path)
        text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
        if not text:
            raise self.error(f"{path} has no docstring")
        return self.parse_text_to_nodes(text)


class Command(SphinxDirective):
    """A command of `captcha-registry`, as its parser describes it."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Return description, usage and arguments of the command."""
        name = self.arguments[0]
        if name not in COMMANDS:
            raise self.error(f"there is no command {name!r}")
        module = import_module(f"captcha_registry.commands.{name}")
        parser = argparse.ArgumentParser(f"captcha-registry {name}", description=module.DESCRIPTION, add_help=False)
        module.add_arguments(parser)
        parser.epilog = getattr(module, "EXAMPLES", None)
        return self.parse_text_to_nodes("\n\n".join(describe_parser(parser)))


def describe_parser(parser: argparse.ArgumentParser) -> Iterator[str]:
    """Say in Markdown what a command does and takes; each argument is a term with its meaning."""
    yield parser.description or ""
    # One line, which a page breaks where it is narrow.
    yield f"```text\n{' '.join(parser.format_usage().split())}\n```"
    formatter = parser.formatter_class(parser.prog)
    for action in parser._actions:  # noqa: SLF001 - argparse has no other way to ask a parser what it takes
        if action.help == argparse.SUPPRESS:
            continue
        taken = action.metavar or (action.dest.upper() if action.nargs != 0 else "")
        if action.choices:
            taken = "|".join(map(str, action.choices))
        name = " ".join([", ".join(action.option_strings), str(taken)]).strip()
        yield f"`{name}`\n: {formatter._expand_help(action)}"  # noqa: SLF001 - it fills in defaults
    if parser.epilog:
        yield f"```text\n{parser.epilog}```"


def setup(app: Sphinx) -> None:
    """Add the directives of this project."""
    app.add_directive("docstring", Docstring)
    app.add_directive("command", Command)
