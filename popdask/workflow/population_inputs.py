"""What a population job reads: mosaics, counts, drawn countries, earlier estimates.

An estimate depends on the images of its own date alone. So a date that covers more makes the arrays
larger, and leaves the estimates of the other dates as they are.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from popdask.config.jobs import FEATURES, PopulationJob, Training, Truth
from popdask.config.settings import Cells, Drawn
from popdask.errors import InputError
from popdask.imagery.cells import (
    GapWarning,
    coarsen_cells,
    fold_cells,
    keep_whole_zones,
    load_tables,
    read_cells,
    select_fold,
    set_aside,
    split_cells,
)
from popdask.imagery.cutting import (
    counts_beyond,
    counts_from_features,
    counts_from_raster,
    counts_from_table,
    cut_cells,
    drop_padding,
    refuse_doubles,
)
from popdask.imagery.dasymetric import RASTERS, add_zones
from popdask.imagery.grid import CellGrid
from popdask.imagery.loading import TrainingConfig
from popdask.imagery.model import TrainedModel
from popdask.imagery.trainer import spread_totals
from popdask.io import export
from popdask.io.grids import grid_of
from popdask.io.paths import without_secrets
from popdask.io.tables import PARQUET, has_geometry, parts_of
from popdask.store.repository import RegionStore
from popdask.synthetic.orthophoto import OrthophotoWorld, drawn_orthophoto
from popdask.workflow.exports import exported
from popdask.workflow.inputs import (
    Times,
    by_time,
    cell_grid,
    files_of,
    frame_grid,
    iso,
    open_image,
    run_record,
    version_of,
)
from popdask.workflow.progress import Reporter
from popdask.workflow.runner import Files, Running

#: Names of tables that are text.
TEXTS = (".csv", ".tsv", ".txt", ".gz", ".bz2", ".xz", ".zip")
HELD = 2**29  # bytes of images that workers hold until they are stored
TRAINING_PLACE = (600_000.0, 6_200_000.0)
MOSAIC_PLACE = (650_000.0, 6_250_000.0)  # far enough to share nothing but the style
NOTE = "drawn.json"
LEAST_PIXELS = 32  # a side, which the five blocks of the published networks halve to one
#: How the files of a model are named, where there is one for each fold.
FOLD_FILE = "{stage}-{fold}.safetensors"


@dataclass(frozen=True)
class Sources:
    """The files of a job, by what they are to it."""

    mosaics: Times  # the images of each time
    training: tuple[str, ...]  # the images, or the folder, that labelled cells are cut from
    counts: tuple[str, ...]  # people of the labelled cells
    truth: Times  # people of the mosaics' cells, where they are known
    others: Mapping[str, str]  # Weights, zones and further bands, by the setting that names them

    @classmethod
    def of(cls, job: PopulationJob) -> Sources:
        """Find the files of a job."""
        mosaics = by_time(job.input.mosaic, job.input)
        training = cls._training(job, mosaics)
        counts = () if job.cells.counts is None or job.cells.folder else (job.cells.counts,)
        truth = {} if job.truth is None else by_time(job.truth.counts, job.input)
        if truth and not set(truth) & set(mosaics):
            raise InputError(
                f"[truth] counts has the times {_days(truth)}, the mosaics {_days(mosaics)}: "
                "expected at least one in common; name the files by time, or give [input] time."
            )
        others = {
            "presence.weights": job.presence.weights,
            "count.weights": job.count.weights,
            "cells.totals": job.cells.totals if isinstance(job.cells.totals, str) else None,
            "census.zones": job.census and job.census.zones,
            "census.table": job.census and job.census.table,
            "intervals.zones": job.intervals and job.intervals.zones,
            **{f"bands.{number}": band.path for number, band in enumerate(job.input.bands)},
        }
        known = {name: path for name, path in others.items() if path}
        zones = known.get("census.zones", "")
        if Path(zones).suffix.lower() in RASTERS and "census.table" not in known:
            raise InputError(
                f"[census] zones is {zones}, a raster of zone numbers, and there is no table of "
                "their totals: give [census] table, with the columns zone and total."
            )
        return cls(mosaics, training, counts, truth, known)

    def grid(self, job: PopulationJob) -> CellGrid:
        """Return the grid of the job's cells, joined."""
        return cell_grid(job.cells, next(iter(self.mosaics.values()))[0], job.cells.join)

    def frame(self, job: PopulationJob) -> xr.Dataset:
        """Return the coordinates of the results."""
        return frame_grid(job, self.mosaics, self.grid(job))

    @staticmethod
    def _training(job: PopulationJob, mosaics: Times) -> tuple[str, ...]:
        if job.cells.folder is not None:
            return (job.cells.folder,)
        if job.cells.mosaic is not None:
            return files_of(job.cells.mosaic)
        return mosaics[min(mosaics)]

    def fingerprints(self, known: Mapping[str, Any]) -> SourceVersions:
        """Return the version of each file, by its path; one on record is known."""
        of_times = (
            path for paths in (self.mosaics, self.truth) for each in paths.values() for path in each
        )
        paths = dict.fromkeys((*of_times, *self.training, *self.counts, *self.others.values()))
        versions = SourceVersions(
            (without_secrets(path), version_of(path, known)) for path in paths
        )
        versions.sources = self
        return versions


class SourceVersions(dict[str, dict[str, Any]]):
    """The versions of a job's files, by path, with the list of files that they are of."""

    sources: Sources


def sources_of(files: Files) -> Sources:
    """Return what the files of a job are to it, as they were listed when they were read."""
    assert isinstance(files, SourceVersions)
    return files.sources


def _days(times: Times) -> str:
    return ", ".join(iso(time)[:10] for time in times)


def labelled_cells(
    job: PopulationJob, sources: Sources, *, unseen: bool = False
) -> tuple[xr.Dataset, int, int]:
    """Cut the cells of known people, without those that lack pixels, and split them."""
    # Unseen, no image is read, and cells that lack pixels are among them.
    settings, outside = job.cells, 0
    if settings.folder is not None:
        grid = cell_grid(settings, next(iter(sources.mosaics.values()))[0])
        cells = read_cells(settings.folder, grid, skip=settings.skip_unnamed)
    else:
        grid = cell_grid(settings, sources.training[0])
        image = open_image(job, sources.training, grid)
        counts = None if settings.counts is None else read_counts(settings.counts, grid, settings)
        cells = cut_cells(
            image,
            counts,
            grid,
            context=settings.context,
            labelled=counts is not None,
            missing=_missing(settings),
            outside="drop",
        )
        if counts is not None:
            there = (cells["north"].values, cells["east"].values)
            outside = int(counts_beyond(counts, *there).sum())
    if settings.join > 1:
        cells = coarsen_cells(cells, settings.join)
    if not unseen and cells["images"].nbytes <= HELD:  # looked at, and then stored: cut once
        cells["images"] = cells["images"].persist()
    cells, dropped = (cells, 0) if unseen else drop_padding(cells)
    if not cells.sizes["cell"]:
        raise InputError(
            f"all {dropped} labelled cells lack pixels at an edge or within; expected some that "
            "the mosaic covers: check the place, the grid and nodata"
        )
    if settings.totals is not None:
        cells = add_zones(cells, settings.totals, settings.column)
    how: dict[str, Any] = settings.model_dump(include={"block", "gap", "seed"})
    how["kind"] = settings.split
    if settings.folds:
        return fold_cells(cells, settings.folds, **how), dropped, outside
    return split_cells(cells, validation=settings.validation, **how), dropped, outside


def sides_of(job: PopulationJob, cells: xr.Dataset) -> list[xr.Dataset]:
    """The split of the labelled cells, or that of each fold, with the cells to choose by."""
    folds = range(job.cells.folds)
    splits = [select_fold(cells, fold) for fold in folds] if folds else [cells]
    return [set_aside(keep_whole_zones(split), job.cells.selection) for split in splits]


def shared_totals(job: PopulationJob, cells: xr.Dataset) -> pd.DataFrame:
    """The people of cells as they are learned with, where totals are known: a column per split."""
    return pd.DataFrame(
        {
            str(number): spread_totals(side, seed=job.cells.seed)
            for number, side in enumerate(sides_of(job, cells))
        }
    )


def _with_labels(cells: xr.Dataset, shared: pd.Series) -> xr.Dataset:
    """Take shared totals for the people of the cells that are learned from."""
    people = np.where(shared.isna(), cells["people"].values, shared)
    return cells.assign(people=("cell", people, cells["people"].attrs))


def read_counts(path: str, grid: CellGrid, settings: Cells | Truth) -> pd.DataFrame:
    """Read people by cell from a raster, a table, squares or points, by what the file is."""
    kind = Path(path).suffix.lower()
    if kind in (".tif", ".tiff", ".vrt", ".nc"):
        return counts_from_raster(path, grid, share=settings.share)
    parquet = kind in PARQUET or bool(parts_of(path))
    if kind in TEXTS or (parquet and not has_geometry(path)):
        return counts_from_table(path, grid, people=settings.column)
    return counts_from_features(path, grid, people=settings.column)


def read_truth(job: PopulationJob, paths: Sequence[str], grid: CellGrid) -> pd.DataFrame:
    """Read the known people of a mosaic's cells; those of joined cells are added up."""
    assert job.truth is not None
    join = job.cells.join
    small = CellGrid(grid.size / join, grid.crs, grid.origin)
    counts = pd.concat([read_counts(path, small, job.truth) for path in paths], ignore_index=True)
    refuse_doubles(counts, small, " and ".join(paths))
    if join == 1:
        return counts
    places = counts.assign(north=counts["north"] // join, east=counts["east"] // join)
    sums = places.groupby(["north", "east"], as_index=False)["people"].agg(["sum", "count"])
    whole = sums[(sums["count"] == join**2) | (job.truth.missing == "zero")]
    return whole.rename(columns={"sum": "people"})[["north", "east", "people"]]


def true_cells(
    job: PopulationJob, images: xr.DataArray, paths: Sequence[str], grid: CellGrid
) -> xr.Dataset:
    """Cut the cells of a mosaic whose people are known, without those that lack pixels."""
    assert job.truth is not None
    counts = read_truth(job, paths, grid)
    cells = cut_cells(
        images,
        counts,
        grid,
        context=job.cells.context,
        labelled=True,
        missing=_missing(job.truth),
        outside="drop",
    )
    return drop_padding(cells)[0]


def _missing(settings: Cells | Truth) -> float:
    return 0.0 if settings.missing == "zero" else np.nan


def draw(settings: Drawn, reporter: Reporter | None = None) -> Path:
    """Draw a training mosaic and mosaics of some years of another place, with their people."""
    folder, note = Path(settings.folder), Path(settings.folder, NOTE)
    if is_drawn(settings):
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    note.unlink(missing_ok=True)
    with (reporter or Reporter()).stage("drawing", "to do"):
        training = _world(settings, TRAINING_PLACE, settings.training_km, settings.years[0])
        training.write(folder / "training.tif")
        _people(training).to_parquet(folder / "training_people.parquet", index=False)
        for year in settings.years:
            world = _world(settings, MOSAIC_PLACE, settings.mosaic_km, year)
            world.write(folder / f"mosaic_{year}.tif")
            export.write_cogs(world.people(100.0).astype("float32"), folder, f"people_{year}")
    note.write_text(_note_text(settings))
    return folder


def is_drawn(settings: Drawn) -> bool:
    """Return whether the country is drawn, as the settings say."""
    note = Path(settings.folder, NOTE)
    return note.exists() and note.read_text() == _note_text(settings)


def _note_text(settings: Drawn) -> str:
    return settings.model_dump_json(exclude={"folder"})


def _world(
    settings: Drawn, place: tuple[float, float], extent: tuple[float, float], year: int
) -> OrthophotoWorld:
    return drawn_orthophoto(
        extent,
        seed=settings.seed,
        origin=place,
        year=year - settings.years[0],
        bands=settings.bands,
        resolution=settings.resolution,
    )


def _people(world: OrthophotoWorld) -> pd.DataFrame:
    """The people of every cell, by its code."""
    grid, people = CellGrid.preset("dk_100m"), world.people(100.0)
    north, east = ((people[axis].values // grid.size).astype(int) for axis in ("y", "x"))
    cells = [grid.code(n, e) for n in north for e in east]
    return pd.DataFrame({"cell": cells, "people": people.values.ravel().astype(float)})


def has_other_cells(stored: xr.Dataset, frame: xr.Dataset) -> bool:
    """Return whether two grids have the same kind of cells, but not the same ones."""
    ours, theirs = grid_of(frame), grid_of(stored)
    alike = ours.crs == theirs.crs and ours.resolution == theirs.resolution
    return alike and (ours.shape, ours.affine) != (theirs.shape, theirs.affine)


def covers_other_cells(job: PopulationJob, frame: xr.Dataset) -> bool:
    """Return whether the mosaics of a job cover other cells than in its last run."""
    store = RegionStore(job.output.store)
    return bool(store.records()) and has_other_cells(store.dataset(), frame)


def earlier_estimates(
    store: RegionStore, frame: xr.Dataset, wanted: Mapping[str, str]
) -> dict[str, xr.Dataset]:
    """Find estimates that readers see, and that hold on a grid with other cells."""
    record = store.records().get("estimate", {})
    prints = record.get("frames", {})
    known = [time for time in prints if prints[time] == wanted.get(time)]
    if not known:
        return {}
    stored = store.dataset()
    if not has_other_cells(stored, frame):
        return {}
    names = {time: sorted(record["checksums"][time]) for time in known}
    return {time: stored[names[time]].sel(time=np.datetime64(time), drop=True) for time in known}


@dataclass(frozen=True)
class PopulationRun(Running):
    """What the stages of one run share."""

    job: PopulationJob
    sources: Sources
    grid: CellGrid
    frame: xr.Dataset
    earlier: Mapping[str, xr.Dataset]
    """Estimates of a run before, by ISO time, that hold on the cells of this one."""

    def record(self) -> dict[str, Any]:
        """Record what the finished run was made from and with."""
        job = self.job
        seeds = {"cells": job.cells.seed, "presence": job.presence.seed, "count": job.count.seed}
        further: dict[str, Any] = {"exports": exported(self.work.records())}
        if "evaluation" in self.plan.stages:
            further["scores"] = self.work.table("scores").to_dict("records")
        return run_record(job, self.files, seeds, **further)

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
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", GapWarning)  # noted when the cells were cut
            sides = sides_of(self.job, cells)
        if self.job.cells.totals is None:
            return sides
        shared = self.work.table("shared")
        return [_with_labels(side, shared[str(number)]) for number, side in enumerate(sides)]


def training_networks(kind: str, settings: Training, pixels: int) -> tuple[dict[str, Any], ...]:
    """The networks of a job, of which the mean is taken; by default what the images allow."""
    unnamed = not settings.network and kind != "transformer"
    return FEATURES if unnamed and pixels < LEAST_PIXELS else settings.members


def training_configs(
    kind: str, settings: Training, pixels: int, other_bands: int = 0
) -> list[TrainingConfig]:
    """The settings of each network's training: those published, and what the job changes."""
    names = set(Training.model_fields) - {"weights", "preset", "device", "network"}
    changes = settings.model_dump(include=names, exclude_none=True) | {"other_bands": other_bands}
    configs = [
        TrainingConfig.preset(
            kind, settings.preset, **changes, **({"network": network} if network else {})
        )
        for network in training_networks(kind, settings, pixels)
    ]
    if len(configs) == 1:
        return configs
    # Of the same seed, a network that is listed again would be the same again.
    whole = [config.whole_network(kind) for config in configs]
    return [
        replace(config, seed=config.seed + whole[:place].count(whole[place]))
        for place, config in enumerate(configs)
    ]
