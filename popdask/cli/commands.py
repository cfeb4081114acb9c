"""The commands, one per verb of an operator."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from popdask import __version__, console
from popdask.cli import fetching, models
from popdask.cli.options import Cluster, ClusterIfAny, JobFile, JobFiles, Logs
from popdask.cli.stopping import computing, stoppable
from popdask.job import PopulationJob, load_job
from popdask.progress import ConsoleReporter

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(fetching.app, name="fetch")


def _show_version(asked: bool) -> None:
    if asked:
        console.say(f"popdask {__version__}")
        raise typer.Exit


@app.callback()
def _popdask(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_show_version, is_eager=True, help="Tell the version, and leave."
        ),
    ] = False,
) -> None:
    """Find human communities in gridded population data and follow them through time."""


@app.command()
def plan(job: JobFile) -> None:
    """Print every setting of a job, what a run of it would compute, and what that costs here."""
    from popdask.cluster.machine import cores_at_hand, memory_at_hand, workers_at_hand
    from popdask.pipelines import product
    from popdask.pipelines.costs import Crew

    settings = load_job(job)
    kind, memory = product(settings), memory_at_hand()
    workers, threads = workers_at_hand(cores_at_hand(), memory)
    crew, planned = Crew(workers, threads, memory // workers), kind.plan(settings)
    costs = kind.costs(settings, planned)
    console.show_plan(settings, planned, kind.extent(settings), costs, crew)
    if isinstance(settings, PopulationJob):
        from popdask.pipelines.population.following import following

        for one in following(settings, planned):
            console.show_following(one, crew)


@app.command()
def calibrate(cluster: Cluster = "local") -> None:
    """Measure how fast this machine works, for the times that `plan` tells; about a minute."""
    from popdask.pipelines.calibration import calibrate
    from popdask.pipelines.rates import save_rates

    with stoppable("calibration", cluster) as (reporter, workers):
        rates = calibrate(reporter, workers=workers)
    console.show_rates(rates, save_rates(rates))


@app.command()
def run(
    job: JobFile,
    cluster: Cluster = "local",
    only: Annotated[
        str | None,
        typer.Option(metavar="STAGE", help="Compute this stage only, one of those of the plan."),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Compute what is finished again, models too.")
    ] = False,
    log: Logs = None,
) -> None:
    """Run a job, or as much of it as is not done yet."""
    from popdask.pipelines import product
    from popdask.pipelines.runlog import RunLog

    settings = load_job(job)
    kind = product(settings)
    with stoppable(settings.name, cluster) as (reporter, workers):
        with RunLog(settings, reporter, log, only) as told:
            if only is None:
                outcome = kind.run(settings, told, force=force, workers=workers)
            else:
                left = kind.run_only(settings, only, told, force=force, workers=workers)
        if only is None:
            console.SHOW[settings.pipeline](outcome)
        else:
            console.show_left(left)


@app.command()
def schedule(
    jobs: JobFiles,
    cluster: Cluster = "local",
    retry: Annotated[
        bool, typer.Option("--retry", help="Leave out regions whose last run ended well.")
    ] = False,
    log: Logs = None,
) -> None:
    """Run many regions one after the other; one that fails leaves the others running."""
    from popdask.pipelines.regions import exit_code, find_regions, run_regions

    regions = find_regions(jobs)
    with stoppable("schedule", cluster) as (reporter, workers):
        told = run_regions(
            regions,
            reporter,
            workers=workers,
            retry=retry,
            folder=log,
            tell=console.show_attempt,
        )
    console.show_attempts(told, left_out=len(regions) - len(told))
    raise typer.Exit(exit_code(told))


@app.command()
def status(
    jobs: JobFiles,
    json: Annotated[
        bool, typer.Option("--json", help="A list of regions, for programs to read.")
    ] = False,
    log: Logs = None,
) -> None:
    """Tell what is finished, what is under way, and what a run would compute; change nothing.

    Several jobs are a table: what readers see, how old it is, and runs that failed since.
    """
    from popdask.pipelines.overview import standings
    from popdask.pipelines.regions import find_regions
    from popdask.pipelines.status import status

    if len(jobs) == 1 and not jobs[0].is_dir() and not json:
        console.show_status(status(load_job(jobs[0])))
        return
    regions = find_regions(jobs)
    found = standings(regions, log)
    (console.show_json if json else console.show_standings)(found)
    if any(region.job is None for region in regions):
        raise typer.Exit(2)


@app.command()
def verify(job: JobFile, cluster: Cluster = "local") -> None:
    """Compare the finished results with what was recorded when they were computed."""
    from popdask.pipelines.verify import verify

    settings = load_job(job)
    with stoppable(settings.name, cluster, "nothing was changed") as (_, workers), workers():
        verified = verify(settings)
    console.show_verified(verified)
    if verified.differences:
        raise typer.Exit(1)


@app.command()
def history(job: JobFile) -> None:
    """List the finished runs: when, how long, and what they computed."""
    from popdask.store import RegionStore

    store = RegionStore(load_job(job).output.store)
    console.show_history(store.history(), store.kept_runs())


@app.command()
def rollback(
    job: JobFile,
    tag: Annotated[
        str | None, typer.Argument(metavar="TAG", help="The run; by default, the one before.")
    ] = None,
) -> None:
    """Let readers see an earlier run again; the runs in between are kept."""
    from popdask.pipelines.upkeep import roll_back

    console.show_rollback(roll_back(load_job(job), tag))


@app.command()
def expire(
    job: JobFile,
    keep: Annotated[
        int | None, typer.Option(metavar="N", help="Keep the last N runs at most.")
    ] = None,
    older_than: Annotated[
        float | None, typer.Option(metavar="DAYS", help="Take runs away that are older.")
    ] = None,
    log: Logs = None,
) -> None:
    """Take old runs and their logs away; what readers see stays."""
    from popdask.pipelines.upkeep import expire

    console.show_expired(expire(load_job(job), keep, older_than, log))


@app.command()
def figures(job: JobFile, cluster: ClusterIfAny = None) -> None:
    """Draw maps and charts of the last finished run."""
    from popdask.pipelines import product

    settings = load_job(job)
    with computing(settings.name, cluster):
        paths = product(settings).draw(settings, ConsoleReporter(console.out))
    for path in paths:
        console.say(str(path))


@app.command()
def report(job: JobFile, cluster: ClusterIfAny = None) -> None:
    """Write the report of the last finished run: one HTML file that explains itself, offline."""
    from popdask.pipelines import reports

    settings = load_job(job)
    with computing(settings.name, cluster):
        path = reports.report(settings, ConsoleReporter(console.out))
    console.say(str(path))


for command in (models.train, models.tune, models.evaluate, models.explain):
    app.command()(command)


@app.command()
def certificates(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Where they go.")],
    days: Annotated[int, typer.Option(min=1, max=36_500, help="How long they hold.")] = 365,
) -> None:
    """Make the certificates of a cluster that talks by TLS."""
    from popdask.cluster import make_certificates

    for path in make_certificates(folder, days=days):
        console.say(str(path))


@app.command()
def demo(
    output: Annotated[
        Path, typer.Option(metavar="FOLDER", help="Where the demo's frames and results go.")
    ] = Path("out/demo"),
    cluster: Cluster = "local",
) -> None:
    """Draw a world with a known answer, follow its communities, and compare."""
    from popdask import demo as demonstration
    from popdask.pipelines import communities

    world = demonstration.draw(output)
    console.say(
        f"drew {world.frames} frames of {world.shape[0]} × {world.shape[1]} cells in {output}"
    )
    settings = demonstration.job(output)
    with stoppable(settings.name, cluster) as (reporter, workers):
        outcome = communities.run(settings, reporter, workers=workers)
    console.show_outcome(outcome)
    scores = demonstration.compare(
        outcome.store.dataset()["community"], outcome.tracks, world
    ).reset_index()
    columns = ["event", "true", "found", "matched"]
    console.say("\nevents of the cities, found against true")
    console.show_table(columns, scores[columns].astype(str).to_numpy().tolist())
    console.say(f"\npicture: {demonstration.picture(outcome, output)}")
