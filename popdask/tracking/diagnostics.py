"""How much the codes remember, and how well the classes part: the numbers behind the figures.

The measures are those of olley102's PopulationCountClustering, on cells that were drawn before:
silhouettes (Rousseeuw 1987) of the classes, the squared error of the reconstructed people beside
that of a constant, and the cosine between the true and the reconstructed flow. A mean over all
cells would tell of empty land alone, so errors are told by population and cosines by speed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pandas as pd
import shapely
from numpy.typing import ArrayLike, NDArray
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from popdask.errors import InputError

DECADES = 4  # of speed; slower cells have a direction only by rounding


def silhouettes(points: ArrayLike, classes: ArrayLike) -> NDArray[np.float64]:
    """Measure how much nearer each cell is to its own class than to the next one.

    Parameters
    ----------
    points : array_like of float, (n, latent)
        Codes of some cells, as the classes see them (`ClassModel.transform`).
    classes : array_like of int, (n,)
        Their classes.

    Returns
    -------
    ndarray of float64, (n,)
        (b − a) / max(a, b) with a the mean distance to the other cells of the class and b that to
        the nearest other class: 1 = well inside, 0 = between, −1 = better elsewhere. 0 for a class
        of one cell. NaN where there is one class only.

    Raises
    ------
    InputError
        If the lengths differ.

    Notes
    -----
    Eager; n² distances, some megabytes at a time: 5,000 cells take about a second.

    References
    ----------
    Rousseeuw, P. J. (1987). Silhouettes: a graphical aid to the interpretation and validation of
    cluster analysis. Journal of Computational and Applied Mathematics 20, 53-65.

    Examples
    --------
    >>> silhouettes([[0.0], [1.0], [9.0], [10.0]], [0, 0, 1, 1]).round(2)
    array([0.89, 0.88, 0.88, 0.89])
    """
    from sklearn.metrics import silhouette_samples

    points, classes = _checked(points, classes)
    count = len(np.unique(classes))
    if count < 2:
        return np.full(len(classes), np.nan)
    if count == len(classes):
        return np.zeros(len(classes))
    with threadpool_limits(1):
        return silhouette_samples(points, classes)


Measure = Callable[[NDArray[np.float64], NDArray[np.float64]], NDArray[np.float64]]
"""An error of each cell, from the truth and what is remembered of it."""


def _squared(truth: NDArray[np.float64], guess: NDArray[np.float64]) -> NDArray[np.float64]:
    return (truth - guess) ** 2


def error_by_population(
    population: ArrayLike,
    reconstruction: ArrayLike,
    *,
    bins: int = 200,
    measure: Measure = _squared,
) -> pd.DataFrame:
    """Measure the error of reconstructed people by the people who live there.

    Parameters
    ----------
    population : array_like of float, (n,)
        People of some cells, finite and not negative.
    reconstruction : array_like of float, (n,)
        What the encoder remembers of them.
    bins : int, optional
        Number of population levels, of equal width, from 0 to the most populous cell.
    measure : callable, optional
        The error of each cell, from truth and reconstruction (n,); by default its square.

    Returns
    -------
    DataFrame
        One row per level that has cells: ``low`` and ``high`` (people per cell), ``cells``,
        ``error`` (the mean, by default in people²), ``median_error`` (that of the median of all
        cells as a constant prediction), and ``ratio`` of the two (below 1 = better than the
        constant; NaN where the constant has no error).

    Raises
    ------
    InputError
        If the lengths differ or `bins` is not positive.

    Examples
    --------
    >>> table = error_by_population([0.0, 0.0, 0.0, 100.0], [1.0, 0.0, 1.0, 90.0], bins=2)
    >>> table[["low", "high", "cells", "error", "median_error", "ratio"]].round(2)
        low   high  cells   error  median_error  ratio
    0   0.0   50.0      3    0.67           0.0    NaN
    1  50.0  100.0      1  100.00       10000.0   0.01
    """
    truth, guess = _checked(population, reconstruction, bins, "level of population")
    most = truth.max(initial=0)
    edges = np.linspace(0, most if most > 0 else 1, bins + 1)
    errors = measure(truth, guess)
    constant = measure(truth, np.full_like(truth, np.median(truth))) if len(truth) else errors
    rows = [
        (low, high, len(cells), errors[cells].mean(), constant[cells].mean())
        for low, high, cells in _levels(truth, edges)
    ]
    table = pd.DataFrame(rows, columns=["low", "high", "cells", "error", "median_error"])
    base = table["median_error"].astype(float)
    return table.assign(ratio=table["error"] / base.where(base > 0))


def cosine_by_speed(flow: ArrayLike, reconstruction: ArrayLike, *, bins: int = 40) -> pd.DataFrame:
    """Measure how well the direction of the flow is remembered, by its speed.

    Parameters
    ----------
    flow : array_like of float, (n, 2)
        True u and v of some cells, cells per frame.
    reconstruction : array_like of float, (n, 2)
        What the encoder remembers of them.
    bins : int, optional
        Number of speeds, in equal ratios, over four decades up to the fastest cell.

    Returns
    -------
    DataFrame
        One row per speed that has cells: ``low`` and ``high`` (cells per frame), ``cells``,
        ``cosine`` (mean; 1 = same direction, −1 = opposite; a reconstruction that stands still
        counts as 0), ``lower`` and ``upper`` (quartiles). No row where nothing moves.

    Raises
    ------
    InputError
        If the shapes differ or `bins` is not positive.

    Examples
    --------
    >>> table = cosine_by_speed([[1.0, 0.0], [0.0, 1.0]], [[2.0, 0.0], [1.0, 1.0]], bins=1)
    >>> table[["cells", "cosine"]].round(3)
       cells  cosine
    0      2   0.854
    """
    truth, guess = _checked(flow, reconstruction, bins, "level of speed")
    columns = ["low", "high", "cells", "cosine", "lower", "upper"]
    speed = np.hypot(*truth.reshape(-1, 2).T)
    fastest = speed.max(initial=0)
    if fastest == 0:
        return pd.DataFrame(columns=columns, dtype=float).astype({"cells": int})
    lengths = speed * np.hypot(*guess.reshape(-1, 2).T)
    cosine = np.divide((truth * guess).sum(axis=1), lengths, out=0 * speed, where=lengths > 0)
    cosine = cosine.clip(-1, 1)
    edges = _speed_edges(fastest, bins)
    rows = [
        (low, high, len(cells), cosine[cells].mean(), *np.quantile(cosine[cells], [0.25, 0.75]))
        for low, high, cells in _levels(speed, edges)
    ]
    return pd.DataFrame(rows, columns=columns)


def error_by_speed(flow: ArrayLike, reconstruction: ArrayLike, *, bins: int = 40) -> pd.DataFrame:
    """Measure the squared error of the reconstructed flow, by the speed of the true one."""
    true, guess = _checked(flow, reconstruction, bins, "speed")
    speeds = [np.hypot(*cells.reshape(-1, 2).T) for cells in (true, guess)]
    columns = ["low", "high", "cells", "reconstructed", "error", "rest_error"]
    fastest = max(speed.max(initial=0) for speed in speeds)
    if not fastest > 0:
        return pd.DataFrame(columns=columns)
    edges = _speed_edges(fastest, bins)
    counts = [np.histogram(speed, edges)[0] for speed in speeds]
    sums = [
        np.histogram(speeds[0], edges, weights=squares)[0]
        for squares in (((true - guess) ** 2).reshape(-1, 2).sum(axis=1), speeds[0] ** 2)
    ]
    means = [np.where(counts[0] > 0, total / np.maximum(counts[0], 1), np.nan) for total in sums]
    return pd.DataFrame(dict(zip(columns, (edges[:-1], edges[1:], *counts, *means), strict=True)))


def community_means(communities: pd.DataFrame) -> pd.DataFrame:
    """Give the mean population and the centroid of every community.

    Parameters
    ----------
    communities : GeoDataFrame
        The table of `popdask.tracking.describe.summarize`.

    Returns
    -------
    DataFrame
        time, community, ``population`` (people), ``mean_population`` (people per cell), and the
        centroid's ``x`` and ``y`` in units of the map.

    Examples
    --------
    >>> from shapely import Point
    >>> row = {"time": 2000, "community": 0, "population": 90.0, "cells": 60}
    >>> community_means(pd.DataFrame([row | {"centroid": Point(5, 7)}]))
       time  community  population  mean_population    x    y
    0  2000          0        90.0              1.5  5.0  7.0
    """
    table = pd.DataFrame(communities[["time", "community", "population"]])
    table["mean_population"] = communities["population"] / communities["cells"]
    table["x"], table["y"] = shapely.get_coordinates(communities["centroid"].to_numpy()).T
    return table


def _levels(
    values: NDArray[np.float64], edges: NDArray[np.float64]
) -> Iterator[tuple[float, float, NDArray[np.int64]]]:
    """Group cells by the bin that their value lies in, the last edge included."""
    level = np.searchsorted(edges, values, side="right") - 1
    level[values == edges[-1]] = len(edges) - 2
    for number in np.unique(level[(level >= 0) & (level < len(edges) - 1)]):
        yield float(edges[number]), float(edges[number + 1]), np.flatnonzero(level == number)


def _speed_edges(fastest: float, bins: int) -> NDArray[np.float64]:
    """Bounds of speeds in equal ratios; the last is not rounded."""
    edges = np.geomspace(fastest / 10**DECADES, fastest, bins + 1)
    edges[-1] = fastest
    return edges


def _checked(
    one: ArrayLike, other: ArrayLike, bins: int = 1, bin_name: str = ""
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Refuse arrays of different cells, and no bins."""
    first, second = np.asarray(one, np.float64), np.asarray(other, np.float64)
    if len(first) != len(second):
        raise InputError(
            f"{len(first)} cells are compared with {len(second)}: give both for the same cells"
        )
    if bins < 1:
        raise InputError(f"bins is {bins}, expected at least 1 {bin_name}")
    return first, second
