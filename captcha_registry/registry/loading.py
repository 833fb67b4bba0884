"""Open a dataset, in a folder or published under a version."""

from pathlib import Path

from captcha_registry.dataset.dataset import CaptchaDataset, make_dataset
from captcha_registry.dataset.files import LocalFiles
from captcha_registry.dataset.index import read_index
from captcha_registry.dataset.manifest import read_manifest


def load(source: str | Path, *, split: str | None = None) -> CaptchaDataset:
    """Open a dataset.

    Args:
        source: its folder, such as `data/digits`.
        split: `train` or `test`; without it all samples.

    Raises:
        UserError: there is no complete dataset, or no such split.
    """
    root = Path(source)
    manifest = read_manifest(root)
    dataset = make_dataset(LocalFiles(root), manifest, read_index(root / manifest.index.path))
    return dataset.split(split) if split else dataset
