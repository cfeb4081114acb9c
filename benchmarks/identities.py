"""How well identities are kept: HOTA, TRA and BC of numbered objects against the true ones.

Both are cubes of numbers, one for every object through time, 0 where there is none. No scheme says
who goes on as whom where objects part or join, so numbers are cut there, the true ones and the
found ones by the events of each: whoever has part in a split or merger has a new number.

HOTA (Luiten and others, International Journal of Computer Vision 129, 2021) is by trackeval, TRA
(Matula and others, PLOS ONE 10, 2015) and BC (Ulman and others, Nature Methods 14, 2017) by
py-ctcmetrics. In theirs an object has one parent, so that mergers have none.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import ndimage

CUTS = ("split", "merge")
Happened = Iterable[tuple[int, str, int, int]]
"""Frame, event, and the row and column of the slot that it happens in."""


@dataclass(frozen=True)
class Objects:
    """The objects of every frame."""

    cells: NDArray[np.int64]
    """Numbers through time, cut at events, (time, y, x), 0 = none."""
    tracks: NDArray[np.int64]
    """Number, first frame, last frame, parent (0 = none), (n, 4)."""

    @classmethod
    def of(cls, numbers: NDArray, events: Happened, slot: tuple[int, int]) -> Objects:
        """Cut numbers where their slot has a split or merger."""
        happened = {(frame, row, column): event for frame, event, row, column in events
                    if event in CUTS}  # fmt: skip
        present = _present(numbers, slot)
        cut = [
            sum((t, row, column) in happened for t in range(frame + 1))
            for frame, row, column in present[["frame", "row", "column"]].to_numpy()
        ]
        present["own"] = present.assign(cut=cut).groupby(["number", "cut"]).ngroup() + 1
        cells = np.zeros(numbers.shape, np.int64)
        for frame, rows in present.groupby("frame"):
            own = np.zeros(numbers.max() + 1, np.int64)
            own[rows["number"]] = rows["own"]
            cells[frame] = own[numbers[frame]]
        return cls(cells, _tracks(present, happened))


def _present(numbers: NDArray, slot: tuple[int, int]) -> pd.DataFrame:
    """List the objects of every frame: frame, number, and the slot that they lie in."""
    rows = []
    for frame, labels in enumerate(numbers):
        found = np.unique(labels[labels > 0])
        middles = np.array(ndimage.center_of_mass(labels > 0, labels, found)).reshape(-1, 2)
        where = (middles // slot).astype(np.int64)
        rows.append(np.column_stack([np.full(len(found), frame), found, where]))
    return pd.DataFrame(np.concatenate(rows), columns=["frame", "number", "row", "column"])


def _tracks(present: pd.DataFrame, happened: dict[tuple[int, int, int], str]) -> NDArray[np.int64]:
    """Write down when each number lives, and whom it has parted from."""
    lives = present.groupby("own").agg(
        {"frame": ["min", "max"], "row": "first", "column": "first"}
    ).to_numpy()  # fmt: skip
    ended = {(frame, row, column): own for own, (_, frame, row, column) in enumerate(lives, 1)}
    parents = [
        ended.get((first - 1, row, column), 0)
        if happened.get((first, row, column)) == "split"
        else 0
        for first, _, row, column in lives
    ]
    return np.column_stack([np.arange(1, len(lives) + 1), lives[:, :2], parents]).astype(np.int64)


def scores(true: Objects, found: Objects) -> dict[str, float]:
    """Score found objects: HOTA, TRA, BC."""
    from ctc_metrics.metrics import bc, raw_division_metrics, tra  # of the extra "bench"
    from ctc_metrics.utils.representations import count_acyclic_graph_correction_operations
    from trackeval.metrics import HOTA

    shared = [_shared(*pair) for pair in zip(true.cells, found.cells, strict=True)]
    hota = HOTA().eval_sequence(_sequence(shared))["HOTA"].mean()
    lists = [[[*ids] for ids in side] for side in zip(*(pair[:2] for pair in shared), strict=True)]
    matched = [_covering(*pair) for pair in shared]
    mapped = [[one[side] for one in matched] for side in (0, 1)]
    operations = count_acyclic_graph_correction_operations(
        true.tracks, found.tracks, *lists, *mapped
    )
    parted = raw_division_metrics(found.tracks, true.tracks, *mapped, 0)
    return {"HOTA": float(hota), "TRA": tra(**operations)[0], "BC": bc(*parted) or 0.0}


def _shared(true: NDArray, found: NDArray) -> tuple[NDArray, NDArray, NDArray]:
    """Count the cells that objects of a frame share; the last row and column are of the rest."""
    ids = [np.unique(cells[cells > 0]) for cells in (true, found)]
    here = [np.where(cells > 0, np.searchsorted(known, cells), len(known))
            for cells, known in zip((true, found), ids, strict=True)]  # fmt: skip
    shape = tuple(len(known) + 1 for known in ids)
    flat = np.ravel_multi_index((here[0].ravel(), here[1].ravel()), shape)
    return ids[0], ids[1], np.bincount(flat, minlength=shape[0] * shape[1]).reshape(shape)


def _sequence(shared: list[tuple[NDArray, NDArray, NDArray]]) -> dict[str, object]:
    """Put frames as trackeval takes them: numbers from 0, and intersection over union."""
    similar = []
    for *_, cells in shared:
        both = cells[:-1, :-1]
        union = cells.sum(1)[:-1, None] + cells.sum(0)[None, :-1] - both
        similar.append(both / np.maximum(union, 1))
    ids = [[one[side] - 1 for one in shared] for side in (0, 1)]
    data: dict[str, object] = {"similarity_scores": similar}
    for name, numbers in zip(("gt", "tracker"), ids, strict=True):
        data[f"{name}_ids"] = numbers
        data[f"num_{name}_dets"] = sum(map(len, numbers))
        data[f"num_{name}_ids"] = max((n.max(initial=-1) for n in numbers), default=-1) + 1
    return data


def _covering(true: NDArray, found: NDArray, cells: NDArray) -> tuple[list[int], list[int]]:
    """Pair the objects of which the found one covers more than half of the true one."""
    half = cells[:-1, :-1] > 0.5 * cells[:-1].sum(1)[:, None]
    rows, columns = np.nonzero(half)
    return true[rows].tolist(), found[columns].tolist()
