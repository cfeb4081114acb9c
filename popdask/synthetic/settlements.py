"""Where things stand in the drawn country: towns and villages, and what stands alone.

Everything is told site by site. A site of a jittered lattice is drawn by a generator of its own,
seeded by its lattice point, so a window needs the sites around it and nothing else. Sites keep off
lakes and roads; towns of five sizes follow one another in a fixed pattern, so that no window is
without one for long.
"""

from dataclasses import dataclass
from functools import lru_cache
from math import ceil, exp, floor, pi
from typing import Any, Self

import numpy as np

from popdask.synthetic import _blocks
from popdask.synthetic._ground import SHORE, survey
from popdask.synthetic._lone import SHARES
from popdask.synthetic._things import ALWAYS, THING, join, settle, turned

_TOWN, _LONE = 2000.0, 240.0  # metres between the sites
_TOWN_REACH, _LONE_REACH = 900.0, 90.0  # metres from a lattice cell that its site's things touch
_RADII = (110.0, 460.0, 150.0, 270.0, 240.0)  # metres, of five neighbouring towns
_FURTHEST = 1.3  # radii that a town may grow to
_APART = 110.0  # metres between a town and what stands alone
_DISTRICT = 0.12  # spread of the people per home from block to block

Box = tuple[float, float, float, float]


def things_near(box: Box, year: int, seed: int) -> np.ndarray:
    """Give the things of a year that may be seen in a box, in the order of painting.

    Parameters
    ----------
    box
        West, south, east, north in metres.
    year
        Years after the first picture.
    seed
        Of the country.

    Returns
    -------
    ndarray
        Of dtype THING.
    """
    towns = [_town(i, j, seed) for i, j in _lattice(box, _TOWN, _TOWN_REACH)]
    lone = [_lone(i, j, seed) for i, j in _lattice(box, _LONE, _LONE_REACH)]
    things = join([*towns, *lone])
    reach = 0.5 * np.hypot(things["length"], things["width"]) + 1.5 * things["height"]
    near = (things["x"] > box[0] - reach) & (things["x"] < box[2] + reach)
    near &= (things["y"] > box[1] - reach) & (things["y"] < box[3] + reach)
    near &= (things["born"] <= year) & (year < things["gone"])
    things = things[near]
    return things[np.lexsort((things["y"], things["x"], things["layer"]))]


def salt_of(seed: int) -> int:
    """Give the first of the numbers that tell the noises of a country apart."""
    return seed * 1_000_003


def _lattice(box: Box, spacing: float, reach: float) -> list[tuple[int, int]]:
    """Lattice points whose sites may reach into a box."""
    west, south, east, north = (
        floor((at + way) / spacing)
        for at, way in zip(box, (-reach, -reach, reach, reach), strict=True)
    )
    return [(i, j) for i in range(west, east + 1) for j in range(south, north + 1)]


def _generator(seed: int, *place: int) -> np.random.Generator:
    return np.random.default_rng([seed, *(number % 2**32 for number in place)])


def _free(points: Any, seed: int, road: float, *, forest: bool) -> np.ndarray:
    """Tell where one can build: above the shore, off the roads, and in forests if wanted."""
    x, y = np.asarray(points, float)
    height, away, trees = survey(x, y, salt_of(seed))
    return (height > SHORE + 0.02) & (away > road) & (forest | (trees == 0))


@dataclass(frozen=True)
class _Town:
    """The plan of a town."""

    x: float
    y: float
    radius: float
    """Metres, in the first year."""
    angle: float
    """Of its streets."""
    growth: float
    """Radii per year."""
    works: float
    """Where its works lie, in the frame of its streets."""
    lobes: int
    phase: float

    @classmethod
    def drawn(cls, i: int, j: int, seed: int) -> Self:
        """Draw the town of a lattice point."""
        rng = _generator(seed, 1, i, j)
        x, y = (np.array([i, j]) + 0.5 + rng.uniform(-0.12, 0.12, 2)) * _TOWN
        radius = _RADII[(i + 2 * j + seed) % len(_RADII)] * rng.uniform(0.9, 1.1)
        growth = rng.choice([0.0, 0.012, 0.025] if radius < 400 else [0.0, 0.01])
        angles = rng.uniform(0, pi), rng.uniform(-pi, pi)
        lobes, phase = int(rng.integers(2, 5)), rng.uniform(0, 2 * pi)
        return cls(float(x), float(y), radius, angles[0], float(growth), angles[1], lobes, phase)

    def away(self, u: float, v: float) -> float:
        """How far out a point of the frame lies, in radii."""
        lobe = 1 + 0.15 * np.sin(self.lobes * np.arctan2(v, u) + self.phase)
        return float(np.hypot(u, v) * lobe / self.radius)

    def reached(self, away: Any) -> np.ndarray:
        """In which year the town reaches so far."""
        away = np.asarray(away, float)
        years = np.ceil((away - 1) / self.growth) if self.growth else np.full(away.shape, ALWAYS)
        return np.where(away <= 1, -ALWAYS, np.minimum(years, ALWAYS)).astype(int)

    def is_works(self, u: float, v: float) -> bool:
        """Tell whether the works lie at a point of the frame."""
        turn = (np.arctan2(v, u) - self.works + pi) % (2 * pi) - pi
        return self.radius > 200 and abs(turn) < 0.5 and self.away(u, v) > 0.45

    def use(self, away: float, chance: float) -> str:
        """What a block is for, by a number in [0, 1)."""
        flats, rows, greens = 0.0, 0.0, 0.06
        if self.radius > 130:
            flats, rows, greens = (0.22, 0.5, 0.6) if away < 0.5 else (0.03, 0.12, 0.18)
        return (
            "flats"
            if chance < flats
            else "rows"
            if chance < rows
            else "green"
            if chance < greens
            else ""
        )


@lru_cache(maxsize=256)
def _town(i: int, j: int, seed: int) -> np.ndarray:
    """All things of the town at a lattice point, of all years."""
    town = _Town.drawn(i, j, seed)
    down, across = (ceil(1.2 * _FURTHEST * town.radius / side) for side in _blocks.BLOCK)
    blocks = []
    for p in range(-down, down + 1):
        for q in range(-across, across + 1):
            u, v = (p + 0.2) * _blocks.BLOCK[0], (q + 0.3) * _blocks.BLOCK[1]
            if town.away(u, v) < _FURTHEST:
                blocks.append(_block(_generator(seed, 2, i, j, p, q), town, u, v, seed))
    return join(blocks)


def _block(rng: np.random.Generator, town: _Town, u: float, v: float, seed: int) -> np.ndarray:
    """Draw a block of a town around a point of its frame; nothing where it cannot be built."""
    away, place = town.away(u, v), (*turned(u, v, town.x, town.y, town.angle), town.angle)
    use = "works" if town.is_works(u, v) else town.use(away, rng.random())
    district = exp(rng.normal(0, _DISTRICT))
    if not use:
        years = town.reached(away + rng.normal(0, 0.04, len(_blocks.PLOTS)))
        plots = turned(_blocks.PLOTS[:, 0], _blocks.PLOTS[:, 1], *place)
        keep = _free(plots, seed, 20, forest=True) & (years < ALWAYS)
        if not keep.any():
            return join([])
        around = _blocks.streets(int(years[keep].min()), bool(keep.all()))
        return settle([*around, *_blocks.detached(rng, district, years, keep)], *place)
    born = int(town.reached(away))
    corners = np.meshgrid(np.linspace(-75, 75, 7), np.linspace(-32, 32, 3))
    spots = [axis.ravel() for axis in turned(*corners, *place)]
    if born >= ALWAYS or not _free(spots, seed, 12, forest=True).all():
        return join([])
    return settle([*_blocks.streets(born, False), *_DRAW[use](rng, district, born)], *place)


_DRAW: dict[str, Any] = {
    "works": lambda rng, district, born: _blocks.works(rng, born=born),
    "green": lambda rng, district, born: _blocks.green(rng, born=born),
    "flats": lambda rng, district, born: _blocks.slabs(rng, district, born=born),
    "rows": lambda rng, district, born: _blocks.terraces(rng, district, born=born),
}


@lru_cache(maxsize=1 << 15)
def _lone(i: int, j: int, seed: int) -> np.ndarray:
    """All things at a lone site, if there are any."""
    rng = _generator(seed, 3, i, j)
    x, y = ((np.array([i, j]) + 0.5 + rng.uniform(-0.22, 0.22, 2)) * _LONE).tolist()
    draw = SHARES[rng.choice(len(SHARES), p=[share for _, share in SHARES])][0]
    angle = rng.uniform(0, pi)
    around = x + np.array([0, 40, -40, 0, 0]), y + np.array([0, 0, 0, 40, -40])
    if draw is None or not _free(around, seed, 12, forest=False).all():
        return np.empty(0, THING)
    for p, q in _lattice((x, y, x, y), _TOWN, _TOWN_REACH):
        town = _town(p, q, seed)
        if (np.hypot(town["x"] - x, town["y"] - y) < _APART).any():
            return np.empty(0, THING)
    return settle(draw(rng), x, y, angle)
