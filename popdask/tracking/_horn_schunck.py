"""One frame of Horn & Schunck's flow: the compiled sweeps down the rows of two frames.

A row is differenced, averaged and updated while it is at hand: in float64 within a cell, whose
squared differences reach 1e10, in float32 between sweeps. Every cell sees the same operations in
the same order wherever it lies in a block, so that its result does not depend on the block.
"""

import numba
import numpy as np
from numpy.typing import NDArray

Differences = tuple[int, int, int, int, float]
"""Lower and upper offset along x, along y, and the number of frames between the two frames."""

Window = tuple[int, int, int, int]
"""First row, row after the last, first column, column after the last."""

TWELFTH = 1 / 12

# Division is NumPy's (never by zero, as α² > 0): Python's check would keep loops from vectorizing.
_compiled = numba.njit(cache=True, nogil=True, error_model="numpy")


@_compiled
def _people(cell: float) -> float:
    """Read no data as nobody."""
    return np.float64(cell) if cell == cell else 0.0


@_compiled
def _pad(row: NDArray) -> None:
    """Replicate a row's edges into its first and last place."""
    row[0], row[-1] = row[1], row[-2]


@_compiled
def _gradient_row(
    before: NDArray,
    after: NDArray,
    y: int,
    differences: Differences,
    rows: NDArray,
    gradient: NDArray,
) -> None:
    """Write E_x, E_y and E_t of row y into gradient (3, x); rows (3, x + 2) is for scratch."""
    left, right, up, down, frames = differences
    height, width = before.shape
    upper, lower = max(y + up, 0), min(y + down, height - 1)
    upper_before, upper_after = before[upper], after[upper]
    lower_before, lower_after = before[lower], after[lower]
    total, downward, gain = rows[0], rows[1], rows[2]
    for x in range(width):
        a, b = _people(upper_before[x]), _people(upper_after[x])
        c, d = _people(lower_before[x]), _people(lower_after[x])
        total[x + 1] = (a + b) + (c + d)
        downward[x + 1] = (c + d) - (a + b)
        gain[x + 1] = (b - a) + (d - c)
    _pad(total)
    _pad(downward)
    _pad(gain)
    per_x, per_y, per_t = 0.25 / (right - left), 0.25 / (down - up), 0.25 / frames
    from_left, from_right = slice(1 + left, 1 + left + width), slice(1 + right, 1 + right + width)
    _weighted_sum(total[from_right], total[from_left], per_x, -per_x, gradient[0])
    _weighted_sum(downward[from_right], downward[from_left], per_y, per_y, gradient[1])
    _weighted_sum(gain[from_right], gain[from_left], per_t, per_t, gradient[2])


@_compiled
def _weighted_sum(a: NDArray, b: NDArray, weight_a: float, weight_b: float, out: NDArray) -> None:
    for x in range(out.size):
        out[x] = a[x] * weight_a + b[x] * weight_b


@_compiled
def _mean_row(field: NDArray, y: int, rows: NDArray, mean: NDArray) -> None:
    """Write the mean of the eight neighbours, 1/6 for edges and 1/12 for corners, of row y."""
    height, width = field.shape
    above, here, below = field[max(y - 1, 0)], field[y], field[min(y + 1, height - 1)]
    beside, across = rows[0], rows[1]
    for x in range(width):
        beside[x + 1] = here[x]
        across[x + 1] = np.float64(above[x]) + np.float64(below[x])
    _pad(beside)
    _pad(across)
    left, right = beside[:width], beside[2:]
    corners_left, middle, corners_right = across[:width], across[1:], across[2:]
    for x in range(width):
        edges = middle[x] + (left[x] + right[x])
        mean[x] = (2.0 * edges + (corners_left[x] + corners_right[x])) * TWELFTH


@_compiled
def _update_row(
    gradient: NDArray, mean: NDArray, columns: slice, alpha: float, u: NDArray, v: NDArray
) -> None:
    """Write u and v of a row's columns: the means, moved towards the brightness constraint."""
    e_x, e_y, e_t = gradient[0, columns], gradient[1, columns], gradient[2, columns]
    mean_u, mean_v = mean[0, columns], mean[1, columns]
    for x in range(u.size):
        a, b = np.float64(e_x[x]), np.float64(e_y[x])
        miss = a * mean_u[x] + b * mean_v[x] + np.float64(e_t[x])
        step = miss / (alpha * alpha + a * a + b * b)
        u[x] = mean_u[x] - a * step
        v[x] = mean_v[x] - b * step


@_compiled
def _sweep(
    frames: tuple[NDArray, NDArray],
    differences: Differences,
    first: bool,
    gradients: NDArray,
    flow: NDArray,
    alpha: float,
    window: Window,
    updated: NDArray,
) -> None:
    """Write one iteration on flow (2, y, x), or on rest where that is empty, into updated.

    The first sweep fills gradients (y, 3, x); if those have but one row, nothing is kept for later.
    """
    before, after = frames
    top, bottom, left, right = window
    width = before.shape[1]
    rows, mean = np.empty((3, width + 2)), np.zeros((2, width))
    for y in range(top, bottom):
        gradient = gradients[y if len(gradients) > 1 else 0]
        if first:
            _gradient_row(before, after, y, differences, rows, gradient)
        if flow.size > 0:
            _mean_row(flow[0], y, rows, mean[0])
            _mean_row(flow[1], y, rows, mean[1])
        u, v = updated[0, y - top], updated[1, y - top]
        _update_row(gradient, mean, slice(left, right), alpha, u, v)


def iterate(
    before: NDArray[np.floating],
    after: NDArray[np.floating],
    start: NDArray[np.float32] | None,
    differences: Differences,
    alpha: float,
    iterations: int,
    core: Window,
) -> NDArray[np.float32]:
    """Flow (2, y, x) between two frames (y, x) after some iterations, of the core window alone.

    The iteration starts from `start` (2, y, x), or from rest. Beyond the frames' borders their
    edges are replicated.
    """
    height, width = before.shape
    top, bottom, left, right = core
    # NumPy's large arrays lie on huge pages; Numba's own would not, and take four times as long.
    gradients = np.empty((height if iterations > 1 else 1, 3, width), np.float32)
    buffers = [np.empty((2, height, width), np.float32) for _ in range(min(iterations - 1, 2))]
    result = np.empty((2, bottom - top, right - left), np.float32)
    frames = np.ascontiguousarray(before), np.ascontiguousarray(after)
    flow = np.empty((2, 0, 0), np.float32) if start is None else np.ascontiguousarray(start)
    for i in range(iterations - 1):
        whole, updated = (0, height, 0, width), buffers[i % 2]
        _sweep(frames, differences, i == 0, gradients, flow, alpha, whole, updated)
        flow = updated
    _sweep(frames, differences, iterations == 1, gradients, flow, alpha, core, result)
    return result
