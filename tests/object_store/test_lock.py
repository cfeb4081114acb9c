"""A region on S3 has one run at a time, however runs end and whatever clocks say."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager

import pytest

from popdask.errors import InputError
from popdask.io.paths import bucket_and_key, client
from popdask.store import RegionBusyError, RegionStore, location

ELSEWHERE = {"user": "ada", "host": "node7", "process": 4242, "since": "2026-01-02T03:04:05+00:00"}


@pytest.fixture
def store(place):
    return RegionStore(place)


def lock_of(store):
    bucket, key = bucket_and_key(str(store.location))
    return {"Bucket": bucket, "Key": f"{key}.lock"}


def held_elsewhere(store):
    """Write the lock of a run on another machine."""
    note = json.dumps(ELSEWHERE | {"machine": "another", "run": "1", "beat": 1})
    client().put_object(**lock_of(store), Body=note.encode())


@contextmanager
def silent_for_long(monkeypatch):
    """Take who holds a region for dead, but not who takes it over on a machine that is slow."""
    with monkeypatch.context() as patch:
        patch.setattr(location, "DEAD_AFTER_SECONDS", 1)
        time.sleep(3)
        yield


def test_a_second_run_is_told_who_holds_the_region(store):
    busy = pytest.raises(RegionBusyError, match=rf"process {os.getpid()}, since 20.*last heard of")
    with store.lock():
        assert store.holder().process == os.getpid()
        with busy, RegionStore(store.path).lock():
            pytest.fail("two runs hold one region")
    assert store.holder() is None
    with store.lock():
        pass


def test_a_run_elsewhere_holds_the_region_until_it_is_silent_for_long(store, monkeypatch, caplog):
    held_elsewhere(store)
    busy = pytest.raises(RegionBusyError, match="ada on node7, process 4242, since 2026-01-02T03")
    with busy, store.lock():
        pytest.fail("two runs hold one region")
    assert store.holder().host == "node7"
    with ExitStack() as held:
        with silent_for_long(monkeypatch):
            assert store.holder() is None
            held.enter_context(store.lock())
        assert store.holder().process == os.getpid()
    assert "ada on node7, process 4242, since 2026-01-02T03:04:05+00:00" in caplog.text
    assert "its lock is taken over" in caplog.text


@pytest.mark.parametrize("hours", [-30, 30])
def test_the_clock_of_this_machine_does_not_matter(store, server, hours):
    held_elsewhere(store)
    server.faults(clock=3600 * hours)
    with pytest.raises(RegionBusyError), store.lock():
        pytest.fail("a living run was taken for dead")


def test_the_lock_of_a_run_that_was_killed_here_is_free_at_once(store, caplog):
    script = (
        "import os, signal, sys\n"
        "from popdask.store import RegionStore\n"
        "with RegionStore(sys.argv[1]).lock():\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", script, store.path], check=False)
    assert done.returncode == -signal.SIGKILL
    left = json.loads(client().get_object(**lock_of(store))["Body"].read())
    assert left["process"] != os.getpid() and store.holder() is None
    with store.lock():
        pass
    assert f"process {left['process']}" in caplog.text


def test_a_run_that_lives_keeps_the_region(store, monkeypatch):
    monkeypatch.setattr(location, "HEARTBEAT_SECONDS", 0.3)
    monkeypatch.setattr(location, "DEAD_AFTER_SECONDS", 10)
    with store.lock():
        for _ in range(6):
            time.sleep(2)
            with pytest.raises(RegionBusyError), RegionStore(store.path).lock():
                pytest.fail("a living run was taken for dead")


def test_a_run_that_slept_too_long_does_not_commit(store, monkeypatch):
    """Its heart stops; another run takes over; when it wakes, it must leave the region alone."""
    with store.location.hold() as sleeper, ExitStack() as held:
        with silent_for_long(monkeypatch):
            held.enter_context(RegionStore(store.path).lock())
        with pytest.raises(
            RegionBusyError, match=rf"has lost {store.location}, which .* holds now"
        ):
            sleeper()
    assert store.holder() is None


def test_what_a_run_leaves_is_not_the_lock_of_the_next(store, monkeypatch):
    sleeper = store.lock()
    sleeper.__enter__()
    with ExitStack() as held:
        with silent_for_long(monkeypatch):
            held.enter_context(RegionStore(store.path).lock())
        sleeper.__exit__(None, None, None)
        assert store.holder().process == os.getpid()


@pytest.mark.parametrize("fault", [{"drop": 0.2}, {"lose": ".lock"}], ids=["some", "answers"])
def test_lost_requests_and_answers_do_not_lose_the_lock(store, server, fault):
    server.faults(**fault)
    before = server.faults()["dropped"]
    for _ in range(4):
        with store.location.hold() as check:
            check()
            check()
    assert server.faults()["dropped"] > before
    assert store.holder() is None


def test_a_server_without_conditions_is_refused(store, server):
    server.faults(conditions=False)
    with pytest.raises(InputError, match="ignores conditional writes"), store.lock():
        pytest.fail("nothing keeps two runs apart")
