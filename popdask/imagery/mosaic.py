"""Mosaics of aerial images, larger than memory, opened lazily on the pixels of a cell grid.

Opening reads headers alone. Files of a mosaic that lie on one lattice of pixels are read as one
raster; where they overlap, the first that has data counts. A block is read in one task: from the
files that meet it where their pixels are the ones wanted, otherwise by GDAL's warper, averaging
when coarsening and bilinear when refining.

Warping goes tile by tile on a lattice fixed to the grid's origin, and a tile is warped whole, so
that the result is the same to the bit in any chunks. GDAL places a pixel to within an eighth of a
pixel of the file.
"""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import dask.array as da
import numpy as np
import rasterio
import rioxarray  # noqa: F401  registers DataArray.rio
import xarray as xr
from affine import Affine
from dask.base import tokenize
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords
from rasterio.enums import ColorInterp, Resampling
from rasterio.errors import NodataShadowWarning
from rasterio.warp import reproject, transform
from rasterio.windows import Window

from popdask.errors import InputError
from popdask.imagery.grid import (
    TOLERANCE,
    CellGrid,
    as_grid,
    block_side,
    crs_text,
    cut_at_multiples,
)
from popdask.io.cube import open_group
from popdask.io.grids import carry, describe_grid, grid_of
from popdask.io.paths import Path_
from popdask.io.rasters import check_extent, check_there, is_remote, size_and_time, use_raster

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
    check_there(name, IMAGE)
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
    return open_group(path, "a group with one image", chunks=None, mask_and_scale=False)


def _zarr_sheet(path: str, nodata: float | None) -> RasterFile:
    stored = _open_zarr(path)
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
            top, left = place
            height, width = sheet.grid.shape
            into_rows, of_rows = _overlap(rows, slice(top, top + height))
            into_columns, of_columns = _overlap(columns, slice(left, left + width))
            inside = into_rows, into_columns
            if of_rows.start >= of_rows.stop or of_columns.start >= of_columns.stop:
                continue
            if valid[inside].all():
                continue
            found, has = sheet.read(of_rows, of_columns)
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


COARSER = 1.25  # pixels of the file in one wanted, above which they are averaged
MARGIN = 3  # pixels of a file around those that a tile covers, for the warper's kernel
EDGE_POINTS = 21  # along each edge of a tile, between which other CRSs are as good as straight

Method = Literal["auto", "nearest", "bilinear", "average"]
Part = tuple[tuple[slice, slice], NDArray, NDArray[np.bool_]]


@dataclass(frozen=True)
class Target:
    """The pixels wanted."""

    grid: GeoBox
    first: tuple[int, int]
    """Row and column of the first pixel, counted from the origin of the cells."""
    tile: int
    """Pixels per side of a tile of the warper."""
    fill: float
    """Value of pixels without data."""


@dataclass(frozen=True)
class Source:
    """A layer, and how it comes onto the pixels wanted."""

    layer: Mosaic
    shift: tuple[int, int] | None
    """Row and column of the target's first pixel on the layer; None where it must be warped."""
    resampling: Resampling
    scale: float
    """Pixels wanted in one of the layer's."""

    @classmethod
    def of(cls, layer: Mosaic, target: Target, method: Method = "auto") -> Source:
        """Take the layer's own pixels where they are those of the target, else resample them."""
        # With "auto", the average of those under a pixel where it is clearly larger than they
        # are, else bilinear, also where another CRS changes their size by a few percent.
        if is_on_lattice(target.grid, layer.grid):
            return cls(layer, offset_on(target.grid, layer.grid), Resampling.nearest, 1.0)
        middle = np.array(target.grid.shape) / 2
        ends = middle[0] + np.array([0, 1]), middle[1] + np.zeros(2)
        row, column = carry(*ends, target.grid, layer.grid)
        span = math.hypot(row[1] - row[0], column[1] - column[0])
        fitting = "average" if span > COARSER else "bilinear"
        resampling = Resampling[fitting if method == "auto" else method]
        return cls(layer, None, resampling, 1 / span)


def read_block(*, sources: list[Source], target: Target, block_info: dict[Any, Any]) -> NDArray:
    """Read a block (band + 1, y, x); the last band is 1 where there is data and else 0."""
    rows, columns = (slice(*ends) for ends in block_info[None]["array-location"][1:])
    shape = (rows.stop - rows.start, columns.stop - columns.start)
    sheet = sources[0].layer.sheets[0]
    block = np.full((len(sheet.bands) + 1, *shape), target.fill, sheet.dtype)
    block[-1] = 0
    for source in sources:
        read = _warped_parts if source.shift is None else _own_parts
        for inside, values, valid in read(source, target, rows, columns):
            into = block[(slice(None), *inside)]
            has = valid & (into[-1] == 0)
            np.copyto(into[:-1], values, where=has)
            into[-1][has] = 1
        if block[-1].all():
            break
    return block


def _own_parts(source: Source, target: Target, rows: slice, columns: slice) -> Iterator[Part]:
    """Read a window from a layer whose pixels are those wanted, in one part."""
    assert source.shift is not None, "other layers are warped"
    down, right = source.shift
    there = slice(rows.start + down, rows.stop + down)
    across = slice(columns.start + right, columns.stop + right)
    yield (slice(None), slice(None)), *source.layer.read(there, across)


def _warped_parts(source: Source, target: Target, rows: slice, columns: slice) -> Iterator[Part]:
    """Warp the tiles that meet a window: (place in the window, values, which of them are valid)."""
    for tile_rows in _tiles(rows, target.first[0], target.tile):
        for tile_columns in _tiles(columns, target.first[1], target.tile):
            corner = target.grid.translate_pix(tile_columns.start, tile_rows.start).transform
            tile = GeoBox((target.tile, target.tile), corner, target.grid.crs)
            values, valid = _warp(source, tile)
            into_rows, of_rows = _overlap(rows, tile_rows)
            into_columns, of_columns = _overlap(columns, tile_columns)
            inside = into_rows, into_columns
            yield inside, values[:, of_rows, of_columns], valid[of_rows, of_columns]


def _tiles(wanted: slice, first: int, tile: int) -> Iterator[slice]:
    """List the tiles, on the lattice counted from the cells' origin, that meet a window."""
    start = (wanted.start + first) // tile * tile - first
    for begin in range(start, wanted.stop, tile):
        yield slice(begin, begin + tile)


def _overlap(window: slice, tile: slice) -> tuple[slice, slice]:
    """Where a tile, or a sheet, meets a window: counted in the window, and in the tile."""
    start, stop = max(window.start, tile.start), min(window.stop, tile.stop)
    return (
        slice(start - window.start, stop - window.start),
        slice(start - tile.start, stop - tile.start),
    )


def _warp(source: Source, tile: GeoBox) -> tuple[NDArray, NDArray[np.bool_]]:
    """Resample what a layer has of a tile: values (band, y, x), and which pixels have data."""
    layer = source.layer
    rows, columns = _window(layer.grid, tile)
    sheet = layer.sheets[0]
    shape = (len(sheet.bands), *tile.shape)
    nothing = np.zeros(shape, sheet.dtype), np.zeros(tile.shape, bool)
    if rows.start >= rows.stop or columns.start >= columns.stop:
        return nothing
    values, valid = layer.read(rows, columns)
    if not valid.any():
        return nothing
    exact = np.dtype("float32" if np.can_cast(values.dtype, "float32") else "float64")
    out = np.full(shape, np.nan, exact)
    reproject(
        np.where(valid, values, np.nan).astype(exact),
        out,
        src_transform=layer.grid.translate_pix(columns.start, rows.start).transform,
        src_crs=layer.grid.crs,
        src_nodata=np.nan,
        dst_transform=tile.transform,
        dst_crs=tile.crs,
        dst_nodata=np.nan,
        resampling=source.resampling,
        XSCALE=source.scale,  # otherwise taken from the windows, which may only partly meet
        YSCALE=source.scale,
    )
    has: NDArray[np.bool_] = np.any(np.isfinite(out), axis=0)
    return _as_dtype(out, values.dtype), has


def _as_dtype(values: NDArray[np.floating], dtype: np.dtype) -> NDArray:
    """Round floats to a dtype; averages cannot leave its limits, and NaN becomes 0."""
    if dtype.kind == "f":
        return values.astype(dtype)
    return np.nan_to_num(np.rint(values)).astype(dtype)


def _window(grid: GeoBox, tile: GeoBox) -> tuple[slice, slice]:
    """Find the rows and columns of a layer that a tile needs; empty where they do not meet."""
    side = np.linspace(0, tile.shape[0], EDGE_POINTS)
    ends = np.zeros_like(side), np.full_like(side, tile.shape[0])
    column = np.concatenate([side, side, *ends])
    row = np.concatenate([*ends, side, side])
    t = tile.transform
    x, y = t.a * column + t.c, t.e * row + t.f
    if grid.crs != tile.crs:
        x, y = (np.array(axis) for axis in transform(tile.crs, grid.crs, x, y))
    t = grid.transform

    def within(edges: NDArray, size: int) -> slice:
        if not np.isfinite(edges).all():  # the tile reaches beyond the layer's CRS
            return slice(0, size)
        start, stop = math.floor(edges.min()) - MARGIN, math.ceil(edges.max()) + MARGIN
        return slice(min(max(start, 0), size), min(max(stop, 0), size))

    return within((y - t.f) / t.e, grid.shape[0]), within((x - t.c) / t.a, grid.shape[1])


CHUNK = 2048  # pixels per side of a block, where there is no cell grid
TILE = 512  # pixels per side of a tile of the warper, at most, unless a cell has more
TILE_SOURCE = 4096  # pixels per side that a tile reads


def open_mosaic(
    paths: Path_ | Sequence[Path_],
    *,
    grid: CellGrid | str | None = None,
    resolution: float | None = None,
    align: bool = False,
    on_top: Literal["first", "last"] = "first",
    nodata: float | None = None,
    resampling: Method = "auto",
    chunks: int | str | tuple = "auto",
) -> xr.DataArray:
    """Open one or several image files as one image, lazily.

    Parameters
    ----------
    paths : path, URL, or sequence of them
        GeoTIFF, COG, VRT or anything else that GDAL reads, or Zarr groups with one image (band, y,
        x); all with the same number of bands and dtype. An alpha band is no band of the result.
    grid : CellGrid or str, optional
        The cells that the image is for, or the name of a preset. The image is then resampled to
        whole pixels in whole cells, as many as cover the files. Without it the pixels are the
        files' own, which must be on one lattice.
    resolution : float, optional
        Size of the pixels wanted, a whole fraction of the cell size; if not given, the nearest such
        to the finest file's own.
    align : bool, optional
        Reproject files in another CRS than the grid's.
    on_top : {"first", "last"}, optional
        Where files overlap: "first" takes the first that has data, and later ones fill its gaps;
        "last" the other way round.
    nodata : float, optional
        Pixels with this value in every band have no data, beside what masks and alpha say; if not
        given, the value that a file declares. Say 0 where black padding was not declared.
    resampling : {"auto", "nearest", "bilinear", "average"}, optional
        How files come onto other pixels than their own; "auto" averages those that are finer, and
        is bilinear otherwise.
    chunks : "auto", int or tuple, optional
        Pixels per block along y and x. "auto" is whole cells, about 2048 pixels a side.

    Returns
    -------
    DataArray
        (band, y, x), with the files' dtype, backed by Dask, north up, with its CRS; attribute
        ``nodata`` is the value of pixels without data, 0 where none is declared (NaN for floats).
        The coordinate ``valid`` (y, x), lazy, tells the pixels that have data, also where no value
        is set aside for those that have none.

    Raises
    ------
    InputError
        If a file is missing, unreadable, ECW without a driver, without CRS or not north up; if
        files differ in bands or dtype; if they are in another CRS than the grid, without `align`,
        or on several lattices, without `grid`; if a cell is smaller than a pixel.

    Examples
    --------
    >>> import tempfile, rasterio
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     profile = dict(width=400, height=200, count=1, dtype="uint8", crs="EPSG:25832")
    ...     transform = rasterio.transform.from_origin(677_500, 6_139_800, 0.5, 0.5)
    ...     path = f"{folder}/photo.tif"
    ...     with rasterio.open(path, "w", "GTiff", transform=transform, **profile) as file:
    ...         file.write(np.full((1, 200, 400), 90, "uint8"))
    ...     image = open_mosaic(path, grid="dk_100m", resolution=1)
    ...     image.shape, int(image.max())
    ((1, 100, 200), 90)
    """
    names = [os.fspath(p) for p in ([paths] if isinstance(paths, str | os.PathLike) else paths)]
    if not names:
        raise InputError("the mosaic has no files; expected at least one; give its path")
    if on_top not in ("first", "last"):
        raise InputError(f"on_top is {on_top!r}; expected 'first' or 'last'; correct it")
    ordered = names if on_top == "first" else names[::-1]
    layers = layers_of([open_sheet(name, nodata) for name in ordered])
    if grid is None:
        target = _own_pixels(layers, resolution, align)
        step = CHUNK
    else:
        cells = as_grid(grid)
        pixels, ratio = _cell_pixels(layers, cells, resolution, align)
        target = _cell_target(layers, cells, pixels, _tile_side(pixels, ratio))
        step = block_side(pixels) * pixels
    return _lazy_image(layers, target, _chunk_sizes(chunks, target, step), resampling)


def _own_pixels(layers: list[Mosaic], resolution: float | None, align: bool) -> Target:
    if resolution is not None or align:
        raise InputError(
            f"resolution={resolution} and align={align} are given without a grid; expected the "
            "cell grid to resample to; pass grid=…"
        )
    if len(layers) > 1:
        (a, b) = (layer.sheets[0] for layer in layers[:2])
        raise InputError(
            f"{b.path} has {describe_grid(b.grid)}, but {a.path} has {describe_grid(a.grid)}; "
            "expected files on one lattice of pixels; pass grid=… to resample them onto one"
        )
    return Target(layers[0].grid, (0, 0), TILE, _fill(layers))


def _cell_pixels(
    layers: list[Mosaic], cells: CellGrid, resolution: float | None, align: bool
) -> tuple[int, float]:
    """Choose the pixels per side of a cell, and tell how many of a file's one of them spans."""
    for layer in layers:
        if layer.grid.crs != cells.crs and not align:
            raise InputError(
                f"{layer.sheets[0].path} is in {crs_text(layer.grid.crs)} and the cells in "
                f"{crs_text(cells.crs)}; expected one CRS; pass align=True to reproject it"
            )
    finest = min(_pixel_size(layer.grid, cells) for layer in layers)
    wanted = finest if resolution is None else resolution
    if not wanted > 0 or max(wanted, finest) > cells.size * (1 + TOLERANCE):
        raise InputError(
            f"the pixels of {layers[0].sheets[0].path} are {finest:.6g}, the resolution asked for "
            f"is {resolution}, and the cells are {cells.size:g}; expected cells no smaller than a "
            "pixel; use larger cells or a finer image"
        )
    pixels = round(cells.size / wanted)
    if resolution is not None and abs(cells.size / wanted - pixels) > TOLERANCE * pixels:
        raise InputError(
            f"the resolution {resolution:g} does not divide cells of {cells.size:g}; expected a "
            f"whole number of pixels in a cell; take {cells.size / pixels:.6g}"
        )
    return pixels, cells.size / pixels / finest


def _pixel_size(source: GeoBox, cells: CellGrid) -> float:
    """Measure a pixel of a file, in units of the cells, at its middle."""
    row, column = np.array(source.shape)[:, None] / 2 + np.array([[0, 1, 0], [0, 0, 1]])
    t = source.transform
    x, y = transform(source.crs, cells.crs, t.a * column + t.c, t.e * row + t.f)
    return min(math.dist((x[0], y[0]), (x[i], y[i])) for i in (1, 2))


def _cell_target(layers: list[Mosaic], cells: CellGrid, pixels: int, tile: int) -> Target:
    """Lay out the pixels of the whole cells that cover the files."""
    found = [cells.covering(tuple(la.grid.boundingbox), la.grid.crs) for la in layers]
    norths, easts = (
        range(min(r[axis].start for r in found), max(r[axis].stop for r in found))
        for axis in (0, 1)
    )
    grid = cells.geobox(norths, easts, pixels=pixels)
    return Target(grid, (-norths.stop * pixels, easts.start * pixels), tile, _fill(layers))


def _tile_side(pixels: int, ratio: float) -> int:
    """Choose a tile of whole cells, a power of two, or else a whole fraction of a cell."""
    most = max(1, math.floor(min(TILE, TILE_SOURCE / max(ratio, 1e-9))))
    if pixels <= most:
        return pixels << min(3, (most // pixels).bit_length() - 1)
    return next(
        pixels // k for k in range(2, pixels + 1) if pixels % k == 0 and pixels // k <= most
    )


def _fill(layers: list[Mosaic]) -> float:
    sheets = [sheet for layer in layers for sheet in layer.sheets]
    declared = [sheet.nodata for sheet in sheets if sheet.nodata is not None]
    floats = np.dtype(sheets[0].dtype).kind == "f"
    return declared[0] if declared else (math.nan if floats else 0)


def _chunk_sizes(chunks: Any, target: Target, step: int) -> tuple[tuple[int, ...], ...]:
    """Turn what a caller says about chunks into sizes along (y, x); "auto" ends on whole cells."""
    if chunks == "auto":
        return tuple(
            cut_at_multiples(first, first + size, step)
            for first, size in zip(target.first, target.grid.shape, strict=True)
        )
    try:
        wanted = chunks if isinstance(chunks, tuple) else (chunks, chunks)
        return da.core.normalize_chunks(wanted, shape=tuple(target.grid.shape), dtype="uint8")
    except (ValueError, TypeError) as error:
        raise InputError(
            f"chunks={chunks!r} does not fit (y, x) of {tuple(target.grid.shape)} ({error}); "
            "expected 'auto', a number of pixels, or (y, x); correct it"
        ) from error


def _lazy_image(
    layers: list[Mosaic], target: Target, chunks: tuple[tuple[int, ...], ...], resampling: Method
) -> xr.DataArray:
    first = layers[0].sheets[0]
    bands = len(first.bands)
    paths = [sheet.path for layer in layers for sheet in layer.sheets]
    versions = [size_and_time(path) if Path(path).is_file() else None for path in paths]
    read = da.map_blocks(
        read_block,
        sources=[Source.of(layer, target, resampling) for layer in layers],
        target=target,
        chunks=((bands + 1,), *chunks),
        dtype=first.dtype,
        meta=np.empty((0, 0, 0), first.dtype),
        name=f"mosaic-{tokenize(layers, versions, target, chunks, resampling)}",
    )
    places = xr_coords(target.grid, dims=("y", "x"))
    for axis in ("y", "x"):
        for stale in ("crs", "resolution"):  # spatial_ref says it, and these outlive a change of it
            places[axis].attrs.pop(stale, None)
    valid = ("y", "x"), read[-1] != 0, {"long_name": "has data"}
    image = xr.DataArray(
        read[:-1],
        dims=("band", "y", "x"),
        coords={"band": np.arange(1, bands + 1), **places, "valid": valid},
        attrs={"long_name": "image", "nodata": target.fill},
        name="image",
    )
    return image.rio.write_crs(target.grid.crs)
