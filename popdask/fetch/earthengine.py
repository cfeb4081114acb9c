"""Pixels of GPW v4.11 from Google Earth Engine.

**Never run against Google**, for want of an account. The requests follow the documentation of
`ee.data.computePixels`; with earthengine-api 1.7 they were tried against a server of the tests.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
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


def earth_engine(project: str | None = None, *, url: str | None = None) -> Pixels:
    """Sign in to Earth Engine.

    Parameters
    ----------
    project
        The Google Cloud project that asks; None for that of the credentials.
    url
        Another endpoint, such as https://earthengine-highvolume.googleapis.com.

    Returns
    -------
    callable
        Gives the GeoTIFF of a `PixelRequest`: float32, `NODATA` where there is none.

    Raises
    ------
    InputError
        If the package earthengine-api is missing, or there are no credentials or no project.
    FetchError
        If Earth Engine does not answer; also when what is returned is called, if it refuses.
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
        with _reached():
            ee.Initialize(credentials, project=project, url=url)
    except ee.EEException as error:
        raise InputError(
            f"Google Earth Engine does not let this account in ({_first_line(error)}); give a "
            "Google Cloud project that may use it with --project."
        ) from error
    return _pixels


def _pixels(request: PixelRequest) -> bytes:
    import ee

    # The sea is masked: without unmask, it would come as zeros.
    image = ee.Image(request.image).select(BAND).toFloat().unmask(NODATA, False)
    asked = {
        "expression": image,
        "fileFormat": "GEO_TIFF",
        "bandIds": [BAND],
        "grid": request.grid,
    }
    try:
        with _reached():
            return ee.data.computePixels(asked)
    except ee.EEException as error:
        raise FetchError(
            f"Google Earth Engine refuses {request.image} ({_first_line(error)})."
        ) from error


@contextmanager
def _reached() -> Iterator[None]:
    """Tell what keeps Google from answering, if it is not Earth Engine itself."""
    from google.auth.exceptions import GoogleAuthError

    try:
        yield
    except GoogleAuthError as error:
        raise InputError(
            f"Google does not take the credentials for Earth Engine ({_first_line(error)}); sign "
            "in again with `earthengine authenticate`, then fetch again."
        ) from error
    except OSError as error:
        raise FetchError(
            f"Google Earth Engine cannot be reached ({_first_line(error)})."
        ) from error


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0].rstrip(".")
