"""Read the pictures that a person names, as they come: threads decode ahead of the model, whose batches are what is there."""

import os
import select
import sys
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, Queue

import numpy as np

from captcha_registry.errors import UserError
from captcha_registry.machine import count_usable_cores
from captcha_registry.recognition.model import CaptchaModel, Images
from captcha_registry.recognition.pictures import is_picture, list_pictures, open_picture
from captcha_registry.recognition.readings import Reading

# Of a batch; and batches that are decoded ahead.
MAX_PICTURES, MAX_BYTES = 250, 32_000_000
BATCHES_AHEAD = 4

Decoded = Images | UserError


@dataclass(frozen=True, slots=True)
class Record:
    """What comes of one picture: a reading, or what is wrong with the file."""

    path: str
    reading: Reading | None = None
    error: str | None = None

    def list_texts(self, top: int) -> list[tuple[str, float]]:
        """List the most probable texts with their probabilities."""
        return list(self.reading.alternatives[:top]) if self.reading else []


def list_places(places: Iterable[str]) -> Iterator[str]:
    """Yield the paths that files, folders and patterns stand for, and for `-` those that the lines of standard input do."""
    for place in places:
        for line in _read_lines(sys.stdin.fileno() if sys.stdin else 0) if place == "-" else [place]:
            yield from list_pictures(os.path.expanduser(line))  # noqa: PTH111 - a text stays as it was typed


def _strip(line: bytes) -> bytes:
    return line.removesuffix(b"\r")


def _find_end(start: bytes) -> bytes:
    """Find out what ends each path of a list: NUL, as `find -print0` has it, or a new line; nothing if there is none yet.

    Raises:
        UserError: it is no list.
    """
    if b"\0" in start and is_picture(start):
        raise UserError(
            "standard input holds a picture; expected a list of files, a path on each line: name the picture in the place of -"
        )
    return next((end for end in (b"\0", b"\n") if end in start), b"")


def _read_lines(descriptor: int) -> Iterator[str]:
    """Yield lines, or texts that end with NUL, as soon as they are there, without the blank ones.

    Not by Python's file: the process could not end while a thread waits in that.
    """
    rest = end = b""
    while chunk := _read_some(descriptor):
        rest += chunk
        end = end or _find_end(rest)
        *lines, rest = rest.split(end) if end else [rest]
        yield from (os.fsdecode(line) for line in map(_strip, lines) if line.strip())
    if (rest := _strip(rest)).strip():
        yield os.fsdecode(rest)


def _read_some(descriptor: int) -> bytes:
    """Read what is there; wait for a pipe that does not wait itself, as some programs hand on."""
    while True:
        try:
            return os.read(descriptor, 65_536)
        except BlockingIOError:
            select.select([descriptor], [], [])
        except OSError as error:
            error.filename = "standard input"
            raise


def read_pictures(model: CaptchaModel, paths: Iterable[str], *, resize: bool) -> Generator[list[Record], None, None]:
    """Read pictures; yield a record for each, in order, in batches that wait for no picture that is still to be named.

    Args:
        model: what reads.
        paths: of the files; iterated in a thread of its own.
        resize: scale pictures of another size.
    """
    width, height = model.spec.width, model.spec.height

    def decode(path: str) -> Decoded:
        if not path:
            # Nobody means this folder by that.
            return UserError("the path is empty, perhaps because a variable is not set")
        try:
            return open_picture(Path(path), width, height, resize=resize)
        except UserError as error:
            return error

    for batch in _decode_ahead(paths, decode, max(1, min(MAX_PICTURES, MAX_BYTES // (3 * width * height)))):
        images = [image for _, image in batch if not isinstance(image, UserError)]
        readings = iter(model.read_batch(np.stack(images)) if images else ())
        yield [
            Record(path, error=str(image)) if isinstance(image, UserError) else Record(path, next(readings))
            for path, image in batch
        ]


def _decode_ahead(paths: Iterable[str], decode: Callable[[str], Decoded], batch_size: int) -> Iterator[list[tuple[str, Decoded]]]:
    """Yield batches of decoded pictures with their paths; those that are not full hold all that was named so far."""
    named: Queue[str | Exception | None] = Queue(batch_size)
    stopped = threading.Event()
    threading.Thread(target=_name_paths, args=(paths, named, stopped), daemon=True).start()
    executor = ThreadPoolExecutor(count_usable_cores())
    ahead: deque[tuple[str, Future[Decoded]]] = deque()
    ended = False
    try:
        while ahead or not ended:
            with suppress(Empty):
                while not ended and len(ahead) < BATCHES_AHEAD * batch_size:
                    path = named.get(block=not ahead)
                    if isinstance(path, str):
                        ahead.append((path, executor.submit(decode, path)))
                    elif path:
                        raise path
                    else:
                        ended = True
            yield [(path, decoded.result()) for path, decoded in [ahead.popleft() for _ in range(min(batch_size, len(ahead)))]]
    finally:
        stopped.set()
        executor.shutdown(wait=False, cancel_futures=True)
        # It may wait for room.
        while not named.empty():
            named.get()


def _name_paths(paths: Iterable[str], named: Queue[str | Exception | None], stopped: threading.Event) -> None:
    """Put paths into a queue, and at the end None or the error that ended them."""
    end = None
    try:
        for path in paths:
            named.put(path)
            if stopped.is_set():
                return
    except Exception as error:  # noqa: BLE001 - it is raised where the queue is read
        end = error
    named.put(end)
