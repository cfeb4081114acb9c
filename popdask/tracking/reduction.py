"""What every block tells, added up by a tree, so that no task holds more than a few parts."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import count
from typing import Any

import dask.array as da
import numpy as np
from dask.base import tokenize
from dask.highlevelgraph import HighLevelGraph
from numpy.typing import NDArray

FAN_IN = 8


def add_blocks(
    blocks: da.Array,
    add: Callable[[list[Any]], Any],
    *,
    by_frame: bool = False,
    finish: Callable[[Any], Any] | None = None,
) -> da.Array:
    """Add up what the blocks of an array are.

    Parameters
    ----------
    blocks : dask.array.Array
        Its blocks may be anything, such as the results of a function given to ``map_blocks``.
    add : callable
        Gives the sum of a list of blocks, or of sums. It is called in a tree.
    by_frame : bool, optional
        Whether each block along the first axis has a sum of its own.
    finish : callable, optional
        What is made of a sum in the end.

    Returns
    -------
    dask.array.Array of object, (sums,)
        Lazy. Arrays that are computed together share what they need.

    Examples
    --------
    >>> blocks = da.ones((2, 6), chunks=(1, 2)).map_blocks(np.sum, dtype=object, meta=np.empty(0))
    >>> add_blocks(blocks, sum, finish=int).compute().tolist()
    [12]
    >>> add_blocks(blocks, sum, by_frame=True, finish=int).compute().tolist()
    [6, 6]
    """
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
    """Where the chunks begin along each axis.

    Examples
    --------
    >>> first_cells([(3, 3, 1)])
    [array([0, 3, 6])]
    """
    return [np.cumsum([0, *sizes], dtype=np.int64)[:-1] for sizes in chunks]
