"""A PNG of ours holds every pixel, is valid to the letter, and has the same bytes wherever it is made."""

import os
import struct
import subprocess
import sys
import zlib
from hashlib import sha256
from io import BytesIO

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from captcha_registry.generation.png import encode_png

Pixels = npt.NDArray[np.uint8]

PIXELS = st.tuples(st.integers(1, 40), st.integers(1, 40), st.just(3)).flatmap(lambda shape: arrays(np.uint8, shape))


def decode(data: bytes) -> Pixels:
    with Image.open(BytesIO(data)) as picture:
        assert (picture.format, picture.mode) == ("PNG", "RGB")
        return np.asarray(picture)


def split_chunks(data: bytes) -> list[tuple[bytes, bytes, int]]:
    """Return name, content and checksum of every chunk, down to the last byte."""
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    chunks, place = [], 8
    while place < len(data):
        (size,) = struct.unpack_from(">I", data, place)
        name, content = data[place + 4 : place + 8], data[place + 8 : place + 8 + size]
        chunks.append((name, content, *struct.unpack_from(">I", data, place + 8 + size)))
        place += size + 12
    assert place == len(data)
    return chunks


def make_noise(height: int, width: int) -> Pixels:
    return np.random.default_rng(height * width).integers(0, 256, (height, width, 3), np.uint8)


@given(PIXELS)
def test_encoding_keeps_every_pixel(pixels: Pixels) -> None:
    assert np.array_equal(decode(encode_png(pixels)), pixels)


@pytest.mark.parametrize("size", [(1, 1), (1, 1024), (1024, 1), (16, 1024), (1024, 1024)], ids=str)
def test_a_picture_of_any_size_keeps_its_noise(size: tuple[int, int]) -> None:
    assert np.array_equal(decode(encode_png(make_noise(*size))), make_noise(*size))


@pytest.mark.parametrize("view", [np.s_[::-1], np.s_[:, ::2], np.s_[:, :, ::-1]], ids=["flipped", "thinned", "bgr"])
def test_a_view_of_other_pixels_is_encoded_as_what_it_shows(view: tuple[slice, ...]) -> None:
    pixels = make_noise(20, 30)[view]
    assert np.array_equal(decode(encode_png(pixels)), pixels)


@given(PIXELS)
def test_encoding_leaves_the_pixels_alone_and_gives_the_same_bytes_again(pixels: Pixels) -> None:
    before = pixels.copy()
    assert encode_png(pixels) == encode_png(before)
    assert np.array_equal(pixels, before)


@given(PIXELS)
def test_a_file_is_a_valid_png_of_eight_bits_a_channel(pixels: Pixels) -> None:
    data = encode_png(pixels)
    chunks = split_chunks(data)
    assert all(checksum == zlib.crc32(name + content) for name, content, checksum in chunks)
    assert [name for name, _, _ in chunks] == [b"IHDR", b"IDAT", b"IEND"]
    height, width, _ = pixels.shape
    # Eight bits; colour type 2 is RGB; the one compression and the one set of filters there are; not interlaced.
    assert struct.unpack(">IIBBBBB", chunks[0][1]) == (width, height, 8, 2, 0, 0, 0)
    Image.open(BytesIO(data)).verify()


ENCODE_NOISE = """
from hashlib import sha256
import numpy as np
from captcha_registry.generation.png import encode_png
pixels = np.random.default_rng(1200).integers(0, 256, (30, 40, 3), np.uint8)
print(sha256(encode_png(pixels)).hexdigest(), sha256(encode_png(pixels // 64 * 64)).hexdigest())
"""


@pytest.mark.parametrize("hash_seed", ["0", "1"])
def test_a_fresh_process_encodes_to_the_same_bytes(hash_seed: str) -> None:
    environment = os.environ | {"PYTHONHASHSEED": hash_seed}
    done = subprocess.run([sys.executable, "-c", ENCODE_NOISE], env=environment, capture_output=True, text=True, check=True)
    noise = make_noise(30, 40)
    assert done.stdout.split() == [sha256(encode_png(pixels)).hexdigest() for pixels in (noise, noise // 64 * 64)]
