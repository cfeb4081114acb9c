"""A region on S3 is what it is in a folder; what it cannot be is said in one sentence."""

import pytest

from popdask.errors import InputError
from popdask.io.paths import bucket_and_key, client
from popdask.store import RegionStore
from tests.store.test_region import arrays, grid


def objects(url):
    """The contents of all objects of a prefix, by key."""
    bucket, key = bucket_and_key(url)
    pages = client().get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=key)
    keys = [item["Key"] for page in pages for item in page.get("Contents", ())]
    return {k: client().get_object(Bucket=bucket, Key=k)["Body"].read() for k in keys}


def write(store, value=1):
    work = store.begin(grid(2))
    work.write_frames("communities", arrays(2, value), [0, 1], {"work": "all 2 frames"})
    work.publish(f"run-{value}")
    return work


def test_what_is_written_is_read(place):
    store = RegionStore(place)
    assert not store.exists() and store.history() == []
    with store.lock():
        write(store)
    assert (store.dataset()["community"] == 1).all()
    assert store.run_record()["tag"] == "run-1"
    stored = sum(len(content) for content in objects(place).values())
    assert 0 < store.history()[0].stages[0].bytes < stored
    assert str(store.path) == place and place in repr(store)


def test_a_repository_lies_under_its_prefix_alone(place):
    with RegionStore(f"{place}/oslo").lock():
        write(RegionStore(f"{place}/oslo"))
    with RegionStore(f"{place}/oslo-east").lock():
        write(RegionStore(f"{place}/oslo-east"), 2)
    assert (RegionStore(f"{place}/oslo").dataset()["community"] == 1).all()
    _, key = bucket_and_key(place)
    assert all(name.startswith((f"{key}/oslo/", f"{key}/oslo-east/")) for name in objects(place))


def test_commits_survive_lost_answers(place, server):
    """The server has moved the branch, and tells the second attempt that it has moved."""
    store, before = RegionStore(place), server.faults()["dropped"]
    server.faults(lose="/refs/")
    work = store.begin(grid(2))
    for value in range(4):
        work.write_files("links", {"links": b"%d" % value}, {"value": value})
    work.publish("run-1")
    assert server.faults()["dropped"] >= before + 9  # layout, stages and run, tag and branches
    assert store.file("links") == b"3"
    assert len(store.history()[0].stages) == 4 and not store.unfinished()
    work.write_files("links", {"links": b"4"}, {"value": 4})
    work.publish("run-2")
    store.rollback("run-1")
    store.expire(keep_last=1)
    assert store.file("links") == b"3" and [run.note for run in store.kept_runs()] != [""]


def test_no_secret_is_stored(place, server):
    store = RegionStore(place)
    with store.lock():
        write(store)
        content = b"".join(objects(place).values())
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        assert server.environment[name].encode() not in content


def test_a_prefix_with_other_objects_is_refused(place):
    bucket, key = bucket_and_key(place)
    client().put_object(Bucket=bucket, Key=f"{key}/thesis.docx", Body=b"years of work")
    with pytest.raises(InputError, match="holds other objects"):
        RegionStore(place)


def test_a_bucket_that_is_not_there_is_named(reliable):
    with pytest.raises(InputError, match=r"s3://nowhere/region cannot be reached .*NoSuchBucket"):
        RegionStore("s3://nowhere/region")
