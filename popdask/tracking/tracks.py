"""Tracks: communities that keep their identity through time, and what becomes of them.

Links (:mod:`popdask.tracking.link`) say which communities of one frame have to do with which of the
next. A track is a chain of them. The heaviest link of a community is the one of most people, both
frames together (then the one of most cells, then the one to the lowest number); a track goes on
where a link is the heaviest of *both* its ends. Every other community begins a track of its own,
unless it comes back after a gap. Which communities are one track is found from the links alone, and
tracks are numbered by time, then by community. So a number never depends on what comes later, an
appended frame leaves all numbers as they are, and an edited history has the tracks of one made from
scratch: numbers that were given before are laid over the finished tracks.

What happened on the way is a matter of rules (:class:`EventRules`). Counts of people are noisy,
borders of communities move, lists of settlements have a least size and rasters have holes. An event
is told only where none of this explains it: growth is compared on the *union* of the cells of both
frames and must exceed the noise of the counts; a piece must be large enough to be one; what lived
below the least size is not born when it exceeds it, nor dead until few are left; and cells without
data are not nobody.

The trick is that all of this is read from the sums of two frames (:mod:`popdask.tracking.link`), so
that a rule costs no look at the cells.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from popdask.blocks.sums import argmax_by_group
from popdask.errors import InputError
from popdask.validate import check_table

EVENTS = ("appear", "continue", "grow", "shrink", "split", "merge", "vanish")
TINY = 1e-6  # people that a difference of sums may be off by
BETWEEN = 0.2  # part by which people between the pieces of a split or merger must change
MOVED = 0.1  # part of a change beyond which people on cells left and taken may explain it
FARM = 0.1  # part of a community's people below which those on its cells are as good as none
SAME = 0.25  # part of the people of either from which on two may be one track, as in links
MOST = 0.5  # part of a community's cells that may lack data before nothing is said of it
SUMS = ("people_source", "people_target", "variance", "missing")


@dataclass(frozen=True)
class EventRules:
    """What makes an event.

    Examples
    --------
    The rule of olley102's work, in which every difference counts:

    >>> EventRules(sigma=0, part=0, like_for_like=False, held=1)
    EventRules(growth=0.05, sigma=0, part=0, min_people=0.0, like_for_like=False, held=1, ...)
    """

    growth: float = 0.05
    """The part of its people that a community must gain or lose to grow or shrink."""
    sigma: float = 4.0
    """By how many standard deviations of the counts it must, too; and to be born or dead."""
    part: float = 0.1
    """The least part of the people that each of two pieces holds in a split or merger."""
    min_people: float = 0.0
    """The people from which on a community is listed; 0 where any number is."""
    like_for_like: bool = True
    """Whether people are compared on the cells of both frames, or each frame's on its own."""
    held: float = 0.5
    """What held fewer people than this part of `min_people` (of the community's people, where that
    is 0) was not there: it is born, or dead. So is, with a least size, what held fewer than a tenth
    of the community's people. With 1 every community without a link is."""
    changed: bool = True
    """Whether a split or merger needs people that came or went, by `sigma` and a fifth, in what
    lies between the pieces; if not, communities split, too, whose border noise has moved, or whose
    class a change of their people."""

    def __post_init__(self) -> None:
        for name in ("growth", "sigma", "min_people"):
            if not getattr(self, name) >= 0:
                raise InputError(f"{name} is {getattr(self, name)!r}; expected 0 or more")
        for name in ("part", "held"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(
                    f"{name} is {getattr(self, name)!r}; expected a part from 0 to 1, as 0.1"
                )


@dataclass(frozen=True)
class Frame:
    """The communities of one frame."""

    time: Any
    community: np.ndarray
    """Ascending, int64 (n,)."""
    people: np.ndarray
    """float64 (n,)."""
    track: np.ndarray
    """int64 (n,)."""


@dataclass(frozen=True)
class Edges:
    """The links between two frames, as positions in their communities."""

    source: np.ndarray
    target: np.ndarray
    people: np.ndarray
    """Of the source frame on the shared cells, float64 (n,)."""
    people_target: np.ndarray
    """Of the target frame."""
    union: np.ndarray
    """People before and after on the cells of both, and the variance, float64 (3, n); NaN unless
    the table of links has them."""
    share: np.ndarray
    """Part of the source's people on the shared cells, float64 (n,), and"""
    variance: np.ndarray
    """the variance there, in cells with data in both frames; NaN as `union`."""
    mutual: np.ndarray
    """True where the link is the heaviest of both its ends."""


@dataclass(frozen=True)
class Origins:
    """Where the communities of a frame come from, each along its own track."""

    gap: np.ndarray
    """Frames between, int64 (n,); −1 where a track begins."""
    source: np.ndarray
    """Position in the frame before or, across a gap, in an earlier one."""
    people: np.ndarray
    """People there, float64 (n,); NaN where a track begins."""
    union: np.ndarray
    """As of `Edges`, of the link that the track goes on by,"""
    shared: np.ndarray
    """and the people before and after on the cells that it shares, float64 (2, n)."""

    @classmethod
    def unknown(cls, count: int) -> Origins:
        """Begin without any."""
        gap, source = np.full((2, count), -1)
        people, union, shared = (np.full((rows, count), np.nan) for rows in (1, 3, 2))
        return cls(gap, source, people[0], union, shared)

    def fill(self, edges: Edges, here: np.ndarray, gap: int, people: np.ndarray) -> None:
        """Let tracks go on by some of the links from an earlier frame."""
        target, source = edges.target[here], edges.source[here]
        self.gap[target], self.source[target] = gap, source
        self.people[target], self.union[:, target] = people[source], edges.union[:, here]
        self.shared[:, target] = edges.people[here], edges.people_target[here]


@dataclass(frozen=True)
class Cells:
    """Who lived on the communities' own cells in the other frame."""

    change: np.ndarray
    """People before and after, and the variance, float64 (3, n); NaN where it is not known."""
    there: np.ndarray
    """Whether that were so many that the community was there, or it is not known, bool (n,)."""


@dataclass(frozen=True)
class Pieces:
    """Which communities have parts in splits and mergers."""

    split: np.ndarray
    """Pieces of a split, bool (targets,)."""
    merged: np.ndarray
    """Joined from several, bool (targets,)."""
    absorbed: np.ndarray
    """One of those that join later, bool (sources,)."""


_NONE = np.zeros(0, np.int64)
NOBODY = Frame(None, _NONE, np.zeros(0), _NONE)
_ZERO = np.zeros(0)
NO_EDGES = Edges(_NONE, _NONE, _ZERO, _ZERO, np.zeros((3, 0)), _ZERO, _ZERO, np.zeros(0, bool))
DEFAULT = EventRules()


def pieces(
    before: Frame,
    after: Frame,
    edges: Edges,
    own: tuple[np.ndarray, np.ndarray] | None,
    rules: EventRules,
) -> Pieces:
    """Find the links that carry enough people to be pieces, and the ends that have several."""
    # `own`: people before and after and the variance, (3, n), on the cells of the communities
    # before and of those after, where they are known.
    least = rules.held * rules.min_people
    of_source = np.maximum(rules.part * before.people[edges.source], least)
    of_target = np.maximum(rules.part * after.people[edges.target], least)
    out, into = edges.people >= of_source, edges.people_target >= of_target
    several_out = np.bincount(edges.source[out], minlength=len(before.track)) > 1
    several_in = np.bincount(edges.target[into], minlength=len(after.track)) > 1
    if rules.changed and rules.sigma and own is not None:
        parts = np.stack(
            [edges.share * own[0][0][edges.source], edges.people_target, edges.variance]
        )
        several_out &= _changed(own[0], parts[:, out], edges.source[out], rules.sigma)
        several_in &= _changed(own[1], parts[:, into], edges.target[into], rules.sigma)
    split, absorbed = np.zeros(len(after.track), bool), np.zeros(len(before.track), bool)
    split[edges.target[out & several_out[edges.source]]] = True
    absorbed[edges.source[into & several_in[edges.target]]] = True
    return Pieces(split, several_in, absorbed)


def _changed(whole: np.ndarray, parts: np.ndarray, of: np.ndarray, sigma: float) -> np.ndarray:
    """Return the events of what has other people than before, beyond noise, between its parts."""
    before, after, variance = whole - [
        np.bincount(of, weights=part, minlength=whole.shape[1]) for part in parts
    ]
    noise = sigma * np.sqrt(np.maximum(variance, 0))
    least = np.maximum(noise, BETWEEN * np.maximum(before, after)) + TINY
    found: np.ndarray = ~(np.abs(after - before) <= least)  # in links that do not say it, too
    return found & ~np.isnan(whole[0])  # but nothing is said of cells that mostly lack data


def own_cells(ends: pd.DataFrame, frame: Frame, linked: np.ndarray, rules: EventRules) -> Cells:
    """Read from the ends of a frame's communities (of one side) who lived there otherwise."""
    # Where several frames are compared, a community was there if it was in one of them.
    count, place = len(frame.community), np.searchsorted(frame.community, ends["community"])
    source, target = ends["people_source"].to_numpy(), ends["people_target"].to_numpy()
    own, other = (source, target) if (ends["side"] == "source").all() else (target, source)
    known, there = np.zeros(count, bool), np.zeros(count, bool)
    known[place] = True
    if rules.held < 1:
        least = rules.held * np.minimum(rules.min_people or np.inf, own)
        if rules.min_people:  # a farm or a hamlet is not the town that is built on it
            least = np.maximum(least, FARM * own)
        noise = rules.sigma * np.sqrt(ends["variance"].to_numpy())
        there[place[(other >= least) | (np.abs(own - other) <= noise)]] = True
    else:
        there = linked.copy()
    return Cells(own_change(ends, frame), there | ~known)


def own_change(ends: pd.DataFrame, frame: Frame) -> np.ndarray:
    """People before and after and the variance, (3, n), on the own cells, over the least gap."""
    ends = ends.sort_values("gap", ascending=False)  # the least comes last, and stays
    change = np.full((3, len(frame.community)), np.nan)
    place = np.searchsorted(frame.community, ends["community"])
    change[:, place] = ends[list(SUMS[:3])].to_numpy().T
    return change


def grown_and_shrunk(
    change: np.ndarray, rules: EventRules
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Compute from people before, after and variance who grew and shrank; and growth and sigma."""
    before, after, variance = change
    difference = after - before
    with np.errstate(divide="ignore", invalid="ignore"):
        growth = np.where(before > 0, difference / before, np.nan)
        sigma = difference / np.sqrt(variance)
        sure = np.abs(difference) > rules.sigma * np.sqrt(variance)
    more, fewer = beyond_growth(before, after, rules)
    return sure & more, sure & fewer, growth, sigma


def beyond_growth(
    before: np.ndarray, after: np.ndarray, rules: EventRules
) -> tuple[np.ndarray, np.ndarray]:
    """Tell where people are more, and where they are fewer, by more than the rule's part."""
    part = Fraction(str(rules.growth)).limit_denominator(10**9)
    whole, some = float(part.denominator), float(part.numerator)  # exact, unlike 1.05
    return whole * after > (whole + some) * before, whole * after < (whole - some) * before


def moved_on(frame: Frame, origins: Origins) -> np.ndarray:
    """Tell who has left cells and taken others, by enough to explain the change on all of them."""
    # What moves leaves cells at its back and takes some at its front: unless it is alike all round,
    # the cells of both frames hold more people in one of them, though it has as many as before.
    # What grows and loses cells to another class takes none.
    left, taken = origins.people - origins.shared[0], frame.people - origins.shared[1]
    return np.minimum(left, taken) > MOVED * np.abs(origins.union[1] - origins.union[0])


def changes(frame: Frame, origins: Origins, cells: Cells, rules: EventRules) -> np.ndarray:
    """People before and after and the variance, (3, n): of the track, or of the own cells."""
    by_frame = np.stack([origins.people, frame.people, origins.people + frame.people])
    along = by_frame
    if rules.like_for_like:
        along = np.where(np.isnan(origins.union).any(axis=0), by_frame, origins.union)
    return np.where(origins.gap >= 0, along, cells.change)


def arrivals(
    frame: Frame,
    parents: Sequence[list[int]],
    origins: Origins,
    cells: Cells,
    found: Pieces,
    rules: EventRules,
) -> pd.DataFrame:
    """Say what the communities of a frame come from, in the order of EVENTS."""
    grown, shrunk, growth, sigma = grown_and_shrunk(changes(frame, origins, cells, rules), rules)
    goes_on = origins.gap >= 0
    more, fewer = beyond_growth(origins.people, frame.people, rules)
    passed = goes_on & rules.like_for_like & moved_on(frame, origins)
    grown, shrunk = grown & (more | ~passed), shrunk & (fewer | ~passed)
    begins = ~goes_on & ~found.split & ~found.merged
    appears, stays = begins & ~cells.there, goes_on | (begins & cells.there)
    columns = {"gap": np.maximum(origins.gap, 0), "growth": growth, "sigma": sigma}
    happened = {
        "appear": appears,
        "continue": stays & ~grown & ~shrunk,
        "grow": stays & grown,
        "shrink": stays & shrunk,
        "split": found.split,
        "merge": found.merged,
    }
    return rows(frame, happened, parents, columns)


def departures(
    frame: Frame, parents: Sequence[list[int]], ended: np.ndarray, cells: Cells, rules: EventRules
) -> pd.DataFrame:
    """Say which communities vanish, of those whose tracks have ended for certain."""
    *_, growth, sigma = grown_and_shrunk(cells.change, rules)
    columns = {"gap": np.zeros(len(ended), np.int64), "growth": growth, "sigma": sigma}
    return rows(frame, {"vanish": ended & ~cells.there}, parents, columns)


def rows(
    frame: Frame,
    happened: Mapping[str, np.ndarray],
    parents: Sequence[list[int]],
    columns: Mapping[str, np.ndarray],
) -> pd.DataFrame:
    """Return one row of the table for every event of every community."""
    event, where = np.nonzero(list(happened.values()))
    return pd.DataFrame(
        {
            "time": frame.time,
            "community": frame.community[where],
            "track": frame.track[where],
            "parent": pd.Series([list(parents[i]) for i in where.tolist()], dtype=object),
            "event": pd.Series(list(happened), dtype="str")[event].array,
            **{name: values[where] for name, values in columns.items()},
        }
    )


def tracks(
    links: pd.DataFrame,
    communities: pd.DataFrame,
    *,
    rules: EventRules = DEFAULT,
    ends: pd.DataFrame | None = None,
    memory: int = 0,
    times: Iterable[Any] | None = None,
    known: pd.DataFrame | None = None,
    first_number: int = 0,
) -> pd.DataFrame:
    """Follow communities through time.

    Parameters
    ----------
    links : pandas.DataFrame
        The table of :func:`popdask.tracking.link.link`: time, source, target, people, overlap;
        and what it tells of people like for like. In a table without that, people are compared as
        `communities` lists them, each frame's on its own cells.
    communities : pandas.DataFrame
        Every community of every frame: time, community, population (people); for example the table
        of :func:`popdask.tracking.describe.summarize`.
    rules : EventRules, optional
        What makes an event.
    ends : pandas.DataFrame, optional
        The second table of :func:`popdask.tracking.link.compare_frames`: who lived on each
        community's own cells in the other frame, and which part of them has no data there. Without
        it, every community without a link is born or dead.
    memory : int, optional
        For how many frames a community may be away, as it was given to `link`: it comes back under
        its number.
    times : iterable, optional
        The times of all frames; needed only where there may be frames without communities. By
        default the times in ``communities``.
    known : pandas.DataFrame, optional
        Tracks that are already numbered (time, community, track); where a frame has been labelled
        anew, a row for each two that share cells, with the ``people`` and cells (``overlap``) that
        they share. Tracks are found without them; then numbers are given to those that share most
        people with them, over all frames, the heaviest pair first and each number once, and none
        for less than a quarter of the people of either. The other tracks count on from the highest.
    first_number : int, optional
        The lowest number for new tracks, where higher ones than those in ``known`` were given
        before, to communities that are no more: a number is never given twice.

    Returns
    -------
    pandas.DataFrame
        One row per event, ordered by time and community: ``time``, ``community`` (int64),
        ``track`` (int64), ``parent`` (list of int, ascending: the tracks of all communities of the
        frame before, or before a gap, that are linked to this one, its own among them where it goes
        on; Parquet keeps it as list<int64>), ``event``:

        ======== ===================================================================================
        appear   where this community stands lived nobody, or fewer than `rules.held` says
        continue its people are the same, within the rules
        grow     there are more people, by more than `rules.growth` and `rules.sigma`
        shrink   there are fewer
        split    a community that this one is linked to has other pieces, too; the piece that holds
                 its heaviest link keeps the track, the others are new tracks
        merge    several communities are pieces of this one; it keeps the track of the heaviest, the
                 others end here: they do not vanish, they are among the parents
        vanish   hardly anyone lives where this one stood, in the frames that it may be away for;
                 the row has the time of last presence
        ======== ===================================================================================

        A community has at most one of the first four, and may have others beside it. ``gap``
        (int64): the frames that the track was away for before this one. ``growth`` and ``sigma``
        (float64): the change of people, like for like, as a part of those before and in standard
        deviations of the counts; of the track where it goes on, else on the community's own cells;
        NaN where it is not known, as in the first frame and behind one without data.

    Raises
    ------
    InputError
        If a link or a known track names a community that ``communities`` does not list, or a
        community is listed twice.

    Notes
    -----
    Nothing that is told changes when a frame is appended. A track may end in silence: what it held
    is still there, in another community or below the least size, or there is no data; and in the
    last frames, as long as it may come back.

    Examples
    --------
    Two towns become one:

    >>> communities = pd.DataFrame(
    ...     {"time": [2000, 2000, 2001], "community": [0, 1, 0], "population": [60.0, 40.0, 100.0]}
    ... )
    >>> links = pd.DataFrame(
    ...     {"time": 2000, "source": [0, 1], "target": 0, "people": [60.0, 40.0], "overlap": 9}
    ... )
    >>> links["union_source"], links["union_target"], links["variance"] = 100.0, 100.0, 200.0
    >>> tracks(links, communities)[["time", "community", "track", "parent", "event"]]
       time  community  track  parent     event
    0  2000          0      0      []    appear
    1  2000          1      1      []    appear
    2  2001          0      0  [0, 1]  continue
    3  2001          0      0  [0, 1]     merge
    """
    check_table("links", links, ["time", "source", "target", "people", "overlap"], "link")
    check_table("communities", communities, ["time", "community", "population"], "summarize")
    frames = _frames(communities, times) or [NOBODY]
    history = _History(rules, memory, frames, _all_edges(links, frames, memory), ends)
    origins, goes_on = history.origins()
    history = replace(history, frames=_numbered(frames, origins, known, first_number))
    table = pd.concat(history.events(origins, goes_on), ignore_index=True)
    table = table.astype({"time": communities["time"].dtype})
    return table.sort_values(["time", "community"], kind="stable", ignore_index=True)


def split_off(event: pd.Series, track: pd.Series, parents: pd.Series) -> np.ndarray:
    """Return which events are pieces that began a track, not those that went on as the old one."""
    began = [number not in found for number, found in zip(track, parents, strict=True)]
    return (event == "split").to_numpy() & np.array(began, dtype=bool)


def _frames(communities: pd.DataFrame, times: Iterable[Any] | None) -> list[Frame]:
    """Return the frames in order of time, their tracks not numbered yet."""
    key = ["time", "community"]
    listed = pd.DataFrame(communities[[*key, "population"]]).sort_values(key)
    if listed.duplicated(key).any():
        twice = listed[listed.duplicated(key)].iloc[0]
        raise InputError(
            f"community {twice.community} of {twice.time} is listed twice; "
            "communities must have one row for each community of a frame"
        )
    groups = dict(iter(listed.groupby("time")))
    ordered = sorted(groups if times is None else pd.Index(list(times)).union(list(groups)))
    tables = [groups.get(time, listed[:0]) for time in ordered]
    return [
        Frame(
            time,
            group["community"].to_numpy(dtype=np.int64),
            group["population"].to_numpy(dtype=np.float64),
            np.full(len(group), -1),
        )
        for time, group in zip(ordered, tables, strict=True)
    ]


def _all_edges(
    links: pd.DataFrame, frames: Sequence[Frame], memory: int
) -> dict[tuple[int, int], Edges]:
    """Look up the links between any two frames, by the positions of the frames."""
    position = {frame.time: i for i, frame in enumerate(frames)}
    links = links.assign(gap=links.get("gap", 0))
    edges = {}
    for _, table in links[links["gap"] <= memory].groupby(["time", "gap"]):
        time = table["time"].iloc[0]
        first = position.get(time, len(frames))
        last = first + int(table["gap"].iloc[0]) + 1
        if last >= len(frames):
            raise InputError(
                f"links start at {time!s}, but communities list no frame after it: "
                "give the communities of all frames"
            )
        edges[first, last] = _edges(table, frames[first], frames[last])
    return edges


def _edges(links: pd.DataFrame, before: Frame, after: Frame) -> Edges:
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
    people, overlap = links["people"].to_numpy(np.float64), links["overlap"].to_numpy()
    later = links.get("people_target", links["people"]).to_numpy(np.float64)
    weights = people + later, overlap
    mutual = argmax_by_group(source, target, *weights) & argmax_by_group(target, source, *weights)
    columns = ["union_source", "union_target", "variance", "share_source", "variance_shared"]
    *union, share, variance = links.reindex(columns=columns).to_numpy(np.float64).T
    return Edges(source, target, people, later, np.stack(union), share, variance, mutual)


def _numbered(
    frames: Sequence[Frame], origins: Sequence[Origins], known: pd.DataFrame | None, first: int
) -> tuple[Frame, ...]:
    """Number the tracks: those that are known, then by time and community, each number once."""
    found: list[np.ndarray] = []
    count = 0
    for i, origin in enumerate(origins):
        track = np.full(len(origin.gap), -1)
        for gap in np.unique(origin.gap[origin.gap >= 0]):
            here = origin.gap == gap
            track[here] = found[i - 1 - gap][origin.source[here]]
        new = track < 0
        track[new] = count + np.arange(new.sum())
        count += int(new.sum())
        found.append(track)
    frames = tuple(replace(frame, track=track) for frame, track in zip(frames, found, strict=True))
    number = np.full(count, -1)
    if known is not None and len(known):
        taken: set[int] = set()
        for now, wanted in _claims(frames, known):
            if number[now] < 0 and wanted not in taken:
                number[now] = wanted
                taken.add(wanted)
        first = max(first, int(known["track"].max()) + 1)
    new = number < 0
    number[new] = first + np.arange(new.sum())
    return tuple(replace(frame, track=number[frame.track]) for frame in frames)


def _claims(frames: Sequence[Frame], known: pd.DataFrame) -> Iterator[tuple[int, int]]:
    """List the tracks that share people with those that are known, the heaviest pair first."""
    key, weights = ["time", "community"], ["people", "overlap"]
    parts = [
        pd.DataFrame({"time": f.time, "community": f.community, "now": f.track, "all": f.people})
        for f in frames
    ]
    rows = known.reindex(columns=[*key, "track", *weights]).drop_duplicates()
    claims = rows.merge(pd.concat(parts), on=key)
    whole = rows[rows["people"].isna()]  # and not what two labellings of a frame share
    twice = whole.duplicated(key) | whole.duplicated(["time", "track"])
    if len(claims) < len(rows) or twice.any():
        raise InputError(
            "known tracks must name communities that are listed, and give each one track of "
            "its own: take them from an earlier table of tracks of the same frames"
        )
    claims["people"] = claims["people"].fillna(claims["all"])
    sums = claims.groupby(["now", "track"], as_index=False)[weights].sum()
    here, then = (sums.groupby(end)["people"].transform("sum") for end in ("now", "track"))
    same = sums[sums["people"] >= SAME * np.minimum(here, then)]
    order = [*weights, "now", "track"]
    heaviest = same.sort_values(order, ascending=[False, False, True, True])
    yield from heaviest[["now", "track"]].itertuples(index=False, name=None)


@dataclass(frozen=True)
class _History:
    """The frames, and what is known between them."""

    rules: EventRules
    memory: int
    frames: Sequence[Frame]
    edges: Mapping[tuple[int, int], Edges]
    ends: pd.DataFrame | None

    def origins(self) -> tuple[list[Origins], list[np.ndarray]]:
        """Find where the communities of every frame come from along tracks, and who goes on."""
        goes_on = [np.zeros(len(frame.people), bool) for frame in self.frames]
        found = []
        for j, frame in enumerate(self.frames):
            origin = Origins.unknown(len(frame.people))
            for gap in range(min(self.memory + 1, j)):
                first = j - 1 - gap
                edges = self.edges.get((first, j), NO_EDGES)
                free = (origin.gap[edges.target] < 0) & ~goes_on[first][edges.source]
                here = edges.mutual & free
                origin.fill(edges, here, gap, self.frames[first].people)
                goes_on[first][edges.source[here]] = True
            found.append(origin)
        return found, goes_on

    def events(
        self, origins: Sequence[Origins], goes_on: Sequence[np.ndarray]
    ) -> list[pd.DataFrame]:
        """Say what happened, frame after frame."""
        found = self._pieces()
        events = []
        for j, frame in enumerate(self.frames):
            parents, cells = self._parents(j), self._cells("target", j)
            events.append(arrivals(frame, parents, origins[j], cells, found[j], self.rules))
            if j + self.memory < len(self.frames) - 1:  # nobody can come back
                ended, cells = ~goes_on[j] & ~found[j].absorbed, self._cells("source", j)
                events.append(departures(frame, parents, ended, cells, self.rules))
        return events

    def _pieces(self) -> list[Pieces]:
        """Find what parted and joined in every frame, also while there was no data for a time."""
        nobody = [np.zeros((3, len(frame.people)), bool) for frame in self.frames]
        found = [Pieces(*marks) for marks in nobody]
        for (first, last), edges in self.edges.items():
            own, gap = None, last - first - 1
            if self.ends is not None:  # over the same frames as the parts
                own = self._own("source", first, gap), self._own("target", last, gap)
            now = pieces(self.frames[first], self.frames[last], edges, own, self.rules)
            found[last].split[:] |= now.split
            found[last].merged[:] |= now.merged
            found[first].absorbed[:] |= now.absorbed
        return found

    def _parents(self, j: int) -> list[list[int]]:
        """List the tracks of the communities before that each one is linked to."""
        found: list[set[int]] = [set() for _ in self.frames[j].people]
        for gap in range(min(self.memory + 1, j)):
            before = self.frames[j - 1 - gap].track
            edges = self.edges.get((j - 1 - gap, j), NO_EDGES)
            for target, source in zip(edges.target, edges.source, strict=True):
                found[target].add(int(before[source]))
        return [sorted(parents) for parents in found]

    def _own(self, side: str, j: int, gap: int) -> np.ndarray:
        """People before and after and the variance, (3, n), of a frame's communities over a gap."""
        here = self._ends(side, j)
        return own_change(here[here["gap"] == gap], self.frames[j])

    def _ends(self, side: str, j: int) -> pd.DataFrame:
        """The ends of a frame's communities that are listed, and of which most cells have data."""
        frame, (none, listed) = self.frames[j], self._listed
        found = listed.get((side, frame.time), none)
        return found[found["community"].isin(frame.community)]

    @cached_property
    def _listed(self) -> tuple[pd.DataFrame, dict[tuple[str, Any], pd.DataFrame]]:
        """Sort the ends of which most cells have data by side and time."""
        assert self.ends is not None
        known = self.ends[self.ends["missing"] <= MOST]
        listed: dict[tuple[str, Any], pd.DataFrame] = {}
        for side, time in (("source", "time"), ("target", "next")):
            at = known[known["side"] == side].groupby(time)
            listed |= {(side, when): found for when, found in at}
        return known[:0], listed

    def _cells(self, side: str, j: int) -> Cells:
        """Read who lived where the communities of a frame stand."""
        frame, end = self.frames[j], side == "target"
        linked = np.zeros(len(frame.people), bool)
        for pair, edges in self.edges.items():
            if pair[end] == j:
                linked[edges.target if end else edges.source] = True
        if self.ends is None or (end and j == 0):
            return Cells(np.full((3, len(linked)), np.nan), linked)
        here = self._ends(side, j)
        return own_cells(here[here["gap"] <= self.memory], frame, linked, self.rules)


def verify_tracks(
    table: pd.DataFrame,
    links: pd.DataFrame | None = None,
    *,
    times: Iterable[Any] | None = None,
) -> None:
    """Check that a table of tracks is whole."""
    steps = _steps(table, times)
    began = steps.groupby("track")["time"].min()
    parents = table[["time", "parent"]].explode("parent").dropna()
    since = began.reindex(parents["parent"]).set_axis(parents.index).fillna(parents["time"])
    orphans = parents["time"] <= since
    faults = {
        "a community has two tracks": steps.duplicated(["time", "community"]).any(),
        "a track has two communities in one frame": steps.duplicated(["time", "track"]).any(),
        "a track is absent from a frame between": (steps["absent"] != steps["gap"]).any(),
        "a parent is no earlier track": orphans.any(),
        "an event is unknown": not table["event"].isin(EVENTS).all(),
        "a step of a track has no link": links is not None and _unlinked(steps, links),
    }
    for fault, found in faults.items():
        if found:
            raise InputError(f"the table of tracks is broken, {fault}: build it again with tracks")


def _steps(table: pd.DataFrame, times: Iterable[Any] | None) -> pd.DataFrame:
    """List every presence of a track: the one before it, the frames between, and the gap told."""
    key = ["time", "community", "track"]
    steps = table.assign(gap=table.get("gap", 0)).groupby(key)["gap"].max().reset_index()
    steps = steps.sort_values(["track", "time"], kind="stable", ignore_index=True)
    frames = pd.Index(steps["time"] if times is None else list(times)).union(steps["time"])
    steps["frame"] = frames.unique().sort_values().get_indexer(steps["time"])
    before = steps.groupby("track")[["frame", "community", "time"]].shift()
    steps["from"], steps["since"] = before["community"], before["time"]
    steps["absent"] = (
        (steps["frame"] - before["frame"] - 1).clip(lower=0).fillna(0).astype(np.int64)
    )
    return steps


def _unlinked(steps: pd.DataFrame, links: pd.DataFrame) -> bool:
    """Whether a step of a track is none of the links."""
    taken = steps.dropna(subset="from").astype({"from": np.int64})
    found = links.assign(gap=links.get("gap", 0))
    known = pd.MultiIndex.from_frame(found[["time", "source", "gap", "target"]])
    wanted = pd.MultiIndex.from_frame(taken[["since", "from", "absent", "community"]])
    return not wanted.isin(known).all()
