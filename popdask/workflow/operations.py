"""What operators ask of a region: how it stands, whether it is whole, maintenance, report, units.

Verification computes again, from what is there, the checksum of every frame of every array, that of
every model, table and exported file, and what the product promises (the balance of people), and
compares with what was recorded when it was computed.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from popdask.config.settings import Job
from popdask.errors import InputError
from popdask.io.frames import time_text
from popdask.io.paths import write_text
from popdask.store.integrity import recorded_frames, results_of
from popdask.store.lock import Owner
from popdask.store.records import MAIN, Finished, Run
from popdask.store.repository import RegionStore
from popdask.workflow.exports import changed_exports, exported, write_page
from popdask.workflow.inputs import beyond_notes
from popdask.workflow.pipelines import pipeline_of
from popdask.workflow.plan import Plan
from popdask.workflow.progress import Reporter
from popdask.workflow.runlog import log_name, log_place
from popdask.workflow.runner import own_store, read_inputs

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Status:
    """How a region stands."""

    store: RegionStore
    """Its results."""
    last: Run | None
    """The last finished run; None before the first."""
    times: tuple[str, ...]
    """ISO times of the frames that readers see."""
    found: str
    """What was found in them, in a few words."""
    holder: Owner | None
    """Who runs the job now; None where nobody does."""
    stopped: bool
    """Whether a run was stopped before its end, and waits to be taken up."""
    since: tuple[Finished, ...]
    """Stages that the run under way, or stopped, has finished."""
    plan: Plan
    """What a run would compute now."""


def status(job: Job) -> Status:
    """Describe how the region of a job stands; nothing is changed or created."""
    store = RegionStore(job.output.store)
    runs, holder = store.history(), store.holder()
    times: tuple[str, ...] = ()
    found = ""
    if runs:
        times = tuple(store.times())
        found = pipeline_of(job).found(store)
    return Status(
        store,
        runs[0] if runs else None,
        times,
        found,
        holder,
        store.unfinished() and holder is None,
        tuple(store.stages_since()),
        pipeline_of(job).decide(job, *read_inputs(pipeline_of(job), job)),
    )


@dataclass(frozen=True)
class Verified:
    """What was compared, and what differs."""

    frames: int  # frames of arrays that were compared
    files: int  # Models, tables, groups of arrays and exported files that were compared
    differences: tuple[str, ...]
    """One sentence for each thing that is not what was computed; none if all is well."""
    exports: tuple[str, ...] = ()
    """The stages that write the files again, where only exported files differ; else none."""
    notes: tuple[str, ...] = ()  # what is as it was computed, and should be known: who was left out
    others: tuple[str, ...] = ()
    """Those of the differences that are not of the last run's results; each says what helps."""


def verify(job: Job) -> Verified:
    """Compare the last finished results with what was recorded when they were computed."""
    # Nothing is changed. The work is done by the current Dask client, if there is one.
    store = RegionStore(job.output.store)
    store.dataset()  # which says what is wrong where nothing can be read
    records = store.records()
    recorded, found = recorded_frames(records), store.frame_checksums()
    differences = [
        f"{name} of {time_text(time)} {_difference(checksum, recorded.get((time, name)))}."
        for (time, name), checksum in found.items()
        if checksum != recorded.get((time, name))
    ]
    differences += [
        f"{name} of {time_text(time)} is not there."
        for time, name in recorded.keys() - found.keys()
    ]
    files = results_of(records, "sha256")
    problems = {name: store.file_problem(name, sha256) for name, sha256 in sorted(files.items())}
    differences += [f"the file {name} {what}." for name, what in problems.items() if what]
    groups = results_of(records, "groups")
    broken = {name: store.group_problem(name, checksum) for name, checksum in groups.items()}
    differences += [f"the group {name} {what}." for name, what in sorted(broken.items()) if what]
    differences += [f"{problem}." for problem in store.run_problems()]
    exports = exported(records) if getattr(job.output, "export", ()) else {}
    if not differences:  # what the product promises can be checked in whole arrays only
        differences += pipeline_of(job).check(store)
    others = tuple(f"{problem}." for problem in store.other_problems(whole=not differences))
    changed = list(changed_exports(records, job)) if exports else []
    rewritten = () if differences else dict.fromkeys(stage for stage, _ in changed)
    differences += [difference for _, difference in changed]
    compared = len(files) + len(groups) + len(exports)
    notes = tuple(beyond_notes(records))
    every = (*differences, *others)
    return Verified(len(found), compared, every, tuple(rewritten), notes, others)


def _difference(found: str, recorded: str | None) -> str:
    if " " in found:
        return found
    if recorded is None:
        return "has no checksum on record"
    return f"is not what was computed: its checksum is {found}, {recorded} was recorded"


@dataclass(frozen=True)
class Maintenance:
    """What was taken away."""

    runs: int  # number of runs
    logs: int  # number of logs
    bytes: int  # what was freed in the store
    kept: int  # number of runs that stay


def roll_back(job: Job, tag: str | None = None) -> Run:
    """Let readers see an earlier run again. Exports are left as they are."""
    store = own_store(job)
    return store.rollback(tag or _before(store))


def expire(
    job: Job, keep: int | None = None, days: float | None = None, folder: str | Path | None = None
) -> Maintenance:
    """Take old runs and logs away; the run that readers see stays, and so does the latest log."""
    store = own_store(job)
    age = None if days is None else _age(days)
    expired = store.expire(keep_last=keep, older_than=age)
    kept = store.kept_runs()
    since = min((datetime.fromisoformat(run.started) for run in kept), default=None)
    if age is not None:
        since = datetime.now(UTC) - age
    logs = _expire_logs(job, since, folder) if since else 0
    return Maintenance(len(expired.runs), logs, expired.bytes, len(kept))


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


def report(job: Job, reporter: Reporter | None = None, *, folder: Path | None = None) -> Path:
    """Write the report of a job's results."""
    from popdask.report.page import is_page  # which loads Bokeh

    region = own_store(job)
    place = folder or job.export_folder
    page = place / f"{job.name}_report.html"
    own = folder is not None or is_page(page) or page.name in exported(region.records(MAIN))
    if page.exists() and not own:
        raise InputError(
            f"{page} is there already, and is no report of popdask's: move it away, or give "
            "[output] folder another folder."
        )
    with (reporter or Reporter()).stage("report", "to do"):
        return write_page(
            job, region, MAIN, place, pipeline_of(job).illustrate, region.run_record()
        )


def classify_units(
    job: Job, zones: Path, name: str, output: Path | None = None, *, rules: int = 2021
) -> pd.DataFrame:
    """Classify units by the people and codes that readers see; write the table where asked to."""
    from popdask.io import tables
    from popdask.tracking import units

    suffix = "" if output is None else output.suffix.lower()
    if output is not None and suffix not in (*tables.PARQUET, ".csv"):
        raise InputError(
            f"{output} ends with {suffix or 'nothing'}; expected .parquet or .csv: give the table "
            "another name."
        )
    region = own_store(job)
    held = region.dataset()
    if not {"population", "degurba"} <= set(held):
        raise InputError(
            f"{region.location} has no Degree of Urbanisation; it has {', '.join(map(str, held))}: "
            "run a job with settlements first."
        )
    table = units.classify_units(held["population"], held["degurba"], zones, name=name, rules=rules)
    if output is not None and suffix == ".csv":
        write_text(output, table.to_csv(index=False))
    elif output is not None:
        tables.write_geoparquet(table, output)
    return table
