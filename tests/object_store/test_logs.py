"""Logs of runs, and what they tell of a region, in a bucket."""

import json

import pytest

from popdask.io import paths
from popdask.store import RegionStore
from popdask.workflow.operations import Region, status_table
from popdask.workflow.runlog import End, RunLog, log_place, read_runs
from tests.object_store.conftest import BUCKET
from tests.pipelines.small import job
from tests.pipelines.test_runlog import Heard


def test_a_log_lies_beside_the_store_and_grows_while_the_run_goes_on(place, tmp_path):
    region = job(tmp_path, f"{place}/small.icechunk")
    with RunLog(region) as first:
        first.note("on the way")
        (running,) = read_runs(region)
    assert str(first) == f"{place}/small.icechunk.log/{first.name}"
    assert running.outcome is End.KILLED, "it has not ended yet"
    key = f"{paths.bucket_and_key(place)[1]}/small.icechunk.log/{first.name}"
    text = paths.client().get_object(Bucket=BUCKET, Key=key)["Body"].read().decode()
    events = [json.loads(line)["event"] for line in text.splitlines()]
    assert events == ["begin", "note", "end"]
    with pytest.raises(OSError, match="lost"), RunLog(region) as second:
        raise OSError("lost")
    assert [one.outcome for one in read_runs(region)] == [End.FAILED, End.NOTHING]
    assert not RegionStore(region.output.store).exists(), "a log does not spoil the store's place"
    (found,) = status_table([Region(tmp_path / "small.toml", region)])
    assert (found.state, found.failures, found.run) == ("failed", 1, None)
    log_place(region).remove(second.name)
    assert log_place(region).names() == [first.name]


def test_a_bucket_that_is_not_there_does_not_end_the_run(reliable, tmp_path):
    heard = Heard()
    with RunLog(job(tmp_path, "s3://popdask-nowhere/small.icechunk"), heard):
        pass
    assert len(heard.notes) == 1 and "cannot be written" in heard.notes[0]
