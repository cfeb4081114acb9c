"""What a run was made from and with: files, settings, versions, machine; and no secrets."""

from __future__ import annotations

import os
import platform
import re
import socket
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from distributed import get_client

from popdask import cube
from popdask.job import Job

#: What the numbers of a result may depend on.
LIBRARIES = (
    "popdask",
    "dask",
    "distributed",
    "icechunk",
    "numba",
    "numpy",
    "pandas",
    "rasterio",
    "scikit-learn",
    "scipy",
    "shapely",
    "torch",
    "xarray",
    "zarr",
)

_USER_INFO = re.compile(r"(?<=://)[^/@]*@")
_QUERY = re.compile(r"(?<=://)([^?#]*)[?#].*")


def file_fingerprints(
    frames: Mapping[np.datetime64, str], known: Mapping[str, Any]
) -> dict[str, dict[str, Any]]:
    """Tell the version of each frame's file.

    Parameters
    ----------
    frames
        Path or URL of each frame's file, by time.
    known
        The fingerprints on record, by ISO time. A file of the size and time on record is not read
        again.

    Returns
    -------
    dict
        By ISO time: ``path`` (without secrets), ``size``, ``mtime`` and ``sha256``.

    Raises
    ------
    InputError
        If a file is missing.
    """
    times = {str(time.astype("datetime64[s]")): path for time, path in frames.items()}
    return {time: file_fingerprint(path, known.get(time, {})) for time, path in times.items()}


def file_fingerprint(path: str, known: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Tell the version of one file: ``path`` (without secrets), ``size``, ``mtime``, ``sha256``.

    Parameters
    ----------
    path
        Path or URL of the file.
    known
        What is on record of it; a file of that size and time is not read again.

    Raises
    ------
    InputError
        If the file is missing.
    """
    if known and known.get("path") == path and Path(path).exists():
        stat = Path(path).stat()
        modified = datetime.fromtimestamp(stat.st_mtime, UTC).isoformat()
        if (known["size"], known["mtime"]) == (stat.st_size, modified):
            return dict(known)
    return {"path": without_secrets(path), **cube.frame_fingerprint(path)}


def run_record(
    job: Job, files: Mapping[str, Mapping[str, Any]], seeds: Mapping[str, int], **told: Any
) -> dict[str, Any]:
    """Put down what a run was made from and with.

    Parameters
    ----------
    job
        The settings.
    files
        The fingerprints of the files that it read.
    seeds
        The seeds, by stage.
    **told
        What else the pipeline has to tell, such as the balance of people.

    Returns
    -------
    dict
        ``name``, ``settings``, ``seeds``, ``inputs``, ``versions``, ``machine`` and what else was
        told, as can be written as JSON. The environment is no part of it, nor what URLs say beside
        places.
    """
    return {
        "name": job.name,
        "settings": _clean(job.model_dump(mode="json")),
        "seeds": dict(seeds),
        "inputs": dict(files),
        "versions": versions(),
        "machine": _machine(),
        **told,
    }


def versions() -> dict[str, str]:
    """Versions of Python and of the libraries that the numbers may depend on."""
    return {"python": platform.python_version()} | {name: _version(name) for name in LIBRARIES}


def without_secrets(place: str) -> str:
    """Drop from a URL its user, password, query and fragment; a path stays as it is.

    Examples
    --------
    >>> without_secrets("https://me:word@host/pop_2001.tif?token=abc")
    'https://host/pop_2001.tif'
    >>> without_secrets("/data/pop_2001.tif")
    '/data/pop_2001.tif'
    """
    return _QUERY.sub(r"\1", _USER_INFO.sub("", place))


def _clean(value: Any) -> Any:
    """The same settings, without secrets in their URLs."""
    if isinstance(value, dict):
        return {key: _clean(inner) for key, inner in value.items()}
    return without_secrets(value) if isinstance(value, str) else value


def _machine() -> dict[str, Any]:
    """The host of the run, and what its workers are."""
    host = {"host": socket.gethostname(), "system": platform.platform(), "cores": os.cpu_count()}
    try:
        workers = get_client().scheduler_info(n_workers=-1)["workers"].values()
    except ValueError:  # no client: plain Dask
        return host
    return host | {"workers": len(workers), "threads": sum(w["nthreads"] for w in workers)}


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:  # a checkout that was never installed
        return "unknown"
