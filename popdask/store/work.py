"""The unfinished state of a run: stages are written and committed one by one, then published."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeVar

import icechunk
import numpy as np
import pandas as pd
import xarray as xr

from popdask.store import commits
from popdask.store.checksums import file_checksum
from popdask.store.contents import (
    drop_results,
    open_arrays,
    open_group,
    read_file,
    read_files,
    read_records,
    read_table,
    root_group,
    write_files,
    write_records,
)
from popdask.store.groups import lay_out_group, store_group
from popdask.store.layout import (
    iso_times,
    lay_out_anew,
    lengthen,
    nothing,
    record_of_frames,
    same_place,
    seconds_of,
)
from popdask.store.location import Guard, Location
from popdask.store.ownership import arrays_of, named_in, outside, without_orphans
from popdask.store.runs import MAIN, WORK, Finished, Run, finished_stages, utc_now
from popdask.store.trouble import damage_told, told
from popdask.store.writing import store_frames

#: The file that tells of the run that a state was published by.
RUN_FILE = "run.json"


Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def _storing(
    change: Callable[Concatenate[Work, Arguments], Result],
) -> Callable[Concatenate[Work, Arguments], Result]:
    """Let a change of the store that fails say why in one sentence."""

    @wraps(change)
    def told_in_a_sentence(work: Work, *args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        with told(work.location):
            return change(work, *args, **kwargs)

    return told_in_a_sentence


class Work:
    """The unfinished state of a run, on the branch ``work``.

    Parameters
    ----------
    repository
        Where that branch is.
    location
        Where the repository is.
    guard
        Is called before each commit; raises if the region is no longer held.
    """

    def __init__(
        self, repository: icechunk.Repository, location: Location, guard: Guard = lambda: None
    ) -> None:
        self._repository = repository
        self.location = location
        self._guard = guard
        self._since = time.perf_counter()
        self._bytes = location.bytes()

    def dataset(self) -> xr.Dataset:
        """Open the arrays as they stand, lazily."""
        with damage_told(self.location):
            return open_arrays(self._repository.readonly_session(WORK))

    def files(self) -> dict[str, bytes]:
        """Read the models and tables as they stand."""
        return read_files(self._repository.readonly_session(WORK).store)

    def file(self, name: str) -> bytes:
        """Read one model or table as it stands."""
        with damage_told(self.location):
            return read_file(self._repository.readonly_session(WORK).store, name)

    def table(self, name: str) -> pd.DataFrame:
        """Read one table as it stands."""
        return read_table(self.file(f"{name}.parquet"))

    def records(self) -> dict[str, Any]:
        """Read what each finished stage was made from."""
        return read_records(self._repository.readonly_session(WORK).store)

    def finished(self) -> list[Finished]:
        """List the stages that were committed since the last finished run."""
        return finished_stages(self._repository)

    @_storing
    def forget(self, stages: Sequence[str]) -> None:
        """Drop the records of some stages, so that they are computed again, and commit.

        Which files they have written outside the store stays on record.
        """
        session = self._repository.writable_session(WORK)
        records = read_records(session.store)
        if dropped := sorted(set(stages) & set(records)):
            kept = {name: record for name, record in records.items() if name not in dropped}
            write_records(session.store, outside(records) | kept)
            self._write(session, f"forget {', '.join(dropped)}")

    @_storing
    def lay_out(self, grid: xr.Dataset, keep: Sequence[str]) -> None:
        """Make room for the frames of ``grid``; what is stored for the same frames stays."""
        session = self._repository.writable_session(WORK)
        stored = open_arrays(session) if "y" in root_group(session.store) else None
        if stored is None or not same_place(grid, stored):
            records = read_records(session.store)
            kept = {name: record for name, record in records.items() if name in keep}
            lay_out_anew(session, grid, outside(records) | kept)
            self._write(session, "lay out the grid")
        elif not np.array_equal(seconds_of(grid), seconds_of(stored)):
            if np.array_equal(seconds_of(grid)[: stored.sizes["time"]], seconds_of(stored)):
                lengthen(root_group(session.store), seconds_of(grid))
                self._write(session, "append frames")
            else:
                self._rearrange(session, grid)

    @_storing
    def write_frames(
        self, stage: str, arrays: xr.Dataset, frames: Sequence[int], record: Mapping[str, Any]
    ) -> None:
        """Compute some frames of a stage's arrays, store them, and commit.

        Parameters
        ----------
        stage
            Name of the stage, and of the record.
        arrays
            Variables on (time, y, x) over *all* frames, lazily; only ``frames`` are computed.
        frames
            Positions of the frames along time.
        record
            What the stage was made from; the frames' ``checksums`` are added to it.
        """
        self._create(arrays)
        session = self._repository.writable_session(WORK)
        fresh = store_frames(session, arrays, frames)
        kept = read_records(session.store).get(stage, {}).get("checksums", {})
        times = iso_times(open_arrays(session))
        checksums = {time: kept[time] for time in times if time in kept}
        for position, frame in zip(sorted(frames), fresh, strict=True):
            checksums[times[position]] = frame
        self._commit(session, stage, {**record, "checksums": checksums})

    @_storing
    def write_files(
        self,
        stage: str,
        files: Mapping[str, bytes],
        record: Mapping[str, Any],
        *,
        anew: bool = True,
    ) -> None:
        """Store a stage's models or tables, and commit.

        Parameters
        ----------
        stage
            Name of the stage, and of the record.
        files
            The bytes of each file, by name.
        record
            What the stage was made from; the files' ``sha256`` are added to it.
        anew
            Whether these are all files of the stage: others that it wrote before are removed.
        """
        session = self._repository.writable_session(WORK)
        before = read_records(session.store).get(stage, {}).get("sha256", {})
        gone = set(before) - set(files) if anew else set()
        write_files(session.store, files, remove=gone)
        sums = {name: sha256 for name, sha256 in before.items() if name not in gone}
        sums |= {name: file_checksum(content) for name, content in files.items()}
        self._commit(session, stage, {**record, "sha256": sums})

    @_storing
    def write_group(
        self, stage: str, name: str, dataset: xr.Dataset, record: Mapping[str, Any]
    ) -> None:
        """Compute a dataset of other dimensions than the frames', store it as a group, and commit.

        Parameters
        ----------
        stage
            Name of the stage, and of the record.
        name
            Name of the group.
        dataset
            Variables on NumPy or Dask; computed chunk by chunk.
        record
            What the stage was made from; the group's checksum is added to it, as ``groups``.
        """
        session = self._repository.writable_session(WORK)
        lay_out_group(session, name, dataset)
        self._write(session, f"make room for {name}")  # Icechunk forks only what is committed
        session = self._repository.writable_session(WORK)
        checksum = store_group(session, name, dataset)
        self._commit(session, stage, {**record, "groups": {name: checksum}})

    def group(self, name: str) -> xr.Dataset:
        """Open a group as it stands, lazily.

        Raises
        ------
        popdask.store.NoResultError
            If there is none of that name.
        """
        return open_group(self._repository.readonly_session(WORK), name)

    @_storing
    def tidy(self, stages: Sequence[str]) -> None:
        """Drop what none of some stages owns, and commit: records, arrays, files and groups.

        Parameters
        ----------
        stages
            The stages that the job has, in order, all of them finished.
        """
        session = self._repository.writable_session(WORK)
        before = read_records(session.store)
        after = without_orphans(before, stages)
        kept = after.values()
        files = named_in(kept, "sha256") | {RUN_FILE}
        gone = drop_results(session.store, arrays_of(kept), files, named_in(kept, "groups"))
        if gone or after != before:
            write_records(session.store, after)
            gone += sorted(set(before) - set(after) - set(gone))
            self._write(session, f"drop what no stage has: {', '.join(gone)}")

    @_storing
    def publish(self, tag: str, record: Mapping[str, Any] | None = None) -> None:
        """Let readers see this state, tag it, and store what the run was.

        Parameters
        ----------
        tag
            Name of the run. A run that was stopped just before the end of this keeps its own.
        record
            What the run was made from and with; stored as ``run.json``.
        """
        record = record or {}
        tip = next(iter(self._repository.ancestry(branch=WORK)))
        if "run" not in tip.metadata or tip.id == self._repository.lookup_branch(MAIN):
            self._close(tag, record)
            tip = next(iter(self._repository.ancestry(branch=WORK)))
        tag = tip.metadata["run"]["tag"]
        self._guard()
        if tag not in self._repository.list_tags():
            commits.create_tag(self._repository, tag, tip.id)
        commits.move_branch(self._repository, MAIN, tip.id)

    def _close(self, tag: str, record: Mapping[str, Any]) -> None:
        """Commit the record of the run."""
        now, stages = utc_now(), self.finished()
        started = stages[0].started if stages else now
        run = Run(tag, started, now, tuple(stages), record.get("versions", {}))
        session = self._repository.writable_session(WORK)
        content = json.dumps(asdict(run) | dict(record), indent=1, default=str).encode()
        write_files(session.store, {RUN_FILE: content})
        self._write(session, "finish the run", {"run": asdict(run)})

    def _create(self, arrays: xr.Dataset) -> None:
        """Create the arrays that are not there yet, empty."""
        session = self._repository.writable_session(WORK)
        root = root_group(session.store)
        missing = [str(name) for name in arrays.data_vars if name not in set(root.array_keys())]
        for name in missing:
            array = arrays[name]
            root.create_array(
                name,
                shape=array.shape,
                chunks=(1, *(sizes[0] for sizes in (array.chunks or ())[1:])),
                dtype=array.dtype,
                fill_value=nothing(array),
                dimension_names=[str(dim) for dim in array.dims],
                attributes=array.attrs
                | {"coordinates": "spatial_ref", "grid_mapping": "spatial_ref"},
            )
        if missing:
            # Icechunk forks only what is committed.
            self._write(session, f"make room for {', '.join(missing)}")

    def _rearrange(self, session: icechunk.Session, grid: xr.Dataset) -> None:
        """Lay out other times; frames that are stored already are copied to their new places.

        Records of arrays come back with the copies, so that a stop in between costs time only.
        """
        old, records = self.dataset(), read_records(session.store)
        of_arrays = {name: record for name, record in records.items() if "checksums" in record}
        lay_out_anew(session, grid, {k: v for k, v in records.items() if k not in of_arrays})
        self._write(session, "lay out the grid")
        if not old.data_vars:
            return
        fill = {name: nothing(array) for name, array in old.data_vars.items()}
        arrays = old.reindex(time=grid["time"], fill_value=fill)
        stay = set(iso_times(old)) & set(iso_times(grid))
        positions = [i for i, iso in enumerate(iso_times(grid)) if iso in stay]
        self._create(arrays)
        session = self._repository.writable_session(WORK)
        store_frames(session, arrays, positions)
        moved = {name: record_of_frames(record, stay) for name, record in of_arrays.items()}
        write_records(session.store, read_records(session.store) | moved)
        self._write(session, "move frames to their places")

    def _commit(self, session: icechunk.Session, stage: str, record: Mapping[str, Any]) -> None:
        """Commit a finished stage, with its record and what it took."""
        write_records(session.store, read_records(session.store) | {stage: dict(record)})
        seconds, total = time.perf_counter() - self._since, self.location.bytes()
        started = (datetime.now(UTC) - timedelta(seconds=seconds)).isoformat(timespec="seconds")
        work = str(record.get("work", ""))
        finished = Finished(stage, work, started, round(seconds, 3), total - self._bytes)
        self._write(session, stage, {"finished": asdict(finished)})
        self._since, self._bytes = time.perf_counter(), total

    def _write(
        self, session: icechunk.Session, message: str, metadata: Mapping[str, Any] | None = None
    ) -> None:
        """Commit a session, if this run still holds the region."""
        self._guard()
        commits.commit(self._repository, session, message, metadata)
