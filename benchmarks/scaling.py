"""How the whole job scales: time per cell for 1, 4 and 16 times the cells, and a second worker.

Training is one epoch and hardly counts. Time per cell is that of the processor, on one thread;
the speed-up is on the clock, so it means little where something else is running. How much more two
processes do at once than one bounds it, and is measured beside it.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import dask

from benchmarks.cores import WORK, second_process
from benchmarks.machine import Machine, Row, Spent, duration, in_child, timed
from benchmarks.wholejob import draw
from popdask.cluster import connect
from popdask.workflow.communities import run

CHUNKS = 512


def rows(machine: Machine, *, quick: bool) -> Iterator[Row]:
    """Measure three sizes, then two workers on the largest."""
    sizes = [(1, 1), (2, 1)] if quick else [(1, 2), (2, 4), (4, 8)]
    first: float | None = None
    for tiles in sizes:
        spent, cells = in_child(on_one_thread, tiles)
        each = spent.cpu / cells * 1e6
        first = first or each
        yield Row(
            "scaling, cells",
            f"{cells / 1e6:.1f} M cells",
            f"{each:.2f} µs per cell",
            f"{first:.2f} µs with the fewest",
            f"{first / each:.2f} ×",
            also=f"{duration(spent.cpu)} in all",
        )
    walls, load = {}, os.getloadavg()[0]
    for workers in (1, 2):
        spent, cells = in_child(on_workers, sizes[-1], workers)
        walls[workers] = spent.wall
    bounds = {name: second_process(name, 0.2 if quick else 3.0) for name in WORK}
    yield Row(
        "scaling, 2 workers",
        f"{cells / 1e6:.1f} M cells",
        f"{duration(walls[2])} on the clock",
        f"1 worker {duration(walls[1])}",
        f"{walls[1] / walls[2]:.2f} ×",
        "2 processes at once: " + ", ".join(f"{name} {bounds[name]:.1f} ×" for name in WORK),
        f"load before it {load:.1f}",
    )


def on_one_thread(tiles: tuple[int, int]) -> tuple[Spent, int]:
    """Run the job in this process, once it is warm; what it took, and its cells."""
    with tempfile.TemporaryDirectory() as folder, dask.config.set(scheduler="sync"):
        run(draw(Path(folder) / "warm", (1, 1), CHUNKS)[0])
        job, cells = draw(Path(folder) / "world", tiles, CHUNKS)
        return timed(run, job)[1], cells


def on_workers(tiles: tuple[int, int], workers: int) -> tuple[Spent, int]:
    """Run the job on worker processes of one thread each, once they are warm."""
    with tempfile.TemporaryDirectory() as folder:
        cluster = Path(folder, "cluster.toml")
        cluster.write_text(f"workers = {workers}\narguments.threads_per_worker = 1\n")
        with connect(cluster):
            run(draw(Path(folder) / "warm", (1, 1), CHUNKS)[0])
            job, cells = draw(Path(folder) / "world", tiles, CHUNKS)
            return timed(run, job)[1], cells
