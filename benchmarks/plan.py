"""Plans of large jobs: their memory and time, and the time that is told beside that of a run."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import dask
import rasterio
from rasterio.transform import from_origin

from benchmarks.estimate import PIXEL, full_models, small_models
from benchmarks.machine import Machine, Row, duration, in_child, measured, timed
from benchmarks.wholejob import draw
from popdask.config import CommunitiesJob, PopulationJob
from popdask.workflow import population
from popdask.workflow.communities import PIPELINE, plan, run
from popdask.workflow.frames import basis
from popdask.workflow.plan import Extent, decide, measured_stages
from popdask.workflow.runner import count

MEMORY = 2 * 2**30
KM = 30  # along a side of the mosaic


def rows(machine: Machine, *, quick: bool) -> Iterator[Row]:
    """Plan 100,000 chunks and a large mosaic; then plan a job by the run of another, and run it."""
    chunks, tasks, seconds, peak = planned() if quick else in_child(planned)
    yield Row(
        "plan",
        f"{chunks:,} chunks of 1000²",
        f"{duration(seconds)}, {peak / 1e6:.0f} MB",
        limit=f"{peak / MEMORY:.1%} of 2 GiB",
        also=f"{tasks:,} tasks; no graph is built",
    )
    with tempfile.TemporaryDirectory() as folder:
        job = mosaic_job(Path(folder), quick=quick)
        told, spent = timed(lambda: population.PIPELINE.costs(job, population.plan(job)))
    yield Row(
        "plan, mosaic",
        f"{KM} × {KM} km at {PIXEL} m, {told.stages['estimate'].written // 8:,} cells",
        duration(spent.cpu),
        also=f"{told.tasks:,} tasks, {told.read / 1e9:.1f} GB",
    )
    with tempfile.TemporaryDirectory() as folder, dask.config.set(scheduler="sync"):
        small, _ = draw(Path(folder) / "small", (1, 1), 512)
        job, cells = draw(Path(folder) / "large", (2, 1) if quick else (6, 5), 512)
        beside = small.output.model_copy(update={"store": f"{folder}/large/small.icechunk"})
        run(small.model_copy(update={"output": beside}))
        counted = PIPELINE.costs(job, plan(job))
        seconds = counted.seconds(measured_stages(job, counted.amounts))
        told = sum(one or 0.0 for one in seconds.values())
        _, spent = timed(run, job)
    yield Row(
        "plan, time",
        f"communities of {cells / 1e6:.1f} M cells, one thread",
        f"told {duration(told)}, taken {duration(spent.wall)}",
        ratio=f"{told / spent.wall:.2f} of the time taken",
        also="by a run of one country of 76,800 cells beside it",
    )


def mosaic_job(folder: Path, *, quick: bool) -> PopulationJob:
    """Write a large mosaic that is all empty, and models; an estimate of the one by the others."""
    side = round(KM * 1000 / PIXEL)
    size = {"width": side, "height": side, "count": 3, "dtype": "uint8"}
    blocks = {"tiled": True, "blockxsize": 512, "blockysize": 512, "sparse_ok": True}
    place = {"crs": "EPSG:25832", "transform": from_origin(600_000, 6_170_000, PIXEL, PIXEL)}
    with rasterio.open(folder / "mosaic_2025.tif", "w", driver="GTiff", **size, **blocks, **place):
        pass  # whose blocks are left out of the file
    for model in small_models() if quick else full_models():
        model.save(folder / f"{model.kind}.safetensors")
    return PopulationJob.model_validate(
        {
            "name": "large",
            "input": {"mosaic": f"{folder}/mosaic_{{time:%Y}}.tif"},
            "cells": {"grid": "dk_100m"},
            "presence": {"weights": f"{folder}/presence.safetensors"},
            "count": {"weights": f"{folder}/count.safetensors"},
            "output": {"store": f"{folder}/large.icechunk", "export": []},
        }
    )


def planned() -> tuple[int, int, float, int]:
    """Plan a job of many chunks: chunks, tasks, seconds and the peak of memory."""
    job = CommunitiesJob.model_validate(
        {"name": "large", "input": {"frames": "x_{year}.tif"}, "output": {"store": "x"}}
    )
    inputs = {f"{1900 + year}-01-01T00:00:00": str(year) for year in range(100)}
    extent = Extent(100, 32_000, 32_000, 1000, 0.2, 0.4)

    def counted():
        plan = decide(PIPELINE.stages, basis(job, inputs, {}))
        return count(PIPELINE.stages, job, plan, extent)

    told, spent = measured(counted)
    return told.chunks, told.tasks, spent.wall, max(spent.peak, 0)
