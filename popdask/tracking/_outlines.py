"""Outlines of communities, in whole cells.

Each chunk outlines its own cells, and the pieces of a community are joined in integer coordinates,
where no rounding can part two neighbours. The corners that chunk borders leave behind lie on
straight edges and are taken out, so that the outline is identical under any chunking.
"""

from collections.abc import Iterable
from threading import Lock

import numpy as np
import rasterio.features
import shapely
from affine import Affine

_ALONE = Lock()
Pieces = tuple[list[int], list[shapely.Polygon]]


def outline_block(labels: np.ndarray, corner: tuple[int, int]) -> Pieces:
    """Outline the communities of a block (1, y, x) that begins at (row, column).

    Their numbers, and polygons of (column, row).
    """
    top, left = corner
    place, labels = Affine.translation(left, top), labels[0].astype(np.int32)
    # rasterio silences a warning process-wide, and threads undo that for each other
    with _ALONE:
        shapes = list(rasterio.features.shapes(labels, labels >= 0, 4, transform=place))
    numbers = [int(number) for _, number in shapes]
    return numbers, [shapely.geometry.shape(outline) for outline, _ in shapes]


def join_outlines(blocks: Iterable[Pieces]) -> np.ndarray:
    """Join the pieces of each community, in the order of their numbers."""
    numbers = np.array([number for block, _ in blocks for number in block], dtype=np.int64)
    pieces = np.array([piece for _, block in blocks for piece in block], dtype=object)
    order = np.argsort(numbers, kind="stable")
    starts = np.flatnonzero(np.diff(numbers[order], prepend=-1))
    _, *groups = np.split(pieces[order], starts)
    outlines = np.array([shapely.union_all(group) for group in groups], dtype=object)
    # normal form begins each ring at a true corner, so that no needless one is kept
    cornered = shapely.simplify(shapely.normalize(outlines), 0, preserve_topology=False)
    return shapely.normalize(cornered)
