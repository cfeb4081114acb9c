"""The stages of pipelines: what each reads, is made from, costs, and how it is computed.

A stage is one object, beside the call of its kernel; a pipeline is its stages in their order. What
has to be computed is decided from settings and records alone: every frame of every stage has a
fingerprint of all that it depends on, which are the settings of the stage, the version of its code,
and the fingerprints of what it reads. A frame is computed when its fingerprint is not the one that
is stored. Nothing here opens an array, so a plan costs nothing.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import accumulate, islice
from typing import TYPE_CHECKING, Any

from popdask.store.records import orphans
from popdask.workflow.plan import Plan, StageCost, StagePlan

if TYPE_CHECKING:
    from popdask.workflow.progress import Reporter

#: Stands for the time, in the record of a stage that has no frames.
WHOLE = "whole"

#: What a stage is made from, with a fingerprint for each of its ``frames``.
Record = Mapping[str, Any]

#: Makes the fingerprint of a stage and the version of its code, with all that is given.
Fingerprint = Callable[..., str]


@dataclass(frozen=True)
class Basis:
    """What the records of a job's stages are made from."""

    job: Any
    """The settings."""
    times: tuple[str, ...]
    """ISO times of the frames."""
    inputs: Any
    """The versions of the files that are read, as the pipeline tells them."""
    stored: Mapping[str, Any] = field(default_factory=dict)
    """The records of the stages that are finished."""
    wanted: dict[str, Record] = field(default_factory=dict)
    """Those of the stages before this one, as they shall be."""

    def frames(self, stage: str) -> Mapping[str, str]:
        """The fingerprints of the frames of an earlier stage."""
        frames: Mapping[str, str] = self.wanted[stage]["frames"]
        return frames


#: Tells what a stage shall be made from; None where a job has no such stage.
Wanted = Callable[[Basis, Fingerprint], Record | None]


@dataclass(frozen=True)
class Stage:
    """One stage of a pipeline."""

    name: str
    """Its name, as users see it."""
    needs: tuple[str, ...]
    """The stages that it reads."""
    wanted: Wanted
    """What it shall be made from; None where a job has no such stage."""
    cost: Callable[[Any, StagePlan, Any], StageCost]
    """What it costs, from the job, what is stale, and how much the pipeline's input is."""
    compute: Callable[[Any, StagePlan, Reporter], None]
    """Computes what is stale within a run, and commits it."""
    version: int = 1
    """Of its code: a stage that computes something else gets the next number."""
    unit: str = "frames"
    """What of it is counted."""
    table: bool = False
    """Whether it holds rows of all frames, and is made anew where one goes away."""
    anywhere: bool = False
    """Whether its results do not depend on which cells the arrays have."""
    reads_files: bool = False
    """Whether it reads files of the user, of which the versions go on record with it."""


def decide(stages: Iterable[Stage], basis: Basis) -> Plan:
    """Compare what stages shall be made from with what they were made from."""
    position = {time: i for i, time in enumerate(basis.times)} | {WHOLE: 0}
    planned, needs = {}, {}
    for stage in stages:
        record = stage.wanted(basis, partial(fingerprint, stage.name, stage.version))
        if record is not None:
            basis.wanted[stage.name] = record
            stale = _stale(stage, record, basis.stored.get(stage.name, {}), position)
            needs[stage.name] = stage.needs
            planned[stage.name] = StagePlan(
                stage.name, record, stale, len(record["frames"]), stage.unit
            )
    return Plan(basis.times, planned, needs, orphans(basis.stored, planned))


def _stale(
    stage: Stage, record: Record, stored: Record, position: Mapping[str, int]
) -> tuple[int, ...]:
    frames, known = record["frames"], stored.get("frames", {})
    if "model" in record and stored.get("model") != record["model"]:
        known = {}
    stale = tuple(position[key] for key in frames if known.get(key) != frames[key])
    if stage.table and set(known) - set(frames):
        stale = stale or (0,)  # frames went away: the table has rows too many
    return stale


def fingerprint(*parts: Any) -> str:
    """Digest of anything that can be written as JSON."""
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def chained(of: Fingerprint, settings: Any, frames: Mapping[str, str]) -> dict[str, str]:
    """Fingerprints of frames that are held: each depends on those of all before."""
    prints = accumulate(
        frames.values(), lambda before, frame: of(settings, before, frame), initial=""
    )
    return dict(zip(frames, islice(prints, 1, None), strict=True))


def plain(models: Sequence[Any]) -> list[Any]:
    """Settings as they can be written as JSON."""
    return [model.model_dump(mode="json") for model in models]
