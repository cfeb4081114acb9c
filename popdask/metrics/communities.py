"""How right communities are against true cities, and events against true events.

Communities are found per class, so a city is a core with rings around it, each a community of its
own. Found and true events can only be compared once it is said which community stands for a city.
That is its *core*: among the communities that belong to the city (they share more people with it
than with any other city), the one that holds most of the people of the city's *heart*, the densest
cells in which half of its people live. The choice looks at a single frame, at people and labels
only; it never sees an event, so it cannot flatter the tracker. What happens in rings, or between a
core and its rings, is not judged, and :func:`city_events` says how much that is.

A reported event is right if an event of its kind was planted in its frame at its place, which is
read from the map of places: the cells of the community that it is told of must touch it, or those
of one that it comes from (a community whose town has died lies elsewhere now). Every other reported
event is false. How many there are depends on how much there was to see, so they are counted per 100
*steps*, a step being a community that is present in two successive frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from popdask.errors import InputError
from popdask.metrics.estimates import ratio, same_shape

EVENTS = ("appear", "continue", "grow", "shrink", "split", "merge", "vanish")
KINDS = ("grow", "shrink", "appear", "vanish", "merge", "split")
ROUNDING = 1e-6  # people: what float64 leaves where some come and as many go


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
    from sklearn.metrics import adjusted_rand_score

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
        rows.append((kind, n_true, n_seen, matched, ratio(matched, n_true), ratio(matched, n_seen)))
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


@dataclass(frozen=True, eq=False)
class PlantedScores:
    """Reported events against planted ones.

    Examples
    --------
    >>> empty = pd.DataFrame({"planted": [], "found": []})
    >>> PlantedScores(empty, empty, empty, steps=100).steps
    100
    """

    kinds: pd.DataFrame
    """Indexed by event: ``planted``, ``found`` (counts), ``recall`` (NaN where none was planted),
    ``false`` (reported, but not planted)."""

    planted: pd.DataFrame
    """The planted events of these kinds that a table can show, with ``found`` (bool)."""

    false: pd.DataFrame
    """The rows of the table of tracks of what did not happen."""

    steps: int
    """How often a community was there in two successive frames."""

    @property
    def recall(self) -> float:
        """The share of planted events that were found; NaN if none was planted."""
        return float(self.planted["found"].mean()) if len(self.planted) else float("nan")

    @property
    def false_per_100(self) -> float:
        """False events per 100 steps; NaN without steps."""
        return 100 * len(self.false) / self.steps if self.steps else float("nan")


def planted_scores(
    tracks: pd.DataFrame,
    community: xr.DataArray,
    events: pd.DataFrame,
    places: xr.DataArray,
    *,
    tolerance: int = 0,
    memory: int = 0,
    population: xr.DataArray | None = None,
    kinds: Sequence[str] = KINDS,
) -> PlantedScores:
    """Score a table of tracks against planted events.

    Parameters
    ----------
    tracks : DataFrame
        time, community, track, event, as :func:`popdask.tracking.tracks.tracks` gives them, and
        parent and gap where they are told. A vanish row has the time of last presence, and tells
        of the frame after it.
    community : DataArray of int, (time, y, x)
        The cells of the communities (or settlements) in the table, −1 outside.
    events, places
        Of a :class:`popdask.synthetic.PlantedWorld`, or alike.
    tolerance : int, optional
        How many frames early or late an event may be told.
    memory : int, optional
        For how many frames a community may be away, as it was given to `tracks`. What is gone in
        the last so many frames may come back, and no table can tell yet that it vanished: those
        planted events are left out.
    population : DataArray, (time, y, x), optional
        People per cell, NaN = no data. What happens while most of a place has no data shows in the
        first frame in which at least half of the place has data; if there is none, it is left out.
    kinds : sequence of str, optional
        What counts as an event.

    Returns
    -------
    PlantedScores

    Raises
    ------
    InputError
        If a time in the table is not among those of `community`, or the grids differ.

    Notes
    -----
    In the first frame everything appears, which is neither right nor false. Several rows that tell
    of the same planted event (the pieces of a split) are all right. A row behind a gap compares
    with the frame before it, and is right if the event was in any frame since.

    Examples
    --------
    >>> tracks = pd.DataFrame({"time": [0, 1], "community": 0, "track": 0})
    >>> tracks["event"] = ["appear", "grow"]
    >>> places = xr.DataArray([[0, 0, -1]], dims=("y", "x"))
    >>> community = places.expand_dims(time=[0, 1])
    >>> events = pd.DataFrame({"frame": [1], "event": ["grow"], "place": [0]})
    >>> scores = planted_scores(tracks, community, events, places)
    >>> scores.recall, scores.false_per_100, scores.steps
    (1.0, 0.0, 1)
    """
    same_shape(community=community[0], places=places)
    frame = pd.Series(range(community.sizes["time"]), index=pd.Index(community["time"].values))
    reported = tracks[tracks["event"].isin(kinds)]
    at = reported["time"].map(frame)
    if at.isna().any():
        raise InputError(
            f"an event is of {reported['time'][at.isna()].iloc[0]}, which is not among the times "
            "of the communities: give the labels of all frames"
        )
    reported = reported.assign(
        labelled=at.astype(int),
        frame=at.astype(int) + (reported["event"] == "vanish"),
        gap=reported.get("gap", 0),
    )
    reported = reported[(reported["frame"] > 0) | (reported["event"] != "appear")]
    planted = events[events["event"].isin(kinds) & (events["place"] >= 0)].reset_index(drop=True)
    if population is not None:
        reported, planted = _when_shown(reported, planted, community, places, population)
    is_open = (planted["event"] == "vanish") & (planted["frame"] >= len(frame) - memory)
    planted = planted[~is_open & (planted["frame"] < len(frame))].reset_index(drop=True)
    touched = _touched(community, places)
    inherited = _inherited(reported, tracks.assign(labelled=tracks["time"].map(frame)), touched)
    pairs = _matches(reported, touched, inherited, planted, tolerance)
    planted = planted.assign(found=planted.index.isin(pairs["planted"]))
    false = reported[~reported.index.isin(pairs["row"])].drop(columns="labelled")
    return PlantedScores(_by_kind(planted, false, kinds), planted, false, _steps(tracks, frame))


def _when_shown(
    reported: pd.DataFrame,
    planted: pd.DataFrame,
    community: xr.DataArray,
    places: xr.DataArray,
    population: xr.DataArray,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Move what is planted, and who is gone, to the first frame that has data at its place."""
    known = np.isfinite(population.values)

    def shown(frame: int, cells: np.ndarray) -> int:
        while frame < len(known) and known[frame][cells].mean() < 0.5:
            frame += 1
        return frame

    labels, place = community.values, places.values
    gone = reported["frame"].to_numpy(dtype=np.int64, copy=True)
    where = reported[["labelled", "community"]].to_numpy(dtype=np.int64)
    for i in np.flatnonzero(reported["event"] == "vanish"):
        gone[i] = shown(gone[i], labels[where[i, 0]] == where[i, 1])
    events = planted[["frame", "place"]].to_numpy(dtype=np.int64)
    when = np.array([shown(frame, place == number) for frame, number in events], np.int64)
    return reported.assign(frame=gone), planted.assign(frame=when)


def _touched(community: xr.DataArray, places: xr.DataArray) -> pd.DataFrame:
    """List the places that each community of each frame touches: labelled, community, place."""
    inside = places.values >= 0
    place = places.values[inside]
    rows = []
    for labelled, labels in enumerate(community.values):
        pairs = np.stack([labels[inside], place])[:, labels[inside] >= 0]
        rows.append([np.full(pairs.shape[1], labelled), *pairs])
    columns = np.concatenate(rows, axis=1) if rows else np.empty((3, 0), int)
    touched = pd.DataFrame(columns.T, columns=["labelled", "community", "place"])
    return touched.drop_duplicates()


def _inherited(reported: pd.DataFrame, tracks: pd.DataFrame, touched: pd.DataFrame) -> pd.DataFrame:
    """List the places that the parents of a reported event touched when last there: row, place."""
    if "parent" not in reported:
        return pd.DataFrame({"row": [], "place": []}, dtype=np.int64)
    parents = reported[reported["event"] != "vanish"].explode("parent").dropna(subset="parent")
    parents = parents.assign(row=parents.index)[["row", "labelled", "parent"]].astype(np.int64)
    parents = parents.rename(columns={"labelled": "told"})
    numbers = tracks[["labelled", "community", "track"]].drop_duplicates()
    found = parents.merge(numbers.rename(columns={"track": "parent"}), on="parent")
    found = found[found["labelled"] < found["told"]]
    last = found.groupby(["row", "parent"])["labelled"].transform("max")
    found = found[found["labelled"] == last]
    return found.merge(touched, on=["labelled", "community"])[["row", "place"]]


def _matches(
    reported: pd.DataFrame,
    touched: pd.DataFrame,
    inherited: pd.DataFrame,
    planted: pd.DataFrame,
    tolerance: int,
) -> pd.DataFrame:
    """Pair rows of the table with planted events of the same kind, place and frame."""
    seen = reported[["labelled", "community", "frame", "event", "gap"]]
    seen = seen.assign(row=reported.index)
    own = seen.merge(touched, on=["labelled", "community"])[["row", "place"]]
    both = pd.concat([own, inherited]).drop_duplicates()
    seen = seen[["row", "frame", "event", "gap"]].merge(both, on="row")
    true = planted[["frame", "event", "place"]].assign(planted=planted.index)
    both = seen.merge(true, on=["event", "place"], suffixes=("", "_planted"))
    late = both["frame"] - both["frame_planted"]
    return both[(late >= -tolerance) & (late <= tolerance + both["gap"])]


def _by_kind(planted: pd.DataFrame, false: pd.DataFrame, kinds: Sequence[str]) -> pd.DataFrame:
    groups = planted.groupby("event")["found"]
    table = pd.DataFrame({"planted": groups.size(), "found": groups.sum()}).reindex(list(kinds))
    table = table.fillna(0).astype(int)
    table["recall"] = table["found"] / table["planted"].where(table["planted"] > 0)
    counts = false["event"].value_counts().reindex(table.index).fillna(0)
    return table.assign(false=counts.astype(int)).rename_axis("event")


def _steps(tracks: pd.DataFrame, frame: pd.Series) -> int:
    """Count how often a track is in two successive frames."""
    present = tracks[["time", "track"]].drop_duplicates()
    present = present.assign(frame=present["time"].map(frame)).sort_values(["track", "frame"])
    return int((present.groupby("track")["frame"].diff() == 1).sum())


def visible_events(
    community: xr.DataArray,
    expected: xr.DataArray,
    events: pd.DataFrame,
    places: xr.DataArray,
    *,
    growth: float = 0.05,
    sigma: float = 4.0,
    margin: float = 2.0,
) -> pd.DataFrame:
    """Return what communities can see of planted events.

    A community is no town: a town that is born, or grows, is a growth of the community on whose
    land it stands, and a merger of two is nothing to one that holds both. A change that is less
    than 5 % of the community's people, or within the noise of their count, is none of it.

    Parameters
    ----------
    community : DataArray of int, (time, y, x)
        The cells of the communities, −1 outside.
    expected : DataArray, (time, y, x)
        The mean of the law that the frames were drawn from.
    events, places
        Of a :class:`popdask.synthetic.PlantedWorld`, or alike.
    growth, sigma : float, optional
        The least change that is one: as a share, and in standard deviations of the counts.
    margin : float, optional
        By how many standard deviations a change exceeds both where it is sure to be told (2: in
        98 of 100 draws).

    Returns
    -------
    DataFrame
        One row per event and direction that some community sees by the law, whether it touches the
        place in the frame before or in the event's own: ``frame``, ``event`` ("grow" or "shrink"),
        ``place``, ``planted`` (the row's index in `events`) and ``sure`` (bool): the change of the
        community's cells in the place is enough by itself, and no other event makes up for it.
        Where only several events together are, each is listed, and none is sure.

    Examples
    --------
    >>> places = xr.DataArray([[0, -1]], dims=("y", "x"))
    >>> expected = xr.DataArray([[[0.0, 9e3]], [[2e3, 9e3]]], dims=("time", "y", "x"))
    >>> events = pd.DataFrame({"frame": [1], "event": ["appear"], "place": [0]})
    >>> visible_events(xr.zeros_like(expected, int), expected, events, places)
       frame event  place  planted  sure
    0      1  grow      0        0  True
    """
    mean = np.nan_to_num(expected.values)
    rows = []
    for index, event in events[events["place"] >= 0].iterrows():
        frame, here = int(event["frame"]), places.values == event["place"]
        for labels in community.values[frame - 1 : frame + 1]:
            for number in np.unique(labels[here & (labels >= 0)]):
                own, overall, before, noise = _effect(mean, frame, labels == number, here)
                sure = min(abs(own), overall) > max(
                    growth * before + margin * noise, (sigma + margin) * noise
                )
                if abs(own) > ROUNDING and overall > max(growth * before, sigma * noise):
                    kind = "grow" if own > 0 else "shrink"
                    rows.append((frame, kind, event["place"], index, sure))
    keys = ["frame", "event", "place", "planted"]
    table = pd.DataFrame(rows, columns=[*keys, "sure"]).astype({"sure": bool})
    return table.groupby(keys)["sure"].any().reset_index()


def _effect(
    mean: np.ndarray, frame: int, cells: np.ndarray, here: np.ndarray
) -> tuple[float, float, float, float]:
    """Measure the change of a community in a place, and overall; its people, and their noise."""
    before, after = mean[frame - 1], mean[frame]
    own = float((after - before)[cells & here].sum())
    people, later = float(before[cells].sum()), float(after[cells].sum())
    overall = (later - people) * np.sign(own)  # negative where other events outweigh this one
    return own, overall, people, float(np.sqrt(people + later))
