"""Workers that die cost their tasks, and never the result."""

from tests.faults.jobs import STAGES, exports
from tests.faults.process import running
from tests.pipelines.small import assert_same


def test_a_worker_killed_in_each_stage_of_one_run(place, undisturbed):
    file, store = place
    with running(file) as run:
        for stage in STAGES:
            run.wait_for_stage(stage)
            run.kill_workers(1)
        code, _, complaint = run.end()
    assert code == 0, complaint
    assert [done.stage for done in store.history()[0].stages] == STAGES
    assert_same(store, undisturbed)
    assert exports(store) == exports(undisturbed)
