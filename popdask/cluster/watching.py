"""Workers that all leave while work waits: told, and waited for no longer than is stated."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from distributed import Client

from popdask.cluster.place import Place
from popdask.cluster.spec import Waiting
from popdask.cluster.waiting import NoWorkersError
from popdask.errors import InputError

POLL_SECONDS = 1.0


class LostWorkersError(NoWorkersError):
    """All workers of a run have left, and no other came."""


@contextmanager
def worker_loss_told(
    client: Client, place: Place, waiting: Waiting, tell: Callable[[str], None]
) -> Iterator[None]:
    """End what waits for workers, once they all have left and none comes back.

    Parameters
    ----------
    client
        Connected to the scheduler. It is closed when the time is over, since only that ends what
        waits for a result.
    place
        Where the workers come from.
    waiting
        How long to wait for a worker, in seconds.
    tell
        Is called with a line when the last worker has left, from another thread.

    Raises
    ------
    LostWorkersError
        If what is done meanwhile fails because the time is over.
    """
    watch = _Watch(client, waiting.wait, lambda line: tell(f"{line}{place.reason()}"))
    watch.start()
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        if not watch.over.is_set():
            raise
        raise LostWorkersError(
            f"all workers have left, and no other came within {waiting.wait} s"
            f"{place.reason()}: what is finished is kept; when there are workers, run the job "
            "again to go on."
        ) from error
    finally:
        watch.stop()


class _Watch(threading.Thread):
    """Counts the workers now and then; closes the client when there are none for too long."""

    def __init__(self, client: Client, patience: int, tell: Callable[[str], None]) -> None:
        super().__init__(name="popdask-watch", daemon=True)
        self.over = threading.Event()
        self._client, self._patience, self._tell = client, patience, tell
        self._stopped = threading.Event()

    def run(self) -> None:
        """Watch until it is stopped, or the time is over."""
        left = None
        while not self._stopped.wait(POLL_SECONDS) and self._client.status == "running":
            if not self._something_waits() or self._someone_is_there():
                left = None
            elif left is None:
                left = time.monotonic()
                self._tell(f"all workers have left: waiting {self._patience} s for others")
            elif time.monotonic() - left >= self._patience:
                self.over.set()
                self._client.close()

    def stop(self) -> None:
        """End it; it does not last longer than the answer that it waits for."""
        self._stopped.set()
        self.join(POLL_SECONDS)

    def _something_waits(self) -> bool:
        # an idle cluster may shrink to nothing, and grow again when there is work
        return any(state.status == "pending" for state in list(self._client.futures.values()))

    def _someone_is_there(self) -> bool:
        try:
            return bool(self._client.ncores())  # as a call of its own, unlike scheduler_info
        except OSError:  # the scheduler is out of reach: what is done meanwhile fails by itself
            return True
