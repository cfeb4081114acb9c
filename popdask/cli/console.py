"""What the command line prints with: sizes, times and numbers in words, lines, complaints, tables.

Ctrl-C and SIGTERM end a run in order: they unwind it, and what is finished is kept.
"""

from __future__ import annotations

import json
import math
import resource
import signal
import sys
import textwrap
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from math import isnan
from types import FrameType
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskID,
    TextColumn,
    TransferSpeedColumn,
)
from rich.table import Table

from popdask.errors import ClusterError, InputError
from popdask.io.paths import without_keys
from popdask.workflow.progress import ConsoleReporter, Reporter

if TYPE_CHECKING:
    from distributed import Client

    from popdask.datasets.transfer import Downloads
    from popdask.workflow.runner import Workers

out = Console()
err = Console(stderr=True)
RAISED_AGAIN_SECONDS = 0.1
_LINE_SECONDS = 30.0  # between two lines of a transfer, in a log
#: Files that a run has open at once, with two workers and a store; and how many suffice.
FEWEST_FILES, ENOUGH_FILES = 64, 4096


def duration(seconds: float) -> str:
    """Format how long something takes, roughly."""
    for unit, length in (("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:,.1f} {unit}"
    return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"


def age(seconds: float) -> str:
    """Format how long something is past, in the largest unit that fits."""
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"


def count(number: int, what: str) -> str:
    """Format a number of things.

    Examples
    --------
    >>> count(1, "chunk"), count(1200, "task")
    ('1 chunk', '1,200 tasks')
    """
    return f"{number} {what}" if number == 1 else f"{number:,} {what}s"


def written(number: float, form: str) -> str:
    """Write a number in some form, or a dash where there is none.

    Examples
    --------
    >>> written(0.5, "+.1%"), written(float("nan"), ".3f")
    ('+50.0%', '–')
    """
    return "–" if isnan(number) else format(number, form)


def when(time: Any) -> str:
    """Write the time of a frame as a year or a date, with the hour where it is not midnight."""
    from popdask.io.frames import year_text  # which loads more than --help needs

    return year_text(time)


def span(times: Sequence[str]) -> str:
    """Format how many frames there are, and from when to when."""
    return f"{count(len(times), 'frame')}, from {when(times[0])} to {when(times[-1])}"


def say(text: str) -> None:
    """Print one line, as it is but for secrets."""
    out.print(without_keys(text), highlight=False, markup=False, soft_wrap=True)


def say_json(value: Any) -> None:
    """Print what programs read: plain, in one piece, and without secrets."""
    text = json.dumps(_clean(value), indent=1, ensure_ascii=False, allow_nan=False)
    out.print(text, highlight=False, markup=False, soft_wrap=True)


def _clean(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _clean(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_clean(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None  # which JSON cannot write
    return without_keys(value) if isinstance(value, str) else value


def complain(problem: object) -> None:
    """Print what is wrong, to the standard error, which may be a log: without secrets."""
    text = f"popdask: {without_keys(str(problem))}"
    err.print(text, highlight=False, markup=False, soft_wrap=True)


def show_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table; where it is too wide, headers break before what stands below them."""
    rows = list(rows)
    columns = [[*map(len, column)] for column in zip(header, *rows, strict=True)]
    if sum(map(max, columns)) + 2 * (len(columns) - 1) > out.width:
        header = [
            textwrap.fill(name, max([1, *below]), break_long_words=False)
            for name, (_, *below) in zip(header, columns, strict=True)
        ]
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in header:
        table.add_column(name, overflow="fold")  # a path that is cut is no path
    for row in rows:
        table.add_row(*map(escape, row))
    out.print(table)


@contextmanager
def stoppable(
    name: str, cluster: str, left: str = "what is finished is kept, run the job again to go on"
) -> Iterator[tuple[Reporter, Workers]]:
    """Surround a run: what reports it, where it gets workers, an end in order on a signal."""
    check_open_files()  # before anything is done
    check_cluster(cluster)
    stop = _Stop()
    reporter = _AttentiveReporter(stop)
    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    sys.unraisablehook, unraisable = stop.dropped, sys.unraisablehook
    try:
        yield reporter, partial(_workers, name, cluster, reporter)
    except ENDS as stopped:
        complain(f"stopped; {left}.")
        number = signal.SIGINT if isinstance(stopped, KeyboardInterrupt) else signal.SIGTERM
        raise typer.Exit(128 + number) from None
    finally:
        stop.end()
        sys.unraisablehook = unraisable
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def computing(name: str, cluster: str | None) -> Iterator[None]:
    """Let Dask compute on a cluster where one is named, else in this process."""
    if cluster is None:
        yield
        return
    with stoppable(name, cluster, "run the command again") as (_, workers), workers():
        yield


@contextmanager
def _workers(name: str, cluster: str, reporter: Reporter) -> Iterator[Client]:
    """Connect to the cluster as long as there is something to compute."""
    from distributed.comm import CommClosedError

    from popdask.cluster import connect

    start = time.perf_counter()
    with ExitStack() as stack:
        try:
            client = stack.enter_context(connect(cluster, log=reporter.note))
        except InputError as error:  # a scheduler that is down is no wrong job: try again later
            if isinstance(error.__cause__, OSError | CommClosedError):
                raise ClusterError(str(error)) from error
            raise
        reporter.note(f"{name}: dashboard at {client.dashboard_link}")
        yield client
        reporter.note(f"done in {time.perf_counter() - start:.1f} s")


def check_open_files() -> None:
    """End with a sentence where too few files may be open to use a store, or to compute."""
    most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if 0 <= most < FEWEST_FILES:
        complain(
            f"at most {most} files may be open at once here; expected {FEWEST_FILES} or more; "
            f"raise the limit of the shell, container or unit (`ulimit -n {ENOUGH_FILES}`)."
        )
        raise typer.Exit(1)


def check_cluster(cluster: str) -> None:
    """Refuse a cluster that is none, or whose file is wrong, before any job is blamed for it."""
    from popdask.config.load import read_spec

    read_spec(cluster)


class _TerminatedError(BaseException):
    """SIGTERM has come."""


ENDS = (KeyboardInterrupt, _TerminatedError)


class _Stop:
    """Ends a run on a signal, and remembers it: Python drops what is raised in a finalizer."""

    def __init__(self) -> None:
        self._number: int | None = None
        self._again: threading.Timer | None = None

    def __call__(self, number: int, frame: FrameType | None) -> None:
        again, self._again = self._again, None
        if number == signal.SIGTERM == self._number and again is None:
            return  # once is enough
        self._number = number
        self.check()

    def dropped(self, unraisable: sys.UnraisableHookArgs) -> None:
        """Raise it again a moment later if it came in a finalizer; report all else."""
        if self._number is None or not isinstance(unraisable.exc_value, ENDS):
            sys.__unraisablehook__(unraisable)
            return
        # a signal to the thread itself, since only that wakes it where it waits
        here = threading.get_ident(), self._number
        self._again = threading.Timer(RAISED_AGAIN_SECONDS, signal.pthread_kill, here)
        self._again.start()

    def end(self) -> None:
        """Raise nothing from now on."""
        if self._again is not None:
            self._again.cancel()

    def check(self) -> None:
        """Raise what the signal stands for, if one has come."""
        if self._number is not None:
            raise KeyboardInterrupt if self._number == signal.SIGINT else _TerminatedError


class _AttentiveReporter(ConsoleReporter):
    """Writes to the console, and looks between stages whether a signal has come."""

    def __init__(self, stop: _Stop) -> None:
        super().__init__(out)
        self._stop = stop

    @contextmanager
    def stage(self, name: str, work: str) -> Iterator[None]:
        """Surround one stage."""
        self._stop.check()
        with super().stage(name, work):
            yield
        self._stop.check()


@contextmanager
def fetching() -> Iterator[Downloads]:
    """Show what is fetched, and turn what fails into one sentence and an exit code."""
    from popdask.datasets.transfer import Downloads, FetchError

    try:
        with _Watched() as watched:
            yield Downloads(watch=watched.watch, log=say)
    except FetchError as error:
        complain(error)
        raise typer.Exit(1) from error
    except OSError as error:
        complain(f"{error.filename or 'a file'} cannot be written ({error.strerror}).")
        raise typer.Exit(1) from error
    except KeyboardInterrupt:
        complain("stopped; what has come is kept, fetch again to go on.")
        raise typer.Exit(128 + signal.SIGINT) from None


class _Watched:
    """A bar for each file on a terminal; in a log, a line for each, and one now and then."""

    def __init__(self) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn())
        self._bars = Progress(*columns, TransferSpeedColumn(), console=out, transient=True)
        self._rows: dict[str, TaskID] = {}
        self._last_line: dict[str, float] = {}

    def __enter__(self) -> _Watched:
        if out.is_terminal:
            self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        if out.is_terminal:  # in a log, stopping prints an empty line
            self._bars.stop()

    def watch(self, name: str, done: int, total: int | None) -> None:
        """Show how far a file is."""
        whole = done == total
        if out.is_terminal:
            row = self._rows.get(name)
            if row is None:
                row = self._rows[name] = self._bars.add_task(name, total=total)
            self._bars.update(row, completed=done, total=total, visible=not whole)
        now = time.monotonic()
        if whole:
            say(f"✓ {name}  {done / 1e6:,.1f} MB")
        elif not out.is_terminal and now - self._last_line.get(name, now) > _LINE_SECONDS:
            of = "" if total is None else f" of {total / 1e6:,.1f}"
            say(f"· {name}  {done / 1e6:,.1f}{of} MB")
        else:
            self._last_line.setdefault(name, now)
            return
        self._last_line[name] = now
