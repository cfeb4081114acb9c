"""xarray's own door to a store: ``xr.open_dataset("out/oslo.icechunk", engine="popdask")``.

``xr.open_datatree`` gives the same arrays by the stages that made them, and the groups of cells.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from xarray.backends import BackendEntrypoint

# xarray loads every engine when it looks for one: what a store needs is loaded when one is opened.
MAIN = "main"
ROOT = "population"  # the stage whose array all others were made from


class PopdaskBackend(BackendEntrypoint):
    """Opens the arrays of a job's last finished run, flat or as a tree."""

    description = "Open the results of a popdask job"
    url = ""

    def open_dataset(  # type: ignore[override]
        self,
        filename_or_obj: str | os.PathLike[str],
        *,
        drop_variables: str | Iterable[str] | None = None,
        mask_and_scale: bool = False,
        group: str | None = None,
        branch: str = MAIN,
    ) -> xr.Dataset:
        """Open a store, as `xarray.open_dataset` does."""
        from popdask.store.content import open_arrays, open_group
        from popdask.store.repository import RegionStore

        session = RegionStore(os.fspath(filename_or_obj)).session(branch)
        if group is not None:
            found = open_group(session, group, chunks=None)
        else:
            found = _by_cf(open_arrays(session, chunks=None, mask_and_scale=mask_and_scale))
        return found.drop_vars(
            [drop_variables] if isinstance(drop_variables, str) else drop_variables or ()
        )

    def open_datatree(  # type: ignore[override]
        self, filename_or_obj: str | os.PathLike[str], **how: Any
    ) -> xr.DataTree:
        """Open a store, as `xarray.open_datatree` does."""
        return xr.DataTree.from_dict(self.open_groups_as_dict(filename_or_obj, **how))

    def open_groups_as_dict(  # type: ignore[override]
        self, filename_or_obj: str | os.PathLike[str], *, branch: str = MAIN, **how: Any
    ) -> dict[str, xr.Dataset]:
        """Open a store as a tree: people and grid at the root, what a stage made under its name."""
        from popdask.store.content import arrays_of, results_of
        from popdask.store.repository import RegionStore

        store = RegionStore(os.fspath(filename_or_obj))
        arrays = self.open_dataset(filename_or_obj, branch=branch, **how)
        records = store.records(branch)
        layers = {
            stage: [name for name in arrays if name in arrays_of({stage: record})]
            for stage, record in records.items()
        }
        below = {name for stage, names in layers.items() if stage != ROOT for name in names}
        tree = {"/": arrays.drop_vars(below)}
        tree |= {
            f"/{stage}": arrays[names].drop_attrs(deep=False)
            for stage, names in layers.items()
            if names and stage != ROOT
        }
        groups = sorted(results_of(records, "groups"))
        return tree | {
            f"/{name}": self.open_dataset(filename_or_obj, branch=branch, group=name)
            for name in groups
        }

    def guess_can_open(self, filename_or_obj: Any) -> bool:
        """Return whether it looks like a store: its name ends in ``.icechunk``."""
        if not isinstance(filename_or_obj, str | os.PathLike):
            return False
        return Path(filename_or_obj).suffix == ".icechunk"


def _by_cf(arrays: xr.Dataset) -> xr.Dataset:
    """Let arrays say all that CF asks for, so that they can be written as they are."""
    from popdask.io.conventions import in_cf_units, label_attributes

    for name, variable in arrays.variables.items():
        variable.attrs = in_cf_units(variable.attrs)
        if name in arrays.coords:
            variable.encoding["_FillValue"] = None  # else xarray writes NaN
        elif variable.dtype.kind == "i":
            variable.encoding |= label_attributes(arrays[name])
        if codes := variable.attrs.get("flag_values"):
            stored = variable.encoding.get("dtype", variable.dtype)
            variable.attrs["flag_values"] = np.asarray(codes, stored)
    return arrays
