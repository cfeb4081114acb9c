"""A region's repository as readers see it: arrays, tables, history; rollback and expiry.

A run is the snapshot that its tag names. Icechunk forgets snapshots by their age alone, which is
enough: the runs that stay are the latest ones. Going back to an earlier run is a new entry of the
history, so that the runs in between are kept, and can be gone back to as well.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import icechunk

from popdask._repr_html import html_card
from popdask.errors import InputError
from popdask.store import content, integrity
from popdask.store.content import MAIN, READ_ERRORS, RUN_FILE, WORK, Finished, NoResultError, Run
from popdask.store.location import (
    Folder,
    Guard,
    Owner,
    StoreError,
    damage_named,
    locate,
    store_errors,
)
from popdask.store.transaction import Transaction

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

#: The branch on which the entry of a rollback is made, until it is whole.
ASIDE = "rollback"


@dataclass(frozen=True)
class Expired:
    """What was taken away.

    Examples
    --------
    >>> Expired(("run-20260101T000000.000000Z",), 4096).bytes
    4096
    """

    runs: tuple[str, ...]
    """Tags of the runs, the newest first."""
    bytes: int
    """What was freed."""


@dataclass(frozen=True)
class _Kept:
    """A run and its snapshot."""

    run: Run
    snapshot: str
    written: datetime


def expire(
    repository: icechunk.Repository,
    guard: Guard,
    keep_last: int | None,
    older_than: timedelta | None,
) -> Expired:
    """Take old runs away, with what no other run needs, and what stopped ones left uncommitted."""
    _check_limits(keep_last, older_than)
    runs = _kept(repository)
    if not runs:
        return Expired((), 0)
    stay = {kept.run.tag: kept for kept in runs[:keep_last] if _is_young(kept.run, older_than)}
    stay.setdefault(runs[0].run.tag, runs[0])
    gone = [kept.run.tag for kept in runs if kept.run.tag not in stay]
    if keep_last is not None:  # runs that are lost are none to keep
        tags = sorted(repository.list_tags())
        gone += [tag for tag in tags if content.readable(repository, tag) is None]
    guard()
    if gone and (gap := integrity.history_gap(repository)):
        raise StoreError(f"no run can be expired: {gap}: {integrity.GAP}.")
    for tag in gone:
        content.delete_tag(repository, tag)
    if gone:
        repository.expire_snapshots(older_than=min(kept.written for kept in stay.values()))
    summary = repository.garbage_collect(delete_object_older_than=datetime.now(UTC))
    return Expired(tuple(gone), int(summary.bytes_deleted))


def roll_back(repository: icechunk.Repository, guard: Guard, tag: str) -> Run:
    """Let readers see an earlier run again, as a new entry of the history."""
    # What a run under way has finished is given up. The entry is made aside, so that a stop in
    # between leaves either nothing or an entry that only waits to be published.
    runs = _kept(repository)
    target = next((kept for kept in runs if kept.run.tag == tag), None)
    if target is None:
        known = ", ".join(kept.run.tag for kept in runs[:5]) + (", …" if runs[5:] else "")
        raise InputError(f"there is no finished run {tag!r}: known are {known or 'none'}.")
    if target.snapshot == repository.lookup_branch(MAIN):
        raise InputError(f"readers see the run {tag} already: there is nothing to go back to.")
    entry, snapshot = _make_entry(repository, target, runs[0].run.tag)
    guard()
    content.create_tag(repository, entry.tag, snapshot)
    for branch in (WORK, MAIN):
        content.move_branch(repository, branch, snapshot)
    repository.delete_branch(ASIDE)
    return entry


def _make_entry(repository: icechunk.Repository, target: _Kept, before: str) -> tuple[Run, str]:
    """Commit an earlier run again, aside; only its ``run.json`` is another."""
    if ASIDE in repository.list_branches():  # of a rollback that was stopped
        content.move_branch(repository, ASIDE, target.snapshot)
    else:
        content.create_branch(repository, ASIDE, target.snapshot)
    now = datetime.now(UTC)
    entry = replace(
        target.run,
        tag=f"rollback-{now:%Y%m%dT%H%M%S.%fZ}",
        started=content.utc_now(),
        finished=content.utc_now(),
        stages=(),
        note=f"back to {target.run.tag}, from {before}",
    )
    session = repository.writable_session(ASIDE)
    record = json.loads(content.read_file(session.store, RUN_FILE)) | asdict(entry)
    written = json.dumps(record, indent=1).encode()
    content.write_files(session.store, {RUN_FILE: written})
    metadata = {"run": asdict(entry), "sha256": content.file_checksum(written)}
    return entry, content.commit(repository, session, entry.note, metadata)


def _kept(repository: icechunk.Repository) -> list[_Kept]:
    """The runs that have a tag: the one that readers see first, then the newest first."""
    shown = repository.lookup_branch(MAIN)
    found = []
    for tag in repository.list_tags():
        snapshot = content.readable(repository, tag)
        if snapshot is not None and (run := content.run_of(snapshot)) is not None:
            found.append(_Kept(run, snapshot.id, snapshot.written_at))
    return sorted(found, key=lambda kept: (kept.snapshot == shown, kept.written), reverse=True)


def _is_young(run: Run, older_than: timedelta | None) -> bool:
    if older_than is None:
        return True
    return datetime.now(UTC) - datetime.fromisoformat(run.finished) <= older_than


def _check_limits(keep_last: int | None, older_than: timedelta | None) -> None:
    if keep_last is None and older_than is None:
        raise InputError("neither a number of runs nor an age is given: say which runs may go.")
    if keep_last is not None and keep_last < 1:
        raise InputError(f"{keep_last} runs cannot be kept: keep at least the last one.")
    if older_than is not None and older_than <= timedelta(0):
        raise InputError(f"an age of {older_than} is not in the past: give a positive one.")


def overview(region: RegionStore) -> dict[str, str]:
    """Return what a region holds: frames, grid, arrays, tables, models and the last run."""
    # What keeps it from being read is said in place of that.
    try:
        runs = region.history()
        if not runs:
            return {"results": "none are finished yet: run the job"}
        names = region.names()
        return {
            **_arrays(region.dataset()),
            "tables": _stems(names, ".parquet"),
            "models": _stems(names, ".safetensors"),
            "last run": f"{runs[0].finished[:16]} UTC, {len(runs)} in all",
        }
    except InputError as error:
        return {"results": str(error)}


def _arrays(found: xr.Dataset) -> dict[str, str]:
    from popdask.io.grids import describe_grid, grid_of

    summary = {"arrays": ", ".join(map(str, found.data_vars))}
    if found.sizes.get("time"):
        days = found["time"].values.astype("datetime64[D]")
        summary["frames"] = f"{len(days)}, {days[0]} to {days[-1]}"
    if {"y", "x"} <= set(found.dims):
        summary["grid"] = describe_grid(grid_of(found[next(iter(found.data_vars))]))
    return summary


def _stems(names: list[str], suffix: str) -> str:
    return ", ".join(name.removesuffix(suffix) for name in names if name.endswith(suffix)) or "none"


# Icechunk warns, at every opening, against concurrent commits to a local folder: here the lock of
# the region prevents them; and it prints each error in colours before it raises it. Worker
# processes inherit the variable.
os.environ.setdefault("ICECHUNK_LOG", "off")
icechunk.set_logs_filter(os.environ["ICECHUNK_LOG"])


class RegionStore:
    """The results of one region.

    Parameters
    ----------
    place
        Folder of the Icechunk repository, or ``s3://bucket/prefix``, reached as
        `popdask.io.paths` says. Nothing is created until the first run begins.

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
        return html_card("RegionStore", {"place": self.location, **overview(self)})

    def exists(self) -> bool:
        """Return whether a run ever began here."""
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
        with damage_named(self.location):
            arrays = content.open_arrays(self.session(branch))
        # Runs that give the same give it at other times.
        arrays.attrs.pop("history", None)
        return arrays

    def files(self, branch: str = MAIN) -> dict[str, bytes]:
        """Read the models and tables, each as the bytes of its file."""
        return content.read_files(self.repository().readonly_session(branch).store)

    def names(self, branch: str = MAIN) -> list[str]:
        """List the files of the models and tables, without reading them.

        Raises
        ------
        InputError
            If no run is finished yet.
        """
        return content.file_names(self.session(branch).store)

    def file(self, name: str, branch: str = MAIN) -> bytes:
        """Read one model or table, as the bytes of its file.

        Raises
        ------
        NoResultError
            If there is none of that name; it says which there are.
        InputError
            If no run is finished yet.
        """
        with damage_named(self.location):
            return content.read_file(self.session(branch).store, name)

    def file_problem(self, name: str, sha256: str) -> str | None:
        """Say what is wrong with a file of the last finished run, of which the SHA-256 is known."""
        return content.file_problem(self.repository().readonly_session(MAIN).store, name, sha256)

    def times(self) -> list[str]:
        """ISO times of the frames of the last finished run.

        Raises
        ------
        InputError
            If no run is finished yet.
        """
        with damage_named(self.location):
            return content.stored_times(self.session())

    def table(
        self, name: str, branch: str = MAIN, *, columns: Sequence[str] | None = None
    ) -> pd.DataFrame:
        """Read one table, such as ``"links"``, ``"tracks"`` or ``"communities"``.

        Parameters
        ----------
        name
            What it is called.
        branch
            Whose: by default, that of the last finished run.
        columns
            What to read of it, without geometry; None for the whole table.

        Returns
        -------
        DataFrame
            A GeoDataFrame where the whole table has geometry.

        Raises
        ------
        NoResultError
            If there is none of that name; it says which there are.
        InputError
            If no run is finished yet.
        """
        with damage_named(self.location):
            store = self.session(branch).store
            try:
                table = content.read_file(store, f"{name}.parquet")
            except NoResultError:
                files = content.file_names(store)
                tables = [Path(file).stem for file in files if file.endswith(".parquet")]
                raise NoResultError.of("table", name, tables) from None
        return content.read_table(table, columns)

    def find_table(self, name: str, branch: str = MAIN) -> pd.DataFrame | None:
        """Read one table, or give None where there is none of that name.

        Raises
        ------
        InputError
            If no run is finished yet.
        """
        try:
            return self.table(name, branch)
        except NoResultError:
            return None

    def group(self, name: str, branch: str = MAIN) -> xr.Dataset:
        """Open a group of other dimensions than the frames', such as ``"cells"``, lazily.

        Raises
        ------
        NoResultError
            If there is none of that name; it says which there are.
        InputError
            If no run is finished yet.
        """
        return content.open_group(self.session(branch), name)

    def group_problem(self, name: str, checksum: str) -> str | None:
        """Say what is wrong with a group of the last finished run; None if nothing is."""
        return content.group_problem(self.repository().readonly_session(MAIN).store, name, checksum)

    def frame_checksums(self) -> dict[tuple[str, str], str]:
        """Checksums of what readers see, by (time, array), or why it cannot be read."""
        return integrity.frame_checksums(self.repository().readonly_session(MAIN))

    def run_problems(self) -> list[str]:
        """Say what of the last run's coordinates and record is not as it was written."""
        repository = self.repository()
        return list(integrity.run_problems(repository, repository.lookup_branch(MAIN)))

    def has_coordinates(self) -> bool:
        """Return whether the coordinates of the last finished run can be read."""
        try:
            content.open_arrays(self.session(MAIN)).coords.to_dataset().load()
        except READ_ERRORS:  # `popdask verify` says what they are
            return False
        return True

    def other_problems(self, *, whole: bool = True) -> list[str]:
        """Say what is wrong with all else that readers can reach, and what helps.

        That is Icechunk's own files (snapshots and manifests of all branches, tags and the
        history), and the results of earlier runs that the last one does not share. The work is
        done by the current Dask client, if there is one.

        Returns
        -------
        list of str
            Sentences without their full stops; none if all is well.
        """
        return integrity.other_problems(self.repository(), self.location.files, whole=whole)

    def records(self, branch: str = MAIN) -> dict[str, Any]:
        """Read what each stage of a branch was made from."""
        if not self.exists():
            return {}
        repository = self.repository()
        if branch not in repository.list_branches():
            return {}
        return content.read_records(repository.readonly_session(branch).store)

    def latest_records(self) -> dict[str, Any]:
        """Read the records of the run under way, else of the last finished one."""
        return self.records(WORK) or self.records(MAIN)

    def unfinished(self) -> bool:
        """Return whether a run was stopped before its end."""
        if not self.exists():
            return False
        repository = self.repository()
        return WORK in repository.list_branches() and (
            repository.lookup_branch(WORK) != repository.lookup_branch(MAIN)
        )

    def stages_since(self) -> list[Finished]:
        """List the stages that were computed since the last finished run."""
        return content.finished_stages(self.repository()) if self.exists() else []

    def history(self) -> list[Run]:
        """List the finished runs, the newest first."""
        return content.finished_runs(self.repository()) if self.exists() else []

    def run_record(self) -> dict[str, Any]:
        """Read what the last finished run was made from and with."""
        return dict(json.loads(self.file(RUN_FILE)))

    def kept_runs(self) -> list[Run]:
        """List the runs that can be gone back to: what readers see first, then the newest first.

        After a rollback these are more than `history` tells, which is how the present state came to
        be.
        """
        return [kept.run for kept in _kept(self.repository())] if self.exists() else []

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
        with self.lock(), store_errors(self.location):
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
        with self.lock(), store_errors(self.location):
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
            with store_errors(self.location):
                self._guard = stack.enter_context(self.location.hold())
            yield

    def holder(self) -> Owner | None:
        """Return who holds the region; None where nobody does."""
        return self.location.holder()

    def mend(self) -> None:
        """Let the next run begin from nothing where files of Icechunk's are lost or damaged.

        A commit takes over what the one before it has, and fails where that is not there. Which
        files were written outside the store stays on record, and finished runs keep their tags.
        The caller holds the lock.
        """
        if not self.exists():
            return
        repository = self.repository()
        if not integrity.is_unwritable(repository, self.location.files):
            return
        if gap := integrity.history_gap(repository):  # and there is no first commit to begin from
            mend = "move the store away, and run the job anew"
            raise StoreError(f"{self.location} cannot be mended: {gap}; {mend}.")
        kept = content.outside(self.latest_records())
        with store_errors(self.location):
            self._guard()
            first = content.first_commit(repository)
            if content.has_work(repository):
                content.move_branch(repository, WORK, first)
            else:
                content.create_branch(repository, WORK, first)
            session = repository.writable_session(WORK)
            content.write_records(session.store, kept)
            content.commit(repository, session, "begin anew, because files of the store are lost")

    def begin(self, grid: xr.Dataset, keep: Sequence[str] = ()) -> Transaction:
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
        Transaction
        """
        with store_errors(self.location):
            if not self.exists():
                content.create(self.location.storage())
            repository = self.repository()
            if not content.has_work(repository):
                content.create_branch(repository, WORK, repository.lookup_branch(MAIN))
        work = Transaction(repository, self.location, self._guard)
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
                f"({content.reason_of(error)}): it is damaged or not one; restore it, or move it "
                "away and run the job anew."
            ) from error
        return repository

    def session(self, branch: str = MAIN) -> icechunk.Session:
        """Open a branch to read.

        Raises
        ------
        InputError
            If there is nothing to read on it.
        """
        session = self.repository().readonly_session(branch)
        if content.is_empty(session.store):
            raise InputError(
                f"{self.location} holds no finished results yet: run the job to its end."
            )
        return session
