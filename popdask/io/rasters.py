"""One raster: opened as its name says, its header checked, its cells read, its version identified.

A raster is checked at two moments: what the header says (bands, CRS, units) when the cube is built,
what only the cells say (a truncated file, a negative count) inside the task that reads them. So
building a cube reads headers alone, and no bad cell passes.

*Fill values.* A raster that fills the sea with 65535 and does not declare it holds millions of
people that do not exist. One cell may hold the largest value of its type by chance; several cells
of one frame do not. A block that meets the value asks the whole frame, so the answer does not
depend on the chunks.

*Densities.* WorldPop writes ``pd`` for people per area where it writes ``ppp`` for people per
pixel, HYDE ``popd`` and ``popc``, GPW and GRUMP up to version 3 ``ds`` and ``p``. Such letters in
other names decide nothing by themselves; with values that are no whole people, they do.

*Versions.* A local file is identified by its content, read to its end; a file behind a URL by its
ETag where its server has one, or else by its size and the time of its last change.

*Kinds.* GDAL tries every driver on a file, whatever its name. Some of its formats are no rasters
but notes of where rasters lie: a VRT called ``pop_2020.tif`` would let any file be read
as population, and any server be asked. A file is therefore opened with the drivers that its name
stands for; a format that points elsewhere, only where the name says that it is one. What such a
file reads from others belongs to its version.
"""

from __future__ import annotations

import hashlib
import re
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

import numpy as np
from affine import Affine

from popdask.errors import InputError
from popdask.io.paths import (
    SCHEME,
    failures,
    file_of,
    file_system,
    gdal_options,
    gdal_path,
    is_object,
    is_there,
    parse_name,
    split_band,
    split_file,
    without_secrets,
)

if TYPE_CHECKING:
    import rasterio
    from odc.geo.geobox import GeoBox
    from rasterio.crs import CRS
    from rasterio.io import DatasetReader


_PRODUCTS = re.compile(
    r"^(?:[a-z]{3}|global|world)_pd_\d{4}(?!\d)"  # WorldPop
    r"|^popd_?\d+ ?(?:ad|ce|bc|bce)?$"  # HYDE
    r"|^[a-z]{2,3}u?ds\d{2}a?g"  # GPW, GRUMP
    r"|(?:^|[^a-z])(?:pop|population)?_?dens(?:$|[^a-z])"
)
_ABBREVIATIONS = re.compile(r"(?:^|[^a-z])(?:pd|ds|popd|popden|ppkm2?)(?:$|[^a-z])")

#: No integer type holds more: 1e20, 9.97e36 and 3.4e38 are fill values, in a single cell too.
BEYOND_PEOPLE = 2.0**64

#: A cell may hold so many people, where another nodata value shows that somebody thought of it.
_PLAUSIBLE = 2**16
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
#: Powers of ten as scales are written, 1000, 1,000, 10^3, 1e3, and what else follows a number.
_POWER = (
    r"(?<![\d.])(?:1(?:\.0)?e\+?\d+|10(?:(?:\^|\*\*) ?\d+|[²³⁴⁵⁶⁷⁸⁹])|1?(?:[ ,.'’]?0{3})+|10+)s?"
)
_LENGTHS_AND_YEARS = r"[\d.]|[ -]?(?:(?:k?m|ad|b?ce?)\b|met|arc|deg|sec|x ?\d)"
_PEOPLE = r"(?:people|persons?|population|inhabitants?|residents?|heads?|capita|counts?)\b"
_SCALED = re.compile(
    r"\b(?:hundred|thousand|million|billion)s?\b|\bthous\b|\b(?:log(?:10|2|1p)?|ln)\b"
    rf"|{_POWER}[ x×*·]*(?:of )?{_PEOPLE}"
    rf"|{_PEOPLE}[^\w.]*(?:(?:x|by|in) ?)?{_POWER}(?!{_LENGTHS_AND_YEARS})"
)
#: What units say that they are not.
_DENIED = re.compile(r"\bnot\b[^,;)]*")
_TELLING_TAGS = {"units", "unit", "long_name", "standard_name", "name", "title", "variable"} | {
    "description",
    "tifftag_imagedescription",
}

#: What says of a netCDF variable that it is an axis of the grid.
_AXES = {
    *("degrees_north", "degrees_east", "latitude", "longitude"),
    *("projection_x_coordinate", "projection_y_coordinate"),
}

#: Drivers of the names that stand for few; files of other names are opened by all but `_POINTING`.
_DRIVERS = {
    ".tif": ("GTiff",),
    ".tiff": ("GTiff",),
    ".vrt": ("VRT",),
    ".asc": ("AAIGrid", "GRASSASCIIGrid", "ISG"),
    ".png": ("PNG",),
    ".jpg": ("JPEG",),
    ".jpeg": ("JPEG",),
    ".jp2": ("JP2OpenJPEG", "JP2ECW", "JP2KAK", "JP2MrSID", "JPEG2000"),
    ".nc": ("netCDF", "HDF5", "HDF5Image"),
}

#: Drivers of formats that tell of other files, or of servers, to read from.
_POINTING = {
    *("DAAS", "DERIVED", "EEDAI", "GTI", "HTTP", "MRF", "OGCAPI", "PLMOSAIC"),
    *("STACIT", "STACTA", "VRT", "WCS", "WMS", "WMTS"),
}

#: What is expected where a Zarr group is given, and how to make it of that.
NO_GROUPS = (
    "expected raster files; write each of its frames as GeoTIFF, as with "
    "popdask.io.open_cube(GROUP)['population'].isel(time=0).rio.to_raster('pop_2000.tif')"
)

#: Cells for each byte of a file: empty tiles cost some, and compression has its limits.
MOST_CELLS = 100_000_000

#: Settings before the numbers of an Esri ASCII grid, and what numbers are written with.
_ASCII_HEAD = re.compile(
    rb"(?i)(?:\s*(?:ncols|nrows|[xy]ll(?:corner|cent(?:er|re))|cellsize|d[xy]|nodata_value)\s+\S+)*"
)
_BLANKS = np.isin(np.arange(256), list(b" \t\r\n\0"))
_IN_WHOLE = _BLANKS | np.isin(np.arange(256), list(b"0123456789+-"))
_IN_NUMBERS = _BLANKS | np.isin(np.arange(256), list(b"0123456789+-.,eEnaifqdNAIFQD#()"))

#: How files begin that are often given in the place of others.
_OTHERS = {
    b"version https://git-lfs": "a pointer of Git LFS, which git lfs pull replaces",
    b"pk\x03\x04": "an Excel file or an archive",
    b"7z\xbc\xaf": "a 7-Zip archive",
    b"rar!": "a RAR archive",
    b"\x1f\x8b": "compressed by gzip",
    b"\xd0\xcf\x11\xe0": "an Excel file",
    b"par1": "a Parquet file",
    b"sqlite format": "a GeoPackage or a database",
    b"%pdf": "a PDF file",
    b"<": "a page of the web, or XML",
    b"{": "JSON",
    b"[": "JSON",
}

#: How OGR's notes of where tables lie begin, in a file or on a server.
_TABLES_ELSEWHERE = re.compile(rb"<OGR(VRT|WFS)(DataSource|Layer)|<OGRVRTUnionLayer")


def is_density_name(name: str) -> bool:
    """Return whether a name is that of a published density."""
    return _PRODUCTS.search(name.lower()) is not None


def check_whole_people(values: np.ndarray, source: str, name: str) -> None:
    """Refuse values that are no whole people where the name has an abbreviation of density."""
    part = _ABBREVIATIONS.search(name.lower())
    if part is None or values.dtype.kind != "f":
        return
    known = np.ma.filled(values, np.nan)
    fractions = known[np.isfinite(known) & (known > 0) & (known != np.rint(known))]
    if fractions.size:
        raise InputError(
            f"{source} holds {fractions[0]:g}, no whole people, and "
            f"{part[0].strip('_-. ')!r} in its name may mean a density; expected people per cell; "
            "multiply it by the cell areas (popdask.io.pixel_area_km2 gives them), or, where it "
            "holds counts, set its tag units to 'people per cell'"
        )


def largest_value(dtype: np.dtype[Any]) -> int | float:
    """Return the largest value of a type."""
    return int(np.iinfo(dtype).max) if dtype.kind in "iu" else float(np.finfo(dtype).max)


def check_largest_file(
    values: np.ma.MaskedArray[Any, Any],
    source: rasterio.DatasetReader,
    path: str,
    nodata: float | None = None,
    band: int = 1,
) -> None:
    """Refuse a raster that holds its type's largest value in several cells, undeclared."""
    from rasterio.enums import MaskFlags

    largest = largest_value(values.dtype)
    held = count_largest(values, largest)
    masked = source.mask_flag_enums[band - 1] != [MaskFlags.all_valid]
    fills = [] if nodata is None else [nodata]
    if not (held and is_suspect(values.dtype, fills, masked=masked)):
        return
    if held > 1 or _held_in(source, largest, band) > 1:
        raise undeclared_error(path, values.dtype, largest)


def number_text(value: float, dtype: np.dtype[Any]) -> str:
    """Write a number of a type with all digits that tell it from others."""
    if dtype.kind == "f":
        value = dtype.type(value)
    # A whole float beyond 2⁶⁴ would have digits that nobody wrote.
    return str(int(value)) if abs(value) <= BEYOND_PEOPLE and value == int(value) else str(value)


def is_suspect(dtype: np.dtype[Any], fills: Collection[float], *, masked: bool = False) -> bool:
    """Return whether several cells with the largest value are none of people, as `fills` say."""
    largest = largest_value(dtype)
    exact = dtype.type if dtype.kind == "f" else float  # a float is written with some digits
    if any(exact(fill) == exact(largest) for fill in fills):
        return False
    return not (fills or masked) or largest >= _PLAUSIBLE


def count_largest(values: Any, largest: float) -> int:
    """Count the cells with data that hold a value."""
    return int(np.ma.filled(values == largest, False).sum())


def undeclared_error(source: str, dtype: np.dtype[Any], largest: float) -> InputError:
    """Make the error for a frame that holds its type's largest value in several cells."""
    shown = number_text(largest, dtype)
    people = "; where so many people live there, declare another value, such as nodata=-1"
    return InputError(
        f"{source} holds {shown}, the largest value of {dtype}, in several cells and does not "
        "declare it; expected counts of people, or a declared nodata value; declare it "
        f"(gdal_edit.py -a_nodata {shown}) or pass nodata={shown}"
        f"{people if largest < _PLAUSIBLE else ''}"
    )


def _held_in(source: rasterio.DatasetReader, largest: float, band: int) -> int:
    """Count the cells of a whole raster that hold a value, block by block, up to two."""
    held = 0
    for _, window in source.block_windows(band):
        held += count_largest(source.read(band, window=window, masked=True), largest)
        if held > 1:
            break
    return held


def read_grid(path: str, *, people: bool = True) -> GeoBox:
    """Read a frame's header: check that it is a raster, of `people` or not, and give its grid."""
    return use_raster(path, lambda source: _checked_grid(source, path, people), FRAME)


def check_scale(source: str, units: str) -> None:
    """Refuse units that are no people as they are, such as thousands of them or logarithms."""
    if _SCALED.search(_DENIED.sub("", units.lower().replace("_", " "))):
        raise InputError(
            f"{source} has the units {units!r}; expected people per cell, as they are; bring it to "
            "people, a file for example with gdal_calc.py, and set its units, a tag of files and "
            "an attribute of arrays, to 'people per cell'"
        )


def check_is_count(source: str, units: str, names: list[str]) -> None:
    """Refuse a raster that says it holds people per area instead of people per cell."""
    tidy = [text.lower().replace("_", " ") for text in (units, *names)]
    if _PER_CELL.search(tidy[0]) and not _PER_AREA.search(tidy[0]):
        return
    for text, said in zip(tidy, (units, *names), strict=True):
        if _PER_AREA.search(text) or is_density_name(said):
            raise InputError(
                f"{source} is a density ({said!r}); expected people per cell; multiply it by the "
                "cell areas (popdask.io.pixel_area_km2 gives them), or, where it holds counts "
                "already, set its units, a tag or an attribute, to 'people per cell'"
            )


def read_counts(
    path: str, rows: slice, columns: slice, *, nodata: float | None = None
) -> np.ndarray:
    """Read a window of a frame as people per cell, checked."""
    from rasterio.windows import Window

    window = Window.from_slices(rows, columns)

    def read(source: rasterio.DatasetReader) -> tuple[Any, float, float]:
        band = _band(source, path)
        values = source.read(band, window=window, masked=True)
        check_largest_file(values, source, path, nodata, band)
        if not _PER_CELL.search(_units(source, band).lower()):
            check_whole_people(values, path, Path(parse_name(path).opened).stem)
        return values, source.scales[band - 1], source.offsets[band - 1]

    values, scale, offset = use_raster(path, read, FRAME)
    counts = clean_counts(values.astype("float64").filled(np.nan), nodata=nodata)
    if (scale, offset) != (1.0, 0.0):
        counts = counts * np.float32(scale) + np.float32(offset)
    return checked_counts(counts, path, (rows.start, columns.start))


def clean_counts(values: np.ndarray, *, nodata: float | None = None) -> np.ndarray:
    """Turn the usual undeclared no-data values, and `nodata`, into NaN."""
    if (values < 0).any():
        nothing = (values == UNDECLARED_NODATA) | ((values < NODATA_BELOW) & (values > -np.inf))
        values = np.where(nothing, np.nan, values)
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, an error later
        counts = values.astype("float32")
    if nodata is not None:
        counts[counts == np.float32(nodata)] = np.nan
    return counts


def checked_counts(counts: np.ndarray, source: str, origin: tuple[int, ...]) -> np.ndarray:
    """Give back `counts` if every cell with data is a number that people can have."""
    wrong = (counts < 0) | (counts > BEYOND_PEOPLE)
    if not wrong.any():
        return counts
    first = np.argwhere(wrong)[0]
    value = number_text(counts[tuple(first)], counts.dtype)
    row, column = (first + np.array(origin))[-2:]
    mend = "or correct the file" if "inf" in value else f"correct the file or pass nodata={value}"
    raise InputError(
        f"{source} holds {value} at row {row}, column {column}; expected counts of people, 0 or "
        f"more, or a declared nodata value; declare it (gdal_edit.py -a_nodata {value}), {mend}"
    )


def is_remote(path: str) -> bool:
    """Return whether a name is a URL or a path of GDAL's virtual file systems."""
    return "://" in path or path.startswith("/vsi")


def use_raster(path: str, use: Callable[[rasterio.DatasetReader], Result], expected: str) -> Result:
    """Open a raster, use it, close it; what GDAL cannot read is a bad input."""
    from rasterio.errors import RasterioError

    file = parse_name(path).file
    check_there(file, expected)
    try:
        with open_raster(path) as source:
            return use(source)
    except RasterioError as error:
        reason = str(error.__cause__ or error).strip().rstrip(".")
    if "not recognized" in reason and len(drivers_of(path)) == 1:
        reason += f", by {drivers_of(path)[0]}, which its name stands for"
    mend = "it may be truncated or of another format: copy or download it again"
    if "HTTP response" in reason or "CURL error" in reason:
        mend = "check the URL, and whether its server answers and lets you read it"
    if "not recognized" in reason and Path(parse_name(path).opened).is_file():  # not packed
        with Path(file).open("rb") as stream:
            kind = other_kind(stream.read(64))
        mend = f"it is {kind}: give the raster itself" if kind else mend
    if Path(file).is_dir():
        mend = f"it is a folder: name the files in it, such as {path}/*.tif"
    # Raised out here, with no cause: GDAL's own exceptions break when sent to another process.
    raise InputError(
        f"{path} cannot be read ({reason}); expected {expected} that GDAL opens; {mend}"
    )


def check_there(path: str, expected: str) -> None:
    """Refuse a path at which no file is, or a pipe or device, of which reading may never end."""
    if is_remote(path):
        return
    if not is_there(path):
        raise missing_file(path, expected)
    if not (Path(path).is_file() or Path(path).is_dir()):
        raise InputError(
            f"{path} is a pipe or a device, not a file; expected {expected}; write what it gives "
            "into a file, and name that"
        )


def missing_file(path: str, expected: str) -> InputError:
    """Make the error for a file that is not there; `expected` says what it should be."""
    where = " there, or its server does not answer" if is_remote(path) else ""
    return InputError(f"{path} does not exist{where}; expected {expected}; correct the path")


def _checked_grid(source: rasterio.DatasetReader, path: str, people: bool) -> GeoBox:
    from odc.geo.geobox import GeoBox

    from popdask.io.grids import check_degrees

    band = _band(source, path)
    _check_values(source, path, band)
    if people:  # of land and the like, 0 and 1 may well have colours, and metres be thousands
        _check_coloured(source, path, band)
        check_scale(path, _units(source, band))
    check_ascii_grid(source, path)
    _check_axes(source, path)
    crs = source.crs or _crs_of_axes(source, path)
    grid = GeoBox(source.shape, _even_transform(source, path, crs), crs)
    descriptions = _own_words(source, band).values()
    names = [Path(parse_name(path).opened).stem, source.descriptions[band - 1] or "", *descriptions]
    check_is_count(path, _units(source, band), names)
    check_degrees(path, grid)
    return grid


def _even_transform(source: rasterio.DatasetReader, path: str, crs: CRS | None) -> Affine:
    """The transform of a raster that has its place, and whose rows lie along y."""
    from popdask.io.grids import SAME_GRID

    t = source.transform
    if not np.isfinite(t).all():
        raise InputError(
            f"{path} has the position (geotransform) {tuple(t)[:6]}, of which cells have no place; "
            "expected numbers; set it with gdal_edit.py -a_ullr"
        )
    if crs is None or t.is_identity:
        hint = "set it with gdal_edit.py -a_srs or -a_ullr"
        if source.gcps[0] or source.rpcs:
            hint = "it has control points: bring it onto a grid with gdalwarp"
        raise InputError(
            f"{path} has no {'CRS' if crs is None else 'position (geotransform)'}; expected "
            f"a georeferenced raster; {hint}"
        )
    # What rounding leaves of a turn moves no corner by a part of a cell that matters.
    across, down = abs(t.b) * source.height, abs(t.d) * source.width
    if not (across < SAME_GRID * abs(t.a) and down < SAME_GRID * abs(t.e)):
        raise InputError(
            f"{path} has a rotated grid ({tuple(t)[:6]}); expected rows along y and "
            "columns along x; warp it, for example with gdalwarp"
        )
    return Affine(t.a, 0, t.c, 0, t.e, t.f)


def _check_values(source: rasterio.DatasetReader, path: str, band: int) -> None:
    """Refuse what nobody has written: values of a lossy picture, or of a wrong scale."""
    structure = source.tags(ns="IMAGE_STRUCTURE")
    lossy = structure.get("COMPRESSION_REVERSIBILITY", "").startswith("LOSSY")
    if lossy or source.driver == "JPEG" or structure.get("COMPRESSION", "").endswith("JPEG"):
        raise InputError(
            f"{path} is compressed as pictures are, with other values than were written; expected "
            "counts of people as they are; take a file without loss, such as a GeoTIFF with DEFLATE"
        )
    scale, offset = source.scales[band - 1], source.offsets[band - 1]
    if not (0 < scale < np.inf and np.isfinite(offset)):
        raise InputError(
            f"{path} has the scale {scale:g} and the offset {offset:g}; expected a scale above 0 "
            "and an offset that is a number; correct them, for example with gdal_edit.py -scale 1"
        )


def _check_coloured(source: rasterio.DatasetReader, path: str, band: int) -> None:
    """Refuse classes and pictures, which have colours, unless they say that they are counts."""
    from rasterio.enums import ColorInterp

    coloured = source.colorinterp[band - 1] == ColorInterp.palette
    if coloured and not _PER_CELL.search(_units(source, band).lower()):
        raise InputError(
            f"{path} has a table of colours, as classes and pictures have; expected counts of "
            "people; give the raster of counts, or, where it is that, set its tag units to 'people "
            "per cell'"
        )


def _crs_of_axes(source: rasterio.DatasetReader, path: str) -> CRS | None:
    """The CRS of a netCDF file that names none: by CF, degrees north and east are geographic."""
    from rasterio.crs import CRS

    axes = {
        text: key.removesuffix("#units")
        for key, text in source.tags().items()
        if key.endswith("#units") and not key.startswith("NC_GLOBAL#")
    }
    if not {"degrees_north", "degrees_east"} <= axes.keys():
        return None
    if source.driver != "netCDF":  # made of one, and its axes are not there any more
        return CRS.from_epsg(4326)
    north = _axis(path, axes["degrees_north"])
    ends = sorted((source.bounds.bottom, source.bounds.top))
    if not (ends[0] <= north.min() and north.max() <= ends[1]):
        raise InputError(
            f"{path} has its longitudes along the rows; expected latitudes down the rows; turn it, "
            "as with dataset.transpose(..., 'lat', 'lon') of xarray"
        )
    return CRS.from_epsg(4326)


def _check_axes(source: rasterio.DatasetReader, path: str) -> None:
    """Refuse a netCDF file of uneven axes, of which GDAL looks at a few steps."""
    if source.driver != "netCDF" or is_remote(parse_name(path).opened):
        return
    from popdask.io.grids import UNEVEN

    names = {
        key.partition("#")[0]
        for key, text in source.tags().items()
        if key.endswith(("#units", "#standard_name")) and text in _AXES
    }
    for name in sorted(names):
        steps = np.diff(_axis(path, name).ravel())
        if steps.size and not np.abs(steps - steps.mean()).max() < UNEVEN * abs(steps.mean()):
            raise InputError(
                f"{path} has uneven steps along {name}, from {np.abs(steps).min():g} to "
                f"{np.abs(steps).max():g}; expected cells of one size; bring them onto a grid, as "
                "with dataset.reindex or interp of xarray"
            )


def _axis(path: str, name: str) -> np.ndarray:
    """The places along an axis of a netCDF file."""
    from rasterio.errors import NotGeoreferencedWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)  # an axis has no place of its own
        with open_raster(f'NETCDF:"{parse_name(path).file}":{name}') as axis:
            return axis.read()


def _own_words(source: rasterio.DatasetReader, band: int) -> dict[str, str]:
    """The tags of a raster that may say what its values are."""
    tags = source.tags() | source.tags(band)
    return {key: text for key, text in tags.items() if key.lower() in _TELLING_TAGS}


def _units(source: rasterio.DatasetReader, band: int) -> str:
    telling = _own_words(source, band)
    return source.units[band - 1] or telling.get("units") or telling.get("unit") or ""


def _band(source: rasterio.DatasetReader, path: str) -> int:
    """The band of people that a name means, checked."""
    check_extent(source, path)
    band = parse_name(path).band
    if band is None and source.count == 0 and source.subdatasets:
        shown = "; ".join(source.subdatasets[:4])
        raise InputError(
            f"{path} holds {len(source.subdatasets)} rasters; expected one; name the one that is "
            f"wanted: {shown}"
        )
    if band is None and source.count != 1:
        raise InputError(
            f"{path} has {source.count} bands; expected one band of people per cell; name it, as "
            f"in {path}#band=1, or give [input] times, one for each of the first bands"
        )
    if band is not None and not 1 <= band <= source.count:
        raise InputError(
            f"{path} names band {band}; expected one of the {source.count} that there are; correct "
            "it"
        )
    band = band or 1
    if source.dtypes[band - 1].startswith("complex"):
        raise InputError(
            f"{path} holds {source.dtypes[band - 1]} values; expected whole or real numbers of "
            "people; convert it, for example with gdal_translate -ot Float32"
        )
    return band


def frame_fingerprint(path: str, expected: str = "a file that you may read") -> dict[str, Any]:
    """Identify one version of a file, for the provenance of a result.

    Parameters
    ----------
    path : str
        A file or URL. What is read of it is never held whole in memory.
    expected : str, optional
        What it should be, for the words of an error.

    Returns
    -------
    dict
        ``size`` in bytes; ``mtime``, the last change as an ISO time in UTC (None where a server
        does not tell); and one of ``sha256`` of the contents in hexadecimal, for files and what has
        no other mark; ``etag``, the server's; or neither, where size and time are the mark.
        ``part`` says which band, subdataset or file of an archive it is, where there may be more.
        Of a VRT, whose ``sha256`` is also that of the files that it is put together from,
        ``sources`` has the same of each of them, by its path.

    Raises
    ------
    InputError
        If the file is missing or cannot be read.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = Path(folder, "pop.tif").write_bytes(b"people")
    ...     frame_fingerprint(f"{folder}/pop.tif")["size"]
    6
    """
    name = parse_name(path)
    check_there(name.file, expected)
    try:
        own = _info_of_server(name.file) or _read(name.file)
    except FileNotFoundError as error:
        raise missing_file(name.file, expected) from error
    except IsADirectoryError as error:
        mend = f"expected {expected}; name the files in it, such as {name.file}/*.tif"
        mend = NO_GROUPS if name.file.rstrip("/").endswith(".zarr") else mend
        raise InputError(f"{path} is a folder; {mend}") from error
    except failures() as error:
        raise InputError(
            f"{path} cannot be read ({error}); expected {expected}; check its kind and its "
            "permissions"
        ) from error
    own |= {"part": name.part} if name.part else {}
    return _with_sources(own, path) if is_put_together(path) else own


def _with_sources(own: dict[str, Any], path: str) -> dict[str, Any]:
    """The version of a file, and of those that it is put together from, as one."""
    found: dict[str, dict[str, Any]] = {}
    listed = [path]
    for place in listed:  # which grows by the sources of sources
        if place != path:
            found[place] = _info_of_server(place) or _read_source(place, path)
        if is_put_together(place):
            listed += [one for one in _listed(place) if one not in listed]
    marks = [frame_version(version) for version in (own, *found.values())]
    sources = {without_secrets(place): version for place, version in found.items()}
    sha256 = hashlib.sha256("\n".join(marks).encode()).hexdigest()
    return {**own, "sha256": sha256, "sources": sources}


def _listed(path: str) -> list[str]:
    from rasterio.errors import RasterioError

    try:
        return sources_of(path)
    except RasterioError as error:
        reason = str(error.__cause__ or error).strip().rstrip(".")
    raise InputError(f"{path} cannot be read ({reason}); expected {FRAME}; correct it")


def _read_source(place: str, path: str) -> dict[str, Any]:
    try:
        return _read(place)
    except OSError as error:
        raise InputError(
            f"{place}, of which {path} is put together, cannot be read ({error.strerror}); "
            "expected a raster; bring it back, or correct the list"
        ) from error


def frame_version(fingerprint: Mapping[str, Any]) -> str:
    """Return the mark of a version: other contents have another mark.

    Parameters
    ----------
    fingerprint : mapping
        As `frame_fingerprint` gives it.

    Returns
    -------
    str
        The checksum of the contents, else the ETag, else time and size.

    Examples
    --------
    >>> frame_version({"size": 6, "mtime": "2026-01-01T00:00:00+00:00", "etag": '"9e107d9d"'})
    'etag "9e107d9d" of 6 bytes'
    """
    part = f" {fingerprint['part']}" if "part" in fingerprint else ""
    if "sha256" in fingerprint:
        return f"{fingerprint['sha256']}{part}"
    mark = f"etag {fingerprint['etag']}" if "etag" in fingerprint else fingerprint["mtime"]
    return f"{mark} of {fingerprint['size']} bytes{part}"


def _info_of_server(path: str) -> dict[str, Any] | None:
    """What a server says of a file, if that marks a version."""
    if "://" not in path:
        return None
    system, name = file_system(path)
    info = system.info(name)
    size, time, etag = info.get("size"), _changed(info), info.get("ETag")
    if etag:
        return {"size": size, "mtime": time, "etag": etag}
    return {"size": size, "mtime": time} if size and time else None


def _changed(info: Mapping[str, Any]) -> str | None:
    """The time of the last change: S3 and HTTP write it in ways of their own."""
    if "LastModified" in info:
        return str(info["LastModified"].astimezone(UTC).isoformat())
    if "Last-Modified" in info:
        return parsedate_to_datetime(info["Last-Modified"]).astimezone(UTC).isoformat()
    return None


def _read(path: str) -> dict[str, Any]:
    with _open_bytes(path) as stream:
        digest = hashlib.file_digest(stream, "sha256")
        size = stream.tell()
    mtime = None if is_remote(path) else size_and_time(path)[1]
    return {"size": size, "mtime": mtime, "sha256": digest.hexdigest()}


def _open_bytes(path: str) -> Any:
    if "://" not in path:
        return Path(path).open("rb")
    system, name = file_system(path)
    return system.open(name, "rb")


def suffix_of(path: str) -> str:
    """Return the ending of a file's name that stands for its kind, in lower case."""
    name = Path(urlsplit(path).path if "://" in path else split_band(path)[0])
    return Path(name.stem if name.suffix.lower() == ".gz" else name.name).suffix.lower()


def drivers_of(path: str) -> tuple[str, ...]:
    """Name the drivers of GDAL that may open a file of some name."""
    part = split_file(path)
    if part and not part[0].startswith("/vsi"):  # such as NETCDF:"gpw.nc":people
        return _others()
    return _DRIVERS.get(suffix_of(path)) or _others()


@cache
def _others() -> tuple[str, ...]:
    import rasterio

    with rasterio.Env() as environment:
        return tuple(sorted(environment.drivers().keys() - _POINTING))


@contextmanager
def open_raster(path: str) -> Iterator[DatasetReader]:
    """Open a raster, in a folder or behind a URL, as it is now, by the drivers of its name."""
    import rasterio
    from rasterio.io import DatasetReader
    from rasterio.session import DummySession

    name = parse_name(path)
    # GDAL would leave a file of its own beside every .gz; and it finds credentials itself, where
    # rasterio's own session would ask for boto3.
    local: dict[str, Any] = {"CPL_VSIL_GZIP_WRITE_PROPERTIES": "NO"}
    options = gdal_options() if is_remote(name.file) else local
    settings = rasterio.Env(session=DummySession(), **options)
    driver = list(drivers_of(name.opened))
    with settings, DatasetReader(gdal_path(name.opened), driver=driver) as source:
        yield source


def check_extent(source: DatasetReader, path: str) -> None:
    """Refuse a raster whose header claims far more cells than its file can hold."""
    file = parse_name(path).opened
    if is_remote(file) or is_put_together(file) or not Path(file).is_file():
        return
    size = Path(file).stat().st_size
    if source.width * source.height > MOST_CELLS * size:
        raise InputError(
            f"{path} claims {source.width:,} × {source.height:,} cells in a file of {size:,} "
            "bytes, which cannot hold so many; expected a whole raster; its header is damaged or "
            "made up: copy or download it again"
        )


def other_kind(head: bytes) -> str:
    """Name what a file is by how it begins; empty where it may be what was expected."""
    begin = head.lstrip().lower()
    return next((kind for mark, kind in _OTHERS.items() if begin.startswith(mark)), "")


def check_ascii_grid(source: DatasetReader, path: str) -> None:
    """Refuse an ASCII grid whose numbers are not those of its cells: GDAL takes 0 for others."""
    file = parse_name(path).opened
    if source.driver == "AAIGrid" and not is_remote(file) and Path(file).is_file():
        whole = source.dtypes[0].startswith("int")
        _check_numbers(file, source.width * source.height, whole, *size_and_time(file))


@lru_cache(maxsize=1024)
def _check_numbers(path: str, cells: int, whole: bool, *version: int | str) -> None:
    """Count the numbers of an ASCII grid; a file is read once in a process, as it is."""
    count, apart = 0, True
    known = _IN_WHOLE if whole else _IN_NUMBERS  # GDAL reads nan among whole numbers as 0
    with Path(path).open("rb") as file:
        head = _ASCII_HEAD.match(file.read(1 << 16))
        file.seek(head.end() if head else 0)
        while part := file.read(1 << 24):
            text = np.frombuffer(part, np.uint8)
            if not known[text].all():
                wrong = bytes(text[~known[text]][:20]).decode("latin-1")
                raise InputError(
                    f"{path} holds {wrong!r} among its numbers; expected a number in every cell; "
                    "correct the file"
                )
            blank = _BLANKS[text]
            count += int((~blank[1:] & blank[:-1]).sum()) + int(apart and not blank[0])
            apart = bool(blank[-1])
    if count != cells:
        raise InputError(
            f"{path} holds {count:,} numbers for {cells:,} cells; expected one for each; it may be "
            "truncated: copy or download it again"
        )


def is_put_together(path: str) -> bool:
    """Return whether a raster is read from other files, as its name says."""
    return suffix_of(path) == ".vrt"


def sources_of(path: str) -> list[str]:
    """List the files that a raster is put together from, in its order, as popdask names them."""
    with open_raster(path) as source:
        names = source.files
    own = {path, parse_name(path).opened, gdal_path(path)}
    own |= {f"{name}{end}" for name in tuple(own) for end in (".aux.xml", ".ovr", ".msk")}
    return list(dict.fromkeys(_place(name) for name in names if name not in own))


def _place(name: str) -> str:
    """The file of a source, as a path or URL that is no name of GDAL's."""
    if name.startswith("/vsis3/"):
        return SCHEME + name.removeprefix("/vsis3/")
    if name.startswith("/vsicurl/"):
        return name.removeprefix("/vsicurl/")
    return file_of(name)


def unchanged_sources(known: Mapping[str, Any], path: str) -> bool:
    """Tell, without reading them, whether what a raster is put together from is as it was."""
    if not is_put_together(path):
        return True
    recorded = known.get("sources")
    return recorded is not None and all(_as_it_was(place, then) for place, then in recorded.items())


def _as_it_was(place: str, then: Mapping[str, Any]) -> bool:
    if is_remote(place) or is_object(place) or not Path(place).is_file():
        return False  # whose server is to be asked
    return (then.get("size"), then.get("mtime")) == size_and_time(place)


def size_and_time(path: str) -> tuple[int, str]:
    """Return the size of a local file, and when it was last changed, as ISO time in UTC."""
    stat = Path(path).stat()
    return stat.st_size, datetime.fromtimestamp(stat.st_mtime, UTC).isoformat()


def check_tables(path: str) -> None:
    """Refuse a file of shapes or tables that only tells of others, under another name."""
    place = Path(path)
    if is_remote(path) or not place.is_file() or place.suffix.lower() == ".vrt":
        return
    with place.open("rb") as file:
        if _TABLES_ELSEWHERE.search(file.read(1024)):
            raise InputError(
                f"{path} is a note of where tables lie (OGR VRT), not a file of them; expected "
                "what its name says; give the file itself, or call it .vrt if it is meant"
            )
