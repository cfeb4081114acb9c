"""The communities job: a stack of population rasters in, communities tracked through time out.

frames → population → flow → encoder → classifier → classes → communities → summary, links → tracks

Each stage reads what the ones before it have stored, computes the frames that the plan calls
stale, and is committed when it is finished; readers see the whole at the end.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import xarray as xr

from popdask import cube
from popdask.errors import InputError
from popdask.job import Job
from popdask.pipelines.plan import MODELS, Plan, StagePlan, plan_communities
from popdask.pipelines.provenance import file_fingerprints, run_record
from popdask.pipelines.stages import Stages
from popdask.progress import Reporter
from popdask.store import RegionStore

#: Gives the workers of a run, a context that is entered when there is something to compute.
Workers = Callable[[], AbstractContextManager[Any]]


@dataclass(frozen=True)
class Outcome:
    """What a run did and found."""

    plan: Plan
    """What it had to compute."""
    communities: gpd.GeoDataFrame
    """The communities of every frame, with people, area, place and motion."""
    tracks: pd.DataFrame
    """The events of every track."""
    balance: pd.DataFrame
    """People in communities, outside them and in the raster, for every frame."""
    store: RegionStore
    """The results."""


def plan(job: Job) -> Plan:
    """Say what a run would compute, without opening the frames.

    Parameters
    ----------
    job
        The settings.

    Returns
    -------
    Plan

    Raises
    ------
    InputError
        If no frame is found, or the store's folder holds something else.
    """
    records = RegionStore(job.output.store).latest_records()
    return _plan(job, file_fingerprints(_frames(job), records), records)


def extent(job: Job) -> str:
    """Say how much a job is, from the headers of its frames: cells, chunks and bytes.

    Raises
    ------
    InputError
        If the frames are not there, or do not fit each other.
    """
    population = _open(job, _frames(job))["population"]
    frames, rows, columns = population.shape
    chunks = population.data.numblocks[1] * population.data.numblocks[2]
    return (
        f"{frames} × {rows} × {columns} = {population.size:,} cells, in {chunks} chunks per frame "
        f"of up to {' × '.join(str(max(sizes)) for sizes in population.data.chunks[1:])}; "
        f"{population.nbytes / 1e9:.2f} GB of people"
    )


def run(
    job: Job,
    reporter: Reporter | None = None,
    *,
    force: bool = False,
    workers: Workers = nullcontext,
) -> Outcome:
    """Run the job, or as much of it as is not done yet.

    Parameters
    ----------
    job
        The settings.
    reporter
        Is told of each stage; without it, the run is silent.
    force
        Whether to compute everything again, the fitted models too.
    workers
        Gives a context with the Dask client that does the work; it is entered only if there is
        something to compute. Without it, the current client does it, if there is one, else Dask's
        default scheduler.

    Returns
    -------
    Outcome

    Raises
    ------
    InputError
        If the frames are wrong; the last finished results are untouched.
    RegionBusyError
        If another run holds the region.
    LostPeopleError
        If the people in communities and outside them are not those of the raster.
    """
    store, frames = RegionStore(job.output.store), _frames(job)
    with store.lock():
        records = store.latest_records()
        _check_owner(job, records)
        records = {} if force else records
        files = file_fingerprints(frames, records)
        whole = _plan(job, files, records)
        if not whole.done or store.unfinished():
            with workers():
                stages = _begin(job, store, frames, files, list(whole.stages) if force else [])
                _compute(stages, list(stages.plan), reporter)
                _publish(stages)
    communities, tracks, balance = map(store.table, ("communities", "tracks", "balance"))
    return Outcome(whole, communities, tracks, balance, store)


def run_only(
    job: Job,
    name: str,
    reporter: Reporter | None = None,
    *,
    force: bool = False,
    workers: Workers = nullcontext,
) -> Plan:
    """Compute one stage, if all that it needs is finished.

    The stage is committed to the work under way. Readers see it when no other stage is left to
    compute: what they see always belongs together.

    Parameters
    ----------
    job
        The settings.
    name
        The stage.
    reporter
        Is told of the stage.
    force
        Whether to compute the stage again although it is finished.
    workers
        As for `run`.

    Returns
    -------
    Plan
        What is left to compute; readers see the stage if that is nothing.

    Raises
    ------
    InputError
        If there is no such stage, or one that it needs is not finished.
    RegionBusyError
        If another run holds the region.
    """
    store, frames = RegionStore(job.output.store), _frames(job)
    with store.lock():
        records = store.latest_records()
        _check_owner(job, records)
        if force:
            records = {key: record for key, record in records.items() if key != name}
        files = file_fingerprints(frames, records)
        before = _plan(job, files, records)
        _check_only(job, before, name)
        if before[name].done and not (before.done and store.unfinished()):
            return before
        with workers():
            stages = _begin(job, store, frames, files, [name] if force else [])
            _check_only(job, stages.plan, name)  # the grid may be another than the stored one
            _compute(stages, [stages.plan[name]], reporter)
            left = _plan(job, files, stages.work.records())
            if left.done:
                _publish(stages)
    return left


def _check_owner(job: Job, records: Mapping[str, Any]) -> None:
    """Refuse a store that holds another job's region."""
    owner = records.get("population", {}).get("job", job.name)
    if owner != job.name:
        raise InputError(
            f"[output] store {job.output.store} holds the region {owner!r}, not {job.name!r}: give "
            "this job a store of its own."
        )


def _begin(
    job: Job,
    store: RegionStore,
    frames: Mapping[np.datetime64, str],
    files: Mapping[str, Any],
    forget: list[str],
) -> Stages:
    """Open the frames, and take up the work where it stands, without the stages to forget."""
    settings = job.input.model_dump(include={"chunks", "align", "nodata"})
    source = cube.open_frames(frames, **settings)
    cube.in_cells(job.communities.eps, source["population"])  # refused now, not after five stages
    work = store.begin(source, keep=MODELS)
    work.forget(forget)
    # The layout may have dropped what was stored for another grid.
    plan = _plan(job, files, work.records())
    return Stages(job, source, files, store, work, plan)


def _compute(stages: Stages, todo: list[StagePlan], reporter: Reporter | None) -> None:
    """Go through some stages, committing each."""
    reporter = reporter or Reporter()
    for stage in todo:
        if not stage.done:
            with reporter.stage(stage.name, str(stage)):
                stages.compute(stage)


def _publish(stages: Stages) -> None:
    """Let readers see the results, with the record of the run."""
    record = run_record(stages.job, stages.files, stages.work.table("balance"))
    stages.work.publish(f"run-{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}", record)


def _check_only(job: Job, plan: Plan, name: str) -> None:
    """Refuse a stage that does not exist, or that needs one that is not finished."""
    if name not in plan.stages:
        raise InputError(f"{job.name} has no stage {name!r}: it has {', '.join(plan.stages)}.")
    if missing := plan.unfinished_before(name):
        stages = ", ".join(f"{stage.name} ({stage})" for stage in missing)
        raise InputError(
            f"{name} needs stages of {job.name} that are still to be computed: {stages}; compute "
            "them first, or run the whole job."
        )


def _frames(job: Job) -> dict[np.datetime64, str]:
    return cube.find_frames(job.input.frames, job.input.start, job.input.end)


def _open(job: Job, frames: Mapping[np.datetime64, str]) -> xr.Dataset:
    settings = job.input.model_dump(include={"chunks", "align", "nodata"})
    return cube.open_frames(frames, **settings)


def _plan(job: Job, files: Mapping[str, Mapping[str, Any]], records: Mapping[str, Any]) -> Plan:
    checksums = {time: file["sha256"] for time, file in files.items()}
    written = records.get("export", {}).get("written", [])
    if not all(Path(path).exists() for path in written):  # somebody took them away
        records = {**records, "export": {"written": written}}
    return plan_communities(job, checksums, records)
