"""What the readers of a region see, in a few words."""

from __future__ import annotations

from typing import TYPE_CHECKING

import xarray as xr

from popdask.cube.grids import describe_grid, grid_of
from popdask.errors import InputError

if TYPE_CHECKING:
    from popdask.store.region import RegionStore


def overview(region: RegionStore) -> dict[str, str]:
    """Tell what a region holds: frames, grid, arrays, tables, models and the last run.

    What keeps it from being read is told in place of that.
    """
    try:
        runs = region.history()
        if not runs:
            return {"results": "none are finished yet: run the job"}
        names = region.names()
        return {
            **_arrays(region.dataset()),
            "tables": _stems(names, ".parquet"),
            "models": _stems(names, ".safetensors"),
            "last run": f"{runs[0].finished[:16]} UTC, {len(runs)} in all",
        }
    except InputError as error:
        return {"results": str(error)}


def _arrays(found: xr.Dataset) -> dict[str, str]:
    told = {"arrays": ", ".join(map(str, found.data_vars))}
    if found.sizes.get("time"):
        days = found["time"].values.astype("datetime64[D]")
        told["frames"] = f"{len(days)}, {days[0]} to {days[-1]}"
    if {"y", "x"} <= set(found.dims):
        told["grid"] = describe_grid(grid_of(found[next(iter(found.data_vars))]))
    return told


def _stems(names: list[str], suffix: str) -> str:
    return ", ".join(name.removesuffix(suffix) for name in names if name.endswith(suffix)) or "none"
