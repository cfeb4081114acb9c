"""The population job: aerial images in, people per cell out."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import dask.array as da
import numpy as np
import pandas as pd
import xarray as xr

from popdask._repr_html import ReprMixin
from popdask.config.jobs import PopulationJob, Training
from popdask.errors import InputError
from popdask.imagery import dasymetric
from popdask.imagery.cells import GapWarning
from popdask.imagery.loading import choose_cells
from popdask.imagery.trainer import learned_totals
from popdask.imagery.training import image_shape
from popdask.io.cube import CHUNK
from popdask.io.frames import time_form
from popdask.store.repository import RegionStore
from popdask.workflow import communities, scenes
from popdask.workflow.evaluation import check_scored, read_polygons
from popdask.workflow.exports import without_missing
from popdask.workflow.inputs import iso, open_image, pixels_along
from popdask.workflow.plan import Basis, Plan
from popdask.workflow.population_inputs import (
    PopulationRun,
    Sources,
    covers_other_cells,
    earlier_estimates,
    is_drawn,
    labelled_cells,
    sides_of,
    sources_of,
    training_configs,
)
from popdask.workflow.population_inputs import draw as draw_country
from popdask.workflow.population_outputs import content, figures
from popdask.workflow.population_stages import STAGES, is_gated, keep_totals, kind_of, read_size
from popdask.workflow.progress import Reporter
from popdask.workflow.runner import Files, Pipeline, Workers, read_inputs

#: Stages of which the results do not depend on which cells the arrays have.
ANYWHERE = tuple(stage.name for stage in STAGES if stage.anywhere)


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
        frames = self.people.itertuples()
        return {
            "computed": self.plan.work,
            "people": ", ".join(f"{row.people:,.0f} ({row.time:%Y-%m-%d})" for row in frames),
            "scores": "none" if self.scores is None else f"{len(self.scores)} rows",
            "zones": "none" if self.zones is None else f"{len(self.zones)} keep their totals",
            "results": str(self.store.path),
        }


class PopulationPipeline(Pipeline):
    """Cells of a grid: inhabited or not, how many people, kept to known totals."""

    stages = STAGES
    content = staticmethod(content)
    size = staticmethod(read_size)
    figures = staticmethod(figures)

    def files(self, job: PopulationJob, records: Mapping[str, Any]) -> Files:
        """Return the versions of the files, by path."""
        if job.drawn is not None and not is_drawn(job.drawn):
            raise InputError(
                f"[drawn] folder {job.drawn.folder} has no country yet: `popdask run JOB` draws it."
            )
        known: dict[str, Any] = {}
        for record in records.values():
            known |= record.get("files", {})
        return Sources.of(job).fingerprints(known)

    def basis(self, job: PopulationJob, files: Files, records: Mapping[str, Any]) -> Basis:
        """What the stages are made from."""
        sources = sources_of(files)
        times = tuple(iso(time) for time in sources.mosaics)
        records = without_missing(records, job, "export", "tables")
        return Basis(job, times, (sources, files), records)

    def decide(self, job: PopulationJob, files: Files, records: Mapping[str, Any]) -> Plan:
        """Decide what is to be computed."""
        plan = super().decide(job, files, records)
        gone = set(records.get("estimate", {}).get("frames", {})) - set(plan.times)
        return replace(plan, gone=(*plan.gone, *sorted(gone)))

    def plan(self, job: PopulationJob) -> Plan:
        """Say what a run would compute."""
        # Where there is something, the headers of the mosaics are read: other cells than those of
        # the last run are known from them.
        files, records = read_inputs(self, job)
        planned, sources = self.decide(job, files, records), sources_of(files)
        if planned.done:
            return planned
        frame = sources.frame(job)
        if covers_other_cells(job, frame):
            planned = self.decide(job, files, _kept_records(job, frame))
        check_zones(job, planned, frame)
        return replace(planned, warnings=(*planned.warnings, *check_cells(job, planned, sources)))

    def extent(self, job: PopulationJob) -> str:
        """Say how much a job is, from the headers of its mosaics: frames, cells and pixels."""
        sources = Sources.of(job)
        grid, frame = sources.grid(job), sources.frame(job)
        image = open_image(job, next(iter(sources.mosaics.values())), grid)
        pixels = pixels_along(image, grid)
        cells, bands = frame.sizes["y"] * frame.sizes["x"], image.sizes["band"]
        said = (
            f"{frame.sizes['time']} × {frame.sizes['y']} × {frame.sizes['x']} cells of "
            f"{grid.label}, {pixels} × {pixels} pixels and {bands} "
            f"band{'s' if bands != 1 else ''} each; "
            f"{cells * pixels**2 * bands * image.dtype.itemsize / 1e9:.2f} GB of pixels "
            "per frame"
        )
        if not covers_other_cells(job, frame):
            return said
        return (
            f"{said}\nthe last run had other cells: estimates of unchanged images are kept, and "
            "census totals, exports and communities of all frames are made anew"
        )

    def times(self, files: Files) -> Iterable[np.datetime64]:
        """Return those of the mosaics."""
        return sources_of(files).mosaics

    def begin(
        self, job: PopulationJob, store: RegionStore, files: Files, forget: Sequence[str]
    ) -> PopulationRun:
        """Open the mosaics, and take up the work where it stands, without the stages to forget."""
        sources = sources_of(files)
        grid, frame = sources.grid(job), sources.frame(job)
        kept = _kept_records(job, frame, forget)
        check_zones(job, self.decide(job, files, kept), frame)  # before anything is written
        work = store.begin(frame, keep=ANYWHERE)
        work.forget(forget)
        plan = self.decide(job, files, work.records())
        wanted = {} if "estimate" in forget else plan["estimate"].record["frames"]
        earlier = earlier_estimates(store, frame, wanted)
        return PopulationRun(job, files, store, work, plan, sources, grid, frame, earlier)

    def run(
        self,
        job: PopulationJob,
        reporter: Reporter | None = None,
        *,
        force: bool = False,
        check_content: bool = False,
        workers: Workers = nullcontext,
    ) -> PopulationResult:
        """Run the job, or as much of it as is not done yet, and then what follows it."""
        _draw(job, reporter)
        how: dict[str, Any] = {"force": force, "check_content": check_content}
        result = super().run(job, reporter, **how, workers=workers)
        assert isinstance(result, PopulationResult)
        then = job.followed(time_form(result.store.dataset()["time"].values))
        followed = grouped = None
        if then is not None:
            followed = communities.run(then, reporter, **how, workers=workers)
        if job.grouped is not None:
            grouped = scenes.run(job.grouped, reporter, **how, workers=workers)
        return replace(result, followed=followed, grouped=grouped)

    def result(self, plan: Plan, store: RegionStore) -> PopulationResult:
        """What a run gives, before what follows it."""
        scores, zones = map(store.find_table, ("scores", "zones"))
        return PopulationResult(plan, people(store), scores, zones, None, None, store)

    def found(self, store: RegionStore) -> str:
        """Say in a few words what the last finished run has found."""
        last = people(store).iloc[-1]
        return f"{last['people']:,.0f} people in {last['inhabited']:,} cells of the last frame"

    def check(self, store: RegionStore) -> Iterator[str]:
        """Compare with what is promised: zones keep their totals, nobody is negative."""
        arrays = store.dataset()
        for name in ("population", "census_population"):
            if name in arrays and bool((arrays[name] < 0).any()):
                yield f"{name} has cells with less than nobody."
        if "population_low" in arrays:
            population, low, high = (arrays[f"population{end}"] for end in ("", "_low", "_high"))
            beyond = (low > population * (1 + 1e-6)) | (population > high * (1 + 1e-6))
            if bool(beyond.any()):
                yield "population has cells outside of their intervals."
        zones = store.find_table("zones")
        if zones is not None:
            kept = zones[zones["how"] != "left out"]
            wrong = ~np.isclose(kept["adjusted"], kept["total"], rtol=1e-9, atol=0)
            for row in kept[wrong].itertuples():
                yield f"zone {row.zone} has {row.adjusted:,.1f} people, {row.total:,.1f} are known."


PIPELINE = PopulationPipeline()
plan, run, run_only = PIPELINE.plan, PIPELINE.run, PIPELINE.run_only


def train(
    job: PopulationJob,
    reporter: Reporter | None = None,
    *,
    force: bool = False,
    workers: Workers = nullcontext,
) -> Plan:
    """Cut the labelled cells and train the models, without estimating anything yet."""
    _draw(job, reporter)
    names = [name for name in ("cells", "totals", "presence", "count") if name in plan(job).stages]
    return run_only(job, names, reporter, force=force, workers=workers)


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


def _kept_records(
    job: PopulationJob, frame: xr.Dataset, forget: Sequence[str] = ()
) -> dict[str, Any]:
    """The records of stages that hold on the cells that the mosaics cover now."""
    records = RegionStore(job.output.store).latest_records()
    records = {name: record for name, record in records.items() if name not in forget}
    # Where nothing is kept, the store may be damaged.
    names = {*ANYWHERE, "estimate"} if records and covers_other_cells(job, frame) else set(records)
    return {name: record for name, record in records.items() if name in names}


def check_zones(job: PopulationJob, plan: Plan, frame: xr.Dataset) -> None:
    """Refuse polygons and zones that a run would refuse at its end, after training."""
    stale = {stage.name for stage in plan.todo}
    if "intervals" in stale and job.intervals and job.intervals.zones is not None:
        read_polygons(job.intervals)
    if "census" in stale and job.census is not None:  # as if there were an estimate of every cell
        ones = da.ones((frame.sizes["y"], frame.sizes["x"]), chunks=CHUNK)
        everywhere = xr.DataArray(ones, frame.drop_vars("time").coords, ("y", "x"))
        dasymetric.zone_report(keep_totals(job.census, everywhere))


def check_cells(job: PopulationJob, plan: Plan, sources: Sources) -> list[str]:
    """Refuse labelled cells that a run would refuse; say what their split costs."""
    if "cells" not in plan.stages or plan["cells"].done:
        return []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", GapWarning)
        try:
            check_sides(job, labelled_cells(job, sources, unseen=True)[0])
        except InputError:  # without the cells that lack pixels, other squares may be drawn
            caught.clear()
            check_sides(job, labelled_cells(job, sources)[0])
    return list(dict.fromkeys(str(warning.message) for warning in caught))


def check_sides(job: PopulationJob, cells: xr.Dataset) -> None:
    """Refuse cells of which a split has none to learn from, to choose by, or to score on."""
    splits = sides_of(job, cells)
    check_scored(job, splits)
    pixels, bands = image_shape(cells)["pixels"], len(job.input.bands)
    if job.cells.totals is not None:
        splits = [_as_if_everywhere(split) for split in splits]
    for split, (kind, settings) in product(splits, _trained(job)):
        config, *_ = training_configs(kind, settings, pixels, bands)
        choose_cells(split, kind, None, config)


def _as_if_everywhere(cells: xr.Dataset) -> xr.Dataset:
    """Let people live in every cell of a zone of some: where they do, only training says."""
    zones, people = learned_totals(cells), cells["people"].copy()
    people[zones.cells] = zones.totals[zones.zone]
    return cells.assign(people=people)


def _trained(job: PopulationJob) -> Iterator[tuple[str, Training]]:
    """The models whose cells are chosen by their people, as far as these are known before."""
    stages = {
        "presence": not job.single_stage and job.cells.totals is None,
        "count": not is_gated(job),
    }
    for stage, by_people in stages.items():
        settings: Training = getattr(job, stage)
        if by_people and settings.weights is None:
            yield kind_of(job, stage), settings


def _draw(job: PopulationJob, reporter: Reporter | None) -> None:
    """Draw the country of the job, where it is not drawn yet."""
    if job.drawn is not None and not is_drawn(job.drawn):
        with RegionStore(job.output.store).lock():
            draw_country(job.drawn, reporter)
