"""How the arrays of a region are laid out along time, and what changes with other times."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import icechunk
import numpy as np
import xarray as xr
import zarr

from popdask.store.contents import drop_results, root_group, write_records
from popdask.store.ownership import named_in

TIME_ENCODING = {"units": "seconds since 1970-01-01", "dtype": "int64"}


def lay_out_anew(session: icechunk.Session, grid: xr.Dataset, records: Mapping[str, Any]) -> None:
    """Replace the arrays, and keep of all else what some records tell of."""
    kept = records.values()
    drop_results(session.store, (), named_in(kept, "sha256"), named_in(kept, "groups"))
    root = root_group(session.store)
    for name in list(root.array_keys()):
        del root[name]
    xr.Dataset(coords=grid.coords).to_zarr(
        session.store, mode="a", consolidated=False, encoding={"time": TIME_ENCODING}
    )
    write_records(session.store, records)


def same_place(grid: xr.Dataset, stored: xr.Dataset) -> bool:
    """Tell whether two grids have the same cells, at whatever times."""
    return (
        all(np.array_equal(grid[axis], stored[axis]) for axis in ("y", "x"))
        and grid.rio.crs == stored.rio.crs
    )


def lengthen(root: zarr.Group, seconds: np.ndarray) -> None:
    """Make every array as long as the times."""
    for _, array in root.arrays():
        metadata: Any = array.metadata  # version 3, which names dimensions
        if (metadata.dimension_names or ("",))[0] == "time":
            array.resize((len(seconds), *array.shape[1:]))
    root["time"][:] = seconds  # type: ignore[index]


def seconds_of(dataset: xr.Dataset) -> np.ndarray:
    """Times as they are stored."""
    return dataset["time"].values.astype("datetime64[s]").astype(np.int64)


def iso_times(dataset: xr.Dataset) -> list[str]:
    """Times as records have them."""
    return [str(time) for time in dataset["time"].values.astype("datetime64[s]")]


def nothing(array: xr.DataArray) -> float | int:
    """What stands in a cell without anything."""
    return np.nan if array.dtype.kind == "f" else -1


def record_of_frames(record: Mapping[str, Any], times: set[str]) -> dict[str, Any]:
    """The record of an array's stage, of some frames only."""
    some = {
        key: {time: value for time, value in record[key].items() if time in times}
        for key in ("frames", "checksums")
    }
    return {**record, **some}
