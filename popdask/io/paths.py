"""Files that are whole or not at all, here and in object stores; URLs, and names of rasters.

A file is made under a hidden temporary folder beside its place and moved there when it is finished,
so that a reader, or a write that is stopped, never leaves half of one.

Four libraries reach object stores (``s3://bucket/key``): fsspec lists and reads, GDAL reads
rasters, Icechunk holds results, and botocore holds locks. Each has settings of its own for the same
things; here they are taken from the environment, once, by the variables of AWS's own tools:

- ``AWS_ACCESS_KEY_ID``, ``AWS_SECRET_ACCESS_KEY``, ``AWS_SESSION_TOKEN``, ``AWS_PROFILE`` and what
  else the libraries find credentials by: they look for them themselves, so none is ever held here,
  sent to a worker or put on record;
- ``AWS_ENDPOINT_URL_S3`` or ``AWS_ENDPOINT_URL``: a server other than that of AWS;
- ``AWS_REGION`` or ``AWS_DEFAULT_REGION``;
- ``AWS_VIRTUAL_HOSTING``, as in GDAL: whether the bucket is part of the host's name. By default it
  is part of the path where there is an endpoint, and of the host's name at AWS;
- ``AWS_NO_SIGN_REQUEST``, as in GDAL: read public buckets without credentials.

Messages and records have URLs without users, passwords and queries. A URL is taken apart as
programs do, but where it is ambiguous, more is left out: a password that nobody has escaped may
hold ``@``, ``/``, ``?`` or ``#``, so with a colon before it the user ends at the *last* ``@``.

A raster may be named as GDAL names it (``NETCDF:"gpw.nc":variable``,
``/vsizip/pop.zip/pop_2020.tif``), by the archive alone where it holds one raster, and a band by
what stands behind ``#``, as in ``pop.tif#band=3``. The file behind a name is what is hashed, and
what must be there.
"""

from __future__ import annotations

import errno
import filecmp
import os
import re
import shutil
import stat
import sys
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

from popdask.errors import InputError

_MARK = "://"
_ENDINGS = ("KEY", "KEY_ID", "SECRET", "TOKEN", "PASSWORD", "PASSWD")
_SHORTEST = 8
_HOST = re.compile(r"(\[[0-9A-Fa-f:.%]+\]|[\w.{}*-]+)(:[0-9]+)?")

Path_ = str | os.PathLike[str]
#: What `tempfile` ends the names of its folders with; a folder of another name is somebody's.
_LEFT = "[a-z0-9_]{8}"
_OF_DISKS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
_FEW = 64 << 20  # bytes free on a disk that may be what keeps a file from being written
SCHEME = "s3://"
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


def without_secrets(place: str) -> str:
    """Drop from a URL its user, password, query and fragment; a path stays as it is."""
    before, mark, rest = place.partition(_MARK)
    if not mark:
        return _without_options(place) if place.startswith("/vsi") else place
    if "?" in before.partition("/vsi")[2]:  # /vsicurl?header.Authorization=…&url=https://…
        return _without_options(place)
    if "@" in rest and _has_user(rest):
        rest = rest.rpartition("@")[2]
    return f"{before}{mark}{_until(rest, '?#')}"


def is_unescaped(place: str) -> bool:
    """Return whether programs would take a part of a password for the host, and speak of it."""
    rest = place.partition(_MARK)[2]
    host = _until(rest, "/?#")
    _, at, end = rest[len(host) :].rpartition("@")
    user, _, host = host.rpartition("@")
    if "@" not in rest or not (user or ":" in host):
        return False
    # Of me:p@ss/word@host/a.tif and me:word@host/a@b.tif, a path tells at which @ the host begins.
    return "@" in user or not _HOST.fullmatch(host) or bool(":" in user and at and "/" in end)


def without_keys(text: str) -> str:
    """Drop from a text what its URLs say beside places, and the values of secret variables."""
    words = re.findall(r"\s+|\S+", text)
    text = "".join(
        without_secrets(word) if _MARK in word else _without_options(word) for word in words
    )
    for name, value in os.environ.items():
        if name.upper().endswith(_ENDINGS) and len(value) >= _SHORTEST:
            text = text.replace(value, f"${name}")
    return text


def _without_options(word: str) -> str:
    """Drop the options of GDAL's virtual files, which may hold headers, from a word in quotes."""
    before, mark, rest = word.partition("/vsi")
    return f"{before}{mark}{rest.partition('?')[0]}"


def _has_user(rest: str) -> bool:
    """Whether what follows the scheme begins with a user: by an ``@`` or a colon in its host."""
    host = _until(rest, "/?#")
    return "@" in host or ":" in host


def _until(text: str, ends: str) -> str:
    return re.split(f"[{ends}]", text, maxsplit=1)[0]


@contextmanager
def atomic_path(path: Path_, *, new: bool = False) -> Iterator[Path]:
    """Return a place to write to; move what was written there to `path` if all went well."""
    path = Path(path)
    if new:
        _check_free(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # A worker may still write into what is removed: what it leaves must not hide what went wrong.
    with tempfile.TemporaryDirectory(
        dir=path.parent, prefix=_prefix(path), ignore_cleanup_errors=True
    ) as folder:
        unfinished = Path(folder, path.name)
        try:
            yield unfinished
        except OSError as error:
            if error.errno in _OF_DISKS:  # a full disk does not say of which file
                error.filename = error.filename or os.fspath(path)
            raise
        if new:
            _check_free(path)
            unfinished.rename(path)
        elif path.is_dir():
            _exchange(unfinished, path)
        elif not (path.exists() and filecmp.cmp(unfinished, path, shallow=False)):
            unfinished.replace(path)


def compute_to_end(*tasks: Any) -> None:
    """Compute what writes into a folder; where a task fails, wait until nobody writes there."""
    import dask
    from dask.base import get_scheduler
    from dask.system import CPU_COUNT

    elsewhere = get_scheduler() not in (None, dask.threaded.get) or dask.config.get("pool", None)
    if elsewhere:
        dask.compute(*tasks)
        return
    # Where one task fails, Dask leaves the others to end in its pool by themselves.
    with ThreadPoolExecutor(dask.config.get("num_workers", None) or CPU_COUNT) as pool:
        dask.compute(*tasks, scheduler="threads", pool=pool)


@contextmanager
def naming(path: Path_) -> Iterator[None]:
    """Name the file that cannot be written, as on a full disk, whichever library writes it."""
    from pyogrio.errors import DataSourceError, FeatureError
    from rasterio._err import CPLE_BaseError
    from rasterio.errors import RasterioError

    try:
        yield
        return
    except (RasterioError, CPLE_BaseError, DataSourceError, FeatureError, OSError) as error:
        if getattr(error, "filename", None):
            raise
        reason = str(error.__cause__ or error).rstrip(".")
        with suppress(OSError):  # the folder may be what has gone
            free = shutil.disk_usage(Path(path).parent).free
            reason += f"; {free:,} bytes are free there" if free < _FEW else ""
    # Raised out here, with no cause: GDAL's own exceptions break when sent to another process.
    raise OSError(errno.EIO, reason, os.fspath(path))


def write_text(path: Path_, text: str) -> Path:
    """Write a text file in UTF-8, with the line ends of Unix everywhere, whole or not at all."""
    with atomic_path(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8", newline="\n")
    return Path(path)


def write_bytes(path: Path_, data: bytes) -> Path:
    """Write a file, whole or not at all, and wait until its bytes are on the disk."""
    with atomic_path(path) as unfinished, unfinished.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    return Path(path)


def read_own(path: Path_) -> bytes:
    """Read a small file of popdask's own; a link, a pipe or a folder is an `OSError`."""
    with open_own(path, "rb") as file:
        return bytes(file.read(1 << 20))


def open_own(path: Path_, mode: str) -> IO[Any]:
    """Open a file that popdask keeps beside results or in its cache, no other through a link."""
    # Where others may write, a link would let them have any file of the user's read or written.

    def opener(name: str, flags: int) -> int:
        descriptor = os.open(name, flags | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            return descriptor
        os.close(descriptor)
        raise OSError(errno.EINVAL, "no file, but a device, a pipe or a folder", name)

    return open(path, mode, opener=opener)


def sweep(path: Path_) -> None:
    """Take away the temporary folders of writes to a path that were killed."""
    path = Path(path)
    if path.parent.is_dir():
        temporary = re.compile(re.escape(_prefix(path)) + _LEFT)
        for left in path.parent.iterdir():
            if temporary.fullmatch(left.name) and left.is_dir():
                shutil.rmtree(left)


def _check_free(path: Path) -> None:
    if path.exists():
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))


def _exchange(unfinished: Path, path: Path) -> None:
    """Move a folder to the place of another, since none can be moved onto one that is not empty."""
    before = unfinished.with_name(f"{path.name}-before")
    path.rename(before)
    try:
        unfinished.rename(path)
    except OSError:
        before.rename(path)
        raise


def _prefix(path: Path) -> str:
    return f".{path.name}-"


#: Attempts at a request, and seconds between the first two, where a library lets them be set.
ATTEMPTS, FIRST_DELAY = 6, 0.2


@dataclass(frozen=True)
class Access:
    """How object stores are reached."""

    endpoint: str | None
    """URL of the server; None for AWS."""
    region: str | None
    """Region; None where the environment says none."""
    path_style: bool
    """Whether buckets are part of the path, not of the host's name."""
    signed: bool
    """Whether requests carry credentials."""


def access(environment: Mapping[str, str] = os.environ) -> Access:
    """Describe how object stores are reached, by the environment."""
    get = environment.get
    endpoint = get("AWS_ENDPOINT_URL_S3") or get("AWS_ENDPOINT_URL") or None
    if endpoint and urlsplit(endpoint).scheme not in ("http", "https"):
        raise InputError(
            f"AWS_ENDPOINT_URL is {endpoint!r}; expected a URL such as https://minio.example.org; "
            "correct it"
        )
    hosted = _is_true(get("AWS_VIRTUAL_HOSTING"), default=endpoint is None)
    return Access(
        endpoint,
        get("AWS_REGION") or get("AWS_DEFAULT_REGION") or None,
        path_style=not hosted,
        signed=not _is_true(get("AWS_NO_SIGN_REQUEST"), default=False),
    )


def is_object(place: str) -> bool:
    """Return whether a place is in an object store."""
    return place.startswith(SCHEME)


def bucket_and_key(url: str) -> tuple[str, str]:
    """Take the URL of an object, or of a folder of objects, apart."""
    bucket, _, key = url.removeprefix(SCHEME).strip("/").partition("/")
    if not is_object(url) or not bucket or not key:
        raise InputError(f"{url} names no object; expected s3://bucket/name; correct it")
    return bucket, key


def check_url(place: str) -> None:
    """Refuse a URL without a host, and one in which programs would find another than is meant."""
    _check_keys(place)
    if is_unescaped(place):
        raise InputError(
            f"{without_secrets(place)} has a user or password with @, /, ? or # before it; "
            "expected them escaped, as programs take what follows for the host; write %40, %2F, "
            "%3F or %23 (and %40 for an @ in the path, if it is there)"
        )
    _check_host(place)


def _check_host(url: str) -> None:
    """Refuse a URL of the web whose host or port is none."""
    if not url.lower().startswith(("http://", "https://")):
        return
    host = _until(url.partition(_MARK)[2], "/?#").rpartition("@")[2]
    plain = host.isprintable() and " " not in host  # urlsplit leaves tabs out, and takes spaces
    try:
        parts = urlsplit(url)
        known = plain and bool((parts.hostname or "").encode("idna")) and parts.port != 0
    except ValueError:  # of a port, of brackets, or of a name that has no form for the wire
        known = False
    if not known:
        raise InputError(
            f"{without_secrets(url)} has no host, or no port, that can be reached; expected a URL "
            "such as https://example.org/pop.tif; correct it"
        )


def _check_keys(url: str) -> None:
    """Refuse keys in the URL of an object."""
    if is_object(url) and "@" in url.removeprefix(SCHEME).partition("/")[0]:
        raise InputError(
            f"{without_secrets(url)} has keys before its bucket; expected none in a name; put them "
            "into AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        )


def fsspec_options(url: str) -> dict[str, Any]:
    """Options of fsspec's file system for a URL: those of an object store, else none."""
    check_url(url)
    # Listings are not cached: what comes and goes there is to be noticed.
    if not is_object(url):
        return {}
    to = access()
    return {
        "endpoint_url": to.endpoint,
        "anon": not to.signed,
        "client_kwargs": {"region_name": to.region} if to.region else {},
        "config_kwargs": {"s3": _addressing(to), "retries": _retries()},
        "use_listings_cache": False,
    }


def file_system(url: str) -> tuple[Any, str]:
    """Open fsspec's file system of a URL, and name the place within it."""
    import fsspec  # type: ignore[import-untyped]

    try:
        return fsspec.core.url_to_fs(url, **fsspec_options(url))
    except InputError:  # which is a ValueError, too
        raise
    except (ImportError, ValueError, OSError) as error:  # some servers are called at once
        raise InputError(
            f"{without_secrets(url)} cannot be reached ({error}); expected a server that answers, "
            "by a file system that fsspec knows; install what it asks for (popdask[cloud] for "
            "s3://), or copy the files to a folder"
        ) from error


def failures() -> tuple[type[Exception], ...]:
    """Errors that a request may end in: those of the system, and of botocore if it is used."""
    botocore = sys.modules.get("botocore.exceptions")
    return (OSError, botocore.BotoCoreError, botocore.ClientError) if botocore else (OSError,)


def gdal_path(place: str) -> str:
    """Name a place as GDAL does."""
    check_url(place)
    return f"/vsis3/{place.removeprefix(SCHEME)}" if is_object(place) else place


def gdal_options() -> dict[str, Any]:
    """GDAL's options for files behind URLs."""
    # Requests that fail are tried again, and nothing of a file is kept when it is closed: the
    # file of that name may be another one when it is next opened.
    to = access()
    options: dict[str, Any] = {
        "CPL_VSIL_CURL_NON_CACHED": "/vsis3/:/vsicurl/",
        "GDAL_HTTP_MAX_RETRY": ATTEMPTS,
        "GDAL_HTTP_RETRY_DELAY": FIRST_DELAY,
        "AWS_VIRTUAL_HOSTING": not to.path_style,
    }
    if to.endpoint:
        parts = urlsplit(to.endpoint)
        options["AWS_S3_ENDPOINT"] = parts.netloc + parts.path.rstrip("/")
        options["AWS_HTTPS"] = parts.scheme == "https"
    if to.region:
        options["AWS_REGION"] = to.region
    return options


def icechunk_options() -> dict[str, Any]:
    """Options of ``icechunk.s3_storage``, beside bucket and prefix."""
    to = access()
    return {
        "endpoint_url": to.endpoint,
        "region": to.region,
        "force_path_style": to.path_style,
        "allow_http": bool(to.endpoint) and urlsplit(to.endpoint).scheme == "http",
        **({"from_env": True} if to.signed else {"anonymous": True}),
    }


def client() -> Any:
    """Make, or find again, a client of botocore; threads may share it."""
    return _client(access())


@lru_cache(maxsize=4)
def _client(to: Access) -> Any:
    try:
        import botocore.session  # type: ignore[import-untyped]
        from botocore import UNSIGNED
        from botocore.config import Config  # type: ignore[import-untyped]
    except ImportError as error:
        raise InputError(
            f"object stores cannot be reached ({error}); expected the packages for them; install "
            "popdask[cloud]"
        ) from error
    signature = {} if to.signed else {"signature_version": UNSIGNED}
    config = Config(s3=_addressing(to), retries=_retries(), **signature)
    session = botocore.session.get_session()
    return session.create_client(
        "s3", endpoint_url=to.endpoint, region_name=to.region or "us-east-1", config=config
    )


@dataclass(frozen=True)
class Objects:
    """What lies in a bucket under a prefix, by names that are the rest of their keys."""

    bucket: str
    key: str

    def __str__(self) -> str:
        return f"{SCHEME}{self.bucket}/{self.key}"

    def listed(self, below: str = "") -> Iterator[tuple[str, int]]:
        """List what lies under a name that ends with ``/``, by the rest of it, with sizes."""
        for page, prefix in self._pages(below):
            for item in page.get("Contents", ()):
                yield item["Key"].removeprefix(prefix), int(item["Size"])

    def entries(self) -> Iterator[str]:
        """List objects and folders, which end with ``/``, without what lies in those."""
        for page, prefix in self._pages("", Delimiter="/"):
            for item in page.get("Contents", ()):
                yield item["Key"].removeprefix(prefix)
            for item in page.get("CommonPrefixes", ()):
                yield item["Prefix"].removeprefix(prefix)

    def place(self, name: str) -> dict[str, str]:
        """Return the place of an object, as requests of botocore's name it."""
        return {"Bucket": self.bucket, "Key": f"{self.key}/{name}"}

    def delete(self, name: str) -> None:
        """Take an object away; where there is none, that is no error."""
        client().delete_object(**self.place(name))

    def _pages(self, below: str, **how: str) -> Iterator[tuple[dict[str, Any], str]]:
        prefix = f"{self.key}/{below}".removeprefix("/")
        pages = client().get_paginator("list_objects_v2")
        for page in pages.paginate(Bucket=self.bucket, Prefix=prefix, **how):
            yield page, prefix


def _addressing(to: Access) -> dict[str, str]:
    return {"addressing_style": "path" if to.path_style else "virtual"}


def _retries() -> dict[str, Any]:
    return {"mode": "standard", "total_max_attempts": ATTEMPTS}


def _is_true(text: str | None, *, default: bool) -> bool:
    return default if not text else text.strip().upper() in ("YES", "TRUE", "ON", "1")


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
    if "://" in name or is_there(name):
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
    if "://" in name or is_there(name):
        return name
    base, _ = split_band(name)
    split = split_file(base)
    return split[1].strip('"{}') if split else base


def is_there(path: str) -> bool:
    """Return whether there is a file or folder; one in a folder that may not be searched raises."""
    try:
        os.stat(path)  # noqa: PTH116  Path.exists says no from Python 3.14 on where it may not look
    except (FileNotFoundError, NotADirectoryError, ValueError):  # the last: of null characters
        return False
    except OSError as error:
        raise InputError(
            f"{path} cannot be looked up ({str(error.strerror).lower()}); expected a name in a "
            "folder that you may search; check it, and the permissions of its folders"
        ) from error
    return True


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
    bare = file.strip('"{}') if begin else file  # its quotes or braces stay around it
    return f"{begin}{file.replace(bare, os.path.normpath(folder / bare))}{end}"


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
    held = members(name)
    inside = [each for each in held if each.lower().endswith(plain)]
    listed = inside or held
    shown = ", ".join(listed[:5]) + (", …" if len(listed) > 5 else "")
    if not inside:
        raise InputError(
            f"{name} holds no raster{f' ({shown})' if held else ''}; expected one; unpack it, and "
            "name the raster"
        )
    if len(inside) != 1:
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
