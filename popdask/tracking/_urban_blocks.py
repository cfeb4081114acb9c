"""What is done to one block of a raster, and to all blocks of a frame, on plain arrays.

Between these steps a block is no more than a :class:`Tile`: a byte per cell and runs of cells.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from popdask.blocks.components import (
    Joined,
    Parts,
    Runs,
    at_edge,
    describe_parts,
    join_parts,
    keep_components,
    label_block,
    sum_people,
)
from popdask.blocks.sums import from_fixed
from popdask.tracking import _urban_cells
from popdask.tracking.urban_rules import Kind, Plan, UrbanisationRules


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


def _measure(given: _urban_cells.Given, area: NDArray, plan: Plan, optimal: NDArray) -> _Measured:
    """Measure a block that has `plan.pad` cells around it, a band of rows at a time."""
    pad = plan.pad
    rows, columns = (n - 2 * pad for n in given.people.shape)
    windows = {kind.window for kind in plan.kinds} - {None}
    people = {window: np.empty((rows, columns)) for window in windows}
    own = given.people[pad : pad + rows, pad : pad + columns]
    masks = [np.zeros((rows, columns), bool) for _ in plan.kinds]
    found = _Measured(np.zeros((rows, columns), np.uint8), masks, {**people, None: own})
    for band in _urban_cells.bands(rows):
        wide = slice(band.start, band.stop + 2 * pad)
        _measure_band(given.at(wide), area[wide], band, found, plan, optimal)
    return found


def _measure_band(
    given: _urban_cells.Given,
    area: NDArray,
    band: slice,
    found: _Measured,
    plan: Plan,
    optimal: NDArray,
) -> None:
    """Measure a band of rows, which is given with the cells around it."""
    pad = plan.pad
    density, share = _urban_cells.densities(given, area)
    height, width = density.shape
    inner = np.s_[pad : height - pad, pad : width - pad]
    smooth: dict[int | None, NDArray] = {None: density[inner]}
    for window in found.people:
        if window:
            near = pad - window // 2
            around = np.s_[near : height - near, near : width - near]
            smooth[window] = _urban_cells.window_mean(density[around], window)
            found.people[window][band] = _urban_cells.window_mean(given.people[around], window)
    for mask, kind in zip(found.masks, plan.kinds, strict=True):
        mask[band] = smooth[kind.window] >= kind.density
        if share is not None and kind.built is not None:
            least = optimal[0] if isinstance(kind.built, str) else kind.built
            mask[band] |= share[inner] >= least
    counted = found.people[plan.rules.centre_window][band]
    found.status[band] = _status(given.at(inner), density[inner], counted, plan.rules)


def _status(
    given: _urban_cells.Given, density: NDArray, counted: NDArray, rules: UrbanisationRules
) -> NDArray[np.uint8]:
    """Water, cells that do not count at the edge of a centre, and low density, as bits."""
    status = np.where(density >= rules.low_density, _urban_cells.LOW, 0).astype(np.uint8)
    if given.land is None:
        return status
    wet = given.land < rules.water_land
    water = (wet | np.isnan(given.land)) & ~(given.people > rules.water_people)
    if given.built is not None:
        water &= ~(given.built > rules.water_built)
    status[water] |= _urban_cells.WATER
    status[wet & (counted <= 0)] |= _urban_cells.IGNORED
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
    found = _measure(_urban_cells.given_of(people, land, built), area, plan, optimal)
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


def take(parts: Sequence[Any], number: int) -> Any:
    """The part of one block."""
    return parts[number]


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
    given = _urban_cells.given_of(people, land, built)
    rows, columns = (n - 2 * pad for n in given.people.shape)
    given = given.at(np.s_[pad : pad + rows, pad : pad + columns])
    dense = np.empty((rows, columns), bool)
    for band in _urban_cells.bands(rows):
        density = _urban_cells.densities(given.at(band), area[pad:][band])[0]
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
