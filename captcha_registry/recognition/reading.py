"""Read the pictures of a dataset with a trained model."""

import numpy as np
import pandas as pd
from tqdm import tqdm

from captcha_registry.dataset.dataset import CaptchaDataset
from captcha_registry.errors import UserError
from captcha_registry.recognition.card import ModelCard
from captcha_registry.recognition.frameworks import keras
from captcha_registry.recognition.readings import Reading, decode

BATCH_SIZE = 500


def read_split(network: keras.Model, card: ModelCard, dataset: CaptchaDataset, split: str) -> pd.DataFrame:
    """Read every picture of a split, with a progress bar.

    Returns:
        One row per sample, in the order of the split: `id`, `label`, `ink_luminance`, `text` (what was read) and `confidence`
        (0 to 1).

    Raises:
        UserError: the model reads pictures of another size.
    """
    spec = dataset.manifest.spec
    if (card.spec.height, card.spec.width) != (spec.height, spec.width):
        raise UserError(
            f"the model reads pictures of {card.spec.width}x{card.spec.height}, "
            f"{dataset.root} has {spec.width}x{spec.height}: train it again"
        )
    return read_samples(network, dataset.split(split), family=card.family, alphabet=card.spec.alphabet)


def read_samples(network: keras.Model, samples: CaptchaDataset, *, family: str, alphabet: str) -> pd.DataFrame:
    """Read every picture of some samples with a network; rows as `read_split` returns them."""
    readings: list[Reading] = []
    with tqdm(total=len(samples), unit=" samples", desc="reading", disable=None) as progress:
        for images, _ in samples.to_tf(batch_size=BATCH_SIZE):
            logits = np.asarray(network.predict_on_batch(images), dtype=np.float32)
            readings += decode(family, logits, alphabet)
            progress.update(len(images))
    rows: pd.DataFrame = samples.index.select(["id", "label", "ink_luminance"]).to_pandas()
    return rows.assign(text=[reading.text for reading in readings], confidence=[reading.confidence for reading in readings])
