"""What operators ask: how regions stand, whether they are whole, runs of many, maintenance, units.

Verification computes again, from what is there, the checksum of every frame of every array, that of
every model, table and exported file, and what the product promises (the balance of people), and
compares with what was recorded when it was computed.

Many regions in one run come one after the other, on one cluster. Each has its own job file, lock,
store and log: one that fails, or whose job file is wrong, leaves the others running.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from popdask.config.load import load_job
from popdask.config.settings import Job
from popdask.errors import ClusterError, InputError
from popdask.io import paths
from popdask.io.frames import time_text
from popdask.io.paths import without_keys, write_text
from popdask.store.content import (
    MAIN,
    READ_ERRORS,
    Finished,
    Run,
    recorded_frames,
    results_of,
)
from popdask.store.location import Owner
from popdask.store.repository import RegionStore
from popdask.workflow.export_formats import write_page
from popdask.workflow.exports import changed_exports, exported
from popdask.workflow.frames import FramesJob, open_source
from popdask.workflow.inputs import beyond_notes
from popdask.workflow.plan import Plan
from popdask.workflow.progress import Reporter
from popdask.workflow.runlog import End, LoggedRun, RunLog, log_name, log_place, read_runs
from popdask.workflow.runner import Workers, is_lost, own_store, pipeline_of, read_inputs

if TYPE_CHECKING:
    import pandas as pd

#: States beside the ends of attempts.
NEVER, RUNNING, UNREADABLE = "never run", "running", "unreadable"


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
    notes = tuple(beyond_notes(records.get("population", {}).get("beyond", {})))
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


def report(job: Job, reporter: Reporter | None = None) -> Path:
    """Write the report of a job's results."""
    from popdask.report.page import is_page  # which loads Bokeh

    region = own_store(job)
    page = job.export_folder / f"{job.name}_report.html"
    own = is_page(page) or page.name in exported(region.records(MAIN))
    if page.exists() and not own:
        raise InputError(
            f"{page} is there already, and is no report of popdask's: move it away, or give "
            "[output] folder another folder."
        )
    with (reporter or Reporter()).stage("report", "to do"):
        content, record = pipeline_of(job).content(job), region.run_record()
        return write_page(content, region, MAIN, job.export_folder, record)


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


@dataclass(frozen=True)
class Region:
    """A region, by its job file."""

    file: Path  # the job file
    job: Job | None  # the settings; None if the file is wrong
    problem: str | None = None  # what is wrong with the file, in one sentence

    @property
    def name(self) -> str:
        """Name of the region; of a job file that is wrong, the file's."""
        return self.file.stem if self.job is None else self.job.name


def find_regions(places: Sequence[str | Path]) -> list[Region]:
    """Read job files."""
    files: list[Path] = []
    for place in map(Path, places):
        found = sorted(place.glob("*.toml")) if place.is_dir() else [place]
        if not found:
            raise InputError(f"{place} holds no job file (*.toml): check the folder.")
        files += found
    return [_read(file) for file in dict.fromkeys(files)]


def run_regions(
    regions: Sequence[Region],
    reporter: Reporter | None = None,
    *,
    workers: Workers = nullcontext,
    retry: bool = False,
    folder: str | Path | None = None,
    on_attempt: Callable[[LoggedRun], object] = lambda attempt: None,
) -> list[LoggedRun]:
    """Run regions one after the other, each as much as is not done yet."""
    # Whatever error a region ends in is in its attempt, and with its traceback in the log. Only
    # what is not an `Exception`, such as the end by a signal, ends the whole.
    reporter = reporter or Reporter()
    attempts = []
    with SharedWorkers(workers) as shared:
        for region in regions:
            if retry and _ended_well(region, folder):
                continue
            attempt = _attempt(region, reporter, shared, folder)
            on_attempt(attempt)
            attempts.append(attempt)
    return attempts


def exit_code(attempts: Sequence[LoggedRun]) -> int:
    """Sum up attempts: 1 if one failed, else 2 if an input is wrong, else 75 if one was busy."""
    outcomes = {attempt.outcome for attempt in attempts}
    codes = {End.FAILED: 1, End.WRONG: 2, End.BUSY: 75}
    return next((code for outcome, code in codes.items() if outcome in outcomes), 0)


class SharedWorkers:
    """One connection for several runs, made when the first has something to compute; a context."""

    # A connection that was lost is made anew for the next run. One that could not be made is not
    # tried again: the runs that need it end with the same error.

    def __init__(self, workers: Workers) -> None:
        self._workers = workers
        self._stack = ExitStack()
        self._client: Any = None
        self._entered = False
        self._failure: Exception | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @contextmanager
    def __call__(self) -> Iterator[Any]:
        """Return the connection to one run."""
        if self._failure is not None:
            raise self._failure.with_traceback(None)
        if self._entered and getattr(self._client, "status", "running") != "running":
            self._entered = False
            self._stack.close()
        if not self._entered:
            try:
                self._client = self._stack.enter_context(self._workers())
            except InputError as error:  # the regions are not wrong
                self._failure = ClusterError(str(error))
                raise self._failure from error
            except Exception as error:
                self._failure = error
                raise
            self._entered = True
        try:
            yield self._client
        except Exception as error:
            if not is_lost(self._client, error):
                raise
            # the connection itself knows why it was lost, and says so in its own words
            self._entered = False
            lost, self._stack = self._stack, ExitStack()
            lost.__exit__(type(error), error, error.__traceback__)
            raise


def _read(file: Path) -> Region:
    try:
        return Region(file, load_job(file))
    except InputError as error:
        return Region(file, None, without_keys(str(error)))


def _ended_well(region: Region, folder: str | Path | None) -> bool:
    last = None if region.job is None else next(read_runs(region.job, folder), None)
    return last is not None and last.good


def _attempt(
    region: Region, reporter: Reporter, workers: Workers, folder: str | Path | None
) -> LoggedRun:
    """Run one region; its error is put down in its log, and the others go on."""
    if region.job is None:
        return LoggedRun(region.name, End.WRONG, error=region.problem)
    reporter.note(f"{region.name}: {region.file}")
    log = RunLog(region.job, reporter, folder)
    with suppress(Exception), log:
        pipeline_of(region.job).run(region.job, log, workers=workers)
    return LoggedRun(region.name, log.outcome, log.started, log.seconds, log.error, str(log))


@dataclass(frozen=True)
class RegionStatus:
    """How one region stands."""

    region: str  # its name; where the job file is wrong, the file's
    job: str  # the job file
    state: str
    """``"running"``, ``"never run"``, ``"unreadable"``, or how the last attempt has ended."""
    run: str | None = None  # tag of the run that readers see
    finished: str | None = None  # ISO time, UTC, at which that run was published
    frames: int = 0  # number of frames that readers see
    checked: str | None = None
    """ISO time, UTC, of the last attempt that ended well: what readers see was right then."""
    age: float | None = None  # seconds since then
    failures: int = 0  # attempts since then that did not end well
    error: str | None = None  # why the last of them did not, in one sentence


def status_table(
    regions: Sequence[Region], folder: str | Path | None = None, now: datetime | None = None
) -> list[RegionStatus]:
    """Describe how regions stand; nothing is changed or created, and no input is read."""
    now = now or datetime.now(UTC)
    return [_standing(region, folder, now) for region in regions]


def _standing(region: Region, folder: str | Path | None, now: datetime) -> RegionStatus:
    if region.job is None:
        return RegionStatus(region.name, str(region.file), End.WRONG, error=region.problem)
    try:
        return _of_store(region, region.job, folder, now)
    except InputError as error:
        state, problem = End.WRONG.value, str(error)
    except READ_ERRORS + paths.failures() as error:
        state, problem = UNREADABLE, f"its store or logs cannot be read: {error}"
    return RegionStatus(region.name, str(region.file), state, error=without_keys(problem))


def _of_store(region: Region, job: Job, folder: str | Path | None, now: datetime) -> RegionStatus:
    store = RegionStore(job.output.store)
    running = store.holder() is not None
    tried = read_runs(job, folder)
    newest = next(tried, None)
    if newest and running and newest.outcome is End.KILLED:
        newest = None  # the run under way, which has no end yet
    failed, good = _until_good(itertools.chain([newest] if newest else [], tried))
    run, finished, frames = _seen(store)
    checked = good.started if good else finished
    last = failed[0] if failed else good
    state = last.outcome if last else (End.DONE if frames else NEVER)
    return RegionStatus(
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


def _until_good(tried: Iterable[LoggedRun]) -> tuple[list[LoggedRun], LoggedRun | None]:
    """Split attempts, the newest first: those that failed since the last good one, and that."""
    failed: list[LoggedRun] = []
    for attempt in tried:
        if attempt.good:
            return failed, attempt
        failed.append(attempt)
    return failed, None


def _seen(store: RegionStore) -> tuple[str | None, str | None, int]:
    """Return what readers see: the tag of its run, when it was published, and its frames."""
    if not store.exists() or not store.records():
        return None, None, 0
    record = store.run_record()
    return record["tag"], record["finished"], len(store.times())


def regions_geojson(regions: Sequence[Region], folder: str | Path | None = None) -> dict[str, Any]:
    """Describe regions and where they lie: a feature each, without geometry if unknown."""
    features = []
    for region, standing in zip(regions, status_table(regions, folder), strict=True):
        place = None if region.job is None else _place(region.job)
        geometry, bounds = place or (None, None)
        feature = {"type": "Feature", "properties": asdict(standing), "geometry": geometry}
        features.append(feature | ({"bbox": bounds} if bounds else {}))
    return {"type": "FeatureCollection", "features": features}


def _place(job: Job) -> tuple[dict[str, Any], list[float]] | None:
    """The outline of what readers see, else of the frames that a run would read."""
    from popdask.io.export import footprint
    from popdask.io.grids import grid_of

    unreadable: tuple[type[Exception], ...] = (InputError, *READ_ERRORS, *paths.failures())
    store = RegionStore(job.output.store)
    try:
        if store.history():
            seen = store.dataset()
        elif isinstance(job, FramesJob):
            seen = open_source(job)
        else:
            return None  # a mosaic's place is known when its cells are
        grid = grid_of(seen[next(iter(seen.data_vars))])
    except unreadable:
        return None  # how the region stands says why
    west, south, east, north = grid.boundingbox.bbox
    return footprint(grid.crs, (west, south, east, north))
