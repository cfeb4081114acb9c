"""Read a block of a mosaic: its files as they are, or through GDAL's warper, tile by tile.

Tiles lie on a lattice fixed to the origin of the cells, and a tile is warped whole. So a pixel is
the same to the bit in any chunks. GDAL places a pixel to within an eighth of a pixel of the file.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from rasterio.enums import Resampling
from rasterio.warp import reproject, transform

from popdask.cube.grids import carry
from popdask.imagery.mosaic.layers import Layer, is_on_lattice, offset_on

COARSER = 1.25  # pixels of the file in one wanted, above which they are averaged
MARGIN = 3  # pixels of a file around those that a tile covers, for the warper's kernel
EDGE_POINTS = 21  # along each edge of a tile, between which other CRSs are as good as straight

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

    layer: Layer
    shift: tuple[int, int] | None
    """Row and column of the target's first pixel on the layer; None where it must be warped."""
    resampling: Resampling
    scale: float
    """Pixels wanted in one of the layer's."""

    @classmethod
    def of(cls, layer: Layer, target: Target) -> Source:
        """Take the layer's own pixels where they are those of the target, else resample them.

        The average of those under a pixel where it is clearly larger than they are, else bilinear,
        also where another CRS changes their size by a few percent.
        """
        if is_on_lattice(target.grid, layer.grid):
            return cls(layer, offset_on(target.grid, layer.grid), Resampling.nearest, 1.0)
        middle = np.array(target.grid.shape) / 2
        ends = middle[0] + np.array([0, 1]), middle[1] + np.zeros(2)
        row, column = carry(*ends, target.grid, layer.grid)
        span = math.hypot(row[1] - row[0], column[1] - column[0])
        resampling = Resampling.average if span > COARSER else Resampling.bilinear
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
    window = (_moved(s, by) for s, by in zip((rows, columns), source.shift, strict=True))
    yield (slice(None), slice(None)), *source.layer.read(*window)


def _warped_parts(source: Source, target: Target, rows: slice, columns: slice) -> Iterator[Part]:
    """Warp the tiles that meet a window: (place in the window, values, which of them are valid)."""
    for tile_rows in _tiles(rows, target.first[0], target.tile):
        for tile_columns in _tiles(columns, target.first[1], target.tile):
            corner = target.grid.translate_pix(tile_columns.start, tile_rows.start).transform
            tile = GeoBox((target.tile, target.tile), corner, target.grid.crs)
            values, valid = _warp(source, tile)
            (into_rows, of_rows), (into_columns, of_columns) = (
                _overlap(rows, tile_rows),
                _overlap(columns, tile_columns),
            )
            inside = into_rows, into_columns
            yield inside, values[:, of_rows, of_columns], valid[of_rows, of_columns]


def _moved(window: slice, by: int) -> slice:
    return slice(window.start + by, window.stop + by)


def _tiles(wanted: slice, first: int, tile: int) -> Iterator[slice]:
    """List the tiles, on the lattice counted from the cells' origin, that meet a window."""
    start = (wanted.start + first) // tile * tile - first
    for begin in range(start, wanted.stop, tile):
        yield slice(begin, begin + tile)


def _overlap(window: slice, tile: slice) -> tuple[slice, slice]:
    """Where a tile meets a window: counted in the window, and in the tile."""
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
