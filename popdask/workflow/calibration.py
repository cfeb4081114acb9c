"""Measures what this machine takes for each unit of work, on small worlds that are drawn for it.

The same job is run at some sizes, chunks and settings, on one thread. What each run had to do is
counted as a plan counts it, and for each stage the rates are sought, none below 0, that explain its
times best (least squares). Times are those of the processor, so that other work on the machine
matters little; only what workers take to start, and Dask for a task, is by the clock.
"""

from __future__ import annotations

import os
import platform
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from datetime import date
from pathlib import Path
from typing import NamedTuple

import dask
import numpy as np
from scipy.optimize import nnls

from popdask.config.jobs import CommunitiesJob
from popdask.synthetic.cities import moving_cities
from popdask.workflow import communities
from popdask.workflow.communities_costs import costs
from popdask.workflow.inputs import versions
from popdask.workflow.plan import Rates, StageCost
from popdask.workflow.population_costs import measure_networks
from popdask.workflow.runlog import Reporter
from popdask.workflow.runner import Workers

TASKS, ROUNDS = 500, 5  # that do nothing, to measure what a task takes by itself; the best round
FRAMES = 6


class Trial(NamedTuple):
    """One run of the small job."""

    tiles: tuple[int, int]
    """How often the drawn country is repeated; a country is 240 × 320 cells."""
    chunks: int
    """Cells along a side of a chunk."""
    cells: str
    """The domain."""
    epochs: int
    """Epochs of training."""
    sample: int
    """Cells that classes are fitted on."""
    villages: int = 16
    """Hamlets of a country; without them, there is much that is empty."""


#: Each differs from another in what it has more of.
TRIALS = (
    Trial((1, 1), 512, "settled", 1, 1000),
    Trial((1, 1), 128, "settled", 1, 1000),
    Trial((1, 1), 512, "data", 20, 40_000),
    Trial((3, 2), 512, "settled", 1, 1000),
    Trial((3, 2), 512, "settled", 1, 1000, villages=0),
    Trial((3, 2), 512, "data", 1, 20_000),
)


class Clock(Reporter):
    """Takes the processor's time of each stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str, work: str) -> Iterator[None]:
        """Surround one stage."""
        start = time.process_time()
        yield
        self.seconds[name] = time.process_time() - start


def calibrate(
    reporter: Reporter | None = None,
    *,
    workers: Workers = nullcontext,
    trials: Sequence[Trial] = TRIALS,
) -> Rates:
    """Measure this machine, in about a minute.

    Parameters
    ----------
    reporter
        Is told of each part.
    workers
        Gives the workers, whose start and tasks are timed.
    trials
        The runs of the communities job.

    Returns
    -------
    Rates
    """
    reporter = reporter or Reporter()
    with reporter.stage("workers", "start"):
        task, start = measure_workers(workers)
    with reporter.stage("communities", f"{len(trials)} runs"):
        rates = measure_stages(trials)
    with reporter.stage("networks", "estimates"):
        rates |= measure_networks()
    cores = len(os.sched_getaffinity(0))
    today = date.today().isoformat()
    return Rates(rates, task, start, platform.node(), cores, today, versions())


def measure_workers(workers: Workers) -> tuple[float, float]:
    """Time what a task takes by itself, and what the workers take to start, both by the clock.

    Parameters
    ----------
    workers
        As for a run.

    Returns
    -------
    task, start : float
        Seconds.
    """
    begin = time.perf_counter()
    with workers():
        dask.compute([dask.delayed(_load, pure=False)() for _ in range(32)])
        start = time.perf_counter() - begin
        return min(_time_tasks() for _ in range(ROUNDS)), start


def _time_tasks() -> float:
    begin = time.perf_counter()
    dask.compute([dask.delayed(_nothing, pure=False)() for _ in range(TASKS)])
    return (time.perf_counter() - begin) / TASKS


def measure_stages(trials: Sequence[Trial]) -> dict[str, float]:
    """Run the small job, and find the rates of its stages.

    Parameters
    ----------
    trials
        The runs; the first is run once more before, as first times are longer.

    Returns
    -------
    dict of float
        Seconds of one core, by the name of the rate.
    """
    measured: dict[str, list[tuple[Mapping[str, int], float]]] = {}
    with tempfile.TemporaryDirectory() as folder, dask.config.set(scheduler="synchronous"):
        _run(trials[0], Path(folder) / "first")
        for number, trial in enumerate(trials):
            counted, seconds = _run(trial, Path(folder) / str(number))
            for name, cost in counted.items():
                work = {**cost.shared, **cost.alone}
                measured.setdefault(name, []).append((work, seconds[name]))
    rates: dict[str, float] = {}
    for runs in measured.values():
        rates |= explain(*zip(*runs, strict=True))
    return rates


def explain(work: Sequence[Mapping[str, int]], seconds: Sequence[float]) -> dict[str, float]:
    """Find the rates, none below 0, by which some work took some time.

    Parameters
    ----------
    work
        Amounts of each run, by the name of the rate.
    seconds
        What each run took.

    Returns
    -------
    dict of float
        Seconds for a unit.

    Examples
    --------
    >>> rates = explain([{"cell": 100, "run": 1}, {"cell": 300, "run": 1}], [2.0, 4.0])
    >>> {name: round(rate, 6) for name, rate in rates.items()}
    {'cell': 0.01, 'run': 1.0}
    """
    names = sorted({name for amounts in work for name in amounts})
    table = np.array([[float(amounts.get(name, 0)) for name in names] for amounts in work])
    scale = np.maximum(table.max(axis=0), 1.0)  # amounts differ by many powers of ten
    found, _ = nnls(table / scale, np.asarray(seconds, float))
    return dict(zip(names, (found / scale).tolist(), strict=True))


def _run(trial: Trial, folder: Path) -> tuple[Mapping[str, StageCost], dict[str, float]]:
    """Draw a country and run the job on it: what it had to do, and how long each stage took."""
    world = moving_cities(tiles=trial.tiles, frames=FRAMES, villages=trial.villages)
    world.write(folder)
    job = CommunitiesJob.model_validate(
        {
            "name": "calibration",
            "input": {"frames": f"{folder}/world_{{time:%Y}}.tif", "chunks": trial.chunks},
            "encoder": {"epochs": trial.epochs},
            "classes": {"sample": trial.sample},
            "domain": {"cells": trial.cells},
            "output": {"store": f"{folder}/store.icechunk", "export": ["cog"]},
        }
    )
    clock, counted = Clock(), costs(job, communities.plan(job)).stages
    communities.run(job, clock)
    return counted, clock.seconds


def _nothing() -> None:
    """Do nothing, on a worker."""


def _load() -> None:
    """Load what most stages need, on a worker."""
    import torch  # noqa: F401
