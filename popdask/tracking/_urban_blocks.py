"""The rules of the Degree of Urbanisation for the cells of one block, on plain arrays.

A window is a block with the cells around it; what lies beyond a window counts as beyond the raster.
Between its steps a block is no more than a :class:`Tile`: a byte per cell and runs of cells. While
centres grow at their edges a block knows of its neighbours what they let it see: rims of status
and of centres. Then holes are filled, and codes are drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter

from popdask.blocks.components import (
    Joined,
    Parts,
    Runs,
    at_edge,
    describe_parts,
    join_parts,
    keep_components,
    label_block,
    paint,
    sum_people,
)
from popdask.blocks.overlap import AROUND, Rims, rims_of, surround
from popdask.blocks.sums import from_fixed
from popdask.tracking.urban_rules import Kind, Plan, UrbanisationRules

WATER, IGNORED, LOW, DENSE = 1, 2, 4, 8
"""Bits of a cell: water; land < 0.5 without people; above the low density; in a dense cluster."""

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
def _joins(
    owner: NDArray[np.int32], status: NDArray[np.uint8], y: int, x: int, all_eight: bool
) -> int:
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
    most = 9 if all_eight else 8 - void  # twice the cells of a centre must be more
    for a in range(known):
        count = 0
        for b in range(known):
            count += near[a] == near[b]
        if 2 * count > most:
            return near[a]
    return -1


@numba.njit(cache=True, nogil=True)
def grow_edges(
    owner: NDArray[np.int32], status: NDArray[np.uint8], rounds: int, all_eight: bool
) -> NDArray[np.int64]:
    """Let cells join the centres around them, all at once in every round; changes `owner`."""
    # Goes on for a number of rounds, or without end where it is negative, until none joins.
    # Returns the cells that joined in the last round. By the rule R2022A `all_eight` neighbours
    # count, water or not.
    looked = np.full(owner.shape, -1, np.int32)  # the last round in which a cell was looked at
    front = np.flatnonzero(owner.ravel() >= 0)
    number = 0
    while number != rounds and front.size:
        front = _grow_round(owner, status, looked, front, number, all_eight)
        number += 1
    return front


@numba.njit(cache=True, nogil=True)
def _grow_round(
    owner: NDArray[np.int32],
    status: NDArray[np.uint8],
    looked: NDArray[np.int32],
    front: NDArray[np.int64],
    number: int,
    all_eight: bool,
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
                if all_eight or not status[i, j] & WATER:
                    centre = _joins(owner, status, i, j, all_eight)
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


@dataclass(frozen=True)
class Tile:
    """What is kept of a block: a byte per cell, and runs."""

    status: NDArray[np.uint8]
    runs: list[Runs]
    """Runs of every labelling."""


# --- One block by itself ---------------------------------------------------------------------


class _Measured(NamedTuple):
    """What the rules say of the cells of a block by themselves."""

    status: NDArray[np.uint8]
    masks: list[NDArray[np.bool_]]
    """The cells of every labelling."""
    people: dict[int | None, NDArray]
    """By the window over which they are smoothed."""


def _measure(given: Given, area: NDArray, plan: Plan, optimal: NDArray) -> _Measured:
    """Measure a block that has `plan.pad` cells around it, a band of rows at a time."""
    pad = plan.pad
    rows, columns = (n - 2 * pad for n in given.people.shape)
    windows = {kind.window for kind in plan.kinds} - {None}
    people = {window: np.empty((rows, columns)) for window in windows}
    own = given.people[pad : pad + rows, pad : pad + columns]
    masks = [np.zeros((rows, columns), bool) for _ in plan.kinds]
    found = _Measured(np.zeros((rows, columns), np.uint8), masks, {**people, None: own})
    for band in bands(rows):
        wide = slice(band.start, band.stop + 2 * pad)
        _measure_band(given.at(wide), area[wide], band, found, plan, optimal)
    return found


def _measure_band(
    given: Given,
    area: NDArray,
    band: slice,
    found: _Measured,
    plan: Plan,
    optimal: NDArray,
) -> None:
    """Measure a band of rows, which is given with the cells around it."""
    pad = plan.pad
    density, share = densities(given, area)
    height, width = density.shape
    inner = np.s_[pad : height - pad, pad : width - pad]
    smooth: dict[int | None, NDArray] = {None: density[inner]}
    for window in found.people:
        if window:
            near = pad - window // 2
            around = np.s_[near : height - near, near : width - near]
            smooth[window] = window_mean(density[around], window)
            found.people[window][band] = window_mean(given.people[around], window)
    for mask, kind in zip(found.masks, plan.kinds, strict=True):
        mask[band] = smooth[kind.window] >= kind.density
        if share is not None and kind.built is not None:
            least = optimal[0] if isinstance(kind.built, str) else kind.built
            mask[band] |= share[inner] >= least
    counted = found.people[plan.rules.centre_window][band]
    found.status[band] = _status(given.at(inner), density[inner], counted, plan.rules)


def _status(
    given: Given, density: NDArray, counted: NDArray, rules: UrbanisationRules
) -> NDArray[np.uint8]:
    """Water, cells that do not count at the edge of a centre, and low density, as bits."""
    status = np.where(density >= rules.low_density, LOW, 0).astype(np.uint8)
    if given.land is None:
        return status
    wet = given.land < rules.water_land
    water = (wet | np.isnan(given.land)) & ~(given.people > rules.water_people)
    if given.built is not None:
        water &= ~(given.built > rules.water_built)
    status[water] |= WATER
    status[wet & (counted <= 0)] |= IGNORED
    return status


def label_tile(
    people: NDArray,
    land: NDArray | None,
    built: NDArray | None,
    area: NDArray,
    plan: Plan,
    corner: tuple[int, int],
    width: int,
    optimal: NDArray,
) -> tuple[Tile, list[Parts]]:
    """Label the clusters of a block, and say what the others need to know of them."""
    found = _measure(given_of(people, land, built), area, plan, optimal)
    labelled, parts = [], []
    for number, (mask, kind) in enumerate(zip(found.masks, plan.kinds, strict=True)):
        runs = label_block(mask, kind.contiguity)
        sums = sum_people(found.people[kind.window], *runs[:4], runs.roots.size)
        # What is small and cannot join anything is most of all components.
        least = min(people for kind, people in plan.uses.values() if kind == number)
        keep = at_edge(runs, mask.shape[1]) | (from_fixed(sums[0], sums[1]) >= least)
        runs, sums = keep_components(runs, keep), sums[:2, keep]
        labelled.append(runs)
        parts.append(describe_parts(runs, mask, corner, width, sums))
    return Tile(found.status, labelled), parts


# --- All blocks of a frame -------------------------------------------------------------------


def join(
    parts: Sequence[list[Parts]], blocks: tuple[int, int], plan: Plan
) -> list[dict[str, NDArray[np.int32]]]:
    """For every block and kind of cluster, the number of each component, -1 where it is small."""
    joined = [
        join_parts([block[number] for block in parts], blocks, kind.contiguity)
        for number, kind in enumerate(plan.kinds)
    ]
    chosen = {name: _large(joined[kind], people) for name, (kind, people) in plan.uses.items()}
    return [
        {name: numbers[block] for name, numbers in chosen.items()} for block in range(len(parts))
    ]


def _large(joined: Joined, people: float) -> list[NDArray[np.int32]]:
    large = from_fixed(joined.sums[0], joined.sums[1]) >= people
    return [np.where(large[number], number, -1).astype(np.int32) for number in joined.numbers]


# --- The optimal threshold of built-up land --------------------------------------------------


def built_parts(
    people: NDArray,
    land: NDArray | None,
    built: NDArray,
    area: NDArray,
    kind: Kind,
    corner: tuple[int, int],
    width: int,
    pad: int,
) -> Parts:
    """Dense clusters of a block: their people, and sum and number of the known built-up shares."""
    given = given_of(people, land, built)
    rows, columns = (n - 2 * pad for n in given.people.shape)
    given = given.at(np.s_[pad : pad + rows, pad : pad + columns])
    dense = np.empty((rows, columns), bool)
    for band in bands(rows):
        density = densities(given.at(band), area[pad:][band])[0]
        dense[band] = density >= kind.density
    runs = label_block(dense, kind.contiguity)
    count = runs.roots.size
    assert given.built is not None
    known = np.where(np.isnan(given.built), np.nan, 1.0)
    values = given.people, given.built, known
    sums = [sum_people(value, *runs[:4], count) for value in values]
    return describe_parts(runs, dense, corner, width, np.concatenate(sums))


def optimal(
    parts: Sequence[Parts], blocks: tuple[int, int], kind: Kind, people: float
) -> NDArray[np.float64]:
    """Mean built-up share of the large dense clusters of a frame; infinite where there is none."""
    sums = join_parts(parts, blocks, kind.contiguity).sums
    sums = sums[:, from_fixed(sums[0], sums[1]) >= people].sum(axis=1)
    known = from_fixed(sums[6], sums[7])
    return np.array([from_fixed(sums[3], sums[4]) / known if known else np.inf])


class Seen(NamedTuple):
    """What the neighbours see of a block."""

    status: Rims
    owner: Rims | None
    """The centres that cells belong to; None where there is none."""


@dataclass(frozen=True)
class State:
    """How far the edges of the centres of a block have grown."""

    cell: NDArray[np.int64]
    """Cells that joined, row-major in the block."""
    owner: NDArray[np.int32]
    """The centres that they joined."""
    active: bool
    """Whether any joined in the last round."""
    seen: Seen


def _paint_owner(tile: Tile, chosen: dict[str, NDArray], plan: Plan) -> NDArray[np.int32]:
    runs = tile.runs[plan.uses["centre"][0]]
    return paint(*runs[:4], chosen["centre"], tile.status.shape[1])


def _paint_status(tile: Tile, chosen: dict[str, NDArray], plan: Plan) -> NDArray[np.uint8]:
    """Status with the cells of dense clusters marked."""
    if plan.level == 1 or not (chosen["dense"] >= 0).any():
        return tile.status
    dense = np.zeros(tile.status.shape, np.uint8)
    runs = tile.runs[plan.uses["dense"][0]]
    paint_if(dense, *runs[:4], chosen["dense"] >= 0, DENSE)
    return tile.status | dense


def _seen(status: NDArray[np.uint8], owner: NDArray[np.int32], depth: int) -> Seen:
    owners = rims_of(owner, depth, depth)
    owned = any((rim >= 0).any() for rim in owners)
    return Seen(rims_of(status, depth, depth), owners if owned else None)


def start(tile: Tile, chosen: dict[str, NDArray], plan: Plan) -> State:
    """Nothing has grown so far."""
    owner = _paint_owner(tile, chosen, plan)
    seen = _seen(_paint_status(tile, chosen, plan), owner, plan.halo)
    none = np.empty(0, np.int64)
    return State(none, none.astype(np.int32), True, seen)


def _grown(
    tile: Tile, chosen: dict[str, NDArray], joined: State | Found, plan: Plan
) -> NDArray[np.int32]:
    """The centres of a block with the cells that joined them."""
    owner = _paint_owner(tile, chosen, plan)
    owner.reshape(-1)[joined.cell] = joined.owner
    return owner


def _surround(
    status: NDArray, owner: NDArray, around: Sequence[State | None], depth: int
) -> tuple[NDArray[np.uint8], NDArray[np.int32], tuple[int, int]]:
    """Put a block and what it sees of its neighbours together; and where the block begins."""
    seen = [None if state is None else state.seen for state in around]
    centres = [one and (one.owner or _unowned(one.status)) for one in seen]
    wide = surround(status, [one and one.status for one in seen], (depth, depth))
    owners = surround(owner, centres, (depth, depth))
    top, left = (depth * (seen[AROUND.index(side)] is not None) for side in ((-1, 0), (0, -1)))
    return wide, owners, (top, left)


def _unowned(rims: Rims) -> Rims:
    return Rims(*(np.full(rim.shape, -1, np.int32) for rim in rims))


def _has_centres(chosen: dict[str, NDArray], around: Sequence[State | None]) -> bool:
    """Whether a centre lies in a block or in what it sees of the others."""
    seen = any(state is not None and state.seen.owner is not None for state in around)
    return seen or bool((chosen["centre"] >= 0).any())


def grow(
    tile: Tile,
    chosen: dict[str, NDArray],
    state: State,
    around: Sequence[State | None],
    plan: Plan,
) -> State:
    """Let the edges of a block's centres grow for as many rounds as its surroundings allow."""
    moving = state.active or any(other is not None and other.active for other in around)
    if not moving or not _has_centres(chosen, around):
        return replace(state, active=False)
    own = _grown(tile, chosen, state, plan)
    status = _paint_status(tile, chosen, plan)
    wide, owner, (top, left) = _surround(status, own, around, plan.halo)
    row, column = np.divmod(grow_edges(owner, wide, plan.reach, plan.all_eight), owner.shape[1])
    rows, columns = own.shape
    inside = (top <= row) & (row < top + rows) & (left <= column) & (column < left + columns)
    grown = owner[top : top + rows, left : left + columns]
    cell = np.flatnonzero((grown >= 0) & (own < 0))
    return State(
        np.concatenate([state.cell, cell]),
        np.concatenate([state.owner, grown.reshape(-1)[cell]]),
        bool(inside.any()),
        _seen(status, grown, plan.halo),
    )


def any_active(states: Sequence[State]) -> bool:
    """Whether cells of any block may still join a centre."""
    return any(state.active for state in states)


def send(
    tile: Tile, chosen: dict[str, NDArray], state: State, active: bool, plan: Plan
) -> tuple[NDArray, NDArray] | None:
    """A whole block, if the frame has not come to rest."""
    return (tile.status, _grown(tile, chosen, state, plan)) if active else None


def finish(
    blocks: Sequence[tuple[NDArray, NDArray] | None], across: int, plan: Plan
) -> NDArray[np.int32] | None:
    """Let the edges of a frame's centres grow to the end, in one piece; None where they have."""
    if blocks[0] is None:
        return None
    rows = [list(blocks[start : start + across]) for start in range(0, len(blocks), across)]
    status, owner = (np.block([[b[part] for b in row if b] for row in rows]) for part in (0, 1))
    grow_edges(owner, status, -1, plan.all_eight)
    return owner


@dataclass(frozen=True)
class Found:
    """The urban centres of a block as they are in the end."""

    cell: NDArray[np.int64]
    """Cells beside those of the clusters, row-major in the block."""
    owner: NDArray[np.int32]
    """The centres that they belong to."""
    near: NDArray[np.int32]
    """Semi-dense clusters, by number, of which a cell lies near a centre or a dense cluster."""


def complete(
    tile: Tile,
    chosen: dict[str, NDArray],
    state: State,
    around: Sequence[State | None],
    whole: NDArray[np.int32] | None,
    corner: tuple[int, int],
    plan: Plan,
) -> Found:
    """Fill the holes of a block's centres, and look which semi-dense clusters are too near."""
    own = _grown(tile, chosen, state, plan)
    status = _paint_status(tile, chosen, plan)
    wide, owner, (top, left) = _surround(status, own, around, plan.halo)
    rows, columns = own.shape
    if whole is not None:
        window = [
            slice(c - o, c - o + n)
            for c, o, n in zip(corner, (top, left), owner.shape, strict=True)
        ]
        owner = whole[tuple(window)].copy()
    if plan.rules.centre_gap and (owner >= 0).any():
        fill_holes(owner, plan.rules.centre_gap)
    block = np.s_[top : top + rows, left : left + columns]
    extra = (owner[block] >= 0) & (_paint_owner(tile, chosen, plan) < 0)
    near = np.empty(0, np.int32)
    if plan.level == 2 and (chosen["semidense"] >= 0).any():
        urban = (owner >= 0) | (wide & DENSE > 0)
        buffer = maximum_filter(urban, 2 * plan.rules.semidense_buffer + 1, mode="constant")
        near = _touched(tile, chosen, buffer[block], plan)
    cell = np.flatnonzero(extra)
    return Found(cell, owner[block].reshape(-1)[cell], near)


def _touched(
    tile: Tile, chosen: dict[str, NDArray], buffer: NDArray[np.bool_], plan: Plan
) -> NDArray[np.int32]:
    """Numbers of the semi-dense clusters of which a cell lies in the buffer."""
    runs = tile.runs[plan.uses["semidense"][0]]
    line = np.repeat(np.arange(runs.first.size - 1), np.diff(runs.first))
    before = np.zeros((buffer.shape[0], buffer.shape[1] + 1), np.int32)
    np.cumsum(buffer, axis=1, out=before[:, 1:])
    hit = before[line, runs.stop] > before[line, runs.start]
    numbers = np.unique(chosen["semidense"][runs.component[hit]])
    return numbers[numbers >= 0]


def near(found: Sequence[Found]) -> NDArray[np.int32]:
    """Numbers that any block has met, each once."""
    return np.unique(np.concatenate([block.near for block in found]))


def draw(
    tile: Tile,
    chosen: dict[str, NDArray],
    found: Found,
    near: NDArray[np.int32],
    plan: Plan,
    ndim: int,
) -> NDArray[np.int8]:
    """Draw the codes of a block, the strongest last."""
    rest, water = (11, 10) if plan.level == 2 else (1, 0)
    codes = np.full(tile.status.shape, rest, np.int8)
    if plan.level == 2:
        codes[tile.status & LOW > 0] = 12
    for name, code in plan.codes.items():
        numbers = chosen[name]
        kept = numbers >= 0
        if name == "semidense":
            kept &= ~np.isin(numbers, near)
        paint_if(codes, *tile.runs[plan.uses[name][0]][:4], kept, code)
    codes.reshape(-1)[found.cell] = plan.codes["centre"]
    codes[(codes == rest) & (tile.status & WATER > 0)] = water
    return codes.reshape((1,) * (ndim - 2) + codes.shape)


# --- Centres by number -----------------------------------------------------------------------


def first_cells(
    tile: Tile,
    chosen: dict[str, NDArray],
    found: Found,
    plan: Plan,
    corner: tuple[int, int],
    width: int,
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Centres of a block, and the first cell of each, row-major in the frame."""
    owner = _grown(tile, chosen, found, plan)
    cell = np.flatnonzero(owner >= 0)
    centre, first = np.unique(owner.reshape(-1)[cell], return_index=True)
    row, column = np.divmod(cell[first], owner.shape[1])
    return centre, (corner[0] + row) * np.int64(width) + corner[1] + column


def number_centres(
    blocks: Sequence[tuple[NDArray, NDArray]],
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Centres of a frame, and their numbers by first cell."""
    centre, cell = (np.concatenate(part) for part in zip(*blocks, strict=True))
    order = np.lexsort((cell, centre))
    centre, first = np.unique(centre[order], return_index=True)
    rank = np.argsort(np.argsort(cell[order][first]))
    return centre, rank.astype(np.int32)


def draw_centres(
    tile: Tile,
    chosen: dict[str, NDArray],
    found: Found,
    numbers: tuple[NDArray, NDArray],
    plan: Plan,
    ndim: int,
) -> NDArray[np.int32]:
    """Draw the numbers of the centres of a block."""
    owner = _grown(tile, chosen, found, plan)
    centre, number = numbers
    urban = owner >= 0
    owner[urban] = number[np.searchsorted(centre, owner[urban])]
    return owner.reshape((1,) * (ndim - 2) + owner.shape)
