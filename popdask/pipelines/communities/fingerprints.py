"""What a run of the communities job has to compute.

Models are kept, whatever frames are appended, as long as their settings are the same and the frames
that they were fitted on are still there, unchanged.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

from popdask.job import CommunitiesJob
from popdask.pipelines.plan import Plan, decide, fingerprint, plain

#: Version of each stage's code; a stage that computes something else gets the next number.
VERSIONS = {
    "population": 2,
    "flow": 1,
    "encoder": 1,
    "classifier": 1,
    "classes": 1,
    "communities": 1,
    "summary": 1,
    "links": 1,
    "tracks": 1,
    "export": 2,
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


def plan_communities(
    job: CommunitiesJob, inputs: Mapping[str, str], records: Mapping[str, Any]
) -> Plan:
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
    wanted = _fingerprints(job, inputs, records)
    tables = ("summary", "links", "tracks")
    return decide(
        list(inputs), wanted, records, needs=NEEDS, tables=tables, units={"links": "pairs"}
    )


def _fingerprints(
    job: CommunitiesJob, inputs: Mapping[str, str], records: Mapping[str, Any]
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
        "encoder", of("encoder", *plain(training)), population, flow, job, records
    )
    classifier = _model_record(
        "classifier",
        of("classifier", plain([job.classes]), encoder["model"]),
        population,
        flow,
        job,
        records,
    )
    classes = {t: of("classes", classifier["model"], population[t], flow[t]) for t in times}
    grouping = of("communities", plain([job.communities]), classifier["model"])
    communities = {t: fingerprint(grouping, classes[t], population[t]) for t in times}
    summary = {t: of("summary", communities[t], flow[t]) for t in times}
    links = {
        t: of("links", plain([job.links]), communities[t], communities[pairs[t]]) for t in pairs
    }
    tracks = of("tracks", summary, links)
    formats = job.output.export
    told = [job.name, "cog" in formats]
    rasters = {t: of("export", told, population[t], communities[t]) for t in times}
    last = of("export", rasters, sorted(formats), tracks)  # and what tells of all frames
    export = {"frames": {**rasters, times[-1]: last}, "rasters": rasters}
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
        **({"export": export} if formats else {}),
    }


def _flow_fingerprints(job: CommunitiesJob, population: Mapping[str, str]) -> dict[str, str]:
    """A frame's flow depends on its neighbours in time, and with a warm start on all before."""
    times = list(population)
    centering = job.flow.centering[2]
    before, after = (0 if centering == 1 else 1), (0 if centering == -1 else 1)
    prints: dict[str, str] = {}
    for i, time in enumerate(times):
        near = [population[t] for t in times[max(i - before, 0) : i + after + 1]]
        earlier = prints[times[i - 1]] if job.flow.warm_start and i else None
        prints[time] = fingerprint(
            "flow", VERSIONS["flow"], plain([job.flow]), near, i == 0, earlier
        )
    return prints


def _model_record(
    stage: str,
    settings: str,
    population: Mapping[str, str],
    flow: Mapping[str, str],
    job: CommunitiesJob,
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
