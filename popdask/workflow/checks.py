"""What whole results must keep: nobody is lost, and tracks follow links."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from popdask.errors import InputError
from popdask.io.extents import beyond_texts
from popdask.io.frames import time_text
from popdask.io.grids import goes_around, grid_of
from popdask.store.repository import RegionStore

if TYPE_CHECKING:
    from odc.geo.geobox import GeoBox

    from popdask.blocks.sums import LabelSums

SQUARE, LEAST = 256, 25  # cells along a square; and of one, that make a place that can be missed
TOLERANCE = 1e-9  # of the people of a raster, as promised


def check(store: RegionStore) -> Iterator[str]:
    """Count everyone again and compare with the stored balance; check the tracks by the links."""
    arrays = store.dataset()
    tables = (store.table(name) for name in ("balance", "tracks", "links"))
    yield from check_labels(arrays["community"], arrays["population"], *tables)


def check_labels(
    labels: xr.DataArray,
    population: xr.DataArray,
    then: pd.DataFrame,
    tracks: pd.DataFrame,
    links: pd.DataFrame,
) -> Iterator[str]:
    """Count the people of labelled cells again, and check the tracks by the links."""
    from popdask.tracking.describe import LostPeopleError, check_balance, people_balance
    from popdask.tracking.tracks import verify_tracks

    now = people_balance(labels, population)
    try:
        check_balance(now)
    except LostPeopleError as error:
        yield str(error)
    for name in ("inside", "outside", "raster"):
        same = np.isclose(now[name], then[name], rtol=TOLERANCE, atol=0)
        for row in np.flatnonzero(~same):
            yield (
                f"people {name} of {time_text(now['time'][row])} are {now[name][row]:,.1f}, "
                f"{then[name][row]:,.1f} were recorded."
            )
    try:
        verify_tracks(tracks, links, times=labels["time"].values)
    except InputError as error:
        yield f"{error}."


def beyond_notes(records: Mapping[str, Any]) -> Iterator[str]:
    """Say of each frame how many people lay beyond the grid that it was brought onto."""
    beyond = records.get("population", {}).get("beyond", {})
    rows = [(time, each["raster"], each["beyond"]) for time, each in sorted(beyond.items())]
    yield from beyond_texts(pd.DataFrame(rows, columns=["time", "raster", "beyond"]))


def count_squares(people: np.ndarray, corner: tuple[int, int]) -> LabelSums:
    """Tabulate a block (1, y, x) by square of the grid: cells that people live in, and people."""
    from popdask.blocks.sums import pair_keys, tabulate, to_fixed

    inhabited = people > 0
    _, rows, columns = np.nonzero(inhabited)
    keys = pair_keys((rows + corner[0]) // SQUARE, (columns + corner[1]) // SQUARE)
    return tabulate(keys, [np.ones(keys.size, np.int64), *to_fixed(people[inhabited])])


def squares_table(times: Iterable[Any], sums: Iterable[LabelSums]) -> pd.DataFrame:
    """Lay out what :func:`count_squares` gives of each frame."""
    from popdask.blocks.sums import split_keys

    parts = []
    for time, table in zip(times, sums, strict=True):
        row, column = split_keys(table.keys)
        cells, people = table.sums[0], table.reals(1)
        columns = {"row": row, "column": column, "cells": cells, "people": people}
        parts.append(pd.DataFrame({"time": np.full(len(row), time), **columns}))
    return pd.concat(parts, ignore_index=True)


def coverage_notes(squares: pd.DataFrame, times: Iterable[Any], grid: GeoBox) -> Iterator[str]:
    """Say of frames in which parts of the raster nobody lives, though many do in another frame."""
    from pyproj import Transformer

    key = ["row", "column"]
    fullest = squares.sort_values("cells", kind="stable").drop_duplicates(key, keep="last")
    fullest = fullest[fullest["cells"] >= LEAST].set_index(key)
    for time in times:
        here = squares[squares["time"] == time].set_index(key)
        gone = fullest[~fullest.index.isin(here.index)]
        if here.empty or gone.empty:  # of a frame without anybody, others tell
            continue
        most = gone.reset_index().sort_values("people", kind="stable").iloc[-1]
        middle = ((most[each] + 0.5) * SQUARE for each in reversed(key))
        globe = Transformer.from_crs(grid.crs, "EPSG:4326", always_xy=True)
        lon, lat = globe.transform(*(grid.transform * tuple(middle)))
        when, then = (time_text(each).removesuffix("-01-01") for each in (time, most["time"]))
        yield (
            f"in {when} nobody lives in {len(gone)} square{'s' if len(gone) > 1 else ''} of "
            f"{SQUARE} × {SQUARE} cells where {gone['people'].sum():,.0f} people do in other "
            f"years, as around {abs(lat):.1f}° {'N' if lat >= 0 else 'S'}, "
            f"{abs(lon):.1f}° {'E' if lon >= 0 else 'W'} in {then}: look at its coverage"
        )


def seam_notes(
    labels: xr.DataArray, reach: float, what: str, classes: xr.DataArray | None = None
) -> Iterator[str]:
    """Say which groups are two because a global raster is cut there, frame by frame."""
    # Labels are found on the plane, of which the first and last column may be neighbours on Earth.
    if not goes_around(grid_of(labels)):
        return
    wide = max(1, int(reach))
    sides = [slice(0, wide), slice(-wide, None)]
    for time in labels["time"].values:
        west, east = (labels.sel(time=time).isel(x=side).values for side in sides)
        kinds = [np.zeros_like(west), np.zeros_like(east)]
        if classes is not None:
            kinds = [classes.sel(time=time).isel(x=side).values for side in sides]
        if count := len(_meeting((west, east), (kinds[0], kinds[1]), reach)):
            yield (
                f"{count:,} {what} of {str(time)[:10]} go on at the other side of the raster's "
                "seam, where its columns come round, and are counted as two each; move the seam "
                "to where nobody lives, such as 169° W (gdalwarp --config CENTER_LONG 11 -te -169 "
                "-90 191 90), if they are to be one"
            )


Sides = tuple[NDArray, NDArray]


def _meeting(labels: Sides, kinds: Sides, reach: float) -> set[tuple[int, int]]:
    """Pairs of labels of the first and the last columns with cells of a kind within reach."""
    (west, east), (of_west, of_east) = labels, kinds
    found: set[tuple[int, int]] = set()
    for i, j in np.ndindex(west.shape[1], east.shape[1]):
        apart = i + 1 + j  # the last column lies beside the first
        if apart > reach:
            continue
        most = min(int((reach**2 - apart**2) ** 0.5), len(west) - 1)
        for down in range(-most, most + 1):
            here = slice(max(down, 0), len(west) + min(down, 0))
            there = slice(max(-down, 0), len(west) + min(-down, 0))
            a, b = west[here, i], east[there, -1 - j]
            same = (a >= 0) & (b >= 0) & (of_west[here, i] == of_east[there, -1 - j])
            found |= set(zip(a[same].tolist(), b[same].tolist(), strict=True))
    return {(a, b) for a, b in found if a != b}
