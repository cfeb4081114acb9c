"""How fast a machine works: seconds of one core for each unit of work, measured and kept.

A rate has a name in words, ``flow per cell``. What a rate is measured on and what it is used for
count their work with the same functions, so a rate means nothing beyond them.

What a run has to compute, decided from settings and records alone.

Every frame of every stage has a fingerprint of all that it depends on: the settings of the stage,
the version of its code, and the fingerprints of what it reads. A frame is computed when its
fingerprint is not the one that is stored. Nothing here opens an array, so a plan costs nothing.

What a run costs, from sizes alone: tasks, bytes, memory and time.

A product counts the work of its stages (``costs`` in its package); the arithmetic that they share
is here: integers in, integers out. No array is opened and no graph is built, so the costs of a
hundred thousand chunks take no longer than those of one.

Time is the work of each stage divided among the workers, what only one of them can do, and what
Dask's scheduler takes for every task, in turn.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from math import isqrt
from pathlib import Path
from typing import Any

from popdask._repr_html import html_card
from popdask.errors import InputError
from popdask.io.paths import write_text
from popdask.store.records import orphans


@dataclass(frozen=True)
class Rates:
    """What was measured on a machine."""

    seconds: Mapping[str, float]
    """Seconds of one core for a unit of work, by the name of the rate."""
    task: float
    """Seconds for each task of a graph, all workers together: what Dask's scheduler takes."""
    start: float
    """Seconds until the workers are there and have loaded their libraries."""
    host: str
    """Name of the machine."""
    cores: int
    """Its cores."""
    date: str
    """Day of the measurement, ISO."""
    versions: Mapping[str, str]
    """Versions of Python and the libraries."""

    def __str__(self) -> str:
        cores = f"{self.cores} core{'s' if self.cores != 1 else ''}"
        return f"rates of {self.date}, {self.host} with {cores}"


def rates_file(environ: Mapping[str, str] = os.environ) -> Path:
    """Tell where the rates of this machine are kept.

    Parameters
    ----------
    environ
        ``POPDASK_RATES`` names the file; without it, it is in the user's configuration folder.

    Examples
    --------
    >>> rates_file({"XDG_CONFIG_HOME": "/home/ann/.config"}).as_posix()
    '/home/ann/.config/popdask/rates.json'
    """
    if named := environ.get("POPDASK_RATES"):
        return Path(named)
    home = environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(home) / "popdask" / "rates.json"


def load_rates(path: Path | None = None) -> Rates | None:
    """Read what was measured; None where nothing is.

    Parameters
    ----------
    path
        The file; by default that of `rates_file`.

    Raises
    ------
    InputError
        If the file holds something else.
    """
    path = path or rates_file()
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        return Rates(**told)
    except FileNotFoundError:
        return None
    except (ValueError, TypeError) as error:
        raise InputError(
            f"{path} holds no rates of a machine ({error}); measure them again with `popdask "
            "calibrate`, or remove the file."
        ) from error


def save_rates(rates: Rates, path: Path | None = None) -> Path:
    """Keep what was measured, whole or not at all; tell where.

    Parameters
    ----------
    rates
        What was measured.
    path
        The file; by default that of `rates_file`.
    """
    told = json.dumps(asdict(rates), indent=1, ensure_ascii=False)
    return write_text(path or rates_file(), f"{told}\n")


#: Stands for the time, in the record of a stage that has no frames.
WHOLE = "whole"


@dataclass(frozen=True)
class StagePlan:
    """What one stage has to do."""

    name: str
    """Name of the stage."""
    record: Mapping[str, Any]
    """What the finished stage is made from, to be stored with it."""
    stale: tuple[int, ...]
    """Positions of the frames to compute (for links, of the earlier frame of each pair)."""
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

    @property
    def computed(self) -> bool:
        """Whether there is nothing to compute."""
        return all(stage.done for stage in self.stages.values())

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
        return [stage for stage in self if stage.name in needed and not stage.done]

    def __repr__(self) -> str:
        return f"Plan({', '.join(f'{stage.name}: {stage}' for stage in self)})"

    def _repr_html_(self) -> str:
        """The stages and what is to be computed of each, as a notebook shows them."""
        return html_card("Plan", {stage.name: stage for stage in self})

    def __getitem__(self, name: str) -> StagePlan:
        return self.stages[name]

    def __iter__(self) -> Iterator[StagePlan]:
        return iter(self.stages.values())


def decide(
    times: Sequence[str],
    wanted: Mapping[str, Mapping[str, Any]],
    records: Mapping[str, Any],
    *,
    needs: Mapping[str, tuple[str, ...]],
    tables: Sequence[str] = (),
    units: Mapping[str, str] | None = None,
) -> Plan:
    """Compare what the stages shall be made from with what they were made from.

    Parameters
    ----------
    times
        ISO times of the frames.
    wanted
        The record that each stage will have when it is finished: ``frames``, the fingerprint by
        time (or by ``WHOLE``), and for a stage that has a model ``model``, its fingerprint.
    records
        The records of the finished stages.
    needs
        The stages that each stage reads.
    tables
        Stages that have rows of all frames in one table.
    units
        What a stage counts, where that is not frames.

    Returns
    -------
    Plan
    """
    position = {time: i for i, time in enumerate(times)} | {WHOLE: 0}
    stages = {}
    for name, record in wanted.items():
        stored = records.get(name, {})
        frames, known = record["frames"], stored.get("frames", {})
        if "model" in record and stored.get("model") != record["model"]:
            known = {}
        stale = tuple(position[key] for key in frames if known.get(key) != frames[key])
        if set(known) - set(frames) and name in tables:
            stale = stale or (0,)  # frames went away: the tables have rows too many
        unit = (units or {}).get(name, "frames")
        stages[name] = StagePlan(name, record, stale, len(frames), unit)
    return Plan(tuple(times), stages, needs, orphans(records, stages))


def fingerprint(*parts: Any) -> str:
    """Digest of anything that can be written as JSON."""
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def plain(models: Sequence[Any]) -> list[Any]:
    """Settings as they can be written as JSON."""
    return [model.model_dump(mode="json") for model in models]


#: Memory of a worker with its libraries loaded, in bytes.
BASE = 450 * 2**20

#: Share of a worker's memory beyond which Dask moves data to disk.
ROOM = 0.6

#: Chunks that are proposed have a multiple of so many cells along a side.
STEP = 128


@dataclass(frozen=True)
class Resources:
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

    def peak(self, crew: Resources) -> int:
        """Give the memory of a worker at most, in bytes: libraries, and what each thread holds."""
        held = max((stage.memory for stage in self.stages.values()), default=0)
        return BASE + crew.threads * held

    def fits(self, crew: Resources) -> bool:
        """Tell whether a worker holds its chunks without moving data to disk."""
        return self.peak(crew) <= ROOM * crew.memory

    def seconds(self, rates: Rates, crew: Resources) -> float | None:
        """Tell how long the run takes; None where a rate was not measured."""
        told = [stage.seconds(rates, crew.cores) for stage in self.stages.values()]
        known = [seconds for seconds in told if seconds is not None]
        return rates.start + sum(known) if len(known) == len(told) else None

    def proposed(self, crew: Resources) -> int | None:
        """Give the largest chunks that fit, in cells along a side; None where none would."""
        room = int(ROOM * crew.memory) - BASE
        if self.edge is None or room <= 0:
            return None
        held = max(1, crew.threads * self.widest.memory)
        return isqrt(self.edge**2 * room // held) // STEP * STEP or None

    def advice(self, crew: Resources) -> str | None:
        """Say what to change where a worker cannot hold its chunks; None where it can.

        Examples
        --------
        >>> stage = StageCost("classes", memory=100 * 4096**2)
        >>> costs = Costs({"classes": stage}, chunks=1, edge=4096)
        >>> costs.advice(Resources(1, 1, memory=16 * 2**30))
        >>> print(costs.advice(Resources(2, 1, memory=2**31)))
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

    def _remedy(self, crew: Resources) -> str:
        edge, needed = self.proposed(crew), self.peak(crew) / ROOM / 1e9
        larger = f"give each worker {needed:.1f} GB"
        return f"set [input] chunks = {edge}, or {larger}" if edge else larger
