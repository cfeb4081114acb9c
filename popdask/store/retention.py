"""Which finished runs a region keeps, and which of them its readers see.

A run is the snapshot that its tag names. Icechunk forgets snapshots by their age alone, which is
enough: the runs that stay are the latest ones. Going back to an earlier run is a new entry of the
history, so that the runs in between are kept, and can be gone back to as well.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta

import icechunk

from popdask.errors import InputError
from popdask.store import commits
from popdask.store.contents import read_file, write_files
from popdask.store.location import Guard
from popdask.store.runs import MAIN, WORK, Run, run_of, utc_now
from popdask.store.work import RUN_FILE

#: The branch on which the entry of a rollback is made, until it is whole.
ASIDE = "rollback"


@dataclass(frozen=True)
class Expired:
    """What was taken away."""

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


def kept_runs(repository: icechunk.Repository) -> list[Run]:
    """List the runs that are kept: the one that readers see first, then the newest first."""
    return [kept.run for kept in _kept(repository)]


def expire(
    repository: icechunk.Repository,
    guard: Guard,
    keep_last: int | None,
    older_than: timedelta | None,
) -> Expired:
    """Take old runs away, with what no other run needs, and what stopped ones left uncommitted.

    Parameters
    ----------
    repository
        The repository, which nobody writes to.
    guard
        Raises if the region is no longer held.
    keep_last
        How many runs stay at most, the latest ones; None for any number.
    older_than
        Runs that ended longer ago go; None for any age. The run that readers see stays.

    Returns
    -------
    Expired

    Raises
    ------
    InputError
        If neither is given, or one of them is not positive.
    """
    _check_limits(keep_last, older_than)
    runs = _kept(repository)
    if not runs:
        return Expired((), 0)
    stay = {kept.run.tag: kept for kept in runs[:keep_last] if _is_young(kept.run, older_than)}
    stay.setdefault(runs[0].run.tag, runs[0])
    gone = [kept.run.tag for kept in runs if kept.run.tag not in stay]
    guard()
    for tag in gone:
        commits.delete_tag(repository, tag)
    if gone:
        repository.expire_snapshots(older_than=min(kept.written for kept in stay.values()))
    summary = repository.garbage_collect(delete_object_older_than=datetime.now(UTC))
    return Expired(tuple(gone), int(summary.bytes_deleted))


def roll_back(repository: icechunk.Repository, guard: Guard, tag: str) -> Run:
    """Let readers see an earlier run again, as a new entry of the history.

    What a run under way has finished is given up. The entry is made aside, so that a stop in
    between leaves either nothing or an entry that only waits to be published.

    Parameters
    ----------
    repository
        The repository, which nobody else writes to.
    guard
        Raises if the region is no longer held.
    tag
        The run's tag.

    Returns
    -------
    Run
        The new entry.

    Raises
    ------
    InputError
        If there is no such run, or readers see it already.
    """
    runs = _kept(repository)
    target = next((kept for kept in runs if kept.run.tag == tag), None)
    if target is None:
        known = ", ".join(kept.run.tag for kept in runs[:5]) + (", …" if runs[5:] else "")
        raise InputError(f"there is no finished run {tag!r}: known are {known or 'none'}.")
    if target.snapshot == repository.lookup_branch(MAIN):
        raise InputError(f"readers see the run {tag} already: there is nothing to go back to.")
    entry, snapshot = _make_entry(repository, target, runs[0].run.tag)
    guard()
    commits.create_tag(repository, entry.tag, snapshot)
    for branch in (WORK, MAIN):
        commits.move_branch(repository, branch, snapshot)
    repository.delete_branch(ASIDE)
    return entry


def _make_entry(repository: icechunk.Repository, target: _Kept, before: str) -> tuple[Run, str]:
    """Commit an earlier run again, aside; only its ``run.json`` is another."""
    if ASIDE in repository.list_branches():  # of a rollback that was stopped
        commits.move_branch(repository, ASIDE, target.snapshot)
    else:
        commits.create_branch(repository, ASIDE, target.snapshot)
    now = datetime.now(UTC)
    entry = replace(
        target.run,
        tag=f"rollback-{now:%Y%m%dT%H%M%S.%fZ}",
        started=utc_now(),
        finished=utc_now(),
        stages=(),
        note=f"back to {target.run.tag}, from {before}",
    )
    session = repository.writable_session(ASIDE)
    record = json.loads(read_file(session.store, RUN_FILE)) | asdict(entry)
    write_files(session.store, {RUN_FILE: json.dumps(record, indent=1).encode()})
    return entry, commits.commit(repository, session, entry.note, {"run": asdict(entry)})


def _kept(repository: icechunk.Repository) -> list[_Kept]:
    """The runs that have a tag: the one that readers see first, then the newest first."""
    shown = repository.lookup_branch(MAIN)
    found = []
    for tag in repository.list_tags():
        snapshot = repository.lookup_snapshot(repository.lookup_tag(tag))
        if (run := run_of(snapshot)) is not None:
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
