"""The log of a run, written while it goes on: one JSON object per line.

Each attempt at a region has a log of its own, named by the time at which it began. Every line has
``event``, ``time`` (UTC) and ``region``, and by the event:

=============== ==================================================================================
``begin``       ``pipeline``, ``store``, ``only``, ``host``, ``process``, ``versions``
``stage-begin`` ``stage``, ``work``
``stage-end``   ``stage``, ``seconds``, ``bytes`` added to the job's store, ``ok``
``note``        ``text``
``end``         ``outcome``, ``seconds``, ``stages``, ``bytes``; ``run`` and ``people`` (their
                balance in each frame) of a run that has published results; ``error`` and
                ``traceback`` of one that has not
=============== ==================================================================================

A log without an end is of a run that was killed, or is under way.
"""

from __future__ import annotations

import json
import os
import re
import socket
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from popdask import object_store
from popdask.errors import InputError
from popdask.job import Job
from popdask.pipelines.attempts import End
from popdask.pipelines.logplace import log_name, log_place
from popdask.pipelines.provenance import versions, without_secrets
from popdask.progress import Reporter
from popdask.store import Finished, RegionBusyError, RegionStore

_URL = re.compile(r"\S+://\S+")
_SECRET_NAME = re.compile(r"(KEY|KEY_ID|SECRET|TOKEN|PASSWORD|PASSWD)$")
_SHORTEST_SECRET = 8


class RunLog(Reporter):
    """Writes the log of one attempt, and tells another reporter the same; a context.

    Parameters
    ----------
    job
        The settings of the run.
    reporter
        Is told all that the log is told.
    folder
        As for `popdask.pipelines.logplace.log_place`.
    only
        The stage that is computed alone, if it is not the whole job.

    Attributes
    ----------
    name : str
        Name of the log among those of the region.
    started : str
        ISO time, UTC, of the beginning.
    outcome : End
        How the attempt has ended.
    error : str or None
        Why, if it has not ended well; one sentence.

    Notes
    -----
    What the context ends with is put down and goes on its way. A log that cannot be written, on a
    full disk for example, is told of once, and the run goes on.
    """

    def __init__(
        self,
        job: Job,
        reporter: Reporter | None = None,
        folder: str | Path | None = None,
        only: str | None = None,
    ) -> None:
        self._job = job
        self._reporter = reporter or Reporter()
        self._place = log_place(job, folder)
        self._begin = {"only": only} if only else {}
        self._start = time.perf_counter()
        self._store: RegionStore | None = None
        self._commits = 0
        self._stages: list[str] = []
        self._bytes = 0
        self._writable = True
        now = datetime.now(UTC)
        self.name = log_name(now)
        self.started = now.isoformat(timespec="milliseconds")
        self.outcome = End.KILLED
        self.error: str | None = None

    def __str__(self) -> str:
        return f"{self._place}/{self.name}"

    def __enter__(self) -> Self:
        job = self._job
        self._write(
            "begin",
            pipeline=job.pipeline,
            store=without_secrets(job.output.store),
            **self._begin,
            host=socket.gethostname(),
            process=os.getpid(),
            versions=versions(),
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        told = self._finish() if error is None else self._fail(error)
        self._write(
            "end",
            outcome=self.outcome,
            seconds=self.seconds,
            stages=self._stages,
            bytes=self._bytes,
            **told,
        )

    @property
    def seconds(self) -> float:
        """Time since the beginning."""
        return round(time.perf_counter() - self._start, 3)

    @contextmanager
    def stage(self, name: str, work: str) -> Iterator[None]:
        """Surround one stage: a line at its beginning, and one at its end."""
        if self._store is None:  # stages of a run that was stopped before are not of this one
            self._store = RegionStore(self._job.output.store)
            self._commits = len(self._store.stages_since())
        self._write("stage-begin", stage=name, work=work)
        start, finished = time.perf_counter(), False
        try:
            with self._reporter.stage(name, work):
                yield
            finished = True
        finally:
            seconds = round(time.perf_counter() - start, 3)
            written = sum(commit.bytes for commit in self._fresh()) if finished else 0
            self._bytes += written
            self._stages += [name] if finished else []
            self._write("stage-end", stage=name, seconds=seconds, bytes=written, ok=finished)

    def note(self, text: str) -> None:
        """Tell one thing."""
        text = without_keys(text)
        self._write("note", text=text)
        self._reporter.note(text)

    def _fresh(self) -> list[Finished]:
        """What the region has committed since this was last asked."""
        commits = self._store.stages_since() if self._store else []
        fresh, self._commits = commits[self._commits :], len(commits)
        return fresh

    def _finish(self) -> dict[str, Any]:
        """What there is to tell of an attempt that ended well."""
        self.outcome = End.DONE if self._stages else End.NOTHING
        if self._store is None or self._begin:
            return {}
        record = self._store.run_record()
        balance = {"people": record["balance"]} if "balance" in record else {}
        return {"run": record["tag"], **balance}

    def _fail(self, error: BaseException) -> dict[str, Any]:
        """What there is to tell of another; ``traceback`` only where a sentence does not do."""
        message = without_keys(str(error).strip()) or "no reason given"
        self.error = " ".join(message.split())
        if isinstance(error, InputError):
            self.outcome = End.WRONG
        elif isinstance(error, RegionBusyError):
            self.outcome = End.BUSY
        elif isinstance(error, Exception):
            self.outcome = End.FAILED
            self.error = f"{type(error).__name__}: {self.error}"
            trace = "".join(traceback.format_exception(error))
            return {"error": self.error, "traceback": without_keys(trace)}
        else:
            self.outcome, self.error = End.STOPPED, "stopped by a signal"
        return {"error": self.error}

    def _write(self, event: str, **told: Any) -> None:
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        line = {"event": event, "time": now, "region": self._job.name, **told}
        if self._writable:
            try:
                self._place.append(self.name, json.dumps(line, ensure_ascii=False, default=str))
            except object_store.failures() as error:
                self._writable = False
                self._reporter.note(f"the log {self} cannot be written: {error}")


def without_keys(text: str) -> str:
    """Drop from a text what its URLs say beside places, and the values of secret variables.

    Examples
    --------
    >>> without_keys("no frame at https://me:word@host/pop.tif?token=abc; check the path")
    'no frame at https://host/pop.tif check the path'
    """
    text = _URL.sub(lambda url: without_secrets(url[0]), text)
    for name, value in os.environ.items():
        if _SECRET_NAME.search(name.upper()) and len(value) >= _SHORTEST_SECRET:
            text = text.replace(value, f"${name}")
    return text
