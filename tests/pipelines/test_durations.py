"""The times of a plan are those that finished runs took, and say whose."""

import shutil

import pytest
from typer.testing import CliRunner

from popdask.cli import commands
from popdask.store import Finished, RegionStore, Run
from popdask.workflow import communities, population
from popdask.workflow.plan import measured_stages, stages_of
from tests.pipelines import dots, small


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A folder with frames, and the store of a job that was run on them."""
    folder = tmp_path_factory.mktemp("finished")
    small.small_world().write(folder)
    export = {"output": {"export": ["cog"]}}
    communities.run(small.job(folder, folder / "small.icechunk", **export))
    return folder


@pytest.fixture(scope="module")
def plain(finished, tmp_path_factory):
    """The store of a run without exports, which tests copy."""
    store = tmp_path_factory.mktemp("plain") / "plain.icechunk"
    communities.run(small.job(finished, store))
    return store


def planned(job):
    """What stages are to be computed, and what they took before."""
    costs = communities.PIPELINE.costs(job, communities.plan(job))
    return costs, measured_stages(job, costs.amounts)


def shown(path):
    done = CliRunner().invoke(commands.app, ["plan", str(path)])
    assert done.exit_code == 0, done.output
    return " ".join(done.output.split())


def test_the_same_work_takes_the_time_that_it_took(finished):
    job = small.job(finished, finished / "small.icechunk")
    (run,) = RegionStore(job.output.store).history()
    seconds = {stage.stage: stage.seconds for stage in run.stages}
    other = small.job(finished, finished / "again.icechunk", output={"export": ["cog"]})
    costs, measured = planned(other)
    assert set(costs.stages) == set(seconds)
    assert costs.seconds(measured) == pytest.approx(seconds)
    assert {one.run for one in measured.values()} == {run.tag}


def test_the_time_is_in_proportion_to_what_there_is_to_do(finished):
    once = small.job(finished, finished / "again.icechunk")
    twice = small.job(finished, finished / "again.icechunk", encoder={"epochs": 8})
    few, many = planned(once), planned(twice)
    told, longer = few[0].seconds(few[1]), many[0].seconds(many[1])
    more = many[0].stages["encoder"].amount / few[0].stages["encoder"].amount
    assert more > 1.0 and longer["encoder"] == pytest.approx(told["encoder"] * more)
    assert longer["flow"] == told["flow"]


def test_a_run_of_this_store_goes_before_those_beside_it(finished, plain, tmp_path):
    beside, own = tmp_path / "beside.icechunk", tmp_path / "own.icechunk"
    shutil.copytree(finished / "small.icechunk", beside)
    shutil.copytree(plain, own)
    job = small.job(finished, own, flow={"iterations": 50}, output={"export": ["cog"]})
    costs, measured = planned(job)
    assert measured.pop("export").store == str(beside)
    assert {one.store for one in measured.values()} == {str(own)}
    assert set(measured) == set(costs.stages) - {"export"}


def test_jobs_of_another_kind_and_damaged_stores_do_not_count(finished, plain, tmp_path):
    job = small.job(finished, tmp_path / "mine.icechunk")
    dots.write_world(tmp_path)
    beside = dots.job(tmp_path, tmp_path / "dots.icechunk", output={"export": ["cog"]})
    population.run(beside)
    damaged = shutil.copytree(plain, tmp_path / "damaged.icechunk")
    for file in (damaged / "snapshots").iterdir():
        file.write_bytes(b"")
    assert planned(job)[1] == {}
    found = measured_stages(beside, {"export": 100})
    assert found["export"].store == str(tmp_path / "dots.icechunk")


def test_the_command_tells_the_time_and_the_run_or_that_there_is_none(finished, tmp_path):
    path = small.write_job(tmp_path / "job.toml", finished, tmp_path / "new.icechunk")
    assert "time is not known: neither this store nor one beside it" in shown(path)
    path = small.write_job(tmp_path / "job.toml", finished, finished / "new.icechunk")
    (run,) = RegionStore(finished / "small.icechunk").history()
    told = shown(path)
    assert f"by what was taken on its workers by {run.tag} in" in told and "about" in told
    assert not (finished / "new.icechunk").exists()


def test_the_run_counts_that_had_about_as_much_to_do(finished, plain, tmp_path):
    job = small.job(finished, shutil.copytree(plain, tmp_path / "own.icechunk"))
    communities.run(small.job(finished, job.output.store, flow={"iterations": 4000}))
    jobs = [small.job(finished, job.output.store, flow={"iterations": n}) for n in (50, 3900)]
    few, many = (planned(one)[1]["flow"] for one in jobs)
    new, old = RegionStore(job.output.store).history()
    assert (few.run, many.run) == (old.tag, new.tag) and many.amount > few.amount


def test_what_a_stage_commits_in_parts_is_added_up():
    stages = (
        Finished("zones", "", "", 3.0, 10, of="census"),
        Finished("census", "", "", 1.0, 10, amount=100),
        Finished("tables", "", "", 5.0, 10),
    )
    found = stages_of(Run("run-1", "", "", stages, {}), "out/a.icechunk")
    assert {name: (one.seconds, one.amount) for name, one in found.items()} == {"census": (4, 100)}


def test_runs_of_images_are_measured_too(tmp_path):
    dots.write_world(tmp_path)
    job = dots.job(tmp_path, tmp_path / "dots.icechunk")
    population.run(job)
    names = population.PIPELINE.costs(job, population.plan(job)).stages
    assert names == {}
    known = {stage.stage for stage in RegionStore(job.output.store).history()[0].stages}
    assert set(measured_stages(job, dict.fromkeys(known, 1))) == known
