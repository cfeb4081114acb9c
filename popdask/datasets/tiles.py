"""Tiles of a published grid, and whole frames made of them.

The tiles of the Global Human Settlement Layer, R2023A.

Rows count from the north and columns from the west, both from 1: ``R3_C18`` is a square of 1000 km
in the Mollweide projection (ESRI:54009), or of 10° in WGS 84. Tiles without land are not published.

Tiles put side by side and cut to a rectangle.
"""

from __future__ import annotations

import math
import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from affine import Affine
from pyproj import Transformer
from rasterio.errors import RasterioError
from rasterio.merge import merge

from popdask.datasets.transfer import FetchError
from popdask.errors import InputError
from popdask.io.kinds import open_raster

Bounds = tuple[float, float, float, float]

_TILE = re.compile(r"R([1-9]\d?)_C([1-9]\d?)")


@dataclass(frozen=True)
class TileGrid:
    """Where the tiles of one projection lie.

    Examples
    --------
    >>> TileGrid("EPSG:4326", -180.0, 90.0, 10.0, rows=18, columns=36).columns
    36
    """

    crs: str
    """The projection."""
    left: float
    """Western edge of the first column."""
    top: float
    """Northern edge of the first row."""
    side: float
    """Side of a tile, in the units of the projection."""
    rows: int
    """How many rows."""
    columns: int
    """How many columns."""

    def tile_at(self, longitude: float, latitude: float) -> str:
        """Name the tile of a place, given in degrees.

        Examples
        --------
        >>> MOLLWEIDE.tile_at(80.27, 13.08), WGS84.tile_at(2.2, 41.4)
        ('R8_C26', 'R5_C19')
        """
        x, y = Transformer.from_crs("EPSG:4326", self.crs, always_xy=True).transform(
            longitude, latitude
        )
        (name,) = self._names((x, y, x, y))
        return name

    def tiles_in(self, bounds: Bounds) -> list[str]:
        """Name the tiles that a rectangle touches.

        Parameters
        ----------
        bounds
            West, south, east and north in degrees.

        Examples
        --------
        >>> WGS84.tiles_in((-132, 68, -128, 72))
        ['R2_C5', 'R2_C6', 'R3_C5', 'R3_C6']
        """
        return self._names(self.project(bounds))

    def project(self, bounds: Bounds) -> Bounds:
        """Return the smallest rectangle of the projection that holds one in degrees."""
        transformer = Transformer.from_crs("EPSG:4326", self.crs, always_xy=True)
        left, bottom, right, top = transformer.transform_bounds(*bounds, densify_pts=101)
        return left, bottom, right, top

    def _names(self, box: Bounds) -> list[str]:
        left, bottom, right, top = box
        rows = _span(self.top - top, self.top - bottom, self.side, self.rows)
        columns = _span(left - self.left, right - self.left, self.side, self.columns)
        return [f"R{row}_C{column}" for row in rows for column in columns]


MOLLWEIDE = TileGrid("ESRI:54009", -18_041_000.0, 9_000_000.0, 1_000_000.0, 18, 37)
WGS84 = TileGrid("EPSG:4326", -180 - 0.95 / 120, 89.1 - 0.05 / 120, 10.0, 18, 36)


def checked_tile(name: str) -> str:
    """Return the name of a tile as it is published."""
    if not _TILE.fullmatch(name.upper()):
        raise InputError(f"tile is {name!r}; expected a name such as R3_C18; correct it.")
    return name.upper()


def checked_bounds(bounds: Bounds) -> Bounds:
    """Return a rectangle in degrees, if it is one."""
    try:
        west, south, east, north = map(float, bounds)
        fits = -180 <= west < east <= 180 and -90 <= south < north <= 90
    except (TypeError, ValueError):
        fits = False
    if not fits:
        raise InputError(
            f"bounds is {bounds}; expected west, south, east and north in degrees, such as "
            "10,59,11,60, and not across the date line; correct it."
        )
    return west, south, east, north


def _span(first: float, last: float, side: float, count: int) -> range:
    """Numbers of the tiles from one distance to another; where both meet, the one after."""
    begin = math.floor(first / side) + 1
    end = max(math.ceil(last / side), begin)
    return range(min(max(begin, 1), count), min(max(end, 1), count) + 1)


_ROUNDING = 1e-3  # of a cell: published origins are rounded


def join_parts(parts: Mapping[str, Callable[[Path], None]], bounds: Bounds, target: Path) -> None:
    """Let tiles be written beside a raster, and join them to it."""
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        tiles = {Path(folder, f"{name}.tif"): write for name, write in parts.items()}
        for tile, write in tiles.items():
            write(tile)
        join(list(tiles), bounds, target)


def join(tiles: Sequence[Path], bounds: Bounds, target: Path) -> None:
    """Write what tiles have within a rectangle."""
    # Cells are copied, not resampled; those that are partly in the rectangle are taken as a
    # whole, and what no tile covers is nodata. A strip of the result is in memory at a time.
    try:
        with ExitStack() as stack:
            sources = [stack.enter_context(open_raster(str(tile))) for tile in tiles]
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
    """Widen a rectangle to whole cells."""
    left, bottom, right, top = bounds
    column, row = ~transform @ (left, top)
    last_column, last_row = ~transform @ (right, bottom)
    begin = transform @ (math.floor(column + _ROUNDING), math.floor(row + _ROUNDING))
    end = transform @ (math.ceil(last_column - _ROUNDING), math.ceil(last_row - _ROUNDING))
    return begin[0], end[1], end[0], begin[1]
