"""What is compared: arrays of one shape, in the cells that are known in all of them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from popdask.errors import InputError


def same_shape(**arrays: Any) -> None:
    """Refuse arrays of different shapes, naming them.

    Raises
    ------
    InputError
        If two shapes differ.
    """
    shapes = {name: tuple(array.shape) for name, array in arrays.items()}
    if len(set(shapes.values())) > 1:
        found = ", ".join(f"{name} has {shape}" for name, shape in shapes.items())
        raise InputError(f"{found}, but the shapes must be the same: give arrays on one grid")


def known_cells(**arrays: Any) -> list[NDArray[np.float64]]:
    """Give the values of the cells where no array is NaN, float64 (n,), in the order given.

    Raises
    ------
    InputError
        If two shapes differ, or a value is infinite.

    Examples
    --------
    >>> known_cells(estimate=[1.0, np.nan], truth=[2, 3])
    [array([1.]), array([2.])]
    """
    values = {name: np.asarray(array, np.float64) for name, array in arrays.items()}
    same_shape(**values)
    for name, array in values.items():
        if np.isinf(array).any():
            raise InputError(
                f"{name} has {np.isinf(array).sum()} infinite values; numbers were expected, or "
                "NaN where a cell is unknown: correct them"
            )
    known = ~np.any([np.isnan(array) for array in values.values()], axis=0)
    return [array[known] for array in values.values()]
