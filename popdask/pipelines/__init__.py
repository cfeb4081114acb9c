"""The conductors: one package for each kind of job, and what they have in common.

A product's package has ``PIPELINE``, ``plan``, ``extent``, ``costs``, ``run``, ``run_only``,
``found``, ``check``, ``draw`` and ``illustrate``, the pictures of its report; :func:`product` finds
the one of a job.
"""

from importlib import import_module
from typing import Any

from popdask.job import Job


def product(job: Job) -> Any:
    """Load the package that runs a job."""
    return import_module(f"popdask.pipelines.{job.pipeline}")
