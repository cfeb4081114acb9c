"""From a mosaic and trained models to presence and people of every cell."""

from popdask.imagery.inference.estimation import estimate, tile_cells

__all__ = [
    "estimate",
    "tile_cells",
]
