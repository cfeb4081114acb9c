"""The open country of the drawn world: fields, meadows, woods, lakes, hedges and country roads.

Fields and roads are the cells and the borders of jittered lattices, bent a little by smooth noise;
lakes are the low ground of a noise, woods the fields where another is high.
"""

from math import cos, pi, sin

import numba
import numpy as np

from popdask.synthetic._materials import Material
from popdask.synthetic._noise import noise, parcel, uniform
from popdask.synthetic._painter import Canvas, point

SHORE = 0.235
"""The height of the lakes, on the scale of :func:`survey`."""

_FIELD, _ROAD = 230.0, 1050.0  # metres between the sites
_FORESTED = 0.74
_LAKE_SALT, _ROAD_SALT, _FIELD_SALT, _WOOD_SALT, _BEND_SALT, _CROP_SALT = 1, 4, 6, 8, 9, 12

_CROP, _STUBBLE, _SOIL = int(Material.CROP), int(Material.STUBBLE), int(Material.SOIL)
_MEADOW, _FOREST, _HEDGE = int(Material.MEADOW), int(Material.FOREST), int(Material.HEDGE)
_WATER, _REED = int(Material.WATER), int(Material.REED)
_ASPHALT, _GRAVEL = int(Material.ASPHALT), int(Material.GRAVEL)


@numba.njit(cache=True, nogil=True)
def _height(x: float, y: float, salt: int) -> float:
    """How high the ground lies above the deepest water, in [0, 1)."""
    coarse = 0.7 * noise(x, y, 900.0, salt + _LAKE_SALT)
    return coarse + 0.3 * noise(x, y, 260.0, salt + _LAKE_SALT + 1)


@numba.njit(cache=True, nogil=True)
def _bend(x: float, y: float, salt: int) -> tuple:
    """Move a point so that straight borders become bent ones."""
    east = noise(x, y, 320.0, salt + _BEND_SALT) - 0.5
    north = noise(x, y, 320.0, salt + _BEND_SALT + 1) - 0.5
    return x + 70.0 * east, y + 70.0 * north


@numba.njit(cache=True, nogil=True)
def _is_forest(x: float, y: float, salt: int) -> bool:
    return noise(x, y, 1100.0, salt + _WOOD_SALT) > _FORESTED


@numba.njit(cache=True, nogil=True)
def survey(x: np.ndarray, y: np.ndarray, salt: int) -> np.ndarray:
    """Height, distance to a road in metres and whether there is forest, at points: (3, points)."""
    found = np.empty((3, x.size))
    for k in range(x.size):
        bx, by = _bend(x[k], y[k], salt)
        road = parcel(bx, by, _ROAD, salt + _ROAD_SALT)
        field = parcel(bx, by, _FIELD, salt + _FIELD_SALT)
        found[0, k] = _height(x[k], y[k], salt)
        found[1, k] = road[4]
        found[2, k] = 1.0 if _is_forest(field[2], field[3], salt) else 0.0
    return found


@numba.njit(cache=True, nogil=True)
def _crop(i: int, j: int, x: float, y: float, year: int, salt: int) -> tuple:
    """What grows in field (i, j) that year, at a point: material and shade."""
    chance, tone = uniform(i, j, salt + year * 131), uniform(i, j, salt + 1 + year * 131)
    if uniform(i, j, salt + 2) < 0.2:
        return _MEADOW, 0.85 + 0.3 * tone + 0.3 * (noise(x, y, 14.0, salt + 3) - 0.5)
    turn = pi * uniform(i, j, salt + 4)
    across = x * cos(turn) + y * sin(turn)
    rows = 0.03 * sin(across * (1.4 + tone))
    wheels = across % (14.0 + 8.0 * tone)
    if wheels < 0.8 or 2.2 < wheels < 3.0:
        rows -= 0.09
    patches = 0.22 * (noise(x, y, 45.0, salt + 5) - 0.5)
    material = _CROP if chance < 0.5 else _STUBBLE if chance < 0.8 else _SOIL
    return material, 0.8 + 0.4 * tone + rows + patches


@numba.njit(cache=True, nogil=True)
def _land(x: float, y: float, year: int, salt: int) -> tuple:
    """Material and shade of the open country at a point."""
    height = _height(x, y, salt)
    if height < SHORE:
        return _WATER, 0.9 + 0.25 * noise(x, y, 60.0, salt + 20)
    if height < SHORE + 0.008:
        return _REED, 1.0
    bx, by = _bend(x, y, salt)
    _, _, _, _, road, rank = parcel(bx, by, _ROAD, salt + _ROAD_SALT)
    if rank < 0.6 and road < 3.2:
        return _ASPHALT, 1.0 if road > 0.12 else 1.35
    if rank >= 0.6 and road < 1.8:
        return _GRAVEL, 0.95
    if road < 5.5:
        return _MEADOW, 0.95
    i, j, sx, sy, border, rank = parcel(bx, by, _FIELD, salt + _FIELD_SALT)
    if _is_forest(sx, sy, salt):
        return _FOREST, 1.0
    if border < 2.5 and rank < 0.45:
        return _HEDGE, 1.0
    if border < 1.5:
        return _MEADOW, 0.85
    return _crop(i, j, x, y, year, salt + _CROP_SALT)


@numba.njit(cache=True, nogil=True)
def paint_ground(canvas: Canvas, year: int, salt: int) -> None:
    """Paint the open country of a year."""
    rows, cols = canvas.dark.shape
    for row in range(rows):
        for col in range(cols):
            x, y = point(canvas, row, col)
            what, tone = _land(x, y, year, salt)
            fine = noise(x, y, 1.6, salt + 21) + noise(x, y, 5.0, salt + 22) - 1.0
            rough = 0.04 if what in (_WATER, _ASPHALT) else 0.16
            canvas.material[row, col], canvas.shade[row, col] = what, tone * (1.0 + rough * fine)
