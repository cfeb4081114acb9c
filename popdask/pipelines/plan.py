"""What a run of the communities job has to compute, decided from settings and records alone.

Every frame of every stage has a fingerprint of all that it depends on: the settings of the stage,
the version of its code, and the fingerprints of what it reads. A frame is computed when its
fingerprint is not the one that is stored. Nothing here opens an array, so a plan costs nothing.

Models are the exception: a fitted model is kept, whatever frames are appended, as long as its
settings are the same and the frames that it was fitted on are still there, unchanged.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from popdask.job import Job

#: Version of each stage's code; a stage that computes something else gets the next number.
VERSIONS = {
    "population": 1,
    "flow": 1,
    "encoder": 1,
    "classifier": 1,
    "classes": 1,
    "communities": 1,
    "summary": 1,
    "links": 1,
    "tracks": 1,
    "export": 1,
}

#: The stages that each stage reads.
NEEDS: Mapping[str, tuple[str, ...]] = {
    "population": (),
    "flow": ("population",),
    "encoder": ("population", "flow"),
    "classifier": ("population", "flow", "encoder"),
    "classes": ("population", "flow", "encoder", "classifier"),
    "communities": ("population", "classes"),
    "summary": ("population", "flow", "communities"),
    "links": ("population", "communities"),
    "tracks": ("population", "communities", "summary", "links"),
    "export": ("population", "classes", "communities", "links", "tracks"),
}

#: Stages of which the results survive a new layout of the arrays.
MODELS = ("encoder", "classifier")


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
        unit = "pairs" if self.name == "links" else "frames"
        if self.whole:
            return f"all {self.total} {unit}" if self.total > 1 else "to do"
        return f"{len(self.stale)} of {self.total} {unit}"


@dataclass(frozen=True)
class Plan:
    """What a run has to do, stage by stage."""

    times: tuple[str, ...]
    """ISO times of the frames."""
    stages: Mapping[str, StagePlan] = field(default_factory=dict)
    """The stages by name, in the order in which they run."""

    @property
    def done(self) -> bool:
        """Whether there is nothing to compute."""
        return all(stage.done for stage in self.stages.values())

    def unfinished_before(self, name: str) -> list[StagePlan]:
        """List what is to be computed of the stages that a stage needs, directly or not."""
        needed: set[str] = set()
        todo = [name]
        while todo:
            todo += (fresh := set(NEEDS[todo.pop()]) - needed)
            needed |= fresh
        return [stage for stage in self if stage.name in needed and not stage.done]

    def __getitem__(self, name: str) -> StagePlan:
        return self.stages[name]

    def __iter__(self) -> Iterator[StagePlan]:
        return iter(self.stages.values())


def plan_communities(job: Job, inputs: Mapping[str, str], records: Mapping[str, Any]) -> Plan:
    """Decide what a run of the communities job has to compute.

    Parameters
    ----------
    job
        The settings.
    inputs
        Checksum of each frame's file, by ISO time, in order.
    records
        The records of the finished stages, by name (empty for a first run).

    Returns
    -------
    Plan
    """
    times = tuple(inputs)
    wanted = _fingerprints(job, inputs, records)
    stages = {}
    for name, record in wanted.items():
        stored = records.get(name, {})
        frames, known = record["frames"], stored.get("frames", {})
        if "model" in record and stored.get("model") != record["model"]:
            known = {}
        stale = tuple(times.index(time) for time in frames if known.get(time) != frames[time])
        if set(known) - set(frames) and name in ("summary", "links", "tracks"):
            stale = stale or (0,)  # frames went away: the tables have rows too many
        stages[name] = StagePlan(name, record, stale, len(frames))
    return Plan(times, stages)


def fingerprint(*parts: Any) -> str:
    """Digest of anything that can be written as JSON."""
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _fingerprints(
    job: Job, inputs: Mapping[str, str], records: Mapping[str, Any]
) -> dict[str, dict[str, Any]]:
    """The record that each stage will have when it is finished."""
    times = list(inputs)
    pairs = dict(itertools.pairwise(times)) or {times[0]: times[0]}  # one frame: an empty table

    def of(stage: str, *parts: Any) -> str:
        return fingerprint(stage, VERSIONS[stage], *parts)

    # Aligned frames depend on the first one, which gives the grid.
    grid = inputs[times[0]] if job.input.align else None
    reading = {"nodata": job.input.nodata, "grid": grid}
    population = {t: of("population", inputs[t], reading) for t in times}
    flow = _flow_fingerprints(job, population)
    # The device is left out: a model may be trained on a GPU and used without one.
    training = [job.domain, job.flow, job.encoder.model_copy(update={"device": "auto"})]
    encoder = _model_record(
        "encoder", of("encoder", *_plain(training)), population, flow, job, records
    )
    classifier = _model_record(
        "classifier",
        of("classifier", _plain([job.classes]), encoder["model"]),
        population,
        flow,
        job,
        records,
    )
    classes = {t: of("classes", classifier["model"], population[t], flow[t]) for t in times}
    grouping = of("communities", _plain([job.communities]), classifier["model"])
    communities = {t: fingerprint(grouping, classes[t], population[t]) for t in times}
    summary = {t: of("summary", communities[t], flow[t]) for t in times}
    links = {
        t: of("links", _plain([job.links]), communities[t], communities[pairs[t]]) for t in pairs
    }
    tracks = of("tracks", summary, links)
    exported = [job.name, job.output.export, str(job.export_folder)]
    export = {t: of("export", exported, population[t], communities[t]) for t in times}
    export[times[-1]] = of("export", exported, communities, tracks)  # and the tables
    return {
        "population": {"frames": population},
        "flow": {"frames": flow},
        "encoder": encoder,
        "classifier": classifier,
        "classes": {"frames": classes},
        "communities": {"frames": communities, "settings": grouping},
        "summary": {"frames": summary},
        "links": {"frames": links},
        "tracks": {"frames": {times[-1]: tracks}},
        **({"export": {"frames": export}} if job.output.export else {}),
    }


def _flow_fingerprints(job: Job, population: Mapping[str, str]) -> dict[str, str]:
    """A frame's flow depends on its neighbours in time, and with a warm start on all before."""
    times = list(population)
    centering = job.flow.centering[2]
    before, after = (0 if centering == 1 else 1), (0 if centering == -1 else 1)
    prints: dict[str, str] = {}
    for i, time in enumerate(times):
        near = [population[t] for t in times[max(i - before, 0) : i + after + 1]]
        earlier = prints[times[i - 1]] if job.flow.warm_start and i else None
        prints[time] = fingerprint(
            "flow", VERSIONS["flow"], _plain([job.flow]), near, i == 0, earlier
        )
    return prints


def _model_record(
    stage: str,
    settings: str,
    population: Mapping[str, str],
    flow: Mapping[str, str],
    job: Job,
    records: Mapping[str, Any],
) -> dict[str, Any]:
    """The record of a stage that fits models: one for all frames, or one for each."""
    if job.encoder.scope == "frame":
        frames = {t: fingerprint(settings, population[t], flow[t]) for t in population}
        return {"model": settings, "frames": frames}
    stored = records.get(stage, {})
    fitted = stored.get("frames", {})
    if (
        fitted
        and stored.get("settings") == settings
        and all(population.get(time) == print_ for time, print_ in fitted.items())
    ):
        return dict(stored)
    frames = dict(population)
    return {"model": fingerprint(settings, frames), "settings": settings, "frames": frames}


def _plain(models: Sequence[Any]) -> list[Any]:
    return [model.model_dump(mode="json") for model in models]
