"""What the report of a communities job shows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from popdask.exact import words
from popdask.figures.places import Grid
from popdask.figures.times import year
from popdask.report import plots, tables
from popdask.report.content import Content
from popdask.report.layers import Layer
from popdask.report.timeline import LANES, timeline_plots
from popdask.store import RegionStore
from popdask.tracking.lineage import split_off
from popdask.tracking.tally import Table, frames_of, sum_frames, tabulate


def communities_content(region: RegionStore, branch: str) -> Content:
    """Gather what the report of a communities job shows.

    Parameters
    ----------
    region
        The results.
    branch
        The branch of them.
    """
    found = region.dataset(branch)
    communities, tracks, links, balance = (
        region.table(name, branch) for name in ("communities", "tracks", "links", "balance")
    )
    grid, times = Grid.of(found["population"]), found["time"].values
    there = tables.community_columns(communities, tracks, times, grid)
    events = tables.event_columns(tracks, times)
    colours = tables.track_colours(tracks)
    timeline = timeline_plots(there, events, colours, times)
    span = [year(time) for time in times]
    drawn = [
        plots.map_plot(grid),
        *plots.curve_plots(times),
        *timeline,
        plots.balance_plot(balance),
    ]
    shown = len(timeline[1].tags[0]) if len(timeline) > 1 else 0
    return Content(
        lead=_lead(span, tracks),
        numbers=_numbers(balance, tracks, communities),
        map_note="Move the slider through the years; drag to move the map, scroll or pinch to "
        "zoom, click a community to follow it.",
        layers=_layers(found.isel(time=-1)),
        rasters={name: found[name] for name in ("population", "classes", "community")},
        grid=grid,
        times=span,
        milliseconds=plots.milliseconds(times),
        plots=drawn,
        tables={
            "communities": there,
            "links": tables.link_columns(links, times),
            "events": events,
        },
        colours=colours,
        filling={
            "communities": True,
            "lanes": _lanes_note(shown),
            "balance": _balance(balance, span),
        },
    )


def _lead(span: list[str], tracks: pd.DataFrame) -> str:
    years = span[0] if len(span) == 1 else f"{span[0]}–{span[-1]}"
    return (
        f"Communities found in gridded population data, {years}, in {len(span)} frames, and "
        f"followed through time as {tracks['track'].nunique():,} tracks."
    )


def _numbers(
    balance: pd.DataFrame, tracks: pd.DataFrame, communities: pd.DataFrame
) -> list[dict[str, str]]:
    last = balance.iloc[-1]
    now = year(balance["time"].to_numpy()[-1])
    there = int((communities["time"] == last["time"]).sum())
    merges = int((tracks["event"] == "merge").sum())
    share = last["inside"] / last["raster"] if last["raster"] else 0.0
    pieces = split_off(tracks["event"], tracks["track"], tracks["parent"]).sum()
    told = {
        f"people in {now}": f"{last['raster']:,.0f}",
        "of them live in communities": f"{share:.1%}",
        f"communities in {now}": f"{there:,}",
        "tracks in all": f"{tracks['track'].nunique():,}",
        "times a part split off": f"{pieces:,}",
        "times communities merged": f"{merges:,}",
    }
    return [{"what": what, "value": value} for what, value in told.items()]


def _layers(last: xr.Dataset) -> list[Layer]:
    return [
        Layer(
            "community",
            "Communities",
            "community",
            "Neighbouring cells of one class make a community. It has the colour of its track, the "
            "same in every frame, and it is the fuller the more people live in a cell.",
        ),
        Layer(
            "population",
            "Population",
            "amount",
            "People in each square of {cell}, on a logarithmic scale: a step from 10 to 100 looks "
            "like one from 100 to 1,000.",
            told="about # people in {cell}",
        ),
        Layer(
            "classes",
            "Classes",
            "label",
            "Kinds of places: cells of a class have like surroundings, in how many people live "
            f"there and how that changes. Means are those of {year(last['time'].values)}.",
            one="class",
            meanings=_class_means(last),
        ),
    ]


def _class_means(frame: xr.Dataset) -> dict[int, str]:
    """Say how many people live in a cell of each class."""
    labels, people = (frame[name].expand_dims("time") for name in ("classes", "population"))
    _, arrays = frames_of(labels, people)
    (table,) = sum_frames(_sum_classes, *arrays).compute()
    means = table.reals(1) / table.sums[0]
    return {
        int(key): f": {mean:,.0f} people a cell" if mean >= 10 else f": {mean:.2g} people a cell"
        for key, mean in zip(table.keys, means, strict=True)
    }


def _sum_classes(labels: np.ndarray, people: np.ndarray) -> Table:
    inside = (labels >= 0) & ~np.isnan(people)
    numbers = labels[inside].astype(np.int64)
    return tabulate(numbers, [np.ones(numbers.size, dtype=np.int64), *words(people[inside])])


def _lanes_note(shown: int) -> str:
    if not shown:
        return ""
    return (
        f"The {shown} tracks with most people among those that split or merged."
        if shown == LANES
        else f"All {shown} tracks that split or merged."
    )


def _balance(balance: pd.DataFrame, span: list[str]) -> dict[str, Any]:
    worst = float(balance["difference"].abs().max())
    names = ["inside", "outside", "total", "raster"]
    counts = balance[names].to_numpy(float).tolist()
    rows = [
        (label, *(f"{people:,.1f}" for people in row), f"{difference:.1e}")
        for label, row, difference in zip(span, counts, balance["difference"], strict=True)
    ]
    return {
        "note": "Everyone in the raster is either in a community or outside all of them. The two "
        f"were counted apart from the raster; they differ by {worst:.0e} of it at most."
        if worst
        else "Everyone in the raster is either in a community or outside all of them. The two were "
        "counted apart from the raster, and add up to it exactly in every frame.",
        "head": ("frame", "in communities", "outside", "together", "in the raster", "difference"),
        "rows": rows,
    }
