"""Pixels of GPW v4.11 from Google Earth Engine.

**Never run against Google**: nobody here has an account. The requests follow the documentation of
`ee.data.computePixels` in earthengine-api 1.7.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from popdask.errors import InputError
from popdask.fetch.tiles import Bounds
from popdask.fetch.transfer import FetchError

BAND = "population_count"
CELLS_PER_DEGREE = 120
NODATA = -9999.0


@dataclass(frozen=True)
class PixelRequest:
    """A rectangle of one image, in whole cells."""

    image: str
    """Its name in Earth Engine."""
    column: int
    """First column, from 180° W."""
    row: int
    """First row, from 90° N."""
    width: int
    """Columns."""
    height: int
    """Rows."""

    @property
    def grid(self) -> dict[str, Any]:
        """The pixel grid, as `ee.data.computePixels` takes it."""
        side = 1 / CELLS_PER_DEGREE
        return {
            "dimensions": {"width": self.width, "height": self.height},
            "affineTransform": {
                "scaleX": side,
                "shearX": 0,
                "translateX": self.column / CELLS_PER_DEGREE - 180,
                "shearY": 0,
                "scaleY": -side,
                "translateY": 90 - self.row / CELLS_PER_DEGREE,
            },
            "crsCode": "EPSG:4326",
        }

    @property
    def bounds(self) -> Bounds:
        """West, south, east and north in degrees."""
        west = self.column / CELLS_PER_DEGREE - 180
        north = 90 - self.row / CELLS_PER_DEGREE
        return (
            west,
            north - self.height / CELLS_PER_DEGREE,
            west + self.width / CELLS_PER_DEGREE,
            north,
        )


#: Gives the GeoTIFF of a request.
Pixels = Callable[[PixelRequest], bytes]


def earth_engine(project: str | None = None) -> Pixels:
    """Sign in to Earth Engine.

    Parameters
    ----------
    project
        The Google Cloud project that asks; None for that of the credentials.

    Returns
    -------
    callable
        Gives the GeoTIFF of a `PixelRequest`: float32, `NODATA` where there is none.

    Raises
    ------
    InputError
        If the package earthengine-api is missing, or there are no credentials or no project.
    FetchError
        When called, if Earth Engine refuses.
    """
    try:
        import ee
    except ImportError as error:
        raise InputError(
            "GPW is fetched by Google Earth Engine, and the package earthengine-api is missing; "
            "install it with: pip install 'popdask[earthengine]'."
        ) from error
    try:
        credentials = ee.data.get_persistent_credentials()
    except ee.EEException as error:
        raise InputError(
            "GPW is fetched by Google Earth Engine, and there are no credentials for it; sign in "
            "once with `earthengine authenticate`, then fetch again."
        ) from error
    try:
        ee.Initialize(credentials, project=project)
    except ee.EEException as error:
        raise InputError(
            f"Google Earth Engine does not let this account in ({_first_line(error)}); give a "
            "Google Cloud project that may use it with --project."
        ) from error

    def pixels(request: PixelRequest) -> bytes:
        image = ee.Image(request.image).select(BAND).toFloat().unmask(NODATA, False)
        try:
            return ee.data.computePixels(
                {
                    "expression": image,
                    "fileFormat": "GEO_TIFF",
                    "grid": request.grid,
                    "bandIds": [BAND],
                }
            )
        except ee.EEException as error:
            raise FetchError(f"Google Earth Engine refuses {request.image} ({error}).") from error

    return pixels


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0]
