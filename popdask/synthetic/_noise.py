"""Chance by place: numbers that depend on a lattice point and a salt alone.

A picture drawn from them has no order of drawing: any window of it comes out the same.
"""

from math import floor, sqrt

import numba
import numpy as np


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
    """Find the parcel of a point: the Voronoi cell of a jittered lattice.

    Returns its lattice point (i, j), its site (x, y), the distance to its border in metres, and a
    number in [0, 1) that both sides of that border share.
    """
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
