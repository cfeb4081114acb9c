"""Clients are made at the door, and closed there."""

import os
import subprocess
import sys
import threading

import pytest
from distributed.core import Status

from popdask.cluster import NoWorkersError, connect, connection
from popdask.errors import InputError
from popdask.store import RegionStore
from tests.cluster.processes import scheduler
from tests.pipelines.small import assert_same, small_world, write_job


@pytest.fixture(scope="module")
def address():
    with scheduler(workers=2) as found:
        yield found


def process_id(*_):
    return os.getpid()


def threads(*_):
    import torch

    return torch.get_num_threads()


def refuse(*_):
    raise InputError("the file is wrong")


@pytest.fixture(scope="module")
def local():
    with connect("local") as client:
        yield client


def test_local_workers_are_other_processes_within_the_cores_at_hand(local):
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


def test_workers_of_a_file_end_with_the_block(tmp_path):
    file = tmp_path / "one.toml"
    file.write_text('kind = "local"\n[workers]\ncount = 1\nthreads = 2\nmemory = "1 GiB"\n')
    with connect(str(file)) as client:
        (worker,) = client.scheduler_info()["workers"].values()
        assert worker["nthreads"] == 2 and worker["memory_limit"] == 2**30
    assert client.status == "closed" and client.cluster.status == Status.closed


def test_workers_come_as_they_are_wanted(tmp_path):
    file = tmp_path / "some.toml"
    file.write_text(
        'kind = "local"\n[workers]\nminimum = 1\nmaximum = 2\nthreads = 1\nmemory = "1 GiB"\n'
    )
    with connect(str(file)) as client:
        assert client.cluster._adaptive.minimum == 1 and client.cluster._adaptive.maximum == 2
        assert len(client.scheduler_info()["workers"]) >= 1


def test_more_memory_than_there_is_is_refused(tmp_path):
    file = tmp_path / "huge.toml"
    file.write_text('kind = "local"\n[workers]\ncount = 2\nmemory = "900 TiB"\n')
    with (
        pytest.raises(InputError, match=r"asks for 2 × 9.22e\+05 GiB, but there are"),
        connect(str(file)),
    ):
        pytest.fail("there is not so much memory")


def test_a_dashboard_without_a_place_is_refused(tmp_path):
    file = tmp_path / "one.toml"
    file.write_text(
        'kind = "local"\ndashboard = "nowhere.invalid:0"\n[workers]\ncount = 1\nmemory = "1 GiB"\n'
    )
    with (
        pytest.raises(InputError, match=r"dashboard 'nowhere\.invalid:0' \(.+\): give an address"),
        connect(str(file)),
    ):
        pytest.fail("there is no such place")


def test_a_scheduler_is_reached_and_left_running(address):
    for _ in range(2):
        with connect(address) as client:
            assert client.submit(sum, [1, 2]).result() == 3


def test_what_fails_on_a_worker_is_told_as_it_is(address):
    with pytest.raises(ZeroDivisionError), connect(address) as client:
        client.submit(divmod, 1, 0).result()


def test_a_run_on_a_scheduler_ends_as_the_local_one(address, tmp_path):
    small_world().write(tmp_path)
    stores = {}
    for name, cluster in (("local", "local"), ("remote", address)):
        stores[name] = RegionStore(tmp_path / f"{name}.icechunk")
        file = write_job(tmp_path / f"{name}.toml", tmp_path, stores[name].path)
        command = [sys.executable, "-m", "popdask", "run", str(file), "--cluster", cluster]
        done = subprocess.run(command, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0 and "✓ tracks" in done.stdout, done.stderr
    assert_same(stores["remote"], stores["local"])


def test_a_scheduler_without_workers_is_waited_for_and_then_told(tmp_path):
    told = []
    with scheduler(workers=0) as address:
        file = tmp_path / "cluster.toml"
        file.write_text(f'kind = "address"\naddress = "{address}"\n[workers]\nwait = "2 s"\n')
        with (
            pytest.raises(NoWorkersError, match=r"0 of 1 workers came within 2 s; start one with"),
            connect(str(file), tell=told.append),
        ):
            pytest.fail("there is no worker")
    assert told[0].startswith("waiting for workers: 0 of 1 after 0 s")


def threads_of_loops():
    return [thread for thread in threading.enumerate() if thread.name == "IO loop"]


def test_an_address_where_nobody_answers_is_named(monkeypatch):
    monkeypatch.setattr(connection, "SCHEDULER_SECONDS", 1)
    before = threads_of_loops()
    with (
        pytest.raises(InputError, match=r"no Dask scheduler answers at tcp://127\.0\.0\.1:9"),
        connect("tcp://127.0.0.1:9"),
    ):
        pytest.fail("there is no scheduler")
    assert threads_of_loops() == before


@pytest.mark.parametrize("spec", ["slurmy", "tcp://", "tcp://head", "tcp://head:port"])
def test_an_unknown_cluster_is_refused(spec):
    with pytest.raises(InputError, match=f"the cluster '{spec}' is unknown"), connect(spec):
        pytest.fail("there is no such cluster")
