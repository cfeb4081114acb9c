"""What goes wrong with a store while a run works on it, said in one sentence."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from icechunk import IcechunkError

from popdask.errors import InputError
from popdask.store.contents import READ_ERRORS

#: Errors of the system that a store may meet; those of a network are not among them.
OF_THE_STORE = {
    errno.EACCES,
    errno.EDQUOT,
    errno.EIO,
    errno.ENOSPC,
    errno.EPERM,
    errno.EROFS,
}


class StoreError(RuntimeError):
    """The store cannot be read or written: a full disk, lost permissions, a server out of reach.

    What was committed is whole, and readers see the last finished run.
    """


@contextmanager
def told(place: object) -> Iterator[None]:
    """Turn what the system and Icechunk say of a store into one sentence.

    Parameters
    ----------
    place
        What to call the store.

    Raises
    ------
    StoreError
        If what is done meanwhile ends in an error of Icechunk, or of the disk.

    Examples
    --------
    >>> with told("out/oslo.icechunk"):
    ...     raise OSError(28, "No space left on device")
    Traceback (most recent call last):
    popdask.store.trouble.StoreError: out/oslo.icechunk cannot be read or written (No space left ...
    """
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
def damage_told(place: object) -> Iterator[None]:
    """Say in one sentence that what a store has cannot be read, and what helps.

    Parameters
    ----------
    place
        What to call the store.

    Raises
    ------
    StoreError
        If what is done meanwhile ends in what a damaged or lost chunk ends in.
    """
    try:
        yield
    except (InputError, StoreError):
        raise
    except READ_ERRORS as error:
        raise damaged(place, error) from error


def damaged(place: object, error: Exception) -> StoreError:
    """Tell of a store that cannot be read, and what helps."""
    return StoreError(
        f"{place} cannot be read ({_root(str(error))}): if it is damaged, `popdask run JOB "
        "--force` computes it anew."
    )


def _root(text: str) -> str:
    """The root of an error of Icechunk's: it stands last, behind an arrow, or first."""
    text = text.strip()
    root = text.rsplit("-> ", 1)[-1].split("\n\n")[0] if "-> " in text else text.splitlines()[0]
    return " ".join(root.split()).removeprefix("x ")
