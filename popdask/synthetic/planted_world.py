"""Worlds on real ground: a real raster drawn several times, with events at known places and frames.

The raster is the mean of a law, and every frame is drawn from it: people by Poisson's, or with a
relative error. Without events nothing happens but noise, and whoever reports an event invents it.
Events change the mean. Growth, decline and death befall towns of the raster, the connected cells
that are dense enough; births, mergers and splits stand on free land, made of copies of its towns.

The trick is that every event has cells of its own: which place an event belongs to is read from a
map (:attr:`PlantedWorld.places`), and no event disturbs another. And what is built is beyond the
noise: a town whose cells hold just the least people of a town would fall apart in one draw and come
together in the next, and a bridge that ends on such a cell would join nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray
from scipy import ndimage

from popdask.errors import InputError

KINDS = ("grow", "shrink", "appear", "vanish", "merge", "split", "shift", "displace")
EVENTS: Mapping[str, int] = {
    "grow": 4,
    "shrink": 4,
    "appear": 2,
    "vanish": 2,
    "merge": 2,
    "split": 3,
    "shift": 1,
}
QUEEN = np.ones((3, 3), bool)
COPY = 10  # the largest side of a town that is copied or taken away, in cells
GAP = 4  # free cells between the towns of a merger
BRIDGE = 1.5  # least people of a cell that is built, and those of a bridge's, in units of a town's
SIGMAS = 4.0  # standard deviations of a count by which a town that is built exceeds the least
PART = 0.15  # least part of the people that each town of a merger or split has
MARGIN = 2  # free cells around whatever stands on free land
TRIES = 50  # towns that are tried for free land before there is none


@dataclass(frozen=True, eq=False, repr=False)
class PlantedWorld:
    """Frames with known events.

    Examples
    --------
    >>> ground = xr.DataArray(np.full((8, 9), 40.0), dims=("y", "x"))
    >>> planted(ground, frames=3, events={})
    PlantedWorld(3 frames of 8 × 9 cells, 0 events)
    """

    population: xr.DataArray
    """People per cell as drawn, float32 (time, y, x), NaN where the raster has no data."""

    expected: xr.DataArray
    """The mean of the law that they were drawn from, float64 (time, y, x)."""

    events: pd.DataFrame
    """One row per event: ``time`` and ``frame`` (the first that shows it), ``event``, ``place``
    (its number in `places`), ``y`` and ``x`` (its middle, in coordinates of the raster),
    ``people`` (of the mean in the cells of the place, in the frame before), ``parts`` (of a merger
    or a split, else 1), ``dy`` and ``dx`` (cells by which a town or a year is displaced)."""

    places: xr.DataArray
    """The place that each cell belongs to, int32 (y, x), −1 = none. A displaced year has none."""

    error: float | str = field(default="poisson")
    """The law's error, as it was asked for."""

    def __repr__(self) -> str:
        frames, rows, columns = self.population.shape
        size = f"{frames} frames of {rows} × {columns} cells"
        return f"PlantedWorld({size}, {len(self.events)} events)"


def planted(
    population: xr.DataArray,
    seed: int = 0,
    *,
    frames: int = 6,
    error: float | Literal["poisson"] = "poisson",
    events: Mapping[str, int] = EVENTS,
    towns: xr.DataArray | None = None,
    min_cell: float = 300.0,
    min_people: float = 5000.0,
    growth: float = 1.25,
    decline: float = 0.8,
    first_year: int = 2000,
) -> PlantedWorld:
    """Draw a real raster several times, with events at known places and frames.

    Parameters
    ----------
    population : DataArray, (y, x)
        People per cell, NaN = no data.
    seed : int, optional
        The same raster, settings and seed give the same world.
    frames : int, optional
        How many.
    error : "poisson" or float, optional
        Whole people by Poisson's law, or a share: each cell has a normal error of this part of its
        people, independent of the others, and never fewer than nobody.
    events : mapping of str to int, optional
        How many of each kind; an empty one gives the null world, in which nothing happens.

        ======== ===================================================================================
        grow     a town has `growth` times as many people in each of its cells from a frame on
        shrink   the same with `decline`
        appear   a copy of a town stands on free land from a frame on; in copies each cell holds
                 `min_cell` people and half as many again, at least
        vanish   nobody lives in a town's cells from a frame on
        merge    a bridge of cells joins two copies of towns, each with 15 % of their people or
                 more; those of the bridge come from them
        split    such a bridge goes; every other split has two bridges and three parts
        shift    a copy of a town on free land lies one or two cells aside from a frame on
        displace one frame lies up to 8 cells beside the others; what leaves the raster is lost
        ======== ===================================================================================
    towns : DataArray of int, (y, x), optional
        The towns that may grow, shrink or vanish, numbered from 0, −1 = none; any regions
        will do, such as communities. By default cells of `min_cell` people that touch (8
        neighbours), of `min_people` together.
    min_cell : float, optional
        The least people of a town's cell. Bridges have half as many again.
    min_people : float, optional
        The least people of a town.
    growth, decline : float, optional
        The factors.
    first_year : int, optional
        The first frame is of its first of January, the others of the years that follow.

    Returns
    -------
    PlantedWorld
        In memory.

    Raises
    ------
    InputError
        If the raster is not (y, x), a kind is unknown, or there are too few towns or too little
        free land.

    Examples
    --------
    >>> ground = np.zeros((30, 30))
    >>> ground[4:8, 4:8] = 500
    >>> world = planted(xr.DataArray(ground, dims=("y", "x")), frames=3, events={"grow": 1})
    >>> world.events[["frame", "event", "y", "x", "people"]]
       frame event    y    x  people
    0      2  grow  5.5  5.5  8000.0
    """
    if not isinstance(population, xr.DataArray) or population.dims != ("y", "x"):
        raise InputError(
            f"population has the dimensions {getattr(population, 'dims', None)}, but a planted "
            "world stands on one raster (y, x): select one frame, as in population.isel(time=0)"
        )
    _check(events, frames, error)
    base = population.values.astype(np.float64)
    ground = _Ground(np.nan_to_num(base), frames, np.random.default_rng(seed))
    ground.known = np.isfinite(base)
    labels = _dense(ground.base, min_cell, min_people) if towns is None else towns.values
    ground.settle(labels, min_cell, min_people)
    for kind in KINDS:
        for number in range(events.get(kind, 0)):
            _PLANT[kind](ground, kind, number, {"grow": growth, "shrink": decline}.get(kind, 0.0))
    expected = np.where(ground.known, ground.mean, np.nan)
    drawn = [
        _draw(mean, error, np.random.default_rng([seed, t])) for t, mean in enumerate(expected)
    ]
    return _world(population, ground, expected, np.stack(drawn), error, first_year)


def _check(events: Mapping[str, int], frames: int, error: Any) -> None:
    """Refuse unknown kinds, too few frames and errors that are none."""
    if unknown := set(events) - set(KINDS):
        raise InputError(f"events name {sorted(unknown)}; expected some of {', '.join(KINDS)}")
    if frames < 1 or (any(events.values()) and frames < 2):
        raise InputError(
            f"frames is {frames}, but an event needs a frame before it: give 2 or more"
        )
    if error != "poisson" and not (isinstance(error, int | float) and error >= 0):
        raise InputError(f'error is {error!r}; expected "poisson" or a share such as 0.05')


def _draw(mean: NDArray, error: Any, rng: np.random.Generator) -> NDArray[np.float32]:
    """Draw one frame."""
    known = np.isfinite(mean)
    people = np.full(mean.shape, np.nan, np.float32)
    if error == "poisson":
        people[known] = rng.poisson(mean[known])
    else:
        people[known] = np.maximum(mean[known] * (1 + error * rng.standard_normal(known.sum())), 0)
    return people


def _dense(people: NDArray, min_cell: float, min_people: float) -> NDArray[np.int32]:
    """Label the towns: dense cells that touch, with enough people."""
    labels, count = ndimage.label(people >= min_cell, QUEEN)
    totals = ndimage.sum(people, labels, np.arange(1, count + 1))
    number = np.full(count + 1, -1, np.int32)
    number[1:][totals >= min_people] = np.arange((totals >= min_people).sum())
    return number[labels]


class _Ground:
    """The raster while events are planted on it."""

    def __init__(self, base: NDArray, frames: int, rng: np.random.Generator) -> None:
        self.base, self.frames, self.rng = base, frames, rng
        self.mean = np.repeat(base[None], frames, axis=0)
        self.known = np.ones(base.shape, bool)
        self.places = np.full(base.shape, -1, np.int32)
        self.rows: list[dict[str, Any]] = []
        self.free = np.ones(base.shape, bool)
        self.order: list[int] = []
        self.labels = self.places

    def settle(self, labels: NDArray, min_cell: float, min_people: float) -> None:
        """Take the towns, in random order, and what land is free of anyone's."""
        self.labels, self.min_cell = labels, min_cell
        count = int(labels.max(initial=-1)) + 1
        self.order = self.rng.permutation(count).tolist()
        self.boxes = ndimage.find_objects(labels + 1)
        crowded = (self.base >= min_cell) | (labels >= 0) | ~self.known
        self.free = ~ndimage.binary_dilation(crowded, QUEEN, iterations=1)
        copied = _dense(self.base, min_cell, min_people)
        self.copies = [
            np.where(copied[box] == number, np.maximum(self.base[box], BRIDGE * min_cell), 0.0)
            for number, box in enumerate(ndimage.find_objects(copied + 1))
            if max(copied[box].shape) <= COPY
        ]
        least = min_people + SIGMAS * np.sqrt(min_people)
        self.copies = [town for town in self.copies if least <= town.sum() <= 10 * min_people]

    def town(self, kind: str, *, small: bool = False) -> NDArray[np.bool_]:
        """Take a town that no event has befallen yet: its cells."""
        for number in self.order:
            box = self.boxes[number]
            if box is None or (small and max(s.stop - s.start for s in box) > COPY):
                continue
            self.order.remove(number)
            return self.labels == number
        raise InputError(
            f"{kind}: no town is left for another event; plant fewer events, or lower min_people"
        )

    def site(self, shape: tuple[int, int]) -> tuple[slice, slice] | None:
        """Take a box of free land at random, if there is one."""
        rows, columns = shape[0] + 2 * MARGIN, shape[1] + 2 * MARGIN
        taken = np.pad(np.cumsum(np.cumsum(~self.free, 0), 1), ((1, 0), (1, 0)))
        if rows > self.base.shape[0] or columns > self.base.shape[1]:
            return None
        inside = taken[rows:, columns:] - taken[:-rows, columns:] - taken[rows:, :-columns]
        choice = np.argwhere(inside + taken[:-rows, :-columns] == 0)
        if not len(choice):
            return None
        top, left = choice[self.rng.integers(len(choice))]
        self.free[top : top + rows, left : left + columns] = False
        top, left = top + MARGIN, left + MARGIN
        return slice(top, top + shape[0]), slice(left, left + shape[1])

    def copied(self, kind: str) -> NDArray[np.float64]:
        """Take a copy of a town, turned at random."""
        if not self.copies:
            raise InputError(f"{kind}: no town of at most {COPY} × {COPY} cells can be copied")
        town = self.copies[self.rng.integers(len(self.copies))]
        return np.rot90(town, int(self.rng.integers(4)))

    def note(self, kind: str, frame: int, cells: NDArray[np.bool_], **more: Any) -> None:
        """Write an event down, and its place on the map."""
        middle = np.argwhere(cells).mean(0) if cells.any() else [np.nan, np.nan]
        place = len(self.rows) if cells.any() else -1
        self.places[cells] = place
        people = float(self.mean[frame - 1][cells].sum())
        row = {"frame": frame, "event": kind, "place": place, "row": middle[0], "column": middle[1]}
        self.rows.append(row | {"people": people, "parts": 1, "dy": 0, "dx": 0} | more)

    def when(self) -> int:
        """Choose a frame that has one before it."""
        return int(self.rng.integers(1, self.frames))


def _change(ground: _Ground, kind: str, number: int, factor: float) -> None:
    """Multiply a town: growth, decline, death (by 0)."""
    cells, frame = ground.town(kind, small=kind == "vanish"), ground.when()
    ground.mean[frame:, cells] *= factor
    ground.note(kind, frame, cells)


def _build(ground: _Ground, kind: str, number: int, factor: float) -> None:
    """Build on free land: a town from a frame on, or towns that a bridge joins from or up to it."""
    parts = 1 if kind == "appear" else 3 if kind == "split" and number % 2 else 2
    frame = ground.when()
    for _ in range(TRIES):
        towns = [ground.copied(kind) for _ in range(parts)]
        if min(town.sum() for town in towns) < PART * sum(town.sum() for town in towns):
            continue  # the small one would be no piece beside the large
        apart, joined = _in_a_row(towns, BRIDGE * ground.min_cell)
        if joined[joined > 0].min() < BRIDGE * ground.min_cell * (1 - 1e-9):
            continue  # they have nobody to spare for the bridge
        if ground.rng.integers(2):
            apart, joined = apart.T, joined.T
        box = ground.site(apart.shape)
        if box is not None:
            break
    else:
        raise InputError(
            f"{kind}: no free land is left for {parts} more towns; plant fewer of the events that "
            "stand on it (appear, merge, split), or give a larger raster"
        )
    before, after = {"appear": (0.0, apart), "merge": (apart, joined), "split": (joined, apart)}[
        kind
    ]
    ground.mean[(slice(0, frame), *box)] += before
    ground.mean[(slice(frame, None), *box)] += after
    cells = np.zeros(ground.base.shape, bool)
    cells[box] = joined > 0
    ground.note(kind, frame, cells, parts=parts)


def _in_a_row(towns: list[NDArray], people: float) -> tuple[NDArray, NDArray]:
    """Lay towns beside one another, apart, and joined by bridges of as many people in all."""
    height = max(town.shape[0] for town in towns)
    width = sum(town.shape[1] for town in towns) + GAP * (len(towns) - 1)
    apart, left = np.zeros((height, width)), 0
    bridges = np.zeros((height, width), bool)
    before = np.zeros((0, 2), np.int64)
    for town in towns:
        here = np.argwhere(town > 0) + np.array([0, left])
        apart[: town.shape[0], left : left + town.shape[1]] = town
        if len(before):
            apartness = ((before[:, None] - here[None]) ** 2).sum(-1)
            start, end = np.unravel_index(apartness.argmin(), apartness.shape)
            steps = np.abs(here[end] - before[start]).max() + 1
            line = np.rint(np.linspace(before[start], here[end], steps)).astype(np.int64)
            bridges[tuple(line[1:-1].T)] = True
        before, left = here, left + town.shape[1] + GAP
    bridges &= apart == 0
    spare = np.maximum(apart - people, 0)  # a cell keeps as many as one of the bridge has
    share = people * bridges.sum() / max(spare.sum(), people)
    return apart, apart - share * spare + people * bridges


def _shift(ground: _Ground, kind: str, number: int, factor: float) -> None:
    """Build a town on free land, and move it by a cell or two from a frame on."""
    dy, dx = (int(step) for step in ground.rng.choice([-2, -1, 1, 2], 2))
    frame = ground.when()
    for _ in range(TRIES):
        town = np.pad(ground.copied(kind), 2)
        box = ground.site(town.shape)
        if box is not None:
            break
    else:
        raise InputError(f"{kind}: no free land is left for a town; plant fewer events")
    moved = np.roll(town, (dy, dx), (0, 1))
    ground.mean[(slice(0, frame), *box)] += town
    ground.mean[(slice(frame, None), *box)] += moved
    cells = np.zeros(ground.base.shape, bool)
    cells[box] = (town > 0) | (moved > 0)
    ground.note(kind, frame, cells, dy=dy, dx=dx)


def _displace(ground: _Ground, kind: str, number: int, factor: float) -> None:
    """Displace one frame, once all else is planted."""
    frame = ground.when()
    dy, dx = (int(step) for step in ground.rng.integers(-8, 9, 2))
    moved = ndimage.shift(ground.mean[frame], (dy, dx), order=0, cval=0.0)
    ground.note(kind, frame, np.zeros(ground.base.shape, bool), dy=dy, dx=dx)
    ground.mean[frame] = moved


_PLANT: Mapping[str, Callable[[_Ground, str, int, float], None]] = {
    "grow": _change,
    "shrink": _change,
    "vanish": _change,
    "appear": _build,
    "merge": _build,
    "split": _build,
    "shift": _shift,
    "displace": _displace,
}


def _world(
    population: xr.DataArray,
    ground: _Ground,
    expected: NDArray,
    drawn: NDArray,
    error: Any,
    first_year: int,
) -> PlantedWorld:
    """Put the arrays on the raster's grid and write the table of events."""
    times = pd.DatetimeIndex([f"{first_year + t}-01-01" for t in range(ground.frames)])
    flat = population.drop_vars("time", errors="ignore").copy(data=ground.places)
    flat = flat.rename("places")
    flat.attrs, flat.encoding = {"long_name": "place of an event, −1 = none", "units": "1"}, {}
    cube = flat.expand_dims(time=times)
    attrs = {"long_name": "population", "units": "people per cell"}
    events = pd.DataFrame(
        ground.rows,
        columns=["frame", "event", "place", "row", "column", "people", "parts", "dy", "dx"],
    )
    for axis, name in (("y", "row"), ("x", "column")):
        along = np.asarray(flat.get_index(axis), np.float64)
        events[axis] = np.interp(events[name].astype(float), np.arange(len(along)), along)
    events.insert(0, "time", times[events["frame"].to_numpy(dtype=np.int64)])
    order = ["time", "frame", "event", "place", "y", "x", "people", "parts", "dy", "dx"]
    events = events[order].sort_values(["frame", "place"], ignore_index=True)
    return PlantedWorld(
        cube.copy(data=drawn).rename("population").assign_attrs(attrs),
        cube.copy(data=expected).rename("expected").assign_attrs(attrs),
        events,
        flat,
        error,
    )
