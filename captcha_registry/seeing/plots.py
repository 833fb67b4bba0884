"""Every picture that the project makes of captchas: samples, errors beside their truth, and what a model sees where."""

from collections.abc import Callable, Sequence
from io import BytesIO
from math import ceil, floor
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from captcha_registry.workspace import write_atomically

GAP = 8
LINE_HEIGHT = 20
PAPER = "white"
TEXT = "#222222"
GREY = "#6b6b6b"
RED = "#c00000"
BLUE = "#0072b2"

# A column of an alignment.
COLUMN = 15
MISSING = "-"
LEGEND = "above: the text; below: what was read, and how sure the model was; what differs is red and boxed"

BLANK = "\N{MIDDLE DOT}"
# Pictures are shown so much larger above their steps.
ZOOM = 2
BAR_HEIGHT = 26

Pairs = Sequence[tuple[str, str]]
Steps = Sequence[tuple[str, float]]


def draw_contact_sheet(images: Sequence[Image.Image], captions: Sequence[str], num_columns: int) -> Image.Image:
    """Lay captchas of one size out in rows, each with a caption below it; without captchas, say so."""

    def draw_caption(canvas: ImageDraw.ImageDraw, number: int, x: float, y: float) -> None:
        _write(canvas, (x, y + LINE_HEIGHT / 2), captions[number])

    return _draw_sheet(images, draw_caption, num_columns=num_columns, num_lines=1)


def draw_errors(images: Sequence[Image.Image], pairs: Sequence[Pairs], confidences: Sequence[float]) -> Image.Image:
    """Lay wrongly read captchas out in rows, each above its text and what was read, character below character.

    Args:
        images: captchas of one size.
        pairs: of each, the characters of text and reading, aligned; "" where one of them has none.
        confidences: of each reading, 0 to 1.
    """

    def draw_caption(canvas: ImageDraw.ImageDraw, number: int, x: float, y: float) -> None:
        left = x - len(pairs[number]) * COLUMN / 2
        for place, pair in enumerate(pairs[number]):
            _draw_pair(canvas, pair, left + place * COLUMN, y)
        _write(canvas, (x, y + 2.5 * LINE_HEIGHT), f"{floor(confidences[number] * 1000) / 10}% sure", GREY, size=11)

    return _draw_sheet(images, draw_caption, num_columns=6, num_lines=3, legend=LEGEND)


def draw_steps(images: Sequence[Image.Image], captions: Sequence[str], steps: Sequence[Steps]) -> Image.Image:
    """Draw captchas, and below each the most probable character of every step of the model, above a bar of its probability.

    A time step stands below the part of the picture that it belongs to; a dot is CTC's blank.
    """
    large = [image.resize((image.width * ZOOM, image.height * ZOOM), Image.Resampling.BICUBIC) for image in images]

    def draw_caption(canvas: ImageDraw.ImageDraw, number: int, x: float, y: float) -> None:
        step_width = large[number].width / len(steps[number])
        left = x - large[number].width / 2
        for place, (character, probability) in enumerate(steps[number]):
            centre = left + (place + 0.5) * step_width
            place_of_text = (centre, y + LINE_HEIGHT / 2)
            _write_character(canvas, place_of_text, character or BLANK, TEXT if character else GREY)
            top = y + LINE_HEIGHT + BAR_HEIGHT * (1 - probability)
            bar = (centre - step_width / 2 + 1, top, centre + step_width / 2 - 2, y + LINE_HEIGHT + BAR_HEIGHT)
            canvas.rectangle(bar, fill=BLUE if character else "#c8c8c8")
        _write(canvas, (x, y + LINE_HEIGHT * 1.6 + BAR_HEIGHT), captions[number])

    legend = "each step's likeliest character, with a bar as high as its probability; a dot is CTC's blank"
    return _draw_sheet(large, draw_caption, num_columns=3, num_lines=4, legend=legend)


def encode_sheet(sheet: Image.Image) -> bytes:
    """Encode a picture as a PNG."""
    encoded = BytesIO()
    sheet.save(encoded, "PNG", optimize=True)
    return encoded.getvalue()


def open_captchas(pngs: Sequence[bytes]) -> list[Image.Image]:
    """Open encoded captchas."""
    return [Image.open(BytesIO(png), formats=["png"]) for png in pngs]


def save_contact_sheet(path: Path, pngs: Sequence[bytes], captions: Sequence[str], num_columns: int = 6) -> None:
    """Write a contact sheet of encoded captchas as a PNG."""
    write_atomically(path, encode_sheet(draw_contact_sheet(open_captchas(pngs), captions, num_columns)))


def _draw_sheet(
    images: Sequence[Image.Image],
    draw_caption: Callable[[ImageDraw.ImageDraw, int, float, float], None],
    *,
    num_columns: int,
    num_lines: int,
    legend: str = "",
) -> Image.Image:
    """Lay pictures of one size out in rows; a caption gets the number of its picture, and the middle of its upper edge."""
    if not images:
        sheet = Image.new("RGB", (240, 60), PAPER)
        _write(ImageDraw.Draw(sheet), (120, 30), "nothing to show")
        return sheet
    width, height = images[0].size
    cell_width, cell_height = width + GAP, height + num_lines * LINE_HEIGHT + GAP
    num_columns = min(num_columns, len(images))
    top = GAP + (LINE_HEIGHT if legend else 0)
    sheet_width = max(num_columns * cell_width + GAP, GAP * 2 + int(_font(12).getlength(legend)))
    sheet = Image.new("RGB", (sheet_width, top + ceil(len(images) / num_columns) * cell_height), PAPER)
    canvas = ImageDraw.Draw(sheet)
    canvas.text((GAP, GAP + LINE_HEIGHT / 2 - 3), legend, TEXT, font=_font(12), anchor="lm")
    for number, image in enumerate(images):
        x, y = GAP + number % num_columns * cell_width, top + number // num_columns * cell_height
        sheet.paste(image, (x, y))
        draw_caption(canvas, number, x + width / 2, y + height)
    return sheet


def _draw_pair(canvas: ImageDraw.ImageDraw, pair: tuple[str, str], left: float, top: float) -> None:
    """Draw a character above what it was read as."""
    for line, character in enumerate(pair):
        centre = (left + COLUMN / 2, top + (line + 0.5) * LINE_HEIGHT)
        _write_character(canvas, centre, character or MISSING, TEXT if pair[0] == pair[1] else RED)
    if pair[0] != pair[1]:
        canvas.rectangle((left, top + 1, left + COLUMN - 1, top + 2 * LINE_HEIGHT - 1), outline=RED)


def _write(canvas: ImageDraw.ImageDraw, centre: tuple[float, float], text: str, color: str = TEXT, size: int = 13) -> None:
    canvas.text(centre, text, color, font=_font(size), anchor="mm")


def _write_character(canvas: ImageDraw.ImageDraw, centre: tuple[float, float], character: str, color: str) -> None:
    _write(canvas, centre, character, color)
    if character == "0":
        # The font's 0 is all but its O.
        canvas.line((centre[0] - 2, centre[1] + 4, centre[0] + 2, centre[1] - 4), color)


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size=size)
