"""What kind of file a raster is: which drivers may open it, and which other files it reads.

GDAL tries every driver on a file, whatever its name. Some of its formats are no rasters but notes
of where rasters lie: a VRT called ``pop_2020.tif`` would let any file of the machine be read as
population, and any server be asked. A file is therefore opened with the drivers that its name
stands for; a format that points elsewhere, only where the name says that it is one.

What a file reads from others belongs to its version: a VRT changes when its sources do.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import numpy as np

from popdask.errors import InputError
from popdask.io.names import file_of, parse_name, split_band, split_file
from popdask.io.paths import SCHEME, gdal_options, gdal_path, is_object

if TYPE_CHECKING:
    from rasterio.io import DatasetReader


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

#: Cells for each byte of a file: empty tiles cost some, and compression has its limits.
MOST_CELLS = 100_000_000

#: Names of files that tell of others.
_PUT_TOGETHER = (".vrt",)

#: Settings before the numbers of an Esri ASCII grid, and what numbers are written with.
_ASCII_HEAD = re.compile(
    rb"(?i)(?:\s*(?:ncols|nrows|[xy]ll(?:corner|cent(?:er|re))|cellsize|d[xy]|nodata_value)\s+\S+)*"
)
_BLANKS = np.isin(np.arange(256), list(b" \t\r\n\0"))
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
    options = gdal_options() if is_elsewhere(name.file) else local
    settings = rasterio.Env(session=DummySession(), **options)
    driver = list(drivers_of(name.opened))
    with settings, DatasetReader(gdal_path(name.opened), driver=driver) as source:
        yield source


def check_extent(source: DatasetReader, path: str) -> None:
    """Refuse a raster whose header claims far more cells than its file can hold."""
    if is_elsewhere(path) or is_put_together(path) or not Path(path).is_file():
        return
    size = Path(path).stat().st_size
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
    if source.driver == "AAIGrid" and Path(path).is_file():
        _check_numbers(path, source.width * source.height, *size_and_time(path))


@lru_cache(maxsize=1024)
def _check_numbers(path: str, cells: int, *version: int | str) -> None:
    """Count the numbers of an ASCII grid; a file is read once in a process, as it is."""
    count, apart = 0, True
    with Path(path).open("rb") as file:
        head = _ASCII_HEAD.match(file.read(1 << 16))
        file.seek(head.end() if head else 0)
        while part := file.read(1 << 24):
            text = np.frombuffer(part, np.uint8)
            if not _IN_NUMBERS[text].all():
                wrong = bytes(text[~_IN_NUMBERS[text]][:20]).decode("latin-1")
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


def is_elsewhere(path: str) -> bool:
    """Return whether a name is a URL or a path of GDAL's virtual file systems."""
    return "://" in path or path.startswith("/vsi")


def is_put_together(path: str) -> bool:
    """Return whether a raster is read from other files, as its name says."""
    return suffix_of(path) in _PUT_TOGETHER


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
    if is_elsewhere(place) or is_object(place) or not Path(place).is_file():
        return False  # whose server is to be asked
    return (then.get("size"), then.get("mtime")) == size_and_time(place)


def size_and_time(path: str) -> tuple[int, str]:
    """Return the size of a local file, and when it was last changed, as ISO time in UTC."""
    stat = Path(path).stat()
    return stat.st_size, datetime.fromtimestamp(stat.st_mtime, UTC).isoformat()


def check_tables(path: str) -> None:
    """Refuse a file of shapes or tables that only tells of others, under another name."""
    place = Path(path)
    if is_elsewhere(path) or not place.is_file() or place.suffix.lower() == ".vrt":
        return
    with place.open("rb") as file:
        if _TABLES_ELSEWHERE.search(file.read(1024)):
            raise InputError(
                f"{path} is a note of where tables lie (OGR VRT), not a file of them; expected "
                "what its name says; give the file itself, or call it .vrt if it is meant"
            )
