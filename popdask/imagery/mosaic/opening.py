"""Open a mosaic of aerial images, larger than memory, on the pixels of a cell grid.

Opening reads headers alone. A block is read in one task: from the files that meet it where their
pixels are the ones wanted, otherwise by GDAL's warper, averaging when coarsening and bilinear when
refining. Warping goes tile by tile on a lattice fixed to the grid's origin, so that the result is
the same to the bit in any chunks.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import dask.array as da
import numpy as np
import xarray as xr
from dask.base import tokenize
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords
from rasterio.warp import transform

from popdask.cube.grids import describe_grid
from popdask.errors import InputError
from popdask.imagery.grid import TOLERANCE, CellGrid, as_grid, block_side, crs_text
from popdask.imagery.mosaic._warping import Source, Target, read_block
from popdask.imagery.mosaic.layers import Layer, layers_of
from popdask.imagery.mosaic.sheets import open_sheet
from popdask.whole import Path_

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
    return _lazy_image(layers, target, _chunk_sizes(chunks, target, step))


def _own_pixels(layers: list[Layer], resolution: float | None, align: bool) -> Target:
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
    layers: list[Layer], cells: CellGrid, resolution: float | None, align: bool
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


def _cell_target(layers: list[Layer], cells: CellGrid, pixels: int, tile: int) -> Target:
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


def _fill(layers: list[Layer]) -> float:
    sheets = [sheet for layer in layers for sheet in layer.sheets]
    declared = [sheet.nodata for sheet in sheets if sheet.nodata is not None]
    floats = np.dtype(sheets[0].dtype).kind == "f"
    return declared[0] if declared else (math.nan if floats else 0)


def _chunk_sizes(chunks: Any, target: Target, step: int) -> tuple[tuple[int, ...], ...]:
    """Turn what a caller says about chunks into sizes along (y, x); "auto" ends on whole cells."""
    if chunks == "auto":
        return tuple(
            _between(first, size, step)
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


def _between(first: int, size: int, step: int) -> tuple[int, ...]:
    ends = np.arange(first + step - first % step, first + size, step)
    return tuple(np.diff([first, *ends, first + size]).tolist())


def _lazy_image(
    layers: list[Layer], target: Target, chunks: tuple[tuple[int, ...], ...]
) -> xr.DataArray:
    first = layers[0].sheets[0]
    bands = len(first.bands)
    versions = [_version(sheet.path) for layer in layers for sheet in layer.sheets]
    read = da.map_blocks(
        read_block,
        sources=[Source.of(layer, target) for layer in layers],
        target=target,
        chunks=((bands + 1,), *chunks),
        dtype=first.dtype,
        meta=np.empty((0, 0, 0), first.dtype),
        name=f"mosaic-{tokenize(layers, versions, target, chunks)}",
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


def _version(path: str) -> tuple[int, int] | None:
    if not Path(path).is_file():
        return None
    stat = Path(path).stat()
    return stat.st_size, stat.st_mtime_ns
