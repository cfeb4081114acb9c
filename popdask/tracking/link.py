"""Links between the communities of two frames, by a table of what they share.

Three rules say which community of one frame is which of the next. *cosine* is that of olley102's
PopulationCountClustering: the sum, over the cells that two communities share, of the cosine between
the forward flow of the first frame and the backward flow of the second. Both flows come from the
same two frames and are equal, so that sum is the whole number of shared cells whose people moved;
direction does not enter, and large overlaps are favoured. *overlap* follows the people who live in
the shared cells, of both frames. *direction* is a truly directional cosine, of two flows that were
computed apart. With a flow, communities are compared where it takes them
(:mod:`popdask.tracking.flow`).

Communities that share no cell need no look: one pass over the cells of two frames gives a table by
pair of communities with the cells and the people that they share. A community without another in
its place is paired with none (−1), so every sum over the cells of either, or of both (their
*union*), is a sum over rows of that table. Pairs are never formed, so neither memory nor time grows
with their product. People are compared in cells that have data in both frames, as whole numbers of
words (:mod:`popdask.blocks.sums`), so that the table is identical under any chunking.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain, groupby
from typing import Any

import dask.array as da
import numpy as np
import pandas as pd
import xarray as xr
from dask.base import tokenize
from dask.highlevelgraph import HighLevelGraph

from popdask.blocks.sums import (
    LabelSums,
    add_up,
    argmax_by_group,
    first_cells,
    frames_of,
    from_fixed,
    pair_keys,
    people_by_pair,
    split_keys,
    sum_frames,
    tabulate,
    to_fixed,
    tree_reduce,
)
from popdask.errors import InputError
from popdask.io.conventions import check_population
from popdask.tracking.flow import UNIT, agreement, ahead, components, farthest, moving_cells
from popdask.tracking.tracks import MOST
from popdask.validate import check_labels

OF_MOTION = ("similarity", "mean_similarity", "forward", "backward")  # columns
WINDOW = 6  # frames that a task compares with those before them
#: Labels, people, errors and agreement that each frame but the last meets where a flow takes it.
Followed = tuple[da.Array | None, ...]
RULES = ("cosine", "overlap", "cosine+overlap")  # and "direction", which needs two flows

SQUARES = 2.0**20  # squares of people are large: counted in units of this
MOVING, CELLS, PEOPLE, KNOWN, BEFORE, AFTER, NOISE = 0, 1, 2, 4, 5, 7, 9  # columns of the table
ROWS, COLUMNS = 11, 12  # sums of places, where they are asked for
NOTHING = LabelSums(np.zeros(0, dtype=np.int64), np.zeros((13, 0), dtype=np.int64))
NEAR = 3.0  # times the root of its cells that a community may lie aside
ALIKE, SIGMAS = 0.2, 4.0  # part by which, or noise in which, its people may differ then
GONE = 0.5  # part of its people from which on a community is still there


def pair_block(
    source: np.ndarray,
    target: np.ndarray,
    people: np.ndarray,
    later: np.ndarray,
    *others: np.ndarray,
    moving: bool,
    corner: tuple[int, int] = (0, 0),
) -> LabelSums:
    """Tabulate a block's pairs: cells, people; `others`: moving cells, then errors as shares."""
    some = (source >= 0) | (target >= 0)
    keys = pair_keys(np.maximum(source[some], -1) + 1, np.maximum(target[some], -1) + 1)
    if not keys.size:
        return NOTHING
    similar, errors = others[:moving], others[moving:]
    people, later = people[some], later[some]
    known = ~(np.isnan(people) | np.isnan(later))
    here, there = np.where(known, people, 0), np.where(known, later, 0)
    nothing = np.zeros(keys.size, dtype=np.int64)

    def sums() -> Iterator[np.ndarray]:
        yield similar[0][some].astype(np.int64) if similar else nothing
        yield np.ones(keys.size, dtype=np.int64)
        yield from to_fixed(people)
        yield known.astype(np.int64)
        yield from to_fixed(here)
        yield from to_fixed(there)
        if errors:
            variance = sum(
                _variance(error[some].astype(np.float64), people)
                for error, people in zip(errors, (here, there), strict=True)
            )
            yield from to_fixed(np.where(known, variance, 0) / SQUARES)
        else:
            yield from (nothing, nothing)  # Poisson's variance is the people themselves
        _, *places = np.nonzero(some)
        for along, start in zip(places, corner, strict=True):
            yield along + start

    return tabulate(keys, sums())


def _variance(error: np.ndarray, people: np.ndarray) -> np.ndarray:
    """The variance of counts by their relative error; Poisson's where that is not known."""
    found: np.ndarray = np.where(np.isnan(error), people, np.square(error * people))
    return found


@dataclass(frozen=True)
class Sums:
    """Sums of some rows of a table by pair, over the cells with data in both frames."""

    known: np.ndarray
    """How many, int64 (n,)."""
    before: np.ndarray
    """Their people in the source frame, float64 (n,)."""
    after: np.ndarray
    """Their people in the target frame, float64 (n,)."""
    variance: np.ndarray
    """Of the difference, by the error of the data, float64 (n,)."""

    @classmethod
    def of(cls, sums: np.ndarray, poisson: bool) -> Sums:
        """Turn the columns of a table, int64 (columns, n), into people."""
        before = from_fixed(sums[BEFORE], sums[BEFORE + 1])
        after = from_fixed(sums[AFTER], sums[AFTER + 1])
        noise = from_fixed(sums[NOISE], sums[NOISE + 1]) * SQUARES
        return cls(sums[KNOWN], before, after, before + after if poisson else noise)


def compare(table: LabelSums, *, poisson: bool, unit: int = 1) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Read from a table the pairs that share cells, and what each community is by itself."""
    source, target = (numbers - 1 for numbers in split_keys(table.keys))
    by_source, by_target = _by_label(source, table.sums), _by_label(target, table.sums)
    both = (source >= 0) & (target >= 0)
    shared = source[both], target[both], table.sums[:, both]
    pairs = _pairs(*shared, by_source, by_target, poisson=poisson, unit=unit)
    ends = _ends(by_source, "source", poisson), _ends(by_target, "target", poisson)
    return pairs, pd.concat(ends, ignore_index=True)


def _by_label(labels: np.ndarray, sums: np.ndarray) -> LabelSums:
    """Add up the columns (columns, n) by label but −1."""
    labelled = labels >= 0
    return add_up([LabelSums(labels[labelled], sums[:, labelled])])


def _pairs(
    source: np.ndarray,
    target: np.ndarray,
    sums: np.ndarray,
    by_source: LabelSums,
    by_target: LabelSums,
    *,
    poisson: bool,
    unit: int,
) -> pd.DataFrame:
    """Lay out the pairs that share cells, and the cosine rule's verdict on each."""
    whole = [
        table.sums[:, np.searchsorted(table.keys, ends)]
        for table, ends in ((by_source, source), (by_target, target))
    ]
    union = Sums.of(whole[0] + whole[1] - sums, poisson)
    shared, first, second = (Sums.of(part, poisson) for part in (sums, *whole))
    similarity, overlap = sums[MOVING], sums[CELLS]
    moved = similarity > 0
    return pd.DataFrame(
        {
            "source": source,
            "target": target,
            "similarity": similarity if unit == 1 else similarity / unit,
            "mean_similarity": similarity / unit / overlap,
            "overlap": overlap,
            "people": from_fixed(sums[PEOPLE], sums[PEOPLE + 1]),
            "forward": argmax_by_group(source, target, similarity) & moved,
            "backward": argmax_by_group(target, source, similarity) & moved,
            "people_target": shared.after,
            "share_source": _share(shared.before, first.before, shared.known, first.known),
            "share_target": _share(shared.after, second.after, shared.known, second.known),
            "union_source": union.before,
            "union_target": union.after,
            "variance": union.variance,
            "variance_shared": shared.variance,
        }
    )


def _share(
    people: np.ndarray, of_people: np.ndarray, cells: np.ndarray, of_cells: np.ndarray
) -> np.ndarray:
    """Divide people by people, or cells by cells where nobody lives."""
    by_cells = cells / np.maximum(of_cells, 1)
    return np.divide(people, of_people, out=by_cells, where=of_people > 0)


def _ends(table: LabelSums, side: str, poisson: bool) -> pd.DataFrame:
    """Lay out who lived on each community's own cells in both frames."""
    sums, own = table.sums, Sums.of(table.sums, poisson)
    cells = sums[CELLS]
    return pd.DataFrame(
        {
            "side": side,
            "community": table.keys,
            "people_source": own.before,
            "people_target": own.after,
            "variance": own.variance,
            "missing": 1 - own.known / cells,
            "cells": cells,
            "row": sums[ROWS] / cells,
            "column": sums[COLUMNS] / cells,
        }
    )


def displaced(ends: pd.DataFrame, pairs: pd.DataFrame, linked: pd.DataFrame) -> pd.DataFrame:
    """Link communities that are gone with new ones of as many people that stand close by."""
    known = ends[ends["missing"] <= MOST]  # of others nothing is said in :mod:`tracks`, either
    before = known[(known["side"] == "source") & ~known["community"].isin(linked["source"])]
    after = known[(known["side"] == "target") & ~known["community"].isin(linked["target"])]
    gone = before[before["people_target"] < GONE * before["people_source"]]
    new = after[after["people_source"] < GONE * after["people_target"]]
    if gone.empty or new.empty:
        return pairs[:0]
    from scipy.spatial import cKDTree  # of the few pairs of frames where this may be

    places = [side[["row", "column"]].to_numpy() for side in (gone, new)]
    distance, there = cKDTree(places[1]).query(places[0])
    back = cKDTree(places[0]).query(places[1])[1]
    new = new.iloc[there].reset_index(drop=True)
    gone = gone.reset_index(drop=True)
    people = gone["people_source"], new["people_target"]
    off = (people[0] - people[1]).abs()
    noise = SIGMAS * np.sqrt(gone["variance"] + new["variance"])
    width = np.sqrt(np.minimum(gone["cells"], new["cells"]))
    alike = off <= np.maximum(ALIKE * np.maximum(*people), noise)
    kept = (back[there] == gone.index) & (distance <= NEAR * width) & alike
    aside = {
        "source": gone["community"],
        "target": new["community"],
        "union_source": gone["people_source"] + new["people_source"],
        "union_target": gone["people_target"] + new["people_target"],
        "variance": gone["variance"] + new["variance"],
    }
    nothing = dict.fromkeys(pairs.columns.difference(list(aside)), 0)
    found = pd.DataFrame({**nothing, **aside})[kept].astype(pairs.dtypes)[list(pairs)]
    # those that share some cells have their sums already, in which no cell counts twice
    key = pd.MultiIndex.from_frame(pairs[["source", "target"]])
    mine = pd.MultiIndex.from_frame(found[["source", "target"]])
    return pd.concat([pairs[key.isin(mine)], found[~mine.isin(key)]], ignore_index=True)


def link(
    community: xr.DataArray,
    population: xr.DataArray,
    *,
    rule: str = "cosine+overlap",
    alpha: float = 10.0,
    iterations: int = 1,
    flow: xr.Dataset | None = None,
    backward: xr.Dataset | None = None,
    share: float = 0.0,
    displaced: bool = False,
    memory: int = 0,
    error: float | str | xr.DataArray = "poisson",
) -> pd.DataFrame:
    """Link the communities of every frame with those of the next.

    Eager: one pass over the cells, one call of :func:`dask.compute`.

    Parameters
    ----------
    community : DataArray of int, (time, y, x)
        Community numbers ≥ 0, negative where there is none.
    population : DataArray of float, (time, y, x)
        People per cell, NaN = no data.
    rule : {"cosine+overlap", "cosine", "overlap", "direction"}, optional
        ``"cosine"``: a → b if b has the largest similarity with a, and it is above 0; a ← b if a
        has the largest with b; the links are the union.
        ``"overlap"``: the same by the people of both frames in the shared cells, then by the number
        of shared cells (so that land without people is followed too).
        ``"cosine+overlap"``: the cosine links, and the overlap links of those communities that the
        cosine rule leaves alone because nobody moved in any cell they share.
        ``"direction"``: as ``"cosine"``, but the similarity is the sum of the cosines between
        `flow` and `backward`, which it needs: communities whose flows run against each other have
        a negative one, and no link.
        The lowest number wins every tie.
    alpha : float, optional
        Smoothness weight of the flow, in people per cell.
    iterations : int, optional
        Iterations of the flow, which starts at zero.
    flow : Dataset, optional
        ``u``, ``v`` (time, y, x) from each frame to the next, as ``optical_flow(population,
        centering=(0, 0, 1), scales=3, log=True)`` gives it: the cells of the earlier frame are
        moved by it, to the nearest cell, before they are compared with the later frame.
    backward : Dataset, optional
        The flow of each frame from the one before, by ``centering=(0, 0, -1)``; for the rule
        ``"direction"`` alone.
    share : float, optional
        The least part of the people of one of its two communities, from 0 to 1, that a link must
        carry: the larger of `share_source` and `share_target`. With 0 every link is kept.
    displaced : bool, optional
        Link, too, a community that is gone, and without a link, with the nearest that is new, if
        it stands within three times its own width and has as many people, to a fifth or to 4
        standard deviations: one that lies aside, as long, narrow towns that were moved share no
        cell with themselves. Such a link has no people and no cells in common.
    memory : int, optional
        Communities may be away for so many frames: those without a link are compared, in place and
        by the rule ``"overlap"``, with the ones that come without a link up to ``memory + 1``
        frames later. A frame without data counts as one.
    error : "poisson", float or DataArray (y, x) or (time, y, x), optional
        The error of the data, which `variance` is made of: Poisson's law, under which the variance
        of a count is the count, or the relative standard error of every cell, independent of the
        other cells' (0.05 = 5 %); where it is NaN, Poisson's law again.

    Returns
    -------
    pandas.DataFrame
        One row per link, ordered by time, next, source and target: ``time`` (of the source frame);
        ``next`` (time of the target frame); ``gap`` (frames between them, int64);
        ``source``, ``target`` (community numbers, int64); ``similarity`` (shared cells with a
        flow, int64: the sum of their cosines, each of which is 1; by the rule ``"direction"``
        the sum itself, float64; 0 across a gap, where no flow is looked at); ``mean_similarity``
        (its part of the shared cells, float64); ``overlap`` (shared cells, int64); ``people`` (of
        the source frame in the shared cells, float64); ``forward``, ``backward`` (bool: a → b,
        a ← b by the cosine rule). In cells with data in both frames (float64): ``people_target``
        (of the target frame in the shared cells); ``share_source``, ``share_target`` (the people
        in the shared cells as a part of the community's, in either frame); ``union_source``,
        ``union_target`` (people of the two frames on the cells of either community: growth, like
        for like); ``variance`` (of their difference); ``variance_shared`` (of that of the shared
        cells). Between the rules without flows all are the
        same; the rule says only which links there are.

    Raises
    ------
    InputError
        If the rule is unknown or lacks its flows, `share`, `memory` or `error` is out of range, or
        the arrays do not share frames and grid.

    Notes
    -----
    The result is identical under any chunking: people and cells are added up as integers.

    References
    ----------
    The rule *cosine*: PopulationCountClustering, https://github.com/olley102; its flow: Horn and
    Schunck, "Determining optical flow", Artificial Intelligence 17 (1981).

    Examples
    --------
    A town of four cells loses its lower row to a new town.

    >>> community = xr.DataArray([[[0, 0], [0, 0]], [[0, 0], [1, 1]]], dims=("time", "y", "x"))
    >>> population = xr.DataArray(np.full((2, 2, 2), 10.0), dims=("time", "y", "x"))
    >>> link(community, population)[["source", "target", "similarity", "overlap", "people"]]
       source  target  similarity  overlap  people
    0       0       0           0        2    20.0
    1       0       1           0        2    20.0
    """
    settings: dict[str, Any] = {
        "rule": rule,
        "alpha": alpha,
        "iterations": iterations,
        "flow": flow,
        "displaced": displaced,
    }
    settings |= {"backward": backward, "share": share, "memory": memory, "error": error}
    return compare_frames(community, population, **settings)[0]


def compare_frames(
    community: xr.DataArray,
    population: xr.DataArray,
    *,
    rule: str = "cosine+overlap",
    alpha: float = 10.0,
    iterations: int = 1,
    flow: xr.Dataset | None = None,
    backward: xr.Dataset | None = None,
    share: float = 0.0,
    displaced: bool = False,
    memory: int = 0,
    error: float | str | xr.DataArray = "poisson",
    similarity: bool = True,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Link communities, and tell who lived where each of them stands, in one pass over the cells.

    Parameters
    ----------
    community, population, rule, alpha, iterations, flow, backward, share, displaced, memory, error
        As for :func:`link`.
    similarity : bool, optional
        Whether to count the cells in common whose people moved, which takes a flow. The rule
        ``"overlap"`` may go without: the links then lack the columns ``similarity``,
        ``mean_similarity``, ``forward`` and ``backward``.

    Returns
    -------
    links : pandas.DataFrame
        The table of :func:`link`.
    ends : pandas.DataFrame
        One row per community and frame that it is compared with, ordered by ``time``, ``next`` (of
        the two frames), ``side`` (``"source"``: the community is of the frame `time`,
        ``"target"``: of the frame `next`) and ``community``; ``gap`` (frames between);
        ``people_source``, ``people_target`` (people on its cells in the two frames, counted in
        cells that have data in both), ``variance`` (of their difference), ``missing`` (part of its
        cells without data in either frame). With it :func:`tracks` tells a town that is new from
        one that was there unlisted, and nobody from no data.

    Raises
    ------
    InputError
        As :func:`link`.

    Examples
    --------
    The town that is new stands where 20 people lived before.

    >>> community = xr.DataArray([[[0, -1]], [[0, 1]]], dims=("time", "y", "x"))
    >>> population = xr.DataArray([[[90.0, 20.0]], [[90.0, 80.0]]], dims=("time", "y", "x"))
    >>> links, ends = compare_frames(community, population)
    >>> ends[["side", "community", "people_source", "people_target", "missing"]]
         side  community  people_source  people_target  missing
    0  source          0           90.0           90.0      0.0
    1  target          0           90.0           90.0      0.0
    2  target          1           20.0           80.0      0.0
    """
    _check(rule, flow, backward, share, memory)
    if not similarity and rule != "overlap":
        raise InputError(f"rule is {rule!r} without similarity; only the rule 'overlap' needs none")
    check_labels("community", community)
    population = check_population("population", population, "time", "y", "x")
    times, (labels, people) = frames_of(community, population)
    labels, people = labels.rechunk({0: 1}), people.rechunk({0: 1})
    errors = _errors(error, community, people)
    met = labels, people, errors
    followed = _followed(met, flow, backward if rule == "direction" else None)
    if similarity and followed[3] is None and len(times) > 1:
        followed = *followed[:3], moving_cells(population, alpha=alpha, iterations=iterations).data
    tables = _tables(met, followed, memory)
    unit = UNIT if rule == "direction" else 1
    aside, poisson = displaced, isinstance(error, str)
    links, ends = _joined(tables, times, rule, share, aside, poisson=poisson, unit=unit)
    ends = ends.drop(columns=["cells", "row", "column"])
    return (links if similarity else links.drop(columns=list(OF_MOTION))), ends


def _check(rule: str, flow: Any, backward: Any, share: float, memory: int) -> None:
    """Refuse rules that are unknown or lack their flows, and numbers out of range."""
    if rule not in (*RULES, "direction"):
        raise InputError(f"rule is {rule!r}; expected one of {', '.join(RULES)}, direction")
    if rule == "direction" and (flow is None or backward is None):
        raise InputError(
            "rule is 'direction' without its flows; expected flow and backward, which optical_flow "
            "makes with centering=(0, 0, 1) and (0, 0, -1) and scales=3; give both"
        )
    if not 0 <= share <= 1:
        raise InputError(f"share is {share}; expected a part of the people from 0 to 1, as 0.25")
    if not isinstance(memory, int) or memory < 0:
        raise InputError(f"memory is {memory!r}; expected a whole number of frames, 0 or more")


def _errors(error: float | str | xr.DataArray, community: xr.DataArray, people: da.Array) -> Any:
    """Return the relative error of every cell as a Dask array like the people; None by Poisson."""
    if isinstance(error, xr.DataArray):
        if "time" not in error.dims:
            error = error.expand_dims(time=len(people)).drop_vars("time", errors="ignore")
        error = error.astype(np.result_type(error.dtype, np.float32))  # NaN where a flow leaves
        return frames_of(community, error)[1][1].rechunk(people.chunks)
    if error == "poisson":
        return None
    if isinstance(error, str) or not error >= 0:
        raise InputError(
            f'error is {error!r}; expected "poisson", a share such as 0.05, or a raster of shares'
        )
    return da.full(people.shape, float(error), chunks=people.chunks, dtype=np.float32)


def _followed(
    met: tuple[da.Array, da.Array, da.Array | None],
    flow: xr.Dataset | None,
    backward: xr.Dataset | None,
) -> Followed:
    """Return the labels, people and errors that frames meet in the next, and how flows agree."""
    labels = met[0]
    if flow is None or len(labels) < 2:
        return None, None, None, None
    u, v = components("flow", flow, labels)
    forward, reach = (u.blocks[:-1], v.blocks[:-1]), farthest(flow)
    later, *there = (
        array if array is None else ahead(array.blocks[1:], forward, reach, fill=fill)
        for array, fill in zip(met, (-1, np.nan, np.nan), strict=True)
    )
    if backward is None:
        return later, *there, None
    back = [part.blocks[1:] for part in components("backward", backward, labels)]
    return later, *there, agreement(forward, (back[0], back[1]), reach)


def _tables(
    met: tuple[da.Array, da.Array, da.Array | None], followed: Followed, memory: int
) -> dict[tuple[int, int], LabelSums]:
    """Tabulate each frame with those before it; a task reads a chunk of some frames once."""
    labels = met[0]
    cuts = dict(enumerate((1, *labels.chunks[1:])))
    given = (*met, *followed)
    arrays = [None if array is None else array.rechunk(cuts) for array in given]
    name = f"pairs-{tokenize([array is not None and array.name for array in arrays], memory)}"
    windows = [
        [(t - step, t) for t in range(start, min(start + WINDOW, len(labels)))
         for step in range(1, min(memory + 1, t) + 1)]
        for start in range(1, len(labels), WINDOW)
    ]  # fmt: skip
    if not windows:
        return {}
    graph: dict[Any, Any] = {}
    starts = first_cells(labels.chunks[1:])
    for block in np.ndindex(*labels.numblocks[1:]):
        corner = tuple(int(along[i]) for along, i in zip(starts, block, strict=True))
        for number, pairs in enumerate(windows):
            keys = [_keys(arrays, *pair, block) for pair in pairs]
            moving = [arrays[-1] is not None and last - first == 1 for first, last in pairs]
            graph[name, number, *block] = (_pair_blocks, keys, moving, corner)
    below: list[Any] = [array for array in arrays if array is not None]
    layers = HighLevelGraph.from_collections(name, graph, dependencies=below)
    chunks = ((1,) * len(windows), *labels.chunks[1:])
    blocks = da.Array(layers, name, chunks, dtype=object)
    found = tree_reduce(blocks, _added, by_frame=True).compute()
    return dict(zip(chain(*windows), chain(*found), strict=True))


def _keys(
    arrays: list[da.Array | None], first: int, last: int, block: tuple[int, ...]
) -> list[tuple[Any, ...]]:
    """Name the blocks that :func:`pair_block` takes of two frames."""
    labels, people, errors, later, there, noise, similar = arrays
    next_one = last - first == 1
    both = []
    for array, ahead_of in ((labels, later), (people, there), (errors, noise)):
        then = (array, last) if ahead_of is None or not next_one else (ahead_of, first)
        both.append([(array, first), then])
    moving = [(similar, first)] if next_one else []
    read = [*both[0], *both[1], *moving, *both[2]]
    return [(array.name, frame, *block) for array, frame in read if array is not None]


def _pair_blocks(
    pairs: list[list[np.ndarray]], moving: list[bool], corner: tuple[int, int]
) -> list[LabelSums]:
    """Tabulate pairs of frames in a chunk."""
    return [
        pair_block(*pair, moving=each, corner=corner)
        for pair, each in zip(pairs, moving, strict=True)
    ]


def _added(parts: list[list[LabelSums]]) -> list[LabelSums]:
    """Add up the tables of each pair."""
    return [add_up(list(tables)) for tables in zip(*parts, strict=True)]


def _joined(
    tables: Mapping[tuple[int, int], LabelSums],
    times: np.ndarray,
    rule: str,
    share: float,
    aside: bool,
    *,
    poisson: bool,
    unit: int,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Read links and ends from the tables of all pairs of frames, those close in time first."""
    nothing = (table.assign(gap=0) for table in compare(NOTHING, poisson=poisson, unit=unit))
    links, ends = ([(0, 0, table)] for table in nothing)  # gives the columns their types
    left: list[set[int]] = [set() for _ in times]  # communities with a link to a later frame
    came: list[set[int]] = [set() for _ in times]  # and to an earlier one
    in_order = sorted(tables.items(), key=lambda item: (item[0][1] - item[0][0], item[0]))
    for gap, some in groupby(in_order, key=lambda item: item[0][1] - item[0][0] - 1):
        fresh = []
        for (first, last), table in some:
            pairs, own = compare(table, poisson=poisson, unit=unit)
            if gap:
                pairs, own = _away(pairs, own, left[first], came[last])
            linked = _apply_rule(pairs, "overlap" if gap else rule)
            linked = linked[linked[["share_source", "share_target"]].max(axis=1) >= share]
            if aside and not gap:
                linked = pd.concat([linked, displaced(own, pairs, linked)])
                linked = linked.sort_values(["source", "target"])
            fresh.append((first, last, linked.assign(gap=gap)))
            ends.append((first, last, own.assign(gap=gap)))
        for first, last, pairs in fresh:  # which are no matter of each other
            left[first].update(pairs["source"])
            came[last].update(pairs["target"])
        links += fresh
    return _timed(links, times), _timed(ends, times)


def _away(
    pairs: pd.DataFrame, own: pd.DataFrame, left: set[int], came: set[int]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Keep those that went without a link, and those that came without one."""
    gone = ~own["community"].isin(left) & (own["side"] == "source")
    new = ~own["community"].isin(came) & (own["side"] == "target")
    return pairs[~pairs["source"].isin(left) & ~pairs["target"].isin(came)], own[gone | new]


def _timed(parts: list[tuple[int, int, pd.DataFrame]], times: np.ndarray) -> pd.DataFrame:
    """Join tables of pairs of frames, in order of time, with their times."""
    ordered = sorted(parts, key=lambda part: part[:2])
    table = pd.concat([part for _, _, part in ordered], ignore_index=True)
    for place, column in enumerate(("time", "next")):
        frames = np.repeat([part[place] for part in ordered], [len(part[2]) for part in ordered])
        table.insert(place, column, times[frames.astype(np.int64)])
    table.insert(2, "gap", table.pop("gap"))
    return table


def match(source: xr.DataArray, target: xr.DataArray, population: xr.DataArray) -> pd.DataFrame:
    """Add up the people, and count the cells, that two labellings of the same frames share."""
    times, arrays = frames_of(source, target, population)
    found = []
    for table, time in zip(sum_frames(people_by_pair, *arrays).compute(), times, strict=True):
        one, other = split_keys(table.keys)
        columns = {"time": np.full(len(one), time), "source": one, "target": other}
        columns |= {"people": table.reals(1), "overlap": table.sums[0]}
        found.append(pd.DataFrame(columns))
    return pd.concat(found, ignore_index=True)


def largest_share(
    source: xr.DataArray, target: xr.DataArray, population: xr.DataArray
) -> pd.DataFrame:
    """Find the label of another array, in the same frame, that holds most people of each label."""
    order, down = ["time", "source", "people", "overlap", "target"], ["people", "overlap"]
    ascending = [name not in down for name in order]
    pairs = match(source, target, population).sort_values(order, ascending=ascending)
    return pairs.drop_duplicates(["time", "source"], ignore_index=True)


def _apply_rule(pairs: pd.DataFrame, rule: str) -> pd.DataFrame:
    """Keep the pairs that are links."""
    source, target = pairs["source"].to_numpy(), pairs["target"].to_numpy()
    people = pairs["people"] + pairs["people_target"]  # a new core has its own in the later one
    weights = people.to_numpy(), pairs["overlap"].to_numpy()
    by_people = argmax_by_group(source, target, *weights), argmax_by_group(target, source, *weights)
    cosine = (pairs["forward"] | pairs["backward"]).to_numpy()
    if rule in ("cosine", "direction"):
        kept = cosine
    elif rule == "overlap":
        kept = by_people[0] | by_people[1]
    else:
        alone = ~np.isin(source, source[cosine]), ~np.isin(target, target[cosine])
        kept = cosine | (by_people[0] & alone[0]) | (by_people[1] & alone[1])
    return pairs[kept]
