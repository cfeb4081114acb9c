"""The frames that a job begins with: which they are, how they lie, and whom a move takes away.

How far a pair of frames lies apart is on record with the stage that reads them, under a fingerprint
of both files: a plan measures what is not on record, and a run what it reads anew.

Where frames are to be moved, they come to lie where most of them do, the earliest where as many do
so elsewhere: an appended frame moves no other, unless it tips that balance.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import pairwise
from math import ceil, prod
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from popdask.config.jobs import CommunitiesJob, SettlementsJob
from popdask.io import extents, rasters
from popdask.io.frames import find_frames, frames_of_times, year_text
from popdask.store.repository import RegionStore
from popdask.tracking.events import EVENTS
from popdask.workflow.plan import Plan, fingerprint
from popdask.workflow.runner import Files

#: Cells that a plan reads to see how frames lie; where there are more, the run says so.
MOST_CELLS = 600_000_000

#: Jobs that begin with frames of people.
FramesJob = CommunitiesJob | SettlementsJob

#: Cells down and to the right.
Shift = tuple[int, int]

COLUMNS = ("dy", "dx", "response", "suspicious", "part")


def frame_paths(job: FramesJob) -> dict[np.datetime64, str]:
    """Find the files of a job's frames, by time."""
    settings = job.input
    if settings.times is not None:
        return frames_of_times(settings.frames, settings.times)
    return find_frames(settings.frames, settings.start, settings.end)


def reading_of(job: FramesJob, versions: Mapping[str, str]) -> dict[str, Any]:
    """What reading a frame depends on beside its own file, of all files' versions in order."""
    # Aligned frames depend on the first one, which gives the grid, or on all that it covers.
    grid: Any = list(versions.values()) if job.input.align else None
    grid = grid[0] if job.input.align is True else grid
    return {"nodata": job.input.nodata, "grid": grid}


def open_source(job: FramesJob) -> xr.Dataset:
    """Open the frames of a job as they are in their files, lazily."""
    from popdask.io import cube as cube_module

    settings = job.input.model_dump(include={"chunks", "align", "nodata"})
    return cube_module.open_frames(frame_paths(job), **settings)


def shape_of(job: FramesJob) -> tuple[int, int, int]:
    """Frames, rows and columns of a job, from the headers of its files."""
    paths = frame_paths(job).values()
    rows, columns = extents.grids_of(paths, job.input.align)[1].shape
    return len(paths), rows, columns


def displacements(
    job: FramesJob, files: Files, records: Mapping[str, Any], *, most_cells: float = float("inf")
) -> pd.DataFrame:
    """Return how every frame lies to the one before it, from the record where it is there."""
    times = [str(time.astype("datetime64[s]")) for time in frame_paths(job)]
    versions = {time: rasters.frame_version(files[time]) for time in times}
    pairs, keys = list(pairwise(versions)), _pair_keys(job, versions)
    recorded = records.get("population", {}).get("displacement", [])
    known = {row["key"]: [row.get(name) for name in COLUMNS] for row in recorded}
    if any(key not in known for key in keys) and prod(shape_of(job)) <= most_cells:
        known |= _measured(job, tuple(keys), frozenset(known))
    rows = [
        (pd.Timestamp(first), pd.Timestamp(then), key, *known[key])
        for (first, then), key in zip(pairs, keys, strict=True)
        if key in known
    ]
    table = pd.DataFrame(rows, columns=["time", "next", "key", *COLUMNS])
    return table.astype({"dy": float, "dx": float, "suspicious": bool, "part": bool})


def _pair_keys(job: FramesJob, versions: Mapping[str, str]) -> list[str]:
    """Make a fingerprint of all that the displacement of each pair of frames depends on."""
    reading = reading_of(job, versions)
    return [fingerprint("displacement", 4, reading, *pair) for pair in pairwise(versions.values())]


@lru_cache(maxsize=4)  # a run plans more than once before it has put anything on record
def _measured(job: FramesJob, keys: tuple[str, ...], known: frozenset[str]) -> dict[str, list[Any]]:
    """Measure the pairs of frames that are not known, by their fingerprints."""
    from popdask.tracking.registration import displacement

    population, found = open_source(job)["population"], {}
    fresh = [position for position, key in enumerate(keys) if key not in known]
    for first, last in _stretches(fresh):
        table = displacement(population.isel(time=slice(first, last + 2)))
        for key, row in zip(keys[first:], table[list(COLUMNS)].to_numpy(object), strict=False):
            found[key] = [*map(float, row[:3]), *map(bool, row[3:])]
    return found


def _stretches(positions: Sequence[int]) -> list[tuple[int, int]]:
    """List the first and last of the positions that follow one another."""
    parts = np.split(np.array(positions), np.flatnonzero(np.diff(positions) > 1) + 1)
    return [(int(part[0]), int(part[-1])) for part in parts]


def on_record(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Put displacements as they can be written as JSON, None where there is nothing to compare."""
    columns = ("key", *COLUMNS)
    values = table[list(columns)].astype(object).to_numpy()
    return [
        {name: None if pd.isna(value) else value for name, value in zip(columns, row, strict=True)}
        for row in values
    ]


def shifts(job: FramesJob, table: pd.DataFrame) -> dict[str, Shift]:
    """Return by how many cells frames are to be moved."""
    if job.input.register is None or table.empty:
        return {}
    lie, times = [(0, 0)], [table["time"].iloc[0], *table["next"]]
    whole = table["suspicious"] & ~table["part"]
    for dy, dx, moved in table[["dy", "dx"]].assign(whole=whole).to_numpy(object):
        down, right = (round(dy), round(dx)) if moved else (0, 0)
        lie.append((lie[-1][0] + down, lie[-1][1] + right))
    ((home, _),) = Counter(lie).most_common(1)
    return {
        time.strftime("%Y-%m-%dT%H:%M:%S"): (home[0] - place[0], home[1] - place[1])
        for time, place in zip(times, lie, strict=True)
        if place != home
    }


def move(source: xr.Dataset, moves: Mapping[str, Shift]) -> tuple[xr.Dataset, dict[str, float]]:
    """Move frames by whole cells."""
    from popdask.tracking.registration import shift_frame

    population, left = source["population"], {}
    frames = [population.isel(time=slice(i, i + 1)) for i in range(population.sizes["time"])]
    times = population["time"].values.astype("datetime64[s]").astype(str).tolist()
    for time, (dy, dx) in moves.items():
        position = times.index(time)
        moved, left[time] = shift_frame(frames[position].isel(time=0), dy=dy, dx=dx)
        frames[position] = moved.expand_dims("time").transpose(*population.dims)
    return source.assign(population=xr.concat(frames, "time").chunk(population.chunksizes)), left


def warnings(job: FramesJob, table: pd.DataFrame) -> list[str]:
    """Say of frames that lie apart how they lie, and what can be done or is done about it."""
    if not table["suspicious"].any():
        return []
    parts_of_cells = displacement_warnings(table[table["part"]])  # which no whole cells mend
    if job.input.register is None:
        whole = displacement_warnings(table[~table["part"]])
        return [*(f'{each} ([input] register = "shift")' for each in whole), *parts_of_cells]
    return parts_of_cells + [
        f"{time[:10].removesuffix('-01-01')} is moved by {_words(shift)}, to where most frames lie"
        for time, shift in shifts(job, table).items()
    ]


def displacement_warnings(displacements: pd.DataFrame) -> list[str]:
    """Say of every suspicious pair of frames how they lie, in one sentence each."""
    rows = displacements.loc[displacements["suspicious"], ["time", "next", "dy", "dx", "part"]]
    return [
        f"{year_text(time)} lies {_bearing(dy, dx)} of {year_text(after)}: places seem to "
        + (
            "grow and shrink at their borders; check how both were brought to the grid, or "
            "give finer cells"
            if part
            else "move that stand still; check the georeference of both, or move one of them by "
            "whole cells"
        )
        for time, after, dy, dx, part in rows.to_numpy(dtype=object)
    ]


def _bearing(dy: float, dx: float) -> str:
    """Say where the earlier frame lies, seen from the later, which is (dy, dx) cells further."""
    parts = [(dy, "north", "south"), (dx, "west", "east")]
    seen = [
        f"{abs(cells):.1f} cells {positive if cells > 0 else negative}"
        for cells, positive, negative in parts
        if abs(cells) >= 0.05
    ]
    return " and ".join(seen)


def _words(shift: Shift) -> str:
    """Say where a frame is moved, on a grid whose rows run southward."""
    parts = [(shift[0], "north", "south"), (shift[1], "west", "east")]
    moved = [
        f"{abs(cells)} cell{'s' if abs(cells) > 1 else ''} {after if cells > 0 else before}"
        for cells, before, after in parts
        if cells
    ]
    return " and ".join(moved)


def extent(job: FramesJob) -> str:
    """Say how much a job is, from the headers of its frames: cells, chunks and bytes."""
    count, rows, columns = shape_of(job)
    edge = extents.CHUNK if job.input.chunks == "auto" else job.input.chunks
    chunks, cells = ceil(rows / edge) * ceil(columns / edge), count * rows * columns
    said = ""
    if job.input.align:  # frames on other grids are read, and who is beyond the grid is counted
        settings = job.input.model_dump(include={"align", "nodata"})
        beyond = extents.people_beyond(frame_paths(job), **settings)
        said = "".join(f"\n{text}" for text in extents.beyond_texts(beyond))
    return (
        f"{count} × {rows} × {columns} = {cells:,} cells, in {chunks:,} "
        f"chunk{'s' if chunks != 1 else ''} per frame of up to "
        f"{min(edge, rows)} × {min(edge, columns)}; {4 * cells / 1e9:.2f} GB of people{said}"
    )


def describe_result(
    kind: str,
    rows: pd.DataFrame,
    plan: Plan,
    tracks: pd.DataFrame,
    balance: pd.DataFrame,
    store: RegionStore,
) -> dict[str, str]:
    """What a run computed and found, in a few words; the rows are of what `kind` names."""
    computed = [stage.name for stage in plan if not stage.done]
    people, events = balance["raster"], tracks["event"].value_counts()
    return {
        "computed": ", ".join(computed) or "nothing, all was done",
        "people": f"{people.iloc[0]:,.0f} at first, {people.iloc[-1]:,.0f} at last",
        kind: f"{len(rows):,} in {len(balance)} frames",
        "tracks": f"{tracks['track'].nunique():,}: "
        + ", ".join(f"{events[event]:,} {event}" for event in EVENTS if event in events),
        "results": str(store.path),
    }
