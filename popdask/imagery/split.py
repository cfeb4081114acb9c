"""One split of the labelled cells, and training cells that are set aside within it.

The inner split: training cells that nothing is learned from, by which a training is judged.

Whatever is chosen by looking at some cells (the epoch, the rate, a rule) is better on them than
elsewhere. So a part of the training cells is set aside to choose by, and the cells that scores are
told of are seen by nothing.

One split of the cells for every model: which are learned from, which are kept for scoring.

A split is stored with the cells, so that no two models can have been trained on different ones.
Blocks keep the two sides apart on the ground: whole squares of the grid are drawn for validation,
and training cells that come too near to one of their cells are on neither side.
"""

from __future__ import annotations

import hashlib
import warnings
from typing import Literal

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from popdask.errors import InputError
from popdask.imagery.cells import cells_grid

SELECTION = 2


def set_aside(cells: xr.Dataset, share: float = 0.2, *, seed: int | None = None) -> xr.Dataset:
    """Set a part of the training cells aside, to choose epochs, rates and rules by."""
    if not 0 <= share < 1:
        raise InputError(
            f"the share of training cells to choose by is {share}; expected 0 or more and less "
            "than 1, such as 0.2; correct it"
        )
    if "split" not in cells.coords:
        raise InputError("the cells have no split; expected one; make it with split_cells")
    if share == 0:
        return cells
    split, attrs = cells["split"].values.copy(), dict(cells["split"].attrs)
    learned = np.flatnonzero(split == TRAINING)
    seed = int(attrs.get("seed", 0)) if seed is None else seed
    side = max(1, int(attrs.get("block", 2)) // 2)
    groups = draw_groups(cells.isel(cell=learned), attrs.get("kind", "random"), side, seed)
    split[learned[np.isin(groups, draw(groups, share * len(learned), seed))]] = SELECTION
    return cells.assign_coords(split=("cell", split, {**attrs, "selection": share}))


TRAINING, VALIDATION, NEITHER = 0, 1, -1
Kind = Literal["random", "blocks"]
COSTLY = 1 / 3  # share of the training cells that a gap may cost without a warning


class GapWarning(UserWarning):
    """The gap between training and validation cells costs many of the training cells."""


def split_cells(
    cells: xr.Dataset,
    *,
    kind: Kind = "blocks",
    validation: float = 0.2,
    block: int = 10,
    gap: int | None = None,
    seed: int = 0,
) -> xr.Dataset:
    """Choose the cells for training and for validation.

    Parameters
    ----------
    cells : Dataset
        With people, north and east (cell).
    kind : {"random", "blocks"}, optional
        Draw cells, or (by default) squares of `block` × `block` cells. Randomly drawn cells have
        their neighbours on the other side, so scores on them say little about places not seen.
    validation : float, optional
        Share of the labelled cells, between 0 and 1.
    block : int, optional
        Cells per side of a square, which are aligned with the grid's origin.
    gap : int, optional
        With blocks: no training cell lies within so many cells, along rows and columns, of a
        validation cell. 1 leaves out the eight neighbours. If not given, 1, or twice the context
        of the cells, with which no pixel is seen on both sides.
    seed : int, optional
        Another seed gives another split.

    Returns
    -------
    Dataset
        With the coordinate ``split`` (cell) int8: 0 training, 1 validation, −1 neither, which are
        cells with unknown people and, between blocks, those in the gap. It depends on the set of
        labelled cells and the settings alone, not on the order of the cells.

    Raises
    ------
    InputError
        If a setting is wrong, or one side would be empty.

    Warns
    -----
    GapWarning
        If the gap costs more than a third of the training cells.

    Notes
    -----
    Random: exactly the share of cells, rounded. Blocks: the drawn squares whose number of cells
    comes nearest to it; the gap is taken from the training cells.

    Examples
    --------
    >>> from odc.geo.xr import xr_zeros
    >>> from popdask.imagery.grid import CellGrid
    >>> from popdask.imagery.cutting import cut_cells
    >>> image = xr_zeros(CellGrid(100).geobox(range(10), range(10), pixels=4), "uint8")
    >>> cells = cut_cells(image).assign(people=("cell", np.ones(100)))
    >>> int((split_cells(cells, kind="random").split == 1).sum())
    20
    >>> int((split_cells(cells, block=5).split == 1).sum())
    25
    """
    if not 0 < validation < 1:
        raise InputError(
            f"validation is {validation}; expected a share between 0 and 1, such as 0.2; correct it"
        )
    groups = draw_groups(cells, kind, block, seed)
    target = validation * np.count_nonzero(groups >= 0)
    chosen = draw(groups, target, seed)
    settings = _settings(cells, kind, block, gap, seed)
    return _with_split(cells, groups >= 0, np.isin(groups, chosen), settings)


def fold_cells(
    cells: xr.Dataset,
    folds: int = 5,
    *,
    kind: Kind = "blocks",
    block: int = 10,
    gap: int | None = None,
    seed: int = 0,
) -> xr.Dataset:
    """Deal the cells out to the folds of a cross-validation."""
    groups = draw_groups(cells, kind, block, seed)
    found, sizes = np.unique(groups[groups >= 0], return_counts=True)
    if not (2 <= folds <= 127 and len(found) >= folds):
        drawn = "squares of cells" if kind == "blocks" else "cells"
        raise InputError(
            f"folds is {folds} for {len(found)} {drawn} with known people; expected at least 2, "
            "and no more folds than those; use fewer folds or a smaller block"
        )
    order = np.random.default_rng(seed).permutation(len(found))
    order = order[np.argsort(-sizes[order], kind="stable")]
    held = np.zeros(folds, np.int64)
    fold_of = np.full(groups.max() + 1, NEITHER, np.int8)
    for which in order:  # the largest first, each to the fold that holds the fewest cells
        smallest = int(np.argmin(held))
        held[smallest] += sizes[which]
        fold_of[found[which]] = smallest
    fold = np.where(groups >= 0, fold_of[groups], NEITHER).astype(np.int8)
    settings = _settings(cells, kind, block, gap, seed) | {"folds": folds}
    return cells.assign_coords(fold=("cell", fold, settings))


def select_fold(cells: xr.Dataset, fold: int) -> xr.Dataset:
    """Make the split in which one fold is for validation and the others for training."""
    if "fold" not in cells.coords or not 0 <= fold < cells["fold"].attrs["folds"]:
        held = f"{cells['fold'].attrs['folds']} folds" if "fold" in cells.coords else "no folds"
        raise InputError(
            f"the cells have {held}, and fold {fold} was asked for; expected one of them, counted "
            "from 0; make them with fold_cells"
        )
    folds = cells["fold"].values
    settings = dict(cells["fold"].attrs) | {"fold": fold}
    return _with_split(cells, folds >= 0, folds == fold, settings)


def split_fingerprint(cells: xr.Dataset) -> str:
    """Identify one split among another."""
    if "split" not in cells.coords:
        raise InputError("the cells have no split; expected one; make it with split_cells")
    grid = cells_grid(cells)
    rows = np.stack([cells[name].values.astype("<i8") for name in ("north", "east", "split")])
    rows = rows[:, rows[2] != NEITHER]
    rows = rows[:, np.lexsort(rows)]
    place = f"{grid.size!r} {grid.crs} {grid.origin!r}"
    return hashlib.sha256(place.encode() + np.ascontiguousarray(rows).tobytes()).hexdigest()


def draw_groups(cells: xr.Dataset, kind: Kind, block: int, seed: int) -> NDArray[np.int64]:
    """Number what is drawn, a cell or a square of them, from the south-west; −1 if unlabelled."""
    if kind not in ("random", "blocks"):
        raise InputError(
            f"the kind of split is {kind!r}; expected 'random' or 'blocks'; correct it"
        )
    if seed < 0:
        raise InputError(f"seed is {seed}; expected a whole number, 0 or more; correct it")
    if block < 1:
        raise InputError(f"block is {block}; expected cells per side, at least 1, such as 10")
    places = np.stack([cells["north"].values, cells["east"].values])
    labelled = np.isfinite(cells["people"].values)
    if not labelled.any():
        raise InputError(
            f"none of the {cells.sizes['cell']} cells has known people; expected some to split; "
            "give counts where they are cut"
        )
    if "zone" in cells.coords:  # whole zones are drawn, where their middles lie
        places = _middles(places, cells["zone"].values)
    if kind == "blocks":
        places = places // block
    groups = np.full(cells.sizes["cell"], NEITHER, np.int64)
    groups[labelled] = np.unique(places[:, labelled], axis=1, return_inverse=True)[1].ravel()
    return groups


def _middles(places: NDArray[np.int64], zone: NDArray[np.int32]) -> NDArray[np.int64]:
    """The places (2, cell) of cells, moved to the middle of their zone; those in none stay."""
    number = np.where(zone >= 0, zone, 0)
    there = np.bincount(number, zone >= 0).clip(1)
    sums = [np.bincount(number, np.where(zone >= 0, axis, 0)) for axis in places]
    middles = np.floor(np.stack(sums) / there).astype(np.int64)
    return np.where(zone >= 0, middles[:, number], places)


def draw(groups: NDArray[np.int64], target: float, seed: int) -> NDArray[np.int64]:
    """Draw groups until they hold as nearly as can be `target` cells, but neither none nor all."""
    found, sizes = np.unique(groups[groups >= 0], return_counts=True)
    if len(found) < 2:
        raise InputError(
            "all cells with known people lie in one square; expected at least two; use a smaller "
            "block"
        )
    order = np.random.default_rng(seed).permutation(len(found))
    held = np.cumsum(sizes[order])[:-1]
    return found[order[: int(np.argmin(np.abs(held - target))) + 1]]


def _settings(
    cells: xr.Dataset, kind: Kind, block: int, gap: int | None, seed: int
) -> dict[str, str | int]:
    if kind == "random":
        return {"kind": kind, "gap": 0, "seed": seed}
    wanted = max(1, 2 * int(cells.attrs["context"])) if gap is None else gap
    if wanted < 1:
        raise InputError(
            f"gap is {gap}; expected at least 1 cell between blocks, so that neighbours are never "
            'on both sides; correct it, or use kind="random"'
        )
    return {"kind": kind, "block": block, "gap": wanted, "seed": seed}


def _with_split(
    cells: xr.Dataset,
    labelled: NDArray[np.bool_],
    validation: NDArray[np.bool_],
    settings: dict[str, str | int],
) -> xr.Dataset:
    """Add the split, without the training cells that come too near to a validation cell."""
    split = np.where(labelled, np.where(validation, VALIDATION, TRAINING), NEITHER).astype(np.int8)
    gap = int(settings["gap"])
    if gap:
        places = np.stack([cells["north"].values, cells["east"].values], axis=1)
        training = np.flatnonzero(split == TRAINING)
        tree = cKDTree(places[split == VALIDATION])
        away, _ = tree.query(places[training], p=np.inf, distance_upper_bound=gap + 0.5)
        near = training[np.isfinite(away)]
        split[near] = NEITHER
        _warn_of_cost(gap, len(near), len(training))
    if not (split == TRAINING).any():
        raise InputError(
            f"no training cell is more than {gap} cells away from the validation cells; expected "
            "some on both sides; use smaller blocks, a smaller share or a smaller gap"
        )
    return cells.assign_coords(split=("cell", split, settings))


def _warn_of_cost(gap: int, lost: int, training: int) -> None:
    if COSTLY * training < lost < training:
        warnings.warn(
            f"the gap of {gap} cells costs {lost:,} of {training:,} training cells; expected no "
            "more than a third: take larger squares, fewer folds or a smaller gap",
            GapWarning,
            stacklevel=4,
        )
