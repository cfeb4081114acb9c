"""Cluster classes of others: what they are asked for, and what is told where they fail."""

import shutil
from pathlib import Path

import pytest

import popdask
from popdask.cluster import NoWorkersError, _with_lifetime, connect
from popdask.errors import InputError

DEPLOY = Path(popdask.__file__).parents[1] / "deploy"

SLURM = """\
class = "dask_jobqueue.SLURMCluster"
workers = 1
wait = "60 s"
status = "echo one job PENDING"
[arguments]
cores = 1
memory = "1 GiB"
interface = "lo"
scheduler_options.dashboard_address = "127.0.0.1:0"
"""


@pytest.fixture
def write(tmp_path):
    """Writes a cluster file with a text."""

    def write(text):
        path = tmp_path / "cluster.toml"
        path.write_text(text)
        return path

    return write


@pytest.fixture
def sbatch(tmp_path, monkeypatch):
    """Puts a command named sbatch on the path."""

    def put(script):
        folder = tmp_path / "bin"
        folder.mkdir()
        for name, text in (("sbatch", script), ("scancel", "exit 0")):
            (folder / name).write_text(f"#!/bin/sh\n{text}\n")
            (folder / name).chmod(0o755)
        monkeypatch.setenv("PATH", str(folder), prepend=":")

    return put


@pytest.mark.parametrize("name", ["SLURMCluster", "PBSCluster", "LSFCluster"])
@pytest.mark.parametrize("walltime", ["01:30:00", "01:30", "0-01:30:00"])
def test_a_worker_hands_over_before_its_job_ends(name, walltime):
    import dask_jobqueue

    options = {"cores": 1, "memory": "1 GiB", "walltime": walltime, "interface": "lo"}
    options["job_script_prologue"] = ["module load python"]
    options["scheduler_options"] = {"dashboard_address": "127.0.0.1:0"}
    with getattr(dask_jobqueue, name)(**_with_lifetime(options)) as cluster:
        assert "LIFETIME__DURATION=4800s\n" in cluster.job_script()
        assert "LIFETIME__STAGGER=300s\nmodule load python\n" in cluster.job_script()


def test_without_a_wall_time_workers_stay():
    assert _with_lifetime({"cores": 1}) == {"cores": 1}


def test_a_queue_that_is_not_on_the_machine_is_told(write):
    if shutil.which("qsub"):
        pytest.skip("qsub is on this machine")
    path = write(SLURM.replace("SLURM", "PBS"))
    with pytest.raises(InputError, match="with qsub, which is not on this machine"), connect(path):
        pytest.fail("there is no queue")


def test_what_a_queue_refuses_is_told_at_once(write, sbatch, capfd):
    sbatch('echo "sbatch: error: no such partition" >&2; exit 1')
    with (
        pytest.raises(
            NoWorkersError, match=r"no worker was started: sbatch says .*no such partition"
        ),
        connect(write(SLURM)),
    ):
        pytest.fail("there is no such partition")
    assert "Traceback" not in capfd.readouterr().err


def test_what_the_status_command_says_is_told_when_the_time_is_over(write, sbatch):
    sbatch('echo "Submitted batch job 7"')
    told = []
    with (
        pytest.raises(NoWorkersError, match=r"0 of 1 .* within 2 s; echo says 'one job PENDING'"),
        connect(write(SLURM.replace("60 s", "2 s")), log=told.append),
    ):
        pytest.fail("the job never begins")
    assert told[0].startswith("waiting for workers: 0 of 1 after 0 s; echo says")


@pytest.mark.parametrize("option", ["quue", "nthreads_per_worker"])
def test_a_wrong_option_is_named_without_the_others(write, option):
    path = write(f'{SLURM}{option} = "fat"\njob_script_prologue = ["export KEY=secret"]\n')
    complaint = f"unexpected keyword argument '{option}'"
    with pytest.raises(InputError, match=complaint) as error, connect(path):
        pytest.fail("there is no such option")
    assert "secret" not in str(error.value) and "\n" not in str(error.value)


def test_where_no_kubernetes_answers_it_is_told(write, tmp_path, monkeypatch):
    config = tmp_path / "config"
    config.write_text(
        "apiVersion: v1\nkind: Config\ncurrent-context: none\n"
        "clusters: [{name: none, cluster: {server: 'http://127.0.0.1:9'}}]\n"
        "contexts: [{name: none, context: {cluster: none, user: none}}]\n"
        "users: [{name: none, user: {}}]\n"
    )
    monkeypatch.setenv("KUBECONFIG", str(config))
    path = write(
        'class = "dask_kubernetes.operator.KubeCluster"\nworkers = 1\n[arguments]\n'
        f'custom_cluster_spec.file = "{DEPLOY}/kubernetes/cluster.yaml"\nquiet = true\n'
        "resource_timeout = 2\n"
    )
    with pytest.raises(InputError, match="KubeCluster gave no cluster"), connect(path):
        pytest.fail("there is no Kubernetes")


def test_where_no_gateway_answers_it_is_told(write):
    path = write(
        'class = "dask_gateway.GatewayCluster"\nworkers = 1\n'
        'arguments.address = "http://127.0.0.1:9"\n'
    )
    with pytest.raises(InputError, match=r"GatewayCluster gave no .*127\.0\.0\.1"), connect(path):
        pytest.fail("there is no gateway")
