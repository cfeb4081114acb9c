"""The files under deploy/ are ones that popdask, shells, systemd and Docker understand."""

import os
import re
import shutil
import signal
import subprocess
import sys
import tomllib
from importlib import import_module
from pathlib import Path

import pytest

import popdask
from popdask.cluster import _with_lifetime
from popdask.config.load import load_spec
from popdask.store import RegionStore
from tests.pipelines.small import small_world, write_job

ROOT = Path(popdask.__file__).parents[1]
DEPLOY = ROOT / "deploy"


def found(pattern):
    return [
        pytest.param(path, id=str(path.relative_to(DEPLOY)))
        for path in sorted(DEPLOY.rglob(pattern))
    ]


@pytest.mark.parametrize("path", found("*.toml"))
def test_a_cluster_file_is_one(path, monkeypatch):
    monkeypatch.setenv("HOME", "/home/somebody")
    spec = load_spec(path)
    name = spec.cluster_class or ("address" if spec.address else "local")
    assert name in ("local", "address") or name.rpartition(".")[2] in dir(import_of(name))


def import_of(name):
    return import_module(name.rpartition(".")[0])


@pytest.mark.parametrize(
    ("path", "asked"),
    [
        ("slurm/cluster.toml", ["#SBATCH --mem=4G", "#SBATCH -t 04:00:00", "DURATION=13800s"]),
        ("slurm/gpu.toml", ["#SBATCH --gpus=1", "#SBATCH -p gpu", "--resources GPU=1"]),
        ("pbs/cluster.toml", ["#PBS -l select=1:ncpus=1:mem=", "#PBS -l walltime=04:00:00"]),
        ("lsf/cluster.toml", ["#BSUB -W 04:00", "#BSUB -n 1", "DURATION=13800s"]),
    ],
)
def test_a_job_of_the_queue_asks_for_what_its_file_says(path, asked, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    spec = load_spec(DEPLOY / path)
    start = getattr(import_of(spec.cluster_class), spec.cluster_class.rpartition(".")[2])
    with start(**_with_lifetime(spec.arguments)) as cluster:
        script = cluster.job_script()
    assert not [line for line in asked if line not in script]


@pytest.mark.parametrize("path", found("*.sh"))
def test_a_script_is_one(path):
    subprocess.run(["bash", "-n", path], check=True)
    assert os.access(path, os.X_OK)


def test_the_slurm_driver_is_told_before_its_time_ends():
    text = (DEPLOY / "slurm" / "driver.sh").read_text()
    assert "#SBATCH --signal=B:TERM@120\n" in text and "#SBATCH --requeue\n" in text


@pytest.fixture
def place(tmp_path):
    small_world().write(tmp_path)
    store = RegionStore(tmp_path / "small.icechunk")
    return write_job(tmp_path / "small.toml", tmp_path, store.path), store


def pbs_driver(file, folder):
    environment = {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PBS_O_WORKDIR": str(folder),
        "JOB": str(file),
        "CLUSTER": "local",
    }
    return subprocess.Popen(
        [DEPLOY / "pbs" / "driver.sh"],
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_the_pbs_driver_stops_in_order(place, tmp_path):
    file, store = place
    driver = pbs_driver(file, tmp_path)
    for line in driver.stdout:
        if "· population" in line:
            break
    driver.send_signal(
        signal.SIGTERM
    )  # as `timeout` does before the end of its time, and PBS at it
    _, complaint = driver.communicate(timeout=600)
    assert driver.returncode == 143, complaint
    assert "stopped; what is finished is kept" in complaint and "Traceback" not in complaint
    assert store.holder() is None and store.unfinished()


def test_systemd_understands_its_units(tmp_path):
    if not shutil.which("systemd-analyze"):
        pytest.skip("there is no systemd-analyze")
    service = (DEPLOY / "cron" / "popdask@.service").read_text()
    program = re.search(r"^ExecStart=(\S+)", service, re.MULTILINE)[1]
    (tmp_path / "popdask@oslo.service").write_text(service.replace(program, "/bin/true"))
    shutil.copy(DEPLOY / "cron" / "popdask@.timer", tmp_path / "popdask@oslo.timer")
    done = subprocess.run(
        ["systemd-analyze", "verify", "popdask@oslo.service", "popdask@oslo.timer"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    complaints = [line for line in done.stderr.splitlines() if "popdask" in line]
    assert not complaints and not re.search("Unknown|Failed to parse", done.stderr)


def test_a_crontab_line_names_a_time_and_a_job_that_is_there():
    for path in (DEPLOY / "cron" / "crontab", DEPLOY / "slurm" / "scrontab"):
        (line,) = [line for line in path.read_text().splitlines() if line and line[0] != "#"]
        assert re.match(r"30 2 \* \* \* +cd ", line)
        assert (ROOT / re.search(r"run (\S+)", line)[1]).is_file()
        cluster = re.search(r"--cluster (\S+)", line)
        assert cluster is None or (ROOT / cluster[1]).is_file()


@pytest.fixture(scope="module")
def dockerfile():
    text = (DEPLOY / "docker" / "Dockerfile").read_text()
    return [line for line in text.replace("\\\n", " ").splitlines() if line and line[0] != "#"]


def test_the_image_is_pinned_and_its_user_has_no_rights(dockerfile):
    users = [line.split()[1] for line in dockerfile if line.startswith("USER")]
    assert users and int(users[-1]) > 0
    installs = [line for line in dockerfile if "pip install" in line]
    assert installs and all("--constraint constraints.txt" in line for line in installs)
    assert all(":3.11-slim" in line for line in dockerfile if line.startswith("FROM"))


def test_the_image_has_all_that_the_wheel_is_made_of(dockerfile):
    copied = {
        name
        for line in dockerfile
        if line.startswith("COPY") and "--from" not in line
        for name in line.split()[1:-1]
    }
    kept = (DEPLOY / "docker" / "Dockerfile.dockerignore").read_text().splitlines()
    assert {line[1:] for line in kept if line.startswith("!")} == copied
    assert all((ROOT / name).exists() for name in copied)
    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"][
        "targets"
    ]
    assert {*wheel["wheel"]["packages"], *wheel["wheel"]["force-include"]} <= copied


def test_the_image_s_extras_are_those_of_the_project(dockerfile):
    (install,) = [line for line in dockerfile if "'.[" in line]
    extras = re.search(r"\.\[([\w,-]+)\]", install)[1].split(",")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert set(extras) <= set(project["optional-dependencies"])
