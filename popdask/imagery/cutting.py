"""Images cut into cells, on a lattice of blocks.

Where an image lies on a cell grid, and the tasks that cut cells out of it.

Cells follow the Z-curve over the grid, so those of an aligned square of 8 × 8 cells (fewer where
they are large) stand next to one another. The image is brought into such squares, each borrows the
ring of context from its neighbours, and one task cuts it: chunks of the result are squares of the
grid, whatever the chunks of the image are, and squares without a wanted cell are never read.

From a mosaic to cells: images (cell, band, row, col) with the people who live in them.

How an image is cut along the lattice of its cells is in `lattice`, what the Dataset holds in
`dataset`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import dask
import dask.array as da
import numpy as np
import pandas as pd
import xarray as xr
from dask.base import tokenize
from dask.highlevelgraph import HighLevelGraph
from numpy.typing import NDArray

from popdask.errors import InputError
from popdask.imagery.cells import cells_nodata, make_cells
from popdask.imagery.counts import counts_from_raster, people_of_cells
from popdask.imagery.grid import CellGrid, as_grid, block_side, crs_text, z_order
from popdask.io.grids import describe_grid, grid_of

ALIGNED = 1e-3  # of a pixel

Groups = list[tuple[tuple[int, int], NDArray[np.int64]]]


@dataclass(frozen=True)
class Lattice:
    """Where an image lies on the pixels of a cell grid, counted down and right from its origin."""

    grid: CellGrid
    pixels: int
    """Pixels per side of a cell."""
    top: int
    left: int
    height: int
    width: int

    def whole_cells(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """North and east of the cells that lie in the image, in Z-order."""
        p = self.pixels
        down = np.arange(-(-self.top // p), (self.top + self.height) // p)
        east = np.arange(-(-self.left // p), (self.left + self.width) // p)
        norths, easts = (axis.ravel() for axis in np.meshgrid(-1 - down, east, indexing="ij"))
        order = z_order(norths, easts)
        return norths[order].astype(np.int64), easts[order].astype(np.int64)


def find_lattice(image: xr.DataArray, grid: CellGrid) -> Lattice:
    """Find where an image (…, y, x), north up, lies on the pixels of a cell grid."""
    box = grid_of(image)
    t = box.transform
    if box.crs != grid.crs:
        raise InputError(
            f"the image is in {crs_text(box.crs)} and the cells in {grid.crs}; expected one CRS; "
            "open the mosaic with grid=… and align=True to reproject it"
        )
    if max(t.a, -t.e) > grid.size * (1 + ALIGNED):
        raise InputError(
            f"the image's pixels are {t.a:g} × {-t.e:g} and the cells {grid.size:g}; expected "
            "cells no smaller than a pixel; use larger cells"
        )
    pixels = round(grid.size / t.a)
    pixel = grid.size / pixels
    left, top = (t.c - grid.origin[0]) / pixel, (grid.origin[1] - t.f) / pixel
    right, bottom = left + box.shape[1] * t.a / pixel, top - box.shape[0] * t.e / pixel
    edges = np.array([left, top, right - box.shape[1], bottom - box.shape[0]])
    if np.abs(edges - np.round(edges[[0, 1, 0, 1]])).max() > ALIGNED:
        raise InputError(
            f"the image has {describe_grid(box)}, and its pixels do not fit into cells of "
            f"{grid.label}; expected a whole number of pixels in each cell; open the mosaic with "
            "grid=… to resample it"
        )
    return Lattice(grid, pixels, round(top), round(left), *box.shape)


def cut_images(
    image: xr.DataArray,
    lattice: Lattice,
    north: NDArray[np.int64],
    east: NDArray[np.int64],
    context: int,
) -> tuple[da.Array, da.Array]:
    """Cut images (cell, band, row, col), and the share (cell,) of their own pixels with data."""
    # The image is (band, y, x); the cells are in Z-order and lie within it.
    side, p = block_side(lattice.pixels, context), lattice.pixels
    fill = nodata_of(image)
    blocks = _in_blocks(image.data, lattice, side, fill)
    depth = {0: 0, 1: context * p, 2: context * p}
    rimmed = da.overlap.overlap(blocks, depth=depth, boundary={0: "none", 1: fill, 2: fill})
    groups = _group(lattice, side, north, east)
    span = (2 * context + 1) * p
    images = _gather(rimmed, groups, cut_block, (p, span), (image.sizes["band"], span, span))
    valid = _in_blocks(valid_pixels(image, fill)[None], lattice, side, False)
    covered = _gather(valid, groups, _share_block, (p, p), (), "float32")
    return images, covered


def nodata_of(image: xr.DataArray) -> Any:
    """Return the value of pixels without data: the image's own, or else 0, or NaN."""
    default = np.nan if image.dtype.kind == "f" else 0
    return image.dtype.type(image.attrs.get("nodata", image.attrs.get("_FillValue", default)))


def valid_pixels(image: xr.DataArray, fill: Any) -> da.Array:
    """Return the pixels (y, x) that have data: what the mosaic says, or else the values."""
    if "valid" in image.coords:
        return da.asarray(image.coords["valid"].transpose("y", "x").data)
    values = da.asarray(image.data)
    if image.dtype.kind == "f":
        return (~da.isnan(values) & (values != fill)).any(0)
    if {"nodata", "_FillValue"} & set(image.attrs):
        return (values != fill).any(0)
    return da.ones(image.shape[1:], chunks=values.chunks[1:], dtype=bool)


def _in_blocks(array: Any, lattice: Lattice, side: int, fill: Any) -> da.Array:
    """Pad (band, y, x) to whole blocks of side × side cells, one per chunk."""
    block = side * lattice.pixels
    rows = lattice.top % block, -(lattice.top + lattice.height) % block
    columns = lattice.left % block, -(lattice.left + lattice.width) % block
    array = da.asarray(array)
    if any(rows) or any(columns):
        array = da.pad(array, [(0, 0), rows, columns], constant_values=fill)
    return array.rechunk((-1, block, block))


def _group(
    lattice: Lattice, side: int, north: NDArray[np.int64], east: NDArray[np.int64]
) -> Groups:
    """Group cells by block: (block row and column, (n, 2) rows and columns of cells within it)."""
    # In Z-order the cells of a block stand together, so the groups keep the order of the cells.
    cells = np.stack([-1 - north, east], axis=1)
    first = np.array([lattice.top, lattice.left]) // (side * lattice.pixels)
    blocks = cells // side - first
    starts = np.flatnonzero(np.any(np.diff(blocks, axis=0, prepend=-1), axis=1))
    parts = np.split(cells % side, starts[1:])
    return [((int(r), int(c)), part) for (r, c), part in zip(blocks[starts], parts, strict=True)]


def _gather(
    blocks: da.Array,
    groups: Groups,
    cut: Any,
    span: tuple[int, int],
    shape: tuple[int, ...],
    dtype: Any = None,
) -> da.Array:
    """Cut the cells of every block: an array (cell, *shape) with one chunk per block."""
    name = f"{cut.__name__.strip('_')}-{tokenize(blocks.name, groups, span)}"
    zeros = (0,) * len(shape)
    graph: Any = {
        (name, i, *zeros): (cut, (blocks.name, 0, *block), local, *span)
        for i, (block, local) in enumerate(groups)
    }
    chunks = (tuple(len(local) for _, local in groups), *((size,) for size in shape))
    dependencies: Any = [blocks]
    layers = HighLevelGraph.from_collections(name, graph, dependencies=dependencies)
    return da.Array(layers, name, chunks=chunks, dtype=np.dtype(dtype or blocks.dtype))


def cut_block(block: NDArray, cells: NDArray[np.int64], step: int, span: int) -> NDArray:
    """Cut cells (n, band, span, span), given by row and column, from (band, y, x) with its ring."""
    every = np.lib.stride_tricks.sliding_window_view(block, (span, span), (1, 2))
    down, across = cells.T
    cut: NDArray = every[:, ::step, ::step].transpose(1, 2, 0, 3, 4)[down, across]
    return cut


def _share_block(block: NDArray, cells: NDArray[np.int64], step: int, span: int) -> NDArray:
    """Share (n,) of pixels with data, from a block (1, y, x)."""
    return cut_block(block, cells, step, span).mean((1, 2, 3), dtype=np.float64).astype("float32")


def cut_cells(
    image: xr.DataArray,
    counts: pd.DataFrame | xr.DataArray | None = None,
    grid: CellGrid | str | float = 100.0,
    *,
    context: int = 0,
    labelled: bool = False,
    missing: float = np.nan,
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
    missing : float, optional
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
    people = _people(counts, known_grid, north, east, missing, outside)
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
    """Leave out cells in which the mosaic has nothing."""
    # Eager: the images are read once, chunk by chunk. Where zeros are known to be padding, also
    # in corners, say so in ``open_mosaic(nodata=0)``.
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
    """Bring an image into the form that cells are cut from."""
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
    missing: float,
    outside: str,
) -> NDArray[np.float64]:
    if counts is None:
        return np.full(len(north), np.nan)
    drop = outside == "drop" or isinstance(counts, xr.DataArray)
    if isinstance(counts, xr.DataArray):
        counts = counts_from_raster(counts, grid)
    people = people_of_cells(counts, grid, north, east, drop_others=drop)
    return np.where(np.isnan(people), missing, people)


def _has_empty_edge(images: NDArray, ring: int, nodata: Any) -> NDArray[np.bool_]:
    """Return which of (n, band, row, col) have a first or last row or column without data."""
    own = images[..., ring : images.shape[-2] - ring, ring : images.shape[-1] - ring]
    missing = np.isnan(own) if np.isnan(nodata) else own == nodata
    empty = missing.all(1)
    lines = [empty[:, 0], empty[:, -1], empty[:, :, 0], empty[:, :, -1]]
    return np.any([line.all(1) for line in lines], axis=0)
