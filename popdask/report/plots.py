"""The charts of a report, drawn by Bokeh: map, curves, timeline and balance.

Here they get their axes, glyphs and tools; the page's script fills the map and the curves when
somebody moves the slider or picks a place. Colours of axes, grids and texts are CSS variables of
the page, so that they follow its light and dark theme.

In the timeline tracks are lanes, those with most people first; a piece that split off lies near the
track that it came from. A lane is as thick as its place is large.

The map is as fine as a budget of bytes allows. Frames are read once, chunk by chunk, at the finest
level that a browser can draw; every coarser level comes from the one before it. People of cells
that become one are added, and labels are the commonest one. All levels are packed at once and the
finest that fits is kept, so that a large region costs no second reading.
"""

from __future__ import annotations

import base64
import re
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from math import prod
from typing import Any, Literal, NamedTuple

import bokeh.models
import bokeh.plotting
import dask
import numpy as np
import pandas as pd
import xarray as xr
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
from matplotlib import colormaps
from matplotlib.colors import to_hex

from popdask.io.frames import year_text
from popdask.plot.style import (
    CLASSES,
    INK,
    NO_DATA,
    NOBODY,
    By,
    Grid,
    block_size,
    period,
    reduced,
    shrink,
)
from popdask.tracking.tracks import split_off

#: Columns of a table, as the page holds them.
Columns = dict[str, list[Any]]
CURVES = {"people": "people", "area": "area, km²", "velocity": "velocity, km per year"}
# Bokeh's annotations leave out what its models take from their properties.
figure: Any = bokeh.plotting.figure
Range: Any = bokeh.models.Range1d
Source: Any = bokeh.models.ColumnDataSource
models: Any = bokeh.models

DATES: Any = {"years": "%Y", "months": "%b %Y", "days": "%d %b %Y"}
MAIN, QUIET = "#4477aa", "#bbbbbb"  # of Paul Tol's "bright" scheme
BAR = "#7a828c"  # seen on a light map and on a dark one
NAMED = 130  # pixels for the names of places
LEFT = 66  # pixels for the labels of a vertical axis: charts above one another share their years
LANES = 40
FEW = 4  # frames that are labelled each, on the narrowest chart, too
CHANGES = 100  # tracks that came or went which are listed
EVENTS = {"split": "#ee6677", "merge": "#4477aa", "appear": "#228833", "vanish": "#aa3377"}
EVENT_WORDS = {"split": "split off", "merge": "merged", "appear": "appeared", "vanish": "last seen"}
# So that colours are distinguished by more than colour.
HATCHES = ["right_diagonal_line", "blank", "dot", "horizontal_line"]
MARKS = {"split": "triangle", "merge": "inverted_triangle"}

MOST_CELLS = 4_000_000  # of a frame; phones refuse larger canvases than 16 million
LEVELS = 6
#: The codes of amounts; the rest are steps of a logarithmic scale.
NO_DATA_CODE, NOBODY_CODE, FIRST = 0, 1, 2
STEPS = 255 - FIRST
#: Few people are near to the page's own colour, many stand out from it.
RAMPS = {"light": colormaps["viridis_r"], "dark": colormaps["viridis"]}
BACKGROUNDS = {
    "light": {"nobody": NOBODY, "noData": NO_DATA},
    "dark": {"nobody": "#20242a", "noData": "#11161c"},
}


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
        source = Source({"xs": [], "ys": [], "colour": [], "dash": []}, name=name)
        plot.multi_line("xs", "ys", source=source, line_color="colour", line_width=width,
                        line_alpha=alpha, line_join="round", line_dash="dash")  # fmt: skip
    spots = Source({"x": [], "y": [], "size": [], "colour": [], "mark": []}, name="spots")
    plot.scatter("x", "y", source=spots, size="size", color="colour", line_color="#ffffff",
                 marker="mark")  # fmt: skip
    plot.add_layout(_scale_bar(plot.x_range))
    plot.js_on_event(Tap, CustomJS(code="report.tap(cb_obj.x, cb_obj.y)"))
    plot.js_on_event(MouseMove, CustomJS(code="report.hover(cb_obj)"))
    plot.js_on_event(MouseLeave, CustomJS(code="report.leave()"))
    return plot


def _scale_bar(across: Any) -> Any:
    """Make a scale in m or km: never in Mm, which nobody reads."""
    return models.ScaleBar(
        range=across,
        unit="km",
        dimensional=models.MetricLength(include=["m", "km"]),
        location="bottom_left",
        name="scale",
        background_fill_alpha=0,
        border_line_alpha=0,
        margin=4,
        bar_line_color=BAR,
        bar_line_width=3,
    )


def curve_plots(times: np.ndarray, *, moving: bool = True) -> list[Any]:
    """Make the curves of a place's people, area and velocity; the script fills them."""
    names = ["time", *CURVES]
    source = Source({name: [] for name in names}, name="curve")
    span = milliseconds(times)
    plots: list[Any] = []
    for name, title in CURVES.items():
        if name == "velocity" and not moving:
            continue  # every plot needs its place on the page
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


def balance_plot(balance: pd.DataFrame, many: str = "communities") -> Any:
    """Draw the people in communities or settlements and outside them, frame by frame."""
    times = balance["time"].to_numpy("datetime64[ns]")
    data = {"time": milliseconds(times)}
    data |= {name: balance[name].to_numpy(float).tolist() for name in ("inside", "outside")}
    plot = chart("balance", times, height=230, title="people")
    width = bar_width(times)
    source = Source(data)
    plot.vbar_stack(["inside", "outside"], x="time", width=width, color=[MAIN, QUIET],
                    source=source, line_alpha=0, hatch_pattern=["blank", "dot"], hatch_color=INK,
                    legend_label=[f"in {many}", "outside them"])  # fmt: skip
    plot.y_range.start = 0
    plot.yaxis.formatter = NumeralTickFormatter(format="0,0")
    rows = [(f"in {many}", "@inside{0,0}"), ("outside", "@outside{0,0}")]
    plot.add_tools(hover([("", "@time{%F}"), *rows], mode="mouse"))
    legend_above(plot)
    plot.add_layout(now("balance", data["time"][0]))
    return plot


def now(plot: str, time: float) -> Any:
    """Make the line in a plot that marks the frame on the map; the script moves it."""
    return models.Span(location=time, dimension="height", line_dash="dotted", name=f"now-{plot}",
                line_color="#888888")  # fmt: skip


def milliseconds(times: np.ndarray) -> list[float]:
    """Give times as Bokeh has them."""
    found: list[float] = times.astype("datetime64[ms]").astype(float).tolist()
    return found


def document(plots: Iterable[Any]) -> dict[str, Any]:
    """Write plots as a page takes them."""
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
    if len(span) <= FEW:  # else a frame is labelled with a time between
        plot.xaxis.ticker = span
        plot.xaxis.major_label_overrides = dict(zip(span, map(year_text, times), strict=True))
    plot.xgrid.visible = False
    plot.axis.minor_tick_line_color = None
    plot.axis.axis_line_color = None
    plot.yaxis.ticker = BasicTicker(desired_num_ticks=4)
    return plot


def bar_width(times: np.ndarray) -> float:
    """Return the width of bars that stand side by side, in milliseconds."""
    gaps = np.diff(milliseconds(times))
    return 0.8 * float(gaps.min()) if len(gaps) else 0.8 * 365.25 * 86_400_000


def hover(rows: list[tuple[str, str]], mode: Any = "vline") -> HoverTool:
    """Make the tool that shows what lies under the mouse."""
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


class _Turn(NamedTuple):
    """A split or a merge."""

    frame: int
    event: str
    track: int
    parents: list[int]


def timeline_plots(
    communities: Columns,
    events: Columns,
    colours: Mapping[str, str],
    times: np.ndarray,
    layer: str = "community",
) -> list[Any]:
    """Draw how often tracks began, ended, split and merged, and the lanes of the largest."""
    news, there = pd.DataFrame(events), pd.DataFrame(communities)
    if not news["event"].isin(list(EVENTS)).any():
        return []
    counts = _count_plot(news, times, layer)
    turns = _turns(news)
    lanes = _lanes(there, turns)
    if not lanes:
        return [counts]
    plot = chart(f"lanes-{layer}", times, height=60 + 15 * len(lanes))
    plot.x_range = counts.x_range
    plot.y_range = Range(len(lanes) - 0.4, -0.6)
    called = _track_names(there)
    ticks(plot.yaxis[0], {lane: called[track] for track, lane in lanes.items()})
    plot.min_border_left = counts.min_border_left = NAMED if "name" in there else LEFT
    plot.ygrid.visible = False
    _draw_joints(plot, turns, lanes, colours, milliseconds(times))
    _draw_lanes(
        plot, there.assign(called=there["track"].map(called)), lanes, colours, milliseconds(times)
    )
    plot.add_layout(now(f"lanes-{layer}", milliseconds(times)[0]))
    plot.js_on_event(Tap, CustomJS(code="report.lane(cb_obj.x, Math.round(cb_obj.y))"))
    plot.tags = [list(lanes)]
    return [counts, plot]


def _track_names(there: pd.DataFrame) -> Mapping[int, str]:
    """What each track is called: a settlement's by name, a community's by number."""
    if "name" in there:
        rows = there.drop_duplicates("track")
        return dict(zip(rows["track"].tolist(), rows["name"].tolist(), strict=True))
    return {track: f"track {track}" for track in there["track"].unique().tolist()}


def timeline_tables(communities: Columns, events: Columns, span: list[str]) -> dict[str, Any]:
    """Give what the timeline shows as tables: events of every frame, and the lanes."""
    news, there = pd.DataFrame(events), pd.DataFrame(communities)
    counts = _event_counts(news, len(span))
    rows = [
        (label, *(f"{counts[event][frame]:,}" for event in EVENTS))
        for frame, label in enumerate(span)
    ]
    turns, names = _turns(news), _track_names(there)
    lanes = there[there["track"].isin(list(_lanes(there, turns)))].sort_values("frame")
    lives = [
        (
            names[track],
            f"{span[life['frame'].iloc[0]]} to {span[life['frame'].iloc[-1]]}",
            f"{life['people'].iloc[0]:,.0f}",
            f"{life['people'].iloc[-1]:,.0f}",
            *(
                ", ".join(span[turn.frame] for turn in turns if turn[1:3] == (event, track)) or "–"
                for event in MARKS
            ),
        )
        for track in sorted(set(lanes["track"].tolist()))
        for life in [lanes[lanes["track"] == track]]
    ]
    head = ("track", "followed", "people, first", "people, last", "a part of a split", "merged")
    return {
        "events": {"head": (period(span), *EVENT_WORDS.values()), "rows": rows},
        "lanes": {"head": head, "rows": lives},
    }


def turnover_table(places: Columns, changes: pd.DataFrame, one: str, span: list[str]) -> Any:
    """Give who came and went as a table: those with most people then, in order of time."""
    called = _track_names(pd.DataFrame(places))
    keys = zip(places["frame"], places["track"], strict=True)
    then = dict(zip(keys, places["people"], strict=True))
    known = [row | {"then": then[row["frame"], row["track"]]} for row in changes.to_dict("records")]
    largest = sorted(known, key=lambda row: -row["then"])[:CHANGES]
    rows = [
        (
            called[row["track"]],
            span[row["frame"]],
            f"{row['verb']}: {row['how']}",
            ", ".join(called[other] for other in row["others"]) or "–",
            f"{row['then']:,.0f}",
        )
        for row in sorted(largest, key=lambda row: row["frame"])
    ]
    return {"head": (one, "first or last seen", "how", "others", "people then"), "rows": rows}


def _event_counts(news: pd.DataFrame, frames: int) -> dict[str, list[int]]:
    """Count the events of every frame."""
    happened = {event: (news["event"] == event).to_numpy() for event in EVENTS}
    happened["split"] = split_off(news["event"], news["track"], news["parents"])
    return {
        event: np.bincount(news["frame"].to_numpy(int)[rows], minlength=frames).tolist()
        for event, rows in happened.items()
    }


def _count_plot(news: pd.DataFrame, times: np.ndarray, layer: str) -> Any:
    """Draw how many events every frame has."""
    counts = _event_counts(news, len(times))
    plot = chart(f"events-{layer}", times, height=210)
    source = Source({"time": milliseconds(times), **counts})
    plot.vbar_stack(list(EVENTS), x="time", width=bar_width(times), source=source,
                    color=list(EVENTS.values()), line_alpha=0, hatch_pattern=HATCHES,
                    hatch_color="#ffffff", legend_label=list(EVENT_WORDS.values()))  # fmt: skip
    plot.y_range.start = 0
    plot.yaxis.ticker = BasicTicker(desired_num_ticks=4, min_interval=1)
    rows = [(words, f"@{event}") for event, words in EVENT_WORDS.items()]
    plot.add_tools(hover([("", "@time{%F}"), *rows], mode="mouse"))
    legend_above(plot)
    plot.add_layout(now(f"events-{layer}", milliseconds(times)[0]))
    return plot


def _turns(news: pd.DataFrame) -> list[_Turn]:
    rows = news[news["event"].isin(["split", "merge"])]
    columns = (rows[name].tolist() for name in _Turn._fields)
    return [_Turn(*row) for row in zip(*columns, strict=True)]


def _lanes(there: pd.DataFrame, turns: list[_Turn]) -> dict[int, int]:
    """Choose the largest tracks that split or merged, and put families together."""
    family = {turn.track for turn in turns}.union(*(turn.parents for turn in turns))
    people = there.groupby("track")["people"].max()
    people = people[people.index.isin(family)].sort_values(ascending=False, kind="stable")
    chosen: list[int] = people.index[:LANES].tolist()
    children: dict[int, list[int]] = {track: [] for track in chosen}
    placed: set[int] = set()
    for turn in turns:
        parents = [parent for parent in turn.parents if parent in children]
        fresh = turn.track in children and turn.track not in placed
        if turn.event == "split" and fresh and turn.track not in parents and parents:
            children[parents[0]].append(turn.track)
            placed.add(turn.track)
    order: list[int] = []
    waiting = [track for track in reversed(chosen) if track not in placed]
    while waiting:
        track = waiting.pop()
        order.append(track)
        waiting += reversed(children[track])
    return {track: lane for lane, track in enumerate(order)}


def _draw_lanes(
    plot: Any,
    there: pd.DataFrame,
    lanes: dict[int, int],
    colours: Mapping[str, str],
    at: list[float],
) -> None:
    """Draw each community as a piece of its track's lane, half a step to either side."""
    rows = there[there["track"].isin(list(lanes))]
    most = float(rows["people"].max()) or 1.0
    borders = _borders(at)
    data = {
        "x0": [borders[frame] for frame in rows["frame"]],
        "x1": [borders[frame + 1] for frame in rows["frame"]],
        "lane": [lanes[track] for track in rows["track"]],
        "width": (2.5 + 9 * np.sqrt(rows["people"].to_numpy(float) / most)).round(2).tolist(),
        "colour": [colours[str(track)] for track in rows["track"]],
        "time": [at[frame] for frame in rows["frame"]],
        "called": rows["called"].tolist(),
        "community": rows["community"].tolist(),
        "people": rows["people"].tolist(),
    }
    drawn = plot.segment("x0", "lane", "x1", "lane", source=Source(data),
                         line_width="width", line_color="colour")  # fmt: skip
    tooltips = [("", "@time{%F}, @called"), ("people", "@people{0,0}")]
    plot.add_tools(
        HoverTool(renderers=[drawn], tooltips=tooltips, formatters={"@time": "datetime"})
    )


def _draw_joints(
    plot: Any,
    turns: list[_Turn],
    lanes: dict[int, int],
    colours: Mapping[str, str],
    at: list[float],
) -> None:
    """Draw a line between the lane of a parent and that of what became of it."""
    borders = _borders(at)
    joints: dict[str, list[Any]] = {"x": [], "y0": [], "y1": [], "colour": [], "mark": [],
                                    "shape": []}  # fmt: skip
    for turn in turns:
        began = turn.track not in turn.parents  # else the track goes on, as its largest piece
        for parent in turn.parents:
            known = parent in lanes and turn.track in lanes and parent != turn.track
            if known and (began or turn.event == "merge"):
                joints["x"].append(borders[turn.frame])
                joints["y0"].append(lanes[parent])
                joints["y1"].append(lanes[turn.track])
                joints["colour"].append(colours[str(turn.track if began else parent)])
                joints["mark"].append(EVENTS[turn.event])
                joints["shape"].append(MARKS[turn.event])
    source = Source(joints)
    plot.segment("x", "y0", "x", "y1", source=source, line_color="colour", line_width=1.5)
    plot.scatter("x", "y1", source=source, color="mark", size=9, line_color="#ffffff",
                 marker="shape")  # fmt: skip


def _borders(at: list[float]) -> list[float]:
    """Return the times half way between frames, and as far beyond the first and the last."""
    if len(at) == 1:
        half = bar_width(np.array(at, "datetime64[ms]")) / 2
        return [at[0] - half, at[0] + half]
    middle = [(one + other) / 2 for one, other in pairwise(at)]
    return [2 * at[0] - middle[0], *middle, 2 * at[-1] - middle[-1]]


@dataclass(frozen=True)
class Overview:
    """The frames of all layers, at one level of the pyramid."""

    rows: int
    cols: int
    factor: int  # cells of the raster along a side of one of the map's
    frames: Mapping[str, list[dict[str, Any]]]
    """By layer: packed ``codes`` and their ``dtype``; of amounts the ends of the scale, ``low`` and
    ``high``; of labels how many there are, ``labels``."""

    @property
    def bytes(self) -> int:
        """Size of all frames within the page."""
        return sum(len(frame["codes"]) for frames in self.frames.values() for frame in frames)

    def without_codes(self) -> Overview:
        """Give what is said of the frames, without the frames."""
        described = {
            name: [{**frame, "codes": ""} for frame in frames]
            for name, frames in self.frames.items()
        }
        return replace(self, frames=described)


def pyramid(
    layers: Mapping[str, xr.DataArray],
    by: Mapping[str, By] | None = None,
    *,
    most_cells: int = MOST_CELLS,
) -> list[Overview]:
    """Reduce the frames of layers, level by level."""
    first = next(iter(layers.values()))
    rows, cols = first.shape[1:]
    how: dict[str, By] = {
        name: "sum" if raster.dtype.kind == "f" else "mode" for name, raster in layers.items()
    }
    how |= by or {}
    levels = [
        Overview(-(-rows // factor), -(-cols // factor), factor, {name: [] for name in layers})
        for factor in _factors((rows, cols), most_cells)
    ]
    for position in range(first.shape[0]):
        lazy = {
            name: shrink(raster[position], _side(levels[0]), how[name])
            for name, raster in layers.items()
        }
        frame: dict[str, np.ndarray] = dask.compute(lazy)[0]
        for level in levels:
            frame = {
                name: reduced(values, _side(level), by=how[name]) for name, values in frame.items()
            }
            for name, values in frame.items():
                coded = _coded_amounts if values.dtype.kind == "f" else _coded_labels
                level.frames[name].append(coded(values))
    return levels


def finest(
    levels: Sequence[Overview], max_bytes: int, around: Callable[[Overview], int] = lambda _: 0
) -> Overview:
    """Choose the finest level that fits a budget; the coarsest where none does."""
    return next((level for level in levels if level.bytes + around(level) <= max_bytes), levels[-1])


def pack(content: bytes) -> str:
    """Compress bytes to text that can stand in a page."""
    return base64.b64encode(zlib.compress(content, 6)).decode("ascii")


def _factors(shape: tuple[int, int], most_cells: int) -> list[int]:
    """How many cells become one along a side at each level, twice as many as at the one before."""
    factor = 1
    while prod(-(-length // factor) for length in shape) > most_cells:
        factor += 1
    factor = block_size(shape, -(-max(shape) // factor))
    return [factor << level for level in range(LEVELS) if max(shape) >= factor << level]


def _side(level: Overview) -> int:
    return max(level.rows, level.cols)


def _coded_labels(labels: np.ndarray) -> dict[str, Any]:
    """Number labels from 1 on, 0 = none, in as few bytes as the largest needs."""
    codes = np.maximum(labels.astype(np.int64), -1) + 1
    dtype = np.min_scalar_type(int(codes.max(initial=0)))
    content = codes.astype(dtype.newbyteorder("<")).tobytes()
    coded = {"codes": pack(content), "dtype": dtype.name, "labels": int(codes.max(initial=0))}
    return coded | {
        "cells": int((codes > 0).sum()),
        "shown": f"{len(np.unique(codes[codes > 0])):,}",
    }


def _coded_amounts(values: np.ndarray) -> dict[str, Any]:
    """Put amounts on a logarithmic scale of a byte: about 4 % a step for people in cells."""
    high = float(np.nanmax(values, initial=0)) or 1.0
    low = min(1.0, high / 1e4)
    with np.errstate(divide="ignore", invalid="ignore"):
        steps = np.log(np.maximum(values.astype(float), low) / low) / np.log(high / low)
    codes = np.full(values.shape, NO_DATA_CODE, np.uint8)
    codes[values <= 0] = NOBODY_CODE
    some = values > 0
    codes[some] = FIRST + np.round(STEPS * steps[some]).astype(np.uint8)
    most = np.nanmax(values, initial=0)
    coded = {"codes": pack(codes.tobytes()), "dtype": "uint8", "low": low, "high": high}
    return coded | {
        "cells": int(some.sum()),
        "shown": f"{most:,.4g}" if most < 1000 else f"{most:,.0f}",
    }


@dataclass(frozen=True)
class Layer:
    """A layer of the map."""

    name: str  # its name within the store
    title: str  # what the page calls it
    kind: Literal["amount", "label", "places"]
    """Amounts have a colour scale, labels a colour each, places that of their track."""
    note: str  # what one sees, in a sentence or two
    tooltip: str = "#"
    """How an amount under the mouse is shown, ``#`` being the number."""
    none: str = "nobody"  # what is said where the amount is 0
    one: str = ""  # what one label is called, such as ``class``
    linear: bool = False
    """Whether an amount's scale is linear, from 0 on; otherwise it is logarithmic."""
    ends: tuple[float, float] | None = None
    """Ends of an amount's scale; by default those of the data."""
    by: Literal["max", "sum", "mode"] | None = None
    """How cells that become one are reduced; by default amounts are added."""
    palette: Sequence[str] = CLASSES  # the colours of labels
    meanings: Mapping[int, str] = field(default_factory=dict)
    """What is known of labels, in a few words each."""


def layer_setup(layer: Layer, maps: Overview, cell: str) -> dict[str, Any]:
    """Say how the page's script draws a layer, on cells of a size."""
    setup = {key: getattr(layer, key) for key in ("name", "kind", "none", "one")}
    setup["tooltip"] = layer.tooltip.replace("{cell}", cell)
    if layer.kind == "amount":
        low, high = _ends(layer, maps)
        setup["scale"] = {"low": low, "high": high, "linear": layer.linear}
    if layer.kind == "label":
        setup["palette"] = list(layer.palette)
    return setup


def layer_key(layer: Layer, maps: Overview, cell: str) -> dict[str, Any]:
    """Say how the page explains a layer's colours, on cells of a size."""
    key: dict[str, Any] = {
        "name": layer.name,
        "title": layer.title,
        "ticks": [],
        "chips": [],
        "none": layer.none,
    }
    key["note"] = layer.note.replace("{cell}", cell)
    if layer.kind == "amount":
        key["ticks"] = _ticks(*_ends(layer, maps), linear=layer.linear)
        key |= {theme: ", ".join(_ramp(theme, 12)) for theme in RAMPS}
    if layer.kind == "label":
        numbers = range(max(frame["labels"] for frame in maps.frames[layer.name]))
        key["chips"] = [
            {
                "colour": layer.palette[number % len(layer.palette)],
                "text": f"{layer.one} {number}{layer.meanings.get(number, '')}",
            }
            for number in numbers
        ]
    return key


def map_table(layers: Sequence[Layer], maps: Overview, span: Sequence[str]) -> dict[str, Any]:
    """Put what the map shows into a table: a row for each layer and frame."""
    rows = [
        (layer.title, label, f"{maps.rows * maps.cols:,}", f"{frame['cells']:,}", frame["shown"])
        for layer in layers
        for label, frame in zip(span, maps.frames[layer.name], strict=True)
    ]
    return {
        "head": ("layer", period(span), "cells of the map", "coloured", "most, or kinds"),
        "rows": rows,
    }


def themes() -> dict[str, dict[str, Any]]:
    """Return the colours of land and people in light and in dark."""
    return {theme: {**BACKGROUNDS[theme], "ramp": _ramp(theme, 128)} for theme in RAMPS}


def _ends(layer: Layer, maps: Overview) -> tuple[float, float]:
    if layer.ends is not None:
        return layer.ends
    frames = maps.frames[layer.name]
    high = max(float(frame["high"]) for frame in frames)
    return min(float(frame["low"]) for frame in frames), max(high, 10.0 * min(1.0, high))


def _ticks(low: float, high: float, *, linear: bool) -> list[Mapping[str, Any]]:
    if linear:
        values = np.linspace(low, high, 5)
        at = np.linspace(0, 100, 5)
    else:
        powers = np.arange(np.ceil(np.log10(low)), np.floor(np.log10(high)) + 1)
        values = 10.0**powers
        at = 100 * np.log(values / low) / np.log(high / low)
    return [
        {"at": round(float(place), 1), "text": f"{value:,.0f}" if value >= 1 else f"{value:g}"}
        for value, place in zip(values, at, strict=True)
    ]


def _ramp(theme: str, steps: int) -> list[str]:
    return [to_hex(RAMPS[theme](share)) for share in np.linspace(0, 1, steps)]


@dataclass(frozen=True)
class Content:
    """What a report shows, apart from the pictures and the record that all reports have."""

    lead: str  # what was done, in a sentence
    numbers: list[dict[str, str]]  # what was found, in a few numbers: ``value`` and ``what`` it is
    map_note: str  # how to use the map
    layers: list[Layer]  # the layers, the first of which is shown first
    rasters: Mapping[str, xr.DataArray]  # the layers' rasters (time, y, x)
    grid: Grid  # where the cells lie
    times: list[str]  # the frames' names
    milliseconds: list[float]  # the frames' times, as Bokeh has them
    plots: list[Any]  # Bokeh's plots, ``map`` among them
    filling: Mapping[str, Any] = field(default_factory=dict)  # what else the template shows
    tables: Mapping[str, Any] = field(default_factory=dict)  # tables for the script
    colours: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """The colour of each track, by the layer of places."""
    followed: list[dict[str, str]] = field(default_factory=list)
    """The layers of places that are followed through time, and what ``one`` and ``many`` are."""


def cell_words(grid: Grid, factor: int) -> str:
    """Say how large a cell of the map is, where it stands for some of the raster's."""
    width, height = (side * factor for side in grid.cell)
    if max(width, height) < 1:
        return f"{np.round(1000 * width):,.0f} × {np.round(1000 * height):,.0f} m"
    return f"{width:.3g} × {height:.3g} km"
