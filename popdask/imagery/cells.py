"""From a mosaic to cells: images (cell, band, row, col) with the people who live in them.

Everything that makes and changes cells is found here; how they are cut is in `_cutting`, what the
Dataset holds in `dataset`, the form of one file per cell in `folder`.
"""

from __future__ import annotations

from typing import Any, Literal

import dask
import dask.array as da
import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from popdask.cube.grids import describe_grid, grid_of
from popdask.errors import InputError
from popdask.imagery._cutting import cut_images, find_lattice, nodata_of
from popdask.imagery.counts import counts_from_raster, people_of_cells
from popdask.imagery.dataset import (
    CHUNK_CELLS,
    cells_grid,
    cells_nodata,
    make_cells,
    open_cells,
    write_cells,
)
from popdask.imagery.folder import read_cells, write_folder
from popdask.imagery.grid import CellGrid, as_grid, z_order

__all__ = [
    "CellGrid",
    "cells_grid",
    "cut_cells",
    "drop_padding",
    "join_cells",
    "open_cells",
    "read_cells",
    "write_cells",
    "write_folder",
]


def cut_cells(
    image: xr.DataArray,
    counts: pd.DataFrame | xr.DataArray | None = None,
    grid: CellGrid | str | float = 100.0,
    *,
    context: int = 0,
    labelled: bool = False,
    absent: float = np.nan,
    outside: Literal["error", "drop"] = "error",
) -> xr.Dataset:
    """Cut an image into the cells of a grid.

    Parameters
    ----------
    image : DataArray, (band, y, x) or (y, x)
        NumPy or Dask, with a CRS, on the grid's lattice, as `open_mosaic` with a grid gives it.
    counts : DataFrame or DataArray, optional
        People of cells: a table (north, east, people), or a raster (y, x) on the grid.
    grid : CellGrid, str or float, optional
        The grid, the name of a preset, or the size of its cells in units of the image's CRS.
    context : int, optional
        Cells of the ring that is seen around each cell: 1 makes 3 × 3 cells of an image. What lies
        beyond the mosaic has no data.
    labelled : bool, optional
        Only cells with known counts.
    absent : float, optional
        People of cells that `counts` does not have: NaN for unknown, 0 where it lists every
        inhabited cell.
    outside : {"error", "drop"}, optional
        What a table's counts of cells beyond the image are: an error, or left out. A raster's are
        left out.

    Returns
    -------
    Dataset
        ``images`` (cell, band, row, col) with the dtype of the image, lazy, row 0 in the north;
        ``people`` (cell) float64, NaN = unknown; ``covered`` (cell) float32, lazy, the share of
        the cell's own pixels that have data; coordinates ``north`` and ``east`` (cell) int64 and
        ``spatial_ref``; attributes cell_size, resolution, context, origin and nodata. The whole
        cells within the image, in Z-order, the same under any chunking.

    Raises
    ------
    InputError
        If the image has no CRS or another than the grid, lies off the grid's lattice, its pixels
        are larger than a cell, it holds no whole cell, or counts are of unknown cells.

    Notes
    -----
    A chunk of images is a square of up to 8 × 8 cells. A task holds that square with its ring.

    Examples
    --------
    >>> from odc.geo.xr import xr_zeros
    >>> grid = CellGrid(100)
    >>> image = xr_zeros(grid.geobox(range(4), range(3), pixels=20), "uint8").expand_dims("band")
    >>> cells = cut_cells(image, None, grid, context=1)
    >>> dict(cells.images.sizes)
    {'cell': 12, 'band': 1, 'row': 60, 'col': 60}
    """
    image = _as_bands(image)
    known_grid = as_grid(grid, image.rio.crs)
    _check_context(context)
    lattice = find_lattice(image, known_grid)
    north, east = lattice.whole_cells()
    people = _people(counts, known_grid, north, east, absent, outside)
    if labelled:
        chosen = np.isfinite(people)
        north, east, people = north[chosen], east[chosen], people[chosen]
    if not len(north):
        raise InputError(
            f"the image has {describe_grid(grid_of(image))}, which hold no "
            f"{'cell with a count' if labelled else 'whole cell'} of {known_grid.label}; expected "
            "at least one; check the grid, the counts and the place"
        )
    images, covered = cut_images(image, lattice, north, east, context)
    return make_cells(
        images,
        people,
        north,
        east,
        known_grid,
        context=context,
        nodata=nodata_of(image),
        covered=covered,
    )


def join_cells(cells: xr.Dataset, n: int = 3) -> xr.Dataset:
    """Join n × n cells into one, adding their people.

    Parameters
    ----------
    cells : Dataset
        Cells without context.
    n : int, optional
        Cells per side; 3 makes cells of 300 m from those of 100 m, aligned with the grid's origin.

    Returns
    -------
    Dataset
        Lazy, as `cut_cells` gives it on the grid of n times the size: where one of the n × n cells
        is missing there is no cell; where the people of one are unknown, so are theirs. Of other
        variables by cell, only ``covered`` is kept.

    Raises
    ------
    InputError
        If the cells have context, or no n × n of them are there.

    Examples
    --------
    >>> from odc.geo.xr import xr_zeros
    >>> image = xr_zeros(CellGrid(100).geobox(range(6), range(4), pixels=20), "uint8")
    >>> dict(join_cells(cut_cells(image), 3).images.sizes)
    {'cell': 2, 'band': 1, 'row': 60, 'col': 60}
    """
    if cells.attrs["context"]:
        raise InputError(
            f"the cells have a context of {cells.attrs['context']}; expected none, because rings "
            "do not join; cut them with context=0, or cut the larger cells from the mosaic"
        )
    north, east, members = _complete(cells["north"].values, cells["east"].values, n)
    if not len(north):
        raise InputError(
            f"the {cells.sizes['cell']} cells hold no {n} × {n} of which all are there; expected "
            "at least one; join cells before choosing among them"
        )
    order = members.ravel()
    step = max(1, CHUNK_CELLS // n**2) * n**2
    images = da.asarray(cells["images"].data)[order].rechunk((step, -1, -1, -1))
    sides = tuple(n * size for size in images.shape[2:])
    counts = tuple(size // n**2 for size in images.chunks[0])
    chunks = (counts, images.chunks[1], *((side,) for side in sides))
    joined = images.map_blocks(_join_block, n, chunks=chunks, dtype=images.dtype)
    covered = None
    if "covered" in cells:
        covered = da.asarray(cells["covered"].data)[order].reshape(members.shape).mean(1)
    return make_cells(
        joined,
        cells["people"].values[members].sum(1),
        north,
        east,
        cells_grid(cells).joined(n),
        nodata=cells_nodata(cells),
        covered=covered,
    )


def drop_padding(cells: xr.Dataset) -> tuple[xr.Dataset, int]:
    """Leave out cells in which the mosaic has nothing.

    Parameters
    ----------
    cells : Dataset
        As `cut_cells`, `open_cells` or `read_cells` give them.

    Returns
    -------
    cells : Dataset
        Those without padding.
    dropped : int
        How many were left out: where a pixel of the cell has no data (by nodata value, mask or
        alpha), or where a whole edge of it, one row or column of pixels, has the nodata value (0
        where none is declared) in every band. The ring of context is not looked at.

    Notes
    -----
    Eager: the images are read once, chunk by chunk. Where zeros are known to be padding, also in
    corners, say so in ``open_mosaic(nodata=0)``.

    Examples
    --------
    >>> from odc.geo.xr import xr_zeros
    >>> image = xr_zeros(CellGrid(100).geobox(range(1), range(2), pixels=20), "uint8")
    >>> image[:, 21:] = 7
    >>> kept, dropped = drop_padding(cut_cells(image))
    >>> kept.sizes["cell"], dropped
    (0, 2)
    """
    images = da.asarray(cells["images"].data)
    images = images.rechunk((images.chunks[0], -1, -1, -1))
    context = int(cells.attrs["context"])
    ring = images.shape[-1] // (2 * context + 1) * context
    padded = images.map_blocks(
        _has_empty_edge, ring, cells_nodata(cells), drop_axis=[1, 2, 3], dtype=bool
    )
    if "covered" in cells:
        padded = padded | (da.asarray(cells["covered"].data) < 1)
    (empty,) = dask.compute(padded)
    return cells.isel(cell=~empty), int(empty.sum())


def _as_bands(image: xr.DataArray) -> xr.DataArray:
    """Check the dimensions; give (band, y, x) with rows from north to south."""
    if "band" not in image.dims:
        image = image.expand_dims("band")
    if set(image.dims) != {"band", "y", "x"}:
        raise InputError(
            f"the image has the dimensions {image.dims}; expected band, y and x; select one time"
        )
    if image.rio.crs is None:
        raise InputError(
            "the image has no CRS; expected one, to find its cells; set it with rio.write_crs"
        )
    image = image.transpose("band", "y", "x")
    return image if grid_of(image).transform.e < 0 else image.isel(y=slice(None, None, -1))


def _check_context(context: int) -> None:
    if not (isinstance(context, int | np.integer) and 0 <= context <= 8):
        raise InputError(
            f"context is {context!r}; expected a whole number of cells from 0 to 8, such as 1 for "
            "a cell with its eight neighbours; correct it"
        )


def _people(
    counts: pd.DataFrame | xr.DataArray | None,
    grid: CellGrid,
    north: NDArray[np.int64],
    east: NDArray[np.int64],
    absent: float,
    outside: str,
) -> NDArray[np.float64]:
    if counts is None:
        return np.full(len(north), np.nan)
    drop = outside == "drop" or isinstance(counts, xr.DataArray)
    if isinstance(counts, xr.DataArray):
        counts = counts_from_raster(counts, grid)
    people = people_of_cells(counts, grid, north, east, drop_others=drop)
    return np.where(np.isnan(people), absent, people)


def _complete(
    north: NDArray[np.int64], east: NDArray[np.int64], n: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Find the cells of n times the size whose members are all there, in Z-order.

    Gives north and east (m,) and the members' indices (m, n²), row by row from the north-west.
    """
    corners, which = np.unique(np.stack([north, east]) // n, axis=1, return_inverse=True)
    members = np.full((corners.shape[1], n * n), -1)
    members[which.ravel(), (n - 1 - north % n) * n + east % n] = np.arange(len(north))
    there = (members >= 0).all(1)
    (north, east), members = corners[:, there], members[there]
    order = z_order(north, east)
    return north[order], east[order], members[order]


def _join_block(images: NDArray, n: int) -> NDArray:
    """Put n² images after one another (m · n², band, row, col) together (m, band, n·row, n·col)."""
    band, row, col = images.shape[1:]
    parts = images.reshape(-1, n, n, band, row, col).transpose(0, 3, 1, 4, 2, 5)
    return parts.reshape(-1, band, n * row, n * col)


def _has_empty_edge(images: NDArray, ring: int, nodata: Any) -> NDArray[np.bool_]:
    """Tell which of (n, band, row, col) have a first or last row or column without data."""
    own = images[..., ring : images.shape[-2] - ring, ring : images.shape[-1] - ring]
    missing = np.isnan(own) if np.isnan(nodata) else own == nodata
    empty = missing.all(1)
    lines = [empty[:, 0], empty[:, -1], empty[:, :, 0], empty[:, :, -1]]
    return np.any([line.all(1) for line in lines], axis=0)
