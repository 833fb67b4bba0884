"""Numbers that describe a dataset, read from its index and manifest."""

from collections import Counter

import pyarrow.compute as pc

from captcha_registry.dataset.dataset import CaptchaDataset
from captcha_registry.dataset.manifest import Manifest


def summarize_manifest(manifest: Manifest) -> dict[str, int | float]:
    """Compute those metrics of a dataset that need no look into it."""
    sizes = [shard.size_bytes for shard in manifest.shards]
    return {"samples": manifest.spec.count, "shards": len(sizes), "size_bytes": sum(sizes)}


def summarize_dataset(dataset: CaptchaDataset) -> dict[str, int | float]:
    """Compute the dataset's metrics.

    Returns:
        Counts of samples, bytes, distinct labels, pictures that an earlier sample shows already, labels that stand in train
        and in test; and for each position, from 1, its balance: the rarest character's count over the commonest's, 0 to 1.
    """
    rows, spec = dataset.index, dataset.manifest.spec
    splits = {name: dataset.split(name) for name in ("train", "test")}
    labels = {name: set(samples.index["label"].to_pylist()) for name, samples in splits.items()}
    return {
        "samples": rows.num_rows,
        "train_samples": len(splits["train"]),
        "test_samples": len(splits["test"]),
        "shards": len(dataset.manifest.shards),
        "size_bytes": sum(shard.size_bytes for shard in dataset.manifest.shards),
        "duplicate_pictures": rows.num_rows - pc.count_distinct(rows["pixel_sha256"]).as_py(),
        "labels": len(labels["train"] | labels["test"]),
        "labels_in_train_and_test": len(labels["train"] & labels["test"]),
        "mean_ink_luminance": round(pc.mean(rows["ink_luminance"]).as_py(), 2),
    } | {f"balance_position_{n + 1}": round(balance, 4) for n, balance in enumerate(_position_balance(dataset, spec.max_length))}


def _position_balance(dataset: CaptchaDataset, length: int) -> list[float]:
    counts = [Counter(pc.utf8_slice_codeunits(dataset.index["label"], n, n + 1).to_pylist()) for n in range(length)]
    alphabet = dataset.manifest.spec.alphabet
    return [min(count[c] for c in alphabet) / max(1, *(count[c] for c in alphabet)) for count in counts]
