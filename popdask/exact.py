"""Real numbers written as two integers, so that sums are exact: the same in any order and chunks.

A value is a whole number of 2⁻²⁸ and a remainder counted in 2⁻⁵⁶ (of a person, a km², a cell).
Every float32 from 2⁻³³ to 2³⁴ is such a pair *without rounding*, and the words add up without
rounding too: only the finished sum is turned into float64. A sum may reach 3.4e10, four times the
people on Earth.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from popdask.errors import InputError

WORD = 2.0**28
LIMIT = 2.0**34  # what the cells of one chunk may add up to


@numba.njit(cache=True, nogil=True)
def pair(value: float) -> tuple[np.int64, np.int64]:
    """Write one value as two words; compiled, for loops that are."""
    scaled = value * WORD
    coarse = np.rint(scaled)
    return np.int64(coarse), np.int64(np.rint((scaled - coarse) * WORD))


def words(values: NDArray[np.floating]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Write real values as two words of integers, whose sums are exact in any order.

    Parameters
    ----------
    values : numpy.ndarray of float
        Of any shape; NaN is read as 0.

    Returns
    -------
    coarse, fine : numpy.ndarray
        int64, the values in 2⁻²⁸ and what remains in 2⁻⁵⁶.

    Raises
    ------
    InputError
        Where the absolute values add up to more than 1.7e10, so that sums could overflow.

    Examples
    --------
    >>> coarse, fine = words(np.array([0.5, 0.1], "float32"))
    >>> float(real(coarse.sum(), fine.sum())) == 0.5 + float(np.float32(0.1))
    True
    """
    known = np.nan_to_num(values.astype(np.float64), nan=0.0, posinf=np.inf, neginf=-np.inf)
    total = np.abs(known).sum()
    if not total <= LIMIT:
        raise InputError(
            f"the cells of one chunk add up to {total:g}, more than {LIMIT:.1e}; people per cell "
            "were expected: check the raster's unit and its nodata value"
        )
    coarse, fine = np.empty(known.shape, np.int64), np.empty(known.shape, np.int64)
    _write(known.reshape(-1), coarse.reshape(-1), fine.reshape(-1))
    return coarse, fine


@numba.njit(cache=True, nogil=True)
def _write(values: NDArray, coarse: NDArray, fine: NDArray) -> None:
    for i in range(len(values)):
        coarse[i], fine[i] = pair(values[i])


def real(coarse: Any, fine: Any) -> Any:
    """Turn the words of finished sums into float64, of any shape, lazy where they are.

    Examples
    --------
    >>> real(np.array([2**27, 0]), np.array([0, 2**55]))
    array([0.5, 0.5])
    """
    return coarse / WORD + fine / WORD**2
