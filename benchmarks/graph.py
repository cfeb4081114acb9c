"""Tasks per chunk over the whole job, and the time that building the graphs takes.

The job runs on one thread, and every graph that it hands to Dask's scheduler is counted as it
arrives there, after culling and fusing: its tasks, not constants and second names (aliases), which
nothing is computed for. All time that is not spent in tasks counts as building, though committing
to the store and a little training are among it.
"""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import dask
from dask._task_spec import Alias, DataNode
from dask.callbacks import Callback

from benchmarks.machine import Machine, Row, duration, timed
from benchmarks.wholejob import FRAMES, draw
from popdask.workflow.communities import run

TASKS, SECONDS = 60, 10  # what a chunk, and 1,024 of them, may take


class Counter(Callback):
    """Counts the tasks and aliases of all graphs, and the seconds that they run."""

    def __init__(self) -> None:
        self.tasks, self.aliases, self.running, self._since = 0, 0, 0.0, 0.0

    def _start(self, dsk: Mapping[Any, Any]) -> None:
        aliases = sum(isinstance(node, Alias) for node in dsk.values())
        constants = sum(isinstance(node, DataNode) for node in dsk.values())
        self.aliases += aliases
        self.tasks += len(dsk) - aliases - constants
        self._since = time.process_time()

    def _finish(self, dsk: Mapping[Any, Any], state: Any, errored: bool) -> None:
        self.running += time.process_time() - self._since


def rows(machine: Machine, *, quick: bool) -> Iterator[Row]:
    """Count the tasks of one job."""
    tiles, side = (1, 1) if quick else (8, 5), 128
    with tempfile.TemporaryDirectory() as folder:
        job, cells = draw(Path(folder) / "world", tiles, side)
        with dask.config.set(scheduler="sync"), Counter() as counter:
            outcome, spent = timed(run, job)
        grid = outcome.store.dataset()["population"]
    chunks = FRAMES * math.prod(math.ceil(grid.sizes[axis] / side) for axis in ("y", "x"))
    building = spent.cpu - counter.running
    yield Row(
        "graph, whole job",
        f"{chunks:,} chunks of {side}², {cells / 1e6:.1f} M cells",
        f"{counter.tasks / chunks:.1f} tasks per chunk, built in {duration(building)}",
        limit=f"{counter.tasks / chunks / TASKS:.0%} of {TASKS} tasks, "
        f"{building / SECONDS:.0%} of {SECONDS} s",
        also=f"{counter.tasks:,} tasks ran for {duration(counter.running)}; "
        f"{counter.aliases / chunks:.1f} aliases per chunk beside them",
    )
