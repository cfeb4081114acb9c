"""Records of a repository: which stage owns what, its layout in time, runs, commits.

A record names what was written with it: arrays by ``checksums``, files by ``sha256`` and groups by
``groups``. It belongs to the stage of its own name, or to the one that it names as ``of``.

Changes of the history are safe where answers of the server get lost: a server may do what a request
asks, and the answer may be lost. Icechunk then asks again and is told that the branch has moved, or
that the tag is there: by whom, it cannot know. A region has one writer at a time, so here what was
done is compared with what was wanted.
"""

from __future__ import annotations

import itertools
import logging
import uuid
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import icechunk
import numpy as np
import zarr
from icechunk import ConflictError, IcechunkError, Repository

from popdask.store.content import drop_results, root_group, write_records

if TYPE_CHECKING:
    import xarray as xr

_log = logging.getLogger(__name__)

#: Records beside a stage's that do not name it in stores of earlier versions.
_BESIDE = {"zones": "census", "map": "groups"}

_RESULTS = ("checksums", "sha256", "groups")

#: What the first stage of a job puts down of the whole job.
_OF_THE_JOB = ("job", "pipeline", "files")

#: What a record says of files outside the store: those written, and names taken to write to.
_OUTSIDE = ("written", "writing")

Records = Mapping[str, Mapping[str, Any]]
TIME_ENCODING = {"units": "seconds since 1970-01-01", "dtype": "int64"}
# A coordinate is missing nowhere, and CF wants it to say so.
_ENCODING = {"time": TIME_ENCODING, "y": {"_FillValue": None}, "x": {"_FillValue": None}}
#: The branch that readers see, and the branch of the run under way.
MAIN, WORK = "main", "work"


def orphans(records: Records, stages: Collection[str]) -> tuple[str, ...]:
    """List the records of results that belong to none of some stages."""
    # A record without results, such as that of exports, is none of them: it says which files
    # outside the store were written, whether or not they are written still.
    return tuple(
        name
        for name, record in records.items()
        if record.get("of", _BESIDE.get(name, name)) not in stages
        and any(record.get(key) for key in _RESULTS)
    )


def without_orphans(records: Records, stages: Sequence[str]) -> dict[str, Any]:
    """Drop the records of results that belong to none of some stages."""
    gone = orphans(records, stages)
    kept: dict[str, Any] = {name: record for name, record in records.items() if name not in gone}
    of_the_job = {k: v for name in gone for k, v in records[name].items() if k in _OF_THE_JOB}
    first = next((name for name in stages if name in kept), None)
    if of_the_job and first and not any("job" in record for record in kept.values()):
        kept[first] = {**kept[first], **of_the_job}
    return kept


def arrays_of(records: Iterable[Mapping[str, Any]]) -> set[str]:
    """Name the arrays that some records name."""
    frames = (frame for record in records for frame in record.get("checksums", {}).values())
    return {name for frame in frames for name in frame}


def named_in(records: Iterable[Mapping[str, Any]], key: str) -> set[str]:
    """Name the files (``"sha256"``) or groups (``"groups"``) that some records name."""
    return {name for record in records for name in record.get(key, {})}


def outside(records: Records) -> dict[str, Any]:
    """Reduce records to the files outside the store that they name: the next run needs those."""
    files_by_stage = {
        name: {key: record[key] for key in _OUTSIDE if key in record}
        for name, record in records.items()
    }
    return {name: files for name, files in files_by_stage.items() if files}


def lay_out_anew(session: icechunk.Session, grid: xr.Dataset, records: Mapping[str, Any]) -> None:
    """Replace the arrays, and keep of all else what some records name."""
    import xarray as xr

    from popdask.io.conventions import grid_attributes, is_grid_attribute, with_axes

    kept = records.values()
    drop_results(session.store, (), named_in(kept, "sha256"), named_in(kept, "groups"))
    root = root_group(session.store)
    for name in list(root.array_keys()):
        del root[name]
    # xarray drops what the group says of itself, and says anew which variables are coordinates.
    replaced = {"coordinates", *filter(is_grid_attribute, root.attrs)}
    said = {key: value for key, value in root.attrs.items() if key not in replaced}
    coordinates = xr.Dataset(coords=with_axes(grid).coords, attrs=said | grid_attributes(grid))
    coordinates.to_zarr(session.store, mode="a", consolidated=False, encoding=_ENCODING)
    write_records(session.store, records)


def same_place(grid: xr.Dataset, stored: xr.Dataset) -> bool:
    """Return whether two grids have the same cells, at whatever times."""
    import rioxarray  # noqa: F401  registers Dataset.rio; not above, as commands only look

    return (
        all(np.array_equal(grid[axis], stored[axis]) for axis in ("y", "x"))
        and grid.rio.crs == stored.rio.crs
    )


def lengthen(root: zarr.Group, seconds: np.ndarray) -> None:
    """Make every array as long as the times."""
    for _, array in root.arrays():
        metadata: Any = array.metadata  # version 3, which names dimensions
        if (metadata.dimension_names or ("",))[0] == "time":
            array.resize((len(seconds), *array.shape[1:]))
    root["time"][:] = seconds  # type: ignore[index]


def seconds_of(dataset: xr.Dataset) -> np.ndarray:
    """Times as they are stored."""
    return dataset["time"].values.astype("datetime64[s]").astype(np.int64)


def iso_times(dataset: xr.Dataset) -> list[str]:
    """Times as records have them."""
    return [str(time) for time in dataset["time"].values.astype("datetime64[s]")]


def nothing(array: xr.DataArray) -> float | int:
    """What stands in a cell without anything."""
    return np.nan if array.dtype.kind == "f" else -1


def record_of_frames(record: Mapping[str, Any], times: set[str]) -> dict[str, Any]:
    """The record of an array's stage, of some frames only."""
    some = {
        key: {time: value for time, value in record[key].items() if time in times}
        for key in ("frames", "checksums")
    }
    return {**record, **some}


@dataclass(frozen=True)
class Finished:
    """A stage that was computed and committed.

    Examples
    --------
    >>> Finished("flow", "1 of 18 frames", "2026-01-01T00:00:00+00:00", 3.0, 10).seconds
    3.0
    """

    stage: str
    """Its name."""
    work: str
    """What was computed, such as ``"1 of 18 frames"``."""
    started: str
    """ISO time, UTC."""
    seconds: float
    """How long it took."""
    bytes: int
    """How much it added to the store."""
    amount: int = 0
    """How much there was to do, in a unit of the stage's own; 0 where that is not known."""
    of: str = ""
    """The stage that this is a part of, if it is not one itself."""


@dataclass(frozen=True)
class Run:
    """A finished run.

    Examples
    --------
    >>> stage = Finished("flow", "1 of 18 frames", "2026-01-01T00:00:00+00:00", 3.0, 10)
    >>> Run("run-1", stage.started, stage.started, (stage, stage), {}).seconds
    6.0
    """

    tag: str
    """Its tag in the repository."""
    started: str
    """ISO time, UTC, at which its first stage began."""
    finished: str
    """ISO time, UTC, at which it was published."""
    stages: tuple[Finished, ...]
    """What it computed; stages of runs that were stopped before are among them."""
    versions: Mapping[str, str]
    """Versions of popdask and of what it computes with."""
    note: str = ""
    """What else there is to say, such as that it is an earlier run again."""

    @property
    def seconds(self) -> float:
        """Time that its stages took."""
        return sum(stage.seconds for stage in self.stages)


def finished_stages(repository: icechunk.Repository) -> list[Finished]:
    """List the stages that were committed since the last finished run, in order."""
    if WORK not in repository.list_branches():
        return []
    published = repository.lookup_branch(MAIN)
    commits = itertools.takewhile(
        lambda commit: commit.id != published, _ancestry(repository, WORK)
    )
    finished_commits = [
        commit.metadata["finished"] for commit in commits if "finished" in commit.metadata
    ]
    return [Finished(**finished) for finished in reversed(finished_commits)]


def finished_runs(repository: icechunk.Repository) -> list[Run]:
    """List the finished runs, the newest first."""
    runs = (run_of(commit) for commit in _ancestry(repository, MAIN))
    return [run for run in runs if run is not None]


def _ancestry(repository: icechunk.Repository, branch: str) -> Iterator[icechunk.SnapshotInfo]:
    """The commits of a branch, the newest first, as far back as they can be read."""
    commits = repository.ancestry(branch=branch)
    while True:
        try:
            commit = next(commits, None)
        except IcechunkError as error:
            _log.warning("the history has a gap (%s): `popdask verify` says more", _first(error))
            return
        if commit is None:
            return
        yield commit


def first_commit(repository: icechunk.Repository) -> str:
    """The commit that a repository begins with, which holds nothing."""
    *_, first = repository.ancestry(branch=MAIN)
    return str(first.id)


def readable(repository: icechunk.Repository, tag: str) -> icechunk.SnapshotInfo | None:
    """Look up the commit that a tag names; None, with a warning, where it is lost."""
    try:
        return repository.lookup_snapshot(repository.lookup_tag(tag))
    except IcechunkError as error:
        _log.warning("the run %s is lost: it cannot be read (%s)", tag, _first(error))
        return None


def has_work(repository: icechunk.Repository) -> bool:
    """Return whether a run can go on from the branch ``work``; one that is lost is dropped."""
    if WORK not in repository.list_branches():
        return False
    try:
        repository.lookup_snapshot(repository.lookup_branch(WORK))
    except IcechunkError as error:
        _log.warning("what a stopped run has finished is lost (%s): it begins anew", _first(error))
        repository.delete_branch(WORK)
        return False
    return True


def _first(error: Exception) -> str:
    return " ".join(str(error).strip().splitlines()[0].split()).removeprefix("x ")


def run_of(commit: icechunk.SnapshotInfo) -> Run | None:
    """Return which run a commit has finished; None if it is another commit."""
    run = commit.metadata.get("run")
    return run and Run(**run | {"stages": tuple(Finished(**stage) for stage in run["stages"])})


def utc_now() -> str:
    """Return the time as ISO text, UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def create(storage: icechunk.Storage) -> None:
    """Create a repository."""
    try:
        Repository.create(storage)
    except IcechunkError:
        if not Repository.exists(storage):
            raise


def commit(
    repository: Repository,
    session: icechunk.Session,
    message: str,
    metadata: Mapping[str, Any] | None = None,
) -> str:
    """Commit a session to its branch."""
    mark = uuid.uuid4().hex
    try:
        return str(session.commit(message, {**(metadata or {}), "commit": mark}))
    except ConflictError:
        tip = next(iter(repository.ancestry(branch=session.branch)))
        if tip.metadata.get("commit") != mark:
            raise
        return str(tip.id)


def create_branch(repository: Repository, branch: str, snapshot: str) -> None:
    """Create a branch at a snapshot."""
    try:
        repository.create_branch(branch, snapshot)
    except IcechunkError:
        if not _points(repository.lookup_branch, branch, snapshot):
            raise


def move_branch(repository: Repository, branch: str, snapshot: str) -> None:
    """Let a branch point to a snapshot."""
    try:
        repository.reset_branch(branch, snapshot)
    except IcechunkError:
        if not _points(repository.lookup_branch, branch, snapshot):
            raise


def create_tag(repository: Repository, tag: str, snapshot: str) -> None:
    """Name a snapshot, for good."""
    try:
        repository.create_tag(tag, snapshot)
    except IcechunkError:
        if not _points(repository.lookup_tag, tag, snapshot):
            raise


def delete_tag(repository: Repository, tag: str) -> None:
    """Take the name of a snapshot away."""
    try:
        repository.delete_tag(tag)
    except IcechunkError:
        if tag in repository.list_tags():
            raise


def _points(lookup: Any, name: str, snapshot: str) -> bool:
    try:
        return bool(lookup(name) == snapshot)
    except IcechunkError:  # it is not there: the first error says why
        return False
