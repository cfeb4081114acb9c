"""The scenes job: mosaics in, groups of cells that look alike out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import pandas as pd
import xarray as xr
from matplotlib.figure import Figure

from popdask._repr_html import ReprMixin
from popdask.config.jobs import ScenesJob
from popdask.imagery.grid import CellGrid, block_side
from popdask.imagery.scenes import (
    FEATURES,
    scene_examples,
    scene_features,
    scene_groups,
    scene_map,
    scene_table,
)
from popdask.io.paths import without_secrets
from popdask.plot import imagery
from popdask.plot.imagery import GROUPS
from popdask.plot.style import cycled
from popdask.report.page import Picture
from popdask.store.content import table_bytes
from popdask.store.repository import RegionStore
from popdask.workflow.export_formats import FORMATS, Content, write_exports
from popdask.workflow.exports import exported, without_missing
from popdask.workflow.inputs import (
    by_time,
    cell_grid,
    checksums,
    frame_grid,
    open_image,
    pixels_along,
    run_record,
    version_of,
)
from popdask.workflow.plan import (
    PIXEL_OPERATIONS,
    WHOLE,
    Basis,
    Fingerprint,
    Plan,
    Record,
    Stage,
    StageCost,
    StagePlan,
    plain,
)
from popdask.workflow.progress import Reporter
from popdask.workflow.runner import Files, Pipeline, Running, on_gpus

#: Operations of EfficientNet-B3 for an image of 300 × 300 pixels (Tan and Le 2019: 1.8 × 10⁹
#: multiplications, each with its addition), and the bytes of its widest layers.
OPERATIONS, LAYERS = 3.7e9, 80 * 2**20
SIDE = 300

BLOCK_TASKS = 6  # for each block of cells, reading and storing included


@dataclass(frozen=True)
class MosaicSize:
    """How much a mosaic is."""

    cells: int  # cells of the grid
    pixels: int  # pixels of a cell
    image: int  # bytes of the image
    block: int  # bytes of a block of cells
    scale: float  # pixels that the network sees of a cell, beside those that it was made for
    chunks: int  # blocks of cells
    square: int | None = None  # blocks are those of the image: the job file cannot choose them

    @property
    def described(self) -> int:
        """Bytes of the features of all cells."""
        return 4 * FEATURES * self.cells


def _features_cost(job: ScenesJob, stage: StagePlan, size: MosaicSize) -> StageCost:
    operations = round(size.cells * OPERATIONS * size.scale)
    return StageCost(
        "features",
        tasks=BLOCK_TASKS * size.chunks,
        read=size.image,
        written=size.described,
        memory=round(LAYERS * size.scale) + 3 * size.block,
        amount=size.cells * size.pixels + operations // PIXEL_OPERATIONS,
    )


def _groups_cost(job: ScenesJob, stage: StagePlan, size: MosaicSize) -> StageCost:
    memory, cells = 2 * size.described, size.cells
    return StageCost("groups", 0, size.described, 8 * cells, memory, cells)


TILE = 8  # cells per side of a stored chunk of features


@dataclass(frozen=True, repr=False)
class ScenesResult(ReprMixin):
    """What a run did and found."""

    plan: Plan
    """What it had to compute."""
    groups: pd.DataFrame
    """Every cell with its groups and its place in the plot."""
    store: RegionStore
    """The results."""

    def summary(self) -> dict[str, str]:
        """What was computed and found, in a few words."""
        return {
            "computed": self.plan.work,
            "cells": f"{len(self.groups):,}",
            "results": str(self.store.path),
        }


@dataclass(frozen=True)
class ScenesRun(Running):
    """What the stages of one run share."""

    job: ScenesJob
    grid: CellGrid
    image: xr.DataArray

    def record(self) -> dict[str, Any]:
        """Record what the finished run was made from and with."""
        seeds = {"features": self.job.features.seed, "groups": self.job.groups.seed}
        return run_record(self.job, self.files, seeds, exports=exported(self.work.records()))


def _mosaic(job: ScenesJob) -> tuple[str, ...]:
    return next(iter(by_time(job.input.mosaic, job.input).values()))


def _opened(job: ScenesJob) -> tuple[CellGrid, xr.DataArray]:
    """The grid of a job's cells, and its image."""
    paths = _mosaic(job)
    grid = cell_grid(job.cells, paths[0])
    return grid, open_image(job, paths, grid)


def _features(run: ScenesRun, stage: StagePlan, reporter: Reporter) -> None:
    with on_gpus():
        described = scene_features(
            run.image, cell_size=run.grid, **run.job.features.model_dump(exclude_none=True)
        )
    dataset = described.chunk({"y": TILE, "x": TILE}).to_dataset(name="features")
    run.work.write_group(stage.name, "features", dataset, stage.record)


def _groups(run: ScenesRun, stage: StagePlan, reporter: Reporter) -> None:
    described = run.work.group("features")["features"]
    groups = scene_map(scene_groups(described, **run.job.groups.model_dump()))
    run.work.write_group("map", "groups", groups.chunk(), {"frames": {}, "of": stage.name})
    table = table_bytes(scene_table(groups))
    run.work.write_files(stage.name, {"scenes.parquet": table}, stage.record)


def _content(job: ScenesJob, run: Any = None) -> Content:
    """What a job exports; which rasters, the groups say that were found."""
    found = run.work.group("groups") if run else xr.Dataset()
    return Content(
        job,
        run,
        found,
        rasters=[str(name) for name in found.data_vars if found[name].dtype.kind == "i"],
        tables=["scenes"],
        read=lambda: [("scenes", run.work.table("scenes"))],
        illustrate=_illustrate,
        colours=lambda raster, time: cycled(GROUPS, int(found[raster].max()) + 1),
    )


def _illustrate(job: ScenesJob, region: RegionStore, branch: str) -> Iterator[Picture]:
    """Draw the plot of cells by how alike they look, with examples."""
    groups = region.group("groups", branch).load()
    examples = scene_examples(groups, _opened(job)[1])
    yield Picture(
        "How alike cells look",
        "Every dot is a cell: near ones look alike. The pictures are examples.",
        imagery.scene_plot_figure(groups, examples),
    )


def _features_record(basis: Basis, of: Fingerprint) -> Record:
    job, files = basis.job, basis.inputs
    reading = job.input.model_dump(mode="json", include={"align", "nodata"})
    looking = job.features.model_dump(mode="json", exclude={"batch_size", "device", "weights"})
    named = job.features.weights if job.features.weights == "imagenet" else None
    sums = [checksums(files, files), reading, plain([job.cells]), looking, named]
    return {"frames": {WHOLE: of(sums)}}


def _groups_record(basis: Basis, of: Fingerprint) -> Record:
    features = basis.frames("features")[WHOLE]
    return {"frames": {WHOLE: of(features, plain([basis.job.groups]))}}


def _export_record(basis: Basis, of: Fingerprint) -> Record | None:
    job = basis.job
    if not job.output.export:
        return None
    settings = [basis.frames("groups")[WHOLE], job.name, job.output.export]
    return {"frames": {WHOLE: of(settings)}}


STAGES = (
    Stage(
        "features",
        version=2,
        needs=(),
        wanted=_features_record,
        cost=_features_cost,
        compute=_features,
        reads_files=True,
    ),
    Stage("groups", needs=("features",), wanted=_groups_record, cost=_groups_cost, compute=_groups),
    Stage(
        "export",
        version=2,
        needs=("groups",),
        wanted=_export_record,
        cost=lambda job, stage, size: StageCost(
            "export", read=8 * size.cells, written=8 * size.cells, amount=size.cells
        ),
        compute=partial(write_exports, _content, FORMATS),
        writes_files=True,
    ),
)


class ScenesPipeline(Pipeline):
    """Groups of cells that look alike."""

    stages = STAGES
    content = staticmethod(_content)

    def files(self, job: ScenesJob, records: Mapping[str, Any]) -> Files:
        """Return the versions of the mosaic's files, and of the weights, by path."""
        known, weights = records.get("features", {}).get("files", {}), job.features.weights
        paths = [*_mosaic(job), *([] if weights in (None, "imagenet") else [str(weights)])]
        return {without_secrets(path): version_of(path, known) for path in paths}

    def basis(self, job: ScenesJob, files: Files, records: Mapping[str, Any]) -> Basis:
        """What the stages are made from."""
        return Basis(job, (), files, without_missing(records, job, "export"))

    def size(self, job: ScenesJob) -> MosaicSize:
        """Return how much the mosaic is, from its header."""
        grid, image = _opened(job)
        pixels = pixels_along(image, grid)
        rows, columns = (image.sizes[axis] // pixels for axis in ("y", "x"))
        side = block_side(pixels)
        return MosaicSize(
            cells=rows * columns,
            pixels=pixels**2,
            image=image.nbytes,
            block=side**2 * image[:, :pixels, :pixels].nbytes,
            scale=(job.features.size / SIDE) ** 2,
            chunks=-(-rows // side) * -(-columns // side),
        )

    def extent(self, job: ScenesJob) -> str:
        """Say how much a job is, from the headers of its mosaic: cells and pixels."""
        grid, image = _opened(job)
        pixels = pixels_along(image, grid)
        rows, columns = (image.sizes[axis] // pixels for axis in ("y", "x"))
        return f"{rows} × {columns} cells of {grid.label}, {pixels} × {pixels} pixels each"

    def begin(
        self, job: ScenesJob, store: RegionStore, files: Files, forget: Sequence[str]
    ) -> ScenesRun:
        """Open the mosaic, and take up the work where it stands, without the stages to forget."""
        time, paths = next(iter(by_time(job.input.mosaic, job.input).items()))
        grid, image = _opened(job)
        work = store.begin(frame_grid(job, {time: paths}, grid))
        work.forget(forget)
        plan = self.decide(job, files, work.records())
        return ScenesRun(job, files, store, work, plan, grid, image)

    def result(self, plan: Plan, store: RegionStore) -> ScenesResult:
        """What a run gives."""
        return ScenesResult(plan, store.table("scenes"), store)

    def found(self, store: RegionStore) -> str:
        """Say in a few words what the last finished run has found."""
        table = store.table("scenes")
        kinds = [name for name in map(str, table) if name.startswith(("kmeans", "hdbscan"))]
        groups = ", ".join(f"{name} {table[name].max() + 1}" for name in kinds)
        return f"{len(table):,} cells, in groups: {groups}"

    def check(self, store: RegionStore) -> Iterator[str]:
        """Compare the table with the map: each cell is in the groups that the map shows."""
        table, shown = store.table("scenes"), store.group("groups")
        for name in shown.data_vars:
            if shown[name].dtype.kind == "i":
                on_map = int((shown[name] >= 0).sum())
                if on_map != int((table[name] >= 0).sum()):
                    yield f"{name} has {on_map} cells on the map, another number in the table."

    def figures(self, job: ScenesJob, region: RegionStore) -> Iterator[tuple[str, Figure]]:
        """Draw the map of groups, and the plot of how alike cells look with example images."""
        groups = region.group("groups").load()
        yield "scene_map", imagery.scene_map_figure(groups)
        examples = scene_examples(groups, _opened(job)[1])
        yield "scene_plot", imagery.scene_plot_figure(groups, examples)


PIPELINE = ScenesPipeline()
plan, run, run_only = PIPELINE.plan, PIPELINE.run, PIPELINE.run_only
