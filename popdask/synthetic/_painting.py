"""How a drawn country is painted: ground, trees, light and camera.

Fields and roads are the cells and the borders of jittered lattices, bent a little by smooth noise;
lakes are the low ground of a noise, woods the fields where another is high. A pixel is in the
shadow of a thing if the ray towards the sun meets the box that the thing fills; the faces of a roof
are as bright as they lie to the sun. One lattice holds all trees that could be; the material under
each says how likely it is. The camera adds haze, the blur of its lens and the grain of its sensor.
"""

from math import atan2, ceil, cos, floor, pi, sin, sqrt
from typing import NamedTuple

import numba
import numpy as np

from popdask.synthetic._buildings import Form, Material, noise, normal, parcel, uniform

_PITCH = 0.75  # tangent of the slope of a roof
SHORE = 0.235
"""The height of the lakes, on the scale of :func:`survey`."""
_FIELD, _ROAD = 230.0, 1050.0  # metres between the sites
_FORESTED = 0.74
_LAKE_SALT, _ROAD_SALT, _FIELD_SALT, _WOOD_SALT, _BEND_SALT, _CROP_SALT = 1, 4, 6, 8, 9, 12
_SPACING = 6.0  # metres
_FALL = 1.6  # radii from the ground to the middle of the crown
_CHANCES, _SIZES = np.zeros(len(Material)), np.full(len(Material), 0.75)
_CHANCES[[Material.FOREST, Material.HEDGE, Material.LAWN]] = 0.93, 0.75, 0.13
_CHANCES[[Material.MEADOW, Material.REED, Material.GRAVEL]] = 0.015, 0.15, 0.02
_SIZES[Material.FOREST] = 1.2
BLUR = 1  # pixels around a picture that the lens mixes in
_SHADOW = 0.42  # light of the sky alone, relative to full light
_HAZE = 10.0  # of 255
_GRAIN = 5.0  # standard deviation, of 255


class Canvas(NamedTuple):
    """What is painted on; rows are counted southward from northing 0, columns from easting 0."""

    material: np.ndarray  # (row, column) uint8
    shade: np.ndarray  # (row, column) float32: brightness in full light, relative to the material's
    dark: np.ndarray  # (row, column) bool: in the shadow
    top: int  # the row of the first pixel in the country
    left: int  # the column of the first pixel in the country
    step: float  # side of a pixel in metres


@numba.njit(cache=True, nogil=True)
def frame(canvas: Canvas, x: float, y: float, reach: float) -> tuple:
    """Rows and columns of a canvas within reach of a point: (first, end, first, end)."""
    rows, cols = canvas.dark.shape
    return (
        max(0, floor((-y - reach) / canvas.step) - canvas.top),
        min(rows, ceil((-y + reach) / canvas.step) - canvas.top),
        max(0, floor((x - reach) / canvas.step) - canvas.left),
        min(cols, ceil((x + reach) / canvas.step) - canvas.left),
    )


@numba.njit(cache=True, nogil=True)
def point(canvas: Canvas, row: int, col: int) -> tuple:
    """The middle of a pixel, (x, y) in metres."""
    x = (canvas.left + col + 0.5) * canvas.step
    return x, -(canvas.top + row + 0.5) * canvas.step


@numba.njit(cache=True, nogil=True)
def _meets(u: float, v: float, du: float, dv: float, a: float, b: float) -> bool:
    """Return whether the segment from (u, v) by (du, dv) meets the box |u| < a, |v| < b."""
    enter, leave = 0.0, 1.0
    for at, move, half in ((u, du, a), (v, dv, b)):
        if abs(move) < 1e-9:
            if abs(at) >= half:
                return False
            continue
        one, other = (-half - at) / move, (half - at) / move
        enter, leave = max(enter, min(one, other)), min(leave, max(one, other))
    return enter < leave


@numba.njit(cache=True, nogil=True)
def cast_shadows(canvas: Canvas, things: np.ndarray, sun: tuple) -> None:
    """Darken what things keep the sun from; `sun` is the way to it per metre of height (x, y)."""
    for thing in things:
        if thing.form == Form.PATCH:
            continue
        height = thing.height * (0.7 if thing.form == Form.ROCK else 1.0)
        a, b = 0.5 * thing.length, 0.5 * thing.width
        reach = sqrt(a**2 + b**2) + height * sqrt(sun[0] ** 2 + sun[1] ** 2) + 1.0
        first, end, left, right = frame(canvas, thing.x, thing.y, reach)
        c, s = cos(thing.angle), sin(thing.angle)
        du, dv = height * (sun[0] * c + sun[1] * s), height * (sun[1] * c - sun[0] * s)
        for row in range(first, end):
            for col in range(left, right):
                x, y = point(canvas, row, col)
                x, y = x - thing.x, y - thing.y
                if _meets(x * c + y * s, y * c - x * s, du, dv, a, b):
                    canvas.dark[row, col] = True


@numba.njit(cache=True, nogil=True)
def _covers(thing: np.record, u: float, v: float, salt: int) -> bool:
    """Return whether a thing lies over a point of its frame; rocks are rounded and crooked."""
    a, b = 0.5 * thing.length, 0.5 * thing.width
    if thing.form != Form.ROCK:
        return abs(u) < a and abs(v) < b
    turn = 1.3 * atan2(v / b, u / a)
    crooked = noise(4.0 * cos(turn) + thing.x, 4.0 * sin(turn) + thing.y, 2.0, salt)
    return sqrt((u / a) ** 4 + (v / b) ** 4) < 0.75 + 0.5 * crooked


@numba.njit(cache=True, nogil=True)
def _slope(thing: np.record, u: float, v: float, x: float, y: float, salt: int) -> tuple:
    """The fall of a thing's surface at a point, along and across its frame."""
    a, b = 0.5 * thing.length, 0.5 * thing.width
    if thing.form == Form.GABLE or (thing.form == Form.HIP and b - abs(v) < a - abs(u)):
        return 0.0, _PITCH if v > 0 else -_PITCH
    if thing.form == Form.HIP:
        return _PITCH if u > 0 else -_PITCH, 0.0
    if thing.form == Form.ARC:
        return 0.0, 1.3 * v / b
    if thing.form == Form.ROCK:
        along = 1.6 * (noise(x, y, 3.5, salt) - 0.5) + 0.45 * u / a
        return along, 1.6 * (noise(x, y, 3.5, salt + 1) - 0.5) + 0.45 * v / b
    return 0.0, 0.0


@numba.njit(cache=True, nogil=True)
def _texture(thing: np.record, u: float, v: float, x: float, y: float, salt: int) -> float:
    """Relative brightness of a surface: weather, seams, rims and what stands on flat roofs."""
    grain = 0.12 * (noise(x, y, 1.2, salt) - 0.5) + 0.14 * (noise(x, y, 4.0, salt + 1) - 0.5)
    if thing.form == Form.FLAT:
        rim = min(0.5 * thing.length - abs(u), 0.5 * thing.width - abs(v)) < 0.5
        vents = thing.height > 3.0 and noise(x, y, 3.0, salt + 2) > 0.87
        return 1.0 + grain + (0.2 if rim else 0.0) - (0.3 if vents else 0.0)
    if thing.form == Form.ARC:
        panes = 0.25 * (noise(u, v, 3.0, salt + 3) - 0.5)
        return 1.0 + grain + panes + (0.25 if u % 4.0 < 0.6 else 0.0)
    if thing.form == Form.ROCK:
        return 0.9 + 3.0 * grain
    if thing.form != Form.PATCH and thing.material in (Material.METAL, Material.CEMENT):
        return 1.0 + grain + (0.05 if u % 2.0 < 1.0 else -0.05)
    return 1.0 + grain


@numba.njit(cache=True, nogil=True)
def paint_things(canvas: Canvas, things: np.ndarray, sun: tuple, salt: int) -> None:
    """Paint things in their order."""
    for thing in things:
        reach = 0.5 * sqrt(thing.length**2 + thing.width**2) + 1.0
        first, end, left, right = frame(canvas, thing.x, thing.y, reach)
        c, s = cos(thing.angle), sin(thing.angle)
        du, dv = sun[0] * c + sun[1] * s, sun[1] * c - sun[0] * s
        for row in range(first, end):
            for col in range(left, right):
                x, y = point(canvas, row, col)
                u = (x - thing.x) * c + (y - thing.y) * s
                v = (y - thing.y) * c - (x - thing.x) * s
                if not _covers(thing, u, v, salt):
                    continue
                tone, facing = thing.shade * _texture(thing, u, v, x, y, salt), 1.0
                if thing.form != Form.PATCH:
                    along, across = _slope(thing, u, v, x, y, salt + 5)
                    facing = (along * du + across * dv + 1.0) / sqrt(along**2 + across**2 + 1.0)
                    tone *= 0.3 + 0.7 * max(0.0, facing)
                    tone *= 1.1 if thing.form == Form.GABLE and abs(v) < 0.3 else 1.0
                    canvas.dark[row, col] = facing < 0.1
                canvas.material[row, col], canvas.shade[row, col] = thing.material, tone


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
        return Material.MEADOW, 0.85 + 0.3 * tone + 0.3 * (noise(x, y, 14.0, salt + 3) - 0.5)
    turn = pi * uniform(i, j, salt + 4)
    across = x * cos(turn) + y * sin(turn)
    rows = 0.03 * sin(across * (1.4 + tone))
    wheels = across % (14.0 + 8.0 * tone)
    if wheels < 0.8 or 2.2 < wheels < 3.0:
        rows -= 0.09
    patches = 0.22 * (noise(x, y, 45.0, salt + 5) - 0.5)
    material = (
        Material.CROP if chance < 0.5 else Material.STUBBLE if chance < 0.8 else Material.SOIL
    )
    return material, 0.8 + 0.4 * tone + rows + patches


@numba.njit(cache=True, nogil=True)
def _land(x: float, y: float, year: int, salt: int) -> tuple:
    """Material and shade of the open country at a point."""
    height = _height(x, y, salt)
    if height < SHORE:
        return Material.WATER, 0.9 + 0.25 * noise(x, y, 60.0, salt + 20)
    if height < SHORE + 0.008:
        return Material.REED, 1.0
    bx, by = _bend(x, y, salt)
    _, _, _, _, road, rank = parcel(bx, by, _ROAD, salt + _ROAD_SALT)
    if rank < 0.6 and road < 3.2:
        return Material.ASPHALT, 1.0 if road > 0.12 else 1.35
    if rank >= 0.6 and road < 1.8:
        return Material.GRAVEL, 0.95
    if road < 5.5:
        return Material.MEADOW, 0.95
    i, j, sx, sy, border, rank = parcel(bx, by, _FIELD, salt + _FIELD_SALT)
    if _is_forest(sx, sy, salt):
        return Material.FOREST, 1.0
    if border < 2.5 and rank < 0.45:
        return Material.HEDGE, 1.0
    if border < 1.5:
        return Material.MEADOW, 0.85
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
            rough = 0.04 if what in (Material.WATER, Material.ASPHALT) else 0.16
            canvas.material[row, col], canvas.shade[row, col] = what, tone * (1.0 + rough * fine)


@numba.njit(cache=True, nogil=True)
def _standing(canvas: Canvas, salt: int, chances: np.ndarray, sizes: np.ndarray) -> list:
    """The trees of a canvas, (x, y, radius, shade) each."""
    trees = []
    rows, cols = canvas.material.shape
    south, west = -(canvas.top + rows) * canvas.step, canvas.left * canvas.step
    north, east = -canvas.top * canvas.step, (canvas.left + cols) * canvas.step
    for j in range(floor(south / _SPACING), ceil(north / _SPACING)):
        for i in range(floor(west / _SPACING), ceil(east / _SPACING)):
            x = (i + uniform(i, j, salt)) * _SPACING
            y = (j + uniform(i, j, salt + 1)) * _SPACING
            row = floor(-y / canvas.step) - canvas.top
            col = floor(x / canvas.step) - canvas.left
            if not (0 <= row < rows and 0 <= col < cols):
                continue
            ground = canvas.material[row, col]
            if uniform(i, j, salt + 2) < chances[ground]:
                radius = sizes[ground] * (1.6 + 2.6 * uniform(i, j, salt + 3))
                trees.append((x, y, radius, 0.75 + 0.5 * uniform(i, j, salt + 4)))
    return trees


@numba.njit(cache=True, nogil=True)
def _paint(canvas: Canvas, trees: np.ndarray, sun: tuple, salt: int, shadows: bool) -> None:
    """Paint the shadows of trees (n, 4), or their crowns."""
    fall = _FALL if shadows else 0.0
    for i in range(len(trees)):
        x, y, radius, tone = trees[i, 0], trees[i, 1], trees[i, 2], trees[i, 3]
        middle = (x - sun[0] * fall * radius, y - sun[1] * fall * radius)
        first, end, left, right = frame(canvas, middle[0], middle[1], 1.2 * radius)
        for row in range(first, end):
            for col in range(left, right):
                px, py = point(canvas, row, col)
                away = ((px - middle[0]) ** 2 + (py - middle[1]) ** 2) / radius**2
                away += 0.7 * (noise(px, py, 1.5, salt) - 0.5)
                if away >= 1.0:
                    continue
                canvas.dark[row, col] = shadows
                if not shadows:
                    facing = ((px - x) * sun[0] + (py - y) * sun[1]) / radius
                    facing += sqrt(max(0.05, 1.0 - away))
                    leaves = 0.5 * (noise(px, py, 1.0, salt + 1) - 0.5)
                    canvas.material[row, col] = Material.CROWN
                    canvas.shade[row, col] = tone * (0.6 + 0.35 * facing + leaves)


def plant(canvas: Canvas, sun: tuple[float, float], salt: int) -> None:
    """Let trees grow on a painted canvas."""
    trees = np.array(_standing(canvas, salt, _CHANCES, _SIZES))
    if len(trees):
        for shadows in (True, False):
            _paint(canvas, trees, sun, salt + 5, shadows)


@numba.njit(cache=True, nogil=True)
def develop(canvas: Canvas, colours: np.ndarray, salt: int) -> np.ndarray:
    """Return the light (band, row, column) float32 of a canvas in colours (material, band)."""
    rows, cols = canvas.dark.shape
    film = np.empty((colours.shape[1], rows, cols), np.float32)
    for row in range(rows):
        for col in range(cols):
            x, y = point(canvas, row, col)
            light = _SHADOW if canvas.dark[row, col] else 1.0
            light *= canvas.shade[row, col] * (0.86 + 0.28 * noise(x, y, 1500.0, salt))
            for band in range(colours.shape[1]):
                film[band, row, col] = _HAZE + light * colours[canvas.material[row, col], band]
    return film


@numba.njit(cache=True, nogil=True)
def expose(film: np.ndarray, top: int, left: int, salt: int) -> np.ndarray:
    """Blur a film by 1-2-1 and add its grain: (band, row − 2, column − 2) float32."""
    # `top` and `left` are the row and the column in the country of the film's first pixel.
    bands, rows, cols = film.shape
    picture = np.empty((bands, rows - 2 * BLUR, cols - 2 * BLUR), np.float32)
    for band in range(bands):
        for row in range(BLUR, rows - BLUR):
            for col in range(BLUR, cols - BLUR):
                total = 0.0
                for down in range(-1, 2):
                    for right in range(-1, 2):
                        weight = (2 - abs(down)) * (2 - abs(right))
                        total += weight * film[band, row + down, col + right]
                grain = _GRAIN * normal(top + row, left + col, salt + band)
                picture[band, row - BLUR, col - BLUR] = total / 16.0 + grain
    return picture
