"""Figures of populations, classes and communities, of the tracks they leave, and of the analysis.

Figures are free of pyplot and know no screen: :func:`save_figure` writes them.
"""

from popdask.figures.agreement import agreement_figure, error_map_figure
from popdask.figures.charts import (
    cosine_figure,
    error_figure,
    loss_figure,
    silhouette_figure,
    sse_figure,
)
from popdask.figures.colours import CLASSES, NO_DATA, NOBODY, number_colours
from popdask.figures.gradcam import gradcam_figure
from popdask.figures.maps import map_figure, world_figure
from popdask.figures.means import means_figure
from popdask.figures.motion import change_figure, flow_figure, journey_figure
from popdask.figures.reduce import reduced
from popdask.figures.save import save_figure
from popdask.figures.scenes import scene_map_figure, scene_plot_figure
from popdask.figures.scores import (
    confusion_figure,
    density_figure,
    history_figure,
    scores_figure,
)

__all__ = [
    "CLASSES",
    "NOBODY",
    "NO_DATA",
    "agreement_figure",
    "change_figure",
    "confusion_figure",
    "cosine_figure",
    "density_figure",
    "error_figure",
    "error_map_figure",
    "flow_figure",
    "gradcam_figure",
    "history_figure",
    "journey_figure",
    "loss_figure",
    "map_figure",
    "means_figure",
    "number_colours",
    "reduced",
    "save_figure",
    "scene_map_figure",
    "scene_plot_figure",
    "scores_figure",
    "silhouette_figure",
    "sse_figure",
    "world_figure",
]
