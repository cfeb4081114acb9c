"""The search for a population job's settings, and estimates compared.

The search for good settings of a job's models, on the cells that its training has cut.

Estimates scored side by side: those of a job's last run, and tables from anywhere.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from itertools import chain
from pathlib import Path

import pandas as pd

from popdask.config.jobs import PopulationJob
from popdask.errors import InputError
from popdask.imagery import tuning
from popdask.imagery.cells import load_tables
from popdask.imagery.evaluation import (
    evaluate,
    on_common_cells,
    read_predictions,
    scores_by_density,
    write_scores,
)
from popdask.imagery.model import TrainedModel
from popdask.imagery.training import image_shape
from popdask.imagery.tuning import Tuning
from popdask.plot import charts, imagery, style
from popdask.store.content import WORK
from popdask.store.repository import RegionStore
from popdask.workflow import population_inputs, population_outputs
from popdask.workflow.population_inputs import training_configs

#: Tables of predictions, by the name of the model.
Estimates = Mapping[str, pd.DataFrame]
#: Probability of presence above which cells are called inhabited, where no job says another.
THRESHOLD = 0.5
#: Cells per side of the squares that intervals are drawn from, where no job says another.
BLOCK = 10


def _study(job: PopulationJob, model: str) -> Path:
    """Where a study is kept: in the local folder of the job."""
    job.export_folder.mkdir(parents=True, exist_ok=True)
    return job.export_folder / f"{job.name}_{model}-study.sqlite"


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
    return tuning.tune(
        split,
        kind,
        trials,
        config=config,
        epochs=epochs,
        storage=_study(job, model),
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
    try:
        table = region.table("predictions")
    except KeyError:
        raise InputError(
            f"{region.path} has no predictions of known people: give [cells] counts or [truth], "
            "and run the job."
        ) from None
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
