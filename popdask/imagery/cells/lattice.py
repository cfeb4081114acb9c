"""Where an image lies on a cell grid, and the tasks that cut cells out of it.

Cells follow the Z-curve over the grid, so those of an aligned square of 8 × 8 cells (fewer where
they are large) stand next to one another. The image is brought into such squares, each borrows the
ring of context from its neighbours, and one task cuts it: chunks of the result are squares of the
grid, whatever the chunks of the image are, and squares without a wanted cell are never read.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr
from dask.base import tokenize
from dask.highlevelgraph import HighLevelGraph
from numpy.typing import NDArray

from popdask.cube.grids import describe_grid, grid_of
from popdask.errors import InputError
from popdask.imagery.grid import CellGrid, block_side, crs_text, z_order

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
    """Find where an image (…, y, x), north up, lies on the pixels of a cell grid.

    Raises
    ------
    InputError
        If it has another CRS, its pixels are larger than a cell, or do not fit into cells.
    """
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
    """Cut images (cell, band, row, col), and the share (cell,) of their own pixels with data.

    The image is (band, y, x); the cells are in Z-order and lie within it.
    """
    side, p = block_side(lattice.pixels, context), lattice.pixels
    fill = nodata_of(image)
    blocks = _in_blocks(image.data, lattice, side, fill)
    depth = {0: 0, 1: context * p, 2: context * p}
    rimmed = da.overlap.overlap(blocks, depth=depth, boundary={0: "none", 1: fill, 2: fill})
    groups = _group(lattice, side, north, east)
    span = (2 * context + 1) * p
    images = _gather(rimmed, groups, _cut_block, (p, span), (image.sizes["band"], span, span))
    valid = _in_blocks(valid_pixels(image, fill)[None], lattice, side, False)
    covered = _gather(valid, groups, _share_block, (p, p), (), "float32")
    return images, covered


def nodata_of(image: xr.DataArray) -> Any:
    """Give the value of pixels without data: what the image says, or else 0, or NaN for floats."""
    default = np.nan if image.dtype.kind == "f" else 0
    return image.dtype.type(image.attrs.get("nodata", image.attrs.get("_FillValue", default)))


def valid_pixels(image: xr.DataArray, fill: Any) -> da.Array:
    """Tell the pixels (y, x) that have data: what the mosaic says, or else the values."""
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
    """Group cells by block: (block row and column, (n, 2) rows and columns of cells within it).

    In Z-order the cells of a block stand together, so the groups keep the order of the cells.
    """
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


def _cut_block(block: NDArray, cells: NDArray[np.int64], step: int, span: int) -> NDArray:
    """Cut cells (n, band, span, span) from a block (band, y, x) with its ring."""
    return np.stack([block[:, r : r + span, c : c + span] for r, c in (cells * step).tolist()])


def _share_block(block: NDArray, cells: NDArray[np.int64], step: int, span: int) -> NDArray:
    """Share (n,) of pixels with data, from a block (1, y, x)."""
    return _cut_block(block, cells, step, span).mean((1, 2, 3), dtype=np.float64).astype("float32")
