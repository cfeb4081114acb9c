"""A cluster that stands while runs on it are killed: their tasks go on for a while without them."""

import multiprocessing
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from distributed import Client

from tests.cluster.processes import cluster
from tests.faults.gate import Gates, fork
from tests.faults.process import PATIENCE_SECONDS, finish, wait_until

#: Forks runs that are killed from a process that has imported what they import.
FORKS = multiprocessing.get_context("forkserver")
KINDS = ("popdask.workflow.communities", "popdask.workflow.population")
FORKS.set_forkserver_preload(["distributed", "popdask.__main__", *KINDS])


@dataclass(frozen=True)
class Standing:
    """Two workers, whose tasks go through gates."""

    address: str
    gates: Gates
    client: Client

    def finish(self, job, *options, **settings):
        """Run to the end; give the exit code and what was said."""
        return finish(job, "--cluster", self.address, *options, gates=self.gates, **settings)

    def kill(self, job, stage, point):
        """Run until a point of a stage, SIGKILL the run there, and give its process."""
        self.gates.shut(stage, point)
        log = Path(job).with_suffix(".log")
        command = ["run", str(job), "--cluster", self.address]
        run = FORKS.Process(target=fork, args=(command, self.gates.environment, log))
        run.start()
        wait_until(lambda: self.gates.who(stage, point) or not run.is_alive(), pause=0.05)
        assert self.gates.who(stage, point), f"never at {stage}, {point}: {log.read_text()}"
        run.kill()
        run.join(PATIENCE_SECONDS)
        self.gates.open()
        # What was under way is left to end, as on a cluster of others, but not to disturb the next.
        wait_until(lambda: not self.client.run_on_scheduler(_at_work), pause=0.05)
        return run.pid


@contextmanager
def standing(folder):
    """Start the cluster, with gates in a folder."""
    gates = Gates(folder)
    with (
        cluster(2, environment=gates.environment) as there,
        Client(there.address, set_as_default=False) as client,
    ):
        wait_until(lambda: len(client.scheduler_info(n_workers=-1)["workers"]) == 2, pause=0.05)
        yield Standing(there.address, gates, client)


def _at_work(dask_scheduler):
    """Whether anyone is; what a run handed out as it was killed, Dask may keep for ever."""
    workers = dask_scheduler.workers.values()
    return bool(dask_scheduler.queued) or any(worker.processing for worker in workers)
