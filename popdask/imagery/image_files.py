"""Files of images: their headers, and mosaics of them.

One file of a mosaic: its header checked, its windows read with the pixels that have data.

The files of a mosaic together: those on one lattice of pixels are read as one raster.

Where sheets of a *layer* overlap, the first that has data counts.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import xarray as xr
from affine import Affine
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from rasterio.enums import ColorInterp
from rasterio.errors import NodataShadowWarning
from rasterio.windows import Window

from popdask.errors import InputError
from popdask.io.grids import carry, grid_of
from popdask.io.kinds import check_extent
from popdask.io.paths import fsspec_options
from popdask.io.rasters import is_remote, missing_file, use_raster

IMAGE = "an image"


@dataclass(frozen=True)
class RasterFile:
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


def open_sheet(path: str | os.PathLike[str], nodata: float | None = None) -> RasterFile:
    """Read the header of one file of a mosaic."""
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


def _raster_sheet(source: rasterio.DatasetReader, path: str, nodata: float | None) -> RasterFile:
    check_extent(source, path)
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
    return RasterFile(path, grid, bands, dtypes[0], _nodata(path, dtypes[0], source.nodata, nodata))


def _mask(source: rasterio.DatasetReader, window: Window) -> NDArray[np.bool_]:
    """Return which pixels of a window (y, x) have data by mask, nodata and alpha."""
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
    """Return the nodata value; one that the dtype cannot hold marks no pixel."""
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


def _zarr_sheet(path: str, nodata: float | None) -> RasterFile:
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
    return RasterFile(
        path, grid, bands, dtype, _nodata(path, dtype, declared, nodata), str(images[0])
    )


def _read_zarr(sheet: RasterFile, rows: slice, columns: slice) -> NDArray:
    image = _open_zarr(sheet.path)[sheet.variable].isel(y=rows, x=columns)
    if "band" not in image.dims:
        image = image.expand_dims("band")
    return image.transpose("band", "y", "x").to_numpy()


ALIGNED = 1e-3  # of a pixel


@dataclass(frozen=True)
class Mosaic:
    """Sheets on one lattice, as one raster."""

    sheets: tuple[RasterFile, ...]
    """The first that has data counts."""
    grid: GeoBox
    places: tuple[tuple[int, int], ...]
    """Row and column of each sheet's first pixel."""

    @classmethod
    def of(cls, sheets: Sequence[RasterFile]) -> Mosaic:
        """Put sheets together that are on one lattice."""
        offsets = [offset_on(sheet.grid, sheets[0].grid) for sheet in sheets]
        ends = [np.add(o, s.grid.shape) for o, s in zip(offsets, sheets, strict=True)]
        (top, left), (bottom, right) = np.min(offsets, axis=0), np.max(ends, axis=0)
        transform = sheets[0].grid.transform @ Affine.translation(float(left), float(top))
        grid = GeoBox((int(bottom - top), int(right - left)), transform, sheets[0].grid.crs)
        places = tuple((int(row - top), int(column - left)) for row, column in offsets)
        return cls(tuple(sheets), grid, places)

    def read(self, rows: slice, columns: slice) -> tuple[NDArray, NDArray[np.bool_]]:
        """Read a window: values (band, y, x), 0 where no sheet has data, and which pixels do."""
        shape = (rows.stop - rows.start, columns.stop - columns.start)
        values = np.zeros((len(self.sheets[0].bands), *shape), self.sheets[0].dtype)
        valid = np.zeros(shape, bool)
        for sheet, place in zip(self.sheets, self.places, strict=True):
            meet = [
                slice(max(wanted.start, first), min(wanted.stop, first + size))
                for wanted, first, size in zip(
                    (rows, columns), place, sheet.grid.shape, strict=True
                )
            ]
            if any(side.start >= side.stop for side in meet):
                continue
            inside = tuple(
                slice(side.start - wanted.start, side.stop - wanted.start)
                for side, wanted in zip(meet, (rows, columns), strict=True)
            )
            if valid[inside].all():
                continue
            there = (slice(s.start - f, s.stop - f) for s, f in zip(meet, place, strict=True))
            found, has = sheet.read(*there)
            has &= ~valid[inside]
            np.copyto(values[(slice(None), *inside)], found, where=has)
            valid[inside] |= has
        return values, valid


def layers_of(sheets: Sequence[RasterFile]) -> list[Mosaic]:
    """Group sheets that follow one another on one lattice into layers."""
    groups: list[list[RasterFile]] = []
    first = sheets[0]
    for sheet in sheets:
        if (len(sheet.bands), sheet.dtype) != (len(first.bands), first.dtype):
            raise InputError(
                f"{sheet.path} has {len(sheet.bands)} bands of {sheet.dtype}, but {first.path} has "
                f"{len(first.bands)} of {first.dtype}; expected the same in all files of a mosaic; "
                "convert them, for example with gdal_translate -b or -ot"
            )
        if groups and is_on_lattice(sheet.grid, groups[-1][0].grid):
            groups[-1].append(sheet)
        else:
            groups.append([sheet])
    return [Mosaic.of(group) for group in groups]


def is_on_lattice(grid: GeoBox, other: GeoBox) -> bool:
    """Return whether the pixels of two grids, wherever these lie, are on one lattice."""
    if grid.crs != other.crs:
        return False
    ends = np.array([[0, grid.shape[0]], [0, grid.shape[1]]], float)
    row, column = carry(ends[0], ends[1], grid, other)
    offset = np.round([row[0], column[0]])
    drift = [row - offset[0] - ends[0], column - offset[1] - ends[1]]
    return bool(np.abs(drift).max() < ALIGNED)


def offset_on(grid: GeoBox, other: GeoBox) -> tuple[int, int]:
    """Return the row and column, on another grid of one lattice, of a grid's first pixel."""
    row, column = carry(np.zeros(1), np.zeros(1), grid, other)
    return round(float(row[0])), round(float(column[0]))
