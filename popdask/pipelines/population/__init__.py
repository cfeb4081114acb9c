"""The population job: aerial images in, people per cell out.

mosaics, counts → cells → presence, count → estimate → census → evaluation → export

Models learn from the cells of known people; every frame's mosaic is then estimated cell by cell.
The estimates of several dates are the frames of a communities job, which may follow.
"""

from popdask.pipelines.population.costs import costs
from popdask.pipelines.population.explaining import explain
from popdask.pipelines.population.pictures import draw
from popdask.pipelines.population.reporting import illustrate
from popdask.pipelines.population.runs import (
    PIPELINE,
    Outcome,
    check,
    extent,
    found,
    plan,
    run,
    run_only,
    train,
)
from popdask.pipelines.population.searching import tune

__all__ = [
    "PIPELINE",
    "Outcome",
    "check",
    "costs",
    "draw",
    "explain",
    "extent",
    "found",
    "illustrate",
    "plan",
    "run",
    "run_only",
    "train",
    "tune",
]
