"""Cells of 1 km: finer grids summed to them, and what is found on them drawn back.

The rules that tell settlements by their density are meant for cells of 1 km. A finer grid in a
plane is summed to the largest whole multiple of its cells that measures 1 km at most, counted from
the raster's first cell, so that no cell is cut; on Mercator's map, 1 km on the ground where its
cells are largest. A grid in degrees, or of larger cells, stays as it is. Blocks are cut where cells
of 1 km end, so that each is summed within one block, in one order; sums are then joined to blocks
of as many cells as the raster's have, so that tasks stay few.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import dask.array as da
import numba
import numpy as np
import xarray as xr
from affine import Affine
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords

from popdask.errors import InputError
from popdask.io.grids import grid_of, steps_of
from popdask.validate import check_array

__all__ = [
    "from_1km",
    "to_1km",
]


def coarse_grid(grid: GeoBox) -> GeoBox:
    """The grid of the cells of 1 km; those at the far sides may reach beyond the raster."""
    down, across = steps_of(grid)
    shape = -(-grid.shape[0] // down), -(-grid.shape[1] // across)
    return GeoBox(shape, grid.transform * Affine.scale(across, down), grid.crs)


def to_1km(values: xr.DataArray, *, mean: bool = False) -> xr.DataArray:
    """Sum a finer grid to cells of 1 km.

    Parameters
    ----------
    values : DataArray, (…, y, x)
        People, or areas, of cells in a plane, NaN = no data, with CRS and transform.
    mean : bool, optional
        Give the mean of the cells with data: for shares of the cell.

    Returns
    -------
    DataArray of float64, (…, y, x)
        Lazy where `values` are; on cells of the largest whole multiple of theirs that is 1 km at
        most, counted from the raster's first cell. NaN where no cell has data. As it was where its
        cells are larger than half of that, or in degrees.

    Raises
    ------
    InputError
        If y or x, a CRS or a regular grid is missing.

    Examples
    --------
    >>> from odc.geo.xr import xr_zeros
    >>> grid = GeoBox.from_bbox((0, 0, 2000, 1000), "EPSG:3035", resolution=250)
    >>> to_1km(xr_zeros(grid) + 3).values
    array([[48., 48.]])
    """
    check_array("values", values, "y", "x")
    grid = grid_of(values)
    down, across = steps_of(grid)
    if (down, across) == (1, 1):
        return values
    ordered = values.transpose(..., "y", "x")
    data = ordered.data
    lazy = data if isinstance(data, da.Array) else da.from_array(data, name=False)
    found: Any = sum_cells(lazy, (down, across), mean)
    if data is not lazy:
        found = found.compute(scheduler="sync")
    coords = dict(xr_coords(coarse_grid(grid), dims=("y", "x")))
    return _like(values, found, coords)


def from_1km(values: xr.DataArray, like: xr.DataArray) -> xr.DataArray:
    """Draw labels or codes of cells of 1 km on the finer grid that was summed.

    Parameters
    ----------
    values : DataArray, (…, y, x)
        On the grid that `to_1km` gives.
    like : DataArray, (…, y, x)
        What was summed; its chunks along y and x are taken, where it has any.

    Returns
    -------
    DataArray, (…, y, x)
        Each cell of 1 km repeated; lazy where `values` are.

    Raises
    ------
    InputError
        If `values` are not on the grid that `to_1km` makes of `like`.

    Examples
    --------
    >>> from odc.geo.xr import xr_zeros
    >>> fine = xr_zeros(GeoBox.from_bbox((0, 0, 1000, 500), "EPSG:3035", resolution=500))
    >>> from_1km(to_1km(fine + 1), fine).values
    array([[2., 2.]])
    """
    check_array("values", values, "y", "x")
    steps, rows, columns = steps_of(grid_of(like)), like.sizes["y"], like.sizes["x"]
    expected = -(-rows // steps[0]), -(-columns // steps[1])
    ordered = values.transpose(..., "y", "x")
    if ordered.shape[-2:] != expected:
        raise InputError(
            f"values have {ordered.shape[-2]} × {ordered.shape[-1]} cells; expected {expected[0]} "
            f"× {expected[1]}, the cells of 1 km of a grid of {rows} × {columns}; give what was "
            "found on the result of to_1km"
        )
    data = ordered.data
    if isinstance(data, da.Array):
        cuts = None if like.chunks is None else [like.chunksizes[dim] for dim in ("y", "x")]
        drawn: Any = repeat_cells(data, steps, (rows, columns), cuts)
    else:
        drawn = _repeat(data, *steps)[..., :rows, :columns]
    coords = {name: like[name] for name in ("y", "x", "spatial_ref") if name in like.coords}
    return _like(values, drawn, coords)


def _like(values: xr.DataArray, data: Any, grid: dict[Any, Any]) -> xr.DataArray:
    """Put (…, y, x) on another grid, and what is told of its other dimensions beside it."""
    others = {
        name: coord
        for name, coord in values.coords.items()
        if name not in ("y", "x", "spatial_ref") and not {"y", "x"} & set(coord.dims)
    }
    dims = [dim for dim in values.dims if dim not in ("y", "x")]
    found = xr.DataArray(data, others | grid, (*dims, "y", "x"), attrs=values.attrs)
    # Without a name xarray takes that of a Dask array.
    return found.rename(values.name).transpose(*values.dims)


def aligned(array: da.Array, steps: tuple[int, int]) -> da.Array:
    """Move the cuts of the blocks of (…, y, x) to where cells of 1 km end."""
    chunks = [_cut(c, step) for c, step in zip(array.chunks[-2:], steps, strict=True)]
    return array.rechunk((*array.chunks[:-2], *chunks))


def _cut(chunks: tuple[int, ...], step: int) -> tuple[int, ...]:
    """Sizes of blocks that end with a cell of 1 km, or with the raster."""
    whole = sum(chunks)
    ends = {min(round(end / step) * step, whole) for end in np.cumsum(chunks)[:-1].tolist()}
    return tuple(b - a for a, b in pairwise(sorted(ends | {0, whole})))


def sum_cells(array: da.Array, steps: tuple[int, int], mean: bool = False) -> da.Array:
    """Sum the cells of every cell of 1 km, NaN where none has data."""
    if steps == (1, 1):
        return array.astype(np.float64)
    array = aligned(array, steps)
    coarse = [
        tuple(-(-size // step) for size in c)
        for c, step in zip(array.chunks[-2:], steps, strict=True)
    ]
    options: dict[str, Any] = {"dtype": np.float64, "meta": np.empty((0,) * array.ndim)}
    options["chunks"] = (*array.chunks[:-2], *coarse)
    sums = da.map_blocks(_sum_block, array, *steps, mean, **options)
    joined = [_joined(c, step) for c, step in zip(coarse, steps, strict=True)]
    return sums.rechunk((*array.chunks[:-2], *joined))


def _joined(chunks: tuple[int, ...], step: int) -> tuple[int, ...]:
    """Sizes of blocks of so many neighbours each."""
    return tuple(sum(chunks[start : start + step]) for start in range(0, len(chunks), step))


def _sum_block(values: NDArray, down: int, across: int, mean: bool) -> NDArray[np.float64]:
    frames = values.reshape(-1, *values.shape[-2:])
    found = np.stack([_sum_frame(frame, down, across, mean) for frame in frames])
    return found.reshape(*values.shape[:-2], *found.shape[-2:])


@numba.njit(cache=True, nogil=True)
def _sum_frame(values: NDArray, down: int, across: int, mean: bool) -> NDArray[np.float64]:
    rows, columns = values.shape
    sums = np.zeros((-(-rows // down), -(-columns // across)))
    known = np.zeros(sums.shape, np.int32)
    for y in range(rows):
        line, count = sums[y // down], known[y // down]
        for x in range(columns):
            value = values[y, x]
            if not np.isnan(value):
                line[x // across] += value
                count[x // across] += 1
    for y in range(sums.shape[0]):
        for x in range(sums.shape[1]):
            if known[y, x] == 0:
                sums[y, x] = np.nan
            elif mean:
                sums[y, x] /= known[y, x]
    return sums


def repeat_cells(
    array: da.Array, steps: tuple[int, int], shape: tuple[int, int], cuts: Any = None
) -> da.Array:
    """Draw cells of 1 km on a finer grid of this shape, in blocks cut at `cuts`."""
    if steps != (1, 1):
        if cuts is not None:
            cells = [_cut(c, step) for c, step in zip(cuts, steps, strict=True)]
            coarse = [
                tuple(-(-size // step) for size in c) for c, step in zip(cells, steps, strict=True)
            ]
            array = array.rechunk((*array.chunks[:-2], *coarse))
        chunks = [_fine(*axis) for axis in zip(array.chunks[-2:], steps, shape, strict=True)]
        options: dict[str, Any] = {"dtype": array.dtype, "meta": array._meta}
        array = da.map_blocks(
            _repeat_block, array, *steps, shape, chunks=(*array.chunks[:-2], *chunks), **options
        )
    return array if cuts is None else array.rechunk((*array.chunks[:-2], *cuts))


def _fine(chunks: tuple[int, ...], step: int, whole: int) -> tuple[int, ...]:
    ends = np.minimum(np.cumsum(chunks) * step, whole)
    return tuple(np.diff(ends, prepend=0).tolist())


def _repeat_block(
    block: NDArray, down: int, across: int, shape: tuple[int, int], block_info: Any = None
) -> NDArray:
    """Repeat the cells of a block, as far as the raster goes."""
    where = block_info[None]["chunk-shape"][-2:]
    return _repeat(block, down, across)[..., : where[0], : where[1]]


def _repeat(block: NDArray, down: int, across: int) -> NDArray:
    return block.repeat(down, axis=-2).repeat(across, axis=-1)
