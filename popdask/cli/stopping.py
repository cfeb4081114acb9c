"""The end of a run in order: Ctrl-C and SIGTERM unwind it, and what is finished is kept."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from types import FrameType
from typing import TYPE_CHECKING

import typer

from popdask import console
from popdask.progress import ConsoleReporter, Reporter

if TYPE_CHECKING:
    from distributed import Client

    from popdask.pipelines.conductor import Workers


@contextmanager
def stoppable(
    name: str, cluster: str, left: str = "what is finished is kept, run the job again to go on"
) -> Iterator[tuple[Reporter, Workers]]:
    """Surround a run: what it is told of, where it gets workers, and an end in order on a signal.

    Ctrl-C and SIGTERM unwind the run: workers end and the region is free when the process ends.
    What it leaves is said then.
    """
    stop = _Stop()
    reporter = _AttentiveReporter(stop)
    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    sys.unraisablehook, unraisable = stop.dropped, sys.unraisablehook
    try:
        yield reporter, partial(_workers, name, cluster, reporter)
    except ENDS as stopped:
        console.complain(f"stopped; {left}.")
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
    from popdask.cluster import connect

    start = time.perf_counter()
    with connect(cluster, tell=reporter.note) as client:
        reporter.note(f"{name}: dashboard at {client.dashboard_link}")
        yield client
        reporter.note(f"done in {time.perf_counter() - start:.1f} s")


class _TerminatedError(BaseException):
    """SIGTERM has come."""


ENDS = (KeyboardInterrupt, _TerminatedError)
RAISED_AGAIN_SECONDS = 0.1


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
        """Raise it again a moment later if it came in a finalizer; tell of all else."""
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
        super().__init__(console.out)
        self._stop = stop

    @contextmanager
    def stage(self, name: str, work: str) -> Iterator[None]:
        """Surround one stage."""
        self._stop.check()
        with super().stage(name, work):
            yield
        self._stop.check()
