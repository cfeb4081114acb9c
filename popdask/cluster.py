"""Where a job runs: the only place that makes a Dask client.

A job does not say where it runs; :func:`connect` does. It takes ``local``, a scheduler's address,
or a TOML file such as those under ``deploy/``, which names a cluster class of Dask with its own
keyword arguments. Dask itself waits for workers, and ends the work that no worker can do after
``distributed.scheduler.no-workers-timeout``, which is the file's ``wait``.

On this machine there is one process per core, one thread each, of the cores, memory and GPUs that
the machine, or the batch job on it, has. Dask starts workers with an allocator that gives every
freed byte back to the system at once. Rasters come and go by the megabyte, and the system must
clear each page anew: a fifth of a run's time, and half of a network's training. Keeping some of it
costs a worker 256 MiB at most.
"""

from __future__ import annotations

import asyncio
import ctypes
import importlib
import logging
import os
import re
import shlex
import shutil
import signal
import subprocess
import threading
import time
import warnings
from collections.abc import Callable, Coroutine, Iterator, Mapping
from concurrent import futures
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dask
from dask.system import CPU_COUNT
from dask.utils import parse_bytes, parse_timedelta
from distributed import (
    CancelledError,
    Client,
    LocalCluster,
    Security,
    SpecCluster,
    Worker,
    WorkerPlugin,
)
from distributed.client import AllExit
from distributed.comm import CommClosedError
from distributed.comm import connect as connect_comm
from distributed.core import Status
from distributed.scheduler import NoValidWorkerError
from distributed.system import MEMORY_LIMIT
from distributed.versions import VersionMismatchWarning
from distributed.worker_memory import parse_memory_limit

from popdask import __version__
from popdask.config.load import ClusterFile, load_spec, nearest, read_spec
from popdask.errors import ClusterError, InputError
from popdask.workflow.plan import Resources
from popdask.workflow.runner import is_lost

__all__ = [
    "ClusterError",
    "ClusterFile",
    "LostSchedulerError",
    "LostWorkersError",
    "NoWorkersError",
    "VersionError",
    "connect",
    "load_spec",
]

STATUS_SECONDS = 20
#: What a scheduler may take to answer before it is said that one waits for it.
SILENT_SECONDS = 2
LONGEST_SILENCE_SECONDS = 300.0
#: How often a cluster adapts: a queue is not asked every second, and an idle worker stays a while.
ADAPT_INTERVAL = "10s"
CONNECT_TIMEOUT = "distributed.comm.timeouts.connect"
NO_WORKERS_TIMEOUT = "distributed.scheduler.no-workers-timeout"
#: The extras of popdask that install the packages of cluster classes.
EXTRAS = {"dask_jobqueue": "hpc", "dask_kubernetes": "kubernetes", "dask_gateway": "gateway"}

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
#: What need not be logged, by logger: parts of messages, and exceptions.
_NO_NEWS: dict[str, tuple[str | type[BaseException], ...]] = {
    # A client was closed while it connected or waited, as asyncio logs that, too.
    **dict.fromkeys(
        ("asyncio", "distributed.client", "distributed.comm.core", "distributed.utils"),
        (asyncio.CancelledError, AllExit),
    ),
    "distributed.batched": (CommClosedError,),  # the other end was first, as where a run stops
    # On a busy machine workers are slow to end; they are killed in time.
    "distributed.nanny": ("Worker process still alive",),
    # The driver says it in one sentence.
    "distributed.worker": (
        "InputError(",  # what a user can mend, without a traceback
        "Failed to communicate with scheduler during heartbeat",  # the driver sees that it is gone
        "Worker stream died during communication",  # its nanny logs a worker that dies
        "failed during get data",
    ),
    # What a worker was about to do when it was asked to end.
    "distributed.worker.state_machine": ("ended with CancelledError",),
}


class NoWorkersError(ClusterError):
    """The workers that a run needs did not come; the message says what the queue says.

    Examples
    --------
    >>> issubclass(NoWorkersError, ClusterError)
    True
    """


class LostSchedulerError(ClusterError):
    """The scheduler of a run has ended, and its workers are lost with it.

    Examples
    --------
    >>> issubclass(LostSchedulerError, ClusterError)
    True
    """


class LostWorkersError(ClusterError):
    """Work of a run found no worker for longer than the cluster file allows.

    Examples
    --------
    >>> issubclass(LostWorkersError, ClusterError)
    True
    """


class VersionError(ClusterError):
    """The scheduler or a worker has another popdask or Python than the run.

    Examples
    --------
    >>> issubclass(VersionError, ClusterError)
    True
    """


@dataclass(frozen=True)
class ClusterHandle:
    """What a client is made of, and what is known of workers that do not come."""

    target: Any
    security: Security | None
    status: str | None
    failures: list[BaseException] = field(default_factory=list)

    def reason(self) -> str:
        """What the status command says, as the end of a sentence; nothing, if there is none."""
        if self.status is None:
            return f"; start one with `dask worker {self.target}`" * isinstance(self.target, str)
        command = shlex.split(self.status)
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=STATUS_SECONDS)
        except (OSError, subprocess.TimeoutExpired) as error:
            return f"; {error}"
        return f"; {command[0]} says {_one_line(done.stdout + done.stderr) or 'nothing'!r}"


@contextmanager
def connect(
    spec: str | Path = "local", *, log: Callable[[str], None] | None = None
) -> Iterator[Client]:
    """Connect to the cluster that a job runs on.

    Parameters
    ----------
    spec
        ``"local"`` for worker processes on this machine, as many as its cores and memory allow,
        with one thread each; the address of a scheduler, ``"tcp://host:port"`` or
        ``"tls://host:port"``; or a TOML file such as ``"deploy/slurm/cluster.toml"``.
    log
        Is called with a line now and then while the workers are waited for.

    Yields
    ------
    distributed.Client
        With the workers that the run needs; others may join later. It is closed at the end, with
        the workers if they were made here.

    Raises
    ------
    InputError
        If the specification is unknown or wrong, or no scheduler answers at the address.
    ClusterError
        Its kind NoWorkersError, if the workers do not come in time; VersionError, if scheduler or
        workers have another popdask or Python; LostSchedulerError, if the scheduler ends while it
        is used, and LostWorkersError, if there is no worker for work for as long as the file says.

    Examples
    --------
    >>> from popdask.cluster import connect
    >>> with connect("local") as client:
    ...     client.submit(sum, [1, 2, 3]).result()
    6
    """
    file, log = read_spec(str(spec)), log or (lambda line: None)
    settings: dict[str, Any] = {
        NO_WORKERS_TIMEOUT: file.wait,
        # A graph carries a trained model, so that it does not die with a worker.
        "distributed.admin.large-graph-warning-threshold": "200MB",
    }
    if file.cluster_class in (None, "local"):  # on a busy machine a restart takes its time
        settings["distributed.deploy.lost-worker-timeout"] = 120
    with (
        dask.config.set(settings),
        _started(file) as handle,
        _client(handle, log) as client,
        _losses_explained(client, handle, file.wait),
    ):
        _wait_for_workers(client, handle, file, log)
        _check_versions(client, log)
        client.run_on_scheduler(_end_stranded_work, file.wait)
        if file.address is None:
            client.register_plugin(WorkerSetup())
        yield client


@contextmanager
def _started(file: ClusterFile) -> Iterator[ClusterHandle]:
    """Start the cluster, which ends with the block, or name the scheduler that is there."""
    security = _security(file.security)
    if file.address is not None:
        yield ClusterHandle(file.address, security, file.status)
        return
    arguments = _with_lifetime(file.arguments) | ({"security": security} if security else {})
    name = file.cluster_class or "local"
    try:
        if name == "local":
            cluster = local_cluster(file.workers, **arguments)
        else:
            cluster = _import_class(name)(**arguments)
    except InputError:
        raise
    except Exception as error:  # whatever a class of others raises
        raise InputError(f"{name} gave no cluster ({_cause(error)}): check [arguments].") from error
    handle = ClusterHandle(cluster, security, file.status)
    with cluster:
        if name != "local" and file.workers:
            _scale(cluster, file.workers, handle.failures)
        yield handle


def _security(files: dict[str, str]) -> Security | None:
    """The certificates of a file; a missing one is named."""
    for key, path in files.items():
        if key.endswith(("_file", "_cert", "_key")) and not Path(path).is_file():
            raise InputError(f"[security] {key}: there is no {path}; see the how-to on TLS.")
    try:
        return Security(require_encryption=True, **files) if files else None
    except TypeError as error:
        raise InputError(f"[security] is not what Dask's Security takes ({error}).") from error


def _import_class(name: str) -> Callable[..., Any]:
    """Import what gives a cluster, or say what is missing and how to install it."""
    module, _, attribute = name.rpartition(".")
    try:
        found = importlib.import_module(module)
    except ModuleNotFoundError as error:
        extra = EXTRAS.get(module.partition(".")[0])
        mend = f'pip install "popdask[{extra}]"' if extra else "install it, or correct the name"
        problem = f"class {name} needs {error.name}, which is not installed: {mend}."
        raise InputError(problem) from None
    start: Callable[..., Any] | None = getattr(found, attribute, None)
    if not callable(start):
        hint = nearest(attribute, [key for key in dir(found) if key.endswith("Cluster")])
        raise InputError(f"class {name}: {module} has no class {attribute!r} ({hint}).")
    return start


def _with_lifetime(arguments: dict[str, Any]) -> dict[str, Any]:
    """Let the workers of a batch job hand over what they hold before its wall time ends."""
    walltime = re.fullmatch(r"(?:(\d+)-)?(\d+):(\d+)(?::\d+)?", str(arguments.get("walltime", "")))
    if walltime is None:
        return arguments
    days, hours, minutes = (int(part or 0) for part in walltime.groups())
    seconds = (days * 24 + hours) * 3600 + minutes * 60
    margin = min(300, seconds // 10)
    name = "export DASK_DISTRIBUTED__WORKER__LIFETIME__"
    lifetime = [f"{name}DURATION={seconds - 2 * margin}s", f"{name}STAGGER={margin}s"]
    return arguments | {
        "job_script_prologue": [*lifetime, *arguments.get("job_script_prologue", ())]
    }


def _scale(cluster: Any, workers: tuple[int, int], failures: list[BaseException]) -> None:
    """Ask for the workers, and note each that cannot be started, of which Dask logs a traceback."""
    fewest, most = workers
    if not isinstance(cluster, SpecCluster):
        cluster.scale(fewest)
        if most > fewest:
            cluster.adapt(minimum=fewest, maximum=most)
        return

    class Noted(cluster.new_spec["cls"]):  # type: ignore[name-defined]
        async def start(self) -> None:
            try:
                await super().start()
            except Exception as error:
                failures.append(error)
                self.status = Status.failed  # so that the cluster does not close it

    cluster.new_spec["cls"] = Noted
    cluster.scale(fewest)
    # Only a cluster that adapts replaces what is lost, with equal bounds too.
    cluster.adapt(minimum=fewest, maximum=most, interval=ADAPT_INTERVAL)


def _client(handle: ClusterHandle, log: Callable[[str], None]) -> Client:
    # A client that cannot connect leaves its event loop behind: a bare connection is tried first.
    if isinstance(handle.target, str):
        _in_a_thread(_knock(handle.target, handle.security, log))
    options = {"security": handle.security} if handle.security else {}
    _log_news_alone()
    with warnings.catch_warnings():  # _check_versions says it in one line
        warnings.simplefilter("ignore", VersionMismatchWarning)
        return Client(handle.target, **options)


def _log_news_alone() -> None:
    """Let the loggers of this process pass over what need not be logged."""
    for logger in _NO_NEWS:
        logging.getLogger(logger).addFilter(_is_news)


def _is_news(record: logging.LogRecord) -> bool:
    message, error = record.getMessage(), record.exc_info[1] if record.exc_info else None
    return not any(
        part in message if isinstance(part, str) else isinstance(error, part)
        for part in _NO_NEWS.get(record.name, ())
    )


def _in_a_thread(work: Coroutine[Any, Any, None]) -> None:
    """Do work beside a loop that may be running here, as in a notebook; a signal cancels it."""
    Running = tuple[asyncio.AbstractEventLoop, asyncio.Task[None]]
    under_way: futures.Future[Running] = futures.Future()

    async def run() -> None:
        task = asyncio.ensure_future(work)
        if under_way.set_running_or_notify_cancel():
            under_way.set_result((asyncio.get_running_loop(), task))
        else:  # the signal came before the work began
            task.cancel()
        await task

    with futures.ThreadPoolExecutor(1) as thread:
        try:
            done = thread.submit(asyncio.run, run())
            while not futures.wait({done}, timeout=1).done:
                pass  # a signal that comes as a wait begins is seen when it ends
            done.result()
        except BaseException:
            if not under_way.cancel():
                loop, task = under_way.result()
                with suppress(RuntimeError):  # the loop is closed: the work has ended by itself
                    loop.call_soon_threadsafe(task.cancel)
            raise


async def _knock(address: str, certificates: Security | None, log: Callable[[str], None]) -> None:
    """Connect to a scheduler and leave again, or say in one sentence why that is not possible."""
    arguments = (certificates or Security()).get_connection_args("client")
    said = dask.config.get(CONNECT_TIMEOUT)
    try:
        patience = parse_timedelta(said, default="s")
    except (KeyError, ValueError):
        raise InputError(
            f'Dask\'s {CONNECT_TIMEOUT} is "{said}"; expected a time as Dask reads it, such as '
            '"30s" or "5m"; correct it'
        ) from None
    knocking = asyncio.ensure_future(connect_comm(address, timeout=patience, **arguments))
    await asyncio.wait({knocking}, timeout=SILENT_SECONDS)
    if not knocking.done():
        log(f"waiting for the scheduler at {address}, up to {patience:g} s")
    try:
        connection = await knocking
    except TypeError as error:  # distributed's answer to a TLS address without certificates
        raise InputError(
            f"the scheduler at {address} wants certificates: give them in a cluster file, under "
            "[security]."
        ) from error
    except (OSError, CommClosedError) as error:
        raise InputError(
            f"no Dask scheduler answers at {address} ({error}): start one with `dask scheduler`, "
            f"check the address, or give one that is busy more time by Dask's {CONNECT_TIMEOUT}."
        ) from error
    await connection.close()


def _wait_for_workers(
    client: Client, handle: ClusterHandle, file: ClusterFile, log: Callable[[str], None]
) -> None:
    """Wait until the workers that a run needs are there; log less and less often."""
    start, due, silence = time.monotonic(), 0.0, 1.0
    while (there := len(client.scheduler_info(n_workers=-1)["workers"])) < file.needed:
        waited = time.monotonic() - start
        if handle.failures:
            raise _no_worker(handle.failures[-1])
        if waited >= file.wait:
            raise NoWorkersError(
                f"{there} of {file.needed} workers came within {file.wait} s{handle.reason()}: "
                "ask for less, or raise wait in the cluster file."
            )
        if waited >= due:
            counted = f"{there} of {file.needed} after {waited:.0f} s"
            log(f"waiting for workers: {counted}{handle.reason()}")
            due, silence = waited + silence, min(2 * silence, LONGEST_SILENCE_SECONDS)
        with suppress(TimeoutError):
            client.wait_for_workers(file.needed, timeout=1)


def _no_worker(error: BaseException) -> Exception:
    """What is to be said of a worker that could not be started."""
    if isinstance(error, FileNotFoundError) and error.filename:
        return InputError(
            f"the cluster starts its workers with {error.filename}, which is not on this "
            "machine: run where jobs are submitted."
        )
    return NoWorkersError(f"no worker was started: {_cause(error)}.")


def _cause(error: BaseException) -> str:
    """What went wrong: of a command what it said, else the first line; never the arguments."""
    command = re.search(r"Command:\n(\S+).*stderr:\n(.*)", str(error), re.DOTALL)
    if command:
        return f"{command[1]} says {_one_line(command[2])!r}"
    unexpected = re.search(r"unexpected keyword argument '\w+'", f"{error} {error.__cause__}")
    return unexpected[0] if unexpected else next(iter(str(error).splitlines()), "") or repr(error)


def _one_line(text: str) -> str:
    return "; ".join(" ".join(line.split()) for line in text.splitlines() if line.strip())


def _check_versions(client: Client, log: Callable[[str], None]) -> None:
    """Refuse a scheduler or worker of another popdask or Python; report another Dask."""
    found: Any = client.get_versions()
    here = found["client"]["packages"]
    scheduler = f"the scheduler at {client.scheduler.address}"
    others = {scheduler: found["scheduler"]["packages"]}
    others |= {f"the worker at {key}": one["packages"] for key, one in found["workers"].items()}
    for who, packages in others.items():  # before any code is sent, since that is Python's own
        _refuse(who, "Python", _minor(packages["python"]), _minor(here["python"]))
    read, guard = _version_readers(__version__)
    _refuse(scheduler, "popdask", client.run_on_scheduler(read), __version__)
    for key, version in client.run(read).items():
        _refuse(f"the worker at {key}", "popdask", version, __version__)
    client.register_plugin(guard)
    dasks = {one["dask"] for one in others.values()} - {here["dask"]}
    if dasks:
        there = ", ".join(sorted(dasks))
        log(f"dask is {here['dask']} here and {there} on the cluster: install the same")


def _minor(python: str) -> str:
    return ".".join(python.split(".")[:2])


def _refuse(who: str, package: str, there: str | None, here: str) -> None:
    if there != here:
        has = f"{package} {there}" if there else f"no {package}"
        raise VersionError(
            f"{who} has {has}, and this run {package} {here}: install {package} {here} there, and "
            "start it again."
        )


def _version_readers(expected: str) -> tuple[Callable[[], str | None], WorkerPlugin]:
    """What reads popdask's version, and what ends workers of another one that join later."""
    # Both are made here, so that they are sent by value, to those who have no popdask too.

    def read() -> str | None:
        from importlib import import_module

        try:
            return str(import_module("popdask").__version__)
        except ImportError:
            return None

    class VersionGuard(WorkerPlugin):
        name = "popdask-version"

        async def setup(self, worker: Any) -> None:
            if (there := read()) != expected:
                reason = f"it has popdask {there}, and the run popdask {expected}"
                await worker.close(timeout=1, executor_wait=False, reason=reason)

    return read, VersionGuard()


def _end_stranded_work(seconds: int, dask_scheduler: Any = None) -> None:
    """Let work without workers fail after the run's wait, where the scheduler sets no time."""
    if dask.config.get(NO_WORKERS_TIMEOUT) is None:
        dask_scheduler.no_workers_timeout = seconds


@contextmanager
def _losses_explained(client: Client, handle: ClusterHandle, wait: int) -> Iterator[None]:
    """Say in one sentence that the scheduler of a run, or all its workers, are gone."""
    address = client.scheduler.address
    try:
        yield
    except (InputError, ClusterError):
        raise
    except Exception as error:
        if not is_lost(client, error):
            raise
        # Without a scheduler, calls fail in many ways; a restarted one knows none of its tasks.
        if client.status != "running" or isinstance(error, CancelledError):
            raise LostSchedulerError(
                f"the scheduler at {address} has ended or is out of reach: what is finished is "
                "kept; start it again, and run the job again to go on."
            ) from error
        kind = " with a GPU" if isinstance(error, NoValidWorkerError) else ""
        raise LostWorkersError(
            f"all workers{kind} have left, and no other came within "
            f"{getattr(error, 'timeout', wait):g} s{handle.reason()}: what is finished is kept; "
            "when there are workers, run the job again to go on."
        ) from error


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
    memory_limit: str | float | None = None,
    **arguments: Any,
) -> LocalCluster:
    """Start the fewest to the most workers on this machine; other arguments are LocalCluster's."""
    names, memory = gpus_at_hand() if gpus else [], memory_at_hand()
    if gpus and not names:
        raise InputError("[arguments] gpus is true, but no GPU is found: nvidia-smi lists none.")
    there = _resources(workers, len(names), threads_per_worker, memory_limit)
    most = there.workers
    if most * there.memory > memory:
        raise InputError(
            f"[arguments] memory_limit asks for {most} × {there.memory / 2**30:.3g} GiB, but there "
            f"are {memory / 2**30:.3g} GiB: ask for fewer workers or for less memory."
        )
    fewest = workers[0] if workers and not gpus else most
    arguments = {
        "dashboard_address": DASHBOARD,
        "threads_per_worker": there.threads,
        "memory_limit": there.memory if memory_limit is None else memory_limit,
    } | arguments
    _log_news_alone()
    cluster: LocalCluster
    with _ctrl_c_ignored():
        if gpus:
            cluster = _OneGpuEach(names[:most], resources={"GPU": 1}, **arguments)
            cluster.scale(most)
        else:
            cluster = LocalCluster(n_workers=fewest, **arguments)
    cluster.adapt(minimum=fewest, maximum=most)  # equal bounds too: it replaces lost workers
    return cluster


def local_resources(
    workers: tuple[int, int] | None = None,
    *,
    gpus: bool = False,
    threads_per_worker: int | None = None,
    memory_limit: str | float | None = None,
    **_: Any,
) -> Resources:
    """Return the most workers on this machine: what is asked for, and else what it has."""
    there = gpus and (len(gpus_at_hand()) or 1)  # a plan may be made where there is none
    return _resources(workers, there, threads_per_worker, memory_limit)


def _resources(
    workers: tuple[int, int] | None, gpus: int, threads: int | None, limit: str | float | None
) -> Resources:
    cores, memory = cores_at_hand(), memory_at_hand()
    most = workers[1] if workers else workers_at_hand(cores, memory)[0]
    if gpus:  # one worker for each
        most = min(most, gpus) if workers else gpus
    threads = threads or (1 if gpus else max(1, cores // most))
    return Resources(most, threads, _asked_for(limit, threads) or memory // most)


def _asked_for(limit: str | float | None, threads: int) -> int:
    """Bytes of a limit of memory, as Dask reads it (up to 1 it is a share); 0 where there is none.

    Dask cuts it to what the machine has; what a file asks for beyond that is refused here.
    """
    try:
        unheard = logging.Logger("unheard", logging.CRITICAL)
        share = parse_memory_limit(limit, threads, logger=unheard) or 0
        return max(share, parse_bytes(limit) if limit and limit != "auto" else 0)
    except (TypeError, ValueError):
        raise InputError(
            f'[arguments] memory_limit is {limit!r}: expected bytes such as "4 GiB", or a share '
            "of the memory such as 0.5."
        ) from None


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
        _log_news_alone()


def keep_freed_memory() -> bool:
    """Let this process use freed memory again; False where the C library is not glibc."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return bool(mallopt(_TRIM_THRESHOLD, _KEPT) and mallopt(_MMAP_THRESHOLD, _LARGE))
