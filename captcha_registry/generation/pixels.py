"""The few pixel operations that a captcha is made of, each giving the same bytes as Pillow's, compiled.

A glyph goes through a bilinear rotation, a bicubic resize and a nearest-neighbour warp, and is blended into the picture
through its own luminance; at the end the picture is smoothed. In Pillow every step is a call that makes a new image, and the
first two convert between straight and premultiplied alpha before and after. Where Pillow computes in doubles, the order of
the operations here is Pillow's: a last bit would show.

Pictures are `(height, width, 4)` uint8, the fourth channel being alpha or nothing: four bytes a pixel are quick to move.
Arithmetic after `Geometry.c`, `Resample.c`, `Convert.c`, `Paste.c` and `Filter.c` of Pillow 13 (https://github.com/python-pillow/Pillow).
"""

import math
import os
from contextlib import suppress
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from captcha.image import ImageCaptcha

from captcha_registry.errors import UserError
from captcha_registry.machine import own_temporary_dir, settle_user

# The import of numba ends in an error if this is under 1. Nothing here runs in threads of numba's.
with suppress(ValueError):
    if int(os.environ.get("NUMBA_NUM_THREADS", "1")) < 1:
        del os.environ["NUMBA_NUM_THREADS"]
# Uncompiled, a picture takes a hundred times as long. Numba, with this set while it is imported, compiles nothing later.
os.environ.pop("NUMBA_DISABLE_JIT", None)

from numba import config, njit

Pixels = npt.NDArray[np.uint8]

# Opacity of a pixel by its luminance. Handed to compiled code, never named in it: that keeps the constants with which it was
# compiled until this file changes, whatever becomes of the package that they are from.
OPACITIES = np.array([min(opacity, 255) for opacity in ImageCaptcha.lookup_table], np.uint8)


def _find_cache() -> bool:
    """Tell whether there is a place for what was compiled; numba itself looks beside this file and in the user's home.

    Without one, every process compiles again, which takes it 10 seconds.
    """
    settle_user()
    for _ in range(2):
        # It raises this when it can write nowhere.
        with suppress(RuntimeError):
            njit(cache=True)(_find_cache)
            return True
        with suppress(UserError, OSError):
            config.CACHE_DIR = str(own_temporary_dir() / "numba")
    return False


KEEPS = _find_cache()

_PRECISION_BITS = 22
_HALF = 1 << (_PRECISION_BITS - 1)


class PlacedGlyph(NamedTuple):
    """One character, and what is to happen to it.

    Attributes:
        mask: coverage `(height + 2, width + 2)`, its outermost pixels twice, so that every pixel has all its neighbours.
        cosine: of the rotation.
        sine: of the rotation.
        width: of the cell that the glyph is stretched to.
        height: of the cell.
        corners: x1, y1, x2, y2: by how much the corners of the cell move.
        left: column of the picture at which the cell starts.
    """

    mask: Pixels
    cosine: float
    sine: float
    width: int
    height: int
    corners: tuple[int, int, int, int]
    left: int


@njit(cache=KEEPS)
def paint_glyph(picture: Pixels, glyph: PlacedGlyph, ink: tuple[int, int, int, int], opacities: Pixels) -> None:
    """Rotate, resize, warp and blend one glyph into the picture, half-way down.

    Args:
        picture: changed in place.
        glyph: what to paint, and where.
        ink: red, green, blue, alpha.
        opacities: of a pixel, by its luminance, 256 of them.
    """
    x1, y1, x2, y2 = glyph.corners
    width, height = glyph.width + abs(x1) + abs(x2), glyph.height + abs(y1) + abs(y2)
    image = _rotate(glyph.mask, _premultiplied(ink), glyph.cosine, glyph.sine)
    if image.shape[:2] != (height, width):
        # What it turns by 0 degrees, one character in 2^32, Pillow merely copies.
        if glyph.sine != 0.0:
            _straighten_and_back(image)
        image = resize(image, width, height)

    # North-west, south-west, south-east and north-east corner in the resized glyph.
    across, down = 1.0 / glyph.width, 1.0 / glyph.height
    xs, ys = (x1, -x1, width + x2, width - x2), (y1, height - y2, height + y2, -y1)
    quad = (
        (float(xs[0]), (xs[3] - xs[0]) * across, (xs[1] - xs[0]) * down, (xs[2] - xs[1] - xs[3] + xs[0]) * across * down),
        (float(ys[0]), (ys[3] - ys[0]) * across, (ys[1] - ys[0]) * down, (ys[2] - ys[1] - ys[3] + ys[0]) * across * down),
    )
    _blend_warped(picture, image, quad, glyph, opacities)


@njit(cache=KEEPS)
def resize(image: Pixels, new_width: int, new_height: int) -> Pixels:
    """Resize with Pillow's bicubic filter."""
    height, width, _ = image.shape
    rows_first = height > new_height and height - new_height > (width - new_width) * 2
    if rows_first:
        image = _resize_rows(image, new_height)
    if width != new_width:
        # Complete rows at a time are what a processor is fast at.
        image = _transpose(_resize_rows(_transpose(image), new_width))
    if not rows_first and height != new_height:
        image = _resize_rows(image, new_height)
    return image


@njit(cache=KEEPS)
def mark(picture: Pixels, places: npt.NDArray[np.int64], shape: npt.NDArray[np.int64], ink: tuple[int, int, int, int]) -> None:
    """Stamp a small shape onto the picture wherever it fits, in place.

    Args:
        picture: changed in place.
        places: x and y of each stamp, `(stamps, 2)`.
        shape: pixels of the shape, x and y from its place, `(pixels, 2)`.
        ink: red, green, blue, alpha; painted opaque.
    """
    height, width, _ = picture.shape
    for place in range(len(places)):
        for pixel in range(len(shape)):
            x, y = places[place, 0] + shape[pixel, 0], places[place, 1] + shape[pixel, 1]
            if 0 <= x < width and 0 <= y < height:
                for channel in range(3):
                    picture[y, x, channel] = ink[channel]


@njit(cache=KEEPS)
def cover(picture: Pixels, mask: Pixels, ink: tuple[int, int, int, int]) -> None:
    """Paint opaque ink, in place, wherever the mask `(height, width)` is not 0."""
    height, width = mask.shape
    for row in range(height):
        for column in range(width):
            if mask[row, column]:
                for channel in range(3):
                    picture[row, column, channel] = ink[channel]


@njit(cache=KEEPS)
def smooth(picture: Pixels) -> Pixels:
    """Apply Pillow's SMOOTH, a 3x3 mean in which the centre counts five times; the border stays. Returns `(height, width, 3)`."""
    height, width, _ = picture.shape
    flat = picture.reshape(height, width * 4)
    smoothed = np.empty((height, width, 3), np.uint8)
    sums, line = np.empty(width * 4, np.uint16), np.empty(width * 4, np.uint8)
    for row in range(height):
        line[:] = flat[row]
        if 0 < row < height - 1:
            above, here, below = flat[row - 1], flat[row], flat[row + 1]
            for place in range(width * 4):
                sums[place] = np.uint16(above[place]) + np.uint16(here[place]) + np.uint16(below[place])
            # Views instead of `place + 4`: without a sign to check the loop becomes vector instructions, 14 times as fast.
            left, middle, right, centre, inner = sums, sums[4:], sums[8:], here[4:], line[4:]
            for place in range(width * 4 - 8):
                total = np.uint32(left[place]) + np.uint32(middle[place]) + np.uint32(right[place])
                total += np.uint32(4) * np.uint32(centre[place])
                # Total / 13, rounded: 10083 / 2^18 is 1 / 26, exact for all of 0 to 2 * 13 * 255 + 13.
                inner[place] = np.uint8(np.uint32((np.uint32(2) * total + np.uint32(13)) * np.uint32(10083)) >> np.uint32(18))
        for column in range(width):
            smoothed[row, column, 0] = line[column * 4]
            smoothed[row, column, 1] = line[column * 4 + 1]
            smoothed[row, column, 2] = line[column * 4 + 2]
    return smoothed


@njit(cache=KEEPS)
def _divide_by_255(value: int) -> int:
    """Divide and round to nearest, for 0 to 255 * 255."""
    return (((value + 128) >> 8) + value + 128) >> 8


@njit(cache=KEEPS)
def _straighten(channel: int, alpha: int) -> int:
    """Turn a premultiplied channel into a straight one."""
    if alpha == 0 or alpha == 255:  # noqa: PLR1714, PLR2004 - a set would be made for every pixel, 40 times as slow
        return channel
    return min(255, 255 * channel // alpha)


@njit(cache=KEEPS)
def _premultiplied(ink: tuple[int, int, int, int]) -> npt.NDArray[np.float64]:
    """Tell what each coverage, 0 to 255, looks like in ink: premultiplied red, green, blue and alpha `(256, 4)`."""
    colours = np.empty((256, 4))
    for coverage in range(256):
        alpha = _divide_by_255(ink[3] * coverage)
        for channel in range(3):
            colours[coverage, channel] = _divide_by_255(ink[channel] * alpha)
        colours[coverage, 3] = alpha
    return colours


@njit(cache=KEEPS)
def _rotate(mask: Pixels, colours: npt.NDArray[np.float64], cosine: float, sine: float) -> Pixels:
    """Turn a glyph about its centre into an image that holds all of it; premultiplied alpha."""
    height, width = mask.shape[0] - 2, mask.shape[1] - 2
    shift_x = cosine * (-width / 2) + sine * (-height / 2) + width / 2
    shift_y = -sine * (-width / 2) + cosine * (-height / 2) + height / 2
    xs, ys = np.empty(4), np.empty(4)
    for n, (x, y) in enumerate(((0, 0), (width, 0), (width, height), (0, height))):
        xs[n] = cosine * x + sine * y + shift_x
        ys[n] = -sine * x + cosine * y + shift_y
    new_width = int(math.ceil(xs.max()) - math.floor(xs.min()))
    new_height = int(math.ceil(ys.max()) - math.floor(ys.min()))
    grown_x, grown_y = -(new_width - width) / 2.0, -(new_height - height) / 2.0
    shift_x, shift_y = cosine * grown_x + sine * grown_y + shift_x, -sine * grown_x + cosine * grown_y + shift_y

    rotated = np.zeros((new_height, new_width, 4), np.uint8)
    for row in range(new_height):
        for column in range(new_width):
            x = cosine * (column + 0.5) + sine * (row + 0.5) + shift_x
            y = -sine * (column + 0.5) + cosine * (row + 0.5) + shift_y
            if 0.0 <= x < width and 0.0 <= y < height:
                _interpolate(rotated, row, column, mask, colours, (x - 0.5, y - 0.5))
    return rotated


@njit(cache=KEEPS, inline="always")
def _interpolate(
    image: Pixels, row: int, column: int, mask: Pixels, colours: npt.NDArray[np.float64], point: tuple[float, float]
) -> None:
    """Set a pixel to the colour at a point of the glyph, which is between four of its pixels.

    A pixel that is handed over as a view costs as much as all the work on it, so row and column are.
    """
    x, y = point
    left, top = math.floor(x), math.floor(y)
    # The mask starts one pixel before the glyph. Unsigned, because numba checks a signed index for being negative.
    x0, y0, one = np.uint32(left + 1), np.uint32(top + 1), np.uint32(1)
    north_west, north_east = mask[y0, x0], mask[y0, x0 + one]
    south_west, south_east = mask[y0 + one, x0], mask[y0 + one, x0 + one]
    if north_west == north_east and north_west == south_west and north_west == south_east:
        if north_west:
            for channel in range(4):
                image[row, column, channel] = np.uint8(colours[north_west, channel])
        return
    for channel in range(4):
        north = colours[north_west, channel] + (colours[north_east, channel] - colours[north_west, channel]) * (x - left)
        south = colours[south_west, channel] + (colours[south_east, channel] - colours[south_west, channel]) * (x - left)
        image[row, column, channel] = np.uint8(north + (south - north) * (y - top))


@njit(cache=KEEPS)
def _straighten_and_back(image: Pixels) -> None:
    """Lose what Pillow loses between two steps, where it makes alpha straight and premultiplied again."""
    height, width, _ = image.shape
    for row in range(height):
        for column in range(width):
            alpha = np.int64(image[row, column, 3])
            for channel in range(3):
                straight = _straighten(np.int64(image[row, column, channel]), alpha)
                image[row, column, channel] = _divide_by_255(straight * alpha)


@njit(cache=KEEPS)
def _bicubic(distance: float) -> float:
    """Weigh a pixel by its distance: Keys 1981, with a = -0.5."""
    x = abs(distance)
    if x < 1.0:
        return (1.5 * x - 2.5) * x * x + 1
    if x < 2.0:  # noqa: PLR2004 - the filter's reach
        return (((x - 5) * x + 8) * x - 4) * -0.5
    return 0.0


@njit(cache=KEEPS)
def _filter_taps(old_size: int, new_size: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int32]]:
    """Compute the resampling filter: first pixel and number of taps `(new_size, 2)`, fixed-point taps `(new_size, most taps)`."""
    scale = old_size / new_size
    support = 2.0 * max(scale, 1.0)
    inverse = 1.0 / max(scale, 1.0)
    spans = np.empty((new_size, 2), np.int64)
    taps = np.zeros((new_size, math.ceil(support) * 2 + 1), np.int32)
    weights = np.empty(taps.shape[1])
    for place in range(new_size):
        centre = (place + 0.5) * scale
        first = max(int(centre - support + 0.5), 0)
        count = min(int(centre + support + 0.5), old_size) - first
        total = 0.0
        for tap in range(count):
            weights[tap] = _bicubic((tap + first - centre + 0.5) * inverse)
            total += weights[tap]
        for tap in range(count):
            weight = weights[tap] / total
            taps[place, tap] = int((-0.5 if weight < 0 else 0.5) + weight * (1 << _PRECISION_BITS))
        spans[place] = first, count
    return spans, taps


@njit(cache=KEEPS)
def _resize_rows(image: Pixels, new_height: int) -> Pixels:
    height, width, _ = image.shape
    spans, taps = _filter_taps(height, new_height)
    flat = image.reshape(height, width * 4)
    resized = np.empty((new_height, width * 4), np.uint8)
    totals = np.empty(width * 4, np.int32)
    for row in range(new_height):
        first, count = spans[row]
        totals[:] = _HALF
        for tap in range(count):
            weight, line = taps[row, tap], flat[first + tap]
            for place in range(width * 4):
                totals[place] += np.int32(line[place]) * weight
        for place in range(width * 4):
            resized[row, place] = np.uint8(min(max(totals[place] >> _PRECISION_BITS, 0), 255))
    return resized.reshape(new_height, width, 4)


@njit(cache=KEEPS)
def _transpose(image: Pixels) -> Pixels:
    """Swap rows and columns, four bytes at a time."""
    height, width, _ = image.shape
    pixels = image.view(np.uint32).reshape(height, width)
    return np.ascontiguousarray(pixels.T).view(np.uint8).reshape(width, height, 4)


@njit(cache=KEEPS)
def _blend_warped(
    picture: Pixels, image: Pixels, quad: tuple[tuple[float, ...], tuple[float, ...]], glyph: PlacedGlyph, opacities: Pixels
) -> None:
    """Blend the part of `image` that `quad` maps the glyph's cell to into the picture, each pixel as opaque as it is light."""
    top = int((picture.shape[0] - glyph.height) / 2)
    of_x, of_y = quad
    for row in range(max(0, -top), min(glyph.height, picture.shape[0] - top)):
        for column in range(max(0, -glyph.left), min(glyph.width, picture.shape[1] - glyph.left)):
            x, y = column + 0.5, row + 0.5
            from_x = of_x[0] + of_x[1] * x + of_x[2] * y + of_x[3] * x * y
            from_y = of_y[0] + of_y[1] * x + of_y[2] * y + of_y[3] * x * y
            if 0.0 <= from_x < image.shape[1] and 0.0 <= from_y < image.shape[0]:
                x0, y0 = np.uint32(from_x), np.uint32(from_y)
                red, green, blue = np.int64(image[y0, x0, 0]), np.int64(image[y0, x0, 1]), np.int64(image[y0, x0, 2])
                if red | green | blue:
                    alpha = np.int64(image[y0, x0, 3])
                    red, green, blue = _straighten(red, alpha), _straighten(green, alpha), _straighten(blue, alpha)
                    opacity = np.int64(opacities[(red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16])
                    _blend(picture, top + row, glyph.left + column, (red, green, blue), opacity)


@njit(cache=KEEPS, inline="always")
def _blend(picture: Pixels, row: int, column: int, colour: tuple[int, int, int], opacity: int) -> None:
    for channel in range(3):
        under = picture[row, column, channel]
        picture[row, column, channel] = _divide_by_255(under * (255 - opacity) + colour[channel] * opacity)
