"""Tables that the command line shows: plans, what runs have found, regions, histories, searches.

A plan is shown as text, where a path is never broken in two, or as JSON for programs.
"""

from __future__ import annotations

import itertools
import json
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import cache
from typing import TYPE_CHECKING, Any

from popdask.cli.console import (
    age,
    complain,
    count,
    duration,
    out,
    say,
    show_table,
    span,
    when,
    written,
)
from popdask.config.settings import Job, settings_rows, shown
from popdask.io.paths import without_keys
from popdask.workflow.progress import size_of

if TYPE_CHECKING:
    import pandas as pd

    from popdask.config.load import ClusterFile
    from popdask.imagery.tuning import Tuning
    from popdask.store.content import Run
    from popdask.workflow.communities import CommunitiesResult
    from popdask.workflow.operations import Maintenance, RegionStatus, Status, Verified
    from popdask.workflow.plan import Costs, Measured, Plan, Planned, Resources, StagePlan
    from popdask.workflow.population import PopulationResult as Estimates
    from popdask.workflow.runlog import LoggedRun
    from popdask.workflow.scenes import ScenesResult as Groups
    from popdask.workflow.settlements import SettlementsResult

#: Settlements that are listed, and what of them.
LARGEST = 10
RATES = ["growth per year", "since the start"]
COLUMNS = ["people", "per km²", *RATES]
#: What is shown of a score table: by column, how it is called and written.
SCORES = {
    "matthews": ("MCC", ".3f"),
    "accuracy": ("accuracy", ".3f"),
    "mae": ("MAE", ".2f"),
    "r2": ("R²", ".3f"),
    "people": ("people", ",.0f"),
    "true_people": ("true", ",.0f"),
    "relative_error": ("error", "+.2%"),
}
#: Raised when a name of the JSON changes its meaning or goes; names may be added.
SCHEMA = 1
#: Characters of a value that stand beside its meaning; a longer one has its line to itself.
SHORT = 20
#: Characters of a meaning in a line, at least.
NARROW = 24


def show_outcome(outcome: CommunitiesResult) -> None:
    """Print what a run has found: communities and people of each frame, events of the tracks."""
    from popdask.tracking.describe import doubts
    from popdask.tracking.tracks import split_off

    if outcome.plan.done:
        say("nothing to do")
    if outcome.settled is not None:
        _show_settled(outcome.settled)
    say("")
    _show_balance("communities", outcome.communities, outcome.balance)
    warned = doubts(outcome.communities, outcome.tracks, outcome.balance)
    for sentence in (*_unusual(outcome.balance), *warned):
        say(sentence)
    say(f"\n{_events_text(outcome.tracks, 'communities', outcome.balance)}")
    if splits := (outcome.tracks["event"] == "split").sum():
        tracks = outcome.tracks
        began = split_off(tracks["event"], tracks["track"], tracks["parent"]).sum()
        say(
            f"the {count(splits, 'piece')} that communities split into began "
            f"{count(began, 'new track')}; the others go on as the old ones"
        )
    say(f"results: {outcome.store.path}")


def _unusual(balance: pd.DataFrame) -> list[str]:
    """Say which frames lack data, and who lies beyond the grid, aligned or moved."""
    from popdask.tracking.describe import data_gaps

    return data_gaps(balance) + [
        f"{frame.beyond:,.0f} people of {when(frame.time)} lie beyond the grid"
        for frame in balance[balance["beyond"] > 0].itertuples()
    ]


def show_estimates(outcome: Estimates) -> None:
    """Print what a population run has found: people of each frame, scores, zones, communities."""
    if outcome.plan.done:
        say("nothing to do")
    rows = [
        (when(row.time), f"{row.people:,.0f}", f"{row.inhabited:,}", f"{row.cells:,}")
        for row in outcome.people.itertuples()
    ]
    say("")
    show_table(["frame", "people", "inhabited cells", "cells with data"], rows)
    if outcome.scores is not None:
        say("\nestimates against known people")
        show_scores(outcome.scores)
    if outcome.zones is not None:
        zones = count(len(outcome.zones), "zone")
        kinds = outcome.zones["how"].value_counts().items()
        how = ", ".join(f"{zones:,} {how}" for how, zones in kinds)
        say(f"\n{zones} with known totals: {how}")
    if outcome.followed is not None:
        show_outcome(outcome.followed)
    if outcome.grouped is not None:
        show_scenes(outcome.grouped)
    say(f"results: {outcome.store.path}")


def show_report(job: Job) -> None:
    """Say where the report of a job lies, where it has one."""
    if "report" in getattr(job.output, "export", ()):
        say(f"report: {job.export_place}/{job.name}_report.html")


def show_settlements(outcome: SettlementsResult) -> None:
    """Print what a run has found: the largest settlements, those of each frame, events."""
    from popdask.tracking.describe import doubts

    if outcome.plan.done:
        say("nothing to do")
    _show_settled(outcome)
    for sentence in doubts(outcome.settlements[:0], outcome.tracks, outcome.balance):
        say(sentence)
    say(f"results: {outcome.store.path}")


def _show_settled(outcome: SettlementsResult) -> None:
    table, balance = outcome.settlements, outcome.balance
    say("")
    _show_largest({"settlement": "name", "kind": "kind"}, table, balance)
    if outcome.centres is not None:
        say("")
        _show_largest({"urban centre": "name"}, outcome.centres, balance)
    say("")
    _show_balance("settlements", table, balance)
    say(f"\n{_events_text(outcome.tracks, 'settlements', balance)}")


def _show_largest(words: dict[str, str], table: pd.DataFrame, balance: pd.DataFrame) -> None:
    """Print the largest of the last frame, first the columns that are words, by their titles."""
    began = table.groupby("track")["time"].transform("min")
    last = table.assign(began=began)[table["time"] == balance["time"].iloc[-1]]
    largest = last.sort_values("population", ascending=False).head(LARGEST)
    told = None if len(balance) > 1 else -len(RATES)  # of one frame nothing has grown
    rows = [
        (
            *(str(getattr(row, column)) for column in words.values()),
            f"{row.population:,.0f}",
            f"{row.density:,.0f}",
            _percent(row.growth),
            _since(row.growth_total, row.began, balance["time"]),
        )[:told]
        for row in largest.drop(columns="geometry").itertuples(index=False)
    ]
    show_table([*words, *COLUMNS[:told]], rows)


def _events_text(tracks: pd.DataFrame, kind: str, balance: pd.DataFrame) -> str:
    """Say how many tracks there are, and what happens to them after the first frame."""
    from popdask.tracking.describe import comings_and_goings, turnover
    from popdask.tracking.tracks import EVENTS

    ends = tracks["event"] == "vanish"  # at the time of last presence
    later = tracks[(tracks["time"] > balance["time"].iloc[0]) | ends]
    there, events = len(tracks) - len(later), later["event"].value_counts()
    listed = ", ".join(f"{events.get(event, 0):,} {event}" for event in EVENTS)
    if len(balance) < 2:
        return f"{there:,} {kind} in the only frame: what happens to them takes another"
    whole = f"{count(tracks['track'].nunique(), 'track')} of {kind}"
    said = f"{whole}: {there:,} in the first frame; after it{_steps(balance['time'])} {listed}"
    times = balance["time"].to_numpy()
    return f"{said}\n{turnover(tracks, comings_and_goings(tracks, times), times, kind)}"


def _steps(times: pd.Series) -> str:
    """Say how many years a step from frame to frame is, where it is not one: much may change."""
    from popdask.io.conventions import decimal_years

    years = decimal_years(times)
    ends = sorted({round(step) for step in years[1:] - years[:-1]})
    if not ends or ends[-1] < 2:
        return ""
    step = f"{ends[0] or 1} to {ends[-1]}" if len(ends) > 1 else f"{ends[0]}"
    return f", in steps of {step} years,"


def _since(value: float, began: Any, times: pd.Series) -> str:
    """Write growth since a track began, and when that was, where it is not the first frame."""
    if began == times.iloc[-1]:
        return "–"
    return _percent(value) + (f" from {when(began)}" if began > times.iloc[0] else "")


def _percent(value: float) -> str:
    return "–" if value != value else f"{value:+.1f} %"


def _show_balance(kind: str, table: pd.DataFrame, balance: pd.DataFrame) -> None:
    """Print how many there are in each frame, and how many people live in them and outside."""
    there = table.groupby("time").size()
    frames = [
        (
            when(row.time),
            f"{there.get(row.time, 0):,}",
            f"{row.inside:,.0f}",
            f"{row.outside:,.0f}",
            f"{row.raster:,.0f}",
        )
        for row in balance.itertuples()
    ]
    show_table(["frame", kind, "people in them", "outside", "in the raster"], frames)


def show_scenes(outcome: Groups) -> None:
    """Print what a scenes run has found: the cells of each group."""
    if outcome.plan.done:
        say("nothing to do")
    names = [n for n in map(str, outcome.groups) if n.startswith(("kmeans", "hdbscan"))]
    for name in names:
        sizes = outcome.groups[name].value_counts().sort_index()
        numbers = zip(sizes.index.tolist(), sizes.tolist(), strict=True)
        parts = [f"{'none' if group < 0 else group}: {cells:,}" for group, cells in numbers]
        say(f"{name:<10} {', '.join(parts)}")
    say(f"results: {outcome.store.path}")


def show_scores(scores: pd.DataFrame) -> None:
    """Print the scores of estimates side by side, a table for each set of cells."""
    for where, rows in scores.groupby("where", sort=False) if "where" in scores else [("", scores)]:
        say(f"\n{where!s} ({count(rows['cells'].iloc[0], 'cell')})" if where else "")
        cells = [
            [str(row["model"]), *(written(row[name], form) for name, (_, form) in SCORES.items())]
            for _, row in rows.iterrows()
        ]
        show_table(["model", *(header for header, _ in SCORES.values())], cells)


def show_units(table: pd.DataFrame, *, each: bool) -> None:
    """Print how many units and people there are of each class in the last frame, or every unit."""
    *before, now = map(when, sorted(table["time"].unique()))
    last = table[table["time"] == table["time"].max()].assign(units=1)
    last = last.sort_values("population", ascending=False, kind="stable")
    say(f"{count(len(last), 'unit')}, {now}")
    if each:
        rows = last[["unit", "class", "population", "change", "covered"]].to_numpy().tolist()
        cells = [
            [str(unit), str(kind), f"{people:,.0f}", written(change, "+,.0f"), f"{covered:.0%}"]
            for unit, kind, people, change, covered in rows
        ]
        since = f"since {before[-1]}" if before else "change"
        show_table(["unit", "class", "people", since, "with data"], cells)
        say("")
    sums = last.groupby("class", sort=False)[["units", "population"]].sum()
    sums = sums.sort_values("population", ascending=False)
    total = max(sums["population"].sum(), 1)
    kinds = [
        [str(kind), f"{units:,.0f}", f"{people:,.0f}", f"{people / total:.1%}"]
        for kind, (units, people) in zip(sums.index, sums.to_numpy(), strict=True)
    ]
    show_table(["class", "units", "people", "share"], kinds)


#: What shows the outcome of a run, by pipeline.
SHOW: Mapping[str, Callable[[Any], None]] = {
    "communities": show_outcome,
    "population": show_estimates,
    "scenes": show_scenes,
    "settlements": show_settlements,
}


def show_left(left: Plan) -> None:
    """Print what is left to compute after a stage was computed alone."""
    todo = ", ".join(stage.name for stage in left.todo)
    say(f"readers see it when these are computed too: {todo}" if todo else "readers see it now")


def show_status(status: Status) -> None:
    """Print how a region stands."""
    say(f"store    {status.store.path}")
    if status.last is None:
        say("readers  see nothing yet: no run is finished")
    else:
        say(f"readers  see {status.last.tag}, finished {status.last.finished}:")
        say(f"         {span(status.times)}, {status.found}")
    say(f"running  {_under_way(status)}")
    todo = [f"{stage.name} ({stage})" for stage in status.plan.todo]
    say(f"to do    {', '.join(todo) or 'nothing'}")


def _under_way(status: Status) -> str:
    """Say who runs the job, how far the run is, or where it was stopped."""
    following = next((stage.name for stage in status.plan.todo), "publishing")
    finished = ", ".join(stage.stage for stage in status.since) or "no stage"
    if status.holder is not None:
        return f"{status.holder}; at {following}, {finished} finished"
    if status.stopped:
        return (
            f"no; a run was stopped at {following}, {finished} finished: `popdask run JOB` goes on"
        )
    return "no"


def show_logged_run(attempt: LoggedRun) -> None:
    """Print how the run of one region has ended."""
    if attempt.error is None:
        say(f"{attempt.region}: {attempt.outcome}")
    else:
        complain(f"{attempt.region}: {attempt.error}")


def show_logged_runs(attempts: Sequence[LoggedRun], left_out: int) -> None:
    """Print how the runs of many regions have ended, and how many were left out."""
    rows = [
        (
            attempt.region,
            str(attempt.outcome),
            f"{attempt.seconds:,.1f} s" if attempt.started else "",
        )
        for attempt in attempts
    ]
    say("")
    show_table(["region", "outcome", "time"], rows)
    for attempt in attempts:
        if attempt.error and attempt.log:
            say(f"{attempt.region}: see {attempt.log}")
    if left_out:
        say(f"{left_out} left out: their last run ended well")


def show_status_table(standings: Sequence[RegionStatus]) -> None:
    """Print how many regions stand, and what is wrong with some."""
    header = ["region", "state", "last good run", "frames", "checked", "failures"]
    rows = [
        (
            one.region,
            one.state,
            one.finished[:16].replace("T", " ") if one.finished else "–",
            f"{one.frames:,}",
            "–" if one.age is None else f"{age(one.age)} ago",
            str(one.failures),
        )
        for one in standings
    ]
    show_table(header, rows)
    for one in standings:
        if one.error:
            complain(f"{one.region}: {one.error}")


def show_verified(verified: Verified) -> None:
    """Print what differs from what was computed, or that nothing does."""
    for note in verified.notes:
        say(f"{note}.")
    for difference in verified.differences:
        complain(difference)
    checked = f"{count(verified.frames, 'frame')} of arrays and {count(verified.files, 'file')}"
    differences = f"{count(len(verified.differences), 'difference')} in {checked}"
    if verified.exports and not verified.others:
        commands = " and ".join(f"`popdask run JOB --only {s} --force`" for s in verified.exports)
        complain(f"{differences}, in exported files only: {commands} writes them again.")
    elif verified.others == verified.differences != ():
        complain(f"{differences}, none in the results of the last run: see each for what helps.")
    elif verified.differences:
        complain(f"{differences}: `popdask run JOB --force` computes them anew.")
    else:
        say(f"{checked} are as they were computed, and nobody is lost")


def show_history(runs: Sequence[Run], kept: Sequence[Run]) -> None:
    """Print the finished runs, the newest first, and others that can be gone back to."""
    if not runs:
        say("no run is finished yet")
    for run in runs:
        written = sum(stage.bytes for stage in run.stages) / 1e6
        version = run.versions.get("popdask", "unknown")
        say(
            f"{run.tag}, finished {run.finished} with popdask {version}: "
            f"{run.seconds:,.1f} s, {written:,.1f} MB"
        )
        say(f"    {run.note or _computed(run)}")
    tags = {run.tag for run in runs}
    if others := [run.tag for run in kept if run.tag not in tags]:
        say(f"can be gone back to as well: {', '.join(others)}")


def _computed(run: Run) -> str:
    """Say what a run computed, stages with the same work together."""
    groups = itertools.groupby(run.stages, key=lambda stage: stage.work)
    parts = [(", ".join(stage.stage for stage in stages), work) for work, stages in groups]
    return "; ".join(f"{names}: {work}" if work else names for names, work in parts) or "nothing"


def show_rollback(entry: Run) -> None:
    """Print what readers see after a rollback."""
    say(f"readers see {entry.tag}: {entry.note}")
    say("the next run computes what differs from the job: change that first to stay here")


def show_expired(expired: Maintenance) -> None:
    """Print what was taken away."""
    say(
        f"{count(expired.runs, 'run')} and {count(expired.logs, 'log')} taken away, "
        f"{expired.bytes / 1e6:,.1f} MB freed; {count(expired.kept, 'run')} kept"
    )


def show_trial(trial: pd.Series) -> None:
    """Print one trial of a search."""
    say(f"  trial {trial['number']}: {trial['state']}, loss {written(trial['loss'], '.4g')}")


def show_best(model: str, found: Tuning) -> None:
    """Print the best settings of a search, as they stand in a job file."""
    say(f"\n[{model}]")
    settings = asdict(found.best)
    for name in ("batch_size", "rate", "weight_decay", "optimizer"):
        value = settings[name]
        say(f'{name} = "{value}"' if isinstance(value, str) else f"{name} = {value!r}")
    network = ", ".join(f"{name} = {_toml(value)}" for name, value in settings["network"].items())
    say(f"network = {{ {network} }}")


def _toml(value: Any) -> str:
    """Write a value as in a job file."""
    return json.dumps(list(value) if isinstance(value, tuple) else value)


@cache  # for a job and those that follow it
def resources_of(spec: str) -> Resources:
    """The workers that a run on a cluster would have; none are started."""
    from popdask.config.load import read_spec
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

    from popdask.cluster import local_resources
    from popdask.workflow.plan import Resources

    arguments = file.arguments
    if file.cluster_class in (None, "local"):
        return local_resources(file.workers, **arguments)
    most, where = file.workers[1] if file.workers else 1, f"of {spec}"
    if not {"cores", "memory"} <= arguments.keys():  # not a queue of dask-jobqueue
        complain(f"{spec} does not say how large a worker is: counted as one of this machine.")
        return replace(local_resources(), workers=most, where=where)
    from distributed.deploy.local import nprocesses_nthreads

    processes = arguments.get("processes") or nprocesses_nthreads(arguments["cores"])[0]
    each = parse_bytes(arguments["memory"]) // processes
    return Resources(most, max(1, arguments["cores"] // processes), each, where)


def show_plan(parts: Sequence[Planned], cluster: str) -> None:
    """Print every setting, how much the job is, what a run would compute, and what that costs."""
    first, *then = parts
    rows = [
        (name, without_keys(shown(value)), meaning.replace("``", ""))
        for name, value, meaning in settings_rows(first.job)
    ]
    for line in setting_lines([("setting", "value", "meaning"), *rows], out.width):
        say(line)
    _show_work(first, cluster)
    for one in then:
        say(f"\nthen {one.job.name}, in {one.job.output.store}:")
        _show_work(one, cluster)


def setting_lines(rows: Iterable[tuple[str, str, str]], width: int) -> Iterable[str]:
    """Lay out names, values and meanings in columns; a long value is never broken."""
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


def _show_work(one: Planned, cluster: str) -> None:
    """Print how much a job is, what a run of it would compute, and what that costs."""
    from popdask.workflow.plan import measured_stages

    plan, costs = one.plan, one.costs
    say(f"\n{span(plan.times)}" if plan.times else "")
    say(f"{one.extent}\n")
    for warning in plan.warnings:
        complain(warning)
    measured = measured_stages(one.job, costs.amounts)
    seconds = costs.seconds(measured)
    stages = [(stage.name, str(stage), *_cost(costs, stage.name, seconds)) for stage in plan]
    show_table(["stage", "to compute", "tasks", "read", "written", "memory", "time"], stages)
    if costs.stages:
        resources = resources_of(cluster)
        _show_costs(costs, resources)
        say(_time(seconds, measured))
        if advice := costs.advice(resources):
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
        return (
            "time is not known: neither this store nor one beside it has a finished run of these "
            "stages"
        )
    known = [measured[name] for name in seconds if name not in unknown]
    runs = sorted({f"{one.run} in {one.store}" for one in known})
    total = duration(sum(time or 0.0 for time in seconds.values()))
    rest = f", and {', '.join(unknown)}, of which no time is known" if unknown else ""
    return f"about {total}{rest}, by what was taken on its workers by {' and '.join(runs)}"


def plan_record(parts: Sequence[Planned], cluster: str) -> dict[str, Any]:
    """Put a plan as JSON holds it; bytes are uncompressed, and an unknown time is None."""
    from popdask.workflow.plan import measured_stages

    one, *then = parts
    job, plan, costs, resources = one.job, one.plan, one.costs, resources_of(cluster)
    seconds = costs.seconds(measured_stages(job, costs.amounts))
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
        "following": [plan_record([other], cluster) for other in then],
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


def planned(job: Job) -> list[Planned]:
    """Plan a job, and those that its run begins at its end."""
    from popdask.config.jobs import PopulationJob
    from popdask.workflow.runner import pipeline_of

    first = pipeline_of(job).planned(job)
    if not isinstance(job, PopulationJob):
        return [first]
    from popdask.workflow.population_stages import following

    return [first, *following(job, first.plan)]
