"""Whether the finished results are still what was computed.

The checksum of every frame of every array, that of every model, table and exported file, and what
the product promises (the balance of people) are computed again from what is there, and compared
with what was recorded when it was computed.
"""

from __future__ import annotations

from dataclasses import dataclass

import dask
import zarr
from dask import delayed

from popdask.job import Job
from popdask.pipelines import product
from popdask.pipelines.exports import changed_exports, exported
from popdask.store import MAIN, RegionStore, stored_checksum
from popdask.store.contents import READ_ERRORS


@dataclass(frozen=True)
class Verified:
    """What was compared, and what differs."""

    frames: int
    """Frames of arrays that were compared."""
    files: int
    """Models, tables, groups of arrays and exported files that were compared."""
    differences: tuple[str, ...]
    """One sentence for each thing that is not what was computed; none if all is well."""
    exports: tuple[str, ...] = ()
    """The stages that write the files again, where only exported files differ; else none."""


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
    files = {k: v for record in records.values() for k, v in record.get("sha256", {}).items()}
    problems = {name: store.file_problem(name, sha256) for name, sha256 in sorted(files.items())}
    differences += [f"the file {name} {what}." for name, what in problems.items() if what]
    groups = {k: v for record in records.values() for k, v in record.get("groups", {}).items()}
    broken = {name: store.group_problem(name, checksum) for name, checksum in groups.items()}
    differences += [f"the group {name} {what}." for name, what in sorted(broken.items()) if what]
    exports = exported(records) if getattr(job.output, "export", ()) else {}
    if not differences:  # what the product promises can be checked in whole arrays only
        differences += product(job).check(store)
    changed = list(changed_exports(records, job)) if exports else []
    rewritten = () if differences else dict.fromkeys(stage for stage, _ in changed)
    differences += [difference for _, difference in changed]
    compared = len(files) + len(groups) + len(exports)
    return Verified(len(found), compared, tuple(differences), tuple(rewritten))


def _checksums(store: RegionStore, times: list[str]) -> dict[tuple[str, str], str]:
    """Checksum of each frame of each array as it is stored, or why it cannot be read."""
    root = zarr.open_group(store.repository().readonly_session(MAIN).store, mode="r")
    tasks = {
        (time, name): delayed(_read_checksum)(array, position)
        for name, array in sorted(root.arrays())
        if array.ndim == 3
        for position, time in enumerate(times)
    }
    (found,) = dask.compute(tasks)
    return dict(found)


def _read_checksum(array: zarr.Array, frame: int) -> str:
    try:
        return stored_checksum(array, frame)
    except READ_ERRORS as error:
        return f"cannot be read: {str(error).splitlines()[0].strip()}"


def _difference(found: str, recorded: str | None) -> str:
    if " " in found:
        return found
    if recorded is None:
        return "has no checksum on record"
    return f"is not what was computed: its checksum is {found}, {recorded} was recorded"
