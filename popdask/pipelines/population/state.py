"""What the stages of one run of the population job share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import xarray as xr

from popdask.imagery.cells import load_tables, select_fold
from popdask.imagery.grid import CellGrid
from popdask.imagery.models import TrainedModel
from popdask.job import PopulationJob
from popdask.pipelines.exports import exported
from popdask.pipelines.plan import Plan
from popdask.pipelines.population.sources import Sources
from popdask.pipelines.provenance import run_record
from popdask.store import RegionStore, Work

#: How the files of a model are named, where there is one for each fold.
FOLD_FILE = "{stage}-{fold}.safetensors"


@dataclass(frozen=True)
class PopulationRun:
    """What the stages of one run share."""

    job: PopulationJob
    sources: Sources
    grid: CellGrid
    frame: xr.Dataset
    files: Mapping[str, Any]
    store: RegionStore
    work: Work
    plan: Plan
    earlier: Mapping[str, xr.Dataset]
    """Estimates of a run before, by ISO time, that hold on the cells of this one."""

    def record(self) -> dict[str, Any]:
        """Put down what the finished run was made from and with."""
        job = self.job
        seeds = {"cells": job.cells.seed, "presence": job.presence.seed, "count": job.count.seed}
        told: dict[str, Any] = {"exports": exported(self.work.records())}
        if "evaluation" in self.plan.stages:
            told["scores"] = self.work.table("scores").to_dict("records")
        return run_record(job, self.files, seeds, **told)

    @property
    def has_folds(self) -> bool:
        """Whether there are several models of a kind, each blind to a part of the cells."""
        trained = [self.job.count, *([] if self.job.single_stage else [self.job.presence])]
        return bool(self.job.cells.folds) and any(settings.weights is None for settings in trained)

    def models(self, stage: str) -> list[TrainedModel | None]:
        """The models of a stage, one, or one for each fold; None where a job needs none."""
        folds = self.job.cells.folds
        if stage not in self.plan.stages:
            return [None] * max(folds, 1)
        if getattr(self.job, stage).weights is not None or not folds:
            model = TrainedModel.from_bytes(self.work.file(f"{stage}.safetensors"), stage)
            return [model] * max(folds, 1)
        names = [FOLD_FILE.format(stage=stage, fold=fold) for fold in range(folds)]
        return [TrainedModel.from_bytes(self.work.file(name), name) for name in names]

    def splits(self) -> list[xr.Dataset]:
        """The labelled cells, split once, or once for each fold."""
        cells = load_tables(self.work.group("cells"))
        folds = self.job.cells.folds
        return [select_fold(cells, fold) for fold in range(folds)] if folds else [cells]
