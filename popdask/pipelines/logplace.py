"""Where the logs of a region lie: beside its store, on this machine or in the same bucket."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from popdask import object_store
from popdask.job import Job

SUFFIX = ".jsonl"


class LogPlace(Protocol):
    """The logs of one region, each by its name; as text, where they are."""

    def append(self, name: str, line: str) -> None:
        """Add a line to a log."""

    def names(self) -> list[str]:
        """List the logs, the newest first."""

    def read(self, name: str) -> str:
        """Read a log."""

    def remove(self, name: str) -> None:
        """Remove a log."""


def log_name(time: datetime) -> str:
    """Name the log of an attempt that begins at some time; names sort by it.

    Examples
    --------
    >>> log_name(datetime(2026, 3, 1, 2, 30, tzinfo=UTC))
    '20260301T023000.000000Z.jsonl'
    """
    return f"{time.astimezone(UTC):%Y%m%dT%H%M%S.%fZ}{SUFFIX}"


def log_place(job: Job, folder: str | Path | None = None) -> LogPlace:
    """Tell where the logs of a job's region are.

    Parameters
    ----------
    job
        The settings.
    folder
        A local folder for the logs of many regions; without it, they lie beside the store.

    Returns
    -------
    LogPlace
        Nothing is created until a line is written.
    """
    if folder is not None:
        return _Folder(Path(folder) / f"{job.name}.log")
    store = job.output.store.rstrip("/")
    if object_store.is_object(store):
        return _Prefix(*object_store.bucket_and_key(f"{store}.log"))
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
        return sorted((path.name for path in self._path.glob(f"*{SUFFIX}")), reverse=True)

    def read(self, name: str) -> str:
        return (self._path / name).read_text(encoding="utf-8", errors="replace")

    def remove(self, name: str) -> None:
        (self._path / name).unlink(missing_ok=True)


class _Prefix:
    """A prefix of a bucket. Objects cannot grow, so each line writes its log anew."""

    def __init__(self, bucket: str, key: str) -> None:
        self._bucket = bucket
        self._key = key
        self._written: dict[str, str] = {}

    def __str__(self) -> str:
        return f"{object_store.SCHEME}{self._bucket}/{self._key}"

    def append(self, name: str, line: str) -> None:
        text = f"{self._written.get(name, '')}{line}\n"
        self._written[name] = text
        object_store.client().put_object(**self._place(name), Body=text.encode())

    def names(self) -> list[str]:
        pages = object_store.client().get_paginator("list_objects_v2")
        found = pages.paginate(Bucket=self._bucket, Prefix=f"{self._key}/")
        keys = [item["Key"] for page in found for item in page.get("Contents", ())]
        names = (key.removeprefix(f"{self._key}/") for key in keys)
        return sorted((name for name in names if name.endswith(SUFFIX)), reverse=True)

    def read(self, name: str) -> str:
        answer = object_store.client().get_object(**self._place(name))
        return str(answer["Body"].read().decode("utf-8", errors="replace"))

    def remove(self, name: str) -> None:
        object_store.client().delete_object(**self._place(name))

    def _place(self, name: str) -> dict[str, str]:
        return {"Bucket": self._bucket, "Key": f"{self._key}/{name}"}
