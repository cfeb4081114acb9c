"""How right communities are: against true cities, their events against true events.

Communities are found per class, so a city is a core with rings around it, each a community of its
own. Found and true events can only be compared once it is said which community stands for a city.
That is its *core*: among the communities that belong to the city (they share more people with it
than with any other city), the one that holds most of the people of the city's *heart*, the densest
cells in which half of its people live. The choice looks at a single frame, at people and labels
only; it never sees an event, so it cannot flatter the tracker. What happens in rings, or between a
core and its rings, is not judged, and :func:`city_events` says how much that is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from sklearn.metrics import adjusted_rand_score

from popdask.errors import InputError
from popdask.metrics.estimates import same_shape

EVENTS = ("appear", "continue", "grow", "shrink", "split", "merge", "vanish")


def label_agreement(community: xr.DataArray, labels: xr.DataArray) -> float:
    """Return the adjusted Rand index between communities and true labels.

    Cells outside both (-1 in both) are left out: they are most of a map and agree for free. Labels
    are compared frame by frame, as numbers of communities mean nothing across frames.

    Parameters
    ----------
    community, labels
        Integers (time, y, x) or (y, x), -1 outside.

    Returns
    -------
    float
        1 for the same partition, about 0 for a random one, the mean over the frames which have
        a label in either; NaN if none has.

    References
    ----------
    Hubert, L., Arabie, P. (1985). Comparing partitions. Journal of Classification 2, 193-218.

    Examples
    --------
    >>> label_agreement([[0, 0, 1, -1]], [[5, 5, 3, -1]])
    1.0
    """
    found, true = np.asarray(community), np.asarray(labels)
    same_shape(community=found, labels=true)
    found, true = (array.reshape(-1, *array.shape[-2:]) for array in (found, true))
    scores = [
        adjusted_rand_score(b[inside], a[inside])
        for a, b in zip(found, true, strict=True)
        if (inside := (a >= 0) | (b >= 0)).any()
    ]
    return float(np.mean(scores)) if scores else float("nan")


def match_cities(
    community: xr.DataArray, labels: xr.DataArray, population: xr.DataArray, *, heart: float = 0.5
) -> pd.DataFrame:
    """Say which true city each community belongs to, and which community is a city's core.

    Parameters
    ----------
    community, labels
        Found communities and true cities, integers (time, y, x), -1 outside.
    population
        People per cell (time, y, x), NaN = no data; loaded into memory.
    heart
        The share of a city's people who live in its heart, the densest cells.

    Returns
    -------
    pandas.DataFrame
        One row per time and community that shares people with a city: time, community, city,
        people (shared with that city), core (whether it stands for the city in that frame).

    Examples
    --------
    >>> from popdask.synthetic import moving_cities
    >>> world = moving_cities(frames=6)
    >>> match = match_cities(world.labels, world.labels, world.population.population)
    >>> bool((match["community"] == match["city"]).all())
    True
    """
    if not 0 < heart <= 1:
        raise InputError(f"heart is {heart}, but it is a share of a city's people: give 0 to 1")
    same_shape(community=community, labels=labels, population=population)
    found, true = community.values, labels.values
    people = np.nan_to_num(population.values.astype(np.float64))
    frames = []
    for index, time in enumerate(np.atleast_1d(population.time.values)):
        shared = _shared(found[index], true[index], people[index], heart)
        frames.append(shared.assign(time=time))
    columns = ["time", "community", "city", "people", "core"]
    return pd.concat(frames, ignore_index=True)[columns]


def _shared(found: np.ndarray, true: np.ndarray, people: np.ndarray, heart: float) -> pd.DataFrame:
    """Match the communities of one frame."""
    both = (found >= 0) & (true >= 0) & (people > 0)
    cells = pd.DataFrame({"community": found[both], "city": true[both], "people": people[both]})
    cells["heart"] = cells["people"] * _in_heart(true, people, heart)[both]
    shared = cells.groupby(["community", "city"], as_index=False)[["people", "heart"]].sum()
    # Ties go to the lowest number, as everywhere.
    shared = shared.sort_values(["people", "city"], ascending=[False, True], kind="stable")
    shared = shared.drop_duplicates("community").sort_values("community")
    best = shared.sort_values(["heart", "people"], ascending=False, kind="stable")
    core = best.drop_duplicates("city").index
    return shared.assign(core=shared.index.isin(core)).drop(columns="heart")


def _in_heart(true: np.ndarray, people: np.ndarray, heart: float) -> np.ndarray:
    """Mark the densest cells of every city that together hold a share of its people."""
    cells = pd.DataFrame({"city": true[true >= 0], "people": people[true >= 0]})
    dense = cells.sort_values("people", ascending=False, kind="stable")
    by_city = dense.groupby("city")["people"]
    inside = by_city.cumsum() - dense["people"] < heart * by_city.transform("sum")
    marked = np.zeros(true.shape, bool)
    marked[true >= 0] = inside.sort_index().to_numpy()
    return marked


def city_events(tracks: pd.DataFrame, match: pd.DataFrame) -> pd.DataFrame:
    """Translate events of communities into events of the cities they are the core of.

    Only what happens among cores counts: a split is one of cities if the pieces of a core are the
    cores of several cities, a merger if a core comes from the cores of several. A core that gives
    cells to a ring of its own city, or takes them back, does not split or merge the city.

    Parameters
    ----------
    tracks
        The table of :func:`popdask.tracking.tracks.tracks`: time, community, track, parent, event.
    match
        The table of :func:`match_cities`.

    Returns
    -------
    pandas.DataFrame
        time, track (the city's number), event, one row per event of a city. Its ``attrs`` count
        what is not judged: ``"rings"``, events of other communities of a city; ``"within"``,
        splits and mergers of a core with rings; and ``"elsewhere"``, events of communities that
        share nobody with any city.

    Examples
    --------
    >>> from popdask.synthetic import moving_cities
    >>> world = moving_cities(frames=6)
    >>> match = match_cities(world.labels, world.labels, world.population.population)
    >>> len(city_events(world.truth, match)) > 0
    True
    """
    rows = tracks.merge(match[["time", "community", "city", "core"]], how="left")
    cores = rows[rows["core"].eq(True)].astype({"city": np.int64})
    among = _among_cores(cores, np.searchsorted(np.unique(tracks["time"]), cores["time"]))
    events = cores.loc[among, ["time", "city", "event"]].rename(columns={"city": "track"})
    events = events.drop_duplicates().reset_index(drop=True)
    elsewhere, within = int(rows["city"].isna().sum()), int((~among).sum())
    rings = len(rows) - len(cores) - elsewhere
    events.attrs = {"rings": rings, "within": within, "elsewhere": elsewhere}
    return events


def _among_cores(cores: pd.DataFrame, frame: np.ndarray) -> np.ndarray:
    """Distinguish events of cities from splits and mergers within one, for each row."""
    city = dict(zip(zip(frame, cores["track"], strict=True), cores["city"], strict=True))
    # The cities whose cores a core comes from, and those whose cores come from one.
    sources = [
        {city[t - 1, parent] for parent in parents if (t - 1, parent) in city}
        for t, parents in zip(frame, cores["parent"], strict=True)
    ]
    pieces: dict[tuple[int, int], set[int]] = {}
    for t, target, origins in zip(frame, cores["city"], sources, strict=True):
        for origin in origins:
            pieces.setdefault((t, origin), set()).add(target)
    split = [
        any(len(pieces[t, origin]) > 1 for origin in origins)
        for t, origins in zip(frame, sources, strict=True)
    ]
    merged = [len(origins) > 1 for origins in sources]
    kind = cores["event"].to_numpy(dtype=str)
    return ((kind != "split") | np.array(split)) & ((kind != "merge") | np.array(merged))


def event_scores(
    found: pd.DataFrame,
    truth: pd.DataFrame,
    *,
    tolerance: int = 0,
    times: Sequence[Any] | None = None,
    kinds: Sequence[str] = EVENTS,
) -> pd.DataFrame:
    """Compare found events of cities with the true ones, kind by kind.

    A true event is recalled if the same city has an event of that kind at most ``tolerance``
    frames away; each found event answers for one true event only, the nearest. Appearances in the
    first frame are left out on both sides: that is where the record starts, not where cities do.

    Parameters
    ----------
    found, truth
        Tables with time, track (the city's number) and event, for instance from
        :func:`city_events` and :attr:`popdask.synthetic.World.truth`.
    tolerance
        How many frames early or late an event may be.
    times
        The times of all frames; None takes those which appear in either table.
    kinds
        The events to compare, in the order of the answer's rows.

    Returns
    -------
    pandas.DataFrame
        Indexed by event: true, found, matched (counts), recall = matched / true and
        precision = matched / found, NaN where there is nothing to divide by.

    Examples
    --------
    >>> truth = pd.DataFrame({"time": [1, 2, 3], "track": 0, "event": ["grow", "split", "grow"]})
    >>> found = pd.DataFrame({"time": [1, 3, 3], "track": 0, "event": ["grow", "split", "merge"]})
    >>> event_scores(found, truth, tolerance=1, times=[0, 1, 2, 3], kinds=["grow", "split"])
    ... # doctest: +NORMALIZE_WHITESPACE
           true  found  matched  recall  precision
    event
    grow      2      1        1     0.5        1.0
    split     1      1        1     1.0        1.0
    """
    if tolerance < 0:
        raise InputError(f"tolerance is {tolerance} frames, but it cannot be negative: give 0 or 1")
    if times is None:
        times = pd.concat([found["time"], truth["time"]]).unique()
    frames = pd.Series(range(len(times)), index=pd.Index(times).sort_values())
    tables = [_by_city(table, frames) for table in (truth, found)]
    rows = []
    for kind in kinds:
        true, seen = ({c: f[kind] for c, f in table.items() if kind in f} for table in tables)
        matched = sum(_pairs(true[city], seen.get(city, []), tolerance) for city in true)
        n_true, n_seen = (sum(map(len, events.values())) for events in (true, seen))
        rows.append(
            (kind, n_true, n_seen, matched, _ratio(matched, n_true), _ratio(matched, n_seen))
        )
    columns = ["event", "true", "found", "matched", "recall", "precision"]
    return pd.DataFrame(rows, columns=columns).set_index("event")


def _by_city(table: pd.DataFrame, frames: pd.Series) -> dict[Any, dict[str, list[int]]]:
    """Frames of the distinct events, by city and kind, in ascending order."""
    events = table[["time", "track", "event"]].drop_duplicates()
    frame = events["time"].map(frames)
    if frame.isna().any():
        raise InputError(
            f"an event is at {events['time'][frame.isna()].iloc[0]}, which is not among the times "
            "of the frames: give the times of all frames"
        )
    events = events.assign(frame=frame)[(frame > 0) | (events["event"] != "appear")]
    by_city: dict[Any, dict[str, list[int]]] = {}
    for (city, kind), group in events.groupby(["track", "event"]):
        by_city.setdefault(city, {})[str(kind)] = sorted(group["frame"])
    return by_city


def _pairs(true: list[int], found: list[int], tolerance: int) -> int:
    """Count the pairs of a greedy matching in time, which is the largest one on a line."""
    pairs, i, j = 0, 0, 0
    while i < len(true) and j < len(found):
        if abs(true[i] - found[j]) <= tolerance:
            pairs, i, j = pairs + 1, i + 1, j + 1
        elif true[i] < found[j]:
            i += 1
        else:
            j += 1
    return pairs


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else float("nan")
