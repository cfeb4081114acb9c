"""Blocks with the cells around them, for whatever looks beyond a cell: stencils, windows, discs.

The trick is that a block tells its neighbours its four rims in one task, and another task puts a
block and the rims around it together: two tasks per block, where slicing and concatenating every
side and corner by itself takes eighteen, and only rims travel between workers.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Any, NamedTuple

import dask.array as da
import numpy as np
from dask.base import tokenize
from dask.highlevelgraph import HighLevelGraph
from numpy.typing import ArrayLike, NDArray

from popdask.errors import InputError

AROUND = [side for side in product((-1, 0, 1), repeat=2) if any(side)]


def as_dask(data: Any, chunks: Any = -1) -> da.Array:
    """Return a Dask array; NumPy is not hashed for its name, which takes as long as a sum of it."""
    return data if isinstance(data, da.Array) else da.from_array(data, chunks=chunks, name=False)


class Rims(NamedTuple):
    """What the eight neighbours of a block may want to see of it."""

    top: NDArray
    bottom: NDArray
    left: NDArray
    right: NDArray

    def towards(self, down: int, across: int, columns: int) -> NDArray:
        """The part that the neighbour sees from which this block lies so many blocks away."""
        if not down:
            return self.right if across < 0 else self.left
        rim = self.bottom if down < 0 else self.top
        if not across:
            return rim
        return rim[..., rim.shape[-1] - columns :] if across < 0 else rim[..., :columns]


def add_overlap(
    array: da.Array, depth: int | tuple[int, int], *, fill: ArrayLike | None = None
) -> da.Array:
    """Give every block the cells around it."""
    depths = (depth, depth) if isinstance(depth, int) else depth
    for sizes, cells in zip(array.chunks[-2:], depths, strict=True):
        if len(sizes) > 1 and min(sizes) < cells:
            raise InputError(
                f"a chunk of {min(sizes)} cells cannot lend its neighbour {cells}: make chunks of "
                f"at least {cells} cells"
            )
    if fill is None and (not any(depths) or max(array.numblocks[-2:]) == 1):
        return array
    name = tokenize(array.name, depths, fill)
    graph: dict[Any, Any] = {}
    below: list[Any] = [array]
    *_, down, across = array.numblocks
    for *frame, j, i in np.ndindex(*array.numblocks):
        rims = [
            ("rims-" + name, *frame, j + y, i + x)
            if 0 <= j + y < down and 0 <= i + x < across
            else None
            for y, x in AROUND
        ]
        block = (array.name, *frame, j, i)
        graph["rims-" + name, *frame, j, i] = (rims_of, block, *depths)
        graph["halo-" + name, *frame, j, i] = (surround, block, rims, depths, fill)
    layers = HighLevelGraph.from_collections("halo-" + name, graph, dependencies=below)
    chunks = [
        _widened(sizes, cells, fill is not None)
        for sizes, cells in zip(array.chunks[-2:], depths, strict=True)
    ]
    return da.Array(layers, "halo-" + name, (*array.chunks[:-2], *chunks), meta=array._meta)


def merge_thin_chunks(array: da.Array, depth: int | tuple[int, int]) -> da.Array:
    """Merge the blocks of (…, y, x) until a halo fits into each, or there is only one."""
    depths = (depth, depth) if isinstance(depth, int) else depth
    wide = [_merged(c, cells) for c, cells in zip(array.chunks[-2:], depths, strict=True)]
    return array.rechunk((*array.chunks[:-2], *wide))


def own_cells(
    shape: Sequence[int], depth: int, block: Sequence[int], last: Sequence[int]
) -> tuple[int, int, int, int]:
    """Find a block's own cells within it and its halo, which the raster's border has none of."""
    rows, columns = (
        (depth if at else 0, size - (depth if at < end else 0))
        for size, at, end in zip(shape[-2:], block[-2:], last, strict=True)
    )
    return *rows, *columns


def _merged(chunks: Sequence[int], least: int) -> tuple[int, ...]:
    """Chunks of at least this size, each made of whole ones; one if there is no room for two."""
    merged = [0]
    for size in chunks:
        if merged[-1] < max(least, 1):
            merged[-1] += size
        else:
            merged.append(size)
    if len(merged) > 1 and merged[-1] < least:
        merged[-2:] = [merged[-2] + merged[-1]]
    return tuple(merged)


def _widened(sizes: Sequence[int], cells: int, everywhere: bool) -> tuple[int, ...]:
    """Sizes of blocks along an axis, with their halo."""
    last = len(sizes) - 1
    return tuple(
        size + cells * ((everywhere or i > 0) + (everywhere or i < last))
        for i, size in enumerate(sizes)
    )


def rims_of(block: NDArray, rows: int, columns: int) -> Rims:
    """Copy the rims of a block, which would otherwise be held as long as they are."""
    height, width = block.shape[-2:]
    return Rims(
        block[..., :rows, :].copy(),
        block[..., height - rows :, :].copy(),
        block[..., :columns].copy(),
        block[..., width - columns :].copy(),
    )


def surround(
    block: NDArray,
    rims: Sequence[Rims | None],
    depths: tuple[int, int],
    fill: ArrayLike | None = None,
) -> NDArray:
    """Put a block and the rims around it together."""
    found = dict(zip(AROUND, rims, strict=True))
    height, width = block.shape[-2:]
    rows, columns = depths
    top, bottom = (rows * (fill is not None or found[y, 0] is not None) for y in (-1, 1))
    left, right = (columns * (fill is not None or found[0, x] is not None) for x in (-1, 1))
    shape = *block.shape[:-2], top + height + bottom, left + width + right
    whole = np.empty(shape, block.dtype)
    if fill is not None:
        whole[...] = fill
    down = {-1: slice(top), 0: slice(top, top + height), 1: slice(top + height, None)}
    along = {-1: slice(left), 0: slice(left, left + width), 1: slice(left + width, None)}
    whole[..., down[0], along[0]] = block
    for (y, x), rim in found.items():
        if rim is not None:
            whole[..., down[y], along[x]] = rim.towards(y, x, columns)
    return whole
