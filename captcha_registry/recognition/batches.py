"""What a network trains on: samples of the train split, pictures that are drawn meanwhile, or both in one batch.

The recipe's `fresh` is the share of a batch that is drawn. Texts are replaced by classes. A part of the train split is held out
to validate on.
"""

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from captcha_registry.dataset.dataset import CaptchaDataset
from captcha_registry.dataset.spec import DatasetSpec
from captcha_registry.errors import UserError
from captcha_registry.extras import needs
from captcha_registry.machine import available_memory_bytes, count_usable_cores
from captcha_registry.recognition.frameworks import tf
from captcha_registry.recognition.recipe import ModelParams, Recipe

if TYPE_CHECKING:
    from captcha_registry.generation.fresh import FreshPictures

# A share of the memory that is free: the rest is for the network and for everybody else.
CACHE_MEMORY_SHARE = 0.5


@dataclass(frozen=True)
class TrainingBatches:
    """Batches of `(images uint8 (batch, height, width, 3), classes int32 (batch, longest text))`, shorter texts filled with 0.

    Attributes:
        train_from: gives those to learn from, without end. It is told how many epochs there were before, of all phases and of
            this one; what a step sees follows from that and the seeds.
        num_steps: batches in an epoch.
        validation: those to validate on.
    """

    train_from: Callable[[int, int], tf.data.Dataset]
    num_steps: int
    validation: tf.data.Dataset
    num_train: int
    num_validation: int


@contextmanager
def load_training_batches(
    dataset: CaptchaDataset, params: ModelParams, *, first_class: int, cache_dir: Path
) -> Iterator[TrainingBatches]:
    """Divide the train split into a part to learn from and a part to validate on; test is not opened.

    What does not fill a batch at the end of an epoch is left out of it. An epoch has as many batches as if none was drawn.

    Args:
        dataset: a split dataset.
        params: how it is trained on.
        first_class: class of the alphabet's first character.
        cache_dir: where pictures are kept when they do not fit in memory.

    Raises:
        UserError: nothing is left to train on, or pictures cannot be drawn.
    """
    (validation, train), recipe = divide_train_split(dataset, params), params.recipe
    size = min(recipe.batch_size, len(train))
    num_fresh = round(size * recipe.fresh)
    kept_bytes = validation.images_bytes + (train.images_bytes if num_fresh < size else 0)
    cache = True if kept_bytes < available_memory_bytes() * CACHE_MEMORY_SHARE else cache_dir
    encode = _class_encoder(dataset.manifest.spec, first_class)
    with _open_parts(train, params, size=size, num_fresh=num_fresh, cache=cache) as parts:
        yield TrainingBatches(
            train_from=lambda *epochs: _read_ahead(_mix([part.begin(*epochs) for part in parts], size).map(encode)),
            num_steps=len(train) // size,
            validation=_read_ahead(validation.to_tf(batch_size=recipe.batch_size, cache=cache).map(encode)),
            num_train=len(train),
            num_validation=len(validation),
        )


def divide_train_split(dataset: CaptchaDataset, params: ModelParams) -> tuple[CaptchaDataset, CaptchaDataset]:
    """Divide the train split into the part to validate on and the part to train on.

    Raises:
        UserError: nothing is left to train on.
    """
    samples = dataset.split("train")
    num_validation = max(1, round(len(samples) * params.validation_size))
    if num_validation >= len(samples):
        raise UserError(
            f"validation_size is {params.validation_size}, which leaves nothing of {len(samples):,} train samples to train on: "
            "lower it"
        )
    return samples[:num_validation], samples[num_validation:]


@contextmanager
def _open_parts(
    train: CaptchaDataset, params: ModelParams, *, size: int, num_fresh: int, cache: bool | Path
) -> Iterator[list["_StoredPart | _FreshPart"]]:
    """Open what each batch of `size` is made of: samples of the train split, pictures that are drawn, or both."""
    num_steps = len(train) // size
    stored = [_StoredPart(train, params.seed, num_steps, size - num_fresh, cache)] if num_fresh < size else []
    if not num_fresh:
        yield [*stored]
        return
    with needs("a training with `fresh` above 0.0", extra="draw"):
        from captcha_registry.generation.fresh import open_fresh_pictures  # noqa: PLC0415

    with open_fresh_pictures(train.manifest, params.seed) as pictures:
        try:
            yield [*stored, _FreshPart(pictures, train.manifest.spec, params.recipe, num_steps, num_fresh)]
        except tf.errors.OpError as error:
            raise pictures.error or error from None


@dataclass(frozen=True)
class _StoredPart:
    """The part of every batch that is of the train split."""

    samples: CaptchaDataset
    seed: int
    num_steps: int
    num_stored: int
    cache: bool | Path

    def begin(self, epoch: int, _: int) -> tf.data.Dataset:
        """Read batches without end, from the start of an epoch on, each epoch in an order of its own."""
        read = self.samples.to_tf(
            batch_size=self.num_stored, shuffle=True, seed=self.seed, epoch=epoch, cache=self.cache, drop_remainder=True
        )
        return read.take(self.num_steps).repeat()


@dataclass(frozen=True)
class _FreshPart:
    """The part of every batch that is drawn."""

    pictures: "FreshPictures"
    spec: DatasetSpec
    recipe: Recipe
    num_steps: int
    num_fresh: int

    def begin(self, epoch: int, epoch_of_phase: int) -> tf.data.Dataset:
        """Draw batches without end, from the first step of an epoch on; every iteration begins there."""
        shape = (self.num_fresh, self.spec.height, self.spec.width, 3)
        signature = (tf.TensorSpec(shape, tf.uint8), tf.TensorSpec(shape[:1], tf.string))
        return tf.data.Dataset.from_generator(
            lambda: self.pictures.draw_batches(self._list_steps(epoch, epoch_of_phase)), output_signature=signature
        )

    def _list_steps(self, epoch: int, epoch_of_phase: int) -> Iterator[tuple[range, str]]:
        """Yield for each step the numbers of its pictures, and the characters of their texts."""
        emphasis, alphabet = self.recipe.emphasis, self.spec.alphabet
        num_emphasized = emphasis.until * self.recipe.epochs * self.num_steps
        for step in itertools.count():
            first = (epoch * self.num_steps + step) * self.num_fresh
            is_emphasized = epoch_of_phase * self.num_steps + step < num_emphasized
            yield range(first, first + self.num_fresh), emphasis.repeat_in(alphabet) if is_emphasized else alphabet


def _mix(parts: list[tf.data.Dataset], size: int) -> tf.data.Dataset:
    """Make one batch of two parts, both spread over it, as several devices take a slice each."""
    if len(parts) == 1:
        return parts[0]
    places = tf.constant(np.random.default_rng(0).permutation(size))

    def mix(read: tuple[tf.Tensor, tf.Tensor], drawn: tuple[tf.Tensor, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
        images, labels = (tf.gather(tf.concat(both, axis=0), places) for both in zip(read, drawn, strict=True))
        return images, labels

    return tf.data.Dataset.zip(tuple(parts)).map(mix)


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
