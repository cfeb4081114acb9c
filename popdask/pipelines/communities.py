"""The communities job: a stack of population rasters in, communities tracked through time out.

frames → population → flow → encoder → classifier → classes → communities → summary, links → tracks

Each stage reads what the ones before it have stored, computes the frames that the plan calls
stale, and is committed when it is finished; readers see the whole at the end.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import xarray as xr

from popdask import cube, export
from popdask.job import Job
from popdask.pipelines.plan import MODELS, Plan, StagePlan, plan_communities
from popdask.pipelines.workers import on_worker
from popdask.progress import Reporter
from popdask.store import RegionStore, Work, frame_runs, read_table, table_bytes
from popdask.tracking import clustering, dbscan, domain, encoding, flow, linking, summary
from popdask.tracking.autoencoder import EncoderConfig, FittedEncoder, train, training_windows
from popdask.tracking.sampling import gather_windows, sample_cells
from popdask.tracking.threshold import dissolve_small


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
    files = _fingerprints(_frames(job), records)
    return plan_communities(job, _checksums(files), records)


def run(job: Job, reporter: Reporter | None = None) -> Outcome:
    """Run the job, or as much of it as is not done yet.

    Parameters
    ----------
    job
        The settings.
    reporter
        Is told of each stage; without it, the run is silent.

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

    Notes
    -----
    The work is done by the current Dask client, if there is one, else by Dask's default scheduler.
    """
    reporter = reporter or Reporter()
    store = RegionStore(job.output.store)
    frames = _frames(job)
    with store.lock():
        records = store.latest_records()
        files = _fingerprints(frames, records)
        whole = plan_communities(job, _checksums(files), records)
        if not whole.done or store.unfinished():
            _run_stages(job, store, frames, files, reporter)
    communities, tracks, balance = map(store.table, ("communities", "tracks", "balance"))
    return Outcome(whole, communities, tracks, balance, store)


def _run_stages(
    job: Job,
    store: RegionStore,
    frames: Mapping[np.datetime64, str],
    files: Mapping[str, Any],
    reporter: Reporter,
) -> None:
    """Go through the stages, committing each, and publish the whole."""
    settings = job.input.model_dump(include={"chunks", "align", "nodata"})
    source = cube.open_frames(frames, **settings)
    work = store.begin(source, keep=MODELS)
    # The layout may have dropped what was stored for another grid.
    plan = plan_communities(job, _checksums(files), work.records())
    current = _Run(job, source, files, store, work, plan)
    for stage in plan:
        if not stage.done:
            with reporter.stage(stage.name, str(stage)):
                STAGES[stage.name](current, stage)
    work.publish(f"run-{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}")


@dataclass(frozen=True)
class _Run:
    """What the stages of one run share; the arrays are lazy, as they are stored."""

    job: Job
    source: xr.Dataset
    files: Mapping[str, Any]
    store: RegionStore
    work: Work
    plan: Plan

    @property
    def population(self) -> xr.DataArray:
        return self.work.dataset()["population"]

    @property
    def domain(self) -> xr.DataArray:
        return domain.domain(self.population, self.job.domain.cells)

    @property
    def features(self) -> xr.DataArray:
        stored = self.work.dataset()
        return encoding.stack_features(stored["population"], stored[["u", "v"]])

    def frames(self, positions: Sequence[int], *names: str) -> list[xr.DataArray]:
        """Some frames of stored arrays, opened anew, so that no two graphs share their keys."""
        stored = self.work.dataset().isel(time=list(positions))
        return [stored[name] for name in names]

    def models(self, stale: Sequence[int]) -> dict[str, slice]:
        """The frames that each model serves, by the model's name, where one of them is stale."""
        if self.job.encoder.scope == "shared":
            return {"shared": slice(0, len(self.plan.times))} if stale else {}
        return {self.plan.times[i].replace(":", ""): slice(i, i + 1) for i in stale}

    def merged(self, stage: StagePlan, fresh: Mapping[str, pd.DataFrame]) -> dict[str, bytes]:
        """Tables of the stage: fresh rows, and the stored ones of the frames that are not stale."""
        stored = self.work.files()
        stale = {self.plan.times[i] for i in stage.stale}
        kept = [np.datetime64(time) for time in stage.record["frames"] if time not in stale]
        files = {}
        for name, table in fresh.items():
            if kept:
                old = read_table(stored[f"{name}.parquet"])
                table = pd.concat([old[old["time"].isin(kept)], table], ignore_index=True)
            files[f"{name}.parquet"] = table_bytes(table.sort_values("time", kind="stable"))
        return files


def _ingest(run: _Run, stage: StagePlan) -> None:
    record = {**stage.record, "files": dict(run.files)}
    run.work.write_frames(stage.name, run.source[["population"]], stage.stale, record)


def _flow(run: _Run, stage: StagePlan) -> None:
    arrays = flow.optical_flow(run.population, **run.job.flow.model_dump())
    run.work.write_frames(stage.name, arrays, stage.stale, stage.record)


def _encoder(run: _Run, stage: StagePlan) -> None:
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
    run.work.write_files(stage.name, files, stage.record)


def _classifier(run: _Run, stage: StagePlan) -> None:
    settings, stored, files = run.job.classes, run.work.files(), {}
    for name, frames in run.models(stage.stale).items():
        encoder = FittedEncoder.from_bytes(stored[f"encoder-{name}.safetensors"])
        cells = sample_cells(run.domain.isel(time=frames), settings.sample, seed=settings.seed)
        windows = gather_windows(run.features.isel(time=frames), cells, fill=encoder.fill)
        latent = encoder.encode_windows(windows, cells)
        model = clustering.fit_classes(latent, settings.k, seed=settings.seed)
        files[f"classifier-{name}.safetensors"] = model.to_bytes()
    run.work.write_files(stage.name, files, stage.record)


def _classes(run: _Run, stage: StagePlan) -> None:
    stored, parts = run.work.files(), []
    for name, frames in run.models(range(len(run.plan.times))).items():
        encoder = FittedEncoder.from_bytes(stored[f"encoder-{name}.safetensors"])
        model = clustering.ClassModel.from_bytes(stored[f"classifier-{name}.safetensors"])
        features, cells = run.features.isel(time=frames), run.domain.isel(time=frames)
        parts.append(clustering.classify(encoding.encode(features, encoder, mask=cells), model))
    classes = xr.concat(parts, "time").to_dataset(name="classes")
    run.work.write_frames(stage.name, classes, stage.stale, stage.record)


def _communities(run: _Run, stage: StagePlan) -> None:
    settings = run.job.communities
    eps = cube.in_cells(settings.eps, run.population)
    classes = run.work.dataset()["classes"]
    community = dbscan.dbscan(classes, eps=eps, min_samples=settings.min_samples)
    if settings.min_people:
        community = dissolve_small(community, run.population, settings.min_people)
    run.work.write_frames(
        stage.name, community.to_dataset(name="community"), stage.stale, stage.record
    )


def _summary(run: _Run, stage: StagePlan) -> None:
    balance = summary.people_balance(*run.frames(stage.stale, "community", "population"))
    summary.check_balance(balance)
    community, population, u, v = run.frames(stage.stale, "community", "population", "u", "v")
    table = summary.summarize(community, population, xr.Dataset({"u": u, "v": v}))
    fresh = {"summary": table, "balance": balance}
    run.work.write_files(stage.name, run.merged(stage, fresh), stage.record)


def _links(run: _Run, stage: StagePlan) -> None:
    arrays = run.work.dataset()
    parts = []
    for first, last in frame_runs(stage.stale):
        frames = arrays.isel(time=slice(first, last + 2))
        parts.append(
            linking.link(frames["community"], frames["population"], rule=run.job.links.rule)
        )
    fresh = {"links": pd.concat(parts, ignore_index=True)}
    run.work.write_files(stage.name, run.merged(stage, fresh), stage.record)


def _tracks(run: _Run, stage: StagePlan) -> None:
    described, links = run.work.table("summary"), run.work.table("links")
    times = [np.datetime64(time) for time in run.plan.times]
    tracks = linking.tracks(links, described, times=times, known=_known_tracks(run))
    files = {
        "tracks.parquet": table_bytes(tracks),
        "communities.parquet": table_bytes(summary.follow(described, tracks)),
    }
    run.work.write_files(stage.name, files, stage.record)


def _known_tracks(run: _Run) -> pd.DataFrame | None:
    """The track numbers that the last finished run of the same settings gave: they stay.

    Communities of a frame that was labelled anew take the numbers of those that they share most
    people with.
    """
    before, now = run.store.records(), run.work.records()
    then = before.get("communities", {})
    if "tracks" not in before or then.get("settings") != now["communities"]["settings"]:
        return None
    old = run.store.table("tracks")[["time", "community", "track"]].drop_duplicates()
    both = set(then["frames"]) & set(run.plan.times)
    anew = [t for t in both if then["frames"][t] != now["communities"]["frames"][t]]
    known = old[old["time"].isin([np.datetime64(t) for t in both.difference(anew)])]
    if not anew:
        return known
    times = sorted(np.datetime64(t, "ns") for t in anew)
    arrays = run.work.dataset().sel(time=times)
    pairs = linking.match(
        run.store.dataset()["community"].sel(time=times), arrays["community"], arrays["population"]
    )
    moved = pairs.merge(old.rename(columns={"community": "old"}), on=["time", "old"])
    return pd.concat([known, moved.rename(columns={"new": "community"})[known.columns]])


def _export(run: _Run, stage: StagePlan) -> None:
    folder, arrays = run.job.export_folder, run.work.dataset()
    if "cog" in run.job.output.export:
        for name in ("population", "classes", "community"):
            export.write_cogs(arrays[name], folder, f"{run.job.name}_{name}")
    if "geoparquet" in run.job.output.export:
        for name in ("communities", "tracks", "links"):
            path = folder / f"{run.job.name}_{name}.parquet"
            export.write_geoparquet(run.work.table(name), path)
    run.work.write_files(stage.name, {}, stage.record)


STAGES: Mapping[str, Callable[[_Run, StagePlan], None]] = {
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


def _frames(job: Job) -> dict[np.datetime64, str]:
    return cube.find_frames(job.input.frames, job.input.start, job.input.end)


def _fingerprints(
    frames: Mapping[np.datetime64, str], records: Mapping[str, Any]
) -> dict[str, dict[str, Any]]:
    """Path, size, time and checksum of each frame's file, by ISO time.

    A file of the size and time on record is not read again.
    """
    known = records.get("population", {}).get("files", {})
    return {
        str(time.astype("datetime64[s]")): _fingerprint(
            path, known.get(str(time.astype("datetime64[s]")), {})
        )
        for time, path in frames.items()
    }


def _fingerprint(path: str, known: Mapping[str, Any]) -> dict[str, Any]:
    if known.get("path") == path and Path(path).exists():
        stat = Path(path).stat()
        modified = datetime.fromtimestamp(stat.st_mtime, UTC).isoformat()
        if (known["size"], known["mtime"]) == (stat.st_size, modified):
            return dict(known)
    return {"path": path, **cube.frame_fingerprint(path)}


def _checksums(files: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    return {time: file["sha256"] for time, file in files.items()}
