"""The results of the population job as files: rasters, tables, a cube and a catalogue."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from popdask import cube, export
from popdask.pipelines.exports import Exports, exported, exporting
from popdask.pipelines.page import write_page
from popdask.pipelines.plan import StagePlan
from popdask.pipelines.population.reporting import illustrate
from popdask.pipelines.population.state import PopulationRun
from popdask.progress import Reporter
from popdask.store import WORK
from popdask.whole import whole


def export_rasters(run: PopulationRun, stage: StagePlan, reporter: Reporter) -> None:
    """Write the estimates of each frame as COGs."""
    arrays = run.work.dataset()
    with exporting(run.work, stage, run.job) as exports:
        for name in _rasters(run):
            exports.cogs(arrays[name], f"{run.job.name}_{name}")


def export_tables(run: PopulationRun, stage: StagePlan, reporter: Reporter) -> None:
    """Write what tells of all frames: tables, a cube, a catalogue, a page."""
    job, formats = run.job, run.job.output.export
    with exporting(run.work, stage, job) as exports:
        tables = _tables(run, exports) if "parquet" in formats else {}
        if "zarr" in formats:
            exports.add(_cube(run, exports.folder / f"{job.name}.zarr"))
        if "stac" in formats:
            exports.add(*_catalog(run, exports, tables))
        if "report" in formats:
            exports.add(
                write_page(run.job, run.store, WORK, exports.folder, illustrate, run.record())
            )


def _tables(run: PopulationRun, exports: Exports) -> dict[str, Path]:
    """Write the tables that the job has."""
    evaluated = "evaluation" in run.plan.stages
    names = ["scores", "scores_by_density", "predictions"] if evaluated else []
    tables: dict[str, Path] = {}
    for name in [*names, *(["zones"] if run.job.census is not None else [])]:
        path = exports.folder / f"{run.job.name}_{name}.parquet"
        tables[name] = export.write_geoparquet(run.work.table(name), path)
    exports.add(*tables.values())
    return tables


def _cube(run: PopulationRun, path: Path) -> Path:
    """Write the people that count as a plain Zarr group."""
    counted = run.work.dataset()[run.job.counted].astype("float32").rename("population")
    counted.attrs.pop("grid_mapping", None)  # which xarray writes by itself
    with whole(path) as unfinished:
        cube.write_cube(counted.to_dataset(), unfinished)
    return path


def _catalog(run: PopulationRun, exports: Exports, tables: Mapping[str, Path]) -> list[Path]:
    """Write a catalogue of the rasters, which are there already, and of tables."""
    job, arrays, folder = run.job, run.work.dataset(), exports.folder
    frames: dict[np.datetime64, dict[str, Path]] = {t: {} for t in arrays["time"].values}
    for kind in _rasters(run):
        paths = export.cog_paths(arrays[kind], folder, f"{job.name}_{kind}")
        exports.fetch(*paths)
        for time, path in zip(frames, paths, strict=True):
            frames[time][kind] = path
    written = exported(run.work.records())
    return export.write_catalog(
        folder,
        job.name,
        frames,
        tables,
        description=f"People per cell of {job.name}, estimated from aerial images.",
        sha256={folder / name: told["sha256"] for name, told in written.items() if told},
    )


def _rasters(run: PopulationRun) -> list[str]:
    """The arrays that are exported as rasters."""
    names = ["population", *(["presence"] if not run.job.single_stage else [])]
    return [*names, *(["census_population"] if run.job.census is not None else [])]
