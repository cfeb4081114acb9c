"""The flows of deploy/ run, in the schedulers' own environment, what is stale of all regions."""

import json
import os
import shutil
import subprocess
from pathlib import Path

from popdask.store import RegionStore
from tests.schedulers.conftest import ROOT

ENVIRONMENTS = Path(os.environ.get("POPDASK_SCHEDULERS", ROOT / ".venv-schedulers"))
PREFECT = """
import json, sys
sys.path.insert(0, "deploy/prefect")
import regions
regions.run_region = regions.run_region.with_options(retries=0)
states = regions.regions(sys.argv[1], return_state=True).result(raise_on_failure=False)
print(json.dumps({state.state_details.task_run_id.hex: state.type.value for state in states}))
"""


def python_of(scheduler):
    """The interpreter of a scheduler's environment, which `make test-schedulers` makes."""
    python = ENVIRONMENTS / scheduler / "bin" / "python"
    assert python.exists(), "make test-schedulers installs Prefect and Airflow"
    return str(python)


def call(scheduler, environment, *arguments):
    """What a program of the scheduler's environment prints."""
    done = subprocess.run(
        [python_of(scheduler), *arguments],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def prefect_states(environment, jobs):
    said = call("prefect", environment, "-c", PREFECT, str(jobs))
    return list(json.loads(said.splitlines()[-1]).values())


def airflow_tables(environment, *arguments):
    said = call("airflow", environment, "-m", "airflow", *arguments, "-o", "json")
    return json.loads(said[said.index("[{") :])


def finished(jobs):
    return [name for name in ("bergen", "lost", "oslo") if (jobs / f"{name}.icechunk").exists()]


def test_prefect_runs_all_regions_and_tells_which_failed(jobs, environment):
    assert prefect_states(environment, jobs) == ["COMPLETED", "FAILED", "COMPLETED"]
    assert finished(jobs) == ["bergen", "oslo"]
    with RegionStore(jobs / "oslo.icechunk").lock():
        states = prefect_states(environment, jobs)
    assert states == ["COMPLETED", "FAILED", "CANCELLED"]


def test_airflow_runs_all_regions_and_leaves_those_that_are_held(jobs, environment, tmp_path):
    for name in ("bergen", "oslo"):  # a task that fails waits ten minutes
        shutil.copy(jobs / f"{name}.toml", tmp_path)
    environment |= {"POPDASK_JOBS": str(tmp_path)}
    for arguments in (("db", "migrate"), ("dags", "reserialize")):
        call("airflow", environment, "-m", "airflow", *arguments)
    with RegionStore(jobs / "oslo.icechunk").lock():
        call("airflow", environment, "-m", "airflow", "dags", "test", "popdask_regions")
    (run,) = airflow_tables(environment, "dags", "list-runs", "popdask_regions")
    arguments = ("tasks", "states-for-dag-run", "popdask_regions", run["run_id"])
    states = {row["task_id"]: row["state"] for row in airflow_tables(environment, *arguments)}
    assert states == {"bergen": "success", "oslo": "skipped"}
    assert "bergen" in finished(jobs)
