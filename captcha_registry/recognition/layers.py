"""Blocks that networks are made of: stock layers and operations of Keras, and what stands in for one of them in training."""

from math import ceil

from captcha_registry.dataset.spec import DatasetSpec
from captcha_registry.recognition.frameworks import keras, layers, ops, tf

# The running statistics of a short training must forget its first steps.
BATCH_NORM_MOMENTUM = 0.9

# The first convolution, whose kernel is too small for the optimizer of the others.
STEM = "stem"

# `captcha` blends a character in by its luminance times this, over 255: dark ink comes out faint.
OPACITY_PER_LUMINANCE = 1.97
RED_GREEN_BLUE = (0.299, 0.587, 0.114)

# How high the cell of a character is, in font sizes, in the font that comes with `captcha`; the last for characters of which
# some reach below the line.
CELL_HEIGHT, TALL_CELL_HEIGHT = 1.12, 1.34
UPRIGHT = frozenset("0123456789ABCDEFGHIKLMNOPRSTUVWXYZ")
# What the trunk divides the height by.
TRUNK_STRIDE = 16


def image_input(spec: DatasetSpec) -> keras.KerasTensor:
    """Return the uint8 input `(batch, height, width, 3)`."""
    return keras.Input((spec.height, spec.width, 3), dtype="uint8", name="images")


def find_text_rows(spec: DatasetSpec) -> tuple[int, int]:
    """Find the first row that can hold text and the first below it; `captcha` sets characters half-way down.

    All rows, where the fonts are others than the one whose characters were measured. A multiple of the trunk's stride.
    """
    tallest = CELL_HEIGHT if UPRIGHT.issuperset(spec.alphabet) else TALL_CELL_HEIGHT
    height = ceil(tallest * max(spec.font_sizes) / TRUNK_STRIDE) * TRUNK_STRIDE
    if spec.fonts or height >= spec.height:
        return 0, spec.height
    top = (spec.height - height) // 2
    return top, top + height


def show_contrast(images: keras.KerasTensor, spec: DatasetSpec) -> keras.KerasTensor:
    """Make what inks darker than their ground have in common: how dark a pixel is, from the lightest to the darkest. Hue is lost.

    Returns:
        `(batch, rows with text, width, 2)`, 0..1: the darkness, and the same in ink that were not faint.
    """
    top, bottom = find_text_rows(spec)
    if (top, bottom) != (0, spec.height):
        images = layers.Cropping2D(((top, spec.height - bottom), (0, 0)), dtype="uint8")(images)
    luminance = ops.sum(layers.Rescaling(RED_GREEN_BLUE, dtype="float32")(images), axis=-1, keepdims=True)
    lightest = ops.max(luminance, axis=(1, 2), keepdims=True)
    darkest = ops.min(luminance, axis=(1, 2), keepdims=True)
    # 1 of 255 levels more, as a picture may be of one colour.
    darkness = (lightest - luminance) / (lightest - darkest + 1)
    opacity = ops.minimum(1.0, (OPACITY_PER_LUMINANCE * darkest + 1) / 255)
    return layers.Concatenate()([darkness, ops.minimum(1.0, darkness / opacity)])


def convolve(x: keras.KerasTensor, filters: int, strides: int | tuple[int, int] = 1) -> keras.KerasTensor:
    """Convolution, batch normalisation, ReLU."""
    x = layers.Conv2D(filters, 3, strides=strides, padding="same", use_bias=False, kernel_initializer="he_normal")(x)
    return layers.ReLU()(layers.BatchNormalization(momentum=BATCH_NORM_MOMENTUM)(x))


def add_residual(x: keras.KerasTensor) -> keras.KerasTensor:
    """Add what one more convolution makes of `x` (He et al. 2016, https://arxiv.org/abs/1603.05027, one layer deep)."""
    return layers.Add()([x, convolve(x, x.shape[-1])])


def strided_trunk(x: keras.KerasTensor) -> keras.KerasTensor:
    """Reduce pictures to features: where a convolution costs most, early; what tells characters apart, the width, late.

    Args:
        x: `(batch, height, width, channels)`, 0..1.

    Returns:
        `(batch, height / 16, width / 8, 128)`.
    """
    stem = layers.Conv2D(32, 5, strides=2, padding="same", activation="relu", kernel_initializer="he_normal", name=STEM)
    x = convolve(stem(x), 64, strides=2)
    x = add_residual(convolve(x, 64, strides=(2, 1)))
    return add_residual(convolve(x, 128, strides=2))


class FusedBatchNormalization(layers.BatchNormalization):
    """Batch normalisation whose training step is one operation of TensorFlow, where Keras makes ten that each pass over memory.

    Weights are the stock layer's. TensorFlow's variance is that of a sample, n / (n - 1) times Keras'.
    """

    def call(
        self, inputs: keras.KerasTensor, training: bool | None = None, mask: keras.KerasTensor | None = None
    ) -> keras.KerasTensor:
        """Normalise, `(batch, height, width, channels)`; as Keras does it, if not in training."""
        if not training:
            return super().call(inputs, training=training, mask=mask)
        outputs, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=inputs,
            scale=tf.convert_to_tensor(self.gamma),
            offset=tf.convert_to_tensor(self.beta),
            mean=tf.zeros(0),
            variance=tf.zeros(0),
            epsilon=self.epsilon,
            is_training=True,
        )
        for running, of_batch in ((self.moving_mean, mean), (self.moving_variance, variance)):
            running.assign(running * self.momentum + of_batch * (1 - self.momentum))
        return outputs


class CompiledBidirectional(layers.Bidirectional):
    """Recurrent layers in both directions whose steps XLA compiles into one operation: they are too small to be many.

    In float32, which is as fast for them.
    """

    @tf.function(jit_compile=True)  # type: ignore[untyped-decorator]
    def call(
        self,
        sequences: keras.KerasTensor,
        initial_state: list[keras.KerasTensor] | None = None,
        mask: keras.KerasTensor | None = None,
        training: bool | None = None,
    ) -> keras.KerasTensor:
        """Read, `(batch, time, channels)`."""
        return super().call(sequences, initial_state, mask, training)


def build_training_twin(network: keras.Model) -> keras.Model:
    """Build the same network for training: of other initial weights, and of layers that take fewer operations of TensorFlow."""

    def clone(layer: keras.Layer) -> keras.Layer:
        config = layer.get_config()
        if type(layer) is layers.BatchNormalization:
            return FusedBatchNormalization.from_config(config)
        # On a GPU cuDNN has an operation of its own.
        if type(layer) is layers.Bidirectional and not tf.config.list_physical_devices("GPU"):
            for part in (config["layer"]["config"], config["backward_layer"]["config"]):
                part |= {"unroll": True, "dtype": "float32"}
            return CompiledBidirectional.from_config(config | {"dtype": "float32"})
        return type(layer).from_config(config)

    return keras.models.clone_model(network, clone_function=clone)
