"""Which version of a file a frame is read from: told by what is in it, or by what its server says.

A local file is read to its end. A file behind a URL is not where its server can tell: by an ETag,
as object stores give for every object, or else by its size and the time of its last change.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

from popdask.cube.rasters import is_remote, missing_file
from popdask.errors import InputError
from popdask.object_store import failures, file_system


def frame_fingerprint(path: str, expected: str = "a file that you may read") -> dict[str, Any]:
    """Tell one version of a file from another, for the provenance of a result.

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
    try:
        return _told_by_server(path) or _read(path)
    except FileNotFoundError as error:
        raise missing_file(path, expected) from error
    except failures() as error:
        raise InputError(
            f"{path} cannot be read ({error}); expected {expected}; check its kind and its "
            "permissions"
        ) from error


def frame_version(fingerprint: Mapping[str, Any]) -> str:
    """Give the mark of a version: other contents have another mark.

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
    if "sha256" in fingerprint:
        return str(fingerprint["sha256"])
    mark = f"etag {fingerprint['etag']}" if "etag" in fingerprint else fingerprint["mtime"]
    return f"{mark} of {fingerprint['size']} bytes"


def _told_by_server(path: str) -> dict[str, Any] | None:
    """What a server says of a file, if that marks a version."""
    if "://" not in path:
        return None
    system, name = file_system(path)
    told = system.info(name)
    size, time, etag = told.get("size"), _changed(told), told.get("ETag")
    if etag:
        return {"size": size, "mtime": time, "etag": etag}
    return {"size": size, "mtime": time} if size and time else None


def _changed(told: Mapping[str, Any]) -> str | None:
    """The time of the last change: S3 and HTTP write it in ways of their own."""
    if "LastModified" in told:
        return str(told["LastModified"].astimezone(UTC).isoformat())
    if "Last-Modified" in told:
        return parsedate_to_datetime(told["Last-Modified"]).astimezone(UTC).isoformat()
    return None


def _read(path: str) -> dict[str, Any]:
    with _open_bytes(path) as stream:
        digest = hashlib.file_digest(stream, "sha256")
        size = stream.tell()
    mtime = None
    if not is_remote(path):
        mtime = datetime.fromtimestamp(Path(path).stat().st_mtime, UTC).isoformat()
    return {"size": size, "mtime": mtime, "sha256": digest.hexdigest()}


def _open_bytes(path: str) -> Any:
    if "://" not in path:
        return Path(path).open("rb")
    system, name = file_system(path)
    return system.open(name, "rb")
