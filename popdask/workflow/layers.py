"""Layers of a job: what is numbered in every frame, followed through time, told and exported.

A layer is a job's communities, its settlements or their urban centres. What finds them is their
own; here is what they share: who moved into and out of them, who goes on along a track, which
tracks keep their numbers, and what is exported.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from popdask.errors import InputError
from popdask.io.frames import time_text
from popdask.store.content import table_bytes
from popdask.store.repository import RegionStore
from popdask.store.transaction import frame_runs
from popdask.workflow.export_formats import (
    FORMATS,
    Content,
    Contents,
    Illustrate,
    rasters_of,
    write_exports,
)
from popdask.workflow.frames import (
    LABEL,
    MOTION,
    PEOPLE,
    FramesJob,
    FramesRun,
    learned_intervals,
    stored_motion,
)
from popdask.workflow.plan import (
    Basis,
    CellCost,
    Fingerprint,
    Plan,
    Record,
    Stage,
    StagePlan,
)
from popdask.workflow.progress import Reporter

if TYPE_CHECKING:
    import geopandas as gpd
    import xarray as xr

MOVEMENT = ("moved_in", "moved_out", "grown_here")  # columns of tables, where they are asked for
SURE = ("population_low", "population_high")  # and where intervals are given
AT_ONCE = 6  # frames of which movement is held at once
TOLERANCE = 1e-9  # of the people of a raster, as promised


@dataclass(frozen=True)
class Layer:
    """What is numbered in every frame, and followed through time."""

    array: str  # the array of labels, and the column of their numbers
    table: str  # the table of what is found, and the stage that finds it
    begin: str  # of the names of its other stages and tables
    least: Callable[[Any], float]  # people of one, by the job
    asked: Callable[[FramesJob], bool] = lambda job: True  # whether a job has it

    def stage(self, kind: str) -> str:
        """Name a stage or table of it."""
        return f"{self.begin}{kind}"

    @property
    def ends(self) -> str:
        """Name the table of where its links end."""
        return f"{self.begin or 'link_'}ends"

    def as_communities(self, table: Any) -> Any:
        """Return a table as those that links and tracks are made from have it."""
        return table.rename(columns={self.array: "community"})

    def own(self, table: Any) -> Any:
        """Give such a table as this layer's."""
        return table.rename(columns={"community": self.array})


def movement_stage(layer: Layer) -> Stage:
    """The stage that counts how many moved into and out of what a layer has, if asked to."""

    def wanted(basis: Basis, of: Fingerprint) -> Record | None:
        if not (basis.job.tracks.movement and layer.asked(basis.job)):
            return None
        drawn, motion, times = basis.frames(layer.table), basis.frames("motion"), basis.times
        # The first frame has nobody who moved, unless it is the only one: an empty table.
        pairs = zip((times[0], *times), times, strict=False)
        frames = {now: of(motion[before], drawn[now]) for before, now in pairs}
        return {"frames": {time: frames[time] for time in times[1:] or times}}

    def compute(run: FramesRun, stage: StagePlan, reporter: Reporter) -> None:
        from popdask.tracking.growth import growth, growth_by_label

        arrays, parts = run.work.dataset(), []
        for first, last in batches(stage.stale, AT_ONCE):
            frames = arrays.isel(time=slice(max(first - 1, 0), last + 1))
            people, there = frames["population"], frames[layer.array][1:]
            moves = growth(people, stored_motion(frames, run.job), labels=there)
            parts.append(growth_by_label(moves, there))
        table = pd.concat(parts).rename(columns={"grown": "grown_here"})
        table = table.assign(time=table["next"])[["time", "label", *MOVEMENT, "change"]]
        table = table.astype({"time": arrays["time"].dtype, "label": np.int64})
        run.work.write_files(stage.name, run.merged(stage, {stage.name: table}), stage.record)

    return Stage(
        layer.stage("movement"),
        needs=("population", "motion", layer.table),
        wanted=wanted,
        cost=CellCost(read=2 * PEOPLE + MOTION + LABEL, held=160, tasks=(17.4, 13.4)),
        compute=compute,
        unit="pairs",
        table=True,
    )


def batches(frames: Sequence[int], most: int) -> Iterator[tuple[int, int]]:
    """Runs of frames, as (first, last), of a few each: what is compared at once is held at once."""
    for first, last in frame_runs(frames):
        for start in range(first, last + 1, most):
            yield start, min(start + most - 1, last)


def link_record(
    basis: Basis, of: Fingerprint, labels: Mapping[str, str], rules: Mapping[str, Any]
) -> Record:
    """What links are made from: a frame's depend on those before it, as far as memory reaches."""
    times, memory = list(labels), basis.job.tracks.memory
    error = basis.inputs.others.get("error", basis.job.input.error)
    settings = [[dict(rules)], memory, error]
    near = {
        t: [labels[u] for u in times[max(i - memory - 1, 0) : i + 1]] for i, t in enumerate(times)
    }
    # The first frame has no links, unless it is the only one: an empty table.
    return {"frames": {t: of(settings, near[t]) for t in times[1:] or times}}


def no_tracks(labels: xr.DataArray) -> pd.DataFrame:
    """Tracks for a summary that need not say where labels come from: their tracks say it later."""
    nothing = np.zeros(0, dtype=np.int64)
    return pd.DataFrame({"time": labels["time"].values[:0], "community": nothing, "track": nothing})


def tracks_read(layer: Layer, basis: Basis) -> list[Mapping[str, str]]:
    """What the tracks and the table of a layer are made from, whatever else they are."""
    kinds = ("summary", "links", *(["movement"] if basis.job.tracks.movement else []))
    read = [basis.frames(layer.stage(kind)) for kind in kinds]
    learned = basis.inputs.others.get("intervals")
    return read if learned is None else [*read, {"intervals": learned}]


#: Makes the table of a layer from its summary and its tracks.
Describe = Callable[[Layer, Any, "gpd.GeoDataFrame", pd.DataFrame], "gpd.GeoDataFrame"]


def follow(
    layer: Layer, describe: Describe, run: FramesRun, stage: StagePlan, reporter: Reporter
) -> None:
    """Follow a layer through time, and describe what is found in it."""
    from popdask.tracking import tracks as linking
    from popdask.tracking.tracks import EventRules

    names = (layer.stage("summary"), layer.stage("links"), layer.ends)
    summary, links, ends = map(run.work.table, names)
    summary = layer.as_communities(summary)
    known = known_tracks(run, layer)
    tracks = linking.tracks(
        links,
        summary,
        rules=EventRules(**run.job.tracks.rules, min_people=layer.least(run.job)),
        ends=layer.as_communities(ends),
        memory=run.job.tracks.memory,
        times=[np.datetime64(time) for time in run.plan.times],
        **known,
    )
    files = {
        f"{layer.stage('tracks')}.parquet": table_bytes(layer.own(tracks)),
        f"{layer.table}.parquet": table_bytes(layer.own(describe(layer, run, summary, tracks))),
    }
    next_number = max(known["first_number"], _highest(tracks))  # none is given twice
    run.work.write_files(stage.name, files, {**stage.record, "next_number": next_number})


def with_rates(
    layer: Layer, run: FramesRun, table: gpd.GeoDataFrame, tracks: pd.DataFrame
) -> gpd.GeoDataFrame:
    """A table of a layer with density and growth; with movement and intervals where asked for."""
    from popdask.tracking import describe

    arrays = run.work.dataset()
    table = describe.with_rates(table, tracks, arrays["time"].values)
    if run.job.tracks.movement:
        found = run.work.table(layer.stage("movement")).set_index(["time", "label"])
        rows = pd.MultiIndex.from_frame(pd.DataFrame(table[["time", "community"]]))
        table = table.assign(**found.reindex(rows)[list(MOVEMENT)].set_axis(table.index))
    if run.job.input.intervals is not None:
        learned = learned_intervals(run.job, arrays["population"])
        from popdask.imagery.evaluation import intervals_by_size

        ends = intervals_by_size(table["population"], table["cells"], learned)
        table = table.assign(**dict(zip(SURE, ends, strict=True)))
    return table


def describe_result(
    kind: str,
    rows: pd.DataFrame,
    plan: Plan,
    tracks: pd.DataFrame,
    balance: pd.DataFrame,
    store: RegionStore,
) -> dict[str, str]:
    """What a run computed and found, in a few words; the rows are of what `kind` names."""
    from popdask.tracking.tracks import EVENTS

    people, events = balance["raster"], tracks["event"].value_counts()
    return {
        "computed": plan.work,
        "people": f"{people.iloc[0]:,.0f} at first, {people.iloc[-1]:,.0f} at last",
        kind: f"{len(rows):,} in {len(balance)} frames",
        "tracks": f"{tracks['track'].nunique():,}: "
        + ", ".join(f"{events[event]:,} {event}" for event in EVENTS if event in events),
        "results": str(store.path),
    }


def check(layer: Layer, store: RegionStore, balance: str) -> Iterator[str]:
    """Count everyone again and compare with the stored balance; check the tracks by the links."""
    from popdask.tracking.describe import LostPeopleError, check_balance, people_balance
    from popdask.tracking.tracks import verify_tracks

    arrays = store.dataset()
    labels, names = arrays[layer.array], (balance, layer.stage("tracks"), layer.stage("links"))
    then, tracks, links = map(store.table, names)
    now = people_balance(labels, arrays["population"])
    try:
        check_balance(now)
    except LostPeopleError as error:
        yield str(error)
    for name in ("inside", "outside", "raster"):
        same = np.isclose(now[name], then[name], rtol=TOLERANCE, atol=0)
        for row in np.flatnonzero(~same):
            yield (
                f"people {name} of {time_text(now['time'][row])} are {now[name][row]:,.1f}, "
                f"{then[name][row]:,.1f} were recorded."
            )
    try:
        verify_tracks(layer.as_communities(tracks), links, times=labels["time"].values)
    except InputError as error:
        yield f"{error}."


def known_tracks(run: FramesRun, layer: Layer) -> dict[str, Any]:
    """The track numbers that the last finished run of the same analysis gave: they stay."""
    from popdask.tracking import link

    array, labels, tracks = layer.array, layer.table, layer.stage("tracks")
    before, now = run.store.records(), run.work.records()
    then = before.get(labels, {})
    same = any(then.get(key, "") == now[labels].get(key) for key in ("settings", "analysis"))
    if tracks not in before or not same:
        return {"first_number": 0}
    # A damaged table, or one of arrays that are damaged, gives none.
    for name, sha256 in before[tracks].get("sha256", {}).items():
        if run.store.file_problem(name, sha256):
            return {"first_number": 0}
    if not run.store.has_coordinates():
        return {"first_number": 0}
    arrays, older = run.work.dataset(), run.store.dataset()
    if not (older["x"].equals(arrays["x"]) and older["y"].equals(arrays["y"])):
        return {"first_number": 0}
    old = run.store.table(tracks).rename(columns={array: "community"})
    old = old[["time", "community", "track"]].drop_duplicates()
    first_number = max(_highest(old), before[tracks].get("next_number", 0))
    both = set(then["frames"]) & set(run.plan.times)
    # Where a frame is labelled anew, who shares cells with whom says which tracks are the same.
    anew = [time for time in both if then["frames"][time] != now[labels]["frames"][time]]
    known = old[old["time"].isin([np.datetime64(time) for time in both.difference(anew)])]
    if anew:
        times = sorted(np.datetime64(time, "ns") for time in anew)
        there = arrays.sel(time=times)
        pairs = link.match(older[array].sel(time=times), there[array], there["population"])
        moved = pairs.rename(columns={"source": "old", "target": "community"}).merge(
            old.rename(columns={"community": "old"}), on=["time", "old"]
        )
        known = pd.concat([known, moved.drop(columns="old")], ignore_index=True)
    return {"known": known, "first_number": first_number}


def _highest(tracks: pd.DataFrame) -> int:
    return int(tracks["track"].max(skipna=True)) + 1 if len(tracks) else 0


@dataclass(frozen=True)
class Part:
    """What of a job can be exported: its communities, or its settlements."""

    layer: Layer
    """What they are, of which tables are written."""
    stages: tuple[str, ...]
    """The stages that compute its rasters."""
    rasters: tuple[str, ...]
    """Arrays that are exported as rasters, beside the population."""
    cell_bytes: int
    """Bytes of a cell of those."""
    colours: Callable[[Any], Mapping[str, np.ndarray]] = lambda run: {}
    """The colours of those that are alike in all frames of a run, by name."""
    run: Any = None
    """The run that has them; its tables are read when they are asked for."""

    @property
    def names(self) -> tuple[str, ...]:
        """Names of its tables."""
        return (self.layer.table, *map(self.layer.stage, ("tracks", "events", "links")))

    @cached_property
    def tables(self) -> dict[str, Any]:
        """Its tables, by name."""
        from popdask.io.tables import track_lines

        table, events = self._described, self._events
        lines = track_lines(self._centres, self.layer.as_communities(events))
        if "name" in table:
            names = table.drop_duplicates("track").set_index("track")["name"]
            lines.insert(1, "name", names.reindex(lines["track"]).to_numpy())
        links = self.run.work.table(self.layer.stage("links"))
        return dict(zip(self.names, (table, lines, events, links), strict=True))

    @property
    def layers(self) -> dict[str, gpd.GeoDataFrame]:
        """What of them has a place, by name."""
        from popdask.io.tables import link_lines

        table, tracks, _, links = self.names
        times, found = self.run.work.dataset()["time"].values, self.tables
        lines = link_lines(found[links], self._centres, times)
        return {table: found[table], tracks: found[tracks], links: lines}

    def colour(self, raster: str, time: np.datetime64) -> np.ndarray | None:
        """Choose the colours of one of its rasters: labels have those of their tracks."""
        from popdask.plot.style import number_colours

        if raster != self.layer.array:
            return self._alike.get(raster)
        rows = self._described["time"] == time  # in the order of the labels
        return number_colours(self._described["track"][rows].to_numpy())

    @cached_property
    def _alike(self) -> Mapping[str, np.ndarray]:
        return self.colours(self.run)

    @cached_property
    def _described(self) -> gpd.GeoDataFrame:
        from popdask.io.tables import with_tracks

        table: gpd.GeoDataFrame = self.run.work.table(self.layer.table)
        return table if "track" in table else with_tracks(table, self._events)

    @cached_property
    def _events(self) -> pd.DataFrame:
        return self.run.work.table(self.layer.stage("tracks"))

    @cached_property
    def _centres(self) -> gpd.GeoDataFrame:
        return self.layer.as_communities(self.run.work.table(self.layer.stage("summary")))


#: Gives the parts of a job.
Parts = Callable[[Any], Sequence[Part]]


def frames_content(
    parts: Parts, words: str, illustrate: Illustrate, job: FramesJob, run: Any = None
) -> Content:
    """What a job of such parts exports, beside the population."""
    credit = ""
    if job.has_settlements and job.settlements.by_geonames:
        from popdask.tracking import names

        credit = names.GEONAMES_CREDIT
    mine = [replace(part, run=run) for part in parts(job)]
    part_of = {raster: part for part in mine for raster in part.rasters}
    return Content(
        job,
        run,
        run.work.dataset() if run else None,
        rasters=["population", *part_of],
        tables=[name for part in mine for name in part.names],
        read=lambda: chain.from_iterable(part.tables.items() for part in mine),
        illustrate=illustrate,
        words=words,
        credit=credit,
        colours=lambda raster, time: (
            part_of[raster].colour(raster, time) if raster in part_of else None
        ),
        layers=lambda: dict(chain.from_iterable(part.layers.items() for part in mine)),
    )


def export_stage(content: Contents, parts: Parts, needs: tuple[str, ...]) -> Stage:
    """The last stage of a job."""

    def wanted(basis: Basis, of: Fingerprint) -> Record | None:
        job, formats = basis.job, basis.job.output.export
        if not formats:
            return None
        drawn = ["population", *(stage for part in parts(job) for stage in part.stages)]
        settings = [job.name, "cog" in formats]
        frames = {
            t: of(settings, *(basis.frames(stage)[t] for stage in drawn)) for t in basis.times
        }
        rows: list[Any] = [basis.frames(part.layer.stage("tracks")) for part in parts(job)]
        rows += [job.naming] if "zarr" in formats else []  # which says it of itself
        last = of(frames, sorted(formats), rows)  # and what is about all frames
        return {"frames": {**frames, basis.times[-1]: last}, "rasters": frames}

    def bytes_of(job: Any) -> int:
        return PEOPLE + sum(part.cell_bytes for part in parts(job))

    def levels(job: Any) -> int:  # each a quarter of the one before: together a third of the first
        return bytes_of(job) // 3 if "zarr" in job.output.export else 0

    cost = CellCost(
        read=lambda job: rasters_of(job) * bytes_of(job),
        written=lambda job: rasters_of(job) * bytes_of(job) + levels(job),
        held=24,
        tasks=lambda work: rasters_of(work.job) * len(content(work.job).rasters),
        more=lambda work: work.cells * rasters_of(work.job),
    )
    return Stage(
        "export",
        version=3,
        needs=needs,
        wanted=wanted,
        cost=cost,
        compute=partial(write_exports, content, FORMATS),
        writes_files=True,
    )
