"""Keeping a region in order: back to an earlier run, and old runs and logs away."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from popdask.errors import InputError
from popdask.job import Job
from popdask.pipelines.conductor import own_store
from popdask.pipelines.logplace import log_name, log_place
from popdask.store import RegionStore, Run


@dataclass(frozen=True)
class Upkeep:
    """What was taken away."""

    runs: int
    """Number of runs."""
    logs: int
    """Number of logs."""
    bytes: int
    """What was freed in the store."""
    kept: int
    """Number of runs that stay."""


def roll_back(job: Job, tag: str | None = None) -> Run:
    """Let readers see an earlier run again. Exports are left as they are.

    Parameters
    ----------
    job
        The settings.
    tag
        The run; by default, the one before that which readers see.

    Returns
    -------
    Run
        The new entry of the history.

    Raises
    ------
    InputError
        If there is no such run, or it is to be named, because readers see an earlier one already,
        or the store holds another region.
    RegionBusyError
        If a run holds the region.
    """
    store = own_store(job)
    return store.rollback(tag or _before(store))


def expire(
    job: Job,
    keep: int | None = None,
    days: float | None = None,
    folder: str | Path | None = None,
) -> Upkeep:
    """Take old runs and logs away; the run that readers see stays, and so does the latest log.

    Parameters
    ----------
    job
        The settings.
    keep
        How many runs stay at most.
    days
        The age from which runs and logs go. Without it, logs go that are older than all runs.
    folder
        Of the logs; as for `popdask.pipelines.logplace.log_place`.

    Returns
    -------
    Upkeep

    Raises
    ------
    InputError
        If neither limit is given, one is not positive, or the store holds another region.
    RegionBusyError
        If a run holds the region.
    """
    store = own_store(job)
    age = None if days is None else _age(days)
    expired = store.expire(keep_last=keep, older_than=age)
    kept = store.kept_runs()
    since = min((datetime.fromisoformat(run.started) for run in kept), default=None)
    if age is not None:
        since = datetime.now(UTC) - age
    logs = _expire_logs(job, since, folder) if since else 0
    return Upkeep(len(expired.runs), logs, expired.bytes, len(kept))


def _age(days: float) -> timedelta:
    """So many days, if the calendar goes back as far."""
    try:
        age = timedelta(days=days)
        _ = datetime.now(UTC) - age
    except (OverflowError, ValueError):  # nan too
        raise InputError(
            f"an age of {days:g} days is more than the calendar has: give less."
        ) from None
    return age


def _before(store: RegionStore) -> str:
    """The tag of the run before that which readers see."""
    kept = store.kept_runs()
    if len(kept) < 2:
        raise InputError(f"{store.location} has no earlier run to go back to.")
    seen, *others = kept
    if seen.note:
        known = ", ".join(run.tag for run in others)
        raise InputError(
            f"readers of {store.location} see an earlier run already ({seen.note}): give the tag "
            f"of the run to go to; known are {known}."
        )
    return others[0].tag


def _expire_logs(job: Job, since: datetime, folder: str | Path | None) -> int:
    """Remove the logs of attempts that had ended at some time; gives their number."""
    place = log_place(job, folder)
    names = place.names()
    # The newest of those that began earlier may be of a run that ended later.
    old = [name for name in names if name < log_name(since)][1:]
    for name in old:
        place.remove(name)
    return len(old)
