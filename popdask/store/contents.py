"""What lies in a repository beside arrays: files, tables and records.

A file is an array of bytes in the group ``files``; a record is an attribute of ``provenance``.
"""

from __future__ import annotations

import io
from collections.abc import Container, Iterable, Mapping
from typing import Any

import icechunk
import numpy as np
import pandas as pd
import xarray as xr
import zarr
from icechunk import IcechunkError

from popdask.errors import InputError
from popdask.store.checksums import file_checksum

#: Groups that are no result: the files lie in one, the records on the other.
OWN_GROUPS = ("files", "provenance")

#: What reading a damaged or lost chunk may end in.
READ_ERRORS = (IcechunkError, OSError, RuntimeError, ValueError)


class NoResultError(InputError, KeyError):
    """A store has no result of that name; the message says which it has."""

    __str__ = Exception.__str__  # a KeyError's puts the sentence into quotes

    @classmethod
    def of(cls, kind: str, name: str, held: Iterable[str]) -> NoResultError:
        """Make the error for a name, and those that a store has of its kind.

        Examples
        --------
        >>> print(NoResultError.of("table", "link", ["tracks", "links"]))
        the store has no table 'link'; expected one of these: links, tracks
        """
        names = ", ".join(sorted(held))
        expected = f"expected one of these: {names}" if names else "it has none of that kind"
        return cls(f"the store has no {kind} {name!r}; {expected}")


def table_bytes(frame: pd.DataFrame) -> bytes:
    """Write a table, with or without geometry, as the bytes of a (Geo)Parquet file."""
    buffer = io.BytesIO()
    frame.to_parquet(buffer, index=False)
    return buffer.getvalue()


def read_table(content: bytes) -> pd.DataFrame:
    """Read a table from the bytes of a Parquet file; a GeoDataFrame where it has geometry."""
    import geopandas
    import pyarrow.parquet

    if b"geo" in (pyarrow.parquet.read_schema(io.BytesIO(content)).metadata or {}):
        return geopandas.read_parquet(io.BytesIO(content))
    return pd.read_parquet(io.BytesIO(content))


def root_group(store: Any) -> zarr.Group:
    """Open the group of the arrays, to read and write."""
    return zarr.open_group(store, mode="a")


def open_arrays(session: icechunk.Session) -> xr.Dataset:
    """Open the arrays of a session, lazily, in their chunks."""
    return xr.open_zarr(session.store, consolidated=False, chunks={})


def open_group(session: icechunk.Session, name: str) -> xr.Dataset:
    """Open a group of a session, lazily, in its chunks.

    Raises
    ------
    NoResultError
        If there is none of that name.
    """
    root = _subgroup(session.store, "")
    held = set() if root is None else set(root.group_keys()).difference(OWN_GROUPS)
    if name not in held:
        raise NoResultError.of("group", name, held)
    return xr.open_zarr(
        session.store, group=name, consolidated=False, chunks={}, decode_coords="all"
    )


def drop_results(
    store: Any, arrays: Container[str], files: Container[str], groups: Container[str]
) -> list[str]:
    """Take away the frames' arrays, the files and the groups that are not among those to keep.

    Returns
    -------
    list of str
        The names of what went.
    """
    root = root_group(store)
    own = root.require_group("files")
    old = [name for name, array in root.arrays() if array.ndim == 3 and name not in arrays]
    old += [name for name in root.group_keys() if name not in groups and name not in OWN_GROUPS]
    old_files = [name for name in own.array_keys() if name not in files]
    for name in old:
        del root[name]
    for name in old_files:
        del own[name]
    return sorted(old + old_files)


def is_empty(store: Any) -> bool:
    """Tell whether nothing was ever written."""
    return _subgroup(store, "") is None


def read_files(store: Any) -> dict[str, bytes]:
    """Read all models and tables, each as the bytes of its file."""
    group = _subgroup(store, "files")
    if group is None:
        return {}
    return {name: np.asarray(array[:]).tobytes() for name, array in group.arrays()}


def read_file(store: Any, name: str) -> bytes:
    """Read one model or table, as the bytes of its file.

    Raises
    ------
    NoResultError
        If there is none of that name.
    """
    group = _subgroup(store, "files")
    if group is None or name not in group:
        raise NoResultError.of("file", name, file_names(store))
    array: Any = group[name]
    return bytes(np.asarray(array[:]).tobytes())


def file_names(store: Any) -> list[str]:
    """List the models and tables, without reading them."""
    group = _subgroup(store, "files")
    return [] if group is None else sorted(group.array_keys())


def file_problem(store: Any, name: str, sha256: str) -> str | None:
    """Say what is wrong with a file of which the checksum is known; None if nothing is."""
    try:
        found = file_checksum(read_file(store, name))
    except KeyError:
        return "is not there"
    except READ_ERRORS as error:
        return f"cannot be read: {str(error).splitlines()[0].strip()}"
    if found == sha256:
        return None
    return f"is not what was computed: its SHA-256 is {found[:16]}…, {sha256[:16]}… was recorded"


def write_files(store: Any, files: Mapping[str, bytes], remove: Iterable[str] = ()) -> None:
    """Write some files, and take others away."""
    group = root_group(store).require_group("files")
    for name in remove:
        del group[name]
    for name, content in files.items():
        data = np.frombuffer(content, np.uint8)
        group.create_array(name, data=data, chunks=(max(len(data), 1),), overwrite=True)


def read_records(store: Any) -> dict[str, Any]:
    """Read what each finished stage was made from, by the stage's name."""
    group = _subgroup(store, "provenance")
    return {} if group is None else dict(group.attrs)


def write_records(store: Any, records: Mapping[str, Any]) -> None:
    """Replace all records."""
    root_group(store).require_group("provenance").attrs.put(dict(records))


def _subgroup(store: Any, name: str) -> zarr.Group | None:
    try:
        return zarr.open_group(store, path=name, mode="r")
    except zarr.errors.GroupNotFoundError:
        return None
