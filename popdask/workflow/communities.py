"""What a run of the communities job has to compute.

Models are kept, whatever frames are appended, as long as their settings are the same and the frames
that they were fitted on are still there, unchanged.

Runs of the communities job: population rasters in, communities tracked through time out.

What the communities job promises, counted again from what is stored: nobody gets lost.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import xarray as xr

from popdask._repr_html import ReprMixin
from popdask.config.jobs import CommunitiesJob
from popdask.io import cube as cube_module
from popdask.io import frames as cube
from popdask.io import grids, rasters
from popdask.store.repository import RegionStore
from popdask.tracking.describe import LostPeopleError, check_balance, people_balance
from popdask.tracking.tracks import EVENTS
from popdask.workflow import runner
from popdask.workflow.communities_stages import CommunityStages
from popdask.workflow.exports import without_missing
from popdask.workflow.inputs import file_fingerprints
from popdask.workflow.plan import Plan, decide, fingerprint, plain
from popdask.workflow.runlog import Reporter
from popdask.workflow.runner import Files, Workers

#: Version of each stage's code; a stage that computes something else gets the next number.
VERSIONS = {
    "population": 2,
    "flow": 1,
    "encoder": 1,
    "classifier": 1,
    "classes": 1,
    "communities": 1,
    "summary": 1,
    "links": 1,
    "tracks": 1,
    "export": 2,
}

#: The stages that each stage reads.
NEEDS: Mapping[str, tuple[str, ...]] = {
    "population": (),
    "flow": ("population",),
    "encoder": ("population", "flow"),
    "classifier": ("population", "flow", "encoder"),
    "classes": ("population", "flow", "encoder", "classifier"),
    "communities": ("population", "classes"),
    "summary": ("population", "flow", "communities"),
    "links": ("population", "communities"),
    "tracks": ("population", "communities", "summary", "links"),
    "export": ("population", "classes", "communities", "links", "tracks"),
}

#: Stages of which the results survive a new layout of the arrays.
MODELS = ("encoder", "classifier")


def plan_communities(
    job: CommunitiesJob, inputs: Mapping[str, str], records: Mapping[str, Any]
) -> Plan:
    """Decide what a run of the communities job has to compute.

    Parameters
    ----------
    job
        The settings.
    inputs
        Checksum of each frame's file, by ISO time, in order.
    records
        The records of the finished stages, by name (empty for a first run).

    Returns
    -------
    Plan
    """
    wanted = _fingerprints(job, inputs, records)
    tables = ("summary", "links", "tracks")
    return decide(
        list(inputs), wanted, records, needs=NEEDS, tables=tables, units={"links": "pairs"}
    )


def _fingerprints(
    job: CommunitiesJob, inputs: Mapping[str, str], records: Mapping[str, Any]
) -> dict[str, dict[str, Any]]:
    """The record that each stage will have when it is finished."""
    times = list(inputs)
    pairs = dict(itertools.pairwise(times)) or {times[0]: times[0]}  # one frame: an empty table

    def of(stage: str, *parts: Any) -> str:
        return fingerprint(stage, VERSIONS[stage], *parts)

    # Aligned frames depend on the first one, which gives the grid.
    grid = inputs[times[0]] if job.input.align else None
    reading = {"nodata": job.input.nodata, "grid": grid}
    population = {t: of("population", inputs[t], reading) for t in times}
    flow = _flow_fingerprints(job, population)
    # The device is left out: a model may be trained on a GPU and used without one.
    training = [job.domain, job.flow, job.encoder.model_copy(update={"device": "auto"})]
    encoder = _model_record(
        "encoder", of("encoder", *plain(training)), population, flow, job, records
    )
    classifier = _model_record(
        "classifier",
        of("classifier", plain([job.classes]), encoder["model"]),
        population,
        flow,
        job,
        records,
    )
    classes = {t: of("classes", classifier["model"], population[t], flow[t]) for t in times}
    grouping = of("communities", plain([job.communities]), classifier["model"])
    communities = {t: fingerprint(grouping, classes[t], population[t]) for t in times}
    summary = {t: of("summary", communities[t], flow[t]) for t in times}
    links = {
        t: of("links", plain([job.links]), communities[t], communities[pairs[t]]) for t in pairs
    }
    tracks = of("tracks", summary, links)
    formats = job.output.export
    told = [job.name, "cog" in formats]
    rasters = {t: of("export", told, population[t], communities[t]) for t in times}
    last = of("export", rasters, sorted(formats), tracks)  # and what tells of all frames
    export = {"frames": {**rasters, times[-1]: last}, "rasters": rasters}
    return {
        "population": {"frames": population},
        "flow": {"frames": flow},
        "encoder": encoder,
        "classifier": classifier,
        "classes": {"frames": classes},
        "communities": {"frames": communities, "settings": grouping},
        "summary": {"frames": summary},
        "links": {"frames": links},
        "tracks": {"frames": {times[-1]: tracks}},
        **({"export": export} if formats else {}),
    }


def _flow_fingerprints(job: CommunitiesJob, population: Mapping[str, str]) -> dict[str, str]:
    """A frame's flow depends on its neighbours in time, and with a warm start on all before."""
    times = list(population)
    centering = job.flow.centering[2]
    before, after = (0 if centering == 1 else 1), (0 if centering == -1 else 1)
    prints: dict[str, str] = {}
    for i, time in enumerate(times):
        near = [population[t] for t in times[max(i - before, 0) : i + after + 1]]
        earlier = prints[times[i - 1]] if job.flow.warm_start and i else None
        prints[time] = fingerprint(
            "flow", VERSIONS["flow"], plain([job.flow]), near, i == 0, earlier
        )
    return prints


def _model_record(
    stage: str,
    settings: str,
    population: Mapping[str, str],
    flow: Mapping[str, str],
    job: CommunitiesJob,
    records: Mapping[str, Any],
) -> dict[str, Any]:
    """The record of a stage that fits models: one for all frames, or one for each."""
    if job.encoder.scope == "frame":
        frames = {t: fingerprint(settings, population[t], flow[t]) for t in population}
        return {"model": settings, "frames": frames}
    stored = records.get(stage, {})
    fitted = stored.get("frames", {})
    if (
        fitted
        and stored.get("settings") == settings
        and all(population.get(time) == print_ for time, print_ in fitted.items())
    ):
        return dict(stored)
    frames = dict(population)
    return {"model": fingerprint(settings, frames), "settings": settings, "frames": frames}


@dataclass(frozen=True, repr=False)
class CommunitiesResult(ReprMixin):
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

    def summary(self) -> dict[str, str]:
        """What was computed and found, in a few words."""
        computed = [stage.name for stage in self.plan if not stage.done]
        people, events = self.balance["raster"], self.tracks["event"].value_counts()
        return {
            "computed": ", ".join(computed) or "nothing, all was done",
            "people": f"{people.iloc[0]:,.0f} at first, {people.iloc[-1]:,.0f} at last",
            "communities": f"{len(self.communities):,} in {len(self.balance)} frames",
            "tracks": f"{self.tracks['track'].nunique():,}: "
            + ", ".join(f"{events[event]:,} {event}" for event in EVENTS if event in events),
            "results": str(self.store.path),
        }


class CommunitiesPipeline:
    """What the stages of the communities job depend on, and how they are computed."""

    def files(self, job: CommunitiesJob, records: Mapping[str, Any]) -> Files:
        """Tell the versions of the frames' files, by ISO time."""
        known = records.get("population", {}).get("files", {})
        return file_fingerprints(_frames(job), known)

    def plan(self, job: CommunitiesJob, files: Files, records: Mapping[str, Any]) -> Plan:
        """Decide what is to be computed."""
        checksums = {time: rasters.frame_version(file) for time, file in files.items()}
        return plan_communities(job, checksums, without_missing(records, job, "export"))

    def begin(
        self, job: CommunitiesJob, store: RegionStore, files: Files, forget: Sequence[str]
    ) -> CommunityStages:
        """Open the frames, and take up the work where it stands, without the stages to forget."""
        source = _open(job)
        grids.in_cells(job.communities.eps, source["population"])  # refused now, not after 5 stages
        work = store.begin(source, keep=MODELS)
        work.forget(forget)
        # The layout may have dropped what was stored for another grid.
        return CommunityStages(
            job, source, files, store, work, self.plan(job, files, work.records())
        )


PIPELINE = CommunitiesPipeline()


def plan(job: CommunitiesJob) -> Plan:
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
    return runner.plan(PIPELINE, job)


def extent(job: CommunitiesJob) -> str:
    """Say how much a job is, from the headers of its frames: cells, chunks and bytes.

    Raises
    ------
    InputError
        If the frames are not there, or do not fit each other.
    """
    population = _open(job)["population"]
    frames, rows, columns = population.shape
    chunks = population.data.numblocks[1] * population.data.numblocks[2]
    return (
        f"{frames} × {rows} × {columns} = {population.size:,} cells, in {chunks:,} "
        f"chunk{'s' if chunks != 1 else ''} per frame of up to "
        f"{' × '.join(str(max(sizes)) for sizes in population.data.chunks[1:])}; "
        f"{population.nbytes / 1e9:.2f} GB of people"
    )


def run(
    job: CommunitiesJob,
    reporter: Reporter | None = None,
    *,
    force: bool = False,
    workers: Workers = nullcontext,
) -> CommunitiesResult:
    """Run the job, or as much of it as is not done yet.

    Parameters
    ----------
    job
        The settings.
    reporter, force, workers
        As for :func:`popdask.workflow.runner.run`.

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
    whole = runner.run(PIPELINE, job, reporter, force=force, workers=workers)
    store = RegionStore(job.output.store)
    communities, tracks, balance = map(store.table, ("communities", "tracks", "balance"))
    return CommunitiesResult(whole, communities, tracks, balance, store)


def run_only(
    job: CommunitiesJob,
    name: str,
    reporter: Reporter | None = None,
    *,
    force: bool = False,
    workers: Workers = nullcontext,
) -> Plan:
    """Compute one stage; see :func:`popdask.workflow.runner.run_only`."""
    return runner.run_only(PIPELINE, job, name, reporter=reporter, force=force, workers=workers)


def found(store: RegionStore) -> str:
    """Say in a few words what the last finished run has found."""
    tracks = store.table("tracks")["track"].nunique()
    return f"{len(store.table('communities')):,} communities in {tracks:,} tracks"


def _frames(job: CommunitiesJob) -> dict[np.datetime64, str]:
    return cube.find_frames(job.input.frames, job.input.start, job.input.end)


def _open(job: CommunitiesJob) -> xr.Dataset:
    settings = job.input.model_dump(include={"chunks", "align", "nodata"})
    return cube_module.open_frames(_frames(job), **settings)


TOLERANCE = 1e-9  # of the people of a raster, as promised


def check(store: RegionStore) -> Iterator[str]:
    """Count everyone again, inside communities and outside; compare with the stored balance.

    Yields
    ------
    str
        One sentence for each thing that is not as promised.
    """
    arrays = store.dataset()
    now = people_balance(arrays["community"], arrays["population"])
    then = store.table("balance")
    try:
        check_balance(now)
    except LostPeopleError as error:
        yield str(error)
    for name in ("inside", "outside", "raster"):
        same = np.isclose(now[name], then[name], rtol=TOLERANCE, atol=0)
        for row in np.flatnonzero(~same):
            yield (
                f"people {name} of {now['time'][row]:%Y-%m-%d} are {now[name][row]:,.1f}, "
                f"{then[name][row]:,.1f} were recorded."
            )
