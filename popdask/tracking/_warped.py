"""Horn & Schunck's iteration around a flow that is known already: fractions of a cell.

Both frames are read where the flow takes each cell, so that what is left to explain is small. The
brightness constraint then speaks of the difference to that flow, E_x (u − u₀) + E_y (v − v₀) + E_t
= 0, while smoothness is asked of the whole flow. A cell whose way leaves the raster sees no change.

Everything is computed cell by cell in one order, so that it does not depend on the block.
"""

import numba
import numpy as np
from numpy.typing import NDArray

from popdask.tracking._horn_schunck import Differences, Window, _gradient_row, _mean, _update

STEP = 0.5  # cells: no iteration leaves the flow that it is given further than this

_compiled = numba.njit(cache=True, nogil=True, error_model="numpy")


@_compiled
def _read(frame: NDArray, y: float, x: float) -> float:
    """Read a frame between its cells; NaN beyond it."""
    height, width = frame.shape
    if not (0 <= y <= height - 1 and 0 <= x <= width - 1):
        return np.nan
    j, i = int(y), int(x)
    down, right = y - j, x - i
    below, beside = min(j + 1, height - 1), min(i + 1, width - 1)
    upper = frame[j, i] * (1 - right) + frame[j, beside] * right
    lower = frame[below, i] * (1 - right) + frame[below, beside] * right
    return upper * (1 - down) + lower * down


@_compiled
def _warp(
    before: NDArray, after: NDArray, flow: NDArray, offsets: tuple[int, int], warped: NDArray
) -> None:
    """Write both frames (2, y, x) as they are where the flow takes each cell."""
    earlier, later = offsets
    height, width = before.shape
    for y in range(height):
        for x in range(width):
            u, v = np.float64(flow[0, y, x]), np.float64(flow[1, y, x])
            was = _read(before, y + earlier * v, x + earlier * u)
            will = _read(after, y + later * v, x + later * u)
            if not (was == was and will == will):
                was = will = before[y, x]
            warped[0, y, x], warped[1, y, x] = was, will


@_compiled
def _gradients(frames: NDArray, flow: NDArray, differences: Differences) -> NDArray:
    """Differences (3, y, x) of warped frames; the last is what a flow at rest would leave."""
    height, width = frames[0].shape
    gradients = np.empty((height, 3, width), np.float32)
    rows = np.empty((3, width + 2), np.float64)
    for y in range(height):
        _gradient_row(frames[0], frames[1], y, differences, rows, gradients[y])
        e_x, e_y, e_t = gradients[y]
        for x in range(width):
            e_t[x] -= e_x[x] * flow[0, y, x] + e_y[x] * flow[1, y, x]
    return gradients


@_compiled
def _iterate(gradients: NDArray, flow: NDArray, smoothness: np.float32, result: NDArray) -> None:
    """Update every cell of a flow once."""
    height, width = flow.shape[1:]
    for y in range(height):
        above, below = max(y - 1, 0), min(y + 1, height - 1)
        e_x, e_y, e_t = gradients[y]
        for x in range(width):
            left, right = max(x - 1, 0), min(x + 1, width - 1)
            mean_u = _mean(flow[0, above], flow[0, y], flow[0, below], left, x, right)
            mean_v = _mean(flow[1, above], flow[1, y], flow[1, below], left, x, right)
            moved = _update(e_x[x], e_y[x], e_t[x], mean_u, mean_v, smoothness)
            result[0, y, x], result[1, y, x] = moved


def refine(
    before: NDArray[np.floating],
    after: NDArray[np.floating],
    flow: NDArray[np.float32],
    offsets: tuple[int, int],
    differences: Differences,
    alpha: float,
    iterations: int,
    core: Window,
) -> NDArray[np.float32]:
    """Flow (2, y, x) of the core window after some iterations around the one that is given."""
    warped = np.empty((2, *before.shape), np.float32)
    _warp(before, after, flow, offsets, warped)
    gradients = _gradients(warped, flow, differences)
    now, spare = flow.copy(), np.empty_like(flow)
    for _ in range(iterations):
        _iterate(gradients, now, np.float32(alpha * alpha), spare)
        now, spare = spare, now
    top, bottom, left, right = core
    window = slice(None), slice(top, bottom), slice(left, right)
    change = np.clip(now[window] - flow[window], -STEP, STEP)
    return flow[window] + change
