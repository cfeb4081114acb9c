"""Where the command line begins and ends: what fails becomes a sentence and an exit code."""

from __future__ import annotations

import errno
import io
import sys

from popdask.cli import console
from popdask.cli.commands import app
from popdask.errors import InputError


def main() -> None:
    """Run the command line; what a user can mend becomes one sentence and an exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a run must not end by a sign that is not there
    try:
        app()
    except InputError as error:
        console.complain(error)
        sys.exit(2)
    except Exception as error:
        code = known_failure(error)
        if code is None:
            raise
        console.complain(_sentence(error))
        sys.exit(code)


def known_failure(error: Exception) -> int | None:
    """Exit code of a failure that one sentence tells; None for what must be a bug."""
    from distributed.scheduler import KilledWorker
    from icechunk import IcechunkError

    from popdask.errors import ClusterError
    from popdask.imagery.trainer import TrainingError
    from popdask.store.location import OF_THE_STORE, StoreError
    from popdask.store.lock import RegionBusyError
    from popdask.tracking.describe import LostPeopleError

    if isinstance(error, RegionBusyError):
        return 75
    if isinstance(error, OSError):  # of the disk, or of a file where a folder is wanted
        return 1 if error.errno in OF_THE_STORE | {errno.EEXIST, errno.ENOTDIR} else None
    told = (StoreError, LostPeopleError, KilledWorker, ClusterError, TrainingError, IcechunkError)
    return 1 if isinstance(error, told) else None


def _sentence(error: Exception) -> str:
    from icechunk import IcechunkError

    from popdask.store.location import damaged

    if isinstance(error, OSError):
        return f"{error.filename or 'a file'} cannot be read or written ({error.strerror})."
    if isinstance(error, IcechunkError):
        return str(damaged("the store", error))
    return str(error)
