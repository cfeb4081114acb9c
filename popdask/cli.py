"""The command line: ``popdask plan``, ``run`` and ``demo``.

Exit codes: 0 done, or nothing to do; 1 the run failed; 2 the job file or its input is wrong; 75
another run holds the region.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from popdask.errors import InputError
from popdask.job import Job, load_job, settings_rows
from popdask.progress import ConsoleReporter

if TYPE_CHECKING:
    from popdask.pipelines.communities import Outcome

EVENTS = ("appear", "continue", "grow", "shrink", "split", "merge", "vanish")

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Find human communities in gridded population data and follow them through time.",
)

JobFile = Annotated[Path, typer.Argument(metavar="JOB", help="The job file (TOML).")]
Cluster = Annotated[
    str,
    typer.Option(metavar="SPEC", help="Where to run: local, or a scheduler's address (tcp://…)."),
]

_out = Console()
_err = Console(stderr=True)


def main() -> None:
    """Run the command line; what a user can mend becomes one sentence and an exit code."""
    from popdask.store import RegionBusyError

    try:
        app()
    except InputError as error:
        sys.exit(_complain(error, 2))
    except RegionBusyError as error:
        sys.exit(_complain(error, 75))


@app.command()
def plan(job: JobFile) -> None:
    """Print every setting of a job, and what a run of it would compute."""
    from popdask.pipelines import communities

    settings = load_job(job)
    decided = communities.plan(settings)
    rows = [(name, _shown(value), meaning) for name, value, meaning in settings_rows(settings)]
    _print_table(["setting", "value", "meaning"], rows)
    times = decided.times
    _say(f"\n{len(times)} frames, from {times[0][:10]} to {times[-1][:10]}\n")
    _print_table(["stage", "to compute"], [(stage.name, str(stage)) for stage in decided])


@app.command()
def run(job: JobFile, cluster: Cluster = "local") -> None:
    """Run a job, or as much of it as is not done yet."""
    _report(_run(load_job(job), cluster))


@app.command()
def demo(
    output: Annotated[
        Path, typer.Option(metavar="FOLDER", help="Where the demo's frames and results go.")
    ] = Path("out/demo"),
    cluster: Cluster = "local",
) -> None:
    """Draw a world with a known answer, follow its communities, and compare."""
    from popdask import demo as demonstration

    world = demonstration.draw(output)
    _say(f"drew {world.frames} frames of {world.shape[0]} × {world.shape[1]} cells in {output}")
    outcome = _run(demonstration.job(output), cluster)
    _report(outcome)
    scores = demonstration.compare(
        outcome.store.dataset()["community"], outcome.tracks, world
    ).reset_index()
    _say("\nevents of the cities, found against true")
    _print_table(
        ["event", "true", "found", "matched"],
        scores[["event", "true", "found", "matched"]].astype(str).to_numpy().tolist(),
    )
    _say(f"\npicture: {demonstration.picture(outcome, output)}")


def _run(settings: Job, cluster: str) -> Outcome:
    """Run a job on a cluster, telling what happens."""
    from popdask.cluster import connect
    from popdask.pipelines import communities

    reporter = ConsoleReporter(_out)
    start = time.perf_counter()
    with connect(cluster) as client:
        reporter.note(f"{settings.name}: dashboard at {client.dashboard_link}")
        outcome = communities.run(settings, reporter)
    seconds = time.perf_counter() - start
    reporter.note("nothing to do" if outcome.plan.done else f"done in {seconds:.1f} s")
    return outcome


def _report(outcome: Outcome) -> None:
    """Print what a run has found."""
    _say("")
    _print_table(*_frame_table(outcome))
    events = outcome.tracks["event"].value_counts()
    _say(
        f"\n{outcome.tracks['track'].nunique()} tracks: "
        + ", ".join(f"{events.get(event, 0)} {event}" for event in EVENTS)
    )
    _say(f"results: {outcome.store.path}")


def _frame_table(outcome: Outcome) -> tuple[list[str], list[Sequence[str]]]:
    """One row per frame: communities, and the balance of its people."""
    communities = outcome.communities.groupby("time").size()
    rows: list[Sequence[str]] = [
        (
            f"{row.time:%Y-%m-%d}",
            f"{communities.get(row.time, 0)}",
            f"{row.inside:,.0f}",
            f"{row.outside:,.0f}",
            f"{row.raster:,.0f}",
        )
        for row in outcome.balance.itertuples()
    ]
    return ["frame", "communities", "people in them", "outside", "in the raster"], rows


def _print_table(header: list[str], rows: Iterable[Sequence[str]]) -> None:
    table = Table(*header, box=None, header_style="bold", pad_edge=False)
    for row in rows:
        table.add_row(*row)
    _out.print(table)


def _shown(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _say(text: str) -> None:
    _out.print(text, highlight=False, markup=False, soft_wrap=True)


def _complain(error: Exception, code: int) -> int:
    _err.print(f"popdask: {error}", highlight=False, markup=False, soft_wrap=True)
    return code
