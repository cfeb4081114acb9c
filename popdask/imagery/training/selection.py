"""Which cells a kind of model learns from, and how often each is drawn."""

from __future__ import annotations

import warnings

import numpy as np
from numpy.typing import NDArray
from xarray import Dataset

from popdask.errors import InputError
from popdask.imagery.cells import split_fingerprint
from popdask.imagery.models import KINDS, LeakageWarning, TrainedModel
from popdask.imagery.training.loading import predict_cells
from popdask.imagery.training.recipe import TrainingConfig

INHABITED = 0.5  # presence above it


def choose_cells(
    cells: Dataset, kind: str, gate: TrainedModel | None, config: TrainingConfig, device: str
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Choose the cells of a kind of model: those to learn from, and those to judge it by."""
    if kind not in KINDS:
        raise InputError(f"kind is {kind!r}, expected one of {', '.join(KINDS)}")
    if "split" not in cells.coords:
        raise InputError("the cells have no split; expected one; make it with split_cells")
    people, split = cells["people"].values, cells["split"].values
    wanted = np.isfinite(people) & (split >= 0)
    if gate is not None:
        _check_gate(gate, cells, kind)
        labelled = np.flatnonzero(wanted)
        said = predict_cells(gate, cells, labelled, device=device, threads=config.threads)
        wanted[labelled] = said > INHABITED
    elif kind in ("count", "transformer"):
        wanted &= people > 0
    training, validation = (np.flatnonzero(wanted & (split == side)) for side in (0, 1))
    if not (len(training) and len(validation)):
        raise InputError(
            f"there are {len(training)} training and {len(validation)} validation cells for "
            f"{kind}, expected some of both; give more cells or another split"
        )
    return training, validation


def _check_gate(gate: TrainedModel, cells: Dataset, kind: str) -> None:
    if gate.kind != "presence" or kind != "count":
        raise InputError(
            f"the gate is a model of {gate.kind} for training {kind}, expected one of presence for "
            "training count; leave it out or change the kind"
        )
    if gate.split != split_fingerprint(cells):
        warnings.warn(
            "leakage: the gate was trained with another split of the cells, so it may know the "
            "validation cells; train all models with one split",
            LeakageWarning,
            stacklevel=4,
        )


def draw_shares(people: NDArray[np.float64], config: TrainingConfig) -> NDArray[np.float64] | None:
    """How often to draw each cell: bins of people with n cells, n to the power 1 − balance."""
    if config.balance == 0:
        return None
    inhabited = people[people > 0]
    edges = np.histogram_bin_edges(inhabited, config.bins)[1:-1]
    bins = np.where(people > 0, 1 + np.searchsorted(edges, people, side="right"), 0)
    weights = np.bincount(bins)[bins] ** -config.balance
    return weights / weights.sum()
