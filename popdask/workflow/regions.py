"""Many regions: run one after the other, and how they stand.

Many regions in one run, one after the other: what is stale of each, on one cluster.

Each region has its own job file, lock, store and log. One that fails, or whose job file is wrong,
leaves the others running.

How many regions stand, one line for each: the last good run, its age, and failures since; and
where they lie, as GeoJSON.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from popdask.config.load import load_job
from popdask.config.settings import Job
from popdask.errors import ClusterError, InputError
from popdask.io import paths
from popdask.io.grids import grid_of
from popdask.io.paths import without_keys
from popdask.store.content import READ_ERRORS
from popdask.store.repository import RegionStore
from popdask.workflow.frames import FramesJob, open_source
from popdask.workflow.pipelines import pipeline_of
from popdask.workflow.progress import Reporter
from popdask.workflow.runlog import End, LoggedRun, RunLog, read_runs
from popdask.workflow.runner import Workers


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

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
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
            from popdask.workflow.runner import is_lost

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


#: States beside the ends of attempts.
NEVER, RUNNING, UNREADABLE = "never run", "running", "unreadable"


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
    frames = len(store.times())
    try:
        record = store.run_record()
    except KeyError:  # published before runs were put on record
        return None, None, frames
    return record["tag"], record["finished"], frames


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
    from popdask.io.stac import footprint

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
