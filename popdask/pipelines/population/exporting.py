"""The results of the population job as files: rasters, tables, a cube and a catalogue."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from popdask import cube, export
from popdask.pipelines.exports import Exports, exported
from popdask.pipelines.plan import StagePlan
from popdask.pipelines.population.reporting import report
from popdask.progress import Reporter
from popdask.store import WORK
from popdask.whole import whole

if TYPE_CHECKING:
    from popdask.pipelines.population.stages import PopulationStages


def export_rasters(run: PopulationStages, stage: StagePlan, reporter: Reporter) -> None:
    """Write the estimates of each frame as COGs."""
    exports, arrays = Exports(run.work, stage, run.job.export_folder), run.work.dataset()
    for name in _rasters(run):
        exports.cogs(arrays[name], f"{run.job.name}_{name}")
    exports.commit()


def export_tables(run: PopulationStages, stage: StagePlan, reporter: Reporter) -> None:
    """Write what tells of all frames: tables, a cube, a catalogue, a page."""
    job, folder = run.job, run.job.export_folder
    exports = Exports(run.work, stage, folder)
    tables: dict[str, Path] = {}
    if "parquet" in job.output.export:
        names = (
            ["scores", "scores_by_density", "predictions"]
            if "evaluation" in run.plan.stages
            else []
        )
        for name in [*names, *(["zones"] if job.census is not None else [])]:
            path = folder / f"{job.name}_{name}.parquet"
            tables[name] = export.write_geoparquet(run.work.table(name), path)
        exports.add(*tables.values())
    if "zarr" in job.output.export:
        counted = run.work.dataset()[job.counted].astype("float32").rename("population")
        counted.attrs.pop("grid_mapping", None)  # which xarray writes by itself
        with whole(folder / f"{job.name}.zarr") as unfinished:
            cube.write_cube(counted.to_dataset(), unfinished)
        exports.add(folder / f"{job.name}.zarr")
    if "stac" in job.output.export:
        exports.add(*_catalog(run, tables))
    if "report" in job.output.export:
        exports.add(report(job, branch=WORK, record=run.record()))
    exports.commit()


def _catalog(run: PopulationStages, tables: Mapping[str, Path]) -> list[Path]:
    """Write a catalogue of the rasters, which are there already, and of tables."""
    job, arrays = run.job, run.work.dataset()
    frames: dict[np.datetime64, dict[str, Path]] = {t: {} for t in arrays["time"].values}
    for kind in _rasters(run):
        paths = export.cog_paths(arrays[kind], job.export_folder, f"{job.name}_{kind}")
        for time, path in zip(frames, paths, strict=True):
            frames[time][kind] = path
    written = exported(run.work.records())
    return export.write_catalog(
        job.export_folder,
        job.name,
        frames,
        tables,
        description=f"People per cell of {job.name}, estimated from aerial images.",
        sha256={job.export_folder / name: told["sha256"] for name, told in written.items() if told},
    )


def _rasters(run: PopulationStages) -> list[str]:
    """The arrays that are exported as rasters."""
    names = ["population", *(["presence"] if not run.job.single_stage else [])]
    return [*names, *(["census_population"] if run.job.census is not None else [])]
