"""Draw cells from a raster of any size, and read the windows around them.

A uniform sample without replacement, drawn in one pass over the chunks: every cell is given a
random rank, the splitmix64 hash (Steele, Lea & Flood 2014) of its global index and the seed, and
the n lowest ranks win. A chunk keeps its own n lowest and a tree merges them, so that the sample
depends on the cells alone, never on the chunks, and any prefix of it is itself a uniform sample.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import reduce
from itertools import pairwise

import dask
import dask.array as da
import numpy as np
from dask.array.overlap import ensure_minimum_chunksize, overlap
from numpy.typing import NDArray
from xarray import DataArray

from popdask.errors import InputError

FAN_IN = 8


def _mix(z: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Scramble 64-bit integers with the finaliser of splitmix64, a bijection."""
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def _ranks(index: NDArray[np.int64], seed: int) -> NDArray[np.uint64]:
    """Random ranks of global cell indices: distinct, because every step is a bijection."""
    start = _mix(np.array([seed % 2**64], np.uint64))
    return _mix(start + index.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15))


def _lowest(ranked: NDArray[np.uint64], n: int) -> NDArray[np.uint64]:
    """Keep the n columns of (rank, index) with the lowest ranks, in no order."""
    if ranked.shape[1] <= n:
        return ranked
    return ranked[:, np.argpartition(ranked[0], n - 1)[:n]]


def _draw(
    mask: NDArray[np.bool_], origin: Sequence[int], shape: Sequence[int], n: int, seed: int
) -> NDArray[np.uint64]:
    """Rank the True cells of one block and keep the n lowest: (2, m) of (rank, global index)."""
    strides = np.cumprod([1, *shape[:0:-1]])[::-1]
    axes = [
        (start + np.arange(size)) * stride
        for start, size, stride in zip(origin, mask.shape, strides, strict=True)
    ]
    index = reduce(np.add, np.ix_(*axes))[mask]
    return _lowest(np.stack([_ranks(index, seed), index.astype(np.uint64)]), n)


def _merge(parts: list[NDArray[np.uint64]], n: int) -> NDArray[np.uint64]:
    return _lowest(np.concatenate(parts, axis=1), n)


def sample_cells(mask: DataArray, n: int, *, seed: int = 0) -> NDArray[np.int64]:
    """Draw cells at random among those that a mask allows.

    Parameters
    ----------
    mask : DataArray of bool, (y, x) or (time, y, x)
        True where a cell may be drawn; NumPy or Dask.
    n : int
        How many cells to draw, at least 1; all of them where the mask has fewer.
    seed : int, optional
        Another seed gives another sample.

    Returns
    -------
    ndarray of int64, (m, mask.ndim)
        Distinct indices along the mask's dimensions, in random order, m = min(n, count of True).
        They are the same under any chunking, and the first rows are what a smaller `n` gives.

    Raises
    ------
    InputError
        If the mask is not boolean or `n` is not positive.

    Notes
    -----
    Eager: one ``dask.compute`` on a graph with about one task per chunk.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> mask = xr.DataArray(np.eye(4, dtype=bool), dims=("y", "x"))
    >>> sample_cells(mask, 2).shape
    (2, 2)
    >>> sorted(map(tuple, sample_cells(mask, 9).tolist()))
    [(0, 0), (1, 1), (2, 2), (3, 3)]
    """
    if mask.dtype != bool:
        raise InputError(f"mask holds {mask.dtype}, expected bool; compare it with something first")
    if n < 1:
        raise InputError(f"n is {n}, expected at least 1 cell to draw")
    array = _as_dask(mask.transpose(..., "y", "x"))
    draw, merge = dask.delayed(_draw, pure=False), dask.delayed(_merge, pure=False)
    starts = _starts(array.chunks)
    blocks = array.to_delayed()
    parts = []
    for where in np.ndindex(*blocks.shape):
        origin = [int(start[i]) for start, i in zip(starts, where, strict=True)]
        parts.append(draw(blocks[where], origin, array.shape, n, seed))
    while len(parts) > 1:
        parts = [merge(parts[i : i + FAN_IN], n) for i in range(0, len(parts), FAN_IN)]
    ((ranks, index),) = dask.compute(*parts)
    chosen = index[np.argsort(ranks)].astype(np.int64)
    return np.stack(np.unravel_index(chosen, array.shape), axis=1).astype(np.int64)


def gather_windows(
    features: DataArray, cells: NDArray[np.int64], *, size: int = 7, fill: Sequence[float]
) -> NDArray[np.float32]:
    """Read the square windows around some cells.

    Parameters
    ----------
    features : DataArray, (channel, y, x) or (time, channel, y, x)
        NumPy or Dask.
    cells : ndarray of int, (n, 2) or (n, 3)
        The windows' middle cells as (y, x) or (time, y, x) indices, as from `sample_cells`.
    size : int, optional
        Cells along a window's side, odd.
    fill : sequence of float, one per channel
        What lies beyond the raster. NaN inside the raster stays NaN.

    Returns
    -------
    ndarray of float32, (n, channel, size, size)
        In the order of `cells`.

    Raises
    ------
    InputError
        If a cell lies outside the raster, `size` is not odd, or `fill` does not fit the channels.

    Notes
    -----
    Eager: windows are cut inside the chunks where they lie, and only chunks that hold cells are
    computed, with a rim of ``size // 2`` cells from their neighbours.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> ramp = np.arange(12, dtype="float32").reshape(1, 3, 4)
    >>> features = xr.DataArray(ramp, dims=("channel", "y", "x"))
    >>> gather_windows(features, np.array([[0, 1]]), size=3, fill=[-1.0])[0, 0]
    array([[-1., -1., -1.],
           [ 0.,  1.,  2.],
           [ 4.,  5.,  6.]], dtype=float32)
    """
    features = features.transpose(..., "channel", "y", "x")
    if size < 1 or size % 2 == 0:
        raise InputError(f"size is {size}, expected an odd number of cells such as 7")
    if len(fill) != features.sizes["channel"]:
        raise InputError(
            f"fill has {len(fill)} values, expected {features.sizes['channel']}, one per channel"
        )
    located = features.transpose("channel", ..., "y", "x")
    cells = _checked(cells, located.shape[1:])
    array = _as_dask(located).rechunk({0: -1})
    # Chunks are joined until the rim fits into them; an axis in one chunk has no neighbours to
    # borrow from, and the kernel pads both its ends.
    half = size // 2
    y, x = array.ndim - 2, array.ndim - 1
    wide = {a: ensure_minimum_chunksize(min(half, array.shape[a]), array.chunks[a]) for a in (y, x)}
    array = array.rechunk(wide)
    chunks = array.chunks[1:]
    depth = {a: half if len(sizes) > 1 else 0 for a, sizes in wide.items()}
    if any(depth.values()):
        array = overlap(array, depth=depth, boundary="none", allow_rechunk=False)
    blocks = array.to_delayed()[0]

    def cut(where: tuple[int, ...], local: NDArray[np.int64]) -> object:
        ends = [(i == 0, i == len(c) - 1) for i, c in zip(where[-2:], chunks[-2:], strict=True)]
        pad = [(half * first, half * last) for first, last in ends]
        return dask.delayed(_cut, pure=False)(blocks[where], local, pad, size, list(fill))

    out = np.empty((len(cells), len(fill), size, size), np.float32)
    return _collect(cut, chunks, cells, out)


def _cut(
    block: NDArray[np.floating],
    cells: NDArray[np.int64],
    pad: Sequence[tuple[int, int]],
    size: int,
    fill: Sequence[float],
) -> NDArray[np.float32]:
    """Cut windows from a block (channel, …, y, x), `cells` being their upper left corners.

    The block reaches ``size // 2`` cells beyond its own cells, but for the raster's ends, where
    `pad` tells how much is missing.
    """
    (top, bottom), (left, right) = pad
    *leading, height, width = block.shape
    padded = np.empty((*leading, height + top + bottom, width + left + right), np.float32)
    padded[:] = np.reshape(fill, (-1,) + (1,) * (block.ndim - 1))
    padded[..., top : top + height, left : left + width] = block
    windows = np.lib.stride_tricks.sliding_window_view(padded, (size, size), axis=(-2, -1))
    return np.moveaxis(windows[(slice(None), *cells.T)], 0, 1)


def gather_cells(values: DataArray, cells: NDArray[np.int64]) -> NDArray:
    """Read the values of some cells.

    Parameters
    ----------
    values : DataArray, (…, y, x) or (…, y, x, latent)
        NumPy or Dask.
    cells : ndarray of int, (n, 2) or (n, 3)
        Indices (y, x) or (time, y, x), as from `sample_cells`.

    Returns
    -------
    ndarray, (n,) or (n, latent)
        In the order of `cells`, with the dtype of `values`.

    Raises
    ------
    InputError
        If a cell lies outside the raster.

    Notes
    -----
    Eager: only chunks that hold cells are computed.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> values = xr.DataArray(np.arange(12).reshape(3, 4), dims=("y", "x"))
    >>> gather_cells(values, np.array([[2, 3], [0, 1]]))
    array([11,  1])
    """
    vector = tuple(dim for dim in values.dims if dim == "latent")
    values = values.transpose(..., "y", "x", *vector)
    places = values.ndim - len(vector)
    cells = _checked(cells, values.shape[:places])
    array = _as_dask(values).rechunk(dict.fromkeys(range(places, values.ndim), -1))
    blocks = array.to_delayed().reshape(array.numblocks[:places])
    pick = dask.delayed(_pick, pure=False)
    out = np.empty((len(cells), *values.shape[places:]), values.dtype)
    return _collect(
        lambda where, local: pick(blocks[where], local), array.chunks[:places], cells, out
    )


def _pick(block: NDArray, cells: NDArray[np.int64]) -> NDArray:
    return block[tuple(cells.T)]


def _as_dask(array: DataArray) -> da.Array:
    """Give the Dask array under a DataArray; NumPy becomes one chunk, without hashing it."""
    if isinstance(array.data, da.Array):
        return array.data
    return da.from_array(array.data, chunks=-1, name=False)


def _starts(chunks: Sequence[Sequence[int]]) -> list[NDArray[np.int64]]:
    """Offsets of the chunks' first cells, per axis."""
    return [np.concatenate([[0], np.cumsum(sizes[:-1])]).astype(np.int64) for sizes in chunks]


def _checked(cells: NDArray[np.int64], shape: Sequence[int]) -> NDArray[np.int64]:
    """Refuse cells that lie outside a raster of this shape."""
    cells = np.asarray(cells)
    if cells.ndim != 2 or cells.shape[1] != len(shape) or cells.dtype.kind not in "iu":
        raise InputError(
            f"cells has shape {cells.shape} and dtype {cells.dtype}, "
            f"expected integers of shape (n, {len(shape)})"
        )
    outside = ((cells < 0) | (cells >= np.array(shape))).any(axis=1)
    if outside.any():
        raise InputError(
            f"cell {tuple(cells[outside][0].tolist())} lies outside the raster, "
            f"expected indices from 0 to below {tuple(shape)}"
        )
    return cells.astype(np.int64)


def _by_block(
    chunks: Sequence[Sequence[int]], cells: NDArray[np.int64]
) -> Iterator[tuple[tuple[int, ...], NDArray[np.int64], NDArray[np.int64]]]:
    """Group cells by the block they lie in: (block, rows of `cells`, cells within the block)."""
    starts = _starts(chunks)
    block = [
        np.searchsorted(start, axis, side="right") - 1
        for start, axis in zip(starts, cells.T, strict=True)
    ]
    local = cells - np.stack([s[b] for s, b in zip(starts, block, strict=True)], axis=1)
    numblocks = tuple(len(sizes) for sizes in chunks)
    number = np.ravel_multi_index(block, numblocks)
    order = np.argsort(number, kind="stable")
    held, first = np.unique(number[order], return_index=True)
    for which, (start, stop) in zip(held, pairwise([*first, len(order)]), strict=True):
        rows = order[start:stop]
        yield tuple(int(i) for i in np.unravel_index(which, numblocks)), rows, local[rows]


def _collect(
    read: Callable[[tuple[int, ...], NDArray[np.int64]], object],
    chunks: Sequence[Sequence[int]],
    cells: NDArray[np.int64],
    out: NDArray,
) -> NDArray:
    """Read every block that holds cells, and put the rows back into the order of `cells`."""
    groups = list(_by_block(chunks, cells))
    parts = dask.compute(*(read(where, local) for where, _, local in groups))
    for (_, rows, _), part in zip(groups, parts, strict=True):
        out[rows] = part
    return out
