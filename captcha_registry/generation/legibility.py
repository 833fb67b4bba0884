"""Tell from a spec whether its pictures can be read, before any is drawn for good.

The limits are set by eye, on contact sheets of each flaw, between what a person reads and what nobody does; the shipped specs are
well inside. Nothing here changes what is drawn.
"""

from collections.abc import Iterator
from itertools import combinations
from math import ceil
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from captcha_registry.dataset.spec import ChannelRange, DatasetSpec
from captcha_registry.errors import UserError
from captcha_registry.generation.drawing import Choices, Drawer, sample_stream
from captcha_registry.generation.pixels import OPACITIES

# Difference of text and ground in levels of 255, root mean square over the channels. Below 10 the text is lost to the eye. So is
# black ink, as text is blended in by its own luminance: ink 5 on white has 9, ink 10, the faintest of the shipped specs, has 17.
LOST_CONTRAST = 10
FAINT_CONTRAST = 15
_NUM_COLOURS = 20_000
# Tried in turn as advice: the shipped range, for light grounds, and one for dark grounds.
_USUAL_INK, _LIGHT_INK, _USUAL_GROUND = (
    ChannelRange(min=10, max=200),
    ChannelRange(min=100, max=255),
    ChannelRange(min=238, max=255),
)

# Columns for a character. With rotation and warp nobody reads 5, and 10 can be read. Half of the characters have a blank before
# them, which is pressed into the picture, too.
LOST_WIDTH = 5
HARD_WIDTH = 10
_WIDTHS_PER_CHARACTER = 1.5

# Share of the pixels that dots and curves may cover; they are of the text's colour and opaque. A dot has 3 pixels whatever the
# font size is, so smaller characters stand less.
LOST_COVER = 0.6
HARD_COVER = 0.25
_USUAL_SIZE = 42
_NUM_COVERED = 8

# Mean difference of two characters in their cells, 0 to 1: none, or rounding; 0 and O of the usual font differ by 0.025 to 0.07.
SAME_SHAPE = 0.005
LIKE_SHAPE = 0.02
# For a letter in both cases, as c and C, which are stretched to one height: of the usual font v, x, o, c, z, u, s and w differ by
# 0.03 to 0.13 from their capitals, y by 0.14.
LIKE_CASE = 0.135
# Share of its cell that a character fills. Letters and digits of the usual font fill up to 0.53, - and . are 0.7 and 0.8.
BLOCK_SHARE = 0.65
# Two that fill so much are one rectangle to the eye, as are I and l of many fonts.
SAME_BLOCK_SHARE = 0.85
_MAX_PAIRS_SHOWN = 5

# Share of the pictures from which on something is said.
_MIN_SHARE = 0.001

# Of a pixel's coverage, 0 to 255.
HALF = 127

Cell = npt.NDArray[np.uint8]
FontCells = dict[str, dict[str, Cell]]


class Flaw(NamedTuple):
    """Why pictures are hard to read or, if it is fatal, cannot be read; with what to change."""

    what: str
    is_fatal: bool


def check_legibility(drawer: Drawer) -> list[str]:
    """Refuse a spec whose pictures cannot be read; return a line for each reason why they are hard to read.

    Raises:
        UserError: says why nobody could read them, and what to change.
    """
    flaws = list(find_flaws(drawer))
    if fatal := [flaw.what for flaw in flaws if flaw.is_fatal]:
        raise UserError("; ".join(fatal))
    return [flaw.what for flaw in flaws]


def find_flaws(drawer: Drawer) -> Iterator[Flaw]:
    """Find what makes the pictures of a spec hard or impossible to read."""
    small, large = (_draw_cells(drawer, size) for size in (min(drawer.spec.font_sizes), max(drawer.spec.font_sizes)))
    yield from _find_faint_text(drawer.spec)
    yield from _find_cut_characters(drawer.spec, large)
    yield from _find_narrow_characters(drawer.spec, small)
    yield from _find_covered_text(drawer)
    yield from _find_blocks(large)
    yield from _find_equal_characters(small)


def _draw_cells(drawer: Drawer, size: int) -> FontCells:
    """Draw every character and the space in every font, as large as they come on the pictures but for rotation and warp."""
    spec = drawer.spec.model_copy(update={"font_sizes": (size,)})
    sized = Drawer(spec, drawer.font_files)
    names = spec.fonts or ("the font of `captcha`",)
    return {name: {c: sized.draw_cell(c, number) for c in (*spec.alphabet, " ")} for number, name in enumerate(names)}


def _find_faint_text(spec: DatasetSpec) -> Iterator[Flaw]:
    contrasts = estimate_contrasts(spec.ink, spec.background)
    lost, faint = (float((contrasts < limit).mean()) for limit in (LOST_CONTRAST, FAINT_CONTRAST))
    if faint < _MIN_SHARE:
        return
    is_fatal = lost > 1 / 2
    found = f"cannot be seen in {lost:.0%}" if is_fatal else f"can hardly be seen in {_describe_share(faint)}"
    yield Flaw(
        f"the text {found} of the pictures, as it is drawn fainter the darker its ink is, and the nearer to the background: "
        f"{_advise_colours(spec.background)}",
        is_fatal,
    )


def estimate_contrasts(ink: ChannelRange, background: ChannelRange) -> npt.NDArray[np.float64]:
    """Draw colours as a spec would; return how far text and ground are apart, in levels of 255."""
    numbers = np.random.default_rng(0)
    inks, grounds = (numbers.integers(each.min, each.max, (_NUM_COLOURS, 3), endpoint=True) for each in (ink, background))
    luminances = np.rint(inks @ np.array([0.299, 0.587, 0.114])).astype(np.uint8)
    contrasts: npt.NDArray[np.float64] = OPACITIES[luminances] / 255 * np.sqrt(((inks - grounds) ** 2).mean(axis=1))
    return contrasts


def _advise_colours(background: ChannelRange) -> str:
    for ink in (_USUAL_INK, _LIGHT_INK):
        if (estimate_contrasts(ink, background) < FAINT_CONTRAST).mean() < _MIN_SHARE:
            return f"{_describe_range('ink', ink)} can be seen on this background"
    return f"take {_describe_range('ink', _USUAL_INK)} and {_describe_range('background', _USUAL_GROUND)}"


def _describe_range(name: str, channels: ChannelRange) -> str:
    return f"`{name}: {{min: {channels.min}, max: {channels.max}}}`"


def _describe_share(share: float) -> str:
    return f"{share:.0%}" if share >= 0.01 else f"{share:.1%}"  # noqa: PLR2004 - one percent


def _find_cut_characters(spec: DatasetSpec, fonts: FontCells) -> Iterator[Flaw]:
    """Compare the height with that of most characters; what is higher than the picture loses its top and bottom."""
    needed = int(np.median([cells[character].shape[0] for cells in fonts.values() for character in spec.alphabet]))
    if spec.height < needed:
        yield Flaw(
            f"at font size {max(spec.font_sizes)} characters are {needed} pixels high, and the pictures {spec.height}: "
            f"raise `height` to {needed}, or take smaller `font_sizes`",
            is_fatal=spec.height < needed / 2,
        )


def _find_narrow_characters(spec: DatasetSpec, fonts: FontCells) -> Iterator[Flaw]:
    """Compare the width with the number of characters, which are pressed into it, and with their own width."""
    room = spec.width / spec.max_length / _WIDTHS_PER_CHARACTER
    if room < HARD_WIDTH:
        yield Flaw(
            f"{spec.max_length} characters with blanks among them on {spec.width} pixels have {room:.1f} pixels of width each: "
            f"raise `width` to {ceil(HARD_WIDTH * spec.max_length * _WIDTHS_PER_CHARACTER)}, or lower `length`",
            is_fatal=room < LOST_WIDTH,
        )
    drawn = float(np.median([cells[character].shape[1] for cells in fonts.values() for character in spec.alphabet]))
    if drawn < HARD_WIDTH:
        yield Flaw(
            f"at font size {min(spec.font_sizes)} characters are {drawn:.0f} pixels wide: take larger `font_sizes`",
            is_fatal=drawn < LOST_WIDTH,
        )


def _find_covered_text(drawer: Drawer) -> Iterator[Flaw]:
    """Measure what dots and curves cover; look for numbers of them that do."""
    spec = drawer.spec
    share, dots, curves = _measure_cover(drawer, spec.dots, spec.curves), spec.dots, spec.curves
    lost, hard = (limit * min(1, min(spec.font_sizes) / _USUAL_SIZE) for limit in (LOST_COVER, HARD_COVER))
    if share <= hard:
        return
    while _measure_cover(drawer, dots, curves) > hard:
        dots, curves = dots // 2, (curves + 1) // 2 if dots else 0
    yield Flaw(
        f"`dots: {spec.dots}` and `curves: {spec.curves}` cover {share:.0%} of a picture, and so of its text: "
        f"take `dots: {dots}` and `curves: {curves}`",
        is_fatal=share > lost,
    )


def _measure_cover(drawer: Drawer, dots: int, curves: int) -> float:
    """Draw the dots and curves of some pictures; return the share of the pixels that they cover."""
    spec = drawer.spec.model_copy(update={"dots": dots, "curves": curves})
    noise, shares = Drawer(spec, drawer.font_files), []
    for sample_id in range(_NUM_COVERED):
        picture = np.zeros((spec.height, spec.width, 4), np.uint8)
        chosen = noise.choose_noise(Choices(sample_stream(spec.seed, sample_id)))
        noise.paint_noise(picture, (255, 255, 255, 255), chosen)
        shares.append((picture[:, :, 0] > 0).mean())
    return float(np.mean(shares))


def _find_blocks(fonts: FontCells) -> Iterator[Flaw]:
    """Look for characters that are a bar or a dot, and become a block where each is stretched to the height of the line."""
    shares = {name: {c: (cell > HALF).mean() for c, cell in cells.items() if cell.size} for name, cells in fonts.items()}
    same = [c for c in next(iter(shares.values())) if all(each.get(c, 0) > SAME_BLOCK_SHARE for each in shares.values())]
    if len(same) > 1:
        yield Flaw(
            f"{' '.join(same)} all become the same filled block in {', '.join(fonts)}, as characters are stretched to the height "
            "of the line: leave all but one of them out of `alphabet`",
            is_fatal=True,
        )
    for name, filled in shares.items():
        if blocks := [c for c, share in filled.items() if share > BLOCK_SHARE and not (len(same) > 1 and c in same)]:
            yield Flaw(
                f"{' '.join(blocks)} in {name} become filled blocks, as characters are stretched to the height of the line: "
                "leave them out of `alphabet`",
                is_fatal=False,
            )


def _find_equal_characters(fonts: FontCells) -> Iterator[Flaw]:
    """Compare every two characters of each font, and look for what is drawn for the space between them."""
    differences = {name: _compare_cells(cells) for name, cells in fonts.items()}
    same = [pair for pair in next(iter(differences.values())) if all(each[pair] < SAME_SHAPE for each in differences.values())]
    if same:
        yield Flaw(f"{_name_pairs(same)} look the same in {', '.join(fonts)}: leave one of each out of `alphabet`", is_fatal=True)
    for name, cells in fonts.items():
        if cells[" "].any():
            yield Flaw(f"{name} has no space, and shows another character where one is drawn: use another font", is_fatal=False)
        if alike := [pair for pair, difference in differences[name].items() if difference < _like(pair) and pair not in same]:
            yield Flaw(
                f"{_name_pairs(alike)} look almost the same in {name}: leave one of each out of `alphabet`", is_fatal=False
            )


def _like(pair: tuple[str, str]) -> float:
    """Return the difference below which two characters look almost the same, where nobody expects it."""
    return LIKE_CASE if pair[0].casefold() == pair[1].casefold() else LIKE_SHAPE


def _compare_cells(cells: dict[str, Cell]) -> dict[tuple[str, str], float]:
    """Lay every two characters over each other as they come on a picture; return the mean difference of their pixels, 0 to 1."""
    characters = [character for character in cells if character != " "]
    height, width = (max(cells[character].shape[axis] for character in characters) for axis in (0, 1))
    laid = np.zeros((len(characters), height, width), np.int16)
    for n, character in enumerate(characters):
        cell = cells[character]
        top = (height - cell.shape[0]) // 2
        laid[n, top : top + cell.shape[0], : cell.shape[1]] = cell
    return {
        (one, other): float(np.abs(laid[n] - laid[m]).mean()) / 255
        for (n, one), (m, other) in combinations(enumerate(characters), 2)
    }


def _name_pairs(pairs: list[tuple[str, str]]) -> str:
    more = f" and {len(pairs) - _MAX_PAIRS_SHOWN} more pairs" if len(pairs) > _MAX_PAIRS_SHOWN else ""
    return ", ".join(f"{pair[0]} and {pair[1]}" for pair in pairs[:_MAX_PAIRS_SHOWN]) + more
