"""Homes and their people, and the small things around them.

How many live behind a roof is a mean that grows with its area, times that of the district (the old
here, young families there), and a draw; a few homes are vacant.
"""

from math import pi
from typing import Any

import numpy as np
from numpy.typing import NDArray

from popdask.synthetic._materials import Material
from popdask.synthetic._things import Form, Layer, make

_VACANT = 0.03
_CROWD = 7  # nobody's home has more
_PER_FLAT = 1.7


def families(
    rng: np.random.Generator, mean: NDArray[np.floating], district: float
) -> dict[str, np.ndarray]:
    """Draw the people of homes whose like have so many in the mean."""
    share = np.clip((mean * district - 1) / (_CROWD - 1), 0.02, 0.9)
    people = 1 + rng.binomial(_CROWD - 1, share)
    vacant = rng.random(mean.shape) < _VACANT
    return {"people": np.where(vacant, 0, people), "expected": mean * (1 - _VACANT)}


def stairwells(
    rng: np.random.Generator, flats: NDArray[np.floating], district: float
) -> dict[str, np.ndarray]:
    """Draw the people of stairwells with so many flats."""
    return {"people": rng.poisson(_PER_FLAT * district * flats), "expected": _PER_FLAT * flats}


def roofs(rng: np.random.Generator, count: int) -> dict[str, np.ndarray]:
    """Draw the roofs of houses: form, material, shade and height."""
    form = rng.choice([Form.GABLE, Form.HIP, Form.FLAT], count, p=[0.66, 0.2, 0.14])
    tiles = [Material.RED_TILE, Material.DARK_TILE, Material.CEMENT]
    pitched = rng.choice(tiles, count, p=[0.42, 0.33, 0.25])
    return {
        "form": form,
        "material": np.where(form == Form.FLAT, Material.TAR, pitched),
        "shade": rng.uniform(0.72, 1.28, count),
        "height": rng.uniform(4.0, 6.5, count),
    }


def houses(
    rng: np.random.Generator, x: np.ndarray, y: np.ndarray, district: float, **life: Any
) -> list[np.ndarray]:
    """Detached houses on plots around points, with gardens, drives, wings, sheds and cars.

    The street runs along x, beyond the plots: north of those with y > 0, south of the others.
    """
    count, side = len(x), np.where(y < 0, -1, 1)
    length, width = rng.uniform(10.5, 17.5, count), rng.uniform(7.5, 10.0, count)
    wing = np.where(rng.random(count) < 0.3, rng.uniform(4, 7, count), 0)
    angle = np.where(rng.random(count) < 0.3, pi / 2, 0.0) + rng.normal(0, 0.03, count)
    at_x, at_y = x + rng.uniform(-3, 3, count), y + side * rng.uniform(-1, 4, count)
    roof = roofs(rng, count) | life
    people = families(rng, 1.0 + 0.0115 * width * (length + 0.8 * wing), district)
    main = {"angle": angle, "layer": Layer.MAIN, "home": 0}
    house = make(at_x, at_y, length, width, **main, **roof, **people)
    c, s, out = np.cos(angle), np.sin(angle), -0.45 * (width + wing)
    part = make(
        *(at_x + 0.3 * length * c - out * s, at_y + 0.3 * length * s + out * c),
        *(0.8 * width, wing + 2),
        **roof,
        angle=angle,
        layer=Layer.SMALL,
    )
    return [*_plots(rng, x, y, side, life), part[wing > 0], house]


def _plots(
    rng: np.random.Generator, x: np.ndarray, y: np.ndarray, side: np.ndarray, life: dict[str, Any]
) -> list[np.ndarray]:
    """Gardens, drives, sheds and cars of detached houses."""
    count = len(x)
    lawn = {"material": Material.LAWN, "layer": Layer.GARDEN}
    stones = {"material": Material.GRAVEL, "layer": Layer.PAVING}
    hut = {"material": Material.TAR, "layer": Layer.SMALL, "form": Form.FLAT, "height": 2.4}
    beside = x + np.where(rng.random(count) < 0.5, 9.2, -9.2)
    shed_x, shed_y = x + rng.uniform(-8, 8, count), y - side * rng.uniform(10, 13, count)
    length, width = rng.uniform(3, 6, count), rng.uniform(2.5, 4, count)
    shed = make(shed_x, shed_y, length, width, shade=rng.uniform(0.6, 1.4, count), **hut, **life)
    car = cars(rng, beside, y + side * 8, **life)
    return [
        make(x, y, 23, 31, shade=rng.uniform(0.8, 1.15, count), **lawn, **life),
        make(beside, y + side * 9, 3.2, 13, shade=rng.uniform(0.7, 1.1, count), **stones, **life),
        shed[rng.random(count) < 0.65],
        car[rng.random(count) < 0.5],
    ]


def cars(rng: np.random.Generator, x: np.ndarray, y: np.ndarray, **life: Any) -> np.ndarray:
    """Cars across the street."""
    paint = {"material": Material.PAINT, "shade": rng.choice([0.25, 0.5, 0.8, 1.2, 1.45], len(x))}
    body = {"angle": pi / 2, "height": 1.4, "form": Form.FLAT, "layer": Layer.SMALL}
    return make(x, y, 4.4, 1.9, **body, **paint, **life)


def car_park(
    rng: np.random.Generator, x: float, y: float, length: float, width: float, **life: Any
) -> list[np.ndarray]:
    """Asphalt with rows of cars."""
    ground = {"material": Material.ASPHALT, "layer": Layer.PAVING}
    paved = make(x, y, length, width, shade=rng.uniform(0.75, 1.1), **ground, **life)
    u, v = np.meshgrid(np.arange(3, length - 2, 2.7), np.arange(4, width - 2, 8.5))
    taken = rng.random(u.shape) < rng.uniform(0.3, 0.9)
    parked = cars(rng, x - length / 2 + u[taken], y - width / 2 + v[taken], **life)
    return [paved, parked]
