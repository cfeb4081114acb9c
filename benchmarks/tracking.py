"""From people per cell to tracks, beside tobac, marEx and plain scipy.ndimage.

The cube is crowded: every 24 × 40 cells tell one story (a city stays, moves, appears, vanishes,
splits, or two merge), so it is known which event happens where and when. Every method runs in a
process of its own and reports its events as (frame, event, place); an event is found if the same
story has it in the same frame. Peers live in an environment of their own (``benchmarks/peers.txt``,
``make bench`` makes it), as forty packages for two rows of a table do not belong into popdask's.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.identities import Objects, scores
from benchmarks.machine import Machine, Row, duration, times
from benchmarks.trackers import THRESHOLD
from popdask.synthetic import City, World

HOME = Path(__file__).resolve().parent.parent
PEERS = HOME / ".venv-peers" / "bin" / "python"
NAMES = {"plain": "scipy.ndimage.label", "tobac": "tobac", "marex": "marEx"}
EVENTS = ("appear", "vanish", "split", "merge")
SLOT = (24, 40)  # cells of the map for one story
FRAMES = 12
STORIES = ("stay", "move", *EVENTS)
DENSITY = 700  # people in a city's middle cell
MEAN_HEIGHT = 8 / 15  # of a city's height over its disc


def rows(machine: Machine, *, quick: bool) -> Iterator[Row]:
    """Compare with each peer that is installed."""
    for side in (96,) if quick else (600, 1800):
        world = crowd((side, side))
        with tempfile.TemporaryDirectory() as folder:
            cube = Path(folder) / "cube.npy"
            np.save(cube, world.population["population"].values)
            peers = ("tobac", "marex") if PEERS.exists() else ()
            peers = peers[:1] if side > 600 else peers  # marEx: half a minute at 600 already
            told = {name: track(name, cube) for name in ("popdask", "plain", *peers)}
            kept = {name: identities(world, told[name], cube) for name in told}
        true = truth(world)
        ours = told.pop("popdask")
        verdict = judge(ours["events"], true) + kept["popdask"]
        for name, theirs in told.items():
            yield Row(
                "tracking",
                f"{side} × {side} × {FRAMES}, {len(world.cities)} cities",
                duration(ours["cpu"]),
                f"{NAMES[name]} {duration(theirs['cpu'])}",
                times(theirs["cpu"] / ours["cpu"]),
                also=f"{verdict}, {ours['peak'] / 2**20:.0f} MiB; "
                f"peer {judge(theirs['events'], true)}{kept[name]}, "
                f"{theirs['peak'] / 2**20:.0f} MiB",
            )


def track(name: str, cube: Path) -> dict[str, Any]:
    """Run one method in its own interpreter; its events, time and memory."""
    python = str(PEERS) if name in ("tobac", "marex") else sys.executable
    result = cube.with_name(f"{name}.json")
    command = [python, "-W", "ignore", "-m", "benchmarks.trackers", name, str(cube), str(result)]
    done = subprocess.run(command, cwd=HOME, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{name} failed:\n{done.stderr[-2000:]}")
    return json.loads(result.read_text()) | {"numbers": result.with_suffix(".numbers.npy")}


def identities(world: World, told: dict[str, Any], cube: Path) -> str:
    """Score the numbers of a tracker's objects, in words."""
    dense = np.load(cube) > THRESHOLD
    true = Objects.of(np.where(dense, world.labels.values + 1, 0), truth(world), SLOT)
    found = Objects.of(np.load(told["numbers"]), happened(told["events"]), SLOT)
    return "".join(f", {name} {score:.3f}" for name, score in scores(true, found).items())


def judge(found: list[Any], truth: set[Any]) -> str:
    """Recall and precision over all events, and those of the kinds that are not perfect."""
    seen = happened(found)
    words = [_score("all", seen, truth)]
    for event in EVENTS:
        some, true = ({e for e in events if e[1] == event} for events in (seen, truth))
        if some != true:
            words.append(_score(event, some, true))
    return ", ".join(words)


def _score(what: str, seen: set[Any], truth: set[Any]) -> str:
    both = len(seen & truth)
    recall, precision = both / max(len(truth), 1), both / max(len(seen), 1)
    return f"{what} {recall:.0%}/{precision:.0%}"


def happened(events: Any) -> set[tuple[int, str, int, int]]:
    """Name events by frame, kind and story; the record's start and end are nobody's events."""
    return {
        (frame, event, int(row // SLOT[0]), int(column // SLOT[1]))
        for frame, event, row, column in events
        if event in EVENTS and (frame > 0 or event != "appear")
    }


def truth(world: World) -> set[tuple[int, str, int, int]]:
    """Name the true events of a crowd."""
    events = world.truth
    frame = events["time"].dt.year - world.first_year
    return happened(zip(frame, events["event"], events["row"], events["column"], strict=True))


def crowd(shape: tuple[int, int], seed: int = 0) -> World:
    """Draw a map crowded with cities, one story in each slot."""
    rng = np.random.default_rng(seed)
    slots = list(np.ndindex(shape[0] // SLOT[0], shape[1] // SLOT[1]))
    cities: list[City] = []
    for slot, number in zip(slots, rng.permutation(len(slots)), strict=True):
        middle = (np.array(slot) + 0.5) * SLOT
        cities += _story(rng, STORIES[number % len(STORIES)], middle, len(cities))
    return World(tuple(cities), shape, FRAMES)


def _story(rng: np.random.Generator, what: str, middle: np.ndarray, first: int) -> list[City]:
    """Tell one story; what happens in it happens in a frame that is neither first nor last."""
    when, step = int(rng.integers(2, FRAMES - 1)), rng.uniform(-1, 1, 2) * (0.3, 0.8)
    small, wide = (6.0, 6.0), (6.0, 14.5)
    left, right = (middle + np.array([0, away]) for away in (-8.5, 8.5))
    if what in ("split", "merge"):
        one = [(middle, wide)] * when
        two = [(left, small)] * (FRAMES - when)
        if what == "split":
            return [
                _city(first, one + two),
                _city(first + 1, [(right, small)] * len(two), start=when, split_from=first),
            ]
        two, one = [(left, small)] * when, [(middle, wide)] * (FRAMES - when)
        return [
            _city(first, two + one),
            _city(first + 1, [(right, small)] * len(two), merges_into=first),
        ]
    path = [(middle + (step if what == "move" else 0) * (t - 5.5), small) for t in range(FRAMES)]
    if what == "appear":
        return [_city(first, path[when:], start=when)]
    return [_city(first, path[:when] if what == "vanish" else path)]


def _city(track: int, life: list[tuple[np.ndarray, tuple[float, float]]], **told: Any) -> City:
    return City(
        track,
        centres=tuple((float(y), float(x)) for (y, x), _ in life),
        people=tuple(round(MEAN_HEIGHT * np.pi * DENSITY * ry * rx) for _, (ry, rx) in life),
        radii=tuple(radii for _, radii in life),
        **told,
    )
