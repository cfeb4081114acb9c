"""What the stages of one run of the communities job share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from popdask.job import CommunitiesJob
from popdask.pipelines.exports import exported
from popdask.pipelines.plan import Plan, StagePlan
from popdask.pipelines.provenance import run_record
from popdask.store import RegionStore, Work, table_bytes
from popdask.tracking import domain, encoding


@dataclass(frozen=True)
class CommunitiesRun:
    """What the stages of one run share; the arrays are lazy, as they are stored."""

    job: CommunitiesJob
    source: xr.Dataset
    files: Mapping[str, Any]
    store: RegionStore
    work: Work
    plan: Plan

    @property
    def population(self) -> xr.DataArray:
        """People per cell, as stored."""
        return self.work.dataset()["population"]

    @property
    def domain(self) -> xr.DataArray:
        """The cells that are trained on, classified and grouped."""
        return domain.domain(self.population, self.job.domain.cells)

    @property
    def features(self) -> xr.DataArray:
        """Population and flow, as the encoder takes them."""
        stored = self.work.dataset()
        return encoding.stack_features(stored["population"], stored[["u", "v"]])

    def record(self) -> dict[str, Any]:
        """Put down what the finished run was made from and with."""
        job, balance = self.job, self.work.table("balance")
        rows = balance.assign(time=balance["time"].dt.strftime("%Y-%m-%dT%H:%M:%S"))
        seeds = {"encoder": job.encoder.seed, "classes": job.classes.seed}
        told = {"balance": rows.to_dict("records"), "exports": exported(self.work.records())}
        return run_record(job, self.files, seeds, **told)

    def frames(self, positions: Sequence[int], *names: str) -> list[xr.DataArray]:
        """Some frames of stored arrays."""
        stored = self.work.dataset()
        if list(positions) != list(range(len(self.plan.times))):
            stored = stored.isel(time=list(positions))  # which Dask does not fuse with the reading
        return [stored[name] for name in names]

    def models(self, stale: Sequence[int]) -> dict[str, slice]:
        """The frames that each model serves, by the model's name, where one of them is stale."""
        if self.job.encoder.scope == "shared":
            return {"shared": slice(0, len(self.plan.times))} if stale else {}
        return {self.plan.times[i].replace(":", ""): slice(i, i + 1) for i in stale}

    def merged(self, stage: StagePlan, fresh: Mapping[str, pd.DataFrame]) -> dict[str, bytes]:
        """Tables of the stage: fresh rows, and the stored ones of the frames that are not stale."""
        stale = {self.plan.times[i] for i in stage.stale}
        kept = [np.datetime64(time) for time in stage.record["frames"] if time not in stale]
        files = {}
        for name, table in fresh.items():
            if kept:
                old = self.work.table(name)
                table = pd.concat([old[old["time"].isin(kept)], table], ignore_index=True)
            files[f"{name}.parquet"] = table_bytes(table.sort_values("time", kind="stable"))
        return files
