"""Figures of populations, classes and communities, of the tracks they leave, and of the analysis.

Figures are free of pyplot and know no screen: :func:`save_figure` writes them.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "charts": [
            "assignment_figure",
            "class_panels_figure",
            "confusion_figure",
            "cosine_figure",
            "density_figure",
            "error_figure",
            "history_figure",
            "loss_figure",
            "reconstruction_figure",
            "scores_figure",
            "silhouette_figure",
            "sse_figure",
        ],
        "imagery": [
            "agreement_figure",
            "error_map_figure",
            "gradcam_figure",
            "relative_error_figure",
            "scene_map_figure",
            "scene_plot_figure",
            "spread_figure",
        ],
        "maps": [
            "change_figure",
            "field_figure",
            "flow_figure",
            "growth_figure",
            "journey_figure",
            "map_figure",
            "means_figure",
            "speed_error_figure",
            "speed_figure",
            "world_figure",
        ],
        "style": ["CLASSES", "NOBODY", "NO_DATA", "number_colours", "reduced", "save_figure"],
    },
)
