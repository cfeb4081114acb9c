"""The settlements job: population rasters in, named places followed through time out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from popdask._repr_html import ReprMixin
from popdask.config.jobs import SettlementsJob
from popdask.store.repository import RegionStore
from popdask.workflow.frame_exports import export_names, export_stage
from popdask.workflow.frame_stages import POPULATION, Extent, FramesPipeline, read_extent
from popdask.workflow.frames import describe_result, frame_paths
from popdask.workflow.inputs import check_labels
from popdask.workflow.plan import Plan
from popdask.workflow.progress import Reporter
from popdask.workflow.runner import Files, own_store
from popdask.workflow.settlements_stages import EXPORTED, STAGES, check_inputs, parts_of

if TYPE_CHECKING:
    import geopandas as gpd
    import pandas as pd
    import xarray as xr
    from matplotlib.figure import Figure

    from popdask.report.page import Picture


@dataclass(frozen=True, repr=False)
class SettlementsResult(ReprMixin):
    """What a run did and found."""

    plan: Plan
    """What it had to compute."""
    settlements: gpd.GeoDataFrame
    """The settlements of every frame, with name, kind, people, density and growth."""
    tracks: pd.DataFrame
    """The events of every track."""
    balance: pd.DataFrame
    """People in settlements, outside them and in the raster, for every frame."""
    store: RegionStore
    """The results."""

    def summary(self) -> dict[str, str]:
        """What was computed and found, in a few words."""
        return describe_result(
            "settlements", self.settlements, self.plan, self.tracks, self.balance, self.store
        )


def _illustrate(job: SettlementsJob, region: RegionStore, branch: str) -> Iterator[Picture]:
    """Draw the change since the first frame."""
    from popdask.plot import maps
    from popdask.report.page import Picture

    found = region.dataset(branch)
    first, last = found.isel(time=0), found.isel(time=-1)
    if found.sizes["time"] > 1:
        yield Picture(
            "Change since the first frame",
            "Where there are more people than in the first frame, and where fewer.",
            maps.change_figure(first["population"], last["population"]),
        )


EXPORT = export_stage(
    parts_of,
    needs=("population", *EXPORTED),
    words="Settlements of {}, found in gridded population data and followed through time.",
    illustrate=_illustrate,
)


class SettlementsPipeline(FramesPipeline):
    """Settlements of every frame, by the official rules, followed through time."""

    stages = (POPULATION, *STAGES, EXPORT)

    def size(self, job: SettlementsJob) -> Extent:
        """Return how much the frames are; the header of the first is read."""
        return read_extent(job)

    def exports(self, job: SettlementsJob, files: Files) -> list[str]:
        """Name the files that a job exports."""
        return export_names(job, parts_of(job), frame_paths(job))

    def check_source(self, job: SettlementsJob, population: xr.DataArray) -> None:
        """Refuse inputs that a later stage could not read."""
        check_inputs(job, population)

    def result(self, plan: Plan, store: RegionStore) -> SettlementsResult:
        """What a run gives of settlements, of which kind the job may be."""
        settlements, tracks = map(store.table, ("settlements", "settlement_tracks"))
        return SettlementsResult(plan, settlements, tracks, store.table(_balance(store)), store)

    def found(self, store: RegionStore) -> str:
        """Say in a few words what the last finished run has found."""
        table = store.table("settlements", columns=["time", "kind", "track"])
        last = table[table["time"] == table["time"].max()]["kind"].value_counts()
        kinds = (("city", "cities"), ("town", "towns"), ("village", "villages"))
        counts = [(last.get(one, 0), one, many) for one, many in kinds]
        text = ", ".join(f"{count:,} {one if count == 1 else many}" for count, one, many in counts)
        return f"{text} in the last frame, {table['track'].nunique():,} tracks"

    def check(self, store: RegionStore) -> Iterator[str]:
        """Count everyone again and compare with the stored balance; check the tracks by links."""
        arrays = store.dataset()
        tracks = store.table("settlement_tracks").rename(columns={"settlement": "community"})
        links, then = store.table("settlement_links"), store.table(_balance(store))
        yield from check_labels(arrays["settlement"], arrays["population"], then, tracks, links)

    def draw(self, job: SettlementsJob, reporter: Reporter | None = None) -> list[Path]:
        """Draw the settlements of a job's last finished run, and how people have changed."""
        from popdask.plot import maps, style

        region = own_store(job)
        found = region.dataset()
        first, last = found.isel(time=0), found.isel(time=-1)
        folder = job.export_folder / "figures"
        with (reporter or Reporter()).stage("figures", "to do"):
            drawn = {"settlements": settlements_map(region, last)}
            if found.sizes["time"] > 1:
                drawn["change"] = maps.change_figure(first["population"], last["population"])
            return [
                style.save_figure(figure, folder / f"{job.name}_{name}.png", dpi=150)
                for name, figure in drawn.items()
            ]

    illustrate = staticmethod(_illustrate)


def _balance(store: RegionStore) -> str:
    """Name the table of people in settlements: a communities job has one of its own."""
    return "settlement_balance" if "communities" in store.records() else "balance"


def settlements_map(region: RegionStore, frame: xr.Dataset) -> Figure:
    """Draw the settlements of a frame with the names of the largest."""
    from popdask.plot import maps, style

    time = frame["time"].values
    tracks = region.table("settlement_tracks").rename(columns={"settlement": "community"})
    table = region.table("settlements")
    return maps.map_figure(
        frame["settlement"],
        frame["population"],
        tracks=tracks,
        places=table[table["time"] == time],
        title=f"settlements {style.year(time)}",
    )


PIPELINE = SettlementsPipeline()
plan, run, run_only = PIPELINE.plan, PIPELINE.run, PIPELINE.run_only
