"""Larger cells out of smaller ones: n × n images side by side, their people added."""

from __future__ import annotations

import dask.array as da
import numpy as np
import xarray as xr
from numpy.typing import NDArray

from popdask.errors import InputError
from popdask.imagery.cells.dataset import CHUNK_CELLS, cells_grid, cells_nodata, make_cells
from popdask.imagery.grid import z_order


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
    >>> from popdask.imagery.grid import CellGrid
    >>> from popdask.imagery.cells.cutting import cut_cells
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
