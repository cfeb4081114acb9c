"""A population job's models judged, compared and tuned: rule, scores, rivals, how sure they are.

Which rule joins presence and counts: the job's, or what measures better on inner folds. How good
the estimates of a run are: on validation cells, and on each mosaic of known people, beside those of
what they have to beat.

Intervals are learned from the errors on validation cells, each estimated by models that have not
seen it. What they are worth is measured in the same way: those of a fold (without folds, of a part
of the validation squares) are learned from the errors of the others.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import dask
import dask.array as da
import numpy as np
import pandas as pd
import xarray as xr
from dask import delayed
from numpy.typing import NDArray

from popdask.config.jobs import Intervals, PopulationJob
from popdask.errors import InputError
from popdask.imagery import tuning
from popdask.imagery.cells import SELECTION, VALIDATION, cell_codes, load_tables
from popdask.imagery.dasymetric import read_zones, sums_by_zone
from popdask.imagery.estimate import Joining, better_rule, joint_people
from popdask.imagery.evaluation import (
    REACH,
    Baseline,
    ConformalIntervals,
    deal_squares,
    evaluate,
    fit_baselines,
    held_out_intervals,
    interval_rasters,
    interval_scores,
    intervals_by_size,
    learned_by_size,
    least_cases,
    on_common_cells,
    read_predictions,
    regressor_scores,
    scores_by_density,
    sums_by_square,
    sums_of_zones,
    worst_cells,
    write_scores,
)
from popdask.imagery.features import FEATURES_NETWORK
from popdask.imagery.grid import CellGrid
from popdask.imagery.model import LeakageWarning, TrainedModel, check_leakage
from popdask.imagery.training import image_shape
from popdask.imagery.tuning import Tuning
from popdask.io.grids import middle_cell_m
from popdask.io.tables import read_features
from popdask.plot import charts, imagery, style
from popdask.store.content import WORK, table_bytes
from popdask.store.repository import RegionStore
from popdask.workflow import population_inputs, population_outputs
from popdask.workflow.inputs import iso, open_image
from popdask.workflow.plan import StagePlan
from popdask.workflow.population_inputs import PopulationRun, training_configs
from popdask.workflow.progress import Reporter

if TYPE_CHECKING:
    import geopandas as gpd

#: Share of the truly inhabited cells that a gate must let pass.
FEW = 0.2
#: Cells along a side of the squares that intervals of other zones are learned from.
SIDES = (3, 5, 10, 20, 40)
_WORDS = {"gate": "the gate", "expected": "presence times count"}
#: Predictions, by set of cells and by model: cell, prediction, truth and presence, where known.
Judged = Mapping[str, Mapping[str, pd.DataFrame]]

#: Tables of predictions, by the name of the model.
Estimates = Mapping[str, pd.DataFrame]
#: Probability of presence above which cells are called inhabited, where no job says another.
THRESHOLD = 0.5
#: Cells per side of the squares that intervals are drawn from, where no job says another.
BLOCK = 10


class Estimator(Protocol):
    """Estimates people from pictures."""

    def predict(self, images: np.ndarray) -> tuple[np.ndarray, ...]:
        """Return presence, people and perhaps the count alone, (cell,), of images."""


@dataclass(frozen=True)
class HurdleModel:
    """Presence and counts, joined by a rule."""

    presence: TrainedModel | None
    count: TrainedModel
    threshold: float
    device: str
    rule: Joining = "gate"

    def predict(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Give (presence, people, count alone) of images; without a model presence is NaN."""
        count = self.count.predict(images, device=self.device)
        if self.presence is None:
            return np.full(len(images), np.nan, np.float32), count, count
        presence = self.presence.predict(images, device=self.device)
        people = joint_people(presence, count, rule=self.rule, threshold=self.threshold)
        return presence, people, count


def predictions(cells: xr.Dataset, estimators: Mapping[str, Estimator]) -> dict[str, pd.DataFrame]:
    """Let some estimators see cells, chunk by chunk."""
    images = cells.chunk({"band": -1, "row": -1, "col": -1})["images"].data
    blocks = images.to_delayed().reshape(-1)
    tasks = {
        name: [delayed(_predict)(model, block) for block in blocks]
        for name, model in ((name, delayed(one)) for name, one in estimators.items())
    }
    (found,) = dask.compute(tasks)
    cells_table = pd.DataFrame({"cell": cell_codes(cells), "truth": cells["people"].values})
    return {name: _table(cells_table, parts) for name, parts in found.items()}


def _predict(estimator: Estimator, images: np.ndarray) -> tuple[np.ndarray, ...]:
    return estimator.predict(images)


def _table(cells_table: pd.DataFrame, parts: list[Any]) -> pd.DataFrame:
    presence, people, *count = (np.concatenate(column) for column in zip(*parts, strict=True))
    table = cells_table.assign(prediction=people.astype(np.float64))
    if count:
        table = table.assign(count=count[0].astype(np.float64))
    return table if np.isnan(presence).any() else table.assign(presence=presence.astype(np.float64))


def choose_rules(run: PopulationRun, reporter: Reporter) -> list[Joining]:
    """Choose the rule of each split by its cells set aside, which its models did not see."""
    # Where there are none, or a model was given, "auto" is the first work's gate.
    settings, splits = run.job.estimate, max(run.job.cells.folds, 1)
    if settings.rule != "auto":
        return [settings.rule] * splits
    if _has_features(run):  # they learn from the cells set aside, too
        reporter.note(f"  models of plain features: {_WORDS['expected']}")
        return ["expected"] * splits
    if not _measurable(run):
        return ["gate"] * splits
    rules = []
    pairs = zip(run.models("presence"), run.models("count"), strict=True)
    for number, (pair, cells) in enumerate(zip(pairs, run.splits(), strict=True)):
        presence, count = pair
        assert count is not None
        inner = cells.isel(cell=np.flatnonzero(cells["split"].values == SELECTION))
        joint = HurdleModel(presence, count, settings.threshold, settings.device)
        table = predictions(inner, {"popdask": joint})["popdask"]
        columns = (table[name].to_numpy() for name in ("presence", "count", "truth"))
        chance, people, truth = columns
        rules.append(better_rule(chance, people, truth, threshold=settings.threshold))
        where = f"fold {number}: " if run.job.cells.folds else ""
        reporter.note(f"  {where}{_WORDS[rules[-1]]} measures better on {len(truth):,} inner cells")
        passed, there = int(((chance > settings.threshold) & (truth > 0)).sum()), (truth > 0).sum()
        if rules[-1] == "gate" and passed < FEW * there:
            reporter.note(
                f"  {where}the gate lets {passed:,} of {there:,} truly inhabited cells pass: "
                'consider [estimate] rule = "expected"'
            )
    return rules


def _has_features(run: PopulationRun) -> bool:
    """Whether a model of plain features was trained here."""
    if run.job.single_stage:
        return False
    trained = [name for name in ("presence", "count") if getattr(run.job, name).weights is None]
    configs = [model.config for name in trained if (model := run.models(name)[0]) is not None]
    members = [one["config"] for config in configs for one in config.get("members", ())]
    return any(config["network"] == FEATURES_NETWORK for config in (*configs, *members))


def _measurable(run: PopulationRun) -> bool:
    """Whether both models were trained here, with cells set aside."""
    job = run.job
    trained = job.presence.weights is None and job.count.weights is None
    return trained and not job.single_stage and job.cells.selection > 0


@dataclass(frozen=True)
class _Judges:
    """The models of one split, and what they have to beat."""

    presence: TrainedModel | None
    count: TrainedModel | None
    cells: xr.Dataset | None = None  # the labelled cells with their split, where there are any
    baselines: Mapping[str, Baseline] | None = None  # fitted on the same training cells
    rule: Joining = "gate"  # how presence and counts are joined


def judge(run: PopulationRun, reporter: Reporter) -> Judged:
    """Let models and baselines estimate all cells of known people that a run has."""
    judges = _judges(run)
    judged: dict[str, dict[str, pd.DataFrame]] = {}
    if judges[0].cells is not None:
        judged["validation"] = _of_validation(run, judges, reporter)
    for time, paths in run.sources.truth.items():
        if time in run.sources.mosaics:
            judged[iso(time)[:10]] = _of_mosaic(run, judges[0], time, paths, reporter)
    return judged


def score(judged: Judged, threshold: float, block: int) -> dict[str, pd.DataFrame]:
    """Put predictions and their scores into tables."""
    scores = {
        where: evaluate(tables, threshold=threshold, block=block)
        for where, tables in judged.items()
    }
    alone = {where: regressor_scores(each, threshold=threshold) for where, each in judged.items()}
    by_density = {where: scores_by_density(tables) for where, tables in judged.items()}
    rows = [
        table.assign(where=where, model=name)
        for where, tables in judged.items()
        for name, table in tables.items()
    ]
    return {
        "scores": _stacked(scores),
        "scores_by_density": _stacked(by_density),
        "regressor": _stacked(alone),
        "worst": _stacked({where: worst_cells(tables) for where, tables in judged.items()}),
        "predictions": pd.concat(rows, ignore_index=True),
    }


def _judges(run: PopulationRun) -> list[_Judges]:
    """The models of each split, read once for all sets of cells."""
    models = list(zip(run.models("presence"), run.models("count"), strict=True))
    if "cells" not in run.plan.stages:
        return [_Judges(*pair) for pair in models]
    rules = run.work.records()["estimate"]["rules"]
    return [
        _Judges(*pair, cells, fit_baselines(cells), rule)
        for pair, cells, rule in zip(models, run.splits(), rules, strict=True)
    ]


def _of_validation(
    run: PopulationRun, judges: list[_Judges], reporter: Reporter
) -> dict[str, pd.DataFrame]:
    """Predictions of validation cells, each by models and baselines that have not seen it."""
    parts: dict[str, list[pd.DataFrame]] = {}
    settings = run.job.estimate
    for number, one in enumerate(judges):
        assert one.cells is not None and one.count is not None
        held_out = one.cells.isel(cell=np.flatnonzero(one.cells["split"].values == 1))
        _warn_of_leakage(reporter, held_out, "validation", one)
        joint = HurdleModel(one.presence, one.count, settings.threshold, settings.device, one.rule)
        estimators: dict[str, Estimator] = {"popdask": joint, **(one.baselines or {})}
        group = _groups(run.job, held_out, number)
        for name, table in predictions(held_out, estimators).items():
            known = table.assign(group=group)
            if run.job.cells.counts is None and "zone" in held_out:
                known = sums_of_zones(table, held_out["zone"].values)
            parts.setdefault(name, []).append(known)
    return {name: pd.concat(tables, ignore_index=True) for name, tables in parts.items()}


def _groups(job: PopulationJob, cells: xr.Dataset, fold: int) -> Any:
    """The fold of cells; without folds, groups of their squares."""
    if job.cells.folds:
        return fold
    places = (cells["north"].values, cells["east"].values)
    return deal_squares(*places, job.cells.block, job.cells.seed)


def check_scored(job: PopulationJob, splits: Sequence[xr.Dataset]) -> None:
    """Refuse intervals for which too few cells are scored, before models are trained."""
    if job.intervals is None or (job.cells.counts is None and job.cells.totals is not None):
        return  # errors of zones are counted once they are known
    sizes = [0]
    for number, cells in enumerate(splits):
        held_out = cells.isel(cell=np.flatnonzero(cells["split"].values == VALIDATION))
        known = np.isfinite(held_out["people"].values)
        if known.any():
            group = np.broadcast_to(_groups(job, held_out, number), known.size)
            sizes += np.bincount(group[known]).tolist()
    beside, least = sum(sizes) - max(sizes), least_cases(job.intervals.level)
    if beside < least:
        raise InputError(
            f"[intervals] level is {job.intervals.level:g}, for which errors of {least} scored "
            f"cells are learned from beside each fold or group of squares, and {beside} are there: "
            "give counts of more cells, smaller squares ([cells] block), or a lower level"
        )


def _of_mosaic(
    run: PopulationRun,
    judges: _Judges,
    time: np.datetime64,
    paths: tuple[str, ...],
    reporter: Reporter,
) -> dict[str, pd.DataFrame]:
    """Predictions of a mosaic's cells of known people: the stored estimates, and the baselines."""
    image = open_image(run.job, run.sources.mosaics[time], run.grid)
    cells = population_inputs.true_cells(run.job, image, paths, run.grid)
    if not run.has_folds:
        _warn_of_leakage(reporter, cells, iso(time)[:10], judges)
    others = {}
    if judges.baselines is not None and not run.job.cells.folds:
        others = predictions(cells, judges.baselines)
    return {"popdask": _stored(run, time, cells), **others}


def _stored(run: PopulationRun, time: np.datetime64, cells: xr.Dataset) -> pd.DataFrame:
    """The stored estimates of some cells, beside the truth."""
    places = list(zip(cells["north"].values.tolist(), cells["east"].values.tolist(), strict=True))
    corners = np.array([run.grid.corner(*place) for place in places])
    x, y = (xr.DataArray(corners[:, axis] + run.grid.size / 2, dims="cell") for axis in (0, 1))
    near = run.work.dataset().sel(time=time)
    at = near.sel(x=x, y=y, method="nearest", tolerance=run.grid.size / 10).compute()
    table = pd.DataFrame(
        {
            "cell": [run.grid.code(*place) for place in places],
            "truth": cells["people"].values,
            "prediction": at["population"].values.astype(np.float64),
        }
    )
    if "presence" in at:
        table["presence"] = at["presence"].values.astype(np.float64)
    return table.dropna(ignore_index=True)


def _warn_of_leakage(reporter: Reporter, cells: xr.Dataset, where: str, judges: _Judges) -> None:
    """Note which models are scored on cells that they were trained on."""
    for model in (judges.presence, judges.count):
        if model is None:
            continue
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", LeakageWarning)
            size = float(cells.attrs["cell_size"])
            check_leakage(model, cells["north"].values, cells["east"].values, cell_size=size)
        for warning in caught:
            reporter.note(f"  {where}, {model.kind}: {warning.message}")


def _stacked(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    parts = [
        table.reset_index(drop=table.index.name is None).assign(where=where)
        for where, table in tables.items()
    ]
    table = pd.concat(parts, ignore_index=True)
    return table[["where", *(name for name in table if name != "where")]]


def add_intervals(
    run: PopulationRun, scored: Judged, reporter: Reporter
) -> tuple[Judged, dict[str, pd.DataFrame]]:
    """Give the estimates of judged cells intervals, and tables of what was learned and measured."""
    settings = run.job.intervals
    if settings is None:
        return scored, {}
    own = scored["validation"]["popdask"]
    learned, held = _learned(own, settings)
    tables = {"cells": (learned.table().assign(size=1), _coverage(held))}
    placed = _placed(own, run.grid)
    for side in sorted({settings.square, *SIDES}):
        squares = sums_by_square(placed, side)
        if _enough(squares, settings):
            of_squares, held_squares = _learned(squares, settings)
            of = "squares" if side == settings.square else f"squares of {side} cells"
            tables[of] = (of_squares.table().assign(size=side**2), _coverage(held_squares))
        elif side == settings.square:
            reporter.note(_too_few(squares, settings))
    for of in ("cells", "squares"):
        if of not in tables:
            continue
        coverage = tables[of][1]
        least, most = coverage["coverage"][1:].min(), coverage["coverage"][1:].max()
        reporter.note(
            f"  intervals of {of}: {settings.level:.0%} wanted, {coverage['coverage'][0]:.1%} of "
            f"{coverage['cases'][0]:,} held ({least:.1%} to {most:.1%} in each part)"
        )
    judged = {
        where: {**models, "popdask": _with_ends(models["popdask"], learned)}
        for where, models in scored.items()
    }
    judged["validation"]["popdask"] = held
    parts: list[list[pd.DataFrame]] = [
        [pair[number].assign(of=of) for of, pair in tables.items()] for number in (0, 1)
    ]
    intervals, coverage = (pd.concat(part, ignore_index=True) for part in parts)
    metres = middle_cell_m(run.work.dataset()["population"])
    return judged, {"intervals": intervals.assign(cell_size=metres), "coverage": coverage}


def lay_intervals(run: PopulationRun, stage: StagePlan, reporter: Reporter) -> None:
    """Store the ends of every cell's interval, and squares of cells with theirs."""
    settings = run.job.intervals
    assert settings is not None
    learned = dict(list(run.work.table("intervals").groupby("of")))
    population = run.work.dataset()["population"]
    files = {}  # and none of an earlier run
    if "squares" in learned:
        of_squares = ConformalIntervals.of_table(learned["squares"])
        frames = [
            _squares(now, run.grid, settings.square, of_squares).assign(time=now["time"].values)
            for now in population
        ]
        files["squares.parquet"] = table_bytes(pd.concat(frames, ignore_index=True))
    if settings.zones is not None:
        by_size = learned_by_size(run.work.table("intervals"))
        polygons = pd.concat([_polygons(now, settings, by_size) for now in population])
        files["polygons.parquet"] = table_bytes(polygons.reset_index(drop=True))
        large = polygons.loc[polygons["cells"] > REACH * max(by_size), "zone"].nunique()
        if large:
            reporter.note(_too_large(large, max(by_size)))
    run.work.write_files("squares", files, {"frames": {}, "of": stage.name})
    arrays = interval_rasters(population, ConformalIntervals.of_table(learned["cells"]))
    run.work.write_frames(stage.name, arrays, stage.stale, stage.record)


def read_polygons(settings: Intervals) -> gpd.GeoDataFrame:
    """Read the polygons whose sums have intervals."""
    assert settings.zones is not None
    polygons = read_features(settings.zones, "polygons, one for each zone")
    if settings.name is not None and settings.name not in polygons:
        raise InputError(
            f"[intervals] name is {settings.name!r}, and {settings.zones} has the columns "
            f"{', '.join(map(str, polygons))}: expected one of them; name that of the zones' names."
        )
    return polygons


def _polygons(
    population: xr.DataArray, settings: Intervals, learned: Mapping[int, ConformalIntervals]
) -> pd.DataFrame:
    """The polygons of a job on one frame (y, x): cells with data, people and their interval."""
    polygons = read_polygons(settings).assign(_total=0.0)
    zones = read_zones(polygons, "_total", population, name=settings.name)
    values = da.asarray(population.data)
    number = zones.number.data.rechunk(values.chunks)
    sums = sums_by_zone(number, values, len(zones.names))
    people, cells = da.compute(sums.values, sums.cells)
    low, high = intervals_by_size(people, cells, learned)
    columns = {"zone": zones.names, "cells": cells, "people": people, "low": low, "high": high}
    return pd.DataFrame(columns).assign(time=population["time"].values)


def _learned(table: pd.DataFrame, settings: Intervals) -> tuple[ConformalIntervals, pd.DataFrame]:
    """Intervals learned from all rows, and the rows with those learned from other groups."""
    rules: dict[str, Any] = settings.model_dump(include={"level", "bins"})
    said, true, group = (table[name].to_numpy() for name in ("prediction", "truth", "group"))
    cells: Any = table["cells"].to_numpy() if "cells" in table else 1
    low, high = held_out_intervals(said, true, group, cells, **rules)
    return ConformalIntervals.fit(said, true, cells, **rules), table.assign(low=low, high=high)


def _coverage(held: pd.DataFrame) -> pd.DataFrame:
    """How many truths the intervals hold: of all, and of each group."""
    groups = [("all", held), *held.groupby("group")]
    return pd.DataFrame(
        [{"group": str(name), "cases": len(rows), **interval_scores(rows)} for name, rows in groups]
    )


def _with_ends(table: pd.DataFrame, learned: ConformalIntervals) -> pd.DataFrame:
    low, high = learned.predict(table["prediction"].to_numpy())
    return table.assign(low=low, high=high)


def _placed(table: pd.DataFrame, grid: CellGrid) -> pd.DataFrame:
    """Predictions with north and east of their cells."""
    places = np.array([grid.parse(code) for code in table["cell"]], np.int64).reshape(-1, 2)
    return table.assign(north=places[:, 0], east=places[:, 1])


def _enough(squares: pd.DataFrame, settings: Intervals) -> bool:
    """Whether there are squares enough beside those of each group."""
    most = squares["group"].value_counts().max() if len(squares) else 0
    return len(squares) - most >= least_cases(settings.level)


def _too_few(squares: pd.DataFrame, settings: Intervals) -> str:
    return (
        f"  no intervals of squares of {settings.square} × {settings.square} cells: "
        f"{len(squares)} squares have known people, and intervals of {settings.level:.0%} need "
        f"{least_cases(settings.level)} beside those of each fold: make [intervals] square smaller"
    )


def _too_large(polygons: int, size: int) -> str:
    return (
        f"  no intervals of polygons ({polygons:,}) with more than {REACH} times the cells of "
        f"the largest squares with enough known people, {size:,}: give more known places"
    )


def _squares(
    population: xr.DataArray, grid: CellGrid, square: int, learned: ConformalIntervals
) -> pd.DataFrame:
    """The squares of one frame (y, x): corner, cells with data, people and their interval."""
    values = population.values.astype(np.float64)
    norths = np.floor((population["y"].values - grid.origin[1]) / grid.size).astype(np.int64)
    easts = np.floor((population["x"].values - grid.origin[0]) / grid.size).astype(np.int64)
    rows, columns = norths // square, easts // square
    people, cells = (
        _sums(part, rows, columns) for part in (np.nan_to_num(values), ~np.isnan(values))
    )
    row, column = np.nonzero(cells)
    people, cells = people[row, column], cells[row, column].astype(np.int64)
    low, high = learned.predict(people, cells)
    side = grid.size * square
    return pd.DataFrame(
        {
            "x": grid.origin[0] + side * np.unique(columns)[column],
            "y": grid.origin[1] + side * np.unique(rows)[row],
            "side": side,
            "cells": cells,
            "people": people,
            "low": low,
            "high": high,
        }
    )


def _sums(
    values: NDArray, rows: NDArray[np.int64], columns: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Sums over squares, ascending along both axes, of a frame that is held as a whole."""
    down, right = (np.unique(axis, return_inverse=True)[1] for axis in (rows, columns))
    sums = np.zeros((down.max() + 1, right.max() + 1))
    np.add.at(sums, (down[:, None], right[None, :]), values.astype(np.float64))
    return sums


def tune(
    job: PopulationJob,
    model: str,
    trials: int | None = None,
    *,
    epochs: int = 10,
    progress: Callable[[pd.Series], object] | None = None,
) -> Tuning:
    """Search for the settings of a job's model with the lowest validation loss."""
    # Trials run on the workers of the current Dask client.
    if model not in ("presence", "count"):
        raise InputError(f"there is no model {model!r}: expected presence or count.")
    if job.cells.folds:
        raise InputError(
            f"[cells] folds is {job.cells.folds}: expected a single split to tune on; set it to 0."
        )
    region = RegionStore(job.output.store)
    try:
        cells = region.group("cells", WORK)
    except KeyError:
        raise InputError(
            f"{region.path} has no labelled cells yet: `popdask train JOB` cuts them."
        ) from None
    if job.cells.totals is not None:
        raise InputError(
            f"[cells] totals is {job.cells.totals}, and a search compares settings on cells of "
            "known people; expected counts; leave totals out for the search"
        )
    settings = getattr(job, model)
    kind = settings.kind if model == "count" else "presence"
    pixels = image_shape(cells)["pixels"]
    config, *further = training_configs(kind, settings, pixels, len(job.input.bands))
    if further:
        raise InputError(
            f"[{model}] network has {1 + len(further)} networks: expected one to tune, such as "
            '{ network = "features" }; leave the others out for the search.'
        )
    (split,) = population_inputs.sides_of(job, load_tables(cells))
    job.export_folder.mkdir(parents=True, exist_ok=True)
    return tuning.tune(
        split,
        kind,
        trials,
        config=config,
        epochs=epochs,
        storage=job.export_folder / f"{job.name}_{model}-study.sqlite",
        seed=settings.seed,
        gate=_gate(job, model, region),
        device=settings.device,
        progress=progress,
    )


def _gate(job: PopulationJob, model: str, region: RegionStore) -> TrainedModel | None:
    """The model that says which cells the counter learns from, where the job asks for that."""
    if model == "presence" or job.count.learns_from != "predicted" or job.single_stage:
        return None
    name = "presence.safetensors"
    files = region.files(WORK)
    if name not in files:
        raise InputError(
            f"{region.path} has no model of presence yet, from whose cells [count] learns: "
            "`popdask train JOB` trains it."
        )
    return TrainedModel.from_bytes(files[name], name)


def compare(
    jobs: Sequence[PopulationJob], tables: Sequence[Path], folder: Path | None = None
) -> tuple[pd.DataFrame, list[Path]]:
    """Score estimates against known people, on the cells that all of them have."""
    # Cells are called inhabited by the threshold of the job's run, in tables compared with it
    # too.
    sets, rules = _of_jobs(jobs)
    models = {model for estimates in sets.values() for model in estimates}
    others = {name: read_predictions(path) for path, name in _names(tables, models).items()}
    sets = _joined(sets, others) if sets else ({"tables": others} if others else {})
    if not sets:
        raise InputError("there is nothing to evaluate: give a job file or a table of predictions.")
    if folder is None and jobs:
        folder = jobs[0].export_folder / "evaluation"
    scores, written = [], []
    for where, estimates in sets.items():
        threshold, block = rules.get(where, (THRESHOLD, BLOCK))
        found = evaluate(estimates, threshold=threshold, block=block)
        scores.append(found.reset_index().assign(where=where))
        if folder is not None:
            written += _write(folder, where, estimates, found)
    if folder is not None:
        for job in jobs:
            written += _write_of_run(folder, job, f"{job.name}_" if len(jobs) > 1 else "")
    return pd.concat(scores, ignore_index=True), written


def _of_jobs(
    jobs: Sequence[PopulationJob],
) -> tuple[dict[str, dict[str, pd.DataFrame]], dict[str, tuple[float, int]]]:
    """The predictions of all jobs, by set of cells and model; threshold and block of each set."""
    # Among several jobs, a set has the name of its job.
    sets: dict[str, dict[str, pd.DataFrame]] = {}
    rules: dict[str, tuple[float, int]] = {}
    for job in jobs:
        for where, estimates in _of_job(job).items():
            name = f"{job.name}_{where}" if len(jobs) > 1 else where
            if name in sets:
                raise InputError(
                    f"two of the jobs are called {job.name!r}: give one of them another name, so "
                    "that their scores can be told apart."
                )
            sets[name] = estimates
            settings = RegionStore(job.output.store).run_record()["settings"]
            rules[name] = settings["estimate"]["threshold"], settings["cells"]["block"]
    return sets, rules


def _of_job(job: PopulationJob) -> dict[str, dict[str, pd.DataFrame]]:
    """The predictions of a job's last run, by set of cells and model."""
    region = RegionStore(job.output.store)
    table = region.find_table("predictions")
    if table is None:
        raise InputError(
            f"{region.path} has no predictions of known people: give [cells] counts or [truth], "
            "and run the job."
        )
    found: dict[str, dict[str, pd.DataFrame]] = {}
    for (where, model), rows in table.groupby(["where", "model"], sort=False):
        rows = rows.drop(columns=["where", "model"]).dropna(axis="columns", how="all")
        found.setdefault(str(where), {})[str(model)] = rows
    return found


def _names(paths: Sequence[Path], taken: Collection[str]) -> dict[Path, str]:
    """The shortest end of each path that tells it from the other tables and the jobs' models."""
    paths = [
        path
        for i, path in enumerate(paths)
        if path.resolve() not in {p.resolve() for p in paths[:i]}
    ]
    ends = {path: _ends(path.resolve()) for path in paths}
    used = {_file_name(name) for name in taken}
    names = {}
    for number, (path, mine) in enumerate(ends.items(), 1):
        others = {_file_name(end) for other in paths if other != path for end in ends[other]}
        free = (end for end in mine if _file_name(end) not in used | others)
        names[path] = next(free, f"{path.stem} {number}")
    return names


def _ends(path: Path) -> list[str]:
    """What a file may be called: its stem, its name, and its name after more and more folders."""
    parts = path.parts
    return [path.stem, *("/".join(parts[-count:]) for count in range(1, len(parts) + 1))]


def _joined(
    sets: Mapping[str, dict[str, pd.DataFrame]], others: Estimates
) -> dict[str, dict[str, pd.DataFrame]]:
    """Put each table into the sets of cells whose truth it has."""
    joined = {where: dict(estimates) for where, estimates in sets.items()}
    for name, table in others.items():
        problems = {where: _problem(name, table, sets[where]) for where in sets}
        if all(problems.values()):
            raise InputError(
                f"{name} fits none of the sets of known people: "
                + "; ".join(f"{where}: {problem}" for where, problem in problems.items())
            )
        for where, problem in problems.items():
            if not problem:
                joined[where][name] = table
    return joined


def _problem(name: str, table: pd.DataFrame, estimates: Estimates) -> str | None:
    """Say why a table cannot be compared with the estimates of a set of cells; None if it can."""
    try:
        on_common_cells({**estimates, name: table})
    except InputError as error:
        return str(error)
    return None


def _write(folder: Path, where: str, estimates: Estimates, scores: pd.DataFrame) -> list[Path]:
    by_density = scores_by_density(estimates)
    written = [write_scores(folder / f"scores_{where}.json", scores, by_density)]
    drawn = {
        f"scores_{where}": charts.scores_figure(scores),
        f"confusion_{where}": charts.confusion_figure(scores),
        f"density_{where}": charts.density_figure(by_density),
    }
    for model, table in estimates.items():
        name = f"agreement_{where}_{_file_name(model)}"
        drawn[name] = imagery.agreement_figure(table, title=model)
    for name, figure in drawn.items():
        written.append(style.save_figure(figure, folder / f"{name}.png"))
    return written


def _write_of_run(folder: Path, job: PopulationJob, prefix: str) -> list[Path]:
    """Draw where a run errs, and how its models learned."""
    region = RegionStore(job.output.store)
    drawn = chain(
        population_outputs.errors(job, region),
        population_outputs.worst(job, region),
        population_outputs.losses(region),
    )
    return [style.save_figure(figure, folder / f"{prefix}{name}.png") for name, figure in drawn]


def _file_name(model: str) -> str:
    """A model's name as it stands in names of files."""
    return re.sub(r"[ /\\:]", "-", model)
