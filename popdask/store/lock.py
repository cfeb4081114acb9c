"""The lock of a region: one run at a time, and who it is.

The lock is the operating system's (``flock`` on a file beside the store), so it ends with the
process that holds it, however that ends. Beside it lies a note of who holds it. Worker processes do
not inherit the lock, so none of them can keep it when their run is killed.
"""

from __future__ import annotations

import fcntl
import getpass
import json
import logging
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock, Timeout

#: A status command holds the lock for an instant; a run that begins just then waits for it.
PATIENCE_SECONDS = 1.0

_log = logging.getLogger(__name__)


class RegionBusyError(RuntimeError):
    """Another run holds the region."""


@dataclass(frozen=True)
class Owner:
    """Who holds a region."""

    user: str
    host: str
    process: int
    since: str
    """ISO time, UTC."""

    def __str__(self) -> str:
        return f"{self.user} on {self.host}, process {self.process}, since {self.since}"


@contextmanager
def hold(region: Path) -> Iterator[Callable[[], None]]:
    """Hold a region, for one run.

    Parameters
    ----------
    region
        The store's folder; the lock lies beside it.

    Yields
    ------
    callable
        Does nothing: the system lets nobody take the lock from a living process.

    Raises
    ------
    RegionBusyError
        If another run holds it; the message says who, where and since when.
    """
    region.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(_lock_file(region))
    try:
        lock.acquire(timeout=PATIENCE_SECONDS)
    except Timeout:
        who = _noted(region) or "its owner is just starting or leaving"
        raise RegionBusyError(f"another run holds {region}: {who}.") from None
    note = _owner_file(region)
    try:
        if dead := _noted(region):
            _log.warning(
                "%s was held by %s, which ended without giving it back: its lock is taken over.",
                region,
                dead,
            )
        note.write_text(json.dumps(asdict(myself())))
        yield lambda: None
    finally:
        note.unlink(missing_ok=True)
        lock.release()


def holder(region: Path) -> Owner | None:
    """Tell who holds a region, without disturbing; None where nobody does.

    The note of a run that was killed counts for nothing: the lock decides.
    """
    try:
        with _lock_file(region).open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _noted(region) or Owner("somebody", "an unknown host", 0, "just now")
    except FileNotFoundError:
        return None
    return None


def _lock_file(region: Path) -> Path:
    return Path(f"{region}.lock")


def _owner_file(region: Path) -> Path:
    return Path(f"{region}.owner")


def _noted(region: Path) -> Owner | None:
    try:
        return Owner(**json.loads(_owner_file(region).read_text()))
    except (FileNotFoundError, TypeError, ValueError):
        return None  # it is just being written, or taken away, or not of this version


def myself() -> Owner:
    """Tell who this process is."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return Owner(getpass.getuser(), socket.gethostname(), os.getpid(), now)
