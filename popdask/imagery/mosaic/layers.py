"""The files of a mosaic together: those on one lattice of pixels are read as one raster.

Where sheets of a *layer* overlap, the first that has data counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from popdask.cube.grids import carry
from popdask.errors import InputError
from popdask.imagery.mosaic.sheets import Sheet

ALIGNED = 1e-3  # of a pixel


@dataclass(frozen=True)
class Layer:
    """Sheets on one lattice, as one raster."""

    sheets: tuple[Sheet, ...]
    """The first that has data counts."""
    grid: GeoBox
    places: tuple[tuple[int, int], ...]
    """Row and column of each sheet's first pixel."""

    @classmethod
    def of(cls, sheets: Sequence[Sheet]) -> Layer:
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


def layers_of(sheets: Sequence[Sheet]) -> list[Layer]:
    """Group sheets that follow one another on one lattice into layers.

    Parameters
    ----------
    sheets : sequence of Sheet
        The first that has data counts.

    Returns
    -------
    list of Layer
        In that order.

    Raises
    ------
    InputError
        If the sheets differ in their bands or their dtype.
    """
    groups: list[list[Sheet]] = []
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
    return [Layer.of(group) for group in groups]


def is_on_lattice(grid: GeoBox, other: GeoBox) -> bool:
    """Tell whether the pixels of two grids, wherever these lie, are on one lattice.

    Examples
    --------
    >>> a = GeoBox.from_bbox((0, 0, 10, 10), "EPSG:3035", resolution=1)
    >>> is_on_lattice(a, a.pad(3)), is_on_lattice(a, a.zoom_out(2))
    (True, False)
    """
    if grid.crs != other.crs:
        return False
    ends = np.array([[0, grid.shape[0]], [0, grid.shape[1]]], float)
    row, column = carry(ends[0], ends[1], grid, other)
    offset = np.round([row[0], column[0]])
    drift = [row - offset[0] - ends[0], column - offset[1] - ends[1]]
    return bool(np.abs(drift).max() < ALIGNED)


def offset_on(grid: GeoBox, other: GeoBox) -> tuple[int, int]:
    """Give the row and column, on another grid of one lattice, of a grid's first pixel."""
    row, column = carry(np.zeros(1), np.zeros(1), grid, other)
    return round(float(row[0])), round(float(column[0]))
