"""Where a repository lies, and errors of such places in one sentence.

What goes wrong with a store while a run works on it, said in one sentence.

Where a region's repository is: a folder of this machine, or a prefix of a bucket.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import icechunk
from icechunk import IcechunkError

from popdask.errors import InputError
from popdask.io import paths
from popdask.store import lock
from popdask.store.content import READ_ERRORS
from popdask.store.lock import Owner

#: Errors of the system that a store may meet; those of a network are not among them.
OF_THE_STORE = {
    errno.EACCES,
    errno.EDQUOT,
    errno.EIO,
    errno.ENAMETOOLONG,
    errno.ENOSPC,
    errno.EPERM,
    errno.EROFS,
}
#: Raises `RegionBusyError` if the region is no longer held.
Guard = Callable[[], None]


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
        raise _store_error(place, _root(str(error))) from error
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
        f"{place} cannot be read ({_root(str(error))}): if it is damaged, `popdask run JOB "
        "--force` computes it anew."
    )


def _root(text: str) -> str:
    """The root of an error of Icechunk's: it stands last, behind an arrow, or first."""
    text = text.strip()
    root = text.rsplit("-> ", 1)[-1].split("\n\n")[0] if "-> " in text else text.splitlines()[0]
    return " ".join(root.split()).removeprefix("x ")


class Location(Protocol):
    """A place that may hold a repository; as text, the name that its user knows it by."""

    def check(self) -> None:
        """Refuse a place that holds other things, or cannot be reached."""

    def exists(self) -> bool:
        """Return whether a repository is there."""

    def neighbours(self) -> Iterator[Location]:
        """List the other repositories in the same folder, by name."""

    def storage(self) -> icechunk.Storage:
        """Open it for Icechunk."""

    def bytes(self) -> int:
        """Add up what is stored there."""

    def files(self) -> dict[str, int]:
        """List what is stored there, by names within it, with sizes in bytes."""

    def hold(self) -> AbstractContextManager[Guard]:
        """Hold the region that lies there, for one run."""

    def holder(self) -> Owner | None:
        """Return who holds it."""


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

    def bytes(self) -> int:
        """Add up the sizes of the files."""
        return sum(self.files().values())

    def files(self) -> dict[str, int]:
        """List the files, by their paths within the folder, with their sizes."""
        inside = (path for path in self.path.rglob("*") if path.is_file())
        return {path.relative_to(self.path).as_posix(): path.stat().st_size for path in inside}

    def hold(self) -> AbstractContextManager[Guard]:
        """Hold the region by the operating system's lock."""
        return lock.hold_folder(self.path)

    def holder(self) -> Owner | None:
        """Return who holds it."""
        return lock.holder_of_folder(self.path)


@dataclass(frozen=True)
class Prefix:
    """A prefix of a bucket, reached as `popdask.io.paths` says."""

    bucket: str
    key: str

    def __str__(self) -> str:
        return f"{paths.SCHEME}{self.bucket}/{self.key}"

    def check(self) -> None:
        """Refuse a bucket that cannot be reached, and a prefix with other objects."""
        try:
            other = next(self._objects(), None) is not None and not self.exists()
        except paths.failures() as error:
            raise self._out_of_reach(error) from error
        except icechunk.IcechunkError as error:
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
        pages = paths.client().get_paginator("list_objects_v2")
        folder = self.key[: self.key.rfind("/") + 1]
        for page in pages.paginate(Bucket=self.bucket, Prefix=folder, Delimiter="/"):
            for item in page.get("CommonPrefixes", ()):
                other = Prefix(self.bucket, item["Prefix"].rstrip("/"))
                if other != self and other.exists():
                    yield other

    def storage(self) -> icechunk.Storage:
        """Open it for Icechunk."""
        options = paths.icechunk_options()
        return icechunk.s3_storage(bucket=self.bucket, prefix=self.key, **options)

    def bytes(self) -> int:
        """Add up the sizes of the objects, as they are listed."""
        return sum(self.files().values())

    def files(self) -> dict[str, int]:
        """List the objects, by their keys under the prefix, with their sizes."""
        return dict(self._objects())

    def hold(self) -> AbstractContextManager[Guard]:
        """Hold the region by an object beside it."""
        return lock.hold_object(self.bucket, f"{self.key}.lock", str(self))

    def holder(self) -> Owner | None:
        """Return who holds it."""
        return lock.holder_of_object(self.bucket, f"{self.key}.lock")

    def _out_of_reach(self, error: Exception) -> InputError:
        reason = str(error).splitlines()[0].strip()
        return InputError(
            f"[output] store {self} cannot be reached ({reason}): check "
            "the bucket, AWS_ENDPOINT_URL, AWS_REGION and the credentials."
        )

    def _objects(self) -> Iterator[tuple[str, int]]:
        pages = paths.client().get_paginator("list_objects_v2")
        for page in pages.paginate(Bucket=self.bucket, Prefix=f"{self.key}/"):
            for item in page.get("Contents", ()):
                yield item["Key"][len(self.key) + 1 :], int(item["Size"])


def locate(place: Any) -> Location:
    """Return what a place is by its name: a URL of an object store, or a folder."""
    if paths.is_object(str(place)):
        return Prefix(*paths.bucket_and_key(str(place)))
    if "://" in str(place):
        raise InputError(
            f"[output] store is {place}: stores are kept in local folders and on s3://; give one."
        )
    return Folder(Path(place))
