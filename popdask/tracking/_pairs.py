"""What the communities of two frames have to do with each other, counted exactly in one pass.

A table by pair of communities holds the cells and the people that they share; a community without
another in its place is paired with none (−1). Every sum over the cells of either community, or of
both (their *union*), is a sum over rows of that table, so the cells are read once.

People are compared in cells that have data in both frames. They are whole numbers of words
(:mod:`popdask.blocks.sums`), so that the table is identical under any chunking.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from popdask.blocks.sums import (
    LabelSums,
    argmax_by_group,
    from_fixed,
    pair_keys,
    split_keys,
    tabulate,
    to_fixed,
)

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
    ends = [
        _ends(*by_source, side="source", poisson=poisson),
        _ends(*by_target, side="target", poisson=poisson),
    ]
    return pairs, pd.concat(ends, ignore_index=True)


def _by_label(labels: np.ndarray, sums: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Add up the columns by label but −1: labels (n,), ascending, and sums (columns, n)."""
    order = np.argsort(labels, kind="stable")
    order = order[labels[order] >= 0]
    numbers, starts = np.unique(labels[order], return_index=True)
    if not len(numbers):
        return numbers, sums[:, :0]
    return numbers, np.add.reduceat(sums[:, order], starts, axis=1)


def _pairs(
    source: np.ndarray,
    target: np.ndarray,
    sums: np.ndarray,
    by_source: tuple[np.ndarray, np.ndarray],
    by_target: tuple[np.ndarray, np.ndarray],
    *,
    poisson: bool,
    unit: int,
) -> pd.DataFrame:
    """Lay out the pairs that share cells, and the cosine rule's verdict on each."""
    whole = [
        table[:, np.searchsorted(numbers, ends)]
        for (numbers, table), ends in ((by_source, source), (by_target, target))
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


def _ends(numbers: np.ndarray, sums: np.ndarray, *, side: str, poisson: bool) -> pd.DataFrame:
    """Lay out who lived on each community's own cells in both frames."""
    own = Sums.of(sums, poisson)
    return pd.DataFrame(
        {
            "side": side,
            "community": numbers,
            "people_source": own.before,
            "people_target": own.after,
            "variance": own.variance,
            "missing": 1 - own.known / np.maximum(sums[CELLS], 1),
            "cells": sums[CELLS],
            "row": sums[ROWS] / np.maximum(sums[CELLS], 1),
            "column": sums[COLUMNS] / np.maximum(sums[CELLS], 1),
        }
    )


def displaced(ends: pd.DataFrame, pairs: pd.DataFrame, linked: pd.DataFrame) -> pd.DataFrame:
    """Link communities that are gone with new ones of as many people that stand close by."""
    known = ends[ends["missing"] == 0]
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
