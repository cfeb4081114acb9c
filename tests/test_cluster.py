"""Clients are made at the door, and closed there."""

import os
import re
import subprocess
import sys

import pytest
from distributed import Client, get_client

from popdask.cluster import connect
from popdask.errors import InputError


def process_id(*_):
    return os.getpid()


@pytest.fixture(scope="module")
def scheduler():
    """A scheduler and a worker, as processes of their own."""
    dask = [sys.executable, "-m", "dask"]
    process = subprocess.Popen(
        [
            *dask,
            "scheduler",
            "--host",
            "127.0.0.1",
            "--port",
            "0",
            "--dashboard-address",
            "127.0.0.1:0",
        ],
        stderr=subprocess.PIPE,
        text=True,
    )
    started = [process]
    address = None
    while address is None:
        line = process.stderr.readline()
        assert line, "the scheduler ended before it listened"
        if match := re.search(r"Scheduler at:\s+(tcp://\S+)", line):
            address = match[1]
    worker = [*dask, "worker", address, "--nthreads", "1", "--no-dashboard", "--no-nanny"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    started.append(subprocess.Popen(worker, **quiet))
    with Client(address) as client:
        client.wait_for_workers(1, timeout=60)
    yield address
    for process in reversed(started):
        process.terminate()
        process.wait(20)


def test_local_workers_are_other_processes_and_end_with_the_block():
    with connect("local") as client:
        assert client.submit(process_id).result() != os.getpid()
        workers = client.scheduler_info()["workers"].values()
        assert sum(worker["nthreads"] for worker in workers) <= len(os.sched_getaffinity(0))
        assert client.dashboard_link.startswith("http://127.0.0.1:")
    with pytest.raises(ValueError, match="No global client found"):
        get_client()


def refuse(*_):
    raise InputError("the file is wrong")


def test_a_wrong_input_is_told_once(capfd):
    with connect("local") as client, pytest.raises(InputError, match="the file is wrong"):
        client.submit(refuse).result()
    output = capfd.readouterr()
    assert "Traceback" not in output.err + output.out


def test_a_scheduler_is_reached_and_left_running(scheduler):
    for _ in range(2):
        with connect(scheduler) as client:
            assert client.submit(sum, [1, 2]).result() == 3


def test_an_address_where_nobody_answers_is_named(monkeypatch):
    with (
        pytest.raises(InputError, match=r"no Dask scheduler answers at tcp://127\.0\.0\.1:9"),
        connect("tcp://127.0.0.1:9"),
    ):
        pytest.fail("there is no scheduler")


def test_an_unknown_cluster_is_refused():
    with pytest.raises(InputError, match="the cluster 'slurmy' is unknown"), connect("slurmy"):
        pytest.fail("there is no such cluster")
