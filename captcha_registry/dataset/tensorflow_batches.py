"""Batches of a dataset's shards for TensorFlow."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from captcha_registry.dataset.spec import DatasetSpec


def read_batches(
    paths: Sequence[str],
    wanted: npt.NDArray[np.bool_],
    spec: DatasetSpec,
    batch_size: int,
    *,
    shuffle_buffer: int,
    seed: int | None,
) -> tf.data.Dataset:
    """Read `(images uint8 (batch, height, width, 3), labels string (batch,))` from TFRecord shards.

    Args:
        paths: the shards.
        wanted: for each sample id whether it is to be read.
        spec: the dataset's.
        batch_size: samples in a batch; the last one may have fewer.
        shuffle_buffer: records that wait to be drawn at random; 0 keeps the order.
        seed: of the shuffle.
    """
    features = {"id": tf.io.FixedLenFeature([], tf.int64)}
    features |= {name: tf.io.FixedLenFeature([], tf.string) for name in ("image", "label")}

    def decode(sample: dict[str, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
        image = tf.io.decode_png(sample["image"], channels=3)
        return tf.ensure_shape(image, (spec.height, spec.width, 3)), sample["label"]

    shards = tf.data.Dataset.from_tensor_slices(list(paths))
    if shuffle_buffer:
        shards = shards.shuffle(len(paths), seed=seed, reshuffle_each_iteration=True)
    samples = shards.flat_map(tf.data.TFRecordDataset)
    samples = samples.map(lambda record: tf.io.parse_single_example(record, features), num_parallel_calls=tf.data.AUTOTUNE)
    mask = tf.constant(wanted)
    samples = samples.filter(lambda sample: mask[sample["id"]])
    if shuffle_buffer:
        samples = samples.shuffle(shuffle_buffer, seed=seed, reshuffle_each_iteration=True)
    batches = samples.map(decode, num_parallel_calls=tf.data.AUTOTUNE).batch(batch_size)
    num_batches = -(-int(np.count_nonzero(wanted)) // batch_size)
    return batches.apply(tf.data.experimental.assert_cardinality(num_batches)).prefetch(tf.data.AUTOTUNE)
