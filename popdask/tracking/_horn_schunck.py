"""Horn & Schunck on one frame, and around whole cells that squares were matched by.

On one scale a compiled sweep passes down the rows of two frames. Iterations follow one another like
waves, each a row behind the one before, which is all that it needs to have passed: three rows per
iteration stay in the cache, and memory is read and written once whatever their number. Differences
are taken in float64, where large neighbours cancel; everything else is float32, whose rounding is
small against the flow itself.

The first work's scheme sees a motion only where it is smaller than what moves, so whole cells are
found first. A pyramid halves both frames again and again by the mean of 2 × 2 cells. At its top
every square of 4 × 4 cells is compared, together with the cells around it, with the other frame at
all shifts of up to 3 cells; each finer scale starts from twice that and looks one cell around, and
whether nothing moved: a town that moves must not carry away the land around it. What differs is
added up as it is, not squared, so that a town that changed does not outvote those that did not, and
a square leaves the shift that it came with only for one that is clearly better.

Fractions of a cell follow by Horn & Schunck's iteration around that flow: both frames are read
where it takes each cell, so that what is left to explain is small. The brightness constraint then
speaks of the difference to that flow, E_x (u − u₀) + E_y (v − v₀) + E_t = 0, while smoothness is
asked of the whole flow. A cell whose way leaves the raster sees no change. Horn & Schunck at every
scale instead was tried: smoothness across empty land lets towns that move differently drag one
another (45 % of their cells within a quarter of a cell, against 99 %).

Squares lie on the grid's origin, all that a cell's shift depends on is within `halo` cells, and
everything is computed cell by cell in one order: the flow does not depend on the block.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from numbers import Integral

import dask.array as da
import numba
import numpy as np
from numpy.typing import NDArray

from popdask.blocks.overlap import add_overlap, merge_thin_chunks, own_cells
from popdask.blocks.sums import first_cells
from popdask.errors import InputError
from popdask.tracking import WIDEST_RIM

Differences = tuple[int, int, int, int, float]
"""Lower and upper offset along x, along y, and the number of frames between the two frames."""

Window = tuple[int, int, int, int]
"""First row, row after the last, first column, column after the last."""

Number = float | np.floating

TWELFTH = np.float32(1 / 12)
SQUARE = 4  # cells of a scale along a side
AROUND = 8  # cells of a scale that are compared on each side of a square
TOP = 3  # cells of the coarsest scale that are searched on each side
CLEAR = 0.95  # of the difference that a square came with
WARPS = 2  # times that frames are read where the flow takes each cell
STEP = 0.5  # cells: no iteration leaves the flow that it is given further than this

OFFSETS = {-1: (-1, 0), 0: (-1, 1), 1: (0, 1)}
MOST_SCALES = 6


@dataclass(frozen=True)
class Scheme:
    """The settings of the flow, checked."""

    iterations: int
    """Updates of the whole field, at least 1."""
    alpha: float
    """Weight of smoothness, in people per cell, from 1e-9 to 1e9."""
    centering: Sequence[int]
    """Where differences along x, y and time are taken: −1 behind, 0 around, +1 ahead."""
    scales: int = 1
    """Scales of the pyramid, from 1 (none) to 6."""
    log: bool = False
    """Whether log(1 + people) is looked at."""

    @classmethod
    def of(
        cls,
        iterations: int | None,
        alpha: float | None,
        centering: Sequence[int],
        scales: int,
        log: bool,
    ) -> Scheme:
        """Fill in what was left to the number of scales."""
        if iterations is None:
            iterations = 1 if scales == 1 else 30
        if alpha is None:
            alpha = 10.0 if scales == 1 or not log else 2.0
        return cls(iterations, float(alpha), tuple(centering), scales, log)

    def __post_init__(self) -> None:
        if not (isinstance(self.iterations, Integral) and self.iterations >= 1):
            raise InputError(
                f"iterations is {self.iterations!r}, expected a whole number from 1 up"
            )
        if not 1e-9 <= self.alpha <= 1e9:  # Its square must fit into float32.
            raise InputError(f"alpha is {self.alpha}, expected people between 1e-9 and 1e9, as 10")
        if len(self.centering) != 3 or not set(self.centering) <= set(OFFSETS):
            raise InputError(
                f"centering is {self.centering}, expected -1, 0 or 1 for each of (x, y, time)"
            )
        if not (isinstance(self.scales, Integral) and 1 <= self.scales <= MOST_SCALES):
            raise InputError(
                f"scales is {self.scales!r}, expected a whole number from 1 to {MOST_SCALES}; 3 "
                "finds motions of up to 16 cells per frame"
            )

    @property
    def offsets(self) -> tuple[int, int]:
        """How many frames the earlier and the later one lie from the time that is asked about."""
        return OFFSETS[self.centering[2]]

    @property
    def rim(self) -> int:
        """Cells that a block borrows from its neighbours: the iterations between two exchanges."""
        return ceil(self.iterations / ceil(self.iterations / WIDEST_RIM))

    @property
    def differences(self) -> Differences:
        """Offsets of the differences along x and y, and the number of frames between two."""
        (left, right), (up, down), (earlier, later) = (OFFSETS[c] for c in self.centering)
        return left, right, up, down, float(later - earlier)


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


def reach(scales: int) -> int:
    """Return the largest shift that is found, in cells."""
    return TOP * 2 ** (scales - 1) + 2 ** (scales - 1) - 1


def halo(scales: int) -> int:
    """Return the cells around a cell that its shift depends on."""
    return 2 ** (scales - 1) * (SQUARE + AROUND + 1 + TOP)


def _candidates(most: int) -> NDArray[np.int64]:
    """List the shifts (dy, dx) up to so many cells, the nearest first."""
    line = np.arange(-most, most + 1)
    shifts = np.stack(np.meshgrid(line, line, indexing="ij"), axis=-1).reshape(-1, 2)
    return shifts[np.argsort((shifts**2).sum(axis=1), kind="stable")]


@_compiled
def _halved(frame: NDArray) -> NDArray:
    """Mean of 2 × 2 cells; nobody lives beyond the end."""
    height, width = frame.shape
    coarse = np.zeros(((height + 1) // 2, (width + 1) // 2), np.float32)
    for y in range(height):
        for x in range(width):
            coarse[y // 2, x // 2] += frame[y, x] * np.float32(0.25)
    return coarse


@_compiled
def _inhabited(frame: NDArray, rows: tuple[int, int], columns: tuple[int, int]) -> bool:
    for y in range(*rows):
        for x in range(*columns):
            if frame[y, x] != 0:
                return True
    return False


@_compiled
def _at(frame: NDArray, y: int, x: int) -> float:
    """Read a cell; nobody lives beyond the frame."""
    inside = 0 <= y < frame.shape[0] and 0 <= x < frame.shape[1]
    return np.float64(frame[y, x]) if inside else 0.0


@_compiled
def _difference(
    before: NDArray,
    after: NDArray,
    rows: tuple[int, int],
    columns: tuple[int, int],
    shift: tuple[int, int],
    offsets: tuple[int, int],
    most: float,
) -> float:
    """Add up the differences between cells; the frames share the shift by their offsets in time."""
    earlier, later = offsets
    back_y = shift[0] * -earlier // (later - earlier)
    back_x = shift[1] * -earlier // (later - earlier)
    ahead_y, ahead_x = shift[0] - back_y, shift[1] - back_x
    total = 0.0
    for y in range(*rows):
        for x in range(*columns):
            total += abs(_at(before, y - back_y, x - back_x) - _at(after, y + ahead_y, x + ahead_x))
        if total >= most:  # It can only grow.
            break
    return total


@_compiled
def _match(
    before: NDArray,
    after: NDArray,
    first: tuple[int, int],
    start: NDArray,
    candidates: NDArray,
    offsets: tuple[int, int],
    shifts: NDArray,
) -> None:
    """Write the shift (squares, squares, 2) of each square, searched around where it starts."""
    height, width = before.shape
    for j in range(shifts.shape[0]):
        top = first[0] + j * SQUARE
        rows = max(top - AROUND, 0), min(top + SQUARE + AROUND, height)
        for i in range(shifts.shape[1]):
            left = first[1] + i * SQUARE
            columns = max(left - AROUND, 0), min(left + SQUARE + AROUND, width)
            y, x = start[j, i, 0], start[j, i, 1]
            shifts[j, i, 0], shifts[j, i, 1] = y, x
            if not _inhabited(before, rows, columns) and not _inhabited(after, rows, columns):
                continue
            best = np.inf
            for k in range(len(candidates) + 1):
                shift = 0, 0
                if k < len(candidates):
                    shift = y + candidates[k, 0], x + candidates[k, 1]
                total = _difference(before, after, rows, columns, shift, offsets, best)
                if k == 0:
                    best = CLEAR * total
                elif total < best:
                    best = total
                    shifts[j, i, 0], shifts[j, i, 1] = shift


def whole_cells(
    before: NDArray[np.floating],
    after: NDArray[np.floating],
    origin: tuple[int, int],
    core: Window,
    offsets: tuple[int, int],
    scales: int,
) -> NDArray[np.float32]:
    """Shifts (2, y, x) along x and y, in cells per frame, of the core window of two frames."""
    # They are whole from one frame to the other. `origin` is the cell of the raster at which the
    # frames begin, `offsets` how many frames each of them lies from the time that is asked about.
    factor = 2 ** (scales - 1)
    # Halving starts at whole cells of the coarsest scale, wherever the block begins.
    first = origin[0] + -origin[0] % factor, origin[1] + -origin[1] % factor
    cut = slice(first[0] - origin[0], None), slice(first[1] - origin[1], None)
    pyramid = [(np.ascontiguousarray(before[cut]), np.ascontiguousarray(after[cut]))]
    for _ in range(scales - 1):
        pyramid.append((_halved(pyramid[-1][0]), _halved(pyramid[-1][1])))
    rows = origin[0] + core[0], origin[0] + core[1]
    columns = origin[1] + core[2], origin[1] + core[3]
    shifts, coarser, most = np.zeros((1, 1, 2), np.int64), None, TOP
    for scale in reversed(range(scales)):
        j, i = (_squares(*cells, SQUARE * 2**scale) for cells in (rows, columns))
        if coarser is None:
            start = np.zeros((len(j), len(i), 2), np.int64)
        else:
            start = 2 * shifts[np.ix_(j // 2 - coarser[0], i // 2 - coarser[1])]
        corner = j[0] * SQUARE - first[0] // 2**scale, i[0] * SQUARE - first[1] // 2**scale
        shifts, coarser = np.empty_like(start), (j[0], i[0])
        _match(*pyramid[scale], corner, start, _candidates(most), offsets, shifts)
        most = 1
    y, x = (np.arange(*cells) // SQUARE for cells in (rows, columns))
    chosen = shifts[np.ix_(y - y[0], x - x[0])]
    frames = np.float32(offsets[1] - offsets[0])
    return chosen[..., ::-1].transpose(2, 0, 1).astype(np.float32) / frames


def _squares(begin: int, end: int, size: int) -> NDArray[np.int64]:
    """Number the squares of an axis that hold its cells."""
    return np.arange(begin // size, -(-end // size))


def bound(scales: int) -> int:
    """Return the cells per frame that the flow of so many scales cannot exceed."""
    return reach(scales) + ceil(WARPS * STEP)


def _whole_block(
    before: NDArray,
    after: NDArray,
    *,
    scheme: Scheme,
    starts: Sequence[NDArray[np.int64]],
    block_id: Sequence[int],
) -> NDArray[np.float32]:
    """Match a block: whole cells (1, 2, y, x) from frames (1, 1, y, x) with rims."""
    last = [len(axis) - 1 for axis in starts]
    core = own_cells(before.shape, halo(scheme.scales), block_id, last)
    at = [int(axis[i]) for axis, i in zip(starts, block_id[2:], strict=True)]
    origin = at[0] - core[0], at[1] - core[2]
    frames = before[0, 0], after[0, 0]
    return whole_cells(*frames, origin, core, scheme.offsets, scheme.scales)[None]


def _refined_block(
    before: NDArray,
    after: NDArray,
    flow: NDArray[np.float32],
    *,
    scheme: Scheme,
    depth: int,
    last: Sequence[int],
    block_id: Sequence[int],
) -> NDArray[np.float32]:
    """Refine a block: flow (1, 2, y, x) of its own cells, from what has rims."""
    core = own_cells(before.shape, depth, block_id, last)
    return refine(before[0, 0], after[0, 0], flow[0], scheme, core)[None]


def coarse_to_fine(before: da.Array, after: da.Array, scheme: Scheme) -> da.Array:
    """Return the flow (time, 2, y, x) between frames (time, y, x) in chunks of one frame."""
    wide = halo(scheme.scales)
    # For warped reading, gradients and the iterations.
    rim = scheme.iterations + bound(scheme.scales) + 3
    depth = max(wide, rim)
    before, after = merge_thin_chunks(before, depth), merge_thin_chunks(after, depth)
    chunks = before.chunks[1:]
    meta = np.empty((0, 0, 0, 0), np.float32)
    shape = {"chunks": (before.chunks[0], (2,), *chunks), "dtype": np.float32, "meta": meta}
    far = [add_overlap(frames, wide)[:, None] for frames in (before, after)]
    flow = da.map_blocks(_whole_block, *far, scheme=scheme, starts=first_cells(chunks), **shape)
    near = [add_overlap(frames, rim)[:, None] for frames in (before, after)]
    for _ in range(WARPS):
        flow = da.map_blocks(
            _refined_block,
            *near,
            add_overlap(flow, rim),
            scheme=scheme,
            depth=rim,
            last=[len(sizes) - 1 for sizes in chunks],
            **shape,
        )
    return flow


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
        rows, columns, u, v = (above, y, below), (0, width), result[0, y], result[1, y]
        _update_row(gradients[y], flow, rows, columns, smoothness, u, v)


def refine(
    before: NDArray[np.floating],
    after: NDArray[np.floating],
    flow: NDArray[np.float32],
    scheme: Scheme,
    core: Window,
) -> NDArray[np.float32]:
    """Flow (2, y, x) of the core window after some iterations around the one that is given."""
    warped = np.empty((2, *before.shape), np.float32)
    _warp(before, after, flow, scheme.offsets, warped)
    gradients = _gradients(warped, flow, scheme.differences)
    now, spare = flow.copy(), np.empty_like(flow)
    for _ in range(scheme.iterations):
        _iterate(gradients, now, np.float32(scheme.alpha * scheme.alpha), spare)
        now, spare = spare, now
    top, bottom, left, right = core
    window = slice(None), slice(top, bottom), slice(left, right)
    change = np.clip(now[window] - flow[window], -STEP, STEP)
    return flow[window] + change
