"""xarray's own door to a store: ``xr.open_dataset("out/oslo.icechunk", engine="popdask")``."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import xarray as xr
from xarray.backends import BackendEntrypoint

# xarray loads every engine when it looks for one: what a store needs is loaded when one is opened.
MAIN = "main"


class PopdaskBackend(BackendEntrypoint):
    """Opens the arrays of a job's last finished run.

    Examples
    --------
    >>> import xarray as xr
    >>> xr.open_dataset("out/nowhere.icechunk", engine=PopdaskBackend)
    Traceback (most recent call last):
    popdask.errors.InputError: out/nowhere.icechunk holds no results yet: run the job first.
    """

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
            found = open_arrays(session, chunks=None, mask_and_scale=mask_and_scale)
        return found.drop_vars(
            [drop_variables] if isinstance(drop_variables, str) else drop_variables or ()
        )

    def guess_can_open(self, filename_or_obj: Any) -> bool:
        """Tell whether it looks like a store: its name ends in ``.icechunk``."""
        if not isinstance(filename_or_obj, str | os.PathLike):
            return False
        return Path(filename_or_obj).suffix == ".icechunk"
