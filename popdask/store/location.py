"""Where a region's repository is: a folder of this machine, or a prefix of a bucket."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import icechunk

from popdask import object_store
from popdask.errors import InputError
from popdask.store import lock, object_lock
from popdask.store.lock import Owner
from popdask.store.trouble import told

#: Raises `RegionBusyError` if the region is no longer held.
Guard = Callable[[], None]


class Location(Protocol):
    """A place that may hold a repository; as text, the name that its user knows it by."""

    def check(self) -> None:
        """Refuse a place that holds other things, or cannot be reached."""

    def exists(self) -> bool:
        """Tell whether a repository is there."""

    def storage(self) -> icechunk.Storage:
        """Open it for Icechunk."""

    def bytes(self) -> int:
        """Add up what is stored there."""

    def hold(self) -> AbstractContextManager[Guard]:
        """Hold the region that lies there, for one run."""

    def holder(self) -> Owner | None:
        """Tell who holds it."""


@dataclass(frozen=True)
class Folder:
    """A folder of this machine."""

    path: Path

    def __str__(self) -> str:
        return str(self.path)

    def check(self) -> None:
        """Refuse a file, a place within one, and a folder with other files."""
        with told(self):
            file = next((place for place in self.path.parents if place.is_file()), None)
            is_file = self.path.is_file()
            other = self.path.is_dir() and not self.exists() and any(self.path.iterdir())
        if file:
            raise InputError(
                f"[output] store {self} cannot be there, because {file} is a file: choose another "
                "place."
            )
        if is_file:
            raise InputError(
                f"[output] store {self} is a file, not the folder of an Icechunk repository: "
                "choose another place."
            )
        if other:
            raise InputError(
                f"[output] store {self} is a folder that holds other files, not an Icechunk "
                "repository: choose another folder."
            )

    def exists(self) -> bool:
        """Tell whether a repository is there; nothing is created."""
        return self.path.is_dir() and icechunk.Repository.exists(self.storage())

    def storage(self) -> icechunk.Storage:
        """Open it for Icechunk."""
        return icechunk.local_filesystem_storage(str(self.path))

    def bytes(self) -> int:
        """Add up the sizes of the files."""
        return sum(path.stat().st_size for path in self.path.rglob("*") if path.is_file())

    def hold(self) -> AbstractContextManager[Guard]:
        """Hold the region by the operating system's lock."""
        return lock.hold(self.path)

    def holder(self) -> Owner | None:
        """Tell who holds it."""
        return lock.holder(self.path)


@dataclass(frozen=True)
class Prefix:
    """A prefix of a bucket, reached as `popdask.object_store` says."""

    bucket: str
    key: str

    def __str__(self) -> str:
        return f"{object_store.SCHEME}{self.bucket}/{self.key}"

    def check(self) -> None:
        """Refuse a bucket that cannot be reached, and a prefix with other objects."""
        try:
            other = next(self._sizes(), None) is not None and not self.exists()
        except object_store.failures() as error:
            raise self._out_of_reach(error) from error
        except icechunk.IcechunkError as error:
            raise self._out_of_reach(error) from error
        if other:
            raise InputError(
                f"[output] store {self} holds other objects, not an Icechunk repository: choose "
                "another prefix."
            )

    def exists(self) -> bool:
        """Tell whether a repository is there."""
        return icechunk.Repository.exists(self.storage())

    def storage(self) -> icechunk.Storage:
        """Open it for Icechunk."""
        options = object_store.icechunk_options()
        return icechunk.s3_storage(bucket=self.bucket, prefix=self.key, **options)

    def bytes(self) -> int:
        """Add up the sizes of the objects, as they are listed."""
        return sum(self._sizes())

    def hold(self) -> AbstractContextManager[Guard]:
        """Hold the region by an object beside it."""
        return object_lock.hold(self.bucket, f"{self.key}.lock", str(self))

    def holder(self) -> Owner | None:
        """Tell who holds it."""
        return object_lock.holder(self.bucket, f"{self.key}.lock")

    def _out_of_reach(self, error: Exception) -> InputError:
        reason = str(error).splitlines()[0].strip()
        return InputError(
            f"[output] store {self} cannot be reached ({reason}): check "
            "the bucket, AWS_ENDPOINT_URL, AWS_REGION and the credentials."
        )

    def _sizes(self) -> Iterator[int]:
        pages = object_store.client().get_paginator("list_objects_v2")
        for page in pages.paginate(Bucket=self.bucket, Prefix=f"{self.key}/"):
            for item in page.get("Contents", ()):
                yield int(item["Size"])


def locate(place: Any) -> Location:
    """Tell what a place is by its name: a URL of an object store, or a folder.

    Raises
    ------
    InputError
        If it is a URL of another kind, or names no prefix.

    Examples
    --------
    >>> locate("s3://people/oslo.icechunk")
    Prefix(bucket='people', key='oslo.icechunk')
    >>> locate("out/oslo.icechunk")
    Folder(path=PosixPath('out/oslo.icechunk'))
    """
    if object_store.is_object(str(place)):
        return Prefix(*object_store.bucket_and_key(str(place)))
    if "://" in str(place):
        raise InputError(
            f"[output] store is {place}: stores are kept in local folders and on s3://; give one."
        )
    return Folder(Path(place))
