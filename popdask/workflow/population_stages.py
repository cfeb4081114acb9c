"""The stages of the population job: what each of them reads, computes and stores, and its cost.

A trained model is kept as long as the labelled cells and its settings are the same: a mosaic of
another date costs its own estimates and nothing else. Where it makes the arrays cover other cells,
census totals and exports of all dates are made anew, and no other estimates.

Costs are counted from the headers of the mosaics. They are upper estimates where nothing but the
images could tell: every estimated cell counts as inhabited, every labelled cell as one with pixels,
and training goes through all of its epochs. What a run begins at its end (communities, groups of
scenes) is planned with it.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import xarray as xr
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from popdask.config.jobs import Census, CommunitiesJob, PopulationJob, Training
from popdask.config.settings import Settings
from popdask.errors import InputError
from popdask.imagery import dasymetric
from popdask.imagery.cells import GapWarning, cells_grid, load_tables
from popdask.imagery.dasymetric import round_to_totals
from popdask.imagery.estimate import TILE_BYTES, Joining, estimate, tile_cells
from popdask.imagery.grid import CellGrid
from popdask.imagery.model import TrainedModel, build, mean_of
from popdask.imagery.training import image_shape, train
from popdask.io import rasters
from popdask.io.cube import CHUNK
from popdask.io.frames import time_form
from popdask.io.grids import grid_of
from popdask.store.content import table_bytes
from popdask.store.repository import RegionStore
from popdask.workflow import communities, evaluation, population_inputs, scenes
from popdask.workflow.evaluation import (
    add_intervals,
    choose_rules,
    lay_intervals,
)
from popdask.workflow.export_formats import FORMATS, write_exports
from popdask.workflow.frames import basis
from popdask.workflow.inputs import cell_grid, checksums, iso, open_image, pixels_along
from popdask.workflow.plan import (
    PIXEL_OPERATIONS,
    WHOLE,
    Basis,
    Extent,
    Fingerprint,
    Plan,
    Planned,
    Record,
    Stage,
    StageCost,
    StagePlan,
    decide,
    fingerprint,
)
from popdask.workflow.population_inputs import (
    FOLD_FILE,
    LEAST_PIXELS,
    PopulationRun,
    Sources,
    covers_other_cells,
    training_configs,
    training_networks,
)
from popdask.workflow.population_outputs import content
from popdask.workflow.progress import Reporter
from popdask.workflow.runner import count, on_gpus, on_machines, on_worker

#: Tasks of an estimate: for each chunk of the mosaic, for each tile, and for a tile with a ring.
CHUNK_TASKS, TILE_TASKS, RING_TASKS = 3, 5, 18

STEP = 3  # times the operations of an estimate that training takes for a cell: forth, and back
LAYERS = 4  # times the widest layer that it holds for a cell: what the way back needs
BATCH = 64  # cells that a training step holds
#: Stands for the version of a raster that the run will write.
TO_COME = "to come"

#: Starts a training, on a machine, and gives what waits for its model.
Start = Callable[..., Callable[[], TrainedModel]]
#: Settings that change nothing in the result, and places of files, of which the contents count.
_WITHOUT_EFFECT = {"device", "weights", "mosaic", "counts", "folder", "zones", "table"}


@dataclass(frozen=True)
class Images:
    """How much a mosaic is."""

    cells: int  # cells of the grid that it touches
    pixels: int  # pixels along a side of a cell
    bands: int  # bands
    itemsize: int  # bytes of a number
    chunks: int  # chunks of pixels that are read
    tiles: int  # tiles that are estimated, each by one task
    inhabited: int = 0  # cells that are known to be inhabited

    @property
    def cell_bytes(self) -> int:
        """Bytes of the pixels of a cell."""
        return self.pixels**2 * self.bands * self.itemsize


@dataclass(frozen=True)
class Network:
    """What a model takes for a cell."""

    operations: int = 0
    """Multiplications and additions; 0 where there is no such model."""
    memory: int = 0
    """Bytes of the widest layer."""


@dataclass(frozen=True)
class ImagesSize:
    """How much a job's images are."""

    mosaics: list[Images]  # those of each frame
    training: Images  # those that are learned from
    models: Mapping[str, Network]  # what each model takes for a cell, by its stage

    @property
    def chunks(self) -> int:
        """Chunks of all frames."""
        return sum(images.chunks for images in self.mosaics)

    square: int | None = None  # chunks are those of the images: the job file cannot choose them


def read_size(job: PopulationJob) -> ImagesSize:
    """Return how much a job is, from the headers of its mosaics."""
    sources = Sources.of(job)
    mosaics = [_images(job, paths) for paths in sources.mosaics.values()]
    folder = job.cells.folder is not None  # a file for each cell: about as many as the mosaic has
    training = mosaics[0] if folder else _labelled(job, sources)
    names = ["count"] if job.single_stage else ["presence", "count"]
    return ImagesSize(mosaics, training, {name: _network(job, name, mosaics[0]) for name in names})


def cells_cost(job: PopulationJob, stage: StagePlan, size: ImagesSize) -> StageCost:
    """Every labelled cell is cut and stored."""
    training = size.training
    tasks = CHUNK_TASKS * training.chunks + TILE_TASKS * -(-training.cells // BATCH)
    held, total = 2 * BATCH * training.cell_bytes, training.cells * training.cell_bytes
    return StageCost("cells", tasks, total, total, held, training.cells * training.pixels**2)


def evaluation_cost(job: PopulationJob, stage: StagePlan, size: ImagesSize) -> StageCost:
    """The cells that are scored pass through every model."""
    scored = round(size.training.cells * job.cells.validation)
    ops = sum(model.operations for model in size.models.values()) * scored
    return StageCost("evaluation", amount=ops // PIXEL_OPERATIONS)


def grid_cost(job: PopulationJob, stage: StagePlan, size: ImagesSize) -> StageCost:
    """What goes over the cells of the frames, once estimated."""
    mosaics = size.mosaics
    cells = sum(mosaics[i].cells for i in stage.stale if i < len(mosaics))
    return StageCost(
        stage.name, read=4 * cells, written=4 * cells, memory=8 * mosaics[0].cells, amount=cells
    )


def estimate_cost(job: PopulationJob, stage: StagePlan, size: ImagesSize) -> StageCost:
    """Every cell passes through every model, one tile to a task."""
    mosaics, models = [size.mosaics[i] for i in stage.stale], size.models
    sets = max(job.cells.folds, 1)
    cells = sum(images.cells for images in mosaics)
    tile_tasks = TILE_TASKS + (RING_TASKS if job.cells.context else 0)
    tasks = sum(CHUNK_TASKS * images.chunks + tile_tasks * images.tiles for images in mosaics)
    ops = sum(model.operations for model in models.values())
    widest = max(model.memory for model in models.values())
    pixels = sum(images.cells * images.pixels**2 for images in mosaics)
    return StageCost(
        "estimate",
        tasks=sets * tasks,
        read=sets * sum(images.cells * images.cell_bytes for images in mosaics),
        written=4 * len(models) * cells,
        memory=3 * max(TILE_BYTES, mosaics[0].cell_bytes) + widest,
        amount=sets * (pixels + cells * ops // PIXEL_OPERATIONS),
    )


def training_cost(job: PopulationJob, stage: StagePlan, size: ImagesSize) -> StageCost:
    """Each network of each fold takes all threads of a machine, one at a time on each."""
    name, cells, model = stage.name, size.training, size.models[stage.name]
    settings: Training = getattr(job, name)
    if settings.weights is not None:
        return StageCost(name)
    pixels = shape_of(job, size.mosaics[0])["pixels"]
    config = training_configs(kind_of(job, name), settings, pixels)[0]
    sets = max(job.cells.folds, 1)
    held = min(config.memory, cells.cells * cells.cell_bytes)
    images = -(-cells.cells // (1 if job.cells.folder else job.cells.join**2))  # once joined
    if name == "count" and not job.single_stage:
        images = min(images, cells.inhabited or images)
    ops = STEP * model.operations * images * config.epochs * sets
    return StageCost(
        name,
        read=sets * cells.cells * cells.cell_bytes,
        memory=held + config.batch_size * LAYERS * model.memory,
        amount=ops // PIXEL_OPERATIONS,
    )


def operations(network: Mapping[str, Any], pixels: int) -> tuple[int, int]:
    """Count what a network does for one image, and what it holds; nothing is computed."""
    with torch.device("meta"):
        module = build(network).eval()
        image = torch.empty(1, module.config["bands"], pixels, pixels)
    held = [0]

    def note(_: nn.Module, given: tuple[Any, ...], outputs: Any) -> None:
        tensors = [one for one in (*given, outputs) if isinstance(one, torch.Tensor)]
        held.append(sum(one.nbytes for one in tensors))

    for layer in module.modules():
        layer.register_forward_hook(note)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        module(image)
    return counter.get_total_flops(), max(held)


def _network(job: PopulationJob, name: str, images: Images) -> Network:
    settings: Training = getattr(job, name)
    if settings.weights is not None:
        known = TrainedModel.load(settings.weights)
        return Network(*operations(known.config, known.pixels))
    kind, shape = kind_of(job, name), shape_of(job, images)
    trained = training_configs(kind, settings, shape["pixels"])
    configs = [config.network_for(kind, **shape) for config in trained]
    each = [operations(config, shape["pixels"]) for config in configs]
    return Network(sum(ops for ops, _ in each), max(memory for _, memory in each))


def shape_of(job: PopulationJob, images: Images) -> dict[str, int]:
    """What a model sees of a cell: bands, pixels with the ring, and pixels of the ring."""
    ring = images.pixels * job.cells.context
    return {"bands": images.bands, "pixels": images.pixels + 2 * ring, "ring": ring}


def _labelled(job: PopulationJob, sources: Sources) -> Images:
    """The training mosaic, with as many cells as the counts have."""
    images = _images(job, sources.training, join=1)
    if job.cells.counts is None:
        return images
    grid = cell_grid(job.cells, sources.training[0])
    people = population_inputs.read_counts(job.cells.counts, grid, job.cells)["people"]
    known = images.cells if job.cells.missing == "zero" else int(people.notna().sum())
    cells, inhabited = min(known, images.cells), int((people > 0).sum())
    return replace(images, cells=cells, inhabited=min(inhabited, cells))


def _images(job: PopulationJob, paths: tuple[str, ...], join: int | None = None) -> Images:
    grid = cell_grid(job.cells, paths[0], job.cells.join if join is None else join)
    image = open_image(job, paths, grid)
    pixels = pixels_along(image, grid)
    bands, itemsize = image.sizes["band"], image.dtype.itemsize
    room = int((TILE_BYTES / itemsize / bands) ** 0.5 / pixels)
    sizes = image.data.chunks[1:]
    tiles = [tile_cells(axis, pixels, room=room, rim=job.cells.context) for axis in sizes]
    cells = prod(sum(axis) // pixels for axis in sizes)
    return Images(cells, pixels, bands, itemsize, prod(map(len, sizes)), prod(map(len, tiles)))


def following(job: PopulationJob, plan: Plan) -> list[Planned]:
    """Plan what a run of a population job begins at its end."""
    stamps = pd.DatetimeIndex(plan.times)
    form = time_form(stamps)
    then, found = job.followed(form), []
    if then is not None:
        written = ["export", *(["tables"] if then.input.intervals else [])]  # by these stages
        if all(plan[name].done for name in written):
            first = communities.PIPELINE.planned(then)
        else:
            read = pd.to_datetime(stamps.strftime(form), format=form)  # as rasters will have them
            first = _to_come(job, plan, then, read)
        # Without the advice to set chunks, which [follow] cannot.
        found.append(replace(first, costs=replace(first.costs, edge=None)))
    if job.grouped is not None:
        found.append(scenes.PIPELINE.planned(job.grouped))
    return found


def _to_come(
    job: PopulationJob, plan: Plan, then: CommunitiesJob, stamps: pd.DatetimeIndex
) -> Planned:
    """Plan the communities of rasters of which some are still to be written."""
    stale = set(plan["export"].stale)
    frame = Sources.of(job).frame(job)
    changed = covers_other_cells(job, frame)
    records = {} if changed else RegionStore(then.output.store).latest_records()
    rasters_alone = then.model_copy(
        update={"input": then.input.model_copy(update={"intervals": None})}
    )
    there = len(stale) < len(stamps)
    files = communities.PIPELINE.files(rasters_alone, records) if there else {}
    inputs = {"intervals": TO_COME} if then.input.intervals else {}
    for position, stamp in enumerate(stamps):
        time = stamp.strftime("%Y-%m-%dT%H:%M:%S")
        inputs[time] = TO_COME if position in stale else rasters.frame_version(files[time])
    stages = communities.PIPELINE.stages
    planned = decide(stages, basis(then, inputs, records))
    edge = CHUNK if then.input.chunks == "auto" else then.input.chunks
    rows, columns = frame.sizes["y"], frame.sizes["x"]
    extent = Extent(len(stamps), rows, columns, edge)
    said = (
        f"{len(stamps)} × {rows} × {columns} cells; at most, as if people lived in all of "
        "them: the rasters are still to come"
    )
    return Planned(then, planned, said, count(stages, then, planned, extent))


def _cells(run: PopulationRun, stage: StagePlan, reporter: Reporter) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", GapWarning)
        cells, dropped, outside = population_inputs.labelled_cells(run.job, run.sources)
        evaluation.check_scored(run.job, population_inputs.sides_of(run.job, cells))
    inhabited = int((cells["people"] > 0).sum())
    reporter.note(
        f"  {cells.sizes['cell']:,} labelled cells, {inhabited:,} of them inhabited; "
        f"{dropped:,} left out for want of pixels, {outside:,} counts beyond the mosaic"
    )
    for sentence in dict.fromkeys(str(warning.message) for warning in caught):
        reporter.note(f"  {sentence}")
    record = {**stage.record, "dropped": dropped, "outside": outside}
    run.work.write_group(stage.name, "cells", _for_store(cells), record)


def _totals(run: PopulationRun, stage: StagePlan, reporter: Reporter) -> None:
    cells = load_tables(run.work.group("cells"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", GapWarning)  # noted when the cells were cut
        shared = population_inputs.shared_totals(run.job, cells)
    zone = cells["zone"].values
    counts = [len(np.unique(zone[column.notna()])) for _, column in shared.items()]
    reporter.note(
        f"  {len(np.unique(zone[zone >= 0])):,} whole zones, of which models learn from "
        f"{' or '.join(f'{number:,}' for number in sorted(set(counts)))}"
    )
    run.work.write_files(stage.name, {"shared.parquet": table_bytes(shared)}, stage.record)


def kind_of(job: PopulationJob, stage: str) -> str:
    """The kind of model of a stage."""
    return job.count.kind if stage == "count" else stage


def is_gated(job: PopulationJob) -> bool:
    """Whether counts are learned where a model sees somebody, not where somebody is known to be."""
    return job.count.learns_from == "predicted" and not job.single_stage


def _learn(run: PopulationRun, stage: StagePlan, reporter: Reporter) -> None:
    """Train the models of a stage, one or one for each fold, or take the one that is given."""
    settings: Training = getattr(run.job, stage.name)
    if settings.weights is not None:
        model = _given(settings.weights, kind_of(run.job, stage.name))
        files = {f"{stage.name}.safetensors": model.to_bytes()}
        run.work.write_files(stage.name, files, stage.record)
        return
    trainings = _trainings(run, stage, reporter)
    trained = iter(on_machines([start for each in trainings.values() for _, start in each]))
    files, checkpoints = {}, []
    for name, each in trainings.items():
        members = list(islice(trained, len(each)))
        files[name] = (members[0] if len(members) == 1 else mean_of(members)).to_bytes()
        checkpoints += [path for path, _ in each]
    run.work.write_files(stage.name, files, stage.record)
    for path in checkpoints:  # what they are for is stored now
        path.unlink(missing_ok=True)
    if not any(path.parent.iterdir()):
        path.parent.rmdir()


def _trainings(
    run: PopulationRun, stage: StagePlan, reporter: Reporter
) -> dict[str, list[tuple[Path, Start]]]:
    """The trainings of each file's networks, to be started, with their checkpoints."""
    kind, splits = kind_of(run.job, stage.name), run.splits()
    evaluation.check_scored(run.job, splits)
    settings: Training = getattr(run.job, stage.name)
    gated = stage.name == "count" and is_gated(run.job)
    gates = run.models("presence") if gated else [None] * len(splits)
    found: dict[str, list[tuple[Path, Start]]] = {}
    pixels = image_shape(splits[0])["pixels"]
    if training_networks(kind, settings, pixels) != settings.members:
        reporter.note(
            f"  images of {pixels} pixels are too small for the published network, which takes "
            f"{LEAST_PIXELS}: {kind} is learned by trees and a ridge on features"
        )
    configs = training_configs(kind, settings, pixels, len(run.job.input.bands))
    for fold, (cells, gate) in enumerate(zip(splits, gates, strict=True)):
        name = FOLD_FILE.format(stage=stage.name, fold=fold)
        name = name if run.job.cells.folds else f"{stage.name}.safetensors"
        found[name] = []
        for number, config in enumerate(configs):
            own = name if len(configs) == 1 else f"{number}-{name}"
            checkpoint = _checkpoint(run.job, own)
            start = partial(
                on_worker,
                train,
                cells,
                kind,
                config,
                gate=gate,
                checkpoint=checkpoint,
                identity=stage.record["model"],
                stale="discard",
                device=settings.device,
                on_progress=partial(_note_epoch, reporter, own),
            )
            found[name].append((checkpoint, start))
    return found


def _estimate(run: PopulationRun, stage: StagePlan, reporter: Reporter) -> None:
    rules = choose_rules(run, reporter)
    models = list(zip(run.models("presence"), run.models("count"), rules, strict=True))
    if not run.has_folds:
        models = models[:1]
    frames = []
    if run.earlier:
        kept = ", ".join(time[:10] for time in run.earlier)
        reporter.note(f"  kept from the last run, which had other cells: {kept}")
    with on_gpus():
        for time, paths in run.sources.mosaics.items():
            if iso(time) in run.earlier:
                frames.append(_on_frame(run.earlier[iso(time)], run.frame, run.grid))
                continue
            image = open_image(run.job, paths, run.grid)
            found = [_estimated(run, image, *each) for each in models]
            frames.append(_on_frame(_of_blind(run, found), run.frame, run.grid))
    arrays = xr.concat(frames, "time").assign_coords(run.frame.coords)
    record = {**stage.record, "rules": rules}
    run.work.write_frames(stage.name, arrays, stage.stale, record)


def _estimated(
    run: PopulationRun,
    image: xr.DataArray,
    presence: TrainedModel | None,
    count: TrainedModel | None,
    rule: Joining,
) -> xr.Dataset:
    settings = run.job.estimate
    return estimate(
        image,
        presence,
        count,
        cell_size=run.grid,
        rule=rule,
        threshold=settings.threshold,
        batch_size=settings.batch_size,
        device=settings.device,
    )


def _of_blind(run: PopulationRun, found: list[xr.Dataset]) -> xr.Dataset:
    """One estimate of each cell: that of the model that has not seen it, else the mean of all."""
    if len(found) == 1:
        return found[0]
    cells = run.work.group("cells")
    north, east, fold = (cells[name].values for name in ("north", "east", "fold"))
    grid = cells_grid(cells)
    norths, easts = grid.covering(tuple(grid_of(found[0]).boundingbox))
    blind = np.full((len(norths), len(easts)), -1, np.int8)
    inside = (north >= norths.start) & (north < norths.stop)
    inside &= (east >= easts.start) & (east < easts.stop) & (fold >= 0)
    blind[norths.stop - 1 - north[inside], east[inside] - easts.start] = fold[inside]
    which = xr.DataArray(blind, dims=("y", "x"))
    combined = sum(found[1:], found[0]) / len(found)
    for number, one in enumerate(found):
        combined = xr.where(which.data == number, one, combined, keep_attrs=True)
    return combined.astype("float32").assign_coords(found[0].coords)


def _on_frame(found: xr.Dataset, frame: xr.Dataset, grid: CellGrid) -> xr.Dataset:
    """Lay an estimate onto the cells of all mosaics."""
    near = grid.size / 10
    laid = found.reindex(y=frame["y"], x=frame["x"], method="nearest", tolerance=near)
    return laid.assign_coords(y=frame["y"], x=frame["x"])


def _census(run: PopulationRun, stage: StagePlan, reporter: Reporter) -> None:
    settings = run.job.census
    assert settings is not None
    stored, stale = run.work.dataset(), set(stage.stale)
    frames, reports = [], []
    for position, time in enumerate(stored["time"].values):
        now = stored.isel(time=position, drop=True)
        if position not in stale:  # stored already
            frames.append(now.get("census_population", now["population"].astype("float64")))
            continue
        kept = keep_totals(settings, now["population"], now.get("presence"))
        frames.append(round_to_totals(kept) if settings.whole else kept["population"])
        reports.append(dasymetric.zone_report(kept).assign(time=time))
    fitted = xr.concat(frames, "time").assign_coords(run.frame.coords)
    files = run.merged(stage, {"zones": pd.concat(reports, ignore_index=True)})
    run.work.write_files("zones", files, {"frames": {}, "of": stage.name})
    arrays = fitted.to_dataset(name="census_population")
    run.work.write_frames(stage.name, arrays, stage.stale, stage.record)


def keep_totals(
    settings: Census, population: xr.DataArray, presence: xr.DataArray | None = None
) -> xr.Dataset:
    """Scale estimates to the totals of a job's zones."""
    rules = settings.model_dump(include={"name", "inhabited_from", "unzoned", "partial"})
    totals = settings.table or settings.totals
    return dasymetric.adjust_to_totals(
        population, settings.zones, totals, presence=presence, **rules
    )


def _evaluation(run: PopulationRun, stage: StagePlan, reporter: Reporter) -> None:
    judged, learned = add_intervals(run, evaluation.judge(run, reporter), reporter)
    settings = run.job.estimate
    tables = {**evaluation.score(judged, settings.threshold, run.job.cells.block), **learned}
    content = {f"{name}.parquet": table_bytes(table) for name, table in tables.items()}
    run.work.write_files(stage.name, content, stage.record)


def _given(path: str, kind: str) -> TrainedModel:
    model = TrainedModel.load(path)
    if model.kind != kind:
        raise InputError(
            f"{path} is a model of {model.kind}, and [presence] or [count] asks for {kind}: give "
            "the weights of such a model"
        )
    return model


def _checkpoint(job: PopulationJob, name: str) -> Path:
    """Where a training puts down its state: in the local folder of the job."""
    folder = job.export_folder / "training"
    folder.mkdir(parents=True, exist_ok=True)
    return folder / name


def _note_epoch(reporter: Reporter, name: str, progress: Mapping[str, Any]) -> None:
    reporter.note(
        f"  {name}: epoch {progress['epoch']} of at most {progress['epochs']}, loss "
        f"{progress['training']:.4g}, validation {progress['validation']:.4g}"
    )


def _for_store(cells: xr.Dataset) -> xr.Dataset:
    """Cells in the chunks and types that are stored."""
    each = int(np.prod(cells["images"].shape[1:])) * cells["images"].dtype.itemsize
    step = max(1, min(64, 2**27 // each))
    return cells.chunk({"cell": step, "band": -1, "row": -1, "col": -1})


def _reading(basis: Basis) -> dict[str, Any]:
    """What reading images depends on, beside the images."""
    job = basis.job
    sources, files = basis.inputs
    reading: dict[str, Any] = job.input.model_dump(mode="json", include={"align", "nodata"})
    if job.input.bands:
        rules = [band.model_dump(mode="json", exclude={"path"}) for band in job.input.bands]
        places = [sources.others[f"bands.{number}"] for number in range(len(rules))]
        reading["bands"] = [rules, checksums(files, places)]
    return reading


def _plain(table: Settings) -> dict[str, Any]:
    return table.model_dump(mode="json", exclude=_WITHOUT_EFFECT)


def _cells_print(basis: Basis) -> str:
    """The fingerprint of the labelled cells, also where none are learned from."""
    sources, files = basis.inputs
    labelled = checksums(files, (*sources.training, *sources.counts))
    cells = _plain(basis.job.cells)
    if isinstance(cells["totals"], str):
        cells["totals"] = checksums(files, [sources.others["cells.totals"]])
    return fingerprint(CELLS.name, CELLS.version, labelled, _reading(basis), cells)


def _presence_record(basis: Basis, of: Fingerprint) -> Record | None:
    if basis.job.single_stage:
        return None
    return _model_record(basis, "presence", basis.job.presence, None, of)


def _count_record(basis: Basis, of: Fingerprint) -> Record:
    gate = basis.wanted["presence"]["model"] if is_gated(basis.job) else None
    return _model_record(basis, "count", basis.job.count, gate, of)


def _model_record(
    basis: Basis, stage: str, training: Training, gate: str | None, of: Fingerprint
) -> Record:
    sources, files = basis.inputs
    if training.weights is not None:
        model = of(checksums(files, [sources.others[f"{stage}.weights"]]))
    else:
        shared = [basis.wanted["totals"]["frames"]] if "totals" in basis.wanted else []
        configs = training_configs(kind_of(basis.job, stage), training, LEAST_PIXELS)
        # Networks that are listed again once had the seed of the first: those are not taken.
        again = [config.seed for config in configs if config.seed != training.seed]
        model = of(_cells_print(basis), _plain(training), gate, *shared, *again)
    return {"frames": {WHOLE: model}, "model": model}


def _rule(basis: Basis) -> list[Any]:
    """What estimates depend on beside the images."""
    job = basis.job
    grid = job.cells.model_dump(mode="json", include={"grid", "size", "crs", "resolution", "join"})
    trained = [stage for stage in ("presence", "count") if stage in basis.wanted]
    models = {stage: basis.wanted[stage]["model"] for stage in trained}
    return [job.estimate.rule, job.estimate.threshold, grid, models, _reading(basis)]


def _estimate_record(basis: Basis, of: Fingerprint) -> Record:
    sources, files = basis.inputs
    mosaics = {iso(time): checksums(files, paths) for time, paths in sources.mosaics.items()}
    return {"frames": {time: of(sums, _rule(basis)) for time, sums in mosaics.items()}}


def _census_record(basis: Basis, of: Fingerprint) -> Record | None:
    sources, files = basis.inputs
    if basis.job.census is None:
        return None
    names = [name for name in sources.others if name.startswith("census.")]
    places = [sources.others[name] for name in names]
    zones = [_plain(basis.job.census), names, checksums(files, places)]
    return {"frames": {t: of(zones, print_) for t, print_ in basis.frames("estimate").items()}}


def _evaluation_record(basis: Basis, of: Fingerprint) -> Record | None:
    job = basis.job
    sources, files = basis.inputs
    truth = {iso(time): checksums(files, paths) for time, paths in sources.truth.items()}
    if not (job.cells.labelled or truth):
        return None
    known = [job.truth and _plain(job.truth), truth, _cells_print(basis)]
    known += [job.cells.block, _rule(basis), *_sure(basis)]
    return {"frames": {WHOLE: of(known, basis.frames("estimate") if truth else None)}}


def _sure(basis: Basis) -> list[Any]:
    """The settings that intervals are learned by, where there are any."""
    settings = basis.job.intervals
    exclude = _WITHOUT_EFFECT | {"name"}  # which polygons have them is nothing of learning
    if settings is None:
        return []
    # Tables of before had no size of cells, without which other jobs cannot take them.
    return ["cell_size", settings.model_dump(mode="json", exclude=exclude)]


def _intervals_record(basis: Basis, of: Fingerprint) -> Record | None:
    cells, settings, (sources, files) = basis.job.cells, basis.job.intervals, basis.inputs
    if settings is None:
        return None
    learned = [_sure(basis), _cells_print(basis), cells.block, cells.seed, _rule(basis)]
    if settings.zones is not None:
        learned += [settings.name, checksums(files, [sources.others["intervals.zones"]])]
    learned += [basis.wanted[stage]["frames"] for stage in ("evaluation",) if stage in basis.wanted]
    return {"frames": {t: of(learned, print_) for t, print_ in basis.frames("estimate").items()}}


def _final(basis: Basis) -> Mapping[str, str]:
    """The fingerprints of the people that are exported."""
    return basis.frames("census" if "census" in basis.wanted else "estimate")


def _export_record(basis: Basis, of: Fingerprint) -> Record | None:
    if "cog" not in basis.job.output.export:
        return None
    sure = basis.frames("intervals") if "intervals" in basis.wanted else {}
    frames = {t: of(basis.job.name, sure.get(t), print_) for t, print_ in _final(basis).items()}
    return {"frames": frames}


def _tables_record(basis: Basis, of: Fingerprint) -> Record | None:
    formats = set(basis.job.output.export) - {"cog"}
    if not formats:
        return None
    scored = basis.wanted.get("evaluation")
    more: list[Any] = [basis.frames("intervals")] if "intervals" in basis.wanted else []
    more += [basis.job.naming] if "zarr" in formats else []  # which says it of itself
    return {"frames": {WHOLE: of(basis.job.name, sorted(formats), _final(basis), scored, *more)}}


_stage = partial(Stage, reads_files=True)  # the versions of all files go on record with each

CELLS = _stage(
    "cells",
    version=3,
    needs=(),
    wanted=lambda basis, of: (
        {"frames": {WHOLE: _cells_print(basis)}} if basis.job.cells.labelled else None
    ),
    cost=cells_cost,
    compute=_cells,
    anywhere=True,
)
TOTALS = _stage(
    "totals",
    needs=("cells",),
    wanted=lambda basis, of: (
        None if basis.job.cells.totals is None else {"frames": {WHOLE: of(_cells_print(basis))}}
    ),
    cost=cells_cost,
    compute=_totals,
    anywhere=True,
)
PRESENCE = _stage(
    "presence",
    version=6,
    needs=("cells", "totals"),
    wanted=_presence_record,
    cost=training_cost,
    compute=_learn,
    anywhere=True,
    writes_files=True,
)
COUNT = _stage(
    "count",
    version=8,
    needs=("cells", "totals", "presence"),
    wanted=_count_record,
    cost=training_cost,
    compute=_learn,
    anywhere=True,
    writes_files=True,
)
ESTIMATE = _stage(
    "estimate",
    version=4,
    needs=("cells", "presence", "count"),
    wanted=_estimate_record,
    cost=estimate_cost,
    compute=_estimate,
)
CENSUS = _stage(
    "census",
    needs=("estimate",),
    wanted=_census_record,
    cost=grid_cost,
    compute=_census,
    table=True,
)
EVALUATION = _stage(
    "evaluation",
    version=5,
    needs=("cells", "presence", "count", "estimate"),
    wanted=_evaluation_record,
    cost=evaluation_cost,
    compute=_evaluation,
    table=True,
    anywhere=True,
)
INTERVALS = _stage(
    "intervals",
    version=2,
    needs=("estimate", "evaluation"),
    wanted=_intervals_record,
    cost=grid_cost,
    compute=lay_intervals,
    table=True,
)
EXPORT = _stage(
    "export",
    version=2,
    needs=("estimate", "intervals", "census"),
    wanted=_export_record,
    cost=grid_cost,
    compute=partial(write_exports, content, {"cog"}),
    table=True,
    writes_files=True,
)
TABLES = _stage(
    "tables",
    version=2,
    needs=("estimate", "evaluation", "intervals", "census", "export"),
    wanted=_tables_record,
    cost=grid_cost,
    compute=partial(write_exports, content, FORMATS.keys() - {"cog"}),
    writes_files=True,
)
STAGES = (
    CELLS, TOTALS, PRESENCE, COUNT, ESTIMATE, EVALUATION, INTERVALS, CENSUS, EXPORT, TABLES
)  # fmt: skip
"""The stages of the population job, in their order."""
