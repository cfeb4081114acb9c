"""Workers that do not come, and a scheduler that is lost: told in one sentence."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from distributed import CancelledError, Client

from popdask.cluster.place import Place
from popdask.cluster.spec import Waiting
from popdask.errors import InputError

POLL_SECONDS = 0.2
LONGEST_SILENCE_SECONDS = 300.0


class NoWorkersError(RuntimeError):
    """The workers that a run needs did not come; the message says what the queue says."""


class LostSchedulerError(NoWorkersError):
    """The scheduler of a run has ended, and its workers are lost with it."""


def wait_for_workers(
    client: Client, place: Place, waiting: Waiting, tell: Callable[[str], None]
) -> None:
    """Wait until the workers that a run needs are there.

    Parameters
    ----------
    client
        Connected to the scheduler.
    place
        Where the workers come from.
    waiting
        How many are needed, and how long to wait, in seconds.
    tell
        Is called with a line, at once and then less and less often.

    Raises
    ------
    NoWorkersError
        If the time is over, or the queue has refused to start them.
    """
    start, due, silence = time.monotonic(), 0.0, 1.0
    while (there := _workers(client)) < waiting.needed:
        waited = time.monotonic() - start
        if place.refusals:
            raise NoWorkersError(f"no worker was started: {place.refusals[-1]}.")
        if waited >= waiting.wait:
            raise NoWorkersError(
                f"{there} of {waiting.needed} workers came within {waiting.wait} s"
                f"{place.reason()}: ask for less, or raise [workers] wait."
            )
        if waited >= due:
            told = f"waiting for workers: {there} of {waiting.needed} after {waited:.0f} s"
            tell(f"{told}{place.reason()}")
            due, silence = waited + silence, min(2 * silence, LONGEST_SILENCE_SECONDS)
        time.sleep(POLL_SECONDS)


@contextmanager
def scheduler_loss_told(client: Client) -> Iterator[None]:
    """Say in one sentence that the scheduler of a run is gone.

    Parameters
    ----------
    client
        Connected to the scheduler.

    Raises
    ------
    LostSchedulerError
        If what is done meanwhile fails because the connection is lost.
    """
    address = client.scheduler.address
    try:
        yield
    except (InputError, NoWorkersError):
        raise
    except Exception as error:
        # Without a scheduler, calls fail in many ways; a restarted one knows none of its tasks.
        if client.status == "running" and not isinstance(error, CancelledError):
            raise
        raise LostSchedulerError(
            f"the scheduler at {address} has ended or is out of reach: what is finished is kept; "
            "start it again, and run the job again to go on."
        ) from error


def _workers(client: Client) -> int:
    return len(client.scheduler_info(n_workers=-1)["workers"])
