"""What wants a GPU runs on a worker that has one, where the cluster has one."""

import os
import time
from functools import partial
from itertools import pairwise

import pytest
from distributed import (
    Client,
    Scheduler,
    SpecCluster,
    Worker,
    get_client,
    get_task_stream,
    get_worker,
)

from popdask.workflow import communities
from popdask.workflow.operations import verify
from popdask.workflow.runner import gpu_resources, on_machines, on_worker
from tests.pipelines.small import job, small_world


def process_id(*_):
    return os.getpid()


def address():
    return get_worker().address


def has_gpu(*_):
    return "GPU" in get_worker().state.total_resources


@pytest.fixture(params=[True, False], ids=["gpu", "no gpu"])
def gpu(request):
    """Two workers of one thread; one of them has a GPU as a Dask resource, or none has."""
    options = {"nthreads": 1, "dashboard": False}
    second = {**options, "resources": {"GPU": 1}} if request.param else options
    cluster = SpecCluster(
        {0: {"cls": Worker, "options": options}, 1: {"cls": Worker, "options": second}},
        scheduler={"cls": Scheduler, "options": {"host": "127.0.0.1", "dashboard": False}},
    )
    with cluster, Client(cluster) as client:
        client.wait_for_workers(2, timeout=600)
        yield request.param


def test_a_function_goes_to_the_worker_with_a_gpu(gpu):
    assert gpu_resources() == ({"GPU": 1} if gpu else None)
    assert [on_worker(has_gpu, i)() for i in range(4)] == [gpu] * 4


def test_arguments_and_options_arrive_and_errors_come_back(gpu):
    assert on_worker(sorted, [2, 3, 1], reverse=True)() == [3, 2, 1]
    wrong = on_worker(int, "many")
    with pytest.raises(ValueError, match="many"):
        wrong()


def spent(seconds):
    start = time.monotonic()
    time.sleep(seconds)
    return start, time.monotonic()


def test_one_machine_does_one_thing_at_a_time_that_takes_all_of_it(gpu):
    starts = [partial(on_worker, spent, 0.1) for _ in range(4)]
    done = sorted(on_machines(starts))
    assert all(before[1] <= after[0] for before, after in pairwise(done))


def test_machines_share_what_takes_a_whole_one():
    scheduler = {"cls": Scheduler, "options": {"host": "127.0.0.1", "dashboard": False}}
    options = {"nthreads": 2, "dashboard": False}
    hosts = ["127.0.0.1", "127.0.0.2"]
    workers = {
        f"{host}-{number}": {"cls": Worker, "options": {**options, "host": host}}
        for host in hosts
        for number in range(2)
    }
    with SpecCluster(workers, scheduler=scheduler) as cluster, Client(cluster) as client:
        client.wait_for_workers(4, timeout=600)
        used = on_machines([partial(on_worker, address) for _ in range(5)])
    assert [host in place for host, place in zip(hosts * 3, used, strict=False)] == [True] * 5


def test_without_a_client_functions_run_here():
    assert gpu_resources() is None
    assert on_worker(process_id)() == os.getpid()
    assert on_machines([partial(on_worker, process_id)] * 2) == [os.getpid()] * 2


def test_the_whole_job_encodes_where_the_gpu_is(gpu, tmp_path):
    small_world().write(tmp_path / "frames")
    settings = job(tmp_path / "frames", tmp_path / "small.icechunk")
    with get_task_stream() as stream:
        communities.run(settings)
    used = {task["worker"] for task in stream.data if "encode_block" in str(task["key"])}
    workers = get_client().scheduler_info()["workers"]
    assert used
    if gpu:
        assert all(workers[worker]["resources"].get("GPU") for worker in used)
    assert verify(settings).differences == ()
