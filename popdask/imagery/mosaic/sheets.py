"""One file of a mosaic: its header checked, its windows read with the pixels that have data."""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import xarray as xr
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from rasterio.enums import ColorInterp
from rasterio.errors import NodataShadowWarning
from rasterio.windows import Window

from popdask.cube.grids import grid_of
from popdask.cube.rasters import is_remote, missing_file, use_raster
from popdask.errors import InputError
from popdask.object_store import fsspec_options

IMAGE = "an image"


@dataclass(frozen=True)
class Sheet:
    """One file of a mosaic: what its header says."""

    path: str
    grid: GeoBox
    bands: tuple[int, ...]
    """Its bands, from 1, without alpha."""
    dtype: str
    nodata: float | None
    """Declared, or given by the caller."""
    variable: str | None = None
    """The array of a Zarr group; None for what GDAL reads."""

    def read(self, rows: slice, columns: slice) -> tuple[NDArray, NDArray[np.bool_]]:
        """Read a window: values (band, y, x), and which pixels (y, x) have data."""
        if self.variable is not None:
            values = _read_zarr(self, rows, columns)
            valid = np.ones(values.shape[1:], bool)
        else:
            window = Window.from_slices(rows, columns)
            values, valid = use_raster(
                self.path,
                lambda source: (
                    source.read(list(self.bands), window=window),
                    _mask(source, window),
                ),
                IMAGE,
            )
        if values.dtype.kind == "f":
            valid &= ~np.isnan(values).all(0)
        if self.nodata is not None:
            valid &= (values != self.nodata).any(0)
        return values, valid


def open_sheet(path: str | os.PathLike[str], nodata: float | None = None) -> Sheet:
    """Read the header of one file of a mosaic.

    Parameters
    ----------
    path : path or URL
        GeoTIFF, COG, VRT or whatever GDAL reads; or a Zarr group with one array (band, y, x).
    nodata : float, optional
        Pixels with this value in every band have no data; if not given, the declared value.

    Returns
    -------
    Sheet

    Raises
    ------
    InputError
        If the file is missing or unreadable, is ECW and GDAL has no driver for it, has no CRS or a
        rotated grid, has a colour table, or bands of several kinds.
    """
    name = os.fspath(path)
    if not is_remote(name) and not Path(name).exists():
        raise missing_file(name, IMAGE)
    if _is_zarr(name):
        return _zarr_sheet(name, nodata)
    with rasterio.Env() as environment:
        drivers = environment.drivers()
    if name.lower().endswith(".ecw") and "ECW" not in drivers:
        raise InputError(
            f"{name} is an ECW file, for which this GDAL ({rasterio.__gdal_version__}) has no "
            "driver; expected GeoTIFF, COG, VRT or Zarr; convert it to GeoTIFF where GDAL has the "
            "ECW driver"
        )
    return use_raster(name, lambda source: _raster_sheet(source, name, nodata), IMAGE)


def _raster_sheet(source: rasterio.DatasetReader, path: str, nodata: float | None) -> Sheet:
    _check_place(path, source.crs, source.transform)
    colours = source.colorinterp
    bands = tuple(i for i, c in zip(source.indexes, colours, strict=True) if c != ColorInterp.alpha)
    dtypes = sorted({source.dtypes[i - 1] for i in bands})
    if ColorInterp.palette in colours:
        raise InputError(
            f"{path} has a colour table; expected brightness in its bands; convert it, for example "
            "with gdal_translate -expand rgb"
        )
    if len(dtypes) != 1 or any(t.startswith("complex") for t in dtypes):
        raise InputError(
            f"{path} has bands of {', '.join(dtypes) or 'alpha alone'}; expected real "
            "numbers of one kind; convert it, for example with gdal_translate -ot Byte"
        )
    grid = GeoBox(source.shape, source.transform, source.crs)
    return Sheet(path, grid, bands, dtypes[0], _nodata(path, dtypes[0], source.nodata, nodata))


def _mask(source: rasterio.DatasetReader, window: Window) -> NDArray[np.bool_]:
    """Tell which pixels of a window (y, x) have data by mask, nodata and alpha."""
    # rasterio warns that alpha is passed over beside nodata: it is heeded below. Filters are those
    # of the process: one that is taken back would come back in other threads.
    warnings.filterwarnings("ignore", "", NodataShadowWarning)
    valid = np.asarray(source.dataset_mask(window=window) > 0)
    for band, colour in zip(source.indexes, source.colorinterp, strict=True):
        if colour == ColorInterp.alpha:  # GDAL heeds it in two or four bands alone
            valid &= source.read(band, window=window) > 0
    return valid


def _check_place(path: str, crs: Any, transform: Any) -> None:
    if crs is None or transform.is_identity:
        raise InputError(
            f"{path} has no {'CRS' if crs is None else 'position (geotransform)'}; expected a "
            "georeferenced image; set it with gdal_edit.py -a_srs or -a_ullr"
        )
    if transform.b or transform.d or transform.e > 0:
        raise InputError(
            f"{path} is not north up ({tuple(transform)[:6]}); expected rows from north to south "
            "and columns from west to east; warp it, for example with gdalwarp"
        )


def _nodata(path: str, dtype: str, declared: Any, given: float | None) -> float | None:
    """Give the nodata value; one that the dtype cannot hold marks no pixel."""
    value = declared if given is None else given
    if value is None or np.dtype(dtype).kind == "f":
        return None if value is None else float(value)
    limits = np.iinfo(dtype)
    if limits.min <= value <= limits.max and float(value).is_integer():
        return float(value)
    if given is None:
        return None
    raise InputError(
        f"nodata is {given}, but {path} holds {dtype}; expected a whole number from {limits.min} "
        f"to {limits.max}; correct it"
    )


def _is_zarr(path: str) -> bool:
    marks = ("zarr.json", ".zgroup", ".zmetadata")
    ends = path.rstrip("/").lower().endswith(".zarr")
    return ends or (not is_remote(path) and any(Path(path, mark).exists() for mark in marks))


def _open_zarr(path: str) -> xr.Dataset:
    return xr.open_zarr(
        path,
        chunks=None,
        decode_coords="all",
        mask_and_scale=False,
        consolidated=False,
        storage_options=fsspec_options(path) or None,
    )


def _zarr_sheet(path: str, nodata: float | None) -> Sheet:
    try:
        stored = _open_zarr(path)
    except (OSError, ValueError, KeyError) as error:
        raise InputError(
            f"{path} cannot be opened as Zarr ({error}); expected a group with one image; correct "
            "the path"
        ) from error
    images = [
        n for n, a in stored.data_vars.items() if {"y", "x"} <= set(a.dims) <= {"band", *"yx"}
    ]
    if len(images) != 1:
        found = {str(name): array.dims for name, array in stored.data_vars.items()}
        raise InputError(
            f"{path} holds {found}; expected one image with the dimensions band, y and x, or y and "
            "x; write it to a group of its own"
        )
    image = stored[images[0]]
    if image.rio.crs is None:
        raise InputError(f"{path} has no CRS; expected one; set it with rio.write_crs")
    grid = grid_of(image)
    _check_place(path, grid.crs, grid.transform)
    declared = image.attrs.get("nodata", image.attrs.get("_FillValue"))
    bands, dtype = tuple(range(1, image.sizes.get("band", 1) + 1)), str(image.dtype)
    return Sheet(path, grid, bands, dtype, _nodata(path, dtype, declared, nodata), str(images[0]))


def _read_zarr(sheet: Sheet, rows: slice, columns: slice) -> NDArray:
    image = _open_zarr(sheet.path)[sheet.variable].isel(y=rows, x=columns)
    if "band" not in image.dims:
        image = image.expand_dims("band")
    return image.transpose("band", "y", "x").to_numpy()
