"""Where a job runs, written down as data: TOML files such as those under ``deploy/``.

The setting ``kind`` says which kind of cluster it is; :func:`load_spec` gives typed, validated
settings. As in a job file, an unknown name is an error that offers the nearest one, relative paths
are relative to the file, and ``${VARIABLES}`` expand from the environment, except in what a
worker's shell reads (``scratch``, ``directives``, ``prologue``).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

from dask.utils import parse_bytes, parse_timedelta
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from popdask.cluster.files import load_settings


def _parsed(parse: Callable[[Any], Any], example: str) -> Callable[[Any], int]:
    def read(value: Any) -> int:
        try:
            number = int(parse(value))
        except (KeyError, TypeError, ValueError):
            number = 0
        if number < 1:
            raise ValueError(f'expected a quantity such as "{example}"')
        return number

    return read


def _seconds(value: Any) -> float:
    text = re.sub(r"\bmins?$", "minutes", value.strip()) if isinstance(value, str) else value
    return parse_timedelta(text)


Positive = Annotated[int, Field(ge=1)]
#: In the file "4 GiB", here bytes.
Bytes = Annotated[int, BeforeValidator(_parsed(parse_bytes, "4 GiB"))]
#: In the file "10 min", here seconds.
Seconds = Annotated[int, BeforeValidator(_parsed(_seconds, "10 min"))]
#: The address of a scheduler.
ADDRESS = r"^(tcp|tls)://\S+:\d{1,5}$"
#: A path of the file's, made absolute.
FilePath = Annotated[str, "path"]


class _Settings(BaseModel):
    """A table of the file: immutable, and closed to names that it does not know."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class Waiting(_Settings):
    """How long a run waits for its workers."""

    needed: Positive = 1
    """Workers that must be there before the run begins; others join while it goes on."""
    wait: Seconds = 600
    """How long to wait for them, and later, if all have left, for another: ``"10 min"``."""


class Workers(Waiting):
    """The workers, and how many of them."""

    count: Positive | None = None
    """How many; lost ones are replaced."""
    minimum: Positive | None = None
    """With ``maximum``, instead of ``count``: the fewest, when there is little to do."""
    maximum: Positive | None = None
    """The most, when there is much to do."""

    @model_validator(mode="after")
    def _one_way_to_count(self) -> Workers:
        if (self.minimum is None) != (self.maximum is None):
            raise ValueError("[workers] minimum and maximum belong together: give both")
        if self.minimum is not None and self.maximum is not None:
            if self.count is not None:
                raise ValueError("[workers] has count and minimum: give one of them")
            if self.minimum > self.maximum:
                raise ValueError(
                    f"[workers] minimum {self.minimum} is more than maximum {self.maximum}"
                )
        if self.needed > (most := self.maximum or self.count or self.needed):
            raise ValueError(f"[workers] needed {self.needed} is more than the {most} there can be")
        return self

    @property
    def bounds(self) -> tuple[int, int] | None:
        """The fewest and the most, the same where the number is fixed; None if not given."""
        if self.minimum is not None and self.maximum is not None:
            return self.minimum, self.maximum
        return (self.count, self.count) if self.count is not None else None


class LocalWorkers(Workers):
    """Processes on this machine; what is not given follows from its cores, memory and GPUs."""

    wait: Seconds = 300
    """How long to wait for them, and later, if all have died, for another: ``"5 min"``."""
    threads: Positive | None = None
    """Threads of each."""
    memory: Bytes | None = None
    """Memory of each, such as ``"4 GiB"``."""
    gpu: bool = False
    """One worker for each GPU; the tasks that want one go there."""


class CountedWorkers(Workers):
    """Workers that are asked for; how many must be said."""

    @model_validator(mode="after")
    def _counted(self) -> CountedWorkers:
        if self.bounds is None:
            raise ValueError("[workers] needs count, or minimum and maximum")
        return self


class QueueWorkers(CountedWorkers):
    """Workers that a batch queue starts."""

    threads: Positive = 1
    """Threads of each, one core for each thread."""
    memory: Bytes = 4 * 2**30
    """Memory of each, such as ``"4 GiB"``."""
    per_job: Positive = 1
    """Workers of one batch job; more than one where the queue gives whole nodes."""
    gpu: bool = False
    """Whether each has a GPU; the tasks that want one go there."""
    scratch: str | None = None
    """Folder on the workers' nodes for what does not fit the memory, such as ``"$TMPDIR"``."""

    @model_validator(mode="after")
    def _one_gpu_per_job(self) -> QueueWorkers:
        if self.gpu and self.per_job > 1:
            raise ValueError("[workers] per_job must be 1 for workers with a GPU")
        return self


class Queue(_Settings):
    """What the batch system is asked for."""

    name: str | None = None
    """Partition or queue; without it, the system's default."""
    account: str | None = None
    """Account (project) that pays."""
    walltime: Seconds = 3600
    """Longest time of a worker's job, such as ``"4 h"``; it hands over its results before."""
    interface: str | None = None
    """Network interface that joins the nodes, such as ``"ib0"``."""
    python: str | None = None
    """Python on the nodes; without it, this one, which must be on a shared disk."""
    logs: FilePath | None = None
    """Folder of the workers' output."""
    directives: tuple[str, ...] = ()
    """Further options for each worker's job, such as ``"--exclusive"``."""
    prologue: tuple[str, ...] = ()
    """Shell commands before the worker, such as ``"module load python"``."""


class Pods(_Settings):
    """What the Dask operator is asked for."""

    manifest: FilePath
    """The DaskCluster, a YAML file; its name gets an ending of its own in each run."""
    gpu: FilePath | None = None
    """A DaskWorkerGroup of workers with GPUs, a YAML file, to be added."""
    namespace: str = "default"
    """Namespace of its pods."""


class Server(_Settings):
    """A Dask Gateway."""

    address: str
    """Its URL; the token comes from Dask's configuration or ``JUPYTERHUB_API_TOKEN``."""
    proxy: str | None = None
    """Address of the scheduler's proxy, where it is not the gateway's."""
    auth: Literal["basic", "jupyterhub", "kerberos"] | None = None
    """How to log in; without it, as Dask's configuration says."""
    options: dict[str, str | int | float | bool] = {}
    """Options of a new cluster, those that the gateway offers."""


class Tls(_Settings):
    """Certificates that scheduler, workers and client show each other."""

    folder: FilePath
    """Folder with ``ca.pem``, and a certificate and key for each role."""


class Local(_Settings):
    """Processes on this machine."""

    kind: Literal["local"]
    """The kind of cluster."""
    workers: LocalWorkers = LocalWorkers()
    tls: Tls | None = None
    dashboard: str = "127.0.0.1:0"
    """Address of the dashboard; other machines reach it only if asked, as with ``":8787"``."""


class Address(_Settings):
    """A scheduler that is already there."""

    kind: Literal["address"]
    """The kind of cluster."""
    address: Annotated[str, Field(pattern=ADDRESS)]
    """Such as ``"tcp://host:8786"``."""
    workers: Waiting = Waiting(wait=60)
    tls: Tls | None = None


class BatchQueue(_Settings):
    """Workers as jobs of a batch queue; scheduler and dashboard are where the run is."""

    kind: Literal["slurm", "pbs", "lsf"]
    """The batch system."""
    workers: QueueWorkers
    queue: Queue = Queue()
    tls: Tls | None = None
    dashboard: str = "127.0.0.1:0"
    """Address of the dashboard; other machines reach it only if asked, as with ``":8787"``."""


class Kubernetes(_Settings):
    """Pods that the Dask operator starts."""

    kind: Literal["kubernetes"]
    """The kind of cluster."""
    workers: CountedWorkers
    kubernetes: Pods


class Gateway(_Settings):
    """A cluster that a Dask Gateway starts."""

    kind: Literal["gateway"]
    """The kind of cluster."""
    workers: CountedWorkers
    gateway: Server


Spec = Local | Address | BatchQueue | Kubernetes | Gateway

KINDS: dict[str, type[Spec]] = {
    "local": Local,
    "address": Address,
    "slurm": BatchQueue,
    "pbs": BatchQueue,
    "lsf": BatchQueue,
    "kubernetes": Kubernetes,
    "gateway": Gateway,
}


def load_spec(path: str | Path) -> Spec:
    r"""Read a cluster's file.

    Parameters
    ----------
    path
        The TOML file.

    Returns
    -------
    Local, Address, BatchQueue, Kubernetes or Gateway
        The settings, by ``kind``, with paths made absolute and variables expanded.

    Raises
    ------
    InputError
        If the file is missing, is not TOML, or has a setting that is unknown or out of range.

    Examples
    --------
    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> from popdask.cluster import load_spec
    >>> with TemporaryDirectory() as folder:
    ...     file = Path(folder, "two.toml")
    ...     _ = file.write_text('kind = "local"\n[workers]\ncount = 2\nmemory = "1 GiB"')
    ...     spec = load_spec(file)
    >>> spec.workers.count, spec.workers.memory
    (2, 1073741824)
    """
    return load_settings(path, KINDS)
