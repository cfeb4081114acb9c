"""The stages of the communities job: what each of them reads, computes and stores.

A stage reads what the ones before it have stored, computes the frames that the plan calls stale,
and is committed when it is finished.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from popdask import cube
from popdask.pipelines.communities.exporting import write_exports
from popdask.pipelines.communities.state import CommunitiesRun
from popdask.pipelines.conductor import owner_record
from popdask.pipelines.exports import exporting
from popdask.pipelines.plan import StagePlan
from popdask.pipelines.workers import on_gpus, on_worker
from popdask.progress import Reporter
from popdask.store import frame_runs, table_bytes
from popdask.tracking import clustering, dbscan, encoding, flow, linking, summary
from popdask.tracking.autoencoder import EncoderConfig, FittedEncoder, train, training_windows
from popdask.tracking.classes import ClassModel, classify
from popdask.tracking.sampling import gather_windows, sample_cells
from popdask.tracking.threshold import dissolve_small


@dataclass(frozen=True)
class CommunityStages(CommunitiesRun):
    """The stages of one run, ready to be computed."""

    def compute(self, stage: StagePlan, reporter: Reporter) -> None:
        """Compute what is stale of one stage, and commit it."""
        work = str(stage) if stage.total > 1 else ""
        COMPUTE[stage.name](self, replace(stage, record={**stage.record, "work": work}))


def _ingest(run: CommunitiesRun, stage: StagePlan) -> None:
    record = {**stage.record, "files": dict(run.files), **owner_record(run.job)}
    run.work.write_frames(stage.name, run.source[["population"]], stage.stale, record)


def _flow(run: CommunitiesRun, stage: StagePlan) -> None:
    settings, start = run.job.flow.model_dump(), min(stage.stale) - 1
    if start < 0 or not run.job.flow.warm_start:
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
    parts = []
    for name, frames in run.models(range(len(run.plan.times))).items():
        encoder = FittedEncoder.from_bytes(run.work.file(f"encoder-{name}.safetensors"))
        model = ClassModel.from_bytes(run.work.file(f"classifier-{name}.safetensors"))
        features, cells = run.features.isel(time=frames), run.domain.isel(time=frames)
        with on_gpus():  # classes too, so that codes do not travel
            latent = encoding.encode(features, encoder, mask=cells, device=run.job.encoder.device)
            parts.append(classify(latent, model))
    classes = xr.concat(parts, "time").to_dataset(name="classes")
    run.work.write_frames(stage.name, classes, stage.stale, stage.record)


def _communities(run: CommunitiesRun, stage: StagePlan) -> None:
    settings = run.job.communities
    eps = cube.in_cells(settings.eps, run.population)
    classes = run.work.dataset()["classes"]
    community = dbscan.dbscan(classes, eps=eps, min_samples=settings.min_samples)
    if settings.min_people:
        community = dissolve_small(community, run.population, settings.min_people)
    run.work.write_frames(
        stage.name, community.to_dataset(name="community"), stage.stale, stage.record
    )


def _summary(run: CommunitiesRun, stage: StagePlan) -> None:
    balance = summary.people_balance(*run.frames(stage.stale, "community", "population"))
    summary.check_balance(balance)
    community, population, u, v = run.frames(stage.stale, "community", "population", "u", "v")
    nothing = np.zeros(0, dtype=np.int64)  # speeds come with the tracks
    unknown = pd.DataFrame(
        {"time": community["time"].values[:0], "community": nothing, "track": nothing}
    )
    table = summary.summarize(community, population, xr.Dataset({"u": u, "v": v}), tracks=unknown)
    fresh = {"summary": table, "balance": balance}
    run.work.write_files(stage.name, run.merged(stage, fresh), stage.record)


def _links(run: CommunitiesRun, stage: StagePlan) -> None:
    arrays = run.work.dataset()
    parts = []
    for first, last in frame_runs(stage.stale):
        frames = arrays.isel(time=slice(first, last + 2))
        parts.append(
            linking.link(frames["community"], frames["population"], rule=run.job.links.rule)
        )
    fresh = {"links": pd.concat(parts, ignore_index=True)}
    run.work.write_files(stage.name, run.merged(stage, fresh), stage.record)


def _tracks(run: CommunitiesRun, stage: StagePlan) -> None:
    described, links = run.work.table("summary"), run.work.table("links")
    times = [np.datetime64(time) for time in run.plan.times]
    known = _known_tracks(run) or {}
    tracks = linking.tracks(links, described, times=times, **known)
    files = {
        "tracks.parquet": table_bytes(tracks),
        "communities.parquet": table_bytes(summary.follow(described, tracks)),
    }
    run.work.write_files(stage.name, files, stage.record)


def _known_tracks(run: CommunitiesRun) -> dict[str, Any] | None:
    """The track numbers that the last finished run of the same analysis gave: they stay.

    Communities of a frame that was labelled anew take the numbers of those that they share most
    people with. A damaged table tells none.
    """
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
    first_number = int(old["track"].max(skipna=True)) + 1 if len(old) else 0
    both = set(then["frames"]) & set(run.plan.times)
    anew = [t for t in both if then["frames"][t] != now["communities"]["frames"][t]]
    known = old[old["time"].isin([np.datetime64(t) for t in both.difference(anew)])]
    if anew:
        times = sorted(np.datetime64(t, "ns") for t in anew)
        now_there = arrays.sel(time=times)
        pairs = linking.match(
            older["community"].sel(time=times), now_there["community"], now_there["population"]
        )
        moved = pairs.merge(old.rename(columns={"community": "old"}), on=["time", "old"])
        known = pd.concat([known, moved.rename(columns={"new": "community"})[known.columns]])
    return {"known": known, "first_number": first_number}


def _export(run: CommunitiesRun, stage: StagePlan) -> None:
    with exporting(run.work, stage, run.job) as exports:
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
