"""Where the files of a dataset are: in a folder, or somewhere that other rooms know how to reach."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


class Files(Protocol):
    """The files of one dataset, under the paths that its manifest gives them."""

    def read(self, path: str, offset: int, length: int) -> bytes:
        """Read some bytes of a file; fewer than asked for where it ends."""

    def make_local(self, paths: Iterable[str]) -> Path:
        """Return a folder of this disk that holds these files whole, each under its path."""


@dataclass(frozen=True)
class LocalFiles:
    """A dataset in a folder of this disk."""

    root: Path

    def read(self, path: str, offset: int, length: int) -> bytes:
        """Read some bytes of a file with one seek."""
        with (self.root / path).open("rb") as file:
            file.seek(offset)
            return file.read(length)

    def make_local(self, paths: Iterable[str]) -> Path:  # noqa: ARG002 - they are there
        """Return the folder."""
        return self.root
