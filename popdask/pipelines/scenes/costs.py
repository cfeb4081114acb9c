"""What the stages of the scenes job cost, counted from the header of its mosaic."""

from __future__ import annotations

from popdask.imagery.grid import block_side
from popdask.imagery.scenes.appearance import FEATURES
from popdask.job import ScenesJob
from popdask.pipelines.costs import Costs, StageCost
from popdask.pipelines.images import by_time, cell_grid, open_image
from popdask.pipelines.plan import Plan

#: Operations of EfficientNet-B3 for an image of 300 × 300 pixels (Tan and Le 2019: 1.8 × 10⁹
#: multiplications, each with its addition), and the bytes of its widest layers.
OPERATIONS, LAYERS = 3.7e9, 80 * 2**20
SIDE = 300

BLOCK_TASKS = 6  # for each block of cells, reading and storing included


def costs(job: ScenesJob, plan: Plan) -> Costs:
    """Count what a run costs; of the mosaic the header is read.

    Grouping is counted in bytes and memory, not in time: how long UMAP takes depends on the cells.

    Parameters
    ----------
    job
        The settings.
    plan
        What there is to compute.

    Returns
    -------
    Costs
    """
    paths = next(iter(by_time(job.input.mosaic, job.input).values()))
    grid = cell_grid(job.cells, paths[0])
    image = open_image(job, paths, grid)
    pixels = round(grid.size / abs(float(image["x"][1] - image["x"][0])))
    rows, columns = (image.sizes[axis] // pixels for axis in ("y", "x"))
    cells, side = rows * columns, block_side(pixels)
    blocks = -(-rows // side) * -(-columns // side)
    scale, block = (job.features.size / SIDE) ** 2, side**2 * image[:, :pixels, :pixels].nbytes
    work = {"network per operation": round(cells * OPERATIONS * scale)}
    described = 4 * FEATURES * cells
    known = {
        "features": StageCost(
            "features",
            tasks=BLOCK_TASKS * blocks,
            read=image.nbytes,
            written=described,
            memory=round(LAYERS * scale) + 3 * block,
            parts=blocks,
            shared={**work, "image per pixel": cells * pixels**2},
        ),
        "groups": StageCost("groups", read=described, written=8 * cells, memory=2 * described),
        "export": StageCost("export", read=8 * cells, written=8 * cells),
    }
    stages = {stage.name: known[stage.name] for stage in plan if not stage.done}
    return Costs(stages, blocks)
