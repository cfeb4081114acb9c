"""Before a run: its settings, what is to be computed, what that costs, and what is left."""

from __future__ import annotations

from typing import TYPE_CHECKING

from popdask.console.lines import complain, say, show_table
from popdask.console.words import count, duration, size_of, span
from popdask.job import Job, settings_rows, shown

if TYPE_CHECKING:
    from pathlib import Path

    from popdask.pipelines.costs import Costs, Crew
    from popdask.pipelines.plan import Plan
    from popdask.pipelines.population.following import Following
    from popdask.pipelines.rates import Rates


def show_plan(job: Job, plan: Plan, extent: str, costs: Costs, crew: Crew) -> None:
    """Print every setting, how much the job is, what a run would compute, and what that costs."""
    from popdask.pipelines.runlog import without_keys

    rows = [
        (name, without_keys(shown(value)), meaning.replace("``", ""))
        for name, value, meaning in settings_rows(job)
    ]
    show_table(["setting", "value", "meaning"], rows)
    show_work(plan, extent, costs, crew)


def show_following(one: Following, crew: Crew) -> None:
    """Print what a job that a run begins at its end would compute, and what that costs."""
    say(f"\nthen {one.job.name}, in {one.job.output.store}:")
    show_work(one.plan, one.extent, one.costs, crew)


def show_work(plan: Plan, extent: str, costs: Costs, crew: Crew) -> None:
    """Print how much a job is, what a run of it would compute, and what that costs."""
    from popdask.pipelines.rates import load_rates

    say(f"\n{span(plan.times)}" if plan.times else "")
    say(f"{extent}\n")
    rates = load_rates()
    stages = [(stage.name, str(stage), *_cost(costs, stage.name, rates, crew)) for stage in plan]
    show_table(["stage", "to compute", "tasks", "read", "written", "memory", "time"], stages)
    if costs.stages:
        _show_costs(costs, rates, crew)


def _cost(costs: Costs, name: str, rates: Rates | None, crew: Crew) -> tuple[str, ...]:
    cost = costs.stages.get(name)
    if cost is None:
        return ("",) * 5
    seconds = None if rates is None else cost.seconds(rates, crew.cores)
    sizes = [size_of(size) if size else "" for size in (cost.read, cost.written, cost.memory)]
    return (f"{cost.tasks:,}", *sizes, "" if seconds is None else duration(seconds))


def _show_costs(costs: Costs, rates: Rates | None, crew: Crew) -> None:
    """Print what a run costs as a whole."""
    say(
        f"\n{count(costs.chunks, 'chunk')}, {count(costs.tasks, 'task')}; {size_of(costs.read)} "
        f"read and {size_of(costs.written)} written, uncompressed"
    )
    say(
        f"up to {size_of(costs.peak(crew))} of memory in a worker, of {size_of(crew.memory)}: "
        f"{count(crew.workers, 'worker')} here, {count(crew.threads, 'thread')} each"
    )
    if rates is None:
        say("time is not known: measure this machine once with `popdask calibrate`")
    elif (seconds := costs.seconds(rates, crew)) is None:
        say(f"time is not known by the {rates}: measure again with `popdask calibrate`")
    else:
        say(f"about {duration(seconds)} by the {rates}")
    if advice := costs.advice(crew):
        complain(advice)


def show_rates(rates: Rates, path: Path) -> None:
    """Print what was measured on this machine, and where it is kept."""
    rows = [(name, f"{seconds:.3g} s") for name, seconds in sorted(rates.seconds.items())]
    show_table(["work", "one core takes"], rows)
    say(
        f"\na task by itself {rates.task * 1e3:.2f} ms; workers are there after {rates.start:.1f} s"
    )
    say(f"{rates}: {path}")


def show_left(left: Plan) -> None:
    """Print what is left to compute after a stage was computed alone."""
    todo = ", ".join(stage.name for stage in left if not stage.done)
    say(f"readers see it when these are computed too: {todo}" if todo else "readers see it now")
