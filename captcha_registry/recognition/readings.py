"""From logits to texts with confidence, with NumPy alone: whoever has logits, from Keras or elsewhere, reads with it."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

BLANK = 0


@dataclass(frozen=True, slots=True)
class Reading:
    """What a model says of one picture: a text, and how likely that text is, from 0 to 1."""

    text: str
    confidence: float


def decode_positions(logits: npt.NDArray[np.float32], alphabet: str) -> list[Reading]:
    """Read the likeliest character of every position; confidence is the product of their probabilities."""
    characters = np.array(list(alphabet))
    confidences = np.exp(_log_softmax(logits).max(axis=-1).sum(axis=-1))
    return [
        Reading("".join(characters[classes]), float(confidence))
        for classes, confidence in zip(logits.argmax(-1), confidences, strict=True)
    ]


def decode_best_path(logits: npt.NDArray[np.float32], alphabet: str) -> list[Reading]:
    """Read the text of CTC's best path; confidence is the probability of the text, over all paths that come to it."""
    classes = _collapse(logits.argmax(axis=-1))
    return [
        Reading("".join(alphabet[c - 1] for c in row if c != BLANK), float(confidence))
        for row, confidence in zip(classes, find_text_probability(logits, classes), strict=True)
    ]


def _collapse(path: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Merge the repeats of paths `(batch, time)`, drop blanks, and fill up with blanks behind."""
    kept = path != BLANK
    kept[:, 1:] &= path[:, 1:] != path[:, :-1]
    return np.take_along_axis(np.where(kept, path, BLANK), np.argsort(~kept, axis=-1, kind="stable"), axis=-1)


def decode(family: str, logits: npt.NDArray[np.float32], alphabet: str) -> list[Reading]:
    """Turn a batch of logits into readings."""
    return (decode_best_path if family == "crnn" else decode_positions)(logits, alphabet)


def find_text_probability(logits: npt.NDArray[np.float32], classes: npt.NDArray[np.integer]) -> npt.NDArray[np.float64]:
    """Sum up the probabilities of all paths that CTC collapses to a text, for each text of a batch.

    A path goes through a text's states: its characters, with a blank before, between and after them. In a step it stays, or goes
    on by one, or by two past a blank between characters that differ. Source: Graves et al. 2006, section 4.1,
    https://www.cs.toronto.edu/~graves/icml_2006.pdf

    Args:
        logits: `(batch, time, classes)`.
        classes: `(batch, longest text)`, shorter texts filled up with blanks.

    Returns:
        `(batch,)`, 0 to 1; 0 for a text that needs more time than there is.
    """
    lengths = (classes != BLANK).sum(axis=-1, keepdims=True)
    longest = lengths.max(initial=0)
    states = np.full((len(classes), 2 * longest + 1), BLANK)
    states[:, 1::2] = classes[:, :longest]
    numbers = np.arange(states.shape[1])
    emitted = np.take_along_axis(_log_softmax(logits), states[:, None, :], axis=-1)  # (batch, time, states)
    may_pass = (states[:, 2:] != BLANK) & (states[:, 2:] != states[:, :-2])

    reached = np.where(numbers < 2, emitted[:, 0], -np.inf)  # noqa: PLR2004 - the first blank and the first character
    for step in range(1, emitted.shape[1]):
        came = reached.copy()
        came[:, 1:] = np.logaddexp(came[:, 1:], reached[:, :-1])
        came[:, 2:] = np.logaddexp(came[:, 2:], np.where(may_pass, reached[:, :-2], -np.inf))
        reached = came + emitted[:, step]
    is_end = (numbers == 2 * lengths) | (numbers == 2 * lengths - 1)
    return np.asarray(np.exp(np.minimum(np.logaddexp.reduce(np.where(is_end, reached, -np.inf), axis=-1), 0.0)))


def _log_softmax(logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """Turn the logits of every step into logarithms of probabilities."""
    shifted = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True)))
