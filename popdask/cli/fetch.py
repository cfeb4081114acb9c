"""The commands of `popdask fetch`: population rasters to start with.

Exit codes: 0 fetched, or nothing to fetch; 1 a server or the disk fails, what has come is kept; 2
what is asked for does not exist; 130 stopped.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskID,
    TextColumn,
    TransferSpeedColumn,
)

from popdask.cli import console
from popdask.cli.console import count
from popdask.errors import InputError

if TYPE_CHECKING:
    from popdask.datasets.frames import Bounds, Fetched
    from popdask.datasets.transfer import Downloads

app = typer.Typer(no_args_is_help=True, help="Fetch population rasters to start with.")

Years = Annotated[
    str, typer.Option(metavar="YEARS", help="A span such as 2000:2020, or years such as 2000,2010.")
]
Folder = Annotated[Path, typer.Option(metavar="FOLDER", help="Where the frames go.")]
Box = Annotated[
    str | None, typer.Option(metavar="W,S,E,N", help="West, south, east and north in degrees.")
]
Resolution = Annotated[str, typer.Option(help="1km or 100m")]

_LINE_SECONDS = 30.0


@app.command()
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

    with _fetching() as downloads:
        _show(
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


@app.command()
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

    with _fetching() as downloads:
        _show(
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


@app.command()
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

    with _fetching():
        _show(fetch_gpw(years, to, _box(bounds), project=project))


def _box(text: str) -> Bounds:
    try:
        west, south, east, north = map(float, text.split(","))
    except ValueError:
        raise InputError(
            f"--bounds is {text!r}; expected west, south, east and north in degrees, such as "
            "10,59,11,60; correct it."
        ) from None
    return west, south, east, north


def _show(fetched: Fetched) -> None:
    kept = len(fetched.frames) - fetched.new
    there = f"; {count(kept, 'frame')} as fetched before" if kept else ""
    frames = count(len(fetched.frames), "frame")
    console.say(f"fetched {fetched.new} of {frames}{there}")
    console.say(f"credit: {fetched.credit}")
    console.say("\n[input]")
    console.say(fetched.setting)


@contextmanager
def _fetching() -> Iterator[Downloads]:
    """Show what is fetched, and turn what fails into one sentence and an exit code."""
    from popdask.datasets.transfer import Downloads, FetchError

    try:
        with _Watched() as watched:
            yield Downloads(watch=watched.watch, log=console.say)
    except FetchError as error:
        console.complain(error)
        raise typer.Exit(1) from error
    except OSError as error:
        console.complain(f"{error.filename or 'a file'} cannot be written ({error.strerror}).")
        raise typer.Exit(1) from error
    except KeyboardInterrupt:
        console.complain("stopped; what has come is kept, fetch again to go on.")
        raise typer.Exit(128 + signal.SIGINT) from None


class _Watched:
    """A bar for each file on a terminal; in a log, a line for each, and one now and then."""

    def __init__(self) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn())
        self._bars = Progress(*columns, TransferSpeedColumn(), console=console.out, transient=True)
        self._rows: dict[str, TaskID] = {}
        self._last_line: dict[str, float] = {}

    def __enter__(self) -> _Watched:
        if console.out.is_terminal:
            self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        if console.out.is_terminal:  # in a log, stopping prints an empty line
            self._bars.stop()

    def watch(self, name: str, done: int, total: int | None) -> None:
        """Show how far a file is."""
        whole = done == total
        if console.out.is_terminal:
            row = self._rows.get(name)
            if row is None:
                row = self._rows[name] = self._bars.add_task(name, total=total)
            self._bars.update(row, completed=done, total=total, visible=not whole)
        now = time.monotonic()
        if whole:
            console.say(f"✓ {name}  {done / 1e6:,.1f} MB")
        elif not console.out.is_terminal and now - self._last_line.get(name, now) > _LINE_SECONDS:
            of = "" if total is None else f" of {total / 1e6:,.1f}"
            console.say(f"· {name}  {done / 1e6:,.1f}{of} MB")
        else:
            self._last_line.setdefault(name, now)
            return
        self._last_line[name] = now
