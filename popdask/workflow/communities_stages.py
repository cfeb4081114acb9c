"""The stages of the communities job: what each of them reads, computes and stores.

A stage reads what the ones before it have stored, computes the frames that the plan calls stale,
and is committed when it is finished.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import xarray as xr

from popdask.blocks import sampling
from popdask.blocks.sampling import gather_windows, sample_cells
from popdask.config.jobs import CommunitiesJob
from popdask.io import grids
from popdask.io import tables as export
from popdask.plot.style import CLASSES, number_colours
from popdask.store.content import table_bytes
from popdask.store.transaction import frame_runs
from popdask.tracking import classify as clustering
from popdask.tracking import dbscan, describe, encoding, flow, link
from popdask.tracking import tracks as linking
from popdask.tracking.autoencoder import train, training_windows
from popdask.tracking.classify import ClassModel, class_flags, classify
from popdask.tracking.dbscan import remove_small_communities
from popdask.tracking.encoder import EncoderConfig, FittedEncoder
from popdask.tracking.events import EventRules
from popdask.tracking.link import compare_frames
from popdask.workflow.checks import beyond_notes
from popdask.workflow.communities_outputs import illustrate
from popdask.workflow.communities_plan import RASTERS, export_names, hold_of
from popdask.workflow.exports import Exports, cycled, exported, exporting
from popdask.workflow.frame_stages import (
    FramesRun,
    people_left_out,
    with_left_out,
    with_work,
    write_formats,
)
from popdask.workflow.frames import displacements, move, on_record, shifts, warnings
from popdask.workflow.inputs import run_record
from popdask.workflow.plan import StagePlan
from popdask.workflow.progress import Reporter
from popdask.workflow.runner import on_gpus, on_worker, owner_record


@dataclass(frozen=True)
class CommunitiesRun(FramesRun):
    """What the stages of one run share; the arrays are lazy, as they are stored."""

    job: CommunitiesJob

    @property
    def domain(self) -> xr.DataArray:
        """The cells that are trained on, classified and grouped."""
        return sampling.domain(self.population, self.job.domain.cells)

    @property
    def features(self) -> xr.DataArray:
        """Population and flow, as the encoder takes them."""
        stored = self.work.dataset()
        return encoding.stack_features(stored["population"], stored[["u", "v"]])

    def records(self) -> dict[str, Any]:
        """The records of the stages that are finished."""
        return self.work.records()

    def record(self) -> dict[str, Any]:
        """Put down what the finished run was made from and with."""
        job, moved = self.job, self.records()["population"].get("moved", {})
        seeds = {"encoder": job.encoder.seed, "classes": job.classes.seed}
        balance, exports = self.balance_rows(), exported(self.records())
        return run_record(job, self.files, seeds, balance=balance, moved=moved, exports=exports)

    def models(self, stale: Sequence[int]) -> dict[str, slice]:
        """The frames that each model serves, by the model's name, where one of them is stale."""
        if self.job.encoder.scope == "shared":
            return {"shared": slice(0, len(self.plan.times))} if stale else {}
        return {self.plan.times[i].replace(":", ""): slice(i, i + 1) for i in stale}


def write_exports(run: CommunitiesRun, exports: Exports) -> None:
    """Write what the job asks for, as far as it is not there."""
    tracks = cache(lambda: run.work.table("tracks"))  # read only where rasters are written
    classes = cache(lambda: cycled(CLASSES, _class_count(run)))

    def colours(time: np.datetime64) -> dict[str, np.ndarray]:
        return {"classes": classes(), "community": _track_colours(tracks(), time)}

    words = "Communities of {}, found in gridded population data and followed through time."
    write_formats(run, exports, RASTERS, colours, _tables, words, illustrate)


def _class_count(run: CommunitiesRun) -> int:
    names = run.models(range(len(run.plan.times)))
    models = (run.work.file(f"classifier-{name}.safetensors") for name in names)
    return max(ClassModel.from_bytes(model).k for model in models)


def _track_colours(tracks: pd.DataFrame, time: np.datetime64) -> np.ndarray:
    """The colour of each community of a frame: that of its track, as in figures."""
    now = tracks[tracks["time"] == time].drop_duplicates("community")
    numbers = np.arange(now["community"].max() + 1 if len(now) else 0)
    numbers[now["community"].to_numpy()] = now["track"].to_numpy()
    return number_colours(numbers)


def _tables(run: CommunitiesRun, exports: Exports) -> dict[str, Path]:
    """Write tables as GeoParquet, and what has a place as layers of a GeoPackage."""
    name, formats = run.job.name, run.job.output.export
    communities, events, links = map(run.work.table, ("communities", "tracks", "links"))
    assert isinstance(communities, gpd.GeoDataFrame), "it has outlines"
    described = export.with_tracks(communities, events)
    tracks, written = export.track_lines(communities, events), {}
    if "geoparquet" in formats:
        tables = {"communities": described, "tracks": tracks, "events": events, "links": links}
        for kind, table in tables.items():
            path = exports.folder / f"{name}_{kind}.parquet"
            written[kind] = export.write_geoparquet(table, path)
    if "gpkg" in formats:
        times = run.work.dataset()["time"].values
        lines = export.link_lines(links, communities, times)
        layers = {"communities": described, "tracks": tracks, "links": lines}
        written["layers"] = export.write_gpkg(layers, exports.folder / f"{name}.gpkg")
    exports.add(*written.values())
    return written


@dataclass(frozen=True)
class CommunityStages(CommunitiesRun):
    """The stages of one run, ready to be computed."""

    def compute(self, stage: StagePlan, reporter: Reporter) -> None:
        """Compute what is stale of one stage, and commit it."""
        COMPUTE[stage.name](self, with_work(stage))
        if stage.name == "population":
            for warning in warnings(self.job, displacements(self.job, self.files, self.records())):
                reporter.note(warning)
            for text in beyond_notes(self.work.records()):
                reporter.note(text)


def _ingest(run: CommunitiesRun, stage: StagePlan) -> None:
    lie = displacements(run.job, run.files, run.records())
    moves = shifts(run.job, lie)
    source, left = move(run.source[["population"]], moves)
    record = {
        **stage.record,
        "files": dict(run.files),
        "displacement": on_record(lie),
        "moved": {
            time: {"dy": dy, "dx": dx, "beyond": left[time]} for time, (dy, dx) in moves.items()
        },
        **owner_record(run.job),
    }
    if run.job.input.align:
        record["beyond"] = people_left_out(run, stage)
    run.work.write_frames(stage.name, source, stage.stale, record)


def _flow(run: CommunitiesRun, stage: StagePlan) -> None:
    settings, start = run.job.flow.model_dump(), min(stage.stale) - 1
    if start < 0 or not run.job.flow.chained:
        arrays = flow.optical_flow(run.population, **settings)
    else:  # the chain goes on from the last frame that is stored
        stored = run.work.dataset()[["u", "v"]]
        later = run.population.isel(time=slice(start, None))
        rest = flow.optical_flow(later, first=stored.isel(time=start), **settings)
        arrays = xr.concat([stored.isel(time=slice(0, start)), rest], "time")
    run.work.write_frames(stage.name, arrays, stage.stale, stage.record)


def _encoder(run: CommunitiesRun, stage: StagePlan) -> None:
    settings = run.job.encoder
    config = EncoderConfig(
        edge=settings.edge, epochs=settings.epochs, seed=settings.seed, latent=settings.latent
    )
    fits = {}
    for name, frames in run.models(stage.stale).items():
        windows = training_windows(
            run.features.isel(time=frames), config, mask=run.domain.isel(time=frames)
        )
        fits[name] = on_worker(train, windows, config, device=settings.device)
    files = {f"encoder-{name}.safetensors": fit().to_bytes() for name, fit in fits.items()}
    run.work.write_files(stage.name, files, stage.record, anew=stage.whole)


def _classifier(run: CommunitiesRun, stage: StagePlan) -> None:
    settings, files = run.job.classes, {}
    for name, frames in run.models(stage.stale).items():
        encoder = FittedEncoder.from_bytes(run.work.file(f"encoder-{name}.safetensors"))
        cells = sample_cells(run.domain.isel(time=frames), settings.sample, seed=settings.seed)
        windows = gather_windows(run.features.isel(time=frames), cells, fill=encoder.fill)
        latent = encoder.encode_windows(windows, cells)
        model = clustering.fit_classes(latent, settings.k, seed=settings.seed)
        files[f"classifier-{name}.safetensors"] = model.to_bytes()
    run.work.write_files(stage.name, files, stage.record, anew=stage.whole)


def _classes(run: CommunitiesRun, stage: StagePlan) -> None:
    parts, most, hold = [], 0, hold_of(run.job)
    begin = min(stage.stale) if hold else 0  # classes held are those of the frame before, stored
    before = run.work.dataset()["classes"][begin - 1] if begin else None
    if before is not None:
        parts.append(run.work.dataset()["classes"][:begin])
    for name, every in run.models(range(len(run.plan.times))).items():
        frames = slice(every.start + begin, every.stop)
        encoder = FittedEncoder.from_bytes(run.work.file(f"encoder-{name}.safetensors"))
        model = ClassModel.from_bytes(run.work.file(f"classifier-{name}.safetensors"))
        features, cells = run.features.isel(time=frames), run.domain.isel(time=frames)
        with on_gpus():  # classes too, so that codes do not travel
            latent = encoding.encode(features, encoder, mask=cells, device=run.job.encoder.device)
            parts.append(classify(latent, model, hold=hold, first=before))
        most = max(most, len(model.centers))
    classes = xr.concat(parts, "time").assign_attrs(class_flags(most)).to_dataset(name="classes")
    run.work.write_frames(stage.name, classes, stage.stale, stage.record)


def _communities(run: CommunitiesRun, stage: StagePlan) -> None:
    settings = run.job.communities
    eps = grids.in_cells(settings.eps, run.population)
    classes = run.work.dataset()["classes"]
    community = dbscan.dbscan(classes, eps=eps, min_samples=settings.min_samples)
    if settings.min_people:
        community = remove_small_communities(community, run.population, settings.min_people)
    run.work.write_frames(
        stage.name, community.to_dataset(name="community"), stage.stale, stage.record
    )


def _summary(run: CommunitiesRun, stage: StagePlan) -> None:
    balance = describe.people_balance(*run.frames(stage.stale, "community", "population"))
    describe.check_balance(balance)
    community, population, u, v = run.frames(stage.stale, "community", "population", "u", "v")
    nothing = np.zeros(0, dtype=np.int64)  # speeds come with the tracks
    unknown = pd.DataFrame(
        {"time": community["time"].values[:0], "community": nothing, "track": nothing}
    )
    table = describe.summarize(community, population, xr.Dataset({"u": u, "v": v}), tracks=unknown)
    fresh = {"summary": table, "balance": with_left_out(run, balance)}
    run.work.write_files(stage.name, run.merged(stage, fresh), stage.record)


def _links(run: CommunitiesRun, stage: StagePlan) -> None:
    job, arrays, parts = run.job, run.work.dataset(), []
    memory = job.tracks.memory
    options: dict[str, Any] = {"rule": job.links.rule, "share": job.links.share}
    options |= {"memory": memory, "error": job.input.error}
    for first, last in frame_runs(stage.stale):
        frames = arrays.isel(time=slice(max(first - memory - 1, 0), last + 1))
        flows: dict[str, Any] = _link_flows(job, frames["population"])
        found = compare_frames(frames["community"], frames["population"], **flows, **options)
        targets = arrays["time"].values[first : last + 1]
        parts.append([table[table["next"].isin(targets)] for table in found])
    names = ("links", "link_ends")
    fresh = {
        name: pd.concat(tables, ignore_index=True)
        for name, tables in zip(names, zip(*parts, strict=True), strict=True)
    }
    run.work.write_files(stage.name, run.merged(stage, fresh, by="next"), stage.record)


def _link_flows(job: CommunitiesJob, population: xr.DataArray) -> dict[str, xr.Dataset]:
    """Give the flows that links follow: those of a pair depend on its two frames alone."""
    scales = job.links.flow_scales
    if scales is None:
        return {}
    ways = {"flow": 1, "backward": -1} if job.links.rule == "direction" else {"flow": 1}
    return {
        name: flow.optical_flow(population, centering=(0, 0, way), scales=scales, log=True)
        for name, way in ways.items()
    }


def _tracks(run: CommunitiesRun, stage: StagePlan) -> None:
    described, links = run.work.table("summary"), run.work.table("links")
    times = [np.datetime64(time) for time in run.plan.times]
    known = _known_tracks(run) or {"first_number": 0}
    settings = run.job.tracks.model_dump()
    options = {"memory": settings.pop("memory"), "ends": run.work.table("link_ends")}
    rules = EventRules(**settings, min_people=run.job.communities.min_people)
    tracks = linking.tracks(links, described, rules=rules, times=times, **options, **known)
    given = max(
        known["first_number"], int(tracks["track"].max(skipna=True)) + 1 if len(tracks) else 0
    )
    files = {
        "tracks.parquet": table_bytes(tracks),
        "communities.parquet": table_bytes(describe.follow(described, tracks)),
    }
    run.work.write_files(stage.name, files, {**stage.record, "next_number": given})


def _known_tracks(run: CommunitiesRun) -> dict[str, Any] | None:
    """The track numbers that the last finished run of the same analysis gave: they stay."""
    # Communities of a frame that was labelled anew take the numbers of those that they share most
    # people with. A damaged table tells none.
    before, now = run.store.records(), run.work.records()
    then = before.get("communities", {})
    if "tracks" not in before or then.get("settings") != now["communities"]["settings"]:
        return None
    for name, sha256 in before["tracks"].get("sha256", {}).items():
        if run.store.file_problem(name, sha256):
            return None
    arrays, older = run.work.dataset(), run.store.dataset()
    if not (older["x"].equals(arrays["x"]) and older["y"].equals(arrays["y"])):
        return None
    old = run.store.table("tracks")[["time", "community", "track"]].drop_duplicates()
    given = int(old["track"].max(skipna=True)) + 1 if len(old) else 0
    first_number = max(given, before["tracks"].get("next_number", 0))
    both = set(then["frames"]) & set(run.plan.times)
    anew = [t for t in both if then["frames"][t] != now["communities"]["frames"][t]]
    known = old[old["time"].isin([np.datetime64(t) for t in both.difference(anew)])]
    if anew:
        times = sorted(np.datetime64(t, "ns") for t in anew)
        now_there = arrays.sel(time=times)
        pairs = link.match(
            older["community"].sel(time=times), now_there["community"], now_there["population"]
        )
        moved = pairs.merge(old.rename(columns={"community": "old"}), on=["time", "old"])
        known = pd.concat([known, moved.rename(columns={"new": "community"})[known.columns]])
    return {"known": known, "first_number": first_number}


def _export(run: CommunitiesRun, stage: StagePlan) -> None:
    names = export_names(run.job, run.plan.times)
    with exporting(run.work, stage, run.job, names, run.files) as exports:
        write_exports(run, exports)


COMPUTE: Mapping[str, Callable[[CommunitiesRun, StagePlan], None]] = {
    "population": _ingest,
    "flow": _flow,
    "encoder": _encoder,
    "classifier": _classifier,
    "classes": _classes,
    "communities": _communities,
    "summary": _summary,
    "links": _links,
    "tracks": _tracks,
    "export": _export,
}
