"""The kinds of jobs: what each can do, by the name that a job gives as its ``pipeline``.

A kind is loaded, with what it needs, when a job asks for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from popdask.config.settings import Job
from popdask.store.repository import RegionStore
from popdask.workflow.plan import Costs, Plan
from popdask.workflow.runner import Pipeline

if TYPE_CHECKING:
    from popdask.report.page import Picture


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
    from popdask.workflow import communities, communities_plan

    return Product(
        communities.PIPELINE,
        communities.plan,
        communities.extent,
        communities_plan.costs,
        communities.run,
        communities.run_only,
        communities.found,
        _check_communities,
        _draw_communities,
        _illustrate_communities,
    )


# What needs torch or matplotlib is loaded when it is asked for.
def _check_communities(store: RegionStore) -> Iterable[str]:
    from popdask.workflow import checks

    return checks.check(store)


def _draw_communities(job: Any, reporter: Any = None) -> list[Path]:
    from popdask.workflow import communities_outputs

    return communities_outputs.draw(job, reporter)


def _illustrate_communities(job: Any, region: RegionStore, branch: str) -> Iterator[Picture]:
    from popdask.workflow import communities_outputs

    return communities_outputs.illustrate(job, region, branch)


def _population() -> Product:
    from popdask.workflow import population, population_costs, population_outputs

    return Product(
        population.PIPELINE,
        population.plan,
        population.extent,
        population_costs.costs,
        population.run,
        population.run_only,
        population.found,
        population.check,
        population_outputs.draw,
        population_outputs.illustrate,
    )


def _scenes() -> Product:
    from popdask.workflow import scenes

    return Product(
        scenes.PIPELINE,
        scenes.plan,
        scenes.extent,
        scenes.costs,
        scenes.run,
        scenes.run_only,
        scenes.found,
        scenes.check,
        scenes.draw,
        scenes.illustrate,
    )


def _settlements() -> Product:
    from popdask.workflow import settlements

    return Product(
        settlements.PIPELINE,
        settlements.plan,
        settlements.extent,
        settlements.costs,
        settlements.run,
        settlements.run_only,
        settlements.found,
        settlements.check,
        settlements.draw,
        _illustrate_settlements,
    )


def _illustrate_settlements(job: Any, region: RegionStore, branch: str) -> Iterator[Picture]:
    from popdask.workflow import settlements_stages

    return settlements_stages.illustrate(job, region, branch)


PRODUCTS: Mapping[str, Callable[[], Product]] = {
    "communities": _communities,
    "population": _population,
    "scenes": _scenes,
    "settlements": _settlements,
}


def product(job: Job) -> Product:
    """Load the kind of a job."""
    return PRODUCTS[job.pipeline]()
