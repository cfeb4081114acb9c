"""One population raster: its header checked, its cells read as people per cell.

A raster is checked at two moments: what the header can tell (bands, CRS, units) when the cube is
built, what only the cells can tell (a truncated file, a negative count) inside the task that reads
them. So building a cube reads headers alone, and no bad cell passes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import rasterio
from odc.geo.geobox import GeoBox
from rasterio.errors import RasterioError
from rasterio.session import DummySession
from rasterio.windows import Window

from popdask.cube.fill_values import BEYOND_PEOPLE, check_largest_file
from popdask.errors import InputError
from popdask.object_store import gdal_options, gdal_path

Result = TypeVar("Result")

FRAME = "a raster of people per cell"
UNDECLARED_NODATA = -99999.0
NODATA_BELOW = -1e30

_PER_CELL = re.compile(r"per (grid )?(cell|pixel)|/ ?(cell|pixel)|\bcounts?\b")
_PER_AREA = re.compile(
    r"density"
    r"|(\bper|/) ?(sq|square|km|kilomet|hectare|ha\b|m2|m²|mi\b|mi2|mile|acre)"
    r"|(?<![0-9a-z])(km|m|mi|ha) ?\^?(-2|−2|⁻²|-1|−1|⁻¹)(?!\d)"
)
_TELLING_TAGS = {"units", "unit", "long_name", "standard_name", "name", "title", "variable"} | {
    "description",
    "tifftag_imagedescription",
}


def read_grid(path: str) -> GeoBox:
    """Read a frame's header: check that it is a population raster and give its grid.

    Parameters
    ----------
    path : str
        A file or URL that GDAL can open.

    Returns
    -------
    odc.geo.geobox.GeoBox
        Shape, affine transform and CRS.

    Raises
    ------
    InputError
        If the file is missing or unreadable, has more than one band, no CRS, no position or a
        rotated grid, holds complex numbers, or calls itself a density.
    """
    return use_raster(path, lambda source: _checked_grid(source, path), FRAME)


def check_is_count(source: str, units: str, names: list[str]) -> None:
    """Refuse a raster that says it holds people per area instead of people per cell.

    Parameters
    ----------
    source : str
        What to call it in the error.
    units : str
        Its units, which decide where they speak of cells.
    names : list of str
        Its name, description and other text in which "density" may stand.

    Raises
    ------
    InputError
        If the units or names speak of a density.

    Examples
    --------
    >>> check_is_count("a.tif", "persons per cell", ["population_density_grid"])
    >>> check_is_count("b.tif", "persons per km²", ["population"])
    Traceback (most recent call last):
    popdask.errors.InputError: b.tif is a density ('persons per km²'); expected people per cell; ...
    """
    tidy = [text.lower().replace("_", " ") for text in (units, *names)]
    if _PER_CELL.search(tidy[0]) and not _PER_AREA.search(tidy[0]):
        return
    for text, said in zip(tidy, (units, *names), strict=True):
        if _PER_AREA.search(text):
            raise InputError(
                f"{source} is a density ({said!r}); expected people per cell; multiply it by the "
                "cell areas (popdask.cube.pixel_area_km2 gives them), or, where it holds counts "
                "already, set its tag units to 'people per cell'"
            )


def read_counts(
    path: str, rows: slice, columns: slice, *, nodata: float | None = None
) -> np.ndarray:
    """Read a window of a frame as people per cell, checked.

    Parameters
    ----------
    path : str
        A file or URL that GDAL can open.
    rows, columns : slice
        The window, with start and stop.
    nodata : float, optional
        One more value that means no data, beside the declared one.

    Returns
    -------
    numpy.ndarray
        (rows, columns) float32; NaN where the file's nodata, mask or alpha says no data.

    Raises
    ------
    InputError
        If the file ends early, holds negative, infinite or impossibly large counts, or holds the
        largest value of its type in several cells, where that is not the declared nodata.
    """
    window = Window.from_slices(rows, columns)

    def read(source: rasterio.DatasetReader) -> tuple[Any, float, float]:
        values = source.read(1, window=window, masked=True)
        check_largest_file(values, source, path, nodata)
        return values, source.scales[0], source.offsets[0]

    values, scale, offset = use_raster(path, read, FRAME)
    counts = clean_counts(values.astype("float64").filled(np.nan), nodata=nodata)
    if (scale, offset) != (1.0, 0.0):
        counts = counts * np.float32(scale) + np.float32(offset)
    return checked_counts(counts, path, (rows.start, columns.start))


def clean_counts(values: np.ndarray, *, nodata: float | None = None) -> np.ndarray:
    """Turn the usual undeclared no-data values, and `nodata`, into NaN.

    Parameters
    ----------
    values : numpy.ndarray
        People per cell, any shape; NaN where no data was declared.
    nodata : float, optional
        One more value that means no data.

    Returns
    -------
    numpy.ndarray
        float32; NaN also for −99999 and for finite values under −1e30.

    Examples
    --------
    >>> clean_counts(np.array([3.0, -99999.0, -3.4e38, 0.0]))
    array([ 3., nan, nan,  0.], dtype=float32)
    """
    if (values < 0).any():
        nothing = (values == UNDECLARED_NODATA) | ((values < NODATA_BELOW) & (values > -np.inf))
        values = np.where(nothing, np.nan, values)
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, an error later
        counts = values.astype("float32")
    if nodata is not None:
        counts[counts == np.float32(nodata)] = np.nan
    return counts


def checked_counts(counts: np.ndarray, source: str, origin: tuple[int, ...]) -> np.ndarray:
    """Give back `counts` if every cell with data is a number that people can have.

    Parameters
    ----------
    counts : numpy.ndarray
        People per cell, NaN = no data.
    source : str
        What to call it in the error.
    origin : tuple of int
        Index of the first cell of `counts` within the source.

    Raises
    ------
    InputError
        If a count is negative, infinite, or beyond what any integer type holds.

    Examples
    --------
    >>> checked_counts(np.array([[1.0, -5.0]], "float32"), "pop.tif", (8, 0))
    Traceback (most recent call last):
    popdask.errors.InputError: pop.tif holds -5 at row 8, column 1; expected counts of people, ...
    """
    wrong = (counts < 0) | (counts > BEYOND_PEOPLE)
    if not wrong.any():
        return counts
    first = np.argwhere(wrong)[0]
    value = f"{counts[tuple(first)]:g}"
    row, column = (first + np.array(origin))[-2:]
    mend = "correct the file" if "inf" in value else f"correct the file or pass nodata={value}"
    raise InputError(
        f"{source} holds {value} at row {row}, column {column}; expected counts of people, 0 or "
        f"more, or a declared nodata value; declare it (gdal_edit.py -a_nodata {value}), {mend}"
    )


def is_remote(path: str) -> bool:
    """Tell a URL, or a path of GDAL's virtual file systems, from a local path.

    Examples
    --------
    >>> is_remote("s3://bucket/pop.tif"), is_remote("pop.tif")
    (True, False)
    """
    return "://" in path or path.startswith("/vsi")


@contextmanager
def open_raster(path: str) -> Iterator[rasterio.DatasetReader]:
    """Open a raster, in a folder or behind a URL, as it is now.

    Parameters
    ----------
    path : str
        A file or URL that GDAL can open; ``s3://`` is reached as `popdask.object_store` says.

    Yields
    ------
    rasterio.DatasetReader
        The raster.

    Raises
    ------
    rasterio.errors.RasterioError
        If GDAL cannot open it.
    """
    if not is_remote(path):
        with rasterio.open(path) as source:
            yield source
        return
    # GDAL finds the credentials itself; rasterio's own session would ask for boto3.
    settings = rasterio.Env(session=DummySession(), **gdal_options())
    with settings, rasterio.open(gdal_path(path)) as source:
        yield source


def use_raster(path: str, use: Callable[[rasterio.DatasetReader], Result], expected: str) -> Result:
    """Open a raster, use it, close it; what GDAL cannot read is a bad input.

    Parameters
    ----------
    path : str
        A file or URL that GDAL can open.
    use : callable
        Takes the open raster; what it returns is given back.
    expected : str
        What the file should be, for the error.

    Raises
    ------
    InputError
        If the file is missing, or GDAL cannot open it or read what `use` asks for.

    Examples
    --------
    >>> use_raster("nowhere.tif", lambda source: source.count, "an image")
    Traceback (most recent call last):
    popdask.errors.InputError: nowhere.tif does not exist; expected an image; correct the path
    """
    if not is_remote(path) and not Path(path).exists():
        raise missing_file(path, expected)
    try:
        with open_raster(path) as source:
            return use(source)
    except RasterioError as error:
        reason = str(error.__cause__ or error).strip().rstrip(".")
    # Raised out here, with no cause: GDAL's own exceptions break when sent to another process.
    raise InputError(
        f"{path} cannot be read ({reason}); expected {expected} that GDAL opens; it may be "
        "truncated or of another format: copy or download it again"
    )


def missing_file(path: str, expected: str) -> InputError:
    """Make the error for a file that is not there; `expected` says what it should be."""
    return InputError(f"{path} does not exist; expected {expected}; correct the path")


def _checked_grid(source: rasterio.DatasetReader, path: str) -> GeoBox:
    _check_form(source, path)
    transform, crs = source.transform, source.crs
    if crs is None or transform.is_identity:
        raise InputError(
            f"{path} has no {'CRS' if crs is None else 'position (geotransform)'}; expected "
            "a georeferenced raster; set it with gdal_edit.py -a_srs or -a_ullr"
        )
    if transform.b or transform.d:
        raise InputError(
            f"{path} has a rotated grid ({tuple(transform)[:6]}); expected rows along y and "
            "columns along x; warp it, for example with gdalwarp"
        )
    telling = {k: v for k, v in source.tags().items() if k.lower() in _TELLING_TAGS}
    telling |= {k: v for k, v in source.tags(1).items() if k.lower() in _TELLING_TAGS}
    units = source.units[0] or telling.get("units") or telling.get("unit") or ""
    names = [Path(path).stem, source.descriptions[0] or "", *telling.values()]
    check_is_count(path, units, names)
    return GeoBox(source.shape, transform, crs)


def _check_form(source: rasterio.DatasetReader, path: str) -> None:
    if source.count != 1:
        raise InputError(
            f"{path} has {source.count} bands; expected one band of people per cell; write the "
            "wanted band to its own file, for example with gdal_translate -b 1"
        )
    if source.dtypes[0].startswith("complex"):
        raise InputError(
            f"{path} holds {source.dtypes[0]} values; expected whole or real numbers of "
            "people; convert it, for example with gdal_translate -ot Float32"
        )
