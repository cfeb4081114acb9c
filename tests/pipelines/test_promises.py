"""The same answer at any chunking and worker count, in threads and in processes."""

import shutil
import sys

import dask
import pytest
from distributed import Client, LocalCluster

from popdask.store import RegionStore
from popdask.workflow import communities
from tests.pipelines.small import assert_equal_results, job


@pytest.fixture(scope="module")
def finished(frames, tmp_path_factory):
    """One chunk per frame, one thread."""
    store = tmp_path_factory.mktemp("finished") / "small.icechunk"
    with dask.config.set(scheduler="synchronous"):
        return communities.run(job(frames, store)).store


@pytest.fixture(scope="module")
def processes():
    """Two worker processes of one thread each."""
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0") as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        yield client


def threads(number):
    return lambda: dask.config.set(scheduler="threads", num_workers=number)


@pytest.mark.parametrize(
    ("chunks", "workers"),
    [(17, threads(2)), (33, threads(1)), ("auto", threads(2))],
)
def test_chunks_and_threads_do_not_change_the_answer(finished, frames, tmp_path, chunks, workers):
    settings = job(frames, tmp_path / "other.icechunk", input={"chunks": chunks})
    outcome = communities.run(settings, workers=workers)
    assert_equal_results(outcome.store, finished)
    for stage in ("population", "classes", "communities"):
        one, other = (store.records()[stage] for store in (finished, outcome.store))
        assert one["checksums"] == other["checksums"]


def test_processes_do_not_change_the_answer(finished, frames, tmp_path, processes):
    settings = job(frames, tmp_path / "other.icechunk", input={"chunks": 24})
    outcome = communities.run(settings, workers=processes.as_current)
    assert_equal_results(outcome.store, finished)
    machine = outcome.store.run_record()["machine"]
    assert (machine["workers"], machine["threads"]) == (2, 2)
    unused = {"dask_ml", "sklearn", "sympy", "torch._dynamo"}  # of fits, and of torch's compiler
    loaded = processes.run(lambda: unused & set(sys.modules))
    assert loaded and not any(loaded.values()), "what takes a second to load, and no worker uses"


def test_workers_are_asked_for_only_if_there_is_something_to_compute(finished, frames):
    def refuse():
        raise AssertionError("asked for workers")

    assert communities.run(job(frames, finished.path), workers=refuse).plan.done


def test_a_reader_keeps_what_it_opened_while_a_run_publishes(finished, frames, tmp_path):
    store = shutil.copytree(finished.path, tmp_path / "read.icechunk")
    reader = RegionStore(store).dataset()
    before = reader["community"].compute()
    outcome = communities.run(job(frames, store, communities={"min_people": 5000}))
    assert reader["community"].compute().identical(before)
    assert not outcome.store.dataset()["community"].identical(before)
