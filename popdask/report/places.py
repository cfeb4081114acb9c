"""What reports show: settlements and communities through time, people from images, scenes.

A job of one kind leaves settlements, one of the other communities, or both. The report asks the
store for what it has: where there are settlements it opens with them, and communities are a layer
that one can switch to. Each has tables, a timeline and colours of its own.

Tables are columns that the page sorts, searches and draws: frames are positions in time, places are
kilometres from the lower left corner of the grid. The record of the run is put into tables, too.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import pandas as pd
import shapely
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from pydantic import BaseModel

from popdask.blocks.sums import LabelSums, frames_of, sum_frames, tabulate, to_fixed
from popdask.config.load import JOBS, table_of
from popdask.io.conventions import decimal_years
from popdask.plot.imagery import GROUPS
from popdask.plot.style import Grid, number_colours, period, year
from popdask.report import plots
from popdask.report.plots import LANES, Columns, Content, Layer, timeline_plots, timeline_tables
from popdask.store.content import Finished
from popdask.store.repository import RegionStore
from popdask.tracking.describe import comings_and_goings, data_gaps, turnover
from popdask.tracking.tracks import split_off

_MARKS = (
    " The mark at its centre grows with its people; the line behind the mark is the path of that "
    "centre, and grey lines lead back to where it split from or what it was merged from."
)
INHABITANTS = Layer(
    "population",
    "Population",
    "amount",
    "People in each square of {cell}, on a logarithmic scale: a step from 10 to 100 looks like one "
    "from 100 to 1,000.",
    tooltip="about # people in {cell}",
)
SETTLEMENTS = Layer(
    "settlement",
    "Settlements",
    "places",
    "Neighbouring cells of 1 km that are densely populated make a settlement. It has the colour of "
    "its track, the same in every frame, and stronger where more people live in a cell." + _MARKS,
    none="outside settlements",
)
CENTRES = Layer(
    "urban_centre",
    "Urban centres",
    "places",
    "The dense core of a city, with 50,000 people or more, as the Degree of Urbanisation defines "
    "it, in the colour of its track." + _MARKS,
    none="outside urban centres",
)
COMMUNITIES = Layer(
    "community",
    "Communities",
    "places",
    "Neighbouring cells of one class make a community, but for classes that the job counts as land "
    "between places. It has the colour of its track, the same in every frame, and stronger where "
    "more people live in a cell." + _MARKS,
    none="outside communities",
)
#: What one place of a layer is called, what several are, and how its other tables begin.
CALLED = {
    "settlement": ("settlement", "settlements", "settlement_"),
    "urban_centre": ("urban centre", "urban centres", "urban_centre_"),
    "community": ("community", "communities", ""),
}
_SLIDE = "Move the slider through the years; drag"
_SIZES = (5_000, 20_000, 50_000, 100_000, 500_000)

PEOPLE = Layer(
    "population",
    "People",
    "amount",
    "People that were estimated in each square of {cell}, on a logarithmic scale.",
    tooltip="about # people in {cell}",
)
CENSUS = Layer(
    "census_population",
    "People, census kept",
    "amount",
    "The estimate, scaled so that each zone has the people that its census counted, in squares of "
    "{cell}.",
    tooltip="# with the census",
)
PRESENCE = Layer(
    "presence",
    "Presence",
    "amount",
    "How sure the first model is that somebody lives there, from 0 to 1.",
    tooltip="presence #",
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

MOST_MARKS = 60  # of a series, that are listed one by one


@dataclass(frozen=True)
class Followed:
    """Settlements or communities, as the page shows them."""

    layer: Layer  # their layer of the map
    one: str  # what one of them is called
    many: str  # what several are called
    places: Columns  # one row per place and frame
    links: Columns  # which place of a frame leads to which of the next
    events: Columns  # what happened to them
    colours: Mapping[str, str]  # the colour of each track
    timeline: list[Any]
    """The plots of what happened, and of the tracks that split or merged; as far as any did."""
    turnover: str  # how many came and went
    changes: pd.DataFrame  # which of them, when, and how

    @property
    def lanes(self) -> str:
        """What the lanes of the timeline show, in a sentence; nothing where there are none."""
        shown = len(self.timeline[1].tags[0]) if len(self.timeline) > 1 else 0
        if not shown:
            return ""
        those = f"The {shown} with most people of the" if shown == LANES else f"The {shown}"
        return f"{those} tracks of {self.many} that split or merged."


def places_content(region: RegionStore, branch: str) -> Content:
    """Gather what the report of a settlements or a communities job shows."""
    found = region.dataset(branch)
    grid, times = Grid.of(found["population"]), found["time"].values
    balance, span = region.table("balance", branch), [year(time) for time in times]
    # The first of what the store has is shown first.
    followed = [
        _followed(region, branch, layer, balance["time"].to_numpy(), grid)
        for layer in (SETTLEMENTS, CENTRES, COMMUNITIES)
        if layer.name in found
    ]
    layers = _layers(followed, found)
    # The balance is that of what the job is named after.
    counted = followed[-1] if "community" in found else followed[0]
    timelines = [plot for each in followed for plot in each.timeline]
    charts = [*plots.curve_plots(times, moving="community" in found), *timelines]
    words = [{"name": e.layer.name, "one": e.one, "many": e.many} for e in followed]
    return Content(
        lead=_lead(span, followed[0]),
        numbers=_numbers(region, branch, balance, found),
        map_note=f"{_SLIDE if len(times) > 1 else 'Drag'} to move the map, scroll or pinch to "
        f"zoom, click a {followed[0].one} to {'follow it' if len(times) > 1 else 'read of it'}.",
        layers=layers,
        rasters={layer.name: found[layer.name] for layer in layers},
        grid=grid,
        times=span,
        milliseconds=plots.milliseconds(times),
        plots=[
            plots.map_plot(grid),
            *(charts if len(times) > 1 else ()),  # one frame has no history
            plots.balance_plot(balance, counted.many),
        ],
        tables={
            each.layer.name: {"places": each.places, "links": each.links, "events": each.events}
            for each in followed
        },
        colours={each.layer.name: each.colours for each in followed},
        followed=words,
        filling={
            "followed": [
                one
                | {
                    "eventful": bool(e.timeline),
                    "turnover": e.turnover,
                    "changes": plots.turnover_table(e.places, e.changes, e.one, span),
                    "lanes": e.lanes,
                    "timeline": timeline_tables(e.places, e.events, span),
                }
                for one, e in zip(words, followed, strict=True)
            ],
            "sizes": _sizes(followed),
            "analysis": "How good the analysis is" if "community" in found else "What has changed",
            "balance": _balance(balance, span, counted.one, counted.many),
        },
    )


def _layers(followed: list[Followed], found: xr.Dataset) -> list[Layer]:
    first, *others = (each.layer for each in followed)
    classes = [_classes(found.isel(time=-1))] if "classes" in found else []
    return [first, INHABITANTS, *others, *classes]


def _followed(
    region: RegionStore, branch: str, layer: Layer, times: np.ndarray, grid: Grid
) -> Followed:
    """Read what the store has of the places of a layer, and what happened to them."""
    one, many, begin = CALLED[layer.name]
    names = (many.replace(" ", "_"), f"{begin}tracks", f"{begin}links")
    described, tracks, links = (region.table(name, branch) for name in names)
    tracks = tracks.rename(columns={layer.name: "community"})
    if layer is COMMUNITIES:
        there = community_columns(described, tracks, times, grid)
    else:
        there = settlement_columns(described, times, grid, layer.name)
    events, colours = event_columns(tracks, times), track_colours(tracks)
    timeline = timeline_plots(there, events, colours, times, layer.name)
    led, changes = link_columns(links, times), comings_and_goings(tracks, times)
    counts = turnover(tracks, changes, times, many)
    changes = changes.assign(frame=_frames(changes["time"], times))
    return Followed(layer, one, many, there, led, events, colours, timeline, counts, changes)


def _sizes(followed: list[Followed]) -> list[dict[str, Any]]:
    """People from which places can be shown; none that no place reaches."""
    most = max((max(e.places["people"], default=0) for e in followed), default=0)
    return [{"people": size, "text": f"≥ {size:,}"} for size in _SIZES if size <= most]


def _lead(span: list[str], first: Followed) -> str:
    if len(span) == 1 or not first.colours:
        what = first.many.capitalize() if first.colours else f"No {first.many}"
        return (
            f"{what} found in gridded population data of {'–'.join(span[:: len(span) - 1 or 1])}."
        )
    return (
        f"{first.many.capitalize()} found in gridded population data, {span[0]}–{span[-1]}, in "
        f"{len(span)} {period(span)}s, and followed through time as {len(first.colours):,} tracks."
    )


def _numbers(
    region: RegionStore, branch: str, balance: pd.DataFrame, found: xr.Dataset
) -> list[dict[str, str]]:
    """What a mayor asks first; of communities only their number where settlements lead."""
    first, last = balance.iloc[0], balance.iloc[-1]
    now = year(balance["time"].to_numpy()[-1])
    numbers = {f"people in {now}": f"{last['raster']:,.0f}"}
    if len(balance) > 1 and first["raster"]:
        since = year(balance["time"].to_numpy()[0])
        numbers[f"people since {since}"] = f"{100 * (last['raster'] / first['raster'] - 1):+.1f} %"
    if "settlement" in found:
        numbers |= _settlement_numbers(region, branch, last, now)
    if "community" in found:
        numbers |= _community_numbers(region, branch, last, now, alone="settlement" not in found)
    return [{"what": what, "value": value} for what, value in numbers.items()]


def _settlement_numbers(
    region: RegionStore, branch: str, last: pd.Series, now: str
) -> dict[str, str]:
    described = region.table("settlements", branch)
    there = described[described["time"] == last["time"]]
    kinds, events = there["kind"].value_counts(), region.table("settlement_tracks", branch)["event"]
    share = there["population"].sum() / last["raster"] if last["raster"] else 0.0
    numbers = {"of the people live in settlements": f"{100 * share:.1f} %"}
    for one, many in (("city", "cities"), ("town", "towns"), ("village", "villages")):
        if count := kinds.get(one, 0):
            numbers[f"{one if count == 1 else many} in {now}"] = f"{count:,}"
    merged = (events == "merge").sum()
    several = len(region.table("balance", branch)) > 1
    what = f"merger{'' if merged == 1 else 's'} of settlements"
    return numbers | ({what: f"{merged:,}"} if several else {})


def _community_numbers(
    region: RegionStore, branch: str, last: pd.Series, now: str, *, alone: bool
) -> dict[str, str]:
    communities, tracks = (region.table(name, branch) for name in ("communities", "tracks"))
    number = {f"communities in {now}": f"{(communities['time'] == last['time']).sum():,}"}
    if not alone:
        return number
    share = last["inside"] / last["raster"] if last["raster"] else 0.0
    pieces = split_off(tracks["event"], tracks["track"], tracks["parent"]).sum()
    return {
        "of the people live in communities": f"{100 * share:.1f} %",
        **number,
        "tracks of communities": f"{tracks['track'].nunique():,}",
        "parts that split off": f"{pieces:,}",
        "mergers of communities": f"{(tracks['event'] == 'merge').sum():,}",
    }


def _classes(last: xr.Dataset) -> Layer:
    return Layer(
        "classes",
        "Classes",
        "label",
        "Kinds of places: cells of a class have like surroundings, in how many people live "
        f"there and how that changes. Means are those of {year(last['time'].values)}.",
        one="class",
        none="in no class",
        meanings=_class_means(last),
    )


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


def _balance(balance: pd.DataFrame, span: list[str], one: str, many: str) -> dict[str, Any]:
    worst, beyond = float(balance["difference"].abs().max()), float(balance["beyond"].sum())
    columns = {
        period(span): span,
        f"in {many}": _each(balance["inside"], ",.1f"),
        "outside": _each(balance["outside"], ",.1f"),
        "together": _each(balance["total"], ",.1f"),
        "in the raster": _each(balance["raster"], ",.1f"),
        "difference": _each(balance["difference"], ".1e"),
    }
    lost = f"{beyond:,.1f} people lie beyond the grid, and are left out. " if beyond else ""
    exact = f"; they differ by {worst:.0e} of it at most" if worst else ", and add up to it exactly"
    note = (
        f"{lost}Everyone in the raster is either in a {one} or outside all of them. The two were "
        f"counted apart from the raster{exact}."
    )
    if balance["missing"].any():
        columns["cells without data"] = _each(balance["missing"], ".1%")
        note = " ".join([note, *_sentences(balance)])
    if beyond:
        columns["beyond the grid"] = _each(balance["beyond"], ",.1f")
    return {"note": note, "head": tuple(columns), "rows": list(zip(*columns.values(), strict=True))}


def _each(numbers: pd.Series, form: str) -> list[str]:
    return [format(number, form) for number in numbers]


def _sentences(balance: pd.DataFrame) -> list[str]:
    """Say which frames lack data, and that it is distinguished from nobody."""
    gaps = data_gaps(balance)
    why = ["Where a frame has no data, nothing appears, vanishes, grows or shrinks for it."]
    return [f"{gap}." for gap in gaps] + (why if gaps else [])


def population_content(region: RegionStore, branch: str) -> Content:
    """Gather what the report of a population job shows."""
    found = region.dataset(branch)
    layers = [layer for layer in (PEOPLE, CENSUS, PRESENCE) if layer.name in found]
    rasters = {layer.name: found[layer.name].astype(np.float32) for layer in layers}
    scores = region.find_table("scores", branch)  # None where nothing is known to compare with
    span = [year(time) for time in found["time"].values]
    ends = dict.fromkeys((span[0], span[-1]))
    return Content(
        lead=f"People estimated from aerial images, cell by cell, {'–'.join(ends)}.",
        numbers=_estimate_numbers(found, span, scores),
        map_note="Drag to move the map, scroll or pinch to zoom; point at a cell for its numbers.",
        layers=layers,
        rasters=rasters,
        filling={"scores": _score_table(scores), "analysis": "How good the estimate is"},
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
        none="in no group",
        palette=GROUPS,
    )


def _method(name: str) -> str:
    """Write how cells were grouped."""
    method, _, k = name.partition("_")
    return f"KMeans, {k}" if method == "kmeans" else name.upper()


def _estimate_numbers(
    found: xr.Dataset, span: list[str], scores: pd.DataFrame | None
) -> list[dict[str, str]]:
    last = found["population"].isel(time=-1).values
    cells = int(np.isfinite(last).sum())
    numbers = {
        f"people estimated, {span[-1]}": f"{np.nansum(last, dtype=np.float64):,.0f}",
        "cells": f"{cells:,}",
        "of them inhabited": f"{(last > 0).sum() / max(cells, 1):.1%}",
    }
    if scores is not None and len(scores):
        first = scores.iloc[0]
        numbers[f"R² on {first['where']} cells"] = f"{first['r2']:.2f}"
        numbers["error of their total"] = f"{first['relative_error']:+.1%}"
    return [{"what": what, "value": value} for what, value in numbers.items()]


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


def community_columns(
    communities: pd.DataFrame, tracks: pd.DataFrame, times: np.ndarray, grid: Grid
) -> Columns:
    """List every community of every frame, with the track that it belongs to."""
    key = ["time", "community"]
    numbers = tracks.drop_duplicates(key)[[*key, "track"]]
    table = (
        pd.DataFrame(communities)
        .drop(columns="track", errors="ignore")
        .merge(numbers, on=key, how="left")
    )
    table = table.sort_values(key, ignore_index=True)
    x, y = grid.place(np.asarray(table["centroid"]))
    found = {
        "frame": _frames(table["time"], times),
        "community": table["community"].tolist(),
        "track": table["track"].fillna(-1).astype(int).tolist(),
        "people": plain(table["population"]),
        "cells": table["cells"].tolist(),
        "area": plain(table["area_km2"]),
        "x": plain(x.round(3)),
        "y": plain(y.round(3)),
        "velocity": plain(table["velocity"]),
        "heading": plain(table["heading"].round(1)),
    }
    named = "settlement" in table and table["settlement"].astype(bool).any()
    return {**found, "settlement": table["settlement"].tolist()} if named else found


def settlement_columns(
    settlements: pd.DataFrame, times: np.ndarray, grid: Grid, number: str = "settlement"
) -> Columns:
    """List every settlement, or urban centre, of every frame by name."""
    table = settlements.sort_values(["time", number], ignore_index=True)
    x, y = grid.place(shapely.centroid(np.asarray(table["geometry"])))
    return {
        "frame": _frames(table["time"], times),
        "community": table[number].tolist(),
        "track": table["track"].tolist(),
        "name": table["name"].tolist(),
        "kind": table["kind"].tolist(),
        "places": table["places"].where(table["places"] != table["name"], "").tolist(),
        "people": plain(table["population"]),
        "cells": table["cells"].tolist(),
        "area": plain(table["area_km2"]),
        "x": plain(x.round(3)),
        "y": plain(y.round(3)),
        "growth": plain(table["growth"].round(2)),
        "rate": plain(_rates(table).round(2)),
    }


def _rates(settlements: pd.DataFrame) -> np.ndarray:
    """Growth per year since the first frame of each track, like for like, in per cent."""
    years = pd.Series(decimal_years(settlements["time"]), settlements.index)
    since = years - years.groupby(settlements["track"]).transform("min")
    total = 1 + settlements["growth_total"].where(since > 0) / 100
    rates: np.ndarray = (100 * (total ** (1 / since.where(since > 0)) - 1)).to_numpy()
    return rates


def link_columns(links: pd.DataFrame, times: np.ndarray) -> Columns:
    """List which community of a frame leads to which of the next, and with how many people."""
    links = links[links["gap"] == 0] if "gap" in links else links
    return {
        "frame": _frames(links["time"], times),
        "source": links["source"].tolist(),
        "target": links["target"].tolist(),
        "people": plain(links["people"]),
    }


def event_columns(tracks: pd.DataFrame, times: np.ndarray) -> Columns:
    """List what happened; who goes on as before, or is there when the data begin, is no news."""
    began = (tracks["event"] == "appear") & (tracks["time"].to_numpy() == times[0])
    news = tracks[(tracks["event"] != "continue") & ~began]
    parents = [[int(parent) for parent in found] for found in news["parent"]]
    return {
        "frame": _frames(news["time"], times),
        "event": news["event"].tolist(),
        "community": news["community"].tolist(),
        "track": news["track"].tolist(),
        "parents": parents,
    }


def track_colours(tracks: pd.DataFrame) -> Mapping[str, str]:
    """Give each track the colour that it has in every figure."""
    numbers = np.unique(tracks["track"].to_numpy(np.int64))
    colours = (number_colours(numbers) * 255).round().astype(int)
    return {
        str(number): "#{:02x}{:02x}{:02x}".format(*colour)
        for number, colour in zip(numbers.tolist(), colours.tolist(), strict=True)
    }


def figure_table(figure: Figure) -> dict[str, Any]:
    """Put what a figure shows into a table: a row for each mark, or one for a series of many."""
    rows = [
        (panel, series, *pair)
        for number, axes in enumerate(figure.axes, 1)
        for panel in [axes.get_title() or axes.get_ylabel() or f"panel {number}"]
        for series, x, y in _series(axes)
        for pair in _pairs(axes, np.asarray(x), np.asarray(y))
    ]
    return {"head": ("panel", "series", "x", "y"), "rows": rows}


def _series(axes: Axes) -> Iterator[tuple[str, Any, Any]]:
    """The marks of a panel: lines, bars, dots and the cells of images."""
    for line in axes.lines:
        yield _label(line, "line"), *line.get_data()
    for bars in axes.containers:
        patches = getattr(bars, "patches", ())
        middles = [bar.get_x() + bar.get_width() / 2 for bar in patches]
        yield _label(bars, "bars"), middles, [bar.get_height() for bar in patches]
    for dots in axes.collections:
        if len(places := np.ma.getdata(dots.get_offsets())):
            yield _label(dots, "dots"), places[:, 0], places[:, 1]
    for image in axes.images:
        cells = np.asarray(image.get_array())[..., :1].astype(float)
        yield f"image of {cells.shape[0]} × {cells.shape[1]} cells", [0], [cells.size]


def _label(mark: Any, otherwise: str) -> str:
    label = str(mark.get_label())
    return otherwise if label.startswith("_") else label


def _pairs(axes: Axes, x: np.ndarray, y: np.ndarray) -> Iterator[tuple[str, ...]]:
    if len(x) > MOST_MARKS:
        some = [np.asarray(values)[np.isfinite(values)] for values in (x, y)]
        yield tuple(f"{len(x):,}: {v.min():.4g} to {v.max():.4g}" for v in some)
        return
    for place in zip(x, y, strict=True):
        yield tuple(
            str(axis.get_major_formatter().format_data_short(value))
            for axis, value in zip((axes.xaxis, axes.yaxis), place, strict=True)
        )


def plain(values: Any) -> list[Any]:
    """Turn numbers into those of JSON: whole ones without a point, NaN as None."""
    return [
        None if not np.isfinite(value) else int(value) if value == int(value) else float(value)
        for value in np.asarray(values, dtype=float)
    ]


def _frames(times: pd.Series, frames: np.ndarray) -> list[int]:
    found: list[int] = np.searchsorted(frames, times.to_numpy(frames.dtype)).tolist()
    return found


def record_tables(record: Mapping[str, Any], stages: Iterable[Finished]) -> list[dict[str, Any]]:
    """Put the record of a run into tables."""
    settings = record.get("settings", {})
    tables: list[dict[str, Any]] = [
        {
            "title": "Input files",
            "note": "The files that were read, with their SHA-256 checksums.",
            "head": ("for", "file", "bytes", "SHA-256"),
            "rows": list(_inputs(record.get("inputs", {}))),
        },
        {
            "title": "Settings",
            "note": "What the job file says, and the defaults of what it leaves open.",
            "head": ("setting", "value", "meaning"),
            "rows": list(_rows(settings, JOBS.get(str(settings.get("pipeline"))))),
        },
        {
            "title": "Stages",
            "note": "What was computed, each stage when it was computed last.",
            "head": ("stage", "work", "began (UTC)", "seconds"),
            "rows": [
                (each.stage, each.work, each.started[:19].replace("T", " "), f"{each.seconds:,.1f}")
                for each in stages
            ],
        },
        {
            "title": "Software and machine",
            "note": "Versions that the numbers may depend on.",
            "head": ("what", "version"),
            "rows": [
                (str(name), str(value))
                for part in ("versions", "machine")
                for name, value in record.get(part, {}).items()
            ],
        },
    ]
    return [table for table in tables if table["rows"]]


def latest_stages(stages: Iterable[Finished]) -> list[Finished]:
    """Give each stage as it was computed last, in the order of that."""
    latest: dict[str, Finished] = {}
    for stage in sorted(stages, key=lambda stage: stage.started):
        latest.pop(stage.stage, None)
        latest[stage.stage] = stage
    return list(latest.values())


def _inputs(inputs: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    for what, file in inputs.items():
        name = PurePosixPath(str(file.get("path", ""))).name
        size = f"{file['size']:,}" if "size" in file else ""
        yield what.removesuffix("T00:00:00"), name, size, str(file.get("sha256", ""))


def _rows(
    settings: Mapping[str, Any], model: type[BaseModel] | None, *above: str
) -> Iterator[tuple[str, ...]]:
    for key, value in settings.items():
        field = model.model_fields.get(key) if model else None
        if isinstance(value, Mapping):
            yield from _rows(value, table_of(field), *above, key)
        elif value is not None:
            shown = ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
            meaning = (field.description or "") if field else ""
            yield ".".join((*above, key)), shown, meaning.replace("``", "")
