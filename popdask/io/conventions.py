"""What stored arrays say of themselves: by CF what they are, by GeoZarr where their cells lie.

Attributes alone: no value changes, and no checksum sees them. Times are read as years here too.

References
----------
CF conventions 1.11. Zarr conventions ``proj`` and ``spatial`` 0.1, of which GeoZarr is made:
https://github.com/zarr-conventions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import rioxarray  # noqa: F401 - the accessor
import xarray as xr
from numpy.typing import NDArray

from popdask.io.grids import grid_of

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


def grid_attributes(grid: xr.Dataset) -> dict[str, Any]:
    """Say where cells lie, by GeoZarr's conventions ``proj`` and ``spatial``."""
    cells = xr.DataArray(0, {name: grid[name] for name in ("y", "x", "spatial_ref")}, ("y", "x"))
    box = grid_of(cells)
    epsg = grid["spatial_ref"].rio.crs.to_epsg()
    wkt = {"proj:wkt2": grid["spatial_ref"].attrs["crs_wkt"]}
    return {
        _ZARR_CONVENTIONS: [_declared(name) for name in _UUIDS],
        **({"proj:code": f"EPSG:{epsg}"} if epsg else wkt),
        "spatial:dimensions": ["y", "x"],
        "spatial:shape": [int(side) for side in box.shape],
        "spatial:transform": [float(number) for number in box.transform[:6]],
        "spatial:bbox": [float(number) for number in box.boundingbox.bbox],
    }


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
