"""Arrays as a Zarr group for each level of a pyramid, by GeoZarr's convention ``multiscales``.

Level 0 has the cells as they are, and each further level cells twice as wide and high: people are
added up, labels and codes are the most frequent of four cells, other numbers their mean. A level is
made from the one before it as that was written, and all are written by this process, as workers of
a cluster may have other disks: memory holds a strip of rows.

References
----------
Zarr convention ``multiscales`` 0.1: https://github.com/zarr-conventions/multiscales.
"""

from __future__ import annotations

import warnings
from collections.abc import Collection
from functools import partial
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import numpy as np
import xarray as xr
import zarr
from affine import Affine
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords

from popdask.errors import InputError
from popdask.io.conventions import as_group, in_cf_units, label_attributes, multiscales
from popdask.io.export import row_strips
from popdask.io.frames import CHUNK
from popdask.io.grids import grid_of
from popdask.io.paths import Path_, atomic_path

LARGEST = 512  # cells along each side of the coarsest level
SUMS = ("people per cell", "m2")


def write_pyramid(arrays: xr.Dataset, path: Path_, *, finest: Collection[str] = ()) -> Path:
    """Write arrays and their overviews as a Zarr group, whole or not at all.

    Parameters
    ----------
    arrays : Dataset
        Arrays (time, y, x) or (y, x) on one grid with a CRS, on NumPy or Dask. Whole numbers are
        labels and codes, −1 where there is none: in an overview the most frequent of four cells,
        and the largest of those that are as frequent. Real numbers counted in "people per cell" or
        "m2" are added up, in float64, and of others the mean is taken; NaN counts for nothing.
    path : path
        A folder; one that is there is replaced.
    finest : collection of str
        Arrays of level 0 alone, such as the ends of intervals: those of a sum are not their sums.

    Returns
    -------
    Path
        The folder, with the groups ``0``, ``1``, …: as many as it takes until none has more than
        512 cells along a side. Where a level has an odd number of rows or columns, the last cells
        of the next reach beyond it.

    Raises
    ------
    InputError
        If there is no array, or the arrays have no CRS.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> from odc.geo.xr import xr_zeros
    >>> grid = GeoBox.from_bbox((0, 0, 1000, 600), "EPSG:3035", resolution=1)
    >>> people = xr_zeros(grid, "float32", time=["2006-01-01"]) + 1
    >>> people.attrs["units"] = "people per cell"
    >>> with TemporaryDirectory() as folder:
    ...     written = write_pyramid(people.to_dataset(name="population"), f"{folder}/a.zarr")
    ...     tree = xr.open_datatree(written, engine="zarr").load()
    >>> {name: int(level["population"].sum()) for name, level in tree.children.items()}
    {'0': 600000, '1': 600000}
    """
    if not arrays.data_vars:
        raise InputError("there are no arrays; expected at least one (time, y, x); name some")
    grids = [grid_of(next(iter(arrays.data_vars.values())))]
    with atomic_path(path) as unfinished:
        _write_level(arrays, grids[0], unfinished, "0")
        arrays = arrays.drop_vars(finest)
        while max(grids[-1].shape) > LARGEST:
            with dask.config.set(scheduler="threads"):  # what this process wrote, it reads
                coarser = _overview(arrays, unfinished / str(len(grids) - 1))
                grids.append(_doubled(grids[-1]))
                _write_level(coarser, grids[-1], unfinished, str(len(grids) - 1))
        about = dict(zarr.open_group(unfinished / "0", mode="r").attrs)
        zarr.open_group(unfinished, mode="a").attrs.put(multiscales(about, grids))
        with warnings.catch_warnings():  # zarr warns that Zarr 3 has no standard of it yet
            warnings.simplefilter("ignore", zarr.errors.ZarrUserWarning)
            zarr.consolidate_metadata(unfinished)
    return Path(path)


def _doubled(grid: GeoBox) -> GeoBox:
    """The grid of cells twice as wide and high."""
    rows, columns = (-(-side // 2) for side in grid.shape)
    return GeoBox((rows, columns), grid.affine @ Affine.scale(2), grid.crs)


def _write_level(arrays: xr.Dataset, grid: GeoBox, folder: Path, name: str) -> None:
    """Write arrays as they lie on a grid, saying what they are."""
    bare = {key: array.variable for key, array in arrays.data_vars.items()}
    places = xr_coords(grid, dims=("y", "x"))
    level = xr.Dataset(bare, {**_times(arrays), **places}, arrays.attrs)
    sizes = {"time": 1, "y": CHUNK, "x": CHUNK}
    level = level.chunk({axis: size for axis, size in sizes.items() if axis in level.dims})
    for array in level.data_vars.values():
        area = {"cell_methods": f"area: {_method(array)}"} if name != "0" or _adds(array) else {}
        said = {key: value for key, value in array.attrs.items() if key != "grid_mapping"}
        array.attrs = in_cf_units(said) | area
        place = {"grid_mapping": "spatial_ref", "coordinates": "spatial_ref"}
        array.encoding = {**place, **label_attributes(array)}
    for axis in ("y", "x"):
        level[axis].attrs = {}
    level = as_group(level)
    level.to_zarr(folder, group=name, mode="a", compute=False, consolidated=False)
    for array in level.data_vars.values():
        _write_cells(array, folder, name)


def _write_cells(array: xr.DataArray, folder: Path, name: str) -> None:
    """Compute an array strip by strip, and write what has come."""
    bare = array.to_dataset().drop_vars(list(array.coords))
    for time in range(array.sizes.get("time", 1)):
        now = {"time": slice(time, time + 1)} if "time" in array.dims else {}
        for rows in row_strips(array.sizes["y"], array.sizes["x"], CHUNK):
            region = {**now, "y": rows}
            cells = bare.isel(region).compute()
            cells.to_zarr(folder, group=name, region=region, consolidated=False)


def _overview(arrays: xr.Dataset, before: Path) -> xr.Dataset:
    """The arrays on cells twice as wide and high, from the level before as it was written."""
    coarser = {}
    for name, array in arrays.data_vars.items():
        stored = da.from_zarr(str(before / str(name)))
        halves = tuple(tuple(-(-side // 2) for side in sides) for sides in stored.chunks[-2:])
        method = _method(array)
        dtype = np.dtype("float64") if method == "sum" else stored.dtype
        cells = stored.map_blocks(
            partial(_coarsened, method=method, dtype=dtype),
            dtype=dtype,
            chunks=(*stored.chunks[:-2], *halves),
        )
        coarser[name] = (array.dims, cells, array.attrs)
    return xr.Dataset(coarser, _times(arrays), arrays.attrs)


def _times(arrays: xr.Dataset) -> dict[str, xr.Variable]:
    return {"time": arrays["time"].variable} if "time" in arrays.coords else {}


def _adds(array: xr.DataArray) -> bool:
    """Whether cells of it are parts of a whole."""
    return array.dtype.kind == "f" and array.attrs.get("units") in SUMS


def _method(array: xr.DataArray) -> str:
    """How the cells of it make a larger one, in the words of CF's cell methods."""
    if array.dtype.kind != "f":
        return "mode"
    return "sum" if _adds(array) else "mean"


def _coarsened(cells: NDArray[Any], method: str, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Make one cell of each square of four; a last row or column alone makes cells of two."""
    odd = [(0, 0)] * (cells.ndim - 2) + [(0, side % 2) for side in cells.shape[-2:]]
    if method == "mode":
        whole = np.pad(cells, odd, mode="edge")
        return _most_frequent(np.stack(_quarters(whole)))
    four = np.stack(_quarters(np.pad(cells.astype("float64"), odd, constant_values=np.nan)))
    known = (~np.isnan(four)).sum(axis=0)
    total = np.nansum(four, axis=0)
    shared = total / np.maximum(known, 1) if method == "mean" else total
    return np.where(known > 0, shared, np.nan).astype(dtype)


def _quarters(cells: NDArray[Any]) -> list[NDArray[Any]]:
    return [cells[..., row::2, column::2] for row in (0, 1) for column in (0, 1)]


def _most_frequent(four: NDArray[Any]) -> NDArray[Any]:
    """The most frequent of four, and the largest of those that are as frequent."""
    a, b, c, d = np.sort(four, axis=0)
    return np.select([c == d, b == c, a == b], [d, c, b], d)
