"""What is seen of a run: one line for each stage, and a bar where there is a terminal."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from popdask.io.paths import without_keys

if TYPE_CHECKING:
    from distributed import Client, Scheduler

POLL_SECONDS = 0.5


def size_of(size: float) -> str:
    """Format a size in bytes in the unit that suits it.

    Examples
    --------
    >>> size_of(4), size_of(51_200), size_of(2.5e9)
    ('4 bytes', '51.2 kB', '2.5 GB')
    """
    for unit, bytes_ in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= bytes_:
            return f"{size / bytes_:,.1f} {unit}"
    return f"{size:.0f} bytes"


class Reporter:
    """Says nothing; the base of those that do."""

    @contextmanager
    def stage(self, name: str, work: str) -> Iterator[None]:
        """Surround one stage of a run; ``work`` says what it has to do."""
        yield

    def note(self, text: str) -> None:
        """Print one line."""


class ConsoleReporter(Reporter):
    """Writes to a console."""

    def __init__(self, console: Console) -> None:
        self._console = console

    @contextmanager
    def stage(self, name: str, work: str) -> Iterator[None]:
        """Surround one stage: a moving bar (in a log, a line), then a line with its time."""
        start = time.perf_counter()
        if not self._console.is_terminal:
            self._console.print(f"· {name:<18} {work}", highlight=False)
        with self._bar(name) if self._console.is_terminal else nullcontext():
            yield
        seconds = time.perf_counter() - start
        self._console.print(f"[green]✓[/] {name:<18} {work:<18} {seconds:7.1f} s", highlight=False)

    def note(self, text: str) -> None:
        """Print one line, as it is: a path may have brackets."""
        self._console.print(without_keys(text), highlight=False, markup=False, soft_wrap=True)

    @contextmanager
    def _bar(self, name: str) -> Iterator[None]:
        columns = (SpinnerColumn(), TextColumn(name), BarColumn(), TextColumn("{task.fields[of]}"))
        with Progress(*columns, TimeElapsedColumn(), console=self._console, transient=True) as bar:
            stop = threading.Event()
            thread = threading.Thread(target=_follow, args=(bar, name, stop), daemon=True)
            thread.start()
            try:
                yield
            finally:
                stop.set()
                thread.join()


def _follow(bar: Progress, name: str, stop: threading.Event) -> None:
    """Move the bar with the scheduler's counts until the stage stops."""
    row = bar.add_task(name, total=None, of="")
    client = current_client()
    if client is None:  # the bar just turns
        return
    before, _ = client.run_on_scheduler(_count_tasks)
    while not stop.wait(POLL_SECONDS):
        finished, under_way = client.run_on_scheduler(_count_tasks)
        done = finished - before
        if done + under_way:
            bar.update(
                row, completed=done, total=done + under_way, of=f"{done}/{done + under_way} tasks"
            )


def current_client() -> Client | None:
    """The client of the cluster in use; None with plain Dask."""
    from distributed import get_client

    try:
        return get_client()
    except ValueError:
        return None


def current_workers() -> list[dict[str, Any]]:
    """What the scheduler knows of each worker of the cluster in use; none with plain Dask."""
    client = current_client()
    return [] if client is None else [*client.scheduler_info(n_workers=-1)["workers"].values()]


def _count_tasks(dask_scheduler: Scheduler) -> tuple[int, int]:
    """Count the tasks that the scheduler has finished so far, and those under way."""
    finished = sum(
        prefix.state_counts["memory"] for prefix in dask_scheduler.task_prefixes.values()
    )
    under_way = sum(
        count
        for group in dask_scheduler.task_groups.values()
        for state, count in group.states.items()
        if state in ("waiting", "queued", "no-worker", "processing")
    )
    return finished, under_way
