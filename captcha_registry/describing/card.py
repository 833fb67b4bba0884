"""The cards: README.md in the folder of a dataset or a model, for people who find it without the project.

Both begin with the front matter that Hugging Face reads.
Sources: https://huggingface.co/docs/hub/datasets-cards, https://huggingface.co/docs/hub/model-cards
"""

from collections.abc import Mapping

from captcha_registry.dataset.index import SCHEMA
from captcha_registry.dataset.manifest import Manifest
from captcha_registry.dataset.spec import DatasetSpec
from captcha_registry.describing.front_matter import quote_name

Metrics = Mapping[str, int | float]

LICENSE_NAMES = {
    "apache-2.0": "https://www.apache.org/licenses/LICENSE-2.0",
    "other": "the licences of the fonts named in the card",
}
# How the Hub names sizes, by the samples that they stay below.
SIZES = {10**3: "n<1K", 10**4: "1K<n<10K", 10**5: "10K<n<100K", 10**6: "100K<n<1M", 10**7: "1M<n<10M", 10**8: "10M<n<100M"}

# Letters that have one shape in both cases.
CASELESS = "cosuvwxz"

COLUMNS = {
    "id": "number of the sample, from 0",
    "label": "the text on the picture",
    "split": "train or test; nothing before the dataset is split",
    "shard": "path of the TFRecord file that holds the sample",
    "offset": "byte at which the sample's record starts in its shard",
    "length": "bytes of the complete record, framing included",
    "pixel_sha256": "SHA-256 of the decoded pixels, row by row, RGB; survives another encoding",
    "ink": "colour of text, dots and curve",
    "background": "colour of the ground",
    "ink_luminance": "Rec. 601 luma of the ink, 0 to 255",
}
FACTS = {
    "samples": "captchas, each with its text",
    "train_samples": "of these, to learn from",
    "test_samples": "of these, to be judged by",
    "shards": "TFRecord files",
    "size_bytes": "bytes of all shards",
    "duplicate_pictures": "pictures that an earlier sample shows already",
    "labels": "distinct texts",
    "labels_in_train_and_test": "texts that stand on both sides, on different pictures",
    "mean_ink_luminance": "mean brightness of the ink, 0 to 255",
    "balance_position": "rarest character's count over the commonest's at this position, 1 is even",
}
WAYS = {
    "shard": "each file is train or test, and no sample changes sides when the dataset grows",
    "sample": "one by one, as `train_test_split` of scikit-learn; a dataset that grows is divided again",
    "label": "no text is on both sides; a dataset that grows is divided again",
    "sample_hash": "a hash of the id decides, and no sample changes sides when the dataset grows",
    "label_hash": "a hash of the text decides: none is on both sides, and no sample changes sides when the dataset grows",
}


def find_license(manifest: Manifest) -> str:
    """Name the licence of the pictures as the Hub does: that of the fonts drawn with, unknown unless they are the package's."""
    return "other" if manifest.spec.fonts else "apache-2.0"


def write_dataset_card(manifest: Manifest, metrics: Metrics) -> str:
    """Compose a dataset's card as Markdown, from its manifest and metrics."""
    spec = manifest.spec
    columns = "\n".join(f"| `{field.name}` | {field.type} | {COLUMNS[field.name]} |" for field in SCHEMA)
    facts = "\n".join(f"| {name.replace('_', ' ')} | {value:,} | {_explain(name)} |" for name, value in metrics.items())
    return f"""{write_front_matter(manifest, spec.count, _list_configs(manifest))}
# {manifest.name}

{spec.count:,} synthetic captchas of {spec.described_length} characters, {spec.width}x{spec.height} pixels, each with its text.
The alphabet is `{spec.alphabet}`.

| fact | value | meaning |
|---|---:|---|
{facts}

## How it was made

{_describe_drawing(manifest)}

The dataset id, a hash of all that the manifest says but for the versions of tools, is `{manifest.dataset_id}`.

## What is in it

- {"`train/` and `test/`" if manifest.split else "`00000.tfrecord` and so on"}: TFRecord shards of at most {spec.shard_size:,}
  records. A record is a `tf.train.Example` with `id` (int64), `image` (PNG bytes) and `label` (bytes).
- `index.parquet`: one row per sample, which says where its record is.
- `manifest.json`: every file with its size and SHA-256.
- `croissant.json`: the same as metadata that `mlcroissant` reads; its records are the rows of the index.

| column of the index | type | meaning |
|---|---|---|
{columns}

## Read it

With `captcha_registry`, which verifies each sample as it reads it:

```python
import captcha_registry

samples = captcha_registry.load("."{', split="train"' if manifest.split else ""})
image, label = samples[0].image, samples[0].label
```

With Hugging Face `datasets`, pictures included:

```python
rows = captcha_registry.load("."{', split="train"' if manifest.split else ""}).to_huggingface()
```

{_describe_rows(manifest)}
`captcha-registry export . --format huggingface --to DIR` writes files that `datasets` reads by itself.

With TensorFlow alone:

```python
import tensorflow as tf

features = {{
    "id": tf.io.FixedLenFeature([], tf.int64),
    "image": tf.io.FixedLenFeature([], tf.string),
    "label": tf.io.FixedLenFeature([], tf.string),
}}
shards = tf.data.Dataset.list_files("{"train/" if manifest.split else ""}*.tfrecord", shuffle=False)
samples = tf.data.TFRecordDataset(shards).map(
    lambda record: tf.io.parse_single_example(record, features)
)
```

## Intended use

To teach and study how text is read from pictures, with texts that are certainly right, in any number: to compare recognizers,
to see how much data they need, to test a pipeline. It is not a tool against anybody's website. A model that is trained on it
reads this one drawing style.

## Limits

{_describe_limits(manifest)}

## Licence

{describe_license(manifest)}
"""


def write_front_matter(manifest: Manifest, num_samples: int, configs: str) -> str:
    """Compose what the Hub and `datasets` read of a card: what this is, and with `configs` how its files are read."""
    return f"""---
license: {find_license(manifest)}
pretty_name: {quote_name(manifest.name)}
task_categories:
- image-to-text
tags:
- captcha
- ocr
- synthetic
size_categories:
- {_name_size(num_samples)}
{configs}---
"""


def describe_split(manifest: Manifest) -> str:
    """Say how a dataset was divided, into which shares, and what becomes of that when it grows."""
    split = manifest.split
    if split is None:
        return "Not split."
    num_test = sum(shard.num_samples for shard in manifest.shards if shard.path.startswith("test/"))
    share = f"{num_test / manifest.spec.count:.1%} test, seed {split.seed}"
    return f"Split by {split.by}, {share}: {WAYS[split.by]}."


def _explain(fact: str) -> str:
    return FACTS["balance_position" if fact.startswith("balance_position") else fact]


def _name_size(count: int) -> str:
    return next((name for limit, name in SIZES.items() if count < limit), "100M<n<1B")


def _list_configs(manifest: Manifest) -> str:
    """Have `datasets` read the rows of one split, as it makes one split of a file."""
    file = manifest.index.path
    if not manifest.split:
        return f"configs:\n- config_name: default\n  data_files: {file}\n"
    files = {split: f"  data_files:\n  - split: {split}\n    path: {file}\n" for split in ("train", "test")}
    chosen = {split: f'  filters:\n  - [split, "==", {split}]\n' for split in files}
    train, test = (f"- config_name: {split}\n{files[split]}{chosen[split]}" for split in files)
    return f"configs:\n{train}  default: true\n{test}"


def _describe_rows(manifest: Manifest) -> str:
    which = ', "train")` or `"test"' if manifest.split else ")"
    return f"`datasets.load_dataset(PATH{which}`, with the path of this folder, gives the rows of the index, without pictures."


def _describe_fonts(spec: DatasetSpec) -> str:
    if not spec.fonts:
        return "Droid Sans Mono, the font that comes with `captcha`"
    return f"the font{'s' * (len(spec.fonts) > 1)} {', '.join(spec.fonts)}"


def _describe_drawing(manifest: Manifest) -> str:
    spec = manifest.spec
    tools = ", ".join(f"{tool} {version}" for tool, version in manifest.tool_versions.items())
    sizes = ", ".join(map(str, spec.font_sizes))
    fonts = _describe_fonts(spec)
    return f"""Drawn from the seed {spec.seed}, in the style `{spec.style}` of the package `captcha`, with {fonts},
in sizes {sizes}. Sample *i* follows from the seed and *i* alone, so raising the number of samples changes none.
{describe_split(manifest)} Drawing version {manifest.drawing_version}, with {tools}."""


def _describe_limits(manifest: Manifest) -> str:
    limits = [
        f"- The pictures are synthetic, from one drawing program and {_describe_fonts(manifest.spec)}: a model that reads them",
        "  reads nothing else for certain.",
        "- Text is drawn fainter the darker its ink; `ink_luminance` in the index finds the hard ones.",
    ]
    if {"0", "O"} <= set(manifest.spec.alphabet):
        limits.append("- Drawing stretches every character to one cell, so `0` and `O` differ by half a pixel of stroke width.")
    if alike := [
        f"`{letter}` and `{letter.upper()}`" for letter in CASELESS if {letter, letter.upper()} <= {*manifest.spec.alphabet}
    ]:
        limits.append(f"- Drawing stretches every character to one height, so these look almost the same: {', '.join(alike)}.")
    return "\n".join([*limits, "- Nobody is shown or meant, and nothing was collected from people."])


def describe_license(manifest: Manifest) -> str:
    """Say under which licence the pictures are."""
    if manifest.spec.fonts:
        return "The pictures show glyphs of the fonts named above: what these allow decides what the pictures may be used for."
    return "Apache-2.0, as the code that drew it and the font Droid Sans Mono."
