"""Things painted onto the ground of the drawn world: their shadows, then their roofs.

A pixel is in the shadow of a thing if the ray towards the sun meets the box that the thing fills;
the faces of a roof are as bright as they lie to the sun.
"""

from math import atan2, ceil, cos, floor, sin, sqrt
from typing import NamedTuple

import numba
import numpy as np

from popdask.synthetic._materials import Material
from popdask.synthetic._noise import noise
from popdask.synthetic._things import Form

_PATCH, _FLAT, _GABLE = int(Form.PATCH), int(Form.FLAT), int(Form.GABLE)
_HIP, _ARC, _ROCK = int(Form.HIP), int(Form.ARC), int(Form.ROCK)
_METAL, _CEMENT = int(Material.METAL), int(Material.CEMENT)
_PITCH = 0.75  # tangent of the slope of a roof


class Canvas(NamedTuple):
    """What is painted on; rows are counted southward from northing 0, columns from easting 0."""

    material: np.ndarray
    """(row, column) uint8."""
    shade: np.ndarray
    """(row, column) float32: brightness in full light, relative to the material's."""
    dark: np.ndarray
    """(row, column) bool: in the shadow."""
    top: int
    """The row of the first pixel in the country."""
    left: int
    """The column of the first pixel in the country."""
    step: float
    """Side of a pixel in metres."""


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
    """Tell whether the segment from (u, v) by (du, dv) meets the box |u| < a, |v| < b."""
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
        if thing.form == _PATCH:
            continue
        height = thing.height * (0.7 if thing.form == _ROCK else 1.0)
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
    """Tell whether a thing lies over a point of its frame; rocks are rounded and crooked."""
    a, b = 0.5 * thing.length, 0.5 * thing.width
    if thing.form != _ROCK:
        return abs(u) < a and abs(v) < b
    turn = 1.3 * atan2(v / b, u / a)
    crooked = noise(4.0 * cos(turn) + thing.x, 4.0 * sin(turn) + thing.y, 2.0, salt)
    return sqrt((u / a) ** 4 + (v / b) ** 4) < 0.75 + 0.5 * crooked


@numba.njit(cache=True, nogil=True)
def _slope(thing: np.record, u: float, v: float, x: float, y: float, salt: int) -> tuple:
    """The fall of a thing's surface at a point, along and across its frame."""
    a, b = 0.5 * thing.length, 0.5 * thing.width
    if thing.form == _GABLE or (thing.form == _HIP and b - abs(v) < a - abs(u)):
        return 0.0, _PITCH if v > 0 else -_PITCH
    if thing.form == _HIP:
        return _PITCH if u > 0 else -_PITCH, 0.0
    if thing.form == _ARC:
        return 0.0, 1.3 * v / b
    if thing.form == _ROCK:
        along = 1.6 * (noise(x, y, 3.5, salt) - 0.5) + 0.45 * u / a
        return along, 1.6 * (noise(x, y, 3.5, salt + 1) - 0.5) + 0.45 * v / b
    return 0.0, 0.0


@numba.njit(cache=True, nogil=True)
def _texture(thing: np.record, u: float, v: float, x: float, y: float, salt: int) -> float:
    """Relative brightness of a surface: weather, seams, rims and what stands on flat roofs."""
    grain = 0.12 * (noise(x, y, 1.2, salt) - 0.5) + 0.14 * (noise(x, y, 4.0, salt + 1) - 0.5)
    if thing.form == _FLAT:
        rim = min(0.5 * thing.length - abs(u), 0.5 * thing.width - abs(v)) < 0.5
        vents = thing.height > 3.0 and noise(x, y, 3.0, salt + 2) > 0.87
        return 1.0 + grain + (0.2 if rim else 0.0) - (0.3 if vents else 0.0)
    if thing.form == _ARC:
        panes = 0.25 * (noise(u, v, 3.0, salt + 3) - 0.5)
        return 1.0 + grain + panes + (0.25 if u % 4.0 < 0.6 else 0.0)
    if thing.form == _ROCK:
        return 0.9 + 3.0 * grain
    if thing.form != _PATCH and (thing.material == _METAL or thing.material == _CEMENT):
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
                if thing.form != _PATCH:
                    along, across = _slope(thing, u, v, x, y, salt + 5)
                    facing = (along * du + across * dv + 1.0) / sqrt(along**2 + across**2 + 1.0)
                    tone *= 0.3 + 0.7 * max(0.0, facing)
                    tone *= 1.1 if thing.form == _GABLE and abs(v) < 0.3 else 1.0
                    canvas.dark[row, col] = facing < 0.1
                canvas.material[row, col], canvas.shade[row, col] = thing.material, tone
