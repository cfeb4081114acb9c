"""Small image files for the tests of the imagery wing."""

from pathlib import Path

import numpy as np
import rasterio
from rasterio.transform import from_origin

CRS = "EPSG:25832"
NORTH_WEST = (677_500.0, 6_139_900.0)  # the upper left corner of cell 100m_61398_6775


def invent(shape, seed=0, low=1):
    """A random image (band, y, x) of uint8 without zeros."""
    return np.random.default_rng(seed).integers(low, 256, shape, dtype=np.uint8)


def write_image(
    path, values, *, corner=NORTH_WEST, pixel=5.0, crs=CRS, mask=None, colours=None, **profile
) -> Path:
    """Write (band, y, x) as a raster that GDAL can create."""
    bands, height, width = values.shape
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        count=bands,
        height=height,
        width=width,
        dtype=values.dtype,
        crs=crs,
        transform=from_origin(*corner, pixel, pixel),
        **profile,
    ) as file:
        if colours is not None:
            file.colorinterp = colours
        file.write(values)
        if mask is not None:
            file.write_mask(mask)
    return Path(path)
