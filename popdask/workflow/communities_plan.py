"""What a communities job depends on, exports and costs.

The names of the files that the communities job exports.

What a run of the communities job has to compute.

Models are kept, whatever frames are appended, as long as their settings are the same and the frames
that they were fitted on are still there, unchanged.

What the stages of the communities job cost, counted from sizes and settings.

Tasks of a chunk are those of the graphs as Dask runs them, after fusing; a test compares them with
real graphs. Bytes of a cell while it is worked on are upper estimates: the arrays that a task has
at once, with the neighbours that it borrows from. Outlines of communities come on top of a summary.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from math import ceil, isqrt
from typing import Any

import numpy as np
import xarray as xr

from popdask.blocks.sampling import HALO, domain
from popdask.config.jobs import CommunitiesJob
from popdask.io import export
from popdask.io import frames as cube
from popdask.io.cube import CHUNK
from popdask.io.rasters import read_counts, read_grid
from popdask.tracking.flow import WIDEST_RIM
from popdask.tracking.tiles import MOST_TILES, STRIP, TILE
from popdask.workflow.frames import reading_of
from popdask.workflow.plan import Costs, Plan, StageCost, StagePlan, decide, fingerprint, plain

RASTERS = ("population", "classes", "community")


def export_names(job: CommunitiesJob, times: Iterable[np.datetime64 | str]) -> list[str]:
    """Name the files that a job exports, within their folder."""
    formats, name = set(job.output.export), job.name
    stamps = export.stamps(times)
    tables = ("communities", "tracks", "events", "links")
    items = [f"{name}_{what}.json" for what in ("collection", *stamps)]
    by_format = {
        "cog": [f"{name}_{kind}_{stamp}.tif" for kind in RASTERS for stamp in stamps],
        "geotiff": [f"{name}_{kind}.tif" for kind in RASTERS],
        "geoparquet": [f"{name}_{kind}.parquet" for kind in tables],
        "gpkg": [f"{name}.gpkg"],
        "stac": items,
        "report": [f"{name}_report.html"],
    }
    return [file for kind, files in by_format.items() if kind in formats for file in files]


#: Version of each stage's code; a stage that computes something else gets the next number.
VERSIONS = {
    "population": 2,
    "flow": 1,
    "encoder": 1,
    "classifier": 1,
    "classes": 1,
    "communities": 1,
    "summary": 2,
    "links": 2,
    "tracks": 2,
    "export": 2,
}

#: Settings of the flow as it was before they were there.
PLAIN_FLOW = (("scales", 1), ("log", False))

#: The stages that each stage reads.
NEEDS: Mapping[str, tuple[str, ...]] = {
    "population": (),
    "flow": ("population",),
    "encoder": ("population", "flow"),
    "classifier": ("population", "flow", "encoder"),
    "classes": ("population", "flow", "encoder", "classifier"),
    "communities": ("population", "classes"),
    "summary": ("population", "flow", "communities"),
    "links": ("population", "communities"),
    "tracks": ("population", "communities", "summary", "links"),
    "export": ("population", "classes", "communities", "links", "tracks"),
}

#: Stages of which the results survive a new layout of the arrays.
MODELS = ("encoder", "classifier")


def plan_communities(
    job: CommunitiesJob,
    inputs: Mapping[str, str],
    records: Mapping[str, Any],
    shifts: Mapping[str, tuple[int, int]] | None = None,
) -> Plan:
    """Decide what a run of the communities job has to compute."""
    wanted = _fingerprints(job, inputs, records, shifts or {})
    tables = ("summary", "links", "tracks")
    return decide(
        list(inputs), wanted, records, needs=NEEDS, tables=tables, units={"links": "pairs"}
    )


def _fingerprints(
    job: CommunitiesJob,
    inputs: Mapping[str, str],
    records: Mapping[str, Any],
    shifts: Mapping[str, tuple[int, int]],
) -> dict[str, dict[str, Any]]:
    """The record that each stage will have when it is finished."""
    times = list(inputs)

    def of(stage: str, *parts: Any) -> str:
        return fingerprint(stage, VERSIONS[stage], *parts)

    reading = reading_of(job, inputs)
    moves = {t: [shifts[t]] if t in shifts else [] for t in times}
    population = {t: of("population", inputs[t], reading, *moves[t]) for t in times}
    flow = _flow_fingerprints(job, population)
    # The device is left out: a model may be trained on a GPU and used without one.
    domain, network = plain([job.domain, job.encoder.model_copy(update={"device": "auto"})])
    training = of("encoder", domain, _flow_settings(job), network)
    encoder = _model_record("encoder", training, population, flow, job, records)
    classifier = _model_record(
        "classifier",
        of("classifier", [job.classes.model_dump(exclude={"hold"})], encoder["model"]),
        population,
        flow,
        job,
        records,
    )
    classes = {t: of("classes", classifier["model"], population[t], flow[t]) for t in times}
    hold = [held] if (held := hold_of(job)) else []
    if hold:  # a frame's classes depend on those of all before
        chained = itertools.accumulate(
            times, lambda f, t: of("classes", hold, f, classes[t]), initial=""
        )
        classes = dict(zip(times, list(chained)[1:], strict=True))
    grouping = of("communities", plain([job.communities]), classifier["model"], *hold)
    communities = {t: fingerprint(grouping, classes[t], population[t]) for t in times}
    summary = {t: of("summary", communities[t], flow[t]) for t in times}
    links = _link_fingerprints(job, communities)
    rules = job.tracks.model_dump(exclude={"memory"})
    tracks = of("tracks", rules, job.communities.min_people, summary, links)
    formats = job.output.export
    told = [job.name, "cog" in formats]
    rasters = {t: of("export", told, population[t], communities[t]) for t in times}
    last = of("export", rasters, sorted(formats), tracks)  # and what tells of all frames
    export = {"frames": {**rasters, times[-1]: last}, "rasters": rasters}
    return {
        "population": {"frames": population},
        "flow": {"frames": flow},
        "encoder": encoder,
        "classifier": classifier,
        "classes": {"frames": classes},
        "communities": {"frames": communities, "settings": grouping},
        "summary": {"frames": summary},
        "links": {"frames": links},
        "tracks": {"frames": {times[-1]: tracks}},
        **({"export": export} if formats else {}),
    }


def hold_of(job: CommunitiesJob) -> float:
    """How firmly classes are held; models of single frames have no classes in common."""
    return job.classes.hold if job.encoder.scope == "shared" else 0.0


def _flow_settings(job: CommunitiesJob) -> dict[str, Any]:
    """The settings of the flow; what came later stands among them where it is used."""
    settings = job.flow.model_dump(mode="json")
    return {key: value for key, value in settings.items() if (key, value) not in PLAIN_FLOW}


def _link_fingerprints(job: CommunitiesJob, communities: Mapping[str, str]) -> dict[str, str]:
    """A frame's links depend on the frames before it, as many as memory reaches."""
    times, reach = list(communities), job.tracks.memory + 1
    rules = {key: value for key, value in job.links.model_dump().items() if value is not None}
    settings = [[rules], job.tracks.memory, job.input.error]
    return {
        time: fingerprint(
            "links",
            VERSIONS["links"],
            settings,
            [communities[t] for t in times[max(i - reach, 0) : i + 1]],
        )
        for i, time in enumerate(times)
        if i or len(times) == 1  # one frame: an empty table
    }


def _flow_fingerprints(job: CommunitiesJob, population: Mapping[str, str]) -> dict[str, str]:
    """A frame's flow depends on its neighbours in time, and with a warm start on all before."""
    times = list(population)
    centering = job.flow.centering[2]
    before, after = (0 if centering == 1 else 1), (0 if centering == -1 else 1)
    prints: dict[str, str] = {}
    for i, time in enumerate(times):
        near = [population[t] for t in times[max(i - before, 0) : i + after + 1]]
        earlier = prints[times[i - 1]] if job.flow.chained and i else None
        prints[time] = fingerprint(
            "flow", VERSIONS["flow"], [_flow_settings(job)], near, i == 0, earlier
        )
    return prints


def _model_record(
    stage: str,
    settings: str,
    population: Mapping[str, str],
    flow: Mapping[str, str],
    job: CommunitiesJob,
    records: Mapping[str, Any],
) -> dict[str, Any]:
    """The record of a stage that fits models: one for all frames, or one for each."""
    if job.encoder.scope == "frame":
        frames = {t: fingerprint(settings, population[t], flow[t]) for t in population}
        return {"model": settings, "frames": frames}
    stored = records.get(stage, {})
    fitted = stored.get("frames", {})
    if (
        fitted
        and stored.get("settings") == settings
        and all(population.get(time) == print_ for time, print_ in fitted.items())
    ):
        return dict(stored)
    frames = dict(population)
    return {"model": fingerprint(settings, frames), "settings": settings, "frames": frames}


#: Tasks for each chunk of a frame in several chunks, and of one that is a single chunk.
TASKS = {
    "population": (2.4, 3.6),
    "encoder": (6.0, 4.5),
    "classifier": (4.2, 2.4),
    "classes": (5.0, 3.2),
    "communities": (5.6, 3.8),
    "summary": (2.5, 2.5),
    "links": (7.4, 6.0),
    "export": (1.0, 1.0),
}

#: Tasks that holding classes adds for each chunk, and for each frame of several chunks, which waits
#: for the whole one before it.
HOLD_TASKS, WAIT_TASKS = (0.35, 4.3), 21

#: Tasks for each chunk of a flow that links follow.
FLOW_TASKS = 8.0

#: Bytes of a cell of the chunks that a task has in memory, at most.
HELD = {
    "population": 40,
    "flow": 40,
    "encoder": 64,
    "classifier": 64,
    "classes": 110,
    "communities": 48,
    "summary": 160,
    "links": 64,
    "tracks": 0,
    "export": 24,
}

#: Cells along a side of the largest chunk of codes, and the stages that work in chunks of them.
ENCODED = MOST_TILES * TILE
CODED = ("classes", "communities", "links")

PEOPLE, MOTION, CLASS, COMMUNITY = 4, 8, 2, 4  # bytes of a cell, as stored
COGS = PEOPLE + CLASS + COMMUNITY
#: Cells that take as long as a chunk, a window of training, a cell that is classified by, and a
#: cell that is encoded, beside the cells that a stage reads.
CHUNK_CELLS, WINDOW_CELLS, SAMPLED_CELLS, ENCODED_CELLS = 60_000, 600, 300, 4
START_CELLS = 20_000_000  # and the start of a stage, however little there is to do
WINDOWS = 1000  # that an epoch of training sees
KNEE = 19  # numbers of classes that are tried where none is given
SAMPLES, SAMPLE_CELLS = 8, 256  # windows of the domain's sample along a side, and cells of each


@dataclass(frozen=True)
class Extent:
    """How much a job is."""

    frames: int
    """Frames."""
    rows: int
    """Rows of cells."""
    columns: int
    """Columns of cells."""
    edge: int
    """Cells along a side of a chunk."""
    settled: float = 1.0
    """Share of the cells that are trained on, classified and grouped."""
    encoded: float = 1.0
    """Share of the cells that the encoder meets: squares of 16 × 16 with at least one of those."""

    @property
    def cells(self) -> int:
        """Cells of a frame."""
        return self.rows * self.columns

    @property
    def blocks(self) -> int:
        """Chunks of a frame."""
        return ceil(self.rows / self.edge) * ceil(self.columns / self.edge)

    @property
    def block_cells(self) -> int:
        """Cells of a chunk, at most."""
        return min(self.rows, self.edge) * min(self.columns, self.edge)


def costs(job: CommunitiesJob, plan: Plan) -> Costs:
    """Count what a run costs: the header of the first frame is read, and a sample of one frame."""
    return count(job, plan, read_extent(job))


def read_extent(job: CommunitiesJob) -> Extent:
    """Tell how much a job is, from the header of its first frame and a sample of the middle one."""
    paths = list(cube.find_frames(job.input.frames, job.input.start, job.input.end).values())
    rows, columns = read_grid(paths[0]).shape
    edge = CHUNK if job.input.chunks == "auto" else job.input.chunks
    shares = _shares(paths[len(paths) // 2], (rows, columns), job.domain.cells)
    return Extent(len(paths), rows, columns, edge, *shares)


def count(job: CommunitiesJob, plan: Plan, extent: Extent) -> Costs:
    """Count what a run costs, from its extent; no file is read."""
    coded = replace(extent, edge=min(extent.edge, ENCODED))
    stages = {}
    for stage in plan:
        if not stage.done:
            sizes = coded if stage.name in CODED else extent
            stages[stage.name] = _stage(job, stage, sizes, _frames(job, stage, extent))
    return Costs(stages, extent.frames * extent.blocks, isqrt(extent.block_cells))


def _frames(job: CommunitiesJob, stage: StagePlan, extent: Extent) -> int:
    """Frames (or pairs) that a stage works on: a model for all frames reads them all."""
    whole = stage.name in ("encoder", "classifier") and job.encoder.scope == "shared"
    return extent.frames if whole else len(stage.stale)


def _stage(job: CommunitiesJob, stage: StagePlan, extent: Extent, frames: int) -> StageCost:
    name, cells = stage.name, extent.cells * frames
    read, written = _bytes(job)[name]
    return StageCost(
        name,
        tasks=_tasks(job, stage, extent, frames),
        read=read * cells,
        written=written * cells,
        memory=HELD[name] * extent.block_cells,
        amount=_amount(job, name, extent, frames),
    )


def _amount(job: CommunitiesJob, name: str, extent: Extent, frames: int) -> int:
    """How many cells a stage goes over; what else it does counts as those that take as long."""
    cells, settled = extent.cells * frames, round(extent.cells * frames * extent.settled)
    models = frames if job.encoder.scope == "frame" else 1
    if name == "tracks":
        return START_CELLS + cells
    if name == "export":
        return START_CELLS + cells * (1 + _rasters(job))
    amount = START_CELLS + cells + CHUNK_CELLS * extent.blocks * frames
    if name == "flow":
        amount += cells * (job.flow.iterations - 1)
    elif name == "encoder":
        amount += WINDOW_CELLS * job.encoder.epochs * WINDOWS * models
    elif name == "classifier":
        tries = KNEE if job.classes.k == "auto" else 1
        amount += SAMPLED_CELLS * min(job.classes.sample * models, settled) * tries
    elif name == "classes":  # squares with nothing to encode are passed over
        amount += ENCODED_CELLS * round(cells * extent.encoded)
    elif name in ("summary", "links"):
        amount += settled
    return amount


def _tasks(job: CommunitiesJob, stage: StagePlan, extent: Extent, frames: int) -> int:
    several = extent.blocks > 1
    if stage.name == "flow":
        sweeps = ceil(job.flow.iterations / WIDEST_RIM)
        warm = 2 * job.flow.warm_start
        if job.flow.scales > 1:
            return extent.blocks * frames * (6 if several else 4)
        each = 5 + 2 * job.flow.warm_start + 3 * (sweeps - 1) if several else 2 + sweeps
        return extent.blocks * (each * frames - warm * several)
    tasks = TASKS.get(stage.name, (0.0, 0.0))[0 if several else 1]
    if stage.name == "summary" and not stage.whole:
        tasks += 5.8  # some frames of an array are not fused with the reading
    if stage.name == "classes" and hold_of(job):
        tasks += HOLD_TASKS[0 if several else 1] + WAIT_TASKS * several / extent.blocks
    if stage.name == "links":
        tasks += FLOW_TASKS * _link_flows(job)
    if stage.name == "export":
        tasks *= 3 * _rasters(job)
    return round(tasks * extent.blocks * frames)


def _link_flows(job: CommunitiesJob) -> int:
    """Flows that the links of a pair of frames follow."""
    return (1 + (job.links.rule == "direction")) * (job.links.flow_scales is not None)


def _bytes(job: CommunitiesJob) -> Mapping[str, tuple[int, int]]:
    """Bytes that each stage reads and writes for a cell of a frame."""
    few = PEOPLE if job.communities.min_people else 0
    rasters = COGS * _rasters(job)
    return {
        "population": (2 * PEOPLE, PEOPLE),  # once to see how frames lie
        "flow": (PEOPLE, MOTION),
        "encoder": (PEOPLE + MOTION, 0),
        "classifier": (PEOPLE + MOTION, 0),
        "classes": (PEOPLE + MOTION, CLASS),
        "communities": (CLASS + few, COMMUNITY),
        "summary": (2 * (PEOPLE + COMMUNITY) + MOTION, 0),
        "links": (2 * (PEOPLE + COMMUNITY), 0),
        "tracks": (0, 0),
        "export": (rasters, rasters),
    }


def _rasters(job: CommunitiesJob) -> int:
    """How often every cell is written to rasters."""
    return len({"cog", "geotiff"}.intersection(job.output.export))


def _shares(path: str, shape: tuple[int, int], cells: str) -> tuple[float, float]:
    """Share of the domain, and of what is encoded for it, in windows spread over a frame."""
    seen = inside = encoded = 0
    for row in _starts(shape[0]):
        for column in _starts(shape[1]):
            within = _window(path, row, column, shape, cells)
            seen += within.size
            inside += int(within.sum())
            encoded += _encoded(within)
    return inside / seen, encoded / seen


def _window(path: str, row: int, column: int, shape: tuple[int, int], cells: str) -> np.ndarray:
    """Find the domain in a window, which is read with the cells around it that decide."""
    ends = [min(start + SAMPLE_CELLS, n) for start, n in zip((row, column), shape, strict=True)]
    around = [
        slice(max(start - HALO, 0), min(end + HALO, n))
        for start, end, n in zip((row, column), ends, shape, strict=True)
    ]
    people = xr.DataArray(read_counts(path, *around), dims=("y", "x"))
    found = domain(people, cells).values
    top, left = row - around[0].start, column - around[1].start
    return found[top : top + ends[0] - row, left : left + ends[1] - column]


def _starts(length: int) -> list[int]:
    """First cells of windows, side by side, or spread evenly where there are too many."""
    count = ceil(length / SAMPLE_CELLS)
    picked = np.linspace(0, count - 1, min(count, SAMPLES)).round().astype(int)
    return (picked * SAMPLE_CELLS).tolist()


def _encoded(within: np.ndarray) -> int:
    """Count the cells that are encoded: whole squares, where there is one of the domain in it."""
    for axis in (0, 1):
        starts = np.arange(0, within.shape[axis], STRIP)
        sizes = np.diff(starts, append=within.shape[axis])
        within = np.logical_or.reduceat(within, starts, axis).repeat(sizes, axis)
    return int(within.sum())
