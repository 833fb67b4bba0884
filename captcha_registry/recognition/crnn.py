"""CNN, bidirectional recurrent layers and CTC, for texts of any length. Class 0 is the blank, class *c* + 1 character *c*.

Networks return logits `(batch, time, classes)` in float32, time running from left to right; the softmax is in the loss
and in the decoder. CTC: Graves et al. 2006, https://www.cs.toronto.edu/~graves/icml_2006.pdf
"""

from captcha_registry.dataset.spec import DatasetSpec
from captcha_registry.dataset.start_up_lines import leave_out_start_up_lines
from captcha_registry.errors import UserError
from captcha_registry.recognition.frameworks import choose_recurrent_precision, keras, layers, tf
from captcha_registry.recognition.layers import image_input, show_contrast, strided_trunk
from captcha_registry.recognition.recipe import CrnnParams

FIRST_CLASS = 1
# Pixels that become one column, in both presets.
COLUMN_PIXELS = 8
# Of each recurrent layer, in each direction.
FAST_UNITS = (96,)
LAB_UNITS = (128, 128)


def build_network(params: CrnnParams, spec: DatasetSpec) -> keras.Model:
    """Build the network of the chosen preset.

    Raises:
        UserError: the pictures are too narrow for the texts.
    """
    images = image_input(spec)
    x = _fast_sequence(images, spec) if params.preset == "fast" else _lab_sequence(images)
    for units in FAST_UNITS if params.preset == "fast" else LAB_UNITS:
        x = _bidirectional(x, params.recurrent, units)
    # CTC needs a column for every character and one for a blank between two that are equal.
    needed = 2 * spec.max_length - 1
    if x.shape[1] < needed:
        raise UserError(
            f"a crnn sees {x.shape[1]} columns on pictures {spec.width} pixels wide, and needs {needed} for {spec.max_length} "
            f"characters: raise `width` to {needed * COLUMN_PIXELS}, or lower `length`"
        )
    logits = layers.Dense(len(spec.alphabet) + 1, dtype="float32", name="logits")(x)
    return keras.Model(images, logits, name=f"crnn_{params.preset}")


def build_loss() -> keras.Loss:
    """CTC, averaged over samples; zeros fill the labels of shorter texts."""
    with leave_out_start_up_lines():
        # As in the loss, where TensorFlow would say, once in a process, that oneDNN does not do it.
        tf.transpose([[True]])
    return keras.losses.CTC()


def _bidirectional(x: keras.KerasTensor, recurrent: str, units: int) -> keras.KerasTensor:
    layer, dtype = layers.GRU if recurrent == "gru" else layers.LSTM, choose_recurrent_precision()
    return layers.Bidirectional(layer(units, return_sequences=True, dtype=dtype), dtype=dtype)(x)


def _columns(x: keras.KerasTensor) -> keras.KerasTensor:
    """Turn `(batch, height, width, channels)` into one vector per column, `(batch, width, height * channels)`."""
    _, height, width, channels = x.shape
    return layers.Reshape((width, height * channels))(layers.Permute((2, 1, 3))(x))


def _fast_sequence(images: keras.KerasTensor, spec: DatasetSpec) -> keras.KerasTensor:
    x = _columns(strided_trunk(show_contrast(images, spec)))  # (batch, width / 8, height / 16 * 128)
    return layers.Dense(128, activation="relu")(x)


def _lab_sequence(images: keras.KerasTensor) -> keras.KerasTensor:
    """The lab note's layers: five double convolutions with pooling, before its two recurrent layers."""
    x = layers.Rescaling(1 / 255)(images)
    for block in range(5):
        for _ in range(2):
            x = layers.Conv2D(32 * 2 ** min(block, 3), 3, padding="same", kernel_initializer="he_uniform")(x)
            x = layers.Activation("relu")(layers.BatchNormalization()(x))
        x = layers.MaxPooling2D(2 if block < 3 else (2, 1))(x)  # noqa: PLR2004 - the note's own figure
    return _columns(x)  # (batch, 16, 512) for 128x64
