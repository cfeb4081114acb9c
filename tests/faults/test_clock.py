"""The wall clock of the machine jumps while a run goes on, in all of its processes."""

from tests.faults.clock import Clock
from tests.faults.jobs import STAGES
from tests.faults.process import finish, running
from tests.pipelines.small import assert_same

#: More than the five minutes after which Dask gives up a worker that it has not heard of.
LEAP = 400


def test_a_clock_that_jumps_ahead_and_back(place, undisturbed, gates, tmp_path):
    file, store = place
    clock = Clock(tmp_path)
    jumps = {("encoder", "task"): LEAP, ("communities", "store"): 0}
    for gate in jumps:
        gates.shut(*gate)
    with running(file, gates=gates, environment=clock.environment) as run:
        for gate, seconds in jumps.items():
            run.wait_at(*gate)
            clock.jump(seconds)
            gates.open(*gate)
        code, _, complaint = run.end()
    assert code == 1 and "Traceback" not in complaint
    assert "clock is behind" in complaint and "run the job again to go on" in complaint
    assert store.holder() is None and not store.history()
    assert [done.stage for done in store.stages_since()] == STAGES[:5]
    clock.jump(LEAP)
    code, said, complaint = finish(file, environment=clock.environment)
    assert code == 0, complaint
    assert "· classes" not in said
    assert_same(store, undisturbed)
