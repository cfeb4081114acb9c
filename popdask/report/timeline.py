"""The timeline of a report: which tracks split and merged, and how often that happened.

Tracks are lanes, those with most people first; a piece that split off lies near the track that it
came from. A lane is as thick as its community is large.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from bokeh.events import Tap
from bokeh.models import CustomJS, HoverTool

from popdask.report import plots
from popdask.report.tables import Columns
from popdask.tracking.lineage import split_off

LANES = 40
EVENTS = {"split": "#ee6677", "merge": "#4477aa", "appear": "#228833", "vanish": "#aa3377"}


class _Turn(NamedTuple):
    """A split or a merge."""

    frame: int
    event: str
    track: int
    parents: list[int]


def timeline_plots(
    communities: Columns, events: Columns, colours: Mapping[str, str], times: np.ndarray
) -> list[Any]:
    """Draw how often tracks began, ended, split and merged, and the lanes of the largest.

    Parameters
    ----------
    communities, events
        As from :mod:`popdask.report.tables`.
    colours
        Colour of each track.
    times
        The frames.

    Returns
    -------
    list
        Two plots named ``events`` and ``lanes``; without splits and merges the first alone.
    """
    news, there = pd.DataFrame(events), pd.DataFrame(communities)
    counts = _count_plot(news, times)
    turns = _turns(news)
    lanes = _lanes(there, turns)
    if not lanes:
        return [counts]
    plot = plots.chart("lanes", times, height=60 + 15 * len(lanes))
    plot.x_range = counts.x_range
    plot.y_range = plots.Range(len(lanes) - 0.4, -0.6)
    plots.ticks(plot.yaxis[0], {lane: f"track {track}" for track, lane in lanes.items()})
    plot.ygrid.visible = False
    _draw_joints(plot, turns, lanes, colours, plots.milliseconds(times))
    _draw_lanes(plot, there, lanes, colours, plots.milliseconds(times))
    plot.add_layout(plots.now("lanes", plots.milliseconds(times)[0]))
    plot.js_on_event(Tap, CustomJS(code="report.lane(cb_obj.x, Math.round(cb_obj.y))"))
    plot.tags = [list(lanes)]
    return [counts, plot]


def _count_plot(news: pd.DataFrame, times: np.ndarray) -> Any:
    """Count the events of every frame; that everything appears in the first one is no news."""
    happened = {event: (news["event"] == event).to_numpy() for event in EVENTS}
    happened["split"] = split_off(news["event"], news["track"], news["parents"])
    happened["appear"] = happened["appear"] & (news["frame"] > 0).to_numpy()
    counts = {
        event: np.bincount(news["frame"][rows], minlength=len(times)).tolist()
        for event, rows in happened.items()
    }
    plot = plots.chart("events", times, height=210)
    source = plots.Source({"time": plots.milliseconds(times), **counts})
    labels = {"split": "split off", "merge": "merged", "appear": "appeared", "vanish": "vanished"}
    plot.vbar_stack(list(EVENTS), x="time", width=plots.bar_width(times), source=source,
                    color=list(EVENTS.values()), line_alpha=0,
                    legend_label=[labels[event] for event in EVENTS])  # fmt: skip
    plot.y_range.start = 0
    rows = [(labels[event], f"@{event}") for event in EVENTS]
    plot.add_tools(plots.hover([("", "@time{%F}"), *rows], mode="mouse"))
    plots.legend_above(plot)
    plot.add_layout(plots.now("events", plots.milliseconds(times)[0]))
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
        "track": rows["track"].tolist(),
        "community": rows["community"].tolist(),
        "people": rows["people"].tolist(),
    }
    drawn = plot.segment("x0", "lane", "x1", "lane", source=plots.Source(data),
                         line_width="width", line_color="colour")  # fmt: skip
    told = [
        ("", "@time{%F}, track @track"),
        ("community", "@community"),
        ("people", "@people{0,0}"),
    ]
    plot.add_tools(HoverTool(renderers=[drawn], tooltips=told, formatters={"@time": "datetime"}))


def _draw_joints(
    plot: Any,
    turns: list[_Turn],
    lanes: dict[int, int],
    colours: Mapping[str, str],
    at: list[float],
) -> None:
    """Draw a line between the lane of a parent and that of what became of it."""
    borders = _borders(at)
    joints: dict[str, list[Any]] = {"x": [], "y0": [], "y1": [], "colour": [], "mark": []}
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
    source = plots.Source(joints)
    plot.segment("x", "y0", "x", "y1", source=source, line_color="colour", line_width=1.5)
    plot.scatter("x", "y1", source=source, color="mark", size=7, line_color="#ffffff")


def _borders(at: list[float]) -> list[float]:
    """Give the times half way between frames, and as far beyond the first and the last."""
    if len(at) == 1:
        half = plots.bar_width(np.array(at, "datetime64[ms]")) / 2
        return [at[0] - half, at[0] + half]
    middle = [(one + other) / 2 for one, other in pairwise(at)]
    return [2 * at[0] - middle[0], *middle, 2 * at[-1] - middle[-1]]
