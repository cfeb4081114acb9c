"""Links between the communities of successive frames, and the tracks that follow from them.

Two rules say which community of one frame is which of the next. *cosine* is that of olley102's
PopulationCountClustering: the sum, over the cells that two communities share, of the cosine between
the forward flow of the first frame and the backward flow of the second. Both flows come from the
same two frames and are equal, so that sum is the whole number of shared cells whose people moved;
direction does not enter, and large overlaps are favoured. *overlap* follows the people who live in
the shared cells. *direction* is a truly directional cosine, of two flows that were computed apart.
With a flow, communities are compared where it takes them (:mod:`popdask.tracking.warping`).

The trick is that communities which share no cell need no look: one pass over the cells of two
frames gives a table of the pairs that do (:mod:`popdask.blocks.sums`), and the rules read that
table. Pairs of communities are never formed, so neither memory nor time grows with their product.
"""

from __future__ import annotations

import dask.array as da
import numpy as np
import pandas as pd
import xarray as xr

from popdask.blocks.sums import (
    LabelSums,
    argmax_by_group,
    frames_of,
    pair_keys,
    split_keys,
    sum_frames,
    tabulate,
    to_fixed,
)
from popdask.errors import InputError
from popdask.io.arrays import check_population
from popdask.tracking.flow import moving_cells
from popdask.tracking.tracks import EVENTS, tracks, verify_tracks
from popdask.tracking.warping import UNIT, agreement, ahead, components, farthest
from popdask.validate import check_labels

__all__ = [
    "EVENTS",
    "RULES",
    "link",
    "match",
    "tracks",
    "verify_tracks",
]

RULES = ("cosine", "overlap", "cosine+overlap")  # and "direction", which needs two flows
_NOTHING = LabelSums(np.zeros(0, dtype=np.int64), np.zeros((4, 0), dtype=np.int64))


def link(
    community: xr.DataArray,
    population: xr.DataArray,
    *,
    rule: str = "cosine+overlap",
    alpha: float = 10.0,
    iterations: int = 1,
    flow: xr.Dataset | None = None,
    backward: xr.Dataset | None = None,
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
        ``"overlap"``: the same by the people of the source frame in the shared cells, then by the
        number of shared cells (so that land without people is followed too).
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

    Returns
    -------
    pandas.DataFrame
        One row per link, ordered by time, source and target: ``time`` (of the source frame);
        ``source``, ``target`` (community numbers, int64); ``similarity`` (shared cells with a
        flow, int64: the sum of their cosines, each of which is 1; by the rule ``"direction"``
        the sum itself, float64); ``mean_similarity`` (its part of the shared cells, float64);
        ``overlap`` (shared cells, int64); ``people`` (of the source frame in the shared cells,
        float64); ``forward``, ``backward`` (bool: a → b, a ← b by the cosine rule). Between the
        rules without flows all are the same; the rule says only which links there are.

    Raises
    ------
    InputError
        If the rule is unknown or lacks its flows, or the arrays do not share frames and grid.

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
    if rule not in (*RULES, "direction"):
        raise InputError(f"rule is {rule!r}; expected one of {', '.join(RULES)}, direction")
    if rule == "direction" and (flow is None or backward is None):
        raise InputError(
            "rule is 'direction' without its flows; expected flow and backward, which optical_flow "
            "makes with centering=(0, 0, 1) and (0, 0, -1) and scales=3; give both"
        )
    check_labels("community", community)
    population = check_population("population", population, "time", "y", "x")
    times, (labels, people) = frames_of(community, population)
    tables = []
    if len(times) > 1:
        labels, people = labels.rechunk({0: 1}), people.rechunk({0: 1})
        later, similar = _followed(labels, flow, backward if rule == "direction" else None)
        if similar is None:
            similar = moving_cells(population, alpha=alpha, iterations=iterations).data
        pairs = labels.blocks[:-1], later, people.blocks[:-1], similar
        tables = sum_frames(_overlap_block, *pairs).compute()
    unit = UNIT if rule == "direction" else 1
    frames = [_apply_rule(_pairs(table, unit), rule) for table in tables]
    # a frame without links still gives the columns their types
    links = pd.concat([_pairs(_NOTHING, unit), *frames], ignore_index=True)
    links.insert(0, "time", np.repeat(times[:-1], [len(frame) for frame in frames]))
    return links


def _followed(
    labels: da.Array, flow: xr.Dataset | None, backward: xr.Dataset | None
) -> tuple[da.Array, da.Array | None]:
    """Give the labels that each frame but the last meets in the next, and how flows agree there."""
    later = labels.blocks[1:]
    if flow is None:
        return later, None
    u, v = components("flow", flow, labels)
    forward, reach = (u.blocks[:-1], v.blocks[:-1]), farthest(flow)
    moved = ahead(later, forward, reach)
    if backward is None:
        return moved, None
    back = [part.blocks[1:] for part in components("backward", backward, labels)]
    return moved, agreement(forward, (back[0], back[1]), reach)


def match(old: xr.DataArray, new: xr.DataArray, population: xr.DataArray) -> pd.DataFrame:
    """Match two labellings of the same frames by the people that their communities share.

    Where a frame is labelled anew, as the last one is when another is appended under a flow
    centred in time, this says which of its communities are the old ones, whose tracks they keep.

    Parameters
    ----------
    old, new : DataArray of int, (time, y, x)
        Community numbers ≥ 0, negative where there is none.
    population : DataArray of float, (time, y, x)
        People per cell, NaN = no data.

    Returns
    -------
    pandas.DataFrame
        ``time``, ``old``, ``new``: the pairs in which each shares more people (then more cells)
        with the other than with any third; every community is in one pair at most.

    Raises
    ------
    InputError
        If the arrays do not share frames and grid.

    Examples
    --------
    >>> old = xr.DataArray([[[0, 0, 1, 1]]], dims=("time", "y", "x"))
    >>> new = xr.DataArray([[[0, 1, 1, 1]]], dims=("time", "y", "x"))
    >>> match(old, new, xr.ones_like(old, float))
       time  old  new
    0     0    0    0
    1     0    1    1
    """
    times, (before, after, people) = frames_of(old, new, population)
    still = da.zeros_like(before, dtype=bool)
    found = []
    for table, time in zip(
        sum_frames(_overlap_block, before, after, people, still).compute(), times, strict=True
    ):
        source, target = split_keys(table.keys)
        weights = table.reals(2), table.sums[1]
        both = argmax_by_group(source, target, *weights) & argmax_by_group(target, source, *weights)
        same = {"time": np.full(both.sum(), time), "old": source[both], "new": target[both]}
        found.append(pd.DataFrame(same))
    return pd.concat(found, ignore_index=True)


def _overlap_block(
    source: np.ndarray, target: np.ndarray, people: np.ndarray, moving: np.ndarray
) -> LabelSums:
    """Tabulate the pairs that share cells of a block: moving cells, all cells, people."""
    shared = (source >= 0) & (target >= 0)
    cells = np.ones(np.count_nonzero(shared), dtype=np.int64)
    columns = (moving[shared], cells, *to_fixed(people[shared]))
    return tabulate(pair_keys(source[shared], target[shared]), columns)


def _pairs(table: LabelSums, unit: int = 1) -> pd.DataFrame:
    """Return every pair that shares cells, by source and target, and the cosine rule's verdict."""
    source, target = split_keys(table.keys)
    similarity, overlap = table.sums[0], table.sums[1]
    moved = similarity > 0
    return pd.DataFrame(
        {
            "source": source,
            "target": target,
            "similarity": similarity if unit == 1 else similarity / unit,
            "mean_similarity": similarity / unit / overlap,
            "overlap": overlap,
            "people": table.reals(2),
            "forward": argmax_by_group(source, target, similarity) & moved,
            "backward": argmax_by_group(target, source, similarity) & moved,
        }
    )


def _apply_rule(pairs: pd.DataFrame, rule: str) -> pd.DataFrame:
    """Keep the pairs that are links."""
    source, target = pairs["source"].to_numpy(), pairs["target"].to_numpy()
    weights = pairs["people"].to_numpy(), pairs["overlap"].to_numpy()
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
