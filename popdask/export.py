"""Finished results as files that other programs read: Cloud Optimized GeoTIFF and GeoParquet.

A frame is fetched in strips of rows, so that a large one need not fit into memory; it is written by
this process alone, so that a cluster's workers need not share its disk. Every file is made under a
hidden temporary folder beside its place and moved there when it is whole.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import rasterio
import rasterio.shutil
import xarray as xr
from rasterio.windows import Window

from popdask.cube.grids import grid_of
from popdask.errors import InputError

TILE = 512
STRIP_CELLS = 2**26
Path_ = str | os.PathLike[str]


def write_cogs(
    array: xr.DataArray,
    folder: Path_,
    name: str,
    *,
    frames: Sequence[int] | None = None,
    strip_cells: int = STRIP_CELLS,
) -> list[Path]:
    """Write every time step as a Cloud Optimized GeoTIFF, whole or not at all.

    Parameters
    ----------
    array : DataArray
        (time, y, x) or (y, x) with a CRS, on NumPy or Dask. Whole numbers and booleans are labels
        (nodata −1 where signed, overviews by the most frequent value), real numbers are amounts
        (nodata NaN, overviews by the mean).
    folder : path
        Made where it is missing. Files of the same name are replaced.
    name : str
        The files are ``{name}_2006.tif``, with month and day where a frame is not of 1 January,
        and ``{name}.tif`` for an array without time.
    frames : list of int, optional
        Positions of the time steps to write, besides those of which the file is missing; all of
        them by default.
    strip_cells : int
        Cells fetched at once, at least one row of tiles.

    Returns
    -------
    list of Path
        The files of all time steps, in the order of time, written now or not.

    Raises
    ------
    InputError
        If the array has other dimensions, or no CRS.

    Examples
    --------
    >>> from odc.geo.geobox import GeoBox
    >>> from odc.geo.xr import xr_zeros
    >>> grid = GeoBox.from_bbox((0, 0, 4, 2), "EPSG:3035", resolution=1)
    >>> community = xr_zeros(grid, "int32", time=["2006-01-01", "2011-01-01"])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     [path.name for path in write_cogs(community, folder, "community")]
    ['community_2006.tif', 'community_2011.tif']
    """
    if array.dims not in [("time", "y", "x"), ("y", "x")]:
        raise InputError(
            f"the array {name!r} has the dimensions {array.dims}; expected (time, y, x) or (y, x); "
            "select or transpose them"
        )
    grid_of(array)
    if "time" not in array.dims:
        return [_write_cog(array, Path(folder, f"{name}.tif"), name, strip_cells)]
    stamps = pd.DatetimeIndex(array["time"].values)
    form = time_form(stamps)
    paths = [Path(folder, f"{name}_{stamp.strftime(form)}.tif") for stamp in stamps]
    for i, path in enumerate(paths):
        # Another frame may change the names of all.
        if frames is None or i in frames or not path.exists():
            _write_cog(array[i], path, name, strip_cells)
    return paths


def time_form(times: Any) -> str:
    """Give the form in which times stand in the names of files, as short as tells them apart.

    Examples
    --------
    >>> time_form(pd.DatetimeIndex(["2006-01-01", "2011-01-01"]))
    '%Y'
    >>> time_form(pd.DatetimeIndex(["2006-01-01", "2006-07-01"]))
    '%Y-%m-%d'
    """
    stamps = pd.DatetimeIndex(times)
    form = "%Y" if (stamps.strftime("%m%d") == "0101").all() else "%Y-%m-%d"
    return "%Y-%m-%dT%H%M%S" if stamps.strftime(form).has_duplicates else form


def write_geoparquet(frame: pd.DataFrame, path: Path_) -> Path:
    """Write a table as Parquet, a GeoDataFrame as GeoParquet, whole or not at all.

    Parameters
    ----------
    frame : DataFrame or GeoDataFrame
        One row per community, link or event.
    path : path
        A file of that name is replaced, its folder made where it is missing.

    Returns
    -------
    Path
        The file.

    Examples
    --------
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = write_geoparquet(pd.DataFrame({"people": [3, 5]}), f"{folder}/links.parquet")
    ...     int(pd.read_parquet(path).people.sum())
    8
    """
    path = Path(path)
    with _whole(path) as unfinished:
        frame.to_parquet(unfinished, index=False)
    return path


def _write_cog(frame: xr.DataArray, path: Path, name: str, strip_cells: int) -> Path:
    if frame.dtype == bool:
        frame = frame.astype("uint8")
    labels = frame.dtype.kind in "iu"
    resampling = "MODE" if labels else "AVERAGE"
    with _whole(path) as unfinished:
        tiled = unfinished.with_name("tiled.tif")
        _write_tiled(frame, tiled, name, strip_cells)
        rasterio.shutil.copy(
            tiled,
            unfinished,
            driver="COG",
            compress="DEFLATE",
            predictor="YES",
            blocksize=TILE,
            overview_resampling=resampling,
            bigtiff="IF_SAFER",
        )
    return path


def _write_tiled(frame: xr.DataArray, path: Path, name: str, strip_cells: int) -> None:
    grid = grid_of(frame)
    height, width = grid.shape
    nodata = {"i": -1, "f": np.nan}.get(frame.dtype.kind)
    rows = max(strip_cells // (width * TILE), 1) * TILE
    profile = {"height": height, "width": width, "count": 1, "dtype": frame.dtype.name}
    profile |= {"transform": grid.transform, "crs": str(grid.crs), "nodata": nodata}
    profile |= {"tiled": True, "blockxsize": TILE, "blockysize": TILE}
    profile |= {"compress": "DEFLATE", "zlevel": 1, "bigtiff": "IF_SAFER"}
    with rasterio.open(path, "w", driver="GTiff", **profile) as file:
        file.set_band_description(1, name)
        file.update_tags(**_tags(frame))
        for top in range(0, height, rows):
            strip = frame[top : top + rows].compute().values
            file.write(strip, 1, window=Window(0, top, width, strip.shape[0]))


def _tags(frame: xr.DataArray) -> dict[str, str]:
    tags = {key: str(frame.attrs[key]) for key in ("units", "long_name") if key in frame.attrs}
    if "time" in frame.coords:
        tags["time"] = str(frame["time"].values)[:19]
    return tags


@contextmanager
def _whole(path: Path) -> Iterator[Path]:
    """Give a place to write to; move what was written to `path` if all went well."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}-") as folder:
        unfinished = Path(folder, path.name)
        yield unfinished
        unfinished.replace(path)
