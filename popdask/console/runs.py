"""Finished runs: whether they are still what was computed, which there are, and which went."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING

from popdask.console.lines import complain, say
from popdask.console.words import count

if TYPE_CHECKING:
    from popdask.pipelines.upkeep import Upkeep
    from popdask.pipelines.verify import Verified
    from popdask.store import Run


def show_verified(verified: Verified) -> None:
    """Print what differs from what was computed, or that nothing does."""
    for difference in verified.differences:
        complain(difference)
    checked = f"{count(verified.frames, 'frame')} of arrays and {count(verified.files, 'file')}"
    differences = f"{count(len(verified.differences), 'difference')} in {checked}"
    if verified.exports:
        commands = " and ".join(f"`popdask run JOB --only {s} --force`" for s in verified.exports)
        complain(f"{differences}, in exported files only: {commands} writes them again.")
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


def show_expired(expired: Upkeep) -> None:
    """Print what was taken away."""
    say(
        f"{count(expired.runs, 'run')} and {count(expired.logs, 'log')} taken away, "
        f"{expired.bytes / 1e6:,.1f} MB freed; {count(expired.kept, 'run')} kept"
    )
