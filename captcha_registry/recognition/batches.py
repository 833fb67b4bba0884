"""What a network trains on: the train split in two parts, with classes in place of texts."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from captcha_registry.dataset.dataset import CaptchaDataset
from captcha_registry.dataset.spec import DatasetSpec
from captcha_registry.errors import UserError
from captcha_registry.machine import available_memory_bytes, count_usable_cores
from captcha_registry.recognition.frameworks import tf

# A share of the memory that is free: the rest is for the network and for everybody else.
CACHE_MEMORY_SHARE = 0.5


@dataclass(frozen=True)
class TrainingBatches:
    """Batches of `(images uint8 (batch, height, width, 3), classes int32 (batch, longest text))`, shorter texts filled with 0.

    Attributes:
        train_from: gives those to learn from, the first epoch in the order of the epoch with the number that it is given, from 0.
        validation: those to validate on.
    """

    train_from: Callable[[int], tf.data.Dataset]
    validation: tf.data.Dataset
    num_train: int
    num_validation: int


def load_training_batches(
    dataset: CaptchaDataset, *, first_class: int, batch_size: int, validation_size: float, seed: int, cache_dir: Path
) -> TrainingBatches:
    """Divide the train split into a part to learn from and a part to validate on; test is not opened.

    Args:
        dataset: a split dataset.
        batch_size: samples in a batch; what does not fill a batch at the end of an epoch is left out of it.
        first_class: class of the alphabet's first character.
        validation_size: share of the train split that is held out.
        seed: of the shuffle.
        cache_dir: where pictures are kept when they do not fit in memory.
    """
    samples, spec = dataset.split("train"), dataset.manifest.spec
    num_validation = max(1, round(len(samples) * validation_size))
    validation, train = samples[:num_validation], samples[num_validation:]
    if not len(train):
        raise UserError(
            f"validation_size is {validation_size}, which leaves nothing of {len(samples):,} train samples to train on: lower it"
        )
    in_memory = samples.images_bytes < available_memory_bytes() * CACHE_MEMORY_SHARE
    cache = True if in_memory else cache_dir
    encode = _class_encoder(spec, first_class)

    def train_from(epoch: int) -> tf.data.Dataset:
        size = min(batch_size, len(train))
        batches = train.to_tf(batch_size=size, shuffle=True, seed=seed, epoch=epoch, cache=cache, drop_remainder=True)
        return _read_ahead(batches.map(encode))

    return TrainingBatches(
        train_from=train_from,
        validation=_read_ahead(validation.to_tf(batch_size=batch_size, cache=cache).map(encode)),
        num_train=len(train),
        num_validation=len(validation),
    )


def _read_ahead(batches: tf.data.Dataset) -> tf.data.Dataset:
    """Have threads of its own read while the network is at work, which leaves TensorFlow's to the network's operations."""
    options = tf.data.Options()
    options.threading.private_threadpool_size = count_usable_cores()
    return batches.prefetch(tf.data.AUTOTUNE).with_options(options)


def _class_encoder(spec: DatasetSpec, first_class: int) -> Callable[[tf.Tensor, tf.Tensor], tuple[tf.Tensor, tf.Tensor]]:
    """Make the function that replaces the texts of a batch `(batch,)` by their classes `int32 (batch, longest text)`."""
    class_by_byte = [spec.alphabet.find(chr(byte)) + first_class for byte in range(256)]
    # What fills up a shorter text.
    class_by_byte[0] = 0

    def encode(images: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        characters = tf.io.decode_raw(labels, tf.uint8, fixed_length=spec.max_length)
        return images, tf.gather(tf.constant(class_by_byte, tf.int32), tf.cast(characters, tf.int32))

    return encode
