"""What a run writes: arrays frame by frame, files and groups, a commit for each stage.

A chunk is stored and its checksum taken by one task, where the chunk is. The checksum is thus that
of what was computed, not of what was stored, and tells later whether the two are the same.
"""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from functools import wraps
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

import dask
import icechunk
import numpy as np
import zarr

from popdask.store import content
from popdask.store.content import MAIN, RUN_FILE, WORK, Finished, Run
from popdask.store.integrity import coordinate_checksums
from popdask.store.location import Guard, Location, damage_named, store_errors

if TYPE_CHECKING:
    import dask.array as da
    import pandas as pd
    import xarray as xr

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def store_frames(
    session: icechunk.Session, arrays: xr.Dataset, frames: Sequence[int]
) -> list[dict[str, str]]:
    """Compute some frames of arrays and store them, in one Dask graph."""
    parts, keys = [], []
    for first, last in frame_runs(frames):
        root = content.root_group(session.fork().store, "r+")
        for targets in _alike(arrays, root):
            sources = [arrays[name].data[first : last + 1] for name in targets]
            stored = content.store_blocks(sources, [*targets.values()], _frame_checksum, first)
            parts.append(stored)
            keys.append((targets, first))
    receipts = _computed(parts)
    content.merge_stores(session, receipts)
    checksums: dict[int, dict[str, str]] = {frame: {} for frame in sorted(frames)}
    for (names, first), blocks in zip(keys, receipts, strict=True):
        for frame, chunks in enumerate(blocks, first):
            sums = zip(*(parts for _, parts in chunks.flat), strict=True)
            checksums[frame] |= dict(zip(names, map(content.join_checksums, sums), strict=True))
    return list(checksums.values())


def _frame_checksum(chunk: np.ndarray, corner: Sequence[int], shape: tuple[int, ...]) -> np.uint64:
    return content.block_checksum(chunk[0], (corner[1], corner[2]), shape[2])


def frame_runs(frames: Sequence[int]) -> list[tuple[int, int]]:
    """Group positions into runs without gaps, as (first, last).

    Examples
    --------
    >>> frame_runs([0, 1, 2, 5, 7, 8])
    [(0, 2), (5, 5), (7, 8)]
    """
    groups = itertools.groupby(enumerate(sorted(frames)), key=lambda item: item[1] - item[0])
    runs = [[frame for _, frame in group] for _, group in groups]
    return [(run[0], run[-1]) for run in runs]


def _alike(arrays: xr.Dataset, root: zarr.Group) -> list[dict[str, Any]]:
    """Group stored arrays by their chunks, by name: one task stores a chunk of all of a group."""
    groups: dict[tuple[int, ...], dict[str, Any]] = {}
    for name in map(str, arrays.data_vars):
        target: Any = root[name]
        groups.setdefault(target.chunks, {})[name] = target
    return list(groups.values())


def _computed(parts: list[da.Array]) -> tuple[Any, ...]:
    """Compute, on the workers that the layers ask for, where they do."""
    # Dask's fusion of tasks forgets what a layer asks for, so such graphs are optimized without
    # it; and here, because a scheduler elsewhere would optimize them by its own settings.
    layers = (layer for array in parts for layer in array.dask.layers.values())
    if not any(layer.annotations for layer in layers):
        return dask.compute(*parts)
    with dask.config.set({"optimization.fuse.active": False}):
        parts = [_optimized(array) for array in parts]
    return dask.compute(*parts, optimize_graph=False)


def _optimized(array: da.Array) -> da.Array:
    import dask.array as da
    from dask.array.optimization import optimize

    graph = optimize(array.__dask_graph__(), array.__dask_keys__())
    return da.Array(graph, array.name, array.chunks, meta=array._meta)


def _attributes(array: xr.DataArray) -> dict[str, Any]:
    from popdask.io.conventions import in_cf_units, label_attributes

    grid = {"coordinates": "spatial_ref", "grid_mapping": "spatial_ref"}
    return in_cf_units(array.attrs) | grid | label_attributes(array)


def _describe_arrays(root: zarr.Group, arrays: xr.Dataset) -> None:
    """Renew what stored arrays say of themselves: there may be other classes than before."""
    for name in map(str, arrays.data_vars):
        said, attributes = root[name].attrs, _attributes(arrays[name])
        if dict(said) != attributes:
            said.put(attributes)


def _storing(
    change: Callable[Concatenate[Transaction, Arguments], Result],
) -> Callable[Concatenate[Transaction, Arguments], Result]:
    """Let a change of the store that fails say why in one sentence."""

    @wraps(change)
    def told_in_a_sentence(
        work: Transaction, *args: Arguments.args, **kwargs: Arguments.kwargs
    ) -> Result:
        with store_errors(work.location):
            return change(work, *args, **kwargs)

    return told_in_a_sentence


class Transaction:
    """The unfinished state of a run, on the branch ``work``.

    Parameters
    ----------
    repository
        Where that branch is.
    location
        Where the repository is.
    guard
        Is called before each commit; raises if the region is no longer held.

    Attributes
    ----------
    amounts : Mapping of int
        How much there is to do in each stage, to be put down beside the time that it takes.

    Examples
    --------
    >>> import tempfile
    >>> from popdask.store import RegionStore
    >>> from popdask.synthetic import moving_cities
    >>> people = moving_cities(frames=6).population[["population"]].isel(time=[0])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     region = RegionStore(f"{folder}/drawn.icechunk")
    ...     with region.lock():
    ...         work = region.begin(people.coords.to_dataset())
    ...         work.write_frames("population", people.chunk(), [0], {"work": "1 frame"})
    ...         work.publish("run-1")
    ...     list(region.dataset())
    ['population']
    """

    def __init__(
        self, repository: icechunk.Repository, location: Location, guard: Guard = lambda: None
    ) -> None:
        self._repository = repository
        self.location = location
        self._guard = guard
        self.amounts: Mapping[str, int] = {}
        self._coordinates: Mapping[str, str] = {}
        self._reading: icechunk.Session | None = None
        self._opened: tuple[icechunk.Session, xr.Dataset] | None = None
        self._since = time.perf_counter()
        self._bytes = 0  # written since then

    def dataset(self) -> xr.Dataset:
        """Open the arrays as they stand, lazily."""
        with damage_named(self.location):
            session = self._session()
            if self._opened is None or self._opened[0] is not session:
                self._opened = session, content.open_arrays(session)
            return self._opened[1].copy()

    def _session(self) -> icechunk.Session:
        """Read the work as it stands, in one session: each new one reads the snapshot again."""
        tip = self._repository.lookup_branch(WORK)
        if self._reading is None or self._reading.snapshot_id != tip:
            self._reading = self._repository.readonly_session(snapshot_id=tip)
        return self._reading

    def files(self) -> dict[str, bytes]:
        """Read the models and tables as they stand."""
        return content.read_files(self._session().store)

    def file(self, name: str) -> bytes:
        """Read one model or table as it stands."""
        with damage_named(self.location):
            return content.read_file(self._session().store, name)

    def table(self, name: str) -> pd.DataFrame:
        """Read one table as it stands."""
        return content.read_table(self.file(f"{name}.parquet"))

    def records(self) -> dict[str, Any]:
        """Read what each finished stage was made from."""
        return content.read_records(self._session().store)

    def finished(self) -> list[Finished]:
        """List the stages that were committed since the last finished run."""
        return content.finished_stages(self._repository)

    @_storing
    def forget(self, stages: Sequence[str]) -> None:
        """Drop the records of some stages, so that they are computed again, and commit.

        Which files they have written outside the store stays on record, and that they may be
        written again.
        """
        session = self._repository.writable_session(WORK)
        records = content.read_records(session.store)
        if dropped := sorted(set(stages) & set(records)):
            kept = {name: record for name, record in records.items() if name not in dropped}
            again = {
                name: {**written, "again": True}
                for name, written in content.outside(records).items()
            }
            content.write_records(session.store, again | kept)
            self._write(session, f"forget {', '.join(dropped)}")

    @_storing
    def note(self, stage: str, entries: Mapping[str, Any]) -> None:
        """Add to the record of a stage that is not finished, and commit."""
        session = self._repository.writable_session(WORK)
        records = content.read_records(session.store)
        content.write_records(
            session.store, records | {stage: {**records.get(stage, {}), **entries}}
        )
        self._write(session, f"note {', '.join(entries)} of {stage}")

    @_storing
    def lay_out(self, grid: xr.Dataset, keep: Sequence[str]) -> None:
        """Make room for the frames of ``grid``; what is stored for the same frames stays."""
        self._coordinates = coordinate_checksums(grid)
        session = self._repository.writable_session(WORK)
        stored = content.open_arrays(session) if "y" in content.root_group(session.store) else None
        if stored is None or not content.same_place(grid, stored):
            records = content.read_records(session.store)
            kept = {name: record for name, record in records.items() if name in keep}
            content.lay_out_anew(session, grid, content.outside(records) | kept)
            self._write(session, "lay out the grid")
            return
        # The same CRS may be written otherwise: what is stored stays.
        self._coordinates |= {"crs": coordinate_checksums(stored)["crs"]}
        if not np.array_equal(content.seconds_of(grid), content.seconds_of(stored)):
            if np.array_equal(
                content.seconds_of(grid)[: stored.sizes["time"]], content.seconds_of(stored)
            ):
                content.lengthen(content.root_group(session.store), content.seconds_of(grid))
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
        _describe_arrays(content.root_group(session.store), arrays)
        kept = content.read_records(session.store).get(stage, {}).get("checksums", {})
        times = content.stored_times(session)
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
        before = content.read_records(session.store).get(stage, {}).get("sha256", {})
        gone = set(before) - set(files) if anew else set()
        content.write_files(session.store, files, remove=gone)
        sums = {name: sha256 for name, sha256 in before.items() if name not in gone}
        sums |= {name: content.file_checksum(data) for name, data in files.items()}
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
        content.lay_out_group(session, name, dataset)
        self._write(session, f"make room for {name}")  # Icechunk forks only what is committed
        session = self._repository.writable_session(WORK)
        checksum = content.store_group(session, name, dataset)
        self._commit(session, stage, {**record, "groups": {name: checksum}})

    def group(self, name: str) -> xr.Dataset:
        """Open a group as it stands, lazily.

        Raises
        ------
        popdask.store.NoResultError
            If there is none of that name.
        """
        return content.open_group(self._session(), name)

    @_storing
    def tidy(self, stages: Sequence[str]) -> None:
        """Drop what none of some stages owns, and commit: records, arrays, files and groups.

        Parameters
        ----------
        stages
            The stages that the job has, in order, all of them finished.
        """
        session = self._repository.writable_session(WORK)
        before = content.read_records(session.store)
        after = content.without_orphans(before, stages)
        files = {*content.results_of(after, "sha256"), RUN_FILE}
        gone = content.drop_results(
            session.store, content.arrays_of(after), files, content.results_of(after, "groups")
        )
        if gone or after != before:
            content.write_records(session.store, after)
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
            content.create_tag(self._repository, tag, tip.id)
        content.move_branch(self._repository, MAIN, tip.id)

    def _close(self, tag: str, record: Mapping[str, Any]) -> None:
        """Commit the record of the run."""
        now, stages = content.utc_now(), self.finished()
        started = stages[0].started if stages else now
        run = Run(tag, started, now, tuple(stages), record.get("versions", {}))
        session = self._repository.writable_session(WORK)
        document = asdict(run) | dict(record) | {"coordinates": self._coordinates}
        written = json.dumps(document, indent=1, default=str).encode()
        content.write_files(session.store, {RUN_FILE: written})
        self._describe(session, run, record)
        sha256 = content.file_checksum(written)
        self._write(session, "finish the run", {"run": asdict(run), "sha256": sha256})

    def _describe(self, session: icechunk.Session, run: Run, record: Mapping[str, Any]) -> None:
        """Let the arrays say what they are, by the CF conventions."""
        from popdask.io.conventions import result_attributes

        attributes, settings = content.root_group(session.store).attrs, record.get("settings", {})
        software = f"popdask {run.versions.get('popdask', '')}".strip()
        stages = ", ".join(dict.fromkeys(stage.stage for stage in run.stages)) or "nothing new"
        about = {
            "title": settings.get("title") or record.get("name"),
            "institution": settings.get("institution"),
            "license": "\n".join(record.get("credits", ())),
        }
        entry = f"{run.finished} {software}: {stages}"
        attributes.put(result_attributes(dict(attributes), about, software, entry))

    def _create(self, arrays: xr.Dataset) -> None:
        """Create the arrays that are not there yet, empty."""
        session = self._repository.writable_session(WORK)
        root = content.root_group(session.store)
        missing = [str(name) for name in arrays.data_vars if name not in set(root.array_keys())]
        for name in missing:
            array = arrays[name]
            root.create_array(
                name,
                shape=array.shape,
                chunks=(1, *(sizes[0] for sizes in (array.chunks or ())[1:])),
                dtype=array.dtype,
                fill_value=content.nothing(array),
                dimension_names=[str(dim) for dim in array.dims],
                attributes=_attributes(array),
            )
        if missing:
            # Icechunk forks only what is committed.
            self._write(session, f"make room for {', '.join(missing)}")

    def _rearrange(self, session: icechunk.Session, grid: xr.Dataset) -> None:
        """Lay out other times; frames that are stored already are copied to their new places."""
        # Records of arrays come back with the copies, so that a stop in between costs time only.
        old, records = self.dataset(), content.read_records(session.store)
        of_arrays = {name: record for name, record in records.items() if "checksums" in record}
        content.lay_out_anew(
            session, grid, {k: v for k, v in records.items() if k not in of_arrays}
        )
        self._write(session, "lay out the grid")
        if not old.data_vars:
            return
        fill = {name: content.nothing(array) for name, array in old.data_vars.items()}
        arrays = old.reindex(time=grid["time"], fill_value=fill)
        stay = set(content.iso_times(old)) & set(content.iso_times(grid))
        positions = [i for i, iso in enumerate(content.iso_times(grid)) if iso in stay]
        self._create(arrays)
        session = self._repository.writable_session(WORK)
        store_frames(session, arrays, positions)
        moved = {name: content.record_of_frames(record, stay) for name, record in of_arrays.items()}
        content.write_records(session.store, content.read_records(session.store) | moved)
        self._write(session, "move frames to their places")

    def _commit(self, session: icechunk.Session, stage: str, record: Mapping[str, Any]) -> None:
        """Commit a finished stage, with its record and what it took."""
        content.write_records(
            session.store, content.read_records(session.store) | {stage: dict(record)}
        )
        seconds = time.perf_counter() - self._since
        started = (datetime.now(UTC) - timedelta(seconds=seconds)).isoformat(timespec="seconds")
        finished = Finished(
            stage,
            str(record.get("work", "")),
            started,
            round(seconds, 3),
            self._bytes + content.bytes_written(session),
            self.amounts.get(stage, 0),
            str(record.get("of", "")),
        )
        self._write(session, stage, {"finished": asdict(finished)})
        self._since, self._bytes = time.perf_counter(), 0

    def _write(
        self, session: icechunk.Session, message: str, metadata: Mapping[str, Any] | None = None
    ) -> None:
        """Commit a session, if this run still holds the region."""
        self._guard()
        if "finished" not in (metadata or {}):  # whose record has them
            self._bytes += content.bytes_written(session)
        content.commit(self._repository, session, message, metadata)
