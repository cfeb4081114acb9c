"""The report of a run: where it lies, and whom it credits."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from popdask.job import Job
from popdask.pipelines.credits import credits_of
from popdask.report import Picture, write_report
from popdask.store import MAIN, RegionStore


def write_job_report(
    job: Job,
    region: RegionStore,
    record: Mapping[str, Any],
    pictures: Iterable[Picture],
    branch: str = MAIN,
    folder: Path | None = None,
) -> Path:
    """Write the report of a job as ``<job>_report.html`` in a folder.

    Parameters
    ----------
    job
        The settings of the run.
    region
        Its results.
    record
        The record of the run, as of :meth:`popdask.store.RegionStore.run_record`.
    pictures
        What the report shows beside its map, plots and tables.
    branch
        The branch of the results; by default, what readers see.
    folder
        Where the page goes; by default, the job's local folder.

    Returns
    -------
    Path
    """
    return write_report(
        region,
        (folder or job.export_folder) / f"{job.name}_report.html",
        pictures=pictures,
        credits=credits_of(record),
        branch=branch,
        record=record,
    )
