"""Read the pictures of a dataset with a trained model."""

import keras
import numpy as np
import pandas as pd
from tqdm import tqdm

from captcha_registry.dataset.folder import DatasetFolder
from captcha_registry.errors import UserError
from captcha_registry.recognition.batches import load_images
from captcha_registry.recognition.decoding import decode
from captcha_registry.recognition.trained import ModelCard

BATCH_SIZE = 500


def read_split(network: keras.Model, card: ModelCard, dataset: DatasetFolder, split: str) -> pd.DataFrame:
    """Read every picture of a split, with a progress bar.

    Returns:
        One row per sample, by id: `id`, `label`, `ink_luminance`, `text` (what was read) and `confidence` (0 to 1).

    Raises:
        UserError: the model reads pictures of another size, or fewer samples were read than the index has.
    """
    spec = dataset.manifest.spec
    if (card.spec.height, card.spec.width) != (spec.height, spec.width):
        raise UserError(
            f"the model reads pictures of {card.spec.width}x{card.spec.height}, "
            f"{dataset.root} has {spec.width}x{spec.height}: train it anew"
        )
    truth = dataset.rows(split).select(["id", "label", "ink_luminance"]).to_pandas()
    rows = []
    with tqdm(total=len(truth), unit=" samples", desc="reading", disable=None) as progress:
        for ids, images in load_images(dataset, split, BATCH_SIZE):
            logits = np.asarray(network.predict_on_batch(images), dtype=np.float32)
            readings = decode(card.family, logits, card.spec.alphabet)
            rows += [(int(i), reading.text, reading.confidence) for i, reading in zip(ids, readings, strict=True)]
            progress.update(len(readings))
    joined: pd.DataFrame = truth.merge(pd.DataFrame(rows, columns=["id", "text", "confidence"]), on="id", validate="one_to_one")
    if len(joined) != len(truth):
        raise UserError(f"{dataset.root}: read {len(rows):,} records of {split}, the index has {len(truth):,}: run `dvc repro`")
    return joined.sort_values("id", ignore_index=True)
