"""The scenes job: aerial images in, groups of cells that look alike out, without labels.

mosaic → features → groups → export
"""

from popdask.pipelines.scenes.costs import costs
from popdask.pipelines.scenes.reporting import illustrate
from popdask.pipelines.scenes.runs import (
    PIPELINE,
    Outcome,
    check,
    draw,
    extent,
    found,
    plan,
    run,
    run_only,
)

__all__ = [
    "PIPELINE",
    "Outcome",
    "check",
    "costs",
    "draw",
    "extent",
    "found",
    "illustrate",
    "plan",
    "run",
    "run_only",
]
