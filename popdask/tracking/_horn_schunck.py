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

Number = float | np.floating

TWELFTH = np.float32(1 / 12)

# Division is NumPy's (never by zero, as α² > 0): Python's check would keep loops from vectorizing.
_compiled = numba.njit(cache=True, nogil=True, error_model="numpy")


@_compiled
def _people(cell: float, other: float) -> float:
    """Read no data as what the other frame has there: as nobody where neither knows."""
    return np.float64(cell) if cell == cell else np.float64(other) if other == other else 0.0


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
    total, downward, gain = rows[0, 1:], rows[1, 1:], rows[2, 1:]
    for x in range(width):
        a = _people(upper_before[x], upper_after[x])
        b = _people(upper_after[x], upper_before[x])
        c = _people(lower_before[x], lower_after[x])
        d = _people(lower_after[x], lower_before[x])
        total[x] = (a + b) + (c + d)
        downward[x] = (c + d) - (a + b)
        gain[x] = (b - a) + (d - c)
    for row in rows:
        row[0], row[-1] = row[1], row[-2]
    lefts, rights = slice(1 + left, 1 + left + width), slice(1 + right, 1 + right + width)
    total_left, total_right = rows[0, lefts], rows[0, rights]
    downward_left, downward_right = rows[1, lefts], rows[1, rights]
    gain_left, gain_right = rows[2, lefts], rows[2, rights]
    per_x, per_y, per_t = 0.25 / (right - left), 0.25 / (down - up), 0.25 / frames
    e_x, e_y, e_t = gradient[0], gradient[1], gradient[2]
    for x in range(width):
        e_x[x] = (total_right[x] - total_left[x]) * per_x
        e_y[x] = (downward_right[x] + downward_left[x]) * per_y
        e_t[x] = (gain_right[x] + gain_left[x]) * per_t


@_compiled
def _mean(
    above: NDArray, here: NDArray, below: NDArray, left: int, middle: int, right: int
) -> float:
    """Mean of the neighbours in three rows: 1/6 of those beside, 1/12 of those at corners."""
    edges = (above[middle] + below[middle]) + (here[left] + here[right])
    corners = (above[left] + below[left]) + (above[right] + below[right])
    return (edges + edges + corners) * TWELFTH


@_compiled
def _update(
    e_x: Number, e_y: Number, e_t: Number, mean_u: Number, mean_v: Number, smoothness: Number
) -> tuple[Number, Number]:
    """Move a cell's means towards the brightness constraint."""
    miss = e_x * mean_u + e_y * mean_v + e_t
    step = miss / (smoothness + e_x * e_x + e_y * e_y)
    return mean_u - e_x * step, mean_v - e_y * step


@_compiled
def _update_row(
    gradient: NDArray,
    flow: NDArray,
    rows: tuple[int, int, int],
    columns: tuple[int, int],
    smoothness: Number,
    u: NDArray,
    v: NDArray,
) -> None:
    """Write u and v of a row's columns, from three rows of flow (2, y, x)."""
    above, here, below = rows
    first, last = columns
    e_x, e_y, e_t = gradient[0], gradient[1], gradient[2]
    u_rows = flow[0, above], flow[0, here], flow[0, below]
    v_rows = flow[1, above], flow[1, here], flow[1, below]
    end = e_x.size - 1
    for x in (0, end):
        if first <= x < last:
            around = max(x - 1, 0), x, min(x + 1, end)
            mean_u, mean_v = _mean(*u_rows, *around), _mean(*v_rows, *around)
            moved = _update(e_x[x], e_y[x], e_t[x], mean_u, mean_v, smoothness)
            u[x - first], v[x - first] = moved
    # All others have two neighbours in their row. Shifted slices, unlike clipped indices, let the
    # loop vectorize.
    start = max(first, 1)
    e_x, e_y, e_t = e_x[start:], e_y[start:], e_t[start:]
    u, v = u[start - first :], v[start - first :]
    near = slice(start - 1, None)
    u_above, u_here, u_below = flow[0, above, near], flow[0, here, near], flow[0, below, near]
    v_above, v_here, v_below = flow[1, above, near], flow[1, here, near], flow[1, below, near]
    for x in range(min(last, end) - start):
        mean_u = _mean(u_above, u_here, u_below, x, x + 1, x + 2)
        mean_v = _mean(v_above, v_here, v_below, x, x + 1, x + 2)
        u[x], v[x] = _update(e_x[x], e_y[x], e_t[x], mean_u, mean_v, smoothness)


@_compiled
def _start_row(
    gradient: NDArray, columns: tuple[int, int], smoothness: Number, u: NDArray, v: NDArray
) -> None:
    """Write u and v of a row's columns after the first update of a flow at rest."""
    first, last = columns
    e_x, e_y, e_t = gradient[0, first:last], gradient[1, first:last], gradient[2, first:last]
    rest = np.float32(0)
    for x in range(last - first):
        u[x], v[x] = _update(e_x[x], e_y[x], e_t[x], rest, rest, smoothness)


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
    sums = np.empty((3, width + 2), np.float64)
    smoothness = np.float32(alpha * alpha)
    for front in range(height + iterations - 1):
        for i in range(max(0, front - height + 1), min(iterations, front + 1)):
            y = front - i
            above, below = max(y - 1, 0), min(y + 1, height - 1)
            gradient = gradients[y % iterations]
            if i == 0:
                _gradient_row(before, after, y, differences, sums, gradient)
            if i < iterations - 1:
                columns, u, v = (0, width), rings[i, 0, y % 3], rings[i, 1, y % 3]
            elif top <= y < bottom:
                columns, u, v = (left, right), result[0, y - top], result[1, y - top]
            else:
                continue
            if i > 0:
                rows = above % 3, y % 3, below % 3
                _update_row(gradient, rings[i - 1], rows, columns, smoothness, u, v)
            elif start.size > 0:
                _update_row(gradient, start, (above, y, below), columns, smoothness, u, v)
            else:
                _start_row(gradient, columns, smoothness, u, v)


def iterate(
    before: NDArray[np.floating],
    after: NDArray[np.floating],
    start: NDArray[np.float32] | None,
    differences: Differences,
    alpha: float,
    iterations: int,
    core: Window,
) -> NDArray[np.float32]:
    """Flow (2, y, x) between two frames (y, x) after some iterations, of the core window alone."""
    # The iteration starts from `start` (2, y, x), or from rest. Beyond the frames' borders their
    # edges are replicated.
    top, bottom, left, right = core
    # NumPy's large arrays lie on huge pages; Numba's own would not, and take four times as long.
    result = np.empty((2, bottom - top, right - left), np.float32)
    before, after = np.ascontiguousarray(before), np.ascontiguousarray(after)
    start = np.empty((2, 0, 0), np.float32) if start is None else np.ascontiguousarray(start)
    _sweep(before, after, start, differences, alpha, iterations, core, result)
    return result
