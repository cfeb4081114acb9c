"""How a region stands: what its readers see, what is under way, and what a run would compute."""

from __future__ import annotations

from dataclasses import dataclass

from popdask.job import Job
from popdask.pipelines import product
from popdask.pipelines.conductor import plan
from popdask.pipelines.plan import Plan
from popdask.store import Finished, Owner, RegionStore, Run


@dataclass(frozen=True)
class Status:
    """How a region stands."""

    store: RegionStore
    """Its results."""
    last: Run | None
    """The last finished run; None before the first."""
    times: tuple[str, ...]
    """ISO times of the frames that readers see."""
    found: str
    """What was found in them, in a few words."""
    holder: Owner | None
    """Who runs the job now; None where nobody does."""
    stopped: bool
    """Whether a run was stopped before its end, and waits to be taken up."""
    since: tuple[Finished, ...]
    """Stages that the run under way, or stopped, has finished."""
    plan: Plan
    """What a run would compute now."""


def status(job: Job) -> Status:
    """Tell how the region of a job stands; nothing is changed or created.

    Parameters
    ----------
    job
        The settings.

    Returns
    -------
    Status

    Raises
    ------
    InputError
        If no frame is found, or the store's folder holds something else.
    """
    store = RegionStore(job.output.store)
    runs, holder = store.history(), store.holder()
    times: tuple[str, ...] = ()
    found = ""
    if runs:
        times = tuple(str(time) for time in store.dataset()["time"].values.astype("datetime64[s]"))
        found = product(job).found(store)
    return Status(
        store,
        runs[0] if runs else None,
        times,
        found,
        holder,
        store.unfinished() and holder is None,
        tuple(store.stages_since()),
        plan(product(job).pipeline, job),
    )
