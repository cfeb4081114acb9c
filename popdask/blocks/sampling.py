"""The cells that are trained on, classified and grouped, and samples drawn by their global index.

A raster's wilderness would fill classes and communities of its own, and most of the time of a run.
The domain leaves it out: by default a cell belongs when it has data and its window sees people.
Where every cell is populated, that is every cell with data.

A sample is uniform and without replacement, drawn in one pass over the chunks: every cell is given
a random rank, the splitmix64 hash (Steele, Lea & Flood 2014) of its global index and the seed, and
the n lowest ranks win. A chunk keeps its own n lowest and a tree merges them, so that the sample
depends on the cells alone, never on the chunks, and any prefix of it is itself a uniform sample.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial, reduce
from itertools import pairwise, product
from math import ceil
from typing import TYPE_CHECKING, Any, Literal, get_args
from uuid import uuid4

import numpy as np
from dask.highlevelgraph import HighLevelGraph
from numpy.typing import NDArray
from scipy import ndimage
from xarray import DataArray

from popdask.errors import InputError

if TYPE_CHECKING:
    import dask.array as da


Cells = Literal["settled", "data", "inhabited"]
#: Reads rows and columns of a frame.
Read = Callable[[slice, slice], NDArray[np.floating]]
SAMPLES, SAMPLE_CELLS = 8, 256  # windows of a domain's sample along a side, and cells of each


def _settled(population: NDArray[np.floating], window: int) -> NDArray[np.bool_]:
    """Find the cells with data whose window holds people, of (…, y, x) with a halo."""
    seen, halo = population > 0, window // 2
    for axis in (-2, -1):
        seen = ndimage.maximum_filter1d(seen, window, axis=axis, mode="constant", cval=0)
    own = (..., slice(halo, -halo), slice(halo, -halo))
    return seen[own] & ~np.isnan(population[own])


def domain(population: DataArray, cells: str = "settled", *, window: int = 7) -> DataArray:
    """Return which cells to train on, classify and group.

    Parameters
    ----------
    population : DataArray, (…, y, x)
        People per cell, NaN = no data; NumPy or Dask.
    cells : {"settled", "data", "inhabited"}, optional
        ``"settled"``: cells with data whose window, the one that the autoencoder reads, holds
        people; cells beyond the raster and without data hold nobody. ``"data"``: all cells with
        data. ``"inhabited"``: only cells with people.
    window : int, optional
        Cells along the side of that window, odd.

    Returns
    -------
    DataArray of bool, (…, y, x)
        True inside the domain, lazy where `population` is.

    Raises
    ------
    InputError
        If `cells` is none of the three, `window` is not an odd number from 3 up, or `population`
        has no y or x.

    Notes
    -----
    The halo of the settled domain is half a window.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> people = np.zeros((5, 9), "float32")
    >>> people[2, 0], people[0, 1] = 4, np.nan
    >>> population = xr.DataArray(people, dims=("y", "x"))
    >>> domain(population).values[0].astype(int)
    array([1, 0, 1, 1, 0, 0, 0, 0, 0])
    >>> int(domain(population, "inhabited").sum()), int(domain(population, "data").sum())
    (1, 44)
    """
    from popdask.io.conventions import check_population

    population = check_population("population", population)
    if cells not in get_args(Cells):
        raise InputError(f'cells is "{cells}", expected one of {", ".join(get_args(Cells))}')
    if window < 3 or window % 2 == 0:
        raise InputError(f"window is {window}, expected an odd number of cells such as 7")
    if cells == "data":
        found = population.notnull()
    elif cells == "inhabited":
        found = population > 0
    else:
        found = population.transpose(..., "y", "x")
        found = found.copy(data=_mapped(found.data, window)).transpose(*population.dims)
    found.attrs = {"long_name": f"{cells} cells", "units": "1"}
    return found.rename("domain")


def cells_in_domain(population: NDArray[np.floating], cells: str, window: int) -> NDArray[np.bool_]:
    """Find the domain in an array (…, y, x) around which there is nobody."""
    if cells == "data":
        return ~np.isnan(population)
    if cells == "inhabited":
        return population > 0
    beyond = [(0, 0)] * (population.ndim - 2) + [(window // 2, window // 2)] * 2
    return _settled(np.pad(population, beyond), window)


def domain_shares(
    read: Read,
    shape: tuple[int, int],
    cells: str,
    window: int,
    square: int,
) -> tuple[float, float]:
    """Share of the domain, and of the squares that meet it, in windows spread over a frame."""
    seen = inside = encoded = 0
    for row, column in product(*map(_starts, shape)):
        within = _window(read, row, column, shape, cells, window)
        seen += within.size
        inside += int(within.sum())
        encoded += _in_squares(within, square)
    return inside / seen, encoded / seen


def _window(
    read: Read,
    row: int,
    column: int,
    shape: tuple[int, int],
    cells: str,
    window: int,
) -> NDArray[np.bool_]:
    """Find the domain in a part of a frame, which is read with the cells around that decide."""
    halo = window // 2
    ends = [min(start + SAMPLE_CELLS, n) for start, n in zip((row, column), shape, strict=True)]
    around = [
        slice(max(start - halo, 0), min(end + halo, n))
        for start, end, n in zip((row, column), ends, shape, strict=True)
    ]
    found = cells_in_domain(read(*around), cells, window)
    top, left = row - around[0].start, column - around[1].start
    return found[top : top + ends[0] - row, left : left + ends[1] - column]


def _starts(length: int) -> list[int]:
    """First cells of windows, side by side, or spread evenly where there are too many."""
    count = ceil(length / SAMPLE_CELLS)
    picked = np.linspace(0, count - 1, min(count, SAMPLES)).round().astype(int)
    return (picked * SAMPLE_CELLS).tolist()


def _in_squares(within: NDArray[np.bool_], square: int) -> int:
    """Count the cells of the whole squares that have one of the domain in them."""
    for axis in (0, 1):
        starts = np.arange(0, within.shape[axis], square)
        sizes = np.diff(starts, append=within.shape[axis])
        within = np.logical_or.reduceat(within, starts, axis).repeat(sizes, axis)
    return int(within.sum())


def _mapped(
    population: NDArray[np.floating] | da.Array, window: int
) -> NDArray[np.bool_] | da.Array:
    """Find settled cells, lazily with a halo where the array is Dask's."""
    import dask.array as da

    from popdask.blocks.overlap import add_overlap, merge_thin_chunks

    if not isinstance(population, da.Array):
        return cells_in_domain(population, "settled", window)
    halo = window // 2
    wide = merge_thin_chunks(population, halo)
    haloed, meta = add_overlap(wide, halo, fill=0), np.empty((0,) * wide.ndim, bool)
    return da.map_blocks(_settled, haloed, window=window, chunks=wide.chunks, meta=meta)


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


def rank_cells(
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


def merge_ranked(parts: Sequence[NDArray[np.uint64]], n: int) -> NDArray[np.uint64]:
    """Keep the n lowest of what several blocks kept."""
    return _lowest(np.concatenate(parts, axis=1), n)


def in_order(ranked: NDArray[np.uint64], shape: Sequence[int]) -> NDArray[np.int64]:
    """Indices (n, axes) of ranked cells, the lowest rank first."""
    ranks, index = ranked
    chosen = index[np.argsort(ranks)].astype(np.int64)
    return np.stack(np.unravel_index(chosen, shape), axis=1).astype(np.int64)


def sample_cells(mask: DataArray, n: int, *, seed: int = 0) -> NDArray[np.int64]:
    """Draw cells at random among those that a mask allows: (n, dimensions) of whole numbers.

    Examples
    --------
    >>> mask = DataArray([[True, False], [False, True]], dims=("y", "x"))
    >>> sample_cells(mask, 5).tolist()
    [[0, 0], [1, 1]]
    """
    import dask.array as da

    from popdask.blocks.overlap import as_dask
    from popdask.blocks.sums import first_cells, tree_reduce

    # Eager: one ``dask.compute`` on a graph with about one task per chunk.
    if mask.dtype != bool:
        raise InputError(f"mask holds {mask.dtype}, expected bool; compare it with something first")
    if n < 1:
        raise InputError(f"n is {n}, expected at least 1 cell to draw")
    array = as_dask(mask.transpose(..., "y", "x").data)
    blocks = da.map_blocks(
        _rank_block,
        array,
        first=first_cells(array.chunks),
        shape=array.shape,
        n=n,
        seed=seed,
        meta=np.empty((0,) * array.ndim, object),
    )
    (ranked,) = tree_reduce(blocks, partial(merge_ranked, n=n)).compute()
    return in_order(ranked, array.shape)


def _rank_block(
    mask: NDArray[np.bool_],
    first: Sequence[NDArray[np.int64]],
    block_id: Sequence[int],
    **options: Any,
) -> NDArray[np.uint64]:
    origin = [int(cells[i]) for cells, i in zip(first, block_id, strict=True)]
    return rank_cells(mask, origin, **options)


def gather_windows(
    features: DataArray, cells: NDArray[np.int64], *, size: int = 7, fill: Sequence[float]
) -> NDArray[np.float32]:
    """Read the square windows around some cells."""
    from popdask.blocks.overlap import add_overlap, as_dask, merge_thin_chunks

    # Eager: windows are cut inside the chunks where they lie, and only chunks that hold cells are
    # computed, with a rim of ``size // 2`` cells from their neighbours.
    features = features.transpose(..., "channel", "y", "x")
    if size < 1 or size % 2 == 0:
        raise InputError(f"size is {size}, expected an odd number of cells such as 7")
    if len(fill) != features.sizes["channel"]:
        raise InputError(
            f"fill has {len(fill)} values, expected {features.sizes['channel']}, one per channel"
        )
    array = as_dask(features.data).astype(np.float32)
    cells = _checked(cells, (*array.shape[:-3], *array.shape[-2:]))
    half = size // 2
    array = merge_thin_chunks(array.rechunk({array.ndim - 3: -1}), half)
    haloed = add_overlap(array, half, fill=np.reshape(np.asarray(fill, np.float32), (-1, 1, 1)))
    out = np.empty((len(cells), len(fill), size, size), np.float32)
    chunks = (*array.chunks[:-3], *array.chunks[-2:])

    def block(where: tuple[int, ...]) -> tuple[int, ...]:
        return (*where[:-2], 0, *where[-2:])

    return _collect(partial(_cut, size=size), haloed, block, chunks, cells, out)


def _cut(block: NDArray[np.floating], cells: NDArray[np.int64], size: int) -> NDArray[np.float32]:
    """Cut windows from a block (…, channel, y, x), `cells` being their upper left corners."""
    windows = np.lib.stride_tricks.sliding_window_view(block, (size, size), axis=(-2, -1))
    *frame, y, x = cells.T
    chosen = windows[(*frame, slice(None), y, x)]  # windows first where there are frames
    return chosen if frame else np.moveaxis(chosen, 1, 0)


def gather_cells(values: DataArray, cells: NDArray[np.int64]) -> NDArray:
    """Read the values of some cells, given by their indices (n, dimensions).

    Examples
    --------
    >>> people = DataArray([[3.0, 0.0], [0.0, 7.0]], dims=("y", "x"))
    >>> gather_cells(people, np.array([[0, 0], [1, 1]])).tolist()
    [3.0, 7.0]
    """
    from popdask.blocks.overlap import as_dask

    # Eager: only chunks that hold cells are computed.
    vector = tuple(dim for dim in values.dims if dim == "latent")
    values = values.transpose(..., "y", "x", *vector)
    places = values.ndim - len(vector)
    cells = _checked(cells, values.shape[:places])
    array = as_dask(values.data).rechunk(dict.fromkeys(range(places, values.ndim), -1))
    out = np.empty((len(cells), *values.shape[places:]), values.dtype)

    def block(where: tuple[int, ...]) -> tuple[int, ...]:
        return (*where, *(0 for _ in vector))

    return _collect(_pick, array, block, array.chunks[:places], cells, out)


def _pick(block: NDArray, cells: NDArray[np.int64]) -> NDArray:
    return block[tuple(cells.T)]


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
    from popdask.blocks.sums import first_cells

    starts = first_cells(chunks)
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
    read: Callable[[NDArray, NDArray[np.int64]], NDArray],
    array: da.Array,
    block: Callable[[tuple[int, ...]], tuple[int, ...]],
    chunks: Sequence[Sequence[int]],
    cells: NDArray[np.int64],
    out: NDArray,
) -> NDArray:
    """Read cells from the blocks that hold them, and put the rows into the order of `cells`."""
    import dask.array as da

    from popdask.blocks.sums import in_array

    groups = list(_by_block(chunks, cells))
    if not groups:
        return out
    name = f"gather-{uuid4().hex}"
    graph: dict[Any, Any] = {
        (name, i): (in_array, read, (array.name, *block(where)), local)
        for i, (where, _, local) in enumerate(groups)
    }
    below: list[Any] = [array]
    layers = HighLevelGraph.from_collections(name, graph, dependencies=below)
    parts = da.Array(layers, name, ((1,) * len(groups),), dtype=object).compute()
    for (_, rows, _), part in zip(groups, parts, strict=True):
        out[rows] = part
    return out
