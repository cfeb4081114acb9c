"""From a mosaic to cells: images (cell, band, row, col) with the people who live in them.

How an image is cut along the lattice of its cells is in `lattice`, what the Dataset holds in
`dataset`.
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
from popdask.imagery.cells.counts import counts_from_raster, people_of_cells
from popdask.imagery.cells.dataset import cells_nodata, make_cells
from popdask.imagery.cells.lattice import cut_images, find_lattice, nodata_of
from popdask.imagery.grid import CellGrid, as_grid


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
    image = as_bands(image)
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


def as_bands(image: xr.DataArray) -> xr.DataArray:
    """Bring an image into the form that cells are cut from.

    Parameters
    ----------
    image : DataArray, (band, y, x) or (y, x), in any order
        With a CRS.

    Returns
    -------
    DataArray
        (band, y, x), rows from north to south.

    Raises
    ------
    InputError
        If it has other dimensions or no CRS.

    Examples
    --------
    >>> from odc.geo.xr import xr_zeros
    >>> as_bands(xr_zeros(CellGrid(100).geobox(range(2), range(3)))).dims
    ('band', 'y', 'x')
    """
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


def _has_empty_edge(images: NDArray, ring: int, nodata: Any) -> NDArray[np.bool_]:
    """Tell which of (n, band, row, col) have a first or last row or column without data."""
    own = images[..., ring : images.shape[-2] - ring, ring : images.shape[-1] - ring]
    missing = np.isnan(own) if np.isnan(nodata) else own == nodata
    empty = missing.all(1)
    lines = [empty[:, 0], empty[:, -1], empty[:, :, 0], empty[:, :, -1]]
    return np.any([line.all(1) for line in lines], axis=0)
