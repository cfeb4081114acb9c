"""Zones: read, burned onto a grid, and their sums.

Exact sums by zone: the same to the last bit in any order, so in any chunks.

Values are added as the two words of `popdask.blocks.sums`.

Census zones on a raster: which zone every cell belongs to, and how many people each has.

Zones are polygons with a column of totals, or a raster of zone numbers with a table of totals. A
cell belongs to the zone in which its centre lies.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.features import rasterize

from popdask.blocks.area_shares import check_names, check_polygons
from popdask.blocks.sums import LIMIT, from_fixed, pair
from popdask.errors import InputError
from popdask.io.grids import describe_grid, grid_of, same_grid
from popdask.io.paths import Path_
from popdask.io.rasters import missing_file, open_raster
from popdask.io.tables import read_features, read_table

COLUMNS = 4  # cells, cells with a value, the two words of the sum


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
        chunks=(*ones, (zones,), (COLUMNS,)),
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
    table = np.zeros((1, 1, zones, COLUMNS), np.int64)
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


Table = pd.DataFrame | pd.Series | Mapping[int, float] | Path_
RASTERS = {".tif", ".tiff", ".vrt"}
NONE = -1
NUDGE = 1e-6, 1e-8  # of a cell, right and up: so a centre on a border lies in one zone alone

# `rasterize` silences this itself, but not where other threads silence theirs at the same time.
warnings.filterwarnings("ignore", category=NotGeoreferencedWarning, module=r"rasterio\.features")


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
    if not path.exists():
        raise missing_file(str(path), "a raster of zone numbers")
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
