"""What a run of the population job has to compute.

A trained model is kept as long as the labelled cells and its settings are the same: a mosaic of
another date costs its own estimates and nothing else. Where it makes the arrays cover other cells,
census totals and exports of all dates are made anew, and no other estimates.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from popdask.job import PopulationJob
from popdask.job.settings import Settings
from popdask.pipelines.images import checksums, iso
from popdask.pipelines.plan import WHOLE, Plan, decide, fingerprint
from popdask.pipelines.population.sources import Sources

#: Version of each stage's code; a stage that computes something else gets the next number.
VERSIONS = {
    "cells": 2,
    "presence": 2,
    "count": 3,
    "estimate": 2,
    "census": 1,
    "evaluation": 1,
    "export": 2,
    "tables": 2,
}

#: The stages that each stage reads.
NEEDS: Mapping[str, tuple[str, ...]] = {
    "cells": (),
    "presence": ("cells",),
    "count": ("cells", "presence"),
    "estimate": ("cells", "presence", "count"),
    "census": ("estimate",),
    "evaluation": ("cells", "presence", "count", "estimate"),
    "export": ("estimate", "census"),
    "tables": ("estimate", "census", "evaluation", "export"),
}

#: Stages of which the results do not depend on which cells the arrays have.
ANYWHERE = ("cells", "presence", "count", "evaluation")

#: Settings that change nothing in the result, and places of files, of which the contents count.
_WITHOUT_EFFECT = {"device", "weights", "mosaic", "counts", "folder", "zones", "table"}


def plan_population(
    job: PopulationJob, sources: Sources, files: Mapping[str, Any], records: Mapping[str, Any]
) -> Plan:
    """Decide what a run of the population job has to compute.

    Parameters
    ----------
    job
        The settings.
    sources
        The files that it reads.
    files
        Their fingerprints, by path.
    records
        The records of the finished stages, by name (empty for a first run).

    Returns
    -------
    Plan
    """
    times = [iso(time) for time in sources.mosaics]
    wanted = _fingerprints(job, sources, files)
    units = dict.fromkeys(wanted, "frames")
    tables = ("evaluation", "census", "export")
    plan = decide(times, wanted, records, needs=NEEDS, tables=tables, units=units)
    gone = sorted(set(records.get("estimate", {}).get("frames", {})) - set(times))
    return replace(plan, gone=(*plan.gone, *gone))


def _fingerprints(
    job: PopulationJob, sources: Sources, files: Mapping[str, Any]
) -> dict[str, dict[str, Any]]:
    """The record that each stage will have when it is finished."""

    def of(stage: str, *parts: Any) -> str:
        return fingerprint(stage, VERSIONS[stage], *parts)

    labelled = checksums(files, (*sources.training, *sources.counts))
    reading = job.input.model_dump(mode="json", include={"align", "nodata"})
    cells = of("cells", labelled, reading, _settings(job.cells))
    models = _models(job, sources, files, cells, of)
    truth = {iso(time): checksums(files, paths) for time, paths in sources.truth.items()}
    grid = job.cells.model_dump(mode="json", include={"grid", "size", "crs", "resolution"})
    rule = [job.estimate.threshold, grid, models, reading]
    mosaics = {iso(time): checksums(files, paths) for time, paths in sources.mosaics.items()}
    estimate = {time: of("estimate", sums, rule) for time, sums in mosaics.items()}
    wanted: dict[str, dict[str, Any]] = {
        **({"cells": {"frames": {WHOLE: cells}}} if _learns(job) else {}),
        **{name: {"frames": {WHOLE: model}, "model": model} for name, model in models.items()},
        "estimate": {"frames": estimate},
    }
    last = estimate
    if job.census is not None:
        names = [name for name in sources.others if name.startswith("census.")]
        places = [sources.others[name] for name in names]
        zones = [_settings(job.census), names, checksums(files, places)]
        last = {time: of("census", zones, print_) for time, print_ in estimate.items()}
        wanted["census"] = {"frames": last}
    told = [job.truth and _settings(job.truth), truth, cells, models, job.estimate.threshold]
    scored = of("evaluation", told, estimate if truth else None)
    if _learns(job) or truth:
        wanted["evaluation"] = {"frames": {WHOLE: scored}}
    formats = set(job.output.export)
    if "cog" in formats:
        prints = {time: of("export", job.name, print_) for time, print_ in last.items()}
        wanted["export"] = {"frames": prints}
    if formats := formats - {"cog"}:
        tables = of("tables", job.name, sorted(formats), last, scored)
        wanted["tables"] = {"frames": {WHOLE: tables}}
    return wanted


def _settings(table: Settings) -> dict[str, Any]:
    return table.model_dump(mode="json", exclude=_WITHOUT_EFFECT)


def _learns(job: PopulationJob) -> bool:
    """Whether there are labelled cells."""
    return job.cells.folder is not None or job.cells.counts is not None


def _models(
    job: PopulationJob, sources: Sources, files: Mapping[str, Any], cells: str, of: Any
) -> dict[str, str]:
    """The fingerprint of each model, by its stage."""
    models: dict[str, str] = {}
    for stage, training in (("presence", job.presence), ("count", job.count)):
        if stage == "presence" and job.single_stage:
            continue
        if training.weights is not None:
            models[stage] = of(stage, checksums(files, [sources.others[f"{stage}.weights"]]))
            continue
        gate = models["presence"] if _is_gated(job, stage) else None
        models[stage] = of(stage, cells, _settings(training), gate)
    return models


def _is_gated(job: PopulationJob, stage: str) -> bool:
    return stage == "count" and job.count.learns_from == "predicted" and not job.single_stage
