"""The dataset card: README.md in the dataset's folder, for people who find the dataset without the project."""

from collections.abc import Mapping

from captcha_registry.dataset.index import SCHEMA
from captcha_registry.dataset.manifest import Manifest


def write_dataset_card(manifest: Manifest, metrics: Mapping[str, int | float]) -> str:
    """Compose the card as Markdown, from the manifest and the dataset's metrics."""
    spec, split = manifest.spec, manifest.split
    how_split = f"by {split.by}, {split.test_size:.0%} test, seed {split.seed}" if split else "not split"
    facts = "\n".join(f"| {name.replace('_', ' ')} | {value:,} |" for name, value in metrics.items())
    columns = "\n".join(f"| {field.name} | {field.type} |" for field in SCHEMA)
    fonts = (
        f"the font{'s' * (len(spec.fonts) > 1)} {', '.join(spec.fonts)}" if spec.fonts else "the font that comes with `captcha`"
    )
    tools = ", ".join(f"{tool} {version}" for tool, version in manifest.tool_versions.items())
    return f"""# {manifest.name}

{spec.count:,} captchas of {spec.described_length} characters, {spec.width}x{spec.height} pixels, each with its text.
The alphabet is `{spec.alphabet}`.

| fact | value |
|---|---|
{facts}

## How it was made

Drawn from the seed {spec.seed}, in the style `{spec.style}`, as the `captcha` package draws. Sample *i* follows from the seed and
*i* alone. Split {how_split}.
Drawing version {manifest.drawing_version}, with {tools}.
The dataset id is `{manifest.dataset_id}`.

## What is in it

- `train/` and `test/`: TFRecord shards of at most {spec.shard_size:,} records. A record is a `tf.train.Example` with
  `id` (int64), `image` (PNG bytes) and `label` (bytes).
- `index.parquet`: one row per sample.
- `manifest.json`: every file with its size and SHA-256.

| column of the index | type |
|---|---|
{columns}

## Read it

```python
import tensorflow as tf

features = {{"id": tf.io.FixedLenFeature([], tf.int64), "image": tf.io.FixedLenFeature([], tf.string),
            "label": tf.io.FixedLenFeature([], tf.string)}}
shards = tf.data.Dataset.list_files("train/*.tfrecord", shuffle=False)
samples = tf.data.TFRecordDataset(shards).map(lambda record: tf.io.parse_single_example(record, features))
```

## Limits

The pictures are synthetic, from {fonts} and one drawing program: a model that reads them reads nothing else for certain.
Dark ink is drawn faint, and `0` and `O` differ by little where both are in the alphabet.
"""
