"""Density clustering of grid cells, on plain arrays.

On a grid the neighbours of a cell are the cells of a disc, and a disc is a stack of chords, one per
row. So nothing here looks for neighbours: a whole row is compared at once with itself moved to each
place of the disc; cells are handled as runs, and two runs on rows `d` apart are neighbours where
their columns come within the chord `d` of each other.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numba
import numpy as np

PART = 256  # cells of a row that are counted together, or passed over where none has data


class Runs(NamedTuple):
    """Horizontal runs of cells of one class, sorted by class, row and column."""

    first: np.ndarray
    """First run of every line, and their number; a line is a class in a row, class · rows + row."""
    start: np.ndarray
    """First column of every run."""
    stop: np.ndarray
    """One past the last column of every run."""


def disk_half_widths(eps: float, shape: tuple[int, int]) -> np.ndarray:
    """Half-widths of the chords of the disc of radius `eps`, no larger than a frame of `shape`."""
    # Cells `(dr, dc)` apart are neighbours where ``dc <= chords[dr]``, which is dr² + dc² ≤ eps²,
    # the comparison that scikit-learn's tree makes.
    rows, columns = shape
    square = math.floor(min(float(eps) * float(eps), float(rows * rows + columns * columns)))
    depth = min(math.isqrt(square), max(rows - 1, 0))
    widest = max(columns - 1, 0)
    return np.array([min(math.isqrt(square - d * d), widest) for d in range(depth + 1)], np.int64)


@numba.njit(cache=True, nogil=True)
def find_cores(codes: np.ndarray, chord: np.ndarray, min_samples: int) -> np.ndarray:
    """Codes of the cells with `min_samples` cells of their class in their disc, 0 elsewhere."""
    # The codes are 1, 2, …, 0 = no data, with a margin of one disc that the result lacks.
    tall, wide = chord.size - 1, chord[0]
    rows, columns = codes.shape[0] - 2 * tall, codes.shape[1] - 2 * wide
    cores = np.zeros((rows, columns), codes.dtype)
    for row in range(rows):
        for left in range(0, columns, PART):
            own = codes[row + tall, wide + left : wide + min(left + PART, columns)]
            if own.any():
                around = codes[row : row + 2 * tall + 1, left : left + own.size + 2 * wide]
                counts = _count_alike(own, around, chord)
                for x in range(own.size):
                    if own[x] != 0 and counts[x] >= min_samples:
                        cores[row, left + x] = own[x]
    return cores


@numba.njit(cache=True, nogil=True)
def _count_alike(own: np.ndarray, around: np.ndarray, chord: np.ndarray) -> np.ndarray:
    """Count the cells of its class in the disc of every cell of a part of a row, itself included.

    A byte per cell counts 127 pairs, left and right of the middle, before it is emptied: a vector
    holds that many more cells.
    """
    tall, wide = chord.size - 1, chord[0]
    counts = np.zeros(own.size, np.int32)
    alike = np.zeros(own.size, np.uint8)
    pairs = 0
    for line in range(around.shape[0]):
        cells = around[line]
        middle = cells[wide:]
        for x in range(own.size):
            counts[x] += middle[x] == own[x]
        for d in range(1, chord[abs(line - tall)] + 1):
            before, after = cells[wide - d :], cells[wide + d :]
            for x in range(own.size):
                alike[x] += np.uint8(before[x] == own[x]) + np.uint8(after[x] == own[x])
            pairs += 1
            if pairs == 127:
                counts += alike
                alike[:] = 0
                pairs = 0
    return counts + alike


@numba.njit(cache=True, nogil=True)
def find_runs(codes: np.ndarray, classes: int, cuts: np.ndarray) -> Runs:
    """Runs of cells of one code other than 0; a new one begins at every column in `cuts`."""
    rows, columns = codes.shape
    first = np.zeros((classes + 1) * rows + 1, np.int64)
    for row in range(rows):
        before = 0
        for column in range(columns):
            code = codes[row, column]
            if code != 0 and (code != before or cuts[column]):
                first[code * rows + row + 1] += 1
            before = code
    for line in range((classes + 1) * rows):
        first[line + 1] += first[line]
    filled = first[:-1].copy()
    start = np.empty(first[-1], np.int32)
    stop = np.empty(first[-1], np.int32)
    for row in range(rows):
        before, run = 0, 0
        for column in range(columns):
            code = codes[row, column]
            if code != 0:
                if code != before or cuts[column]:
                    run = filled[code * rows + row]
                    filled[code * rows + row] += 1
                    start[run] = column
                stop[run] = column + 1
            before = code
    return Runs(first, start, stop)


@numba.njit(cache=True, nogil=True)
def join_runs(core: Runs, rows: int, chord: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Group of every run of cores, and the first run of every group."""
    # Groups are numbered by their first run, that is by class, then by first cell.
    parent = np.arange(core.start.size, dtype=np.int32)
    for line in range(core.first.size - 1):
        for run in range(core.first[line] + 1, core.first[line + 1]):
            if core.start[run] - core.stop[run - 1] < chord[0]:
                _union(parent, run - 1, run)
        for d in range(1, min(chord.size, rows - line % rows)):
            _join_rows(parent, core, line, line + d, chord[d])
    group = np.empty(parent.size, np.int32)
    roots = np.empty(parent.size, np.int32)
    found = 0
    for run in range(parent.size):
        root = _find(parent, run)
        if root == run:
            roots[found] = run
            group[run] = found
            found += 1
        else:
            group[run] = group[root]
    return group, roots[:found].copy()


@numba.njit(cache=True, nogil=True)
def _join_rows(parent: np.ndarray, core: Runs, upper: int, lower: int, reach: int) -> None:
    """Join the runs of two rows that come within `reach` columns of each other."""
    # The run that ends first is left behind although the next one of the other row may also be in
    # its reach: those two then are in reach of each other, and already joined along their own
    # row.
    a, b = core.first[upper], core.first[lower]
    while a < core.first[upper + 1] and b < core.first[lower + 1]:
        if core.start[b] - core.stop[a] < reach and core.start[a] - core.stop[b] < reach:
            _union(parent, a, b)
        if core.stop[a] < core.stop[b]:
            a += 1
        else:
            b += 1


@numba.njit(cache=True, nogil=True)
def _union(parent: np.ndarray, a: int, b: int) -> None:
    if parent[a] == parent[b]:
        return
    a, b = _find(parent, a), _find(parent, b)
    if a < b:
        parent[b] = a
    else:
        parent[a] = b


@numba.njit(cache=True, nogil=True)
def _find(parent: np.ndarray, run: int) -> int:
    while parent[run] != run:
        parent[run] = parent[parent[run]]
        run = parent[run]
    return run


@numba.njit(cache=True, nogil=True)
def paint_labels(
    core: Runs, label: np.ndarray, border: Runs, shape: tuple[int, int], chord: np.ndarray
) -> np.ndarray:
    """Draw the labels of the runs of cores; a border cell gets the lowest label in its reach."""
    painted = np.full(shape, -1, np.int32)
    rows = shape[0]
    for line in range(core.first.size - 1):
        row = line % rows
        for run in range(core.first[line], core.first[line + 1]):
            painted[row, core.start[run] : core.stop[run]] = label[run]
        if border.first[line] < border.first[line + 1]:
            for d in range(max(1 - chord.size, -row), min(chord.size, rows - row)):
                if core.first[line + d] < core.first[line + d + 1]:
                    _reach_row(painted[row], border, line, core, line + d, label, chord[abs(d)])
    return painted


@numba.njit(cache=True, nogil=True)
def _reach_row(
    painted: np.ndarray,
    border: Runs,
    here: int,
    core: Runs,
    there: int,
    label: np.ndarray,
    reach: int,
) -> None:
    """Lower the labels of one row's border cells to those of another row's cores in reach."""
    lowest = painted.view(np.uint32)  # in which -1, not reached so far, is the highest number
    near, end = core.first[there], core.first[there + 1]
    for run in range(border.first[here], border.first[here + 1]):
        start, stop = border.start[run], border.stop[run]
        while near < end and core.stop[near] + reach <= start:
            near += 1
        other = near
        while other < end and core.start[other] - reach < stop:
            new = np.uint32(label[other])
            left, right = core.start[other] - reach, core.stop[other] + reach
            for column in range(max(start, left), min(stop, right)):
                lowest[column] = min(lowest[column], new)
            other += 1
