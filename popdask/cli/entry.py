"""Where the command line begins and ends: what fails becomes a sentence and an exit code."""

from __future__ import annotations

import sys

from popdask import console
from popdask.cli.commands import app
from popdask.errors import InputError


def main() -> None:
    """Run the command line; what a user can mend becomes one sentence and an exit code."""
    try:
        app()
    except InputError as error:
        console.complain(error)
        sys.exit(2)
    except Exception as error:
        code = known_failure(error)
        if code is None:
            raise
        console.complain(error)
        sys.exit(code)


def known_failure(error: Exception) -> int | None:
    """Exit code of a failure that one sentence tells; None for what must be a bug."""
    from distributed.scheduler import KilledWorker

    from popdask.cluster import NoWorkersError
    from popdask.imagery.training import TrainingError
    from popdask.store import RegionBusyError, StoreError
    from popdask.tracking.summary import LostPeopleError

    if isinstance(error, RegionBusyError):
        return 75
    told = (StoreError, LostPeopleError, KilledWorker, NoWorkersError, TrainingError)
    return 1 if isinstance(error, told) else None
