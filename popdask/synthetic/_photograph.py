"""A photograph of a window of the drawn country: painted with its surroundings, then exposed."""

from math import cos, radians, sin, tan

import numpy as np

from popdask.synthetic._camera import BLUR, develop, expose
from popdask.synthetic._ground import paint_ground
from popdask.synthetic._materials import palette
from popdask.synthetic._noise import uniform
from popdask.synthetic._painter import Canvas, cast_shadows, paint_things
from popdask.synthetic._things import Form
from popdask.synthetic._trees import plant
from popdask.synthetic.settlements import salt_of, things_near

PIXEL = 0.5
"""Side in metres of the pixels in which everything is drawn."""

_MARGIN = 64  # pixels drawn around a window: what stands there may throw its shadow into it


def photograph(
    top: int, left: int, shape: tuple[int, int], *, seed: int, year: int, bands: int
) -> np.ndarray:
    """Photograph a window of a country in a year.

    Parameters
    ----------
    top, left
        The first row, counted southward from northing 0, and the first column from easting 0.
    shape
        Rows and columns.
    seed, year, bands
        The country, the year, and 1, 3 or 4 bands.

    Returns
    -------
    ndarray of float32, (band, row, column)
        The brightness, mostly within 0 to 255, not yet rounded.
    """
    rows, cols = (size + 2 * _MARGIN for size in shape)
    canvas = paint(top - _MARGIN, left - _MARGIN, (rows, cols), seed=seed, year=year)
    film = develop(canvas, palette(bands), salt_of(seed) + 50)
    inner = slice(_MARGIN - BLUR, BLUR - _MARGIN)
    salt = salt_of(seed) + 60 + 10 * year
    return expose(film[:, inner, inner], top - BLUR, left - BLUR, salt)


def paint(top: int, left: int, shape: tuple[int, int], *, seed: int, year: int) -> Canvas:
    """Paint a window of a country in a year: the ground, things in their light, trees."""
    rows, cols = shape
    canvas = Canvas(
        np.empty((rows, cols), np.uint8),
        np.empty((rows, cols), np.float32),
        np.zeros((rows, cols), bool),
        *(top, left, PIXEL),
    )
    west, north = left * PIXEL, -top * PIXEL
    things = things_near((west, north - rows * PIXEL, west + cols * PIXEL, north), year, seed)
    upright = things["form"] != Form.PATCH
    salt = salt_of(seed)
    sun = _sun(year, salt)
    paint_ground(canvas, year, salt)
    paint_things(canvas, things[~upright], sun, salt + 30)
    cast_shadows(canvas, things, sun)
    paint_things(canvas, things[upright], sun, salt + 30)
    plant(canvas, sun, salt + 40)
    return canvas


def _sun(year: int, salt: int) -> tuple[float, float]:
    """The way to the sun per metre of height, east and north, when a year's pictures are taken."""
    azimuth = radians(164 + 12 * uniform(year, 0, salt))
    away = 1 / tan(radians(44 + 3 * uniform(year, 1, salt)))
    return away * sin(azimuth), away * cos(azimuth)
