"""Whole cells that squares of one frame lie away in another: matching, coarse to fine.

A pyramid halves both frames again and again by the mean of 2 × 2 cells. At its top every square of
4 × 4 cells is compared, together with the cells around it, with the other frame at all shifts of up
to 3 cells; each finer scale starts from twice that and looks one cell around, and whether nothing
moved: a town that moves must not carry away the land around it. What differs is
added up as it is, not squared, so that a town that changed does not outvote those that did not, and
a square leaves the shift that it came with only for one that is clearly better.

Squares lie on the grid's origin, and all that a cell depends on is within `halo` cells: its shift
does not depend on the block in which it is computed.
"""

import numba
import numpy as np
from numpy.typing import NDArray

SQUARE = 4  # cells of a scale along a side
AROUND = 8  # cells of a scale that are compared on each side of a square
TOP = 3  # cells of the coarsest scale that are searched on each side
CLEAR = 0.95  # of the difference that a square came with

_compiled = numba.njit(cache=True, nogil=True)


def reach(scales: int) -> int:
    """Give the largest shift that is found, in cells.

    Examples
    --------
    >>> [reach(scales) for scales in (2, 3, 4)]
    [7, 15, 31]
    """
    return TOP * 2 ** (scales - 1) + 2 ** (scales - 1) - 1


def halo(scales: int) -> int:
    """Give the cells around a cell that its shift depends on."""
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
    back_y, back_x = (
        shift[0] * -earlier // (later - earlier),
        shift[1] * -earlier // (later - earlier),
    )
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
    """Write the shift (squares, squares, 2) of each square, searched around the one to start from.

    `first` is where the first square lies in the frames, which may be before their first cell.
    """
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
    core: tuple[int, int, int, int],
    offsets: tuple[int, int],
    scales: int,
) -> NDArray[np.float32]:
    """Shifts (2, y, x) along x and y, in cells per frame, of the core window of two frames.

    They are whole from one frame to the other. `origin` is the cell of the raster at which the
    frames begin, `offsets` how many frames each of them lies from the time that is asked about.
    """
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
        _match(
            pyramid[scale][0], pyramid[scale][1], corner, start, _candidates(most), offsets, shifts
        )
        most = 1
    y, x = (np.arange(*cells) // SQUARE for cells in (rows, columns))
    chosen = shifts[np.ix_(y - y[0], x - x[0])]
    return chosen[..., ::-1].transpose(2, 0, 1).astype(np.float32) / np.float32(
        offsets[1] - offsets[0]
    )


def _squares(begin: int, end: int, size: int) -> NDArray[np.int64]:
    """Number the squares of an axis that hold its cells."""
    return np.arange(begin // size, -(-end // size))
