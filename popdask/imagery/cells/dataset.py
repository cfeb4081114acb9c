"""Cells as a Dataset: put together, written as Zarr, opened again.

88,869 cells are 88,869 small files as images, and some 1,400 chunks as Zarr.
"""

from __future__ import annotations

from typing import Any

import dask.array as da
import numpy as np
import rioxarray  # noqa: F401  registers Dataset.rio
import xarray as xr
from numpy.typing import NDArray

from popdask.cube.groups import open_group, write_group
from popdask.errors import InputError
from popdask.imagery.grid import CellGrid, crs_text
from popdask.whole import Path_

CHUNK_CELLS = 64  # a square of 8 × 8 in Z-order
CHUNK_BYTES = 2**27
IMAGE = ("cell", "band", "row", "col")


def make_cells(
    images: da.Array,
    people: NDArray[np.floating],
    north: NDArray[np.int64],
    east: NDArray[np.int64],
    grid: CellGrid,
    *,
    context: int = 0,
    nodata: Any = 0,
    covered: da.Array | None = None,
) -> xr.Dataset:
    """Put cells together from their arrays.

    Parameters
    ----------
    images : dask.array.Array, (cell, band, row, col)
        Square images, with the ring of context.
    people : ndarray of float, (cell,)
        People in each cell, NaN = unknown.
    north, east : ndarray of int64, (cell,)
        The cells' lower-left corners in units of the cell size.
    grid : CellGrid
        Their grid.
    context : int, optional
        Cells of the ring around each.
    nodata : optional
        What pixels without data hold.
    covered : dask.array.Array, (cell,), optional
        Share of each cell's own pixels that have data, where it is known.

    Returns
    -------
    Dataset
        As `popdask.imagery.cells.cut_cells` describes it.

    Examples
    --------
    >>> images = da.zeros((1, 3, 20, 20), dtype="uint8")
    >>> make_cells(images, np.ones(1), np.array([4]), np.array([7]), CellGrid(100)).resolution
    5.0
    """
    cells = xr.Dataset(
        {
            "images": (IMAGE, images, {"long_name": "image"}),
            "people": ("cell", people, {"units": "people per cell", "long_name": "population"}),
        },
        coords={"north": ("cell", north), "east": ("cell", east)},
        attrs={
            "cell_size": grid.size,
            "resolution": grid.size * (2 * context + 1) / images.shape[-1],
            "context": context,
            "origin": list(grid.origin),
            "nodata": str(nodata),
        },
    )
    cells["people"] = cells["people"].astype("float64")
    if covered is not None:
        cells["covered"] = ("cell", covered, {"long_name": "share of pixels with data"})
    return cells.rio.write_crs(grid.crs)


def cells_grid(cells: xr.Dataset) -> CellGrid:
    """Give the grid that cells belong to.

    Parameters
    ----------
    cells : Dataset
        As `cut_cells` or `read_cells` give them.

    Returns
    -------
    CellGrid

    Examples
    --------
    >>> images = da.zeros((1, 3, 20, 20), dtype="uint8")
    >>> grid = CellGrid.preset("eu_1km")
    >>> cells_grid(make_cells(images, np.ones(1), np.array([4]), np.array([7]), grid)) == grid
    True
    """
    x, y = cells.attrs["origin"]
    crs = crs_text(cells["spatial_ref"].attrs["crs_wkt"])
    return CellGrid(float(cells.attrs["cell_size"]), crs, (float(x), float(y)))


def cells_nodata(cells: xr.Dataset) -> Any:
    """Give what pixels without data hold, in the dtype of the images."""
    return cells["images"].dtype.type(float(cells.attrs["nodata"]))


def write_cells(cells: xr.Dataset, path: Path_) -> None:
    """Write cells as Zarr, whole or not at all.

    Parameters
    ----------
    cells : Dataset
        With ``images`` and whatever else goes by cell, such as ``split``; computed chunk by chunk.
    path : path or URL
        A new folder. Behind a URL, an interrupted write leaves part of a group.

    Raises
    ------
    InputError
        If `path` is there already, or there is no cell.

    Notes
    -----
    A chunk holds 64 cells, or fewer where that is more than 128 MiB.

    Examples
    --------
    >>> import tempfile
    >>> images = da.zeros((2, 3, 20, 20), dtype="uint8")
    >>> cells = make_cells(images, np.ones(2), np.array([4, 5]), np.array([7, 7]), CellGrid(100))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_cells(cells, f"{folder}/cells.zarr")
    ...     open_cells(f"{folder}/cells.zarr").images.shape
    (2, 3, 20, 20)
    """
    if not cells.sizes["cell"]:
        raise InputError("there is no cell to write; expected at least one; check what chose them")
    each = int(np.prod(cells["images"].shape[1:])) * cells["images"].dtype.itemsize
    step = max(1, min(CHUNK_CELLS, CHUNK_BYTES // each))
    stored = cells.chunk({"cell": step, "band": -1, "row": -1, "col": -1})
    for name in stored.variables:
        stored[name].encoding = {}
        if stored[name].dims == ("cell",):
            stored[name] = stored[name].chunk({"cell": cells.sizes["cell"]})
    write_group(stored, path, "the cells")


def open_cells(path: Path_) -> xr.Dataset:
    """Open cells stored as Zarr.

    Parameters
    ----------
    path : path or URL
        What `write_cells` wrote.

    Returns
    -------
    Dataset
        ``images`` lazy, in the chunks of the store; everything that goes by cell alone is loaded.

    Raises
    ------
    InputError
        If it is not such a group.
    """
    stored = open_group(path, "cells that popdask wrote")
    if "images" not in stored or stored["images"].dims != IMAGE or "people" not in stored:
        found = {str(name): array.dims for name, array in stored.data_vars.items()}
        raise InputError(
            f"{path} holds {found}; expected images (cell, band, row, col) and people (cell); "
            "write it with write_cells"
        )
    return load_tables(stored)


def load_tables(cells: xr.Dataset) -> xr.Dataset:
    """Load what goes by cell alone; the images stay lazy."""
    tables = [name for name, array in cells.variables.items() if array.dims == ("cell",)]
    return cells.assign({name: cells[name].compute() for name in tables})
