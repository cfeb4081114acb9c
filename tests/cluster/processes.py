"""A Dask scheduler and its workers, as processes of their own, started as an operator does."""

import os
import re
import subprocess
import sys
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import psutil

PATIENCE_SECONDS = 60


@dataclass(frozen=True)
class Cluster:
    """Processes of a cluster, each of which a test may stop or kill."""

    address: str
    scheduler: psutil.Process
    workers: tuple[psutil.Process, ...]
    """As they were started: a nanny, or without one the worker itself."""


@contextmanager
def scheduler(workers, **options):
    """Start a scheduler and workers on the loopback; give the scheduler's address."""
    with cluster(workers, **options) as found:
        yield found.address


@contextmanager
def cluster(
    workers,
    *,
    protocol="tcp",
    scheduler_options=(),
    worker_options=(),
    nanny=False,
    environment=None,
):
    """Start a scheduler and workers on the loopback; give all of their processes."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"} | (environment or {})
    with ExitStack() as stack:

        def start(*arguments, stderr=subprocess.DEVNULL):
            return stack.enter_context(_dask(arguments, environment, stderr))

        listen = ["--host", "127.0.0.1", "--port", "0", "--dashboard-address", "127.0.0.1:0"]
        options = ["--protocol", protocol, *listen, *scheduler_options]
        first = start("scheduler", *options, stderr=subprocess.PIPE)
        address = _address(first)
        options = ["--nthreads", "1", "--no-dashboard", *worker_options]
        options += [] if nanny else ["--no-nanny"]
        others = [start("worker", address, *options) for _ in range(workers)]
        found = (psutil.Process(process.pid) for process in others)
        yield Cluster(address, psutil.Process(first.pid), tuple(found))


@contextmanager
def _dask(arguments, environment, stderr):
    process = subprocess.Popen(
        [sys.executable, "-m", "dask", *arguments],
        stdout=subprocess.DEVNULL,
        stderr=stderr,
        text=True,
        env=environment,
    )
    try:
        yield process
    finally:
        process.terminate()
        process.communicate(timeout=PATIENCE_SECONDS)


def _address(process):
    for line in process.stderr:
        if match := re.search(r"Scheduler at:\s+(\S+://\S+)", line):
            return match[1]
    raise AssertionError("the scheduler ended before it listened")
