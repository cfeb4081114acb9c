"""Units such as municipalities: their class by the Degree of Urbanisation, and who lives where.

Cells are classified first; then a unit is what most of its people live in. The rules are those of
Eurostat's manual "Applying the Degree of Urbanisation" (2021), chapter 7:

- level 1: 3 city, where at least half of the people live in urban centres; else 1 rural area, where
  more than half live in rural cells; else 2 town or semi-dense area;
- level 2 divides towns and semi-dense areas by where most of the people of their urban clusters
  live: 21 suburban or peri-urban where suburban cells have at least as many as dense and semi-dense
  clusters have together, else 23 dense or 22 semi-dense town, whichever cluster has more;
- and rural areas by where most of the people of their rural cells live: 13 village, 12 dispersed
  rural or 11 mostly uninhabited.

The manual is silent on ties; here the denser class takes them, but for that of suburban cells with
dense and semi-dense clusters together, which is 21, as in flexurba 0.2 (R). Where nobody lives,
land is counted instead of people.

In July 2024 the manual online (Eurostat, Statistics Explained) got other rules for level 2, by half
of *all* people of a unit:

- 23 where half live in urban centres and dense clusters, else 21 where half live in suburban and
  rural cells, else 22;
- 13 where half live in urban centres, urban clusters and rural clusters, else 11 where half live in
  very low density cells, else 12.

A cell that a border cuts is shared by area, so its people are nowhere counted twice: units that
cover the raster have all of its people. Shares are computed once and serve all frames.
"""

from __future__ import annotations

from typing import Any

import dask.array as da
import geopandas as gpd
import numba
import numpy as np
import pandas as pd
import xarray as xr
from dask.base import tokenize
from dask.highlevelgraph import HighLevelGraph
from numpy.typing import NDArray

from popdask.blocks.area_shares import TILE, Polygons, Shares, lay_out, shares_of_tile
from popdask.blocks.sums import LabelSums, add_up, frames_of, pair, tree_reduce
from popdask.errors import InputError
from popdask.io.conventions import check_population, decimal_years
from popdask.io.cube import from_1km
from popdask.io.grids import grid_of
from popdask.io.paths import Path_
from popdask.io.tables import read_features
from popdask.tracking.urban_rules import CODES, check_codes
from popdask.validate import check_array

_WATER, _VERY_LOW, _LOW, _VILLAGE, _SUBURBAN, _SEMIDENSE, _DENSE, _CENTRE = range(len(CODES))
_COLUMNS = 4  # two words each of people, and of cells with data

#: What people are called who live in cells of a code, the densest first.
CELL_CLASSES = {
    30: "urban_centre",
    23: "dense_cluster",
    22: "semidense_cluster",
    21: "suburban",
    13: "rural_cluster",
    12: "low_density",
    11: "very_low_density",
}

#: The classes of units at level 2.
UNIT_CLASSES = {
    30: "city",
    23: "dense town",
    22: "semi-dense town",
    21: "suburban or peri-urban area",
    13: "village",
    12: "dispersed rural area",
    11: "mostly uninhabited area",
}


def classify_units(
    population: xr.DataArray,
    codes: xr.DataArray,
    units: gpd.GeoDataFrame | Path_,
    *,
    name: str | None = None,
    rules: int = 2021,
) -> pd.DataFrame:
    """Classify municipalities or other units by the Degree of Urbanisation of their cells.

    Eager: one pass over the cells, one Dask computation.

    Parameters
    ----------
    population : DataArray, (time, y, x) or (y, x)
        People per cell, NaN = no data, with CRS and transform.
    codes : DataArray of int, (time, y, x) or (y, x)
        Degree of Urbanisation, level 2, on the grid of the population or on its cells of 1 km, as
        ``degree_of_urbanisation(to_1km(population))`` gives them.
    units : GeoDataFrame or path
        Polygons that do not overlap, or their file. Those in another CRS are reprojected.
    name : str, optional
        The column with the units' names or codes, each once: by default the index.
    rules : {2021, 2024}, optional
        The rules of level 2: those of the manual of 2021, or of July 2024. Level 1 is the same.

    Returns
    -------
    pandas.DataFrame
        One row per unit and frame, in the order of the units and of time: ``time`` (where the
        population has it); ``unit``; ``level1`` (Int8): 3 city, 2 town or semi-dense area, 1 rural
        area; ``level2`` (Int8): 30 city, 23 dense and 22 semi-dense town, 21 suburban or peri-urban
        area, 13 village, 12 dispersed rural and 11 mostly uninhabited area; ``class``, level 2 in
        words; all three missing where no land of the unit has data. People (float64):
        ``population``, and by the class of their cells ``urban_centre``, ``dense_cluster``,
        ``semidense_cluster``, ``suburban``, ``rural_cluster``, ``low_density`` and
        ``very_low_density``; ``change``, in people since the frame before, and ``growth``, in per
        cent per year since then, NaN in the first and where the two frames cover another part of
        the unit, or nothing of it: no data is not nobody. ``covered``: the share of the unit's area
        that lies in cells with data; where it is less than 1, people may be missing.

    Raises
    ------
    InputError
        If there is no unit, none lies on the raster, a column, name or CRS is missing, a name comes
        twice, units are no polygons or overlap by more than a hundredth of a cell, the arrays do
        not share frames and grid, codes are not those of level 2, or the rules are of another year.

    Notes
    -----
    A cell that a border cuts is shared by area. Sums are exact, and the same in any chunks. Memory
    is that of a few tiles of 1024 × 1024 cells, and of the outlines.
    Rules: Eurostat, "Applying the Degree of Urbanisation", 2021, chapter 7; see
    `popdask.tracking.units` for them.

    Examples
    --------
    A village of 900 people, half of which lies in each of two municipalities, in the country:

    >>> import shapely
    >>> from odc.geo.geobox import GeoBox
    >>> from odc.geo.xr import wrap_xr
    >>> grid = GeoBox.from_bbox((0, 0, 3000, 1000), "EPSG:3035", resolution=1000)
    >>> population = wrap_xr(np.array([[500.0, 900, 20]], "float32"), grid)
    >>> codes = wrap_xr(np.array([[12, 13, 11]], "int8"), grid)
    >>> halves = [shapely.box(0, 0, 1500, 1000), shapely.box(1500, 0, 3000, 1000)]
    >>> units = gpd.GeoDataFrame({"code": ["W", "E"]}, geometry=halves, crs="EPSG:3035")
    >>> found = classify_units(population, codes, units, name="code")
    >>> found[["unit", "level1", "class", "population", "rural_cluster"]]
      unit  level1                 class  population  rural_cluster
    0    W       1  dispersed rural area       950.0          450.0
    1    E       1               village       470.0          450.0
    """
    if rules not in (2021, 2024):
        raise InputError(f"rules is {rules!r}; expected 2021 or 2024, the years of the manual")
    population = check_population("population", population)
    check_array("codes", codes, "y", "x")
    outlines = _outlines(units, name, population)
    if codes.sizes["y"] != population.sizes["y"] or codes.sizes["x"] != population.sizes["x"]:
        codes = from_1km(codes, population)
    times, (people, classes) = frames_of(population.rename("population"), codes.rename("codes"))
    sums = tree_reduce(_tallies(people, classes, outlines), add_up, by_frame=True).compute()
    frames = [_table(outlines, *_dense(frame, len(outlines.names)), rules) for frame in sums]
    table = _since_before(pd.concat(frames, ignore_index=True), times)
    return table if "time" in population.dims else table.drop(columns="time")


def _outlines(
    units: gpd.GeoDataFrame | Path_, name: str | None, population: xr.DataArray
) -> Polygons:
    """The units on the cells of the raster."""
    if not isinstance(units, gpd.GeoDataFrame):
        units = read_features(units, "polygons, one for each unit")
    if name is not None and name not in units:
        held = ", ".join(map(str, units.columns.drop(units.geometry.name)))
        raise InputError(
            f"the zones have no column {name!r}; they have {held or 'none but their outlines'}: "
            "name the column with the codes or names of the units"
        )
    grid = grid_of(population)
    found = lay_out(units, pd.Series(units[name] if name else units.index), grid)
    rows, columns = grid.shape
    left, top, right, bottom = found.bounds.T
    if not ((left < columns) & (right > 0) & (top < rows) & (bottom > 0)).any():
        within = ", ".join(f"{edge:.10g}" for edge in grid.extent.boundingbox)
        raise InputError(
            f"none of the {len(units):,} zones lies on the raster, which has the bounds {within}; "
            "expected zones of the same region: check their file and its CRS"
        )
    return found


def _tallies(people: da.Array, codes: da.Array, outlines: Polygons) -> da.Array:
    """Sums of every tile of every frame, as an array of blocks for `tree_reduce`."""
    people, codes = (array.rechunk((1, TILE, TILE)) for array in (people, codes))
    name = f"units-{tokenize(people.name, codes.name, outlines)}"
    graph: dict[Any, Any] = {("outlines-" + name): outlines}
    for row, rows in enumerate(people.chunks[1]):
        for column, columns in enumerate(people.chunks[2]):
            shares = ("shares-" + name, row, column)
            corner = row * TILE, column * TILE
            graph[shares] = (shares_of_tile, "outlines-" + name, corner, (rows, columns))
            for frame in range(people.numblocks[0]):
                at = frame, row, column
                graph[name, *at] = (_tally, (people.name, *at), (codes.name, *at), shares)
    below: list[Any] = [people, codes]
    layers = HighLevelGraph.from_collections(name, graph, dependencies=below)
    return da.Array(layers, name, people.chunks, dtype=object)


def _tally(people: NDArray, codes: NDArray, shares: Shares) -> LabelSums:
    """People and cells with data in a tile by unit and code; a key is 8 · unit + code."""
    check_codes(codes)
    place = np.searchsorted(CODES, codes.reshape(-1)).astype(np.int8)
    parts = shares.starts, shares.cells, shares.shares
    sums = _add_shares(people.reshape(-1), place, *parts)
    keys = shares.polygons[:, None] * len(CODES) + np.arange(len(CODES))
    return LabelSums(keys.reshape(-1), sums.reshape(-1, _COLUMNS).T)


@numba.njit(cache=True, nogil=True)
def _add_shares(
    people: NDArray,
    place: NDArray[np.int8],
    starts: NDArray[np.int64],
    cells: NDArray[np.int32],
    shares: NDArray[np.float64],
) -> NDArray[np.int64]:
    """Add up the shares of cells with data, (unit, code, words)."""
    sums = np.zeros((starts.size - 1, 8, 4), np.int64)
    for unit in range(starts.size - 1):
        for part in range(starts[unit], starts[unit + 1]):
            value = np.float64(people[cells[part]])
            if np.isnan(value):
                continue
            row = sums[unit, place[cells[part]]]
            coarse, fine = pair(value * shares[part])
            row[0] += coarse
            row[1] += fine
            coarse, fine = pair(shares[part])
            row[2] += coarse
            row[3] += fine
    return sums


def _dense(frame: LabelSums, units: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """People and cells with data of a frame, (unit, code) each."""
    found = np.zeros((2, units * len(CODES)))
    found[:, frame.keys] = frame.reals(0), frame.reals(2)
    people, cells = found.reshape(2, units, len(CODES))
    return people, cells


def _table(
    outlines: Polygons, people: NDArray[np.float64], cells: NDArray[np.float64], rules: int
) -> pd.DataFrame:
    """The units of one frame."""
    empty = people.sum(axis=1) == 0
    land = cells.copy()
    land[:, _WATER] = 0
    level1, level2 = _classes(np.where(empty[:, None], land, people), rules)
    unknown = land.sum(axis=1) == 0
    table = pd.DataFrame({"unit": outlines.names})
    for column, level in (("level1", level1), ("level2", level2)):
        table[column] = pd.array(np.where(unknown, 0, level), "Int8")
        table.loc[unknown, column] = pd.NA
    table["class"] = table["level2"].map(UNIT_CLASSES)
    table["population"] = people.sum(axis=1)
    for code, column in CELL_CLASSES.items():
        table[column] = people[:, CODES.index(code)]
    area = outlines.area
    table["covered"] = np.divide(
        cells.sum(axis=1), area, out=np.zeros(len(area)), where=area > 0
    ).clip(max=1)
    return table


def _classes(
    people: NDArray[np.float64], rules: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Levels 1 and 2 of units, of their people by code, (unit, code)."""
    total, part = people.sum(axis=1), people.T
    rural = part[_WATER] + part[_VERY_LOW] + part[_LOW] + part[_VILLAGE]
    level1 = np.select([2 * part[_CENTRE] >= total, 2 * rural > total], [3, 1], 2)
    urban, countryside = (_parts_2021 if rules == 2021 else _parts_2024)(part, total, rural)
    return level1, np.select([level1 == 3, level1 == 2], [30, urban], countryside)


def _parts_2021(part: NDArray, total: NDArray, rural: NDArray) -> tuple[NDArray, NDArray]:
    """Level 2 of towns and of rural areas, by the largest part."""
    dense, semidense = part[_DENSE], part[_SEMIDENSE]
    urban = np.select([part[_SUBURBAN] >= dense + semidense, dense >= semidense], [21, 23], 22)
    lowest = np.maximum(part[_LOW], part[_VERY_LOW])
    countryside = np.where(part[_LOW] >= part[_VERY_LOW], 12, 11)
    return urban, np.where(part[_VILLAGE] >= lowest, 13, countryside)


def _parts_2024(part: NDArray, total: NDArray, rural: NDArray) -> tuple[NDArray, NDArray]:
    """Level 2 of towns and of rural areas, by half of all people."""
    dense, scattered = part[_CENTRE] + part[_DENSE], part[_SUBURBAN] + rural
    urban = np.select([2 * dense >= total, 2 * scattered >= total], [23, 21], 22)
    settled = dense + part[_SEMIDENSE] + part[_SUBURBAN] + part[_VILLAGE]
    return urban, np.select([2 * settled >= total, 2 * part[_VERY_LOW] >= total], [13, 11], 12)


def _since_before(table: pd.DataFrame, times: NDArray) -> pd.DataFrame:
    """Order the tables of the frames by unit and time, with what changed since the frame before."""
    units = len(table) // len(times)
    table = table.iloc[np.arange(len(table)).reshape(-1, units).T.reshape(-1)]
    now = table[["population", "covered"]]
    people, covered = now.to_numpy().T
    before, last = now.groupby(table["unit"], sort=False).shift().to_numpy().T
    years = np.tile(np.diff(decimal_years(pd.Series(times)), prepend=np.nan), units)
    with np.errstate(divide="ignore", invalid="ignore"):
        growth = 100 * ((people / before) ** (1 / years) - 1)
    same = np.isclose(covered, last, rtol=0, atol=1e-9) & (covered > 0)  # no data is not nobody
    table.insert(0, "time", np.tile(times, units))
    change = np.where(same, people - before, np.nan)
    table.insert(len(table.columns) - 1, "change", change)
    growth = np.where(same & (before > 0), growth, np.nan)
    table.insert(len(table.columns) - 1, "growth", growth)
    return table.reset_index(drop=True)
