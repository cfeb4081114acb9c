"""The page of a job: what it shows, where it lies, and whom it credits."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from popdask.job import Job
from popdask.pipelines.credits import credits_of
from popdask.report import Picture, write_report
from popdask.store import RegionStore

#: Draws the pictures of a job, from its store and a branch of it.
Illustrate = Callable[[Any, RegionStore, str], Iterable[Picture]]


def write_page(
    job: Job,
    region: RegionStore,
    branch: str,
    folder: Path,
    illustrate: Illustrate,
    record: Mapping[str, Any],
) -> Path:
    """Write the report of the results on a branch into a folder."""
    return write_report(
        region,
        folder / f"{job.name}_report.html",
        pictures=illustrate(job, region, branch),
        credits=credits_of(record),
        branch=branch,
        record=record,
    )
