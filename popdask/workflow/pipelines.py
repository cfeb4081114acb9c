"""The kinds of jobs, by the name that a job gives as its ``pipeline``."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module

from popdask.config.settings import Job
from popdask.workflow.runner import Pipeline

#: The module of each kind, which is loaded when a job asks for it.
MODULES: Mapping[str, str] = {
    "communities": "popdask.workflow.communities",
    "population": "popdask.workflow.population",
    "scenes": "popdask.workflow.scenes",
    "settlements": "popdask.workflow.settlements",
}


def pipeline_of(job: Job) -> Pipeline:
    """Load the kind of a job."""
    pipeline = import_module(MODULES[job.pipeline]).PIPELINE
    assert isinstance(pipeline, Pipeline)
    return pipeline
