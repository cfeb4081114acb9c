"""Jobs run from Python."""

import pytest
from distributed import Client, LocalCluster

from popdask import InputError, load_job, plan_job, run_job
from tests.pipelines.small import assert_same, job, write_job


@pytest.fixture(scope="module")
def outcome(frames, tmp_path_factory):
    return run_job(job(frames, tmp_path_factory.mktemp("done") / "small.icechunk"))


@pytest.fixture(scope="module")
def scheduler():
    with LocalCluster(
        n_workers=1, processes=False, protocol="tcp", dashboard_address="127.0.0.1:0"
    ) as cluster:
        yield cluster.scheduler_address


def test_a_plan_computes_nothing(frames, tmp_path):
    path = write_job(tmp_path / "small.toml", frames, tmp_path / "small.icechunk")
    plan = plan_job(path)
    assert str(plan["flow"]) == "all 4 frames" and not plan.done
    assert [file.name for file in tmp_path.iterdir()] == ["small.toml"]


def test_a_job_file_on_a_cluster_gives_what_settings_give_here(
    frames, tmp_path, scheduler, outcome
):
    path = write_job(tmp_path / "small.toml", frames, tmp_path / "small.icechunk")
    lines = []
    other = run_job(path, cluster=scheduler, log=lines.append)
    assert_same(other.store, outcome.store)
    assert lines[0].startswith("dashboard at http://127.0.0.1:")
    began, ended = ([line for line in lines if line[0] == sign] for sign in "·✓")
    assert [line.split()[1] for line in began] == list(other.plan.stages)
    assert [line.split()[1] for line in ended] == list(other.plan.stages)


def test_a_finished_job_asks_for_no_cluster(outcome, frames):
    settings = job(frames, outcome.store.path)
    assert run_job(settings, cluster="tcp://127.0.0.1:1").plan.done


def test_the_current_client_does_the_work(frames, tmp_path, scheduler):
    with Client(scheduler) as client:
        before = client.run_on_scheduler(lambda dask_scheduler: dask_scheduler.transition_counter)
        run_job(job(frames, tmp_path / "small.icechunk"))
        after = client.run_on_scheduler(lambda dask_scheduler: dask_scheduler.transition_counter)
    assert after > before + 100


def test_settings_are_changed_before_the_run(frames, tmp_path):
    path = write_job(tmp_path / "small.toml", frames, tmp_path / "small.icechunk")
    assert run_job(load_job(path, {"encoder.epochs": 1})).plan["encoder"].record
    with pytest.raises(InputError, match="epohcs"):
        run_job(load_job(path, {"encoder.epohcs": 1}))
