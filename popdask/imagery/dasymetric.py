"""Estimates that keep known totals, and people as whole numbers.

Census totals kept: estimates scaled so that every zone adds up to its known number of people.

In a zone where people are estimated, each cell's estimate is multiplied by total / estimate. In a
zone where nobody is, the total is spread over the cells that look inhabited, in proportion to their
probability; where nothing looks inhabited, evenly over all cells with data.

Whole people, by largest remainder, so that the totals of zones stay.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import dask.array as da
import geopandas as gpd
import numpy as np
import pandas as pd
import xarray as xr
from dask import delayed
from numpy.typing import NDArray

from popdask.errors import InputError
from popdask.imagery.zones import Sums, Table, Zones, read_zones, sums_by_zone
from popdask.io.conventions import flags
from popdask.io.paths import Path_

HOW = ("scaled", "spread by presence", "spread evenly", "nobody", "left out")
SCALED, BY_PRESENCE, EVENLY, NOBODY, LEFT_OUT = range(len(HOW))
MEANINGS = {
    "cells": ("cells of the zone with data", "1"),
    "no_data": ("cells of the zone without data", "1"),
    "estimated": ("people estimated", "people"),
    "total": ("people known", "people"),
    "factor": ("total / estimated, where the zone was scaled", "1"),
    "adjusted": ("people of the adjusted estimates", "people"),
    "how": ("how the zone got its total", "1"),
}
LEAST = 1e-3  # people in a zone: fewer are nobody, for they would be scaled beyond all meaning


@dataclass(frozen=True)
class _Rules:
    """The settings, checked."""

    inhabited_from: float
    unzoned: str
    partial: str

    def __post_init__(self) -> None:
        if not 0 < self.inhabited_from <= 1:
            raise InputError(
                f"inhabited_from is {self.inhabited_from}, expected a probability above 0, as 0.1"
            )
        for name, words in {"unzoned": "keep drop", "partial": "raise skip scale"}.items():
            if getattr(self, name) not in words.split():
                found, known = getattr(self, name), ", ".join(words.split())
                raise InputError(f"{name} is {found!r}, expected one of {known}")


def adjust_to_totals(
    population: xr.DataArray,
    zones: gpd.GeoDataFrame | xr.DataArray | Path_,
    totals: str | Table,
    *,
    presence: xr.DataArray | None = None,
    name: str | None = None,
    inhabited_from: float = 0.1,
    unzoned: Literal["keep", "drop"] = "keep",
    partial: Literal["raise", "skip", "scale"] = "raise",
) -> xr.Dataset:
    """Scale estimates so that each zone's sum equals its known total.

    Parameters
    ----------
    population : DataArray of float, (y, x)
        Estimated people per cell with a CRS, NumPy or Dask; NaN = no data.
    zones : GeoDataFrame, DataArray of int, or path
        Polygons or a raster of zone numbers, or their file. Polygons in another CRS are
        reprojected to that of `population`. A cell belongs to the zone of its centre.
    totals : str, or table
        The polygons' column of totals; for a raster of zones a mapping, Series or DataFrame (zone,
        total), or its Parquet or CSV file.
    presence : DataArray of float, (y, x), optional
        The probability that a cell is inhabited, on the same grid. Without it, zones where nobody
        is estimated spread their total evenly.
    name : str, optional
        The column with the zones' names: by default the index of polygons, ``zone`` of a table.
    inhabited_from : float, optional
        The least probability with which a cell looks inhabited, where a zone has people but nobody
        is estimated. It is low because that people live there is known.
    unzoned : {"keep", "drop"}, optional
        Cells in no zone keep their estimate (the default), or become NaN.
    partial : {"raise", "skip", "scale"}, optional
        What to do with zones that reach beyond the raster by more than a cell, or have no cell
        with data: refuse them (the default), leave them out (their cells are then treated as in no
        zone), or put all their people on the part that is there.

    Returns
    -------
    Dataset
        Lazy where `population` is: ``population`` float64 (y, x), people per cell (float32 would
        lose a total in its eighth digit); ``zone_number`` int32 (y, x), −1 in no zone; and by
        ``zone``: ``cells`` and ``no_data`` (with and without data), ``estimated``, ``total``,
        ``factor`` (total / estimated, where scaled), ``adjusted`` (the sum afterwards) and ``how``
        (a number, named in its attributes). See `zone_report` for them as a table.

    Raises
    ------
    InputError
        If a setting is unknown, zones or totals are wrong (see `read_zones`), or a zone reaches
        beyond the raster. When computed: if zones overlap, a zone with people has no cell with
        data, or an estimate is negative or infinite.

    Notes
    -----
    Fewer than 0.001 people estimated in a zone count as nobody. Totals are kept to 1e-9.

    Examples
    --------
    Of two zones, only the first has estimates; the second has a cell that looks inhabited:

    >>> from odc.geo.geobox import GeoBox
    >>> from odc.geo.xr import wrap_xr
    >>> grid = GeoBox.from_bbox((0, 0, 400, 100), "EPSG:25832", resolution=100)
    >>> estimate = wrap_xr(np.array([[1.0, 3.0, 0.0, 0.0]]), grid)
    >>> zones = wrap_xr(np.array([[1, 1, 2, 2]]), grid)
    >>> presence = wrap_xr(np.array([[0.9, 0.9, 0.4, 0.0]]), grid)
    >>> kept = adjust_to_totals(estimate, zones, {1: 8, 2: 5}, presence=presence)
    >>> kept.population.values
    array([[2., 6., 5., 0.]])
    """
    rules = _Rules(inhabited_from, unzoned, partial)
    _check_grids(population, presence)
    lazy = population if isinstance(population.data, da.Array) else population.chunk()
    found = read_zones(zones, totals, lazy, name=name)
    kept = _kept(lazy, presence, found, rules)
    return kept if lazy is population else kept.compute()


def zone_report(kept: xr.Dataset) -> pd.DataFrame:
    """List each zone before and after.

    Parameters
    ----------
    kept : Dataset
        As from `adjust_to_totals`; what is lazy of it is computed, in one go.

    Returns
    -------
    pandas.DataFrame
        One row per zone: zone, cells, no_data (cells without), estimated, total, factor (NaN where
        nothing was scaled), adjusted, how ("scaled", "spread by presence", "spread evenly",
        "nobody", "left out").

    Examples
    --------
    >>> from odc.geo.geobox import GeoBox
    >>> from odc.geo.xr import wrap_xr
    >>> grid = GeoBox.from_bbox((0, 0, 400, 100), "EPSG:25832", resolution=100)
    >>> zones = wrap_xr(np.array([[1, 1, 2, 2]]), grid)
    >>> kept = adjust_to_totals(wrap_xr(np.array([[1.0, 3, 0, 0]]), grid), zones, {1: 8, 2: 5})
    >>> zone_report(kept)
       zone  cells  no_data  estimated  total  factor  adjusted            how
    0     1      2        0        4.0    8.0     2.0       8.0         scaled
    1     2      2        0        0.0    5.0     NaN       5.0  spread evenly
    """
    columns = ["cells", "no_data", "estimated", "total", "factor", "adjusted", "how"]
    table = kept[columns].compute().to_dataframe()[columns].reset_index()
    return table.assign(how=[HOW[number] for number in table["how"]])


def _check_grids(population: xr.DataArray, presence: xr.DataArray | None) -> None:
    if population.dims != ("y", "x"):
        raise InputError(
            f"the estimates have the dimensions {population.dims}; expected (y, x): select a frame"
        )
    if presence is not None and (presence.dims, presence.shape) != (("y", "x"), population.shape):
        raise InputError(
            f"presence has {dict(presence.sizes)} but population {dict(population.sizes)}; one "
            "grid was expected: give the two of one estimate"
        )


def _kept(
    population: xr.DataArray, presence: xr.DataArray | None, zones: Zones, rules: _Rules
) -> xr.Dataset:
    """Put the lazy result together: sums, what to do in each zone, the cells, their sums again."""
    people, number, count = population.data, zones.number.data, len(zones.names)
    chance = da.full_like(people, np.nan) if presence is None else da.asarray(presence.data)
    weight = da.where(chance >= rules.inhabited_from, chance, np.nan).rechunk(people.chunks)
    weight = da.where(da.isnan(people), np.nan, weight)
    before, weights = sums_by_zone(number, people, count), sums_by_zone(number, weight, count)
    left = _left_out(zones, rules)
    plan = delayed(_plan)(before.table, weights.table, zones.names, zones.totals, left, rules)
    cells = da.map_blocks(
        _adjust, number, people, weight, plan=plan, dtype=np.float64, meta=np.empty((0, 0))
    )
    how, factor = da.from_delayed(plan, (2, count + 1), np.float64)[:, :-1]
    by_zone = {
        "cells": before.cells,
        "no_data": before.missing,
        "estimated": before.values,
        "total": zones.totals,
        "factor": da.where(how == SCALED, factor, np.nan),
        "adjusted": sums_by_zone(number, cells, count).values,
        "how": how.astype(np.int8),
    }
    attrs = {"units": "people per cell", "long_name": "people, with the totals of zones kept"}
    kept = xr.Dataset(
        {
            "population": population.copy(data=cells).assign_attrs(attrs),
            "zone_number": zones.number,
            **{name: ("zone", values) for name, values in by_zone.items()},
        },
        coords={"zone": zones.names},
    )
    for column, (words, units) in MEANINGS.items():
        kept[column].attrs = {"long_name": words, "units": units}
    kept["how"].attrs |= flags(range(len(HOW)), HOW)
    return kept


def _left_out(zones: Zones, rules: _Rules) -> NDArray[np.bool_]:
    """Return which zones are left out because the raster has only a part of them."""
    cut = zones.beyond > 0
    if rules.partial == "raise" and cut.any():
        pairs = zip(zones.names[cut], zones.beyond[cut], strict=True)
        named = [f"{name} ({share:.0%} of its area)" for name, share in pairs]
        more = f" and {len(named) - 3} more" if len(named) > 3 else ""
        raise InputError(
            f"the zones {', '.join(named[:3])}{more} reach beyond the raster; a total can be kept "
            'only where the raster has all of a zone: leave them out (partial="skip"), or put '
            'all their people on the part that is there (partial="scale")'
        )
    return cut & (rules.partial == "skip")


def _plan(
    before: NDArray, weights: NDArray, names: NDArray, totals: NDArray, left: NDArray, rules: _Rules
) -> NDArray[np.float64]:
    """Decide how each zone keeps its total, and the factor of its cells: (2, zone + 1)."""
    # The last column is that of the cells in no zone.
    people, presence = Sums(before), Sums(weights)
    empty = (people.cells == 0) & (totals > 0) & ~left
    if empty.any() and rules.partial != "skip":
        raise InputError(
            f"the zone {names[empty][0]} has the total {totals[empty][0]:g} but no cell with data "
            "whose centre lies in it; at least one was expected: leave such zones out "
            '(partial="skip"), or join it with a neighbour'
        )
    ways = {
        LEFT_OUT: (left | empty, 1.0),
        SCALED: (people.values >= LEAST, people.values),
        NOBODY: (totals == 0, 1.0),
        BY_PRESENCE: (presence.cells > 0, presence.values),
        EVENLY: (people.cells > 0, people.cells),
    }
    conditions = [condition for condition, _ in ways.values()]
    how = np.select(conditions, list(ways), NOBODY)
    parts = np.select(conditions, [part for _, part in ways.values()], 1.0)
    aside = 1.0 if rules.unzoned == "keep" else np.nan
    factor = np.where(how == LEFT_OUT, aside, totals / parts)
    return np.array([[*how, LEFT_OUT], [*factor, aside]], np.float64)


def _adjust(number: NDArray, people: NDArray, weight: NDArray, plan: NDArray) -> NDArray:
    how, factor = plan[:, number]
    spread = np.where(how == BY_PRESENCE, np.nan_to_num(weight), 1.0)
    own = (how == SCALED) | (how == LEFT_OUT)
    adjusted = np.where(own, people, spread).astype(np.float64) * factor
    return np.where(np.isnan(people), np.nan, adjusted)


def round_to_totals(kept: xr.Dataset) -> xr.DataArray:
    """Round a raster to whole people, zone by zone, so that totals are kept.

    By largest remainder: every cell gets the whole part of its people, and who is missing from
    the zone's total goes to the cells with the largest remainders, one each; of equal remainders
    the first cell in row-major order comes first. Cells in no zone, or in one that is left out,
    are rounded together, to their nearest whole sum.

    Parameters
    ----------
    kept : Dataset
        As from `adjust_to_totals`.

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
    >>> from popdask.imagery.dasymetric import adjust_to_totals
    >>> from odc.geo.geobox import GeoBox
    >>> from odc.geo.xr import wrap_xr
    >>> grid = GeoBox.from_bbox((0, 0, 300, 100), "EPSG:25832", resolution=100)
    >>> zones = wrap_xr(np.array([[1, 1, 1]]), grid)
    >>> kept = adjust_to_totals(wrap_xr(np.array([[2.0, 2.0, 1.0]]), grid), zones, {1: 4})
    >>> kept.population.values, round_to_totals(kept).values
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
