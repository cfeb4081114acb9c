"""Which polygon the centre of every cell lies in.

It is the one whose border a ray from the centre to the left crosses an odd number of times; a
centre on a shared border belongs to the polygon on its right, or above it. Crossings are computed
from absolute coordinates along edges that always run upwards, so that polygons with a common border
leave no gap and share no cell, in any chunks.

Exact sums by zone: the same to the last bit in any order, so in any chunks.

Values are added as the two words of `popdask.blocks.sums`.

Census zones on a raster: which zone every cell belongs to, and how many people each has.

Zones are polygons with a column of totals, or a raster of zone numbers with a table of totals. A
cell belongs to the zone in which its centre lies.
"""

from __future__ import annotations

import os
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
from dask import delayed
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from rasterio.errors import RasterioError

from popdask.blocks.sums import LIMIT, from_fixed, pair
from popdask.errors import InputError
from popdask.io.grids import describe_grid, grid_of, same_grid
from popdask.io.paths import Path_
from popdask.io.rasters import missing_file
from popdask.io.tables import read_features, read_table

NONE = -1


@dataclass(frozen=True)
class Outlines:
    """The borders of polygons as edges."""

    edges: NDArray[np.float64]
    """x and y of the lower end, x and y of the upper one, (edge, 4), ordered by polygon."""
    first: NDArray[np.int64]
    """Where each polygon's edges begin, and their end, (polygon + 1,)."""
    names: NDArray
    """What the polygons are called."""

    @classmethod
    def of(cls, polygons: NDArray, names: NDArray) -> Outlines:
        """Take polygons apart into their edges."""
        parts, owner = shapely.get_parts(polygons, return_index=True)
        rings, part = shapely.get_rings(parts, return_index=True)
        points, ring = shapely.get_coordinates(rings, return_index=True)
        edges = np.hstack([points[:-1], points[1:]])[ring[:-1] == ring[1:]]
        polygon = owner[part[ring[:-1][ring[:-1] == ring[1:]]]]
        downwards = edges[:, 1] > edges[:, 3]
        edges[downwards] = edges[downwards][:, [2, 3, 0, 1]]
        return cls(edges, np.searchsorted(polygon, np.arange(len(polygons) + 1)), names)


def numbered(outlines: Outlines, y: NDArray, x: NDArray, chunks: tuple) -> da.Array:
    """Number cells by the polygon in which their centres lie, lazily.

    Parameters
    ----------
    outlines : Outlines
        The polygons, in the CRS of the centres.
    y, x : numpy.ndarray of float64
        The centres' coordinates, (y,) and (x,), ascending or descending.
    chunks : tuple of tuple of int
        The chunks along y and x.

    Returns
    -------
    dask.array.Array
        int32 (y, x), −1 in no polygon. Computing it raises `InputError` where polygons overlap.
    """
    rows, columns = (da.from_array(a, chunks=(c,)) for a, c in zip((y, x), chunks, strict=True))
    return da.map_blocks(
        _fill_block,
        rows[:, None],
        columns[None, :],
        outlines=delayed(outlines, pure=True),
        chunks=chunks,
        dtype=np.int32,
        meta=np.empty((0, 0), np.int32),
    )


def _fill_block(y: NDArray, x: NDArray, outlines: Outlines) -> NDArray[np.int32]:
    y, x = y[:, 0], x[0]
    up, right = (slice(None, None, 1 if a[-1] >= a[0] else -1) for a in (y, x))
    number = np.full((y.size, x.size), NONE, np.int32)
    clash = _fill(y[up], x[right], outlines.edges, outlines.first, number)
    if clash[0] >= 0:
        row, column = clash[2:]
        raise InputError(
            f"the zones {outlines.names[clash[0]]} and {outlines.names[clash[1]]} overlap at "
            f"({x[right][column]:.10g}, {y[up][row]:.10g}); every cell was expected to lie in one "
            "zone at most: correct their borders, or leave one of them out"
        )
    return number[up, right]


@numba.njit(cache=True, nogil=True)
def _fill(
    y: NDArray, x: NDArray, edges: NDArray, first: NDArray, number: NDArray
) -> tuple[int, int, int, int]:
    """Number the centres (y, x), both ascending; the first clash (zone, zone, row, column)."""
    height, width = number.shape
    odd = np.zeros((height, width + 1), np.bool_)
    for zone in range(len(first) - 1):
        low, high = height, 0
        for edge in range(first[zone], first[zone + 1]):
            x0, y0, x1, y1 = edges[edge]
            if y1 <= y[0] or y0 > y[-1] or min(x0, x1) > x[-1]:
                continue
            start, stop = np.searchsorted(y, y0), np.searchsorted(y, y1)
            low, high = min(low, start), max(high, stop)
            for row in range(start, stop):
                crossing = x0 + (y[row] - y0) / (y1 - y0) * (x1 - x0)
                column = np.searchsorted(x, crossing)
                odd[row, column] = not odd[row, column]
        for row in range(low, high):
            inside = False
            for column in range(width):
                inside ^= odd[row, column]
                if inside and number[row, column] >= 0:
                    return number[row, column], zone, row, column
                if inside:
                    number[row, column] = zone
            odd[row] = False
    return -1, -1, -1, -1


def beyond(polygons: NDArray, grid: GeoBox) -> NDArray[np.float64]:
    """Share of each polygon's area that lies beyond a grid, (polygon,); 0 where it is rounding.

    Less than a cell is: outlines seldom end exactly where a raster does.

    Examples
    --------
    >>> grid = GeoBox.from_bbox((0, 0, 40, 20), "EPSG:25832", resolution=1)
    >>> beyond(np.array([shapely.box(30, 0, 50, 20), shapely.box(39, 0, 40.01, 20)]), grid)
    array([0.5, 0. ])
    """
    box = shapely.box(*grid.extent.boundingbox)
    polygons = shapely.make_valid(polygons)  # of rings that cross themselves, as cells are numbered
    area, inside = shapely.area(polygons), shapely.area(shapely.intersection(polygons, box))
    cell = box.area / (grid.shape[0] * grid.shape[1])
    # A polygon smaller than a cell is beyond the grid if it is so wholly.
    share = 1 - np.divide(inside, area, out=np.ones_like(area), where=area > 0)
    return np.where((area - inside > cell) | (inside == 0), share, 0.0)


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
    """Add up the cells of every zone, lazily.

    Parameters
    ----------
    number : dask.array.Array of int32, (y, x)
        Each cell's zone, −1 for none.
    values : dask.array.Array of float, (y, x)
        In the same chunks, 0 or more; NaN is left out.
    zones : int
        How many zones there are.

    Returns
    -------
    Sums
        Lazy. Computing them raises `InputError` where a value is negative or too large to be
        people.

    Examples
    --------
    >>> number = da.from_array(np.array([[0, 0, 1, -1]], np.int32), chunks=2)
    >>> values = da.from_array(np.array([[0.1, 0.2, np.nan, 9.0]]), chunks=2)
    >>> sums = sums_by_zone(number, values, 2)
    >>> sums.values.compute(), sums.missing.compute()
    (array([0.3, 0. ]), array([0, 1]))
    """
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
    """Lay zones with known totals onto the grid of a raster.

    Parameters
    ----------
    zones : GeoDataFrame, DataArray of int, or path
        Polygons (or a file of them: GeoPackage, GeoJSON, GeoParquet …), one row per zone; in
        another CRS than the raster they are reprojected. Or a raster of zone numbers (or a
        GeoTIFF) on the same grid, whose NaN, nodata and negative values are in no zone, nor 0
        unless it has a total.
    totals : str, or table
        For polygons the column with the people of every zone. For a raster of numbers a mapping, a
        Series, a DataFrame with the columns `name` and ``total``, or its file (Parquet or CSV).
    like : DataArray, (y, x)
        The raster, NumPy or Dask, with its CRS.
    name : str, optional
        The column that says what a zone is called: by default the index of polygons, and ``zone``
        of a table.

    Returns
    -------
    Zones
        Its numbers are lazy where `like` is.

    Raises
    ------
    InputError
        If a file is missing or cannot be read; a total is missing, negative or not a number; a zone
        comes twice, or is no polygon; the zones have no CRS, or a raster of them another grid. When
        the numbers are computed: if two zones claim one cell, or a cell's zone has no total.

    Examples
    --------
    >>> from odc.geo.geobox import GeoBox
    >>> from odc.geo.xr import xr_zeros
    >>> raster = xr_zeros(GeoBox.from_bbox((0, 0, 400, 200), "EPSG:25832", resolution=100))
    >>> import shapely
    >>> boxes = [shapely.box(0, 0, 250, 200), shapely.box(250, 0, 400, 200)]
    >>> zones = gpd.GeoDataFrame({"people": [7, 9]}, geometry=boxes, crs="EPSG:25832")
    >>> read_zones(zones, "people", raster).number.values
    array([[0, 0, 1, 1],
           [0, 0, 1, 1]], dtype=int32)
    """
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
        raster = rioxarray.open_rasterio(path, masked=False)
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
    if zones.crs is None:
        raise InputError("the zones have no CRS; expected one: set it with set_crs")
    wrong = ~zones.geom_type.isin(["Polygon", "MultiPolygon"]) | zones.is_empty
    if wrong.any():
        raise InputError(
            f"the zone {names[wrong.to_numpy()].iloc[0]} is not a polygon but "
            f"{zones.geometry[wrong].iloc[0]!s:.40}; expected polygons: leave it out"
        )
    outlines = np.asarray(zones.to_crs(like.rio.crs).geometry)
    centres = _as_dask(like, like)
    y, x = (like[axis].to_numpy().astype(np.float64) for axis in "yx")
    number = numbered(Outlines.of(outlines, names.to_numpy()), y, x, centres.chunks)
    return Zones(_plain(names), people, _dressed(number, like), beyond(outlines, grid_of(like)))


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
    if not len(names):
        raise InputError("there are no zones; expected at least one: check the file of zones")
    twice = names[names.duplicated() | names.isna()]
    if len(twice):
        raise InputError(
            f"the zone {twice.iloc[0]} comes {names.isin(twice[:1]).sum()} times; each was "
            "expected to have a name of its own: join its rows (GeoDataFrame.dissolve)"
        )
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
