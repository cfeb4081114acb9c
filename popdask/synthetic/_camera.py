"""The camera over the drawn world: light, haze, the blur of the lens, the grain of the sensor."""

import numba
import numpy as np

from popdask.synthetic._noise import noise, normal
from popdask.synthetic._painter import Canvas, point

BLUR = 1  # pixels around a picture that the lens mixes in
_SHADOW = 0.42  # light of the sky alone, relative to full light
_HAZE = 10.0  # of 255
_GRAIN = 5.0  # standard deviation, of 255


@numba.njit(cache=True, nogil=True)
def develop(canvas: Canvas, colours: np.ndarray, salt: int) -> np.ndarray:
    """Give the light (band, row, column) float32 of a canvas in colours (material, band)."""
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
    """Blur a film by 1-2-1 and add its grain: (band, row − 2, column − 2) float32.

    `top` and `left` are the row and the column in the country of the film's first pixel.
    """
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
