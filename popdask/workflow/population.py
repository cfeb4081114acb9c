"""The population job: what its stages depend on, and what a run gives.

What a run of the population job has to compute.

A trained model is kept as long as the labelled cells and its settings are the same: a mosaic of
another date costs its own estimates and nothing else. Where it makes the arrays cover other cells,
census totals and exports of all dates are made anew, and no other estimates.

Runs of the population job: aerial images in, people per cell out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from popdask._repr_html import ReprMixin
from popdask.config.jobs import PopulationJob
from popdask.config.settings import Settings
from popdask.errors import InputError
from popdask.io import export
from popdask.store.repository import RegionStore
from popdask.workflow import communities, runner, scenes
from popdask.workflow.exports import without_missing
from popdask.workflow.inputs import cell_grid, checksums, frame_grid, iso, open_image
from popdask.workflow.plan import WHOLE, Costs, Plan, decide, fingerprint
from popdask.workflow.population_costs import costs
from popdask.workflow.population_inputs import (
    Sources,
    covers_other_cells,
    earlier_estimates,
    is_drawn,
)
from popdask.workflow.population_inputs import draw as draw_country
from popdask.workflow.population_outputs import raster_names, table_names
from popdask.workflow.population_stages import PopulationStages
from popdask.workflow.progress import Reporter
from popdask.workflow.runner import Files, Workers

#: Version of each stage's code; a stage that computes something else gets the next number.
VERSIONS = {
    "cells": 3,
    "presence": 3,
    "count": 4,
    "estimate": 2,
    "census": 1,
    "evaluation": 2,
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
    """Decide what a run of the population job has to compute."""
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
    reading: dict[str, Any] = job.input.model_dump(mode="json", include={"align", "nodata"})
    if job.input.bands:
        rules = [band.model_dump(mode="json", exclude={"path"}) for band in job.input.bands]
        places = [sources.others[f"bands.{number}"] for number in range(len(rules))]
        reading["bands"] = [rules, checksums(files, places)]
    cells = of("cells", labelled, reading, _settings(job.cells))
    models = _models(job, sources, files, cells, of)
    truth = {iso(time): checksums(files, paths) for time, paths in sources.truth.items()}
    grid = job.cells.model_dump(mode="json", include={"grid", "size", "crs", "resolution"})
    rule = [job.estimate.rule, job.estimate.threshold, grid, models, reading]
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
    told = [job.truth and _settings(job.truth), truth, cells, job.cells.block, rule]
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


@dataclass(frozen=True, repr=False)
class PopulationResult(ReprMixin):
    """What a run did and found."""

    plan: Plan
    """What it had to compute."""
    people: pd.DataFrame
    """People, inhabited cells and cells with data of each frame."""
    scores: pd.DataFrame | None
    """The estimates against known people, beside the baselines."""
    zones: pd.DataFrame | None
    """The zones before and after their totals were kept."""
    followed: communities.CommunitiesResult | None
    """The communities of the estimates, where the job follows them."""
    grouped: scenes.ScenesResult | None
    """The groups of cells that look alike, where the job asks for them."""
    store: RegionStore
    """The results."""

    def summary(self) -> dict[str, str]:
        """What was computed and found, in a few words."""
        computed = [stage.name for stage in self.plan if not stage.done]
        frames = self.people.itertuples()
        return {
            "computed": ", ".join(computed) or "nothing, all was done",
            "people": ", ".join(f"{row.people:,.0f} ({row.time:%Y-%m-%d})" for row in frames),
            "scores": "none" if self.scores is None else f"{len(self.scores)} rows",
            "zones": "none" if self.zones is None else f"{len(self.zones)} keep their totals",
            "results": str(self.store.path),
        }


class PopulationPipeline:
    """What the stages of the population job depend on, and how they are computed."""

    def files(self, job: PopulationJob, records: Mapping[str, Any]) -> Files:
        """Tell the versions of the files, by path."""
        if job.drawn is not None and not is_drawn(job.drawn):
            raise InputError(
                f"[drawn] folder {job.drawn.folder} has no country yet: `popdask run JOB` draws it."
            )
        known: dict[str, Any] = {}
        for record in records.values():
            known |= record.get("files", {})
        return Sources.of(job).fingerprints(known)

    def plan(self, job: PopulationJob, files: Files, records: Mapping[str, Any]) -> Plan:
        """Decide what is to be computed."""
        records = without_missing(records, job, "export", "tables")
        return plan_population(job, Sources.of(job), files, records)

    def costs(self, job: PopulationJob, plan: Plan) -> Costs:
        """Count what that costs."""
        return costs(job, plan)

    def exports(self, job: PopulationJob, files: Files) -> list[str]:
        """Name the files that a job exports."""
        times = Sources.of(job).mosaics
        return [*raster_names(job, times), *table_names(job, times)]

    def begin(
        self, job: PopulationJob, store: RegionStore, files: Files, forget: Sequence[str]
    ) -> PopulationStages:
        """Open the mosaics, and take up the work where it stands, without the stages to forget."""
        sources = Sources.of(job)
        grid = cell_grid(job.cells, next(iter(sources.mosaics.values()))[0], job.cells.join)
        frame = frame_grid(job, sources.mosaics, grid)
        work = store.begin(frame, keep=ANYWHERE)
        work.forget(forget)
        plan = self.plan(job, files, work.records())
        wanted = {} if "estimate" in forget else plan["estimate"].record["frames"]
        earlier = earlier_estimates(store, frame, wanted)
        return PopulationStages(job, sources, grid, frame, files, store, work, plan, earlier)


PIPELINE = PopulationPipeline()


def plan(job: PopulationJob) -> Plan:
    """Say what a run would compute; see :func:`popdask.workflow.runner.plan`."""
    # Where there is something, the headers of the mosaics are read: other cells than those of the
    # last run are told from them.
    planned = runner.plan(PIPELINE, job)
    if planned.done or not covers_other_cells(job):
        return planned
    records = RegionStore(job.output.store).latest_records()
    kept = {name: record for name, record in records.items() if name in (*ANYWHERE, "estimate")}
    return PIPELINE.plan(job, PIPELINE.files(job, kept), kept)


def extent(job: PopulationJob) -> str:
    """Say how much a job is, from the headers of its mosaics: frames, cells and pixels."""
    sources = Sources.of(job)
    first = next(iter(sources.mosaics.values()))
    grid = cell_grid(job.cells, first[0], job.cells.join)
    frame, image = (
        frame_grid(job, sources.mosaics, grid),
        open_image(job, first, grid),
    )
    pixels = round(grid.size / abs(float(image["x"][1] - image["x"][0])))
    cells, bands = frame.sizes["y"] * frame.sizes["x"], image.sizes["band"]
    said = (
        f"{frame.sizes['time']} × {frame.sizes['y']} × {frame.sizes['x']} cells of "
        f"{grid.label}, {pixels} × {pixels} pixels and {bands} "
        f"band{'s' if bands != 1 else ''} each; "
        f"{cells * pixels**2 * bands * image.dtype.itemsize / 1e9:.2f} GB of pixels "
        "per frame"
    )
    if not covers_other_cells(job):
        return said
    return (
        f"{said}\nthe last run had other cells: estimates of unchanged images are kept, and census "
        "totals, exports and communities of all frames are made anew"
    )


def run(
    job: PopulationJob,
    reporter: Reporter | None = None,
    *,
    force: bool = False,
    workers: Workers = nullcontext,
) -> PopulationResult:
    """Run the job, or as much of it as is not done yet, and then what follows its communities."""
    _draw(job, reporter)
    whole = runner.run(PIPELINE, job, reporter, force=force, workers=workers)
    store = RegionStore(job.output.store)
    then, followed = job.followed(export.time_form(store.dataset()["time"].values)), None
    if then is not None:
        followed = communities.run(then, reporter, force=force, workers=workers)
    grouped = None
    if job.grouped is not None:
        grouped = scenes.run(job.grouped, reporter, force=force, workers=workers)
    scores, zones = (_table(store, name) for name in ("scores", "zones"))
    return PopulationResult(whole, people(store), scores, zones, followed, grouped, store)


def run_only(
    job: PopulationJob,
    name: str,
    reporter: Reporter | None = None,
    *,
    force: bool = False,
    workers: Workers = nullcontext,
) -> Plan:
    """Compute one stage; see :func:`popdask.workflow.runner.run_only`."""
    return runner.run_only(PIPELINE, job, name, reporter=reporter, force=force, workers=workers)


def train(
    job: PopulationJob,
    reporter: Reporter | None = None,
    *,
    force: bool = False,
    workers: Workers = nullcontext,
) -> Plan:
    """Cut the labelled cells and train the models, without estimating anything yet."""
    _draw(job, reporter)
    names = [name for name in ("cells", "presence", "count") if name in plan(job).stages]
    return runner.run_only(PIPELINE, job, *names, reporter=reporter, force=force, workers=workers)


def people(store: RegionStore) -> pd.DataFrame:
    """Count the people of each frame of the last finished run."""
    arrays = store.dataset()
    name = "census_population" if "census_population" in arrays else "population"
    values = arrays[name].load()
    return pd.DataFrame(
        {
            "time": values["time"].values,
            "people": values.sum(("y", "x"), dtype="float64").values,
            "inhabited": (values > 0).sum(("y", "x")).values,
            "cells": values.count(("y", "x")).values,
        }
    )


def found(store: RegionStore) -> str:
    """Say in a few words what the last finished run has found."""
    last = people(store).iloc[-1]
    return f"{last['people']:,.0f} people in {last['inhabited']:,} cells of the last frame"


def check(store: RegionStore) -> Iterator[str]:
    """Compare what is stored with what is promised: zones keep their totals, nobody is negative."""
    arrays = store.dataset()
    for name in ("population", "census_population"):
        if name in arrays and bool((arrays[name] < 0).any()):
            yield f"{name} has cells with less than nobody."
    zones = _table(store, "zones")
    if zones is not None:
        kept = zones[zones["how"] != "left out"]
        wrong = ~np.isclose(kept["adjusted"], kept["total"], rtol=1e-9, atol=0)
        for row in kept[wrong].itertuples():
            yield f"zone {row.zone} has {row.adjusted:,.1f} people, {row.total:,.1f} are known."


def _draw(job: PopulationJob, reporter: Reporter | None) -> None:
    """Draw the country of the job, where it is not drawn yet."""
    if job.drawn is not None and not is_drawn(job.drawn):
        with RegionStore(job.output.store).lock():
            draw_country(job.drawn, reporter)


def _table(store: RegionStore, name: str) -> pd.DataFrame | None:
    try:
        return store.table(name)
    except KeyError:
        return None
