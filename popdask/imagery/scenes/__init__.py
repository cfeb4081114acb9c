"""Groups of cells that look alike, found without labels."""

from popdask.imagery.scenes.appearance import scene_features
from popdask.imagery.scenes.groups import scene_groups
from popdask.imagery.scenes.views import scene_examples, scene_map, scene_table

__all__ = [
    "scene_examples",
    "scene_features",
    "scene_groups",
    "scene_map",
    "scene_table",
]
