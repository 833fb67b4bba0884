"""Where the files of a dataset are: in a folder, or somewhere that other rooms know how to reach."""

import errno
import shlex
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from captcha_registry.dataset.manifest import FileEntry, read_fetched_splits, read_manifest
from captcha_registry.errors import UserError, require_regular


class Files(Protocol):
    """The files of one dataset, under the paths that its manifest gives them."""

    @property
    def root(self) -> Path:
        """The folder of this disk where they are, or come to be when they are fetched."""

    def read(self, path: str, offset: int, length: int) -> bytes:
        """Read some bytes of a file; fewer than asked for where it ends."""

    def make_local(self, paths: Iterable[str]) -> Path:
        """Return a folder of this disk that holds these files, each under its path and verified by its SHA-256.

        Raises:
            UserError: one is missing, or has other bytes than the manifest says.
        """


@dataclass(frozen=True)
class LocalFiles:
    """A dataset in a folder of this disk, and what the manifest says of each file by its path."""

    root: Path
    entries: Mapping[str, FileEntry]

    def read(self, path: str, offset: int, length: int) -> bytes:
        """Read some bytes of a file with one seek."""
        require_regular(self.root / path)
        with self._explain_absence(path), (self.root / path).open("rb") as file:
            file.seek(offset)
            return file.read(length)

    def make_local(self, paths: Iterable[str]) -> Path:
        """Verify the files, and return the folder."""
        for path in paths:
            require_regular(self.root / path)
            entry = self.entries[path]
            with self._explain_absence(path):
                found = FileEntry.of(self.root, path, entry.num_samples)
            if found != entry:
                raise UserError(f"{self.root / path} has other bytes than the manifest says: {self.find_cure()}")
        return self.root

    def find_cure(self) -> str:
        """Say what to do about a file that is not the one of the manifest."""
        return self._find_replacement() or f"`{shlex.join(['captcha-registry', 'repair', str(self.root)])}` draws it again"

    def _find_replacement(self) -> str:
        """Say that another dataset is in the folder by now; nothing if that is not so."""
        with suppress(UserError, OSError):
            if read_manifest(self.root).entries != self.entries:
                return f"the dataset in {self.root} was replaced after it was loaded: load it again"
        return ""

    @contextmanager
    def _explain_absence(self, path: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno not in {errno.ENOENT, errno.ENOTDIR, errno.ELOOP}:
                raise
            fetched = sorted(read_fetched_splits(self.root) or ())
            cure = (
                f"only {' and '.join(fetched)} was fetched: load it with split={fetched[0]!r}, or in a command with "
                f"--split {fetched[0]}, or fetch or export all of it, without --split"
                if fetched
                else "if only one split was fetched, load that one; "
                f"else fetch it again, or run `{shlex.join(['captcha-registry', 'repair', str(self.root)])}`"
            )
            raise UserError(f"{self.root / path} is missing: {self._find_replacement() or cure}") from None
