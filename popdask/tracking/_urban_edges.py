"""How the centres of a block grow at their edges and fill their holes, and the codes in the end.

A block knows of its neighbours what they let it see: strips of status and of centres.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter

from popdask.blocks.components import paint
from popdask.blocks.overlap import AROUND
from popdask.tracking import _urban_blocks
from popdask.tracking._urban_blocks import Tile
from popdask.tracking.urban_rules import Plan


class Strips(NamedTuple):
    """What a neighbour sees of a block: status of its cells, and which centre they belong to."""

    status: NDArray[np.uint8]
    owner: NDArray[np.int32] | None
    """None where there is no centre."""


@dataclass(frozen=True)
class State:
    """How far the edges of the centres of a block have grown."""

    cell: NDArray[np.int64]
    """Cells that joined, row-major in the block."""
    owner: NDArray[np.int32]
    """The centres that they joined."""
    active: bool
    """Whether any joined in the last round."""
    rims: dict[tuple[int, int], Strips] = field(repr=False)
    """What the neighbour in each direction sees."""


def _paint_owner(tile: Tile, chosen: dict[str, NDArray], plan: Plan) -> NDArray[np.int32]:
    runs = tile.runs[plan.uses["centre"][0]]
    columns = tile.status.shape[1]
    return paint(runs.first, runs.start, runs.stop, runs.component, chosen["centre"], columns)


def _paint_status(tile: Tile, chosen: dict[str, NDArray], plan: Plan) -> NDArray[np.uint8]:
    """Status with the cells of dense clusters marked."""
    if plan.level == 1 or not (chosen["dense"] >= 0).any():
        return tile.status
    dense = np.zeros(tile.status.shape, np.uint8)
    runs = tile.runs[plan.uses["dense"][0]]
    _urban_blocks.paint_if(dense, *runs[:4], chosen["dense"] >= 0, _urban_blocks.DENSE)
    return tile.status | dense


def _rims(
    status: NDArray[np.uint8], owner: NDArray[np.int32], depth: int
) -> dict[tuple[int, int], Strips]:
    """What the neighbours in every direction see of a block."""
    near = {-1: slice(0, depth), 0: slice(None), 1: slice(-depth, None)}
    rims = {}
    for y, x in AROUND if depth else ():
        part = np.s_[near[y], near[x]]
        owned = owner[part].copy() if (owner[part] >= 0).any() else None
        rims[y, x] = Strips(status[part].copy(), owned)
    return rims


def start(tile: Tile, chosen: dict[str, NDArray], plan: Plan) -> State:
    """Nothing has grown so far."""
    owner = _paint_owner(tile, chosen, plan)
    rims = _rims(_paint_status(tile, chosen, plan), owner, plan.halo)
    none = np.empty(0, np.int64)
    return State(none, none.astype(np.int32), True, rims)


def _owned(tile: Tile, chosen: dict[str, NDArray], state: State, plan: Plan) -> NDArray:
    owner = _paint_owner(tile, chosen, plan)
    owner.reshape(-1)[state.cell] = state.owner
    return owner


def _surround(
    status: NDArray, owner: NDArray, around: Sequence[State | None], depth: int
) -> tuple[NDArray[np.uint8], NDArray[np.int32], tuple[int, int]]:
    """Put a block and what it sees of its neighbours together; and where the block begins."""
    rows, columns = status.shape
    there = {side: state for side, state in zip(AROUND, around, strict=True) if state is not None}
    top, bottom = (depth * ((y, 0) in there) for y in (-1, 1))
    left, right = (depth * ((0, x) in there) for x in (-1, 1))
    shape = top + rows + bottom, left + columns + right
    wide, owners = np.zeros(shape, np.uint8), np.full(shape, -1, np.int32)
    down = {-1: slice(0, top), 0: slice(top, top + rows), 1: slice(top + rows, None)}
    along = {-1: slice(0, left), 0: slice(left, left + columns), 1: slice(left + columns, None)}
    wide[down[0], along[0]], owners[down[0], along[0]] = status, owner
    for (y, x), state in there.items() if depth else ():
        strips = state.rims[-y, -x]
        wide[down[y], along[x]] = strips.status
        if strips.owner is not None:
            owners[down[y], along[x]] = strips.owner
    return wide, owners, (top, left)


def _has_centres(chosen: dict[str, NDArray], around: Sequence[State | None]) -> bool:
    """Whether a centre lies in a block or in what it sees of the others."""
    if (chosen["centre"] >= 0).any():
        return True
    return any(
        state is not None and state.rims and state.rims[-y, -x].owner is not None
        for (y, x), state in zip(AROUND, around, strict=True)
    )


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
        return State(state.cell, state.owner, False, state.rims)
    own = _owned(tile, chosen, state, plan)
    status = _paint_status(tile, chosen, plan)
    wide, owner, (top, left) = _surround(status, own, around, plan.halo)
    rule = _urban_blocks.R2022A if plan.rules.centre_edge == "R2022A" else _urban_blocks.R2023A
    last = np.stack(
        np.divmod(_urban_blocks.grow_edges(owner, wide, plan.reach, rule), owner.shape[1])
    )
    rows, columns = own.shape
    inside = (top <= last[0]) & (last[0] < top + rows) & (left <= last[1])
    active = bool((inside & (last[1] < left + columns)).any())
    grown = owner[top : top + rows, left : left + columns]
    cell = np.flatnonzero((grown >= 0) & (own < 0))
    return State(
        np.concatenate([state.cell, cell]),
        np.concatenate([state.owner, grown.reshape(-1)[cell]]),
        active,
        _rims(status, grown, plan.halo),
    )


def any_active(states: Sequence[State]) -> bool:
    """Whether cells of any block may still join a centre."""
    return any(state.active for state in states)


def send(
    tile: Tile, chosen: dict[str, NDArray], state: State, active: bool, plan: Plan
) -> tuple[NDArray, NDArray] | None:
    """A whole block, if the frame has not come to rest."""
    return (tile.status, _owned(tile, chosen, state, plan)) if active else None


def finish(
    blocks: Sequence[tuple[NDArray, NDArray] | None], across: int, plan: Plan
) -> NDArray[np.int32] | None:
    """Let the edges of a frame's centres grow to the end, in one piece; None where they have."""
    if blocks[0] is None:
        return None
    rows = [list(blocks[start : start + across]) for start in range(0, len(blocks), across)]
    status, owner = (np.block([[b[part] for b in row if b] for row in rows]) for part in (0, 1))
    rule = _urban_blocks.R2022A if plan.rules.centre_edge == "R2022A" else _urban_blocks.R2023A
    _urban_blocks.grow_edges(owner, status, -1, rule)
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
    own = _owned(tile, chosen, state, plan)
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
        _urban_blocks.fill_holes(owner, plan.rules.centre_gap)
    block = np.s_[top : top + rows, left : left + columns]
    extra = (owner[block] >= 0) & (_paint_owner(tile, chosen, plan) < 0)
    near = np.empty(0, np.int32)
    if plan.level == 2 and (chosen["semidense"] >= 0).any():
        urban = (owner >= 0) | (wide & _urban_blocks.DENSE > 0)
        near = _touched(tile, chosen, _dilated(urban, plan.rules.semidense_buffer)[block], plan)
    cell = np.flatnonzero(extra)
    return Found(cell, owner[block].reshape(-1)[cell], near)


def _dilated(mask: NDArray[np.bool_], cells_wide: int) -> NDArray[np.bool_]:
    return maximum_filter(mask, 2 * cells_wide + 1, mode="constant") if cells_wide else mask


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
        codes[tile.status & _urban_blocks.LOW > 0] = 12
    for name, code in plan.codes.items():
        numbers = chosen[name]
        kept = numbers >= 0
        if name == "semidense":
            kept &= ~np.isin(numbers, near)
        _urban_blocks.paint_if(codes, *tile.runs[plan.uses[name][0]][:4], kept, code)
    codes.reshape(-1)[found.cell] = plan.codes["centre"]
    codes[(codes == rest) & (tile.status & _urban_blocks.WATER > 0)] = water
    return codes.reshape((1,) * (ndim - 2) + codes.shape)


# --- Centres by number -----------------------------------------------------------------------


def _centres(tile: Tile, chosen: dict[str, NDArray], found: Found, plan: Plan) -> NDArray[np.int32]:
    """The clusters of the block's centres as they are in the end."""
    owner = _paint_owner(tile, chosen, plan)
    owner.reshape(-1)[found.cell] = found.owner
    return owner


def first_cells(
    tile: Tile,
    chosen: dict[str, NDArray],
    found: Found,
    plan: Plan,
    corner: tuple[int, int],
    width: int,
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Centres of a block, and the first cell of each, row-major in the frame."""
    owner = _centres(tile, chosen, found, plan)
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
    owner = _centres(tile, chosen, found, plan)
    centre, number = numbers
    urban = owner >= 0
    owner[urban] = number[np.searchsorted(centre, owner[urban])]
    return owner.reshape((1,) * (ndim - 2) + owner.shape)
