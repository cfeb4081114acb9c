"""The report of a scenes job: the map of groups, and how alike cells look."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from popdask import figures
from popdask.imagery.scenes import scene_examples
from popdask.job import ScenesJob
from popdask.pipelines.images import by_time, cell_grid, open_image
from popdask.pipelines.reports import write_job_report
from popdask.progress import Reporter
from popdask.report import Picture
from popdask.store import MAIN, RegionStore


def report(
    job: ScenesJob,
    reporter: Reporter | None = None,
    *,
    branch: str = MAIN,
    record: Mapping[str, Any] | None = None,
    folder: Path | None = None,
) -> Path:
    """Write the report of a job's results.

    Parameters
    ----------
    job
        The settings of the run.
    reporter
        Is told of the work; without it, nothing is said.
    branch
        The branch of the results; by default, what readers see.
    record
        The record of the run; by default, that of the last finished one.
    folder
        Where the page goes; by default, the job's local folder, ``job.export_folder``.

    Returns
    -------
    Path
        ``<job>_report.html`` in the folder.

    Raises
    ------
    InputError
        If no run is finished yet, or the mosaic is not there any more.
    """
    region = RegionStore(job.output.store)
    groups = region.group("groups", branch).load()
    record = region.run_record() if record is None else record
    with (reporter or Reporter()).stage("report", "to do"):
        paths = next(iter(by_time(job.input.mosaic, job.input).values()))
        examples = scene_examples(groups, open_image(job, paths, cell_grid(job.cells, paths[0])))
        plot = Picture(
            "How alike cells look",
            "Every dot is a cell: near ones look alike. The pictures are examples.",
            figures.scene_plot_figure(groups, examples),
        )
        return write_job_report(job, region, record, [plot], branch, folder)
