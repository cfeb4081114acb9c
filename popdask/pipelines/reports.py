"""The report of a job: what it shows, where it lies, and whom it credits."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from popdask.job import Job
from popdask.pipelines import product
from popdask.pipelines.conductor import own_store
from popdask.pipelines.credits import credits_of
from popdask.progress import Reporter
from popdask.report import write_report
from popdask.store import MAIN


def report(
    job: Job,
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
        If no run is finished yet, the store's models are not those of the job's settings, or the
        images or known people that its pictures show are not there any more.
    """
    region = own_store(job)
    record = region.run_record() if record is None else record
    with (reporter or Reporter()).stage("report", "to do"):
        return write_report(
            region,
            (folder or job.export_folder) / f"{job.name}_report.html",
            pictures=product(job).illustrate(job, region, branch),
            credits=credits_of(record),
            branch=branch,
            record=record,
        )
