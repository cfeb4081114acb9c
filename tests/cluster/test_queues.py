"""What SLURM, PBS and LSF are asked for, and what is told where they are not there."""

import re
import shutil

import dask
import pytest

from popdask.cluster import connect, load_spec
from popdask.cluster.queues import Submissions, make_cluster
from popdask.errors import InputError

SPEC = """\
kind = "{kind}"
[workers]
count = 3
threads = 2
memory = "4 GiB"
gpu = {gpu}
scratch = "$TMPDIR"
[queue]
name = "fat"
account = "project123"
walltime = "90 min"
interface = "lo"
directives = ["--comment=popdask"]
prologue = ["module load python"]
"""


@pytest.fixture
def script(tmp_path):
    """The script of a worker's job of a kind of queue."""

    def write(kind, gpu=False):
        path = tmp_path / f"{kind}.toml"
        path.write_text(SPEC.format(kind=kind, gpu=str(gpu).lower()))
        with make_cluster(load_spec(path), Submissions()) as cluster:
            assert cluster.dashboard_link.startswith("http://127.0.0.1:")
            return cluster.job_script()

    return write


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (
            "slurm",
            ["-p fat", "-A project123", "--cpus-per-task=2", "--mem=4G", "-t 01:30:00"],
        ),
        (
            "pbs",
            ["-q fat", "-A project123", "-l select=1:ncpus=2:mem=4096MB", "-l walltime=01:30:00"],
        ),
        ("lsf", ["-q fat", '-P "project123"', "-n 2", "-M 4294968", "-W 01:30"]),
    ],
)
def test_a_worker_s_job_asks_for_what_the_file_says(script, kind, expected):
    found = script(kind)
    directive = {"slurm": "#SBATCH", "pbs": "#PBS", "lsf": "#BSUB"}[kind]
    for option in [*expected, "--comment=popdask"]:
        assert f"{directive} {option}\n" in found
    assert "\nmodule load python\n" in found
    assert "--nthreads 2 --memory-limit 4.00GiB" in found
    assert "--local-directory $TMPDIR" in found and "--interface lo" in found
    assert "--no-dashboard" in found and "GPU" not in found


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("slurm", "#SBATCH --gpus=1"),
        ("pbs", "#PBS -l select=1:ncpus=2:mem=4096mb:ngpus=1"),
        ("lsf", '#BSUB -gpu "num=1"'),
    ],
)
def test_workers_with_a_gpu_ask_for_it_and_say_so(script, kind, expected):
    found = script(kind, gpu=True)
    assert f"{expected}\n" in found and "--resources GPU=1" in found


@pytest.mark.parametrize("gpu", [False, True])
def test_a_worker_hands_over_before_its_job_ends(script, monkeypatch, gpu):
    """As the variables of its script say: dask-cuda's workers, too, read them."""
    found = re.findall(
        r"^export (DASK_\w*LIFETIME__\w+)=(\w+)$", script("slurm", gpu), re.MULTILINE
    )
    for name, value in found:
        monkeypatch.setenv(name, value)
    told = dask.config.collect()["distributed"]["worker"]["lifetime"]
    lifetime, stagger = (int(told[name].removesuffix("s")) for name in ("duration", "stagger"))
    assert 60 <= 5400 - (lifetime + stagger) <= 600


@pytest.mark.parametrize(("kind", "command"), [("pbs", "qsub"), ("lsf", "bsub")])
def test_a_machine_without_the_queue_is_told(tmp_path, kind, command):
    if shutil.which(command):
        pytest.skip(f"{command} is on this machine")
    path = tmp_path / "cluster.toml"
    path.write_text(f'kind = "{kind}"\n[workers]\ncount = 1\n')
    with (
        pytest.raises(InputError, match=f"with {command}, which is not on this machine"),
        connect(str(path)),
    ):
        pytest.fail("there is no queue")
