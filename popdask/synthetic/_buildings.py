"""What a drawn country is built of: materials and chance, homes, farms, blocks.

Chance is by place: its numbers depend on a lattice point and a salt alone, so a picture has no
order of drawing, and any window of it comes out the same.

How many live behind a roof is a mean that grows with its area, times that of the district (the old
here, young families there), and a draw; a few homes are vacant. A block is drawn around the origin,
its streets along x; `life` holds the years in which it is there.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from math import floor, pi, sqrt
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

_VACANT = 0.03
_CROWD = 7  # nobody's home has more
_PER_FLAT = 1.7
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
BLOCK = (150.0, 72.0)  # metres from the middle of a street to that of the next
_STREET = 7.0
PLOTS = np.stack(np.meshgrid((np.arange(6) - 2.5) * 23.8, (-16.5, 16.5)), -1).reshape(-1, 2)


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
    """Detached houses on plots around points, with gardens, drives, wings, sheds and cars."""
    # The street runs along x, beyond the plots: north of those with y > 0, south of the others.
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


_LOT = {"layer": Layer.GARDEN}


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
