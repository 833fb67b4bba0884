"""Open a dataset, in a folder or published under a version."""

from pathlib import Path

from captcha_registry.dataset.dataset import make_dataset
from captcha_registry.dataset.folder import open_folder
from captcha_registry.dataset.front_door import CaptchaDataset
from captcha_registry.dataset.index import read_index
from captcha_registry.errors import UserError
from captcha_registry.machine import expand_home


def load(source: str | Path, *, repo: str | None = None, version: str | None = None, split: str | None = None) -> CaptchaDataset:
    """Open a dataset.

    Args:
        source: its folder, such as `data/digits`; or the name under which it is published, such as `digits@1.1.0`, or with
            `repo` or `version` just `digits`. Without a version that is the newest release.
        repo: Git URL or path of the repository that publishes it; without it the one around the working folder.
        version: such as `1.1.0`, for a name without one.
        split: `train` or `test`; without it all samples.

    Raises:
        UserError: there is no complete dataset, or no such version or split.
    """
    folder = expand_home(source)
    is_reference = "@" in str(source) and not folder.exists()
    if repo is None and version is None and not is_reference:
        dataset = _load_folder(folder)
    else:
        dataset = _load_published(str(source), repo, version)
    return dataset.split(split) if split else dataset


def _load_folder(root: Path) -> CaptchaDataset:
    if not root.exists():
        raise UserError(
            f"there is no folder {root}: `dvc repro` makes the datasets of a project, `dvc pull --allow-missing` brings them "
            "into a clone, and load with repo=URL or NAME@VERSION opens a published one"
        )
    return CaptchaDataset.of(open_folder(root))


def _load_published(reference: str, repo: str | None, version: str | None) -> CaptchaDataset:
    # DVC takes longer to import than a folder to open.
    from captcha_registry.registry.fetching import find_files, open_files  # noqa: PLC0415
    from captcha_registry.registry.repository import (  # noqa: PLC0415
        find_published,
        merge_versions,
        open_repository,
        parse_reference,
    )

    name, named = parse_reference(reference)
    wanted = merge_versions(named, version)
    with open_repository(repo) as opened:
        published = find_published(opened, name, wanted)
        files, manifest = open_files(published, find_files(opened, published))
    index_path = files.make_local([manifest.index.path]) / manifest.index.path
    return CaptchaDataset.of(make_dataset(files, manifest, read_index(index_path)), str(published.version))
