"""Workers on this machine: one process per core, one thread each, and freed memory kept.

The cores, memory and GPUs are those of this machine, or of the batch job on it. Dask starts workers
with an allocator that gives every freed byte back to the system at once. Rasters come and go by the
megabyte, and the system must clear each page anew: a fifth of a run's time, and half of a network's
training. Keeping some of it costs a worker 256 MiB at most.
"""

from __future__ import annotations

import ctypes
import logging
import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from dask.system import CPU_COUNT
from dask.utils import parse_bytes
from distributed import LocalCluster, Worker, WorkerPlugin
from distributed.system import MEMORY_LIMIT

from popdask.errors import InputError

#: Memory for one worker process, with its libraries and some default chunks, in bytes.
WORKER_MEMORY = 2 * 2**30
#: Of the dashboard; other machines reach it only if asked, as with ":8787".
DASHBOARD = "127.0.0.1:0"

#: Where SLURM, PBS and LSF say how many cores of this node belong to the job.
_CORES = ("SLURM_CPUS_ON_NODE", "NCPUS", "LSB_DJOB_NUMPROC")

#: Numbers of glibc's ``mallopt``.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_KEPT = 2**28  # bytes, at the end of the heap
_LARGE = 2**26  # bytes, from which an array is a mapping of its own, given back at once

#: What workers need not log, since the driver says it in one sentence: parts, by logger.
_LOGGED_BY_THE_DRIVER = {
    "distributed.worker": (
        "InputError(",  # what a user can mend, without a traceback
        "Failed to communicate with scheduler during heartbeat",  # the driver sees that it is gone
        "Worker stream died during communication",  # its nanny logs a worker that dies
        "failed during get data",
    ),
    # What a worker was about to do when it was asked to end.
    "distributed.worker.state_machine": ("ended with CancelledError",),
}


def cores_at_hand(environ: Mapping[str, str] = os.environ) -> int:
    """Count the cores that this process may use, by the batch system and Dask's own limit."""
    given = [int(environ[name]) for name in _CORES if environ.get(name, "").isdigit()]
    return max(1, min([CPU_COUNT, *given]))


def memory_at_hand(environ: Mapping[str, str] = os.environ) -> int:
    """Return the memory that this process may use, in bytes."""
    whole = int(environ.get("SLURM_MEM_PER_NODE", "0") or 0)
    each = int(environ.get("SLURM_MEM_PER_CPU", "0") or 0)
    given = whole or each * int(environ.get("SLURM_CPUS_ON_NODE", "1"))
    return min(MEMORY_LIMIT, given * 2**20) if given else int(MEMORY_LIMIT)


def gpus_at_hand(environ: Mapping[str, str] = os.environ) -> list[str]:
    """Name the GPUs that this process may use, as CUDA_VISIBLE_DEVICES does."""
    visible = environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [name.strip() for name in visible.split(",") if name.strip() not in ("", "-1")]
    if shutil.which("nvidia-smi") is None:
        return []
    command = ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"]
    listed = subprocess.run(command, capture_output=True, text=True, check=False)
    return listed.stdout.split() if listed.returncode == 0 else []


def workers_at_hand(cores: int, memory: int) -> tuple[int, int]:
    """Share cores and memory among worker processes; give their number and the threads of each."""
    workers = max(1, min(cores, memory // WORKER_MEMORY))
    return workers, max(1, cores // workers)


def local_cluster(
    workers: tuple[int, int] | None = None,
    *,
    gpus: bool = False,
    threads_per_worker: int | None = None,
    memory_limit: str | int | None = None,
    **arguments: Any,
) -> LocalCluster:
    """Start the fewest to the most workers on this machine; other arguments are LocalCluster's."""
    names, cores, memory = gpus_at_hand() if gpus else [], cores_at_hand(), memory_at_hand()
    if gpus and not names:
        raise InputError("[arguments] gpus is true, but no GPU is found: nvidia-smi lists none.")
    fewest, most = workers or (workers_at_hand(cores, memory)[0],) * 2
    if gpus:  # one worker for each
        fewest = most = min(workers[1], len(names)) if workers else len(names)
    _check_memory(memory_limit, most, memory)
    arguments = {
        "dashboard_address": DASHBOARD,
        "threads_per_worker": threads_per_worker or (1 if gpus else max(1, cores // most)),
        "memory_limit": memory_limit or memory // most,
    } | arguments
    # On a busy machine workers are slow to end; they are killed in time.
    logging.getLogger("distributed.nanny").addFilter(_is_no_slow_end)
    cluster: LocalCluster
    with _ctrl_c_ignored():
        if gpus:
            cluster = _OneGpuEach(names[:most], resources={"GPU": 1}, **arguments)
            cluster.scale(most)
        else:
            cluster = LocalCluster(n_workers=fewest, **arguments)
    cluster.adapt(minimum=fewest, maximum=most)  # equal bounds too: it replaces lost workers
    return cluster


def _check_memory(limit: str | int | None, workers: int, memory: int) -> None:
    """Refuse more memory than there is."""
    each = parse_bytes(limit) if limit else 0
    if workers * each > memory:
        raise InputError(
            f"[arguments] memory_limit asks for {workers} × {each / 2**30:.3g} GiB, but there are "
            f"{memory / 2**30:.3g} GiB: ask for fewer workers or for less memory."
        )


@contextmanager
def _ctrl_c_ignored() -> Iterator[None]:
    """Start processes that Ctrl-C of a terminal never reaches; the run ends them itself."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)


def _is_no_slow_end(record: logging.LogRecord) -> bool:
    return "Worker process still alive" not in record.getMessage()


class _OneGpuEach(LocalCluster):
    """Workers that see one GPU each."""

    def __init__(self, names: list[str], **options: Any) -> None:
        self._gpus = names
        super().__init__(n_workers=0, **options)

    def new_worker_spec(self) -> dict[Any, dict[str, Any]]:
        """Describe the next worker: the same as the others, with a GPU of its own."""
        ((name, worker),) = super().new_worker_spec().items()
        gpu = self._gpus[name % len(self._gpus)]
        options = worker["options"] | {"env": {"CUDA_VISIBLE_DEVICES": gpu}}
        return {name: worker | {"options": options}}


class WorkerSetup(WorkerPlugin):
    """Lets workers that end with their run keep freed memory, and log what the driver does not."""

    name = "popdask-setup"

    def setup(self, worker: Worker) -> None:
        """Set the allocator and the log filters of a worker's process."""
        keep_freed_memory()
        for logger in _LOGGED_BY_THE_DRIVER:
            logging.getLogger(logger).addFilter(_is_not_the_drivers)


def _is_not_the_drivers(record: logging.LogRecord) -> bool:
    message = record.getMessage()
    return not any(part in message for part in _LOGGED_BY_THE_DRIVER.get(record.name, ()))


def keep_freed_memory() -> bool:
    """Let this process use freed memory again; False where the C library is not glibc."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return bool(mallopt(_TRIM_THRESHOLD, _KEPT) and mallopt(_MMAP_THRESHOLD, _LARGE))
