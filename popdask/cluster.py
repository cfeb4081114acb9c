"""Where a job runs: the only place that makes a Dask client.

A job does not say where it runs; the door does. ``local`` is this machine, and ``tcp://…`` or
``tls://…`` a scheduler that is already there.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
from distributed import Client, LocalCluster
from distributed.comm import CommClosedError

from popdask.errors import InputError

#: Memory that a worker process must have for one default chunk and its libraries, in bytes.
WORKER_MEMORY = 2 * 2**30


@contextmanager
def connect(spec: str = "local") -> Iterator[Client]:
    """Connect to the cluster that a job runs on.

    Parameters
    ----------
    spec
        ``"local"`` for worker processes on this machine, as many as its cores and memory allow,
        with one thread each; or the address of a scheduler, ``"tcp://host:port"`` or
        ``"tls://host:port"``.

    Yields
    ------
    distributed.Client
        Closed at the end, with the workers if they were made here.

    Raises
    ------
    InputError
        If the specification is unknown, or no scheduler answers at the address.

    Examples
    --------
    >>> from popdask.cluster import connect
    >>> with connect("local") as client:
    ...     client.submit(sum, [1, 2, 3]).result()
    6
    """
    if spec == "local":
        with _local() as cluster, Client(cluster) as client:
            yield client
    elif spec.startswith(("tcp://", "tls://")):
        with _remote(spec) as client:
            yield client
    else:
        raise InputError(
            f"the cluster {spec!r} is unknown: give local, or a scheduler's address such as "
            "tcp://localhost:8786."
        )


def _local() -> LocalCluster:
    cores = len(os.sched_getaffinity(0))
    memory = psutil.virtual_memory().available
    workers = max(1, min(cores, memory // WORKER_MEMORY))
    return LocalCluster(
        n_workers=workers,
        threads_per_worker=max(1, cores // workers),
        memory_limit=memory // workers,
        dashboard_address="127.0.0.1:0",
    )


def _remote(address: str) -> Client:
    try:
        return Client(address, timeout="10s")
    except (OSError, TimeoutError, CommClosedError) as error:
        raise InputError(
            f"no Dask scheduler answers at {address} ({error}): start one with `dask scheduler`, "
            "or check the address."
        ) from error
