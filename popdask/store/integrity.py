"""Whether all that readers of a repository can reach is there, and is what was written.

Checksums of frames and files tell of results. Beside them a reader goes by the coordinates, by the
record of the run, and by Icechunk's own files: the snapshots of branches, tags and the history, and
the manifests that say where chunks lie. Each of them can be lost or damaged by itself, so each is
read. The coordinates' checksums are those of the grid that the run was given.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import dask
import icechunk
import numpy as np
import zarr
from dask import delayed

from popdask.store import content
from popdask.store.content import MAIN, READ_ERRORS, RUN_FILE, WORK

if TYPE_CHECKING:
    import xarray as xr

#: What to do about earlier runs that cannot be read: they are not needed by later ones.
_EARLIER = "readers of the last run do not need it; `popdask expire JOB --keep 1` drops such runs"

#: What to do about the last run itself.
_ANEW = "`popdask run JOB --force` computes anew what it held"

#: What to do about a history with a gap: Icechunk neither fills nor skips it.
GAP = (
    "the history ends there, and old runs cannot be expired; results are read and computed as "
    "before; for a whole history, move the store away and run the job anew"
)
Key = tuple[str, str, str]


def coordinate_checksums(grid: xr.Dataset) -> dict[str, str]:
    """Checksums of what says where and when the cells of a region lie, by name."""
    import rioxarray  # noqa: F401  registers Dataset.rio; not above, as commands only look

    values = {axis: np.ascontiguousarray(grid[axis], np.float64) for axis in ("y", "x")}
    values["time"] = content.seconds_of(grid)
    sums = {name: hashlib.sha256(part.tobytes()).hexdigest() for name, part in values.items()}
    crs = grid.rio.crs
    return sums | {"crs": hashlib.sha256((crs.to_wkt() if crs else "").encode()).hexdigest()}


def run_problems(repository: icechunk.Repository, snapshot: str) -> Iterator[str]:
    """Say what of a finished run's own record, and of its coordinates, is not as it was written."""
    session = repository.readonly_session(snapshot_id=snapshot)
    sha256 = repository.lookup_snapshot(snapshot).metadata.get("sha256")
    problem = content.file_problem(session.store, RUN_FILE, sha256) if sha256 else None
    if problem:
        yield f"the file {RUN_FILE} {problem}"
        return
    then = json.loads(content.read_file(session.store, RUN_FILE)).get("coordinates", {})
    try:
        arrays = content.open_arrays(session)
        arrays.coords.to_dataset().load()
    except READ_ERRORS as error:
        yield f"the coordinates cannot be read ({content.reason_of(error)})"
        return
    now = coordinate_checksums(arrays) if then else {}
    yield from (
        f"the coordinate {name} is not what was computed"
        for name in sorted(then)
        if now[name] != then[name]
    )


def frame_checksums(session: icechunk.Session) -> dict[tuple[str, str], str]:
    """Checksum of each frame of each array as it is stored, by (time, name), or why it has none."""
    root = content.root_group(session.store, "r")
    times = content.iso_times(content.open_arrays(session))
    return _read_frames(
        {
            (time, name): partial(_read_checksum, array, position)
            for name, array in sorted(root.arrays())
            if array.ndim == 3
            for position, time in enumerate(times)
        }
    )


def _read_frames(wanted: Mapping[tuple[str, str], partial[str]]) -> dict[tuple[str, str], str]:
    """Read checksums, on the workers of the present client where there is one."""
    (found,) = dask.compute({key: delayed(read)() for key, read in wanted.items()})
    return dict(found)


def _read_checksum(array: zarr.Array, frame: int) -> str:
    try:
        return content.stored_checksum(array, frame)
    except READ_ERRORS as error:
        return f"cannot be read: {content.reason_of(error)}"


@dataclass(frozen=True)
class _Walk:
    """What is reached from branches and tags."""

    snapshots: dict[str, Any] = field(default_factory=dict)
    """What is said in those that can be read, by id."""
    lost: dict[str, str] = field(default_factory=dict)  # why others cannot be, by id
    heads: dict[str, str] = field(default_factory=dict)  # snapshots that branches and tags point to

    @property
    def gaps(self) -> set[str]:
        """Lost snapshots before others, with which the history ends."""
        return self.lost.keys() & {info.get("parent_id") for info in self.snapshots.values()}

    def loss(self, snapshot: str) -> str:
        """Say which snapshot is lost, and why."""
        heads = [name for name, head in self.heads.items() if head == snapshot]
        whose = f"the run {heads[0]}" if heads else "the history"
        return f"the snapshot {snapshot} of {whose} cannot be read ({self.lost[snapshot]})"

    def manifests(self, snapshots: set[str]) -> dict[str, int]:
        """Sizes of the manifests of some snapshots, by id."""
        held = (self.snapshots[one]["manifests"] for one in snapshots if one in self.snapshots)
        return {part["id"]: part["size_bytes"] for parts in held for part in parts}


def _walk(repository: icechunk.Repository) -> _Walk:
    walk = _Walk()
    for branch in sorted(repository.list_branches()):
        walk.heads[branch] = repository.lookup_branch(branch)
    for tag in sorted(repository.list_tags()):
        walk.heads[tag] = repository.lookup_tag(tag)
    for head in walk.heads.values():
        snapshot: str | None = head
        while snapshot and snapshot not in walk.snapshots and snapshot not in walk.lost:
            try:
                walk.snapshots[snapshot] = json.loads(repository.inspect_snapshot(snapshot))
            except READ_ERRORS as error:
                walk.lost[snapshot] = content.reason_of(error)
                break
            snapshot = walk.snapshots[snapshot].get("parent_id")  # the first has none
    return walk


def other_problems(
    repository: icechunk.Repository, files: Callable[[], Mapping[str, int]], *, whole: bool = True
) -> list[str]:
    """Say what is lost or damaged of all but the last run's results, and what to do about each."""
    walk = _walk(repository)
    sizes = files()  # after the walk: a run may be adding to them
    # Where the last run's results are whole, bytes that are missing are of earlier runs. Where
    # snapshots or manifests are lost, what hangs on them is lost with them.
    gaps, manifests = walk.gaps, _lost_manifests(walk, sizes)
    lost = [f"{walk.loss(one)}: {GAP if one in gaps else _EARLIER}" for one in walk.lost]
    lost += [f"{loss}: {_ANEW if current else _EARLIER}" for loss, current in manifests]
    lost = lost or [*_earlier_problems(repository)]
    return lost if lost or not whole else [*_unreadable(repository, sizes)]


def is_unwritable(repository: icechunk.Repository, files: Callable[[], Mapping[str, int]]) -> bool:
    """Return whether Icechunk's files are damaged, so that commits on top of them may fail."""
    walk = _walk(repository)
    if any(current for _, current in _lost_manifests(walk, files())):
        return True
    if walk.lost:  # by which chunks cannot be counted; commits do without
        return False
    try:
        repository.chunk_storage_stats()
    except READ_ERRORS:
        return True
    return False


def history_gap(repository: icechunk.Repository) -> str | None:
    """Say that the history has a gap; None if it has none."""
    walk = _walk(repository)
    return next((walk.loss(one) for one in walk.lost if one in walk.gaps), None)


def _lost_manifests(walk: _Walk, sizes: Mapping[str, int]) -> Iterator[tuple[str, bool]]:
    """Say which manifests are lost, and whether the last run, or the one under way, needs them."""
    now = {walk.heads[name] for name in (MAIN, WORK) if name in walk.heads}
    current = walk.manifests(now)
    for manifest, size in walk.manifests(set(walk.snapshots)).items():
        found = sizes.get(f"manifests/{manifest}")
        if found != size:
            state = "is not there" if found is None else f"has {found} bytes instead of {size}"
            yield f"the manifest {manifest} {state}", manifest in current


def _unreadable(repository: icechunk.Repository, sizes: Mapping[str, int]) -> Iterator[str]:
    """Read every manifest, and add up the chunks that they list."""
    try:
        wanted = repository.chunk_storage_stats().native_bytes
    except READ_ERRORS as error:
        reason = content.reason_of(error)
        yield f"a manifest cannot be read ({reason}): restore the store from a copy"
        return
    there = sum(size for name, size in sizes.items() if name.startswith("chunks/"))
    if there < wanted:  # more of them may be what stopped runs left
        yield f"{wanted - there:,} bytes of chunks are not there: {_EARLIER}"


def _earlier_problems(repository: icechunk.Repository) -> Iterator[str]:
    """Say what of earlier runs is not what was computed; what the last run shares is not read."""
    main = repository.lookup_branch(MAIN)
    known = _results(repository.readonly_session(MAIN))
    for tag in sorted(repository.list_tags()):
        snapshot = repository.lookup_tag(tag)
        if snapshot == main:
            continue
        try:
            session = repository.readonly_session(tag=tag)
            results = _results(session)
            fresh = {
                key: checksum for key, checksum in results.items() if known.get(key) != checksum
            }
            known |= fresh
            problems = [*_differing(session, fresh), *run_problems(repository, snapshot)]
        except READ_ERRORS as error:
            problems = [f"cannot be read: {content.reason_of(error)}"]
        for problem in problems:
            yield f"of the earlier run {tag}, {problem}: {_EARLIER}"


def _results(session: icechunk.Session) -> dict[Key, str]:
    """Checksums of all results, as they were computed, by (kind, time, name)."""
    records = content.read_records(session.store)
    frames = content.recorded_frames(records)
    found = {("frame", time, name): checksum for (time, name), checksum in frames.items()}
    for kind in ("sha256", "groups"):
        sums = content.results_of(records, kind)
        found |= {(kind, "", name): checksum for name, checksum in sums.items()}
    return found


def _differing(session: icechunk.Session, wanted: Mapping[Key, str]) -> Iterator[str]:
    """Say which of some results cannot be read as they were computed."""
    root = content.root_group(session.store, "r")
    positions = {time: i for i, time in enumerate(content.iso_times(content.open_arrays(session)))}
    frames = {
        (time, name): checksum for (kind, time, name), checksum in wanted.items() if kind == "frame"
    }
    reads = {
        (time, name): partial(_read_checksum, array, positions[time])
        for name, array in root.arrays()
        for time in positions
        if (time, name) in frames
    }
    found = _read_frames(reads)
    for (time, name), checksum in frames.items():
        now = found.get((time, name), "is not there")
        if now != checksum:
            yield f"{name} of {time[:10]} {now if ' ' in now else 'is not what was computed'}"
    for (kind, _, name), checksum in wanted.items():
        if kind != "frame":
            check = content.file_problem if kind == "sha256" else content.group_problem
            if problem := check(session.store, name, checksum):
                yield f"{'the file' if kind == 'sha256' else 'the group'} {name} {problem}"
