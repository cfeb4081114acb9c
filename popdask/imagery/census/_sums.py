"""Exact sums by zone: the same to the last bit in any order, so in any chunks.

Values are added as the two words of `popdask.exact`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import dask.array as da
import numba
import numpy as np
from numpy.typing import NDArray

from popdask.errors import InputError
from popdask.exact import LIMIT, pair, real

COLUMNS = 4  # cells, cells with a value, the two words of the sum


@dataclass(frozen=True)
class Sums:
    """What the cells of every zone add up to; lazy or not, as the table is."""

    table: Any
    """int64 (zone, 4)."""

    @property
    def cells(self) -> Any:
        """Cells that have a value, (zone,) int64."""
        return self.table[:, 1]

    @property
    def missing(self) -> Any:
        """Cells without a value, (zone,) int64."""
        return self.table[:, 0] - self.table[:, 1]

    @property
    def values(self) -> Any:
        """The sums, (zone,) float64."""
        return real(self.table[:, 2], self.table[:, 3])


def sums_by_zone(number: da.Array, values: da.Array, zones: int) -> Sums:
    """Add up the cells of every zone, lazily.

    Parameters
    ----------
    number : dask.array.Array of int32, (y, x)
        Each cell's zone, −1 for none.
    values : dask.array.Array of float, (y, x)
        In the same chunks, 0 or more; NaN is left out.
    zones : int
        How many zones there are.

    Returns
    -------
    Sums
        Lazy. Computing them raises `InputError` where a value is negative or too large to be
        people.

    Examples
    --------
    >>> number = da.from_array(np.array([[0, 0, 1, -1]], np.int32), chunks=2)
    >>> values = da.from_array(np.array([[0.1, 0.2, np.nan, 9.0]]), chunks=2)
    >>> sums = sums_by_zone(number, values, 2)
    >>> sums.values.compute(), sums.missing.compute()
    (array([0.3, 0. ]), array([0, 1]))
    """
    ones = tuple((1,) * count for count in number.numblocks)
    tables = da.map_blocks(
        _block_sums,
        number,
        values,
        zones=zones,
        new_axis=[2, 3],
        chunks=(*ones, (zones,), (COLUMNS,)),
        dtype=np.int64,
        meta=np.empty((0, 0, 0, 0), np.int64),
    )
    return Sums(tables.sum(axis=(0, 1)).rechunk(-1))


def _block_sums(number: NDArray[np.int32], values: NDArray, zones: int) -> NDArray[np.int64]:
    reach = float(np.nansum(values, dtype=np.float64))
    wrong = ~((values >= 0) | np.isnan(values))
    if wrong.any() or not reach <= LIMIT:
        what = f"a cell of {values[wrong][0]:g}" if wrong.any() else f"{reach:g} in one chunk"
        raise InputError(
            f"the estimates have {what}; people per cell, 0 or more, were expected: correct them, "
            "or declare the value as no data"
        )
    table = np.zeros((1, 1, zones, COLUMNS), np.int64)
    _add(number, values.astype(np.float64), table[0, 0])
    return table


@numba.njit(cache=True, nogil=True)
def _add(number: NDArray, values: NDArray, table: NDArray) -> None:
    for row in range(number.shape[0]):
        for column in range(number.shape[1]):
            zone = number[row, column]
            if zone < 0:
                continue
            table[zone, 0] += 1
            value = values[row, column]
            if np.isnan(value):
                continue
            coarse, fine = pair(value)
            table[zone, 1] += 1
            table[zone, 2] += coarse
            table[zone, 3] += fine
