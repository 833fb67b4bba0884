"""Read what is compared of a version, whether it is published or in a folder."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from captcha_registry.dataset.files import LocalFiles
from captcha_registry.dataset.index import read_index
from captcha_registry.dataset.manifest import FETCHED_NAME, MANIFEST_NAME, read_manifest
from captcha_registry.dataset.verify import is_litter, require_dataset
from captcha_registry.errors import UserError
from captcha_registry.recognition.card import CARD_NAME
from captcha_registry.registry.diff import DatasetDiff, DatasetVersion, ModelDiff, ModelVersion, diff_datasets, diff_models
from captcha_registry.registry.fetching import RemoteFile, open_files
from captcha_registry.registry.repository import Published

Version = DatasetVersion | ModelVersion


def diff_versions(old: Version, new: Version) -> DatasetDiff | ModelDiff:
    """Compare two versions of one artifact.

    Raises:
        UserError: one is a dataset and the other a model.
    """
    if isinstance(old, DatasetVersion) and isinstance(new, DatasetVersion):
        return diff_datasets(old, new)
    if isinstance(old, ModelVersion) and isinstance(new, ModelVersion):
        return diff_models(old, new)
    raise UserError("a dataset and a model cannot be compared; expected two versions of one artifact")


def read_published(published: Published, sources: Mapping[str, RemoteFile]) -> Version:
    """Read a published version: of a dataset manifest and index, of a model its model.json.

    Raises:
        UserError: the remote does not give them, or it is neither.
    """
    if MANIFEST_NAME in sources:
        files, manifest = open_files(published, sources)
        index = read_index(files.make_local([manifest.index.path]) / manifest.index.path)
        described = {path: source.md5 for path, source in sources.items() if path not in files.entries}
        return DatasetVersion(manifest, index, described)
    if CARD_NAME not in sources:
        raise UserError(f"{published} is neither a dataset nor a model: it has neither {MANIFEST_NAME} nor {CARD_NAME}")
    card = parse_model_card(sources[CARD_NAME].read_verified(), sources[CARD_NAME].name)
    return ModelVersion(card, {path: source.md5 for path, source in sources.items()})


def read_folder(root: Path) -> Version:
    """Read the same of a dataset or a model in a folder; the index is verified, no shard is read.

    Raises:
        UserError: it holds neither, or another index than its manifest says.
    """
    if (root / CARD_NAME).is_file():
        return ModelVersion(parse_model_card((root / CARD_NAME).read_bytes(), str(root / CARD_NAME)), _hash_files(root, set()))
    if not root.is_dir():
        raise UserError(f"{root} is not a folder; expected a dataset, a model, or NAME@VERSION")
    require_dataset(root)
    manifest = read_manifest(root)
    files = LocalFiles(root, manifest.entries)
    index = read_index(files.make_local([manifest.index.path]) / manifest.index.path)
    return DatasetVersion(manifest, index, _hash_files(root, set(manifest.entries)))


def parse_model_card(content: bytes, where: str) -> dict[str, Any]:
    """Parse a model.json, of any version of the project.

    Raises:
        UserError: it is no JSON object.
    """
    try:
        card = json.loads(content)
    except ValueError as error:
        raise UserError(f"{where} is not valid JSON: {error}") from None
    except RecursionError:
        raise UserError(f"{where} is nested deeper than can be read; expected an object like that of a trained model") from None
    if not isinstance(card, dict):
        raise UserError(f"{where} holds a {type(card).__name__}; expected an object")
    return card


def _hash_files(root: Path, known: set[str]) -> dict[str, str]:
    """Return the MD5, by which DVC knows them, of the files that are not known otherwise."""
    files = {path.relative_to(root).as_posix(): path for path in root.rglob("*") if path.is_file()}
    not_its = known | {FETCHED_NAME, ".gitignore"}
    wanted = {name: path for name, path in files.items() if name not in not_its and not is_litter(name)}
    return {name: hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest() for name, path in wanted.items()}
