"""Any picture becomes what a model reads; anything else is told in a line, and nothing large is decoded for it."""

import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from captcha_registry.errors import UserError
from captcha_registry.recognition.pictures import MAX_PIXELS, list_pictures, open_picture

COLOURS = np.random.default_rng(1).integers(0, 256, (6, 8, 3), np.uint8)


def save(path: Path, mode: str = "RGB", size: tuple[int, int] = (8, 6), **options: object) -> Path:
    picture = Image.fromarray(COLOURS).convert(mode).resize(size, Image.Resampling.NEAREST)
    picture.save(path, **options)
    return path


def png_that_claims(width: int, height: int) -> bytes:
    """A PNG of a few bytes that says that it has this many pixels."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.tiff", "a.ppm", "a.without_a_known_suffix"])
def test_pixels_are_read_as_they_are_in_any_format_that_keeps_them(tmp_path: Path, name: str) -> None:
    form = "PNG" if "without" in name else None
    assert (open_picture(save(tmp_path / name, format=form), 8, 6) == COLOURS).all()


@pytest.mark.parametrize(("mode", "name"), [("L", "a.png"), ("1", "a.png"), ("P", "a.gif"), ("CMYK", "a.jpg"), ("RGB", "a.webp")])
def test_pictures_of_other_modes_become_red_green_blue(tmp_path: Path, mode: str, name: str) -> None:
    image = open_picture(save(tmp_path / name, mode), 8, 6)
    assert (image.shape, image.dtype) == ((6, 8, 3), np.uint8)


def test_what_is_transparent_is_white(tmp_path: Path) -> None:
    picture = Image.fromarray(COLOURS).convert("RGBA")
    picture.putpixel((3, 2), (0, 0, 0, 0))
    picture.save(tmp_path / "a.png")
    expected = COLOURS.copy()
    expected[2, 3] = 255
    assert (open_picture(tmp_path / "a.png", 8, 6) == expected).all()


def test_another_size_is_refused_or_scaled(tmp_path: Path) -> None:
    save(tmp_path / "a.png", size=(80, 60))
    with pytest.raises(
        UserError, match=r"^80x60 pixels; the model reads 8x6: scale it, as `captcha-registry predict --resize` does"
    ):
        open_picture(tmp_path / "a.png", 8, 6)
    scaled = open_picture(tmp_path / "a.png", 8, 6, resize=True)
    assert np.abs(scaled.astype(int) - COLOURS).mean() < 20


@pytest.mark.parametrize("side", [5_000, 12_000, 65_000])
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_a_bomb_is_not_decoded(tmp_path: Path, side: int) -> None:
    (tmp_path / "bomb.png").write_bytes(png_that_claims(side, side))
    with pytest.raises(UserError, match=rf"pictures of up to {MAX_PIXELS:,}|cannot be read: .*bomb"):
        open_picture(tmp_path / "bomb.png", 8, 6, resize=True)
    with pytest.raises(UserError, match=r"the model reads 8x6|cannot be read: .*bomb"):
        open_picture(tmp_path / "bomb.png", 8, 6)


def test_what_is_no_picture_is_told(tmp_path: Path) -> None:
    content = save(tmp_path / "whole.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(content[:-30])
    (tmp_path / "text.png").write_text("a text")
    (tmp_path / "empty.png").touch()
    (tmp_path / "drawing.eps").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 6\n%%EndComments\n")
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "folder").mkdir()
    problems = {
        "cut.png": "^cannot be read: .*truncated",
        "text.png": "^no picture, or a damaged one; expected PNG, JPEG",
        "empty.png": "^no picture",
        "drawing.eps": "^no picture",
        "pipe.png": "^neither a file nor a folder",
        "folder": r"^a folder without pictures; expected files named \*.png",
        "nothing.png": "^there is no such file",
        "na\0me.png": "^cannot be read: embedded null byte",
    }
    for name, problem in problems.items():
        with pytest.raises(UserError, match=problem):
            open_picture(tmp_path / name, 8, 6)


def test_a_folder_stands_for_its_pictures_by_name(tmp_path: Path) -> None:
    for name in ("b/2.png", "b/10.PNG", "a/x.jpeg", "c.webp", "labels.csv", ".hidden.png", ".git/a.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    listed = [Path(path).relative_to(tmp_path).as_posix() for path in list_pictures(str(tmp_path))]
    assert listed == ["c.webp", "a/x.jpeg", "b/10.PNG", "b/2.png"]


def test_a_pattern_stands_for_what_fits_it_unless_a_file_is_called_so(tmp_path: Path) -> None:
    for name in ("1.png", "2.png", "3.jpg", "[1].png"):
        (tmp_path / name).touch()
    fitting = {"[12].png": ["1.png", "2.png"], "[1].png": ["[1].png"], "*.gif": ["*.gif"], "none": ["none"], "*\0": ["*\0"]}
    for pattern, names in fitting.items():
        assert list(list_pictures(f"{tmp_path}/{pattern}")) == [f"{tmp_path}/{name}" for name in names]
