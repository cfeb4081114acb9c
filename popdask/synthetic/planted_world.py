"""Worlds on real ground: a real raster drawn several times, with events at known places and frames.

The raster is the mean of a law, and every frame is drawn from it: people by Poisson's, or with a
relative error. Without events nothing happens but noise, and whoever reports an event invents it.
Events change the mean. Growth, decline and death befall towns of the raster, the connected cells
that are dense enough; births, mergers and splits stand on free land, made of copies of its towns.
Cells finer than 1 km are summed to it first, as for settlements: towns are made of cells of 1 km.

The trick is that every event has cells of its own: which place an event belongs to is read from a
map (:attr:`PlantedWorld.places`), and no event disturbs another. And what is planted is beyond the
noise. A town whose cells hold just the least people of a town would fall apart in one draw and come
together in the next, and a bridge that ends on such a cell would join nothing. A town that some
draw joins to a larger one has no growth of its own that a count could tell.
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
from popdask.io.grids import steps_of

# In the order in which they are planted: a death, which needs a small town, chooses first, and a
# year is displaced with all that is in it.
KINDS = ("vanish", "grow", "shrink", "appear", "merge", "split", "shift", "displace")
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
# Cells are those of 1 km, where the raster's are finer.
COPY = 10  # the largest side of a town that is copied or taken away, in cells
GAP = 4  # free cells between the towns of a merger
BRIDGE = 1.5  # least people of a cell that is built, and those of a bridge's, in units of a town's
SIGMAS = 4.0  # standard deviations of a count by which towns exceed the least, and others do not
DRAWS = 3.0  # standard deviations of the law by which what is built exceeds that in every draw,
HIGHEST = 10.0  # and by what factor at most, which is reached at an error of 0.3
SEEN, SURE = 0.05, 2.0  # part of a place by which it changes, and standard deviations beyond it
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
        People per cell, NaN = no data. Where it has a projected CRS and cells finer than 1 km,
        towns are made of cells of 1 km, and so are bridges and steps aside.
    seed : int, optional
        The same raster, settings and seed give the same world.
    frames : int, optional
        How many.
    error : "poisson" or float, optional
        Whole people by Poisson's law, or a share: each cell has a normal error of this part of its
        people, independent of the others, and never fewer than nobody. Up to 0.3 what is built is
        beyond it; with more it may not be, as built cells are raised tenfold at most.
    events : mapping of str to int, optional
        How many of each kind; an empty one gives the null world, in which nothing happens.

        ======== ===================================================================================
        grow     a town has `growth` times as many people in each of its cells from a frame on
        shrink   the same with `decline`
        appear   a copy of a town stands on free land from a frame on; in copies each cell holds
                 `min_cell` people and half as many again, at least, and more if `error` is large
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
        neighbours), of `min_people` together, whose event is beyond the noise. Growth and decline:
        the change of those who live there in every draw is more than 5 % and 2 standard deviations
        of the largest place that a draw may join them to, and more than 6 standard deviations of
        it. Death: those who live there in every draw are a town for sure, and in that place fewer
        than `min_people` / 4 live beside it.
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
    import odc.geo.xr  # noqa: F401  registers DataArray.odc

    if not isinstance(population, xr.DataArray) or population.dims != ("y", "x"):
        raise InputError(
            f"population has the dimensions {getattr(population, 'dims', None)}, but a planted "
            "world stands on one raster (y, x): select one frame, as in population.isel(time=0)"
        )
    _check(events, frames, error)
    grid = population.odc.geobox
    steps = (1, 1) if grid is None or grid.crs is None else steps_of(grid)
    ground = _Ground(population.values, steps, frames, error, np.random.default_rng(seed))
    factors = {"grow": growth, "shrink": decline}
    if events:
        ground.settle(None if towns is None else towns.values, min_cell, min_people)
    for kind in KINDS:
        for number in range(events.get(kind, 0)):
            _PLANT[kind](ground, kind, number, factors.get(kind, 0.0))
    expected, ground.places = ground.drawn()
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


def _summed(people: NDArray, steps: tuple[int, int]) -> NDArray[np.float64]:
    """Sum cells to larger ones, so many down and across."""
    (rows, columns), (down, across) = people.shape, steps
    parts = people.reshape(rows // down, down, columns // across, across)
    summed: NDArray[np.float64] = parts.sum((1, 3))
    return summed


def _spread(cells: NDArray, steps: tuple[int, int]) -> NDArray:
    """Repeat cells on the finer raster."""
    return cells.repeat(steps[0], 0).repeat(steps[1], 1)


class _Ground:
    """The raster while events are planted on it."""

    def __init__(
        self,
        people: NDArray,
        steps: tuple[int, int],
        frames: int,
        error: float | str,
        rng: np.random.Generator,
    ) -> None:
        self.shape, self.steps, self.frames, self.rng = people.shape, steps, frames, rng
        self.error = 0.0 if isinstance(error, str) else error
        self.poisson = isinstance(error, str)
        rims = [(0, -size % step) for size, step in zip(people.shape, steps, strict=True)]
        base = np.pad(people.astype(np.float64), rims, constant_values=np.nan)
        self.known, self.base = np.isfinite(base), np.nan_to_num(base)
        self.mean = np.repeat(self.base[None], frames, axis=0)
        self.places = np.full(base.shape, -1, np.int32)
        self.rows: list[dict[str, Any]] = []
        self.part: list[tuple[float, ...]] | None = None

    def drawn(self) -> tuple[NDArray[np.float64], NDArray[np.int32]]:
        """Return the mean and the places on the raster, which may end within a cell of 1 km."""
        rows, columns = self.shape
        expected = np.where(self.known, self.mean, np.nan)[:, :rows, :columns]
        return expected, self.places[:rows, :columns]

    def noise(self, people: NDArray) -> NDArray[np.float64]:
        """The variance of counts by the law."""
        found: NDArray[np.float64] = people if self.poisson else np.square(self.error * people)
        return found

    def settle(self, labels: NDArray | None, min_cell: float, min_people: float) -> None:
        """Take the towns, in random order, and what land is free of anyone's."""
        cells = _summed(self.base, self.steps)
        least = min_cell + SIGMAS * np.sqrt(min_cell)
        self.built = least / max(1 - DRAWS * self.error, 1 / HIGHEST)
        self.built = max(self.built, BRIDGE * min_cell)
        self.max_side = COPY * max(self.steps)
        copied = _dense(cells, min_cell, min_people)
        known = _summed(~self.known, self.steps) == 0
        crowded = (cells >= min_cell) | ~known
        if labels is None:
            self.labels = _spread(copied, self.steps)
            self.part = self._parts(cells, copied, min_cell, min_people)
        else:
            rims = [(0, b - a) for a, b in zip(labels.shape, self.base.shape, strict=True)]
            self.labels = np.pad(labels, rims, constant_values=-1)
            crowded |= _summed(self.labels >= 0, self.steps) > 0
        self.order = self.rng.permutation(int(self.labels.max(initial=-1)) + 1).tolist()
        self.boxes = ndimage.find_objects(self.labels + 1)
        self.free = ~ndimage.binary_dilation(crowded, QUEEN, iterations=1)
        self.copies = []
        for number, box in enumerate(ndimage.find_objects(copied + 1)):
            raised = np.maximum(cells[box], self.built) / np.maximum(cells[box], min_cell)
            factor = np.where(copied[box] == number, raised, 0.0)
            fine = tuple(
                slice(s.start * n, s.stop * n) for s, n in zip(box, self.steps, strict=True)
            )
            town = self.base[fine] * _spread(factor, self.steps)
            enough = min_people + SIGMAS * np.sqrt(max(min_people, self.noise(town).sum()))
            if max(factor.shape) <= COPY and enough <= town.sum() <= 10 * min_people:
                self.copies.append(town)

    def _parts(
        self, cells: NDArray, towns: NDArray, min_cell: float, min_people: float
    ) -> list[tuple[float, ...]]:
        """List for each town who lives in it for sure, in what it may be joined to, and beside."""
        spread = SIGMAS * np.sqrt(max(min_cell, float(self.noise(np.array(min_cell)))))
        wide = ndimage.label(cells >= min_cell - spread, QUEEN)[0]
        core = ndimage.label(cells >= min_cell + spread, QUEEN)[0]
        noise = _summed(self.noise(self.base), self.steps)
        people, variance = (ndimage.sum(a, wide, np.arange(wide.max() + 1)) for a in (cells, noise))
        inner, doubt = (ndimage.sum(a, core, np.arange(core.max() + 1)) for a in (cells, noise))
        parts: list[tuple[float, ...]] = []
        for number, box in enumerate(ndimage.find_objects(towns + 1)):
            mine = towns[box] == number
            numbers = np.unique(core[box][mine & (core[box] > 0)])
            sure = numbers[np.argmax(inner[numbers])] if len(numbers) else 0
            enough = min_people + SIGMAS * np.sqrt(max(min_people, doubt[sure]))
            own = float(inner[sure]) if sure and inner[sure] >= enough else 0.0
            joined = wide[box][mine][0]
            beside = float(people[joined] - cells[box][mine].sum())
            parts.append((own, float(people[joined]), float(variance[joined]), beside, min_people))
        return parts

    def seen(self, number: int, factor: float) -> bool:
        """Whether a town's change is beyond all noise."""
        if self.part is None:
            return True
        own, joined, variance, beside, min_people = self.part[number]
        if factor == 0:
            return own > 0 and beside < min_people / 4
        noise, change = np.sqrt(variance * (1 + factor**2)), abs(factor - 1) * own
        return bool(change > max(SEEN * joined + SURE * noise, (SIGMAS + SURE) * noise))

    def town(self, kind: str, factor: float) -> NDArray[np.bool_]:
        """Take a town that no event has befallen yet, and whose change can be seen: its cells."""
        for number in self.order:
            box = self.boxes[number]
            small = box is not None and max(s.stop - s.start for s in box) <= self.max_side
            if box is None or (kind == "vanish" and not small) or not self.seen(number, factor):
                continue
            self.order.remove(number)
            return self.labels == number
        raise InputError(
            f"{kind}: no town is left for another event; plant fewer events, or lower min_people"
        )

    def site(self, shape: tuple[int, int]) -> tuple[slice, slice] | None:
        """Take a box of free land at random, if there is one, of so many cells of the raster."""
        steps = self.steps
        shape = shape[0] // steps[0], shape[1] // steps[1]
        rows, columns = shape[0] + 2 * MARGIN, shape[1] + 2 * MARGIN
        taken = np.pad(np.cumsum(np.cumsum(~self.free, 0), 1), ((1, 0), (1, 0)))
        if rows > self.free.shape[0] or columns > self.free.shape[1]:
            return None
        inside = taken[rows:, columns:] - taken[:-rows, columns:] - taken[rows:, :-columns]
        choice = np.argwhere(inside + taken[:-rows, :-columns] == 0)
        if not len(choice):
            return None
        top, left = choice[self.rng.integers(len(choice))]
        self.free[top : top + rows, left : left + columns] = False
        down, across = (
            slice((start + MARGIN) * step, (start + MARGIN + size) * step)
            for start, size, step in zip((top, left), shape, steps, strict=True)
        )
        return down, across

    def copied(self, kind: str) -> NDArray[np.float64]:
        """Take a copy of a town, turned at random."""
        if not self.copies:
            raise InputError(f"{kind}: no town of at most {COPY} × {COPY} cells can be copied")
        town = self.copies[self.rng.integers(len(self.copies))]
        turns = int(self.rng.integers(4))
        return np.rot90(town, turns if self.steps[0] == self.steps[1] else 2 * turns)

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
    cells, frame = ground.town(kind, factor), ground.when()
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
        apart, joined = _in_a_row(towns, ground.built, ground.steps)
        lived = _summed(joined, ground.steps)
        if lived[lived > 0].min() < ground.built * (1 - 1e-9):
            continue  # they have nobody to spare for the bridge
        if ground.rng.integers(2) and ground.steps[0] == ground.steps[1]:
            apart, joined, lived = apart.T, joined.T, lived.T
        box = ground.site(apart.shape)
        if box is not None:
            break
    else:
        raise InputError(
            f"{kind}: no free land is left for {parts} more towns; plant fewer of the events that "
            "stand on it (appear, merge, split), or give a larger raster"
        )
    before: Any = {"appear": 0.0, "merge": apart, "split": joined}[kind]
    after = joined if kind == "merge" else apart
    ground.mean[(slice(0, frame), *box)] += before
    ground.mean[(slice(frame, None), *box)] += after
    cells = np.zeros(ground.base.shape, bool)
    cells[box] = _spread(lived > 0, ground.steps)
    ground.note(kind, frame, cells, parts=parts)


def _in_a_row(
    towns: list[NDArray], people: float, steps: tuple[int, int]
) -> tuple[NDArray, NDArray]:
    """Lay towns beside one another, apart, and joined by bridges of as many people in all."""
    height, gap = max(town.shape[0] for town in towns), GAP * steps[1]
    width = sum(town.shape[1] for town in towns) + gap * (len(towns) - 1)
    fine, left = np.zeros((height, width)), 0
    bridges = np.zeros((height // steps[0], width // steps[1]), bool)
    before = np.zeros((0, 2), np.int64)
    for town in towns:
        here = np.argwhere(_summed(town, steps) > 0) + np.array([0, left // steps[1]])
        fine[: town.shape[0], left : left + town.shape[1]] = town
        if len(before):
            apartness = ((before[:, None] - here[None]) ** 2).sum(-1)
            start, end = np.unravel_index(apartness.argmin(), apartness.shape)
            cells = np.abs(here[end] - before[start]).max() + 1
            line = np.rint(np.linspace(before[start], here[end], cells)).astype(np.int64)
            bridges[tuple(line[1:-1].T)] = True
        before, left = here, left + town.shape[1] + gap
    apart = _summed(fine, steps)
    bridges &= apart == 0
    spare = np.maximum(apart - people, 0)  # a cell keeps as many as one of the bridge has
    share = people * bridges.sum() / max(spare.sum(), people)
    kept = 1 - share * np.divide(spare, apart, out=np.zeros_like(apart), where=apart > 0)
    each = people / (steps[0] * steps[1])
    return fine, fine * _spread(kept, steps) + each * _spread(bridges, steps)


def _shift(ground: _Ground, kind: str, number: int, factor: float) -> None:
    """Build a town on free land, and move it by a cell or two from a frame on."""
    aside = zip(ground.rng.choice([-2, -1, 1, 2], 2), ground.steps, strict=True)
    dy, dx = (int(cells) * step for cells, step in aside)
    frame = ground.when()
    for _ in range(TRIES):
        town = np.pad(ground.copied(kind), [(2 * step, 2 * step) for step in ground.steps])
        box = ground.site(town.shape)
        if box is not None:
            break
    else:
        raise InputError(f"{kind}: no free land is left for a town; plant fewer events")
    moved = np.roll(town, (dy, dx), (0, 1))
    ground.mean[(slice(0, frame), *box)] += town
    ground.mean[(slice(frame, None), *box)] += moved
    cells = np.zeros(ground.base.shape, bool)
    cells[box] = _spread(_summed(town + moved, ground.steps) > 0, ground.steps)
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
