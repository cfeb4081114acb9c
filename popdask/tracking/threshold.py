"""Communities of too few people, dissolved.

A frame's communities are weighed by the exact sums of :mod:`popdask.tracking.tally`; those under
the threshold give up their cells, and the others are numbered anew in their old order.
"""

from __future__ import annotations

import dask.array as da
import numpy as np
import xarray as xr

from popdask.errors import InputError
from popdask.exact import words
from popdask.tracking.tally import (
    Table,
    frames_of,
    sum_frames,
    tabulate,
)


def dissolve_small(
    community: xr.DataArray, population: xr.DataArray, min_people: float
) -> xr.DataArray:
    """Dissolve the communities that have fewer people than a threshold.

    Parameters
    ----------
    community
        Community numbers, −1 where there is none; int (time, y, x) or (y, x).
    population
        People per cell, NaN = no data, on the same grid.
    min_people
        The least number of people of a community that stays.

    Returns
    -------
    DataArray
        int32 like ``community``, lazily; cells of dissolved communities are −1, and the numbers of
        the others close up, in each frame for itself.

    Raises
    ------
    InputError
        If the threshold is negative, or the arrays do not share frames and grid.

    Examples
    --------
    >>> community = xr.DataArray([[0, 0, 1, -1]], dims=("y", "x"))
    >>> population = xr.DataArray([[3.0, 4.0, 90.0, 5.0]], dims=("y", "x"))
    >>> dissolve_small(community, population, 10).values
    array([[-1, -1,  0, -1]], dtype=int32)
    """
    if not min_people >= 0:
        raise InputError(f"min_people is {min_people}: give 0 people or more")
    _, (labels, people) = frames_of(community, population)
    labels = labels.rechunk({0: 1})
    data = da.blockwise(
        _relabel_block,
        "tyx",
        labels,
        "tyx",
        sum_frames(_weigh_block, labels, people),
        "t",
        min_people=min_people,
        dtype=np.int32,
        meta=np.empty((0, 0, 0), np.int32),
    )
    data = data if "time" in community.dims else data[0]
    order = [dim for dim in ("time", "y", "x") if dim in community.dims]
    result = community.transpose(*order).copy(data=data)
    return result.transpose(*community.dims)


def _weigh_block(labels: np.ndarray, people: np.ndarray) -> Table:
    return tabulate(np.maximum(labels.ravel(), -1).astype(np.int64), words(people.ravel()))


def _renumber(table: Table, min_people: float) -> np.ndarray:
    """The new number of every old one; the last entry is that of no community."""
    stays = (table.keys >= 0) & (table.reals(0) >= min_people)
    number = np.full(max(int(table.keys.max(initial=-1)), -1) + 2, -1, dtype=np.int32)
    number[table.keys[stays]] = np.arange(np.count_nonzero(stays), dtype=np.int32)
    return number


def _relabel_block(labels: np.ndarray, tables: np.ndarray, min_people: float) -> np.ndarray:
    return _renumber(tables[0], min_people)[labels]  # −1 reads the last entry
