"""Charts as Vega-Lite specs: plain dicts in one style, for `dvc plots` and for the report.

Colours are those of Okabe and Ito, which people with any colour vision tell apart (https://jfly.uni-koeln.de/color/), the last
two darker, as they are faint on white; and never alone: revisions have shapes or dashes, too. What is compared is the column
`rev` of the rows: revisions, and in the report models. Each chart takes its rows, or by default the anchors that DVC fills.
"""

from collections.abc import Mapping, Sequence
from typing import Any

Spec = dict[str, Any]
Rows = Sequence[Mapping[Any, Any]] | str

DATA = "<DVC_METRIC_DATA>"
TITLE = "<DVC_METRIC_TITLE>"
KEY = "<DVC_METRIC_X>"
KEY_LABEL = "<DVC_METRIC_X_LABEL>"
VALUE_LABEL = "<DVC_METRIC_Y_LABEL>"

# Version 5 is what DVC's own templates are of; later ones draw it, too.
SCHEMA = "https://vega.github.io/schema/vega-lite/v5.json"

PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#000000", "#b87f00", "#3a94cf")
SHAPES = ("circle", "square", "triangle-up", "diamond", "cross", "triangle-down", "triangle-right")
GREY = "#595959"
FAINT = "#e6e6e6"
# One hue, from light to dark, for shares.
SEQUENCE = ("#deebf7", "#08306b")
# The first comes with what draws the report, and is as wide as the second: text takes the same room whatever fonts are there.
SANS = "'Liberation Sans', Arial, sans-serif"
# 0 and O, 1 and I differ.
MONOSPACE = "ui-monospace, 'DejaVu Sans Mono', Consolas, monospace"

STYLE: Spec = {
    "background": "white",
    "font": SANS,
    "title": {"anchor": "start", "fontSize": 15, "fontWeight": 600, "color": "#222222", "offset": 12},
    "axis": {
        "labelFont": MONOSPACE,
        "labelFontSize": 12,
        "titleFontSize": 12,
        "titleFontWeight": 400,
        "labelColor": "#222222",
        "titleColor": "#222222",
        "gridColor": FAINT,
        "domainColor": GREY,
        "tickColor": GREY,
    },
    "header": {"labelFontSize": 12, "titleFontSize": 12, "labelColor": "#222222", "titleColor": "#222222"},
    "legend": {"orient": "top", "labelFontSize": 12, "titleFontSize": 12, "symbolSize": 80, "labelLimit": 400},
    "range": {"category": list(PALETTE), "symbol": list(SHAPES), "heatmap": list(SEQUENCE), "ramp": list(SEQUENCE)},
    "view": {"stroke": None},
}

LEGEND: Spec = {"field": "rev", "type": "nominal", "sort": None, "title": None}
COLOR: Spec = LEGEND | {"scale": {"range": list(PALETTE)}}
SHAPE: Spec = LEGEND | {"scale": {"range": list(SHAPES)}}
# Colours and shapes have one legend where both are of one mark alone; the other marks have the same colours without one.
ONE_LEGEND = {"scale": {"color": "independent", "shape": "independent"}}
COLOR_ONLY = COLOR | {"legend": None}
DASHES = {"type": "nominal", "title": None, "legend": {"symbolType": "stroke", "symbolSize": 600}}
SHARE = ".3~%"
DASH = "\N{EN DASH}"
NUMBERS = ("accuracy", "low", "high", "samples", "confidence")


def _start(rows: Rows, title: str, numbers: Sequence[str]) -> Spec:
    """Begin a spec. Numbers are named, as what DVC reads of a CSV file is text."""
    data = {"values": rows, "format": {"parse": dict.fromkeys(numbers, "number")}}
    return {"$schema": SCHEMA, "config": STYLE, "title": title, "data": data}


def _quantity(field: str, title: str | None, **more: object) -> Spec:
    return {"field": field, "type": "quantitative", "title": title, **more}


def _list_facts(key: str) -> list[Spec]:
    """List what is shown of the point under the mouse."""
    shares = [{"field": name, "type": "quantitative", "format": ".3%"} for name in ("accuracy", "low", "high")]
    return [{"field": "rev"}, {"field": key}, *shares, {"field": "samples", "type": "quantitative", "format": ","}]


def _mark_shares(channel: str, label: str, *, mark: Spec, facts: Sequence[Spec], how: Spec) -> list[Spec]:
    """Mark shares on the axis x or y, with rules for their 95 % intervals; `how` says more of this axis."""
    interval = {
        "mark": {"type": "rule", "strokeWidth": 2},
        "encoding": {
            channel: _quantity("low", label, **how),
            f"{channel}2": {"field": "high"},
            "color": COLOR_ONLY,
            "tooltip": facts,
        },
    }
    point = {
        "mark": {"opacity": 1, **mark},
        "encoding": {channel: _quantity("accuracy", label, **how), "color": COLOR, "shape": SHAPE, "tooltip": facts},
    }
    return [interval, point]


def draw_accuracy(
    rows: Rows = DATA, title: str = TITLE, *, key: str = KEY, key_label: str = KEY_LABEL, label: str = VALUE_LABEL
) -> Spec:
    """Draw the shares of a table by its key with their 95 % intervals, and beside them how many each is of.

    Args:
        rows: of `score_by_ink`, `score_by_character` or `score_by_position`, with `rev`.
        title: above the chart.
        key: the column that rows differ in.
        key_label: what that is.
        label: what the shares are of.
    """
    place = {"field": key, "type": "nominal", "sort": None}
    height, beside = {"step": 20, "for": "position"}, {"field": "rev", "sort": None}
    facts = _list_facts(key)
    share = {"axis": {"format": SHARE, "tickCount": 5}, "scale": {"zero": False, "nice": True}}
    shares = {
        "width": 230,
        "height": height,
        "encoding": {"y": place | {"title": key_label}, "yOffset": beside},
        "layer": _mark_shares("x", label, mark={"type": "point", "filled": True, "size": 50}, facts=facts, how=share),
        "resolve": ONE_LEGEND,
    }
    counts = {
        "width": 60,
        "height": height,
        "mark": "bar",
        "encoding": {
            "x": _quantity("samples", "how many", axis={"format": ",d", "tickCount": 2}),
            "y": place | {"axis": None},
            "yOffset": beside,
            "color": COLOR_ONLY,
            "tooltip": facts,
        },
    }
    return _start(rows, title, NUMBERS) | {"spacing": 8, "hconcat": [shares, counts], "resolve": ONE_LEGEND}


def draw_reliability(rows: Rows = DATA, title: str = TITLE) -> Spec:
    """Draw how often texts are right that a model is so and so sure of, beside the line of a model that is as often right.

    Args:
        rows: of `score_by_confidence`, with `rev`.
        title: above the chart.
    """
    sure: Spec = {"scale": {"domain": [0, 1]}, "axis": {"format": ".0%", "values": [0, 0.2, 0.4, 0.6, 0.8, 1]}}
    label, facts = "texts read right", _list_facts("confidence")
    # Hollow, as points of models that differ little are on top of each other.
    dot = {"type": "point", "filled": False, "size": 70, "strokeWidth": 2, "opacity": 1}
    ideal = {
        "data": {"values": [{"confidence": 0, "accuracy": 0}, {"confidence": 1, "accuracy": 1}]},
        "mark": {"type": "line", "strokeDash": [4, 4], "color": GREY},
        "encoding": {"y": _quantity("accuracy", label, **sure)},
    }
    shares = {
        "width": 300,
        "height": 300,
        "encoding": {"x": _quantity("confidence", None, scale=sure["scale"], axis={"labels": False})},
        "layer": [ideal, *_mark_shares("y", label, mark=dot, facts=facts, how=sure)],
        "resolve": ONE_LEGEND,
    }
    encoding = {
        "x": _quantity("confidence", "confidence (mean of texts in a bin)", **sure),
        "y": _quantity("samples", "texts", scale={"type": "log"}, axis={"format": ",d", "tickCount": 3}),
        "color": COLOR_ONLY,
        "shape": SHAPE | {"legend": None},
        "tooltip": facts,
    }
    counts = {"width": 300, "height": 60, "mark": dot, "encoding": encoding}
    return _start(rows, title, NUMBERS) | {"spacing": 8, "vconcat": [shares, counts], "resolve": ONE_LEGEND}


# What is no error, or one of no row, is left blank.
WRONG = "datum.actual != datum.predicted && datum.total > 0"


def draw_confusion(rows: Rows = DATA, title: str = TITLE) -> Spec:
    """Draw what characters were read as: shares of each row's total, beside which that stands, and counts in the cells.

    Characters that were read right are left blank, as they would outshine all others.

    Args:
        rows: of `count_confusions`, with `rev`.
        title: above the chart.
    """
    axis = {"labelAngle": 0, "labelExpr": f"length(datum.label) > 1 ? '{DASH}' : datum.label"}
    place = {
        "x": {"field": "predicted", "type": "nominal", "title": f"read as ({DASH}: nothing)", "axis": {"orient": "top", **axis}},
        "y": {"field": "actual", "type": "nominal", "title": f"character ({DASH}: none)", "axis": axis},
    }
    layer = [_colour_cells(), _write_counts(), _write_totals()]
    most = {"joinaggregate": [{"op": "max", "field": "share_wrong", "as": "most"}]}
    return _start(rows, title, ("count", "total", "share")) | {
        "transform": [{"calculate": f"{WRONG} ? datum.share : 0", "as": "share_wrong"}, most],
        "facet": {"column": {"field": "rev", "sort": [], "title": None}},
        "spec": {"width": {"step": 17}, "height": {"step": 17}, "encoding": place, "layer": layer},
    }


def _colour_cells() -> Spec:
    scale = {"domainMin": 0, "range": list(SEQUENCE)}
    share = _quantity("share_wrong", "share of the row", scale=scale, legend={"format": SHARE})
    facts = [{"field": name} for name in ("actual", "predicted", "count", "total")]
    return {
        "mark": "rect",
        "encoding": {
            "color": {"condition": {"test": WRONG, **share}, "value": FAINT},
            "tooltip": [*facts, {"field": "share", "format": ".3%"}],
        },
    }


def _write_counts() -> Spec:
    return {
        "transform": [{"filter": "datum.actual != datum.predicted"}],
        "mark": {"type": "text", "fontSize": 10},
        "encoding": {
            "text": {"field": "count"},
            "color": {"condition": {"test": f"{WRONG} && datum.share > datum.most / 2", "value": "white"}, "value": "black"},
        },
    }


def _write_totals() -> Spec:
    """Write how many a row is of at its end."""
    return {
        "transform": [
            {"filter": "datum.total > 0"},
            {"aggregate": [{"op": "max", "field": "total", "as": "total"}], "groupby": ["actual"]},
            {"calculate": "'of ' + format(datum.total, ',')", "as": "of"},
        ],
        "mark": {"type": "text", "align": "left", "dx": 6},
        "encoding": {"x": {"value": "width"}, "text": {"field": "of"}},
    }


def _draw_line(value: Spec, dashes: Spec) -> Spec:
    """Draw something by epoch: a line for each revision and each value of a field, with a point for each epoch."""
    line = {"mark": "line", "encoding": {"strokeDash": dashes, "color": COLOR_ONLY}}
    dot = {"type": "point", "filled": True, "size": 45, "opacity": 1}
    point = {"mark": dot, "encoding": {"color": COLOR, "shape": SHAPE}}
    epoch = _quantity("epoch", "epoch", axis={"tickMinStep": 1, "format": "d"})
    return {"encoding": {"x": epoch, "y": value}, "layer": [line, point], "resolve": ONE_LEGEND}


def draw_training(rows: Rows = DATA, title: str = TITLE) -> Spec:
    """Draw one model's exact match by epoch, on what it trains on and on validation samples.

    Args:
        rows: of `read_history`, with `rev`.
        title: above the chart.
    """
    line = {
        "transform": [
            {"fold": ["exact_match", "val_exact_match"], "as": ["part", "share"]},
            {"calculate": "datum.part == 'exact_match' ? 'training' : 'validation'", "as": "part"},
        ],
        "width": 320,
        "height": 240,
        **_draw_line(
            _quantity("share", "texts read right", scale={"zero": False}, axis={"format": SHARE}),
            DASHES | {"field": "part", "scale": {"domain": ["validation", "training"]}},
        ),
    }
    return _start(rows, title, ("epoch", "exact_match", "val_exact_match")) | line


def draw_learning(rows: Rows = DATA, title: str = TITLE) -> Spec:
    """Draw the validation errors and losses of all models by epoch, on scales of powers of ten, which show small ones apart.

    Args:
        rows: of `read_history`, with `rev`, and `filename` as DVC has it: its folder is the model's name.
        title: above the chart.
    """

    def draw_panel(measure: str, label: str, axis: Spec) -> Spec:
        return {
            "width": 300,
            "height": 260,
            "transform": [{"filter": f"datum.{measure} > 0"}],
            **_draw_line(
                _quantity(measure, label, scale={"type": "log"}, axis=axis | {"tickCount": 5}), DASHES | {"field": "model"}
            ),
        }

    panels = [
        draw_panel("wrong", "validation texts read wrong (log scale)", {"format": "~%"}),
        draw_panel("val_loss", "validation loss (log scale)", {"format": "~g"}),
    ]
    transform = [
        {"calculate": "slice(split(datum.filename, '/'), -2)[0]", "as": "model"},
        {"calculate": "1 - datum.val_exact_match", "as": "wrong"},
    ]
    return _start(rows, title, ("epoch", "val_exact_match", "val_loss")) | {"transform": transform, "hconcat": panels}


def draw_lines(rows: Rows, x: Spec, y: Spec) -> Spec:
    """Draw a line for each `rev`.

    Args:
        rows: `rev` and the fields of `x` and `y`.
        x: field and title of one axis, as Vega-Lite has them.
        y: the same of the other.
    """
    encoding = {"x": {"type": "quantitative", **x}, "y": {"type": "quantitative", **y}, "color": COLOR, "strokeDash": LEGEND}
    return _start(rows, "", ()) | {"width": 300, "height": 220, "mark": {"type": "line", "strokeWidth": 2}, "encoding": encoding}


def draw_counts(rows: Rows, title: str) -> Spec:
    """Draw how many samples fall into each range.

    Args:
        rows: `range` (a name, in order) and `samples`.
        title: what the ranges are of.
    """
    encoding = {
        "x": {"field": "range", "type": "ordinal", "sort": None, "title": title, "axis": {"labelAngle": -45}},
        "y": _quantity("samples", "samples", axis={"tickCount": 4, "format": "~s"}),
    }
    return _start(rows, "", ()) | {"width": 300, "height": 140, "mark": "bar", "encoding": encoding}
