"""What a population job costs, with the jobs that follow it.

What the stages of the population job cost, counted from the headers of its mosaics.

Upper estimates where nothing but the images could tell: every estimated cell counts as inhabited,
every labelled cell as one with pixels, and training goes through all of its epochs. What follows
the run (communities, scenes) is planned by itself once the estimates are there.

What a population job begins at its end, planned with it: communities, and groups of scenes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import pandas as pd
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from popdask.config.jobs import CommunitiesJob, PopulationJob, Training
from popdask.config.settings import Job
from popdask.imagery.estimate import TILE_BYTES, tile_cells
from popdask.imagery.model import TrainedModel, build
from popdask.io import export, rasters
from popdask.io.cube import CHUNK
from popdask.store.repository import RegionStore
from popdask.workflow import communities, population_inputs, scenes
from popdask.workflow.frame_stages import Extent, basis
from popdask.workflow.inputs import cell_grid, frame_grid, open_image
from popdask.workflow.plan import PIXEL_OPERATIONS, Costs, Plan, StageCost, StagePlan, decide
from popdask.workflow.population_inputs import Sources, covers_other_cells, training_configs
from popdask.workflow.runner import Pipeline, count

#: Tasks of an estimate: for each chunk of the mosaic, for each tile, and for a tile with a ring.
CHUNK_TASKS, TILE_TASKS, RING_TASKS = 3, 5, 18

STEP = 3  # times the operations of an estimate that training takes for a cell: forth, and back
LAYERS = 4  # times the widest layer that it holds for a cell: what the way back needs
BATCH = 64  # cells that a training step holds
#: Stands for the version of a raster that the run will write.
TO_COME = "to come"


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
    kind, seen = job.count.kind if name == "count" else name, shape_of(job, size.mosaics[0])
    config = training_configs(kind, settings, seen["pixels"])[0]
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
    kind = job.count.kind if name == "count" else name
    shape = shape_of(job, images)
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
    pixels = round(grid.size / abs(float(image["x"][1] - image["x"][0])))
    bands, itemsize = image.sizes["band"], image.dtype.itemsize
    room = int((TILE_BYTES / itemsize / bands) ** 0.5 / pixels)
    sizes = image.data.chunks[1:]
    tiles = [tile_cells(axis, pixels, room=room, rim=job.cells.context) for axis in sizes]
    cells = prod(sum(axis) // pixels for axis in sizes)
    return Images(cells, pixels, bands, itemsize, prod(map(len, sizes)), prod(map(len, tiles)))


@dataclass(frozen=True)
class Following:
    """A job that a run of another begins at its end."""

    job: Job  # its settings
    plan: Plan  # what it will compute
    extent: str  # how much it is
    costs: Costs  # what that costs


def following(job: PopulationJob, plan: Plan) -> list[Following]:
    """Plan what follows a population job."""
    stamps = pd.DatetimeIndex(plan.times)
    form = export.time_form(stamps)
    then, found = job.followed(form), []
    if then is not None and all(plan[name].done for name in _followed_stages(then)):
        found.append(_without_chunks(_planned(communities.PIPELINE, then)))
    elif then is not None:
        read = pd.to_datetime(stamps.strftime(form), format=form)  # as the rasters will have them
        found.append(_without_chunks(_to_come(job, plan, then, read)))
    if job.grouped is not None:
        found.append(_planned(scenes.PIPELINE, job.grouped))
    return found


def _followed_stages(then: CommunitiesJob) -> list[str]:
    """The stages that write what the communities are made from."""
    return ["export", *(["tables"] if then.input.intervals else [])]


def _planned(pipeline: Pipeline, job: Job) -> Following:
    """Plan a job of which the images or rasters are there."""
    plan = pipeline.plan(job)
    return Following(job, plan, pipeline.extent(job), pipeline.costs(job, plan))


def _without_chunks(one: Following) -> Following:
    """Leave out the advice to set chunks, which ``[follow]`` cannot."""
    return replace(one, costs=replace(one.costs, edge=None))


def _to_come(
    job: PopulationJob, plan: Plan, then: CommunitiesJob, stamps: pd.DatetimeIndex
) -> Following:
    """Plan the communities of rasters of which some are still to be written."""
    stale = set(plan["export"].stale)
    records = {} if covers_other_cells(job) else RegionStore(then.output.store).latest_records()
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
    mosaics = Sources.of(job).mosaics
    grid = cell_grid(job.cells, next(iter(mosaics.values()))[0], job.cells.join)
    sizes = frame_grid(job, mosaics, grid).sizes
    edge = CHUNK if then.input.chunks == "auto" else then.input.chunks
    extent = Extent(len(stamps), sizes["y"], sizes["x"], edge)
    said = (
        f"{len(stamps)} × {sizes['y']} × {sizes['x']} cells; at most, as if people lived in all of "
        "them: the rasters are still to come"
    )
    return Following(then, planned, said, count(stages, then, planned, extent))
