"""What stands alone in the country: farms and houses, and what only looks like a home."""

from math import pi
from typing import Any

import numpy as np

from popdask.synthetic._homes import car_park, families, houses, roofs
from popdask.synthetic._materials import Material
from popdask.synthetic._things import Form, Layer, make


def farm(rng: np.random.Generator) -> list[np.ndarray]:
    """A farmhouse with a garden, at a yard with one to three barns."""
    sizes = rng.uniform(30, 44), rng.uniform(24, 34)
    stones = {"material": Material.GRAVEL, "shade": rng.uniform(0.7, 1.05)}
    lawn = {"material": Material.LAWN, "shade": rng.uniform(0.8, 1.1)}
    length, width = rng.uniform(15, 23), rng.uniform(8, 9.5)
    roof = {name: value[0] for name, value in roofs(rng, 1).items()} | {"form": Form.GABLE}
    if rng.random() < 0.2:
        roof["material"] = Material.THATCH
    elif roof["material"] == Material.TAR:
        roof["material"] = Material.RED_TILE
    people = families(rng, np.array([1.3 + 0.009 * length * width]), 1.0)
    spots = np.array([(0, 20, 0), (24, 2, pi / 2), (-24, 2, pi / 2)])
    spots = spots[rng.permutation(3)[: rng.integers(1, 4)]]
    count = len(spots)
    x, y, angle = spots.T
    return [
        make(0, -26, 44, 34, layer=Layer.GARDEN, **lawn),
        make(0, 0, *sizes, layer=Layer.PAVING, **stones),
        make(0, -17, length, width, layer=Layer.MAIN, home=3, **roof, **people),
        _barns(rng, x, y, rng.uniform(16, 36, count), rng.uniform(9, 13, count), angle=angle),
    ]


def house(rng: np.random.Generator) -> list[np.ndarray]:
    """A house in a garden within hedges."""
    side = rng.uniform(34, 46)
    ends = np.array([-side / 2, side / 2])
    hedge = {"material": Material.HEDGE, "layer": Layer.PAVING}
    return [
        make(0, 0, side, side, material=Material.LAWN, shade=rng.uniform(0.85, 1.1)),
        make(0, ends, side, 2.5, **hedge),
        make(ends, 0, 2.5, side, **hedge),
        *houses(rng, np.zeros(1), np.zeros(1), 1.0),
    ]


def barn(rng: np.random.Generator) -> list[np.ndarray]:
    """A barn on a yard, some of them no larger than a house."""
    if rng.random() < 0.3:
        length, width = rng.uniform(11, 17), rng.uniform(7, 9.5)
    else:
        length, width = rng.uniform(20, 45), rng.uniform(10, 15)
    ground = {
        "material": Material.LAWN if rng.random() < 0.15 else Material.GRAVEL,
        "shade": rng.uniform(0.7, 1.1),
        "layer": Layer.GARDEN,
    }
    yard = make(0, width, length + 6, 14 + width, **ground)
    return [yard, _barns(rng, np.zeros(1), 0, length, width, angle=rng.normal(0, 0.03))]


def greenhouses(rng: np.random.Generator) -> list[np.ndarray]:
    """A row of greenhouses, some as short as houses."""
    count, length, width = rng.integers(4, 10), rng.uniform(14, 60), rng.uniform(6, 9)
    x = (np.arange(count) - (count - 1) / 2) * (width + rng.uniform(0.3, 5))
    ground = {"material": Material.GRAVEL, "shade": 0.9, "layer": Layer.GARDEN}
    glass = {"form": Form.ARC, "material": Material.GLASS, "height": 3.5, "layer": Layer.MAIN}
    shade = rng.uniform(0.75, 1.2, count)
    return [
        make(0, 0, np.ptp(x) + 20, length + 12, **ground),
        make(x, 0, length, width, angle=pi / 2, shade=shade, **glass),
    ]


def rocks(rng: np.random.Generator) -> list[np.ndarray]:
    """Boulders of the size of houses on rough grass."""
    count = rng.integers(1, 7)
    x, y = rng.uniform(-38, 38, (2, count))
    size = rng.uniform(7, 17, count)
    stone = {
        "angle": rng.uniform(0, pi, count),
        "height": rng.uniform(2, 5, count),
        "shade": rng.uniform(0.7, 1.25, count),
        "form": Form.ROCK,
        "material": Material.ROCK,
        "layer": Layer.MAIN,
    }
    return [
        make(0, 0, 90, 90, material=Material.MEADOW, shade=0.9, layer=Layer.GARDEN),
        make(x, y, size, size * rng.uniform(0.5, 0.9, count), **stone),
    ]


def parking(rng: np.random.Generator) -> list[np.ndarray]:
    """A car park in the open country."""
    return car_park(rng, 0, 0, rng.uniform(30, 80), rng.uniform(22, 50))


def _barns(
    rng: np.random.Generator, x: Any, y: Any, length: Any, width: Any, **place: Any
) -> np.ndarray:
    count = len(x)
    roof = [Material.METAL, Material.CEMENT, Material.DARK_TILE, Material.RED_TILE]
    look = {
        "height": rng.uniform(4.5, 8, count),
        "material": rng.choice(roof, count, p=[0.35, 0.35, 0.2, 0.1]),
        "shade": rng.uniform(0.7, 1.2, count),
    }
    return make(x, y, length, width, form=Form.GABLE, layer=Layer.MAIN, **look, **place)


SHARES = (
    (farm, 0.22),
    (house, 0.31),
    (barn, 0.13),
    (greenhouses, 0.04),
    (rocks, 0.09),
    (parking, 0.04),
    (None, 0.17),
)
"""What is built at a lone site, if the ground allows it, and how often."""
