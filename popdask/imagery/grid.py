"""The grid that people are counted on: square cells of one size, in any CRS, each with a code.

A cell is known by the position of its lower-left corner in units of the cell size, *north* before
*east*, as the Danish Kvadratnet names it: ``100m_61397_6775`` has its corner 6,139,700 m north and
677,500 m east. Both are whole numbers counted from the grid's origin.

Cells are kept in *Z-order* (Morton 1966) from the north-west: the cells of any aligned square of 2,
4 or 8 cells a side then follow one another, so a chunk of cells is one block of the mosaic,
whatever the size of the block.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pyproj
from affine import Affine
from numpy.typing import ArrayLike, NDArray
from odc.geo.geobox import GeoBox
from rasterio.warp import transform_bounds

from popdask._repr_html import html_card
from popdask.errors import InputError

TOLERANCE = 1e-6  # of a cell or pixel: writers round transforms differently
BLOCK_CELLS = 8  # per side of a block of cells, at most
BLOCK_PIXELS = 2048  # per side of a block, at most, unless one cell has more

_INSPIRE = re.compile(r"CRS(?P<crs>\d+)RES(?P<size>\d+)mN(?P<north>-?\d+)E(?P<east>-?\d+)")
_GEOSTAT = re.compile(r"(?P<size>\d+)(?P<unit>k?m)N(?P<north>-?\d+)E(?P<east>-?\d+)")


@dataclass(frozen=True)
class CellGrid:
    """Square cells of one size in one CRS.

    Parameters
    ----------
    size : float
        Side of a cell, in units of the CRS.
    crs : str, optional
        Anything that pyproj understands; ETRS89 / UTM 32N if not given.
    origin : tuple of float, optional
        (x, y) of the corner where north and east are 0.

    Raises
    ------
    InputError
        If the size is not positive or the CRS is unknown.

    Examples
    --------
    >>> grid = CellGrid.preset("dk_100m")
    >>> grid.parse("100m_61397_6775")
    (61397, 6775)
    >>> grid.corner(61397, 6775)
    (677500.0, 6139700.0)
    """

    size: float
    """Side of a cell, in units of the CRS."""
    crs: str = "EPSG:25832"
    """The CRS, as text."""
    origin: tuple[float, float] = (0.0, 0.0)
    """(x, y) of the corner where north and east are 0."""

    def __post_init__(self) -> None:
        if not (math.isfinite(self.size) and self.size > 0):
            raise InputError(
                f"the cell size is {self.size}; expected a positive length in units of {self.crs}, "
                "such as 100; correct it"
            )
        try:
            pyproj.CRS.from_user_input(self.crs)
        except pyproj.exceptions.CRSError as error:
            raise InputError(
                f"the CRS of the cell grid is {self.crs!r}, which pyproj does not know; expected a "
                "code such as EPSG:25832; correct it"
            ) from error

    @classmethod
    def preset(cls, name: str) -> CellGrid:
        """Return a grid by its name.

        Parameters
        ----------
        name : {"dk_100m", "dk_1km", "dk_10km", "eu_1km"}
            The Danish Kvadratnet (EPSG:25832), or the European grid of Eurostat (EPSG:3035).

        Returns
        -------
        CellGrid

        Raises
        ------
        InputError
            If there is no such grid.

        Examples
        --------
        >>> CellGrid.preset("eu_1km")
        CellGrid(size=1000.0, crs='EPSG:3035', origin=(0.0, 0.0))
        """
        if name not in PRESETS:
            raise InputError(
                f"there is no cell grid {name!r}; expected one of {', '.join(PRESETS)}; choose one "
                "of them, or give the size and the CRS"
            )
        return PRESETS[name]

    def _repr_html_(self) -> str:
        """Its size, its CRS and what its codes look like, as a notebook shows it."""
        rows = {
            "cells": f"{self.size:g} wide",
            "CRS": f"{self.crs}, {pyproj.CRS.from_user_input(self.crs).name}",
            "origin (x, y)": self.origin,
            "codes": f"{self.label}_<north>_<east>",
        }
        return html_card(f"CellGrid of {self.label}", rows)

    @property
    def label(self) -> str:
        """The size as codes say it: ``100m``, ``1km``; the CRS's unit where that is no metre."""
        unit = pyproj.CRS.from_user_input(self.crs).axis_info[0].unit_name
        if unit != "metre":
            return f"{self.size:.12g}{'deg' if unit == 'degree' else unit.replace(' ', '-')}"
        whole_km = self.size % 1000 == 0
        return f"{self.size / 1000:.12g}km" if whole_km else f"{self.size:.12g}m"

    def code(self, north: int, east: int) -> str:
        """Return the code of a cell.

        Parameters
        ----------
        north, east : int
            Its lower-left corner in units of the cell size.

        Returns
        -------
        str
            ``<size>_<north>_<east>``.

        Examples
        --------
        >>> CellGrid.preset("dk_1km").code(6139, 677)
        '1km_6139_677'
        """
        return f"{self.label}_{int(north)}_{int(east)}"

    def parse(self, code: str) -> tuple[int, int]:
        """Read the code of a cell.

        Parameters
        ----------
        code : str
            As `code` gives it, in the form of INSPIRE, ``CRS3035RES1000mN3124000E3814000``, or in
            that of GEOSTAT, ``1kmN3124E3814``; blanks around it do not matter.

        Returns
        -------
        tuple of int
            North and east.

        Raises
        ------
        InputError
            If it is not the code of a cell of this grid.

        Examples
        --------
        >>> CellGrid.preset("eu_1km").parse("CRS3035RES1000mN3124000E3814000")
        (3124, 3814)
        >>> CellGrid.preset("eu_1km").parse("1kmN3124E3814")
        (3124, 3814)
        """
        code = str(code).strip()
        own = re.fullmatch(rf"{re.escape(self.label)}_(-?\d+)_(-?\d+)", code)
        if own:
            return int(own[1]), int(own[2])
        inspire = _INSPIRE.fullmatch(code)
        if inspire and self._is_inspire(inspire):
            return int(inspire["north"]) // int(self.size), int(inspire["east"]) // int(self.size)
        short = _GEOSTAT.fullmatch(code)
        if short and (found := self._geostat(short)):
            return found
        raise InputError(
            f"{code!r} is not the code of a cell of {self.label} in {self.crs}; expected a code "
            f"such as {self.code(61397, 6775)}; correct it, or name the grid that it belongs to"
        )

    def _is_inspire(self, code: re.Match[str]) -> bool:
        same_crs = pyproj.CRS.from_user_input(self.crs).to_epsg() == int(code["crs"])
        corner = int(code["north"]) % self.size == 0 == int(code["east"]) % self.size
        return same_crs and corner and self.size == int(code["size"]) and self.origin == (0, 0)

    def _geostat(self, code: re.Match[str]) -> tuple[int, int] | None:
        """The cell of a code without its CRS, in metres without the zeros that all sizes end in."""
        size = int(code["size"]) * (1000 if code["unit"] == "km" else 1)
        if size != self.size or self.origin != (0, 0):
            return None
        zeros = 10 ** (len(str(size)) - len(str(size).rstrip("0")))
        north, east = (int(code[axis]) * zeros for axis in ("north", "east"))
        return None if north % size or east % size else (north // size, east // size)

    def corner(self, north: int, east: int) -> tuple[float, float]:
        """Give (x, y) of a cell's lower-left corner."""
        return self.origin[0] + east * self.size, self.origin[1] + north * self.size

    def cells_at(self, x: ArrayLike, y: ArrayLike) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Find the cells in which positions lie.

        Parameters
        ----------
        x, y : array_like of float
            Positions in the grid's CRS; a position on a border belongs to the cell above or right.

        Returns
        -------
        tuple of ndarray of int64
            North and east, in the shape of `x` and `y`.

        Examples
        --------
        >>> north, east = CellGrid(100).cells_at([677555.0], [6139799.0])
        >>> north.tolist(), east.tolist()
        ([61397], [6775])
        """
        east = np.floor((np.asarray(x, float) - self.origin[0]) / self.size)
        north = np.floor((np.asarray(y, float) - self.origin[1]) / self.size)
        return north.astype(np.int64), east.astype(np.int64)

    def geobox(self, norths: range, easts: range, *, pixels: int = 1) -> GeoBox:
        """Return the raster of a rectangle of whole cells.

        Parameters
        ----------
        norths, easts : range
            The cells, ascending.
        pixels : int, optional
            Pixels per side of a cell.

        Returns
        -------
        odc.geo.geobox.GeoBox
            North up; row 0 holds the northernmost cells.

        Examples
        --------
        >>> CellGrid(100).geobox(range(4, 6), range(3), pixels=200).shape
        Shape2d(x=600, y=400)
        """
        left, top = self.corner(norths.stop, easts.start)
        pixel = self.size / pixels
        shape = (len(norths) * pixels, len(easts) * pixels)
        return GeoBox(shape, Affine(pixel, 0, left, 0, -pixel, top), self.crs)

    def covering(self, bounds: tuple[float, ...], crs: Any = None) -> tuple[range, range]:
        """Find the rectangle of cells that covers an area.

        Parameters
        ----------
        bounds : tuple of float
            Left, bottom, right, top.
        crs : optional
            CRS of the bounds; the grid's own if not given.

        Returns
        -------
        tuple of range
            Norths and easts of every cell that shares some area with it, ascending.

        Examples
        --------
        >>> CellGrid(100).covering((50, 100, 200, 301))
        (range(1, 4), range(0, 2))
        """
        if crs is not None and pyproj.CRS.from_user_input(crs) != pyproj.CRS(self.crs):
            bounds = transform_bounds(crs, self.crs, *bounds, densify_pts=21)
        left, bottom, right, top = bounds
        x, y = self.origin

        def between(low: float, high: float) -> range:
            first = math.floor(low / self.size + TOLERANCE)
            return range(first, max(first, math.ceil(high / self.size - TOLERANCE)))

        return between(bottom - y, top - y), between(left - x, right - x)

    def joined(self, n: int) -> CellGrid:
        """Return the grid of cells n times as large, from the same origin."""
        return CellGrid(self.size * n, self.crs, self.origin)


PRESETS = {
    "dk_100m": CellGrid(100.0),
    "dk_1km": CellGrid(1000.0),
    "dk_10km": CellGrid(10_000.0),
    "eu_1km": CellGrid(1000.0, "EPSG:3035"),
}


def as_grid(grid: CellGrid | str | float, crs: Any = None) -> CellGrid:
    """Turn a grid, the name of a preset, or a size with a CRS into a grid."""
    if isinstance(grid, CellGrid):
        return grid
    if isinstance(grid, str):
        return CellGrid.preset(grid)
    return CellGrid(float(grid)) if crs is None else CellGrid(float(grid), crs_text(crs))


def crs_text(crs: Any) -> str:
    """Write a CRS as text: its EPSG code, or WKT where it has none."""
    known = pyproj.CRS.from_user_input(crs)
    epsg = known.to_epsg()
    return f"EPSG:{epsg}" if epsg else known.to_wkt()


def z_order(north: NDArray[np.int64], east: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the order of cells along the Z-curve that starts in the north-west."""
    code = _spread(-1 - north) << np.uint64(1) | _spread(east)
    return np.argsort(code, kind="stable")


def _spread(values: NDArray[np.int64]) -> NDArray[np.uint64]:
    """Put a zero bit before every one of 32 bits."""
    bits = (values + 2**31).astype(np.uint64)
    for shift, mask in (
        (16, 0x0000FFFF0000FFFF),
        (8, 0x00FF00FF00FF00FF),
        (4, 0x0F0F0F0F0F0F0F0F),
        (2, 0x3333333333333333),
        (1, 0x5555555555555555),
    ):
        bits = (bits | bits << np.uint64(shift)) & np.uint64(mask)
    return bits


def cut_at_multiples(start: int, stop: int, step: int) -> tuple[int, ...]:
    """Return the sizes of the parts of a span that is cut at every multiple of a step."""
    edges = [start, *range((start // step + 1) * step, stop, step), stop]
    return tuple(b - a for a, b in pairwise(edges))


def block_side(pixels: int, context: int = 0) -> int:
    """Return the cells per side of a block: 1, 2, 4 or 8, within `BLOCK_PIXELS` where it can be."""
    fitting = max(1, min(BLOCK_CELLS, BLOCK_PIXELS // pixels))
    return 1 << max(fitting.bit_length() - 1, (context - 1).bit_length() if context else 0)
