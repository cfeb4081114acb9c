"""The charts of a report, drawn by Bokeh: map, curves, timeline and balance.

Here they get their axes, glyphs and tools; the page's script fills the map and the curves when
somebody moves the slider or picks a community. Colours of axes, grids and texts are CSS variables
of the page, so that they follow its light and dark theme.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import bokeh.models
import bokeh.plotting
import numpy as np
import pandas as pd
from bokeh.document import Document
from bokeh.events import MouseLeave, MouseMove, Tap
from bokeh.models import (
    BasicTicker,
    CustomJS,
    DatetimeTickFormatter,
    FixedTicker,
    HoverTool,
    NumeralTickFormatter,
    PanTool,
    WheelZoomTool,
)

from popdask.figures.places import Grid

CURVES = {"people": "people", "area": "area, km²", "velocity": "velocity, km per year"}
# Bokeh's annotations leave out what its models take from their properties.
figure: Any = bokeh.plotting.figure
Range: Any = bokeh.models.Range1d
Source: Any = bokeh.models.ColumnDataSource
models: Any = bokeh.models

DATES: Any = {"years": "%Y", "months": "%b %Y", "days": "%d %b %Y"}
MAIN, QUIET = "#4477aa", "#bbbbbb"  # of Paul Tol's "bright" scheme
BAR = "#7a828c"  # seen on a light map and on a dark one
LEFT = 66  # pixels for the labels of a vertical axis: charts above one another share their years


def map_plot(grid: Grid) -> Any:
    """Make the map: an image, the tracks' paths on top, and what a finger or a mouse does."""
    width, height = grid.size
    wheel, pan = WheelZoomTool(), PanTool()
    plot = figure(
        name="map",
        x_range=Range(0, width),
        y_range=Range(0, height),
        tools=[pan, wheel],
        active_scroll=wheel,
        active_drag=pan,
        toolbar_location=None,
        sizing_mode="stretch_both",
        min_border=0,
        outline_line_color=None,
        background_fill_alpha=0,
        border_fill_alpha=0,
    )
    plot.axis.visible = False
    plot.grid.visible = False
    raster = Source({"image": [], "x": [], "y": [], "dw": [], "dh": []}, name="raster")
    plot.image_rgba(source=raster, origin="top_left" if grid.upright else "bottom_left",
                    anchor="top_left" if grid.upright else "bottom_left")  # fmt: skip
    for name, width, alpha in (("joints", 1, 0.5), ("trails", 2, 1)):
        source = Source({"xs": [], "ys": [], "colour": []}, name=name)
        plot.multi_line("xs", "ys", source=source, line_color="colour", line_width=width,
                        line_alpha=alpha, line_join="round")  # fmt: skip
    spots = Source({"x": [], "y": [], "size": [], "colour": []}, name="spots")
    plot.scatter("x", "y", source=spots, size="size", color="colour", line_color="#ffffff")
    plot.add_layout(
        models.ScaleBar(
            range=plot.x_range,
            unit="km",
            location="bottom_left",
            name="scale",
            background_fill_alpha=0,
            border_line_alpha=0,
            margin=4,
            bar_line_color=BAR,
            bar_line_width=3,
        )
    )
    plot.js_on_event(Tap, CustomJS(code="report.tap(cb_obj.x, cb_obj.y)"))
    plot.js_on_event(MouseMove, CustomJS(code="report.hover(cb_obj)"))
    plot.js_on_event(MouseLeave, CustomJS(code="report.leave()"))
    return plot


def curve_plots(times: np.ndarray) -> list[Any]:
    """Make the curves of a community's people, area and velocity; the script fills them."""
    names = ["time", *CURVES]
    source = Source({name: [] for name in names}, name="curve")
    span = milliseconds(times)
    plots: list[Any] = []
    for name, title in CURVES.items():
        plot = chart(name, times, height=130, title=title)
        plot.x_range = plots[0].x_range if plots else plot.x_range
        plot.y_range = Range(0, 1)
        plot.line("time", name, source=source, line_width=2.5, color=MAIN)
        plot.scatter("time", name, source=source, size=7, color=MAIN)
        form = "0,0" if name == "people" else "0,0.0" if name == "area" else "0.00"
        plot.yaxis.formatter = NumeralTickFormatter(format=form)
        plot.add_tools(hover([("", f"@time{{%F}}: @{name}{{{form}}}")]))
        plot.add_layout(now(name, span[0]))
        plots.append(plot)
    return plots


def balance_plot(balance: pd.DataFrame) -> Any:
    """Draw the people in communities and outside them, frame by frame."""
    times = balance["time"].to_numpy("datetime64[ns]")
    data = {"time": milliseconds(times)}
    data |= {name: balance[name].to_numpy(float).tolist() for name in ("inside", "outside")}
    plot = chart("balance", times, height=230, title="people")
    width = bar_width(times)
    source = Source(data)
    plot.vbar_stack(["inside", "outside"], x="time", width=width, color=[MAIN, QUIET],
                    source=source, line_alpha=0,
                    legend_label=["in communities", "outside them"])  # fmt: skip
    plot.y_range.start = 0
    plot.yaxis.formatter = NumeralTickFormatter(format="0,0")
    rows = [("in communities", "@inside{0,0}"), ("outside", "@outside{0,0}")]
    plot.add_tools(hover([("", "@time{%F}"), *rows], mode="mouse"))
    legend_above(plot)
    plot.add_layout(now("balance", data["time"][0]))
    return plot


def now(plot: str, time: float) -> Any:
    """Make the line in a plot that marks the frame on the map; the script moves it."""
    return models.Span(location=time, dimension="height", line_dash="dotted", name=f"now-{plot}",
                line_color="#888888")  # fmt: skip


def milliseconds(times: np.ndarray) -> list[float]:
    """Give times as Bokeh has them.

    Examples
    --------
    >>> milliseconds(np.array(["1970-01-02"], "datetime64[D]"))
    [86400000.0]
    """
    found: list[float] = times.astype("datetime64[ms]").astype(float).tolist()
    return found


def document(plots: Iterable[Any]) -> dict[str, Any]:
    """Write plots as a page takes them.

    Returns
    -------
    dict
        Bokeh's ``document``, and the ``roots``: the id of each plot by its name. Ids
        count from 1, whatever else this process has drawn: the same plots are the same text.
    """
    whole = Document()
    for plot in plots:
        whole.add_root(plot)
    content: Any = whole.to_json(deferred=False)
    names: dict[str, str] = {}
    content = _renumbered(content, names)
    roots = {root["attributes"]["name"]: root["id"] for root in content["roots"]}
    return {"document": content, "roots": roots}


def _renumbered(value: Any, names: dict[str, str]) -> Any:
    """Replace Bokeh's ids, which count on within a process."""
    if isinstance(value, Mapping):
        return {
            key: names.setdefault(inner, f"m{len(names) + 1}")
            if key == "id" and isinstance(inner, str) and re.fullmatch(r"p\d+", inner)
            else _renumbered(inner, names)
            for key, inner in value.items()
        }
    if isinstance(value, list | tuple):
        return [_renumbered(inner, names) for inner in value]
    return value


def chart(name: str, times: np.ndarray, height: int, title: str = "") -> Any:
    """Make an empty chart over time, as wide as its place."""
    span = milliseconds(times)
    margin = bar_width(times) * 0.75
    plot = figure(
        name=name,
        height=height,
        sizing_mode="stretch_width",
        x_axis_type="datetime",
        x_range=Range(span[0] - margin, span[-1] + margin),
        tools="",
        toolbar_location=None,
        title=title or None,
        outline_line_color=None,
        background_fill_alpha=0,
        border_fill_alpha=0,
        min_border_left=LEFT,
    )
    plot.xaxis.formatter = DatetimeTickFormatter(**DATES)
    plot.xgrid.visible = False
    plot.axis.minor_tick_line_color = None
    plot.axis.axis_line_color = None
    plot.yaxis.ticker = BasicTicker(desired_num_ticks=4)
    return plot


def bar_width(times: np.ndarray) -> float:
    """Give the width of bars that stand side by side, in milliseconds."""
    gaps = np.diff(milliseconds(times))
    return 0.8 * float(gaps.min()) if len(gaps) else 0.8 * 365.25 * 86_400_000


def hover(rows: list[tuple[str, str]], mode: Any = "vline") -> HoverTool:
    """Make the tool that tells what lies under the mouse."""
    return HoverTool(tooltips=rows, formatters={"@time": "datetime"}, mode=mode)


def legend_above(plot: Any) -> None:
    """Put the legend where it hides nothing."""
    plot.add_layout(plot.legend[0], "above")
    plot.legend.orientation = "horizontal"
    plot.legend.border_line_alpha = plot.legend.background_fill_alpha = 0.0


def ticks(axis: Any, labels: Mapping[int, str]) -> None:
    """Write labels instead of numbers at an axis."""
    axis.ticker = FixedTicker(ticks=list(labels))
    axis.major_label_overrides = dict(labels)
