"""One frame of Horn & Schunck's flow: a compiled sweep down the rows of two frames.

The iterations follow one another down the frame like waves, each a row behind the one before, which
is all that it needs to have passed: three rows per iteration stay in the cache, and memory is read
and written once whatever their number.

Differences are taken in float64, where large neighbours cancel; everything else is float32, whose
rounding is small against the flow itself. Every cell sees the same operations in the same order
wherever it lies in a block, so that its result does not depend on the block.
"""

import numba
import numpy as np
from numpy.typing import NDArray

Differences = tuple[int, int, int, int, float]
"""Lower and upper offset along x, along y, and the number of frames between the two frames."""

Window = tuple[int, int, int, int]
"""First row, row after the last, first column, column after the last."""

TWELFTH = np.float32(1 / 12)

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
def _mean_row(above: NDArray, here: NDArray, below: NDArray, rows: NDArray, mean: NDArray) -> None:
    """Write the mean of the eight neighbours: 1/6 of those beside, 1/12 of those at corners."""
    width = here.size
    beside, across = rows[0], rows[1]
    for x in range(width):
        beside[x + 1] = here[x]
        across[x + 1] = above[x] + below[x]
    _pad(beside)
    _pad(across)
    left, right = beside[:width], beside[2:]
    corners_left, middle, corners_right = across[:width], across[1:], across[2:]
    for x in range(width):
        edges = middle[x] + (left[x] + right[x])
        mean[x] = (edges + edges + (corners_left[x] + corners_right[x])) * TWELFTH


@_compiled
def _mean_rows(
    flow: NDArray, above: int, here: int, below: int, rows: NDArray, mean: NDArray
) -> None:
    """Write the means of u and v, from three rows of flow (2, y, x), into mean (2, x)."""
    for component in range(2):
        field = flow[component]
        _mean_row(field[above], field[here], field[below], rows, mean[component])


@_compiled
def _update_row(
    gradient: NDArray, mean: NDArray, columns: slice, alpha: float, u: NDArray, v: NDArray
) -> None:
    """Write u and v of a row's columns: the means, moved towards the brightness constraint."""
    e_x, e_y, e_t = gradient[0, columns], gradient[1, columns], gradient[2, columns]
    mean_u, mean_v = mean[0, columns], mean[1, columns]
    smoothness = np.float32(alpha * alpha)
    for x in range(u.size):
        miss = e_x[x] * mean_u[x] + e_y[x] * mean_v[x] + e_t[x]
        step = miss / (smoothness + e_x[x] * e_x[x] + e_y[x] * e_y[x])
        u[x] = mean_u[x] - e_x[x] * step
        v[x] = mean_v[x] - e_y[x] * step


@_compiled
def _sweep(
    before: NDArray,
    after: NDArray,
    start: NDArray,
    differences: Differences,
    alpha: float,
    iterations: int,
    core: Window,
    result: NDArray,
) -> None:
    """Write the core of the flow after some iterations on start, or on rest where that is empty."""
    top, bottom, left, right = core
    height, width = before.shape
    gradients = np.empty((iterations, 3, width), np.float32)
    rings = np.empty((iterations, 2, 3, width), np.float32)
    sums, rows = np.empty((3, width + 2), np.float64), np.empty((2, width + 2), np.float32)
    mean = np.zeros((2, width), np.float32)
    for front in range(height + iterations - 1):
        for i in range(max(0, front - height + 1), min(iterations, front + 1)):
            y = front - i
            above, below = max(y - 1, 0), min(y + 1, height - 1)
            gradient = gradients[y % iterations]
            if i == 0:
                _gradient_row(before, after, y, differences, sums, gradient)
            if i > 0:
                _mean_rows(rings[i - 1], above % 3, y % 3, below % 3, rows, mean)
            elif start.size > 0:
                _mean_rows(start, above, y, below, rows, mean)
            else:
                mean[:] = 0
            if i < iterations - 1:
                u, v = rings[i, 0, y % 3], rings[i, 1, y % 3]
                _update_row(gradient, mean, slice(0, width), alpha, u, v)
            elif top <= y < bottom:
                u, v = result[0, y - top], result[1, y - top]
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
    top, bottom, left, right = core
    # NumPy's large arrays lie on huge pages; Numba's own would not, and take four times as long.
    result = np.empty((2, bottom - top, right - left), np.float32)
    before, after = np.ascontiguousarray(before), np.ascontiguousarray(after)
    start = np.empty((2, 0, 0), np.float32) if start is None else np.ascontiguousarray(start)
    _sweep(before, after, start, differences, alpha, iterations, core, result)
    return result
