"""Waiting for workers: told while it lasts, and ended after a stated time with the reason."""

from __future__ import annotations

import time
from collections.abc import Callable

from distributed import Client

from popdask.cluster.place import Place
from popdask.cluster.spec import Waiting

POLL_SECONDS = 0.2
LONGEST_SILENCE_SECONDS = 300.0


class NoWorkersError(RuntimeError):
    """The workers that a run needs did not come; the message says what the queue says."""


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
                f"{_reason(place)}: ask for less, or raise [workers] wait."
            )
        if waited >= due:
            told = f"waiting for workers: {there} of {waiting.needed} after {waited:.0f} s"
            tell(f"{told}{_reason(place)}")
            due, silence = waited + silence, min(2 * silence, LONGEST_SILENCE_SECONDS)
        time.sleep(POLL_SECONDS)


def _workers(client: Client) -> int:
    return len(client.scheduler_info(n_workers=-1)["workers"])


def _reason(place: Place) -> str:
    said = place.says()
    return f"; {said}" if said else ""
