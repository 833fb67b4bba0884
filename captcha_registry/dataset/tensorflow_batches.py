"""Batches of a dataset's samples for TensorFlow.

    numbers -> records, a few at a time -> pictures, decoded in every core -> batches
    numbers -> batches of pictures that were decoded before and kept

What comes first is an order of numbers: that of the selection, or a permutation that seed and epoch decide. So the order does
not depend on threads, on shards, or on where pictures are kept.
"""

import itertools
import math
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from captcha_registry.dataset.quiet_tensorflow import tf
from captcha_registry.workspace import require_free_space

if TYPE_CHECKING:
    from captcha_registry.dataset.dataset import CaptchaDataset

# Records that one call into Python reads; a call costs as much as reading ten.
RECORDS_AT_ONCE = 128

_FEATURES = {"id": tf.io.FixedLenFeature([], tf.int64)}
_FEATURES |= {name: tf.io.FixedLenFeature([], tf.string) for name in ("image", "label")}


@dataclass(frozen=True, slots=True)
class Order:
    """In which order samples are read.

    Attributes:
        num_samples: how many there are.
        shuffle: whether each epoch has an order of its own.
        seed: of the orders; without one they are never the same.
        epoch: number of the epoch that is read first.
    """

    num_samples: int
    shuffle: bool = False
    seed: int | None = None
    epoch: int = 0

    def in_epoch(self, epoch: int) -> npt.NDArray[np.int64]:
        """List the numbers of the samples in the order of one epoch."""
        if not self.shuffle:
            return np.arange(self.num_samples)
        return np.random.default_rng(None if self.seed is None else (self.seed, epoch)).permutation(self.num_samples)

    def list_numbers(self, size: int, *, drop_remainder: bool = False) -> tf.data.Dataset:
        """Yield the numbers, `size` at a time; every iteration is the next epoch."""
        epochs = itertools.count(self.epoch)

        def list_epoch() -> Iterator[npt.NDArray[np.int64]]:
            # All in one: a call into Python for every batch takes longer than the batch.
            yield self.in_epoch(next(epochs))

        numbers = tf.data.Dataset.from_generator(list_epoch, output_signature=tf.TensorSpec([self.num_samples], tf.int64))
        return numbers.flat_map(tf.data.Dataset.from_tensor_slices).batch(size, drop_remainder=drop_remainder)


def make_batches(
    dataset: "CaptchaDataset", order: Order, batch_size: int, *, drop_remainder: bool, images: tf.Tensor | None
) -> tf.data.Dataset:
    """Yield `(images uint8 (batch, height, width, 3), labels string (batch,))` of samples whose shards are on this disk.

    Args:
        dataset: the samples.
        order: in which they come.
        batch_size: samples in a batch.
        drop_remainder: whether what does not fill the last batch is left out.
        images: the pictures, if they were decoded before (see `keep_images`).
    """
    # TensorFlow makes room for a complete batch, and where that is too much ends the process.
    batch_size = min(batch_size, len(dataset) + 1)
    if images is None:
        samples = _decode_samples(dataset, order)
        batches = samples.batch(batch_size, drop_remainder=drop_remainder, num_parallel_calls=tf.data.AUTOTUNE)
    else:
        batches = _gather_batches(dataset, order, batch_size, drop_remainder=drop_remainder, images=images)
    num_batches = len(dataset) // batch_size if drop_remainder else -(-len(dataset) // batch_size)
    return batches.apply(tf.data.experimental.assert_cardinality(num_batches)).prefetch(tf.data.AUTOTUNE)


def keep_images(dataset: "CaptchaDataset", folder: Path | None) -> tf.Tensor:
    """Decode every picture once, with a progress bar; return them, in memory or mapped from disk.

    Args:
        dataset: samples whose shards are on this disk.
        folder: where the file is that holds them, without a name, so that nothing is left of it however the process ends.

    Raises:
        UserError: the disk cannot hold them.
    """
    spec = dataset.manifest.spec
    shape = (len(dataset), spec.height, spec.width, 3)
    if not len(dataset):
        return tf.zeros(shape, tf.uint8)
    if folder is None:
        # As one batch: NumPy in its place waits for the interpreter at every step, and takes twice the time.
        (images,) = _decode_all(dataset, len(dataset))
        return images
    folder.mkdir(parents=True, exist_ok=True)
    require_free_space(folder, math.prod(shape))
    with tempfile.TemporaryFile(dir=folder) as file:
        for images in _decode_all(dataset, RECORDS_AT_ONCE):
            file.write(images.numpy().data)
        file.flush()
        # Copied where it is written to, which it is not; what cannot be written to, TensorFlow does not take.
        images = np.asarray(np.memmap(file, np.uint8, "c", shape=shape))
        return tf.experimental.dlpack.from_dlpack(images.__dlpack__())


def _decode_all(dataset: "CaptchaDataset", size: int) -> Iterator[tf.Tensor]:
    """Yield the pictures of all samples, `size` at a time, with a progress bar."""
    with tqdm(total=len(dataset), unit=" samples", desc="decoding", disable=None) as progress:
        samples = _decode_samples(dataset, Order(len(dataset)), progress.update)
        for images, _ in samples.batch(size, num_parallel_calls=tf.data.AUTOTUNE):
            yield images


def _decode_samples(dataset: "CaptchaDataset", order: Order, tell: Callable[[int], object] = lambda _: None) -> tf.data.Dataset:
    """Read and decode one sample after the other; tell how many more are read."""
    spec, ids = dataset.manifest.spec, tf.constant(dataset.index["id"].to_numpy())

    def read_records(numbers: npt.NDArray[np.int64]) -> npt.NDArray[np.object_]:
        tell(len(numbers))
        return dataset.read_records(numbers)

    def read(numbers: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        # Without state: else one thread would call it where TensorFlow was told to be deterministic.
        records = tf.numpy_function(read_records, [numbers], tf.string, stateful=False)
        samples = tf.io.parse_example(tf.ensure_shape(records, [None]), _FEATURES)
        tf.debugging.assert_equal(samples["id"], tf.gather(ids, numbers), "a record is not the one that the index names")
        return samples["image"], samples["label"]

    def decode(image: tf.Tensor, label: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return tf.ensure_shape(tf.io.decode_png(image, channels=3), (spec.height, spec.width, 3)), label

    records = order.list_numbers(RECORDS_AT_ONCE).map(read, num_parallel_calls=tf.data.AUTOTUNE)
    return records.unbatch().map(decode, num_parallel_calls=tf.data.AUTOTUNE)


def _gather_batches(
    dataset: "CaptchaDataset", order: Order, batch_size: int, *, drop_remainder: bool, images: tf.Tensor
) -> tf.data.Dataset:
    """Take batches out of decoded pictures."""
    labels = tf.constant(dataset.index["label"].to_pylist(), tf.string)

    def gather(numbers: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return tf.gather(images, numbers), tf.gather(labels, numbers)

    numbers = order.list_numbers(batch_size, drop_remainder=drop_remainder)
    return numbers.map(gather, num_parallel_calls=tf.data.AUTOTUNE)
