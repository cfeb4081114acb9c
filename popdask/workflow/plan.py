"""Stages, what of them a run has to compute, what that costs, and how long it took before.

A stage is one object, beside the call of its kernel; a pipeline is its stages in their order. What
has to be computed is decided from settings and records alone: every frame of every stage has a
fingerprint of all that it depends on, which are the settings of the stage, the version of its code,
and the fingerprints of what it reads. A frame is computed when its fingerprint is not the one that
is stored.

Costs are tasks, bytes, memory and time, from sizes alone: each stage counts its own, and what they
share is here, integers in, integers out. Tasks of a chunk are those of the graphs as Dask runs
them, after fusing; a test compares them with real graphs. Bytes of a cell while it is worked on are
upper estimates: the arrays that a task has at once, with the neighbours that it borrows from.
Outlines come on top of a summary. Time is what the same stage took in a finished run, of the
job's own store, else of its neighbours, in proportion to how much there is to do. No array is
opened and no graph is built, so a plan of a hundred thousand chunks takes no longer than of one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import accumulate, islice
from math import ceil, isqrt, log
from typing import TYPE_CHECKING, Any

from popdask._repr_html import html_card
from popdask.config.settings import Job
from popdask.errors import InputError
from popdask.store.content import Run, orphans
from popdask.store.repository import RegionStore
from popdask.tracking import MOST_TILES, TILE

if TYPE_CHECKING:
    from popdask.workflow.progress import Reporter


#: Stands for the time, in the record of a stage that has no frames.
WHOLE = "whole"

#: What a stage is made from, with a fingerprint for each of its ``frames``.
Record = Mapping[str, Any]

#: Makes the fingerprint of a stage and the version of its code, with all that is given.
Fingerprint = Callable[..., str]
#: Memory of a worker with its libraries loaded, in bytes.
BASE = 450 * 2**20
#: Share of a worker's memory beyond which Dask moves data to disk.
ROOM = 0.6
#: Operations of a network that take about as long as a pixel that is read.
PIXEL_OPERATIONS = 14_000
#: Chunks that are proposed have a multiple of so many cells along a side.
STEP = 128
#: Cells along a side of the largest chunk of codes.
ENCODED = MOST_TILES * TILE
#: Cells that take as long as a chunk, and as the start of a stage, however little there is to do.
CHUNK_CELLS, START_CELLS = 60_000, 20_000_000
#: Neighbours that are looked at, at most.
NEIGHBOURS = 16


@dataclass(frozen=True)
class Basis:
    """What the records of a job's stages are made from."""

    job: Any  # the settings
    times: tuple[str, ...]  # ISO times of the frames
    inputs: Any  # the versions of the files that are read, as the pipeline gives them
    stored: Mapping[str, Any] = field(default_factory=dict)
    """The records of the stages that are finished."""
    wanted: dict[str, Record] = field(default_factory=dict)
    """Those of the stages before this one, as they shall be."""

    def frames(self, stage: str) -> Mapping[str, str]:
        """The fingerprints of the frames of an earlier stage."""
        frames: Mapping[str, str] = self.wanted[stage]["frames"]
        return frames


#: Says what a stage shall be made from; None where a job has no such stage.
Wanted = Callable[[Basis, Fingerprint], Record | None]


@dataclass(frozen=True)
class Stage:
    """One stage of a pipeline."""

    name: str
    """Its name, as users see it."""
    needs: tuple[str, ...]
    """The stages that it reads."""
    wanted: Wanted
    """What it shall be made from; None where a job has no such stage."""
    cost: Callable[[Any, StagePlan, Any], StageCost]
    """What it costs, from the job, what is stale, and how much the pipeline's input is."""
    compute: Callable[[Any, StagePlan, Reporter], None]
    """Computes what is stale within a run, and commits it."""
    version: int = 1
    """Of its code: a stage that computes something else gets the next number."""
    unit: str = "frames"
    """What of it is counted."""
    table: bool = False
    """Whether it holds rows of all frames, and is made anew where one goes away."""
    anywhere: bool = False
    """Whether its results do not depend on which cells the arrays have."""
    reads_files: bool = False
    """Whether it reads files of the user, of which the versions go on record with it."""
    writes_files: bool = False
    """Whether it writes beside the store: exports, or how far a training is."""


def decide(stages: Iterable[Stage], basis: Basis) -> Plan:
    """Compare what stages shall be made from with what they were made from."""
    position = {time: i for i, time in enumerate(basis.times)} | {WHOLE: 0}
    planned, needs = {}, {}
    for stage in stages:
        record = stage.wanted(basis, partial(fingerprint, stage.name, stage.version))
        if record is not None:
            basis.wanted[stage.name] = record
            stale = _stale(stage, record, basis.stored.get(stage.name, {}), position)
            needs[stage.name] = stage.needs
            planned[stage.name] = StagePlan(
                stage.name, record, stale, len(record["frames"]), stage.unit
            )
    return Plan(basis.times, planned, needs, orphans(basis.stored, planned))


def _stale(
    stage: Stage, record: Record, stored: Record, position: Mapping[str, int]
) -> tuple[int, ...]:
    frames, known = record["frames"], stored.get("frames", {})
    if "model" in record and stored.get("model") != record["model"]:
        known = {}
    stale = tuple(position[key] for key in frames if known.get(key) != frames[key])
    if stage.table and set(known) - set(frames):
        stale = stale or (0,)  # frames went away: the table has rows too many
    return stale


def fingerprint(*parts: Any) -> str:
    """Digest of anything that can be written as JSON."""
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def lasting(stage: str, *settings: Any) -> str:
    """Digest of a stage's settings whatever the version of its code, as of the first."""
    return fingerprint(stage, 1, *settings)


def chained(of: Fingerprint, settings: Any, frames: Mapping[str, str]) -> dict[str, str]:
    """Fingerprints of frames that are held: each depends on those of all before."""
    prints = accumulate(
        frames.values(), lambda before, frame: of(settings, before, frame), initial=""
    )
    return dict(zip(frames, islice(prints, 1, None), strict=True))


def plain(models: Sequence[Any]) -> list[Any]:
    """Settings as they can be written as JSON."""
    return [model.model_dump(mode="json") for model in models]


@dataclass(frozen=True)
class StagePlan:
    """What one stage has to do."""

    name: str
    """Name of the stage."""
    record: Mapping[str, Any]
    """What the finished stage is made from, to be stored with it."""
    stale: tuple[int, ...]
    """Positions of the frames to compute (for links, of the later frame of each pair)."""
    total: int
    """Number of frames (or pairs) of the stage."""
    unit: str = "frames"
    """What is counted."""

    @property
    def done(self) -> bool:
        """Whether there is nothing to compute."""
        return not self.stale

    @property
    def whole(self) -> bool:
        """Whether everything is to be computed."""
        return len(self.stale) == self.total

    def __str__(self) -> str:
        if self.done:
            return "done"
        if self.whole:
            return f"all {self.total} {self.unit}" if self.total > 1 else "to do"
        return f"{len(self.stale)} of {self.total} {self.unit}"


@dataclass(frozen=True, repr=False)
class Plan:
    """What a run has to do, stage by stage."""

    times: tuple[str, ...]
    """ISO times of the frames."""
    stages: Mapping[str, StagePlan] = field(default_factory=dict)
    """The stages by name, in the order in which they run."""
    needs: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """The stages that each stage reads."""
    gone: tuple[str, ...] = ()
    """Records of results that belong to none of the stages, and times of frames that the job has
    no more: they are to be taken away."""
    warnings: tuple[str, ...] = ()
    """What of the input should be looked at before the run, one sentence each."""

    @property
    def todo(self) -> list[StagePlan]:
        """The stages that are to be computed, in their order."""
        return [stage for stage in self if not stage.done]

    @property
    def work(self) -> str:
        """Those in words."""
        return ", ".join(stage.name for stage in self.todo) or "nothing, all was done"

    @property
    def computed(self) -> bool:
        """Whether there is nothing to compute."""
        return not self.todo

    @property
    def done(self) -> bool:
        """Whether there is nothing to do: nothing to compute, and nothing to take away."""
        return self.computed and not self.gone

    def unfinished_before(self, name: str) -> list[StagePlan]:
        """List what is to be computed of the stages that a stage needs, directly or not."""
        needed: set[str] = set()
        todo = [name]
        while todo:
            todo += (fresh := set(self.needs.get(todo.pop(), ())) - needed)
            needed |= fresh
        return [stage for stage in self.todo if stage.name in needed]

    def __repr__(self) -> str:
        return f"Plan({', '.join(f'{stage.name}: {stage}' for stage in self)})"

    def _repr_html_(self) -> str:
        """The stages and what is to be computed of each, as a notebook shows them."""
        return html_card("Plan", {stage.name: stage for stage in self})

    def __getitem__(self, name: str) -> StagePlan:
        return self.stages[name]

    def __iter__(self) -> Iterator[StagePlan]:
        return iter(self.stages.values())


@dataclass(frozen=True)
class Resources:
    """The workers of a run."""

    workers: int  # how many processes
    threads: int  # threads of each
    memory: int  # memory of each, in bytes
    where: str = "here"  # where they are, in a few words


@dataclass(frozen=True)
class StageCost:
    """What one stage costs."""

    name: str  # name of the stage
    tasks: int = 0  # tasks that Dask runs
    read: int = 0  # bytes read, as they are in memory: uncompressed
    written: int = 0  # bytes stored, uncompressed
    memory: int = 0  # bytes that one thread holds, at most
    amount: int = 0
    """How much there is to do, in a unit of the stage's own: what its time is in proportion to."""


@dataclass(frozen=True)
class Extent:
    """How much a job is."""

    frames: int  # frames
    rows: int  # rows of cells
    columns: int  # columns of cells
    edge: int  # cells along a side of a chunk
    settled: float = 1.0  # share of the cells that are trained on, classified and grouped
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

    job: Any  # the settings
    stage: StagePlan  # what is stale
    extent: Extent  # how much a frame is, in the chunks of the stage
    frames: int  # frames (or pairs) that it goes over

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
    """Bytes read of each cell, or the settings' function that counts them."""
    written: int | Callable[[Any], int] = 0
    """Bytes written of each cell."""
    held: int | Callable[[Any], int] = 0
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
        read, written, held = (
            each(job) if callable(each) else each for each in (self.read, self.written, self.held)
        )
        each = self.tasks(work) if callable(self.tasks) else self.tasks[0 if work.several else 1]
        chunks = extent.blocks * work.frames
        return StageCost(
            stage.name,
            tasks=round(each * chunks),
            read=read * work.cells,
            written=written * work.cells,
            memory=held * extent.block_cells,
            amount=START_CELLS + work.cells + CHUNK_CELLS * chunks + self.more(work),
        )


@dataclass(frozen=True)
class Costs:
    """What a run costs, for all that is still to compute."""

    stages: Mapping[str, StageCost]  # the stages that are to be computed, by name
    chunks: int  # chunks of all frames
    edge: int | None = None
    """Cells along a side of a square as large as a chunk, where the job file can choose it."""

    @property
    def amounts(self) -> dict[str, int]:
        """How much there is to do in each stage."""
        return {name: stage.amount for name, stage in self.stages.items()}

    @property
    def tasks(self) -> int:
        """Tasks of all stages."""
        return sum(stage.tasks for stage in self.stages.values())

    @property
    def read(self) -> int:
        """Bytes read by all stages, uncompressed."""
        return sum(stage.read for stage in self.stages.values())

    @property
    def written(self) -> int:
        """Bytes stored by all stages, uncompressed."""
        return sum(stage.written for stage in self.stages.values())

    @property
    def widest(self) -> StageCost:
        """The stage that needs the most memory."""
        return max(self.stages.values(), key=lambda stage: stage.memory)

    def peak(self, resources: Resources) -> int:
        """Return the most memory of a worker in bytes: libraries, and what each thread holds."""
        held = max((stage.memory for stage in self.stages.values()), default=0)
        return BASE + resources.threads * held

    def fits(self, resources: Resources) -> bool:
        """Return whether a worker holds its chunks without moving data to disk."""
        return self.peak(resources) <= ROOM * resources.memory

    def seconds(self, measured: Mapping[str, Measured]) -> dict[str, float | None]:
        """Return the seconds of each stage by what it took before; None where that is unknown."""
        rates = {name: one.seconds / one.amount for name, one in measured.items()}
        return {
            name: cost.amount * rates[name] if name in rates else None
            for name, cost in self.stages.items()
        }

    def proposed(self, resources: Resources) -> int | None:
        """Return the largest chunks that fit, in cells along a side; None where none would."""
        room = int(ROOM * resources.memory) - BASE
        if self.edge is None or room <= 0:
            return None
        held = max(1, resources.threads * self.widest.memory)
        return isqrt(self.edge**2 * room // held) // STEP * STEP or None

    def advice(self, resources: Resources) -> str | None:
        """Say what to change where a worker cannot hold its chunks; None where it can."""
        if self.fits(resources):
            return None
        threads = f" with {resources.threads} threads" if resources.threads > 1 else ""
        peak, edge = self.peak(resources), self.proposed(resources)
        smaller = f"set [input] chunks = {edge}, or " if edge else ""
        return (
            f"a chunk does not fit a worker: {self.widest.name} takes {peak / 1e9:.1f} GB of its "
            f"{resources.memory / 1e9:.1f} GB{threads}, of which Dask moves what is beyond "
            f"{ROOM:.0%} to disk; {smaller}give each worker {peak / ROOM / 1e9:.1f} GB"
        )


@dataclass(frozen=True)
class Planned:
    """A job, what a run of it would compute, and what that costs."""

    job: Any  # its settings
    plan: Plan
    extent: str  # how much it is
    costs: Costs


@dataclass(frozen=True)
class Measured:
    """What one stage took in a finished run."""

    seconds: float  # how long it took, on the workers of that run
    amount: int  # how much it did, in a unit of its own
    run: str  # the run's tag
    store: str  # where the results of that run are

    def off(self, amount: int) -> float:
        """Return how far another amount is from this one, as the logarithm of their ratio."""
        return abs(log(amount / self.amount))


def measured_stages(job: Job, amounts: Mapping[str, int]) -> dict[str, Measured]:
    """Find what stages took in finished runs of a job's store, else of stores beside it."""
    if not amounts:
        return {}
    own = RegionStore(job.output.store)
    found = _nearest([own], amounts)
    missing = {name: amount for name, amount in amounts.items() if name not in found}
    return found | (_nearest(_beside(own, job.pipeline), missing) if missing else {})


def _nearest(stores: Iterable[RegionStore], amounts: Mapping[str, int]) -> dict[str, Measured]:
    """Of each stage, what it took where it had about as much to do."""
    found: dict[str, Measured] = {}
    for store in stores:
        for run in store.history():
            for name, one in stages_of(run, str(store.location)).items():
                wanted = amounts.get(name)
                if wanted and (name not in found or one.off(wanted) < found[name].off(wanted)):
                    found[name] = one
    return found


def stages_of(run: Run, store: str) -> dict[str, Measured]:
    """Add up what each stage of a run took, where it is known how much it did."""
    seconds: dict[str, float] = {}
    for part in run.stages:
        seconds[part.of or part.stage] = seconds.get(part.of or part.stage, 0.0) + part.seconds
    return {
        stage.stage: Measured(seconds[stage.stage], stage.amount, run.tag, store)
        for stage in run.stages
        if stage.amount
    }


def _beside(own: RegionStore, pipeline: str) -> Iterator[RegionStore]:
    """The stores in the same folder, of jobs of the same kind."""
    for location in islice(own.location.neighbours(), NEIGHBOURS):
        try:
            store = RegionStore(str(location))
            records = store.latest_records().values()
        except InputError:  # it is damaged, which is for its own job to say
            continue
        if any(record.get("pipeline") == pipeline for record in records):
            yield store
