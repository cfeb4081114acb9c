"""Many small regions in one run: whether open files, threads or memory grow from one to the next.

The regions are computed on one thread of a process of its own, by the synchronous scheduler, so
that all that is held is this process's. The first regions fill caches (of Numba, torch, allocators
and imports); what is held after them is compared with what is held after the last.
"""

from __future__ import annotations

import gc
import os
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import dask

from benchmarks.machine import Machine, Row, in_child
from popdask.synthetic import City, World
from popdask.workflow.operations import find_regions, run_regions
from popdask.workflow.runlog import LoggedRun

REGIONS, WARM = 200, 10
MEGABYTES = 50  # what 190 regions may add to memory: a quarter of a megabyte each

_JOB = """
name = "{name}"
pipeline = "communities"
[input]
frames = "../world_{{time:%Y}}.tif"
[encoder]
epochs = 1
[classes]
k = 3
sample = 2000
[communities]
eps = 3
min_samples = 8
[output]
store = "../stores/{name}.icechunk"
"""


@dataclass(frozen=True)
class Held:
    """What this process holds."""

    files: int
    """Open files, sockets and pipes."""
    threads: int
    """Threads of the operating system, those of libraries too."""
    python_threads: int
    """Those of Python alone."""
    memory: int
    """Bytes, anonymous: not of libraries, which other processes share or not."""


def rows(machine: Machine, *, quick: bool) -> Iterator[Row]:
    """Run many regions, and compare what is held after some and after all."""
    count, warm = (3, 2) if quick else (REGIONS, WARM)
    with tempfile.TemporaryDirectory() as folder:
        seconds, (first, *_, last) = in_child(run, folder, count, warm)
    grown = (last.memory - first.memory) / 1e6
    yield Row(
        f"regions, after {warm} and after all",
        f"{count} regions of 2 × 66 × 70 cells",
        f"{seconds / count:.2f} s a region",
        limit=f"{grown:+.0f} MB, {max(grown, 0) / MEGABYTES:.0%} of {MEGABYTES} MB",
        also=f"open files {first.files} and {last.files}, threads {first.threads} and "
        f"{last.threads} (of Python {first.python_threads} and {last.python_threads}), memory "
        f"{first.memory / 1e6:.0f} and {last.memory / 1e6:.0f} MB",
    )


def run(folder: str, count: int, warm: int) -> tuple[float, list[Held]]:
    """Run some regions; the seconds of all, and what is held after the warm ones, one by one."""
    jobs = draw(Path(folder), count)
    held: list[Held] = []
    done: list[str] = []

    def on_attempt(attempt: LoggedRun) -> None:
        assert attempt.good, attempt.error
        done.append(attempt.region)
        if len(done) >= warm:
            held.append(holding())

    start = time.perf_counter()
    with dask.config.set(scheduler="sync"):
        run_regions(find_regions([jobs]), on_attempt=on_attempt)
    return time.perf_counter() - start, held


def draw(folder: Path, count: int) -> Path:
    """Write two frames of two towns, and the job files of regions on them; the folder of these."""
    towns = [
        City(0, ((20.0, 20.0), (20.0, 22.0)), (9000,) * 2, ((8.0, 8.0),) * 2),
        City(1, ((45.0, 25.0),) * 2, (5000,) * 2, ((7.0, 7.0),) * 2),
    ]
    World(tuple(towns), shape=(66, 70), frames=2).write(folder)
    jobs = folder / "jobs"
    jobs.mkdir()
    for number in range(count):
        name = f"region-{number:03}"
        (jobs / f"{name}.toml").write_text(_JOB.format(name=name))
    return jobs


def holding() -> Held:
    """Count what this process holds, after the garbage is collected (Linux)."""
    gc.collect()
    process = Path("/proc/self")
    lines = (process / "smaps_rollup").read_text().splitlines()
    anonymous = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss_Anon:"))
    return Held(
        len(os.listdir(process / "fd")),  # noqa: PTH208
        len(os.listdir(process / "task")),  # noqa: PTH208
        threading.active_count(),
        anonymous,
    )
