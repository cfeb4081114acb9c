"""What `popdask plan` prints: settings, what is to be computed, and what that costs where.

As text, where a path is never broken in two, and as JSON for programs.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from popdask.cli.console import complain, count, duration, out, say, show_table, size_of, span
from popdask.config.settings import Job, settings_rows, shown
from popdask.io.secrets import without_keys

if TYPE_CHECKING:
    from popdask._cluster_file import ClusterFile
    from popdask.workflow.plan import Costs, Measured, Plan, Resources, StagePlan

#: Raised when a name of the JSON changes its meaning or goes; names may be added.
SCHEMA = 1

#: Characters of a value that stand beside its meaning; a longer one has its line to itself.
SHORT = 20
#: Characters of a meaning in a line, at least.
NARROW = 24


def resources_of(spec: str) -> Resources:
    """The workers that a run on a cluster would have; none are started."""
    from popdask._cluster_file import read_spec
    from popdask.workflow.plan import Resources

    file = read_spec(spec)
    if file.address is None:
        return _declared(file, spec)
    from popdask.cluster import connect  # which takes a second

    with connect(spec, log=say) as client:
        workers = client.scheduler_info(n_workers=-1)["workers"].values()
        threads = max(worker["nthreads"] for worker in workers)
        memory = min(worker["memory_limit"] or 2**63 for worker in workers)
        return Resources(len(workers), threads, memory, f"at {file.address}")


def _declared(file: ClusterFile, spec: str) -> Resources:
    """The workers that a file asks for; what it leaves open is as on this machine."""
    from dask.utils import parse_bytes

    from popdask._local_cluster import cores_at_hand, memory_at_hand, workers_at_hand
    from popdask.workflow.plan import Resources

    own = file.cluster_class in (None, "local")
    where = "here" if own else f"of {spec}"
    arguments = file.arguments
    memory, most = memory_at_hand(), file.workers and file.workers[1]
    workers, threads = workers_at_hand(cores_at_hand(), memory)
    if own:
        workers = most or workers
        threads = arguments.get("threads_per_worker") or max(1, cores_at_hand() // workers)
        each = (
            parse_bytes(arguments["memory_limit"])
            if "memory_limit" in arguments
            else memory // workers
        )
        return Resources(workers, threads, int(each), where)
    if not {"cores", "memory"} <= arguments.keys():  # not a queue of dask-jobqueue
        complain(f"{spec} does not say how large a worker is: counted as one of this machine.")
        return Resources(most or 1, threads, memory // workers, where)
    from distributed.deploy.local import nprocesses_nthreads

    processes = arguments.get("processes") or nprocesses_nthreads(arguments["cores"])[0]
    each = parse_bytes(arguments["memory"]) // processes
    return Resources(most or 1, max(1, arguments["cores"] // processes), each, where)


@dataclass(frozen=True)
class Planned:
    """A job, what a run of it would compute, and what that costs."""

    job: Job
    plan: Plan
    extent: str
    costs: Costs
    measured: Mapping[str, Measured]
    resources: Resources


def show_plan(parts: Sequence[Planned]) -> None:
    """Print every setting, how much the job is, what a run would compute, and what that costs."""
    first, *then = parts
    rows = [
        (name, without_keys(shown(value)), meaning.replace("``", ""))
        for name, value, meaning in settings_rows(first.job)
    ]
    for line in setting_lines([("setting", "value", "meaning"), *rows], out.width):
        say(line)
    _show_work(first)
    for one in then:
        say(f"\nthen {one.job.name}, in {one.job.output.store}:")
        _show_work(one)


def setting_lines(rows: Iterable[tuple[str, str, str]], width: int) -> Iterable[str]:
    """Lay out names, values and meanings in columns; a long value is never broken.

    Examples
    --------
    >>> rows = [("flow.log", "no", "Look at log(1 + people)"), ("store", "/a/long/path/to/it", "")]
    >>> print(*setting_lines(rows, 32), sep="|")
    flow.log  no  Look at log(1 +|              people)|store     /a/long/path/to/it
    """
    rows = list(rows)
    first = max(len(name) for name, _, _ in rows)
    second = max((len(value) for _, value, _ in rows if len(value) <= SHORT), default=0)
    second = min(second, max(2, width - first - 4 - NARROW))
    rest = max(NARROW - 4, width - first - second - 4)
    for name, value, meaning in rows:
        meanings = textwrap.wrap(meaning, rest)
        beside = meanings.pop(0) if len(value) <= second and meanings else ""
        yield f"{name:<{first}}  {value:<{second}}  {beside}".rstrip()
        yield from (f"{'':<{first + second + 4}}{line}" for line in meanings)


def _show_work(one: Planned) -> None:
    """Print how much a job is, what a run of it would compute, and what that costs."""
    plan, costs = one.plan, one.costs
    say(f"\n{span(plan.times)}" if plan.times else "")
    say(f"{one.extent}\n")
    for warning in plan.warnings:
        complain(warning)
    seconds = costs.seconds(one.measured)
    stages = [(stage.name, str(stage), *_cost(costs, stage.name, seconds)) for stage in plan]
    show_table(["stage", "to compute", "tasks", "read", "written", "memory", "time"], stages)
    if costs.stages:
        _show_costs(costs, one.resources)
        say(_time(seconds, one.measured))
        if advice := costs.advice(one.resources):
            complain(advice)


def _cost(costs: Costs, name: str, seconds: Mapping[str, float | None]) -> tuple[str, ...]:
    cost = costs.stages.get(name)
    if cost is None:
        return ("",) * 5
    sizes = [size_of(size) if size else "" for size in (cost.read, cost.written, cost.memory)]
    time = seconds[name]
    return (f"{cost.tasks:,}", *sizes, "" if time is None else duration(time))


def _show_costs(costs: Costs, resources: Resources) -> None:
    """Print what a run costs as a whole."""
    say(
        f"\n{count(costs.chunks, 'chunk')}, {count(costs.tasks, 'task')}; {size_of(costs.read)} "
        f"read and {size_of(costs.written)} written, uncompressed"
    )
    say(
        f"up to {size_of(costs.peak(resources))} of memory in a worker, of "
        f"{size_of(resources.memory)}: {count(resources.workers, 'worker')} {resources.where}, "
        f"{count(resources.threads, 'thread')} each"
    )


def _time(seconds: Mapping[str, float | None], measured: Mapping[str, Measured]) -> str:
    """Say how long a run takes, and which runs that is known from."""
    unknown = [name for name, time in seconds.items() if time is None]
    if len(unknown) == len(seconds):
        return "time is not known: neither this store nor one beside it has a finished run"
    known = [measured[name] for name in seconds if name not in unknown]
    runs = sorted({f"{one.run} in {one.store}" for one in known})
    total = duration(sum(time or 0.0 for time in seconds.values()))
    rest = f", and {', '.join(unknown)}, of which no time is known" if unknown else ""
    return f"about {total}{rest}, by what was taken on its workers by {' and '.join(runs)}"


def plan_record(one: Planned, *then: Planned) -> dict[str, Any]:
    """Put a plan as JSON holds it; bytes are uncompressed, and an unknown time is None."""
    job, plan, costs, resources = one.job, one.plan, one.costs, one.resources
    seconds = costs.seconds(one.measured)
    known = [time for time in seconds.values() if time is not None]
    return {
        "schema": SCHEMA,
        "name": job.name,
        "pipeline": job.pipeline,
        "store": job.output.store,
        "settings": job.model_dump(mode="json"),
        "frames": list(plan.times),
        "extent": one.extent,
        "done": plan.done,
        "gone": list(plan.gone),
        "warnings": list(plan.warnings),
        "stages": [_stage_record(stage, costs, seconds) for stage in plan],
        "costs": {
            "chunks": costs.chunks,
            "tasks": costs.tasks,
            "read": costs.read,
            "written": costs.written,
            "memory": costs.peak(resources) if costs.stages else 0,
            "seconds": sum(known) if len(known) == len(seconds) else None,
        },
        "workers": {
            "number": resources.workers,
            "threads": resources.threads,
            "memory": resources.memory,
        },
        "advice": costs.advice(resources) if costs.stages else None,
        "following": [plan_record(other) for other in then],
    }


def _stage_record(
    stage: StagePlan, costs: Costs, seconds: Mapping[str, float | None]
) -> dict[str, Any]:
    cost = costs.stages.get(stage.name)
    return {
        "name": stage.name,
        "done": stage.done,
        "to_compute": len(stage.stale),
        "total": stage.total,
        "unit": stage.unit,
        "tasks": cost.tasks if cost else 0,
        "read": cost.read if cost else 0,
        "written": cost.written if cost else 0,
        "memory": cost.memory if cost else 0,
        "seconds": seconds.get(stage.name) if cost else 0.0,
    }


def planned(job: Job, spec: str) -> list[Planned]:
    """Plan a job, and those that its run begins at its end, on the workers of a cluster."""
    from popdask.config.jobs import PopulationJob
    from popdask.workflow.pipelines import pipeline_of
    from popdask.workflow.plan import measured_stages

    kind, resources = pipeline_of(job), resources_of(spec)
    plan = kind.plan(job)
    parts = [(job, plan, kind.extent(job), kind.costs(job, plan))]
    if isinstance(job, PopulationJob):
        from popdask.workflow.population_costs import following

        parts += [(one.job, one.plan, one.extent, one.costs) for one in following(job, plan)]
    return [Planned(*part, measured_stages(part[0], part[3].amounts), resources) for part in parts]
