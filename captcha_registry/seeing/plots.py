"""Every picture that the project makes."""

from collections.abc import Sequence
from io import BytesIO
from math import ceil
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from captcha_registry.workspace import write_atomically

GAP = 8
CAPTION_HEIGHT = 20
PAPER = "white"
TEXT = "#222222"


def draw_contact_sheet(images: Sequence[Image.Image], captions: Sequence[str], num_columns: int) -> Image.Image:
    """Lay captchas of one size out in rows, each with a caption below it; without captchas, say so."""
    font = ImageFont.load_default(size=13)
    if not images:
        sheet = Image.new("RGB", (240, 60), PAPER)
        ImageDraw.Draw(sheet).text((120, 30), "nothing to show", TEXT, font=font, anchor="mm")
        return sheet
    width, height = images[0].size
    cell_width, cell_height = width + GAP, height + CAPTION_HEIGHT + GAP
    num_columns = min(num_columns, len(images))
    sheet = Image.new("RGB", (num_columns * cell_width + GAP, ceil(len(images) / num_columns) * cell_height + GAP), PAPER)
    canvas = ImageDraw.Draw(sheet)
    for number, (image, caption) in enumerate(zip(images, captions, strict=True)):
        x, y = GAP + number % num_columns * cell_width, GAP + number // num_columns * cell_height
        sheet.paste(image, (x, y))
        canvas.text((x + width / 2, y + height + CAPTION_HEIGHT / 2), caption, TEXT, font=font, anchor="mm")
    return sheet


def save_contact_sheet(path: Path, pngs: Sequence[bytes], captions: Sequence[str], num_columns: int = 6) -> None:
    """Write a contact sheet of encoded captchas as a PNG."""
    images = [Image.open(BytesIO(png), formats=["png"]) for png in pngs]
    sheet = BytesIO()
    draw_contact_sheet(images, captions, num_columns).save(sheet, "PNG", optimize=True)
    write_atomically(path, sheet.getvalue())
