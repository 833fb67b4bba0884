"""Pictures that are drawn while a network trains on them: with the settings of a dataset, but part of no dataset.

Picture *n* of a training follows from the seeds of dataset and training and from *n*, whoever draws it. The stream of a
dataset's sample has a key below 2^128 (`drawing.sample_stream`), whatever the spec and however far the dataset grows; the keys
of the streams here start at 2^128. So no sample, of the test split or any other, has the stream of a fresh picture.
"""

import hashlib
import random
import tempfile
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Executor, Future
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from captcha_registry.dataset.manifest import Manifest
from captcha_registry.dataset.spec import DatasetSpec
from captcha_registry.generation.drawing import Drawer, make_drawer
from captcha_registry.generation.executors import local_processes
from captcha_registry.machine import count_workers

# Pictures `(number, height, width, 3)` uint8, and their texts.
Pictures = tuple[npt.NDArray[np.uint8], list[str]]

# Of the pictures that a worker draws at a time: 341 of 128x64.
CHUNK_BYTES = 8 << 20
# Drawn or being drawn when a batch is asked for; more than one, lest a worker wait for the next.
CHUNKS_PER_WORKER = 2


def find_key(dataset_seed: int, training_seed: int, number: int) -> int:
    """Find the key of the stream of a fresh picture, from 2^128 on."""
    digest = hashlib.blake2b(f"{dataset_seed}/{training_seed}/{number}".encode(), digest_size=16, person=b"fresh").digest()
    return (1 << 128) + int.from_bytes(digest, "little")


def draw_chunk(spec: DatasetSpec, font_files: tuple[bytes, ...], training_seed: int, numbers: range, characters: str) -> Pictures:
    """Draw the fresh pictures of some numbers, their texts of `characters` (see `Drawer.draw_from`)."""
    drawer = _open_drawer(spec, font_files)
    images = np.empty((len(numbers), spec.height, spec.width, 3), np.uint8)
    texts = []
    for place, number in enumerate(numbers):
        stream = random.Random(find_key(spec.seed, training_seed, number))  # noqa: S311 - pictures, not secrets
        drawn = drawer.draw_from(stream, characters)
        images[place] = drawn.pixels
        texts.append(drawn.label)
    return images, texts


def draw_file(*arguments: Any) -> Path:
    """Draw a chunk into a file, and return where it is.

    What a worker returns goes through a pipe that all of them share: megabytes that a kill cuts off would be waited for for ever.
    """
    images, texts = draw_chunk(*arguments)
    with tempfile.NamedTemporaryFile(suffix=".npy", delete=False) as file:
        np.save(file, images)
        np.save(file, np.array(texts))
    return Path(file.name)


@lru_cache(maxsize=1)
def _open_drawer(spec: DatasetSpec, font_files: tuple[bytes, ...]) -> Drawer:
    """Keep the drawer of a worker, and with it the glyphs that it has drawn."""
    return Drawer(spec, font_files)


class FreshPictures:
    """Draws batches in order with the workers of an executor, some ahead of those that are asked for.

    Attributes:
        error: what went wrong, if something did; TensorFlow passes on its words only.
    """

    def __init__(self, drawer: Drawer, training_seed: int, executor: Executor, num_ahead: int) -> None:
        """Draw pictures of a dataset for the training with a seed, up to `num_ahead` chunks and one batch ahead."""
        self._spec, self._font_files = drawer.spec, drawer.font_files
        self._seed, self._executor, self._num_ahead = training_seed, executor, num_ahead
        self.error: Exception | None = None

    def draw_batches(self, batches: Iterable[tuple[range, str]]) -> Iterator[Pictures]:
        """Yield the pictures of each batch, which is told by their numbers and the characters of their texts."""
        waiting: deque[list[Future[Path]]] = deque()
        try:
            for numbers, characters in batches:
                waiting.append([self._submit(chunk, characters) for chunk in self._cut(numbers)])
                while sum(map(len, waiting)) > self._num_ahead:
                    yield _join(waiting.popleft())
            while waiting:
                yield _join(waiting.popleft())
        except Exception as error:
            self.error = error
            raise
        finally:
            for future in [future for batch in waiting for future in batch]:
                future.cancel()

    def _cut(self, numbers: range) -> list[range]:
        """Cut the numbers of a batch into those of its chunks."""
        size = max(1, CHUNK_BYTES // (self._spec.height * self._spec.width * 3))
        return [numbers[start : start + size] for start in range(0, len(numbers), size)]

    def _submit(self, numbers: range, characters: str) -> Future[Path]:
        return self._executor.submit(draw_file, self._spec, self._font_files, self._seed, numbers, characters)


def _join(chunks: list[Future[Path]]) -> Pictures:
    """Wait for the chunks of a batch and put them together; their files are deleted."""
    pictures = [_take(chunk.result()) for chunk in chunks]
    if len(pictures) == 1:
        return pictures[0]
    return np.concatenate([images for images, _ in pictures]), [text for _, texts in pictures for text in texts]


def _take(path: Path) -> Pictures:
    """Read a chunk and delete its file."""
    with path.open("rb") as file:
        images, texts = np.load(file), np.load(file).tolist()
    path.unlink()
    return images, texts


@contextmanager
def open_fresh_pictures(manifest: Manifest, training_seed: int) -> Iterator[FreshPictures]:
    """Open what draws pictures of a dataset in worker processes, which end with the block or this process.

    Raises:
        UserError: this version of the project, or the fonts at hand, would draw other pictures; a worker was killed.
    """
    drawer = make_drawer(manifest, "train with `fresh: 0.0`")
    num_workers = count_workers()
    # An operation of the network is as slow as the slowest of its threads: what they leave of the cores is enough to draw.
    with local_processes(num_workers, niceness=10) as executor:
        yield FreshPictures(drawer, training_seed, executor, CHUNKS_PER_WORKER * num_workers)
