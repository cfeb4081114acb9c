"""Whole people, by largest remainder, so that the totals of zones stay."""

from __future__ import annotations

import dask.array as da
import numpy as np
import xarray as xr
from dask import delayed
from numpy.typing import NDArray

from popdask.errors import InputError
from popdask.imagery.census.totals import LEFT_OUT


def whole_people(kept: xr.Dataset) -> xr.DataArray:
    """Round a raster to whole people, zone by zone, so that totals are kept.

    By largest remainder: every cell gets the whole part of its people, and who is missing from
    the zone's total goes to the cells with the largest remainders, one each; of equal remainders
    the first cell in row-major order comes first. Cells in no zone, or in one that is left out,
    are rounded together, to their nearest whole sum.

    Parameters
    ----------
    kept : Dataset
        As from `keep_totals`.

    Returns
    -------
    DataArray
        Whole people per cell, float64 (y, x), NaN = no data; lazy where `kept` is. One task holds
        the whole raster, about 60 bytes per cell.

    Raises
    ------
    InputError
        If a total is not a whole number.

    Examples
    --------
    >>> from popdask.imagery.census.totals import keep_totals
    >>> from odc.geo.geobox import GeoBox
    >>> from odc.geo.xr import wrap_xr
    >>> grid = GeoBox.from_bbox((0, 0, 300, 100), "EPSG:25832", resolution=100)
    >>> zones = wrap_xr(np.array([[1, 1, 1]]), grid)
    >>> kept = keep_totals(wrap_xr(np.array([[2.0, 2.0, 1.0]]), grid), zones, {1: 4})
    >>> kept.population.values, whole_people(kept).values
    (array([[1.6, 1.6, 0.8]]), array([[2., 1., 1.]]))
    """
    totals = np.asarray(kept["total"])
    if (odd := totals != np.rint(totals)).any():
        raise InputError(
            f"the zone {kept['zone'].values[odd][0]} has the total {totals[odd][0]}; whole people "
            "were expected: round the totals first"
        )
    people, number, how = (kept[key].data for key in ("population", "zone_number", "how"))
    if not isinstance(people, da.Array):
        return kept["population"].copy(data=_rounded(people, number, totals, how))
    whole = da.map_blocks(
        _rounded,
        people.rechunk(-1),
        number.rechunk(-1),
        totals=totals,
        how=delayed(how),
        dtype=np.float64,
        meta=np.empty((0, 0)),
    )
    return kept["population"].copy(data=whole.rechunk(people.chunks))


def _rounded(
    people: NDArray, number: NDArray, totals: NDArray[np.float64], how: NDArray
) -> NDArray[np.float64]:
    """Round a raster by zone; cells in no zone, or in one left out, are a group of their own."""
    group = np.where(np.append(how == LEFT_OUT, True)[number], len(totals), number)
    some = people > 0
    people_there, zone = people[some], group[some]
    rest = people_there[zone == len(totals)].sum()
    whole = np.floor(people_there)
    given = np.bincount(zone, whole, len(totals) + 1)
    missing = np.rint(np.append(totals, rest)) - given
    order = np.lexsort((whole - people_there, zone))  # a stable sort: ties stay in row-major order
    first = np.searchsorted(zone[order], np.arange(len(totals) + 1))
    rank = np.arange(order.size) - first[zone[order]]
    whole[order] += rank < missing[zone[order]]
    rounded = np.where(np.isnan(people), np.nan, 0.0)
    rounded[some] = whole
    return rounded
