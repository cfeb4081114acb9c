"""How many people live in which cells: from a raster, a table of cells, or points.

Counts are a table with the columns north, east (int64) and people (float64), one row per cell. A
cell that is not in it is unknown.
"""

from __future__ import annotations

import os

import geopandas as gpd
import numpy as np
import pandas as pd
import rioxarray  # noqa: F401  registers DataArray.rio
import xarray as xr
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from popdask.errors import InputError
from popdask.imagery.grid import TOLERANCE, CellGrid
from popdask.io.conventions import check_population
from popdask.io.grids import carry, describe_grid, grid_of, share_out
from popdask.io.paths import Path_
from popdask.io.rasters import read_counts, read_grid
from popdask.io.tables import read_features, read_table

#: Part of a cell by which the corners of its square may be off: files are rounded and reprojected.
_SLACK = 0.02

COLUMNS = ["north", "east", "people"]


def counts_from_raster(
    raster: xr.DataArray | Path_, grid: CellGrid, *, share: bool = False
) -> pd.DataFrame:
    """Read the people of cells from a population raster."""
    people, source, name = _read_raster(raster)
    if source.transform.e > 0:  # rows from south to north
        people, source = people[::-1], source.flipy()
    norths, easts = grid.covering(tuple(source.boundingbox), source.crs)
    target = grid.geobox(norths, easts)
    if _lies_on(source, target):
        values = people.astype("float64")
    elif share:
        everything = slice(0, source.shape[0]), slice(0, source.shape[1])
        rows, columns = slice(0, target.shape[0]), slice(0, target.shape[1])
        values = share_out(people, source, everything, target, rows, columns)
    else:
        raise InputError(
            f"{name} has {describe_grid(source)}, which are not cells of {grid.label} in {grid.crs}"
            "; expected a raster on the cell grid; pass share=True to share its people by area"
        )
    row, column = np.nonzero(np.isfinite(values))
    return _table(norths.stop - 1 - row, easts.start + column, values[row, column])


def counts_from_table(
    table: pd.DataFrame | Path_, grid: CellGrid, *, cell: str = "cell", people: str = "people"
) -> pd.DataFrame:
    """Read the people of cells from a table of codes."""
    name = "the table of counts" if isinstance(table, pd.DataFrame) else str(table)
    rows = table
    if not isinstance(rows, pd.DataFrame):
        rows = read_table(rows, "a table of cells and people", dtype={cell: str})
    if not len(rows):
        raise InputError(f"{name} has no rows; expected a table of cells and people")
    codes = cell if cell in rows.columns else None
    positions = codes is None and {"north", "east"} <= set(rows.columns)
    if not positions:
        codes = codes or _codes_column(rows, grid)
    if people not in rows.columns or not (positions or codes):
        raise InputError(
            f"{name} has the columns {', '.join(map(str, rows.columns))}; expected {cell} and "
            f"{people}; name them with cell= and people="
        )
    numbers = _as_people(rows[people], name)
    if positions:
        north, east = (_as_places(rows[axis], name) for axis in ("north", "east"))
    else:
        try:
            cells = np.array([grid.parse(code) for code in rows[codes]], np.int64).reshape(-1, 2)
        except InputError as error:
            raise InputError(f"{name}: {error}") from None
        north, east = cells[:, 0], cells[:, 1]
    counts = _table(north, east, numbers)
    refuse_doubles(counts, grid, name)
    return counts


def _codes_column(rows: pd.DataFrame, grid: CellGrid) -> str | None:
    """Find the column that holds codes of cells, as its first value tells; None if none does."""
    for column in map(str, rows.columns):
        first = rows[column].dropna()
        try:
            grid.parse(first.iloc[0] if len(first) else "")
        except InputError:
            continue
        return column
    return None


def counts_from_features(
    features: gpd.GeoDataFrame | Path_, grid: CellGrid, *, people: str = "people"
) -> pd.DataFrame:
    """Read the people of cells from squares or points of a file of features."""
    name = "the features" if isinstance(features, gpd.GeoDataFrame) else str(features)
    found = features if isinstance(features, gpd.GeoDataFrame) else read_features(features, "cells")
    if not len(found):
        raise InputError(f"{name} has no features; expected cells or points with people")
    if not found.geom_type.isin(["Polygon", "MultiPolygon"]).all():
        return counts_from_points(found, grid, weight=people)
    rows = pd.DataFrame(found.drop(columns=found.geometry.name))
    if _codes_column(rows, grid):
        return counts_from_table(rows, grid, people=people)
    if people not in found.columns:
        raise InputError(
            f"{name} has the columns {', '.join(map(str, found.columns))}; expected {people}; name "
            "the column of the people"
        )
    if found.crs is None:
        raise InputError(f"{name} have no CRS; expected one, to find their cells; set it")
    bounds = found.to_crs(grid.crs).bounds.to_numpy()
    middle = (bounds[:, :2] + bounds[:, 2:]) / 2
    north, east = grid.cells_at(middle[:, 0], middle[:, 1])
    corners = np.stack([grid.origin[0] + east * grid.size, grid.origin[1] + north * grid.size], 1)
    off = np.abs(np.hstack([bounds[:, :2] - corners, bounds[:, 2:] - corners - grid.size])).max(1)
    if (off > _SLACK * grid.size).any():
        row = int(np.argmax(off))
        raise InputError(
            f"{name} has {int((off > _SLACK * grid.size).sum())} shapes that are no cells of "
            f"{grid.label} in {grid.crs}, first in row {row}; expected its squares; name the grid "
            "that they are of, or add a column of codes"
        )
    counts = _table(north, east, _as_people(found[people], name))
    refuse_doubles(counts, grid, name)
    return counts


def counts_from_points(
    points: gpd.GeoDataFrame | Path_, grid: CellGrid, *, weight: str | None = None
) -> pd.DataFrame:
    """Count people at points, such as addresses, by cell."""
    name = "the points" if isinstance(points, gpd.GeoDataFrame) else str(points)
    found = points if isinstance(points, gpd.GeoDataFrame) else read_features(points, "points")
    if found.crs is None:
        raise InputError(f"{name} have no CRS; expected one, to find their cells; set it")
    wrong = (found.geom_type != "Point") | found.is_empty
    if wrong.any():
        raise InputError(
            f"{name} hold {int(wrong.sum())} geometries that are not points, first "
            f"{found.geom_type[wrong].iloc[0]}; expected points; take their centroids or remove "
            "them"
        )
    if weight is not None and weight not in found.columns:
        raise InputError(
            f"{name} have the columns {', '.join(map(str, found.columns))}; expected {weight}; "
            "correct weight"
        )
    people = np.ones(len(found)) if weight is None else _as_people(found[weight], name)
    there = found.to_crs(grid.crs).geometry
    x, y = there.x.to_numpy(), there.y.to_numpy()
    lost = ~(np.isfinite(x) & np.isfinite(y))
    if lost.any():
        raise InputError(
            f"{name} hold {int(lost.sum())} points that have no place in {grid.crs}, first "
            f"{found.geometry[lost].iloc[0]}; expected points near the cells; correct or remove "
            "them"
        )
    north, east = grid.cells_at(x, y)
    return _table(north, east, people).groupby(["north", "east"], as_index=False).sum()


def people_of_cells(
    counts: pd.DataFrame,
    grid: CellGrid,
    north: NDArray[np.int64],
    east: NDArray[np.int64],
    *,
    drop_others: bool = False,
) -> NDArray[np.float64]:
    """Look up the people of some cells."""
    refuse_doubles(counts, grid, "the table of counts")
    cells = pd.MultiIndex.from_arrays([north, east])
    known = pd.MultiIndex.from_frame(counts[["north", "east"]])
    others = counts_beyond(counts, north, east)
    if others.any() and (others.all() or not drop_others):
        first = counts[others].iloc[0]
        raise InputError(
            f"{int(others.sum())} of {len(counts)} counts are of cells that the image does not "
            f"have, first {grid.code(first.north, first.east)}; expected counts of its cells; "
            + (
                "check the grid and the place"
                if others.all()
                else 'pass outside="drop" to leave them out'
            )
        )
    people = pd.Series(counts["people"].to_numpy(np.float64), known)
    return people.reindex(cells).to_numpy(np.float64)


def counts_beyond(counts: pd.DataFrame, north: NDArray, east: NDArray) -> NDArray[np.bool_]:
    """Return which counts (north, east, people) are of other cells than these."""
    cells = pd.MultiIndex.from_arrays([north, east])
    return ~pd.MultiIndex.from_frame(counts[["north", "east"]]).isin(cells)


def refuse_doubles(counts: pd.DataFrame, grid: CellGrid, name: str) -> None:
    """Refuse counts (north, east, people) in which a cell is there twice."""
    twice = counts.duplicated(["north", "east"])
    if twice.any():
        first = counts[twice].iloc[0]
        raise InputError(
            f"{name} has {int(twice.sum())} cells twice, first {grid.code(first.north, first.east)}"
            "; expected one count for each cell; add them up or remove all but one"
        )


def _table(north: NDArray, east: NDArray, people: NDArray) -> pd.DataFrame:
    columns = (north.astype(np.int64), east.astype(np.int64), people.astype(np.float64))
    return pd.DataFrame(dict(zip(COLUMNS, columns, strict=True)))


def _lies_on(source: GeoBox, target: GeoBox) -> bool:
    """Return whether a raster is exactly some cells, north up."""
    if source.crs != target.crs or source.shape != target.shape:
        return False
    corners = np.array([[0.0, 0.0], list(source.shape)]).T
    row, column = carry(corners[0], corners[1], source, target)
    return bool(np.abs([row - corners[0], column - corners[1]]).max() < 1000 * TOLERANCE)


def _read_raster(raster: xr.DataArray | Path_) -> tuple[NDArray, GeoBox, str]:
    if isinstance(raster, xr.DataArray):
        name = str(raster.name or "the raster of counts")
        if set(raster.dims) != {"y", "x"}:
            raise InputError(
                f"{name} has the dimensions {raster.dims}; expected y and x; select one band, for "
                "example with isel(band=0)"
            )
        counts = check_population(name, raster.transpose("y", "x")).to_numpy().astype("float32")
        return counts, grid_of(raster), name
    path = os.fspath(raster)
    grid = read_grid(path)
    return read_counts(path, slice(0, grid.shape[0]), slice(0, grid.shape[1])), grid, path


def _as_people(column: pd.Series, name: str) -> NDArray[np.float64]:
    """Check that a column holds counts."""
    people = pd.to_numeric(column, errors="coerce").to_numpy(np.float64)
    wrong = ~(np.isfinite(people) & (people >= 0))
    if wrong.any():
        row = int(np.argmax(wrong))
        raise InputError(
            f"{name} has {int(wrong.sum())} counts that are negative or not numbers, first "
            f"{column.iloc[row]} in row {row}; expected people, 0 or more; correct or remove them"
        )
    return people


def _as_places(column: pd.Series, name: str) -> NDArray[np.int64]:
    """Check that a column holds whole numbers."""
    places = pd.to_numeric(column, errors="coerce").to_numpy(np.float64)
    wrong = ~(np.isfinite(places) & (places == np.rint(places)))
    if wrong.any():
        row = int(np.argmax(wrong))
        raise InputError(
            f"{name} has {column.iloc[row]} as {column.name} in row {row}; expected whole numbers, "
            "the corners of cells in units of their size; divide coordinates by it"
        )
    return places.astype(np.int64)
