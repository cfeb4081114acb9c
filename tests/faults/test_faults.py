"""A stop at any moment costs only the unfinished stage, and never the results that readers see."""

import signal
from socket import gethostname

import numpy as np
import pytest
import rioxarray  # noqa: F401  (registers .rio)
import xarray as xr
from rasterio.transform import from_origin

from popdask.config import load_job
from popdask.store import WORK, RegionStore
from popdask.workflow import communities
from tests.faults.jobs import PUBLISH, STAGES, exports, points, tables
from tests.faults.process import finish, running, wait_until, wait_until_gone
from tests.pipelines.small import assert_same, job, small_world, write_job


def resume(file):
    """Run the job on to its end, in this process."""
    return communities.run(load_job(file))


def test_killed_at_each_gate_of_each_stage_in_turn_it_ends_the_same(
    place, undisturbed, cluster_of_others
):
    """What the workers then go on writing belongs to nobody."""
    file, store = place
    finished = []
    for stage in [*STAGES, PUBLISH]:
        for point in points(stage):
            killed = cluster_of_others.kill(file, stage, point)
            assert [done.stage for done in store.stages_since()] == finished, (stage, point)
            assert store.holder() is None and not store.history()
        finished.append(stage)
    code, said, complaint = cluster_of_others.finish(file)
    assert code == 0 and "✓" not in said, "nothing was left to compute"
    assert f"on {gethostname()}, process {killed}, since 20" in complaint
    assert "ended without giving it back: its lock is taken over" in complaint
    assert_same(store, undisturbed)
    assert exports(store) == exports(undisturbed) != {}
    assert [done.stage for done in store.history()[0].stages] == STAGES


@pytest.fixture(scope="module")
def large_frames(tmp_path_factory):
    """Two frames of 300 × 330 cells, 200 chunks that do not compress well."""
    folder, world = tmp_path_factory.mktemp("large"), small_world()
    people = np.random.default_rng(0).gamma(0.5, 40, (2, 300, 330)).astype(np.float32)
    for time, frame in zip(world.times, people, strict=False):
        grid = xr.DataArray(frame, dims=("y", "x")).rio.write_crs("EPSG:25833")
        grid = grid.rio.write_transform(from_origin(0, 300_000, 1000, 1000))
        grid.rio.to_raster(folder / f"world_{time:%Y}.tif")
    return folder


@pytest.mark.parametrize("stage", ["population", "flow"])
def test_killed_while_it_writes_it_leaves_the_last_commit(large_frames, tmp_path, gates, stage):
    stores = [RegionStore(tmp_path / f"{name}.icechunk") for name in ("killed", "undisturbed")]
    jobs = [job(large_frames, store.path, **tables(large_frames)) for store in stores]
    file = write_job(tmp_path / "job.toml", large_frames, stores[0].path, **tables(large_frames))
    before = STAGES[: STAGES.index(stage)]
    for name in before:
        communities.run_only(jobs[0], name)
    there = chunks(stores[0])
    gates.shut(stage, "commit")  # so that it cannot be through before it is killed
    with running(file, gates=gates) as run:
        wait_until(lambda: chunks(stores[0]) > there)
        assert run.kill() > 0
    assert [done.stage for done in stores[0].stages_since()] == before, "killed too late"
    for name in STAGES[: STAGES.index(stage) + 1]:
        communities.run_only(jobs[0], name)
        communities.run_only(jobs[1], name)
    killed, undisturbed = (store.dataset(WORK).load() for store in stores)
    xr.testing.assert_identical(killed, undisturbed)
    assert stores[0].records(WORK)[stage] == stores[1].records(WORK)[stage]


def chunks(store):
    return sum(1 for _ in (store.path / "chunks").glob("*"))


def test_readers_see_the_last_finished_run_until_the_next_is(
    finished_place, frames, undisturbed, gates
):
    file, store = finished_place
    write_job(file, frames, store.path, **tables(frames, communities={"min_people": 2300}))
    looks = [("communities", "store"), ("tracks", "commit"), (PUBLISH, "commit")]
    for stage, point in looks:
        gates.shut(stage, point)
    with running(file, gates=gates) as run:
        for stage, point in looks:
            run.wait_at(stage, point)
            assert_same(store, undisturbed)
            if stage != PUBLISH:
                gates.open(stage, point)
        run.kill()
    assert_same(store, undisturbed)
    code, said, _ = finish(file, command="status")
    assert code == 0 and "a run was stopped at publishing" in said
    resume(file)
    assert not store.table("communities").equals(undisturbed.table("communities"))


def test_a_second_run_leaves_with_75_and_harms_nothing(place, undisturbed, gates):
    file, store = place
    gates.shut("population", "store")
    with running(file, gates=gates) as first:
        first.wait_at("population", "store")
        code, _, complaint = finish(file)
        assert code == 75 and f"process {first.pid}" in complaint and "Traceback" not in complaint
        assert store.holder().process == first.pid
        assert f"process {first.pid}" in finish(file, command="status")[1]
        gates.open()
        assert first.end()[0] == 0
    assert store.holder() is None
    assert_same(store, undisturbed)


def test_workers_of_a_killed_run_do_not_keep_its_lock(place, gates):
    file, store = place
    gates.shut("population", "store")
    with running(file, gates=gates) as run:
        run.wait_at("population", "store")
        workers = run.workers()
        for worker in workers:
            worker.suspend()  # so that they cannot end with their run
        run.send(signal.SIGKILL)
        wait_until(lambda: store.holder() is None)
        with store.lock():
            pass
        for worker in workers:
            worker.resume()
        run.end()
    wait_until_gone(workers)


@pytest.mark.parametrize(
    ("number", "group"),
    [(signal.SIGTERM, False), (signal.SIGTERM, True), (signal.SIGINT, True)],
    ids=["terminated", "terminated with its workers", "Ctrl-C"],
)
def test_a_signal_stops_a_run_in_order(place, undisturbed, begin, gates, number, group):
    file, store = place
    begin("classes")
    gates.shut("classes", "store")
    with running(file, gates=gates) as run:
        run.wait_at("classes", "store")
        workers = run.workers()
        run.send(number, group=group)
        code, _, complaint = run.end()
    assert code == 128 + number
    assert "run the job again to go on" in complaint and "Traceback" not in complaint
    wait_until_gone(workers)
    assert store.holder() is None and not store.path.with_name("small.icechunk.owner").exists()
    assert [done.stage for done in store.stages_since()] == STAGES[:4]
    resume(file)
    assert_same(store, undisturbed)


def test_a_signal_stops_a_training_that_would_take_days(place, frames, begin):
    file, store = place
    begin("encoder")
    write_job(file, frames, store.path, **tables(frames, encoder={"epochs": 10**7}))
    with running(file) as run:
        run.wait_for("· encoder ")
        workers = run.workers()
        before = seconds_used(workers)
        # It has loaded what it learns with, and learns.
        wait_until(lambda: seconds_used(workers) > before + 5, pause=0.1)
        run.send(signal.SIGTERM)
        code, said, complaint = run.end()
    assert code == 128 + signal.SIGTERM and "✓ encoder" not in said
    assert "run the job again to go on" in complaint and "Traceback" not in complaint
    wait_until_gone(workers)
    assert store.holder() is None
    assert [done.stage for done in store.stages_since()] == STAGES[:2]


def test_a_signal_ends_a_verification_in_order(finished_place):
    file, _ = finished_place
    with running(file, command="verify") as verification:
        verification.wait_for("dashboard at")
        workers = verification.workers()
        verification.send(signal.SIGTERM)
        code, _, complaint = verification.end()
    assert code == 128 + signal.SIGTERM
    assert complaint == "popdask: stopped; nothing was changed.\n"
    wait_until_gone(workers)


def seconds_used(processes):
    """Processor time of processes."""
    return sum(sum(process.cpu_times()[:2]) for process in processes)


def test_a_forced_run_that_is_killed_is_still_forced(finished_place, undisturbed, gates):
    file, store = finished_place
    gates.shut("encoder", "task")
    with running(file, "--force", gates=gates) as run:
        run.wait_at("encoder", "task")
        assert run.kill() > 0
    assert [done.stage for done in store.stages_since()] == STAGES[:2]
    assert_same(store, undisturbed)
    resume(file)
    assert [done.stage for done in store.history()[0].stages] == STAGES
    assert_same(store, undisturbed)
