"""The charts of a report, drawn by Bokeh: map, curves, timeline and balance.

Here they get their axes, glyphs and tools; the page's script fills the map and the curves when
somebody moves the slider or picks a place. Colours of axes, grids and texts are CSS variables of
the page, so that they follow its light and dark theme.

In the timeline tracks are lanes, those with most people first; a piece that split off lies near the
track that it came from. A lane is as thick as its place is large.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import Any, NamedTuple

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

from popdask.plot.style import INK, Grid, period
from popdask.report.tables import Columns
from popdask.tracking.tracks import split_off

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
EVENTS = {"split": "#ee6677", "merge": "#4477aa", "appear": "#228833", "vanish": "#aa3377"}
EVENT_WORDS = {"split": "split off", "merge": "merged", "appear": "appeared", "vanish": "vanished"}
# So that colours are distinguished by more than colour.
HATCHES = ["right_diagonal_line", "blank", "dot", "horizontal_line"]
MARKS = {"split": "triangle", "merge": "inverted_triangle"}


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
