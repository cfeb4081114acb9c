"""How workers keep the memory that their arrays have left.

Dask starts workers with an allocator that gives every freed byte back to the system at once.
Rasters come and go by the megabyte, and the system must clear each page anew: a fifth of a run's
time, and half of a network's training. Keeping some of it costs a worker 256 MiB at most.
"""

from __future__ import annotations

import ctypes

from distributed import Worker, WorkerPlugin

#: Numbers of glibc's ``mallopt``.
TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3
KEPT = 2**28  # bytes, at the end of the heap
LARGE = 2**26  # bytes, from which an array is a mapping of its own, given back at once


class KeptMemory(WorkerPlugin):
    """Lets workers use freed memory again, where the C library is glibc."""

    name = "popdask-kept-memory"

    def setup(self, worker: Worker) -> None:
        """Set the allocator of a worker's process."""
        keep_freed_memory()


def keep_freed_memory() -> bool:
    """Let this process use freed memory again before it goes back to the system.

    Returns
    -------
    bool
        Whether the allocator took it; other C libraries than glibc have no such settings.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return bool(mallopt(TRIM_THRESHOLD, KEPT) and mallopt(MMAP_THRESHOLD, LARGE))
