"""The whole job with frames and store on S3 gives what it gives in a folder."""

import fsspec
import pytest

from popdask.io.paths import fsspec_options
from popdask.store import RegionStore
from popdask.workflow import communities
from tests.faults.gate import Gates
from tests.faults.process import finish, running
from tests.object_store.conftest import BUCKET
from tests.pipelines.small import assert_same, job, write_job

#: With places, which the small job is without.
SETTLED = {"settlements": {"find": True}}


def upload(folder, url):
    """Copy the files of a folder."""
    system, path = fsspec.core.url_to_fs(url, **fsspec_options(url))
    for file in sorted(folder.iterdir()):
        system.put_file(str(file), f"{path}/{file.name}")


@pytest.fixture(scope="module")
def local(frames, tmp_path_factory):
    store = tmp_path_factory.mktemp("local") / "small.icechunk"
    return communities.run(job(frames, store, **SETTLED)).store


def test_the_whole_job_is_the_same_though_requests_are_lost(server, frames, local):
    server.faults(drop=0, delay=0)
    upload(frames, f"s3://{BUCKET}/frames")
    server.faults(drop=0.05, delay=0.05)
    before = server.faults()["dropped"]
    remote = job(f"s3://{BUCKET}/frames", f"s3://{BUCKET}/small.icechunk", **SETTLED)
    store = communities.run(remote).store
    assert server.faults()["dropped"] > before
    server.faults(drop=0, delay=0)
    assert_same(store, local)
    assert store.holder() is None and not store.unfinished()
    assert communities.plan(remote).done


def test_it_is_the_same_with_workers_and_lost_requests(server, frames, local, tmp_path):
    """Through the command line, with worker processes that reach the server for themselves."""
    server.faults(drop=0, delay=0)
    upload(frames, f"s3://{BUCKET}/frames")
    store = RegionStore(f"s3://{BUCKET}/workers.icechunk")
    tables = SETTLED | {"output": {"export": ["cog", "geoparquet"], "folder": "exports"}}
    file = write_job(tmp_path / "small.toml", f"s3://{BUCKET}/frames", store.path, **tables)
    before = server.faults(drop=0.05, delay=0.05)["dropped"]
    code, said, complaint = finish(file)
    assert code == 0 and f"results: {store.path}" in said, complaint
    assert server.faults(drop=0, delay=0)["dropped"] > before
    assert_same(store, local)
    assert any((tmp_path / "exports").iterdir())
    code, said, complaint = finish(file, command="verify")
    assert code == 0, said + complaint


def test_two_runs_at_once_and_one_that_was_killed(server, frames, local, tmp_path):
    server.faults(drop=0, delay=0)
    upload(frames, f"s3://{BUCKET}/frames")
    store = RegionStore(f"s3://{BUCKET}/two.icechunk")
    file = write_job(tmp_path / "small.toml", f"s3://{BUCKET}/frames", store.path, **SETTLED)
    gates = Gates(tmp_path / "gates")
    gates.shut("population", "store")
    gates.shut("classes", "store")
    with running(file, gates=gates) as first:
        first.wait_at("population", "store")
        code, _, complaint = finish(file)
        assert code == 75 and f"process {first.pid}" in complaint and "Traceback" not in complaint
        assert store.holder().process == first.pid
        gates.open("population")
        first.wait_at("classes", "store")
        first.kill()
    assert store.holder() is None and store.unfinished()
    code, said, complaint = finish(file)
    assert code == 0 and "· population" not in said
    assert f"process {first.pid}" in complaint and "taken over" in complaint
    assert_same(store, local)
