"""A Dask scheduler and its workers, as processes of their own, started as an operator does."""

import os
import re
import subprocess
import sys
from contextlib import ExitStack, contextmanager

PATIENCE_SECONDS = 60


@contextmanager
def scheduler(workers, *, protocol="tcp", scheduler_options=(), worker_options=(), logs=None):
    """Start a scheduler and workers on the loopback; give the scheduler's address."""
    with ExitStack() as stack:
        listen = ["--host", "127.0.0.1", "--port", "0", "--dashboard-address", "127.0.0.1:0"]
        command = ["scheduler", "--protocol", protocol, *listen, *scheduler_options]
        process = stack.enter_context(_dask(*command, stderr=subprocess.PIPE))
        address = _address(process)
        for _ in range(workers):
            options = ["--nthreads", "1", "--no-dashboard", "--no-nanny", *worker_options]
            stack.enter_context(_dask("worker", address, *options, stderr=subprocess.DEVNULL))
        yield address


@contextmanager
def _dask(*arguments, stderr):
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
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
