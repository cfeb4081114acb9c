"""Jobs run from Python: what `popdask plan` and `popdask run` do, for notebooks and programs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from popdask.config.load import load_job
from popdask.config.settings import Job
from popdask.workflow.progress import Reporter

if TYPE_CHECKING:
    from distributed import Client

    from popdask.workflow.communities import CommunitiesResult as Communities
    from popdask.workflow.plan import Plan
    from popdask.workflow.population import PopulationResult as Population
    from popdask.workflow.scenes import ScenesResult as Scenes
    from popdask.workflow.settlements import SettlementsResult as Settlements


def plan_job(job: Job | str | Path) -> Plan:
    """Say what a run of a job would compute, stage by stage; nothing is computed or changed.

    Parameters
    ----------
    job : Job, str or Path
        A job file, or the settings that `load_job` made of one.

    Returns
    -------
    popdask.workflow.plan.Plan
        The stages by name; ``plan.done`` tells whether there is nothing to do.

    Raises
    ------
    InputError
        If the job file or its input is wrong.

    See Also
    --------
    run_job : does it.

    Examples
    --------
    >>> import tempfile
    >>> from popdask.synthetic import moving_cities
    >>> text = '''
    ... name = "cities"
    ... input.frames = "world_{time:%Y}.tif"
    ... output.store = "cities.icechunk"
    ... '''
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     paths = moving_cities(frames=6).write(folder)
    ...     length = Path(folder, "cities.toml").write_text(text)
    ...     plan = plan_job(f"{folder}/cities.toml")
    >>> print(plan["flow"])
    all 6 frames
    """
    settings, conductor = _conducted(job)
    plan: Plan = conductor.plan(settings)
    return plan


def run_job(
    job: Job | str | Path,
    *,
    cluster: str | Path | None = None,
    force: bool = False,
    log: Callable[[str], None] | None = None,
) -> Communities | Population | Scenes | Settlements:
    """Run a job, or as much of it as is not done yet.

    Parameters
    ----------
    job : Job, str or Path
        A job file, or the settings that `load_job` made of one.
    cluster : str or Path, optional
        As for `connect`: ``"local"``, a scheduler's address, or a TOML file. It is asked for when
        there is something to compute, and left at the end. Without it the current Dask client does
        the work or, where there is none, the threads of this process.
    force : bool, optional
        Compute what is finished again, models too.
    log : callable, optional
        Is called with a line, for example ``print``: when a stage begins and when it ends, and
        while the workers of a cluster are waited for.

    Returns
    -------
    Outcome
        What there was to compute, ``plan``, and everything that is stored, ``store``, a
        `RegionStore`. A communities job also has ``communities``, ``tracks`` and ``balance``; a
        settlements job ``settlements``, ``tracks`` and ``balance``; a population job ``people``,
        ``scores`` and ``zones``; a scenes job ``groups``.

    Raises
    ------
    InputError
        If the job file or its input is wrong; what was finished before is untouched.
    popdask.store.RegionBusyError
        If another run holds the region.
    popdask.errors.ClusterError
        If the workers of a cluster do not come in time, are lost, or have another popdask.

    See Also
    --------
    load_job : reads settings, and changes some of them before the run.
    plan_job : says what a run would compute.

    Examples
    --------
    >>> import tempfile
    >>> from popdask.synthetic import City, World
    >>> town = City(0, ((24.0, 24.0),) * 2, people=(9000, 9500), radii=((9.0, 9.0),) * 2)
    >>> text = '''
    ... name = "town"
    ... input.frames = "world_{time:%Y}.tif"
    ... encoder.epochs = 2
    ... classes = { k = 2, sample = 500 }
    ... communities = { eps = 3, min_samples = 8 }
    ... output.store = "town.icechunk"
    ... '''
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     paths = World((town,), shape=(48, 48), frames=2).write(folder)
    ...     length = Path(folder, "town.toml").write_text(text)
    ...     outcome = run_job(f"{folder}/town.toml")
    ...     again = run_job(f"{folder}/town.toml")
    >>> outcome.plan.done, again.plan.done, outcome.balance["raster"].tolist()
    (False, True, [9000.0, 9500.0])
    """
    settings, conductor = _conducted(job)
    workers = nullcontext if cluster is None else partial(_workers, cluster, log)
    reporter = None if log is None else _Lines(log)
    outcome: Communities | Population | Scenes | Settlements = conductor.run(
        settings, reporter, force=force, workers=workers
    )
    return outcome


def _conducted(job: Job | str | Path) -> tuple[Job, Any]:
    """The settings of a job, and the package that runs it."""
    from popdask.workflow.runner import pipeline_of

    settings = job if isinstance(job, Job) else load_job(job)
    return settings, pipeline_of(settings)


@contextmanager
def _workers(cluster: str | Path, log: Callable[[str], None] | None) -> Iterator[Client]:
    """Connect to a cluster as long as there is something to compute."""
    from popdask.cluster import connect

    with connect(cluster, log=log) as client:
        if log is not None:
            log(f"dashboard at {client.dashboard_link}")
        yield client


class _Lines(Reporter):
    """Tells of each stage with a line at its begin and one at its end."""

    def __init__(self, log: Callable[[str], None]) -> None:
        self._log = log

    @contextmanager
    def stage(self, name: str, work: str) -> Iterator[None]:
        """Surround one stage."""
        start = time.perf_counter()
        self._log(f"· {name:<18} {work}")
        yield
        self._log(f"✓ {name:<18} {work:<18} {time.perf_counter() - start:7.1f} s")

    def note(self, text: str) -> None:
        """Print one line."""
        self._log(text)
