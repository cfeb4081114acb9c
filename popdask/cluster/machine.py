"""The cores, memory and GPUs at hand: those of this machine, or of the batch job on it."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping

from dask.system import CPU_COUNT
from distributed.system import MEMORY_LIMIT

#: Memory for one worker process, with its libraries and some default chunks, in bytes.
WORKER_MEMORY = 2 * 2**30

#: Where SLURM, PBS and LSF say how many cores of this node belong to the job.
_CORES = ("SLURM_CPUS_ON_NODE", "NCPUS", "LSB_DJOB_NUMPROC")


def cores_at_hand(environ: Mapping[str, str] = os.environ) -> int:
    """Count the cores that this process may use.

    Parameters
    ----------
    environ
        Where a batch system says what it has given. Not every one keeps its jobs from other cores;
        Dask's limit, which knows affinity and control groups, holds besides.

    Examples
    --------
    >>> from popdask.cluster.machine import cores_at_hand
    >>> cores_at_hand({"SLURM_CPUS_ON_NODE": "1"})
    1
    """
    given = [int(environ[name]) for name in _CORES if environ.get(name, "").isdigit()]
    return max(1, min([CPU_COUNT, *given]))


def memory_at_hand(environ: Mapping[str, str] = os.environ) -> int:
    """Give the memory that this process may use, in bytes; the parameter is as above.

    Examples
    --------
    >>> from popdask.cluster.machine import memory_at_hand
    >>> memory_at_hand({"SLURM_MEM_PER_NODE": "512"}) // 2**20
    512
    """
    whole = int(environ.get("SLURM_MEM_PER_NODE", "0") or 0)
    each = int(environ.get("SLURM_MEM_PER_CPU", "0") or 0)
    given = whole or each * int(environ.get("SLURM_CPUS_ON_NODE", "1"))
    return min(MEMORY_LIMIT, given * 2**20) if given else int(MEMORY_LIMIT)


def gpus_at_hand(environ: Mapping[str, str] = os.environ) -> list[str]:
    """Name the GPUs that this process may use, as CUDA_VISIBLE_DEVICES does.

    Examples
    --------
    >>> from popdask.cluster.machine import gpus_at_hand
    >>> gpus_at_hand({"CUDA_VISIBLE_DEVICES": "0,2"})
    ['0', '2']
    """
    visible = environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [name.strip() for name in visible.split(",") if name.strip() not in ("", "-1")]
    if shutil.which("nvidia-smi") is None:
        return []
    listed = subprocess.run(
        ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"],
        capture_output=True,
        text=True,
        check=False,
    )
    return listed.stdout.split() if listed.returncode == 0 else []


def workers_at_hand(cores: int, memory: int) -> tuple[int, int]:
    """Share cores and memory among worker processes; give their number and the threads of each.

    Examples
    --------
    >>> from popdask.cluster.machine import workers_at_hand
    >>> workers_at_hand(cores=8, memory=64 * 2**30)
    (8, 1)
    >>> workers_at_hand(cores=8, memory=4 * 2**30)
    (2, 4)
    """
    workers = max(1, min(cores, memory // WORKER_MEMORY))
    return workers, max(1, cores // workers)
