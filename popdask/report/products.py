"""What the reports of the imagery jobs show: people estimated from images, and groups of scenes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from popdask.plot.imagery import GROUPS
from popdask.plot.style import Grid, year
from popdask.report import plots
from popdask.report.maps import Content, Layer
from popdask.store.repository import RegionStore

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


def population_content(region: RegionStore, branch: str) -> Content:
    """Gather what the report of a population job shows."""
    found = region.dataset(branch)
    layers = [layer for layer in (PEOPLE, CENSUS, PRESENCE) if layer.name in found]
    rasters = {layer.name: found[layer.name].astype(np.float32) for layer in layers}
    scores = _scores(region, branch)
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
