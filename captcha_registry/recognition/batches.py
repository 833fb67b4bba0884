"""tf.data pipelines: shards in parallel, each picture decoded once, cached as uint8, shuffled, batched, prefetched.

Cycle and block length of the interleave are fixed, because they decide the order of the samples; only the number of
threads is left to the machine.
"""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import tensorflow as tf

from captcha_registry.dataset.folder import DatasetFolder
from captcha_registry.dataset.spec import DatasetSpec
from captcha_registry.errors import UserError
from captcha_registry.machine import available_memory_bytes
from captcha_registry.workspace import require_free_space

INTERLEAVE_SHARDS = 4
INTERLEAVE_RECORDS = 16

# A share of the memory that is free: the rest is for the network and for everybody else.
CACHE_MEMORY_SHARE = 0.5

# Samples in the shuffle buffer when the cache is on disk; a cache in memory shares its pictures with the buffer.
DISK_SHUFFLE_SAMPLES = 10_000


@dataclass(frozen=True)
class TrainingBatches:
    """Batches of `(images uint8 (batch, height, width, 3), classes int32 (batch, longest text))`, shorter texts filled with 0."""

    train: tf.data.Dataset
    validation: tf.data.Dataset
    num_train: int
    num_validation: int


def load_training_batches(
    dataset: DatasetFolder, *, first_class: int, batch_size: int, validation_size: float, seed: int, cache_dir: Path
) -> TrainingBatches:
    """Divide the train split into a part to learn from and a part to validate on; test is not opened.

    Args:
        dataset: a split dataset.
        batch_size: samples in a batch; what does not fill a batch at the end of an epoch is left out of it.
        first_class: class of the alphabet's first character.
        validation_size: share of the train split that is held out.
        seed: of the shuffle.
        cache_dir: where pictures are cached when they do not fit in memory; emptied first.
    """
    spec = dataset.manifest.spec
    num_samples = dataset.rows("train").num_rows
    num_validation = max(1, round(num_samples * validation_size))
    num_train = num_samples - num_validation
    if num_train < 1:
        raise UserError(
            f"validation_size is {validation_size}, which leaves nothing of {num_samples:,} train samples to train on: lower it"
        )
    # tf.data takes the cache that a killed run left unfinished for one that another run is writing.
    if cache_dir.exists():
        shutil.rmtree(cache_dir)
    cache_dir.mkdir()
    cache_bytes = spec.width * spec.height * 3 * num_samples
    in_memory = cache_bytes < available_memory_bytes() * CACHE_MEMORY_SHARE
    if not in_memory:
        require_free_space(cache_dir, cache_bytes)

    def decode_and_cache(records: tf.data.Dataset, name: str) -> tf.data.Dataset:
        samples = records.map(_sample_decoder(spec, first_class), num_parallel_calls=tf.data.AUTOTUNE)
        return samples.cache("" if in_memory else str(cache_dir / name))

    records = _read_records(dataset.shard_paths("train"))
    validation = decode_and_cache(records.take(num_validation), "validation")
    train = decode_and_cache(records.skip(num_validation), "train")
    train = train.shuffle(num_train if in_memory else DISK_SHUFFLE_SAMPLES, seed=seed, reshuffle_each_iteration=True)
    return TrainingBatches(
        train=_batch(train, min(batch_size, num_train), num_train, drop_remainder=True),
        validation=_batch(validation, batch_size, num_validation, drop_remainder=False),
        num_train=num_train,
        num_validation=num_validation,
    )


def load_images(dataset: DatasetFolder, split: str, batch_size: int) -> tf.data.Dataset:
    """Yield `(ids int64 (batch,), images uint8 (batch, height, width, 3))` of every sample of a split."""
    spec = dataset.manifest.spec
    records = _read_records(dataset.shard_paths(split))
    samples = records.map(lambda record: _parse_image(record, spec), num_parallel_calls=tf.data.AUTOTUNE)
    return samples.batch(batch_size).prefetch(tf.data.AUTOTUNE)


def _read_records(shard_paths: list[Path]) -> tf.data.Dataset:
    return tf.data.Dataset.from_tensor_slices([str(path) for path in shard_paths]).interleave(
        tf.data.TFRecordDataset,
        cycle_length=INTERLEAVE_SHARDS,
        block_length=INTERLEAVE_RECORDS,
        num_parallel_calls=tf.data.AUTOTUNE,
        deterministic=True,
    )


def _batch(samples: tf.data.Dataset, batch_size: int, num_samples: int, *, drop_remainder: bool) -> tf.data.Dataset:
    num_batches = num_samples // batch_size if drop_remainder else -(-num_samples // batch_size)
    batches = samples.batch(batch_size, drop_remainder=drop_remainder, num_parallel_calls=tf.data.AUTOTUNE)
    return batches.apply(tf.data.experimental.assert_cardinality(num_batches)).prefetch(tf.data.AUTOTUNE)


def _parse_image(record: tf.Tensor, spec: DatasetSpec) -> tuple[tf.Tensor, tf.Tensor]:
    features = {"id": tf.io.FixedLenFeature([], tf.int64), "image": tf.io.FixedLenFeature([], tf.string)}
    sample = tf.io.parse_single_example(record, features)
    image = tf.io.decode_png(sample["image"], channels=3)
    return sample["id"], tf.ensure_shape(image, (spec.height, spec.width, 3))


def _sample_decoder(spec: DatasetSpec, first_class: int) -> Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]:
    """Make the function from a record to `(image uint8, classes int32 (longest text,))`."""
    classes_by_byte = [spec.alphabet.find(chr(byte)) + first_class for byte in range(256)]

    def decode_sample(record: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        _, image = _parse_image(record, spec)
        label = tf.io.parse_single_example(record, {"label": tf.io.FixedLenFeature([], tf.string)})["label"]
        classes = tf.gather(tf.constant(classes_by_byte, tf.int32), tf.cast(tf.io.decode_raw(label, tf.uint8), tf.int32))
        padded = tf.pad(classes, [[0, spec.max_length - tf.size(classes)]])
        return image, tf.ensure_shape(padded, (spec.max_length,))

    return decode_sample
