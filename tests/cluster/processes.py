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
        listen = ["--host", "127.0.0.1", "--port", "0", "--dashboard-address", "127.0.0.1:0"]
        command = ["scheduler", "--protocol", protocol, *listen, *scheduler_options]
        first = stack.enter_context(_dask(command, environment, subprocess.PIPE))
        address = _address(first)
        options = [*worker_options, *([] if nanny else ["--no-nanny"])]
        others = stack.enter_context(_workers(address, workers, options, environment))
        yield Cluster(address, psutil.Process(first.pid), others)


@contextmanager
def workers(address, number, environment=None):
    """Start workers for a scheduler that is there."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"} | (environment or {})
    with _workers(address, number, ["--no-nanny"], environment) as found:
        yield found


@contextmanager
def _workers(address, number, options, environment):
    command = ["worker", address, "--nthreads", "1", "--no-dashboard", *options]
    with ExitStack() as stack:
        started = [
            stack.enter_context(_dask(command, environment, subprocess.DEVNULL))
            for _ in range(number)
        ]
        yield tuple(psutil.Process(process.pid) for process in started)


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
