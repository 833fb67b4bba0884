"""Any picture becomes what a model reads; anything else is told in a line, and nothing large is decoded for it."""

import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from conftest import as_another_user
from PIL import ExifTags, Image

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


def test_sixteen_bits_a_channel_become_eight(tmp_path: Path) -> None:
    grey = COLOURS[..., 0]
    Image.fromarray(grey.astype(np.uint16) * 257).save(tmp_path / "a.png")
    Image.fromarray(grey.astype(np.uint16) * 257).save(tmp_path / "a.tiff")
    for name in ("a.png", "a.tiff"):
        assert (open_picture(tmp_path / name, 8, 6) == grey[..., None]).all()
    Image.fromarray(grey.astype(np.float32) / 255).save(tmp_path / "float.tiff")
    with pytest.raises(UserError, match="its pixels have 32 bits; expected 8 bits a channel, or 16"):
        open_picture(tmp_path / "float.tiff", 8, 6)


def test_a_picture_is_read_the_way_up_that_its_camera_has_noted(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6  # the camera was turned to the right
    Image.fromarray(np.rot90(COLOURS)).save(tmp_path / "turned.png", exif=exif)
    assert (open_picture(tmp_path / "turned.png", 8, 6) == COLOURS).all()
    Image.fromarray(COLOURS).save(tmp_path / "as_if_turned.png", exif=exif)
    for name in ("as_if_turned.png", "lying.png"):
        Image.fromarray(np.rot90(COLOURS)).save(tmp_path / "lying.png")
        with pytest.raises(UserError, match="6x8 pixels; the model reads 8x6"):
            open_picture(tmp_path / name, 8, 6)
        assert open_picture(tmp_path / name, 8, 6, resize=True).shape == (6, 8, 3)


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
        UserError, match=r"^80x60 pixels; the model reads 8x6: scale it, with .* --resize .* `picture\.resize\(\(8, 6\)\)`"
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
    (tmp_path / "link.png").symlink_to("nowhere")
    problems = {
        "link.png": "^a symbolic link that leads nowhere: remove it$",
        "cut.png": "^cannot be read: .*truncated",
        "text.png": "^no picture, or a damaged one; expected PNG, JPEG",
        "empty.png": "^no picture",
        "drawing.eps": "^no picture",
        "pipe.png": "^neither a file nor a folder",
        "folder": r"^a folder without pictures; expected files named \*.png",
        "nothing.png": "^there is no such file or folder",
        "nowhere/*.png": r"^no file has a name like this; a \[ of a name is written \[\[\] in a pattern$",
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


def test_links_are_followed_but_in_no_circle(tmp_path: Path) -> None:
    for name in ("top/a/1.png", "top/b/2.png", "other/3.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).touch()
    (tmp_path / "top/4.png").symlink_to("../other/3.png")
    (tmp_path / "top/5.png").symlink_to("nowhere.png")
    (tmp_path / "top/6.png").symlink_to("6.png")
    (tmp_path / "top/c").symlink_to("../other")
    (tmp_path / "top/a/up").symlink_to("../..")
    (tmp_path / "top/b/beside").symlink_to("../a")
    (tmp_path / "link").symlink_to("top")
    # What links of folders lead to stands there, too, but not again in itself.
    inside = ["4.png", "5.png", "6.png", "a/1.png", "a/up/other/3.png", "b/2.png", "b/beside/1.png", "b/beside/up/other/3.png"]
    inside += ["c/3.png"]
    assert list(list_pictures(str(tmp_path / "top"))) == [f"{tmp_path}/top/{name}" for name in inside]
    assert list(list_pictures(str(tmp_path / "link")))[:4] == [f"{tmp_path}/link/{name}" for name in inside[:4]]


def test_a_folder_that_nobody_may_look_into_is_named(public_folder: Path) -> None:
    (public_folder / "closed").mkdir(mode=0o000)
    (public_folder / "open.png").touch()
    with as_another_user():
        assert list(list_pictures(str(public_folder))) == [f"{public_folder}/open.png", f"{public_folder}/closed"]


def test_a_pattern_stands_for_what_fits_it_unless_a_file_is_called_so(tmp_path: Path) -> None:
    for name in ("1.png", "2.png", "3.jpg", "[1].png"):
        (tmp_path / name).touch()
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/4.png").touch()
    assert len(list(list_pictures(f"{tmp_path}/**"))) == 5
    fitting = {"[12].png": ["1.png", "2.png"], "[1].png": ["[1].png"], "*.gif": ["*.gif"], "none": ["none"], "*\0": ["*\0"]}
    for pattern, names in fitting.items():
        assert list(list_pictures(f"{tmp_path}/{pattern}")) == [f"{tmp_path}/{name}" for name in names]
