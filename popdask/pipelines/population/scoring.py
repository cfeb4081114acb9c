"""Estimates of labelled cells, by the models and by what they have to beat."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import dask
import numpy as np
import pandas as pd
import xarray as xr
from dask import delayed

from popdask.imagery.cells import cells_grid
from popdask.imagery.evaluation import Baseline
from popdask.imagery.models import TrainedModel


class Joint:
    """Presence first, and counts where somebody is.

    Parameters
    ----------
    presence
        The model of presence; None for a single stage.
    count
        The model that counts.
    threshold
        The probability above which people are counted.
    device
        Where.
    """

    def __init__(
        self, presence: TrainedModel | None, count: TrainedModel, threshold: float, device: str
    ) -> None:
        self._presence, self._count = presence, count
        self._threshold, self._device = threshold, device

    def predict(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Give (presence, people) of images; without a model presence is NaN."""
        if self._presence is None:
            people = self._count.predict(images, device=self._device)
            return np.full(len(images), np.nan, np.float32), people
        presence = self._presence.predict(images, device=self._device)
        people, there = np.zeros(len(images), np.float32), presence > self._threshold
        people[there] = self._count.predict(images[there], device=self._device)
        return presence, people


def predictions(cells: xr.Dataset, estimators: Mapping[str, Baseline]) -> dict[str, pd.DataFrame]:
    """Let some estimators see cells, chunk by chunk.

    Parameters
    ----------
    cells
        Labelled cells; the images may be lazy.
    estimators
        By name.

    Returns
    -------
    dict of DataFrame
        By name: cell (its code), prediction, truth, presence (where it is known), one row per cell.
    """
    images = cells.chunk({"band": -1, "row": -1, "col": -1})["images"].data
    blocks = images.to_delayed().reshape(-1)
    tasks = {
        name: [delayed(_predict)(model, block) for block in blocks]
        for name, model in ((name, delayed(one)) for name, one in estimators.items())
    }
    (found,) = dask.compute(tasks)
    grid = cells_grid(cells)
    places = zip(cells["north"].values, cells["east"].values, strict=True)
    told = pd.DataFrame(
        {"cell": [grid.code(*place) for place in places], "truth": cells["people"].values}
    )
    return {name: _table(told, parts) for name, parts in found.items()}


def _predict(estimator: Baseline, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return estimator.predict(images)


def _table(told: pd.DataFrame, parts: list[Any]) -> pd.DataFrame:
    presence, people = (np.concatenate(column) for column in zip(*parts, strict=True))
    table = told.assign(prediction=people.astype(np.float64))
    return table if np.isnan(presence).any() else table.assign(presence=presence.astype(np.float64))
