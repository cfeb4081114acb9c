"""How times are written on figures and in the report: as years where they are years."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import xarray as xr


def year(time: Any) -> str:
    """Write a time as a year, or as a date where it is not the first of January.

    Parameters
    ----------
    time : datetime64, str, number or None
        What is no point in time is written as it is, and None as nothing.

    Returns
    -------
    str

    Examples
    --------
    >>> year(np.datetime64("2019-01-01")), year(np.datetime64("2019-07-01")), year("now")
    ('2019', '2019-07-01', 'now')
    """
    if not isinstance(time, np.datetime64) and np.asarray(time).dtype.kind != "M":
        return "" if time is None else str(time)
    day = pd.Timestamp(time)
    return str(day.year) if day.day_of_year == 1 else str(day.date())


def when(raster: xr.DataArray) -> str:
    """Write the time of a raster of one frame, if it has one.

    Parameters
    ----------
    raster : DataArray, (y, x)

    Returns
    -------
    str
        As from `year`; empty where the raster has no ``time``.
    """
    return year(raster["time"].values if "time" in raster.coords else None)
