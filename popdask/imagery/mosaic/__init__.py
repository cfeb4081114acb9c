"""Mosaics of aerial images, opened lazily as one image on the pixels of a cell grid."""

from popdask.imagery.mosaic.opening import open_mosaic

__all__ = [
    "open_mosaic",
]
