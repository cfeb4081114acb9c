"""The log that a run leaves while it goes on, one JSON object per line, and what is read from it.

Each attempt at a region has a log of its own, beside the region's store or in the same bucket,
named by the time at which it began. Every line has ``event``, ``time`` (UTC) and ``region``, and by
the event:

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
import socket
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from popdask.config.settings import Job
from popdask.errors import InputError
from popdask.io import paths
from popdask.io.paths import without_keys, without_secrets
from popdask.store.content import Finished
from popdask.store.location import RegionBusyError
from popdask.store.repository import RegionStore
from popdask.workflow.inputs import versions
from popdask.workflow.progress import Reporter

SUFFIX = ".jsonl"


def log_name(time: datetime) -> str:
    """Name the log of an attempt that begins at some time; names sort by it."""
    return f"{time.astimezone(UTC):%Y%m%dT%H%M%S.%fZ}{SUFFIX}"


def log_place(job: Job, folder: str | Path | None = None) -> LogPlace:
    """Return where the logs of a job's region are."""
    if folder is not None:
        return _Folder(Path(folder) / f"{job.name}.log")
    store = job.output.store.rstrip("/")
    if paths.is_object(store):
        return _Prefix(*paths.bucket_and_key(f"{store}.log"))
    return _Folder(Path(f"{store}.log"))


class _Folder:
    """A folder of this machine. No file is kept open: a run may take days."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __str__(self) -> str:
        return str(self._path)

    def append(self, name: str, line: str) -> None:
        self._path.mkdir(parents=True, exist_ok=True)
        with (self._path / name).open("a", encoding="utf-8") as file:
            file.write(f"{line}\n")

    def names(self) -> list[str]:
        """List the logs, the newest first."""
        return sorted((path.name for path in self._path.glob(f"*{SUFFIX}")), reverse=True)

    def read(self, name: str) -> str:
        return (self._path / name).read_text(encoding="utf-8", errors="replace")

    def remove(self, name: str) -> None:
        (self._path / name).unlink(missing_ok=True)


@dataclass(frozen=True)
class _Prefix(paths.Objects):
    """A prefix of a bucket. Objects cannot grow, so each line writes its log anew."""

    _written: dict[str, str] = field(default_factory=dict, init=False)

    def append(self, name: str, line: str) -> None:
        text = f"{self._written.get(name, '')}{line}\n"
        self._written[name] = text
        paths.client().put_object(**self.place(name), Body=text.encode())

    def names(self) -> list[str]:
        names = (name for name, _ in self.listed() if name.endswith(SUFFIX))
        return sorted(names, reverse=True)

    def read(self, name: str) -> str:
        answer = paths.client().get_object(**self.place(name))
        return str(answer["Body"].read().decode("utf-8", errors="replace"))

    def remove(self, name: str) -> None:
        self.delete(name)


#: The logs of one region, each by its name; as text, where they are.
LogPlace = _Folder | _Prefix


class End(StrEnum):
    """How an attempt has ended."""

    DONE = "done"
    NOTHING = "nothing to do"
    FAILED = "failed"
    WRONG = "wrong"
    """The job file or its input is wrong."""
    BUSY = "busy"
    """Another run held the region."""
    STOPPED = "stopped"
    """By a signal."""
    KILLED = "killed"
    """Without a word of it, or it has not ended yet."""


@dataclass(frozen=True)
class LoggedRun:
    """One run of a region, however it has ended."""

    region: str  # name of the region; of a job file that is wrong, the file's
    outcome: End  # how it has ended
    started: str = ""  # ISO time, UTC; empty where it never started
    seconds: float = 0.0  # how long it took; 0 where that is not known
    error: str | None = None  # why it has not ended well; one sentence
    log: str = ""  # where its log is

    @property
    def good(self) -> bool:
        """Whether the region is as its job wants it."""
        return self.outcome in (End.DONE, End.NOTHING)


def read_runs(job: Job, folder: str | Path | None = None) -> Iterator[LoggedRun]:
    """Read the attempts at the region of a job, the newest first."""
    place = log_place(job, folder)
    for name in place.names():
        found = _read(place, name)
        if found is not None and found.outcome is not End.BUSY:
            yield found


def _read(place: LogPlace, name: str) -> LoggedRun | None:
    """Read one attempt; None for a single stage, or a log of which nothing is readable."""
    events = {line["event"]: line for line in _lines(place.read(name))}
    begin, end = events.get("begin"), events.get("end", {})
    if begin is None or "only" in begin:
        return None
    return LoggedRun(
        begin["region"],
        End(end.get("outcome", End.KILLED)),
        begin["time"],
        end.get("seconds", 0.0),
        end.get("error"),
        f"{place}/{name}",
    )


def _lines(text: str) -> Iterator[dict[str, Any]]:
    for line in text.splitlines():
        try:
            yield json.loads(line)
        except json.JSONDecodeError:  # cut off, by a kill or a full disk
            return


class RunLog(Reporter):
    """Writes the log of one attempt, and passes all on to another reporter; a context."""

    # What the context ends with is put down and goes on its way. A log that cannot be written, on a
    # full disk for example, is reported once, and the run goes on.

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
        fields = self._finish() if error is None else self._fail(error)
        self._write(
            "end",
            outcome=self.outcome,
            seconds=self.seconds,
            stages=self._stages,
            bytes=self._bytes,
            **fields,
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
        """Print one line."""
        text = without_keys(text)
        self._write("note", text=text)
        self._reporter.note(text)

    def _fresh(self) -> list[Finished]:
        """What the region has committed since this was last asked."""
        commits = self._store.stages_since() if self._store else []
        fresh, self._commits = commits[self._commits :], len(commits)
        return fresh

    def _finish(self) -> dict[str, Any]:
        """What there is to say of an attempt that ended well."""
        self.outcome = End.DONE if self._stages else End.NOTHING
        if self._store is None or self._begin:
            return {}
        record = self._store.run_record()
        balance = {"people": record["balance"]} if "balance" in record else {}
        return {"run": record["tag"], **balance}

    def _fail(self, error: BaseException) -> dict[str, Any]:
        """What there is to say of another; ``traceback`` only where a sentence does not do."""
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

    def _write(self, event: str, **fields: Any) -> None:
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        line = {"event": event, "time": now, "region": self._job.name, **fields}
        if self._writable:
            try:
                self._place.append(self.name, json.dumps(line, ensure_ascii=False, default=str))
            except paths.failures() as error:
                self._writable = False
                self._reporter.note(f"the log {self} cannot be written: {error}")
