"""The rules of the Degree of Urbanisation, and which labellings and surroundings they need.

The rules of the Degree of Urbanisation that look at cells and their neighbours, on plain arrays.

A window is a block with the cells around it; what lies beyond a window counts as beyond the raster.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

from popdask.errors import InputError


@dataclass(frozen=True)
class UrbanisationRules:
    """The rules of the Degree of Urbanisation; the defaults are the official ones.

    Densities are people per km² of land, people are those of a cluster, contiguity is 4 (cells
    touch at edges) or 8 (at corners, too).
    """

    centre_density: float = 1500
    """Urban centres (30; level 1: 3): density of their cells."""
    centre_people: float = 50_000
    """People of an urban centre."""
    centre_contiguity: int = 4
    centre_built: float | str | None = 0.2
    """Built-up share of the land from which a cell counts as dense; "optimal": mean built-up share
    of the dense clusters of the frame; None: no such rule."""
    centre_gap: int | None = 15
    """Holes of fewer cells are filled; None: no filling."""
    centre_edge: str | None = "R2023A"
    """Majority rule for the edges: that of GHSL's release "R2023A", "R2022A", or None."""
    centre_window: int | None = None
    """Window of 3 or 5 cells over which people are smoothed first; None: no smoothing."""
    dense_density: float = 1500
    """Dense urban clusters (23)."""
    dense_people: float = 5000
    dense_contiguity: int = 4
    dense_built: float | str | None = 0.2
    """As `centre_built`."""
    semidense_density: float = 900
    """Semi-dense urban clusters (22)."""
    semidense_people: float = 2500
    semidense_contiguity: int = 4
    semidense_buffer: int = 2
    """Cells by which they must be apart from centres and dense clusters."""
    suburban_density: float = 300
    """Suburban or peri-urban cells (21)."""
    suburban_people: float = 5000
    suburban_contiguity: int = 8
    rural_density: float = 300
    """Rural clusters (13)."""
    rural_people: float = 500
    rural_contiguity: int = 8
    low_density: float = 50
    """Density of low density rural cells (12)."""
    cluster_density: float = 300
    """Urban clusters of level 1 (2)."""
    cluster_people: float = 5000
    cluster_contiguity: int = 8
    cluster_window: int | None = None
    """As `centre_window`."""
    water_land: float = 0.5
    """Water (10; level 1: 0): share of land below which a cell may be water."""
    water_people: float = 0
    """Most people of a water cell."""
    water_built: float = 0
    """Largest built-up share of a water cell."""

    def __post_init__(self) -> None:
        for entry in fields(self):
            accepts, expected = _ACCEPTED[entry.name.split("_")[1]]
            value = getattr(self, entry.name)
            if isinstance(value, bool) or not accepts(value):
                raise InputError(
                    f"the rule {entry.name} is {value!r}; expected {expected}; the default is "
                    f"{entry.default!r}"
                )


def _number(least: float, most: float = np.inf) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, (int, float)) and least <= value <= most


def _cells(least: int) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, int) and value >= least


_COUNT = (_number(0), "a number of 0 or more")
_SHARE = (_number(0, 1), "a share of the cell, from 0 to 1")
_OPTIONAL_SHARE = (
    lambda value: value is None or value == "optimal" or (_number(0)(value)),
    'a share of the land such as 0.2, "optimal" or None',
)
#: By the second word of a rule's name: what it may be, as a test and in words.
_ACCEPTED: dict[str, tuple[Callable[[Any], bool], str]] = {
    "density": _COUNT,
    "people": _COUNT,
    "contiguity": (lambda value: value in (4, 8), "4 (edges) or 8 (edges and corners)"),
    "built": _OPTIONAL_SHARE,
    "gap": (lambda value: value is None or _cells(0)(value), "a number of cells or None"),
    "edge": (lambda value: value in ("R2023A", "R2022A", None), '"R2023A", "R2022A" or None'),
    "window": (lambda value: value in (None, 3, 5), "3, 5 or None"),
    "buffer": (_cells(0), "a number of cells, 0 or more"),
    "land": _SHARE,
}


class Kind(NamedTuple):
    """How the cells of a labelling are chosen and joined."""

    density: float
    built: float | str | None
    contiguity: int
    window: int | None


@dataclass(frozen=True)
class Plan:
    """What is done to every frame."""

    rules: UrbanisationRules
    level: int
    kinds: tuple[Kind, ...]
    """The labellings, each once."""
    uses: dict[str, tuple[int, float]]
    """By name of a cluster: its labelling, and the people it needs."""
    codes: dict[str, int]
    reach: int
    steps: int
    halo: int
    """Cells around a block that are told to it."""
    pad: int
    """Cells around a block that smoothing needs."""


_LEVEL_2 = {"rural": 13, "suburban": 21, "semidense": 22, "dense": 23, "centre": 30}
_LEVEL_1 = {"cluster": 2, "centre": 3}


def make_plan(
    rules: UrbanisationRules, level: int, has_built: bool, reach: int, steps: int
) -> Plan:
    """Lay down which labellings the rules need, and how far they look."""
    codes = _LEVEL_2 if level == 2 else _LEVEL_1
    kinds: list[Kind] = []
    uses = {}
    for name in codes:
        density, people, contiguity = (
            getattr(rules, f"{name}_{part}") for part in ("density", "people", "contiguity")
        )
        built = getattr(rules, f"{name}_built", None)
        if built == "optimal" and not has_built:
            raise InputError(
                f'the rule {name}_built is "optimal", which needs the built-up area; give built, '
                "or the share as a number, or None"
            )
        window = getattr(rules, f"{name}_window", None)
        kind = Kind(float(density), built if has_built else None, int(contiguity), window)
        if kind not in kinds:
            kinds.append(kind)
        uses[name] = kinds.index(kind), float(people)
    gap = max((rules.centre_gap or 0) - 1, 0)
    buffer = rules.semidense_buffer if level == 2 else 0
    halo = max(reach if rules.centre_edge else 0, gap + buffer)
    pad = max((kind.window or 1) // 2 for kind in kinds)
    return Plan(rules, level, tuple(kinds), uses, codes, reach, steps, int(halo), pad)


def optimal_rule(rules: UrbanisationRules, level: int) -> tuple[Kind, float] | None:
    """The clusters over which built-up land is averaged, and their people."""
    wanted = [rules.centre_built] + [rules.dense_built] * (level == 2)
    if "optimal" not in wanted:
        return None
    if level == 2:
        kind = Kind(float(rules.dense_density), None, int(rules.dense_contiguity), None)
        return kind, float(rules.dense_people)
    kind = Kind(float(rules.centre_density), None, int(rules.centre_contiguity), None)
    return kind, float(rules.cluster_people)


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
    """Mean of the known values in a window of `size` cells, of an array with half of it around.

    The cells are added in one order everywhere, so that a mean is the same in any block.
    """
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
    """Let cells join the centres around them, all at once in every round; changes `owner`.

    Goes on for a number of rounds, or without end where it is negative, until none joins. Returns
    the cells that joined in the last round.
    """
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
    """Cells of no centre in patches of fewer than `gap` cells that one encloses, and that centre.

    A patch is connected over edges and corners, and touches no side of the window.
    """
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
