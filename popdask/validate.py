"""What a verb was given, looked at before it computes: the common mistakes, each in one sentence.

Only what can be told from types, dimensions and column names is looked at, never a cell.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from popdask.errors import InputError

if TYPE_CHECKING:
    from xarray import DataArray

#: What newcomers call the dimensions of a raster, and what popdask calls them.
USUAL = {
    "lat": "y",
    "latitude": "y",
    "northing": "y",
    "row": "y",
    "lon": "x",
    "longitude": "x",
    "easting": "x",
    "col": "x",
    "column": "x",
    "band": "channel",
    "date": "time",
    "year": "time",
}


def check_array(name: str, given: Any, *dims: str, hint: str = "") -> None:
    """Refuse what is no DataArray, or lacks a dimension."""
    import xarray as xr

    if isinstance(given, xr.Dataset):
        held = ", ".join(map(repr, given.data_vars)) or "nothing"
        choice = name if name in given.data_vars else next(iter(given.data_vars), name)
        raise InputError(
            f"{name} is a Dataset that holds {held}; expected one DataArray; select it, as in "
            f"dataset[{choice!r}]"
        )
    wanted = _listed(dims)
    if not isinstance(given, xr.DataArray):
        raise InputError(
            f"{name} is {_kind(given)}; expected an xarray.DataArray with {wanted} among its "
            f"dimensions; {hint or 'wrap it, as in xarray.DataArray(values, dims=(…))'}"
        )
    missing = [dim for dim in dims if dim not in given.dims]
    if missing:
        raise InputError(
            f"{name} has the dimensions {given.dims}; expected {wanted} among them; "
            f"{_renaming(name, given, missing) or hint or 'rename or add them'}"
        )


def check_labels(name: str, given: Any) -> None:
    """Refuse what is no DataArray (…, y, x) of whole numbers."""
    check_array(name, given, "y", "x")
    if given.dtype.kind not in "iu":
        called = f" ({given.name!r})" if given.name is not None else ""
        raise InputError(
            f"{name} holds {given.dtype}{called}; expected whole numbers, −1 = none; give the "
            "labels that dbscan makes, and mind the order of the arguments"
        )


def check_flow(given: Any) -> None:
    """Refuse what is no Dataset with u and v."""
    import xarray as xr

    held = ""
    if isinstance(given, xr.Dataset):
        if {"u", "v"} <= set(given.data_vars):
            return
        held = f" that holds {', '.join(map(repr, given.data_vars)) or 'nothing'}"
    raise InputError(
        f"flow is {_kind(given)}{held}; expected the Dataset of u and v (…, y, x) that "
        "optical_flow makes; give that"
    )


def check_table(name: str, given: Any, columns: Sequence[str], source: str) -> None:
    """Refuse what is no table with certain columns."""
    import pandas as pd

    if not isinstance(given, pd.DataFrame):
        raise InputError(
            f"{name} is {_kind(given)}; expected the table that {source} makes; mind the order of "
            "the arguments"
        )
    missing = [column for column in columns if column not in given.columns]
    if missing:
        raise InputError(
            f"{name} has no column {_listed([repr(column) for column in missing])}; expected the "
            f"table that {source} makes; mind the order of the arguments"
        )


def check_instance(name: str, given: Any, kind: type, source: str) -> None:
    """Refuse what is not of a class; `source` says where one comes from."""
    if not isinstance(given, kind):
        raise InputError(
            f"{name} is {_kind(given)}; expected the {kind.__name__} that {source} makes; mind "
            "the order of the arguments"
        )


def _kind(given: Any) -> str:
    """What something is, with its article."""
    kind = type(given).__name__
    if kind == "ndarray":
        return "a NumPy array"
    return f"{'an' if kind[0].lower() in 'aeiou' else 'a'} {kind}"


def _listed(words: Sequence[str]) -> str:
    *first, last = words
    return f"{', '.join(first)} and {last}" if first else last


def _renaming(name: str, given: DataArray, missing: Sequence[str]) -> str:
    """How the dimensions would be renamed, where they have names that are usual elsewhere."""
    there = {str(dim): USUAL.get(str(dim).lower()) for dim in given.dims}
    pairs = [f"{dim}={usual!r}" for dim, usual in there.items() if usual in missing]
    if len(pairs) < len(missing):
        return ""
    return f"rename them, as in {name}.rename({', '.join(pairs)})"
