"""Every night, all regions: an Airflow DAG with a task for each job file.

Airflow and popdask may live in environments of their own: POPDASK then names the command, such as
``/srv/popdask/bin/popdask``. POPDASK_JOBS is the folder of the job files.
"""

import os
from datetime import timedelta
from pathlib import Path

import pendulum
from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import dag

POPDASK = os.environ.get("POPDASK", "popdask")
JOBS = Path(os.environ.get("POPDASK_JOBS", "jobs"))
BUSY = 75  # another run holds the region: the next night looks at it again


@dag(
    schedule="0 3 * * *",
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    max_active_runs=1,
    max_active_tasks=1,  # one region after the other: each takes all cores
)
def popdask_regions() -> None:
    """Run what is stale of each region; after a stop, it goes on where it was."""
    for job in sorted(JOBS.glob("*.toml")):
        BashOperator(
            task_id=job.stem,
            bash_command=f"{POPDASK} run '{job.resolve()}' --cluster local",
            cwd=str(Path.cwd()),
            append_env=True,
            skip_on_exit_code=BUSY,
            retries=2,
            retry_delay=timedelta(minutes=10),
        )


popdask_regions()
