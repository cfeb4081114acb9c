"""What a run has to compute, decided from settings and records alone.

Every frame of every stage has a fingerprint of all that it depends on: the settings of the stage,
the version of its code, and the fingerprints of what it reads. A frame is computed when its
fingerprint is not the one that is stored. Nothing here opens an array, so a plan costs nothing.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from popdask.cards import card
from popdask.store.ownership import orphans

#: Stands for the time, in the record of a stage that has no frames.
WHOLE = "whole"


@dataclass(frozen=True)
class StagePlan:
    """What one stage has to do."""

    name: str
    """Name of the stage."""
    record: Mapping[str, Any]
    """What the finished stage is made from, to be stored with it."""
    stale: tuple[int, ...]
    """Positions of the frames to compute (for links, of the earlier frame of each pair)."""
    total: int
    """Number of frames (or pairs) of the stage."""
    unit: str = "frames"
    """What is counted."""

    @property
    def done(self) -> bool:
        """Whether there is nothing to compute."""
        return not self.stale

    @property
    def whole(self) -> bool:
        """Whether everything is to be computed."""
        return len(self.stale) == self.total

    def __str__(self) -> str:
        if self.done:
            return "done"
        if self.whole:
            return f"all {self.total} {self.unit}" if self.total > 1 else "to do"
        return f"{len(self.stale)} of {self.total} {self.unit}"


@dataclass(frozen=True, repr=False)
class Plan:
    """What a run has to do, stage by stage."""

    times: tuple[str, ...]
    """ISO times of the frames."""
    stages: Mapping[str, StagePlan] = field(default_factory=dict)
    """The stages by name, in the order in which they run."""
    needs: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """The stages that each stage reads."""
    gone: tuple[str, ...] = ()
    """Records of results that belong to none of the stages, and times of frames that the job has
    no more: they are to be taken away."""

    @property
    def computed(self) -> bool:
        """Whether there is nothing to compute."""
        return all(stage.done for stage in self.stages.values())

    @property
    def done(self) -> bool:
        """Whether there is nothing to do: nothing to compute, and nothing to take away."""
        return self.computed and not self.gone

    def unfinished_before(self, name: str) -> list[StagePlan]:
        """List what is to be computed of the stages that a stage needs, directly or not."""
        needed: set[str] = set()
        todo = [name]
        while todo:
            todo += (fresh := set(self.needs.get(todo.pop(), ())) - needed)
            needed |= fresh
        return [stage for stage in self if stage.name in needed and not stage.done]

    def __repr__(self) -> str:
        return f"Plan({', '.join(f'{stage.name}: {stage}' for stage in self)})"

    def _repr_html_(self) -> str:
        """The stages and what is to be computed of each, as a notebook shows them."""
        return card("Plan", {stage.name: stage for stage in self})

    def __getitem__(self, name: str) -> StagePlan:
        return self.stages[name]

    def __iter__(self) -> Iterator[StagePlan]:
        return iter(self.stages.values())


def decide(
    times: Sequence[str],
    wanted: Mapping[str, Mapping[str, Any]],
    records: Mapping[str, Any],
    *,
    needs: Mapping[str, tuple[str, ...]],
    tables: Sequence[str] = (),
    units: Mapping[str, str] | None = None,
) -> Plan:
    """Compare what the stages shall be made from with what they were made from.

    Parameters
    ----------
    times
        ISO times of the frames.
    wanted
        The record that each stage will have when it is finished: ``frames``, the fingerprint by
        time (or by ``WHOLE``), and for a stage that has a model ``model``, its fingerprint.
    records
        The records of the finished stages.
    needs
        The stages that each stage reads.
    tables
        Stages that have rows of all frames in one table.
    units
        What a stage counts, where that is not frames.

    Returns
    -------
    Plan
    """
    position = {time: i for i, time in enumerate(times)} | {WHOLE: 0}
    stages = {}
    for name, record in wanted.items():
        stored = records.get(name, {})
        frames, known = record["frames"], stored.get("frames", {})
        if "model" in record and stored.get("model") != record["model"]:
            known = {}
        stale = tuple(position[key] for key in frames if known.get(key) != frames[key])
        if set(known) - set(frames) and name in tables:
            stale = stale or (0,)  # frames went away: the tables have rows too many
        unit = (units or {}).get(name, "frames")
        stages[name] = StagePlan(name, record, stale, len(frames), unit)
    return Plan(tuple(times), stages, needs, orphans(records, stages))


def fingerprint(*parts: Any) -> str:
    """Digest of anything that can be written as JSON."""
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def plain(models: Sequence[Any]) -> list[Any]:
    """Settings as they can be written as JSON."""
    return [model.model_dump(mode="json") for model in models]
