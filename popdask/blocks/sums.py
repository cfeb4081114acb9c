"""Exact sums over blocks, the same in any order and chunks: words, trees, tables by label.

Integers add up to the same number in any order, so a sum of them is identical to the last bit under
any chunking and any number of workers. People, areas and flows are not integers: each value is
written as two, a whole number of 2⁻²⁸ and a remainder counted in 2⁻⁵⁶ (of a person, a km², a cell).
Every float32 from 2⁻³³ to 2³⁴ is such a pair *without rounding*, and the words add up without
rounding too: only the finished sum is turned into float64. A sum may reach 3.4e10, four times the
people on Earth.

What every block tells is added up by a tree, so that no task holds more than a few parts. Sums by
community are sparse tables, one per chunk: one row per key (a community, or a pair of communities
that share cells) and integer columns. Neighbours in a row mostly belong to the same community, so a
chunk is cut into runs of equal keys first, and only the runs are sorted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

import dask.array as da
import numba
import numpy as np
import xarray as xr
from dask.base import tokenize
from dask.highlevelgraph import HighLevelGraph
from numpy.typing import NDArray

from popdask.blocks.overlap import as_dask
from popdask.errors import InputError
from popdask.io.frames import time_text

WORD = 2.0**28
LIMIT = 2.0**34  # what the cells of one chunk may add up to
FAN_IN = 8


@numba.njit(cache=True, nogil=True)
def pair(value: float) -> tuple[np.int64, np.int64]:
    """Write one value as two words; compiled, for loops that are."""
    scaled = value * WORD
    coarse = np.rint(scaled)
    return np.int64(coarse), np.int64(np.rint((scaled - coarse) * WORD))


def to_fixed(values: NDArray[np.floating]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Write values (NaN as 0) as two words of integers, whose sums are exact in any order."""
    known = np.nan_to_num(values.astype(np.float64), nan=0.0, posinf=np.inf, neginf=-np.inf)
    total = np.abs(known).sum()
    if not total <= LIMIT:
        raise InputError(
            f"the cells of one chunk add up to {total:g}, more than {LIMIT:.1e}; people per cell "
            "were expected: check the raster's unit and its nodata value"
        )
    coarse, fine = np.empty(known.shape, np.int64), np.empty(known.shape, np.int64)
    _write(known.reshape(-1), coarse.reshape(-1), fine.reshape(-1))
    return coarse, fine


@numba.njit(cache=True, nogil=True)
def _write(values: NDArray, coarse: NDArray, fine: NDArray) -> None:
    for i in range(len(values)):
        coarse[i], fine[i] = pair(values[i])


def from_fixed(coarse: Any, fine: Any) -> Any:
    """Turn the words of finished sums into float64, of any shape, lazy where they are."""
    return coarse / WORD + fine / WORD**2


def tree_reduce(
    blocks: da.Array,
    add: Callable[[list[Any]], Any],
    *,
    by_frame: bool = False,
    finish: Callable[[Any], Any] | None = None,
) -> da.Array:
    """Add up, lazily, what the blocks of an array are: of each along the first axis, or of all."""
    name = f"sum-{tokenize(blocks.name, add, by_frame, finish)}"
    keys = [(blocks.name, *block) for block in np.ndindex(*blocks.numblocks)]
    frames = blocks.numblocks[0] if by_frame else 1
    each = len(keys) // frames
    graph: dict[Any, Any] = {}
    for frame in range(frames):
        level: list[Any] = keys[frame * each : (frame + 1) * each]
        for depth in count():
            groups = [level[start : start + FAN_IN] for start in range(0, len(level), FAN_IN)]
            if len(groups) == 1:
                break
            level = [("add-" + name, frame, depth, number) for number in range(len(groups))]
            graph |= {key: (add, group) for key, group in zip(level, groups, strict=True)}
        graph[name, frame] = (in_array, _finished, add, finish, level)
    below: list[Any] = [blocks]
    layers = HighLevelGraph.from_collections(name, graph, dependencies=below)
    return da.Array(layers, name, ((1,) * frames,), dtype=object)


def _finished(
    add: Callable[[list[Any]], Any], finish: Callable[[Any], Any] | None, parts: list[Any]
) -> Any:
    return add(parts) if finish is None else finish(add(parts))


def in_array(function: Callable[..., Any], *arguments: Any) -> NDArray:
    """Put what a function gives into an array of one, as Dask puts computed blocks together."""
    whole = np.empty(1, dtype=object)
    whole[0] = function(*arguments)
    return whole


def first_cells(chunks: Iterable[Iterable[int]]) -> list[NDArray[np.int64]]:
    """Where the chunks begin along each axis."""
    return [np.cumsum([0, *sizes], dtype=np.int64)[:-1] for sizes in chunks]


@dataclass(frozen=True)
class LabelSums:
    """Sums by key."""

    keys: np.ndarray  # the keys, int64 (n,), ascending, each once
    sums: np.ndarray  # the sums, int64 (columns, n)

    def reals(self, column: int) -> np.ndarray:
        """Return the value whose two words are ``column`` and the column after it, float64 (n,)."""
        return from_fixed(self.sums[column], self.sums[column + 1])


def pair_keys(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Join two community numbers (≥ 0, below 2³¹) into one int64 key."""
    return (source.astype(np.int64) << 32) | target.astype(np.int64)


def split_keys(keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Undo :func:`pair_keys`: the source and target of every key, int64."""
    return keys >> 32, keys & 0xFFFFFFFF


def tabulate(keys: np.ndarray, columns: Iterable[np.ndarray]) -> LabelSums:
    """Sum integer columns by key, of cells in their order, in which equal keys lie in runs."""
    starts = np.flatnonzero(np.diff(keys, prepend=keys[:1] - 1))
    runs = [np.add.reduceat(column, starts, dtype=np.int64) for column in columns]
    return _collapse(keys[starts], np.stack(runs))


def people_by_label(labels: np.ndarray, people: np.ndarray) -> LabelSums:
    """Tabulate the people of a block by label."""
    inside = labels >= 0
    return tabulate(labels[inside].astype(np.int64), to_fixed(people[inside]))


def people_by_pair(source: np.ndarray, target: np.ndarray, people: np.ndarray) -> LabelSums:
    """Tabulate the cells and the people of a block by the two labels that cells have."""
    shared = (source >= 0) & (target >= 0)
    cells = np.ones(np.count_nonzero(shared), np.int64)
    return tabulate(pair_keys(source[shared], target[shared]), (cells, *to_fixed(people[shared])))


def add_up(tables: list[LabelSums]) -> LabelSums:
    """Add up tables with the same columns."""
    return _collapse(
        np.concatenate([table.keys for table in tables]),
        np.concatenate([table.sums for table in tables], axis=1),
    )


def _collapse(keys: np.ndarray, sums: np.ndarray) -> LabelSums:
    """Join rows of the same key."""
    order = np.argsort(keys)
    keys = keys[order]
    starts = np.flatnonzero(np.diff(keys, prepend=keys[:1] - 1))
    return LabelSums(keys[starts], np.add.reduceat(sums[:, order], starts, axis=1))


def sum_frames(
    kernel: Callable[..., Any],
    *arrays: da.Array,
    add: Callable[[list[Any]], Any] = add_up,
    finish: Callable[[Any], Any] | None = None,
    **options: Any,
) -> da.Array:
    """Call a kernel on every chunk (1, y, x) of arrays, and add up, lazily, by frame."""
    if not len(arrays[0]):
        return da.from_array(np.empty(0, dtype=object), chunks=-1, name=False)
    blocks = _mapped(kernel, arrays, options)
    return tree_reduce(blocks, add, by_frame=True, finish=finish)


def _mapped(
    kernel: Callable[..., Any], arrays: Sequence[da.Array], options: dict[str, Any]
) -> da.Array:
    """Lay a kernel over chunks of one frame, so that Dask fuses it with what reads them."""
    first, *others = (array.rechunk({0: 1}) for array in arrays)
    aligned = [first, *(other.rechunk(first.chunks) for other in others)]
    meta = np.empty((0, 0, 0), dtype=object)
    return da.map_blocks(kernel, *aligned, dtype=object, meta=meta, **options)


def argmax_by_group(group: np.ndarray, other: np.ndarray, *weights: np.ndarray) -> np.ndarray:
    """Mark the heaviest row of a group; the first weight counts most, the lowest `other` last."""
    order = np.lexsort((other, *(-weight for weight in reversed(weights)), group))
    best = np.zeros(len(group), dtype=bool)
    best[order[np.flatnonzero(np.diff(group[order], prepend=-1))]] = True
    return best


def frames_of(community: xr.DataArray, *values: xr.DataArray) -> tuple[np.ndarray, list[da.Array]]:
    """Return the frames' times and the arrays as Dask arrays (time, y, x), checked for one grid."""
    stacks = [_stacked(array) for array in (community, *values)]
    timed = [stack for stack in stacks if "time" in stack.coords] or stacks
    times = timed[0]["time"].to_numpy()
    for stack in stacks:
        same_times = "time" not in stack.coords or np.array_equal(stack["time"].to_numpy(), times)
        if stack.shape != stacks[0].shape or not same_times:
            raise InputError(
                f"{stack.name or 'an array'} has {_extent(stack)} but the communities have "
                f"{_extent(stacks[0])}: bring both to the same frames and grid"
            )
    return times, [as_dask(stack.data, "auto") for stack in stacks]


def _stacked(array: xr.DataArray) -> xr.DataArray:
    stack = array if "time" in array.dims else array.expand_dims("time")
    if set(stack.dims) != {"time", "y", "x"}:
        raise InputError(
            f"{array.name or 'an array'} has the dimensions {tuple(array.dims)}; "
            "(time, y, x) or (y, x) was expected: rename or select them"
        )
    return stack.transpose("time", "y", "x")


def _extent(stack: xr.DataArray) -> str:
    frames, rows, columns = stack.shape
    times = ", ".join(time_text(time) for time in stack["time"].to_numpy())
    return f"{frames} frames ({times}) of {rows} × {columns} cells"
