"""The charts of the report, as Vega-Lite specifications without a style."""

from collections.abc import Mapping, Sequence

Row = Mapping[str, object]
Spec = Mapping[str, object]

# On a phone a chart is as wide as the screen and its letters still large enough.
WIDTH, HEIGHT, BAR_STEP = 300, 220, 18


def chart_intervals(rows: Sequence[Row], *, y: str, x_title: str, y_title: str) -> Spec:
    """Draw shares with their intervals, one line each.

    Args:
        rows: `y` (a name, in order), `share`, `low` and `high`, 0 to 1.
        y: the column of names.
        x_title: what the shares are.
        y_title: what the names are.
    """
    axis = {"field": y, "type": "nominal", "sort": None, "title": y_title}
    scale: dict[str, object] = {
        "scale": {"zero": False, "nice": True},
        "axis": {"format": "~%", "tickCount": 5},
        "title": x_title,
    }
    return {
        "data": {"values": list(rows)},
        "width": WIDTH,
        "height": {"step": BAR_STEP},
        "encoding": {"y": axis},
        "layer": [
            {
                "mark": {"type": "rule", "strokeWidth": 2},
                "encoding": {"x": {"field": "low", "type": "quantitative", **scale}, "x2": {"field": "high"}},
            },
            {
                "mark": {"type": "point", "filled": True, "size": 50, "opacity": 1},
                "encoding": {"x": {"field": "share", "type": "quantitative", **scale}},
            },
        ],
    }


def chart_reliability(rows: Sequence[Row]) -> Spec:
    """Draw for each range of confidence what share was right, with its interval, beside the confidence.

    Args:
        rows: `range` (a name, in order), `confidence` (its mean), `share`, `low` and `high`, 0 to 1.
    """
    y = {"type": "quantitative", "axis": {"format": "~%"}, "title": "share read right"}
    return {
        "data": {"values": list(rows)},
        "width": WIDTH,
        "height": HEIGHT,
        "encoding": {
            "x": {"field": "range", "type": "ordinal", "sort": None, "title": "confidence", "axis": {"labelAngle": -45}}
        },
        "layer": [
            {
                "mark": {"type": "rule", "strokeWidth": 2},
                "encoding": {"y": {"field": "low", **y}, "y2": {"field": "high"}},
            },
            {
                "mark": {"type": "point", "filled": True, "size": 50, "opacity": 1},
                "encoding": {"y": {"field": "share", **y}},
            },
            {
                "mark": {"type": "tick", "thickness": 2},
                "encoding": {"y": {"field": "confidence", **y}},
            },
        ],
    }


def chart_lines(rows: Sequence[Row], *, x: Row, y: Row) -> Spec:
    """Draw a line for each model, told apart by colour and by dashes.

    Args:
        rows: `model` and the fields of `x` and `y`.
        x: field and title of one axis, as Vega-Lite has them.
        y: the same of the other.
    """
    model = {"field": "model", "type": "nominal", "sort": None, "title": None}
    return {
        "data": {"values": list(rows)},
        "width": WIDTH,
        "height": HEIGHT,
        "mark": {"type": "line", "strokeWidth": 2},
        "encoding": {
            "x": {"type": "quantitative", **x},
            "y": {"type": "quantitative", **y},
            "color": model,
            "strokeDash": model,
        },
    }


def chart_bars(rows: Sequence[Row], *, x_title: str) -> Spec:
    """Draw how many samples fall into each range.

    Args:
        rows: `range` (a name, in order) and `samples`.
        x_title: what the ranges are of.
    """
    return {
        "data": {"values": list(rows)},
        "width": WIDTH,
        "height": 140,
        "mark": "bar",
        "encoding": {
            "x": {"field": "range", "type": "ordinal", "sort": None, "title": x_title, "axis": {"labelAngle": -45}},
            "y": {"field": "samples", "type": "quantitative", "title": "samples", "axis": {"tickCount": 4, "format": "~s"}},
        },
    }
