"""What arrays say of themselves, as they are stored and as they are brought.

Stored arrays: by CF what they are, by GeoZarr where their cells lie. Attributes alone: no value
changes, and no checksum sees them.

Arrays of a user's own are taken as `open_frames` takes files: density, scale and the order of times
are checked at once, from types, attributes and coordinates; what only cells say is checked where
they are, at once in NumPy, and in the tasks of a Dask array, so that nothing is computed early.

References
----------
CF conventions 1.11. Zarr conventions ``proj``, ``spatial`` and ``multiscales`` 0.1, of which
GeoZarr is made: https://github.com/zarr-conventions.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from numbers import Real
from typing import Any

import dask.array as da
import numpy as np
import pandas as pd
import rioxarray  # noqa: F401  registers .rio
import xarray as xr
from dask.base import tokenize
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from popdask.errors import InputError
from popdask.io.grids import grid_of
from popdask.io.rasters import (
    BEYOND_PEOPLE,
    NODATA_BELOW,
    UNDECLARED_NODATA,
    check_is_count,
    check_scale,
    count_largest,
    is_suspect,
    largest_value,
    number_text,
)
from popdask.validate import check_array

CONVENTIONS = "CF-1.11"

# Days of these times have 86,400 seconds each.
_TIME = {
    "axis": "T",
    "standard_name": "time",
    "long_name": "time",
    "units_metadata": "leap_seconds: none",
}
#: What UDUNITS has no name for: numbers of people and of cells.
_COUNTS = ("people", "people per cell", "cells per frame")
_IN_WORDS = "counted in "

_ZARR_CONVENTIONS = "zarr_conventions"
_UUIDS = {
    "proj": "f17cb550-5864-4468-aeb7-f3180cfb622f",
    "spatial": "689b58e2-cf7b-45e0-9fff-9cfc0883d6b4",
    "multiscales": "d35379db-88df-4056-af3a-620245f8e347",
}


def with_axes(coordinates: xr.Dataset) -> xr.Dataset:
    """Say which coordinate is which, with the names that CF has for them."""
    described = coordinates.rio.write_coordinate_system()
    if "time" in described.coords:
        described["time"].attrs |= _TIME
    if "spatial_ref" in described.coords:
        named = described["spatial_ref"].assign_attrs(long_name="coordinate reference system")
        described = described.assign_coords(spatial_ref=named)
    return described


def as_group(arrays: xr.Dataset) -> xr.Dataset:
    """Let arrays on a grid say what CF and GeoZarr want of a Zarr group."""
    for axis in ("y", "x"):
        arrays[axis].encoding["_FillValue"] = None  # else xarray writes NaN
    by = {"Conventions": CONVENTIONS}  # which stands first, whatever the arrays have said
    group = with_axes(arrays)
    group.attrs = by | group.attrs | by | grid_attributes(group)
    return group


def grid_attributes(grid: xr.Dataset) -> dict[str, Any]:
    """Say where cells lie, by GeoZarr's conventions ``proj`` and ``spatial``."""
    cells = xr.DataArray(0, {name: grid[name] for name in ("y", "x", "spatial_ref")}, ("y", "x"))
    box = grid_of(cells)
    epsg = grid["spatial_ref"].rio.crs.to_epsg()
    wkt = {"proj:wkt2": grid["spatial_ref"].attrs["crs_wkt"]}
    return {
        _ZARR_CONVENTIONS: [_declared(name) for name in ("proj", "spatial")],
        **({"proj:code": f"EPSG:{epsg}"} if epsg else wkt),
        "spatial:dimensions": ["y", "x"],
        "spatial:shape": [int(side) for side in box.shape],
        "spatial:transform": [float(number) for number in box.transform[:6]],
        "spatial:bbox": [float(number) for number in box.boundingbox.bbox],
    }


def multiscales(finest: Mapping[str, Any], grids: Sequence[GeoBox]) -> dict[str, Any]:
    """Say which groups are levels of one pyramid, beside what the finest of them says."""
    layout: list[dict[str, Any]] = []
    for number, grid in enumerate(grids):
        level = {"asset": str(number)} | ({"derived_from": str(number - 1)} if number else {})
        scale = 2.0 if number else 1.0
        layout.append(
            {
                **level,
                "transform": {"scale": [scale, scale], "translation": [0.0, 0.0]},
                "spatial:shape": [int(side) for side in grid.shape],
                "spatial:transform": [float(value) for value in grid.transform[:6]],
            }
        )
    declared = [*finest[_ZARR_CONVENTIONS], _declared("multiscales")]
    return {**finest, _ZARR_CONVENTIONS: declared, "multiscales": {"layout": layout}}


def is_grid_attribute(name: str) -> bool:
    """Return whether an attribute is one of GeoZarr's, which speak of a Zarr group alone."""
    return name == _ZARR_CONVENTIONS or name.startswith(("proj:", "spatial:"))


def _declared(name: str) -> dict[str, str]:
    return {
        "uuid": _UUIDS[name],
        "name": name,
        "schema_url": f"https://raw.githubusercontent.com/zarr-conventions/{name}/refs/tags/v0.1/"
        "schema.json",
        "spec_url": f"https://github.com/zarr-conventions/{name}/blob/v0.1/README.md",
    }


def in_cf_units(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Say by the units of CF that something is a number, and in words of what."""
    units = attributes.get("units")
    cf_attributes = {"units": "1", "comment": f"{_IN_WORDS}{units}"} if units in _COUNTS else {}
    return {str(key): value for key, value in attributes.items()} | cf_attributes


def in_own_units(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Say again in words what :func:`in_cf_units` has said as CF wants it."""
    comment = str(attributes.get("comment", ""))
    units = comment.removeprefix(_IN_WORDS)
    if units not in _COUNTS or units == comment:
        return dict(attributes)
    return {key: value for key, value in attributes.items() if key != "comment"} | {"units": units}


def label_attributes(array: xr.DataArray) -> dict[str, Any]:
    """Say that −1 is missing among whole numbers; NaN speaks for itself among others."""
    return {} if array.dtype.kind == "f" else {"_FillValue": -1}


def flags(values: Sequence[int], meanings: Sequence[str]) -> dict[str, Any]:
    """Say what the codes of an array mean."""
    return {
        "flag_values": [int(value) for value in values],
        "flag_meanings": " ".join(meaning.replace(" ", "_") for meaning in meanings),
    }


_ABOUT = ("title", "institution", "license")


def result_attributes(
    before: Mapping[str, Any], about: Mapping[str, Any], software: str, entry: str
) -> dict[str, Any]:
    """Say what results are, whose they are and how they came to be."""
    others = {key: value for key, value in before.items() if key not in _ABOUT}
    history = [line for line in (before.get("history"), entry) if line]
    named = {key: str(about[key]) for key in _ABOUT if about.get(key)}
    return {
        **others,
        "Conventions": CONVENTIONS,
        **named,
        "source": software,
        "history": "\n".join(history),
    }


def decimal_years(times: pd.Series) -> NDArray[np.float64]:
    """Write times as decimal calendar years; numbers are years already."""
    if not pd.api.types.is_datetime64_dtype(times):
        return times.to_numpy(dtype=np.float64)
    begin = times.dt.to_period("Y").dt.start_time
    length = np.where(times.dt.is_leap_year, 366, 365)
    return (times.dt.year + (times - begin) / pd.Timedelta(days=1) / length).to_numpy()


#: Where xarray, rioxarray, odc and older readers put the value that means no data.
_FILLS = ("_FillValue", "missing_value", "nodata", "nodatavals", "fill_value")
_CHECKED = "checked-people-"
_AXES = {"y": "row", "x": "column", "time": "frame"}


def check_population(
    name: str, given: Any, *dims: str, timed: bool = False, hint: str = ""
) -> xr.DataArray:
    """Take an array of people per cell as `open_frames` takes files."""
    check_array(name, given, *(dims or ("y", "x")), hint=hint)
    if given.dtype.kind not in "fiu":
        raise InputError(
            f"{name} holds {given.dtype}; expected numbers of people per cell; convert it, as in "
            f'{name}.astype("float32")'
        )
    if not given.size:
        raise InputError(
            f"{name} has the sizes {dict(given.sizes)}; expected at least one cell and one frame; "
            "correct what selects them"
        )
    _check_attributes(name, given)
    _check_times(name, given, timed)
    if isinstance(given.data, da.Array) and given.data.name.startswith(_CHECKED):
        return given
    fills = declared_nodata(given)
    checked = given.copy(data=_checked(name, given, fills))
    for place in (checked.attrs, checked.encoding):
        for key in _FILLS:
            place.pop(key, None)
    return checked


def declared_nodata(array: xr.DataArray) -> tuple[int | float, ...]:
    """List the values that an array declares to mean no data, besides NaN."""
    declared: list[Any] = []
    if array.encoding.get("_FillValue") is None:  # where rio says NaN, which integers do not hold
        declared.append(array.rio.nodata)
    for place in (array.attrs, array.encoding):
        declared += [place.get(key) for key in _FILLS]
    numbers = {value for some in declared for value in _numbers(some)}
    return tuple(sorted(value for value in numbers if not math.isnan(value)))


def _numbers(declared: Any) -> list[int | float]:
    """The numbers in what an attribute says, exactly: 64 bits are more than a float holds."""
    values = np.atleast_1d(np.asarray([] if declared is None else declared)).ravel()
    if values.dtype.kind in "fiu":
        return list(values.tolist())
    try:
        return [float(value) for value in values.tolist()]
    except (TypeError, ValueError):  # a note, not a number
        return []


def _as_stored(fills: tuple[float, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    """The declared values as a type holds them; those that it cannot hold are in no cell."""
    if dtype.kind == "f":
        with np.errstate(over="ignore"):
            return np.array(fills, "float64").astype(dtype)
    low, high = np.iinfo(dtype).min, np.iinfo(dtype).max
    whole = [high if float(fill) == float(high) else int(fill) for fill in fills if fill % 1 == 0]
    return np.array([fill for fill in whole if low <= fill <= high], dtype)


def _check_attributes(name: str, array: xr.DataArray) -> None:
    attrs: Mapping[str, Any] = array.attrs
    units = str(attrs.get("units", ""))
    check_scale(name, units)
    check_is_count(name, units, [str(array.name or ""), str(attrs.get("long_name", ""))])
    scale, offset = attrs.get("scale_factor", 1.0), attrs.get("add_offset", 0.0)
    if (scale, offset) != (1.0, 0.0):
        raise InputError(
            f"{name} has the scale {scale} and the offset {offset} in its attributes; expected "
            "people as they are; open it with mask_and_scale=True, or apply and drop them"
        )


def _check_times(name: str, array: xr.DataArray, timed: bool) -> None:
    if "time" not in array.dims:
        return
    if "time" not in array.coords:
        if timed and array.sizes["time"] > 1:
            raise InputError(
                f"{name} has {array.sizes['time']} frames without times; expected a coordinate "
                f"time; give it, as in {name}.assign_coords(time=pandas.to_datetime([…]))"
            )
        return
    times = array["time"].to_numpy()
    if times.dtype.kind in "USO" and (others := [time for time in times if _no_time(time)]):
        kind = "text" if isinstance(others[0], str) else type(others[0]).__name__
        raise InputError(
            f"{name} has the {kind} {str(others[0])!r} as a time; expected datetime64; convert "
            f"them, as in {name}.assign_coords(time=pandas.to_datetime({name}.time))"
        )
    lost = np.flatnonzero(pd.isna(times))
    if lost.size:
        raise InputError(
            f"{name} has no time for frame {lost[0]}; expected one for each; give it, or leave the "
            "frame out"
        )
    if zones := [time.tzinfo for time in times if getattr(time, "tzinfo", None)]:
        raise InputError(
            f"{name} has times of the zone {zones[0]}; expected times without one; convert them, "
            f"as in {name}.assign_coords(time=pandas.DatetimeIndex({name}.time).tz_convert(None))"
        )
    for before, after in pairwise(times):
        if not before < after:
            raise InputError(
                f"{name} has the time {_day(before)} before {_day(after)}; expected each time "
                f'once, and in order; sort them, as in {name}.sortby("time"), and drop the doubles'
            )


def _no_time(time: Any) -> bool:
    """Whether a time is neither a year as a number, nor one of pandas, nor missing."""
    return not (isinstance(time, Real | pd.Timestamp) or pd.isna(time))


def _checked(name: str, array: xr.DataArray, fills: tuple[float, ...]) -> Any:
    dims = tuple(map(str, array.dims))
    settings: dict[str, Any] = {"called": name, "dims": dims, "fills": fills}
    data = array.data if isinstance(array.data, da.Array) else np.asarray(array.data)
    held = _held(data, dims, fills)
    if isinstance(data, np.ndarray):
        return _check_block(data, held, **settings)
    return da.map_blocks(
        _check_block,
        data,
        held,
        **settings,
        dtype=_people_dtype(data.dtype),
        meta=np.empty((0,) * data.ndim, _people_dtype(data.dtype)),
        name=f"{_CHECKED}{tokenize(data.name, settings)}",
    )


def _held(data: Any, dims: tuple[str, ...], fills: tuple[float, ...]) -> Any:
    """Count in each frame the cells that hold an integer type's largest value, where it counts."""
    if data.dtype.kind not in "iu" or not is_suspect(data.dtype, fills):
        return None
    within = tuple(dims.index(axis) for axis in ("y", "x"))
    return (data == largest_value(data.dtype)).sum(axis=within, keepdims=True)


def _check_block(
    values: NDArray[Any],
    held: NDArray[Any] | None,
    *,
    called: str,
    dims: tuple[str, ...],
    fills: tuple[float, ...],
    block_info: Any = None,
) -> NDArray[Any]:
    """Give people as floats, NaN where nothing is known."""
    largest = largest_value(values.dtype)
    if held is not None and (held > 1).any() and count_largest(values, largest):
        raise InputError(
            f"{called} holds {largest}, the largest value of {values.dtype}, in several cells of a "
            "frame and does not declare it; expected counts of people; declare it with "
            f"rio.write_nodata({largest})"
        )
    nothing = np.isin(values, _as_stored(fills, values.dtype)) if fills else False
    with np.errstate(over="ignore"):  # what becomes infinite is refused below
        people = values.astype(_people_dtype(values.dtype), copy=False)
    if not (people >= 0).all():  # NaN too
        unknown = (people == UNDECLARED_NODATA) | ((people < NODATA_BELOW) & (people > -np.inf))
        nothing = nothing | unknown
    if np.any(nothing):
        people = np.where(nothing, people.dtype.type(np.nan), people)
    wrong = (people < 0) | (people > BEYOND_PEOPLE)
    if wrong.any():
        first = np.argwhere(wrong)[0]
        corner = [start for start, _ in block_info[0]["array-location"]] if block_info else 0
        value = number_text(people[tuple(first)], people.dtype)
        raise _wrong_count(called, value, dict(zip(dims, first + corner, strict=True)))
    return people


def _wrong_count(name: str, value: str, at: dict[str, int]) -> InputError:
    cell = [f"{_AXES.get(axis, axis)} {at[axis]}" for axis in sorted(at, key=_rank)]
    mend = "" if "inf" in value else f", or declare it with rio.write_nodata({value})"
    return InputError(
        f"{name} holds {value} at {', '.join(cell)}; expected counts of people, 0 or more; correct "
        f"it{mend}"
    )


def _rank(axis: str) -> int:
    """Rows and columns come first."""
    return list(_AXES).index(axis) if axis in _AXES else len(_AXES)


def _people_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The floats that hold all numbers of a type."""
    if dtype.kind == "f":  # which of them are compiled
        return np.dtype("float32" if dtype.itemsize <= 4 else "float64")
    return np.dtype("float32" if dtype.itemsize < 4 else "float64")


def _day(time: Any) -> str:
    return str(time)[:10]
