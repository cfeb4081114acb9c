"""Communities beside scikit-learn: the same labels, one thread each, in a process of their own.

The classes are bands of a random field, smooth like population: large coherent patches, thin rims.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import dask
import numpy as np
import xarray as xr
from scipy.ndimage import gaussian_filter
from sklearn.cluster import DBSCAN

from benchmarks.machine import Machine, Row, Spent, duration, in_child, measured, times
from popdask.tracking.dbscan import dbscan

EPS, MIN_SAMPLES = 10, 50
Labels = Callable[[np.ndarray], np.ndarray]


def rows(machine: Machine, *, quick: bool) -> Iterator[Row]:
    """Compare the whole frame in one chunk, and in chunks, with the peer."""
    classes = bands((200, 150) if quick else (1796, 1105), 10)
    on = f"{classes.shape[0]} × {classes.shape[1]}, 10 classes"
    run = label if quick else partial(in_child, label)
    expected, peer = run(scikit_learn, classes)
    for labels, chunks in ((popdask_whole, "one chunk"), (popdask_chunks, "256² chunks")):
        found, spent = run(labels, classes)
        np.testing.assert_array_equal(found, expected)
        memory = (
            f"{spent.peak / classes.size:.0f} bytes per cell, peer {peer.peak / classes.size:.0f}"
        )
        yield Row(
            f"DBSCAN, {chunks}",
            on,
            duration(spent.cpu),
            f"scikit-learn {duration(peer.cpu)}",
            times(peer.cpu / spent.cpu),
            also=f"labels equal; {memory}",
        )


def label(labels: Labels, classes: np.ndarray) -> tuple[np.ndarray, Spent]:
    """Label a frame, once the functions are compiled."""
    with dask.config.set(scheduler="sync"):
        labels(classes[:60, :60])
        return measured(lambda: labels(classes))


def bands(shape: tuple[int, int], count: int, smooth: float = 5, seed: int = 0) -> np.ndarray:
    """Classes 0 … count − 1: the quantiles of a smoothed random field, int16."""
    field = gaussian_filter(np.random.default_rng(seed).standard_normal(shape), smooth)
    edges = np.quantile(field, np.linspace(0, 1, count + 1)[1:-1])
    return np.digitize(field, edges).astype(np.int16)


def scikit_learn(classes: np.ndarray) -> np.ndarray:
    """Labels of the peer, class by class, continued from class to class."""
    community = np.full(classes.shape, -1, np.int32)
    for kind in np.unique(classes[classes >= 0]):
        cells = np.argwhere(classes == kind)
        found = DBSCAN(eps=EPS, min_samples=MIN_SAMPLES, n_jobs=1).fit_predict(cells)
        community[tuple(cells.T)] = np.where(found < 0, -1, found + community.max() + 1)
    return community


def popdask_whole(classes: np.ndarray) -> np.ndarray:
    """Labels of popdask, the frame in one chunk."""
    return dbscan(xr.DataArray(classes, dims=("y", "x")), eps=EPS, min_samples=MIN_SAMPLES).values


def popdask_chunks(classes: np.ndarray) -> np.ndarray:
    """Labels of popdask, the frame in chunks of 256 × 256 cells."""
    array = xr.DataArray(classes, dims=("y", "x")).chunk(y=256, x=256)
    return dbscan(array, eps=EPS, min_samples=MIN_SAMPLES).values
