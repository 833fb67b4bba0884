"""From logits to texts with confidence, and readings as data; no framework is needed: whoever has logits reads with it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from captcha_registry.dataset.dataset import CaptchaDataset
from captcha_registry.dataset.readings import SCHEMA, describe_samples, read_readings
from captcha_registry.recognition.paths import BLANK, collapse, find_neighbours
from captcha_registry.workspace import open_atomically

__all__ = ["Reading", "decode", "read_readings", "tabulate_readings", "write_readings"]

NUM_ALTERNATIVES = 3
# A text that is more probable by less is the same one, summed up in another order.
TOLERANCE = 1e-9


@dataclass(frozen=True, slots=True)
class Reading:
    """What a model says of one picture.

    Attributes:
        text: that the model reads.
        confidence: probability of the text, 0 to 1.
        characters: probability of each character of the text, if the others are right.
        alternatives: the three most probable texts with their probabilities, the text itself first.
    """

    text: str
    confidence: float
    characters: tuple[float, ...]
    alternatives: tuple[tuple[str, float], ...]


def decode(family: str, logits: npt.NDArray[np.floating], alphabet: str) -> list[Reading]:
    """Turn a batch of logits into readings; families and classes as in `recognition.cnn` and `recognition.crnn`."""
    return (decode_paths if family == "crnn" else decode_positions)(logits, alphabet)


def tabulate_readings(samples: CaptchaDataset, readings: Sequence[Reading]) -> pa.Table:
    """Make the table of `dataset.readings` of what was read on some samples, in order of id."""
    columns = {
        "id": samples.index["id"],
        "label": samples.index["label"],
        "text": [reading.text for reading in readings],
        "confidence": [reading.confidence for reading in readings],
        "characters": [reading.characters for reading in readings],
        "texts": [[text for text, _ in reading.alternatives] for reading in readings],
        "confidences": [[confidence for _, confidence in reading.alternatives] for reading in readings],
    }
    return pa.table(columns, SCHEMA.with_metadata(describe_samples(samples.manifest))).sort_by("id")


def write_readings(path: Path, rows: pa.Table) -> None:
    """Write readings as Parquet, complete or not at all; equal rows give equal bytes in a locked environment."""
    # Dictionaries of nearly as many texts as rows take more room than the texts.
    with open_atomically(path) as file, pq.ParquetWriter(file, rows.schema, compression="zstd", use_dictionary=False) as writer:
        writer.write_table(rows)


def decode_positions(logits: npt.NDArray[np.floating], alphabet: str) -> list[Reading]:
    """Read the most probable character of every position; the probability of a text is the product of its characters'.

    Args:
        logits: `(batch, length, classes)`.
        alphabet: the character of each class.
    """
    probabilities = _softmax(logits)
    classes = np.argsort(-probabilities, axis=-1, kind="stable")[..., :NUM_ALTERNATIVES]  # (batch, length, 3)
    parts = np.take_along_axis(probabilities, classes, axis=-1)
    found = zip(classes.tolist(), parts.tolist(), strict=True)
    return [_combine([[alphabet[c] for c in place] for place in best], of_best) for best, of_best in found]


def _combine(characters: list[list[str]], parts: list[list[float]]) -> Reading:
    """Make a reading of the best characters of each position, and their probabilities."""
    texts = [("", 1.0)]
    for of_place, their_parts in zip(characters, parts, strict=True):
        # Only the best beginnings can begin the best texts.
        longer = [(text + c, whole * part) for text, whole in texts for c, part in zip(of_place, their_parts, strict=True)]
        texts = sorted(longer, key=lambda text: -text[1])[:NUM_ALTERNATIVES]
    return Reading(*texts[0], tuple(best for best, *_ in parts), tuple(texts))


def decode_paths(logits: npt.NDArray[np.floating], alphabet: str) -> list[Reading]:
    """Read a text that no other one of one edit is more probable than; the search starts at that of CTC's best path.

    Args:
        logits: `(batch, time, classes)`; class 0 is the blank.
        alphabet: the characters of the classes from 1 on.
    """
    probabilities = _softmax(logits)
    characters, classes = ["", *alphabet], {character: number for number, character in enumerate(alphabet, 1)}
    texts = ["".join(characters[c] for c in path) for path in collapse(logits.argmax(axis=-1)).tolist()]
    readings: dict[int, Reading] = {}
    while waiting := [row for row in range(len(texts)) if row not in readings]:
        rows = _fill_up([[classes[character] for character in texts[row]] for row in waiting])
        around = find_neighbours(probabilities[waiting], rows, NUM_ALTERNATIVES - 1)
        for row, (own, of_characters, edits) in zip(waiting, around, strict=True):
            text = texts[row]
            others = [(text[: edit.start] + characters[edit.put] + text[edit.stop :], edit.probability) for edit in edits]
            if others and others[0][1] > own * (1 + TOLERANCE):
                texts[row] = others[0][0]
            else:
                readings[row] = Reading(text, own, tuple(of_characters[: len(text)]), ((text, own), *others))
    return [readings[row] for row in range(len(texts))]


def _fill_up(texts: list[list[int]]) -> npt.NDArray[np.int64]:
    """Put texts of differing lengths into an array of at least one column, with blanks behind."""
    rows = np.full((len(texts), max([1, *map(len, texts)])), BLANK)
    for row, text in zip(rows, texts, strict=True):
        row[: len(text)] = text
    return rows


def _softmax(logits: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    exponents = np.exp(logits.astype(np.float64) - logits.max(axis=-1, keepdims=True))
    return np.asarray(exponents / exponents.sum(axis=-1, keepdims=True))
