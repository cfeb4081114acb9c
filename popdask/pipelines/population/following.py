"""What a population job begins at its end, planned with it: communities, and groups of scenes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from popdask import cube, export
from popdask.cube.stack import CHUNK
from popdask.job import CommunitiesJob, Job, PopulationJob
from popdask.pipelines import communities, scenes
from popdask.pipelines.communities.costs import Extent, count
from popdask.pipelines.communities.fingerprints import plan_communities
from popdask.pipelines.costs import Costs
from popdask.pipelines.images import cell_grid, frame_grid
from popdask.pipelines.plan import Plan
from popdask.pipelines.population.earlier import covers_other_cells
from popdask.pipelines.population.sources import Sources
from popdask.store import RegionStore

#: Stands for the version of a raster that the run will write.
TO_COME = "to come"


@dataclass(frozen=True)
class Following:
    """A job that a run of another begins at its end."""

    job: Job
    """Its settings."""
    plan: Plan
    """What it will compute."""
    extent: str
    """How much it is."""
    costs: Costs
    """What that costs."""


def following(job: PopulationJob, plan: Plan) -> list[Following]:
    """Plan what follows a population job.

    Parameters
    ----------
    job
        The settings.
    plan
        What a run will compute of the job itself.

    Returns
    -------
    list of Following
        The job of ``[follow]`` and that of ``[scenes]``, where there are any. As long as estimates
        are to be computed, the communities are counted from the grid: every cell as settled.

    Raises
    ------
    InputError
        If a mosaic or a raster cannot be opened.
    """
    stamps = pd.DatetimeIndex(plan.times)
    form = export.time_form(stamps)
    then, found = job.followed(form), []
    if then is not None and plan["export"].done:
        found.append(_without_chunks(_planned(communities, then)))
    elif then is not None:
        read = pd.to_datetime(stamps.strftime(form), format=form)  # as the rasters will tell them
        found.append(_without_chunks(_to_come(job, plan, then, read)))
    if job.grouped is not None:
        found.append(_planned(scenes, job.grouped))
    return found


def _planned(product: Any, job: Job) -> Following:
    """Plan a job of which the images or rasters are there."""
    plan = product.plan(job)
    return Following(job, plan, product.extent(job), product.costs(job, plan))


def _without_chunks(one: Following) -> Following:
    """Leave out the advice to set chunks, which ``[follow]`` cannot."""
    return replace(one, costs=replace(one.costs, edge=None))


def _to_come(
    job: PopulationJob, plan: Plan, then: CommunitiesJob, stamps: pd.DatetimeIndex
) -> Following:
    """Plan the communities of rasters of which some are still to be written."""
    stale = set(plan["export"].stale)
    records = {} if covers_other_cells(job) else RegionStore(then.output.store).latest_records()
    files = {} if len(stale) == len(stamps) else communities.PIPELINE.files(then, records)
    inputs = {}
    for position, stamp in enumerate(stamps):
        time = stamp.strftime("%Y-%m-%dT%H:%M:%S")
        inputs[time] = TO_COME if position in stale else cube.frame_version(files[time])
    planned = plan_communities(then, inputs, records)
    mosaics = Sources.of(job).mosaics
    grid = cell_grid(job.cells, next(iter(mosaics.values()))[0], job.cells.join)
    sizes = frame_grid(job, mosaics, grid).sizes
    edge = CHUNK if then.input.chunks == "auto" else then.input.chunks
    extent = Extent(len(stamps), sizes["y"], sizes["x"], edge)
    said = (
        f"{len(stamps)} × {sizes['y']} × {sizes['x']} cells; at most, as if people lived in all of "
        "them: the rasters are still to come"
    )
    return Following(then, planned, said, count(then, planned, extent))
