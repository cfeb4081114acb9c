"""A country in which everything that can happen to a city happens once, each in its own place.

Every story is told around the cell (0, 0) at a density of one person, and then settled: moved to a
slot of the map with room around it, numbered, and filled with people.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from popdask.errors import InputError
from popdask.synthetic.world import City, World

_MEAN_HEIGHT = 8 / 15  # of a city's height, (1 - rho^4)^2, over its disc
_SLOT = (80, 101)  # cells of the map given to one story, room for its neighbours' halos included
_SLOTS = (3, 3)
_COAST = 17  # columns kept free for the sea


def moving_cities(
    *,
    seed: int = 0,
    frames: int = 8,
    tiles: tuple[int, int] = (1, 1),
    sea: bool = True,
    villages: int = 16,
    resolution: float = 1000.0,
) -> World:
    """Invent a country in which everything happens once, each in its own place.

    Nine stories of eleven cities: one stands
    still, two move by 3 cells per frame, one grows and one shrinks by a quarter per frame for
    three frames, one splits, two merge, one appears and one vanishes.

    Parameters
    ----------
    seed
        Decides which story is told where, the exact centres, sizes and densities, and the villages.
    frames
        Number of years, at least 6.
    tiles
        How often to repeat the country down and across; each one is 240 × 320 cells and has its
        own draw of the stories.
    sea
        Whether a strip of about 10 cells along the west coast is nodata.
    villages
        How many cells per country, far from every city, hold 5 to 40 people.
    resolution
        Side of a cell in metres.

    Returns
    -------
    World
        Its population, true labels and true events.

    Raises
    ------
    InputError
        If there are fewer than 6 frames, or no tile.

    Examples
    --------
    >>> world = moving_cities(seed=1)
    >>> dict(world.population.sizes)
    {'time': 8, 'y': 240, 'x': 320}
    >>> world.truth.event.value_counts().loc[["split", "merge", "vanish"]].to_dict()
    {'split': 2, 'merge': 1, 'vanish': 1}
    """
    if frames < 6:
        raise InputError(f"frames is {frames}, but the stories take 6: give 6 or more")
    if min(tiles) < 1:
        raise InputError(f"tiles is {tiles}, but it counts countries down and across: give (1, 1)")
    rng = np.random.default_rng(seed)
    stories = _stories(frames)
    cities: list[City] = []
    for down, across in np.ndindex(*tiles):
        for story, slot in zip(stories, rng.permutation(_SLOTS[0] * _SLOTS[1]), strict=False):
            place = np.array(np.unravel_index(slot, _SLOTS)) + (down, across) * np.array(_SLOTS)
            middle = (place + 0.5) * _SLOT + (0, _COAST) + rng.uniform(-2, 2, 2)
            density, first = int(rng.integers(650, 850)), len(cities)
            cities += [_settle(city, first, middle, density) for city in story]
    cities = _by_birth(cities)
    shape = (tiles[0] * _SLOTS[0] * _SLOT[0], _COAST + tiles[1] * _SLOTS[1] * _SLOT[1])
    return World(
        cities=tuple(cities),
        shape=shape,
        frames=frames,
        villages=_villages(rng, cities, shape, villages * tiles[0] * tiles[1]),
        sea=10.0 if sea else 0.0,
        resolution=resolution,
    )


def _stories(frames: int) -> list[tuple[City, ...]]:
    """Tell every story around the cell (0, 0), for a density of one person in the middle."""
    year = np.arange(frames)[:, None]
    steps = np.minimum(year, 7) - min(frames - 1, 7) / 2
    crowd = _crowd(16, 43)
    large, small = crowd - round(0.42 * crowd), round(0.42 * crowd)

    def city(radii: Any, away: Any = (0, 0), people: Any = None, **life: Any) -> City:
        ry, rx = np.broadcast_to(radii, (frames, 2)).T
        people = _crowd(ry, rx) if people is None else np.broadcast_to(np.ravel(people), frames)
        alive = slice(life.get("start", 0), life.pop("stop", frames))
        return City(
            track=life.pop("track", 0),
            centres=tuple((y, x) for y, x in np.broadcast_to(away, (frames, 2))[alive].tolist()),
            people=tuple(people[alive].tolist()),
            radii=tuple(zip(ry[alive].tolist(), rx[alive].tolist(), strict=True)),
            **life,
        )

    return [
        (city(16),),
        (city(16, steps * (0.0, 3.0)),),
        (city(16, steps * (-2.4, 1.8)),),
        (city(13 * np.sqrt(1.25) ** np.clip(year - 1, 0, 3)),),
        (city(18 * np.sqrt(0.8) ** np.clip(year - 2, 0, 3)),),
        (city(15, start=2),),
        (city(15, stop=4),),
        (
            city(
                np.where(year < 3, (16, 43), (20, 20)),
                np.where(year < 3, (0, 0), (0, -24)),
                np.where(year < 3, crowd, large),
            ),
            city(17, (0, 24), small, track=1, start=3, split_from=0),
        ),
        (
            city(
                np.where(year < 4, (20, 20), (16, 43)),
                np.where(year < 4, (0, -24), (0, 0)),
                np.where(year < 4, large, crowd),
            ),
            city(17, (0, 24), small, track=1, stop=4, merges_into=0),
        ),
    ]


def _crowd(ry: Any, rx: Any) -> Any:
    """How many people fill an ellipse when one lives in its middle cell."""
    return np.round(_MEAN_HEIGHT * np.pi * ry * rx).astype(int)


def _settle(city: City, first: int, middle: np.ndarray, density: int) -> City:
    """Move a story's city to its place, number it and fill it."""
    mother, heir = city.split_from, city.merges_into
    return replace(
        city,
        track=first + city.track,
        centres=tuple((y + float(middle[0]), x + float(middle[1])) for y, x in city.centres),
        people=tuple(density * count for count in city.people),
        split_from=None if mother is None else first + mother,
        merges_into=None if heir is None else first + heir,
    )


def _by_birth(cities: Sequence[City]) -> list[City]:
    """Number the cities in the order of their first frames, as tracks are numbered."""
    ordered = sorted(cities, key=lambda city: (city.start, city.track))
    number: dict[int | None, int] = {city.track: i for i, city in enumerate(ordered)}
    return [
        replace(
            city,
            track=number[city.track],
            split_from=number.get(city.split_from),
            merges_into=number.get(city.merges_into),
        )
        for city in ordered
    ]


def _villages(
    rng: np.random.Generator, cities: Sequence[City], shape: tuple[int, int], count: int
) -> tuple[tuple[int, int, int], ...]:
    """Scatter villages over the country, at least 20 cells from everyone."""
    centres = np.array([centre for city in cities for centre in city.centres])
    reach = np.array([max(radii) + 20 for city in cities for radii in city.radii])
    villages: list[tuple[int, int, int]] = []
    for _ in range(200 * count):
        place = rng.integers((4, _COAST + 4), (shape[0] - 4, shape[1] - 4))
        if len(villages) < count and (((place - centres) ** 2).sum(axis=1) >= reach**2).all():
            villages.append((int(place[0]), int(place[1]), int(rng.integers(5, 41))))
            centres, reach = np.vstack([centres, place]), np.append(reach, 20)
    return tuple(villages)
