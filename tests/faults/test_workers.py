"""Workers that die cost their tasks, and never the result."""

from tests.faults.jobs import STAGES, exports, points
from tests.faults.process import running
from tests.pipelines.small import assert_same


def test_a_worker_killed_in_each_stage_of_one_run(place, undisturbed, gates):
    """While it writes, or at the end of its first task: the stage goes on."""
    file, store = place
    midst = [(stage, point) for stage in STAGES for point in points(stage)[1:-1]]
    for gate in midst:
        gates.shut(*gate)
    with running(file, gates=gates) as run:
        for gate in midst:
            run.kill_worker_at(*gate)
        code, said, complaint = run.end()
    assert code == 0, complaint
    assert said.count("✓") == len(STAGES)
    assert [done.stage for done in store.history()[0].stages] == STAGES
    assert_same(store, undisturbed)
    assert exports(store) == exports(undisturbed)
