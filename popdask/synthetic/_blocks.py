"""What stands between two streets of a town: houses, terraces, flats, works and greens.

A block is drawn around the origin, its streets along x; `life` holds the years in which it is
there.
"""

from math import pi
from typing import Any

import numpy as np

from popdask.synthetic._homes import car_park, families, houses, roofs, stairwells
from popdask.synthetic._materials import Material
from popdask.synthetic._things import ALWAYS, Form, Layer, make

BLOCK = (150.0, 72.0)  # metres from the middle of a street to that of the next
_STREET = 7.0
_LOT = {"layer": Layer.GARDEN}
PLOTS = np.stack(np.meshgrid((np.arange(6) - 2.5) * 23.8, (-16.5, 16.5)), -1).reshape(-1, 2)


def detached(
    rng: np.random.Generator, district: float, born: np.ndarray, keep: np.ndarray
) -> list[np.ndarray]:
    """Two rows of six plots; the year of each and whether it can be built on, (12,)."""
    count = len(PLOTS)
    first = np.where(rng.random(count) < 0.05, rng.integers(1, 25, count), born)
    last = np.where(rng.random(count) < 0.03, rng.integers(1, 25, count), ALWAYS)
    keep = keep & (rng.random(count) < 0.95) & (np.maximum(born, first) < last)
    life = {"born": np.maximum(born, first)[keep], "gone": last[keep]}
    return houses(rng, PLOTS[keep, 0], PLOTS[keep, 1], district, **life)


def terraces(rng: np.random.Generator, district: float, **life: Any) -> list[np.ndarray]:
    """Two terraces of row houses with narrow gardens and a car park between them."""
    width, depth = rng.uniform(6, 8.5), rng.uniform(8, 10)
    x = (np.arange(132 // width) - (132 // width - 1) / 2) * width
    count = len(x)
    roof = {name: value[0] for name, value in roofs(rng, 1).items()}
    hut = {"height": 2.2, "form": Form.FLAT, "material": Material.TAR, "layer": Layer.SMALL}
    hedge = {"material": Material.HEDGE, "layer": Layer.PAVING}
    tables = [_lawn(rng, **life), *car_park(rng, 0, 0, 60, 8, **life)]
    for y in (-17.0, 17.0):
        back = y - np.sign(y) * np.array([14, 9])
        roof["shade"] = roof["shade"] * rng.uniform(0.93, 1.07, count)
        people = families(rng, np.full(count, 1.0 + 0.013 * width * depth), district)
        tables += [
            make(x, y, width, depth, layer=Layer.MAIN, home=1, **roof, **people, **life),
            make(x, back[0], 2, 3, **hut, **life),
            make(x + width / 2, back[1], 0.6, 9, **hedge, **life),
        ]
        roof["shade"] = roof["shade"].mean()
    return tables


def slabs(rng: np.random.Generator, district: float, **life: Any) -> list[np.ndarray]:
    """Two slabs of flats, a home per stairwell, with lawns and a car park."""
    floors, wells = rng.integers(2, 4), rng.integers(4, 8)
    x = (np.arange(wells) - (wells - 1) / 2) * 16
    roof = {"form": Form.FLAT, "material": Material.TAR, "shade": rng.uniform(0.7, 1.5)}
    if rng.random() < 0.5:
        roof = {"form": Form.GABLE, "material": Material.RED_TILE, "shade": rng.uniform(0.75, 1.2)}
    main = {"height": 3.0 * floors + 1, "layer": Layer.MAIN, "home": 2}
    tables = [_lawn(rng, **life), *car_park(rng, rng.uniform(-20, 20), -2, 70, 18, **life)]
    for y in (-22.0, 20.0):
        people = stairwells(rng, np.full(wells, 2.0 * floors), district)
        tables.append(make(x, y, 16, 12, **main, **roof, **people, **life))
    return tables


def works(rng: np.random.Generator, **life: Any) -> list[np.ndarray]:
    """Halls and a car park, where nobody lives."""
    ground = Material.GRAVEL if rng.random() < 0.4 else Material.ASPHALT
    yard = make(0, 0, 143, 65, material=ground, shade=rng.uniform(0.7, 1.0), **_LOT, **life)
    hall = {
        "length": rng.uniform(26, 44, 2),
        "width": rng.uniform(18, 44, 2),
        "form": rng.choice([Form.FLAT, Form.FLAT, Form.GABLE], 2),
        "material": rng.choice([Material.TAR, Material.METAL, Material.CEMENT], 2),
        "height": rng.uniform(5, 10, 2),
        "shade": rng.uniform(0.7, 1.25, 2),
        "layer": Layer.MAIN,
    }
    halls = make(x=(-42.0, 8.0), y=rng.uniform(-8, 8, 2), **hall, **life)
    return [yard, halls, *car_park(rng, 52, 0, 32, 52, **life)]


def green(rng: np.random.Generator, **life: Any) -> list[np.ndarray]:
    """A park, or a sports field with a hall."""
    if rng.random() < 0.5:
        return [_lawn(rng, **life)]
    grass = {"material": Material.MEADOW, "shade": rng.uniform(1.0, 1.2)}
    hall = {"form": Form.GABLE, "material": Material.CEMENT, "height": 4, "layer": Layer.MAIN}
    shade = rng.uniform(0.8, 1.2)
    return [
        make(0, 0, 105, 62, **grass, **_LOT, **life),
        make(62, rng.uniform(-15, 15), 9, 16, shade=shade, **hall, **life),
    ]


def streets(born: int, gardens: bool) -> list[np.ndarray]:
    """The streets around a block, and grass within if its gardens fill it."""
    length, width = BLOCK
    road = {"material": Material.ASPHALT, "shade": 1.02, "layer": Layer.PAVING, "born": born}
    grass = {"material": Material.LAWN, "shade": 0.95, "layer": Layer.BLOCK, "born": born}
    return [
        *([make(0, 0, length, width, **grass)] if gardens else []),
        make(0, (-width / 2, width / 2), length + _STREET, _STREET, **road),
        make(-length / 2, 0, width + _STREET, _STREET, angle=pi / 2, **road),
    ]


def _lawn(rng: np.random.Generator, **life: Any) -> np.ndarray:
    shade = rng.uniform(0.85, 1.1)
    return make(0, 0, 143, 65, material=Material.LAWN, shade=shade, **_LOT, **life)
