"""Read the pictures of a dataset with a trained network."""

from pathlib import Path

import numpy as np
import pyarrow as pa
from tqdm import tqdm

from captcha_registry.dataset.dataset import CaptchaDataset
from captcha_registry.errors import UserError
from captcha_registry.recognition.frameworks import keras
from captcha_registry.recognition.model import BATCH_SIZE, CaptchaModel, FindLogits
from captcha_registry.recognition.readings import Reading, decode, tabulate_readings
from captcha_registry.recognition.trained import load_model


def open_model(folder: Path, name: str) -> CaptchaModel:
    """Load a trained model after its file has been checked against the card; `name` is what it calls itself.

    Raises:
        UserError: a file is missing, the card is not valid, the model's bytes are not those that were saved, or they carry code.
    """
    network, card = load_model(folder)
    return CaptchaModel(name, card, find_logits_with(network))


def find_logits_with(network: keras.Model) -> FindLogits:
    """Make of a network the function that a `CaptchaModel` takes.

    Keras traces it twice, the second time for batches of any size.
    """
    return lambda images: np.asarray(network.predict_on_batch(images), dtype=np.float32)


def read_split(model: CaptchaModel, dataset: CaptchaDataset, split: str) -> pa.Table:
    """Read every picture of a split, with a progress bar; rows as `dataset.readings` says.

    Raises:
        UserError: the model reads pictures of another size.
    """
    spec = dataset.manifest.spec
    if (model.spec.height, model.spec.width) != (spec.height, spec.width):
        raise UserError(
            f"the model reads pictures of {model.spec.width}x{model.spec.height}, "
            f"{dataset.root} has {spec.width}x{spec.height}: train it again"
        )
    return read_samples(model.find_logits, dataset.split(split), family=model.card.family, alphabet=model.alphabet)


def read_samples(find_logits: FindLogits, samples: CaptchaDataset, *, family: str, alphabet: str) -> pa.Table:
    """Read every picture of some samples with a network; rows as `read_split` returns them."""
    readings: list[Reading] = []
    with tqdm(total=len(samples), unit=" samples", desc="reading", disable=None) as progress:
        for images, _ in samples.to_tf(batch_size=BATCH_SIZE):
            readings += decode(family, find_logits(images), alphabet)
            progress.update(len(images))
    return tabulate_readings(samples, readings)
