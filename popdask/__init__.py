"""Human communities in gridded population data, found and followed through time, at any scale.

The verbs are here under their own names, and the rooms that hold more of them, such as
`popdask.figures`; each is loaded, with what it needs, when it is first used:

>>> import popdask
>>> popdask.optical_flow
<function optical_flow at ...>
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_HOMES = {
    "popdask.cube": ("open_frames", "open_cube", "write_cube"),
    "popdask.fetch": ("fetch_ghspop", "fetch_gpw", "fetch_worldpop"),
    "popdask.tracking.domain": ("domain",),
    "popdask.tracking.flow": ("optical_flow",),
    "popdask.tracking.derivatives": ("divergence", "laplacian", "speed"),
    "popdask.tracking.growth": ("growth", "growth_by_label"),
    "popdask.tracking.registration": ("displacement", "shift_frame"),
    "popdask.tracking.autoencoder": ("FittedEncoder", "WindowAutoencoder", "fit_autoencoder"),
    "popdask.tracking.encoding": ("stack_features", "encode", "reconstruct"),
    "popdask.tracking.clustering": ("fit_classes", "kmeans", "sse_curve"),
    "popdask.tracking.classes": ("ClassModel", "classify"),
    "popdask.tracking.dbscan": ("dbscan",),
    "popdask.tracking.linking": ("link", "tracks"),
    "popdask.tracking.summary": ("summarize", "people_balance"),
    "popdask.imagery.grid": ("CellGrid",),
    "popdask.imagery.mosaic": ("open_mosaic",),
    "popdask.imagery.cells": ("cut_cells", "join_cells", "read_cells", "split_cells"),
    "popdask.imagery.models": ("PresenceCNN", "CountCNN", "PopulationViT", "TrainedModel"),
    "popdask.imagery.training": ("TrainingConfig", "train"),
    "popdask.imagery.tuning": ("tune",),
    "popdask.imagery.inference": ("estimate",),
    "popdask.imagery.census": ("keep_totals", "whole_people", "zone_report"),
    "popdask.imagery.evaluation": ("evaluate",),
    "popdask.imagery.gradcam": ("gradcam",),
    "popdask.imagery.scenes": ("scene_features", "scene_groups"),
    "popdask.cluster": ("connect",),
    "popdask.job": ("load_job",),
    "popdask.running": ("plan_job", "run_job"),
    "popdask.store": ("RegionStore",),
    "popdask.errors": ("InputError",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}
_ROOMS = ("cube", "export", "figures", "imagery", "metrics", "synthetic", "tracking")

__all__ = [
    "__version__",
    *_HOME_OF,
]


def __getattr__(name: str) -> Any:
    if name in _HOME_OF:
        return getattr(import_module(_HOME_OF[name]), name)
    if name in _ROOMS:
        return import_module(f"popdask.{name}")
    raise AttributeError(f"module 'popdask' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, *_ROOMS])
