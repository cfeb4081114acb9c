"""What two processes do at once beside one: cores share the memory, and often more than that."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor

import numpy as np


def _product() -> Callable[[], object]:
    import torch

    torch.set_num_threads(1)
    matrix = torch.rand(1024, 1024)
    return lambda: torch.mm(matrix, matrix)


def _copy() -> Callable[[], object]:
    source = np.ones(2**24, np.float32)
    target = np.empty_like(source)
    return lambda: np.copyto(target, source)


def _python() -> Callable[[], object]:
    return lambda: sum(i * i for i in range(10_000))


#: What is done again and again, by name.
WORK = {"matrix product": _product, "memory copy": _copy, "Python": _python}


def second_process(name: str, seconds: float) -> float:
    """How many times as much two processes do of some work as one, each for some seconds."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(2, mp_context=context) as processes:

        def rate(count: int, seconds: float) -> float:
            return sum(processes.map(_rate, [name] * count, [seconds] * count))

        rate(2, seconds / 4)  # both have started and are warm
        return rate(2, seconds) / rate(1, seconds)


def _rate(name: str, seconds: float) -> float:
    """Do some work for some seconds: times per second."""
    work = WORK[name]()
    work()
    start, count = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        work()
        count += 1
    return count / (time.perf_counter() - start)
