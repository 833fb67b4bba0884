"""What a model sees at each of its steps across a picture: the positions of the CNN, the time steps of the CRNN before CTC."""

import numpy as np
import numpy.typing as npt

from captcha_registry.recognition.paths import BLANK


def list_steps(family: str, logits: npt.NDArray[np.float32], alphabet: str) -> list[list[tuple[str, float]]]:
    """List for each picture the most probable character of every step, "" for CTC's blank, and its probability.

    Args:
        family: `cnn` or `crnn`.
        logits: `(batch, steps, classes)`, with CTC's blank among them for `crnn`.
        alphabet: the characters in order of their classes.
    """
    characters = list(alphabet)
    if family == "crnn":
        characters.insert(BLANK, "")
    classes = logits.argmax(axis=-1)
    shifted = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    probabilities = 1 / np.exp(shifted).sum(axis=-1)
    return [
        [(characters[number], float(probability)) for number, probability in zip(row, shares, strict=True)]
        for row, shares in zip(classes, probabilities, strict=True)
    ]
