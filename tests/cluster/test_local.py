"""Workers on this machine: other processes, within its cores, memory and GPUs."""

import asyncio
import logging
import os
import resource
import sys

import distributed
import numpy as np
import pytest
from distributed.batched import BatchedSend
from distributed.comm import CommClosedError
from distributed.core import Status
from distributed.system import MEMORY_LIMIT

from popdask.cluster import _is_news, connect, keep_freed_memory
from popdask.errors import InputError
from popdask.workflow.runner import gpu_resources, on_worker

MIB, TIMES = 2**20, 100


@pytest.fixture(scope="module")
def local():
    with connect("local") as client:
        yield client


@pytest.fixture
def write(tmp_path):
    """Writes a cluster file with a text."""

    def write(text):
        path = tmp_path / "local.toml"
        path.write_text(text)
        return path

    return write


def process_id(*_):
    return os.getpid()


def threads(*_):
    import torch

    return torch.get_num_threads()


def refuse(*_):
    raise InputError("the file is wrong")


def page_faults_of_arrays():
    """Count the pages that the system has to clear while arrays of 1 MiB come and go."""
    np.ones(MIB, np.uint8)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(TIMES):
        np.ones(MIB, np.uint8)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def test_workers_are_other_processes_within_the_cores_at_hand(local):
    assert local.submit(process_id).result() != os.getpid()
    workers = local.scheduler_info()["workers"].values()
    assert sum(worker["nthreads"] for worker in workers) <= len(os.sched_getaffinity(0))
    assert local.dashboard_link.startswith("http://127.0.0.1:")


def test_torch_keeps_to_the_worker_s_core(local):
    (worker, *_) = local.scheduler_info()["workers"].values()
    assert local.submit(threads).result() <= worker["nthreads"]


def test_a_wrong_input_is_told_once(local, capfd):
    with pytest.raises(InputError, match="the file is wrong"):
        local.submit(refuse).result()
    output = capfd.readouterr()
    assert "Traceback" not in output.err + output.out


def test_a_stream_whose_other_end_closed_first_is_not_logged(local, caplog):
    async def send_to_nobody():
        stream = BatchedSend("1 ms")
        stream.start(await distributed.comm.connect(local.scheduler.address))
        stream.send({"op": "identity"})
        stream.comm.abort()
        await stream.stopped.wait()

    caplog.set_level("INFO", "distributed.batched")
    local.sync(send_to_nobody)
    assert caplog.messages == []


def test_no_more_is_left_out_of_logs_than_what_is_no_news():
    """By logger: the same words, or the same error, are news elsewhere."""

    def is_news(logger, words, error=None):
        told = None if error is None else (type(error), error, None)
        return _is_news(logging.LogRecord(logger, logging.ERROR, "", 0, words, (), told))

    for logger, words, error in (
        ("distributed.batched", "", CommClosedError()),
        ("asyncio", "", asyncio.CancelledError()),
        ("distributed.nanny", "Worker process still alive after 4 s", None),
        ("distributed.worker", "failed during get data with tcp://…", None),
    ):
        assert not is_news(logger, words, error)
        assert is_news("distributed.core", words, error)
        assert is_news(logger, "disk full", OSError())


@pytest.mark.skipif(sys.platform != "linux", reason="the allocator is glibc's")
def test_arrays_on_workers_come_from_memory_that_is_there(local):
    faults = local.run(page_faults_of_arrays)
    assert keep_freed_memory()
    pages = TIMES * MIB // resource.getpagesize()
    assert all(count < pages / 10 for count in faults.values())


def test_workers_of_a_file_are_encrypted_and_end_with_the_block(write):
    path = write(
        "workers = [1, 2]\n"
        'arguments = { threads_per_worker = 2, memory_limit = "1 GiB", security = true }\n'
    )
    with connect(path) as client:
        (worker,) = client.scheduler_info()["workers"].values()
        assert worker["nthreads"] == 2 and worker["memory_limit"] == 2**30
        assert client.cluster._adaptive.minimum == 1 and client.cluster._adaptive.maximum == 2
        assert client.scheduler.address.startswith("tls://")
        assert client.submit(sum, [1, 2]).result() == 3
    assert client.status == "closed" and client.cluster.status == Status.closed


def test_a_share_of_the_memory_may_be_asked_for(write):
    path = write("workers = 1\narguments = { threads_per_worker = 1, memory_limit = 0.1 }\n")
    with connect(path) as client:
        (worker,) = client.scheduler_info()["workers"].values()
        assert worker["memory_limit"] == int(0.1 * MEMORY_LIMIT)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ('memory_limit = "900 TiB"', r"asks for 2 × 9.22e\+05 GiB, but there are"),
        ("memory_limit = 0.9", r"asks for 2 × [\d.e+]+ GiB, but there are"),
        ('memory_limit = "much"', "memory_limit is 'much': expected bytes .* or a share"),
        ('dashboard_address = "nowhere.invalid:0"', r"local gave no cluster \(.+\): check"),
        ("treads_per_worker = 1", r"unexpected keyword argument 'treads_per_worker'\): check"),
    ],
)
def test_a_wrong_option_is_one_sentence(write, options, complaint):
    path = write(f"workers = 2\n[arguments]\n{options}\n")
    with pytest.raises(InputError, match=complaint) as error, connect(path):
        pytest.fail("there is no such machine")
    assert "\n" not in str(error.value)


def visible(_=None):
    return os.environ["CUDA_VISIBLE_DEVICES"]


GPUS = 'needed = 2\narguments = { gpus = true, memory_limit = "1 GiB" }\n'


def test_each_worker_sees_one_gpu_and_work_for_gpus_goes_there(write, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    with connect(write(GPUS)) as client:
        assert sorted(client.run(visible).values()) == ["0", "1"]
        workers = client.scheduler_info()["workers"].values()
        assert [worker["resources"] for worker in workers] == [{"GPU": 1}] * 2
        assert gpu_resources() == {"GPU": 1}
        assert on_worker(visible, 0)() in ("0", "1")


def test_a_machine_without_a_gpu_is_told(write, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(InputError, match="no GPU is found"), connect(write(GPUS)):
        pytest.fail("there is no GPU")
