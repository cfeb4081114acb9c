"""The report of a population job: the estimate, its scores, and what the models look at."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from pathlib import Path

from popdask.job import PopulationJob
from popdask.pipelines.credits import credits_of
from popdask.pipelines.population import pictures
from popdask.progress import Reporter
from popdask.report import Picture, write_report
from popdask.store import RegionStore

#: Title of each kind of picture, and how to read it; figures of other kinds are left out.
WORDS = {
    "error": (
        "Where the estimate errs",
        "Too many people and too few, cell by cell, where the truth is known.",
    ),
    "agreement": (
        "Estimate against truth",
        "Each cell by its true and its estimated people; a perfect estimate lies on the line.",
    ),
    "confusion": (
        "Inhabited or not",
        "Cells that are called empty or inhabited, by whether they are.",
    ),
    "density": (
        "Errors by density",
        "How large errors are, by how many people truly live in a cell.",
    ),
    "loss": (
        "How a model learned",
        "The error on the cells that it learned from and on those held back, after each round. The "
        "best round on the latter is the one that is kept.",
    ),
    "why": (
        "What speaks for people",
        "Bright places are those that the model looked at (Grad-CAM), for its best, typical and "
        "worst cells.",
    ),
}


def report(job: PopulationJob, reporter: Reporter | None = None) -> Path:
    """Write the report of a job's last finished run.

    Parameters
    ----------
    job
        The settings of the run.
    reporter
        Is told of the work; without it, nothing is said.

    Returns
    -------
    Path
        ``<job>_report.html`` in the job's export folder. The picture of `explain` is in it if it
        was drawn.

    Raises
    ------
    InputError
        If no run is finished yet, or the files of known people are not there any more.
    """
    region = RegionStore(job.output.store)
    record = region.run_record()
    with (reporter or Reporter()).stage("report", "to do"):
        return write_report(
            region,
            job.export_folder / f"{job.name}_report.html",
            pictures=_pictures(job, region),
            credits=credits_of(record),
            record=record,
        )


def _pictures(job: PopulationJob, region: RegionStore) -> Iterator[Picture]:
    drawn = chain(
        pictures.maps(job, region.dataset()), pictures.scores(region), pictures.losses(region)
    )
    for name, figure in drawn:
        kind, _, of = name.partition("_")
        if kind in WORDS:
            title, text = WORDS[kind]
            yield Picture(f"{title}: {of.replace('_', ', ')}", text, figure)
    why = job.export_folder / "figures" / f"{job.name}_why.png"
    if why.exists():
        yield Picture(*WORDS["why"], why)
