"""What a raster's name stands for, which drivers may open it, and which other files it reads.

Population comes as it is published: WorldPop and GHSL in archives, GPW as a netCDF with a band for
each year. Such a raster is named as GDAL names it (``NETCDF:"gpw.nc":variable``,
``/vsizip/pop.zip/pop_2020.tif``), by the archive alone where it holds one raster, and a band by
what stands behind ``#``, as in ``pop.tif#band=3``. The file behind a name is what is hashed, and
what must be there.

GDAL tries every driver on a file, whatever its name. Some of its formats are no rasters but notes
of where rasters lie: a VRT called ``pop_2020.tif`` would let any file of the machine be read as
population, and any server be asked. A file is therefore opened with the drivers that its name
stands for; a format that points elsewhere, only where the name says that it is one. What a file
reads from others belongs to its version: a VRT changes when its sources do.
"""

from __future__ import annotations

import os
import re
import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import rasterio
from rasterio.io import DatasetReader
from rasterio.session import DummySession

from popdask.errors import InputError
from popdask.io.paths import SCHEME, gdal_options, gdal_path, is_object

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
    with rasterio.Env() as environment:
        return tuple(sorted(environment.drivers().keys() - _POINTING))


@contextmanager
def open_raster(path: str) -> Iterator[DatasetReader]:
    """Open a raster, in a folder or behind a URL, as it is now, by the drivers of its name."""
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


#: What ends a name that may have a band behind it; other names may hold a ``#`` of their own.
_WITH_BANDS = re.compile(
    r"(?i)(?P<file>.+(?:\.(?:tiff?|nc4?|vrt|img|asc|h5|hdf5?|grd|bil|zip|gz|tar|tgz|gpkg|gdb|sqlite|kml|kmz|gpx)|:[^/\\#]+))#(?P<band>[^/#]+)"
)
#: Files of several layers, which are called by names.
_WITH_LAYERS = (".gpkg", ".gdb", ".sqlite", ".kml", ".kmz", ".gpx")
_SUBDATASET = re.compile(
    r'(?P<begin>[A-Z][A-Z0-9_]+:(?:\d+:)?)(?P<file>"[^"]+"|[^":]+)(?P<end>:.*)?'
)
_ARCHIVE = re.compile(
    r"(?i)(?P<begin>/vsi(?:zip|tar)/)(?P<file>\{[^}]+\}|(?!/?vsi).+?\.(?:zip|tar|tgz|tar\.gz|kmz))"
    r"(?P<end>(?:/.*)?)"
)
_GZIP = re.compile(r"(?P<begin>/vsigzip/)(?P<file>(?!/?vsi).+)(?P<end>)")

#: Endings of archives, beside those of which ``.gz`` is the last part.
ARCHIVES = (".zip", ".tar", ".tgz")

#: Files of an archive that are rasters by themselves.
RASTERS = (".tif", ".tiff", ".img", ".nc", ".asc", ".bil", ".vrt", ".grd")


@dataclass(frozen=True)
class RasterName:
    """A raster's name, taken apart."""

    file: str
    """The file or URL that holds it."""
    opened: str
    """What GDAL opens."""
    band: int | None = None
    """Its band, from 1; None where it is the only one."""

    @property
    def part(self) -> str:
        """Which part of the file it is; empty for the whole."""
        inner = "" if self.opened == self.file else self.opened.partition(Path(self.file).name)[2]
        band = "" if self.band is None else f"band {self.band}"
        return " ".join(filter(None, (inner.strip('":/}'), band)))


def parse_name(name: str) -> RasterName:
    """Take the name of a raster apart; a file of that very name is itself."""
    if "://" in name or Path(name).exists():
        return RasterName(name, name) if not _is_packed(name) else _packed(name, None)
    base, number = split_band(name)
    band = None
    if number is not None and base.lower().endswith(_WITH_LAYERS):
        return RasterName(base, name)
    if number is not None:
        match = re.fullmatch(r"band=(\d+)", number)
        if not match:
            raise InputError(
                f"{name} names the band {number!r}; expected its number, as in {base}#band=1; "
                "correct it"
            )
        band = int(match[1])
    if split_file(base):
        return RasterName(file_of(base), base, band)
    return _packed(base, band) if _is_packed(base) else RasterName(base, base, band)


def file_of(name: str) -> str:
    """Name the file that holds a raster; nothing is read."""
    if "://" in name or Path(name).exists():
        return name
    base, _ = split_band(name)
    split = split_file(base)
    return split[1].strip('"{}') if split else base


def split_band(name: str) -> tuple[str, str | None]:
    """Split what stands behind ``#`` from a name, where a band can stand there."""
    match = None if "://" in name else _WITH_BANDS.fullmatch(name)
    return (match["file"], match["band"]) if match else (name, None)


def split_file(name: str) -> tuple[str, str, str] | None:
    """Split the name of a subdataset, or of a file in an archive, around the file that holds it."""
    if "://" in name:
        return None
    for form in (_ARCHIVE, _GZIP, _SUBDATASET):
        if match := form.fullmatch(name):
            return match["begin"], match["file"], match["end"] or ""
    return None


def rebased(name: str, folder: Path) -> str:
    """Make the file in a name absolute, as seen from a folder."""
    begin, file, end = split_file(name) or ("", name, "")
    if not begin and name.startswith("/vsi"):
        return name
    quote = file[0] if file[:1] in ('"', "{") and begin else ""
    bare = file.strip('"') if quote == '"' else file.strip("{}") if quote else file
    close = {"": "", '"': '"', "{": "}"}[quote]
    return f"{begin}{quote}{os.path.normpath(folder / bare)}{close}{end}"


def _is_packed(name: str) -> bool:
    return name.lower().endswith((*ARCHIVES, ".gz")) and "://" not in name


def _is_tar(name: str) -> bool:
    return name.lower().endswith((".tar", ".tgz", ".tar.gz"))


def _packed(name: str, band: int | None) -> RasterName:
    """The one raster of an archive."""
    if name.lower().endswith(".gz") and not _is_tar(name):
        return RasterName(name, f"/vsigzip/{os.path.abspath(name)}", band)  # noqa: PTH100
    begin = f"/vsi{'tar' if _is_tar(name) else 'zip'}/"
    # A VRT may lead out of its archive, and is opened where it is named alone.
    plain = tuple(end for end in RASTERS if end != ".vrt")
    inside = [each for each in members(name) if each.lower().endswith(plain)]
    if len(inside) != 1:
        shown = ", ".join(inside[:5]) + (", …" if len(inside) > 5 else "")
        raise InputError(
            f"{name} holds {len(inside)} rasters{f' ({shown})' if inside else ''}; expected one; "
            f"name the one that is wanted, as in {begin}{name}/{(inside or ['pop.tif'])[0]}"
        )
    return RasterName(name, f"{begin}{os.path.abspath(name)}/{inside[0]}", band)  # noqa: PTH100


def members(archive: str) -> list[str]:
    """List the files of an archive, without those that systems hide in it."""
    try:
        names = _names_in(archive)
    except FileNotFoundError as error:
        raise InputError(f"{archive} does not exist; expected an archive; correct it") from error
    except (OSError, EOFError, zlib.error, zipfile.BadZipFile, tarfile.TarError) as error:
        kind = "tar" if _is_tar(archive) else "ZIP"
        raise InputError(
            f"{archive} cannot be read ({error}); expected a {kind} archive; it may be truncated: "
            "copy or download it again"
        ) from error
    # macOS puts a file of notes beside each: __MACOSX/._pop.tif
    return [name for name in names if not Path(name).name.startswith("._")]


def _names_in(archive: str) -> list[str]:
    if _is_tar(archive):
        with tarfile.open(archive) as file:
            return [each.name for each in file if each.isfile()]
    with zipfile.ZipFile(archive) as file:
        return [name for name in file.namelist() if not name.endswith("/")]
