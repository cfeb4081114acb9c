"""Jobs run through a real SLURM, with workers and drivers that are cancelled, end the same."""

import subprocess
import sys
from pathlib import Path

import pytest

import popdask
from popdask.cluster import NoWorkersError, connect
from popdask.store import RegionStore
from popdask.workflow import communities
from tests.faults.gate import Gates
from tests.faults.process import running
from tests.pipelines.small import assert_same, job, write_job
from tests.slurm.daemons import said, wait_until

ROOT = Path(popdask.__file__).parents[1]
DEPLOY = ROOT / "deploy" / "slurm"

STOPPED = "stopped; what is finished is kept"

#: The states in which a job of the queue stays; others pass, as SIGNALING does.
ENDINGS = {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY"}

SPEC = """\
class = "dask_jobqueue.SLURMCluster"
{workers}
wait = "{wait}"
status = "squeue --noheader --format='%i %T %r'"
[arguments]
cores = 1
memory = "1 GiB"
walltime = "00:10:00"
interface = "lo"
log_directory = "{logs}"
scheduler_options.dashboard_address = "127.0.0.1:0"
"""


#: What `popdask` is for the shell of a driver: the same, with gates.
PROGRAM = """\
#!/bin/sh
exec {python} -m tests.faults.gate "$@"
"""


def tables(frames):
    """So that a stage is many tasks."""
    return {"input": {"frames": f"{frames}/world_{{time:%Y}}.tif", "chunks": 33}}


@pytest.fixture(scope="module")
def undisturbed(frames, tmp_path_factory):
    """The store of a run without any cluster."""
    store = tmp_path_factory.mktemp("undisturbed") / "small.icechunk"
    return communities.run(job(frames, store, **tables(frames))).store


@pytest.fixture
def gates(tmp_path, monkeypatch):
    """Those of the runs of a test, and of their workers, wherever the queue starts them."""
    found, program = Gates(tmp_path / "gates"), tmp_path / "popdask"
    program.write_text(PROGRAM.format(python=sys.executable))
    program.chmod(0o755)
    for name, value in (found.environment | {"PYTHONPATH": str(ROOT)}).items():
        monkeypatch.setenv(name, value)
    return found


@pytest.fixture
def place(queue, gates, frames, tmp_path, monkeypatch):
    """A job file, its store, and a cluster of two workers."""
    monkeypatch.setenv("SLURM_CONF", queue["SLURM_CONF"])
    monkeypatch.setenv("PATH", f"{tmp_path}:{Path(sys.executable).parent}:{queue['PATH']}")
    store = RegionStore(tmp_path / "small.icechunk")
    file = write_job(tmp_path / "small.toml", frames, store.path, **tables(frames))
    return file, store, cluster_file(tmp_path)


def cluster_file(folder, workers="workers = 2\nneeded = 2", wait="10 min", memory="1 GiB"):
    path = folder / "cluster.toml"
    text = SPEC.format(workers=workers, wait=wait, logs=folder / "logs")
    path.write_text(text.replace("1 GiB", memory))
    return path


def jobs(queue, *options):
    return said(queue, "squeue", "--noheader", "--format=%i", *options).split()


def submit(file, cluster, log, *options):
    """Give a run of a job to the queue as a job of its own; give its number."""
    options = ["--parsable", "--mem=1G", "--cpus-per-task=1", f"--output={log}", *options]
    command = ["sbatch", *options, str(DEPLOY / "driver.sh"), str(file), str(cluster)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def of_job(queue, number):
    """What SLURM says of a job."""
    told = said(queue, "scontrol", "--oneliner", "show", "job", number)
    return dict(item.partition("=")[::2] for item in told.split())


def ending(queue, number):
    """How a job of the queue has ended, and its exit code; None while it goes on."""
    found = of_job(queue, number)
    return (found["JobState"], found["ExitCode"]) if found.get("JobState") in ENDINGS else None


def workers(client):
    return len(client.scheduler_info(n_workers=-1)["workers"])


def test_a_run_whose_worker_is_cancelled_ends_as_the_local_one(place, queue, gates, undisturbed):
    file, store, cluster = place
    gates.shut("classes", "store")
    with running(file, "--cluster", str(cluster), gates=gates) as run:
        run.wait_at("classes", "store")
        first = jobs(queue, "--states=RUNNING")[0]
        subprocess.run(["scancel", first], check=True)
        wait_until(lambda: first not in jobs(queue, "--states=RUNNING"), "the job cancelled")
        gates.open()
        code, said_by_run, complaint = run.end()
    assert code == 0, complaint
    assert "✓ tracks" in said_by_run
    assert_same(store, undisturbed)
    wait_until(lambda: not jobs(queue), "the end of its jobs")


def test_a_cancelled_worker_is_replaced(place, queue):
    *_, cluster = place
    with connect(str(cluster)) as client:
        gone = jobs(queue, "--states=RUNNING")[0]
        subprocess.run(["scancel", gone], check=True)
        wait_until(lambda: workers(client) == 1, "one worker gone")
        wait_until(lambda: workers(client) == 2, "another in its place")
        assert gone not in jobs(queue, "--states=RUNNING")


def test_a_driver_that_is_stopped_goes_back_into_the_queue_and_resumes(
    place, queue, gates, undisturbed, tmp_path
):
    file, store, cluster = place
    log = tmp_path / "driver.log"
    gates.shut("classes", "store")
    number = submit(file, cluster, log)
    wait_until(lambda: gates.who("classes", "store"), "the classes written")
    finished = [done.stage for done in store.stages_since()]
    subprocess.run(["scancel", "--signal=TERM", "--batch", number], check=True)
    wait_until(lambda: STOPPED in log.read_text(), "the run stopped")
    gates.open()
    wait_until(lambda: "results:" in log.read_text(), "the run resumed and finished")
    wait_until(lambda: not jobs(queue), "the end of its jobs")
    resumed = log.read_text().partition(STOPPED)[2]
    assert finished and not [stage for stage in finished if f"· {stage}" in resumed]
    assert "· classes" in resumed and "✓ tracks" in resumed
    assert_same(store, undisturbed)


def test_a_driver_whose_time_ends_stops_before_it_and_the_next_of_its_chain_finishes(
    place, queue, gates, undisturbed, tmp_path
):
    """Its time is cut to four minutes when it is under way; SLURM looks twice a minute."""
    file, store, cluster = place
    logs = [tmp_path / "first.log", tmp_path / "second.log"]
    gates.shut("flow", "store")
    first = submit(file, cluster, logs[0], "--no-requeue", "--time=60", "--signal=B:TERM@230")
    submit(file, cluster, logs[1], f"--dependency=afternotok:{first}", "--kill-on-invalid-dep=yes")
    wait_until(lambda: gates.who("flow", "store"), "the flow written")
    minutes = int(of_job(queue, first)["RunTime"].split(":")[1]) + 4
    update = ["scontrol", "update", f"JobId={first}", f"TimeLimit={minutes}"]
    subprocess.run(update, check=True)
    ended = wait_until(lambda: ending(queue, first), "the end of the first")
    assert ended == ("FAILED", "143:0")  # TIMEOUT, had SLURM ended it
    assert STOPPED in logs[0].read_text() and "TIME LIMIT" not in logs[0].read_text()
    gates.open()
    wait_until(lambda: logs[1].exists() and "results:" in logs[1].read_text(), "the results")
    wait_until(lambda: not jobs(queue), "the end of its jobs")
    finished = [line.split()[1] for line in logs[0].read_text().splitlines() if "✓" in line]
    resumed = logs[1].read_text()
    assert finished and not [stage for stage in finished if f"· {stage}" in resumed]
    assert "✓ tracks" in resumed
    assert_same(store, undisturbed)


def test_what_the_queue_refuses_is_told_at_once(place, tmp_path):
    cluster = cluster_file(tmp_path, memory="900 GiB")
    with (
        pytest.raises(NoWorkersError, match=r"sbatch says .*Requested node configuration"),
        connect(str(cluster)),
    ):
        pytest.fail("there is no such node")


def test_what_the_queue_says_is_told_when_the_time_is_over(place, queue, tmp_path):
    told = []
    cluster = cluster_file(tmp_path, memory="10 GiB", wait="15 s")
    with (
        pytest.raises(
            NoWorkersError, match=r"of 2 workers came within 15 s; squeue says .*PENDING"
        ),
        connect(str(cluster), log=told.append),
    ):
        pytest.fail("there is memory for one only")
    assert told[0].startswith("waiting for workers: 0 of 2 after 0 s")
    wait_until(lambda: not jobs(queue), "the end of its jobs")
