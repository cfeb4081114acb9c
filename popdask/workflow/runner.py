"""What pipelines have in common, how any job is run, and on which workers.

files → plan → (workers) → stage, commit, stage, commit, … → tidy → publish

A pipeline says what its stages are and what they are made from. Readers of the store see nothing of
a run until all of its stages are finished. Training and encoding want a GPU; trainings that take a
whole machine go one after the other on each.
"""

from __future__ import annotations

import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import dask
import numpy as np

from popdask.config.settings import Job
from popdask.errors import InputError
from popdask.store.content import table_bytes
from popdask.store.repository import RegionStore
from popdask.store.transaction import Transaction
from popdask.workflow.export_formats import Contents, export_names
from popdask.workflow.exports import check_exports, check_writable, paths_of
from popdask.workflow.plan import Basis, Costs, Plan, Planned, Stage, StagePlan, decide
from popdask.workflow.progress import Reporter, current_client, current_workers

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


T = TypeVar("T")

#: How often the arguments of a task may be lost with the worker that holds them.
LOSSES = 3
#: How long arguments wait for a worker to go to, while another one takes a lost one's place.
WAIT_SECONDS = 300


#: The module of each kind, which is loaded when a job asks for it.
MODULES: Mapping[str, str] = {
    "communities": "popdask.workflow.communities",
    "population": "popdask.workflow.population",
    "scenes": "popdask.workflow.scenes",
    "settlements": "popdask.workflow.settlements",
}


def on_worker(
    function: Callable[..., T],
    *arguments: Any,
    on_progress: Callable[[Mapping[str, Any]], object] | None = None,
    machine: str | None = None,
    **options: Any,
) -> Callable[[], T]:
    """Start one function on a worker, on one with a GPU or of a machine where there is such."""
    client = current_client()
    if client is None:
        progress = (
            {}
            if on_progress is None
            else {"progress": lambda message: on_progress(asdict(message))}
        )
        return partial(function, *arguments, **options, **progress)
    messages = Messages(f"popdask-{uuid.uuid4().hex}")
    if on_progress is not None:
        client.subscribe_topic(messages.topic, lambda event: on_progress(event[1]))
        options["progress"] = messages

    def start() -> Any:
        sent: list[Any] = []
        if arguments:
            wait = dask.config.get("distributed.scheduler.no-workers-timeout") or WAIT_SECONDS
            sent = client.scatter(list(arguments), hash=False, timeout=wait)
        where = {"workers": [machine], "allow_other_workers": True} if machine else {}
        where["resources"] = gpu_resources()
        return client.submit(function, *sent, pure=False, **where, **options)

    return partial(
        _until_done, client, None if on_progress is None else messages.topic, start, start()
    )


def _until_done(client: Any, topic: str | None, start: Callable[[], Any], future: Any) -> Any:
    """Wait for a task, and listen to it no longer; start it again if its arguments were lost."""
    from distributed import CancelledError

    try:
        for _ in range(LOSSES):
            try:
                return future.result()
            except CancelledError:  # the worker that held them has ended
                if client.status != "running":
                    raise
                future = start()
        return future.result()
    finally:
        if topic is not None:
            client.unsubscribe_topic(topic)


def on_machines(starts: Sequence[Callable[..., Callable[[], T]]]) -> list[T]:
    """Do what takes a whole machine: one at a time on each, or one on every GPU of the cluster."""
    # Each start is `on_worker` with its arguments. Side by side on a machine they would share its
    # cores and the memory of its card, and results depend on what fits into that.
    machines = [None] * len(starts) if gpu_resources() else _machines()
    found: list[T] = []
    while len(found) < len(starts):
        batch = zip(starts[len(found) :], machines, strict=False)
        running = [start(machine=machine) for start, machine in batch]
        found += [result() for result in running]
    return found


def _machines() -> list[str | None]:
    """The machines of the workers; None alone where there is but one."""
    hosts = sorted({worker["host"] for worker in current_workers()})
    return [*hosts] if len(hosts) > 1 else [None]


@dataclass(frozen=True)
class Messages:
    """Sends what a task has to say to the client, by a topic of the scheduler."""

    topic: str  # its name

    def __call__(self, message: Any) -> None:
        """Send a dataclass, as a mapping."""
        from distributed import get_worker

        get_worker().log_event(self.topic, asdict(message))


def gpu_resources() -> Mapping[str, int] | None:
    """Return the Dask resources of a GPU task: one ``GPU`` where some worker has it, else None."""
    gpus = any(worker["resources"].get("GPU") for worker in current_workers())
    return {"GPU": 1} if gpus else None


def on_gpus() -> AbstractContextManager[Any]:
    """Return a context for building arrays whose tasks want a GPU, if some worker has one."""
    resources = gpu_resources()
    return dask.annotate(resources=resources) if resources else nullcontext()


def is_lost(client: Any, error: BaseException) -> bool:
    """Return whether an error means that the scheduler, or every worker for some work, is gone."""
    from distributed import CancelledError
    from distributed.scheduler import NoValidWorkerError, NoWorkerError

    if getattr(client, "status", "running") != "running":
        return True
    return isinstance(error, NoWorkerError | NoValidWorkerError | CancelledError) or (
        isinstance(error, TimeoutError) and "No valid workers" in str(error)
    )


#: Gives the workers of a run, a context that is entered when there is something to compute.
Workers = Callable[[], AbstractContextManager[Any]]

#: The fingerprints of input files (path, size, mtime, sha256), by what they are to the job.
Files = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Running(ABC):
    """What the stages of one run share."""

    job: Any
    files: Files
    store: RegionStore
    work: Transaction
    plan: Plan

    @abstractmethod
    def record(self) -> dict[str, Any]:
        """Record what the finished run was made from and with."""

    def merged(
        self, stage: StagePlan, fresh: Mapping[str, pd.DataFrame], by: str = "time"
    ) -> dict[str, bytes]:
        """Tables of the stage: fresh rows, and the stored ones of the frames that are not stale."""
        import numpy as np
        import pandas as pd

        order = list(dict.fromkeys(["time", by]))
        stale = {self.plan.times[i] for i in stage.stale}
        kept = [np.datetime64(time) for time in stage.record["frames"] if time not in stale]
        files = {}
        for name, table in fresh.items():
            if kept:
                old = self.work.table(name)
                table = pd.concat([old[old[by].isin(kept)], table], ignore_index=True)
            files[f"{name}.parquet"] = table_bytes(table.sort_values(order, kind="stable"))
        return files


class Size(Protocol):
    """How much the input of a job is, from which each stage counts what it costs."""

    @property
    def chunks(self) -> int:
        """Chunks of all frames."""

    @property
    def square(self) -> int | None:
        """Cells along a side of a square as large as a chunk, where the job file can choose it."""


class Pipeline(ABC):
    """One kind of job: its stages, its input, and what is said and drawn of its results."""

    stages: tuple[Stage, ...]
    """Its stages, in the order in which they run."""
    content: Contents
    """What a job exports."""

    @abstractmethod
    def files(self, job: Any, records: Mapping[str, Any]) -> Files:
        """Return the versions of the files that a job reads."""

    @abstractmethod
    def basis(self, job: Any, files: Files, records: Mapping[str, Any]) -> Basis:
        """What the stages are made from."""

    @abstractmethod
    def size(self, job: Any) -> Size:
        """Return how much the input is, from the headers of files."""

    @abstractmethod
    def extent(self, job: Any) -> str:
        """Say that in a few words."""

    @abstractmethod
    def begin(self, job: Any, store: RegionStore, files: Files, forget: Sequence[str]) -> Running:
        """Open the inputs, and take up the work where it stands, without the stages to forget."""

    def notes(self, job: Any, files: Files, plan: Plan, store: RegionStore) -> Iterable[str]:
        """Say at the end of a run what no stage of it has said."""
        return ()

    @abstractmethod
    def result(self, plan: Plan, store: RegionStore) -> Any:
        """What a run gives: what it did, and what is in the store."""

    @abstractmethod
    def found(self, store: RegionStore) -> str:
        """Say in a few words what is in the results."""

    @abstractmethod
    def check(self, store: RegionStore) -> Iterable[str]:
        """Say what in whole results breaks the promises."""

    @abstractmethod
    def figures(self, job: Any, region: RegionStore) -> Iterable[tuple[str, Figure]]:
        """Draw the results' pictures, by name."""

    def times(self, files: Files) -> Iterable[np.datetime64 | str]:
        """Return the times of a job's frames, of which files are; none where it has no frames."""
        return ()

    def exports(self, job: Any, files: Files) -> list[str]:
        """Name the files that a job exports, as far as the settings name them."""
        return export_names(self.content(job), self.times(files))

    def draw(self, job: Any, reporter: Reporter | None = None) -> list[Path]:
        """Draw the pictures of the last finished run, and write them beside the exports."""
        from popdask.plot.style import save_figure

        begin = f"{job.export_folder / 'figures' / job.name}_"
        with (reporter or Reporter()).stage("figures", "to do"):
            drawn = self.figures(job, own_store(job))
            return [save_figure(figure, f"{begin}{name}.png", dpi=150) for name, figure in drawn]

    def decide(self, job: Any, files: Files, records: Mapping[str, Any]) -> Plan:
        """Decide what is to be computed."""
        return decide(self.stages, self.basis(job, files, records))

    def plan(self, job: Any) -> Plan:
        """Say what a run would compute."""
        return self.decide(job, *read_inputs(self, job))

    def costs(self, job: Any, plan: Plan) -> Costs:
        """Count what that costs."""
        return count(self.stages, job, plan, self.size(job))

    def planned(self, job: Any) -> Planned:
        """Say both, and how much the job is."""
        plan = self.plan(job)
        return Planned(job, plan, self.extent(job), self.costs(job, plan))

    def run(
        self,
        job: Any,
        reporter: Reporter | None = None,
        *,
        force: bool = False,
        check_content: bool = False,
        workers: Workers = nullcontext,
    ) -> Any:
        """Run the job, or as much of it as is not done yet."""
        store = RegionStore(job.output.store)
        with store.lock():
            files, records = read_inputs(self, job, anew=force, check_content=check_content)
            whole = self.decide(job, files, records)
            left = not whole.done or store.unfinished()
            if left:
                check_writable(job, self.exports(job, files))
            if left or _is_called_otherwise(job, store):
                with workers() if left else nullcontext():
                    if force:
                        store.mend()
                    running = self.begin(job, store, files, list(whole.stages) if force else [])
                    _compute(self, running, list(running.plan), reporter)
                    _publish(running)
        if reporter is not None:
            for text in self.notes(job, files, whole, store):
                reporter.note(text)
        return self.result(whole, store)

    def run_only(
        self,
        job: Any,
        names: str | Sequence[str],
        reporter: Reporter | None = None,
        *,
        force: bool = False,
        check_content: bool = False,
        workers: Workers = nullcontext,
    ) -> Plan:
        """Compute one or some stages, if all that they need is finished."""
        # The stages are committed to the work under way. Readers see them when no other stage is
        # left to compute: what they see always belongs together.
        store, names = RegionStore(job.output.store), [names] if isinstance(names, str) else names
        with store.lock():
            files, records = read_inputs(self, job, check_content=check_content)
            if force:
                records = {key: record for key, record in records.items() if key not in names}
            before = self.decide(job, files, records)
            _check_only(job, before, names)
            publishable = before.computed and (store.unfinished() or not before.done)
            if all(before[name].done for name in names) and not publishable:
                return before
            if any(stage.writes_files for stage in self.stages if stage.name in names):
                check_writable(job, self.exports(job, files))
            with workers():
                running = self.begin(job, store, files, names if force else [])
                _check_only(job, running.plan, names)  # the grid may be another than the stored one
                _compute(self, running, [running.plan[name] for name in names], reporter)
                left = self.decide(job, files, running.work.records())
                if left.computed:
                    _publish(running)
                    left = replace(left, gone=())
        return left


def count(stages: Iterable[Stage], job: Any, plan: Plan, size: Size) -> Costs:
    """Count what the stages of a plan cost that are to be computed; no file is read."""
    costs = {
        stage.name: stage.cost(job, plan[stage.name], size)
        for stage in stages
        if stage.name in plan.stages and not plan[stage.name].done
    }
    return Costs(costs, size.chunks, size.square)


def read_inputs(
    pipeline: Pipeline, job: Job, *, anew: bool = False, check_content: bool = False
) -> tuple[Files, Mapping[str, Any]]:
    """Read what a plan is made from: versions of the files, and records of the stages, or none."""
    # Files are read if they are not on record, or have another size or time than is.
    records = RegionStore(job.output.store).latest_records()
    _check_owner(job, records)
    files = pipeline.files(job, {} if anew or check_content else records)
    check_exports(job, pipeline.exports(job, files), paths_of(files), records)
    return files, {} if anew else records


def owner_record(job: Job) -> dict[str, str]:
    """What the first stage of a job puts down, so that another job does not take its store."""
    return {"job": job.name, "pipeline": job.pipeline}


def _check_owner(job: Job, records: Mapping[str, Any]) -> None:
    """Refuse a store that holds another job's region."""
    owner = _owner_in(records)
    if not owner:  # a run by force that was stopped has forgotten it: readers know
        owner = _owner_in(RegionStore(job.output.store).records())
    for key, mine in owner_record(job).items():
        theirs = owner.get(key, mine)
        if theirs != mine:
            what = "region" if key == "job" else key
            raise InputError(
                f"[output] store {job.output.store} holds the {what} {theirs!r}, not {mine!r}: "
                "give this job a store of its own."
            )


def _owner_in(records: Mapping[str, Any]) -> Mapping[str, Any]:
    """The first record that says whose the store is."""
    return next((record for record in records.values() if "job" in record), {})


def _is_called_otherwise(job: Job, store: RegionStore) -> bool:
    """Return whether finished results have another title or institution than the job gives them."""
    settings = store.run_record().get("settings", {})
    return any(settings.get(name, now) != now for name, now in job.naming.items())


def own_store(job: Job) -> RegionStore:
    """Open the store of a job."""
    store = RegionStore(job.output.store)
    _check_owner(job, store.latest_records())
    return store


def _compute(
    pipeline: Pipeline, running: Running, todo: Sequence[StagePlan], reporter: Reporter | None
) -> None:
    """Go through some stages, committing each."""
    job, plan = running.job, running.plan
    if not plan.computed:  # how much each stage does, from which later plans know times
        running.work.amounts = pipeline.costs(job, plan).amounts
    reporter, stages = reporter or Reporter(), {stage.name: stage for stage in pipeline.stages}
    for planned in todo:
        if not planned.done:
            stage, record = stages[planned.name], dict(planned.record)
            if stage.reads_files:
                record |= {**owner_record(job), "files": dict(running.files)}
            record["work"] = str(planned) if planned.total > 1 else ""
            with reporter.stage(planned.name, str(planned)):
                stage.compute(running, replace(planned, record=record), reporter)


def _publish(running: Running) -> None:
    """Let readers see the results, and nothing else, with the record of the run."""
    running.work.tidy(list(running.plan.stages))
    running.work.publish(f"run-{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}", running.record())


def _check_only(job: Job, plan: Plan, names: Sequence[str]) -> None:
    """Refuse stages that do not exist, or that need others that are not finished."""
    for name in names:
        if name not in plan.stages:
            raise InputError(f"{job.name} has no stage {name!r}: it has {', '.join(plan.stages)}.")
        missing = [stage for stage in plan.unfinished_before(name) if stage.name not in names]
        if missing:
            stages = ", ".join(f"{stage.name} ({stage})" for stage in missing)
            raise InputError(
                f"{name} needs stages of {job.name} that are still to be computed: {stages}; "
                "compute them first, or run the whole job."
            )


def pipeline_of(job: Job) -> Pipeline:
    """Load the kind of a job."""
    pipeline = import_module(MODULES[job.pipeline]).PIPELINE
    assert isinstance(pipeline, Pipeline)
    return pipeline
