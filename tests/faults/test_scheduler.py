"""A cluster that others run: its scheduler dies, its workers sleep, or have no memory left."""

import os
import time

import psutil
import pytest
from distributed import Client

from tests.cluster.processes import cluster
from tests.faults.jobs import STAGES
from tests.faults.process import running, wait_until, wait_until_gone, workers_of
from tests.pipelines.small import assert_same

#: What a worker keeps in memory before it writes to its disk: next to nothing.
SPILL_AT_ONCE = {"DASK_DISTRIBUTED__WORKER__MEMORY__TARGET": "0.00001"}
LIMIT = 2**30
#: A worker is given up when it has not been heard of for so long, in place of five minutes.
FORGET_SOON = {"DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL": "15s"}


@pytest.fixture
def client():
    """Connects another client than the run's to a scheduler."""
    clients = []

    def connect(address):
        clients.append(Client(address, set_as_default=False))
        return clients[-1]

    yield connect
    for one in clients:
        one.close()


def workers_there(client):
    return client.scheduler_info(n_workers=-1)["workers"]


def test_a_scheduler_that_dies_is_named_and_the_next_run_goes_on(
    place, undisturbed, cluster_of_others, gates
):
    file, store = place
    gates.shut("encoder", "task")
    with (
        cluster(2, environment=gates.environment) as first,
        running(file, "--cluster", first.address, gates=gates) as run,
    ):
        run.wait_at("encoder", "task")
        first.scheduler.kill()
        gates.open()
        code, _, complaint = run.end()
    assert code == 1 and f"scheduler at {first.address} has ended" in complaint
    assert "Traceback" not in complaint
    assert store.holder() is None and not store.history()
    finished = [done.stage for done in store.stages_since()]
    assert finished == STAGES[:2], "killed too late"
    code, said, complaint = cluster_of_others.finish(file)
    assert code == 0, complaint
    assert "· encoder" in said and "· flow" not in said
    assert_same(store, undisturbed)


def test_workers_that_all_leave_end_the_run_and_the_next_goes_on(
    place, undisturbed, client, cluster_of_others, gates, tmp_path
):
    file, store = place
    spec = tmp_path / "cluster.toml"
    gates.shut("encoder", "task")
    with cluster(2, environment=gates.environment) as there:
        spec.write_text(f'address = "{there.address}"\nwait = "3 s"\n')
        watcher = client(there.address)
        wait_until(lambda: len(workers_there(watcher)) == 2)
        with running(file, "--cluster", str(spec), gates=gates) as run:
            run.wait_at("encoder", "task")
            for worker in there.workers:
                worker.kill()
            code, _, complaint = run.end()
    assert code == 1 and "no other came within 3 s" in complaint
    assert "Traceback" not in complaint
    assert store.holder() is None and not store.history()
    assert [done.stage for done in store.stages_since()] == STAGES[:2], "killed too late"
    code, said, complaint = cluster_of_others.finish(file)
    assert code == 0, complaint
    assert "· encoder" in said and "· flow" not in said
    assert_same(store, undisturbed)


def test_a_worker_that_sleeps_longer_than_its_heartbeat_is_done_without(
    place, undisturbed, client, begin, gates
):
    """When it wakes up, others have done its work, and what it goes on writing is no result."""
    file, store = place
    begin("classes")
    gates.shut("classes", "store")
    gates.shut("communities", "start")
    with (
        cluster(2, environment=gates.environment | FORGET_SOON) as there,
        running(file, "--cluster", there.address, gates=gates) as run,
    ):
        watcher = client(there.address)
        sleeper = psutil.Process(run.wait_at("classes", "store"))
        addresses = {pid: address for address, pid in watcher.run(os.getpid).items()}
        sleeper.suspend()
        gates.open("classes", "store")
        wait_until(lambda: addresses[sleeper.pid] not in workers_there(watcher), pause=0.1)
        run.wait_at("communities", "start")
        sleeper.resume()
        gates.open()
        code, _, complaint = run.end()
    assert code == 0, complaint
    assert_same(store, undisturbed)


def balloon(size):
    """Hold so much memory, for as long as the worker lives."""
    held = b"x" * size
    time.sleep(3600)
    return len(held)


def test_workers_without_memory_spill_and_then_start_anew(
    place, undisturbed, client, gates, tmp_path
):
    """What the job holds goes to the disk; then a neighbour takes all the memory of each worker."""
    file, store = place
    options = ["--memory-limit", str(LIMIT), "--local-directory", str(tmp_path / "scratch")]
    environment = gates.environment | SPILL_AT_ONCE
    gates.shut("population", "start")
    gates.shut("encoder", "start")
    with (
        cluster(2, nanny=True, worker_options=options, environment=environment) as there,
        running(file, "--cluster", there.address, gates=gates) as run,
    ):
        neighbour = client(there.address)
        run.wait_at("population", "start")
        held = neighbour.map(bytes, [10**6, 10**6 + 1])
        wait_until(lambda: sum(map(spilled, workers_there(neighbour).values())) > 10**6)
        gates.open("population")
        run.wait_at("encoder", "start")
        before = [worker for nanny in there.workers for worker in workers_of(nanny)]
        balloons = [
            neighbour.submit(balloon, 2 * LIMIT, workers=[address], pure=False)
            for address in workers_there(neighbour)
        ]
        gates.open()
        wait_until_gone(before)
        neighbour.cancel([*balloons, *held])
        code, _, complaint = run.end()
    assert code == 0, complaint
    assert_same(store, undisturbed)


def spilled(worker):
    return worker["metrics"]["spilled_bytes"]["disk"]
