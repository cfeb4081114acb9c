"""How sure an estimate is: intervals learned from errors on cells that no model has seen.

Split-conformal prediction (Vovk, Gammerman and Shafer 2005; Lei and others 2018) by bins of the
predicted density, as Mondrian predictors have it: the errors of a bin say how far the truth lies
from an estimate of that bin. An error counts relative to the density, so that a zone of another
size, or a cell at the dense end of its bin, is not told the errors of others.

Cells of one place err alike, so sums over a zone are surer than their cells, but much less so than
if cells erred by themselves. The intervals of zones are therefore learned from the errors of whole
zones, never added up from those of cells.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from popdask.errors import InputError

OFFSET = 0.1  # of the mean density: keeps errors of empty places from being infinite
ROOM = 8  # times the least number of errors that a bin should have: fewer were no surer, and wider
REACH = 4  # times the cells of the largest size learned: the step between two sizes
GROUPS = 4  # that squares are dealt out to where there are no folds


@dataclass(frozen=True, eq=False)
class ConformalIntervals:
    """Intervals of people in cells, or in zones of them."""

    level: float
    """Share of the truths that the intervals are to hold."""
    offset: float
    """Added to the density that errors are relative to, people per cell."""
    edges: NDArray[np.float64]
    """Predicted densities at which the bins meet, people per cell, (bins − 1,)."""
    low: NDArray[np.float64]
    """Lower ends as relative errors, (bins,); −∞ where nobody is among what is likely."""
    high: NDArray[np.float64]
    """Upper ends as relative errors, (bins,)."""
    cases: NDArray[np.int64]
    """Errors that each bin was learned from, (bins,)."""

    @classmethod
    def fit(
        cls, estimate: Any, truth: Any, cells: Any = 1, *, level: float = 0.9, bins: int = 10
    ) -> ConformalIntervals:
        """Learn intervals from estimates of known cells or zones that no model has seen."""
        said, true, size = np.broadcast_arrays(
            *(np.asarray(array, np.float64) for array in (estimate, truth, cells))
        )
        least = least_cases(level)
        if bins < 1:
            raise InputError(f"bins is {bins}; expected at least 1, such as 10; correct it")
        if len(said) < least:
            raise InputError(
                f"there are errors of {len(said)} places; expected at least {least} for intervals "
                f"of {level:.0%}: give more known places, smaller zones, or a lower level"
            )
        density, missed = said / size, (true - said) / size
        offset = max(OFFSET * float(density.mean()), 1e-9)
        edges = _edges(density, min(bins, max(1, len(said) // (ROOM * least))), least)
        which = np.searchsorted(edges, density, side="right")
        errors = missed / (density + offset)
        ends = [
            _ends(errors[which == number], density[which == number], offset, level)
            for number in range(len(edges) + 1)
        ]
        low, high = np.array(ends).T
        return cls(level, offset, edges, low, high, np.bincount(which, minlength=len(ends)))

    def predict(
        self, estimate: Any, cells: Any = 1
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the intervals of estimates."""
        said, size = np.asarray(estimate, np.float64), np.asarray(cells, np.float64)
        density = said / size
        which = np.searchsorted(self.edges, np.nan_to_num(density), side="right")
        scale = (density + self.offset) * size
        likely = np.isfinite(self.low)[which]
        low = np.where(likely, said + np.where(likely, self.low[which], 0.0) * scale, 0.0)
        low = np.where(np.isnan(said), np.nan, np.clip(low, 0.0, said))
        return low, np.maximum(said + self.high[which] * scale, said)

    def table(self) -> pd.DataFrame:
        """Return one row per bin: from (people per cell), low, high, cases, level and offset."""
        return pd.DataFrame(
            {
                "from": np.concatenate([[0.0], self.edges]),
                "low": self.low,
                "high": self.high,
                "cases": self.cases,
                "level": self.level,
                "offset": self.offset,
            }
        )

    @classmethod
    def of_table(cls, table: pd.DataFrame) -> ConformalIntervals:
        """Take up again what `table` gave."""
        columns = {name: table[name].to_numpy() for name in ("low", "high", "cases")}
        level, offset = (float(table[name].iloc[0]) for name in ("level", "offset"))
        return cls(level, offset, table["from"].to_numpy()[1:], **columns)


def least_cases(level: float) -> int:
    """Say how many errors two-sided intervals of a level need at least: 19 for 90 %."""
    if not 0 < level < 1:
        raise InputError(
            f"level is {level}; expected a share between 0 and 1, such as 0.9; correct it"
        )
    return math.ceil(round(2 / (1 - level), 6)) - 1


def intervals_by_size(
    people: Any, cells: Any, learned: Mapping[int, ConformalIntervals]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Intervals of zones by those learned of the nearest size; NaN where no size is near."""
    people, cells = np.asarray(people, np.float64), np.asarray(cells)
    sizes = np.array(sorted(learned))
    middles = np.sqrt(sizes[1:] * sizes[:-1])  # halfway between two sizes, as factors
    which = np.searchsorted(middles, cells)
    low, high = np.full((2, len(people)), np.nan)
    for number, size in enumerate(sizes.tolist()):
        here = (which == number) & (cells > 0) & (cells <= REACH * sizes[-1])
        low[here], high[here] = learned[size].predict(people[here], cells[here])
    return low, high


def learned_by_size(table: pd.DataFrame) -> dict[int, ConformalIntervals]:
    """Take up a run's intervals again, by the cells of the squares that they were learned from."""
    sizes = table["size"].astype(int)
    return {size: ConformalIntervals.of_table(table[sizes == size]) for size in sizes.unique()}


def interval_rasters(population: xr.DataArray, intervals: ConformalIntervals) -> xr.Dataset:
    """Return the ends of cells' intervals as rasters."""
    words = {"population_low": "lower", "population_high": "upper"}
    found = {}
    for number, (name, end) in enumerate(words.items()):
        ends = xr.apply_ufunc(
            lambda values, number=number: intervals.predict(values)[number].astype(np.float32),
            population,
            dask="parallelized",
            output_dtypes=[np.float32],
        )
        long_name = (
            f"{end} end of the interval that holds the people of {intervals.level:.0%} of cells"
        )
        found[name] = ends.assign_attrs(units="people per cell", long_name=long_name)
    return xr.Dataset(found)


def held_out_intervals(
    estimate: NDArray, truth: NDArray, groups: NDArray, cells: Any = 1, **settings: Any
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Intervals (n,) of each place, learned from the errors of the other groups of places."""
    size = np.broadcast_to(np.asarray(cells), estimate.shape)
    low, high = np.empty((2, *estimate.shape))
    for group in np.unique(groups):
        here = groups == group
        learned = ConformalIntervals.fit(estimate[~here], truth[~here], size[~here], **settings)
        low[here], high[here] = learned.predict(estimate[here], size[here])
    return low, high


def sums_by_square(table: pd.DataFrame, square: int) -> pd.DataFrame:
    """Add up predictions by squares of so many cells a side: prediction, truth, cells, group."""
    places = [table["north"] // square, table["east"] // square]
    named = {
        "prediction": ("prediction", "sum"),
        "truth": ("truth", "sum"),
        "cells": ("truth", "size"),
        "group": ("group", "first"),
        "groups": ("group", "nunique"),
    }
    # A square of several groups is left out: some of its models have seen a part of it.
    sums = table.groupby(places).agg(**named).reset_index()
    return sums[sums["groups"] == 1].drop(columns="groups").reset_index(drop=True)


def deal_squares(north: NDArray, east: NDArray, block: int, seed: int = 0) -> NDArray[np.int64]:
    """Deal the squares of a split out to a few groups, for want of folds; one number per cell."""
    places = np.stack([np.asarray(north), np.asarray(east)]) // block
    squares = np.unique(places, axis=1, return_inverse=True)[1].ravel()
    order = np.random.default_rng(seed).permutation(squares.max() + 1)
    groups: NDArray[np.int64] = order[squares] % GROUPS
    return groups


def _edges(density: NDArray[np.float64], bins: int, least: int) -> NDArray[np.float64]:
    """Edges of bins of as many cases each, joined where ties leave one with too few."""
    edges = np.unique(np.quantile(density, np.arange(1, bins) / bins))
    while len(edges):
        which = np.searchsorted(edges, density, side="right")
        few = np.flatnonzero(np.bincount(which, minlength=len(edges) + 1) < least)
        if not len(few):
            break
        edges = np.delete(edges, max(int(few[0]) - 1, 0))
    return edges


def _ends(
    errors: NDArray[np.float64], density: NDArray[np.float64], offset: float, level: float
) -> tuple[float, float]:
    """The ends of a bin's interval, from the errors of its cases."""
    # Each tail gets half of what is left out; where nobody is the lower end, the upper gets all.
    ranked, count, out = np.sort(errors), len(errors) + 1, 1 - level
    low = ranked[max(math.floor(round(count * out / 2, 6)), 1) - 1]
    middle = float(np.median(density))
    if middle + low * (middle + offset) > 0:
        return float(low), float(ranked[math.ceil(round(count * (1 - out / 2), 6)) - 1])
    return -math.inf, float(ranked[math.ceil(round(count * level, 6)) - 1])
