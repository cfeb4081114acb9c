"""The cells that are trained on, classified and grouped.

A raster's wilderness would fill classes and communities of its own, and most of the time of a run.
The domain leaves it out: by default a cell belongs when it has data and its window sees people.
Where every cell is populated, that is every cell with data.
"""

from __future__ import annotations

from typing import Literal, get_args

import dask.array as da
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from xarray import DataArray

from popdask.cube.arrays import check_population
from popdask.errors import InputError
from popdask.tracking.halo import roomy, with_halo

Cells = Literal["settled", "data", "inhabited"]
WINDOW = 7
HALO = WINDOW // 2


def _settled(population: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Find the cells with data whose window holds people, of (…, y, x) with a halo."""
    seen = population > 0
    for axis in (-2, -1):
        seen = ndimage.maximum_filter1d(seen, WINDOW, axis=axis, mode="constant", cval=0)
    own = (..., slice(HALO, -HALO), slice(HALO, -HALO))
    return seen[own] & ~np.isnan(population[own])


def domain(population: DataArray, cells: str = "settled") -> DataArray:
    """Tell which cells to train on, classify and group.

    Parameters
    ----------
    population : DataArray, (…, y, x)
        People per cell, NaN = no data; NumPy or Dask.
    cells : {"settled", "data", "inhabited"}, optional
        ``"settled"``: cells with data whose 7 × 7 window, the one that the autoencoder reads,
        holds people; cells beyond the raster and without data hold nobody. ``"data"``: all
        cells with data. ``"inhabited"``: only cells with people.

    Returns
    -------
    DataArray of bool, (…, y, x)
        True inside the domain, lazy where `population` is.

    Raises
    ------
    InputError
        If `cells` is none of the three, or `population` has no y or x.

    Notes
    -----
    The halo of the settled domain is half a window, 3 cells.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> people = np.zeros((5, 9), "float32")
    >>> people[2, 0], people[0, 1] = 4, np.nan
    >>> population = xr.DataArray(people, dims=("y", "x"))
    >>> domain(population).values[0].astype(int)
    array([1, 0, 1, 1, 0, 0, 0, 0, 0])
    >>> int(domain(population, "inhabited").sum()), int(domain(population, "data").sum())
    (1, 44)
    """
    population = check_population("population", population)
    if cells not in get_args(Cells):
        raise InputError(f'cells is "{cells}", expected one of {", ".join(get_args(Cells))}')
    if cells == "data":
        found = population.notnull()
    elif cells == "inhabited":
        found = population > 0
    else:
        found = population.transpose(..., "y", "x")
        found = found.copy(data=_mapped(found.data)).transpose(*population.dims)
    found.attrs = {"long_name": f"{cells} cells", "units": "1"}
    return found.rename("domain")


def _mapped(population: NDArray[np.floating] | da.Array) -> NDArray[np.bool_] | da.Array:
    """Find settled cells, lazily with a halo where the array is Dask's."""
    if not isinstance(population, da.Array):
        beyond = [(0, 0)] * (population.ndim - 2) + [(HALO, HALO)] * 2
        return _settled(np.pad(population, beyond))
    wide = roomy(population, HALO)
    meta = np.empty((0,) * wide.ndim, bool)
    return da.map_blocks(_settled, with_halo(wide, HALO, fill=0), chunks=wide.chunks, meta=meta)
