"""From a specification to a client: the one door to every kind of cluster."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import dask
from distributed import Client, Security
from distributed.comm import CommClosedError
from distributed.comm import connect as connect_comm

from popdask.cluster import gateway, kubernetes, local, queues
from popdask.cluster.memory import KeptMemory
from popdask.cluster.place import Place, security
from popdask.cluster.quiet import QuietWorkers
from popdask.cluster.spec import ADDRESS, Address, Local, Spec, load_spec
from popdask.cluster.waiting import scheduler_loss_told, wait_for_workers
from popdask.cluster.watching import worker_loss_told
from popdask.errors import InputError

SCHEDULER_SECONDS = 10


@contextmanager
def _there(spec: Address) -> Iterator[Place]:
    """A scheduler that is already there; it and its workers are left running."""
    yield Place(
        spec.address,
        security(spec.tls),
        says=lambda: f"start one with `dask worker {spec.address}`",
    )


_STARTS: dict[str, Callable[[Any], AbstractContextManager[Place]]] = {
    "local": local.start,
    "address": _there,
    "slurm": queues.start,
    "pbs": queues.start,
    "lsf": queues.start,
    "kubernetes": kubernetes.start,
    "gateway": gateway.start,
}


@contextmanager
def connect(
    spec: str | Path = "local", *, tell: Callable[[str], None] | None = None
) -> Iterator[Client]:
    """Connect to the cluster that a job runs on.

    Parameters
    ----------
    spec
        ``"local"`` for worker processes on this machine, as many as its cores and memory allow,
        with one thread each; the address of a scheduler, ``"tcp://host:port"`` or
        ``"tls://host:port"``; or a TOML file such as ``"deploy/slurm/cluster.toml"``.
    tell
        Is called with a line now and then while the workers are waited for, and when all have left.

    Yields
    ------
    distributed.Client
        With the workers that the run needs; others may join later. It is closed at the end, with
        the workers if they were made here.

    Raises
    ------
    InputError
        If the specification is unknown or wrong, or no scheduler answers at the address.
    NoWorkersError
        If the workers do not come in time; the message says what the queue says. Its kinds
        LostSchedulerError, if the scheduler ends while it is used, and LostWorkersError, if all
        workers leave meanwhile and none comes back in that time.

    Examples
    --------
    >>> from popdask.cluster import connect
    >>> with connect("local") as client:
    ...     client.submit(sum, [1, 2, 3]).result()
    6
    """
    settings, tell = _settings(str(spec)), tell or (lambda line: None)
    with _STARTS[settings.kind](settings) as place, _client(place) as client:
        if not isinstance(settings, Address):
            client.register_plugin(QuietWorkers())
            client.register_plugin(KeptMemory())
        with scheduler_loss_told(client):
            wait_for_workers(client, place, settings.workers, tell)
            with worker_loss_told(client, place, settings.workers, tell):
                yield client


def _settings(spec: str) -> Spec:
    if spec == "local":
        return Local(kind="local")
    if re.search(ADDRESS, spec):
        return Address(kind="address", address=spec)
    if spec.endswith(".toml"):
        return load_spec(spec)
    raise InputError(
        f"the cluster {spec!r} is unknown: give local, a scheduler's address such as "
        "tcp://localhost:8786, or a TOML file such as deploy/slurm/cluster.toml."
    )


def _client(place: Place) -> Client:
    # A client that cannot connect leaves its event loop behind, so a bare connection is tried
    # first, and in a thread, since a notebook's own loop is running in this one.
    if isinstance(place.target, str):
        with ThreadPoolExecutor(1) as thread:
            thread.submit(asyncio.run, _knock(place.target, place.security)).result()
    options = {"security": place.security} if place.security else {}
    # A graph that carries a trained model, so that it does not die with a worker, is no mistake.
    dask.config.set({"distributed.admin.large-graph-warning-threshold": "200MB"})
    return Client(place.target, timeout=SCHEDULER_SECONDS, **options)


async def _knock(address: str, certificates: Security | None) -> None:
    """Connect to a scheduler and leave again, or say in one sentence why that is not possible."""
    arguments = (certificates or Security()).get_connection_args("client")
    try:
        connection = await connect_comm(address, timeout=SCHEDULER_SECONDS, **arguments)
    except TypeError as error:  # distributed's answer to a TLS address without certificates
        raise InputError(
            f"the scheduler at {address} wants certificates: give them in a cluster file, as "
            "[tls] folder."
        ) from error
    except (OSError, CommClosedError) as error:
        raise InputError(
            f"no Dask scheduler answers at {address} ({error}): start one with `dask scheduler`, "
            "or check the address."
        ) from error
    await connection.close()
