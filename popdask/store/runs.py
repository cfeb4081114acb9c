"""What the commits of a region tell: the stages that were finished, and the runs."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

import icechunk

#: The branch that readers see, and the branch of the run under way.
MAIN, WORK = "main", "work"


@dataclass(frozen=True)
class Finished:
    """A stage that was computed and committed."""

    stage: str
    """Its name."""
    work: str
    """What was computed, such as ``"1 of 18 frames"``."""
    started: str
    """ISO time, UTC."""
    seconds: float
    """How long it took."""
    bytes: int
    """How much it added to the store."""


@dataclass(frozen=True)
class Run:
    """A finished run."""

    tag: str
    """Its tag in the repository."""
    started: str
    """ISO time, UTC, at which its first stage began."""
    finished: str
    """ISO time, UTC, at which it was published."""
    stages: tuple[Finished, ...]
    """What it computed; stages of runs that were stopped before are among them."""
    versions: Mapping[str, str]
    """Versions of popdask and of what it computes with."""
    note: str = ""
    """What else there is to say, such as that it is an earlier run again."""

    @property
    def seconds(self) -> float:
        """Time that its stages took."""
        return sum(stage.seconds for stage in self.stages)


def finished_stages(repository: icechunk.Repository) -> list[Finished]:
    """List the stages that were committed since the last finished run, in order."""
    if WORK not in repository.list_branches():
        return []
    published = repository.lookup_branch(MAIN)
    commits = itertools.takewhile(
        lambda commit: commit.id != published, repository.ancestry(branch=WORK)
    )
    told = [commit.metadata["finished"] for commit in commits if "finished" in commit.metadata]
    return [Finished(**finished) for finished in reversed(told)]


def finished_runs(repository: icechunk.Repository) -> list[Run]:
    """List the finished runs, the newest first."""
    runs = (run_of(commit) for commit in repository.ancestry(branch=MAIN))
    return [run for run in runs if run is not None]


def run_of(commit: icechunk.SnapshotInfo) -> Run | None:
    """Tell which run a commit has finished; None if it is another commit."""
    told = commit.metadata.get("run")
    return told and Run(**told | {"stages": tuple(Finished(**stage) for stage in told["stages"])})


def utc_now() -> str:
    """Give the time as ISO text, UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")
