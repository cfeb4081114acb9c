"""The report of a scenes job: the map of groups, and how alike cells look."""

from __future__ import annotations

from collections.abc import Iterator

from popdask import figures
from popdask.imagery.scenes import scene_examples
from popdask.job import ScenesJob
from popdask.pipelines.images import by_time, cell_grid, open_image
from popdask.report import Picture
from popdask.store import RegionStore


def illustrate(job: ScenesJob, region: RegionStore, branch: str) -> Iterator[Picture]:
    """Draw the plot of cells by how alike they look, with examples."""
    groups = region.group("groups", branch).load()
    paths = next(iter(by_time(job.input.mosaic, job.input).values()))
    examples = scene_examples(groups, open_image(job, paths, cell_grid(job.cells, paths[0])))
    yield Picture(
        "How alike cells look",
        "Every dot is a cell: near ones look alike. The pictures are examples.",
        figures.scene_plot_figure(groups, examples),
    )
