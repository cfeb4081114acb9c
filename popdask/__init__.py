"""Settlements and communities in gridded population data through time; people in aerial images.

The verbs are here under their own names, and the rooms that hold more of them, such as
`popdask.plot`; each is loaded, with what it needs, when it is first used:

>>> import popdask
>>> popdask.optical_flow
<function optical_flow at ...>
"""

from importlib import import_module
from typing import Any

from popdask._numba_cache import prepare_cache

__version__ = "0.2.0"

_HOMES = {
    "popdask.io.cube": ("open_frames", "open_cube", "write_cube", "from_1km", "to_1km"),
    "popdask.datasets.ghspop": ("fetch_ghspop",),
    "popdask.datasets.gpw": ("fetch_gpw",),
    "popdask.datasets.worldpop": ("fetch_worldpop",),
    "popdask.blocks.sampling": ("domain",),
    "popdask.tracking.flow": ("optical_flow",),
    "popdask.tracking.growth": ("divergence", "laplacian", "speed", "growth", "growth_by_label"),
    "popdask.tracking.registration": ("displacement", "shift_frame"),
    "popdask.tracking.autoencoder": ("FittedEncoder", "WindowAutoencoder", "fit_autoencoder"),
    "popdask.tracking.encoding": ("stack_features", "encode", "reconstruct"),
    "popdask.tracking.classify": ("fit_classes", "kmeans", "sse_curve", "ClassModel", "classify"),
    "popdask.tracking.dbscan": ("dbscan",),
    "popdask.tracking.tracks": ("EventRules", "tracks"),
    "popdask.tracking.link": ("compare_frames", "link"),
    "popdask.tracking.urban_rules": ("UrbanisationRules",),
    "popdask.tracking.urbanisation": ("degree_of_urbanisation", "urban_centres"),
    "popdask.tracking.settlements": ("settlements", "settlement_kinds"),
    "popdask.tracking.units": ("classify_units",),
    "popdask.tracking.names": ("name_settlements", "read_places"),
    "popdask.tracking.describe": ("summarize", "people_balance"),
    "popdask.imagery.grid": ("CellGrid",),
    "popdask.imagery.mosaic": ("open_mosaic",),
    "popdask.imagery.cutting": ("cut_cells",),
    "popdask.imagery.cells": ("coarsen_cells", "read_cells", "split_cells"),
    "popdask.imagery.networks": ("PresenceCNN", "CountCNN", "PopulationViT"),
    "popdask.imagery.model": ("TrainedModel",),
    "popdask.imagery.loading": ("TrainingConfig",),
    "popdask.imagery.training": ("train",),
    "popdask.imagery.tuning": ("tune",),
    "popdask.imagery.estimate": ("estimate", "gradcam"),
    "popdask.imagery.dasymetric": ("adjust_to_totals", "round_to_totals", "zone_report"),
    "popdask.imagery.evaluation": ("evaluate",),
    "popdask.imagery.scenes": ("scene_features", "scene_groups"),
    "popdask.cluster": ("connect",),
    "popdask.config.load": ("load_job",),
    "popdask.api": ("plan_job", "run_job"),
    "popdask.store.repository": ("RegionStore",),
    "popdask.errors": ("InputError",),
}
prepare_cache()
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}
_ROOMS = ("imagery", "io", "metrics", "plot", "synthetic", "tracking")

__all__ = ["__version__", *_HOME_OF]


def __getattr__(name: str) -> Any:
    if name in _HOME_OF:
        return getattr(import_module(_HOME_OF[name]), name)
    if name in _ROOMS:
        return import_module(f"popdask.{name}")
    raise AttributeError(f"module 'popdask' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, *_ROOMS])
