"""Open the dataset in a folder of this disk."""

from pathlib import Path

from captcha_registry.dataset.dataset import CaptchaDataset, make_dataset
from captcha_registry.dataset.files import LocalFiles
from captcha_registry.dataset.index import read_index
from captcha_registry.dataset.manifest import read_manifest


def open_folder(root: Path) -> CaptchaDataset:
    """Open a dataset by its manifest and its index, which is verified; no shard is read.

    Raises:
        UserError: the folder holds no complete dataset, or its index is not what the manifest says.
    """
    manifest = read_manifest(root)
    files = LocalFiles(root, manifest.entries)
    return make_dataset(files, manifest, read_index(files.make_local([manifest.index.path]) / manifest.index.path))
