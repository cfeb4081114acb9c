"""What jobs share that begin with frames of people: input, pipeline and first stages.

How far a pair of frames lies apart is on record with the stage that reads them, under a fingerprint
of both files: a plan measures what is not on record, and a run what it reads anew. Where frames are
to be moved, they come to lie where most of them do, the earliest where as many do so elsewhere: an
appended frame moves no other, unless it tips that balance.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from itertools import pairwise
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from popdask.config.jobs import CommunitiesJob, SettlementsJob
from popdask.errors import InputError
from popdask.io import rasters
from popdask.io.frames import (
    CHUNK,
    check_beyond,
    displacement_warnings,
    find_frames,
    frames_of_times,
    grids_of,
    people_beyond,
    shift_text,
)
from popdask.io.rasters import read_counts, read_grid
from popdask.store.repository import RegionStore
from popdask.store.transaction import frame_runs
from popdask.tracking import STRIP
from popdask.workflow import runner
from popdask.workflow.exports import exported, without_missing
from popdask.workflow.inputs import (
    beyond_notes,
    file_fingerprint,
    file_fingerprints,
    iso,
    run_record,
)
from popdask.workflow.plan import (
    Basis,
    CellCost,
    Extent,
    Fingerprint,
    Plan,
    Record,
    Stage,
    StagePlan,
    fingerprint,
)
from popdask.workflow.progress import Reporter, size_of
from popdask.workflow.runner import Files, Pipeline, Running

if TYPE_CHECKING:
    import xarray as xr

#: Cells that a plan reads to see how frames lie; where there are more, the run says so.
MOST_CELLS = 600_000_000

#: Jobs that begin with frames of people.
FramesJob = CommunitiesJob | SettlementsJob

#: Cells down and to the right.
Shift = tuple[int, int]

COLUMNS = ("dy", "dx", "response", "suspicious", "part")

PEOPLE, MOTION, CLASS, LABEL, CODE = 4, 8, 2, 4, 1  # bytes of a cell, as stored
#: Settings of ``[settlements]`` that may name files.
SURFACES = ("land", "built")
OTHERS = (*SURFACES, "names", "error", "intervals")  # and all that name files beside the frames
#: Gives the flows that links follow, of some frames of people.
Flows = Callable[["xr.Dataset"], Mapping[str, Any]]
SCALES = 3  # of the flow between a frame and the next, unless links ask for others
MOVES = {"moved_x": "u", "moved_y": "v"}  # arrays of the store, and what they are of a flow


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


def in_one_chunk(job: FramesJob) -> FramesJob:
    """A job whose frames are a chunk each: what only headers tell is checked by a small graph."""
    return job.model_copy(update={"input": job.input.model_copy(update={"chunks": -1})})


def displacements(
    job: FramesJob, files: Files, records: Mapping[str, Any], *, most_cells: float = float("inf")
) -> pd.DataFrame:
    """Return how every frame lies to the one before it, from the record where it is there."""
    paths = frame_paths(job)
    versions = {time: rasters.frame_version(files[time]) for time in map(iso, paths)}
    pairs, reading = list(pairwise(versions)), reading_of(job, versions)
    keys = [fingerprint("displacement", 4, reading, *pair) for pair in pairwise(versions.values())]
    recorded = records.get("population", {}).get("displacement", [])
    known = {row["key"]: [row.get(name) for name in COLUMNS] for row in recorded}
    unknown = any(key not in known for key in keys)
    # By the first header alone: there may be thousands, and all of them are read below.
    if unknown and len(paths) * prod(rasters.read_grid(paths[min(paths)]).shape) <= most_cells:
        known |= _measured(job, tuple(keys), frozenset(known))
    rows = [
        (pd.Timestamp(first), pd.Timestamp(then), key, *known[key])
        for (first, then), key in zip(pairs, keys, strict=True)
        if key in known
    ]
    table = pd.DataFrame(rows, columns=["time", "next", "key", *COLUMNS])
    return table.astype({"dy": float, "dx": float, "suspicious": bool, "part": bool})


@lru_cache(maxsize=4)  # a run plans more than once before it has put anything on record
def _measured(job: FramesJob, keys: tuple[str, ...], known: frozenset[str]) -> dict[str, list[Any]]:
    """Measure the pairs of frames that are not known, by their fingerprints."""
    from popdask.tracking.registration import displacement

    population, found = open_source(job)["population"], {}
    fresh = [position for position, key in enumerate(keys) if key not in known]
    for first, last in frame_runs(fresh):
        table = displacement(population.isel(time=slice(first, last + 2)))
        for key, row in zip(keys[first:], table[list(COLUMNS)].to_numpy(object), strict=False):
            found[key] = [*map(float, row[:3]), *map(bool, row[3:])]
    return found


def on_record(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Put displacements as they can be written as JSON, None where there is nothing to compare."""
    columns = ("key", *COLUMNS)
    values = table[list(columns)].astype(object).to_numpy()
    return [
        {name: None if pd.isna(value) else value for name, value in zip(columns, row, strict=True)}
        for row in values
    ]


def frame_shifts(job: FramesJob, table: pd.DataFrame) -> dict[str, Shift]:
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


def apart_warnings(job: FramesJob, table: pd.DataFrame) -> list[str]:
    """Say of frames that lie apart how they lie, and what can be done or is done about it."""
    if not table["suspicious"].any():
        return []
    parts_of_cells = displacement_warnings(table[table["part"]])  # which no whole cells mend
    if job.input.register is None:
        whole = displacement_warnings(table[~table["part"]])
        return [*(f'{each} ([input] register = "shift")' for each in whole), *parts_of_cells]
    return parts_of_cells + [
        f"{time[:10].removesuffix('-01-01')} is moved by {shift_text(shift)}, to where most frames "
        "lie"
        for time, shift in frame_shifts(job, table).items()
    ]


def extent_text(job: FramesJob) -> str:
    """Say how much a job is, from the headers of its frames: cells, chunks and bytes."""
    size = read_extent(job)
    cells, chunks, rows, columns = size.frames * size.cells, size.blocks, size.rows, size.columns
    return (
        f"{size.frames} × {rows} × {columns} = {cells:,} cells, in {chunks:,} "
        f"chunk{'s' if chunks != 1 else ''} per frame of up to "
        f"{min(size.edge, rows)} × {min(size.edge, columns)}; {size_of(4 * cells)} of float32"
    )


def read_extent(job: FramesJob, cells: str | None = None, window: int = 7) -> Extent:
    """Return how much a job is, from headers and a sample of the middle frame."""
    paths, align = list(frame_paths(job).values()), job.input.align
    # The first gives the grid, unless that is to hold all.
    rows, columns = grids_of(paths if align == "cover" else paths[:1], align)[1].shape
    edge = CHUNK if job.input.chunks == "auto" else job.input.chunks
    shares = (1.0, 1.0)
    if cells is not None:
        from popdask.blocks.sampling import domain_shares

        middle = paths[len(paths) // 2]
        read, shape = partial(read_counts, middle), read_grid(middle).shape
        shares = domain_shares(read, (shape[0], shape[1]), cells, window, square=STRIP)
    return Extent(len(paths), rows, columns, edge, *shares)


@dataclass(frozen=True)
class Versions:
    """What is read, by its fingerprints."""

    frames: Mapping[str, str]  # the frames, by ISO time
    others: Mapping[str, str]  # files of settings, by the setting's name
    shifts: Mapping[str, Shift]  # moves of frames, by ISO time


def basis(
    job: FramesJob,
    versions: Mapping[str, str],
    records: Mapping[str, Any],
    shifts: Mapping[str, Shift] | None = None,
) -> Basis:
    """What the stages of a job are made from, by the versions of its frames and other files."""
    others = {name: one for name, one in versions.items() if name in OTHERS}
    read = {time: one for time, one in versions.items() if time not in others}
    return Basis(job, tuple(read), Versions(read, others, shifts or {}), records)


@dataclass(frozen=True)
class FramesRun(Running):
    """What the stages of one run share; the arrays are lazy, as they are stored."""

    job: FramesJob
    source: xr.Dataset

    @property
    def seeds(self) -> dict[str, int]:
        """The seeds of what is drawn."""
        return {}

    def record(self) -> dict[str, Any]:
        """Record what the finished run was made from and with."""
        records, balance = self.work.records(), self.work.table("balance")
        balance["time"] = balance["time"].dt.strftime("%Y-%m-%dT%H:%M:%S")
        return run_record(
            self.job,
            self.files,
            self.seeds,
            balance=balance.to_dict("records"),
            moved=records["population"].get("moved", {}),
            exports=exported(records),
        )

    @property
    def population(self) -> xr.DataArray:
        """People per cell, as stored."""
        return self.work.dataset()["population"]

    def frames(self, positions: Sequence[int], *names: str) -> list[xr.DataArray]:
        """Some frames of stored arrays."""
        stored = self.work.dataset()
        if list(positions) != list(range(len(self.plan.times))):
            stored = stored.isel(time=list(positions))  # which Dask does not fuse with the reading
        return [stored[name] for name in names]

    def compared(
        self, stage: StagePlan, array: str, flows: Flows = lambda frames: {}, **options: Any
    ) -> list[pd.DataFrame]:
        """Links of the labels of stale frames with those before them, and where labels end."""
        from popdask.tracking.link import compare_frames

        arrays, memory, parts = self.work.dataset(), self.job.tracks.memory, []
        options |= {"memory": memory, "error": error_of(self.job, self.population)}
        for first, last in frame_runs(stage.stale):
            frames = arrays.isel(time=slice(max(first - memory - 1, 0), last + 1))
            people = frames["population"]
            found = compare_frames(frames[array], people, **options, **flows(frames))
            targets = arrays["time"].values[first : last + 1]
            parts.append([table[table["next"].isin(targets)] for table in found])
        return [pd.concat(tables, ignore_index=True) for tables in zip(*parts, strict=True)]


class FramesPipeline(Pipeline):
    """A kind of job that begins with frames of people."""

    running: type[FramesRun] = FramesRun  # what the stages of a run share
    extent = staticmethod(extent_text)

    def files(self, job: FramesJob, records: Mapping[str, Any]) -> Files:
        """Return the versions of the frames' files, by ISO time, and of the others by setting."""
        known = records.get("population", {}).get("files", {})
        found = file_fingerprints(frame_paths(job), known)
        for name in (*SURFACES, "names") if job.has_settlements else ():
            path = getattr(job.settlements, name)
            if path is not None and not (name == "names" and job.settlements.by_geonames):
                found[name] = file_fingerprint(path, known.get(name))
        for name, path in (("error", job.input.error_file), ("intervals", job.input.intervals)):
            if path is not None:
                found[name] = file_fingerprint(path, known.get(name))
        return found

    def times(self, files: Files) -> list[str]:
        """Return those of the frames."""
        return [name for name in files if name not in OTHERS]

    def basis(self, job: FramesJob, files: Files, records: Mapping[str, Any]) -> Basis:
        """What the stages are made from."""
        versions = {name: rasters.frame_version(file) for name, file in files.items()}
        moves = {}
        if job.input.register is not None:
            moves = frame_shifts(job, displacements(job, files, records))
        return basis(job, versions, without_missing(records, job, "export"), moves)

    def plan(self, job: FramesJob) -> Plan:
        """Say what a run would compute, and which frames lie apart."""
        files, records = runner.read_inputs(self, job)
        planned = self.decide(job, files, records)
        if not planned.computed:  # of what was finished, a run has looked at the inputs
            whole = in_one_chunk(job)
            self.check_source(whole, open_source(whole)["population"])
        beyond = people_left_out(job, planned, records) if job.input.align else {}
        lie = displacements(job, files, records, most_cells=MOST_CELLS)
        return replace(planned, warnings=(*beyond_notes(beyond), *apart_warnings(job, lie)))

    def notes(self, job: FramesJob, files: Files, plan: Plan, store: RegionStore) -> list[str]:
        """Say which frames lie apart, unless the stage that reads them has said so."""
        if not plan["population"].done:
            return []
        return apart_warnings(job, displacements(job, files, store.records(), most_cells=0))

    def check_source(self, job: Any, population: xr.DataArray) -> None:
        """Refuse, before the first stage, inputs that a later stage could not read."""
        error_of(job, population)
        learned_intervals(job, population)

    def begin(
        self, job: FramesJob, store: RegionStore, files: Files, forget: Sequence[str]
    ) -> FramesRun:
        """Open the frames, and take up the work where it stands, without the stages to forget."""
        source = open_source(job)
        self.check_source(job, source["population"])
        work = store.begin(source, keep=[stage.name for stage in self.stages if stage.anywhere])
        work.forget(forget)
        # The layout may have dropped what was stored for another grid.
        planned = self.decide(job, files, work.records())
        return self.running(job, files, store, work, planned, source)


def people_left_out(
    job: FramesJob, plan: Plan, records: Mapping[str, Any]
) -> dict[str, dict[str, float]]:
    """People of each frame on another grid, and those of them who lie beyond the job's grid."""
    settings, known = job.input, records.get("population", {}).get("beyond", {})
    stale = {plan.times[i] for i in plan["population"].stale}
    if not stale:
        return {time: each for time, each in known.items() if time in plan.times}
    if settings.align == "cover":  # a grid that grows holds all frames otherwise
        stale = set(plan.times)
    frames = frame_paths(job)
    read = {
        time: path
        for time, path in frames.items()
        if time == min(frames) or iso(time) in stale  # the first gives the grid
    }
    table = people_beyond(read, align=settings.align, nodata=settings.nodata)
    check_beyond(table, settings.max_beyond)
    kept = set(plan.times) - stale
    return {time: each for time, each in known.items() if time in kept} | {
        iso(row["time"].to_datetime64()): {"raster": row["raster"], "beyond": row["beyond"]}
        for _, row in table.iterrows()
    }


def with_left_out(run: FramesRun, balance: pd.DataFrame) -> pd.DataFrame:
    """The balance with the people of each frame who lie beyond the grid, aligned or moved."""
    record = run.work.records()["population"]
    parts = [record.get("beyond", {}), record.get("moved", {})]
    times = balance["time"].to_numpy("datetime64[s]").astype(str)
    left = [sum(part.get(time, {}).get("beyond", 0.0) for part in parts) for time in times]
    return balance.assign(beyond=left)


def _population_record(basis: Basis, of: Fingerprint) -> Record:
    versions: Versions = basis.inputs
    reading = reading_of(basis.job, versions.frames)
    moves = {t: [versions.shifts[t]] if t in versions.shifts else [] for t in basis.times}
    return {"frames": {t: of(versions.frames[t], reading, *moves[t]) for t in basis.times}}


def _read(run: FramesRun, stage: StagePlan, reporter: Reporter) -> None:
    """Store the frames as they are read, moved where that is asked for."""
    from popdask.tracking.registration import move_frames

    lie = displacements(run.job, run.files, run.work.records())
    moves = frame_shifts(run.job, lie)
    source, left = move_frames(run.source[["population"]], moves)
    moved = {time: {"dy": dy, "dx": dx, "beyond": left[time]} for time, (dy, dx) in moves.items()}
    record = {**stage.record, "displacement": on_record(lie), "moved": moved}
    if run.job.input.align:
        record["beyond"] = people_left_out(run.job, run.plan, run.work.records())
    run.work.write_frames(stage.name, source, stage.stale, record)
    for text in (*apart_warnings(run.job, lie), *beyond_notes(record.get("beyond", {}))):
        reporter.note(text)


POPULATION = Stage(
    "population",
    version=2,
    needs=(),
    wanted=_population_record,
    cost=CellCost(
        read=2 * PEOPLE,  # once to see how frames lie
        written=PEOPLE,
        held=40,
        tasks=(2.4, 5.1),
    ),
    compute=_read,
    reads_files=True,
)
"""The first stage: people per cell, as the files have them."""


def motion_scales(job: FramesJob) -> int | None:
    """Scales of the flow between a frame and the next; None where nothing of a job follows it."""
    links = job.links if isinstance(job, CommunitiesJob) else None
    # The cosines of "direction" want more than whole cells.
    followed = links.scales if links and links.rule != "direction" else None
    return followed or (SCALES if job.tracks.movement else None)


def _motion_record(basis: Basis, of: Fingerprint) -> Record | None:
    if (scales := motion_scales(basis.job)) is None:
        return None
    people = basis.frames("population")
    after = [*list(people.values())[1:], None]  # behind the last frame nobody moves
    pairs = zip(people.items(), after, strict=True)
    return {"frames": {time: of(scales, here, then) for (time, here), then in pairs}}


def _compute_motion(run: FramesRun, stage: StagePlan, reporter: Reporter) -> None:
    import xarray as xr

    from popdask.tracking.flow import optical_flow

    scales = motion_scales(run.job)
    assert scales is not None, "else there is no such stage"
    flow = optical_flow(run.population, centering=(0, 0, 1), scales=scales, log=True)
    # Whoever reads it moves whole cells, and whole numbers (but no −0) are small when stored.
    arrays = xr.Dataset({name: flow[part].round() + 0 for name, part in MOVES.items()})
    for name, axis in zip(MOVES, ("x, to the right", "y, down the rows"), strict=True):
        arrays[name].attrs = {
            "long_name": f"motion of people until the next frame along {axis}, in whole cells",
            "units": "cells per frame",
        }
    run.work.write_frames(stage.name, arrays, stage.stale, stage.record)


MOTION_STAGE = Stage(
    "motion",
    needs=("population",),
    wanted=_motion_record,
    cost=CellCost(read=2 * PEOPLE, written=MOTION, held=160, tasks=(16.0, 4.0)),
    compute=_compute_motion,
)
"""How people move from each frame to the next: once, for the links and for all that tells of it."""


def stored_motion(arrays: xr.Dataset, job: FramesJob) -> xr.Dataset:
    """The flow from each frame to the next, as it is stored."""
    import xarray as xr

    from popdask.tracking.flow import bound

    scales = motion_scales(job)
    assert scales is not None, "else it is not stored"
    flow = xr.Dataset({part: arrays[name] for name, part in MOVES.items()})
    return flow.assign_attrs(bound=bound(scales))


def learned_intervals(job: FramesJob, population: xr.DataArray) -> dict[int, Any]:
    """The intervals of the people of places, by the cells that they were learned of."""
    place = job.input.intervals
    if place is None:
        return {}
    from popdask.imagery.evaluation import read_intervals
    from popdask.io.grids import middle_cell_m

    return read_intervals(place, middle_cell_m(population))


def error_of(job: FramesJob, population: xr.DataArray) -> float | str | xr.DataArray:
    """The error of the data as links take it: a raster of it lies on the grid of the population."""
    from popdask.io.cube import open_surface
    from popdask.io.grids import describe_grid, grid_of, same_grid

    place = job.input.error_file
    if place is None:
        return job.input.error
    error = open_surface(place, job.input.chunks)
    ours, theirs = map(grid_of, (population, error))
    if ours.shape != theirs.shape or not same_grid(ours, theirs):
        raise InputError(
            f"[input] error, {place}, has the grid {describe_grid(theirs)} but the frames have "
            f"{describe_grid(ours)}; expected the same; reproject it first"
        )
    return error.assign_coords(y=population["y"], x=population["x"])
