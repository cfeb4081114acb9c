"""What the stages of the communities job cost, counted from sizes and settings.

Tasks of a chunk are those of the graphs as Dask runs them, after fusing; a test compares them with
real graphs. Bytes of a cell while it is worked on are upper estimates: the arrays that a task has
at once, with the neighbours that it borrows from. Outlines of communities come on top of a summary.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import ceil, isqrt

import numpy as np
import xarray as xr

from popdask.blocks.sampling import HALO, domain
from popdask.config.jobs import CommunitiesJob
from popdask.io import frames as cube
from popdask.io.cube import CHUNK
from popdask.io.rasters import read_counts, read_grid
from popdask.tracking.encoding import MOST_TILES, STRIP, TILE
from popdask.tracking.flow import WIDEST_RIM
from popdask.workflow.plan import Costs, Plan, StageCost, StagePlan

#: Tasks for each chunk of a frame in several chunks, and of one that is a single chunk.
TASKS = {
    "population": (1.0, 1.0),
    "encoder": (6.0, 4.5),
    "classifier": (4.2, 2.4),
    "classes": (5.0, 3.2),
    "communities": (5.6, 3.8),
    "summary": (2.5, 2.5),
    "links": (7.4, 6.0),
    "export": (1.0, 1.0),
}

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
    """Count what a run costs: the header of the first frame is read, and a sample of one frame.

    Parameters
    ----------
    job
        The settings.
    plan
        What there is to compute.

    Returns
    -------
    Costs

    Raises
    ------
    InputError
        If a frame cannot be read.
    """
    paths = list(cube.find_frames(job.input.frames, job.input.start, job.input.end).values())
    rows, columns = read_grid(paths[0]).shape
    edge = CHUNK if job.input.chunks == "auto" else job.input.chunks
    shares = _shares(paths[len(paths) // 2], (rows, columns), job.domain.cells)
    return count(job, plan, Extent(len(paths), rows, columns, edge, *shares))


def count(job: CommunitiesJob, plan: Plan, extent: Extent) -> Costs:
    """Count what a run costs, from its extent; no file is read.

    Parameters
    ----------
    job
        The settings.
    plan
        What there is to compute.
    extent
        How much it is.

    Returns
    -------
    Costs
    """
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
    name, blocks, cells = stage.name, extent.blocks * frames, extent.cells * frames
    read, written = _bytes(job)[name]
    shared, alone = _work(job, name, extent, frames)
    return StageCost(
        name,
        tasks=_tasks(job, stage, extent, frames),
        read=read * cells,
        written=written * cells,
        memory=HELD[name] * extent.block_cells,
        parts=extent.blocks if name == "flow" and job.flow.warm_start else blocks,
        shared={f"{name} per {unit}": amount for unit, amount in shared.items()},
        alone={f"{name} per {unit}": amount for unit, amount in alone.items()},
    )


def _work(
    job: CommunitiesJob, name: str, extent: Extent, frames: int
) -> tuple[dict[str, int], dict[str, int]]:
    """Work that is divided among the workers, and work that one of them or the driver does."""
    cells, settled = extent.cells * frames, round(extent.cells * frames * extent.settled)
    models = frames if job.encoder.scope == "frame" else 1
    alone = {"run": 1}
    if name == "tracks":
        return {}, alone
    if name == "export":
        rasters = _rasters(job)
        return {}, alone | ({"cell": cells * rasters} if rasters else {})
    shared = {"cell": cells, "chunk": extent.blocks * frames}
    if name == "flow":
        shared["cell"] *= job.flow.iterations
    elif name == "encoder":
        alone["window"] = job.encoder.epochs * WINDOWS * models
    elif name == "classifier":
        tries = KNEE if job.classes.k == "auto" else 1
        alone["sampled cell"] = min(job.classes.sample * models, settled) * tries
    elif name != "population":
        shared["settled cell"] = settled
        if name == "classes":  # squares with nothing to encode are passed over
            shared["encoded cell"] = round(cells * extent.encoded)
    return shared, alone


def _tasks(job: CommunitiesJob, stage: StagePlan, extent: Extent, frames: int) -> int:
    several = extent.blocks > 1
    if stage.name == "flow":
        sweeps = ceil(job.flow.iterations / WIDEST_RIM)
        warm = 2 * job.flow.warm_start
        each = 5 + 2 * job.flow.warm_start + 3 * (sweeps - 1) if several else 2 + sweeps
        return extent.blocks * (each * frames - warm * several)
    tasks = TASKS.get(stage.name, (0.0, 0.0))[0 if several else 1]
    if stage.name == "summary" and not stage.whole:
        tasks += 5.8  # some frames of an array are not fused with the reading
    if stage.name == "export":
        tasks *= 3 * _rasters(job)
    return round(tasks * extent.blocks * frames)


def _bytes(job: CommunitiesJob) -> Mapping[str, tuple[int, int]]:
    """Bytes that each stage reads and writes for a cell of a frame."""
    few = PEOPLE if job.communities.min_people else 0
    rasters = COGS * _rasters(job)
    return {
        "population": (PEOPLE, PEOPLE),
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
