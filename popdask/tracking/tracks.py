"""Tracks: communities that keep their identity through time, and what becomes of them.

Links (:mod:`popdask.tracking.link`) say which communities of one frame have to do with which of
the next. A track is a chain of them. The heaviest link of a community is the one that moves most
people (then the one of most cells, then the one to the lowest number); a track goes on where a link
is the heaviest of *both* its ends. Every other community begins a track of its own.

The trick is the order: tracks are numbered by time, then by community, so that a number never
depends on what comes later, and appending a frame leaves all numbers as they are.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from popdask.blocks.sums import argmax_by_group
from popdask.errors import InputError
from popdask.validate import check_table

EVENTS = ("appear", "continue", "grow", "shrink", "split", "merge", "vanish")
COLUMNS = ("time", "community", "track", "parent", "event")


@dataclass(frozen=True)
class _Frame:
    """The communities of one frame."""

    time: Any
    community: np.ndarray
    """Ascending, int64 (n,)."""
    people: np.ndarray
    """float64 (n,)."""
    track: np.ndarray
    """int64 (n,); −1 where it is yet to be found."""
    parents: list[list[int]]
    """The tracks of the linked communities of the frame before, ascending."""


@dataclass(frozen=True)
class _Edges:
    """The links between two frames, as positions in their communities."""

    source: np.ndarray
    target: np.ndarray
    mutual: np.ndarray
    """True where the link is the heaviest of both its ends."""


def tracks(
    links: pd.DataFrame,
    communities: pd.DataFrame,
    *,
    times: Iterable[Any] | None = None,
    known: pd.DataFrame | None = None,
    first_number: int = 0,
) -> pd.DataFrame:
    """Follow communities through time.

    Parameters
    ----------
    links : pandas.DataFrame
        The table of :func:`popdask.tracking.link.link`: time, source, target, people, overlap.
    communities : pandas.DataFrame
        Every community of every frame: time, community, population (people); for example the table
        of :func:`popdask.tracking.describe.summarize`.
    times : iterable, optional
        The times of all frames; needed only where the *last* frames may be without communities,
        for then those before them vanish. By default the times in ``communities``.
    known : pandas.DataFrame, optional
        Tracks that are already numbered (time, community, track): those communities keep their
        number, new tracks count on from the highest.
    first_number : int, optional
        The lowest number for new tracks, where higher ones than those in ``known`` were given
        before, to communities that are no more: a number is never given twice.

    Returns
    -------
    pandas.DataFrame
        One row per event, ordered by time and community: ``time``, ``community`` (int64),
        ``track`` (int64), ``parent`` (list of int, ascending: the tracks of all communities of the
        frame before that are linked to this one, its own among them where it goes on; Parquet
        keeps it as list<int64>), ``event``:

        ======== ===================================================================================
        appear   no community of the frame before is linked to this one
        continue the track goes on with the same people, within 5 %
        grow     the track goes on with more than 5 % more people
        shrink   the track goes on with more than 5 % fewer people
        split    a community that this one is linked to is linked to others too; the piece that
                 holds its heaviest link keeps the track, the others are new tracks
        merge    several communities are linked to this one; it keeps the track of the heaviest, the
                 others end here: they do not vanish, they are among the parents
        vanish   no community of the frame after is linked to this one; the row has the time of last
                 presence
        ======== ===================================================================================

        A community has at most one of the first four, and may have others beside it.

    Raises
    ------
    InputError
        If a link or a known track names a community that ``communities`` does not list, or a
        community is listed twice.

    Examples
    --------
    Two towns become one:

    >>> communities = pd.DataFrame(
    ...     {"time": [2000, 2000, 2001], "community": [0, 1, 0], "population": [60.0, 40.0, 100.0]}
    ... )
    >>> links = pd.DataFrame(
    ...     {"time": 2000, "source": [0, 1], "target": 0, "people": [60.0, 40.0], "overlap": 9}
    ... )
    >>> tracks(links, communities)
       time  community  track  parent   event
    0  2000          0      0      []  appear
    1  2000          1      1      []  appear
    2  2001          0      0  [0, 1]    grow
    3  2001          0      0  [0, 1]   merge
    """
    check_table("links", links, ["time", "source", "target", "people", "overlap"], "link")
    check_table("communities", communities, ["time", "community", "population"], "summarize")
    frames = _frames(communities, times, known)
    by_time = dict(iter(links.groupby("time")))
    highest = -1 if known is None or known.empty else int(known["track"].max())
    number = max(first_number, highest + 1)
    before = _Frame(None, *(np.zeros(0, dtype=np.int64),) * 3, [])
    events: list[pd.DataFrame] = []
    for frame in frames:
        edges = _edges(by_time.pop(before.time, links[:0]), before, frame)
        after = _continue_tracks(before, frame, edges, number)
        number = max([number, *(after.track + 1)])
        events += _events(before, after, edges)
        before = after
    if by_time:
        raise InputError(
            f"links start at {next(iter(by_time))!s}, but communities list no frame after it: "
            "give the communities of all frames"
        )
    if not events:
        events = [_rows(before, np.zeros(0, dtype=bool), "appear")]
    table = pd.concat(events, ignore_index=True).astype({"time": communities["time"].dtype})
    return table.sort_values(["time", "community"], kind="stable", ignore_index=True)


def split_off(event: pd.Series, track: pd.Series, parents: pd.Series) -> np.ndarray:
    """Tell which events are pieces that began a track, not those that went on as the old one.

    Examples
    --------
    >>> split_off(pd.Series(["split", "split"]), pd.Series([0, 7]), pd.Series([[0], [0]]))
    array([False,  True])
    """
    began = [number not in found for number, found in zip(track, parents, strict=True)]
    return (event == "split").to_numpy() & np.array(began, dtype=bool)


def verify_tracks(table: pd.DataFrame) -> None:
    """Check that a table of tracks is whole.

    Parameters
    ----------
    table : pandas.DataFrame
        As :func:`tracks` returns it.

    Raises
    ------
    InputError
        If a community has two tracks, a track two communities in one frame, a track is absent from
        a frame between two of its own, or an event or parent is unknown.

    Examples
    --------
    >>> verify_tracks(
    ...     pd.DataFrame(
    ...         {"time": [2000], "community": 0, "track": 0, "parent": [[]], "event": "appear"}
    ...     )
    ... )
    """
    present = table[["time", "community", "track"]].drop_duplicates()
    frame = present["time"].rank(method="dense").groupby(present["track"])
    began = present.groupby("track")["time"].min()
    parents = table[["time", "parent"]].explode("parent").dropna()
    since = began.reindex(parents["parent"]).set_axis(parents.index).fillna(parents["time"])
    orphans = parents["time"] <= since
    faults = {
        "a community has two tracks": present.duplicated(["time", "community"]).any(),
        "a track has two communities in one frame": present.duplicated(["time", "track"]).any(),
        "a track is absent from a frame between": (frame.max() - frame.min() >= frame.size()).any(),
        "a parent is no earlier track": orphans.any(),
        "an event is unknown": not table["event"].isin(EVENTS).all(),
    }
    for fault, found in faults.items():
        if found:
            raise InputError(f"the table of tracks is broken, {fault}: build it again with tracks")


def _frames(
    communities: pd.DataFrame, times: Iterable[Any] | None, known: pd.DataFrame | None
) -> list[_Frame]:
    """Return the frames in order of time, each with its communities and the tracks known."""
    key = ["time", "community"]
    listed = pd.DataFrame(communities[[*key, "population"]]).sort_values(key)
    if listed.duplicated(key).any():
        twice = listed[listed.duplicated(key)].iloc[0]
        raise InputError(
            f"community {twice.community} of {twice.time} is listed twice; "
            "communities must have one row for each community of a frame"
        )
    listed["track"] = -1
    if known is not None:
        numbered = known[[*key, "track"]].drop_duplicates().set_index(key)["track"]
        listed = listed.set_index(key)
        shared = known.drop_duplicates([*key, "track"]).duplicated(["time", "track"]).any()
        if shared or not numbered.index.is_unique or not numbered.index.isin(listed.index).all():
            raise InputError(
                "known tracks must name communities that are listed, and give each one track of "
                "its own: take them from an earlier table of tracks of the same frames"
            )
        listed.loc[numbered.index, "track"] = numbered
        listed = listed.reset_index()
    groups = dict(iter(listed.groupby("time")))
    ordered = sorted(groups if times is None else pd.Index(list(times)).union(list(groups)))
    return [
        _Frame(
            time,
            group["community"].to_numpy(dtype=np.int64),
            group["population"].to_numpy(dtype=np.float64),
            group["track"].to_numpy(dtype=np.int64),
            [[] for _ in range(len(group))],
        )
        for time, group in ((time, groups.get(time, listed[:0])) for time in ordered)
    ]


def _edges(links: pd.DataFrame, before: _Frame, after: _Frame) -> _Edges:
    """Look up the ends of the links among the communities of the two frames."""
    ends = []
    for frame, name in ((before, "source"), (after, "target")):
        number = links[name].to_numpy(dtype=np.int64)
        missing = ~np.isin(number, frame.community)
        if missing.any():
            raise InputError(
                f"a link from {before.time} names the {name} {number[missing][0]}, which is not "
                f"among the {len(frame.community)} communities listed for {frame.time}"
            )
        ends.append(np.searchsorted(frame.community, number))
    source, target = ends
    weights = links["people"].to_numpy(), links["overlap"].to_numpy()
    mutual = argmax_by_group(source, target, *weights) & argmax_by_group(target, source, *weights)
    return _Edges(source, target, mutual)


def _continue_tracks(before: _Frame, after: _Frame, edges: _Edges, number: int) -> _Frame:
    """Number the tracks of a frame, new ones from ``number`` on, and find their parents."""
    track = after.track.copy()
    source, target = edges.source[edges.mutual], edges.target[edges.mutual]
    free = (track[target] < 0) & ~np.isin(before.track[source], track)
    track[target[free]] = before.track[source[free]]
    new = track < 0
    track[new] = number + np.arange(new.sum())
    parents: list[list[int]] = [[] for _ in track]
    for position, parent in zip(edges.target, before.track[edges.source], strict=True):
        parents[position].append(int(parent))
    return replace(after, track=track, parents=[sorted(found) for found in parents])


def _events(before: _Frame, after: _Frame, edges: _Edges) -> list[pd.DataFrame]:
    """Say what happened between two frames, in the order of EVENTS."""
    outgoing = np.bincount(edges.source, minlength=len(before.track))
    incoming = np.bincount(edges.target, minlength=len(after.track))
    _, position, origin = np.intersect1d(after.track, before.track, return_indices=True)
    people = np.full(len(after.track), np.nan)
    people[position] = before.people[origin]
    goes_on = np.isfinite(people)
    grown = 20 * after.people > 21 * people
    shrunk = 20 * after.people < 19 * people
    pieces = ~goes_on & (incoming == 1)
    pieces[edges.target[outgoing[edges.source] > 1]] = True
    return [
        _rows(after, ~goes_on & (incoming == 0), "appear"),
        _rows(after, goes_on & ~grown & ~shrunk, "continue"),
        _rows(after, grown, "grow"),
        _rows(after, shrunk, "shrink"),
        _rows(after, pieces, "split"),
        _rows(after, incoming > 1, "merge"),
        _rows(before, (outgoing == 0) & ~np.isin(before.track, after.track), "vanish"),
    ]


def _rows(frame: _Frame, happened: np.ndarray, event: str) -> pd.DataFrame:
    """Return one row of the table for every community to which something happened."""
    return pd.DataFrame(
        {
            "time": frame.time,
            "community": frame.community[happened],
            "track": frame.track[happened],
            "parent": pd.Series(
                [list(frame.parents[i]) for i in np.flatnonzero(happened)], dtype=object
            ),
            "event": event,
        }
    )
