"""The commands of a population job's models: train, tune, evaluate and explain."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from popdask import console
from popdask.cli.options import Cluster, JobFile
from popdask.cli.stopping import stoppable
from popdask.errors import InputError
from popdask.job import PopulationJob, load_job
from popdask.progress import ConsoleReporter


def train(
    job: JobFile,
    cluster: Cluster = "local",
    force: Annotated[bool, typer.Option("--force", help="Train finished models again.")] = False,
) -> None:
    """Cut the labelled cells of a population job and train its models."""
    from popdask.pipelines import population

    settings = _population_job(job)
    with stoppable(settings.name, cluster) as (reporter, workers):
        left = population.train(settings, reporter, force=force, workers=workers)
        console.show_left(left)


def tune(
    job: JobFile,
    model: Annotated[str, typer.Argument(help="presence or count")],
    trials: Annotated[
        int | None,
        typer.Option(help="Settings to try in all; by default 40 for presence, 100 for count."),
    ] = None,
    epochs: Annotated[int, typer.Option(help="Length of a trial.")] = 10,
    cluster: Cluster = "local",
) -> None:
    """Search for better settings of a population job's model; a stopped search goes on."""
    from popdask.pipelines import population

    settings = _population_job(job)
    with stoppable(settings.name, cluster, "search again to go on") as (_, workers), workers():
        found = population.tune(settings, model, trials, epochs=epochs, progress=console.show_trial)
    console.show_best(model, found)


def evaluate(
    sources: Annotated[
        list[Path],
        typer.Argument(
            metavar="JOB|TABLE...",
            help="A population job, or tables (cell, prediction, truth) in Parquet or CSV.",
        ),
    ],
    output: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Where JSON and figures go.")
    ] = None,
) -> None:
    """Score estimates against known people, side by side: a table, JSON and figures."""
    from popdask.pipelines.population import comparing

    jobs = {path: _population_job(path) for path in sources if path.suffix == ".toml"}
    tables = [path for path in sources if path.suffix != ".toml"]
    scores, written = comparing.compare(list(jobs.values()), tables, output)
    console.show_scores(scores)
    for path in written:
        console.say(str(path))


def explain(
    job: JobFile,
    cells: Annotated[int, typer.Option(help="Best, typical and worst cells, so many each.")] = 4,
) -> None:
    """Draw what in the images speaks for people (Grad-CAM)."""
    from popdask.pipelines import population

    settings = _population_job(job)
    console.say(str(population.explain(settings, ConsoleReporter(console.out), cells=cells)))


def _population_job(path: Path) -> PopulationJob:
    settings = load_job(path)
    if not isinstance(settings, PopulationJob):
        raise InputError(
            f"{path}: pipeline is {settings.pipeline!r}, expected 'population' for this command."
        )
    return settings
