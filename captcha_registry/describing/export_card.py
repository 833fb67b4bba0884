"""README.md in an exported folder: what it is, its licence, and the line that reads it."""

import glob
import json
from collections.abc import Mapping

from captcha_registry.dataset.manifest import Manifest
from captcha_registry.describing.card import describe_license, write_front_matter

# What a dataset that was not split is called in names of files; to `datasets` it is `train`.
WHOLE = "all"

# Stands for an export's path in its card; to `datasets` no folder is called ".".
PLACE = "path/to/folder"

# What reads a split of each form, and the modules that this takes.
READERS = {
    "tfrecord": ("captcha_registry", "captcha_registry.load({folder})"),
    "webdataset": (
        "glob, webdataset",
        'webdataset.WebDataset(sorted(glob.glob({tars})), shardshuffle=False).decode("pil")',
    ),
    "huggingface": ("datasets", 'datasets.load_dataset({folder}, split="{name}")'),
    "images": ("datasets", 'datasets.load_dataset({folder}, split="{name}")'),
    "numpy": ("numpy", "numpy.load({arrays})"),
}
# Where `datasets` finds the files of a split; the other forms it does not read.
PATTERNS = {"webdataset": "{split}-*.tar", "huggingface": "data/{split}-*.parquet", "images": "{split}/*"}
# What a row is, and how else it can be read.
CONTENTS = {
    "webdataset": "Each sample has a `png`, and a `txt` with its text. `datasets.load_dataset` reads the folder, too.",
    "huggingface": "A row has the columns `image`, `label` and `id`.",
    "images": "`metadata.parquet` beside the pictures has a row for each: `file_name`, `label` and `id`. pandas reads it with\n"
    "`pandas.read_parquet`, and a text of digits stays a text.",
    "numpy": "The arrays are `images` (samples, height, width, 3) uint8, `labels` and `ids`.",
}


def describe_reader(export_format: str, path: str, split: str) -> str:
    """Write the line that reads a split of an export, or say why there is none."""
    modules, line = READERS[export_format]
    if modules == "datasets" and glob.has_magic(path):
        return "`datasets` takes *, ? and [ in the name of a folder for a pattern: rename it first"
    # What begins with ~ is the home of somebody to `datasets`, and to us.
    places = {
        "folder": f"./{path}" if path.startswith("~") else path,
        "tars": f"{glob.escape(path)}/{split}-*.tar",
        "arrays": f"{path}/{split}.npz",
    }
    # What JSON writes of a text is one of Python's, too, whatever quotes are in it.
    return line.format(name=name_split(split), **{name: json.dumps(place, ensure_ascii=False) for name, place in places.items()})


def name_split(split: str) -> str:
    """Name a split as `datasets` does, which calls all splits together `all`."""
    return "train" if split == WHOLE else split


def write_export_card(manifest: Manifest, export_format: str, counts: Mapping[str, int]) -> str:
    """Compose the card of an export with so many samples of each split."""
    spec, num_samples = manifest.spec, sum(counts.values())
    modules, _ = READERS[export_format]
    parts = ", ".join(f"{split} {count:,}" for split, count in counts.items())
    return f"""{write_front_matter(manifest, num_samples, _list_configs(export_format, counts))}
# {manifest.name}

{num_samples:,} synthetic captchas ({parts}) of {spec.described_length} characters of `{spec.alphabet}`,
{spec.width}x{spec.height} pixels, each with its text. {CONTENTS[export_format]}

```python
import {modules}

samples = {describe_reader(export_format, PLACE, next(iter(counts)))}
```

`{PLACE}` is the path of this folder.

Exported by captcha-registry from the dataset `{manifest.name}` with the id
`{manifest.dataset_id}`.

## Licence

{describe_license(manifest)}
"""


def _list_configs(export_format: str, splits: Mapping[str, int]) -> str:
    if export_format not in PATTERNS:
        return ""
    pattern = PATTERNS[export_format]
    files = "".join(f"  - split: {name_split(split)}\n    path: {pattern.format(split=split)}\n" for split in splits)
    return f"configs:\n- config_name: default\n  data_files:\n{files}"
