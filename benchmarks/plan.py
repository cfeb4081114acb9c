"""Plans of large jobs: their memory and time, and the time that is told beside that of a run."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import dask

from benchmarks.machine import Machine, Row, duration, in_child, measured, timed
from benchmarks.wholejob import draw
from popdask.job import CommunitiesJob
from popdask.pipelines.calibration import TRIALS, measure_stages
from popdask.pipelines.communities import costs, plan, run
from popdask.pipelines.communities.costs import Extent, count
from popdask.pipelines.communities.fingerprints import plan_communities
from popdask.pipelines.costs import Crew
from popdask.pipelines.rates import Rates

MEMORY = 2 * 2**30
ONE = Crew(workers=1, threads=1, memory=8 * 2**30)


def rows(machine: Machine, *, quick: bool) -> Iterator[Row]:
    """Plan 100,000 chunks; then plan a job by rates that were measured, and run it."""
    chunks, tasks, seconds, peak = planned() if quick else in_child(planned)
    yield Row(
        "plan",
        f"{chunks:,} chunks of 1000²",
        f"{duration(seconds)}, {peak / 1e6:.0f} MB",
        limit=f"{peak / MEMORY:.1%} of 2 GiB",
        also=f"{tasks:,} tasks; no graph is built",
    )
    rates = Rates(measure_stages(TRIALS[:2] if quick else TRIALS), 0.0, 0.0, "", 1, "", {})
    with tempfile.TemporaryDirectory() as folder, dask.config.set(scheduler="sync"):
        job, cells = draw(Path(folder) / "world", (1, 1) if quick else (6, 5), 512)
        told = costs(job, plan(job)).seconds(rates, ONE) or 0.0
        _, spent = timed(run, job)
    yield Row(
        "plan, time",
        f"communities of {cells / 1e6:.1f} M cells, one thread",
        f"told {duration(told)}, taken {duration(spent.cpu)}",
        ratio=f"{told / spent.cpu:.2f} of the time taken",
        also="by rates measured on other sizes",
    )


def planned() -> tuple[int, int, float, int]:
    """Plan a job of many chunks: chunks, tasks, seconds and the peak of memory."""
    job = CommunitiesJob.model_validate(
        {"name": "large", "input": {"frames": "x_{year}.tif"}, "output": {"store": "x"}}
    )
    inputs = {f"{1900 + year}-01-01T00:00:00": str(year) for year in range(100)}
    extent = Extent(100, 32_000, 32_000, 1000, 0.2, 0.4)
    told, spent = measured(lambda: count(job, plan_communities(job, inputs, {}), extent))
    return told.chunks, told.tasks, spent.wall, max(spent.peak, 0)
