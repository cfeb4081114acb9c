"""The kinds of jobs: what each can do, by the name that a job gives as its ``pipeline``.

A kind is loaded, with what it needs, when a job asks for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from popdask.job import Job
from popdask.pipelines.conductor import Pipeline
from popdask.pipelines.costs import Costs
from popdask.pipelines.plan import Plan
from popdask.report import Picture
from popdask.store import RegionStore


@dataclass(frozen=True)
class Product:
    """What can be done with jobs of one kind."""

    pipeline: Pipeline
    """What its stages depend on, and how they are computed."""
    plan: Callable[[Any], Plan]
    """What a run would compute."""
    extent: Callable[[Any], str]
    """The grid and the frames, in a few words."""
    costs: Callable[[Any, Plan], Costs]
    """What each stage takes."""
    run: Callable[..., Any]
    """Run a job."""
    run_only: Callable[..., Plan]
    """Run some stages of it."""
    found: Callable[[RegionStore], str]
    """What is in the results, in a few words."""
    check: Callable[[RegionStore], Iterable[str]]
    """What in whole results breaks the kind's promises."""
    draw: Callable[..., list[Path]]
    """Draw the results' pictures."""
    illustrate: Callable[[Any, RegionStore, str], Iterator[Picture]]
    """The pictures of its report."""


def _communities() -> Product:
    from popdask.pipelines.communities.checks import check
    from popdask.pipelines.communities.costs import costs
    from popdask.pipelines.communities.pictures import draw
    from popdask.pipelines.communities.reporting import illustrate
    from popdask.pipelines.communities.runs import PIPELINE, extent, found, plan, run, run_only

    return Product(PIPELINE, plan, extent, costs, run, run_only, found, check, draw, illustrate)


def _population() -> Product:
    from popdask.pipelines.population.costs import costs
    from popdask.pipelines.population.pictures import draw
    from popdask.pipelines.population.reporting import illustrate
    from popdask.pipelines.population.runs import (
        PIPELINE,
        check,
        extent,
        found,
        plan,
        run,
        run_only,
    )

    return Product(PIPELINE, plan, extent, costs, run, run_only, found, check, draw, illustrate)


def _scenes() -> Product:
    from popdask.pipelines.scenes.costs import costs
    from popdask.pipelines.scenes.reporting import illustrate
    from popdask.pipelines.scenes.runs import (
        PIPELINE,
        check,
        draw,
        extent,
        found,
        plan,
        run,
        run_only,
    )

    return Product(PIPELINE, plan, extent, costs, run, run_only, found, check, draw, illustrate)


PRODUCTS: Mapping[str, Callable[[], Product]] = {
    "communities": _communities,
    "population": _population,
    "scenes": _scenes,
}


def product(job: Job) -> Product:
    """Load the kind of a job."""
    return PRODUCTS[job.pipeline]()
