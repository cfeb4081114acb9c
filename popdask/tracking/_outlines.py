"""Outlines of communities, in whole cells.

Each chunk outlines its own cells, and the pieces of a community are joined in integer coordinates,
where no rounding can part two neighbours. Only pieces that reach the border of their chunk have
something to be joined with. The corners that chunk borders leave behind lie on straight edges and
are taken out, so that the outline is identical under any chunking.
"""

import warnings
from collections.abc import Iterable
from itertools import chain
from threading import Lock
from typing import NamedTuple

import numpy as np
import rasterio.features
import shapely
from affine import Affine
from rasterio.errors import NotGeoreferencedWarning

_ALONE = Lock()


class Pieces(NamedTuple):
    """Polygons of (column, row), each of one community."""

    numbers: np.ndarray
    """The community of each, int64."""
    polygons: np.ndarray
    border: np.ndarray
    """Whether it reaches the border of its chunk, bool."""


def outline_block(labels: np.ndarray, corner: tuple[int, int]) -> Pieces:
    """Outline the communities of a block (1, y, x) that begins at (row, column)."""
    top, left = corner
    place, labels = Affine.translation(left, top), labels[0].astype(np.int32)
    with _ALONE:
        # rasterio silences this for each call, process-wide; threads that leave such a block of
        # their own undo that, unless it is silenced for good
        warnings.filterwarnings("ignore", "", NotGeoreferencedWarning, r"rasterio\.features")
        shapes = list(rasterio.features.shapes(labels, labels >= 0, 4, transform=place))
    numbers = np.array([number for _, number in shapes], dtype=np.int64)
    polygons = _polygons([outline["coordinates"] for outline, _ in shapes])
    bottom, right = top + labels.shape[0], left + labels.shape[1]
    border = (shapely.bounds(polygons) == (left, top, right, bottom)).any(axis=1)
    # rings that touch themselves at a corner are taken apart
    bent = np.flatnonzero(~border & ~shapely.is_valid(polygons))
    polygons[bent] = [shapely.union_all(polygons[i : i + 1]) for i in bent]
    return Pieces(numbers, polygons, border)


def _polygons(outlines: list[list[list[tuple[float, float]]]]) -> np.ndarray:
    """Make polygons of the corners of their rings."""
    rings = list(chain.from_iterable(outlines))
    corners = np.array(list(chain.from_iterable(rings)), dtype=np.float64).reshape(-1, 2)
    of_rings, of_polygons = (
        np.cumsum([0, *map(len, parts)], dtype=np.int64) for parts in (rings, outlines)
    )
    return shapely.from_ragged_array(shapely.GeometryType.POLYGON, corners, (of_rings, of_polygons))


def join_outlines(blocks: Iterable[Pieces]) -> np.ndarray:
    """Join the pieces of each community, in the order of their numbers."""
    numbers, polygons, border = map(np.concatenate, zip(*blocks, strict=True))
    order = np.argsort(numbers, kind="stable")
    starts = np.flatnonzero(np.diff(numbers[order], prepend=-1))
    _, *groups = np.split(order, starts)
    outlines = np.array([_joined(polygons[group], border[group]) for group in groups], dtype=object)
    # normal form begins each ring at a true corner, so that no needless one is kept
    cornered = shapely.simplify(shapely.normalize(outlines), 0, preserve_topology=False)
    return shapely.normalize(cornered)


def _joined(polygons: np.ndarray, border: np.ndarray) -> shapely.Geometry:
    """Join the pieces of one community."""
    if border.any():
        polygons = np.append(polygons[~border], shapely.union_all(polygons[border]))
    parts = shapely.get_parts(polygons)
    return parts[0] if len(parts) == 1 else shapely.multipolygons(parts)
