"""Worker processes on this machine."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

import dask
from distributed import LocalCluster

from popdask.cluster.machine import cores_at_hand, gpus_at_hand, memory_at_hand, workers_at_hand
from popdask.cluster.place import Place, needs, security
from popdask.cluster.spec import Local
from popdask.errors import InputError

#: A worker that died, and is not back after so long, gives its place to another one.
RESTART_SECONDS = 120


@contextmanager
def start(spec: Local) -> Iterator[Place]:
    """Start workers on this machine; they end with the block.

    Parameters
    ----------
    spec
        The settings; what they leave open follows from the cores, memory and GPUs at hand.

    Raises
    ------
    InputError
        If GPUs are asked for and there are none, or more memory than there is, or the dashboard
        has no place.
    """
    # On a busy machine a worker that is started again is not there at once.
    dask.config.set({"distributed.deploy.lost-worker-timeout": RESTART_SECONDS})
    with _deaf_to_ctrl_c(), _dashboard_told(spec):
        cluster = _with_gpus(spec) if spec.workers.gpu else _plain(spec)
    with _quiet_ends(), cluster:
        yield Place(cluster, security(spec.tls))


@contextmanager
def _dashboard_told(spec: Local) -> Iterator[None]:
    """Say in one sentence that a scheduler does not start where its dashboard should be."""
    try:
        yield
    except RuntimeError as error:
        if spec.dashboard == Local(kind="local").dashboard:
            raise
        raise InputError(
            f"no scheduler starts with the dashboard {spec.dashboard!r} ({error.__cause__}): give "
            'an address of this machine such as "127.0.0.1:0".'
        ) from error


@contextmanager
def _quiet_ends() -> Iterator[None]:
    """Say nothing of workers that are slow to end, on a busy machine: they are killed in time."""
    log = logging.getLogger("distributed.nanny")
    log.addFilter(_is_no_slow_end)
    try:
        yield
    finally:
        log.removeFilter(_is_no_slow_end)


def _is_no_slow_end(record: logging.LogRecord) -> bool:
    return "Worker process still alive" not in record.getMessage()


@contextmanager
def _deaf_to_ctrl_c() -> Iterator[None]:
    """Start processes that Ctrl-C does not reach.

    A terminal sends it to every process. Workers that are started while it is ignored ignore it
    for good; the run itself hears it as soon as they are there, and ends them.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    heard = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, heard)


def _plain(spec: Local) -> LocalCluster:
    """One process per core where the memory allows, with one thread each."""
    asked = spec.workers
    cores, memory = cores_at_hand(), memory_at_hand()
    fewest, most = asked.bounds or (workers_at_hand(cores, memory)[0],) * 2
    _check_memory(spec, most, memory)
    cluster = LocalCluster(
        n_workers=fewest,
        threads_per_worker=asked.threads or max(1, cores // most),
        memory_limit=asked.memory or memory // most,
        **_addresses(spec),
    )
    cluster.adapt(minimum=fewest, maximum=most)  # with equal bounds too: it replaces lost workers
    return cluster


def _with_gpus(spec: Local) -> Any:
    """One process per GPU, which sees that one alone."""
    asked, names = spec.workers, gpus_at_hand()
    if not names:
        raise InputError("[workers] gpu is true, but no GPU is found: nvidia-smi lists none.")
    count = min(asked.bounds[1], len(names)) if asked.bounds else len(names)
    options = {
        "threads_per_worker": asked.threads or 1,
        "memory_limit": asked.memory or memory_at_hand() // count,
        "resources": {"GPU": 1},
        **_addresses(spec),
    }
    if find_spec("dask_cuda"):
        cuda = needs("dask_cuda", "gpu", "workers with a GPU")
        cluster = cuda.LocalCUDACluster(CUDA_VISIBLE_DEVICES=",".join(names[:count]), **options)
    else:
        cluster = _OneGpuEach(names[:count], **options)
        cluster.scale(count)
    cluster.adapt(minimum=count, maximum=count)
    return cluster


class _OneGpuEach(LocalCluster):
    """Workers that see one GPU each, for machines without dask-cuda."""

    def __init__(self, names: list[str], **options: Any) -> None:
        self._gpus = names
        super().__init__(n_workers=0, **options)

    def new_worker_spec(self) -> dict[Any, dict[str, Any]]:
        """Describe the next worker: the same as the others, with a GPU of its own."""
        ((name, worker),) = super().new_worker_spec().items()
        gpu = self._gpus[name % len(self._gpus)]
        options = worker["options"] | {"env": {"CUDA_VISIBLE_DEVICES": gpu}}
        return {name: worker | {"options": options}}


def _addresses(spec: Local) -> dict[str, Any]:
    """Where scheduler and dashboard listen, and with which certificates."""
    certificates = security(spec.tls)
    encrypted = {"security": certificates, "protocol": "tls://"} if certificates else {}
    return {"dashboard_address": spec.dashboard, **encrypted}


def _check_memory(spec: Local, workers: int, memory: int) -> None:
    each = spec.workers.memory or 0
    if workers * each > memory:
        raise InputError(
            f"[workers] asks for {workers} × {each / 2**30:.3g} GiB, but there are "
            f"{memory / 2**30:.3g} GiB: ask for fewer workers or for less memory."
        )
