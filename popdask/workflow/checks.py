"""What whole results must keep: nobody is lost, and tracks follow links."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from popdask.errors import InputError
from popdask.io.extents import beyond_texts
from popdask.io.frames import time_text
from popdask.store.repository import RegionStore
from popdask.tracking.describe import LostPeopleError, check_balance, people_balance
from popdask.tracking.tracks import verify_tracks

TOLERANCE = 1e-9  # of the people of a raster, as promised


def check(store: RegionStore) -> Iterator[str]:
    """Count everyone again and compare with the stored balance; check the tracks by the links."""
    arrays = store.dataset()
    tables = (store.table(name) for name in ("balance", "tracks", "links"))
    yield from check_labels(arrays["community"], arrays["population"], *tables)


def check_labels(
    labels: xr.DataArray,
    population: xr.DataArray,
    then: pd.DataFrame,
    tracks: pd.DataFrame,
    links: pd.DataFrame,
) -> Iterator[str]:
    """Count the people of labelled cells again, and check the tracks by the links."""
    now = people_balance(labels, population)
    try:
        check_balance(now)
    except LostPeopleError as error:
        yield str(error)
    for name in ("inside", "outside", "raster"):
        same = np.isclose(now[name], then[name], rtol=TOLERANCE, atol=0)
        for row in np.flatnonzero(~same):
            yield (
                f"people {name} of {time_text(now['time'][row])} are {now[name][row]:,.1f}, "
                f"{then[name][row]:,.1f} were recorded."
            )
    try:
        verify_tracks(tracks, links, times=labels["time"].values)
    except InputError as error:
        yield f"{error}."


def beyond_notes(records: Mapping[str, Any]) -> Iterator[str]:
    """Say of each frame how many people lay beyond the grid that it was brought onto."""
    told = records.get("population", {}).get("beyond", {})
    rows = [(time, each["raster"], each["beyond"]) for time, each in sorted(told.items())]
    yield from beyond_texts(pd.DataFrame(rows, columns=["time", "raster", "beyond"]))
