"""What the base install leaves out: who asks for it is told which package is missing, and what to type."""

import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata, util

from packaging.requirements import Requirement

from captcha_registry.errors import UserError


@contextmanager
def needs(feature: str, extra: str | None = None) -> Iterator[None]:
    """Import in this block what the base install does not bring.

    Args:
        feature: what the user asked for.
        extra: the extra of pyproject.toml with all that it needs; without it, it needs the package that is missing.

    Raises:
        UserError: a package is missing.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        wanted = [need.name for need in _list_needs() if need.marker and need.marker.evaluate({"extra": extra or ""})]
        cure = advise_install(*wanted or [str(error.name)])
        raise UserError(f"{feature} needs the package {error.name}, which is not installed: {cure}") from error


def advise_install(*packages: str) -> str:
    """Say what to type for packages to get into this process' environment, in releases that this project works with.

    It names the packages themselves, never an extra: this project is on no index, where pip could find its extras.
    """
    constrained = {need.name: f"{need.name}{need.specifier}" for need in _list_needs()}
    names = [constrained.get(name, name) for name in packages]
    if util.find_spec("pip"):
        return f"`{shlex.join([sys.executable, '-m', 'pip', 'install', *names])}`"
    return f"`{shlex.join(['uv', 'pip', 'install', '--python', sys.executable, *names])}`"


def _list_needs() -> list[Requirement]:
    try:
        return [Requirement(line) for line in metadata.requires("captcha-registry") or ()]
    except metadata.PackageNotFoundError:
        # Run from its source, without being installed.
        return []
