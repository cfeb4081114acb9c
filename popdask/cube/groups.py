"""Datasets as plain Zarr groups, in a folder or behind a URL."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import xarray as xr

from popdask.errors import InputError
from popdask.object_store import fsspec_options
from popdask.whole import Path_, whole


def write_group(dataset: xr.Dataset, path: Path_, what: str) -> None:
    """Write a Dataset as a new Zarr group; in a folder, whole or not at all.

    Parameters
    ----------
    dataset : Dataset
        In the chunks that are to be stored.
    path : path or URL
        A new folder. Object stores cannot rename: an interrupted write leaves part of a group
        behind a URL.
    what : str
        What is written, as an error calls it.

    Raises
    ------
    InputError
        If `path` is there already.
    """
    taken = InputError(f"{path} exists; expected a new folder for {what}; remove or rename it")
    if "://" in str(path):
        try:
            cells = dataset.to_zarr(path, mode="w-", compute=False, **_options(path))
        except FileExistsError as error:
            raise taken from error
        cells.compute()
        return
    if Path(path).exists():
        raise taken
    with whole(path, new=True) as unfinished:
        dataset.to_zarr(unfinished, mode="w-", **_options(path))


def open_group(path: Path_, expected: str) -> xr.Dataset:
    """Open a Zarr group, lazily, in the chunks of the store.

    Parameters
    ----------
    path : path or URL
        The group.
    expected : str
        What should be there, as an error calls it.

    Raises
    ------
    InputError
        If it cannot be opened.
    """
    try:
        return xr.open_zarr(path, chunks={}, decode_coords="all", **_options(path))
    except (FileNotFoundError, ValueError, KeyError) as error:
        raise InputError(
            f"{path} cannot be opened as Zarr ({error}); expected {expected}; correct the path"
        ) from error


def _options(path: Path_) -> dict[str, Any]:
    options = fsspec_options(os.fspath(path)) or None
    return {"consolidated": False, "storage_options": options}
