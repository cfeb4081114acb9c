"""How regions stand, and how the runs of many have ended."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from popdask.console.lines import complain, say, show_table
from popdask.console.words import age, span

if TYPE_CHECKING:
    from popdask.pipelines.attempts import Attempt
    from popdask.pipelines.overview import Standing
    from popdask.pipelines.status import Status


def show_status(status: Status) -> None:
    """Print how a region stands."""
    say(f"store    {status.store.path}")
    if status.last is None:
        say("readers  see nothing yet: no run is finished")
    else:
        say(f"readers  see {status.last.tag}, finished {status.last.finished}:")
        say(f"         {span(status.times)}, {status.found}")
    say(f"running  {_under_way(status)}")
    todo = [f"{stage.name} ({stage})" for stage in status.plan if not stage.done]
    say(f"to do    {', '.join(todo) or 'nothing'}")


def _under_way(status: Status) -> str:
    """Say who runs the job, how far the run is, or where it was stopped."""
    following = next((stage.name for stage in status.plan if not stage.done), "publishing")
    finished = ", ".join(stage.stage for stage in status.since) or "no stage"
    if status.holder is not None:
        return f"{status.holder}; at {following}, {finished} finished"
    if status.stopped:
        return (
            f"no; a run was stopped at {following}, {finished} finished: `popdask run JOB` goes on"
        )
    return "no"


def show_attempt(attempt: Attempt) -> None:
    """Print how the run of one region has ended."""
    if attempt.error is None:
        say(f"{attempt.region}: {attempt.outcome}")
    else:
        complain(f"{attempt.region}: {attempt.error}")


def show_attempts(attempts: Sequence[Attempt], left_out: int) -> None:
    """Print how the runs of many regions have ended, and how many were left out."""
    rows = [
        (
            attempt.region,
            str(attempt.outcome),
            f"{attempt.seconds:,.1f} s" if attempt.started else "",
            attempt.log if attempt.error else "",
        )
        for attempt in attempts
    ]
    say("")
    show_table(["region", "outcome", "time", "see"], rows)
    if left_out:
        say(f"{left_out} left out: their last run ended well")


def show_standings(standings: Sequence[Standing]) -> None:
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


def show_json(standings: Sequence[Standing]) -> None:
    """Print how many regions stand, as JSON."""
    say(json.dumps([asdict(one) for one in standings], indent=1, ensure_ascii=False))
