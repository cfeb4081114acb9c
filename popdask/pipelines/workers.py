"""Work for certain workers: training runs once, in one place; it and encoding want a GPU."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, TypeVar

import dask
from distributed import CancelledError, get_client, get_worker

T = TypeVar("T")

#: How often the arguments of a task may be lost with the worker that holds them.
LOSSES = 3
#: How long arguments wait for a worker to go to, while another one takes a lost one's place.
WAIT_SECONDS = 300


def on_worker(
    function: Callable[..., T],
    *arguments: Any,
    tell: Callable[[Mapping[str, Any]], object] | None = None,
    **options: Any,
) -> Callable[[], T]:
    """Start one function on a worker, on one with a GPU where the cluster has one.

    Parameters
    ----------
    function
        A picklable function.
    *arguments
        Its arguments; they are sent to the worker ahead of the call.
    tell
        Is called here with what the function says to its argument ``progress``: a dataclass, which
        arrives as a mapping.
    **options
        Its keyword arguments, small ones.

    Returns
    -------
    callable
        Waits for the function and gives its result. Where a worker dies, it starts it anew on
        another one. Without a client, it runs it here.
    """
    try:
        client = get_client()
    except ValueError:  # no client: plain Dask
        told = {} if tell is None else {"progress": lambda message: tell(asdict(message))}
        return partial(function, *arguments, **options, **told)
    messages = Messages(f"popdask-{uuid.uuid4().hex}")
    if tell is not None:
        client.subscribe_topic(messages.topic, lambda event: tell(event[1]))
        options["progress"] = messages

    def start() -> Any:
        sent: list[Any] = []
        if arguments:
            sent = client.scatter(list(arguments), hash=False, timeout=WAIT_SECONDS)
        return client.submit(function, *sent, pure=False, resources=gpu_resources(), **options)

    return partial(_until_done, client, None if tell is None else messages.topic, start, start())


def _until_done(client: Any, topic: str | None, start: Callable[[], Any], future: Any) -> Any:
    """Wait for a task, and listen to it no longer; start it again if its arguments were lost."""
    try:
        for _ in range(LOSSES):
            try:
                return future.result()
            except CancelledError:  # the worker that held them has ended
                if client.status != "running":
                    raise
                future = start()
        return future.result()
    finally:
        if topic is not None:
            client.unsubscribe_topic(topic)


@dataclass(frozen=True)
class Messages:
    """Sends what a task has to say to the client, by a topic of the scheduler."""

    topic: str
    """Its name."""

    def __call__(self, message: Any) -> None:
        """Send a dataclass, as a mapping."""
        get_worker().log_event(self.topic, asdict(message))


def gpu_resources() -> Mapping[str, int] | None:
    """Give the Dask resources of a GPU task: one ``GPU`` where some worker has it, else None."""
    try:
        client = get_client()
    except ValueError:
        return None
    workers = client.scheduler_info(n_workers=-1)["workers"].values()
    return {"GPU": 1} if any(worker["resources"].get("GPU") for worker in workers) else None


def on_gpus() -> AbstractContextManager[Any]:
    """Give a context for building arrays whose tasks want a GPU, if some worker has one."""
    resources = gpu_resources()
    return dask.annotate(resources=resources) if resources else nullcontext()
