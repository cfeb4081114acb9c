"""Runs of the communities job: population rasters in, communities tracked through time out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import geopandas as gpd
import pandas as pd

from popdask._repr_html import ReprMixin
from popdask.config.jobs import CommunitiesJob
from popdask.io import extents, grids, rasters
from popdask.store.repository import RegionStore
from popdask.workflow import frames, runner
from popdask.workflow.communities_plan import MODELS, costs, export_names, plan_communities
from popdask.workflow.exports import without_missing
from popdask.workflow.frames import (
    MOST_CELLS,
    FramesJob,
    describe_result,
    displacements,
    frame_paths,
    open_source,
)
from popdask.workflow.inputs import file_fingerprints
from popdask.workflow.plan import Costs, Plan
from popdask.workflow.progress import Reporter
from popdask.workflow.runner import Files, Workers

if TYPE_CHECKING:
    from popdask.workflow.communities_stages import CommunityStages


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
    """People in communities, outside them and in the raster, for every frame; those whom a move of
    the frame took beyond the grid, and the share of cells without data."""
    store: RegionStore
    """The results."""

    def summary(self) -> dict[str, str]:
        """What was computed and found, in a few words."""
        return describe_result(
            "communities", self.communities, self.plan, self.tracks, self.balance, self.store
        )


class CommunitiesPipeline:
    """What the stages of the communities job depend on, and how they are computed."""

    def files(self, job: CommunitiesJob, records: Mapping[str, Any]) -> Files:
        """Tell the versions of the frames' files, by ISO time."""
        known = records.get("population", {}).get("files", {})
        return file_fingerprints(frame_paths(job), known)

    def plan(self, job: CommunitiesJob, files: Files, records: Mapping[str, Any]) -> Plan:
        """Decide what is to be computed."""
        checksums = {time: rasters.frame_version(file) for time, file in files.items()}
        moves = {}
        if job.input.register is not None:
            moves = frames.shifts(job, displacements(job, files, records))
        return plan_communities(job, checksums, without_missing(records, job, "export"), moves)

    def costs(self, job: CommunitiesJob, plan: Plan) -> Costs:
        """Count what that costs."""
        return costs(job, plan)

    def exports(self, job: CommunitiesJob, files: Files) -> list[str]:
        """Name the files that a job exports."""
        return export_names(job, files)

    def begin(
        self, job: CommunitiesJob, store: RegionStore, files: Files, forget: Sequence[str]
    ) -> CommunityStages:
        """Open the frames, and take up the work where it stands, without the stages to forget."""
        from popdask.workflow.communities_stages import CommunityStages  # which loads torch

        source = open_source(job)
        grids.in_cells(job.communities.eps, source["population"])  # refused now, not after 5 stages
        work = store.begin(source, keep=MODELS)
        work.forget(forget)
        # The layout may have dropped what was stored for another grid.
        return CommunityStages(
            job, source, files, store, work, self.plan(job, files, work.records())
        )


PIPELINE = CommunitiesPipeline()


def plan(job: CommunitiesJob) -> Plan:
    """Say what a run would compute, and which frames lie apart."""
    files, records = runner.read_inputs(PIPELINE, job)
    lie = displacements(job, files, records, most_cells=MOST_CELLS)
    return replace(PIPELINE.plan(job, files, records), warnings=tuple(frames.warnings(job, lie)))


def extent(job: FramesJob) -> str:
    """Say how much a job is, from the headers of its frames: cells, chunks and bytes."""
    # Frames that are to be aligned are read, and who is beyond the grid is told.
    population = open_source(job)["population"]
    frames, rows, columns = population.shape
    chunks = population.data.numblocks[1] * population.data.numblocks[2]
    beyond = extents.people_beyond(frame_paths(job), align=job.input.align, nodata=job.input.nodata)
    said = "".join(f"\n{text}" for text in extents.beyond_texts(beyond))
    return (
        f"{frames} × {rows} × {columns} = {population.size:,} cells, in {chunks:,} "
        f"chunk{'s' if chunks != 1 else ''} per frame of up to "
        f"{' × '.join(str(max(sizes)) for sizes in population.data.chunks[1:])}; "
        f"{population.nbytes / 1e9:.2f} GB of people{said}"
    )


def run(
    job: CommunitiesJob,
    reporter: Reporter | None = None,
    *,
    force: bool = False,
    workers: Workers = nullcontext,
) -> CommunitiesResult:
    """Run the job, or as much of it as is not done yet."""
    whole = runner.run(PIPELINE, job, reporter, force=force, workers=workers)
    store = RegionStore(job.output.store)
    if reporter is not None and whole["population"].done:  # else they were told when it was read
        records = store.records()
        lie = displacements(job, PIPELINE.files(job, records), records, most_cells=0)
        for warning in frames.warnings(job, lie):
            reporter.note(warning)
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
