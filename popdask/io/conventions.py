"""What stored arrays say of themselves, by the CF conventions: axes, codes and where they are from.

Attributes alone: no value changes, and no checksum sees them. Times are read as years here too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import rioxarray  # noqa: F401 - the accessor
import xarray as xr
from numpy.typing import NDArray

CONVENTIONS = "CF-1.11"

_TIME = {"axis": "T", "standard_name": "time", "long_name": "time"}


def with_axes(coordinates: xr.Dataset) -> xr.Dataset:
    """Say which coordinate is which, with the names that CF has for them."""
    described = coordinates.rio.write_coordinate_system()
    if "time" in described.coords:
        described["time"].attrs |= _TIME
    return described


def label_attributes(array: xr.DataArray) -> dict[str, Any]:
    """Say that −1 is missing among whole numbers; NaN speaks for itself among others."""
    return {} if array.dtype.kind == "f" else {"_FillValue": -1}


def flags(values: Sequence[int], meanings: Sequence[str]) -> dict[str, Any]:
    """Say what the codes of an array mean."""
    return {
        "flag_values": [int(value) for value in values],
        "flag_meanings": " ".join(meaning.replace(" ", "_") for meaning in meanings),
    }


def result_attributes(
    before: Mapping[str, Any], about: Mapping[str, Any], software: str, entry: str
) -> dict[str, Any]:
    """Say what results are, whose they are and how they came to be.

    Examples
    --------
    >>> told = result_attributes({"history": "2026 …"}, {"title": "oslo"}, "popdask", "2027 …")
    >>> told["Conventions"], told["title"], told["history"].splitlines()
    ('CF-1.11', 'oslo', ['2026 …', '2027 …'])
    """
    history = [line for line in (before.get("history"), entry) if line]
    named = {key: str(about[key]) for key in ("title", "institution") if about.get(key)}
    return {
        "Conventions": CONVENTIONS,
        **named,
        "source": software,
        "history": "\n".join(history),
    }


def decimal_years(times: pd.Series) -> NDArray[np.float64]:
    """Write times as decimal calendar years; numbers are years already.

    Examples
    --------
    >>> decimal_years(pd.Series(pd.to_datetime(["2001-01-01T00", "2002-07-02T12"]))).tolist()
    [2001.0, 2002.5]
    """
    if not pd.api.types.is_datetime64_dtype(times):
        return times.to_numpy(dtype=np.float64)
    begin = times.dt.to_period("Y").dt.start_time
    length = np.where(times.dt.is_leap_year, 366, 365)
    return (times.dt.year + (times - begin) / pd.Timedelta(days=1) / length).to_numpy()
