"""The stages of the population job: what each of them reads, computes and stores, and its cost.

A trained model is kept as long as the labelled cells and its settings are the same: a mosaic of
another date costs its own estimates and nothing else. Where it makes the arrays cover other cells,
census totals and exports of all dates are made anew, and no other estimates.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pandas as pd
import xarray as xr

from popdask.config.jobs import Census, PopulationJob, Training
from popdask.config.settings import Settings
from popdask.errors import InputError
from popdask.imagery import dasymetric
from popdask.imagery.cells import GapWarning, cells_grid, load_tables
from popdask.imagery.dasymetric import round_to_totals
from popdask.imagery.estimate import Joining, estimate
from popdask.imagery.grid import CellGrid
from popdask.imagery.model import TrainedModel, mean_of
from popdask.imagery.training import image_shape, train
from popdask.io.cube import CHUNK
from popdask.io.grids import grid_of
from popdask.store.content import table_bytes
from popdask.workflow import evaluation, population_inputs
from popdask.workflow.evaluation import (
    add_intervals,
    choose_rules,
    lay_intervals,
    read_polygons,
)
from popdask.workflow.inputs import checksums, iso, open_image
from popdask.workflow.plan import WHOLE, Basis, Fingerprint, Record, Stage, StagePlan, fingerprint
from popdask.workflow.population_costs import (
    cells_cost,
    estimate_cost,
    evaluation_cost,
    grid_cost,
    training_cost,
)
from popdask.workflow.population_inputs import (
    FOLD_FILE,
    LEAST_PIXELS,
    PopulationRun,
    training_configs,
    training_networks,
)
from popdask.workflow.population_outputs import export_rasters, export_tables
from popdask.workflow.progress import Reporter
from popdask.workflow.runner import on_gpus, on_machines, on_worker

#: Starts a training, on a machine, and gives what waits for its model.
Start = Callable[..., Callable[[], TrainedModel]]
#: Settings that change nothing in the result, and places of files, of which the contents count.
_WITHOUT_EFFECT = {"device", "weights", "mosaic", "counts", "folder", "zones", "table"}


def _cells(run: PopulationRun, stage: StagePlan, reporter: Reporter) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", GapWarning)
        cells, dropped, outside = population_inputs.labelled_cells(run.job, run.sources)
        population_inputs.sides_of(run.job, cells)
    inhabited = int((cells["people"] > 0).sum())
    reporter.note(
        f"  {cells.sizes['cell']:,} labelled cells, {inhabited:,} of them inhabited; "
        f"{dropped:,} left out for want of pixels, {outside:,} counts beyond the mosaic"
    )
    for sentence in dict.fromkeys(str(warning.message) for warning in caught):
        reporter.note(f"  {sentence}")
    record = {**stage.record, "dropped": dropped, "outside": outside}
    run.work.write_group(stage.name, "cells", _for_store(cells), record)


def _totals(run: PopulationRun, stage: StagePlan, reporter: Reporter) -> None:
    cells = load_tables(run.work.group("cells"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", GapWarning)  # noted when the cells were cut
        shared = population_inputs.shared_totals(run.job, cells)
    zone = cells["zone"].values
    counts = [len(np.unique(zone[column.notna()])) for _, column in shared.items()]
    reporter.note(
        f"  {len(np.unique(zone[zone >= 0])):,} whole zones, of which models learn from "
        f"{' or '.join(f'{number:,}' for number in sorted(set(counts)))}"
    )
    run.work.write_files(stage.name, {"shared.parquet": table_bytes(shared)}, stage.record)


def _presence(run: PopulationRun, stage: StagePlan, reporter: Reporter) -> None:
    _learn(run, stage, "presence", run.job.presence, [None] * max(run.job.cells.folds, 1), reporter)


def _count(run: PopulationRun, stage: StagePlan, reporter: Reporter) -> None:
    gated = run.job.count.learns_from == "predicted" and not run.job.single_stage
    blind: list[TrainedModel | None] = [None] * max(run.job.cells.folds, 1)
    gates = run.models("presence") if gated else blind
    _learn(run, stage, run.job.count.kind, run.job.count, gates, reporter)


def _learn(
    run: PopulationRun,
    stage: StagePlan,
    kind: str,
    settings: Training,
    gates: Sequence[TrainedModel | None],
    reporter: Reporter,
) -> None:
    """Train the models of a stage, one or one for each fold, or take the one that is given."""
    if settings.weights is not None:
        model = _given(settings.weights, kind)
        files = {f"{stage.name}.safetensors": model.to_bytes()}
        run.work.write_files(stage.name, files, stage.record)
        return
    trainings = _trainings(run, stage, kind, settings, gates, reporter)
    trained = iter(on_machines([start for each in trainings.values() for _, start in each]))
    files, checkpoints = {}, []
    for name, each in trainings.items():
        members = list(islice(trained, len(each)))
        files[name] = (members[0] if len(members) == 1 else mean_of(members)).to_bytes()
        checkpoints += [path for path, _ in each]
    run.work.write_files(stage.name, files, stage.record)
    for path in checkpoints:  # what they are for is stored now
        path.unlink(missing_ok=True)
    if not any(path.parent.iterdir()):
        path.parent.rmdir()


def _trainings(
    run: PopulationRun,
    stage: StagePlan,
    kind: str,
    settings: Training,
    gates: Sequence[TrainedModel | None],
    reporter: Reporter,
) -> dict[str, list[tuple[Path, Start]]]:
    """The trainings of each file's networks, to be started, with their checkpoints."""
    splits = run.splits()
    found: dict[str, list[tuple[Path, Start]]] = {}
    pixels = image_shape(splits[0])["pixels"]
    if training_networks(kind, settings, pixels) != settings.members:
        reporter.note(
            f"  images of {pixels} pixels are too small for the published network, which takes "
            f"{LEAST_PIXELS}: {kind} is learned by trees and a ridge on features"
        )
    configs = training_configs(kind, settings, pixels, len(run.job.input.bands))
    for fold, (cells, gate) in enumerate(zip(splits, gates, strict=True)):
        name = FOLD_FILE.format(stage=stage.name, fold=fold)
        name = name if run.job.cells.folds else f"{stage.name}.safetensors"
        found[name] = []
        for number, config in enumerate(configs):
            own = name if len(configs) == 1 else f"{number}-{name}"
            checkpoint = _checkpoint(run.job, own)
            start = partial(
                on_worker,
                train,
                cells,
                kind,
                config,
                gate=gate,
                checkpoint=checkpoint,
                identity=stage.record["model"],
                stale="discard",
                device=settings.device,
                on_progress=partial(_note_epoch, reporter, own),
            )
            found[name].append((checkpoint, start))
    return found


def _estimate(run: PopulationRun, stage: StagePlan, reporter: Reporter) -> None:
    rules = choose_rules(run, reporter)
    models = list(zip(run.models("presence"), run.models("count"), rules, strict=True))
    if not run.has_folds:
        models = models[:1]
    frames = []
    if run.earlier:
        kept = ", ".join(time[:10] for time in run.earlier)
        reporter.note(f"  kept from the last run, which had other cells: {kept}")
    with on_gpus():
        for time, paths in run.sources.mosaics.items():
            if iso(time) in run.earlier:
                frames.append(_on_frame(run.earlier[iso(time)], run.frame, run.grid))
                continue
            image = open_image(run.job, paths, run.grid)
            found = [_estimated(run, image, *each) for each in models]
            frames.append(_on_frame(_of_blind(run, found), run.frame, run.grid))
    arrays = xr.concat(frames, "time").assign_coords(run.frame.coords)
    record = {**stage.record, "rules": rules}
    run.work.write_frames(stage.name, arrays, stage.stale, record)


def _estimated(
    run: PopulationRun,
    image: xr.DataArray,
    presence: TrainedModel | None,
    count: TrainedModel | None,
    rule: Joining,
) -> xr.Dataset:
    settings = run.job.estimate
    return estimate(
        image,
        presence,
        count,
        cell_size=run.grid,
        rule=rule,
        threshold=settings.threshold,
        batch_size=settings.batch_size,
        device=settings.device,
    )


def _of_blind(run: PopulationRun, found: list[xr.Dataset]) -> xr.Dataset:
    """One estimate of each cell: that of the model that has not seen it, else the mean of all."""
    if len(found) == 1:
        return found[0]
    cells = run.work.group("cells")
    north, east, fold = (cells[name].values for name in ("north", "east", "fold"))
    grid = cells_grid(cells)
    norths, easts = grid.covering(tuple(grid_of(found[0]).boundingbox))
    blind = np.full((len(norths), len(easts)), -1, np.int8)
    inside = (north >= norths.start) & (north < norths.stop)
    inside &= (east >= easts.start) & (east < easts.stop) & (fold >= 0)
    blind[norths.stop - 1 - north[inside], east[inside] - easts.start] = fold[inside]
    which = xr.DataArray(blind, dims=("y", "x"))
    combined = sum(found[1:], found[0]) / len(found)
    for number, one in enumerate(found):
        combined = xr.where(which.data == number, one, combined, keep_attrs=True)
    return combined.astype("float32").assign_coords(found[0].coords)


def _on_frame(found: xr.Dataset, frame: xr.Dataset, grid: CellGrid) -> xr.Dataset:
    """Lay an estimate onto the cells of all mosaics."""
    near = grid.size / 10
    laid = found.reindex(y=frame["y"], x=frame["x"], method="nearest", tolerance=near)
    return laid.assign_coords(y=frame["y"], x=frame["x"])


def _census(run: PopulationRun, stage: StagePlan, reporter: Reporter) -> None:
    settings = run.job.census
    assert settings is not None
    stored, stale = run.work.dataset(), set(stage.stale)
    frames, reports = [], []
    for position, time in enumerate(stored["time"].values):
        now = stored.isel(time=position, drop=True)
        if position not in stale:  # stored already
            frames.append(now.get("census_population", now["population"].astype("float64")))
            continue
        kept = keep_totals(settings, now["population"], now.get("presence"))
        frames.append(round_to_totals(kept) if settings.whole else kept["population"])
        reports.append(dasymetric.zone_report(kept).assign(time=time))
    fitted = xr.concat(frames, "time").assign_coords(run.frame.coords)
    report = pd.concat([*_old_reports(run, stage), *reports], ignore_index=True)
    files = {"zones.parquet": table_bytes(report.sort_values("time", kind="stable"))}
    run.work.write_files("zones", files, {"frames": {}, "of": stage.name})
    arrays = fitted.to_dataset(name="census_population")
    run.work.write_frames(stage.name, arrays, stage.stale, stage.record)


def keep_totals(
    settings: Census, population: xr.DataArray, presence: xr.DataArray | None = None
) -> xr.Dataset:
    """Scale estimates to the totals of a job's zones."""
    rules = settings.model_dump(include={"name", "inhabited_from", "unzoned", "partial"})
    totals = settings.table or settings.totals
    return dasymetric.adjust_to_totals(
        population, settings.zones, totals, presence=presence, **rules
    )


def check_zones(job: PopulationJob, frame: xr.Dataset) -> None:
    """Refuse polygons and zones that a run would refuse at its end, after training."""
    if job.intervals is not None and job.intervals.zones is not None:
        read_polygons(job.intervals)
    if job.census is not None:  # as if there were an estimate of every cell
        ones = da.ones((frame.sizes["y"], frame.sizes["x"]), chunks=CHUNK)
        everywhere = xr.DataArray(ones, frame.drop_vars("time").coords, ("y", "x"))
        dasymetric.zone_report(keep_totals(job.census, everywhere))


def _old_reports(run: PopulationRun, stage: StagePlan) -> list[pd.DataFrame]:
    """The report on the frames that are not computed again."""
    fresh = {run.plan.times[i] for i in stage.stale}
    kept = [np.datetime64(time) for time in stage.record["frames"] if time not in fresh]
    if not kept:
        return []
    old = run.work.table("zones")
    return [old[old["time"].isin(kept)]]


def _evaluation(run: PopulationRun, stage: StagePlan, reporter: Reporter) -> None:
    judged, learned = add_intervals(run, evaluation.judge(run, reporter), reporter)
    settings = run.job.estimate
    tables = {**evaluation.score(judged, settings.threshold, run.job.cells.block), **learned}
    content = {f"{name}.parquet": table_bytes(table) for name, table in tables.items()}
    run.work.write_files(stage.name, content, stage.record)


def _given(path: str, kind: str) -> TrainedModel:
    model = TrainedModel.load(path)
    if model.kind != kind:
        raise InputError(
            f"{path} is a model of {model.kind}, and [presence] or [count] asks for {kind}: give "
            "the weights of such a model"
        )
    return model


def _checkpoint(job: PopulationJob, name: str) -> Path:
    """Where a training puts down its state: in the local folder of the job."""
    folder = job.export_folder / "training"
    folder.mkdir(parents=True, exist_ok=True)
    return folder / name


def _note_epoch(reporter: Reporter, name: str, progress: Mapping[str, Any]) -> None:
    reporter.note(
        f"  {name}: epoch {progress['epoch']} of at most {progress['epochs']}, loss "
        f"{progress['training']:.4g}, validation {progress['validation']:.4g}"
    )


def _for_store(cells: xr.Dataset) -> xr.Dataset:
    """Cells in the chunks and types that are stored."""
    each = int(np.prod(cells["images"].shape[1:])) * cells["images"].dtype.itemsize
    step = max(1, min(64, 2**27 // each))
    return cells.chunk({"cell": step, "band": -1, "row": -1, "col": -1})


def _reading(basis: Basis) -> dict[str, Any]:
    """What reading images depends on, beside the images."""
    job = basis.job
    sources, files = basis.inputs
    reading: dict[str, Any] = job.input.model_dump(mode="json", include={"align", "nodata"})
    if job.input.bands:
        rules = [band.model_dump(mode="json", exclude={"path"}) for band in job.input.bands]
        places = [sources.others[f"bands.{number}"] for number in range(len(rules))]
        reading["bands"] = [rules, checksums(files, places)]
    return reading


def _plain(table: Settings) -> dict[str, Any]:
    return table.model_dump(mode="json", exclude=_WITHOUT_EFFECT)


def _cells_print(basis: Basis) -> str:
    """The fingerprint of the labelled cells, also where none are learned from."""
    sources, files = basis.inputs
    labelled = checksums(files, (*sources.training, *sources.counts))
    cells = _plain(basis.job.cells)
    if isinstance(cells["totals"], str):
        cells["totals"] = checksums(files, [sources.others["cells.totals"]])
    return fingerprint(CELLS.name, CELLS.version, labelled, _reading(basis), cells)


def _presence_record(basis: Basis, of: Fingerprint) -> Record | None:
    if basis.job.single_stage:
        return None
    return _model_record(basis, "presence", basis.job.presence, None, of)


def _count_record(basis: Basis, of: Fingerprint) -> Record:
    job, gate = basis.job, None
    if job.count.learns_from == "predicted" and not job.single_stage:
        gate = basis.wanted["presence"]["model"]
    return _model_record(basis, "count", job.count, gate, of)


def _model_record(
    basis: Basis, stage: str, training: Training, gate: str | None, of: Fingerprint
) -> Record:
    sources, files = basis.inputs
    if training.weights is not None:
        model = of(checksums(files, [sources.others[f"{stage}.weights"]]))
    else:
        shared = [basis.wanted["totals"]["frames"]] if "totals" in basis.wanted else []
        model = of(_cells_print(basis), _plain(training), gate, *shared)
    return {"frames": {WHOLE: model}, "model": model}


def _rule(basis: Basis) -> list[Any]:
    """What estimates depend on beside the images."""
    job = basis.job
    grid = job.cells.model_dump(mode="json", include={"grid", "size", "crs", "resolution", "join"})
    trained = [stage for stage in ("presence", "count") if stage in basis.wanted]
    models = {stage: basis.wanted[stage]["model"] for stage in trained}
    return [job.estimate.rule, job.estimate.threshold, grid, models, _reading(basis)]


def _estimate_record(basis: Basis, of: Fingerprint) -> Record:
    sources, files = basis.inputs
    mosaics = {iso(time): checksums(files, paths) for time, paths in sources.mosaics.items()}
    return {"frames": {time: of(sums, _rule(basis)) for time, sums in mosaics.items()}}


def _census_record(basis: Basis, of: Fingerprint) -> Record | None:
    sources, files = basis.inputs
    if basis.job.census is None:
        return None
    names = [name for name in sources.others if name.startswith("census.")]
    places = [sources.others[name] for name in names]
    zones = [_plain(basis.job.census), names, checksums(files, places)]
    return {"frames": {t: of(zones, print_) for t, print_ in basis.frames("estimate").items()}}


def _evaluation_record(basis: Basis, of: Fingerprint) -> Record | None:
    job = basis.job
    sources, files = basis.inputs
    truth = {iso(time): checksums(files, paths) for time, paths in sources.truth.items()}
    if not (job.cells.labelled or truth):
        return None
    known = [job.truth and _plain(job.truth), truth, _cells_print(basis)]
    known += [job.cells.block, _rule(basis), *_sure(basis)]
    return {"frames": {WHOLE: of(known, basis.frames("estimate") if truth else None)}}


def _sure(basis: Basis) -> list[Any]:
    """The settings that intervals are learned by, where there are any."""
    settings = basis.job.intervals
    exclude = _WITHOUT_EFFECT | {"name"}  # which polygons have them is nothing of learning
    return [] if settings is None else [settings.model_dump(mode="json", exclude=exclude)]


def _intervals_record(basis: Basis, of: Fingerprint) -> Record | None:
    cells, settings, (sources, files) = basis.job.cells, basis.job.intervals, basis.inputs
    if settings is None:
        return None
    learned = [_sure(basis), _cells_print(basis), cells.block, cells.seed, _rule(basis)]
    if settings.zones is not None:
        learned += [settings.name, checksums(files, [sources.others["intervals.zones"]])]
    learned += [basis.wanted[stage]["frames"] for stage in ("evaluation",) if stage in basis.wanted]
    return {"frames": {t: of(learned, print_) for t, print_ in basis.frames("estimate").items()}}


def _final(basis: Basis) -> Mapping[str, str]:
    """The fingerprints of the people that are exported."""
    return basis.frames("census" if "census" in basis.wanted else "estimate")


def _export_record(basis: Basis, of: Fingerprint) -> Record | None:
    if "cog" not in basis.job.output.export:
        return None
    sure = basis.frames("intervals") if "intervals" in basis.wanted else {}
    frames = {t: of(basis.job.name, sure.get(t), print_) for t, print_ in _final(basis).items()}
    return {"frames": frames}


def _tables_record(basis: Basis, of: Fingerprint) -> Record | None:
    formats = set(basis.job.output.export) - {"cog"}
    if not formats:
        return None
    scored = basis.wanted.get("evaluation")
    more: list[Any] = [basis.frames("intervals")] if "intervals" in basis.wanted else []
    more += [basis.job.naming] if "zarr" in formats else []  # which says it of itself
    return {"frames": {WHOLE: of(basis.job.name, sorted(formats), _final(basis), scored, *more)}}


CELLS = Stage(
    "cells",
    version=3,
    needs=(),
    wanted=lambda basis, of: (
        {"frames": {WHOLE: _cells_print(basis)}} if basis.job.cells.labelled else None
    ),
    cost=cells_cost,
    compute=_cells,
    anywhere=True,
    reads_files=True,
)
TOTALS = Stage(
    "totals",
    needs=("cells",),
    wanted=lambda basis, of: (
        None if basis.job.cells.totals is None else {"frames": {WHOLE: of(_cells_print(basis))}}
    ),
    cost=cells_cost,
    compute=_totals,
    anywhere=True,
    reads_files=True,
)
PRESENCE = Stage(
    "presence",
    version=5,
    needs=("cells", "totals"),
    wanted=_presence_record,
    cost=training_cost,
    compute=_presence,
    anywhere=True,
    reads_files=True,
    writes_files=True,
)
COUNT = Stage(
    "count",
    version=7,
    needs=("cells", "totals", "presence"),
    wanted=_count_record,
    cost=training_cost,
    compute=_count,
    anywhere=True,
    reads_files=True,
    writes_files=True,
)
ESTIMATE = Stage(
    "estimate",
    version=4,
    needs=("cells", "presence", "count"),
    wanted=_estimate_record,
    cost=estimate_cost,
    compute=_estimate,
    reads_files=True,
)
CENSUS = Stage(
    "census",
    needs=("estimate",),
    wanted=_census_record,
    cost=grid_cost,
    compute=_census,
    table=True,
    reads_files=True,
)
EVALUATION = Stage(
    "evaluation",
    version=5,
    needs=("cells", "presence", "count", "estimate"),
    wanted=_evaluation_record,
    cost=evaluation_cost,
    compute=_evaluation,
    table=True,
    anywhere=True,
    reads_files=True,
)
INTERVALS = Stage(
    "intervals",
    version=2,
    needs=("estimate", "evaluation"),
    wanted=_intervals_record,
    cost=grid_cost,
    compute=lay_intervals,
    table=True,
    reads_files=True,
)
EXPORT = Stage(
    "export",
    version=2,
    needs=("estimate", "intervals", "census"),
    wanted=_export_record,
    cost=grid_cost,
    compute=export_rasters,
    table=True,
    reads_files=True,
    writes_files=True,
)
TABLES = Stage(
    "tables",
    version=2,
    needs=("estimate", "evaluation", "intervals", "census", "export"),
    wanted=_tables_record,
    cost=grid_cost,
    compute=export_tables,
    reads_files=True,
    writes_files=True,
)
STAGES = (
    CELLS, TOTALS, PRESENCE, COUNT, ESTIMATE, EVALUATION, INTERVALS, CENSUS, EXPORT, TABLES
)  # fmt: skip
"""The stages of the population job, in their order."""
