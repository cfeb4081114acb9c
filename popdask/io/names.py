"""Names of rasters that are no paths: archives, subdatasets, and bands of a file.

Population comes as it is published: WorldPop and GHSL in archives, GPW as a netCDF with a band for
each year. Such a raster is named as GDAL names it (``NETCDF:"gpw.nc":variable``,
``/vsizip/pop.zip/pop_2020.tif``), by the archive alone where it holds one raster, and a band by
what stands behind ``#``, as in ``pop.tif#band=3``. The file behind a name is what is hashed, and
what must be there.
"""

from __future__ import annotations

import os
import re
import tarfile
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

from popdask.errors import InputError

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
    if not inside:
        held = members(name)
        shown = ", ".join(held[:5]) + (", …" if len(held) > 5 else "")
        raise InputError(
            f"{name} holds no raster{f' ({shown})' if held else ''}; expected one; unpack it, and "
            "name the raster"
        )
    if len(inside) != 1:
        shown = ", ".join(inside[:5]) + (", …" if len(inside) > 5 else "")
        raise InputError(
            f"{name} holds {len(inside)} rasters ({shown}); expected one; name the one that is "
            f"wanted, as in {begin}{name}/{inside[0]}"
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
        if any(each.flag_bits & 1 for each in file.infolist()):
            raise InputError(
                f"{archive} is encrypted; expected an archive that anyone may read; unpack it with "
                "its password"
            )
        return [name for name in file.namelist() if not name.endswith("/")]
