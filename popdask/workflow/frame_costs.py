"""What stages cost that go over the cells of frames, counted from sizes and settings.

Tasks of a chunk are those of the graphs as Dask runs them, after fusing; a test compares them with
real graphs. Bytes of a cell while it is worked on are upper estimates: the arrays that a task has
at once, with the neighbours that it borrows from. Outlines come on top of a summary.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import ceil, isqrt
from typing import Any

import numpy as np

from popdask.io.extents import CHUNK
from popdask.io.rasters import read_counts, read_grid
from popdask.tracking.tiles import MOST_TILES, STRIP, TILE
from popdask.workflow.frames import FramesJob, frame_paths
from popdask.workflow.plan import StageCost, StagePlan

#: Cells along a side of the largest chunk of codes.
ENCODED = MOST_TILES * TILE

PEOPLE, MOTION, CLASS, LABEL, CODE = 4, 8, 2, 4, 1  # bytes of a cell, as stored
#: Cells that take as long as a chunk, and as the start of a stage, however little there is to do.
CHUNK_CELLS, START_CELLS = 60_000, 20_000_000
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

    @property
    def chunks(self) -> int:
        """Chunks of all frames."""
        return self.frames * self.blocks

    @property
    def square(self) -> int:
        """Cells along a side of a square as large as a chunk."""
        return isqrt(self.block_cells)


@dataclass(frozen=True)
class Work:
    """What one stage does."""

    job: Any
    """The settings."""
    stage: StagePlan
    """What is stale."""
    extent: Extent
    """How much a frame is, in the chunks of the stage."""
    frames: int
    """Frames (or pairs) that it goes over."""

    @property
    def several(self) -> bool:
        """Whether a frame has several chunks."""
        return self.extent.blocks > 1

    @property
    def cells(self) -> int:
        """Cells of all frames."""
        return self.extent.cells * self.frames

    @property
    def settled(self) -> int:
        """Those of them in the domain."""
        return round(self.cells * self.extent.settled)


@dataclass(frozen=True)
class CellCost:
    """Counts what a stage costs that goes over the cells of its frames."""

    read: int | Callable[[Any], int] = 0
    """Bytes read of each cell, or the settings' function that tells."""
    written: int | Callable[[Any], int] = 0
    """Bytes written of each cell."""
    held: int = 0
    """Bytes of each cell of the chunks that a task has in memory, at most."""
    tasks: tuple[float, float] | Callable[[Work], float] = (0.0, 0.0)
    """Tasks for each chunk of a frame in several chunks, and of one that is a single chunk."""
    more: Callable[[Work], int] = lambda work: 0
    """Cells that take as long as what the stage does beside going over its own."""
    whole: Callable[[Any], bool] = lambda job: False
    """Whether all frames are gone over where one is stale, as for a model of them all."""
    coded: bool = False
    """Whether it works in chunks of codes."""

    def __call__(self, job: Any, stage: StagePlan, extent: Extent) -> StageCost:
        """Count what is stale of a stage."""
        if self.coded:
            extent = replace(extent, edge=min(extent.edge, ENCODED))
        work = Work(job, stage, extent, extent.frames if self.whole(job) else len(stage.stale))
        read, written = (
            each(job) if callable(each) else each for each in (self.read, self.written)
        )
        each = self.tasks(work) if callable(self.tasks) else self.tasks[0 if work.several else 1]
        chunks = extent.blocks * work.frames
        return StageCost(
            stage.name,
            tasks=round(each * chunks),
            read=read * work.cells,
            written=written * work.cells,
            memory=self.held * extent.block_cells,
            amount=START_CELLS + work.cells + CHUNK_CELLS * chunks + self.more(work),
        )


def rasters_of(job: Any) -> int:
    """How often every cell is written to rasters."""
    return len({"cog", "geotiff"}.intersection(job.output.export))


def read_extent(job: FramesJob, cells: str | None = None) -> Extent:
    """Return how much a job is, from its first frame's header and a sample of the middle one."""
    paths = list(frame_paths(job).values())
    rows, columns = read_grid(paths[0]).shape
    edge = CHUNK if job.input.chunks == "auto" else job.input.chunks
    middle = paths[len(paths) // 2]
    shares = (1.0, 1.0) if cells is None else _shares(middle, (rows, columns), cells)
    return Extent(len(paths), rows, columns, edge, *shares)


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
    from popdask.blocks.sampling import HALO, cells_in_domain

    ends = [min(start + SAMPLE_CELLS, n) for start, n in zip((row, column), shape, strict=True)]
    around = [
        slice(max(start - HALO, 0), min(end + HALO, n))
        for start, end, n in zip((row, column), ends, shape, strict=True)
    ]
    found = cells_in_domain(read_counts(path, *around), cells)
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
