"""Events told of worlds in which it is known what happened, on the ground of real grids.

A world is a real raster that is drawn six times from Poisson's law. In the *null* world nothing
happens, and every event is invented; in the others events are planted. *towns* has births, deaths,
mergers and splits of towns, and growth × 1.25 or decline × 0.8 of their people; in *shift* towns
lie one or two cells aside from a frame on, which is none of these; in *half* the events are those
of *towns*, and the upper half of one frame has no data; in *communities* all cells of
communities grow or decline, and are found by the models of the null world, as in a job whose models
were fitted before; in *retrained* by a job's own, which draw other communities. Each table of
events is scored against the truth: an event is found if it is told in its frame at its place; all
else that is told is false, counted per 100 steps. What vanishes in the last frame is left out, as
it may come back. To communities events are growth or decline of their own people, where they are
large enough beside them (:func:`popdask.metrics.visible_events`), and right if told as such.

The plain rule is what one would write in ten lines: connected cells of 300 people per km² with
5,000 people, one place in two frames if they share a quarter of their cells, growth beyond 5 %.
Settings are the defaults, which were chosen on Oslo; Norway is where they are judged, and Belgium
and windows of 200 km of Norway are other ground. Not all of that is fresh: what happens over a gap
was mended while looking at *half* on Trondheim, Bergen, Oslo and Belgium, and what is planted while
looking at Stavanger and Trondheim.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path

import dask
import numpy as np
import pandas as pd
import rioxarray  # noqa: F401  registers DataArray.rio
import xarray as xr
from scipy import ndimage

from benchmarks.machine import Machine, Row, Spent, duration, in_child, measured
from popdask.blocks.sampling import domain
from popdask.config import load_job
from popdask.config.jobs import Classes, Communities, Links, SettlementLinks, Tracks
from popdask.errors import InputError
from popdask.io import open_frames
from popdask.io.cube import to_1km
from popdask.metrics import planted_scores, visible_events
from popdask.synthetic import PlantedWorld, planted
from popdask.tracking.autoencoder import FittedEncoder
from popdask.tracking.classify import ClassModel, classify, without_land
from popdask.tracking.dbscan import dbscan
from popdask.tracking.encoding import encode, stack_features
from popdask.tracking.flow import optical_flow
from popdask.tracking.link import compare_frames
from popdask.tracking.settlements import settlements
from popdask.tracking.tracks import EventRules, tracks
from popdask.workflow.communities import CommunitiesResult, run

QUEEN = np.ones((3, 3))
TOWN, MEMORY = 5000, 1  # people of a town; frames that one may be away for
FEW = {"grow": 4, "shrink": 4, "appear": 2, "vanish": 2, "merge": 2, "split": 3}
MANY = {"grow": 12, "shrink": 12, "appear": 6, "vanish": 6, "merge": 6, "split": 6}
SOME = {"grow": 2, "shrink": 2, "appear": 2, "vanish": 1, "merge": 2, "split": 2}
WORLDS = ("null", "towns", "shift", "half")
WINDOW = 100_000  # m to each side of a ground's centre
SMALL_TOWN = 2000  # people of a town in a window, which holds few of 5,000
LEAST = 1000  # people of a community that is made to grow or decline
Told = tuple[pd.DataFrame, xr.DataArray]
"""The table of events, and the labels that it speaks of."""

_JOB = """
name = "world"
pipeline = "communities"
[input]
frames = "world_{time:%Y}.tif"
[output]
store = "world.icechunk"
"""


@dataclass(frozen=True)
class Ground:
    """A raster that worlds stand on."""

    name: str
    path: str
    """Under POPDASK_DATA; empty for an invented one."""
    cells: int
    """The side in metres of the cells that its own are summed to."""
    events: Mapping[str, int]
    """Of its towns; empty where settlements are not scored."""
    communities: int
    """How many of them grow, and decline; 0 where their job is not run."""
    centre: tuple[int, int] | None = None
    """Of a window (x, y), in metres of the raster's plane; all of the raster without one."""

    @property
    def least(self) -> int:
        """The people of a town."""
        return SMALL_TOWN if self.centre else TOWN

    def read(self) -> xr.DataArray:
        """People per cell (y, x)."""
        if not self.path:
            return _invented()
        path = Path(os.environ.get("POPDASK_DATA", "")) / self.path
        if not path.is_file():
            raise InputError(
                f"{path} is not there; expected a raster of the people of 2019, as in the folder "
                "that POPDASK_DATA names; set it, or give --quick for an invented country"
            )
        people = open_frames({"2019": str(path)})["population"].isel(time=0, drop=True)
        if self.centre:
            x, y = self.centre
            people = people.sel(x=slice(x - WINDOW, x + WINDOW), y=slice(y + WINDOW, y - WINDOW))
        return _in_cells(people, self.cells).compute().rename("population")


NORWAY = "norway_250m/norway_pop_250m_2019.tif"
OSLO = "oslo_250m/oslo_pop_250m_2019.tif"
QUICK = (Ground("an invented country", "", 1000, {"grow": 2, "vanish": 1, "split": 2}, 0),)
GROUNDS = (
    Ground("Oslo, 1 km", OSLO, 1000, FEW, 0),
    Ground("Oslo, 250 m", OSLO, 250, {}, 12),
    Ground("Norway, 1 km", NORWAY, 1000, MANY, 12),
    Ground("Belgium, 1 km", "belgium_1km/POP.tif", 1000, MANY, 12),
    Ground("Bergen, 1 km", NORWAY, 1000, SOME, 0, (-32_000, 6_734_000)),
    Ground("Stavanger, 500 m", NORWAY, 500, SOME, 6, (-33_000, 6_574_000)),
    Ground("Trondheim, 250 m", NORWAY, 250, SOME, 0, (270_000, 7_041_000)),
)


def _in_cells(people: xr.DataArray, side: int) -> xr.DataArray:
    """Sum cells to larger ones, NaN where none has data; what fills none at the far sides goes."""
    if side == 1000:
        return to_1km(people)
    step = round(side / abs(people.rio.resolution()[0]))
    blocks = people.coarsen(y=step, x=step, boundary="trim")
    summed = blocks.sum().where(blocks.count() > 0)
    return summed.rio.write_crs(people.rio.crs)


@dataclass(frozen=True)
class Score:
    """What one method told of one world."""

    planted: int
    found: int
    false: int
    steps: int
    spent: Spent
    missed: tuple[str, ...] = ()
    """Kinds of events that were planted and not found, one for each."""
    visible: int = 0
    """Of the planted events, those that some community is sure to see as growth or decline,"""
    seen: int = 0
    """and those of them that were told as such."""


def rows(machine: Machine, *, quick: bool) -> Iterator[Row]:
    """Score settlements and communities beside the plain rule."""
    seeds, worlds = ((0,), WORLDS[:2]) if quick else ((0, 1), WORLDS)
    judge = scored if quick else partial(in_child, scored)
    for ground in QUICK if quick else GROUNDS:
        for world in worlds if ground.events else ():
            methods = ("settlements", "plain") if ground.cells == 1000 else ("settlements",)
            ours, *plain = (
                _added(judge(name, ground, world, seed) for seed in seeds) for name in methods
            )
            yield Row(
                f"events, {world}, settlements",
                f"{ground.name}, {len(seeds)} × 6 frames",
                said(ours),
                "".join(f"plain rule {said(other)}" for other in plain) or "–",
                also="; plain rule ".join(_cost(score) for score in (ours, *plain)),
            )
        told = ("null", "communities", "retrained", "towns")[: 4 if ground.events else 3]
        for world in told if ground.communities else ():
            ours = judge("communities", ground, world, 0)
            by_place = world in ("null", "communities")
            yield Row(
                f"events, {world}, communities",
                f"{ground.name}, 6 frames",
                said(ours) if by_place else _visible(ours),
                also=f"{_cost(ours)}; {_visible(ours)}" if by_place else _cost(ours),
            )


def scored(name: str, ground: Ground, kind: str, seed: int) -> Score:
    """Draw a world, let a method tell its events, and score them."""
    people = ground.read()
    with dask.config.set(scheduler="sync"):
        if kind in ("communities", "retrained"):
            return _of_communities(people, ground, seed, retrained=kind == "retrained")
        few = 3 if ground.centre else 6
        events = {"null": {}, "shift": {"shift": few}}.get(kind, ground.events)
        world = planted(people, seed, events=events, min_people=ground.least)
        if name == "communities":
            return _score_communities(by_communities, world)
        method = partial(METHODS[name], least=ground.least)
        method(planted(_invented(), frames=3, events={"grow": 1}))  # to compile it
        if kind == "half":
            world.population[len(world.population) // 2, : people.sizes["y"] // 2] = np.nan
        return _score(method, world)


def _score(method: Callable[[PlantedWorld], Told], world: PlantedWorld) -> Score:
    (told, labels), spent = measured(lambda: method(world))
    where = world.events, world.places
    scores = planted_scores(told, labels, *where, memory=MEMORY, population=world.population)
    found = scores.planted["found"]
    counts = len(found), int(found.sum()), len(scores.false), scores.steps
    return Score(*counts, spent, tuple(scores.planted["event"][~found]))


def _score_communities(method: Callable[[PlantedWorld], Told], world: PlantedWorld) -> Score:
    """Score what communities tell: the planted events, and what they are to a community."""
    (told, labels), spent = measured(lambda: method(world))
    scores = planted_scores(told, labels, world.events, world.places, memory=MEMORY)
    visible = visible_events(labels, world.expected, world.events, world.places)
    truth = pd.concat([world.events, visible], ignore_index=True)
    both = planted_scores(told, labels, truth, world.places, memory=MEMORY)
    sure = both.planted[both.planted["sure"].eq(True)].groupby("planted")["found"].any()
    found = scores.planted["found"]
    counts = len(found), int(found.sum()), len(both.false), scores.steps
    missed = tuple(scores.planted["event"][~found])
    return Score(*counts, spent, missed, len(sure), int(sure.sum()))


def _of_communities(people: xr.DataArray, ground: Ground, seed: int, *, retrained: bool) -> Score:
    """Let communities of the null world grow and decline; find them by its models, or others."""
    null = planted(people, seed, events={})
    with tempfile.TemporaryDirectory() as folder:
        outcome = _run(null, Path(folder))
        encoder = FittedEncoder.from_bytes(outcome.store.file("encoder-shared.safetensors"))
        model = ClassModel.from_bytes(outcome.store.file("classifier-shared.safetensors"))
        labels = outcome.store.dataset()["community"].compute()
    events = {"grow": ground.communities, "shrink": ground.communities}
    world = planted(people, seed, events=events, towns=_populous(labels, people))
    if retrained:
        return _score_communities(by_communities, world)
    return _score_communities(lambda world: by_models(world, encoder, model), world)


def by_settlements(world: PlantedWorld, least: int = TOWN) -> Told:
    """Settlements of so many people and more, links by people in common, tracks."""
    population = world.population.chunk(time=1)
    labels = settlements(population, min_people=least).compute()
    chosen = SettlementLinks().model_dump() | {"rule": "overlap", "memory": MEMORY}
    links, ends = compare_frames(labels.chunk(time=1), population, similarity=False, **chosen)
    rules = EventRules(min_people=least)
    table = listed(labels, world.population)
    when = labels["time"].values
    return tracks(links, table, rules=rules, ends=ends, memory=MEMORY, times=when), labels


def by_communities(world: PlantedWorld) -> Told:
    """The communities job with all its defaults."""
    with tempfile.TemporaryDirectory() as folder:
        outcome = _run(world, Path(folder))
        labels = outcome.store.dataset()["community"].compute()
    return outcome.tracks, labels.assign_coords(x=world.places["x"], y=world.places["y"])


def _run(world: PlantedWorld, folder: Path) -> CommunitiesResult:
    """Run a job without settings on the frames."""
    return run(load_job(write_job(world.population, folder)))


def write_job(population: xr.DataArray, folder: Path) -> Path:
    """Write frames, and a communities job without settings."""
    for frame in population:
        year = frame["time"].dt.year.item()
        frame.drop_vars("time").rio.to_raster(folder / f"world_{year}.tif")
    path = folder / "job.toml"
    path.write_text(_JOB)
    return path


def by_models(world: PlantedWorld, encoder: FittedEncoder, model: ClassModel) -> Told:
    """The stages of the communities job, with its defaults, behind the fitted models."""
    population = world.population.chunk(time=1)
    communities, linking, following = Communities(), Links(), Tracks()
    features = stack_features(population, optical_flow(population))
    latent = encode(features, encoder, mask=domain(population, "settled"))
    classes = classify(latent, model, hold=Classes().hold)
    places = without_land(classes, model, communities.min_density)
    grouping = {"eps": float(communities.eps), "min_samples": communities.min_samples}
    labels = dbscan(places, **grouping).compute()
    memory = following.memory
    chosen = linking.model_dump(include={"rule", "share", "displaced"}) | {"memory": memory}
    links, ends = compare_frames(labels.chunk(time=1), population, **chosen)
    table, when = listed(labels, world.population), labels["time"].values
    rules = EventRules(**following.rules)
    return tracks(links, table, rules=rules, ends=ends, memory=memory, times=when), labels


def by_plain_rule(world: PlantedWorld, least: int = TOWN) -> Told:
    """Towns by their density, overlaps of a quarter of the cells, growth beyond 5 %."""
    cube, when = np.nan_to_num(world.population.values), world.population["time"].values
    labels = [_towns(frame, least) for frame in cube]
    people = [np.bincount(one[one >= 0], f[one >= 0]) for one, f in zip(labels, cube, strict=True)]
    track, rows = np.arange(len(people[0])), list[tuple[object, int, int, str]]()
    rows += [(when[0], n, n, "appear") for n in track]
    count = len(track)
    for t, (a, b) in enumerate(pairwise(labels)):
        pairs = _overlaps(a, b)
        after, before = (np.bincount(pairs[:, i], minlength=len(people[t + i])) for i in (0, 1))
        follows = np.full(len(people[t + 1]), -1)
        for source, target in pairs:
            follows[target] = source
        alone = (follows < 0) | (after[follows] > 1) | (before > 1)
        following = np.where(alone, count + np.cumsum(alone) - 1, track[follows])
        count += int(alone.sum())
        rows += [(when[t], n, track[n], "vanish") for n in np.flatnonzero(after == 0)]
        for n, source in enumerate(follows):
            change = people[t + 1][n] / people[t][source] - 1 if not alone[n] else 0.0
            grown = "grow" if change > 0.05 else "shrink" if change < -0.05 else "continue"
            parted = "split" if after[source] > 1 else grown
            event = "appear" if source < 0 else "merge" if before[n] > 1 else parted
            rows.append((when[t + 1], n, following[n], event))
        track = following
    told = pd.DataFrame(rows, columns=["time", "community", "track", "event"])
    return told, world.population.copy(data=np.stack(labels)).rename("town")


METHODS: Mapping[str, Callable[..., Told]] = {
    "settlements": by_settlements,
    "plain": by_plain_rule,
}


def _towns(people: np.ndarray, least: int) -> np.ndarray:
    """Label cells of 1 km with 300 people that touch, of so many together; −1 = none."""
    labels, count = ndimage.label(people >= 300, QUEEN)
    enough = np.bincount(labels.ravel(), people.ravel(), count + 1) >= least
    enough[0] = False
    return np.where(enough, np.cumsum(enough) - 1, -1)[labels]


def _overlaps(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Pairs of towns that share a quarter of the cells of one of them, (n, 2)."""
    both = (before >= 0) & (after >= 0)
    pairs, shared = np.unique(
        np.stack([before[both], after[both]], axis=1), axis=0, return_counts=True
    )
    cells = [np.bincount(one[one >= 0])[pairs[:, i]] for i, one in enumerate((before, after))]
    found: np.ndarray = pairs[shared >= 0.25 * np.minimum(*cells)]
    return found


def listed(labels: xr.DataArray, population: xr.DataArray) -> pd.DataFrame:
    """The people of every label of every frame."""
    tables = []
    for label, people in zip(labels, population, strict=True):
        inside = label.values >= 0
        sums = np.bincount(label.values[inside], np.nan_to_num(people.values[inside]))
        listed = {"community": np.arange(len(sums)), "population": sums}
        tables.append(pd.DataFrame({"time": label["time"].values, **listed}))
    return pd.concat(tables, ignore_index=True)


def _populous(labels: xr.DataArray, people: xr.DataArray) -> xr.DataArray:
    """The communities of the first frame that have enough people, numbered from 0; −1 = none."""
    first = labels[0].values
    sums = np.bincount(first[first >= 0], np.nan_to_num(people.values[first >= 0]))
    enough = np.append(sums >= LEAST, False)  # the last is that of −1
    return people.copy(data=np.where(enough, np.cumsum(enough) - 1, -1)[first])


def _added(scores: Iterator[Score]) -> Score:
    """Add up the scores of some seeds; memory is the largest."""
    every = list(scores)
    spent = Spent(
        sum(s.spent.cpu for s in every),
        sum(s.spent.wall for s in every),
        max(s.spent.peak for s in every),
    )
    counts = [sum(getattr(s, n) for s in every) for n in ("planted", "found", "false", "steps")]
    return Score(*counts, spent, tuple(kind for s in every for kind in s.missed))


def said(score: Score) -> str:
    """Recall and false events, in words."""
    false = f"{100 * score.false / max(score.steps, 1):.2f} false per 100 steps"
    if not score.planted:
        return false
    missed = f" (missed {', '.join(sorted(score.missed))})" if score.missed else ""
    return f"recall {score.found / score.planted:.2f}{missed}, {false}"


def _visible(score: Score) -> str:
    seen = f"of {score.visible} events that communities are sure to see, {score.seen} are told"
    return f"{seen}, {100 * score.false / max(score.steps, 1):.2f} false per 100 steps"


def _cost(score: Score) -> str:
    """Time, memory, and how much there was to be told."""
    steps = f"{score.found} of {score.planted} events, {score.steps:,} steps"
    return f"{steps}, {duration(score.spent.cpu)}, {score.spent.peak / 2**20:.0f} MiB"


def _invented() -> xr.DataArray:
    """Twelve towns of 5 × 5 cells of 1 km on thinly settled land."""
    people = np.full((140, 150), 8.0)
    for row, column in np.ndindex(3, 4):
        people[10 + 15 * row :, 10 + 15 * column :][:5, :5] = 600 + 100 * row
    y, x = 1e6 - 1000.0 * np.arange(140), 5e5 + 1000.0 * np.arange(150)
    return xr.DataArray(people, {"y": y, "x": x}, ("y", "x"), "population").rio.write_crs(25833)
