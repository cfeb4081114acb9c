"""What the report of each kind of job shows.

What the report of a communities job shows.

What the reports of the imagery jobs show: people estimated from images, and groups of scenes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from popdask.blocks.sums import LabelSums, frames_of, sum_frames, tabulate, to_fixed
from popdask.plot.imagery import GROUPS
from popdask.plot.style import Grid, year
from popdask.report import plots, tables
from popdask.report.maps import Content, Layer
from popdask.report.plots import LANES, timeline_plots
from popdask.store.repository import RegionStore
from popdask.tracking.describe import data_gaps
from popdask.tracking.tracks import split_off

INHABITANTS = Layer(
    "population",
    "Population",
    "amount",
    "People in each square of {cell}, on a logarithmic scale: a step from 10 to 100 looks like one "
    "from 100 to 1,000.",
    told="about # people in {cell}",
)
SETTLEMENTS = Layer(
    "community",
    "Settlements",
    "community",
    "Neighbouring cells of 1 km that are densely lived in make a settlement. It has the colour of "
    "its track, the same in every frame, and it is the fuller the more people live in a cell.",
)


def communities_content(region: RegionStore, branch: str) -> Content:
    """Gather what the report of a communities job shows."""
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
        numbers=_community_numbers(balance, tracks, communities),
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


def settlements_content(region: RegionStore, branch: str) -> Content:
    """Gather what the report of a settlements job shows."""
    found = region.dataset(branch)
    described, tracks, links, balance = (
        region.table(name, branch)
        for name in ("settlements", "settlement_tracks", "settlement_links", "balance")
    )
    tracks = tracks.rename(columns={"settlement": "community"})  # whose part they have on the page
    grid, times = Grid.of(found["population"]), found["time"].values
    there = tables.settlement_columns(described, times, grid)
    events = tables.event_columns(tracks, times)
    colours = tables.track_colours(tracks)
    timeline = timeline_plots(there, events, colours, times)
    span = [year(time) for time in times]
    curves = plots.curve_plots(times)
    return Content(
        lead=_lead(span, tracks, "Settlements"),
        numbers=_settlement_numbers(balance, described, tracks),
        map_note="Move the slider through the years; drag to move the map, scroll or pinch to "
        "zoom, click a settlement to follow it.",
        layers=[SETTLEMENTS, INHABITANTS],
        rasters={"community": found["settlement"], "population": found["population"]},
        grid=grid,
        times=span,
        milliseconds=plots.milliseconds(times),
        plots=[plots.map_plot(grid), *curves, *timeline, plots.balance_plot(balance)],
        tables={
            "communities": there,
            "links": tables.link_columns(links, times),
            "events": events,
        },
        colours=colours,
        filling={
            "communities": True,
            "one": "settlement",
            "many": "settlements",
            "lanes": _lanes_note(len(timeline[1].tags[0]) if len(timeline) > 1 else 0),
            "balance": _balance(balance, span, "settlement", "settlements"),
        },
    )


def _settlement_numbers(
    balance: pd.DataFrame, described: pd.DataFrame, tracks: pd.DataFrame
) -> list[dict[str, str]]:
    last = balance.iloc[-1]
    now = year(balance["time"].to_numpy()[-1])
    kinds = described["kind"][described["time"] == last["time"]].value_counts()
    share = last["inside"] / last["raster"] if last["raster"] else 0.0
    told = {
        f"people in {now}": f"{last['raster']:,.0f}",
        "of them live in settlements": f"{share:.1%}",
        f"cities in {now}": f"{kinds.get('city', 0):,}",
        f"towns in {now}": f"{kinds.get('town', 0):,}",
        f"villages in {now}": f"{kinds.get('village', 0):,}",
        "times settlements merged": f"{(tracks['event'] == 'merge').sum():,}",
    }
    return [{"what": what, "value": value} for what, value in told.items()]


def _lead(span: list[str], tracks: pd.DataFrame, many: str = "Communities") -> str:
    years = span[0] if len(span) == 1 else f"{span[0]}–{span[-1]}"
    return (
        f"{many} found in gridded population data, {years}, in {len(span)} frames, and "
        f"followed through time as {tracks['track'].nunique():,} tracks."
    )


def _community_numbers(
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
        INHABITANTS,
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


def _sum_classes(labels: np.ndarray, people: np.ndarray) -> LabelSums:
    inside = (labels >= 0) & ~np.isnan(people)
    numbers = labels[inside].astype(np.int64)
    return tabulate(numbers, [np.ones(numbers.size, dtype=np.int64), *to_fixed(people[inside])])


def _lanes_note(shown: int) -> str:
    if not shown:
        return ""
    return (
        f"The {shown} tracks with most people among those that split or merged."
        if shown == LANES
        else f"All {shown} tracks that split or merged."
    )


def _balance(
    balance: pd.DataFrame, span: list[str], one: str = "community", many: str = "communities"
) -> dict[str, Any]:
    worst = float(balance["difference"].abs().max())
    names = ["inside", "outside", "total", "raster"]
    counts = balance[names].to_numpy(float).tolist()
    rows: list[tuple[str, ...]] = [
        (label, *(f"{people:,.1f}" for people in row), f"{difference:.1e}")
        for label, row, difference in zip(span, counts, balance["difference"], strict=True)
    ]
    beyond = float(balance["beyond"].sum()) if "beyond" in balance else 0.0
    lost = f"{beyond:,.1f} people lie beyond the grid, and are left out. " if beyond else ""
    note = (
        f"{lost}Everyone in the raster is either in a {one} or outside all of them. The two "
        f"were counted apart from the raster; they differ by {worst:.0e} of it at most."
        if worst
        else f"{lost}Everyone in the raster is either in a {one} or outside all of them. The two "
        "were counted apart from the raster, and add up to it exactly in every frame."
    )
    head: tuple[str, ...]
    head = ("frame", f"in {many}", "outside", "together", "in the raster", "difference")
    if "missing" in balance and balance["missing"].any():  # an older run has not counted
        rows = _with(rows, [f"{share:.1%}" for share in balance["missing"]])
        note, head = " ".join([note, *_sentences(balance)]), (*head, "cells without data")
    if "beyond" in balance and balance["beyond"].any():
        rows = _with(rows, [f"{people:,.1f}" for people in balance["beyond"]])
        head = (*head, "beyond the grid")
    return {"note": note, "head": head, "rows": rows}


def _with(rows: list[tuple[str, ...]], column: list[str]) -> list[tuple[str, ...]]:
    """Put one more cell at the end of each row."""
    return [(*row, cell) for row, cell in zip(rows, column, strict=True)]


def _sentences(balance: pd.DataFrame) -> list[str]:
    """Say which frames lack data, and that it is told apart from nobody."""
    gaps = data_gaps(balance)
    why = ["Where a frame has no data, nothing appears, vanishes, grows or shrinks for it."]
    return [f"{gap}." for gap in gaps] + (why if gaps else [])


PEOPLE = Layer(
    "population",
    "People",
    "amount",
    "People that were estimated in each square of {cell}, on a logarithmic scale.",
    told="about # people in {cell}",
)
CENSUS = Layer(
    "census_population",
    "People, census kept",
    "amount",
    "The estimate, scaled so that each zone has the people that its census counted, in squares of "
    "{cell}.",
    told="# with the census",
)
PRESENCE = Layer(
    "presence",
    "Presence",
    "amount",
    "How sure the first model is that somebody lives there, from 0 to 1.",
    told="presence #",
    none="presence 0",
    linear=True,
    ends=(0.0, 1.0),
    by="max",
)
#: Columns of the table of scores, and how a number is written.
SCORES = {
    "where": ("cells", ""),
    "model": ("estimated by", ""),
    "cells": ("how many", ",.0f"),
    "accuracy": ("inhabited or not: right", ".1%"),
    "matthews": ("Matthews correlation", ".2f"),
    "r2": ("R²", ".2f"),
    "mae": ("mean error, people", ",.1f"),
    "relative_error": ("error of the total", "+.1%"),
}


def population_content(region: RegionStore, branch: str) -> Content:
    """Gather what the report of a population job shows."""
    found = region.dataset(branch)
    layers = [layer for layer in (PEOPLE, CENSUS, PRESENCE) if layer.name in found]
    rasters = {layer.name: found[layer.name].astype(np.float32) for layer in layers}
    scores = _scores(region, branch)
    span = [year(time) for time in found["time"].values]
    return Content(
        lead=f"People estimated from aerial images, cell by cell, {_years(span)}.",
        numbers=_estimate_numbers(found, span, scores),
        map_note="Drag to move the map, scroll or pinch to zoom; point at a cell for its numbers.",
        layers=layers,
        rasters=rasters,
        filling={
            "scores": _score_table(scores),
            "analysis": "How good the estimate is",
        },
        **_place(found, found["population"]),
    )


def scenes_content(region: RegionStore, branch: str) -> Content:
    """Gather what the report of a scenes job shows."""
    found = region.dataset(branch)
    groups = region.group("groups", branch)
    # A store lists its arrays in no fixed order.
    names = sorted(str(name) for name, labels in groups.items() if labels.dtype.kind == "i")
    rasters = {
        name: groups[name].expand_dims(time=found["time"]).transpose("time", "y", "x")
        for name in names
    }
    cells = int(np.isfinite(groups["plot_x"]).sum())
    numbers = [{"what": "cells that were compared", "value": f"{cells:,}"}]
    numbers += [
        {"what": f"groups by {_method(name)}", "value": f"{int(groups[name].max()) + 1:,}"}
        for name in names
        if not name.startswith("kmeans")  # which say their number
    ]
    return Content(
        lead="Cells of an aerial image, grouped by what they look like. Nobody told the groups "
        "what to look for: what they mean is for you to say.",
        numbers=numbers,
        map_note="Choose a way of grouping; drag to move the map, scroll or pinch to zoom.",
        layers=[_grouping(name) for name in names],
        rasters=rasters,
        filling={"analysis": "Which cells look alike"},
        **_place(found, groups[names[0]]),
    )


def _place(found: xr.Dataset, like: xr.DataArray) -> dict[str, Any]:
    times, grid = found["time"].values, Grid.of(like)
    return {
        "grid": grid,
        "times": [year(time) for time in times],
        "milliseconds": plots.milliseconds(times),
        "plots": [plots.map_plot(grid)],
    }


def _grouping(name: str) -> Layer:
    return Layer(
        name,
        _method(name),
        "label",
        "Cells of a colour look alike. HDBSCAN leaves cells out that are like no others; KMeans "
        "puts every cell into one of a number of groups.",
        one="group",
        palette=GROUPS,
    )


def _method(name: str) -> str:
    """Write how cells were grouped."""
    method, _, k = name.partition("_")
    return f"KMeans, {k}" if method == "kmeans" else name.upper()


def _years(span: list[str]) -> str:
    return span[0] if len(span) == 1 else f"{span[0]}–{span[-1]}"


def _scores(region: RegionStore, branch: str) -> pd.DataFrame | None:
    try:
        return region.table("scores", branch)
    except KeyError:  # nothing is known to compare with
        return None


def _estimate_numbers(
    found: xr.Dataset, span: list[str], scores: pd.DataFrame | None
) -> list[dict[str, str]]:
    last = found["population"].isel(time=-1).values
    cells = int(np.isfinite(last).sum())
    told = {
        f"people estimated, {span[-1]}": f"{np.nansum(last, dtype=np.float64):,.0f}",
        "cells": f"{cells:,}",
        "of them inhabited": f"{(last > 0).sum() / max(cells, 1):.1%}",
    }
    if scores is not None and len(scores):
        first = scores.iloc[0]
        told[f"R² on {first['where']} cells"] = f"{first['r2']:.2f}"
        told["error of their total"] = f"{first['relative_error']:+.1%}"
    return [{"what": what, "value": value} for what, value in told.items()]


def _score_table(scores: pd.DataFrame | None) -> dict[str, Any] | None:
    if scores is None or not len(scores):
        return None
    rows = [
        tuple(_written(row[name], form) for name, (_, form) in SCORES.items())
        for row in scores.to_dict("records")
    ]
    return {
        "title": "Scores",
        "note": "Estimates of cells of which the people are known, beside simple estimates that "
        "they have to beat. R² is 1 for a perfect estimate and 0 for the mean of all cells; the "
        "Matthews correlation is 1 where inhabited cells are told right and 0 by chance.",
        "head": [title for title, _ in SCORES.values()],
        "rows": rows,
    }


def _written(value: Any, form: str) -> str:
    if isinstance(value, float) and np.isnan(value):
        return "–"
    return format(value, form) if form else str(value)
