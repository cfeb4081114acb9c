"""What a run costs, from sizes alone: tasks, bytes, memory and time.

A product counts the work of its stages (``costs`` in its package); the arithmetic that they share
is here: integers in, integers out. No array is opened and no graph is built, so the costs of a
hundred thousand chunks take no longer than those of one.

Time is the work of each stage divided among the workers, what only one of them can do, and what
Dask's scheduler takes for every task, in turn.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import isqrt

from popdask.pipelines.rates import Rates

#: Memory of a worker with its libraries loaded, in bytes.
BASE = 450 * 2**20

#: Share of a worker's memory beyond which Dask moves data to disk.
ROOM = 0.6

#: Chunks that are proposed have a multiple of so many cells along a side.
STEP = 128


@dataclass(frozen=True)
class Crew:
    """The workers of a run."""

    workers: int
    """How many processes."""
    threads: int
    """Threads of each."""
    memory: int
    """Memory of each, in bytes."""

    @property
    def cores(self) -> int:
        """How many tasks run at once."""
        return self.workers * self.threads


@dataclass(frozen=True)
class StageCost:
    """What one stage costs."""

    name: str
    """Name of the stage."""
    tasks: int = 0
    """Tasks that Dask runs."""
    read: int = 0
    """Bytes read, as they are in memory: uncompressed."""
    written: int = 0
    """Bytes stored, uncompressed."""
    memory: int = 0
    """Bytes that one thread holds, at most."""
    parts: int = 1
    """How many tasks can run side by side."""
    shared: Mapping[str, int] = field(default_factory=dict)
    """Work that is divided among the workers, by the name of its rate."""
    alone: Mapping[str, int] = field(default_factory=dict)
    """Work that one of them does, by the name of its rate."""

    def seconds(self, rates: Rates, cores: int) -> float | None:
        """Tell how long the stage takes; None where a rate was not measured.

        Examples
        --------
        >>> cost = StageCost("flow", tasks=100, parts=8, shared={"flow per cell": 10**9})
        >>> rates = Rates({"flow per cell": 1e-8}, 0.01, 2.0, "here", 4, "2025-01-01", {})
        >>> cost.seconds(rates, cores=4)
        3.5
        """
        if not {*self.shared, *self.alone} <= set(rates.seconds):
            return None
        shared, alone = (
            sum(rates.seconds[name] * amount for name, amount in work.items())
            for work in (self.shared, self.alone)
        )
        return shared / max(1, min(cores, self.parts)) + alone + self.tasks * rates.task


@dataclass(frozen=True)
class Costs:
    """What a run costs, for all that is still to compute."""

    stages: Mapping[str, StageCost]
    """The stages that are to be computed, by name."""
    chunks: int
    """Chunks of all frames."""
    edge: int | None = None
    """Cells along a side of a square as large as a chunk, where the job file can choose it."""

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

    def peak(self, crew: Crew) -> int:
        """Give the memory of a worker at most, in bytes: libraries, and what each thread holds."""
        held = max((stage.memory for stage in self.stages.values()), default=0)
        return BASE + crew.threads * held

    def fits(self, crew: Crew) -> bool:
        """Tell whether a worker holds its chunks without moving data to disk."""
        return self.peak(crew) <= ROOM * crew.memory

    def seconds(self, rates: Rates, crew: Crew) -> float | None:
        """Tell how long the run takes; None where a rate was not measured."""
        told = [stage.seconds(rates, crew.cores) for stage in self.stages.values()]
        known = [seconds for seconds in told if seconds is not None]
        return rates.start + sum(known) if len(known) == len(told) else None

    def proposed(self, crew: Crew) -> int | None:
        """Give the largest chunks that fit, in cells along a side; None where none would."""
        room = int(ROOM * crew.memory) - BASE
        if self.edge is None or room <= 0:
            return None
        held = max(1, crew.threads * self.widest.memory)
        return isqrt(self.edge**2 * room // held) // STEP * STEP or None

    def advice(self, crew: Crew) -> str | None:
        """Say what to change where a worker cannot hold its chunks; None where it can.

        Examples
        --------
        >>> stage = StageCost("classes", memory=100 * 4096**2)
        >>> costs = Costs({"classes": stage}, chunks=1, edge=4096)
        >>> costs.advice(Crew(1, 1, memory=16 * 2**30))
        >>> print(costs.advice(Crew(2, 1, memory=2**31)))
        a chunk does not fit a worker: classes takes 2.1 GB of its 2.1 GB, of which Dask ...
        """
        if self.fits(crew):
            return None
        threads = f" with {crew.threads} threads" if crew.threads > 1 else ""
        found = (
            f"a chunk does not fit a worker: {self.widest.name} takes "
            f"{self.peak(crew) / 1e9:.1f} GB of its {crew.memory / 1e9:.1f} GB{threads}, of which "
            f"Dask moves what is beyond {ROOM:.0%} to disk"
        )
        return f"{found}; {self._remedy(crew)}"

    def _remedy(self, crew: Crew) -> str:
        edge, needed = self.proposed(crew), self.peak(crew) / ROOM / 1e9
        larger = f"give each worker {needed:.1f} GB"
        return f"set [input] chunks = {edge}, or {larger}" if edge else larger
