"""Cities rendered into a population, and an invented country of them.

A city is an ellipse of people with a flat top and a soft foot, ``(1 - rho^4)^2`` in the normalised
distance rho, and nobody beyond it: cities that do not touch are told apart by any method worth its
name, and the true label of a cell needs no threshold. Its people are whole persons, shared out by
largest remainders, so that a city which only moves keeps every one of them.

A world is rendered cell block by cell block from its list of cities: a lazy world of any size costs
nothing until it is asked for, and has the same people under any chunking.

Every story is told around the cell (0, 0) at a density of one person, and then settled: moved to a
slot of the map with room around it, numbered, and filled with people.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import ceil, floor
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pandas as pd
import rioxarray  # noqa: F401  (the accessor that carries the CRS)
import xarray as xr

from popdask.errors import InputError

CHANGE = 0.05
"""A city whose people change by more than this share between two frames grows or shrinks."""

_MEAN_HEIGHT = 8 / 15  # of a city's height, (1 - rho^4)^2, over its disc
_SLOT = (80, 101)  # cells of the map given to one story, room for its neighbours' halos included
_SLOTS = (3, 3)
_COAST = 17  # columns kept free for the sea


@dataclass(frozen=True)
class City:
    """One city's life, a step per frame.

    Examples
    --------
    >>> City(0, ((10.0, 10.0), (10.0, 12.0)), (900, 950), ((3.0, 3.0),) * 2).people
    (900, 950)
    """

    track: int
    """Its number, which is also its label in the true label maps."""
    centres: tuple[tuple[float, float], ...]
    """(row, column) of its centre, in cells."""
    people: tuple[int, ...]
    """How many live there."""
    radii: tuple[tuple[float, float], ...]
    """Half its extent along the rows' and the columns' axis, in cells."""
    start: int = 0
    """The first frame that sees it."""
    split_from: int | None = None
    """The city it breaks away from in its first frame, if it does."""
    merges_into: int | None = None
    """The city that has swallowed it in the frame after its last, if one does."""

    def __post_init__(self) -> None:
        if not len(self.centres) == len(self.people) == len(self.radii) > 0:
            raise InputError(
                f"city {self.track} has {len(self.centres)} centres, {len(self.people)} counts of "
                f"people and {len(self.radii)} radii: give one of each per frame"
            )

    @property
    def last(self) -> int:
        """The last frame that sees it."""
        return self.start + len(self.people) - 1

    def box(self, frame: int) -> tuple[slice, slice]:
        """Return the rows and columns of the cells whose centres it may cover in a frame."""
        axes = zip(self.centres[frame - self.start], self.radii[frame - self.start], strict=True)
        rows, cols = (slice(ceil(at - radius), floor(at + radius) + 1) for at, radius in axes)
        return rows, cols

    def footprint(self, frame: int) -> np.ndarray:
        """Return its people per cell of the box in a frame, int64 (rows, columns)."""
        step = frame - self.start
        y, x = (
            (np.arange(cells.start, cells.stop) - at) / radius
            for cells, at, radius in zip(
                self.box(frame), self.centres[step], self.radii[step], strict=True
            )
        )
        rho2 = y[:, None] ** 2 + x[None, :] ** 2
        height = np.clip(1 - rho2**2, 0, None) ** 2
        return _whole(height / height.sum() * self.people[step])


def _whole(share: np.ndarray) -> np.ndarray:
    """Round to integers with the same total: the largest remainders are rounded up."""
    counts = np.floor(share).astype(np.int64)
    short = round(share.sum()) - counts.sum()
    order = np.argsort((counts - share).ravel(), kind="stable")
    counts.ravel()[order[:short]] += 1
    return counts


@dataclass(frozen=True)
class World:
    """Cities on a map, their population in every frame, and the truth about them.

    Cities must not touch, and must stay on the land of the map.

    Examples
    --------
    >>> city = City(0, ((20.0, 20.0), (20.0, 22.0)), (9000, 9000), ((8.0, 8.0),) * 2)
    >>> world = World((city,), shape=(40, 50), frames=2)
    >>> world.population.population.sum(("y", "x")).values
    array([9000., 9000.], dtype=float32)
    >>> world.truth.event.tolist()
    ['appear', 'continue']
    """

    cities: tuple[City, ...]
    shape: tuple[int, int]
    """Rows and columns."""
    frames: int
    villages: tuple[tuple[int, int, int], ...] = ()
    """(row, column, people) of single cells with a few people, which belong to no city."""
    sea: float = 0.0
    """Mean width of the nodata sea along the west coast, in cells."""
    resolution: float = 1000.0
    """Side of a cell in metres."""
    first_year: int = 2000
    crs: str = field(default="EPSG:3035", repr=False)
    origin: tuple[float, float] = field(default=(2_400_000.0, 3_400_000.0), repr=False)
    """Easting and northing of the upper left corner: in the Atlantic, so that nobody is misled."""

    def __post_init__(self) -> None:
        for city in self.cities:
            if city.last >= self.frames:
                raise InputError(
                    f"city {city.track} lives until frame {city.last}, but the world has "
                    f"{self.frames} frames: shorten its life or add frames"
                )
            for frame in range(city.start, city.last + 1):
                rows, cols = city.box(frame)
                off = min(rows.start, cols.start) < 0
                off |= rows.stop > self.shape[0] or cols.stop > self.shape[1]
                if off or (self._is_sea(rows, cols) & (city.footprint(frame) > 0)).any():
                    raise InputError(
                        f"city {city.track} leaves the land of the map of {self.shape[0]} × "
                        f"{self.shape[1]} cells in frame {frame}: move it or make the map larger"
                    )

    @cached_property
    def times(self) -> pd.DatetimeIndex:
        """The first of January of each year."""
        return pd.DatetimeIndex([f"{self.first_year + i}-01-01" for i in range(self.frames)])

    @cached_property
    def population(self) -> xr.Dataset:
        """``population(time, y, x)`` float32, people per cell, NaN in the sea; in memory."""
        return self.lazy(chunks=-1).compute()

    @cached_property
    def labels(self) -> xr.DataArray:
        """``(time, y, x)`` int32: the city of each cell, −1 = none; in memory."""
        values = self._array("labels", chunks=-1).compute()
        return self._located(values, "labels", "city of the cell, −1 = none", "1")

    def lazy(self, chunks: Any = "auto") -> xr.Dataset:
        """Return the population as a Dataset on Dask arrays.

        Parameters
        ----------
        chunks
            Sizes of the chunks over (time, y, x), as Dask takes them.
        """
        values = self._array("people", chunks)
        population = self._located(values, "population", "population", "people per cell")
        return population.to_dataset()

    @cached_property
    def truth(self) -> pd.DataFrame:
        """The true events, as :func:`popdask.tracking.tracks.tracks` has them.

        Columns time, community and track (both the city's number), parent (list of int), event,
        and the city's centre as row and column. A city that gives birth to another has a row for
        the split beside that for its own loss; one that swallows another has a row for the merger
        beside that for its gain.
        """
        rows = [
            {
                "time": self.times[frame],
                "community": city.track,
                "track": city.track,
                "parent": self._parents(city, frame),
                "event": event,
                "row": city.centres[frame - city.start][0],
                "column": city.centres[frame - city.start][1],
            }
            for frame in range(self.frames)
            for city in sorted(self.cities, key=lambda city: city.track)
            if city.start <= frame <= city.last
            for event in self._events(city, frame)
        ]
        return pd.DataFrame(rows)

    def write(self, folder: str | Path) -> list[Path]:
        """Write a GeoTIFF ``world_<year>.tif`` per frame into a folder, made if needed.

        Parameters
        ----------
        folder
            Where the files go.

        Returns
        -------
        list of Path
            The files in the order of their years.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        paths = [folder / f"world_{time.year}.tif" for time in self.times]
        frames = self.lazy(chunks=(1, -1, -1)).population.rio.write_nodata(np.nan)
        for frame, path in zip(frames, paths, strict=True):
            frame.rio.to_raster(path, tiled=True, compress="deflate")
        return paths

    def _parents(self, city: City, frame: int) -> list[int]:
        """Which cities of the frame before a city comes from."""
        if frame == city.start:
            return [] if city.split_from is None else [city.split_from]
        merged = [
            c.track for c in self.cities if (c.merges_into, c.last) == (city.track, frame - 1)
        ]
        return sorted([city.track, *merged])

    def _events(self, city: City, frame: int) -> list[str]:
        """What happens to a city in a frame, in the order of the table of tracks."""
        parents = self._parents(city, frame)
        events = [] if parents else ["appear"]
        if frame > city.start:
            before, now = city.people[frame - city.start - 1 : frame - city.start + 1]
            grown, shrunk = now > (1 + CHANGE) * before, now < (1 - CHANGE) * before
            events.append("grow" if grown else "shrink" if shrunk else "continue")
        mothers = [c.split_from for c in self.cities if c.start == frame]
        if city.track in mothers or (frame == city.start and city.split_from is not None):
            events.append("split")
        if len(parents) > 1:
            events.append("merge")
        if frame == city.last < self.frames - 1 and city.merges_into is None:
            events.append("vanish")
        return events

    def _array(self, what: str, chunks: Any) -> da.Array:
        """Return a lazy cube of people or labels."""
        dtype = np.dtype(np.float32 if what == "people" else np.int32)
        chunks = da.core.normalize_chunks(chunks, (self.frames, *self.shape), dtype=dtype)
        return da.map_blocks(
            _render, self, what, chunks=chunks, dtype=dtype, meta=np.empty((0, 0, 0), dtype)
        )

    def _is_sea(self, rows: slice, cols: slice) -> np.ndarray:
        """Return whether the cells of a box lie in the sea, (rows, columns)."""
        coast = self.sea * (1 + 0.3 * np.sin(np.arange(rows.start, rows.stop) / 15))
        return np.arange(cols.start, cols.stop) < coast[:, None]

    def _located(self, values: Any, name: str, long_name: str, units: str) -> xr.DataArray:
        """Put an array onto the world's grid and years."""
        (rows, cols), side, (west, north) = self.shape, self.resolution, self.origin
        coords = {
            "time": self.times,
            "y": north - (np.arange(rows) + 0.5) * side,
            "x": west + (np.arange(cols) + 0.5) * side,
        }
        attrs = {"long_name": long_name, "units": units}
        array = xr.DataArray(values, coords, ("time", "y", "x"), name=name, attrs=attrs)
        return array.rio.write_crs(self.crs).rio.write_transform()


def _render(world: World, what: str, block_info: Any = None) -> np.ndarray:
    """Draw one block of a world's people or labels."""
    (t0, t1), (y0, y1), (x0, x1) = block_info[None]["array-location"]
    if what == "labels":
        block = np.full((t1 - t0, y1 - y0, x1 - x0), -1, np.int32)
    else:
        block = np.zeros((t1 - t0, y1 - y0, x1 - x0), np.float32)
        block[:, world._is_sea(slice(y0, y1), slice(x0, x1))] = np.nan
        for row, col, few in world.villages:
            if y0 <= row < y1 and x0 <= col < x1:
                block[:, row - y0, col - x0] = few
    for city in world.cities:
        for frame in range(max(t0, city.start), min(t1, city.last + 1)):
            rows, cols = city.box(frame)
            top, bottom = max(rows.start, y0), min(rows.stop, y1)
            left, right = max(cols.start, x0), min(cols.stop, x1)
            if top >= bottom or left >= right:
                continue
            people = city.footprint(frame)
            people = people[top - rows.start : bottom - rows.start]
            people = people[:, left - cols.start : right - cols.start]
            target = block[frame - t0, top - y0 : bottom - y0, left - x0 : right - x0]
            target[people > 0] = city.track if what == "labels" else people[people > 0]
    return block


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
    """Draw every story around the cell (0, 0), for a density of one person in the middle."""
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
