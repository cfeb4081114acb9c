"""Where the command line begins and ends: what fails becomes a sentence and an exit code.

The command `popdask` and `python -m popdask` are the same.
"""

from __future__ import annotations

import atexit
import errno
import gc
import io
import resource
import sys
import warnings

from popdask.cli import console
from popdask.cli.commands import app
from popdask.errors import InputError


def main() -> None:
    """Run the command line; what a user can mend becomes one sentence and an exit code."""
    _raise_limit()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a run must not end by a sign that is not there
    # Of a raster without a place popdask says so itself, where it matters.
    warnings.filterwarnings("ignore", message="Dataset has no geotransform")
    gc.set_threshold(10_000, 10, 10)  # a tenth of a start was a search for garbage in libraries
    atexit.register(gc.freeze)  # and a fifth of a plan the last one, of what ends with the process
    try:
        app()
    except InputError as error:
        console.complain(error)
        sys.exit(2)
    except Exception as error:
        known = known_failure(error)
        if known is None:
            raise
        code, sentence = known
        console.complain(sentence)
        sys.exit(code)


def _raise_limit() -> None:
    """Let this process have enough files open, where it may; workers inherit that."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = (
        console.ENOUGH_FILES if hard == resource.RLIM_INFINITY else min(hard, console.ENOUGH_FILES)
    )
    if 0 <= soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def known_failure(error: Exception) -> tuple[int, str] | None:
    """Exit code of a failure that one sentence explains, and that; None for what must be a bug."""
    from distributed.scheduler import KilledWorker
    from icechunk import IcechunkError

    from popdask.errors import ClusterError
    from popdask.imagery.trainer import TrainingError
    from popdask.store.location import OF_THE_STORE, RegionBusyError, StoreError, damaged
    from popdask.tracking.describe import LostPeopleError

    if isinstance(error, RegionBusyError):
        return 75, str(error)
    if sentence := exhausted(error):
        return 1, sentence
    if isinstance(error, OSError):  # of the disk, or of a file where a folder is wanted
        if error.errno not in OF_THE_STORE | {errno.EEXIST, errno.ENOTDIR}:
            return None
        return 1, f"{error.filename or 'a file'} cannot be read or written ({error.strerror})."
    if isinstance(error, IcechunkError):
        return 1, str(damaged("the store", error))
    expected = (StoreError, LostPeopleError, KilledWorker, ClusterError, TrainingError)
    return (1, str(error)) if isinstance(error, expected) else None


def exhausted(error: Exception) -> str | None:
    """Say what the machine, or the user's share of it, has no more of, and what helps."""
    code = error.errno if isinstance(error, OSError) else None
    reason = " ".join(str(error).split()).rstrip(".")
    if isinstance(error, MemoryError) or code == errno.ENOMEM:
        return (
            f"the memory does not suffice ({reason or 'no more is to be had'}): take smaller "
            "[input] chunks, fewer workers or threads, or a machine with more; what is finished is "
            "kept."
        )
    if code in (errno.EMFILE, errno.ENFILE):
        return (
            "too many files are open at once: raise the limit (`ulimit -n 4096`), or take fewer "
            "workers; what is finished is kept."
        )
    if "can't start new thread" in reason or code == errno.EAGAIN:
        return (
            f"no more threads or processes can be started ({reason}): raise the limit (`ulimit "
            "-u`, or that of the container or unit), or take fewer workers; what is finished is "
            "kept."
        )
    return None


if __name__ == "__main__":
    main()
