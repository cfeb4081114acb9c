"""What this machine can do, how long a piece of work takes, and the table that both end in.

Times are seconds of the processor, so that other work on the machine matters little; rows that
need the clock on the wall (two workers against one) say so.
"""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import astuple, dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Row:
    """One comparison, in words."""

    part: str
    on: str
    """Size of the work."""
    popdask: str
    peer: str = "–"
    ratio: str = "–"
    """How many times faster popdask is."""
    limit: str = "–"
    """Share of what the machine can do, or of the room that is given."""
    also: str = ""
    """What else was seen: whether answers are equal, memory, events."""


@dataclass(frozen=True)
class Spent:
    """What a piece of work took."""

    cpu: float
    """Seconds of the processor, all threads together."""
    wall: float
    """Seconds on the clock."""
    peak: int = 0
    """Bytes of memory above those at its start, at most."""


class Machine:
    """The machine's own limits, each measured when it is first asked for, with one thread."""

    @cached_property
    def matrix_rate(self) -> float:
        """float32 operations per second of a matrix product, 2048 × 2048."""
        import torch

        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        matrix = torch.rand(2048, 2048)
        product = torch.empty_like(matrix)
        spent = best(lambda: torch.mm(matrix, matrix, out=product), 5)
        torch.set_num_threads(threads)
        return 2 * 2048**3 / spent.cpu

    @cached_property
    def copy_rate(self) -> float:
        """Bytes per second, read and written, of a copy between two arrays of 64 MiB."""
        source = np.ones(2**24, np.float32)
        target = np.empty_like(source)
        return 2 * source.nbytes / best(lambda: np.copyto(target, source), 9).cpu

    @cached_property
    def fresh_copy_rate(self) -> float:
        """The same, into memory that is newly allocated, as results are."""
        source = np.ones(2**24, np.float32)
        return 2 * source.nbytes / best(source.copy, 9).cpu

    def __str__(self) -> str:
        """Name the processor, its cores, the memory, and the limits."""
        cores, load = len(os.sched_getaffinity(0)), os.getloadavg()[0]
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
        return (
            f"{_processor()}, {cores} cores, {memory:.0f} GiB; one thread multiplies float32 "
            f"matrices at {self.matrix_rate / 1e9:.0f} GFLOP/s and copies memory at "
            f"{self.copy_rate / 1e9:.1f} GB/s (read and written; into newly allocated memory "
            f"{self.fresh_copy_rate / 1e9:.1f}); load at the start {load:.1f}"
        )


def timed(work: Callable[..., Any], *arguments: Any) -> tuple[Any, Spent]:
    """Do some work once and tell what it took."""
    wall, cpu = time.perf_counter(), time.process_time()
    result = work(*arguments)
    return result, Spent(time.process_time() - cpu, time.perf_counter() - wall)


def best(work: Callable[[], object], repeats: int = 3, *, warm: bool = True) -> Spent:
    """Time the fastest of some runs, after one to warm up."""
    if warm:
        work()
    return min((timed(work)[1] for _ in range(repeats)), key=lambda spent: spent.cpu)


def in_child(work: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function of a module in a process of its own, which ends with it."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as fresh:
        return fresh.submit(work, *arguments).result()


def measured(work: Callable[[], Any]) -> tuple[Any, Spent]:
    """Do some work and tell what it took, with the peak of this process's memory (Linux)."""
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again at what is held now
    before = _memory("VmRSS")
    result, spent = timed(work)
    return result, Spent(spent.cpu, spent.wall, _memory("VmHWM") - before)


def table(rows: Iterable[Row]) -> str:
    """Lay rows out as a Markdown table, aligned for reading as it is."""
    heads = ("part", "on", "popdask", "peer", "ratio", "limit", "also")
    assert heads == tuple(field.name for field in fields(Row))
    cells = [heads, *map(astuple, rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(heads))]
    lines = [_line(line, widths) for line in cells]
    lines.insert(1, _line(["-" * width for width in widths], widths))
    return "\n".join(lines)


def duration(seconds: float) -> str:
    """Seconds with a sensible number of digits."""
    return (
        f"{seconds:.3f} s"
        if seconds < 1
        else f"{seconds:.2f} s"
        if seconds < 10
        else f"{seconds:.0f} s"
    )


def times(ratio: float) -> str:
    """How many times, in words."""
    return f"{ratio:.1f} ×" if ratio < 10 else f"{ratio:,.0f} ×"


def _memory(kind: str) -> int:
    """Read a line of this process's memory account, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(kind))


def _processor() -> str:
    names = [
        line.split(":", 1)[1].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    return names[0] if names else "an unnamed processor"


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    return (
        "| "
        + " | ".join(f"{cell:<{width}}" for cell, width in zip(cells, widths, strict=True))
        + " |"
    )
