"""Open a dataset, in a folder or published under a version."""

from pathlib import Path

from captcha_registry.dataset.dataset import CaptchaDataset, make_dataset
from captcha_registry.dataset.folder import open_folder
from captcha_registry.dataset.index import read_index
from captcha_registry.errors import UserError
from captcha_registry.machine import expand_home


def load(source: str | Path, *, repo: str | None = None, version: str | None = None, split: str | None = None) -> CaptchaDataset:
    """Open a dataset.

    Args:
        source: its folder, such as `data/digits`; with `repo` or `version` the name under which it is published.
        repo: Git URL or path of the repository that publishes it; without it the one around the working folder.
        version: such as `1.2.0`; without it the newest release.
        split: `train` or `test`; without it all samples.

    Raises:
        UserError: there is no complete dataset, or no such version or split.
    """
    dataset = (
        _load_folder(expand_home(source)) if repo is None and version is None else _load_published(str(source), repo, version)
    )
    return dataset.split(split) if split else dataset


def _load_folder(root: Path) -> CaptchaDataset:
    if not root.exists():
        raise UserError(
            f"there is no folder {root}: `dvc repro` makes the datasets of a project, `dvc pull --allow-missing` brings them "
            "into a clone, and load with repo=URL or version=... opens a published one by its name"
        )
    return open_folder(root)


def _load_published(name: str, repo: str | None, version: str | None) -> CaptchaDataset:
    # DVC takes longer to import than a folder to open.
    from captcha_registry.registry.fetching import open_published  # noqa: PLC0415

    if "@" in name:
        name_alone, _, tag = name.partition("@")
        raise UserError(f"load takes a version apart from the name: load({name_alone!r}, version={tag.removeprefix('v')!r}, ...)")
    files, manifest = open_published(name, repo, version)
    index_path = files.make_local([manifest.index.path]) / manifest.index.path
    return make_dataset(files, manifest, read_index(index_path))
