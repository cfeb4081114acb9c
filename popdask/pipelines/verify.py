"""Whether the finished results are still what was computed.

The checksum of every frame of every array, that of every model and table, and the balance of people
are computed again from what is stored, and compared with what was recorded when it was computed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import dask
import numpy as np
import zarr
from dask import delayed
from icechunk import IcechunkError

from popdask.job import Job
from popdask.store import MAIN, RegionStore, file_checksum, read_table, stored_checksum
from popdask.tracking.summary import LostPeopleError, check_balance, people_balance

TOLERANCE = 1e-9  # of the people of a raster, as promised


@dataclass(frozen=True)
class Verified:
    """What was compared, and what differs."""

    frames: int
    """Frames of arrays that were compared."""
    files: int
    """Models and tables that were compared."""
    differences: tuple[str, ...]
    """One sentence for each thing that is not what was computed; none if all is well."""


def verify(job: Job) -> Verified:
    """Compare the last finished results with what was recorded when they were computed.

    Parameters
    ----------
    job
        The settings.

    Returns
    -------
    Verified

    Raises
    ------
    InputError
        If no run is finished yet.

    Notes
    -----
    Nothing is changed. The work is done by the current Dask client, if there is one.
    """
    store = RegionStore(job.output.store)
    times = [str(time) for time in store.dataset()["time"].values.astype("datetime64[s]")]
    records = store.records()
    recorded = {
        (time, name): checksum
        for record in records.values()
        for time, frame in record.get("checksums", {}).items()
        for name, checksum in frame.items()
    }
    found = _checksums(store, times)
    differences = [
        f"{name} of {time[:10]} {_difference(checksum, recorded.get((time, name)))}."
        for (time, name), checksum in found.items()
        if checksum != recorded.get((time, name))
    ]
    differences += [
        f"{name} of {time[:10]} is not there." for time, name in recorded.keys() - found.keys()
    ]
    if not differences:  # people can be counted in whole arrays only
        differences += _imbalances(store)
    checksums = {k: v for record in records.values() for k, v in record.get("sha256", {}).items()}
    differences += _changed_files(store.files(), checksums)
    return Verified(len(found), len(checksums), tuple(differences))


def _checksums(store: RegionStore, times: list[str]) -> dict[tuple[str, str], str]:
    """Checksum of each frame of each array as it is stored, or why it cannot be read."""
    root = zarr.open_group(store.repository().readonly_session(MAIN).store, mode="r")
    tasks = {
        (time, name): delayed(_read_checksum)(array, position)
        for name, array in root.arrays()
        if array.ndim == 3
        for position, time in enumerate(times)
    }
    (found,) = dask.compute(tasks)
    return dict(found)


def _read_checksum(array: zarr.Array, frame: int) -> str:
    try:
        return stored_checksum(array, frame)
    except (IcechunkError, OSError, RuntimeError, ValueError) as error:  # damaged or missing
        return f"cannot be read: {str(error).splitlines()[0]}"


def _difference(found: str, recorded: str | None) -> str:
    if " " in found:
        return found
    if recorded is None:
        return "has no checksum on record"
    return f"is not what was computed: its checksum is {found}, {recorded} was recorded"


def _changed_files(files: Mapping[str, bytes], recorded: Mapping[str, str]) -> Iterator[str]:
    for name, checksum in sorted(recorded.items()):
        if name not in files:
            yield f"the file {name} is not there."
        elif (found := file_checksum(files[name])) != checksum:
            yield (
                f"the file {name} is not what was computed: its SHA-256 is {found[:16]}…, "
                f"{checksum[:16]}… was recorded."
            )


def _imbalances(store: RegionStore) -> Iterator[str]:
    """Count everyone again, inside communities and outside; compare with the stored balance."""
    arrays = store.dataset()
    now = people_balance(arrays["community"], arrays["population"])
    then = read_table(store.files()["balance.parquet"])
    try:
        check_balance(now)
    except LostPeopleError as error:
        yield str(error)
    for name in ("inside", "outside", "raster"):
        same = np.isclose(now[name], then[name], rtol=TOLERANCE, atol=0)
        for row in np.flatnonzero(~same):
            yield (
                f"people {name} of {now['time'][row]:%Y-%m-%d} are {now[name][row]:,.1f}, "
                f"{then[name][row]:,.1f} were recorded."
            )
