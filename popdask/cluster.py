"""Where a job runs: the only place that makes a Dask client.

A job does not say where it runs; the door does. ``local`` is this machine, and ``tcp://…`` or
``tls://…`` a scheduler that is already there.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from dask.system import CPU_COUNT
from distributed import Client, LocalCluster, Worker, WorkerPlugin
from distributed.comm import CommClosedError
from distributed.system import MEMORY_LIMIT

from popdask.errors import InputError

#: Memory for one worker process, with its libraries and some default chunks, in bytes. The limits
#: that count cores and memory are Dask's, which know control groups.
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
            client.register_plugin(_QuietInputErrors())
            yield client
    elif spec.startswith(("tcp://", "tls://")):
        with _remote(spec) as client:
            yield client
    else:
        raise InputError(
            f"the cluster {spec!r} is unknown: give local, or a scheduler's address such as "
            "tcp://localhost:8786."
        )


class _QuietInputErrors(WorkerPlugin):
    """Leaves what a user can mend to the driver's one sentence, without a worker's traceback."""

    def setup(self, worker: Worker) -> None:
        logging.getLogger("distributed.worker").addFilter(_is_no_input_error)


def _is_no_input_error(record: logging.LogRecord) -> bool:
    return "InputError(" not in record.getMessage()


def _local() -> LocalCluster:
    workers = max(1, min(CPU_COUNT, MEMORY_LIMIT // WORKER_MEMORY))
    return LocalCluster(
        n_workers=workers,
        threads_per_worker=max(1, CPU_COUNT // workers),
        memory_limit=MEMORY_LIMIT // workers,
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
