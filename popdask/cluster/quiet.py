"""What the workers of a run leave unsaid, since the driver says it in one sentence."""

from __future__ import annotations

import logging

from distributed import Worker, WorkerPlugin

#: By logger, what such records contain.
UNSAID = {
    "distributed.worker": (
        "InputError(",  # what a user can mend is the driver's one sentence, without a traceback
        "Failed to communicate with scheduler during heartbeat",  # the driver sees that it is gone
        "Worker stream died during communication",  # its nanny tells of a worker that dies
        "failed during get data",
    ),
    # What a worker was about to do when it was asked to end.
    "distributed.worker.state_machine": ("ended with CancelledError",),
}


class QuietWorkers(WorkerPlugin):
    """Leaves what the driver says to the driver; for workers that end with their run."""

    name = "popdask-quiet-workers"

    def setup(self, worker: Worker) -> None:
        """Filter the logs of a worker's process."""
        for logger in UNSAID:
            logging.getLogger(logger).addFilter(is_to_be_said)


def is_to_be_said(record: logging.LogRecord) -> bool:
    """Tell whether a record of a worker tells more than the driver does."""
    message = record.getMessage()
    return not any(part in message for part in UNSAID.get(record.name, ()))
