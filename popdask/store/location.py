"""Where a repository lies, a folder or a prefix of a bucket, and who holds it: one run at a time.

The lock of a folder is the operating system's (``flock`` on a file beside the store), so it ends
with the process that holds it, however that ends. Beside it lies a note of who holds it. Worker
processes do not inherit the lock, so none of them can keep it when their run is killed.

The lock of a prefix is an object beside it. The store itself decides who comes first: it writes the
object only where there is none (``If-None-Match: *``), and replaces or removes it only for the one
who knows its present ETag (``If-Match``). The run that holds the lock writes it anew every 20 s.
One that has not done so for two minutes, by the store's clock alone, is taken for dead, and so is
at once one whose process has ended on this very machine; the next run then replaces the lock. A run
that was only asleep finds out before it commits anything, and ends.
"""

from __future__ import annotations

import errno
import fcntl
import getpass
import json
import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import icechunk
import psutil
from filelock import FileLock, Timeout
from icechunk import IcechunkError

from popdask.errors import InputError
from popdask.io import paths
from popdask.store.content import READ_ERRORS, reason_of

#: Errors of the system that a store may meet; those of a network are not among them.
OF_THE_STORE = {
    errno.EACCES,
    errno.EDQUOT,
    errno.EFBIG,
    errno.EIO,
    errno.ENAMETOOLONG,
    errno.ENOSPC,
    errno.EPERM,
    errno.EROFS,
}
#: Raises `RegionBusyError` if the region is no longer held.
Guard = Callable[[], None]

#: A status command holds the lock for an instant; a run that begins just then waits for it.
PATIENCE_SECONDS = 1.0
#: What the system says of a lock that is no file: a link, a folder, a pipe.
_NO_FILE = (errno.ELOOP, errno.EMLINK, errno.EISDIR, errno.EINVAL, errno.ENXIO)
#: What the system says of a place where nothing can be, as within ``/proc`` or with a long name.
_NO_PLACE = (errno.ENOENT, errno.ENOTDIR, errno.EEXIST, errno.ENAMETOOLONG, errno.EINVAL)
#: What it says where there are no locks, as on some network and cluster file systems.
_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)
#: In a bucket the run says so often that it lives, and is taken for dead after that silence.
HEARTBEAT_SECONDS, DEAD_AFTER_SECONDS = 20.0, 120.0
#: Attempts to take a lock that others take and give back in between.
ATTEMPTS = 5
#: The store did not write: the object is there, is another, went away, or is being written.
_REFUSED = ("PreconditionFailed", "ConditionalRequestConflict", "NoSuchKey", "404", "409", "412")
_log = logging.getLogger(__name__)


class StoreError(RuntimeError):
    """The store cannot be read or written: a full disk, lost permissions, a server out of reach.

    What was committed is whole, and readers see the last finished run.

    Examples
    --------
    >>> raise StoreError("the disk is full")
    Traceback (most recent call last):
    popdask.store.location.StoreError: the disk is full
    """


@contextmanager
def store_errors(place: object) -> Iterator[None]:
    """Turn what the system and Icechunk say of a store into one sentence."""
    try:
        yield
    except IcechunkError as error:
        raise _store_error(place, reason_of(error)) from error
    except OSError as error:
        if error.errno not in OF_THE_STORE:
            raise
        raise _store_error(place, error.strerror or str(error)) from error


def _store_error(place: object, reason: str) -> StoreError:
    if "timestamp ordering" in reason:  # a commit must not be older than the one before it
        reason = "this machine's clock is behind that of the last commit: set it right"
    return StoreError(
        f"{place} cannot be read or written ({reason}): what is finished is kept; mend that, and "
        "run the job again to go on."
    )


@contextmanager
def damage_named(place: object) -> Iterator[None]:
    """Say in one sentence that what a store has cannot be read, and what helps."""
    try:
        yield
    except (InputError, StoreError):
        raise
    except READ_ERRORS as error:
        raise damaged(place, error) from error


def damaged(place: object, error: Exception) -> StoreError:
    """Explain a store that cannot be read, and what helps."""
    return StoreError(
        f"{place} cannot be read ({reason_of(error)}): if it is damaged, `popdask run JOB "
        "--force` computes it anew."
    )


@dataclass(frozen=True)
class Folder:
    """A folder of this machine."""

    path: Path

    def __str__(self) -> str:
        return str(self.path)

    def check(self) -> None:
        """Refuse a file, a place within one, and a folder with other files."""
        places = (self.path, *self.path.absolute().parents)
        with store_errors(self):
            nearest = next(place for place in places if os.path.lexists(place))
            is_folder = nearest.is_dir()
            other = self.path.is_dir() and not self.exists() and any(self.path.iterdir())
        if not is_folder:
            raise InputError(
                f"[output] store {self} cannot be there, because {nearest} is a file, not the "
                "folder of an Icechunk repository: choose another place."
            )
        if other and (self.path / "snapshots").is_dir() and (self.path / "manifests").is_dir():
            raise InputError(
                f"[output] store {self} is an Icechunk repository without its refs/branch.main, by "
                "which it is read: bring that back from a copy, or move the folder away and run "
                "the job anew."
            )
        if other:
            raise InputError(
                f"[output] store {self} is a folder that holds other files, not an Icechunk "
                "repository: choose another folder."
            )

    def exists(self) -> bool:
        """Return whether a repository is there; nothing is created."""
        return self.path.is_dir() and icechunk.Repository.exists(self.storage())

    def neighbours(self) -> Iterator[Folder]:
        """List the other repositories in the same folder, by name."""
        beside = self.path.absolute().parent
        for path in sorted(beside.iterdir()) if beside.is_dir() else ():
            if path.name != self.path.name and Folder(path).exists():
                yield Folder(path)

    def storage(self) -> icechunk.Storage:
        """Open it for Icechunk."""
        return icechunk.local_filesystem_storage(str(self.path))

    def files(self) -> dict[str, int]:
        """List the files, by their paths within the folder, with their sizes."""
        inside = (path for path in self.path.rglob("*") if path.is_file())
        return {path.relative_to(self.path).as_posix(): path.stat().st_size for path in inside}

    @contextmanager
    def hold(self) -> Iterator[Guard]:
        """Hold the region by the operating system's lock."""
        lock, note = FileLock(self._beside("lock")), self._beside("owner")
        self._make_lock_file(Path(lock.lock_file))
        try:
            lock.acquire(timeout=PATIENCE_SECONDS)
        except Timeout:
            who = self._noted() or "its owner is just starting or leaving"
            raise RegionBusyError(f"another run holds {self}: {who}.") from None
        try:
            if dead := self._noted():
                _log.warning(
                    "%s was held by %s, which ended without giving it back: its lock is taken "
                    "over.",
                    self,
                    dead,
                )
            paths.write_text(note, json.dumps(asdict(myself())))
            yield lambda: None
        finally:
            note.unlink(missing_ok=True)
            lock.release()

    def holder(self) -> Owner | None:
        """Return who holds it, without disturbing."""
        # The note of a run that was killed counts for nothing: the lock decides.
        try:
            with paths.open_own(self._beside("lock"), "rb") as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return self._noted() or Owner("somebody", "an unknown host", 0, "just now")
        except OSError as error:
            if error.errno in _NO_LOCKS:  # where it is mounted with them, somebody may
                return self._noted()
            if error.errno not in (*_NO_FILE, *_NO_PLACE):
                raise
        return None

    def _make_lock_file(self, file: Path) -> None:
        """Make the file of the lock where there is none; say what keeps it from being there."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            # NFS takes a shared lock on what may be read alone.
            with paths.open_own(file, "a+b") as opened, suppress(BlockingIOError):
                fcntl.flock(opened, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in _NO_LOCKS:
                raise InputError(
                    f"[output] store {self} is on a file system without locks ({error.strerror}), "
                    "so that two runs could not be kept apart; expected one with flock; choose a "
                    "local disk or s3://, or have it mounted with locks"
                ) from error
            if error.errno in _NO_FILE and os.path.lexists(file):
                raise InputError(
                    f"{file} is a link, a pipe or a folder; expected the lock of {self}, a file "
                    "of its own; somebody has put it there: take it away"
                ) from error
            if error.errno not in _NO_PLACE:
                raise
            raise InputError(
                f"[output] store {self} cannot be there ({error.strerror}); expected a folder in "
                "which files can be made; choose another place"
            ) from error

    def _beside(self, kind: str) -> Path:
        """A file beside the region, the same one by whatever links the region is reached."""
        return Path(f"{os.path.realpath(self.path)}.{kind}")

    def _noted(self) -> Owner | None:
        try:
            return Owner(**json.loads(paths.read_own(self._beside("owner"))))
        except (OSError, TypeError, ValueError):
            # It is just being written, or taken away, or not of this version, or a link.
            return None


@dataclass(frozen=True)
class Prefix(paths.Objects):
    """A prefix of a bucket, reached as `popdask.io.paths` says."""

    def check(self) -> None:
        """Refuse a bucket that cannot be reached, and a prefix with other objects."""
        try:
            other = next(self.listed(), None) is not None and not self.exists()
        except paths.failures() as error:
            raise self._out_of_reach(error) from error
        except IcechunkError as error:
            raise self._out_of_reach(error) from error
        if other:
            raise InputError(
                f"[output] store {self} holds other objects, not an Icechunk repository: choose "
                "another prefix."
            )

    def exists(self) -> bool:
        """Return whether a repository is there."""
        return icechunk.Repository.exists(self.storage())

    def neighbours(self) -> Iterator[Prefix]:
        """List the other repositories under the same prefix, by name."""
        folder = self.key.rpartition("/")[0]
        for name in paths.Objects(self.bucket, folder).entries():
            other = Prefix(self.bucket, f"{folder}/{name}".strip("/"))
            if name.endswith("/") and other != self and other.exists():
                yield other

    def storage(self) -> icechunk.Storage:
        """Open it for Icechunk."""
        options = paths.icechunk_options()
        return icechunk.s3_storage(bucket=self.bucket, prefix=self.key, **options)

    def files(self) -> dict[str, int]:
        """List the objects, by their keys under the prefix, with their sizes."""
        return dict(self.listed())

    @contextmanager
    def hold(self) -> Iterator[Guard]:
        """Hold the region by an object beside it."""
        lock = _Lock(self._lock_place(), str(self))
        lock.acquire()
        threading.Thread(target=lock.beat, name=f"lock of {self}", daemon=True).start()
        try:
            yield lock.check
        finally:
            lock.release()

    def holder(self) -> Owner | None:
        """Return who holds it; None where nobody does, or one that is dead."""
        held = _find(self._lock_place())
        return held.owner if held and not held.dead else None

    def _lock_place(self) -> dict[str, str]:
        return {"Bucket": self.bucket, "Key": f"{self.key}.lock"}

    def _out_of_reach(self, error: Exception) -> InputError:
        return InputError(
            f"[output] store {self} cannot be reached ({reason_of(error)}): check the bucket, "
            "AWS_ENDPOINT_URL, AWS_REGION and the credentials."
        )


#: A place that may hold a repository; as text, the name that its user knows it by.
Location = Folder | Prefix


def locate(place: Any) -> Location:
    """Return what a place is by its name: a URL of an object store, or a folder."""
    if paths.is_object(str(place)):
        return Prefix(*paths.bucket_and_key(str(place)))
    if "://" in str(place):
        raise InputError(
            f"[output] store is {place}: stores are kept in local folders and on s3://; give one."
        )
    return Folder(Path(place))


class RegionBusyError(RuntimeError):
    """Another run holds the region.

    Examples
    --------
    >>> raise RegionBusyError("another run holds the region")
    Traceback (most recent call last):
    popdask.store.location.RegionBusyError: another run holds the region
    """


@dataclass(frozen=True)
class Owner:
    """Who holds a region.

    Examples
    --------
    >>> print(Owner("ada", "node7", 4711, "2026-01-01T00:00:00+00:00"))
    ada on node7, process 4711, since 2026-01-01T00:00:00+00:00
    """

    user: str
    host: str
    process: int
    since: str
    """ISO time, UTC."""

    def __str__(self) -> str:
        return f"{self.user} on {self.host}, process {self.process}, since {self.since}"


def myself() -> Owner:
    """Return who this process is."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return Owner(getpass.getuser(), socket.gethostname(), os.getpid(), now)


@dataclass(frozen=True)
class _Held:
    """A lock as it is found."""

    owner: Owner
    machine: str  # what tells this machine's processes from others'; empty where that is not known
    run: str  # the run, a number of its own
    note: bytes  # all that is written there
    etag: str
    silence: float  # seconds since it was written, by the store's clock

    @property
    def dead(self) -> bool:
        """Whether its run has ended without giving it back."""
        here = self.machine != "" and self.machine == _machine()
        return self.silence > DEAD_AFTER_SECONDS or (here and not _runs(self.owner.process))


class _Lock:
    """A lock that is held, or wanted."""

    def __init__(self, place: dict[str, str], region: str) -> None:
        self._place, self._region = place, region
        self._token = uuid.uuid4().hex
        self._etag = ""
        self._beats = 0
        self._owner = myself()
        self._ended = threading.Event()
        self._busy = threading.Lock()

    def acquire(self) -> None:
        """Write the lock where there is none, or in the place of a dead one."""
        for attempt in range(ATTEMPTS):
            if self._write(IfNoneMatch="*"):
                return self._check_store()
            held = _find(self._place)
            if held is None:  # given back just now
                time.sleep(0.1 * attempt)
                continue
            if not held.dead:
                raise RegionBusyError(
                    f"another run holds {self._region}: {held.owner}; it was last heard of "
                    f"{max(held.silence, 0):.0f} s ago, and is taken for dead after "
                    f"{DEAD_AFTER_SECONDS:.0f} s."
                )
            if self._write(IfMatch=held.etag):
                _log.warning(
                    "%s was held by %s, which ended without giving it back (last heard of %.0f s "
                    "ago): its lock is taken over.",
                    self._region,
                    held.owner,
                    held.silence,
                )
                return None
        raise RegionBusyError(f"other runs of {self._region} are just starting.")

    def check(self) -> None:
        """Signal that this run is alive; end it if another one has taken it for dead."""
        with self._busy:
            if self._write(IfMatch=self._etag):
                return
            held = _find(self._place)
            if held is None or held.run != self._token:
                who = f", which {held.owner} holds now" if held else ""
                raise RegionBusyError(
                    f"this run was not heard of for {DEAD_AFTER_SECONDS:.0f} s and has lost "
                    f"{self._region}{who}; run the job again."
                )
            self._etag = held.etag

    def beat(self) -> None:
        """Signal again and again that this run is alive, until it ends or is taken for dead."""
        while not self._ended.wait(HEARTBEAT_SECONDS):
            try:
                self.check()
            except RegionBusyError as error:
                _log.warning("%s", error)
                return
            except paths.failures() as error:  # the next beat may come through
                _log.warning("the lock of %s could not be renewed: %s", self._region, error)

    def release(self) -> None:
        """Give the lock back, if it is still this run's."""
        self._ended.set()
        with self._busy:
            try:
                paths.client().delete_object(**self._place, IfMatch=self._etag)
            except paths.failures() as error:
                if _code(error) not in _REFUSED:
                    _log.warning("the lock of %s could not be removed: %s", self._region, error)

    def _write(self, **condition: str) -> bool:
        """Write the lock on a condition, and return whether that held."""
        # A note differs from all others, so that one that was written is known again although the
        # answer was lost and the request repeated.
        self._beats += 1
        note_fields = asdict(self._owner) | {"machine": _machine(), "run": self._token}
        note = json.dumps(note_fields | {"beat": self._beats}).encode()
        try:
            answer = paths.client().put_object(**self._place, Body=note, **condition)
        except paths.failures() as error:
            if _code(error) not in _REFUSED:
                raise
            held = _find(self._place)
            if held is None or held.note != note:
                return False
            self._etag = held.etag
        else:
            self._etag = answer["ETag"]
        return True

    def _check_store(self) -> None:
        """Refuse a store that does not heed conditions: there, two runs could hold one region."""
        if self._write(IfNoneMatch="*"):
            self.release()
            raise InputError(
                f"[output] store {self._region} is on a server that ignores conditional writes "
                "(If-None-Match), so that two runs could not be kept apart: use one that has them."
            )


def _find(place: dict[str, str]) -> _Held | None:
    """Read a lock; None where there is none."""
    try:
        answer = paths.client().get_object(**place)
        note = answer["Body"].read()
    except paths.failures() as error:
        if _code(error) in _REFUSED:
            return None
        raise
    held: dict[str, Any] = json.loads(note)
    owner = Owner(**{name: held[name] for name in Owner.__dataclass_fields__})
    now = parsedate_to_datetime(answer["ResponseMetadata"]["HTTPHeaders"]["date"])
    silence = (now - answer["LastModified"]).total_seconds()
    return _Held(owner, held["machine"], held["run"], note, answer["ETag"], silence)


def _code(error: Exception) -> str:
    """The code of an answer that says no; empty where there was none."""
    return str(getattr(error, "response", {}).get("Error", {}).get("Code", ""))


def _runs(process: int) -> bool:
    try:
        return bool(psutil.Process(process).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _machine() -> str:
    """What processes have in common that can see each other: the boot, and the container."""
    boot = Path("/proc/sys/kernel/random/boot_id")
    if not boot.exists():
        return ""
    return f"{boot.read_text().strip()} {os.readlink('/proc/self/ns/pid')}"  # noqa: PTH115
