"""Old runs go, those that stay are whole, and readers can be led back to any of them."""

from datetime import timedelta

import pytest
import zarr

from popdask.errors import InputError
from popdask.store import MAIN, WORK, RegionBusyError, RegionStore
from tests.store.test_region import arrays, grid

FRAMES = [0, 1]


@pytest.fixture
def store(tmp_path):
    return RegionStore(tmp_path / "region.icechunk")


def finish_runs(store, *values):
    """Finish a run for each value, which is in all that it stores."""
    for value in values:
        work = store.begin(grid(2))
        work.write_frames("communities", arrays(2, value), FRAMES, {"frames": {}, "v": value})
        work.write_files("links", {"links": b"%d" % value}, {"v": value})
        work.publish(f"run-{value}", {"value": value})


def shown(store, branch=MAIN):
    """The value that everything that readers see has; it must be one."""
    values = set(store.dataset(branch)["community"].values.ravel().tolist())
    assert store.file("links", branch) == b"%d" % store.records(branch)["links"]["v"]
    assert values == {store.records(branch)["links"]["v"]}
    return values.pop()


def tags(store):
    return [run.tag for run in store.kept_runs()]


def at(store, tag):
    """The value of a run, read from its tag."""
    session = store.repository().readonly_session(tag=tag)
    return int(zarr.open_group(session.store, mode="r")["community"][0, 0, 0])


def test_the_last_runs_stay_and_the_others_go(store):
    finish_runs(store, 1, 2, 3, 4)
    before = sum(store.location.files().values())
    expired = store.expire(keep_last=2)
    assert expired.runs == ("run-2", "run-1") and expired.bytes > 0
    after = sum(store.location.files().values())
    assert before - after == pytest.approx(expired.bytes, rel=0.01)
    assert tags(store) == [run.tag for run in store.history()] == ["run-4", "run-3"]
    assert shown(store) == 4 and [at(store, tag) for tag in tags(store)] == [4, 3]
    assert store.repository().list_tags() == {"run-3", "run-4"}
    finish_runs(store, 5)
    assert shown(store) == 5 and at(store, "run-3") == 3


def test_runs_go_by_age_but_never_the_last(store):
    finish_runs(store, 1, 2)
    assert store.expire(older_than=timedelta(days=1)).runs == ()
    assert store.expire(keep_last=9, older_than=timedelta(microseconds=1)).runs == ("run-1",)
    assert tags(store) == ["run-2"] and shown(store) == 2


def test_what_a_stopped_run_has_finished_stays(store):
    finish_runs(store, 1, 2)
    work = store.begin(grid(2))
    work.write_frames("communities", arrays(2, 3), FRAMES, {"v": 3})
    store.expire(keep_last=1)
    assert store.unfinished() and [done.stage for done in store.stages_since()] == ["communities"]
    work = store.begin(grid(2))
    work.write_files("links", {"links": b"3"}, {"v": 3})
    work.publish("run-3")
    assert shown(store) == 3 and len(store.history()[0].stages) == 2


def test_shared_chunks_stay_with_the_runs_that_need_them(store):
    """The second run changes one frame only; the other one's chunks are those of the first."""
    finish_runs(store, 1)
    work = store.begin(grid(2))
    work.write_frames("communities", arrays(2, 2), [1], {"v": 2})
    work.publish("run-2")
    store.expire(keep_last=1)
    assert store.dataset()["community"].isel(x=0, y=0).values.tolist() == [1, 2]


def test_where_nothing_is_old_nothing_goes(store):
    finish_runs(store, 1, 2)
    store.expire(keep_last=1)
    again = store.expire(keep_last=1)
    assert again.runs == () and again.bytes == 0 and shown(store) == 2


@pytest.mark.parametrize(
    ("limits", "complaint"),
    [
        ({}, "neither a number of runs nor an age"),
        ({"keep_last": 0}, "0 runs cannot be kept"),
        ({"older_than": timedelta(0)}, "give a positive one"),
    ],
)
def test_limits_that_make_no_sense_are_refused(store, limits, complaint):
    finish_runs(store, 1)
    with pytest.raises(InputError, match=complaint):
        store.expire(**limits)


def test_readers_see_an_earlier_run_again_and_nothing_is_lost(store):
    finish_runs(store, 1, 2, 3)
    entry = store.rollback("run-1")
    assert shown(store) == shown(store, WORK) == 1 and not store.unfinished()
    assert entry.note == "back to run-1, from run-3" == store.history()[0].note
    assert [run.tag for run in store.history()] == [entry.tag, "run-1"]
    assert tags(store) == [entry.tag, "run-3", "run-2", "run-1"]
    assert store.run_record()["value"] == 1 and store.run_record()["note"] == entry.note
    assert [at(store, tag) for tag in tags(store)] == [1, 3, 2, 1]
    again = store.rollback("run-3")
    assert shown(store) == 3 and again.note == f"back to run-3, from {entry.tag}"
    finish_runs(store, 4)
    assert shown(store) == 4 and tags(store)[0] == "run-4"
    assert store.repository().list_branches() == {MAIN, WORK}


def test_runs_that_a_rollback_left_expire_as_others_do(store):
    finish_runs(store, 1, 2, 3)
    entry = store.rollback("run-1")
    assert store.expire(keep_last=2).runs == ("run-2", "run-1")
    assert tags(store) == [entry.tag, "run-3"] and shown(store) == 1 and at(store, "run-3") == 3
    store.rollback("run-3")
    assert shown(store) == 3


def test_a_rollback_that_was_stopped_is_published_by_the_next_run(store):
    finish_runs(store, 1, 2)
    latest = store.repository().lookup_branch(MAIN)
    entry = store.rollback("run-1")
    store.repository().reset_branch(MAIN, latest)  # as if it had been stopped before this
    assert shown(store) == 2 and store.unfinished()
    store.begin(grid(2)).publish("run-3")
    assert shown(store) == 1 and store.history()[0].tag == entry.tag


def test_a_run_that_is_not_there_or_shown_already_is_refused(store):
    finish_runs(store, 1, 2)
    with pytest.raises(InputError, match="no finished run 'run-7': known are run-2, run-1"):
        store.rollback("run-7")
    with pytest.raises(InputError, match="readers see the run run-2 already"):
        store.rollback("run-2")


def test_both_wait_for_the_lock(store):
    finish_runs(store, 1, 2)
    for change in (lambda: store.rollback("run-1"), lambda: store.expire(keep_last=1)):
        with store.lock(), pytest.raises(RegionBusyError):
            change()
    assert tags(store) == ["run-2", "run-1"]
