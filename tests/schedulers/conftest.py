"""Prefect and Airflow are tried only when asked for by name, as `make test-schedulers` does."""

import os
import sys
from pathlib import Path

import pytest

from tests.pipelines.small import small_world, write_job

ROOT = Path(__file__).parents[2]


def pytest_ignore_collect(config):
    asked = any("schedulers" in argument for argument in config.args)
    return None if asked else True


@pytest.fixture(scope="session")
def jobs(tmp_path_factory):
    """The job files of three regions; the frames of one are lost."""
    folder = tmp_path_factory.mktemp("nightly")
    small_world().write(folder / "frames")
    for name in ("bergen", "lost", "oslo"):
        frames = folder / ("nowhere" if name == "lost" else "frames")
        tables = {"input": {"end": "2001"}, "encoder": {"epochs": 1}}
        file = write_job(folder / f"{name}.toml", frames, folder / f"{name}.icechunk", **tables)
        file.write_text(file.read_text().replace('name = "small"', f'name = "{name}"'))
    return folder


@pytest.fixture
def environment(jobs, tmp_path):
    """The environment of a scheduler that calls this popdask, and has a home of its own."""
    return os.environ | {
        "POPDASK": f"{sys.executable} -m popdask",
        "POPDASK_JOBS": str(jobs),
        "PYTHONPATH": str(ROOT),
        "PREFECT_HOME": str(tmp_path / "prefect"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",  # a busy machine is slow
        "AIRFLOW_HOME": str(tmp_path / "airflow"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "false",
        "AIRFLOW__CORE__DAGS_FOLDER": str(ROOT / "deploy" / "airflow"),
    }
