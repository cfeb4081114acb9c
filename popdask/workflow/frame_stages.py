"""What the stages of jobs that begin with frames of people share: their run, tables and exports."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from popdask.io import export, extents, stac
from popdask.store.content import table_bytes
from popdask.store.records import WORK
from popdask.store.repository import RegionStore
from popdask.store.transaction import Transaction
from popdask.workflow.exports import Exports, Illustrate, write_page
from popdask.workflow.frames import FramesJob, frame_paths
from popdask.workflow.plan import Plan, StagePlan

#: The rasters of every frame, by what they show.
Rasters = dict[np.datetime64, dict[str, Path]]


@dataclass(frozen=True)
class FramesRun:
    """What the stages of one run share; the arrays are lazy, as they are stored."""

    job: FramesJob
    source: xr.Dataset
    files: Mapping[str, Any]
    store: RegionStore
    work: Transaction
    plan: Plan

    def record(self) -> dict[str, Any]:
        """Put down what the finished run was made from and with."""
        raise NotImplementedError

    def records(self) -> dict[str, Any]:
        """The records of the stages that are finished."""
        return self.work.records()

    def balance_rows(self) -> list[dict[str, Any]]:
        """The balance of people as it is put on record."""
        balance = self.work.table("balance")
        rows = balance.assign(time=balance["time"].dt.strftime("%Y-%m-%dT%H:%M:%S"))
        return [
            {str(name): value for name, value in row.items()} for row in rows.to_dict("records")
        ]

    @property
    def population(self) -> xr.DataArray:
        """People per cell, as stored."""
        return self.work.dataset()["population"]

    def frames(self, positions: Sequence[int], *names: str) -> list[xr.DataArray]:
        """Some frames of stored arrays."""
        stored = self.work.dataset()
        if list(positions) != list(range(len(self.plan.times))):
            stored = stored.isel(time=list(positions))  # which Dask does not fuse with the reading
        return [stored[name] for name in names]

    def merged(
        self, stage: StagePlan, fresh: Mapping[str, pd.DataFrame], by: str = "time"
    ) -> dict[str, bytes]:
        """Tables of the stage: fresh rows, and the stored ones of the frames that are not stale."""
        order = list(dict.fromkeys(["time", by]))
        stale = {self.plan.times[i] for i in stage.stale}
        kept = [np.datetime64(time) for time in stage.record["frames"] if time not in stale]
        files = {}
        for name, table in fresh.items():
            if kept:
                old = self.work.table(name)
                table = pd.concat([old[old[by].isin(kept)], table], ignore_index=True)
            if "beyond" in table:  # which earlier versions did not tell
                table["beyond"] = table["beyond"].fillna(0.0)
            files[f"{name}.parquet"] = table_bytes(table.sort_values(order, kind="stable"))
        return files


def with_work(stage: StagePlan) -> StagePlan:
    """Put on record what of a stage is computed."""
    work = str(stage) if stage.total > 1 else ""
    return replace(stage, record={**stage.record, "work": work})


def people_left_out(run: FramesRun, stage: StagePlan) -> dict[str, dict[str, float]]:
    """People of each frame on another grid, and those of them who lie beyond the job's grid."""
    settings, known = run.job.input, run.work.records().get("population", {}).get("beyond", {})
    frames = frame_paths(run.job)
    stale = {run.plan.times[i] for i in stage.stale}
    wanted = {iso for iso in run.plan.times if iso in stale or settings.align == "cover"}
    read = {
        time: path
        for time, path in frames.items()
        if time == min(frames) or _iso(time) in wanted  # the first gives the grid
    }
    table = extents.people_beyond(read, align=settings.align, nodata=settings.nodata)
    extents.check_beyond(table, settings.max_beyond)
    kept = set(run.plan.times) - wanted
    return {time: each for time, each in known.items() if time in kept} | {
        _iso(row["time"].to_datetime64()): {"raster": row["raster"], "beyond": row["beyond"]}
        for _, row in table.iterrows()
    }


def _iso(time: np.datetime64) -> str:
    return str(time.astype("datetime64[s]"))


def with_left_out(run: FramesRun, balance: pd.DataFrame) -> pd.DataFrame:
    """The balance with the people of each frame who lie beyond the grid, aligned or moved."""
    record = run.records()["population"]
    parts = [record.get("beyond", {}), record.get("moved", {})]
    times = balance["time"].to_numpy("datetime64[s]").astype(str)
    left = [sum(part.get(time, {}).get("beyond", 0.0) for part in parts) for time in times]
    return balance.assign(beyond=left)


def write_formats(
    run: FramesRun,
    exports: Exports,
    rasters: Sequence[str],
    colours: Callable[[np.datetime64], Mapping[str, np.ndarray]],
    write_tables: Callable[[Any, Exports], Mapping[str, Path]],
    words: str,
    illustrate: Illustrate,
) -> None:
    """Write what a job asks for, as far as it is not there.

    `colours` gives those of a frame's rasters, `words` describe the catalogue of the job's name.
    """
    formats, name = set(run.job.output.export), run.job.name
    frames = _write_cogs(run, exports, rasters, colours) if "cog" in formats else {}
    others: dict[str, Path] = {}
    if "geotiff" in formats:
        arrays = run.work.dataset()
        others |= {kind: exports.geotiff(arrays[kind], f"{name}_{kind}") for kind in rasters}
    if formats & {"geoparquet", "gpkg"}:
        others |= write_tables(run, exports)
    if "stac" in formats:
        exports.fetch(*(path for kinds in frames.values() for path in kinds.values()))
        written = stac.write_catalog(
            exports.folder,
            name,
            frames,
            others,
            description=words.format(name),
            sha256=exports.sha256,
        )
        exports.add(*written)
    if "report" in formats:
        page = write_page(run.job, run.store, WORK, exports.folder, illustrate, run.record())
        exports.add(page)


def _write_cogs(
    run: FramesRun,
    exports: Exports,
    rasters: Sequence[str],
    colours: Callable[[np.datetime64], Mapping[str, np.ndarray]],
) -> Rasters:
    """Write the rasters of each frame, and the colours of labels and codes beside them."""
    arrays = run.work.dataset()
    times = arrays["time"].values
    frames: Rasters = {time: {} for time in times}
    for kind in rasters:
        paths = exports.cogs(arrays[kind], f"{run.job.name}_{kind}")
        for time, path in zip(times, paths, strict=True):
            frames[time][kind] = path
    for time, written in frames.items():
        for kind, table in colours(time).items():
            exports.add(export.write_colours(written[kind], table))
    return frames
