"""What a community is: its people, area, outline, place and motion; and that nobody gets lost.

Everything is a sum over the cells of a community (:mod:`popdask.tracking.tally`): of people, of
areas, of rows and columns (the centroid is the unweighted mean of the cells' centres), of flows.
Velocity is the displacement of the centroid over the true time between two frames; it is measured
on the ellipsoid where coordinates are geographic.

The trick is that nothing but these sums leaves a chunk, as whole numbers: the table is identical
under any chunking, and the cells are read once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import dask
import geopandas as gpd
import numpy as np
import pandas as pd
import shapely
import xarray as xr
from affine import Affine

from popdask.arguments import check_flow, check_labels
from popdask.cube import grid_of, pixel_area_km2
from popdask.cube.arrays import check_population
from popdask.exact import words
from popdask.tracking._outlines import Pieces, join_outlines, outline_block
from popdask.tracking.motion import follow, move, predecessors, shared_people
from popdask.tracking.reduction import first_cells
from popdask.tracking.tally import (
    Table,
    add_up,
    frames_of,
    sum_frames,
    tabulate,
)

_OUTSIDE, _RASTER = -1, -2  # keys beside those of communities

__all__ = ["LostPeopleError", "check_balance", "follow", "people_balance", "summarize"]


def summarize(
    community: xr.DataArray,
    population: xr.DataArray,
    flow: xr.Dataset | None = None,
    *,
    tracks: pd.DataFrame | None = None,
) -> gpd.GeoDataFrame:
    """Describe every community of every frame.

    Eager: one pass over the cells, one call of :func:`dask.compute`.

    Parameters
    ----------
    community : DataArray of int, (time, y, x)
        Community numbers ≥ 0, negative where there is none.
    population : DataArray of float, (time, y, x)
        People per cell, NaN = no data, with CRS and transform.
    flow : Dataset, optional
        ``u`` and ``v`` (time, y, x), cells per frame, to be averaged over each community.
    tracks : pandas.DataFrame, optional
        The tracks (time, community, track) that velocities follow. Without them, a community is
        thought to come from the one of the frame before that left most people in shared cells.

    Returns
    -------
    geopandas.GeoDataFrame
        One row per community, ordered by time and community: ``time``; ``community`` (int64);
        ``population`` (people); ``cells`` (int64); ``area_km2``; ``centroid`` (Point, the mean of
        the cells' centres); ``velocity`` (km per year) and ``heading`` (degrees clockwise from
        north), both NaN where there is no community before, heading also where it stood still;
        ``mean_u``, ``mean_v`` where ``flow`` is given; ``geometry`` (Polygon or MultiPolygon).
        Both geometries are in the CRS of the grid.

    Raises
    ------
    InputError
        If the arrays do not share frames and grid, or the grid has no CRS.

    Notes
    -----
    Numbers of years as times are taken for years. A year is a calendar year, so that frames of
    1 January 2000 and 2005 are 5 years apart.

    Examples
    --------
    >>> import popdask.tracking.summary as summary
    >>> grid = {"time": pd.to_datetime(["2000", "2001"]), "y": [750.0, 250.0]}
    >>> grid["x"] = [250.0, 750.0, 1250.0]
    >>> labels = [[[0, 0, -1], [0, 0, -1]], [[-1, 0, 0], [-1, 0, 0]]]
    >>> community = xr.DataArray(labels, grid, ("time", "y", "x")).rio.write_crs(25833)
    >>> table = summary.summarize(community, xr.full_like(community, 10.0, float))
    >>> table[["population", "cells", "area_km2", "velocity", "heading"]]
       population  cells  area_km2  velocity  heading
    0        40.0      4       1.0       NaN      NaN
    1        40.0      4       1.0       0.5     90.0
    """
    check_labels("community", community)
    population = check_population("population", population)
    if flow is not None:
        check_flow(flow)
    values = [population] if flow is None else [population, flow["u"], flow["v"]]
    times, (labels, *arrays) = frames_of(community, *values)
    grid = population if population.rio.crs is not None else community
    area = pixel_area_km2(grid)
    first = first_cells(labels.chunks)
    sums = sum_frames(
        _sum_block, labels, *arrays, add=_join, finish=_outlined, area=area, first=first
    )
    parts, shared = dask.compute(sums, shared_people(labels, arrays[0]) if tracks is None else [])
    frames = [
        _describe(time, table, outlines, grid_of(grid).transform)
        for time, (table, outlines) in zip(times, parts, strict=True)
    ]
    communities = gpd.GeoDataFrame(
        pd.concat(frames, ignore_index=True), geometry="geometry", crs=grid.rio.crs
    )
    communities["centroid"] = gpd.GeoSeries(communities["centroid"], crs=grid.rio.crs)
    if tracks is None:
        return move(communities, predecessors([table.keys for table, _ in parts], shared))
    return follow(communities, tracks)


class LostPeopleError(RuntimeError):
    """People of the raster are neither in a community nor outside all of them."""


def people_balance(community: xr.DataArray, population: xr.DataArray) -> pd.DataFrame:
    """Count the people of every frame inside and outside its communities, and in the raster.

    Parameters
    ----------
    community : DataArray of int, (time, y, x)
        Community numbers ≥ 0, negative where there is none.
    population : DataArray of float, (time, y, x)
        People per cell, NaN = no data.

    Returns
    -------
    pandas.DataFrame
        One row per frame: ``time``; ``inside`` and ``outside`` (people, from the exact table of the
        communities); ``total`` (their sum); ``raster`` (people, summed exactly without looking at
        the communities); ``difference`` (total − raster, relative to the raster).

    Raises
    ------
    InputError
        If the arrays do not share frames and grid.

    Examples
    --------
    >>> community = xr.DataArray([[[0, 0, -1]]], dims=("time", "y", "x"))
    >>> population = xr.DataArray([[[1.0, 2.0, 4.0]]], dims=("time", "y", "x"))
    >>> people_balance(community, population)
       time  inside  outside  total  raster  difference
    0     0     3.0      4.0    7.0     7.0         0.0
    """
    check_labels("community", community)
    population = check_population("population", population)
    times, (labels, people) = frames_of(community, population)
    tables = sum_frames(_count_block, labels, people).compute()
    raster = np.array([table.reals(0)[table.keys == _RASTER].sum() for table in tables])
    inside = np.array([table.reals(0)[table.keys >= 0].sum() for table in tables])
    outside = np.array([table.reals(0)[table.keys == _OUTSIDE].sum() for table in tables])
    total = inside + outside
    scale = np.where(raster == 0, 1.0, np.abs(raster))
    return pd.DataFrame(
        {
            "time": times,
            "inside": inside,
            "outside": outside,
            "total": total,
            "raster": raster,
            "difference": (total - raster) / scale,
        }
    )


def check_balance(balance: pd.DataFrame, *, tolerance: float = 1e-9) -> None:
    """Check that nobody gets lost.

    Parameters
    ----------
    balance : pandas.DataFrame
        The table of :func:`people_balance`.
    tolerance : float, optional
        The relative difference that is rounding.

    Raises
    ------
    LostPeopleError
        Naming the first frame whose people inside and outside its communities are not those of the
        raster.

    Examples
    --------
    >>> check_balance(pd.DataFrame({"time": [2019], "difference": [1e-16]}))
    """
    lost = balance[~(balance["difference"].abs() <= tolerance)]
    for frame in lost.itertuples():
        raise LostPeopleError(
            f"{frame.time}: {frame.total!r} people in and outside the communities, but "
            f"{frame.raster!r} in the raster; the labels are not those of this population"
        )


class _Part(NamedTuple):
    """What a block, or some of them, tell of the communities in them."""

    table: Table
    outlines: list[Pieces]


def _sum_block(
    labels: np.ndarray,
    people: np.ndarray,
    *flow: np.ndarray,
    area: np.ndarray,
    first: Sequence[np.ndarray],
    block_id: tuple[int, int, int],
) -> _Part:
    """Tabulate a block (1, y, x) by community: cells, people, area, rows, columns and flow."""
    inside = labels >= 0
    top, left = (int(first[axis][block_id[axis]]) for axis in (1, 2))
    _, rows, columns = np.nonzero(inside)
    rows, columns = rows + top, columns + left

    def sums() -> Iterator[np.ndarray]:
        yield np.ones(rows.size, dtype=np.int64)
        yield from words(people[inside])
        yield from words(area[rows])
        yield rows
        yield columns
        for component in flow:
            yield from words(component[inside])

    table = tabulate(labels[inside].astype(np.int64), sums())
    return _Part(table, [outline_block(labels, (top, left))])


def _join(parts: list[_Part]) -> _Part:
    tables, outlines = zip(*parts, strict=True)
    return _Part(add_up(list(tables)), [pieces for part in outlines for pieces in part])


def _outlined(part: _Part) -> tuple[Table, np.ndarray]:
    """A frame's table, and the outlines of its communities in the order of their numbers."""
    return part.table, join_outlines(part.outlines)


def _count_block(labels: np.ndarray, people: np.ndarray) -> Table:
    """Tabulate the people of a block by community, and once more without looking at them."""
    lived_in = (people != 0) & ~np.isnan(people)
    weights = words(people[lived_in])
    here = tabulate(np.maximum(labels[lived_in].astype(np.int64), _OUTSIDE), weights)
    return add_up([here, tabulate(np.full(weights[0].size, _RASTER), weights)])


def _describe(time: Any, table: Table, outlines: np.ndarray, transform: Affine) -> pd.DataFrame:
    """Turn the sums of a frame into columns with units."""
    cells, rows, columns = table.sums[0], table.sums[5], table.sums[6]
    described = {
        "time": np.full(len(cells), time),
        "community": table.keys,
        "population": table.reals(1),
        "cells": cells,
        "area_km2": table.reals(3),
        "centroid": shapely.points(*_place(columns / cells + 0.5, rows / cells + 0.5, transform)),
        "velocity": np.nan,
        "heading": np.nan,
    }
    if len(table.sums) > 7:
        described |= {"mean_u": table.reals(7) / cells, "mean_v": table.reals(9) / cells}
    described["geometry"] = shapely.transform(
        outlines, lambda points: np.column_stack(_place(points[:, 0], points[:, 1], transform))
    )
    return pd.DataFrame(described)


def _place(
    columns: np.ndarray, rows: np.ndarray, transform: Affine
) -> tuple[np.ndarray, np.ndarray]:
    """Turn places counted in cells into coordinates."""
    a, b, c, d, e, f = transform[:6]
    return a * columns + b * rows + c, d * columns + e * rows + f
