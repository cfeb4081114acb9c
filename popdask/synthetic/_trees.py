"""Trees of the drawn world: they stand where the painted ground lets them, and shade it.

One lattice holds all trees that could be; the material under each says how likely it is.
"""

from math import ceil, floor, sqrt

import numba
import numpy as np

from popdask.synthetic._materials import Material
from popdask.synthetic._noise import noise, uniform
from popdask.synthetic._painter import Canvas, frame, point

_SPACING = 6.0  # metres
_FALL = 1.6  # radii from the ground to the middle of the crown
_CHANCES, _SIZES = np.zeros(len(Material)), np.full(len(Material), 0.75)
_CHANCES[[Material.FOREST, Material.HEDGE, Material.LAWN]] = 0.93, 0.75, 0.13
_CHANCES[[Material.MEADOW, Material.REED, Material.GRAVEL]] = 0.015, 0.15, 0.02
_SIZES[Material.FOREST] = 1.2


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
def _paint(
    canvas: Canvas, trees: np.ndarray, sun: tuple, salt: int, crown: int, shadows: bool
) -> None:
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
                    canvas.material[row, col] = crown
                    canvas.shade[row, col] = tone * (0.6 + 0.35 * facing + leaves)


def plant(canvas: Canvas, sun: tuple[float, float], salt: int) -> None:
    """Let trees grow on a painted canvas."""
    trees = np.array(_standing(canvas, salt, _CHANCES, _SIZES))
    if len(trees):
        for shadows in (True, False):
            _paint(canvas, trees, sun, salt + 5, int(Material.CROWN), shadows)
