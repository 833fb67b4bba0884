"""Exact match as a metric that runs inside the training step; `readings` makes texts."""

from captcha_registry.recognition.frameworks import keras, ops

BLANK = 0


def collapse_best_path(logits: keras.KerasTensor, length: int) -> keras.KerasTensor:
    """Take the most probable class of every time step, merge repeats, drop blanks (CTC's best path).

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
