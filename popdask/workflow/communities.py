"""The communities job: population rasters in, communities tracked through time out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from popdask._repr_html import ReprMixin
from popdask.config.jobs import CommunitiesJob
from popdask.store.repository import RegionStore
from popdask.workflow import frames, settlements
from popdask.workflow.communities_stages import STAGES, CommunitiesRun, illustrate, parts_of
from popdask.workflow.frame_exports import export_names
from popdask.workflow.frame_stages import (
    Extent,
    FramesPipeline,
    error_of,
    learned_intervals,
    read_extent,
)
from popdask.workflow.frames import describe_result, displacements, frame_paths
from popdask.workflow.inputs import check
from popdask.workflow.plan import Costs, Plan
from popdask.workflow.progress import Reporter
from popdask.workflow.runner import Files, Workers, count
from popdask.workflow.settlements import SettlementsResult

if TYPE_CHECKING:
    import geopandas as gpd
    import pandas as pd
    import xarray as xr


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
    settled: SettlementsResult | None = None
    """The settlements that were found beside the communities; None where none were asked for."""

    def summary(self) -> dict[str, str]:
        """What was computed and found, in a few words."""
        summary_of = describe_result(
            "communities", self.communities, self.plan, self.tracks, self.balance, self.store
        )
        if self.settled is None:
            return summary_of
        results = summary_of.pop("results")
        found = settlements.PIPELINE.found(self.store)
        return {**summary_of, "settlements": found, "results": results}


class CommunitiesPipeline(FramesPipeline):
    """Communities of every frame, as the first work has them, followed through time."""

    stages, running = STAGES, CommunitiesRun
    illustrate = staticmethod(illustrate)

    def size(self, job: CommunitiesJob) -> Extent:
        """Return how much the frames are, from the first one's header and a sample of another."""
        return read_extent(job, job.domain.cells, job.encoder.window)

    def costs(self, job: CommunitiesJob, plan: Plan) -> Costs:
        """Count what that costs; where there is nothing to compute, no cell is read."""
        size = read_extent(job) if plan.computed else self.size(job)
        return count(self.stages, job, plan, size)

    def exports(self, job: CommunitiesJob, files: Files) -> list[str]:
        """Name the files that a job exports."""
        return export_names(job, parts_of(job), frame_paths(job))

    def check_source(self, job: CommunitiesJob, population: xr.DataArray) -> None:
        """Refuse inputs that a later stage could not read."""
        from popdask.io import grids

        grids.in_cells(job.communities.eps, population)
        error_of(job, population)
        learned_intervals(job)
        if job.has_settlements:
            settlements.check_inputs(job, population)

    def run(
        self,
        job: CommunitiesJob,
        reporter: Reporter | None = None,
        *,
        force: bool = False,
        workers: Workers = nullcontext,
    ) -> CommunitiesResult:
        """Run the job, or as much of it as is not done yet."""
        result = super().run(job, reporter, force=force, workers=workers)
        assert isinstance(result, CommunitiesResult)
        if reporter is not None and result.plan["population"].done:  # else the stage has said so
            records = result.store.records()
            files = self.files(job, records)
            lie = displacements(job, files, records, most_cells=0)
            for warning in frames.warnings(job, lie):
                reporter.note(warning)
        return result

    def result(self, plan: Plan, store: RegionStore) -> CommunitiesResult:
        """What a run gives."""
        tables = map(store.table, ("communities", "tracks", "balance"))
        communities, tracks, balance = tables
        settled = settlements.PIPELINE.result(plan, store) if _has_settlements(store) else None
        return CommunitiesResult(plan, communities, tracks, balance, store, settled)

    def found(self, store: RegionStore) -> str:
        """Say in a few words what the last finished run has found."""
        tracks = store.table("tracks", columns=["track"])["track"].nunique()
        communities = len(store.table("communities", columns=["time"]))
        text = f"{communities:,} communities in {tracks:,} tracks"
        return f"{text}; {settlements.PIPELINE.found(store)}" if _has_settlements(store) else text

    def check(self, store: RegionStore) -> Iterator[str]:
        """Count everyone again, in communities and settlements; check tracks by links."""
        yield from check(store)
        if _has_settlements(store):
            yield from settlements.PIPELINE.check(store)

    def draw(self, job: CommunitiesJob, reporter: Reporter | None = None) -> list[Path]:
        """Draw all pictures of a job's last finished run."""
        from popdask.workflow.communities_outputs import draw

        return draw(job, reporter)


def _has_settlements(store: RegionStore) -> bool:
    return "settlements" in store.records()


PIPELINE = CommunitiesPipeline()
plan, run, run_only = PIPELINE.plan, PIPELINE.run, PIPELINE.run_only
