"""The commands, one per verb of an operator, and the arguments that several of them take.

Exit codes of `popdask fetch`: 0 fetched, or nothing to fetch; 1 a server or the disk fails, what
has come is kept; 2 what is asked for does not exist; 130 stopped.
"""

from __future__ import annotations

from dataclasses import asdict
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from popdask import __version__
from popdask.cli import console, show
from popdask.cli.console import computing, count, stoppable
from popdask.errors import InputError
from popdask.workflow.progress import ConsoleReporter

if TYPE_CHECKING:  # the models of jobs take a while to make, and --help needs none
    import pandas as pd
    import xarray as xr

    from popdask.config.jobs import CommunitiesJob, PopulationJob
    from popdask.config.settings import Job
    from popdask.datasets.frames import Bounds, Fetched
    from popdask.synthetic.cities import World
    from popdask.workflow.communities import CommunitiesResult

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
ClusterIfAny = Annotated[
    str | None,
    typer.Option(
        metavar="SPEC", help="Where to run, as for `popdask run`; by default, in this process."
    ),
]
app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False)
fetch_app = typer.Typer(no_args_is_help=True, help="Fetch population rasters to start with.")
app.add_typer(fetch_app, name="fetch")
Years = Annotated[
    str, typer.Option(metavar="YEARS", help="A span such as 2000:2020, or years such as 2000,2010.")
]
Folder = Annotated[Path, typer.Option(metavar="FOLDER", help="Where the frames go.")]
Box = Annotated[
    str | None, typer.Option(metavar="W,S,E,N", help="West, south, east and north in degrees.")
]
Resolution = Annotated[str, typer.Option(help="1km or 100m")]
DEMO_SEED = 3  # of the world that `draw_demo` draws


def _setting_names(begin: str = "") -> list[str]:
    from popdask.config.load import setting_names

    return setting_names(begin)


def _load(path: Path, assignments: list[str] | None = None) -> Job:
    from popdask.config.load import load_job_with

    console.check_open_files()
    return load_job_with(path, assignments or ())


Assignments = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="NAME=VALUE",
        help="A setting in place of the file's, as classes.k=6; may be given several times.",
        autocompletion=_setting_names,
    ),
]


def train(
    job: JobFile,
    set_: Assignments = None,
    cluster: Cluster = "local",
    force: Annotated[bool, typer.Option("--force", help="Train finished models again.")] = False,
) -> None:
    """Cut the labelled cells of a population job and train its models."""
    from popdask.workflow import population

    settings = _population_job(job, set_)
    with stoppable(settings.name, cluster) as (reporter, workers):
        left = population.train(settings, reporter, force=force, workers=workers)
        show.show_left(left)


def tune(
    job: JobFile,
    model: Annotated[str, typer.Argument(help="presence or count")],
    set_: Assignments = None,
    trials: Annotated[
        int | None,
        typer.Option(help="Settings to try in all; by default 40 for presence, 100 for count."),
    ] = None,
    epochs: Annotated[int, typer.Option(help="Length of a trial.")] = 10,
    cluster: Cluster = "local",
) -> None:
    """Search for better settings of a population job's model; a stopped search goes on."""
    from popdask.workflow import evaluation

    settings = _population_job(job, set_)
    with stoppable(settings.name, cluster, "search again to go on") as (_, workers), workers():
        found = evaluation.tune(settings, model, trials, epochs=epochs, progress=show.show_trial)
    show.show_best(model, found)


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
    from popdask.workflow import evaluation

    jobs = [_population_job(path) for path in dict.fromkeys(sources) if path.suffix == ".toml"]
    tables = [path for path in sources if path.suffix != ".toml"]
    scores, written = evaluation.compare(jobs, tables, output)
    show.show_scores(scores)
    for path in written:
        console.say(str(path))


def explain(
    job: JobFile,
    set_: Assignments = None,
    cells: Annotated[int, typer.Option(help="Best, typical and worst cells, so many each.")] = 4,
) -> None:
    """Draw what in the images speaks for people (Grad-CAM)."""
    from popdask.workflow import population_outputs

    settings = _population_job(job, set_)
    console.say(
        str(population_outputs.explain(settings, ConsoleReporter(console.out), cells=cells))
    )


def _population_job(path: Path, assignments: list[str] | None = None) -> PopulationJob:
    from popdask.config.jobs import PopulationJob

    settings = _load(path, assignments)
    if not isinstance(settings, PopulationJob):
        raise InputError(
            f"{path}: pipeline is {settings.pipeline!r}, expected 'population' for this command."
        )
    return settings


def _show_version(asked: bool) -> None:
    if asked:
        console.say(f"popdask {__version__}")
        raise typer.Exit


@app.callback()
def _popdask(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_show_version, is_eager=True, help="Show the version and exit."
        ),
    ] = False,
) -> None:
    """Find settlements and communities in population data through time; people in aerial images."""


@app.command()
def init(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Where the rasters are.")],
    pipeline: Annotated[
        str, typer.Option(help="What to find in them: settlements or communities.")
    ] = "settlements",
    to: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The job file; by default NAME.toml, here.")
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="The region's name; by default, the folder's.")
    ] = None,
    frames: Annotated[
        str | None,
        typer.Option(
            metavar="PATTERN", help="Which rasters, as pop_{year}.tif, where there are several."
        ),
    ] = None,
    time: Annotated[
        str | None,
        typer.Option(
            help="The time of a raster whose name has none, such as 2020; of several bands without "
            "names, theirs in order: 2000,2010."
        ),
    ] = None,
    nodata: Annotated[
        float | None, typer.Option(help="Value of cells without data, beside the declared one.")
    ] = None,
) -> None:
    """Write a job for the rasters of a folder: their years, and what is to be found in them."""
    from popdask.config.propose import propose_job, write_job

    if pipeline not in ("settlements", "communities"):
        raise InputError(
            f"--pipeline is {pipeline!r}; expected settlements or communities; correct it"
        )
    proposal = propose_job(
        folder,
        pipeline="settlements" if pipeline == "settlements" else "communities",
        name=name,
        frames=frames,
        time=time,
        nodata=nodata,
        beside=Path() if to is None else to.parent,
    )
    file = write_job(proposal, to)
    for line in proposal.notes:
        console.say(line)
    console.say(f"wrote {file}, a job of {pipeline}")
    console.say(f"next: popdask plan {file}, and then popdask run {file}")


@app.command()
def plan(
    job: JobFile,
    set_: Assignments = None,
    cluster: Cluster = "local",
    json: Annotated[
        bool, typer.Option("--json", help="Settings, stages and costs, for programs to read.")
    ] = False,
) -> None:
    """Print every setting of a job, what a run of it would compute, and what that costs."""
    settings = _load(job, set_)
    console.check_cluster(cluster)  # though there may be nothing to compute
    parts = show.planned(settings)
    if json:
        console.say_json(show.plan_record(parts, cluster))
    else:
        show.show_plan(parts, cluster)


@app.command()
def run(
    job: JobFile,
    set_: Assignments = None,
    cluster: Cluster = "local",
    only: Annotated[
        str | None,
        typer.Option(metavar="STAGE", help="Compute this stage only, one of those of the plan."),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Compute what is finished again, models too.")
    ] = False,
    check_content: Annotated[
        bool,
        typer.Option(
            "--check-content",
            help="Read input files anew, also those whose size and time are as they were.",
        ),
    ] = False,
    log: Logs = None,
) -> None:
    """Run a job, or as much of it as is not done yet."""
    from popdask.workflow.runlog import RunLog
    from popdask.workflow.runner import pipeline_of

    settings = _load(job, set_)
    kind = pipeline_of(settings)
    with stoppable(settings.name, cluster) as (reporter, workers):
        how: dict[str, Any] = {"force": force, "check_content": check_content, "workers": workers}
        with RunLog(settings, reporter, log, only) as run_log:
            if only is None:
                outcome = kind.run(settings, run_log, **how)
            else:
                left = kind.run_only(settings, only, run_log, **how)
        if only is None:
            show.SHOW[settings.pipeline](outcome)
            show.show_report(settings)
        else:
            show.show_left(left)


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
    from popdask.workflow.operations import exit_code, find_regions, run_regions

    regions = find_regions(jobs)
    with stoppable("schedule", cluster) as (reporter, workers):
        attempts = run_regions(
            regions,
            reporter,
            workers=workers,
            retry=retry,
            folder=log,
            on_attempt=show.show_logged_run,
        )
    show.show_logged_runs(attempts, left_out=len(regions) - len(attempts))
    raise typer.Exit(exit_code(attempts))


@app.command()
def status(
    jobs: JobFiles,
    set_: Assignments = None,
    json: Annotated[
        bool, typer.Option("--json", help="A list of regions, for programs to read.")
    ] = False,
    geojson: Annotated[
        bool, typer.Option("--geojson", help="Where the regions lie, too, for maps to show.")
    ] = False,
    log: Logs = None,
) -> None:
    """Show what is finished, what is under way, and what a run would compute; change nothing.

    Several jobs are a table: what readers see, how old it is, and runs that failed since.
    """
    from popdask.workflow.operations import find_regions, regions_geojson, status, status_table

    if len(jobs) == 1 and not jobs[0].is_dir() and not (json or geojson):
        show.show_status(status(_load(jobs[0], set_)))
        return
    if set_:
        raise InputError("--set is for one job, and this is a table of many; leave it out")
    regions = find_regions(jobs)
    if geojson:
        console.say_json(regions_geojson(regions, log))
    elif json:
        console.say_json([asdict(standing) for standing in status_table(regions, log)])
    else:
        show.show_status_table(status_table(regions, log))
    if any(region.job is None for region in regions):
        raise typer.Exit(2)


@app.command()
def verify(job: JobFile, set_: Assignments = None, cluster: Cluster = "local") -> None:
    """Compare the finished results with what was recorded when they were computed."""
    from popdask.workflow.operations import verify

    settings = _load(job, set_)
    with stoppable(settings.name, cluster, "nothing was changed") as (_, workers), workers():
        verified = verify(settings)
    show.show_verified(verified)
    if verified.differences:
        raise typer.Exit(1)


@app.command()
def history(job: JobFile, set_: Assignments = None) -> None:
    """List the finished runs: when, how long, and what they computed."""
    from popdask.store.repository import RegionStore

    store = RegionStore(_load(job, set_).output.store)
    show.show_history(store.history(), store.kept_runs())


@app.command()
def rollback(
    job: JobFile,
    tag: Annotated[
        str | None, typer.Argument(metavar="TAG", help="The run; by default, the one before.")
    ] = None,
    set_: Assignments = None,
) -> None:
    """Let readers see an earlier run again; the runs in between are kept."""
    from popdask.workflow.operations import roll_back

    show.show_rollback(roll_back(_load(job, set_), tag))


@app.command()
def expire(
    job: JobFile,
    set_: Assignments = None,
    keep: Annotated[
        int | None, typer.Option(metavar="N", help="Keep the last N runs at most.")
    ] = None,
    older_than: Annotated[
        float | None, typer.Option(metavar="DAYS", help="Take runs away that are older.")
    ] = None,
    log: Logs = None,
) -> None:
    """Take old runs and their logs away; what readers see stays."""
    from popdask.workflow.operations import expire

    show.show_expired(expire(_load(job, set_), keep, older_than, log))


@app.command()
def figures(job: JobFile, set_: Assignments = None, cluster: ClusterIfAny = None) -> None:
    """Draw maps and charts of the last finished run."""
    from popdask.workflow.runner import pipeline_of

    settings = _load(job, set_)
    with computing(settings.name, cluster):
        paths = pipeline_of(settings).draw(settings, ConsoleReporter(console.out))
    for path in paths:
        console.say(str(path))


@app.command()
def report(job: JobFile, set_: Assignments = None, cluster: ClusterIfAny = None) -> None:
    """Write the report of the last finished run: one HTML file that explains itself, offline."""
    from popdask.workflow import operations

    settings = _load(job, set_)
    with computing(settings.name, cluster):
        path = operations.report(settings, ConsoleReporter(console.out))
    console.say(str(path))


@app.command()
def units(
    job: JobFile,
    zones: Annotated[
        Path, typer.Option(metavar="FILE", help="Polygons of units, such as municipalities.")
    ],
    name: Annotated[
        str, typer.Option("--id", metavar="COLUMN", help="The column with their names or codes.")
    ],
    output: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Where the table goes: Parquet or CSV, by its name."),
    ] = None,
    rules: Annotated[
        int, typer.Option(metavar="YEAR", help="Year of Eurostat's rules: 2021 or 2024.")
    ] = 2021,
    set_: Assignments = None,
    cluster: ClusterIfAny = None,
) -> None:
    """Classify municipalities or other units by where their people live, year by year.

    The class of a unit is that of the Degree of Urbanisation (Eurostat); cells that a border cuts
    are shared by area.
    """
    from popdask.workflow import operations

    settings = _load(job, set_)
    with computing(settings.name, cluster):
        table = operations.classify_units(settings, zones, name, output, rules=rules)
    show.show_units(table, each=output is None)
    if output is not None:
        console.say(f"\n{output}: {len(table):,} rows, one for each unit and frame")


for command in (train, tune, evaluate, explain):
    app.command()(command)


@app.command()
def demo(
    output: Annotated[
        Path, typer.Option(metavar="FOLDER", help="Where the demo's frames and results go.")
    ] = Path("out/demo"),
    cluster: Cluster = "local",
) -> None:
    """Draw a world with a known answer, follow its communities, and compare."""
    from popdask.workflow import communities

    console.check_open_files()
    world = draw_demo(output)
    console.say(
        f"drew {world.frames} frames of {world.shape[0]} × {world.shape[1]} cells in {output}"
    )
    settings = demo_job(output)
    with stoppable(settings.name, cluster) as (reporter, workers):
        outcome = communities.run(settings, reporter, workers=workers)
    show.show_outcome(outcome)
    scores = compare_demo(outcome.store.dataset()["community"], outcome.tracks, world).reset_index()
    columns = ["event", "true", "found", "matched"]
    console.say("\nevents of the cities, found against true")
    console.show_table(columns, scores[columns].astype(str).to_numpy().tolist())
    console.say(f"\npicture: {_draw_result(outcome, output)}")


def draw_demo(folder: Path) -> World:
    """Draw the demo's world, whose story is known, and write its frames."""
    from popdask.synthetic.cities import moving_cities

    world = moving_cities(seed=DEMO_SEED)
    world.write(folder / "frames")
    return world


def demo_job(folder: Path) -> CommunitiesJob:
    """Read the demo's job file, ``jobs/demo.toml``, with its paths in a folder."""
    from popdask.config.jobs import CommunitiesJob
    from popdask.config.load import load_job

    folder = folder.resolve()
    overrides = {
        "input.frames": str(folder / "frames" / "world_{time:%Y}.tif"),
        "output.store": str(folder / "demo.icechunk"),
    }
    packaged = Path(str(files("popdask"))) / "jobs" / "demo.toml"
    checkout = packaged.parents[2] / "jobs" / "demo.toml"
    settings = load_job(packaged if packaged.exists() else checkout, overrides)
    assert isinstance(settings, CommunitiesJob)
    return settings


def compare_demo(community: xr.DataArray, tracks: pd.DataFrame, world: World) -> pd.DataFrame:
    """Count the true events of the world's cities that a run has found."""
    from popdask.metrics.communities import city_events, event_scores, match_cities

    # A city's events are those of its core, the community with most people of its densest cells.
    match = match_cities(community, world.labels, world.population["population"])
    return event_scores(city_events(tracks, match), world.truth, tolerance=1, times=[*world.times])


def _draw_result(outcome: CommunitiesResult, folder: Path) -> Path:
    """Draw population, classes, communities and tracks of each frame."""
    from popdask.plot import maps, style

    found = outcome.store.dataset()
    cubes = (found["population"], found["classes"], found["community"])
    tables = (outcome.communities, outcome.tracks)
    figure = maps.world_figure(*cubes, *tables, frames=found.sizes["time"])
    return style.save_figure(figure, folder / "demo.png")


@fetch_app.command()
def worldpop(
    country: Annotated[str, typer.Argument(help="Code of three letters, such as NOR.")],
    years: Years,
    to: Folder,
    resolution: Resolution = "1km",
    release: Annotated[
        str | None,
        typer.Option(
            help="2000-2020, R2024B or R2025A (2015 to 2030); by default, what has the years."
        ),
    ] = None,
    kind: Annotated[
        str | None,
        typer.Option(help="constrained (people in built-up cells only) or unconstrained"),
    ] = None,
    un_adjusted: Annotated[
        bool, typer.Option("--un-adjusted", help="National totals of the United Nations.")
    ] = False,
) -> None:
    """Fetch WorldPop's rasters of a country, a frame for each year."""
    from popdask.datasets.worldpop import fetch_worldpop

    with console.fetching() as downloads:
        _show_fetched(
            fetch_worldpop(
                country,
                years,
                to,
                resolution=resolution,
                release=release,
                kind=kind,
                un_adjusted=un_adjusted,
                downloads=downloads,
            )
        )


@fetch_app.command()
def ghspop(
    years: Years,
    to: Folder,
    bounds: Box = None,
    tile: Annotated[
        str | None, typer.Option(help="One tile, such as R3_C18, instead of bounds.")
    ] = None,
    resolution: Resolution = "1km",
    projection: Annotated[
        str, typer.Option(help="mollweide (cells of equal area) or wgs84")
    ] = "mollweide",
) -> None:
    """Fetch GHS-POP of a rectangle or a tile, a frame every five years."""
    from popdask.datasets.ghspop import fetch_ghspop

    with console.fetching() as downloads:
        _show_fetched(
            fetch_ghspop(
                years,
                to,
                bounds=None if bounds is None else _box(bounds),
                tile=tile,
                resolution=resolution,
                projection=projection,
                downloads=downloads,
            )
        )


@fetch_app.command()
def gpw(
    years: Years,
    to: Folder,
    bounds: Annotated[str, typer.Option(metavar="W,S,E,N", help="In degrees.")],
    project: Annotated[
        str | None, typer.Option(help="The Google Cloud project that asks Earth Engine.")
    ] = None,
) -> None:
    """Fetch GPW v4.11 of a rectangle by Google Earth Engine, a frame every five years.

    It needs an account there, and has never been run against it.
    """
    from popdask.datasets.gpw import fetch_gpw

    with console.fetching():
        _show_fetched(fetch_gpw(years, to, _box(bounds), project=project))


def _box(text: str) -> Bounds:
    try:
        west, south, east, north = map(float, text.split(","))
    except ValueError:
        raise InputError(
            f"--bounds is {text!r}; expected west, south, east and north in degrees, such as "
            "10,59,11,60; correct it."
        ) from None
    return west, south, east, north


def _show_fetched(fetched: Fetched) -> None:
    kept = len(fetched.frames) - fetched.new
    there = f"; {count(kept, 'frame')} as fetched before" if kept else ""
    frames = count(len(fetched.frames), "frame")
    console.say(f"fetched {fetched.new} of {frames}{there}")
    console.say(f"credit: {fetched.credit}")
    console.say("\n[input]")
    console.say(fetched.setting)
