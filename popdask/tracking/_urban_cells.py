"""The rules of the Degree of Urbanisation, and which labellings and surroundings they need.

The rules of the Degree of Urbanisation that look at cells and their neighbours, on plain arrays.

A window is a block with the cells around it; what lies beyond a window counts as beyond the raster.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

WATER, IGNORED, LOW, DENSE = 1, 2, 4, 8
"""Bits of a cell: water; land < 0.5 without people; above the low density; in a dense cluster."""

R2022A, R2023A = 0, 1
_BAND = 64  # rows that are measured together, so that temporaries stay small


class Given(NamedTuple):
    """What a block (y, x) is classified by; built-up area and land are shares of the cell."""

    people: NDArray
    land: NDArray | None
    built: NDArray | None

    def at(self, index: Any) -> Given:
        """The same of some of the cells."""
        land, built = (None if part is None else part[index] for part in self[1:])
        return Given(self.people[index], land, built)


def given_of(people: NDArray, land: NDArray | None, built: NDArray | None) -> Given:
    """Take blocks (…, y, x) of one frame."""
    return Given(people, land, built).at((0,) * (people.ndim - 2))


def densities(given: Given, area: NDArray) -> tuple[NDArray[np.float64], NDArray | None]:
    """People per km² of land, and built-up share of the land to three digits."""
    land = 1.0 if given.land is None else given.land.astype(np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        density = given.people.astype(np.float64) / (area[:, None] * land)
        return density, None if given.built is None else np.round(given.built / land, 3)


def window_mean(values: NDArray, size: int) -> NDArray[np.float64]:
    """Mean of the known values in a window of `size` cells, of an array with half of it around."""
    # The cells are added in one order everywhere, so that a mean is the same in any block.
    rows, columns = (n - size + 1 for n in values.shape)
    total, known = np.zeros((rows, columns)), np.zeros((rows, columns), np.int8)
    for row in range(size):
        for column in range(size):
            part = values[row : row + rows, column : column + columns]
            there = ~np.isnan(part)
            total += np.where(there, part, 0)
            known += there
    with np.errstate(invalid="ignore"):
        return total / np.where(known, known, np.nan)


def bands(rows: int) -> list[slice]:
    """Bands of rows that are measured together."""
    return [slice(top, min(top + _BAND, rows)) for top in range(0, rows, _BAND)]


@numba.njit(cache=True, nogil=True)
def paint_if(
    painted: NDArray,
    first: NDArray[np.int64],
    start: NDArray[np.int32],
    stop: NDArray[np.int32],
    component: NDArray[np.int32],
    chosen: NDArray[np.bool_],
    value: int,
) -> None:
    """Write a value into the cells of the chosen components."""
    for row in range(first.size - 1):
        for run in range(first[row], first[row + 1]):
            if chosen[component[run]]:
                painted[row, start[run] : stop[run]] = value


@numba.njit(cache=True, nogil=True)
def _joins(owner: NDArray[np.int32], status: NDArray[np.uint8], y: int, x: int, rule: int) -> int:
    """The centre that a cell joins by the majority of its neighbours, or -1."""
    rows, columns = owner.shape
    near = np.empty(8, np.int32)
    known, void = 0, 0
    for i in range(max(y - 1, 0), min(y + 2, rows)):
        for j in range(max(x - 1, 0), min(x + 2, columns)):
            if i == y and j == x:
                continue
            if owner[i, j] >= 0:
                near[known] = owner[i, j]
                known += 1
            else:
                void += (status[i, j] & (WATER | IGNORED)) != 0
    most = 9 if rule == R2022A else 8 - void  # twice the cells of a centre must be more
    for a in range(known):
        count = 0
        for b in range(known):
            count += near[a] == near[b]
        if 2 * count > most:
            return near[a]
    return -1


@numba.njit(cache=True, nogil=True)
def grow_edges(
    owner: NDArray[np.int32], status: NDArray[np.uint8], rounds: int, rule: int
) -> NDArray[np.int64]:
    """Let cells join the centres around them, all at once in every round; changes `owner`."""
    # Goes on for a number of rounds, or without end where it is negative, until none joins.
    # Returns the cells that joined in the last round.
    looked = np.full(owner.shape, -1, np.int32)  # the last round in which a cell was looked at
    front = np.flatnonzero(owner.ravel() >= 0)
    number = 0
    while number != rounds and front.size:
        front = _grow_round(owner, status, looked, front, number, rule)
        number += 1
    return front


@numba.njit(cache=True, nogil=True)
def _grow_round(
    owner: NDArray[np.int32],
    status: NDArray[np.uint8],
    looked: NDArray[np.int32],
    front: NDArray[np.int64],
    number: int,
    rule: int,
) -> NDArray[np.int64]:
    """One round: cells around the front join; they are the next front."""
    rows, columns = owner.shape
    joined = [np.int64(0) for _ in range(0)]
    centres = [np.int32(0) for _ in range(0)]
    for cell in front:
        y, x = cell // columns, cell % columns
        for i in range(max(y - 1, 0), min(y + 2, rows)):
            for j in range(max(x - 1, 0), min(x + 2, columns)):
                if owner[i, j] >= 0 or looked[i, j] == number:
                    continue
                looked[i, j] = number
                if rule == R2022A or not status[i, j] & WATER:
                    centre = _joins(owner, status, i, j, rule)
                    if centre >= 0:
                        joined.append(i * columns + j)
                        centres.append(np.int32(centre))
    cells = np.empty(len(joined), np.int64)
    for k in range(len(joined)):
        cells[k] = joined[k]
        owner[cells[k] // columns, cells[k] % columns] = centres[k]
    return cells


def fill_holes(owner: NDArray[np.int32], gap: int) -> None:
    """Give every centre the small patches that it encloses; of several the lowest takes it."""
    cell, centre = _find_holes(owner, gap)
    order = np.argsort(-centre, kind="stable")
    owner.reshape(-1)[cell[order]] = centre[order]


@numba.njit(cache=True, nogil=True)
def _find_holes(owner: NDArray[np.int32], gap: int) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """Cells in patches (queen) of fewer than `gap` that one centre encloses, and that centre."""
    rows, columns = owner.shape
    seen = np.full((rows, columns), -1, np.int32)  # the centre that was last asked about the cell
    mark = np.zeros((rows, columns), np.int32)  # the patch that the cell was last put into
    patch = np.empty(max(gap, 1), np.int64)
    holes = [np.int64(0) for _ in range(0)]
    centres = [np.int32(0) for _ in range(0)]
    number = 0
    for cell in np.flatnonzero(owner.ravel() >= 0) if gap > 1 else np.empty(0, np.int64):
        y, x = cell // columns, cell % columns
        centre = owner[y, x]
        for i in range(max(y - 1, 0), min(y + 2, rows)):
            for j in range(max(x - 1, 0), min(x + 2, columns)):
                if owner[i, j] != centre and seen[i, j] != centre:
                    number += 1
                    size = _enclosed(owner, seen, mark, number, patch, centre, i, j, gap)
                    for k in range(size):
                        if owner[patch[k] // columns, patch[k] % columns] < 0:
                            holes.append(patch[k])
                            centres.append(centre)
    found, by = np.empty(len(holes), np.int64), np.empty(len(holes), np.int32)
    for k in range(len(holes)):
        found[k], by[k] = holes[k], centres[k]
    return found, by


@numba.njit(cache=True, nogil=True)
def _enclosed(
    owner: NDArray[np.int32],
    seen: NDArray[np.int32],
    mark: NDArray[np.int32],
    number: int,
    patch: NDArray[np.int64],
    centre: int,
    y: int,
    x: int,
    gap: int,
) -> int:
    """Collect the patch around a cell; its size, or 0 where the centre does not enclose it."""
    rows, columns = owner.shape
    patch[0] = y * columns + x
    mark[y, x] = number
    size, done, closed = 1, 0, True
    while done < size and closed:
        i, j = patch[done] // columns, patch[done] % columns
        done += 1
        if i == 0 or j == 0 or i == rows - 1 or j == columns - 1:
            closed = False
            break
        for a in range(i - 1, i + 2):
            for b in range(j - 1, j + 2):
                if owner[a, b] == centre or mark[a, b] == number:
                    continue
                if size == gap - 1 or seen[a, b] == centre:
                    closed = False  # too large, or part of a patch that was not enclosed
                else:
                    mark[a, b] = number
                    patch[size] = a * columns + b
                    size += 1
    for k in range(size):
        seen[patch[k] // columns, patch[k] % columns] = centre
    return size if closed else 0
