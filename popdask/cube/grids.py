"""The grid under a cube: what a cell measures, and whether two grids are one.

Areas come from the CRS: on a geographic one from the ellipsoid, where the area between two
parallels has a closed form (Snyder 1987, *Map Projections: A Working Manual*, eq. 3-12), on a
projected one from the size of a cell in the plane.
"""

from __future__ import annotations

import math
import re

import numpy as np
import odc.geo.xr  # noqa: F401  registers DataArray.odc
import pyproj
import xarray as xr
from odc.geo.geobox import GeoBox

from popdask.errors import InputError

SAME_GRID = 1e-3  # of a cell: writers round transforms differently

_METRES = {"m": 1.0, "km": 1000.0}


def grid_of(array: xr.DataArray) -> GeoBox:
    """Give the grid of an array: shape, transform and CRS of its (y, x).

    Parameters
    ----------
    array : DataArray
        With dimensions y and x, their coordinates, and a CRS as rioxarray keeps it.

    Returns
    -------
    odc.geo.geobox.GeoBox
        Also right after slicing, where the stored GeoTransform is out of date.

    Raises
    ------
    InputError
        If there is no CRS or no regular grid.
    """
    grid = array.odc.geobox
    if grid is None or grid.crs is None:
        raise InputError(
            f"the array {array.name or ''!r} has no {'CRS' if grid is not None else 'grid'}; "
            "expected evenly spaced y and x coordinates and a CRS; set it with rio.write_crs"
        )
    return grid


def same_grid(a: GeoBox, b: GeoBox) -> bool:
    """Tell whether two grids have one CRS and cells that lie on each other.

    Examples
    --------
    >>> a = GeoBox.from_bbox((0, 0, 10, 10), "EPSG:3035", resolution=1)
    >>> same_grid(a, a), same_grid(a, a.pad(1))
    (True, False)
    """
    if a.shape != b.shape or a.crs != b.crs:
        return False
    corners = np.array([[0, a.shape[0]], [0, a.shape[1]]])
    return bool(np.abs(carry(corners[0], corners[1], b, a) - corners).max() < SAME_GRID)


def describe_grid(grid: GeoBox) -> str:
    """Put a grid into a few words, for an error.

    Examples
    --------
    >>> describe_grid(GeoBox.from_bbox((0, 0, 10, 10), "EPSG:3035", resolution=1))
    '10 × 10 cells of 1 × 1 from (0, 10), EPSG:3035'
    """
    t = grid.transform
    crs = _crs(grid)
    epsg = crs.to_epsg()
    return (
        f"{grid.shape[0]} × {grid.shape[1]} cells of {abs(t.e):g} × {abs(t.a):g} from "
        f"({t.c:.10g}, {t.f:.10g}), {f'EPSG:{epsg}' if epsg else crs.name}"
    )


def pixel_area_km2(population: xr.DataArray) -> np.ndarray:
    """Area of a cell in every row.

    Parameters
    ----------
    population : DataArray
        (…, y, x) with a CRS.

    Returns
    -------
    numpy.ndarray
        (y,) float64, km². On the ellipsoid where the CRS is geographic; in the plane where it is
        projected, which is exact on an equal-area grid and within 0.1 % inside a UTM zone.

    Raises
    ------
    InputError
        If there is no CRS or no regular grid.

    Examples
    --------
    >>> from odc.geo.xr import xr_zeros
    >>> grid = GeoBox.from_bbox((0, 0, 1000, 500), "EPSG:25833", resolution=250)
    >>> pixel_area_km2(xr_zeros(grid))
    array([0.0625, 0.0625])
    """
    grid = grid_of(population)
    crs, t = _crs(grid), grid.transform
    unit = crs.axis_info[0].unit_conversion_factor
    if not crs.is_geographic:
        return np.full(grid.shape[0], abs(t.a * t.e) * unit**2 / 1e6)
    edges = t.f + t.e * np.arange(grid.shape[0] + 1)
    latitude = np.clip(edges * unit, -np.pi / 2, np.pi / 2)
    ellipsoid = crs.ellipsoid
    assert ellipsoid is not None, "a geographic CRS has an ellipsoid"
    flattening = ellipsoid.inverse_flattening
    e2 = (2 - 1 / flattening) / flattening if flattening else 0.0
    sine = np.sin(latitude)
    q = sine / (1 - e2 * sine**2)
    q += np.arctanh(math.sqrt(e2) * sine) / math.sqrt(e2) if e2 else sine
    minor2 = (ellipsoid.semi_major_metre / 1000) ** 2 * (1 - e2)
    return np.abs(np.diff(q)) * minor2 / 2 * abs(t.a * unit)


def cell_size_m(population: xr.DataArray) -> float:
    """Side of a cell in metres.

    Parameters
    ----------
    population : DataArray
        (…, y, x) with a projected CRS and square cells.

    Returns
    -------
    float
        Metres.

    Raises
    ------
    InputError
        If the CRS is geographic or the cells are not square.

    Examples
    --------
    >>> from odc.geo.xr import xr_zeros
    >>> grid = GeoBox.from_bbox((0, 0, 1000, 500), "EPSG:25833", resolution=250)
    >>> cell_size_m(xr_zeros(grid))
    250.0
    """
    grid = grid_of(population)
    height, width = abs(grid.transform.e), abs(grid.transform.a)
    if _crs(grid).is_geographic or not math.isclose(height, width, rel_tol=1e-6):
        raise InputError(
            f"the grid is {describe_grid(grid)}, so its cells have no one size in metres; expected "
            "square cells in a projected CRS; give the distance in cells, or reproject the frames"
        )
    return float(width * _crs(grid).axis_info[0].unit_conversion_factor)


def in_cells(distance: float | str, population: xr.DataArray) -> float:
    """Turn a distance such as "2.5 km" into cells.

    Parameters
    ----------
    distance : float or str
        Cells where it is a number; metres or kilometres where it is text with "m" or "km".
    population : DataArray
        (…, y, x), whose grid it is.

    Returns
    -------
    float
        Cells, possibly fractional.

    Raises
    ------
    InputError
        If it is not a positive distance, or in metres on a grid without one cell size.

    Examples
    --------
    >>> from odc.geo.xr import xr_zeros
    >>> grid = GeoBox.from_bbox((0, 0, 1000, 500), "EPSG:25833", resolution=250)
    >>> in_cells("2.5 km", xr_zeros(grid)), in_cells(7, xr_zeros(grid))
    (10.0, 7.0)
    """
    match = re.fullmatch(r"\s*([0-9.]+(?:e[0-9]+)?)\s*(m|km|cells?)?\s*", str(distance))
    try:
        number, unit = float(match[1]) if match else 0.0, match[2] if match else None
    except ValueError:
        number, unit = 0.0, None
    if not number > 0:
        raise InputError(
            f"the distance {distance!r} is not one; expected a positive number of cells, or text "
            'such as "2.5 km" or "500 m"; correct it'
        )
    if unit not in _METRES:
        return number
    cells = number * _METRES[unit] / cell_size_m(population)
    # 32.3 km is 323 cells of 100 m, not 322.99999999999994, which reaches one ring less.
    return float(round(cells)) if math.isclose(cells, round(cells), rel_tol=1e-9) else cells


def carry(
    row: np.ndarray, column: np.ndarray, source: GeoBox, target: GeoBox
) -> tuple[np.ndarray, np.ndarray]:
    """Carry positions in cells from one grid to another.

    Parameters
    ----------
    row, column : numpy.ndarray
        Positions on `source`, whole at the corners of its cells; any one shape.
    source, target : GeoBox
        The two grids.

    Returns
    -------
    tuple of numpy.ndarray
        Row and column on `target`; infinite where its CRS has no such place.

    Examples
    --------
    >>> fine = GeoBox.from_bbox((0, 0, 4, 4), "EPSG:3035", resolution=1)
    >>> row, column = carry(np.array([2.0]), np.array([3.0]), fine, fine.zoom_out(2))
    >>> float(row[0]), float(column[0])
    (1.0, 1.5)
    """
    s = source.transform
    x, y = s.a * column + s.b * row + s.c, s.d * column + s.e * row + s.f
    if source.crs != target.crs:
        project = pyproj.Transformer.from_crs(_crs(source), _crs(target), always_xy=True)
        x, y = project.transform(x, y)
    t = ~target.transform
    return t.d * x + t.e * y + t.f, t.a * x + t.b * y + t.c


def _crs(grid: GeoBox) -> pyproj.CRS:
    assert grid.crs is not None, "grids without a CRS are refused where they are read"
    return grid.crs.proj
