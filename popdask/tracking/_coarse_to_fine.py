"""Flow across many cells: whole cells by matching, coarse to fine; fractions by Horn & Schunck.

The first work's scheme sees a motion only where it is smaller than what moves. Here the squares of
a frame are matched with the other frame through a pyramid (:mod:`popdask.tracking._matching`), and
the scheme iterates on frames that are warped by what was found (:mod:`popdask.tracking._warped`).

Horn & Schunck at every scale instead was tried: smoothness across empty land lets towns that move
differently drag one another (45 % of their cells within a quarter of a cell, against 99 %).
"""

from __future__ import annotations

from collections.abc import Sequence

import dask.array as da
import numpy as np
from numpy.typing import NDArray

from popdask.tracking._horn_schunck import Differences
from popdask.tracking._matching import halo, reach, whole_cells
from popdask.tracking._warped import STEP, refine
from popdask.tracking.halo import roomy, with_halo
from popdask.tracking.reduction import first_cells

WARPS = 2


def bound(scales: int) -> int:
    """Give the cells per frame that the flow of so many scales cannot exceed.

    Examples
    --------
    >>> [bound(scales) for scales in (2, 3, 4)]
    [8, 16, 32]
    """
    return reach(scales) + int(np.ceil(WARPS * STEP))


def _core(
    shape: Sequence[int], depth: int, block: Sequence[int], last: Sequence[int]
) -> tuple[int, int, int, int]:
    """Find a block's own cells within it and its halo, which the raster's border has none of."""
    rows, columns = (
        (depth if at else 0, size - (depth if at < end else 0))
        for size, at, end in zip(shape[-2:], block[-2:], last, strict=True)
    )
    return *rows, *columns


def _whole_block(
    before: NDArray,
    after: NDArray,
    *,
    offsets: tuple[int, int],
    scales: int,
    starts: Sequence[NDArray[np.int64]],
    block_id: Sequence[int],
) -> NDArray[np.float32]:
    """Match a block: whole cells (1, 2, y, x) from frames (1, 1, y, x) with rims."""
    last = [len(axis) - 1 for axis in starts]
    core = _core(before.shape, halo(scales), block_id, last)
    at = [int(axis[i]) for axis, i in zip(starts, block_id[2:], strict=True)]
    origin = at[0] - core[0], at[1] - core[2]
    return whole_cells(before[0, 0], after[0, 0], origin, core, offsets, scales)[None]


def _refined_block(
    before: NDArray,
    after: NDArray,
    flow: NDArray[np.float32],
    *,
    offsets: tuple[int, int],
    differences: Differences,
    alpha: float,
    iterations: int,
    depth: int,
    last: Sequence[int],
    block_id: Sequence[int],
) -> NDArray[np.float32]:
    """Refine a block: flow (1, 2, y, x) of its own cells, from what has rims."""
    core = _core(before.shape, depth, block_id, last)
    frames = before[0, 0], after[0, 0]
    return refine(*frames, flow[0], offsets, differences, alpha, iterations, core)[None]


def coarse_to_fine(
    before: da.Array,
    after: da.Array,
    offsets: tuple[int, int],
    differences: Differences,
    *,
    scales: int,
    alpha: float,
    iterations: int,
) -> da.Array:
    """Give the flow (time, 2, y, x) between frames (time, y, x) in chunks of one frame."""
    rim = iterations + bound(scales) + 3  # warped reading, gradients and the iterations
    depth = max(halo(scales), rim)
    before, after = roomy(before, depth), roomy(after, depth)
    chunks = before.chunks[1:]
    meta = np.empty((0, 0, 0, 0), np.float32)
    shape = {"chunks": (before.chunks[0], (2,), *chunks), "dtype": np.float32, "meta": meta}
    far = [with_halo(frames, halo(scales))[:, None] for frames in (before, after)]
    flow = da.map_blocks(
        _whole_block, *far, offsets=offsets, scales=scales, starts=first_cells(chunks), **shape
    )
    near = [with_halo(frames, rim)[:, None] for frames in (before, after)]
    for _ in range(WARPS):
        flow = da.map_blocks(
            _refined_block,
            *near,
            with_halo(flow, rim),
            offsets=offsets,
            differences=differences,
            alpha=alpha,
            iterations=iterations,
            depth=rim,
            last=[len(sizes) - 1 for sizes in chunks],
            **shape,
        )
    return flow
