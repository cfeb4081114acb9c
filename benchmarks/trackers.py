"""The trackers that are compared, each from a cube of people to events; run one by its name.

``python -m benchmarks.trackers NAME cube.npy result.json`` measures one of them. It is also run by
an interpreter that knows nothing of popdask, so everything is imported where it is used.

A tracker does all of its work when it is called, and returns two functions: one reads its events as
(frame, event, row, column), one its objects as a cube of their numbers through time, 0 = none; how
both are read out of a peer's own words is said there.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from scipy import ndimage

from benchmarks.machine import measured

THRESHOLD = 50
SQUARE = np.ones((3, 3))  # cells that touch at a corner belong together
Events = Iterator[tuple[int, str, float, float]]
Read = tuple[Callable[[], Events], Callable[[], np.ndarray]]


def popdask(cube: np.ndarray) -> Read:
    """Communities of one class and reach 1.5, overlap links, tracks; one thread."""
    import dask

    from popdask.tracking.dbscan import dbscan
    from popdask.tracking.link import link
    from popdask.tracking.tracks import tracks

    frames = range(len(cube))
    population = xr.DataArray(cube, {"time": frames}, ("time", "y", "x")).chunk(time=1)
    classes = xr.where(population > THRESHOLD, np.int16(0), np.int16(-1))
    with dask.config.set(scheduler="sync"):
        community = dbscan(classes, eps=1.5, min_samples=1).compute()
        links = link(community.chunk(time=1), population, rule="overlap")
    labels = community.values
    inside = labels >= 0
    people = [np.bincount(labels[t][inside[t]], cube[t][inside[t]]) for t in frames]
    listed = {"time": np.repeat(frames, [len(p) for p in people])}
    listed |= {"community": np.concatenate([np.arange(len(p)) for p in people])}
    listed |= {"population": np.concatenate(people)}
    found = tracks(links, pd.DataFrame(listed), times=frames)

    def read() -> Events:
        for frame, rows in found.groupby("time"):
            places = ndimage.center_of_mass(inside[frame], labels[frame], rows["community"])
            for event, place in zip(rows["event"], places, strict=True):
                yield frame, event, *place

    def numbers() -> np.ndarray:
        cells = np.zeros(cube.shape, np.int64)
        for frame, rows in found.groupby("time"):
            own = np.zeros(labels[frame].max() + 2, np.int64)  # the last is of −1
            own[rows["community"]] = rows["track"] + 1
            cells[frame] = own[labels[frame]]
        return cells

    return read, numbers


def plain(cube: np.ndarray) -> Read:
    """ndimage.label, and the contingency of every two frames; mutual best overlaps go on."""
    labels, counts = zip(*(ndimage.label(frame > THRESHOLD, SQUARE) for frame in cube), strict=True)
    tables, tracks = [], [np.arange(counts[0])]
    for before, after, people in zip(labels, labels[1:], cube, strict=False):
        shared = (before > 0) & (after > 0)
        pairs, position = np.unique(
            np.stack([before[shared], after[shared]]), axis=1, return_inverse=True
        )
        weight = np.bincount(position, people[shared], pairs.shape[1])
        table = pd.DataFrame({"source": pairs[0], "target": pairs[1], "people": weight})
        heaviest = [table.groupby(end)["people"].transform("max") for end in ("source", "target")]
        goes_on = table[(table["people"] == heaviest[0]) & (table["people"] == heaviest[1])]
        track = np.full(after.max(), -1)
        track[goes_on["target"] - 1] = tracks[-1][goes_on["source"] - 1]
        new = np.flatnonzero(track < 0)
        track[new] = max(t.max(initial=-1) for t in tracks) + 1 + np.arange(len(new))
        tracks.append(track)
        tables.append(table)

    def read() -> Events:
        for frame, table in enumerate(tables):
            last, fresh = (np.arange(1, counts[frame + i] + 1) for i in (0, 1))
            after = table.groupby("source")["target"].nunique()
            before = table.groupby("target")["source"].nunique()
            happened = {
                "vanish": (frame, np.setdiff1d(last, table["source"])),
                "appear": (frame + 1, np.setdiff1d(fresh, table["target"])),
                "split": (frame, after.index[after > 1]),
                "merge": (frame + 1, before.index[before > 1]),
            }
            for event, (at, numbers) in happened.items():
                places = ndimage.center_of_mass(labels[at] > 0, labels[at], numbers)
                # a split is dated by its pieces
                yield from ((at + (event == "split"), event, *place) for place in places)

    def numbers() -> np.ndarray:
        owners = (np.append(0, track + 1) for track in tracks)
        return np.stack([own[cells] for own, cells in zip(owners, labels, strict=True)])

    return read, numbers


def tobac(cube: np.ndarray) -> Read:
    """Feature detection, segmentation, trackpy linking and merge/split by spanning trees.

    A search range of 10 cells lets every city be followed, a distance of 20 spans the pieces of
    one and not two stories. frame_len, which compares the first
    frame of one cell with the *last* of the other, is as long as the record, so that no pair is
    lost by it. Cells of one track are related: where a track has more cells than in the frame
    before it splits, where fewer it merges.
    """
    import tobac as peer

    times = pd.date_range("2000", periods=len(cube), freq="D")
    grid = {"time": times, "y": np.arange(cube.shape[1]) * 1e3, "x": np.arange(cube.shape[2]) * 1e3}
    field = xr.DataArray(cube, grid, ("time", "y", "x"), name="people")
    features = peer.feature_detection_multithreshold(field, dxy=1e3, threshold=[THRESHOLD])
    mask, features = peer.segmentation_2D(features, field, dxy=1e3, threshold=THRESHOLD)
    cells = peer.linking_trackpy(features, None, dt=86_400.0, dxy=1e3, d_max=1e4)
    family = peer.merge_split.merge_split_MEST(cells, dxy=1e3, distance=2e4, frame_len=len(cube))

    def read() -> Events:
        track = family["feature_parent_track_id"].sel(feature=cells["feature"].to_numpy())
        present = cells.assign(track=track.to_numpy())
        present = present.groupby(["track", "frame"])[["hdim_1", "hdim_2"]].agg(
            parts=("hdim_1", "size"), row=("hdim_1", "mean"), column=("hdim_2", "mean")
        )
        yield from _changes(present.reset_index(), len(cube))

    def numbers() -> np.ndarray:
        own = np.zeros(int(cells["feature"].max()) + 1, np.int64)
        own[cells["feature"]] = np.where(cells["cell"] > 0, cells["cell"], 0)
        alone = cells["feature"][cells["cell"] <= 0].to_numpy()  # linked to none
        own[alone] = own.max() + 1 + np.arange(len(alone))
        return own[mask.values]

    return read, numbers


def marex(cube: np.ndarray) -> Read:
    """Its tracker with merging, objects of any size, and as little filling as it allows.

    A split leaves the pieces one ID: it is where an ID has more connected parts than in the frame
    before. A merger is where an ID has siblings in the ledger, and had none in the frame before.
    """
    import marEx as peer  # noqa: N813

    _client()
    times = pd.date_range("2000", periods=len(cube), freq="D")
    place = {"lat": np.arange(cube.shape[1]) / 100, "lon": np.arange(cube.shape[2]) / 100}
    grid = {"time": times, **place}
    field = xr.DataArray(cube > THRESHOLD, grid, tuple(grid)).chunk(time=4)
    mask = xr.DataArray(np.ones(cube.shape[1:], bool), place, tuple(place)).chunk()
    tracker = peer.regional_tracker(
        field,
        mask,
        coordinate_units="degrees",
        R_fill=1,
        T_fill=0,
        area_filter_absolute=1,
        nn_partitioning=True,
        overlap_threshold=0.1,
        quiet=True,
    )
    found = tracker.run().compute()

    def read() -> Events:
        parts = []
        for frame, ids in enumerate(found["ID_field"].values):
            row, column = np.nonzero(ids)
            touching = ndimage.label(ids > 0, SQUARE)[0]
            cells = pd.DataFrame({"track": ids[row, column], "part": touching[row, column]})
            cells = cells.assign(frame=frame, row=row, column=column)
            parts.append(
                cells.groupby(["track", "frame"], as_index=False).agg(
                    parts=("part", "nunique"), row=("row", "mean"), column=("column", "mean")
                )
            )
        present = pd.concat(parts).sort_values(["track", "frame"])
        yield from (event for event in _changes(present, len(cube)) if event[1] != "merge")
        siblings = found["merge_ledger"].isel(sibling_ID=0).values >= 0
        began = siblings & ~np.roll(siblings, 1, axis=0)
        where = present.set_index(["track", "frame"])
        for frame, position in zip(*np.nonzero(began), strict=True):
            city = where.loc[int(found["ID"][position]), int(frame)]
            yield int(frame), "merge", city["row"], city["column"]

    return read, lambda: found["ID_field"].values.astype(np.int64)


def _changes(present: pd.DataFrame, frames: int) -> Events:
    """Read events from how many parts every track has in every frame (track, frame, parts)."""
    for _, track in present.groupby("track"):
        count = np.zeros(frames + 1, int)
        count[track["frame"]] = track["parts"]
        for row in track.itertuples():
            before, now, after = count[row.frame - 1], row.parts, count[row.frame + 1]
            if before == 0:
                yield row.frame, "appear", row.row, row.column
            elif now != before:
                yield row.frame, "split" if now > before else "merge", row.row, row.column
            if after == 0 and row.frame < frames - 1:
                yield row.frame, "vanish", row.row, row.column


@cache
def _client() -> Any:
    """One worker with one thread, in this process: marEx asks for a client."""
    from distributed import Client

    return Client(processes=False, n_workers=1, threads_per_worker=1, dashboard_address=":0")


TRACKERS = {tracker.__name__: tracker for tracker in (popdask, plain, tobac, marex)}


def main(name: str, cube: str, result: str) -> None:
    """Measure one tracker, once it is compiled, and write what it found."""
    people = np.load(cube)
    TRACKERS[name](people[:4, :96, :96])
    (read, numbers), spent = measured(lambda: TRACKERS[name](people))
    np.save(Path(result).with_suffix(".numbers.npy"), numbers().astype(np.int32))
    events = [(int(frame), event, float(row), float(x)) for frame, event, row, x in read()]
    told = {"cpu": spent.cpu, "wall": spent.wall, "peak": spent.peak, "events": events}
    Path(result).write_text(json.dumps(told))


if __name__ == "__main__":
    main(*sys.argv[1:])
