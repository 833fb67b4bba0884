"""manifest.json: the files of a dataset with their SHA-256; written last, so a dataset that has it is complete."""

import errno
import hashlib
import json
import os
from collections.abc import Collection
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, ValidationError

from captcha_registry.dataset.spec import DatasetSpec, SplitRule
from captcha_registry.errors import MAKE_OR_PULL, UserError, require_regular
from captcha_registry.params import Section, explain_errors, text_like
from captcha_registry.workspace import write_atomically

MANIFEST_NAME = "manifest.json"
# Beside a manifest whose dataset was fetched in part: which splits.
FETCHED_NAME = ".fetched.json"


def _check_inside(path: str) -> str:
    parts = PurePosixPath(path)
    if parts.is_absolute() or ".." in parts.parts or "\\" in path or str(parts) != path:
        raise ValueError(f"{path!r} does not stay inside the dataset; expected a plain relative path")
    return path


InsidePath = Annotated[str, AfterValidator(_check_inside)]
Sha256 = Annotated[str, text_like("[0-9a-f]{64}", "64 digits of 0-9 and a-f")]


class FileEntry(Section):
    """One file of a dataset."""

    path: InsidePath
    num_samples: int = Field(ge=0)
    size_bytes: int = Field(ge=0)
    sha256: Sha256

    @classmethod
    def of(cls, root: Path, path: str, num_samples: int) -> Self:
        """Measure and hash a file that is complete."""
        if not (root / path).is_file():
            # Not opened: a pipe would be waited for.
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(root / path))
        with (root / path).open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        return cls(path=path, num_samples=num_samples, size_bytes=(root / path).stat().st_size, sha256=sha256)


class Manifest(Section):
    """Everything that identifies a dataset and lets its files be checked."""

    format_version: Literal[1] = 1
    name: str
    dataset_id: Sha256
    spec: DatasetSpec
    drawing_version: int
    fonts: dict[str, Sha256]
    split: SplitRule | None
    shards: tuple[FileEntry, ...]
    index: FileEntry
    tool_versions: dict[str, str]

    @property
    def splits(self) -> list[str]:
        """The splits, which are the folders of the shards."""
        return sorted({shard.path.split("/")[0] for shard in self.shards if "/" in shard.path})

    @property
    def entries(self) -> dict[str, FileEntry]:
        """Every file that the manifest names, by its path."""
        return {entry.path: entry for entry in (*self.shards, self.index)}

    @classmethod
    def create(cls, **fields: Any) -> Self:
        """Make a manifest with its dataset id: a hash of all that it says but for the tool versions."""
        draft = cls(dataset_id="0" * 64, **fields)
        content = draft.model_dump(mode="json", exclude={"dataset_id", "tool_versions"})
        dataset_id = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
        return draft.model_copy(update={"dataset_id": dataset_id})


def write_manifest(root: Path, manifest: Manifest) -> None:
    """Write the manifest of the dataset in `root`, completely or not at all."""
    write_atomically(root / MANIFEST_NAME, f"{manifest.model_dump_json(indent=2)}\n".encode())


def read_manifest(root: Path) -> Manifest:
    """Read and validate the manifest of the dataset in `root`.

    Raises:
        UserError: it is missing or not valid.
    """
    path = root / MANIFEST_NAME
    require_regular(path)
    try:
        return parse_manifest(path.read_bytes(), str(path))
    except FileNotFoundError:
        raise UserError(
            f"{path} is missing, so {root} is not a complete dataset: {MAKE_OR_PULL}; if it was fetched, fetch it again with the "
            "same `captcha-registry get` as before"
        ) from None


def require_outside_datasets(path: Path) -> None:
    """Refuse a path in the folder of a dataset; a manifest.json of another kind, as web pages have it, makes none.

    Raises:
        UserError: names the dataset.
    """
    # Not `resolve`, which fails at a link to itself.
    for folder in Path(os.path.realpath(path)).parents:
        try:
            read_manifest(folder)
        except (UserError, OSError):
            continue
        raise UserError(f"{path} lies in the dataset {folder}, where it would be taken for damage: name another place with --to")


def count_samples(root: Path) -> int:
    """Count the samples of the dataset in `root` by its manifest; 0 if that cannot be read, which is for others to tell."""
    try:
        return read_manifest(root).index.num_samples
    except (UserError, OSError):
        return 0


class Fetched(Section):
    """What of a dataset was fetched; a dataset of another id was not."""

    dataset_id: Sha256
    splits: frozenset[str]


def read_fetched_splits(root: Path) -> frozenset[str] | None:
    """Return the splits of the dataset in `root` that were fetched; None if it is there as it was made.

    Raises:
        UserError: the file that tells is not valid.
    """
    path = root / FETCHED_NAME
    require_regular(path)
    try:
        fetched = Fetched.model_validate_json(path.read_bytes(), strict=False)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except ValidationError as error:
        raise UserError(f"{path} is not valid: delete it, and fetch the dataset again") from error
    try:
        return fetched.splits if fetched.dataset_id == read_manifest(root).dataset_id else None
    except UserError:
        # Whoever asks reads the manifest next, and tells.
        return fetched.splits


def write_fetched_splits(root: Path, manifest: Manifest, splits: Collection[str] | None) -> None:
    """Note which splits of a dataset were fetched; None notes that it is complete."""
    if splits is None:
        (root / FETCHED_NAME).unlink(missing_ok=True)
    else:
        noted = json.dumps({"dataset_id": manifest.dataset_id, "splits": sorted(splits)}, indent=2)
        write_atomically(root / FETCHED_NAME, f"{noted}\n".encode())


def parse_manifest(content: bytes, where: str) -> Manifest:
    """Validate the manifest that was found at `where`.

    Raises:
        UserError: it is no JSON, has an unknown field, or names a path outside the dataset.
    """
    try:
        return Manifest.model_validate_json(content)
    except ValidationError as error:
        problems = "; ".join(explain_errors(error, Manifest))
        raise UserError(
            f"{where} is not a valid manifest; restore it, with `dvc checkout` if DVC has it, or install a newer release of this "
            f"package if one wrote it: {problems}"
        ) from error
