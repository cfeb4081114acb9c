"""Rasters of any size reduced to what a figure can show, chunk by chunk.

People are reduced by the maximum (a village must not disappear), labels by the commonest one that
is not −1 (nor must a community). The trick is to move the chunks' borders to those of the blocks:
then every chunk is reduced where it lies, and a large raster is never in memory as a whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import dask.array as da
import numpy as np
import xarray as xr

By = Literal["max", "sum", "mode"]


def reduced(
    raster: xr.DataArray | np.ndarray, max_cells: int, *, by: By | None = None
) -> np.ndarray:
    """Reduce a raster by a whole factor until neither side has more than ``max_cells`` cells.

    Parameters
    ----------
    raster
        (y, x); NumPy or Dask.
    max_cells
        The longest side allowed.
    by
        The ``"max"`` or the ``"sum"`` of what is not NaN, or the ``"mode"``: the commonest number
        that is not negative, the lowest of equals. By default floats are reduced by the maximum
        and integers by the mode.

    Returns
    -------
    numpy.ndarray
        (y, x) of the same dtype. Blocks at the lower and right end may be cut.

    Examples
    --------
    >>> reduced(np.array([[-1, -1, 2, 3], [-1, 7, 3, -1]]), 2)
    array([[7, 3]])
    >>> reduced(np.array([[1.0, 2.0, np.nan, 3.0]]), 2, by="sum")
    array([[3., 3.]])
    """
    return np.asarray(shrink(raster, max_cells, by))


def shrink(
    raster: xr.DataArray | np.ndarray | da.Array, max_cells: int, by: By | None = None
) -> np.ndarray | da.Array:
    """Reduce as `reduced` does; what is lazy stays lazy."""
    values = raster.data if isinstance(raster, xr.DataArray) else raster
    by = by or ("max" if values.dtype.kind == "f" else "mode")
    factor = block_size(values.shape, max_cells)
    if factor == 1:
        return values
    if not isinstance(values, da.Array):
        return _reduce(values, factor, by)
    aligned = values.rechunk([_aligned(sizes, factor) for sizes in values.chunks])
    chunks = [tuple(-(-size // factor) for size in sizes) for sizes in aligned.chunks]
    return aligned.map_blocks(_reduce, factor, by, chunks=chunks, dtype=values.dtype)


def block_size(shape: Sequence[int], max_cells: int) -> int:
    """Say how many cells along a side become one.

    Examples
    --------
    >>> block_size((5956, 4740), 1000)
    6
    """
    return -(-max(shape) // max_cells)


def _aligned(sizes: Sequence[int], factor: int) -> tuple[int, ...]:
    """Move the borders of chunks to those of blocks."""
    length = sum(sizes)
    borders = {int(end) // factor * factor for end in np.cumsum(sizes)[:-1]} - {0, length}
    return tuple(stop - start for start, stop in pairwise([0, *sorted(borders), length]))


def _reduce(values: np.ndarray, factor: int, by: By) -> np.ndarray:
    nothing = np.nan if values.dtype.kind == "f" else -1
    pad = [(0, -length % factor) for length in values.shape]
    values = np.pad(values, pad, constant_values=nothing)
    rows, cols = values.shape[0] // factor, values.shape[1] // factor
    blocks = values.reshape(rows, factor, cols, factor)
    if by == "mode":
        return _commonest(blocks)
    if by == "max":
        return np.fmax.reduce(np.fmax.reduce(blocks, axis=3), axis=1)
    empty = np.isnan(blocks).all(axis=(1, 3))
    return np.where(empty, np.nan, np.nansum(blocks, axis=(1, 3))).astype(values.dtype)


def _commonest(blocks: np.ndarray) -> np.ndarray:
    """Take a vote among the numbers of each block, (row, within, column, within)."""
    rows, _, cols, _ = blocks.shape
    row, _, col, _ = inside = np.nonzero(blocks >= 0)
    numbers = blocks[inside].astype(np.int64)
    span = numbers.max(initial=0) + 1
    ballots, count = np.unique((row * cols + col) * span + numbers, return_counts=True)
    block, number = np.divmod(ballots, span)
    order = np.lexsort((number, -count, block))
    winners, first = np.unique(block[order], return_index=True)
    result = np.full(rows * cols, -1, blocks.dtype)
    result[winners] = number[order][first]
    return result.reshape(rows, cols)
