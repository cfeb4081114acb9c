"""Write small rasters for the tests."""

from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from rasterio.transform import Affine, from_origin

TRANSFORM = from_origin(4_321_000, 3_210_000, 1000, 1000)


def write_raster(
    path: Path | str,
    values: Any,
    *,
    transform: Affine = TRANSFORM,
    crs: str | None = "EPSG:3035",
    tags: dict[str, str] | None = None,
    description: str | None = None,
    units: str | None = None,
    **profile: Any,
) -> str:
    bands = np.atleast_3d(np.asarray(values).T).T
    count, height, width = bands.shape
    profile = {"dtype": bands.dtype.name, "driver": "GTiff"} | profile
    with rasterio.open(
        path, "w", count=count, height=height, width=width, transform=transform, crs=crs, **profile
    ) as file:
        file.write(bands)
        file.update_tags(**(tags or {}))
        if description:
            file.set_band_description(1, description)
        if units:
            file.units = (units,) * count
    return str(path)
