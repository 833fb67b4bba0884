"""Blocks that the networks of both families are made of."""

from collections.abc import Sequence

from captcha_registry.recognition.frameworks import keras, layers

# The running statistics of a short training must forget its first steps.
BATCH_NORM_MOMENTUM = 0.95


def image_input(height: int, width: int) -> tuple[keras.KerasTensor, keras.KerasTensor]:
    """Return the uint8 input `(batch, height, width, 3)` and the same images scaled to 0..1."""
    images = keras.Input((height, width, 3), dtype="uint8", name="images")
    return images, layers.Rescaling(1 / 255)(images)


def convolve(x: keras.KerasTensor, filters: int, kernel_size: int = 3, strides: int | Sequence[int] = 1) -> keras.KerasTensor:
    """Convolution, batch normalisation, ReLU."""
    x = layers.Conv2D(filters, kernel_size, strides=strides, padding="same", use_bias=False, kernel_initializer="he_normal")(x)
    return layers.ReLU()(layers.BatchNormalization(momentum=BATCH_NORM_MOMENTUM)(x))


def add_residual(x: keras.KerasTensor, filters: int) -> keras.KerasTensor:
    """Add what one more convolution makes of `x` (He et al. 2016, https://arxiv.org/abs/1603.05027, one layer deep)."""
    return layers.Add()([x, convolve(x, filters)])


def strided_trunk(images: keras.KerasTensor, last_strides: Sequence[int]) -> keras.KerasTensor:
    """Reduce images to features early, where a convolution costs most, then look closely.

    Args:
        images: `(batch, height, width, 3)`, 0..1.
        last_strides: `(2, 2)`, or `(2, 1)` to keep more columns.

    Returns:
        `(batch, height / 16, width / 16 or width / 8, 160)`.
    """
    x = convolve(images, 24, kernel_size=5, strides=2)
    x = convolve(x, 48, strides=2)
    x = convolve(x, 48)
    x = add_residual(convolve(x, 96, strides=2), 96)
    return add_residual(convolve(x, 160, strides=last_strides), 160)
