"""The tables of a report, as columns that its page sorts, searches and draws; the run on record.

Frames are positions in time, places are kilometres from the lower left corner of the grid.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import pandas as pd
import shapely
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from pydantic import BaseModel

from popdask.config.load import JOBS, table_of
from popdask.io.conventions import decimal_years
from popdask.plot.style import Grid, number_colours
from popdask.store.records import Finished

Columns = dict[str, list[Any]]
MOST_MARKS = 60  # of a series, that are listed one by one


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


@dataclass(frozen=True)
class RecordTable:
    """A part of the run's record, as a table."""

    title: str
    note: str
    head: tuple[str, ...]
    rows: list[tuple[str, ...]]


def record_tables(record: Mapping[str, Any], stages: Iterable[Finished]) -> list[RecordTable]:
    """Put the record of a run into tables."""
    tables = [
        RecordTable(
            "Input files",
            "The files that were read, with their SHA-256 checksums.",
            ("for", "file", "bytes", "SHA-256"),
            list(_inputs(record.get("inputs", {}))),
        ),
        RecordTable(
            "Settings",
            "What the job file says, and the defaults of what it leaves open.",
            ("setting", "value", "meaning"),
            list(_settings(record.get("settings", {}))),
        ),
        RecordTable(
            "Stages",
            "What was computed, each stage when it was computed last.",
            ("stage", "work", "began (UTC)", "seconds"),
            [
                (stage.stage, stage.work, _moment(stage.started), f"{stage.seconds:,.1f}")
                for stage in stages
            ],
        ),
        RecordTable(
            "Software and machine",
            "Versions that the numbers may depend on.",
            ("what", "version"),
            [
                (str(name), str(value))
                for part in ("versions", "machine")
                for name, value in record.get(part, {}).items()
            ],
        ),
    ]
    return [table for table in tables if table.rows]


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


def _settings(settings: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    model = JOBS.get(str(settings.get("pipeline")))
    yield from _rows(settings, model)


def _rows(
    settings: Mapping[str, Any], model: type[BaseModel] | None, *above: str
) -> Iterator[tuple[str, ...]]:
    for key, value in settings.items():
        field = model.model_fields.get(key) if model else None
        table = table_of(field) if field else None
        if isinstance(value, Mapping):
            yield from _rows(value, table, *above, key)
        elif value is not None:
            shown = ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
            meaning = (field.description or "") if field else ""
            yield ".".join((*above, key)), shown, meaning.replace("``", "")


def _moment(iso: str) -> str:
    return iso[:19].replace("T", " ")
