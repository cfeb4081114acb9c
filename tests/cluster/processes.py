"""A Dask scheduler and its workers, as processes of their own, started as an operator does."""

import json
import os
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

PATIENCE_SECONDS = 300


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
        listen = ["--host", "127.0.0.1", "--port", "0", "--no-dashboard"]
        note = Path(stack.enter_context(tempfile.TemporaryDirectory()), "scheduler.json")
        listen += ["--scheduler-file", str(note)]
        command = ["scheduler", "--protocol", protocol, *listen, *scheduler_options]
        first = stack.enter_context(_dask(command, environment))
        address = _address(first, note)
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
        started = [stack.enter_context(_dask(command, environment)) for _ in range(number)]
        yield tuple(psutil.Process(process.pid) for process in started)


@contextmanager
def _dask(arguments, environment):
    process = subprocess.Popen(
        [sys.executable, "-m", "dask", *arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=environment,
    )
    try:
        yield process
    finally:
        process.terminate()
        process.wait(PATIENCE_SECONDS)


def _address(scheduler, note):
    """Wait until a scheduler has put down where it listens."""
    while scheduler.poll() is None:
        try:
            return json.loads(note.read_text())["address"]
        except (FileNotFoundError, json.JSONDecodeError):  # it is still to be written
            time.sleep(0.05)
    raise AssertionError("the scheduler ended before it listened")
