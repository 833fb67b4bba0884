"""A picture file as a model sees it; the file may be anybody's, and anything."""

import os
import re
import stat
from collections.abc import Iterator
from glob import glob, has_magic
from io import BytesIO
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from captcha_registry.errors import UserError

# What is opened; other formats of Pillow's start other programs, or are rare. Then what such files are called.
FORMATS = ("PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF", "PPM")
SUFFIXES = (".png", ".jpg", ".jpeg", ".gif", ".bmp", ".webp", ".tif", ".tiff", ".ppm")
# The largest picture that is scaled: a small file may say that it has billions.
MAX_PIXELS = 2**24
# A path has one slash less than the URL that it was made from.
URL = re.compile(r"[a-z][a-z0-9+.-]+:/", re.IGNORECASE)


def open_picture(path: Path, width: int, height: int, *, resize: bool = False) -> npt.NDArray[np.uint8]:
    """Decode a picture as it is shown: the way up that a camera noted, on white; of an animation the first frame.

    Args:
        path: of the file.
        width: that the model reads.
        height: that the model reads.
        resize: scale a picture of another size.

    Returns:
        `(height, width, 3)`.

    Raises:
        UserError: there is no such file, it is no picture or a damaged one, or it has another size. The path is not in it.
    """
    try:
        _require_file(path)
        with Image.open(path, formats=FORMATS) as picture:
            if picture.size != (height, width):  # of a picture that lies on its side, maybe
                require_size(picture.size, (width, height), resize=resize)
            shown = flatten(ImageOps.exif_transpose(picture))
            require_size(shown.size, (width, height), resize=resize)
            return np.asarray(shown if shown.size == (width, height) else shown.resize((width, height), Image.Resampling.BICUBIC))
    except UserError:
        raise
    except FileNotFoundError:
        raise UserError(_explain_absence(os.fspath(path))) from None
    except UnidentifiedImageError:
        raise UserError(f"no picture, or a damaged one; expected {', '.join(FORMATS)}") from None
    # Decoders raise whatever comes of what a stranger has written; the text is told.
    except Exception as error:
        problem = getattr(error, "strerror", None) or " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"cannot be read: {problem}") from error


def _require_file(path: Path) -> None:
    """Refuse what is not a file before it is opened: a pipe would wait for a writer."""
    mode = path.stat().st_mode
    if stat.S_ISDIR(mode):
        os.scandir(path).close()  # it may be one that nobody may look into
        raise UserError(f"a folder without pictures; expected files named {' '.join(f'*{suffix}' for suffix in SUFFIXES)}")
    if not stat.S_ISREG(mode):
        raise UserError("neither a file nor a folder")


def _explain_absence(place: str) -> str:
    if URL.match(place):
        return "a URL, which is not read: download the picture, and name the file"
    if Path(place).is_symlink():
        return "a symbolic link that leads nowhere: remove it"
    if has_magic(place):
        return "no file has a name like this; a [ of a name is written [[] in a pattern"
    return "there is no such file or folder"


def is_picture(content: bytes) -> bool:
    """Tell whether some bytes are the beginning of a picture."""
    try:
        Image.open(BytesIO(content), formats=FORMATS).close()
    # Decoders raise whatever comes.
    except Exception:  # noqa: BLE001 - then it is none
        return False
    return True


def require_size(found: tuple[int, int], expected: tuple[int, int], *, resize: bool) -> None:
    """Refuse a size before anything of that size is decoded.

    Raises:
        UserError: it is another than expected, or with `resize` larger than is scaled.
    """
    size = "{:,}x{:,} pixels".format(*found)
    if resize and found[0] * found[1] > MAX_PIXELS:
        raise UserError(f"{size}; pictures of up to {MAX_PIXELS:,} pixels are scaled")
    if not resize and found != expected:
        raise UserError(
            "{0}; the model reads {1}x{2}: scale it, with the option --resize of `captcha-registry predict`, or in Python with "
            "Pillow's `picture.resize(({1}, {2}))`".format(size, *expected)
        )


def flatten(picture: Image.Image) -> Image.Image:
    """Turn a picture into RGB, on white where it is transparent.

    Raises:
        UserError: nobody can tell which of its values is white.
    """
    if picture.mode in {"I", "F"}:
        raise UserError("its pixels have 32 bits; expected 8 bits a channel, or 16 in a grey or coloured PNG or TIFF")
    if picture.mode.startswith("I;16"):
        # Pillow makes white of all that is above 255.
        picture = Image.fromarray((np.asarray(picture) // 257).astype(np.uint8))
    if not picture.has_transparency_data:
        return picture.convert("RGB")
    layer = picture.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")


def list_pictures(place: str) -> Iterator[str]:
    """Yield the paths that a file, a folder or a pattern stands for: files with the suffix of a picture, however deep, by name.

    Links to files and folders are followed, but for those that lead back to a folder that they are in.

    What stands for nothing is yielded as it is, so that `open_picture` tells what is wrong with it.
    """
    if os.path.isdir(place):  # noqa: PTH112 - a text stays as it was typed, and need not be a path
        paths = _walk(place)
    elif has_magic(place) and not os.path.lexists(place):
        # `**` fits a folder and what is in it.
        paths = iter(dict.fromkeys(path for match in _match(place) for path in list_pictures(match)))
    else:
        paths = iter(())
    yield next(paths, place)
    yield from paths


def _match(pattern: str) -> list[str]:
    # No name of a file holds a NUL.
    return [] if "\0" in pattern else sorted(glob(pattern, recursive=True))  # noqa: PTH207 - a text, as above


def _walk(folder: str) -> Iterator[str]:
    waiting: list[tuple[str, frozenset[tuple[int, int]]]] = [(folder, frozenset())]
    while waiting:
        parent, above = waiting.pop()
        try:
            with os.scandir(parent) as entries:
                found = sorted((entry for entry in entries if not entry.name.startswith(".")), key=lambda entry: entry.name)
            status = os.stat(parent)  # noqa: PTH116 - a text, as above
        except OSError:
            yield parent  # so that it is told why
            continue
        if (place := (status.st_dev, status.st_ino)) in above:
            continue
        folders = {entry.path: (entry.path, above | {place}) for entry in found if _is_folder(entry)}
        yield from (entry.path for entry in found if entry.path not in folders and entry.name.lower().endswith(SUFFIXES))
        waiting += reversed(folders.values())


def _is_folder(entry: os.DirEntry[str]) -> bool:
    # An entry that is a link would raise an error where it leads in a circle.
    return os.path.isdir(entry.path) if entry.is_symlink() else entry.is_dir()  # noqa: PTH112 - a text, as above
