"""What the logs tell of the attempts at a region, the failed ones too."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from popdask.job import Job
from popdask.pipelines.logplace import LogPlace, log_place


class End(StrEnum):
    """How an attempt has ended."""

    DONE = "done"
    NOTHING = "nothing to do"
    FAILED = "failed"
    WRONG = "wrong"
    """The job file or its input is wrong."""
    BUSY = "busy"
    """Another run held the region."""
    STOPPED = "stopped"
    """By a signal."""
    KILLED = "killed"
    """Without a word of it, or it has not ended yet."""


@dataclass(frozen=True)
class Attempt:
    """One run of a region, however it has ended."""

    region: str
    """Name of the region; of a job file that is wrong, the file's."""
    outcome: End
    """How it has ended."""
    started: str = ""
    """ISO time, UTC; empty where it never started."""
    seconds: float = 0.0
    """How long it took; 0 where that is not known."""
    error: str | None = None
    """Why it has not ended well; one sentence."""
    log: str = ""
    """Where its log is."""

    @property
    def good(self) -> bool:
        """Whether the region is as its job wants it."""
        return self.outcome in (End.DONE, End.NOTHING)


def attempts(job: Job, folder: str | Path | None = None) -> Iterator[Attempt]:
    """Read the attempts at the region of a job, the newest first.

    Parameters
    ----------
    job
        The settings.
    folder
        As for `popdask.pipelines.logplace.log_place`.

    Yields
    ------
    Attempt
        Single stages, and attempts that found the region held by another, are left out.
    """
    place = log_place(job, folder)
    for name in place.names():
        found = _read(place, name)
        if found is not None and found.outcome is not End.BUSY:
            yield found


def _read(place: LogPlace, name: str) -> Attempt | None:
    """Read one attempt; None for a single stage, or a log of which nothing is readable."""
    events = {line["event"]: line for line in _lines(place.read(name))}
    begin, end = events.get("begin"), events.get("end", {})
    if begin is None or "only" in begin:
        return None
    return Attempt(
        begin["region"],
        End(end.get("outcome", End.KILLED)),
        begin["time"],
        end.get("seconds", 0.0),
        end.get("error"),
        f"{place}/{name}",
    )


def _lines(text: str) -> Iterator[dict[str, Any]]:
    for line in text.splitlines():
        try:
            yield json.loads(line)
        except json.JSONDecodeError:  # cut off, by a kill or a full disk
            return
