"""GPW v4.11: people per cell of 30 arc-seconds in 2000, 2005, 2010, 2015 and 2020, by Earth Engine.

Google serves it to people with an account only, as pixels of a rectangle, at most 48 MB a request
(https://developers.google.com/earth-engine/reference/rest/v1/projects.image/computePixels).

**Never run against Google**, for want of an account. What is asked for is worked out here without
Google, and tested so; with earthengine-api 1.7 the requests were tried against a server of the
tests.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import rasterio
from rasterio.errors import RasterioError

from popdask.datasets.frames import (
    Bounds,
    Credit,
    Fetched,
    FrameFolder,
    Years,
    checked_bounds,
    join_parts,
    wanted_years,
)
from popdask.datasets.transfer import FetchError
from popdask.errors import InputError

BAND = "population_count"
CELLS_PER_DEGREE = 120
NODATA = -9999.0
COLLECTION = "CIESIN/GPWv411/GPW_Population_Count"
YEARS = range(2000, 2021, 5)
CREDIT = Credit(
    "GPW v4.11, population count",
    "Center for International Earth Science Information Network (CIESIN), Columbia University "
    "(2018). Gridded Population of the World, Version 4 (GPWv4): Population Count, Revision 11. "
    "Palisades, New York: NASA Socioeconomic Data and Applications Center (SEDAC). "
    "doi:10.7927/H4JW8BX5.",
    "https://developers.google.com/earth-engine/datasets/catalog/"
    "CIESIN_GPWv411_GPW_Population_Count",
)
#: Bytes of uncompressed pixels that Earth Engine gives in one answer, and pixels of a side.
MOST_BYTES, MOST_PIXELS = 48 * 2**20, 32_768
_BYTES_PER_PIXEL = 4


@dataclass(frozen=True)
class PixelRequest:
    """A rectangle of one image, in whole cells."""

    image: str  # its name in Earth Engine
    column: int  # first column, from 180° W
    row: int  # first row, from 90° N
    width: int  # columns
    height: int  # rows

    @property
    def grid(self) -> dict[str, Any]:
        """The pixel grid, as `ee.data.computePixels` takes it."""
        side = 1 / CELLS_PER_DEGREE
        west, _, _, north = self.bounds
        return {
            "dimensions": {"width": self.width, "height": self.height},
            "affineTransform": {
                "scaleX": side,
                "shearX": 0,
                "translateX": west,
                "shearY": 0,
                "scaleY": -side,
                "translateY": north,
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
    """Sign in to Earth Engine."""
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
    asked = {"expression": image, "fileFormat": "GEO_TIFF", "bandIds": [BAND], "grid": request.grid}
    try:
        with _reached():
            return ee.data.computePixels(asked)
    except ee.EEException as error:
        raise FetchError(
            f"Google Earth Engine refuses {request.image} ({_first_line(error)})."
        ) from error


@contextmanager
def _reached() -> Iterator[None]:
    """Say what keeps Google from answering, where it is not Earth Engine itself."""
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


def pixel_requests(bounds: Bounds, year: int) -> list[PixelRequest]:
    """Work out what is asked for, to have the cells that a rectangle touches."""
    west, south, east, north = checked_bounds(bounds)
    cells = CELLS_PER_DEGREE
    left, right = math.floor((west + 180) * cells), math.ceil((east + 180) * cells)
    top, bottom = math.floor((90 - north) * cells), math.ceil((90 - south) * cells)
    most = MOST_BYTES // _BYTES_PER_PIXEL
    columns = list(_parts(left, right, MOST_PIXELS))
    rows = list(_parts(top, bottom, min(MOST_PIXELS, most // max(w for _, w in columns))))
    image = f"{COLLECTION}/gpw_v4_population_count_rev11_{year}_30_sec"
    return [
        PixelRequest(image, column, row, width, height)
        for row, height in rows
        for column, width in columns
    ]


def fetch_gpw(
    years: Years,
    folder: Path | str,
    bounds: Bounds,
    *,
    project: str | None = None,
    pixels: Pixels | None = None,
) -> Fetched:
    """Fetch GPW v4.11 of a rectangle by Google Earth Engine; never run against Google so far.

    Parameters
    ----------
    years : str, int or iterable of int
        A span such as ``"2000:2020"``, or years.
    folder : path
        Where the frames go.
    bounds : tuple of float
        West, south, east and north in degrees.
    project : str, optional
        The Google Cloud project that asks; by default the one chosen with
        ``earthengine set_project``.
    pixels : callable, optional
        Gives the GeoTIFF of a `PixelRequest`; by default Earth Engine does.

    Returns
    -------
    Fetched
        The frames, their pattern and the credit that they ask for.

    Raises
    ------
    InputError
        If there is no such year, the folder has another file of a frame's name, the package
        earthengine-api is missing, or there are no credentials.
    FetchError
        If Earth Engine refuses.

    Examples
    --------
    >>> fetch_gpw("2000:2003", "data/oslo", (12, 59, 10, 61))
    Traceback (most recent call last):
    popdask.errors.InputError: bounds is (12, 59, 10, 61); expected west, south, east and north in
    degrees, such as 10,59,11,60, and not across the date line; correct it.
    >>> fetched = fetch_gpw("2000:2020", "data/oslo", (10, 59, 12, 61))     # doctest: +SKIP
    """
    bounds = checked_bounds(bounds)
    found = wanted_years(years, YEARS, "GPW v4.11")
    frames = FrameFolder(folder)
    box = "_".join(f"{number:g}" for number in bounds)
    pattern = f"gpw_v4_population_count_rev11_{{time:%Y}}_30_sec_box_{box}.tif"
    missing = frames.missing(pattern, found)
    if missing and pixels is None:
        pixels = earth_engine(project)
    made = f"cut to {', '.join(f'{number:g}' for number in bounds)} by Google Earth Engine"
    for year, name in missing.items():
        assert pixels is not None
        requests = pixel_requests(bounds, year)
        parts = {str(i): partial(_write, request, pixels) for i, request in enumerate(requests)}
        write = partial(join_parts, parts, bounds)
        frames.put(name, write, {requests[0].image: ""}, CREDIT, made)
    return frames.fetched(pattern, found, CREDIT, len(missing))


def _parts(first: int, last: int, most: int) -> Iterator[tuple[int, int]]:
    """Split a run of cells into the fewest parts, nearly equal: their begins and lengths."""
    count = math.ceil((last - first) / most)
    edges = [first + (last - first) * part // count for part in range(count + 1)]
    for begin, end in itertools.pairwise(edges):
        yield begin, end - begin


def _write(request: PixelRequest, pixels: Pixels, part: Path) -> None:
    """Write an answer, if it is what was asked for, with nodata, which Earth Engine leaves out."""
    part.write_bytes(pixels(request))
    try:
        with rasterio.open(part, "r+", driver="GTiff") as file:
            size = file.width, file.height
            file.nodata = NODATA
    except RasterioError as error:
        raise FetchError(f"Google Earth Engine did not answer with a raster ({error}).") from error
    if size != (request.width, request.height):
        raise FetchError(
            f"Google Earth Engine gave {size[0]} × {size[1]} cells of {request.image}; expected "
            f"{request.width} × {request.height}."
        )
