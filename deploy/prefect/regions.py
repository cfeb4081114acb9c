"""Every night, all regions: a Prefect flow around popdask's command line.

Prefect and popdask may live in environments of their own: POPDASK then names the command, such as
``/srv/popdask/bin/popdask``.
"""

import json
import os
import shlex
import subprocess

from prefect import flow, task
from prefect.states import Cancelled, State

POPDASK = shlex.split(os.environ.get("POPDASK", "popdask"))
BUSY = 75  # another run holds the region: the next night looks at it again


def call(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Call popdask's command line."""
    return subprocess.run([*POPDASK, *arguments], capture_output=True, text=True, check=False)


@task(retries=2, retry_delay_seconds=600, task_run_name="run {job}")
def run_region(job: str, cluster: str) -> str | State:
    """Run what is stale of a region; after a stop, it goes on where it was."""
    done = call("run", job, "--cluster", cluster)
    print(done.stdout)
    if done.returncode == BUSY:
        return Cancelled(message=done.stderr)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return job


@flow(log_prints=True)
def regions(folder: str = "jobs", cluster: str = "local") -> list[State]:
    """Run all regions of a folder one after the other; one that fails leaves the others running."""
    known = json.loads(call("status", folder, "--json").stdout)
    return [run_region(region["job"], cluster, return_state=True) for region in known]


if __name__ == "__main__":
    regions.serve("popdask-regions", cron="0 3 * * *")
