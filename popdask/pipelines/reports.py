"""The report of a job: what it shows, where it lies, and whom it credits."""

from __future__ import annotations

from pathlib import Path

from popdask.job import Job
from popdask.pipelines import product
from popdask.pipelines.conductor import own_store
from popdask.pipelines.page import write_page
from popdask.progress import Reporter
from popdask.store import MAIN


def report(
    job: Job,
    reporter: Reporter | None = None,
    *,
    folder: Path | None = None,
) -> Path:
    """Write the report of a job's results.

    Parameters
    ----------
    job
        The settings of the run.
    reporter
        Is told of the work; without it, nothing is said.
    folder
        Where the page goes; by default, the job's local folder, ``job.export_folder``.

    Returns
    -------
    Path
        ``<job>_report.html`` in the folder.

    Raises
    ------
    InputError
        If no run is finished yet, the store's models are not those of the job's settings, or the
        images or known people that its pictures show are not there any more.
    """
    region = own_store(job)
    with (reporter or Reporter()).stage("report", "to do"):
        folder = folder or job.export_folder
        return write_page(job, region, MAIN, folder, product(job).illustrate, region.run_record())
