"""How many regions stand, one line for each: the last good run, its age, and failures since."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from popdask import object_store
from popdask.errors import InputError
from popdask.job import Job
from popdask.pipelines.attempts import Attempt, End, attempts
from popdask.pipelines.regions import Region
from popdask.pipelines.runlog import without_keys
from popdask.store import RegionStore
from popdask.store.contents import READ_ERRORS

#: States beside the ends of attempts.
NEVER, RUNNING, UNREADABLE = "never run", "running", "unreadable"


@dataclass(frozen=True)
class Standing:
    """How one region stands."""

    region: str
    """Its name; where the job file is wrong, the file's."""
    job: str
    """The job file."""
    state: str
    """``"running"``, ``"never run"``, ``"unreadable"``, or how the last attempt has ended."""
    run: str | None = None
    """Tag of the run that readers see."""
    finished: str | None = None
    """ISO time, UTC, at which that run was published."""
    frames: int = 0
    """Number of frames that readers see."""
    checked: str | None = None
    """ISO time, UTC, of the last attempt that ended well: what readers see was right then."""
    age: float | None = None
    """Seconds since then."""
    failures: int = 0
    """Attempts since then that did not end well."""
    error: str | None = None
    """Why the last of them did not, in one sentence."""


def standings(
    regions: Sequence[Region], folder: str | Path | None = None, now: datetime | None = None
) -> list[Standing]:
    """Tell how regions stand; nothing is changed or created, and no input is read.

    Parameters
    ----------
    regions
        From `popdask.pipelines.regions.find_regions`.
    folder
        Of the logs; as for `popdask.pipelines.logplace.log_place`.
    now
        The time from which ages are told; by default, the clock's.

    Returns
    -------
    list of Standing
        In the order of the regions.
    """
    now = now or datetime.now(UTC)
    return [_standing(region, folder, now) for region in regions]


def _standing(region: Region, folder: str | Path | None, now: datetime) -> Standing:
    if region.job is None:
        return Standing(region.name, str(region.file), End.WRONG, error=region.problem)
    try:
        return _of_store(region, region.job, folder, now)
    except InputError as error:
        state, problem = End.WRONG.value, str(error)
    except READ_ERRORS + object_store.failures() as error:
        state, problem = UNREADABLE, f"its store or logs cannot be read: {error}"
    return Standing(region.name, str(region.file), state, error=without_keys(problem))


def _of_store(region: Region, job: Job, folder: str | Path | None, now: datetime) -> Standing:
    store = RegionStore(job.output.store)
    running = store.holder() is not None
    tried = attempts(job, folder)
    newest = next(tried, None)
    if newest and running and newest.outcome is End.KILLED:
        newest = None  # the run under way, which has no end yet
    failed, good = _until_good(itertools.chain([newest] if newest else [], tried))
    run, finished, frames = _seen(store)
    checked = good.started if good else finished
    last = failed[0] if failed else good
    state = last.outcome if last else (End.DONE if frames else NEVER)
    return Standing(
        region.name,
        str(region.file),
        RUNNING if running else state,
        run,
        finished,
        frames,
        checked,
        (now - datetime.fromisoformat(checked)).total_seconds() if checked else None,
        len(failed),
        failed[0].error if failed else None,
    )


def _until_good(tried: Iterable[Attempt]) -> tuple[list[Attempt], Attempt | None]:
    """Split attempts, the newest first: those that failed since the last good one, and that."""
    failed: list[Attempt] = []
    for attempt in tried:
        if attempt.good:
            return failed, attempt
        failed.append(attempt)
    return failed, None


def _seen(store: RegionStore) -> tuple[str | None, str | None, int]:
    """Tell what readers see: the tag of its run, when it was published, and its frames."""
    if not store.exists() or not store.records():
        return None, None, 0
    frames = store.dataset().sizes["time"]
    try:
        record = store.run_record()
    except KeyError:  # published before runs were put on record
        return None, None, frames
    return record["tag"], record["finished"], frames
