"""The report of a population job: the estimate, its scores, and what the models look at."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

from popdask.job import PopulationJob
from popdask.pipelines.population import pictures
from popdask.pipelines.population.explaining import why_figure
from popdask.report import Picture
from popdask.store import RegionStore

#: Cells that Grad-CAM explains: so many of the best, typical and worst.
EXPLAINED = 3

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
        "worst cells; below each stand its true and its estimated people.",
    ),
}


def illustrate(job: PopulationJob, region: RegionStore, branch: str) -> Iterator[Picture]:
    """Draw errors, scores, how the models learned, and what they look at."""
    drawn = chain(
        pictures.errors(job, region.dataset(branch)),
        pictures.scores(region, branch),
        pictures.losses(region, branch),
    )
    for name, figure in drawn:
        kind, _, of = name.partition("_")
        if kind in WORDS:
            title, text = WORDS[kind]
            yield Picture(f"{title}: {of.replace('_', ', ')}", text, figure)
    labelled = "cells" in region.records(branch)
    why = why_figure(job, region, branch, cells=EXPLAINED) if labelled else None
    if why is not None:
        yield Picture(*WORDS["why"], why, wide=True)
