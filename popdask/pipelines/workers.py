"""Single functions on a worker: training runs once, in one place, near a GPU where there is one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from distributed import get_client

T = TypeVar("T")


def on_worker(function: Callable[..., T], *arguments: Any) -> T:
    """Run one function on a worker, on one with a GPU where the cluster has one.

    Parameters
    ----------
    function
        A picklable function.
    *arguments
        Its arguments; large arrays are sent to the worker beforehand.

    Returns
    -------
    object
        What the function returns. Without a client, it runs here.
    """
    try:
        client = get_client()
    except ValueError:  # no client: plain Dask
        return function(*arguments)
    sent = [client.scatter(argument, hash=False) for argument in arguments]
    future = client.submit(function, *sent, pure=False, resources=gpu_resources())
    return future.result()


def gpu_resources() -> Mapping[str, int] | None:
    """Give the Dask resources of a GPU task: one ``GPU`` where some worker has it, else None."""
    try:
        client = get_client()
    except ValueError:
        return None
    workers = client.scheduler_info(n_workers=-1)["workers"].values()
    return {"GPU": 1} if any(worker["resources"].get("GPU") for worker in workers) else None
