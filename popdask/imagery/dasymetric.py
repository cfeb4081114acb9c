"""Census totals kept: estimates scaled so that every zone adds up to its known number of people.

In a zone where people are estimated, each cell's estimate is multiplied by total / estimate. In a
zone where nobody is, the total is spread over the cells that look inhabited, in proportion to their
probability; where nothing looks inhabited, evenly over all cells with data. Whole people follow by
largest remainder, so that the totals stay.

Zones are polygons with a column of totals, or a raster of zone numbers with a table of totals. A
cell belongs to the zone in which its centre lies. Sums by zone are exact, as the two words of
`popdask.blocks.sums`, and so the same to the last bit in any chunks.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import dask.array as da
import geopandas as gpd
import numba
import numpy as np
import pandas as pd
import rioxarray
import shapely
import xarray as xr
from affine import Affine
from dask import delayed
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_zeros
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.features import rasterize

from popdask.blocks.area_shares import check_names, check_polygons
from popdask.blocks.sums import LIMIT, from_fixed, pair
from popdask.errors import InputError
from popdask.imagery.cells import cells_grid
from popdask.io.conventions import flags
from popdask.io.grids import describe_grid, grid_of, same_grid
from popdask.io.paths import Path_
from popdask.io.rasters import check_there, open_raster
from popdask.io.tables import read_features, read_table

HOW = ("scaled", "spread by presence", "spread evenly", "nobody", "left out")
SCALED, BY_PRESENCE, EVENLY, NOBODY, LEFT_OUT = range(len(HOW))
MEANINGS = {
    "cells": ("cells of the zone with data", "1"),
    "no_data": ("cells of the zone without data", "1"),
    "estimated": ("people estimated", "people"),
    "total": ("people known", "people"),
    "factor": ("total / estimated, where the zone was scaled", "1"),
    "adjusted": ("people of the adjusted estimates", "people"),
    "how": ("how the zone got its total", "1"),
}
LEAST = 1e-3  # people in a zone: fewer are nobody, for they would be scaled beyond all meaning
SUM_WORDS = 4  # of a zone: cells, cells with a value, the two words of the sum
Table = pd.DataFrame | pd.Series | Mapping[int, float] | Path_
RASTERS = {".tif", ".tiff", ".vrt"}
NONE = -1
NUDGE = 1e-6, 1e-8  # of a cell, right and up: so a centre on a border lies in one zone alone

# `rasterize` silences this itself, but not where other threads silence theirs at the same time.
warnings.filterwarnings("ignore", category=NotGeoreferencedWarning, module=r"rasterio\.features")


@dataclass(frozen=True)
class _Rules:
    """The settings, checked."""

    inhabited_from: float
    unzoned: str
    partial: str

    def __post_init__(self) -> None:
        if not 0 < self.inhabited_from <= 1:
            raise InputError(
                f"inhabited_from is {self.inhabited_from}, expected a probability above 0, as 0.1"
            )
        words = {"unzoned": ("keep", "drop"), "partial": ("raise", "skip", "scale")}
        for name, known in words.items():
            if (found := getattr(self, name)) not in known:
                raise InputError(f"{name} is {found!r}, expected one of {', '.join(known)}")


def adjust_to_totals(
    population: xr.DataArray,
    zones: gpd.GeoDataFrame | xr.DataArray | Path_,
    totals: str | Table,
    *,
    presence: xr.DataArray | None = None,
    name: str | None = None,
    inhabited_from: float = 0.1,
    unzoned: Literal["keep", "drop"] = "keep",
    partial: Literal["raise", "skip", "scale"] = "raise",
) -> xr.Dataset:
    """Scale estimates so that each zone's sum equals its known total.

    Parameters
    ----------
    population : DataArray of float, (y, x)
        Estimated people per cell with a CRS, NumPy or Dask; NaN = no data.
    zones : GeoDataFrame, DataArray of int, or path
        Polygons or a raster of zone numbers, or their file. Polygons in another CRS are
        reprojected to that of `population`. A cell belongs to the zone of its centre.
    totals : str, or table
        The polygons' column of totals; for a raster of zones a mapping, Series or DataFrame (zone,
        total), or its Parquet or CSV file.
    presence : DataArray of float, (y, x), optional
        The probability that a cell is inhabited, on the same grid. Without it, zones where nobody
        is estimated spread their total evenly.
    name : str, optional
        The column with the zones' names: by default the index of polygons, ``zone`` of a table.
    inhabited_from : float, optional
        The least probability with which a cell looks inhabited, where a zone has people but nobody
        is estimated. It is low because that people live there is known.
    unzoned : {"keep", "drop"}, optional
        Cells in no zone keep their estimate (the default), or become NaN.
    partial : {"raise", "skip", "scale"}, optional
        What to do with zones that reach beyond the raster by more than a cell, or have no cell
        with data: refuse them (the default), leave them out (their cells are then treated as in no
        zone), or put all their people on the part that is there.

    Returns
    -------
    Dataset
        Lazy where `population` is: ``population`` float64 (y, x), people per cell (float32 would
        lose a total in its eighth digit); ``zone_number`` int32 (y, x), −1 in no zone; and by
        ``zone``: ``cells`` and ``no_data`` (with and without data), ``estimated``, ``total``,
        ``factor`` (total / estimated, where scaled), ``adjusted`` (the sum afterwards) and ``how``
        (a number, named in its attributes). See `zone_report` for them as a table.

    Raises
    ------
    InputError
        If a setting is unknown, zones or totals are wrong (see `read_zones`), or a zone reaches
        beyond the raster. When computed: if zones overlap, a zone with people has no cell with
        data, or an estimate is negative or infinite.

    Notes
    -----
    Fewer than 0.001 people estimated in a zone count as nobody. Totals are kept to 1e-9.

    Examples
    --------
    Of two zones, only the first has estimates; the second has a cell that looks inhabited:

    >>> from odc.geo.geobox import GeoBox
    >>> from odc.geo.xr import wrap_xr
    >>> grid = GeoBox.from_bbox((0, 0, 400, 100), "EPSG:25832", resolution=100)
    >>> estimate = wrap_xr(np.array([[1.0, 3.0, 0.0, 0.0]]), grid)
    >>> zones = wrap_xr(np.array([[1, 1, 2, 2]]), grid)
    >>> presence = wrap_xr(np.array([[0.9, 0.9, 0.4, 0.0]]), grid)
    >>> kept = adjust_to_totals(estimate, zones, {1: 8, 2: 5}, presence=presence)
    >>> kept.population.values
    array([[2., 6., 5., 0.]])
    """
    rules = _Rules(inhabited_from, unzoned, partial)
    _check_grids(population, presence)
    lazy = population if isinstance(population.data, da.Array) else population.chunk()
    found = read_zones(zones, totals, lazy, name=name)
    kept = _kept(lazy, presence, found, rules)
    return kept if lazy is population else kept.compute()


def zone_report(kept: xr.Dataset) -> pd.DataFrame:
    """List each zone before and after.

    Parameters
    ----------
    kept : Dataset
        As from `adjust_to_totals`; what is lazy of it is computed, in one go.

    Returns
    -------
    pandas.DataFrame
        One row per zone: zone, cells, no_data (cells without), estimated, total, factor (NaN where
        nothing was scaled), adjusted, how ("scaled", "spread by presence", "spread evenly",
        "nobody", "left out").

    Examples
    --------
    >>> from odc.geo.geobox import GeoBox
    >>> from odc.geo.xr import wrap_xr
    >>> grid = GeoBox.from_bbox((0, 0, 400, 100), "EPSG:25832", resolution=100)
    >>> zones = wrap_xr(np.array([[1, 1, 2, 2]]), grid)
    >>> kept = adjust_to_totals(wrap_xr(np.array([[1.0, 3, 0, 0]]), grid), zones, {1: 8, 2: 5})
    >>> zone_report(kept)
       zone  cells  no_data  estimated  total  factor  adjusted            how
    0     1      2        0        4.0    8.0     2.0       8.0         scaled
    1     2      2        0        0.0    5.0     NaN       5.0  spread evenly
    """
    columns = ["cells", "no_data", "estimated", "total", "factor", "adjusted", "how"]
    table = kept[columns].compute().to_dataframe()[columns].reset_index()
    return table.assign(how=[HOW[number] for number in table["how"]])


def _check_grids(population: xr.DataArray, presence: xr.DataArray | None) -> None:
    if population.dims != ("y", "x"):
        raise InputError(
            f"the estimates have the dimensions {population.dims}; expected (y, x): select a frame"
        )
    if presence is not None and (presence.dims, presence.shape) != (("y", "x"), population.shape):
        raise InputError(
            f"presence has {dict(presence.sizes)} but population {dict(population.sizes)}; one "
            "grid was expected: give the two of one estimate"
        )


def _kept(
    population: xr.DataArray, presence: xr.DataArray | None, zones: Zones, rules: _Rules
) -> xr.Dataset:
    """Put the lazy result together: sums, what to do in each zone, the cells, their sums again."""
    people, number, count = population.data, zones.number.data, len(zones.names)
    chance = da.full_like(people, np.nan) if presence is None else da.asarray(presence.data)
    weight = da.where(chance >= rules.inhabited_from, chance, np.nan).rechunk(people.chunks)
    weight = da.where(da.isnan(people), np.nan, weight)
    before, weights = sums_by_zone(number, people, count), sums_by_zone(number, weight, count)
    left = _left_out(zones, rules)
    plan = delayed(_plan)(before.table, weights.table, zones.names, zones.totals, left, rules)
    cells = da.map_blocks(
        _adjust, number, people, weight, plan=plan, dtype=np.float64, meta=np.empty((0, 0))
    )
    how, factor = da.from_delayed(plan, (2, count + 1), np.float64)[:, :-1]
    by_zone = {
        "cells": before.cells,
        "no_data": before.missing,
        "estimated": before.values,
        "total": zones.totals,
        "factor": da.where(how == SCALED, factor, np.nan),
        "adjusted": sums_by_zone(number, cells, count).values,
        "how": how.astype(np.int8),
    }
    attrs = {"units": "people per cell", "long_name": "people, with the totals of zones kept"}
    kept = xr.Dataset(
        {
            "population": population.copy(data=cells).assign_attrs(attrs),
            "zone_number": zones.number,
            **{name: ("zone", values) for name, values in by_zone.items()},
        },
        coords={"zone": zones.names},
    )
    for column, (words, units) in MEANINGS.items():
        kept[column].attrs = {"long_name": words, "units": units}
    kept["how"].attrs |= flags(range(len(HOW)), HOW)
    return kept


def _left_out(zones: Zones, rules: _Rules) -> NDArray[np.bool_]:
    """Return which zones are left out because the raster has only a part of them."""
    cut = zones.beyond > 0
    if rules.partial == "raise" and cut.any():
        pairs = zip(zones.names[cut], zones.beyond[cut], strict=True)
        named = [f"{name} ({share:.0%} of its area)" for name, share in pairs]
        more = f" and {len(named) - 3} more" if len(named) > 3 else ""
        raise InputError(
            f"the zones {', '.join(named[:3])}{more} reach beyond the raster; a total can be kept "
            'only where the raster has all of a zone: leave them out (partial="skip"), or put '
            'all their people on the part that is there (partial="scale")'
        )
    return cut & (rules.partial == "skip")


def _plan(
    before: NDArray, weights: NDArray, names: NDArray, totals: NDArray, left: NDArray, rules: _Rules
) -> NDArray[np.float64]:
    """Decide how each zone keeps its total, and the factor of its cells: (2, zone + 1)."""
    # The last column is that of the cells in no zone.
    people, presence = Sums(before), Sums(weights)
    empty = (people.cells == 0) & (totals > 0) & ~left
    if empty.any() and rules.partial != "skip":
        raise InputError(
            f"the zone {names[empty][0]} has the total {totals[empty][0]:g} but no cell with data "
            "whose centre lies in it; at least one was expected: leave such zones out "
            '(partial="skip"), or join it with a neighbour'
        )
    ways = {
        LEFT_OUT: (left | empty, 1.0),
        SCALED: (people.values >= LEAST, people.values),
        NOBODY: (totals == 0, 1.0),
        BY_PRESENCE: (presence.cells > 0, presence.values),
        EVENLY: (people.cells > 0, people.cells),
    }
    conditions = [condition for condition, _ in ways.values()]
    how = np.select(conditions, list(ways), NOBODY)
    parts = np.select(conditions, [part for _, part in ways.values()], 1.0)
    aside = 1.0 if rules.unzoned == "keep" else np.nan
    factor = np.where(how == LEFT_OUT, aside, totals / parts)
    return np.array([[*how, LEFT_OUT], [*factor, aside]], np.float64)


def _adjust(number: NDArray, people: NDArray, weight: NDArray, plan: NDArray) -> NDArray:
    how, factor = plan[:, number]
    spread = np.where(how == BY_PRESENCE, np.nan_to_num(weight), 1.0)
    own = (how == SCALED) | (how == LEFT_OUT)
    adjusted = np.where(own, people, spread).astype(np.float64) * factor
    return np.where(np.isnan(people), np.nan, adjusted)


def round_to_totals(kept: xr.Dataset) -> xr.DataArray:
    """Round a raster to whole people, zone by zone, so that totals are kept.

    By largest remainder: every cell gets the whole part of its people, and who is missing from
    the zone's total goes to the cells with the largest remainders, one each; of equal remainders
    the first cell in row-major order comes first. Cells in no zone, or in one that is left out,
    are rounded together, to their nearest whole sum.

    Parameters
    ----------
    kept : Dataset
        As from `adjust_to_totals`.

    Returns
    -------
    DataArray
        Whole people per cell, float64 (y, x), NaN = no data; lazy where `kept` is. One task holds
        the whole raster, about 60 bytes per cell.

    Raises
    ------
    InputError
        If a total is not a whole number.

    Examples
    --------
    >>> from popdask.imagery.dasymetric import adjust_to_totals
    >>> from odc.geo.geobox import GeoBox
    >>> from odc.geo.xr import wrap_xr
    >>> grid = GeoBox.from_bbox((0, 0, 300, 100), "EPSG:25832", resolution=100)
    >>> zones = wrap_xr(np.array([[1, 1, 1]]), grid)
    >>> kept = adjust_to_totals(wrap_xr(np.array([[2.0, 2.0, 1.0]]), grid), zones, {1: 4})
    >>> kept.population.values, round_to_totals(kept).values
    (array([[1.6, 1.6, 0.8]]), array([[2., 1., 1.]]))
    """
    totals = np.asarray(kept["total"])
    if (odd := totals != np.rint(totals)).any():
        raise InputError(
            f"the zone {kept['zone'].values[odd][0]} has the total {totals[odd][0]}; whole people "
            "were expected: round the totals first"
        )
    people, number, how = (kept[key].data for key in ("population", "zone_number", "how"))
    if not isinstance(people, da.Array):
        return kept["population"].copy(data=_rounded(people, number, totals, how))
    whole = da.map_blocks(
        _rounded,
        people.rechunk(-1),
        number.rechunk(-1),
        totals=totals,
        how=delayed(how),
        dtype=np.float64,
        meta=np.empty((0, 0)),
    )
    return kept["population"].copy(data=whole.rechunk(people.chunks))


def _rounded(
    people: NDArray, number: NDArray, totals: NDArray[np.float64], how: NDArray
) -> NDArray[np.float64]:
    """Round a raster by zone; cells in no zone, or in one left out, are a group of their own."""
    group = np.where(np.append(how == LEFT_OUT, True)[number], len(totals), number)
    some = people > 0
    people_there, zone = people[some], group[some]
    rest = people_there[zone == len(totals)].sum()
    whole = np.floor(people_there)
    given = np.bincount(zone, whole, len(totals) + 1)
    missing = np.rint(np.append(totals, rest)) - given
    order = np.lexsort((whole - people_there, zone))  # a stable sort: ties stay in row-major order
    first = np.searchsorted(zone[order], np.arange(len(totals) + 1))
    rank = np.arange(order.size) - first[zone[order]]
    whole[order] += rank < missing[zone[order]]
    rounded = np.where(np.isnan(people), np.nan, 0.0)
    rounded[some] = whole
    return rounded


@dataclass(frozen=True)
class Sums:
    """What the cells of every zone add up to; lazy or not, as the table is."""

    table: Any
    """int64 (zone, 4)."""

    @property
    def cells(self) -> Any:
        """Cells that have a value, (zone,) int64."""
        return self.table[:, 1]

    @property
    def missing(self) -> Any:
        """Cells without a value, (zone,) int64."""
        return self.table[:, 0] - self.table[:, 1]

    @property
    def values(self) -> Any:
        """The sums, (zone,) float64."""
        return from_fixed(self.table[:, 2], self.table[:, 3])


def sums_by_zone(number: da.Array, values: da.Array, zones: int) -> Sums:
    """Add up the cells of every zone, lazily."""
    ones = tuple((1,) * count for count in number.numblocks)
    tables = da.map_blocks(
        _block_sums,
        number,
        values,
        zones=zones,
        new_axis=[2, 3],
        chunks=(*ones, (zones,), (SUM_WORDS,)),
        dtype=np.int64,
        meta=np.empty((0, 0, 0, 0), np.int64),
    )
    return Sums(tables.sum(axis=(0, 1)).rechunk(-1))


def _block_sums(number: NDArray[np.int32], values: NDArray, zones: int) -> NDArray[np.int64]:
    reach = float(np.nansum(values, dtype=np.float64))
    wrong = ~((values >= 0) | np.isnan(values))
    if wrong.any() or not reach <= LIMIT:
        what = f"a cell of {values[wrong][0]:g}" if wrong.any() else f"{reach:g} in one chunk"
        raise InputError(
            f"the estimates have {what}; people per cell, 0 or more, were expected: correct them, "
            "or declare the value as no data"
        )
    table = np.zeros((1, 1, zones, SUM_WORDS), np.int64)
    _add(number, values.astype(np.float64), table[0, 0])
    return table


@numba.njit(cache=True, nogil=True)
def _add(number: NDArray, values: NDArray, table: NDArray) -> None:
    for row in range(number.shape[0]):
        for column in range(number.shape[1]):
            zone = number[row, column]
            if zone < 0:
                continue
            table[zone, 0] += 1
            value = values[row, column]
            if np.isnan(value):
                continue
            coarse, fine = pair(value)
            table[zone, 1] += 1
            table[zone, 2] += coarse
            table[zone, 3] += fine


@dataclass(frozen=True)
class Zones:
    """Zones with known totals, laid onto a raster."""

    names: NDArray
    """What the zones are called, (zone,) of text or whole numbers."""
    totals: NDArray[np.float64]
    """Their people, (zone,)."""
    number: xr.DataArray
    """The position of each cell's zone among the names, int32 (y, x), −1 = in no zone."""
    beyond: NDArray[np.float64]
    """The share of each zone's area that lies beyond the raster, (zone,); 0 for zones of cells."""


def read_zones(
    zones: gpd.GeoDataFrame | xr.DataArray | Path_,
    totals: str | Table,
    like: xr.DataArray,
    *,
    name: str | None = None,
) -> Zones:
    """Lay zones with known totals onto the grid of a raster."""
    grid_of(like)
    if not isinstance(zones, gpd.GeoDataFrame | xr.DataArray):
        zones = _open(Path(zones))
    if isinstance(zones, xr.DataArray):
        return _from_cells(zones, totals, like, name or "zone")
    return _from_polygons(zones, totals, like, name)


def _open(path: Path) -> gpd.GeoDataFrame | xr.DataArray:
    if path.suffix.lower() not in RASTERS:
        return read_features(path, "polygons, one for each zone")
    check_there(str(path), "a raster of zone numbers")
    try:
        with open_raster(str(path)) as source:  # by the drivers of its name alone
            driver = source.driver
        raster = rioxarray.open_rasterio(path, masked=False, driver=driver)
    except RasterioError as error:
        raise InputError(
            f"{path} cannot be read ({error}); expected a raster of zone numbers; it may be "
            "damaged or of another format: copy it again"
        ) from error
    assert isinstance(raster, xr.DataArray), "a GeoTIFF without subdatasets is one array"
    return raster.isel(band=0, drop=True)


def _from_polygons(
    zones: gpd.GeoDataFrame, totals: object, like: xr.DataArray, name: str | None
) -> Zones:
    for column in (totals, name):
        if column is not None and (not isinstance(column, str) or column not in zones):
            raise InputError(
                f"the zones have no column {column!r}; they have {', '.join(map(str, zones))}: "
                "name the column of the totals, and that of the zones' names if there is one"
            )
    names = pd.Series(zones[name] if name else zones.index)
    people = _checked(names, pd.Series(zones[totals]))
    check_polygons(zones, names)
    polygons, grid = np.asarray(zones.to_crs(like.rio.crs).geometry), grid_of(like)
    chunks = _as_dask(like, like).chunks
    y, x = (like[axis].to_numpy().astype(np.float64) for axis in "yx")
    number = da.map_blocks(
        _burn,
        da.from_array(y, chunks=chunks[:1])[:, None],
        da.from_array(x, chunks=chunks[1:])[None, :],
        polygons=delayed(polygons, pure=True),
        names=names.to_numpy(),
        cell=(abs(grid.resolution.x), abs(grid.resolution.y)),
        chunks=chunks,
        dtype=np.int32,
        meta=np.empty((0, 0), np.int32),
    )
    return Zones(_plain(names), people, _dressed(number, like), _beyond(polygons, grid))


def _burn(
    y: NDArray, x: NDArray, *, polygons: NDArray, names: NDArray, cell: tuple[float, float]
) -> NDArray[np.int32]:
    """Number the cells of a block by the polygon in which their centres lie."""
    y, x, (width, height) = y[:, 0], x[0], cell
    down, right = (
        slice(None, None, 1 if y[0] >= y[-1] else -1),
        slice(None, None, 1 if x[-1] >= x[0] else -1),
    )
    y, x = y[down], x[right]
    left, top = x[0] + (NUDGE[0] - 0.5) * width, y[0] + (NUDGE[1] + 0.5) * height
    transform = Affine(width, 0, left, 0, -height, top)
    west, south, east, north = shapely.bounds(polygons).T
    near = (west <= x[-1] + width) & (east >= x[0]) & (south <= top) & (north >= y[-1])
    shapes = [(polygons[zone], int(zone)) for zone in np.flatnonzero(near)]
    if not shapes:
        return np.full((y.size, x.size), NONE, np.int32)
    # What is burned last stays: both ways round differ where two overlap.
    last, first = (
        rasterize(burned, (y.size, x.size), NONE, transform=transform, dtype=np.int32)
        for burned in (shapes, shapes[::-1])
    )
    if (clash := np.argwhere(first != last)).size:
        row, column = min(clash.tolist(), key=lambda at: (-at[0], at[1]))
        raise InputError(
            f"the zones {names[first[row, column]]} and {names[last[row, column]]} overlap at "
            f"({x[column]:.10g}, {y[row]:.10g}); every cell was expected to lie in one zone at "
            "most: correct their borders, or leave one of them out"
        )
    return first[down, right]


def _beyond(polygons: NDArray, grid: GeoBox) -> NDArray[np.float64]:
    """Share of each polygon's area that lies beyond a grid, (polygon,); 0 where it is rounding."""
    # Less than a cell is: outlines seldom end exactly where a raster does.
    box = shapely.box(*grid.extent.boundingbox)
    polygons = shapely.make_valid(polygons)  # of rings that cross themselves, as cells are numbered
    area, inside = shapely.area(polygons), shapely.area(shapely.intersection(polygons, box))
    cell = box.area / (grid.shape[0] * grid.shape[1])
    # A polygon smaller than a cell is beyond the grid if it is so wholly.
    share = 1 - np.divide(inside, area, out=np.ones_like(area), where=area > 0)
    return np.where((area - inside > cell) | (inside == 0), share, 0.0)


def _from_cells(cells: xr.DataArray, totals: object, like: xr.DataArray, name: str) -> Zones:
    table = _table(totals, name)
    names, people = table[name], _checked(table[name], table["total"])
    if names.dtype.kind not in "iu":
        raise InputError(f"the zones of the table are {names.dtype}, expected whole numbers")
    if cells.dims != ("y", "x") or not same_grid(grid_of(cells), grid_of(like)):
        raise InputError(
            f"the zones have {describe_grid(grid_of(cells))} but the estimates "
            f"{describe_grid(grid_of(like))}; expected one grid: bring the zones to it with "
            "rio.reproject_match"
        )
    numbers = names.to_numpy(np.int64)
    nodata = cells.rio.encoded_nodata if cells.rio.nodata is None else cells.rio.nodata
    looked_up = da.map_blocks(
        _look_up,
        _as_dask(cells, like),
        numbers=numbers,
        nodata=nodata,
        dtype=np.int32,
        meta=np.empty((0, 0), np.int32),
    )
    return Zones(numbers, people, _dressed(looked_up, like), np.zeros(len(numbers)))


def _table(totals: object, name: str) -> pd.DataFrame:
    """Read totals by zone number in any of their forms: the columns `name` and total."""
    if isinstance(totals, str | os.PathLike):
        totals = read_table(totals, f"a table with the columns {name} and total")
    if isinstance(totals, pd.Series | Mapping):
        totals = pd.Series(totals).rename_axis(name).reset_index(name="total")
    if not isinstance(totals, pd.DataFrame) or not {name, "total"} <= set(totals):
        raise InputError(
            f"the totals of a raster of zones are {type(totals).__name__} with "
            f"{', '.join(map(str, getattr(totals, 'columns', ()))) or 'no columns'}; expected a "
            f"table with the columns {name} and total"
        )
    return totals


def _checked(names: pd.Series, totals: pd.Series) -> NDArray[np.float64]:
    """Return the totals, one non-negative number for each zone."""
    check_names(names)
    people = pd.to_numeric(totals, errors="coerce").to_numpy(np.float64, na_value=np.nan)
    wrong = ~(people >= 0) | np.isinf(people)
    if wrong.any():
        raise InputError(
            f"the zone {names[wrong].iloc[0]} has the total {totals[wrong].iloc[0]}; a number of "
            "people, 0 or more, was expected for every zone: correct it, or leave the zone out"
        )
    return people


def _plain(names: pd.Series) -> NDArray:
    """Names as NumPy knows them: whole numbers or text."""
    return names.to_numpy() if names.dtype.kind in "iu" else np.array([str(n) for n in names])


def _look_up(cells: NDArray, *, numbers: NDArray[np.int64], nodata: float | None) -> NDArray:
    """Turn zone numbers into positions among the zones that have totals."""
    some = ~np.isnan(cells) & (cells >= 0) & (cells != (np.nan if nodata is None else nodata))
    order = np.argsort(numbers)
    whole = np.where(some, cells, 0).astype(np.int64)
    place = np.searchsorted(numbers[order], whole).clip(max=len(numbers) - 1)
    known = numbers[order][place] == whole
    lost = some & ~known & (whole != 0)
    if lost.any():
        raise InputError(
            f"the zone {whole[lost][0]} has cells but no total; a total was expected for every "
            "zone: add it to the table"
        )
    return np.where(some & known, order[place], NONE).astype(np.int32)


def _as_dask(array: xr.DataArray, like: xr.DataArray) -> da.Array:
    """Return the cells in the chunks of `like`, one chunk where it is not lazy."""
    chunks = like.data.chunks if isinstance(like.data, da.Array) else -1
    return da.asarray(array.data).rechunk(chunks)


def _dressed(number: da.Array, like: xr.DataArray) -> xr.DataArray:
    """Give numbers the coordinates of the raster; compute them where it is not lazy."""
    data = number if isinstance(like.data, da.Array) else number.compute()
    words = "position of the cell's zone among the zones, −1 = none"
    attrs = {"long_name": words, "units": "1"}
    return xr.DataArray(data, like.coords, ("y", "x"), "zone_number", attrs)


def add_zones(cells: xr.Dataset, zones: Path_ | int, totals: str = "people") -> xr.Dataset:
    """Return the zone of every cell, and the people of it."""
    north, east = cells["north"].values, cells["east"].values
    people = cells["people"].values
    if isinstance(zones, int):
        known = np.flatnonzero(np.isfinite(people))
        zone = np.full(len(people), -1, np.int32)
        places = np.stack([north, east])[:, known] // zones
        zone[known] = np.unique(places, axis=1, return_inverse=True)[1].ravel()
        sums = np.bincount(zone[known], people[known]).astype(np.float64)
    else:
        zone, sums = _zones_of_cells(cells, zones, totals)
    total = np.where(zone >= 0, sums[zone], np.nan)
    if not (zone >= 0).any():
        raise InputError(
            f"none of the zones of {zones} lies wholly on the cells of the mosaic; expected some: "
            "check their place, or give smaller zones or a larger mosaic"
        )
    if not np.isfinite(people).any():
        each = np.bincount(zone[zone >= 0], minlength=len(sums))[zone]
        even = np.divide(total, each, out=np.full(len(total), np.nan), where=zone >= 0)
        cells = cells.assign(people=("cell", even, cells["people"].attrs))
    return cells.assign(total=("cell", total)).assign_coords(zone=("cell", zone))


def _zones_of_cells(
    cells: xr.Dataset, zones: Path_, totals: str
) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
    """The polygon of each cell, −1 = in none that is whole, and the polygons' people."""
    grid = cells_grid(cells)
    north, east = cells["north"].values, cells["east"].values
    box = (range(north.min(), north.max() + 1), range(east.min(), east.max() + 1))
    found = read_zones(zones, totals, xr_zeros(grid.geobox(*box), "uint8"))
    number = found.number.values
    zone = number[north.max() - north, east - east.min()]
    inside = np.bincount(number[number >= 0], minlength=len(found.totals))
    seen = np.bincount(zone[zone >= 0], minlength=len(found.totals))
    # A zone that reaches beyond the cells, or has one that is not among them, has another total.
    whole = (found.beyond == 0) & (inside == seen) & (seen > 0)
    return np.where((zone >= 0) & whole[zone], zone, -1).astype(np.int32), found.totals
