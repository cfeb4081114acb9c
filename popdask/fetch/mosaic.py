"""Tiles put side by side and cut to a rectangle."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import rasterio
from affine import Affine
from rasterio.errors import RasterioError
from rasterio.merge import merge

from popdask.fetch.tiles import Bounds
from popdask.fetch.transfer import FetchError

_ROUNDING = 1e-3  # of a cell: published origins are rounded


def join_parts(parts: Mapping[str, Callable[[Path], None]], bounds: Bounds, target: Path) -> None:
    """Let tiles be written beside a raster, and join them to it.

    Parameters
    ----------
    parts
        Writes each tile to the path that it is given, by the tile's name.
    bounds, target
        As `join` takes them.
    """
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        tiles = {Path(folder, f"{name}.tif"): write for name, write in parts.items()}
        for tile, write in tiles.items():
            write(tile)
        join(list(tiles), bounds, target)


def join(tiles: Sequence[Path], bounds: Bounds, target: Path) -> None:
    """Write what tiles have within a rectangle.

    Cells are copied, not resampled; those that are partly in the rectangle are taken as a whole,
    and what no tile covers is nodata. A strip of the result is in memory at a time.

    Parameters
    ----------
    tiles
        Rasters on one grid.
    bounds
        Left, bottom, right and top, in their projection.
    target
        The raster to write.

    Raises
    ------
    FetchError
        If a tile cannot be read.
    """
    try:
        with ExitStack() as stack:
            sources = [stack.enter_context(rasterio.open(tile)) for tile in tiles]
            first = sources[0]
            merge(
                sources,
                bounds=snapped(bounds, first.transform),
                res=first.res,
                nodata=first.nodata,
                dst_path=target,
                dst_kwds={
                    "driver": "GTiff",
                    "tiled": True,
                    "blockxsize": 256,
                    "blockysize": 256,
                    "compress": "deflate",
                    "bigtiff": "if_safer",
                },
            )
    except RasterioError as error:
        raise FetchError(f"the tiles of {target.name} cannot be put together ({error}).") from error


def snapped(bounds: Bounds, transform: Affine) -> Bounds:
    """Widen a rectangle to whole cells.

    Parameters
    ----------
    bounds
        Left, bottom, right and top.
    transform
        Of a raster on the grid, north up.

    Examples
    --------
    >>> snapped((0.2, 0.9, 3.0, 4.1), Affine(1, 0, -10, 0, -1, 10))
    (0.0, 0.0, 3.0, 5.0)
    """
    left, bottom, right, top = bounds
    column, row = ~transform @ (left, top)
    last_column, last_row = ~transform @ (right, bottom)
    begin = transform @ (math.floor(column + _ROUNDING), math.floor(row + _ROUNDING))
    end = transform @ (math.ceil(last_column - _ROUNDING), math.ceil(last_row - _ROUNDING))
    return begin[0], end[1], end[0], begin[1]
