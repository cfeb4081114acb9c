"""Which polygon the centre of every cell lies in.

It is the one whose border a ray from the centre to the left crosses an odd number of times; a
centre on a shared border belongs to the polygon on its right, or above it. Crossings are computed
from absolute coordinates along edges that always run upwards, so that polygons with a common border
leave no gap and share no cell, in any chunks.
"""

from __future__ import annotations

from dataclasses import dataclass

import dask.array as da
import numba
import numpy as np
import shapely
from dask import delayed
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from popdask.errors import InputError

NONE = -1


@dataclass(frozen=True)
class Outlines:
    """The borders of polygons as edges."""

    edges: NDArray[np.float64]
    """x and y of the lower end, x and y of the upper one, (edge, 4), ordered by polygon."""
    first: NDArray[np.int64]
    """Where each polygon's edges begin, and their end, (polygon + 1,)."""
    names: NDArray
    """What the polygons are called."""

    @classmethod
    def of(cls, polygons: NDArray, names: NDArray) -> Outlines:
        parts, owner = shapely.get_parts(polygons, return_index=True)
        rings, part = shapely.get_rings(parts, return_index=True)
        points, ring = shapely.get_coordinates(rings, return_index=True)
        edges = np.hstack([points[:-1], points[1:]])[ring[:-1] == ring[1:]]
        polygon = owner[part[ring[:-1][ring[:-1] == ring[1:]]]]
        downwards = edges[:, 1] > edges[:, 3]
        edges[downwards] = edges[downwards][:, [2, 3, 0, 1]]
        return cls(edges, np.searchsorted(polygon, np.arange(len(polygons) + 1)), names)


def numbered(outlines: Outlines, y: NDArray, x: NDArray, chunks: tuple) -> da.Array:
    """Number cells by the polygon in which their centres lie, lazily.

    Parameters
    ----------
    outlines : Outlines
        The polygons, in the CRS of the centres.
    y, x : numpy.ndarray of float64
        The centres' coordinates, (y,) and (x,), ascending or descending.
    chunks : tuple of tuple of int
        The chunks along y and x.

    Returns
    -------
    dask.array.Array
        int32 (y, x), −1 in no polygon. Computing it raises `InputError` where polygons overlap.
    """
    rows, columns = (da.from_array(a, chunks=(c,)) for a, c in zip((y, x), chunks, strict=True))
    return da.map_blocks(
        _fill_block,
        rows[:, None],
        columns[None, :],
        outlines=delayed(outlines, pure=True),
        chunks=chunks,
        dtype=np.int32,
        meta=np.empty((0, 0), np.int32),
    )


def _fill_block(y: NDArray, x: NDArray, outlines: Outlines) -> NDArray[np.int32]:
    y, x = y[:, 0], x[0]
    up, right = (slice(None, None, 1 if a[-1] >= a[0] else -1) for a in (y, x))
    number = np.full((y.size, x.size), NONE, np.int32)
    clash = _fill(y[up], x[right], outlines.edges, outlines.first, number)
    if clash[0] >= 0:
        row, column = clash[2:]
        raise InputError(
            f"the zones {outlines.names[clash[0]]} and {outlines.names[clash[1]]} overlap at "
            f"({x[right][column]:.10g}, {y[up][row]:.10g}); every cell was expected to lie in one "
            "zone at most: correct their borders, or leave one of them out"
        )
    return number[up, right]


@numba.njit(cache=True, nogil=True)
def _fill(
    y: NDArray, x: NDArray, edges: NDArray, first: NDArray, number: NDArray
) -> tuple[int, int, int, int]:
    """Number the centres (y, x), both ascending; the first clash (zone, zone, row, column)."""
    height, width = number.shape
    odd = np.zeros((height, width + 1), np.bool_)
    for zone in range(len(first) - 1):
        low, high = height, 0
        for edge in range(first[zone], first[zone + 1]):
            x0, y0, x1, y1 = edges[edge]
            if y1 <= y[0] or y0 > y[-1] or min(x0, x1) > x[-1]:
                continue
            start, stop = np.searchsorted(y, y0), np.searchsorted(y, y1)
            low, high = min(low, start), max(high, stop)
            for row in range(start, stop):
                crossing = x0 + (y[row] - y0) / (y1 - y0) * (x1 - x0)
                column = np.searchsorted(x, crossing)
                odd[row, column] = not odd[row, column]
        for row in range(low, high):
            inside = False
            for column in range(width):
                inside ^= odd[row, column]
                if inside and number[row, column] >= 0:
                    return number[row, column], zone, row, column
                if inside:
                    number[row, column] = zone
            odd[row] = False
    return -1, -1, -1, -1


def beyond(polygons: NDArray, grid: GeoBox) -> NDArray[np.float64]:
    """Share of each polygon's area that lies beyond a grid, (polygon,); 0 where it is rounding.

    Less than a cell is: outlines seldom end exactly where a raster does.

    Examples
    --------
    >>> grid = GeoBox.from_bbox((0, 0, 40, 20), "EPSG:25832", resolution=1)
    >>> beyond(np.array([shapely.box(30, 0, 50, 20), shapely.box(39, 0, 40.01, 20)]), grid)
    array([0.5, 0. ])
    """
    box = shapely.box(*grid.extent.boundingbox)
    polygons = shapely.make_valid(polygons)  # of rings that cross themselves, as cells are numbered
    area, inside = shapely.area(polygons), shapely.area(shapely.intersection(polygons, box))
    cell = box.area / (grid.shape[0] * grid.shape[1])
    # A polygon smaller than a cell is beyond the grid if it is so wholly.
    share = 1 - np.divide(inside, area, out=np.ones_like(area), where=area > 0)
    return np.where((area - inside > cell) | (inside == 0), share, 0.0)
