"""CNN with one softmax head per position, for texts of a fixed length. Class *c* is character *c* of the alphabet.

Networks return logits `(batch, length, classes)` in float32; the softmax is in the loss and in the decoder.
"""

from captcha_registry.dataset.spec import DatasetSpec
from captcha_registry.recognition.frameworks import keras, layers
from captcha_registry.recognition.layers import image_input, show_contrast, strided_trunk
from captcha_registry.recognition.recipe import CnnParams

FIRST_CLASS = 0


def build_network(params: CnnParams, spec: DatasetSpec) -> keras.Model:
    """Build the network of the chosen preset.

    Raises:
        UserError: the texts differ in length.
    """
    params.require_one_length(spec)
    length = spec.max_length
    images = image_input(spec)
    x = strided_trunk(show_contrast(images, spec)) if params.preset == "fast" else _lab_features(images)
    x = layers.Dense(length * len(spec.alphabet), dtype="float32")(layers.Flatten()(x))
    logits = layers.Reshape((length, len(spec.alphabet)), dtype="float32", name="logits")(x)
    return keras.Model(images, logits, name=f"cnn_{params.preset}")


def build_loss() -> keras.Loss:
    """Cross-entropy, averaged over positions and samples."""
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def _lab_features(images: keras.KerasTensor) -> keras.KerasTensor:
    """The lab note's layers: unpadded convolutions, PReLU with a slope per place, pooling."""
    x = layers.Rescaling(1 / 255)(images)
    for filters, kernel_size in ((32, 3), (64, 5), (128, 5)):
        x = layers.PReLU()(layers.Conv2D(filters, kernel_size)(x))
        x = layers.MaxPooling2D(2)(x)
    return x
