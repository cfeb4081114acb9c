"""A run whose workers all leave says so, waits for others as long as stated, and ends."""

import threading
import time

import pytest

from popdask.cluster import LostWorkersError, connect
from tests.cluster.processes import cluster, workers

SPEC = 'kind = "address"\naddress = "{}"\n[workers]\nwait = "{}"\n'


def cluster_file(folder, address, wait):
    path = folder / "cluster.toml"
    path.write_text(SPEC.format(address, wait))
    return path


class Told:
    """What a run has said so far."""

    def __init__(self):
        self.lines = []
        self.left = threading.Event()

    def __call__(self, line):
        self.lines.append(line)
        if "all workers have left" in line:
            self.left.set()


def test_workers_that_leave_for_good_are_told_and_end_the_run(tmp_path):
    told = Told()
    with cluster(1) as there:
        with connect(there.address):
            pass  # the worker is there
        file = cluster_file(tmp_path, there.address, "2 s")
        with (
            pytest.raises(LostWorkersError, match=r"no other came within 2 s; start one with"),
            connect(file, tell=told) as client,
        ):
            waiting = client.submit(time.sleep, 3600)
            there.workers[0].kill()
            waiting.result()
        assert client.status == "closed"
    assert f"for others; start one with `dask worker {there.address}`" in told.lines[-1]


def test_workers_that_come_in_time_go_on_with_the_work():
    told = Told()
    with cluster(1) as there, connect(there.address, tell=told) as client:
        told.lines.clear()  # of the begin
        there.workers[0].kill()
        waiting = client.submit(sum, [1, 2])
        assert told.left.wait(60)
        with workers(there.address, 1):
            assert waiting.result() == 3
    assert len(told.lines) == 1
