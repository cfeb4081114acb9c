"""How right a table of events is, in a world whose events are known.

A reported event is right if an event of its kind was planted in its frame at its place, which is
read from the map of places: the cells of the community that it is told of must touch it, or those
of one that it comes from (a community whose town has died lies elsewhere now). Every other reported
event is false. How many there are depends on how much there was to see, so they are counted per 100
*steps*, a step being a community that is present in two successive frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import xarray as xr

from popdask.errors import InputError
from popdask.metrics.estimates import same_shape

KINDS = ("grow", "shrink", "appear", "vanish", "merge", "split")


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
    """The planted events of these kinds that a table can tell, with ``found`` (bool)."""

    false: pd.DataFrame
    """The rows of the table of tracks that tell of what did not happen."""

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
    of the same planted event (the pieces of a split) are all right.

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
        labelled=at.astype(int), frame=at.astype(int) + (reported["event"] == "vanish")
    )
    reported = reported[(reported["frame"] > 0) | (reported["event"] != "appear")]
    is_open = (events["event"] == "vanish") & (events["frame"] >= len(frame) - memory)
    planted = events[events["event"].isin(kinds) & (events["place"] >= 0) & ~is_open]
    planted = planted.reset_index(drop=True)
    touched = _touched(community, places)
    inherited = _inherited(reported, tracks.assign(labelled=tracks["time"].map(frame)), touched)
    pairs = _pairs(reported, touched, inherited, planted, tolerance)
    planted = planted.assign(found=planted.index.isin(pairs["planted"]))
    false = reported[~reported.index.isin(pairs["row"])].drop(columns="labelled")
    return PlantedScores(_by_kind(planted, false, kinds), planted, false, _steps(tracks, frame))


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
    """List the places that the parents of what is told touched when last there: row, place."""
    if "parent" not in reported:
        return pd.DataFrame({"row": [], "place": []}, dtype=np.int64)
    parents = reported[reported["event"] != "vanish"].explode("parent").dropna(subset="parent")
    away = parents.get("gap", 0)
    parents = parents.assign(row=parents.index, labelled=parents["labelled"] - 1 - away)
    parents = parents[["row", "labelled", "parent"]].astype(np.int64)
    numbers = tracks[["labelled", "community", "track"]].drop_duplicates()
    found = parents.merge(numbers.rename(columns={"track": "parent"}), on=["labelled", "parent"])
    return found.merge(touched, on=["labelled", "community"])[["row", "place"]]


def _pairs(
    reported: pd.DataFrame,
    touched: pd.DataFrame,
    inherited: pd.DataFrame,
    planted: pd.DataFrame,
    tolerance: int,
) -> pd.DataFrame:
    """Pair rows of the table with planted events of the same kind, place and frame."""
    seen = reported[["labelled", "community", "frame", "event"]].assign(row=reported.index)
    own = seen.merge(touched, on=["labelled", "community"])[["row", "place"]]
    both = pd.concat([own, inherited]).drop_duplicates()
    seen = seen[["row", "frame", "event"]].merge(both, on="row")
    true = planted[["frame", "event", "place"]].assign(planted=planted.index)
    both = seen.merge(true, on=["event", "place"], suffixes=("", "_planted"))
    return both[(both["frame"] - both["frame_planted"]).abs() <= tolerance]


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
        ``place``, ``planted`` (the row's index in `events`) and ``sure`` (bool). The change is that
        of the community's cells in the place, and no other event makes up for it.

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
                own, least, before, noise = _effect(mean, frame, labels == number, here)
                sees = [least > max(growth * before + z * noise, (sigma + z) * noise)
                        for z in (0, margin)]  # fmt: skip
                if sees[0]:
                    kind = "grow" if own > 0 else "shrink"
                    rows.append((frame, kind, event["place"], index, sees[1]))
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
    return own, min(abs(own), overall), people, float(np.sqrt(people + later))
