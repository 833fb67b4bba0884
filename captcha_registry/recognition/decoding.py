"""From logits to text with confidence, and exact match as a metric that runs inside the training step."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from captcha_registry.recognition.frameworks import keras, ops

BLANK = 0


@dataclass(frozen=True, slots=True)
class Reading:
    """What a model says of one picture: a text, and how likely that text is, from 0 to 1."""

    text: str
    confidence: float


def collapse_best_path(logits: keras.KerasTensor, length: int) -> keras.KerasTensor:
    """Take the likeliest class of every time step, merge repeats, drop blanks (CTC's best path).

    Args:
        logits: `(batch, time, classes)`.
        length: columns wanted; one that is filled beyond the label means a reading that is too long.

    Returns:
        Classes `(batch, length)`, filled up with blanks; what does not fit is cut.
    """
    path = ops.argmax(logits, axis=-1)  # (batch, time)
    previous = ops.pad(path[:, :-1], ((0, 0), (1, 0)), constant_values=BLANK)
    kept = ops.logical_and(path != BLANK, path != previous)
    place = ops.where(kept, ops.cumsum(ops.cast(kept, "int32"), axis=-1) - 1, -1)  # -1: one_hot gives zeros
    return ops.sum(ops.one_hot(place, length, dtype="int32") * ops.cast(path, "int32")[:, :, None], axis=1)


def position_exact_match(classes: keras.KerasTensor, logits: keras.KerasTensor) -> keras.KerasTensor:
    """Return 1 for each text that is right at every position; classes and logits as in `cnn`."""
    right = ops.equal(ops.cast(classes, "int32"), ops.cast(ops.argmax(logits, axis=-1), "int32"))
    return ops.cast(ops.all(right, axis=-1), "float32")


def ctc_exact_match(classes: keras.KerasTensor, logits: keras.KerasTensor) -> keras.KerasTensor:
    """Return 1 for each text whose best path is the label and nothing more; classes and logits as in `crnn`."""
    length = classes.shape[-1]
    read = collapse_best_path(logits, length + 1)
    label = ops.pad(ops.cast(classes, "int32"), ((0, 0), (0, 1)), constant_values=BLANK)
    return ops.cast(ops.all(ops.equal(read, label), axis=-1), "float32")


def exact_match_metric(family: str) -> keras.Metric:
    """Make the metric that every epoch shows."""
    measure = ctc_exact_match if family == "crnn" else position_exact_match
    return keras.metrics.MeanMetricWrapper(measure, name="exact_match")


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
    classes = np.asarray(collapse_best_path(logits, logits.shape[1]))
    return [
        Reading("".join(alphabet[c - 1] for c in row if c != BLANK), float(confidence))
        for row, confidence in zip(classes, find_text_probability(logits, classes), strict=True)
    ]


def decode(family: str, logits: npt.NDArray[np.float32], alphabet: str) -> list[Reading]:
    """Turn a batch of logits into readings."""
    return (decode_best_path if family == "crnn" else decode_positions)(logits, alphabet)


def find_text_probability(logits: npt.NDArray[np.float32], classes: npt.NDArray[np.int32]) -> npt.NDArray[np.float64]:
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
