"""Events of communities from one frame to the next, and the rules by which they are believed.

Counts of people are noisy, borders of communities move, lists of settlements have a least size and
rasters have holes. An event is told only where none of this explains it: growth is compared on the
*union* of the cells of both frames and must exceed the noise of the counts; a piece must be large
enough to be one; what lived below the least size is not born when it exceeds it, nor dead until few
are left; and cells without data are not nobody.

The trick is that all of this is read from the sums of two frames (:mod:`popdask.tracking.link`),
so that a rule costs no look at the cells.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import pandas as pd

from popdask.errors import InputError

EVENTS = ("appear", "continue", "grow", "shrink", "split", "merge", "vanish")
TINY = 1e-6  # people that a difference of sums may be off by
BETWEEN = 0.2  # part by which people between the pieces of a split or merger must change
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
    is 0) was not there: it is born, or dead. With 1 every community without a link is."""
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
    """As of `Edges`, of the link that the track goes on by."""

    @classmethod
    def unknown(cls, count: int) -> Origins:
        """Begin without any."""
        gap, source = np.full((2, count), -1)
        return cls(gap, source, np.full(count, np.nan), np.full((3, count), np.nan))

    def fill(self, edges: Edges, here: np.ndarray, gap: int, people: np.ndarray) -> None:
        """Let tracks go on by some of the links from an earlier frame."""
        target, source = edges.target[here], edges.source[here]
        self.gap[target], self.source[target] = gap, source
        self.people[target], self.union[:, target] = people[source], edges.union[:, here]


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
    found: np.ndarray = ~(np.abs(after - before) <= least)  # where it is not known, too
    return found


def own_cells(
    ends: pd.DataFrame | None, frame: Frame, linked: np.ndarray, rules: EventRules
) -> Cells:
    """Read from the ends of a frame's communities (of one side) who lived there otherwise."""
    # Where several frames are compared, a community was there if it was in one of them.
    count = len(frame.community)
    change = np.full((3, count), np.nan)
    if ends is None:
        return Cells(change, linked)
    ends = ends[ends["community"].isin(frame.community)].sort_values("gap", ascending=False)
    ends = ends[ends["missing"] <= MOST]
    place = np.searchsorted(frame.community, ends["community"])
    change[:, place] = ends[list(SUMS[:3])].to_numpy().T  # the least gap comes last, and stays
    source, target = ends["people_source"].to_numpy(), ends["people_target"].to_numpy()
    own, other = (source, target) if (ends["side"] == "source").all() else (target, source)
    known, there = np.zeros(count, bool), np.zeros(count, bool)
    known[place] = True
    if rules.held < 1:
        least = np.minimum(rules.min_people or np.inf, own)
        noise = rules.sigma * np.sqrt(ends["variance"].to_numpy())
        there[place[(other >= rules.held * least) | (np.abs(own - other) <= noise)]] = True
    else:
        there = linked.copy()
    return Cells(change, there | ~known)


def grown_and_shrunk(
    change: np.ndarray, rules: EventRules
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Compute from people before, after and variance who grew and shrank; and growth and sigma."""
    before, after, variance = change
    part = Fraction(str(rules.growth)).limit_denominator(10**9)
    whole, some = float(part.denominator), float(part.numerator)  # exact, unlike 1.05
    difference = after - before
    with np.errstate(divide="ignore", invalid="ignore"):
        growth = np.where(before > 0, difference / before, np.nan)
        sigma = difference / np.sqrt(variance)
        sure = np.abs(difference) > rules.sigma * np.sqrt(variance)
    grown = sure & (whole * after > (whole + some) * before)
    shrunk = sure & (whole * after < (whole - some) * before)
    return grown, shrunk, growth, sigma


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
) -> list[pd.DataFrame]:
    """Say what the communities of a frame come from, in the order of EVENTS."""
    grown, shrunk, growth, sigma = grown_and_shrunk(changes(frame, origins, cells, rules), rules)
    goes_on = origins.gap >= 0
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
    return [rows(frame, where, event, parents, columns) for event, where in happened.items()]


def departures(
    frame: Frame, parents: Sequence[list[int]], ended: np.ndarray, cells: Cells, rules: EventRules
) -> pd.DataFrame:
    """Say which communities vanish, of those whose tracks have ended for certain."""
    *_, growth, sigma = grown_and_shrunk(cells.change, rules)
    columns = {"gap": np.zeros(len(ended), np.int64), "growth": growth, "sigma": sigma}
    return rows(frame, ended & ~cells.there, "vanish", parents, columns)


def rows(
    frame: Frame,
    happened: np.ndarray,
    event: str,
    parents: Sequence[list[int]],
    columns: Mapping[str, np.ndarray],
) -> pd.DataFrame:
    """Return one row of the table for every community to which something happened."""
    where = np.flatnonzero(happened).tolist()
    return pd.DataFrame(
        {
            "time": frame.time,
            "community": frame.community[happened],
            "track": frame.track[happened],
            "parent": pd.Series([list(parents[i]) for i in where], dtype=object),
            "event": event,
            **{name: values[happened] for name, values in columns.items()},
        }
    )
