"""A region: what its readers see, and the door for the run that works on it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import icechunk
import pandas as pd
import xarray as xr

from popdask.cards import card
from popdask.errors import InputError
from popdask.store import commits
from popdask.store.contents import (
    READ_ERRORS,
    NoResultError,
    file_names,
    file_problem,
    is_empty,
    open_arrays,
    open_group,
    read_file,
    read_files,
    read_records,
    read_table,
)
from popdask.store.groups import group_checksum
from popdask.store.location import Folder, Guard, locate
from popdask.store.lock import Owner
from popdask.store.overview import overview
from popdask.store.retention import Expired, expire, kept_runs, roll_back
from popdask.store.runs import MAIN, WORK, Finished, Run, finished_runs, finished_stages
from popdask.store.trouble import damage_told, told
from popdask.store.work import RUN_FILE, Work

# Icechunk warns, at every opening, against concurrent commits to a local folder: here the lock of
# the region prevents them. Worker processes inherit the variable.
os.environ.setdefault("ICECHUNK_LOG", "error")
icechunk.set_logs_filter(os.environ["ICECHUNK_LOG"])


class RegionStore:
    """The results of one region.

    Parameters
    ----------
    place
        Folder of the Icechunk repository, or ``s3://bucket/prefix``, reached as
        `popdask.object_store` says. Nothing is created until the first run begins.

    Raises
    ------
    InputError
        If the place holds other files, or cannot be reached.

    Examples
    --------
    >>> RegionStore("out/nowhere.icechunk").exists()
    False
    """

    def __init__(self, place: str | Path) -> None:
        self.location = locate(place)
        self.location.check()
        self._guard: Guard = lambda: None

    def __repr__(self) -> str:
        return f"RegionStore({str(self.location)!r})"

    @property
    def path(self) -> Path | str:
        """The folder of the repository, or its URL."""
        return self.location.path if isinstance(self.location, Folder) else str(self.location)

    def _repr_html_(self) -> str:
        """What readers see here, as a notebook shows it."""
        return card("RegionStore", {"place": self.location, **overview(self)})

    def exists(self) -> bool:
        """Tell whether a run ever began here."""
        return self.location.exists()

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
        with damage_told(self.location):
            return open_arrays(self._session(branch))

    def files(self, branch: str = MAIN) -> dict[str, bytes]:
        """Read the models and tables, each as the bytes of its file."""
        return read_files(self.repository().readonly_session(branch).store)

    def names(self, branch: str = MAIN) -> list[str]:
        """List the files of the models and tables, without reading them.

        Raises
        ------
        InputError
            If no run is finished yet.
        """
        return file_names(self._session(branch).store)

    def file(self, name: str, branch: str = MAIN) -> bytes:
        """Read one model or table, as the bytes of its file.

        Raises
        ------
        NoResultError
            If there is none of that name; it says which there are.
        InputError
            If no run is finished yet.
        """
        with damage_told(self.location):
            return read_file(self._session(branch).store, name)

    def file_problem(self, name: str, sha256: str) -> str | None:
        """Say what is wrong with a file of the last finished run, of which the SHA-256 is known."""
        return file_problem(self.repository().readonly_session(MAIN).store, name, sha256)

    def table(self, name: str, branch: str = MAIN) -> pd.DataFrame:
        """Read one table, such as ``"links"``, ``"tracks"`` or ``"communities"``.

        Raises
        ------
        NoResultError
            If there is none of that name; it says which there are.
        InputError
            If no run is finished yet.
        """
        files = [Path(file) for file in self.names(branch)]
        tables = [file.stem for file in files if file.suffix == ".parquet"]
        if name not in tables:
            raise NoResultError.of("table", name, tables)
        return read_table(self.file(f"{name}.parquet", branch))

    def group(self, name: str, branch: str = MAIN) -> xr.Dataset:
        """Open a group of other dimensions than the frames', such as ``"cells"``, lazily.

        Raises
        ------
        NoResultError
            If there is none of that name; it says which there are.
        InputError
            If no run is finished yet.
        """
        return open_group(self._session(branch), name)

    def group_problem(self, name: str, checksum: str) -> str | None:
        """Say what is wrong with a group of the last finished run; None if nothing is."""
        try:
            found = group_checksum(self.repository().readonly_session(MAIN).store, name)
        except KeyError:
            return "is not there"
        except READ_ERRORS as error:
            return f"cannot be read: {str(error).splitlines()[0].strip()}"
        return None if found == checksum else "is not what was computed"

    def records(self, branch: str = MAIN) -> dict[str, Any]:
        """Read what each stage of a branch was made from."""
        if not self.exists():
            return {}
        repository = self.repository()
        if branch not in repository.list_branches():
            return {}
        return read_records(repository.readonly_session(branch).store)

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

    def stages_since(self) -> list[Finished]:
        """List the stages that were computed since the last finished run."""
        return finished_stages(self.repository()) if self.exists() else []

    def history(self) -> list[Run]:
        """List the finished runs, the newest first."""
        return finished_runs(self.repository()) if self.exists() else []

    def run_record(self) -> dict[str, Any]:
        """Read what the last finished run was made from and with."""
        return dict(json.loads(self.file(RUN_FILE)))

    def kept_runs(self) -> list[Run]:
        """List the runs that can be gone back to: what readers see first, then the newest first.

        After a rollback these are more than `history` tells, which is how the present state came to
        be.
        """
        return kept_runs(self.repository()) if self.exists() else []

    def rollback(self, tag: str) -> Run:
        """Let readers see an earlier finished run again.

        It becomes a new entry of the history, with a tag of its own; the runs in between are kept,
        and can be gone back to. The next run goes on from there. What a stopped run has finished is
        given up.

        Parameters
        ----------
        tag
            The run's tag, one of `kept_runs`.

        Returns
        -------
        Run
            The new entry.

        Raises
        ------
        InputError
            If there is no such run, or readers see it already.
        RegionBusyError
            If a run holds the region.
        """
        with self.lock(), told(self.location):
            return roll_back(self.repository(), self._guard, tag)

    def expire(
        self, *, keep_last: int | None = None, older_than: timedelta | None = None
    ) -> Expired:
        """Take old runs away, and free the room of what no other run needs.

        A run stays if it is among the last `keep_last` and is not older than `older_than`. The run
        that readers see stays in any case, and so does what a stopped run has finished. Readers who
        have an expired run open lose it.

        Parameters
        ----------
        keep_last
            How many runs stay at most; None for any number.
        older_than
            The age from which a run goes; None for any age.

        Returns
        -------
        Expired
            The tags of the runs that went, and the bytes that were freed.

        Raises
        ------
        InputError
            If neither limit is given, or one is not positive.
        RegionBusyError
            If a run holds the region.
        """
        with self.lock(), told(self.location):
            return expire(self.repository(), self._guard, keep_last, older_than)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the region, for one run.

        Raises
        ------
        RegionBusyError
            If another run holds it; the message says who, where and since when.
        StoreError
            If the lock cannot be written, for example because the disk is full.
        """
        with ExitStack() as stack:
            with told(self.location):
                self._guard = stack.enter_context(self.location.hold())
            yield

    def holder(self) -> Owner | None:
        """Tell who holds the region; None where nobody does."""
        return self.location.holder()

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
        with told(self.location):
            if not self.exists():
                commits.create(self.location.storage())
            repository = self.repository()
            if WORK not in repository.list_branches():
                commits.create_branch(repository, WORK, repository.lookup_branch(MAIN))
        work = Work(repository, self.location, self._guard)
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
            raise InputError(f"{self.location} holds no results yet: run the job first.")
        try:
            repository = icechunk.Repository.open(self.location.storage())
            repository.lookup_snapshot(repository.lookup_branch(MAIN))
        except icechunk.IcechunkError as error:
            raise InputError(
                f"{self.location} cannot be opened as an Icechunk repository "
                f"({str(error).splitlines()[0]}): it is damaged or not one; restore it, or move it "
                "away and run the job anew."
            ) from error
        return repository

    def _session(self, branch: str) -> icechunk.Session:
        """Open a branch to read, if there is something to read on it."""
        session = self.repository().readonly_session(branch)
        if is_empty(session.store):
            raise InputError(
                f"{self.location} holds no finished results yet: run the job to its end."
            )
        return session
