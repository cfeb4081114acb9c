"""What the stages of the population job cost, counted from the headers of its mosaics.

Upper estimates where nothing but the images could tell: every estimated cell counts as inhabited,
every labelled cell as one with pixels, and training goes through all of its epochs. What follows
the run (communities, scenes) is planned by itself once the estimates are there.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod

from popdask.imagery.inference import tile_cells
from popdask.imagery.inference.estimation import TILE_BYTES
from popdask.imagery.models import TrainedModel
from popdask.job import PopulationJob
from popdask.job.population import Training
from popdask.pipelines.costs import Costs, StageCost
from popdask.pipelines.images import cell_grid, open_image
from popdask.pipelines.plan import Plan, StagePlan
from popdask.pipelines.population import reading
from popdask.pipelines.population.sources import Sources
from popdask.pipelines.population.speed import operations
from popdask.pipelines.population.stages import training_config

#: Tasks of an estimate: for each chunk of the mosaic, for each tile, and for a tile with a ring.
CHUNK_TASKS, TILE_TASKS, RING_TASKS = 3, 5, 18

STEP = 3  # times the operations of an estimate that training takes for a cell: forth, and back
LAYERS = 4  # times the widest layer that it holds for a cell: what the way back needs
BATCH = 64  # cells that a training step holds


@dataclass(frozen=True)
class Images:
    """How much a mosaic is."""

    cells: int
    """Cells of the grid that it touches."""
    pixels: int
    """Pixels along a side of a cell."""
    bands: int
    """Bands."""
    itemsize: int
    """Bytes of a number."""
    chunks: int
    """Chunks of pixels that are read."""
    tiles: int
    """Tiles that are estimated, each by one task."""
    inhabited: int = 0
    """Cells that are known to be inhabited."""

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


def costs(job: PopulationJob, plan: Plan) -> Costs:
    """Count what a run costs; of the mosaics the headers are read.

    Parameters
    ----------
    job
        The settings.
    plan
        What there is to compute.

    Returns
    -------
    Costs

    Raises
    ------
    InputError
        If a mosaic cannot be opened, or does not fit the grid.
    """
    sources = Sources.of(job)
    mosaics = [_images(job, paths) for paths in sources.mosaics.values()]
    folder = job.cells.folder is not None  # a file for each cell: about as many as the mosaic has
    training = mosaics[0] if folder else _labelled(job, sources)
    models = {
        name: _network(job, name, mosaics[0])
        for name in ("presence", "count")
        if name in plan.stages
    }
    stages = {
        stage.name: _stage(job, stage, mosaics, training, models)
        for stage in plan
        if not stage.done
    }
    return Costs(stages, sum(images.chunks for images in mosaics))


def _stage(
    job: PopulationJob,
    stage: StagePlan,
    mosaics: list[Images],
    training: Images,
    models: dict[str, Network],
) -> StageCost:
    if stage.name in models:
        return _training(job, stage.name, training, models[stage.name])
    pixels = training.cells * training.pixels**2
    size = training.cells * training.cell_bytes
    if stage.name == "cells":
        tasks = CHUNK_TASKS * training.chunks + TILE_TASKS * -(-training.cells // BATCH)
        held = 2 * BATCH * training.cell_bytes
        work = {"image per pixel": pixels}
        return StageCost("cells", tasks, size, size, held, training.chunks, work)
    if stage.name == "estimate":
        return _estimate(job, [mosaics[i] for i in stage.stale], models)
    if stage.name == "evaluation":
        scored = round(training.cells * job.cells.validation)
        ops = sum(model.operations for model in models.values()) * scored
        return StageCost("evaluation", alone={"network per operation": ops})
    cells = 4 * sum(mosaics[i].cells for i in stage.stale if i < len(mosaics))
    return StageCost(stage.name, read=cells, written=cells, memory=8 * mosaics[0].cells)


def _estimate(job: PopulationJob, mosaics: list[Images], models: dict[str, Network]) -> StageCost:
    """Every cell passes through every model, one tile to a task."""
    sets = max(job.cells.folds, 1)
    cells = sum(images.cells for images in mosaics)
    tile_tasks = TILE_TASKS + (RING_TASKS if job.cells.context else 0)
    tasks = sum(CHUNK_TASKS * images.chunks + tile_tasks * images.tiles for images in mosaics)
    ops = sum(model.operations for model in models.values())
    widest = max(model.memory for model in models.values())
    return StageCost(
        "estimate",
        tasks=sets * tasks,
        read=sets * sum(images.cells * images.cell_bytes for images in mosaics),
        written=4 * len(models) * cells,
        memory=3 * max(TILE_BYTES, mosaics[0].cell_bytes) + widest,
        parts=sum(images.tiles for images in mosaics),
        shared={
            "network per operation": sets * cells * ops,
            "image per pixel": sets * sum(i.cells * i.pixels**2 for i in mosaics),
        },
    )


def _training(job: PopulationJob, name: str, cells: Images, model: Network) -> StageCost:
    """One task trains a model, or each of the folds one, on all threads of the machine."""
    settings: Training = getattr(job, name)
    if settings.weights is not None:
        return StageCost(name)
    config = training_config(job.count.kind if name == "count" else name, settings)
    sets = max(job.cells.folds, 1)
    held = min(config.memory, cells.cells * cells.cell_bytes)
    seen = cells.inhabited if name == "count" and not job.single_stage else cells.cells
    ops = STEP * model.operations * (seen or cells.cells) * config.epochs * sets
    return StageCost(
        name,
        read=sets * cells.cells * cells.cell_bytes,
        memory=held + config.batch_size * LAYERS * model.memory,
        parts=config.threads or 2**10,
        shared={"network per operation": ops},
    )


def _network(job: PopulationJob, name: str, images: Images) -> Network:
    settings: Training = getattr(job, name)
    if settings.weights is not None:
        known = TrainedModel.load(settings.weights)
        return Network(*operations(known.config, known.pixels))
    kind = job.count.kind if name == "count" else name
    ring = job.cells.context
    pixels = images.pixels * (2 * ring + 1)
    config = training_config(kind, settings).network_for(
        kind, bands=images.bands, pixels=images.pixels, ring=ring
    )
    return Network(*operations(config, pixels))


def _labelled(job: PopulationJob, sources: Sources) -> Images:
    """The training mosaic, with as many cells as the counts tell of."""
    images = _images(job, sources.training, join=1)
    if job.cells.counts is None:
        return images
    grid = cell_grid(job.cells, sources.training[0])
    people = reading.read_counts(job.cells.counts, grid, job.cells)["people"]
    known = images.cells if job.cells.absent == "nobody" else int(people.notna().sum())
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
