"""The communities job: a stack of population rasters in, communities tracked through time out.

frames → population → flow → encoder → classifier → classes → communities → summary, links → tracks

Each stage reads what the ones before it have stored, computes the frames that the plan calls
stale, and is committed when it is finished; readers see the whole at the end.
"""

from popdask.pipelines.communities.checks import check
from popdask.pipelines.communities.costs import costs
from popdask.pipelines.communities.pictures import draw
from popdask.pipelines.communities.reporting import illustrate
from popdask.pipelines.communities.runs import (
    PIPELINE,
    Outcome,
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
