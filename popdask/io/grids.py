"""The grid under a cube: what a cell measures, whether two grids are one, people moved between two.

Areas come from the CRS: on a geographic one from the ellipsoid, where the area between two
parallels has a closed form (Snyder 1987, *Map Projections: A Working Manual*, eq. 3-12), and so on
Mercator's and others whose rows are parallels; on other projected ones from the size of a cell in
the plane.

People are moved to another grid by area: every source cell is cut into small equal parts, and each
part's share of the people goes to the target cell in which the part lies. Nobody on the target grid
is lost or doubled, by construction; GDAL's ``sum`` resampling was seen to lose 1.4 % of the people
between EPSG:25833 and EPSG:4326. Parts and their order are fixed by the two grids alone, so a
window of the target is the same to the bit whatever its size.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

import numpy as np
import pyproj
from affine import Affine
from odc.geo.geobox import GeoBox

from popdask._numba_cache import compiled
from popdask.errors import InputError

if TYPE_CHECKING:
    import xarray as xr

SAME_GRID = 1e-3  # of a cell: writers round transforms differently

UNEVEN = 0.05  # of a cell: coordinates in float32 are rounded

_EXACT = 1e-6  # of a cell: what float64 leaves of coordinates that were counted from a transform

_KILOMETRE, _ROUNDING = 1000.0, 1e-6  # m, and of a cell

_METRES = {"m": 1.0, "km": 1000.0}


def grid_of(array: xr.DataArray | xr.Dataset) -> GeoBox:
    """Return the grid of an array: shape, transform and CRS of its (y, x).

    Parameters
    ----------
    array : DataArray or Dataset
        With dimensions y and x, their coordinates, and a CRS as rioxarray keeps it.

    Returns
    -------
    odc.geo.geobox.GeoBox
        Also right after slicing, where the stored GeoTransform is out of date.

    Raises
    ------
    InputError
        If there is no CRS or no regular grid.

    Examples
    --------
    >>> from odc.geo.xr import xr_zeros
    >>> frame = xr_zeros(GeoBox.from_bbox((0, 0, 4, 2), "EPSG:3035", resolution=1))
    >>> grid_of(frame[:, 1:]).boundingbox.bbox
    (1.0, 0.0, 4.0, 2.0)
    """
    import odc.geo.xr  # noqa: F401  registers DataArray.odc

    found, called = array.odc.geobox, getattr(array, "name", None)
    name = f"the array {called!r}" if called else "the array"
    grid = None if found is None or found.crs is None else _even_grid(array, found)
    if grid is None:
        lacks = "CRS" if found is not None and found.crs is None else "grid"
        raise InputError(
            f"{name} has no {lacks}; expected evenly spaced y and x coordinates and a CRS; set it "
            "with rio.write_crs, or bring the cells onto a grid"
        )
    check_degrees(name, grid)
    return grid


def _even_grid(array: xr.DataArray | xr.Dataset, grid: GeoBox) -> GeoBox | None:
    """Return the grid of all coordinates, of which odc looks at two; None where they are uneven."""
    t = grid.transform
    axes = {"x": (t.c, t.a), "y": (t.f, t.e)}
    for axis, (first, step) in axes.items():
        if axis not in array.coords:
            continue
        places = array[axis].to_numpy().astype(np.float64)
        index = np.arange(places.size)
        off = np.abs(places - first - step * (index + 0.5)).max(initial=0.0)
        if off < _EXACT * abs(step):
            continue
        if places.size > 1:  # two neighbours in float32 say little of the step
            step = (places[-1] - places[0]) / (places.size - 1)
            first = places[0] - step / 2
        off = np.abs(places - first - step * (index + 0.5)).max(initial=0.0)
        if not off < UNEVEN * abs(step):
            return None
        axes[axis] = float(first), float(step)
    (left, across), (top, down) = axes["x"], axes["y"]
    return GeoBox(grid.shape, Affine(across, t.b, left, t.d, down, top), grid.crs)


def check_degrees(name: str, grid: GeoBox) -> None:
    """Refuse a grid of metres that is said to be of degrees, and one of no known place."""
    crs = _crs(grid)
    if not (crs.is_geographic or crs.is_projected):  # of a building site, or of heights
        raise InputError(
            f"{name} has the CRS {crs.name}, which is neither geographic nor projected; "
            "expected one that tells where on the Earth a cell lies; set that of its coordinates "
            "with rio.write_crs or gdal_edit.py -a_srs, or warp it"
        )
    if not crs.is_geographic:
        return
    left, bottom, right, top = grid.boundingbox.bbox
    unit = math.degrees(crs.axis_info[0].unit_conversion_factor)
    width, height = abs(grid.transform.a) * unit, abs(grid.transform.e) * unit
    around = 360 + max(width, min(3 * width, 1.0))  # GHS-POP's 30" goes two cells beyond
    if max(abs(bottom), abs(top)) * unit > 90 + height or (right - left) * unit > around:
        raise InputError(
            f"{name} lies from ({left:.10g}, {bottom:.10g}) to ({right:.10g}, {top:.10g}), which "
            f"are no degrees, and its CRS is {crs.name}; expected the CRS of its "
            "coordinates; set it with rio.write_crs or gdal_edit.py -a_srs"
        )


def same_grid(a: GeoBox, b: GeoBox) -> bool:
    """Return whether two grids have one CRS and cells that lie on each other."""
    if a.shape != b.shape or a.crs != b.crs:
        return False
    corners = np.array([[0, a.shape[0]], [0, a.shape[1]]])
    return bool(np.abs(carry(corners[0], corners[1], b, a) - corners).max() < SAME_GRID)


def describe_grid(grid: GeoBox) -> str:
    """Put a grid into a few words, for an error."""
    t = grid.transform
    crs = _crs(grid)
    epsg = crs.to_epsg()
    turned = ", rows going north" if t.e > 0 else ""
    turned += ", columns going west" if t.a < 0 else ""
    return (
        f"{grid.shape[0]} × {grid.shape[1]} cells of {abs(t.e):g} × {abs(t.a):g} from "
        f"({t.c:.10g}, {t.f:.10g}){turned}, {f'EPSG:{epsg}' if epsg else crs.name}"
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
        (y,) float64, km². On the ellipsoid where the CRS is geographic, or Mercator's or another
        whose rows are parallels; in the plane where it is another projection, which is exact on an
        equal-area grid and within 0.1 % inside a UTM zone.

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
    return row_areas(grid_of(population))


def row_areas(grid: GeoBox) -> np.ndarray:
    """Area of a cell of a grid in every row, in km²."""
    crs, t = _crs(grid), grid.transform
    unit = crs.axis_info[0].unit_conversion_factor
    edges, width = t.f + t.e * np.arange(grid.shape[0] + 1), abs(t.a)
    if not crs.is_geographic and not has_parallel_rows(crs):
        return np.full(grid.shape[0], abs(t.a * t.e) * unit**2 / 1e6)
    if not crs.is_geographic:
        globe_crs = crs.geodetic_crs
        assert globe_crs is not None, "a projection is one of a globe"
        globe = pyproj.Transformer.from_crs(crs, globe_crs, always_xy=True)
        middle = t.c + t.a * grid.shape[1] / 2
        _, edges = globe.transform(np.full(edges.size, middle), edges)
        west, east = globe.transform([0.0, width], [0.0, 0.0])[0]
        whole = 2 * np.pi / globe_crs.axis_info[0].unit_conversion_factor
        width, unit = (east - west) % whole, globe_crs.axis_info[0].unit_conversion_factor
    latitude = np.clip(edges * unit, -np.pi / 2, np.pi / 2)
    ellipsoid = crs.ellipsoid
    assert ellipsoid is not None, "a CRS on the globe has an ellipsoid"
    flattening = ellipsoid.inverse_flattening
    e2 = (2 - 1 / flattening) / flattening if flattening else 0.0
    sine = np.sin(latitude)
    q = sine / (1 - e2 * sine**2)
    q += np.arctanh(math.sqrt(e2) * sine) / math.sqrt(e2) if e2 else sine
    minor2 = (ellipsoid.semi_major_metre / 1000) ** 2 * (1 - e2)
    return np.abs(np.diff(q)) * minor2 / 2 * width * unit


def has_parallel_rows(crs: pyproj.CRS) -> bool:
    """Whether a projection's rows are parallels, on which metres are not those of the ground."""
    flat = crs.sub_crs_list[0] if crs.is_compound else crs  # without its heights
    projected = (flat.source_crs or flat) if flat.is_bound else flat  # nor the shift of its datum
    operation = projected.coordinate_operation
    method = operation.method_name if operation else ""
    return method.startswith(("Mercator", "Popular Visualisation", "Equidistant Cylindrical"))


def steps_of(grid: GeoBox) -> tuple[int, int]:
    """Return the cells of a grid in one of 1 km, down and across; 1, 1 in degrees."""
    crs = _crs(grid)
    if crs.is_geographic:
        return 1, 1
    unit = crs.axis_info[0].unit_conversion_factor
    if has_parallel_rows(crs):  # where a cell is largest
        plane = abs(grid.transform.a * grid.transform.e) * unit**2
        unit *= float(np.sqrt(row_areas(grid).max() * 1e6 / plane))
    sides = abs(grid.transform.e) * unit, abs(grid.transform.a) * unit
    down, across = (max(int(_KILOMETRE / side + _ROUNDING), 1) for side in sides)
    return down, across


def cell_size_m(population: xr.DataArray) -> float:
    """Side of a cell in metres.

    Parameters
    ----------
    population : DataArray
        (…, y, x) with a projected CRS and square cells.

    Returns
    -------
    float
        Metres. Where rows are parallels, as on Mercator's map, that of a square as large as a cell
        of the middle row is on the ground.

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
    if has_parallel_rows(_crs(grid)):
        return middle_cell_m(population)
    return float(width * _crs(grid).axis_info[0].unit_conversion_factor)


def middle_cell_m(population: xr.DataArray) -> float:
    """Return the side in metres of a square as large as a cell of the middle row, of any grid."""
    areas = pixel_area_km2(population)
    return 1000 * math.sqrt(areas[len(areas) // 2])


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
    """Carry positions in cells from one grid to another."""
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


PARTS = 20  # per side of a source cell: exact for shifts by halves, quarters, fifths and tenths


def source_window(source: GeoBox, target: GeoBox, rows: slice, columns: slice) -> tuple:
    """Return the window of `source` that holds every cell touching a window of `target`."""
    y = np.arange(rows.start, rows.stop + 1)
    x = np.arange(columns.start, columns.stop + 1)
    ring_row = np.concatenate([np.full(x.size, y[0]), np.full(x.size, y[-1]), y, y])
    ring_column = np.concatenate([x, x, np.full(y.size, x[0]), np.full(y.size, x[-1])])
    row, column = carry(ring_row, ring_column, target, source)
    seam = source.crs != target.crs and np.ptp(column) > _turn(source) / 2
    if seam or not (np.isfinite(row).all() and np.isfinite(column).all()):
        return slice(0, source.shape[0]), slice(0, source.shape[1])

    def around(index: np.ndarray, size: int) -> slice:
        margin = 2  # the ring is straight between the corners of its cells, the other grid not
        low, high = math.floor(index.min()) - margin, math.ceil(index.max()) + margin
        return slice(min(max(low, 0), size), min(max(high, 0), size))

    return around(row, source.shape[0]), around(column, source.shape[1])


def share_out(
    people: np.ndarray,
    source: GeoBox,
    window: tuple[slice, slice],
    target: GeoBox,
    rows: slice,
    columns: slice,
) -> np.ndarray:
    """Move counts from one grid to another, keeping every person."""
    corner = np.mgrid[window[0].start : window[0].stop + 1, window[1].start : window[1].stop + 1]
    row, column = carry(corner[0], corner[1], source, target)
    shape = (rows.stop - rows.start, columns.stop - columns.start)
    # From a map, longitudes come as −180 to 180, whatever those of the target are.
    turn = _turn(target) if math.isinf(_turn(source)) else math.inf
    parts = _parts(source, target, turn)
    return _share_out(people, row, column, rows.start, columns.start, *shape, parts, turn)


def turns(source: GeoBox, target: GeoBox) -> list[GeoBox]:
    """Return the source where its longitudes may stand for those of the target: 190° is −170°."""
    turn = _turn(source)
    if source.crs != target.crs or math.isinf(turn):
        return [source]
    shifts = [source.transform * source.transform.translation(n * turn, 0) for n in (-1, 0, 1)]
    return [GeoBox(source.shape, transform, source.crs) for transform in shifts]


def goes_around(grid: GeoBox) -> bool:
    """Return whether the columns of a grid go once around the Earth, so that its sides meet."""
    return grid.shape[1] > _turn(grid) - 0.5


def _turn(grid: GeoBox) -> float:
    """Columns once around the Earth; infinite where coordinates are not geographic."""
    crs = _crs(grid)
    if not crs.is_geographic:
        return math.inf
    return 2 * math.pi / crs.axis_info[0].unit_conversion_factor / abs(grid.transform.a)


def _parts(source: GeoBox, target: GeoBox, turn: float) -> int:
    """Choose the parts per side of a source cell: several to a smaller target cell."""
    # Chosen once for two grids, so that the shares do not depend on the window.
    middle = np.array(target.shape) / 2
    row, column = carry(middle[:1], middle[1:], target, source)
    rows, columns = carry(row + np.array([0, 1, 0]), column + np.array([0, 0, 1]), source, target)
    if math.isfinite(turn):
        columns = columns - turn * np.round((columns - columns[0]) / turn)
    span = max(np.ptp(rows), np.ptp(columns))
    return max(PARTS, math.ceil(8 * span)) if math.isfinite(span) else PARTS


@compiled
def _share_out(
    people: np.ndarray,
    row: np.ndarray,
    column: np.ndarray,
    top: int,
    left: int,
    height: int,
    width: int,
    parts: int,
    turn: float,
) -> np.ndarray:
    """Spread (h, w) counts with corners (h + 1, w + 1) in target cells over (height, width)."""
    circle = np.isfinite(turn)
    total = np.full((height + 2, width + 2), np.nan)  # and a rim for those beyond
    for r, c in np.ndindex(people.shape):
        share = people[r, c] / (parts * parts)
        reach = row[r : r + 2, c : c + 2].sum() + column[r : r + 2, c : c + 2].sum()
        if not (np.isfinite(share) and np.isfinite(reach)):
            continue
        a, b = column[r, c], column[r, c + 1]
        d, e = column[r + 1, c], column[r + 1, c + 1]
        if circle:  # the corners of a cell on the antimeridian lie a turn apart
            b -= turn * np.round((b - a) / turn)
            d -= turn * np.round((d - a) / turn)
            e -= turn * np.round((e - a) / turn)
        # The outermost parts enclose the others: where they share a target cell, all do.
        same, first = True, (0, 0)
        for step in (parts - 1, 1):
            for i in range(0, parts, step):
                v = (i + 0.5) / parts
                y0 = row[r, c] * (1 - v) + row[r + 1, c] * v
                y1 = row[r, c + 1] * (1 - v) + row[r + 1, c + 1] * v
                x0 = a * (1 - v) + d * v
                x1 = b * (1 - v) + e * v
                for j in range(0, parts, step):
                    u = (j + 0.5) / parts
                    at = x0 * (1 - u) + x1 * u
                    if circle:
                        at -= turn * np.floor(at / turn)
                    y = min(max(int(np.floor(y0 * (1 - u) + y1 * u)) - top, -1), height) + 1
                    x = min(max(int(np.floor(at)) - left, -1), width) + 1
                    if step > 1:
                        first = (y, x) if i == j == 0 else first
                        same = same and (y, x) == first
                    else:
                        total[y, x] = share if np.isnan(total[y, x]) else total[y, x] + share
            if same:
                y, x = first
                total[y, x] = people[r, c] + (0.0 if np.isnan(total[y, x]) else total[y, x])
                break
    return total[1:-1, 1:-1].copy()
