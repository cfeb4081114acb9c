"""The command line, one command per verb of an operator.

Exit codes: 0 done, or nothing to do; 1 the run failed, or results are not what was computed; 2 the
job file or its input is wrong; 75 another run holds the region; 130 and 143 stopped by a signal.
Of many regions: 1 if one failed, else 2 if an input is wrong, else 75 if one was held by another.
"""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

from popdask import __version__, console, fetching
from popdask.errors import InputError
from popdask.job import PopulationJob, load_job
from popdask.progress import ConsoleReporter, Reporter

if TYPE_CHECKING:
    from distributed import Client

    from popdask.pipelines.conductor import Workers

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(fetching.app, name="fetch")

JobFile = Annotated[Path, typer.Argument(metavar="JOB", help="The job file (TOML).")]
JobFiles = Annotated[
    list[Path], typer.Argument(metavar="JOB…", help="Job files, and folders of them.")
]
Logs = Annotated[
    Path | None,
    typer.Option(
        metavar="FOLDER", help="Where the logs of runs are; by default beside each store."
    ),
]
Cluster = Annotated[
    str,
    typer.Option(
        metavar="SPEC",
        help="Where to run: local, a scheduler's address (tcp://…, tls://…), or a TOML file.",
    ),
]


class _TerminatedError(BaseException):
    """SIGTERM has come."""


def main() -> None:
    """Run the command line; what a user can mend becomes one sentence and an exit code."""
    try:
        app()
    except InputError as error:
        console.complain(error)
        sys.exit(2)
    except Exception as error:
        code = _known_failure(error)
        if code is None:
            raise
        console.complain(error)
        sys.exit(code)


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


@app.command()
def calibrate(cluster: Cluster = "local") -> None:
    """Measure how fast this machine works, for the times that `plan` tells; about a minute."""
    from popdask.pipelines.calibration import calibrate
    from popdask.pipelines.rates import save_rates

    with _stoppable("calibration", cluster) as (reporter, workers):
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
    with _stoppable(settings.name, cluster) as (reporter, workers):
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
    with _stoppable("schedule", cluster) as (reporter, workers):
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
    from popdask.cluster import connect
    from popdask.pipelines.verify import verify

    settings = load_job(job)
    with connect(cluster):
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
def figures(job: JobFile) -> None:
    """Draw maps and charts of the last finished run."""
    from popdask.pipelines import product

    settings = load_job(job)
    for path in product(settings).draw(settings, ConsoleReporter(console.out)):
        console.say(str(path))


@app.command()
def report(job: JobFile) -> None:
    """Write the report of the last finished run: one HTML file that explains itself, offline."""
    from popdask.pipelines import product

    settings = load_job(job)
    console.say(str(product(settings).report(settings, ConsoleReporter(console.out))))


@app.command()
def train(
    job: JobFile,
    cluster: Cluster = "local",
    force: Annotated[bool, typer.Option("--force", help="Train finished models again.")] = False,
) -> None:
    """Cut the labelled cells of a population job and train its models."""
    from popdask.pipelines import population

    settings = _population_job(job)
    with _stoppable(settings.name, cluster) as (reporter, workers):
        left = population.train(settings, reporter, force=force, workers=workers)
        console.show_left(left)


@app.command()
def tune(
    job: JobFile,
    model: Annotated[str, typer.Argument(help="presence or count")],
    trials: Annotated[int, typer.Option(help="Settings to try in all.")] = 40,
    epochs: Annotated[int, typer.Option(help="Length of a trial.")] = 10,
    cluster: Cluster = "local",
) -> None:
    """Search for better settings of a population job's model; a stopped search goes on."""
    from popdask.cluster import connect
    from popdask.pipelines import population

    settings = _population_job(job)
    with connect(cluster):
        found = population.tune(settings, model, trials, epochs=epochs, progress=console.show_trial)
    console.show_best(model, found)


@app.command()
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


@app.command()
def explain(
    job: JobFile,
    cells: Annotated[int, typer.Option(help="Best, typical and worst cells, so many each.")] = 4,
) -> None:
    """Draw what in the images speaks for people (Grad-CAM)."""
    from popdask.pipelines import population

    settings = _population_job(job)
    console.say(str(population.explain(settings, ConsoleReporter(console.out), cells=cells)))


@app.command()
def certificates(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Where they go.")],
    days: Annotated[int, typer.Option(help="How long they hold.")] = 365,
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
    with _stoppable(settings.name, cluster) as (reporter, workers):
        outcome = communities.run(settings, reporter, workers=workers)
    console.show_outcome(outcome)
    scores = demonstration.compare(
        outcome.store.dataset()["community"], outcome.tracks, world
    ).reset_index()
    columns = ["event", "true", "found", "matched"]
    console.say("\nevents of the cities, found against true")
    console.show_table(columns, scores[columns].astype(str).to_numpy().tolist())
    console.say(f"\npicture: {demonstration.picture(outcome, output)}")


def _population_job(path: Path) -> PopulationJob:
    settings = load_job(path)
    if not isinstance(settings, PopulationJob):
        raise InputError(
            f"{path}: pipeline is {settings.pipeline!r}, expected 'population' for this command."
        )
    return settings


@contextmanager
def _stoppable(name: str, cluster: str) -> Iterator[tuple[Reporter, Workers]]:
    """Surround a run: what it is told of, where it gets workers, and an end in order on a signal.

    Ctrl-C and SIGTERM unwind the run: workers end and the region is free when the process ends.
    """
    stop = _Stop()
    reporter = _AttentiveReporter(stop)
    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield reporter, partial(_workers, name, cluster, reporter)
    except (KeyboardInterrupt, _TerminatedError) as stopped:
        console.complain("stopped; what is finished is kept, run the job again to go on.")
        number = signal.SIGINT if isinstance(stopped, KeyboardInterrupt) else signal.SIGTERM
        raise typer.Exit(128 + number) from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _workers(name: str, cluster: str, reporter: Reporter) -> Iterator[Client]:
    """Connect to the cluster as long as there is something to compute."""
    from popdask.cluster import connect

    start = time.perf_counter()
    with connect(cluster, tell=reporter.note) as client:
        reporter.note(f"{name}: dashboard at {client.dashboard_link}")
        yield client
        reporter.note(f"done in {time.perf_counter() - start:.1f} s")


class _Stop:
    """Ends a run on a signal, and remembers it: Python drops what is raised in a finalizer."""

    def __init__(self) -> None:
        self._number: int | None = None

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGTERM:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)  # once is enough
        self._number = number
        self.check()

    def check(self) -> None:
        """Raise what the signal stands for, if one has come."""
        if self._number is not None:
            raise KeyboardInterrupt if self._number == signal.SIGINT else _TerminatedError


class _AttentiveReporter(ConsoleReporter):
    """Writes to the console, and looks between stages whether a signal has come."""

    def __init__(self, stop: _Stop) -> None:
        super().__init__(console.out)
        self._stop = stop

    @contextmanager
    def stage(self, name: str, work: str) -> Iterator[None]:
        """Surround one stage."""
        self._stop.check()
        with super().stage(name, work):
            yield
        self._stop.check()


def _known_failure(error: Exception) -> int | None:
    """Exit code of a failure that one sentence tells; None for what must be a bug."""
    from distributed.scheduler import KilledWorker

    from popdask.cluster import NoWorkersError
    from popdask.imagery.training import TrainingError
    from popdask.store import RegionBusyError, StoreError
    from popdask.tracking.summary import LostPeopleError

    if isinstance(error, RegionBusyError):
        return 75
    told = (StoreError, LostPeopleError, KilledWorker, NoWorkersError, TrainingError)
    return 1 if isinstance(error, told) else None
