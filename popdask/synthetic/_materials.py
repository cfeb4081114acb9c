"""What a drawn country is made of: materials, noise, things.

What the drawn world is made of, and the light that each material sends back.

Chance by place: numbers that depend on a lattice point and a salt alone.

A picture drawn from them has no order of drawing: any window of it comes out the same.

The table of things that stand on the drawn ground, and how it is filled.
"""

from collections.abc import Sequence
from enum import IntEnum
from math import floor, sqrt
from typing import Any

import numba
import numpy as np


class Material(IntEnum):
    """The surfaces of the drawn world."""

    CROP = 0
    STUBBLE = 1
    SOIL = 2
    MEADOW = 3
    FOREST = 4
    HEDGE = 5
    WATER = 6
    REED = 7
    ASPHALT = 8
    GRAVEL = 9
    LAWN = 10
    CROWN = 11
    RED_TILE = 12
    DARK_TILE = 13
    CEMENT = 14
    METAL = 15
    THATCH = 16
    TAR = 17
    GLASS = 18
    ROCK = 19
    PAINT = 20


COLOURS = np.array(
    [
        (84, 106, 62, 190),
        (172, 156, 116, 165),
        (128, 110, 92, 135),
        (104, 118, 76, 180),
        (46, 54, 42, 90),
        (64, 80, 52, 150),
        (40, 54, 60, 14),
        (98, 98, 68, 120),
        (112, 112, 114, 104),
        (160, 152, 140, 150),
        (96, 120, 72, 200),
        (66, 86, 54, 175),
        (150, 92, 72, 142),
        (82, 80, 84, 86),
        (146, 144, 142, 140),
        (164, 168, 172, 166),
        (124, 110, 92, 128),
        (100, 98, 98, 94),
        (150, 168, 170, 130),
        (138, 134, 126, 140),
        (150, 150, 156, 140),
    ],
    np.float32,
)
"""(material, band): red, green, blue and near infrared in full light, on the scale of 8 bits."""


def palette(bands: int) -> np.ndarray:
    """Return the brightness (material, band) of 1 band (grey), 3 (colour) or 4 (with infrared)."""
    if bands == 1:
        return (COLOURS[:, :3] @ np.array([0.299, 0.587, 0.114], np.float32))[:, None]
    return COLOURS[:, :bands].copy()


@numba.njit(cache=True, nogil=True)
def scramble(i: int, j: int, salt: int) -> np.uint64:
    """64 random bits of a lattice point: a product of primes, finished as in splitmix64."""
    bits = np.uint64(i) * np.uint64(0x9E3779B97F4A7C15)
    bits ^= np.uint64(j) * np.uint64(0xC2B2AE3D27D4EB4F)
    bits ^= np.uint64(salt) * np.uint64(0x165667B19E3779F9)
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return bits ^ (bits >> np.uint64(31))


@numba.njit(cache=True, nogil=True)
def uniform(i: int, j: int, salt: int) -> float:
    """Draw a number in [0, 1) for a lattice point."""
    return float(scramble(i, j, salt) >> np.uint64(11)) * 2.0**-53


@numba.njit(cache=True, nogil=True)
def normal(i: int, j: int, salt: int) -> float:
    """Draw a nearly normal number of unit variance: the sum of four of 16 bits each."""
    bits, total = scramble(i, j, salt), 0.0
    for _ in range(4):
        total += float(bits & np.uint64(0xFFFF))
        bits >>= np.uint64(16)
    return (total / 65536.0 - 2.0) * 1.7320508


@numba.njit(cache=True, nogil=True)
def noise(x: float, y: float, spacing: float, salt: int) -> float:
    """Value noise in [0, 1) at a point in metres, smooth between lattice points `spacing` apart."""
    i, j = floor(x / spacing), floor(y / spacing)
    s, t = x / spacing - i, y / spacing - j
    s, t = s * s * (3.0 - 2.0 * s), t * t * (3.0 - 2.0 * t)
    low = uniform(i, j, salt) * (1.0 - s) + uniform(i + 1, j, salt) * s
    high = uniform(i, j + 1, salt) * (1.0 - s) + uniform(i + 1, j + 1, salt) * s
    return low * (1.0 - t) + high * t


@numba.njit(cache=True, nogil=True)
def parcel(x: float, y: float, spacing: float, salt: int) -> tuple:
    """Find the parcel of a point: the Voronoi cell of a jittered lattice."""
    # Returns its lattice point (i, j), its site (x, y), the distance to its border in metres, and
    # a number in [0, 1) that both sides of that border share.
    column, row = floor(x / spacing), floor(y / spacing)
    first = second = np.inf
    i1 = j1 = i2 = j2 = column
    x1 = y1 = x2 = y2 = 0.0
    for i in range(column - 1, column + 2):
        for j in range(row - 1, row + 2):
            bits = scramble(i, j, salt)
            sx = (i + 0.15 + 0.7 * float(bits & np.uint64(0xFFFFFFFF)) * 2.0**-32) * spacing
            sy = (j + 0.15 + 0.7 * float(bits >> np.uint64(32)) * 2.0**-32) * spacing
            away = (sx - x) ** 2 + (sy - y) ** 2
            if away < first:
                second, i2, j2, x2, y2 = first, i1, j1, x1, y1
                first, i1, j1, x1, y1 = away, i, j, sx, sy
            elif away < second:
                second, i2, j2, x2, y2 = away, i, j, sx, sy
    border = 0.5 * (second - first) / sqrt((x2 - x1) ** 2 + (y2 - y1) ** 2)
    return i1, j1, x1, y1, border, uniform(i1 + i2, j1 + j2, salt + 1)


class Form(IntEnum):
    """The forms of things; a patch lies flat on the ground and casts no shadow."""

    PATCH = 0
    FLAT = 1
    GABLE = 2
    HIP = 3
    ARC = 4
    ROCK = 5


class Layer(IntEnum):
    """What is painted over what."""

    BLOCK = 0
    GARDEN = 1
    PAVING = 2
    SMALL = 3
    MAIN = 4


HOMES = ("detached", "row", "flats", "farm")
"""The kinds of homes, by their number in the column `home`."""

ALWAYS = 10_000  # years
THING = np.dtype(
    [
        ("x", "f8"),
        ("y", "f8"),
        ("angle", "f8"),
        ("length", "f8"),
        ("width", "f8"),
        ("height", "f8"),
        ("form", "i8"),
        ("material", "i8"),
        ("shade", "f8"),
        ("layer", "i8"),
        ("born", "i8"),
        ("gone", "i8"),
        ("home", "i8"),
        ("people", "i8"),
        ("expected", "f8"),
    ]
)
"""Rectangles, the length along `angle`, in metres and radians; `home` is −1 without people."""


def make(x: Any, y: Any, length: Any, width: Any, **columns: Any) -> np.ndarray:
    """Make a table of things from columns, of which numbers stand for all things."""
    columns = {"x": x, "y": y, "length": length, "width": width, **columns}
    table = np.zeros(np.broadcast_shapes((1,), *map(np.shape, columns.values())), THING)
    table["shade"], table["home"] = 1.0, -1
    table["born"], table["gone"] = -ALWAYS, ALWAYS
    for name, column in columns.items():
        table[name] = column
    return table


def join(tables: Sequence[np.ndarray]) -> np.ndarray:
    """Join tables, of which there may be none."""
    return np.concatenate([np.empty(0, THING), *tables])


def settle(tables: Sequence[np.ndarray], x: float, y: float, angle: float) -> np.ndarray:
    """Join tables drawn around the origin, turn them and move them to their place."""
    table = join(tables)
    table["x"], table["y"] = turned(table["x"], table["y"], x, y, angle)
    table["angle"] += angle
    return table


def turned(u: Any, v: Any, x: float, y: float, angle: float) -> tuple[Any, Any]:
    """Turn points around the origin and move them to (x, y)."""
    c, s = np.cos(angle), np.sin(angle)
    return x + u * c - v * s, y + u * s + v * c
