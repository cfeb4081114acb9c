"""Workers as jobs of a batch queue, through dask-jobqueue: SLURM, PBS and LSF.

The scheduler is where the run is, which may itself be a batch job. Workers that are cancelled or
reach the end of their time are replaced. A worker hands its results over before its time ends.
"""

from __future__ import annotations

import logging
import re
import shutil
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from importlib.util import find_spec
from itertools import chain
from typing import Any

from distributed.core import Status

from popdask.cluster.place import Place, needs, security
from popdask.cluster.spec import BatchQueue
from popdask.errors import InputError

#: Class of dask-jobqueue, command that starts a job, and one that says how jobs stand.
SYSTEMS = {
    "slurm": ("SLURM", "sbatch", ["squeue", "--noheader", "--format=%i %T %r", "--name={name}"]),
    "pbs": ("PBS", "qsub", ["qstat", "-s", "{ids}"]),
    "lsf": ("LSF", "bsub", ["bjobs", "-noheader", "-o", "jobid stat pend_reason", "-J", "{name}"]),
}

ASK_SECONDS = 20
CHECK_SECONDS = 10


@dataclass
class Submissions:
    """What became of the jobs that were submitted."""

    ids: list[str] = field(default_factory=list)
    """The jobs, as the queue names them."""
    refusals: list[str] = field(default_factory=list)
    """What the queue said when it refused one."""


@contextmanager
def start(spec: BatchQueue) -> Iterator[Place]:
    """Submit the workers' jobs; they are cancelled at the end of the block.

    Parameters
    ----------
    spec
        The settings.

    Raises
    ------
    InputError
        If dask-jobqueue is not installed, or there is no such queue on this machine.
    """
    _, submit, _ = SYSTEMS[spec.kind]
    if shutil.which(submit) is None:
        raise InputError(
            f'kind = "{spec.kind}" submits its workers with {submit}, which is not on this '
            "machine: run where jobs are submitted."
        )
    submissions = Submissions()
    with _quiet(submit), make_cluster(spec, submissions) as cluster:
        fewest, most = spec.workers.bounds or (1, 1)
        cluster.scale(fewest)
        # Adaptive scaling replaces what is lost, with equal bounds too.
        cluster.adapt(minimum=fewest, maximum=most, interval=f"{CHECK_SECONDS}s")
        says = partial(_says, spec, cluster.job_name, submissions)
        yield Place(cluster, security(spec.tls), says, submissions.refusals)


def make_cluster(spec: BatchQueue, submissions: Submissions) -> Any:
    """Make dask-jobqueue's cluster, without any worker yet.

    Parameters
    ----------
    spec
        The settings.
    submissions
        Is kept up to date.

    Raises
    ------
    InputError
        If dask-jobqueue is not installed.
    """
    jobqueue = needs("dask_jobqueue", "hpc", f'kind = "{spec.kind}"')
    system, submit, _ = SYSTEMS[spec.kind]
    cluster = getattr(jobqueue, f"{system}Cluster")
    certificates = security(spec.tls)
    return cluster(
        job_cls=_recording(cluster.job_cls, submit, submissions),
        scheduler_options={"dashboard_address": spec.dashboard},
        security=certificates,
        protocol="tls://" if certificates else None,
        **_job_options(spec),
    )


def _job_options(spec: BatchQueue) -> dict[str, Any]:
    """The options of each worker's job that are the same for all systems, and those that differ."""
    workers, queue = spec.workers, spec.queue
    options = {
        "job_name": f"popdask-{uuid.uuid4().hex[:6]}",
        "queue": queue.name,
        "cores": workers.threads * workers.per_job,
        "memory": f"{workers.memory * workers.per_job} B",
        "processes": workers.per_job,
        "walltime": _walltime(spec),
        "interface": queue.interface,
        "python": queue.python,
        "local_directory": workers.scratch,
        "log_directory": queue.logs,
        "job_script_prologue": [*_lifetime(spec), *queue.prologue],
        "job_extra_directives": [*_gpu_directives(spec), *queue.directives],
        "worker_extra_args": _worker_arguments(spec),
        "project" if spec.kind == "lsf" else "account": queue.account,
    }
    if workers.gpu and find_spec("dask_cuda"):
        options["worker_command"] = "dask_cuda.cli"
    if workers.gpu and spec.kind == "pbs":
        memory = f"{workers.memory // 2**20}mb"
        options["resource_spec"] = f"select=1:ncpus={workers.threads}:mem={memory}:ngpus=1"
    return options


def _worker_arguments(spec: BatchQueue) -> list[str]:
    return ["--no-dashboard", *(["--resources", "GPU=1"] if spec.workers.gpu else [])]


def _lifetime(spec: BatchQueue) -> list[str]:
    """Let a worker hand over before its job ends; dask-cuda's command has no option for that."""
    margin = min(300, spec.queue.walltime // 10)
    times = {"DURATION": spec.queue.walltime - 2 * margin, "STAGGER": margin}
    name = "DASK_DISTRIBUTED__WORKER__LIFETIME__"
    return [f"export {name}{part}={seconds}s" for part, seconds in times.items()]


def _gpu_directives(spec: BatchQueue) -> list[str]:
    directives = {"slurm": ["--gpus=1"], "lsf": ['-gpu "num=1"'], "pbs": []}
    return directives[spec.kind] if spec.workers.gpu else []


def _walltime(spec: BatchQueue) -> str:
    """The longest time of a job as its system writes it: hours, minutes, and not for LSF seconds.

    Whole minutes, rounded up, since SLURM and LSF know no other.
    """
    hours, minutes = divmod(-(-spec.queue.walltime // 60), 60)
    return f"{hours:02}:{minutes:02}" if spec.kind == "lsf" else f"{hours:02}:{minutes:02}:00"


def _recording(job: type, submit: str, submissions: Submissions) -> type:
    """A kind of job that keeps what the queue answers when it is submitted."""

    class Recording(job):
        async def start(self) -> None:
            try:
                await super().start()
            except RuntimeError as error:
                said = re.search(r"stderr:\n(.*)", str(error), re.DOTALL)
                answer = _one_line(said[1] if said else str(error)).replace(
                    f"{submit}: error: ", ""
                )
                submissions.refusals.append(f"{submit} says {answer!r}")
                self.status = Status.failed
                raise
            submissions.ids.append(self.job_id)

    return Recording


@contextmanager
def _quiet(submit: str) -> Iterator[None]:
    """Leave refusals, which `Submissions` has, out of the log, where they are tracebacks."""

    def keep(record: logging.LogRecord) -> bool:
        return f"\n{submit} " not in record.getMessage().replace("\\n", "\n")

    log = logging.getLogger("tornado.application")
    log.addFilter(keep)
    try:
        yield
    finally:
        log.removeFilter(keep)


def _says(spec: BatchQueue, name: str, submissions: Submissions) -> str:
    """Ask the queue how the workers' jobs stand."""
    if not submissions.ids:
        return "nothing is submitted yet"
    *_, command = SYSTEMS[spec.kind]
    parts = [submissions.ids if part == "{ids}" else [part.format(name=name)] for part in command]
    if said := _said(list(chain.from_iterable(parts))):
        return f"{command[0]} says {said!r}"
    logs = f": see the logs in {spec.queue.logs}" if spec.queue.logs else ""
    return f"{command[0]} knows none of its {len(submissions.ids)} jobs any more{logs}"


def _said(command: list[str]) -> str:
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=ASK_SECONDS
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return _one_line(f"{done.stdout}\n{done.stderr}")


def _one_line(text: str) -> str:
    return "; ".join(" ".join(line.split()) for line in text.splitlines() if line.strip())
