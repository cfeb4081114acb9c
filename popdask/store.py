"""A region's results: one Icechunk repository, one commit per finished stage.

The branch ``main`` is what readers see: the last finished run. A run works on the branch ``work``,
commits each stage there when it is finished, and moves ``main`` to it at the end; a run that was
stopped goes on from the last commit of ``work``. Arrays share one root group, on the dimensions
``time, y, x``; models and tables are kept as files (safetensors and Parquet bytes) in the group
``files``; what each stage was made from, its *record*, is in the group ``provenance``.
"""

from __future__ import annotations

import getpass
import io
import itertools
import json
import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import icechunk
import numpy as np
import pandas as pd
import xarray as xr
import zarr
from filelock import FileLock, Timeout
from icechunk.dask import store_dask

from popdask.errors import InputError

MAIN, WORK = "main", "work"

# Icechunk warns, at every opening, against concurrent commits to a local folder: here the lock of
# the region prevents them. Worker processes inherit the variable.
os.environ.setdefault("ICECHUNK_LOG", "error")
icechunk.set_logs_filter(os.environ["ICECHUNK_LOG"])

TIME_ENCODING = {"units": "seconds since 1970-01-01", "dtype": "int64"}


class RegionBusyError(RuntimeError):
    """Another run holds the region."""


class RegionStore:
    """The results of one region.

    Parameters
    ----------
    location
        Folder of the Icechunk repository. Nothing is created until the first run begins.

    Raises
    ------
    InputError
        If the location is remote, which is not supported yet, or a folder that holds other files.
    """

    def __init__(self, location: str | Path) -> None:
        if "://" in str(location):
            raise InputError(
                f"[output] store is {location}: only local folders are supported so far; "
                "give a path without a scheme."
            )
        self.path = Path(location)
        if self.path.exists() and not self.exists() and any(self.path.iterdir()):
            raise InputError(
                f"[output] store {self.path} is a folder that holds other files, not an Icechunk "
                "repository: choose another folder."
            )

    def __repr__(self) -> str:
        return f"RegionStore({str(self.path)!r})"

    def exists(self) -> bool:
        """Tell whether a run ever began here."""
        return self.path.is_dir() and icechunk.Repository.exists(self._storage())

    def dataset(self, branch: str = MAIN) -> xr.Dataset:
        """Open the arrays of the last finished run, lazily.

        Returns
        -------
        Dataset
            ``population``, ``u``, ``v``, ``classes`` and ``community`` on (time, y, x).

        Raises
        ------
        InputError
            If no run is finished yet.
        """
        session = self.repository().readonly_session(branch)
        if _subgroup(session.store, "") is None:
            raise InputError(f"{self.path} holds no finished results yet: run the job to its end.")
        return _open_arrays(session)

    def files(self, branch: str = MAIN) -> dict[str, bytes]:
        """Read the models and tables, each as the bytes of its file."""
        return _read_files(self.repository().readonly_session(branch).store)

    def table(self, name: str, branch: str = MAIN) -> pd.DataFrame:
        """Read one table, such as ``"links"``, ``"tracks"`` or ``"communities"``."""
        return read_table(self.files(branch)[f"{name}.parquet"])

    def records(self, branch: str = MAIN) -> dict[str, Any]:
        """Read what each stage of a branch was made from."""
        if not self.exists():
            return {}
        repository = self.repository()
        if branch not in repository.list_branches():
            return {}
        return _read_records(repository.readonly_session(branch).store)

    def latest_records(self) -> dict[str, Any]:
        """Read the records of the run under way, else of the last finished one."""
        return self.records(WORK) or self.records(MAIN)

    def unfinished(self) -> bool:
        """Tell whether a run was stopped before its end."""
        if not self.exists():
            return False
        repository = self.repository()
        return WORK in repository.list_branches() and (
            repository.lookup_branch(WORK) != repository.lookup_branch(MAIN)
        )

    def history(self) -> list[icechunk.SnapshotInfo]:
        """List the commits of the finished runs, the newest first."""
        return list(self.repository().ancestry(branch=MAIN))

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the region, for one run.

        The lock is the operating system's, so it ends with the process that holds it, however that
        ends.

        Raises
        ------
        RegionBusyError
            If another run holds it; the message says who, where and since when.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(f"{self.path}.lock")
        owner = Path(f"{self.path}.owner")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise RegionBusyError(f"another run holds {self.path}: {_owner(owner)}.") from None
        try:
            owner.write_text(json.dumps(_myself()))
            yield
        finally:
            owner.unlink(missing_ok=True)
            lock.release()

    def begin(self, grid: xr.Dataset, keep: Sequence[str] = ()) -> Work:
        """Begin a run, or go on with one that was stopped; the caller holds the lock.

        Parameters
        ----------
        grid
            The coordinates of the run: time, y, x and the CRS.
        keep
            Stages of which record and files survive when the arrays must be laid out anew, because
            the grid is another or times went away.

        Returns
        -------
        Work
        """
        repository = icechunk.Repository.open_or_create(self._storage())
        if WORK not in repository.list_branches():
            repository.create_branch(WORK, repository.lookup_branch(MAIN))
        work = Work(repository)
        work.lay_out(grid, keep)
        return work

    def repository(self) -> icechunk.Repository:
        """Open the Icechunk repository itself.

        Raises
        ------
        InputError
            If there is none.
        """
        if not self.exists():
            raise InputError(f"{self.path} holds no results yet: run the job first.")
        return icechunk.Repository.open(self._storage())

    def _storage(self) -> icechunk.Storage:
        return icechunk.local_filesystem_storage(str(self.path))


class Work:
    """The unfinished state of a run, on the branch ``work``."""

    def __init__(self, repository: icechunk.Repository) -> None:
        self._repository = repository

    def dataset(self) -> xr.Dataset:
        """Open the arrays as they stand, lazily."""
        return _open_arrays(self._repository.readonly_session(WORK))

    def files(self) -> dict[str, bytes]:
        """Read the models and tables as they stand."""
        return _read_files(self._repository.readonly_session(WORK).store)

    def table(self, name: str) -> pd.DataFrame:
        """Read one table as it stands."""
        return read_table(self.files()[f"{name}.parquet"])

    def records(self) -> dict[str, Any]:
        """Read what each finished stage was made from."""
        return _read_records(self._repository.readonly_session(WORK).store)

    def lay_out(self, grid: xr.Dataset, keep: Sequence[str]) -> None:
        """Make room for the frames of ``grid``; what is stored for the same frames stays."""
        session = self._repository.writable_session(WORK)
        stored = _open_arrays(session) if "y" in _root(session.store) else None
        if stored is None or not _continues(grid, stored):
            records = {k: v for k, v in _read_records(session.store).items() if k in keep}
            files = _read_files(session.store) if records else {}
            xr.Dataset(coords=grid.coords).to_zarr(
                session.store, mode="w", consolidated=False, encoding={"time": TIME_ENCODING}
            )
            _write_files(session.store, files)
            _write_records(session.store, records)
            session.commit("lay out the grid")
        elif grid.sizes["time"] > stored.sizes["time"]:
            _lengthen(_root(session.store), grid["time"].values)
            session.commit("append frames")

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
            What the stage was made from.
        """
        self._create(arrays)
        session = self._repository.writable_session(WORK)
        forks = []
        for first, last in frame_runs(frames):
            fork = session.fork()
            root = zarr.open_group(fork.store, mode="r+")
            names = [str(name) for name in arrays.data_vars]
            region = (slice(first, last + 1), slice(None), slice(None))
            sources = [
                arrays[name].data[region].rechunk(root[name].chunks)  # type: ignore[union-attr]
                for name in names
            ]
            targets: list[Any] = [root[name] for name in names]
            forks.append(
                store_dask(sources=sources, targets=targets, regions=[region] * len(names))
            )
        session.merge(*forks)
        self._commit(session, stage, record)

    def write_files(
        self, stage: str, files: Mapping[str, bytes], record: Mapping[str, Any]
    ) -> None:
        """Store a stage's models or tables, and commit."""
        session = self._repository.writable_session(WORK)
        _write_files(session.store, files)
        self._commit(session, stage, record)

    def publish(self, tag: str) -> None:
        """Let readers see this state, and tag it."""
        tip = self._repository.lookup_branch(WORK)
        self._repository.reset_branch(MAIN, tip)
        if tag not in self._repository.list_tags():
            self._repository.create_tag(tag, tip)

    def _create(self, arrays: xr.Dataset) -> None:
        """Create the arrays that are not there yet, empty."""
        session = self._repository.writable_session(WORK)
        root = _root(session.store)
        missing = [str(name) for name in arrays.data_vars if name not in set(root.array_keys())]
        for name in missing:
            array = arrays[name]
            root.create_array(
                name,
                shape=array.shape,
                chunks=tuple(sizes[0] for sizes in array.chunks or ()),
                dtype=array.dtype,
                fill_value=np.nan if array.dtype.kind == "f" else -1,
                dimension_names=[str(dim) for dim in array.dims],
                attributes=array.attrs
                | {"coordinates": "spatial_ref", "grid_mapping": "spatial_ref"},
            )
        if missing:
            # Icechunk forks only what is committed.
            session.commit(f"make room for {', '.join(missing)}")

    def _commit(self, session: icechunk.Session, stage: str, record: Mapping[str, Any]) -> None:
        records = _read_records(session.store) | {stage: dict(record)}
        _write_records(session.store, records)
        session.commit(stage, metadata={"stage": stage})


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


def _root(store: Any) -> zarr.Group:
    return zarr.open_group(store, mode="a")


def _open_arrays(session: icechunk.Session) -> xr.Dataset:
    return xr.open_zarr(session.store, consolidated=False, chunks={})


def _continues(grid: xr.Dataset, stored: xr.Dataset) -> bool:
    """Whether a grid is the stored one, with the same first times."""
    n = stored.sizes["time"]
    return (
        grid.sizes["time"] >= n
        and all(np.array_equal(grid[axis], stored[axis]) for axis in ("y", "x"))
        and grid.rio.crs == stored.rio.crs
        and np.array_equal(
            grid["time"].values[:n].astype("datetime64[s]"),
            stored["time"].values.astype("datetime64[s]"),
        )
    )


def _lengthen(root: zarr.Group, times: np.ndarray) -> None:
    """Make every array as long as the times."""
    for _, array in root.arrays():
        metadata: Any = array.metadata  # version 3, which names dimensions
        if (metadata.dimension_names or ("",))[0] == "time":
            array.resize((len(times), *array.shape[1:]))
    root["time"][:] = times.astype("datetime64[s]").astype(np.int64)  # type: ignore[index]


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


def _read_files(store: Any) -> dict[str, bytes]:
    group = _subgroup(store, "files")
    if group is None:
        return {}
    return {name: np.asarray(array[:]).tobytes() for name, array in group.arrays()}


def _write_files(store: Any, files: Mapping[str, bytes]) -> None:
    group = _root(store).require_group("files")
    for name, content in files.items():
        data = np.frombuffer(content, np.uint8)
        group.create_array(name, data=data, chunks=(max(len(data), 1),), overwrite=True)


def _read_records(store: Any) -> dict[str, Any]:
    group = _subgroup(store, "provenance")
    return {} if group is None else dict(group.attrs)


def _subgroup(store: Any, name: str) -> zarr.Group | None:
    try:
        return zarr.open_group(store, path=name, mode="r")
    except zarr.errors.GroupNotFoundError:
        return None


def _write_records(store: Any, records: Mapping[str, Any]) -> None:
    _root(store).require_group("provenance").attrs.put(dict(records))


def _myself() -> dict[str, Any]:
    return {
        "user": getpass.getuser(),
        "host": socket.gethostname(),
        "process": os.getpid(),
        "since": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _owner(path: Path) -> str:
    try:
        owner = json.loads(path.read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return "its owner is just starting or leaving"
    return "{user} on {host}, process {process}, since {since}".format(**owner)
