"""Short trainings on trial: here, one after the other, or on the workers of a cluster.

On a cluster a trial reports each epoch through a queue, and an event tells it to stop. The books
are kept by who asked for it alone, so a worker that dies takes one trial with it and nothing else.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple
from uuid import uuid4

import torch
from distributed import Client, Event, Future, KilledWorker, Queue, default_client, get_worker, wait
from xarray import Dataset

from popdask.imagery.models import TrainedModel
from popdask.imagery.training import Progress, TrainingConfig, TrainingError, train

Judge = Callable[[int, int, float], bool]  # trial, epoch, loss -> whether to give it up
LISTEN = 0.2  # seconds between two looks at the reports


class Outcome(NamedTuple):
    """What came of a trial."""

    loss: float | None
    """The lowest validation loss; None where the trial was given up."""
    reason: str = ""
    """Why it was given up."""


@dataclass(frozen=True)
class Task:
    """What all trials have in common."""

    cells: Dataset
    kind: str
    gate: TrainedModel | None
    device: str


class _GivenUpError(Exception):
    """Raised in a training to end it."""


def attempt(task: Task, config: TrainingConfig, give_up: Callable[[int, float], bool]) -> Outcome:
    """Train with some settings, as long as nobody gives it up and memory suffices."""
    losses: list[float] = []

    def listen(told: Progress) -> None:
        if told.batch_size < config.batch_size:
            raise _GivenUpError(f"memory ran out with a batch of {config.batch_size}")
        losses.append(told.validation)
        if give_up(told.epoch, told.validation) and told.epoch < config.epochs:
            raise _GivenUpError("behind the median of the trials before")

    try:
        train(task.cells, task.kind, config, gate=task.gate, progress=listen, device=task.device)
    except (_GivenUpError, TrainingError, torch.OutOfMemoryError) as error:
        return Outcome(None, str(error))
    return Outcome(min(losses))


class Here:
    """Trials in this process, one at a time."""

    slots = 1

    def __init__(self, task: Task, judge: Judge) -> None:
        self.task, self.judge = task, judge
        self.waiting: list[tuple[int, TrainingConfig]] = []

    def start(self, number: int, config: TrainingConfig) -> None:
        """Take a trial on."""
        self.waiting.append((number, config))

    def finished(self) -> Iterator[tuple[int, Outcome]]:
        """Give the trials that ended, with their outcomes."""
        number, config = self.waiting.pop()
        yield number, attempt(self.task, config, partial(self.judge, number))

    def stop(self) -> None:
        """Let go of unfinished trials."""
        self.waiting.clear()


@dataclass(frozen=True)
class _Line:
    """The connection of a trial on a worker with who asked for it."""

    name: str
    number: int

    def __call__(self, epoch: int, loss: float) -> bool:
        Queue(self.name).put((self.number, epoch, loss))
        return Event(f"{self.name}-{self.number}").is_set()


def _attempt_there(task: Task, config: TrainingConfig, line: _Line) -> Outcome:
    threads = config.threads or get_worker().state.nthreads
    return attempt(task, replace(config, threads=threads), line)


class OnCluster:
    """Trials on the workers of the current Dask client, one on each."""

    def __init__(self, client: Client, task: Task, judge: Judge) -> None:
        self.client, self.judge = client, judge
        self.name = f"popdask-tuning-{uuid4().hex}"
        self.reports = Queue(self.name, client=client)
        self.task = task
        self.handed_out: Future | None = None
        self.running: dict[Future, int] = {}

    @property
    def slots(self) -> int:
        """How many trials run at once: as many as there are workers now."""
        return max(1, len(self.client.nthreads()))

    def start(self, number: int, config: TrainingConfig) -> None:
        """Send a trial out."""
        if self.handed_out is None:  # every worker gets the cells, once for all trials
            self.handed_out = self.client.scatter(self.task, broadcast=True, hash=False)
        line = _Line(self.name, number)
        future = self.client.submit(_attempt_there, self.handed_out, config, line, pure=False)
        self.running[future] = number

    def finished(self) -> Iterator[tuple[int, Outcome]]:
        """Hear the reports, stop what lies behind, and give the trials that ended."""
        with suppress(TimeoutError):
            wait(list(self.running), timeout=LISTEN, return_when="FIRST_COMPLETED")
        ended = [future for future in self.running if future.done()]
        for number, epoch, loss in self.reports.get(batch=True):
            if self.judge(number, epoch, loss):
                Event(f"{self.name}-{number}", client=self.client).set()
        for future in ended:
            yield self.running.pop(future), self._outcome(future)

    def _outcome(self, future: Future) -> Outcome:
        try:
            return future.result()
        except (KilledWorker, CancelledError):
            self.handed_out = None  # what lay on that worker may be lost
            return Outcome(None, "its worker was killed, most often because memory ran out")

    def stop(self) -> None:
        """Let go of unfinished trials."""
        self.client.cancel(list(self.running))
        self.reports.close()


def current_client() -> Client | None:
    """Give the Dask client in force, if there is one."""
    try:
        return default_client()
    except ValueError:
        return None


def runner(task: Task, judge: Judge) -> Any:
    """Choose where trials run: on the current cluster, or here."""
    client = current_client()
    return Here(task, judge) if client is None else OnCluster(client, task, judge)
