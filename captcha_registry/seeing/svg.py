"""Vega-Lite charts as SVG that scales, is one picture to a screen reader, and takes its colours from the page around it."""

import re
from collections.abc import Mapping
from html import escape
from threading import Thread

import vl_convert

from captcha_registry.errors import UserError
from captcha_registry.machine import find_address_limit
from captcha_registry.seeing.charts import FAINT, GREY, MONOSPACE, PALETTE, STYLE, Spec

# V8 reserves 64 GiB at its start, and ends the process if it gets less.
ADDRESS_SPACE_BYTES = 80 << 30

# In place of the palette where the ground is dark.
DARK_PALETTE = ("#56b4e9", "#f08a4b", "#2fc99a", "#e0a3c4", "#ffffff", "#f0e442", "#4a90d9")
# What the page has a variable for.
VARIABLES = {"#222222": "currentColor", GREY: "currentColor", FAINT: "var(--line)"}
VARIABLES |= {colour: f"var(--series-{number})" for number, colour in enumerate(PALETTE, 1)}

# Stands for `MONOSPACE` while a chart is laid out: what is no font has the same width on every machine, as monospaced ones have.
NO_FONT = "no font"

# The one style, on the ground of the page, as narrow as a phone.
CONFIG: Spec = STYLE | {
    "aria": False,
    "axis": STYLE["axis"] | {"labelFont": NO_FONT},
    "background": None,
    "bar": {"color": PALETTE[0]},
    "legend": STYLE["legend"] | {"labelColor": "#222222"},
}


def start_vega() -> None:
    """Start what draws charts on another core while a report is composed; alone it takes half a second.

    Raises:
        UserError: the address space is limited, where the engine would end the process.
    """
    limit = find_address_limit()
    if limit is not None and limit < ADDRESS_SPACE_BYTES:
        raise UserError(
            "the report's charts are drawn by V8, which reserves more addresses than `ulimit -v` allows, though it uses little "
            "memory: run `ulimit -v unlimited` and the same command again"
        )
    Thread(target=draw_svg, args=({"data": {"values": []}, "mark": "bar"}, "")).start()


def draw_svg(spec: Mapping[str, object], title: str) -> str:
    """Draw a Vega-Lite chart; equal charts have equal bytes, whatever fonts the machine has."""
    # The page has the title.
    svg: str = vl_convert.vegalite_to_svg({**spec, "config": CONFIG, "title": None})
    svg = re.sub(r'(fill|stroke)="(#[0-9a-f]{6})"', lambda found: f'{found[1]}="{VARIABLES.get(found[2], found[2])}"', svg)
    svg = svg.replace(f'font-family="{NO_FONT}"', f'font-family="{MONOSPACE}"')
    # What it shows is said by its label and by the table beside it.
    svg = re.sub(r' (role|aria-[a-z]+)="[^"]*"', "", svg)
    head = re.match(r"<svg .*?>", svg)
    size = re.search(r'width="([\d.]+)" height="[\d.]+" viewBox="[^"]+"', svg)
    if not head or not size:
        raise AssertionError(f"no SVG: {svg[:200]}")
    box = size[0].split(" viewBox")[1]
    opening = f'<svg role="img" aria-label="{escape(title)}" style="max-width:{size[1]}px" viewBox{box}>'
    return opening + svg[head.end() :]
