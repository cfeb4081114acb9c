"""The whole job with frames and store on S3 gives what it gives in a folder."""

from pathlib import Path

import fsspec
import pytest

from popdask.cli.demo import draw
from popdask.io.paths import fsspec_options
from popdask.store import RegionStore
from popdask.workflow import communities
from tests.faults.process import finish, running
from tests.object_store.conftest import BUCKET
from tests.pipelines.small import assert_same, job, write_job


def upload(folder, url):
    """Copy the files of a folder."""
    system, path = fsspec.core.url_to_fs(url, **fsspec_options(url))
    for file in sorted(folder.iterdir()):
        system.put_file(str(file), f"{path}/{file.name}")


@pytest.fixture(scope="module")
def local(frames, tmp_path_factory):
    store = tmp_path_factory.mktemp("local") / "small.icechunk"
    return communities.run(job(frames, store)).store


def test_the_whole_job_is_the_same_though_requests_are_lost(server, frames, local):
    server.faults(drop=0, delay=0)
    upload(frames, f"s3://{BUCKET}/frames")
    server.faults(drop=0.05, delay=0.05)
    before = server.faults()["dropped"]
    remote = job(f"s3://{BUCKET}/frames", f"s3://{BUCKET}/small.icechunk")
    store = communities.run(remote).store
    assert server.faults()["dropped"] > before
    server.faults(drop=0, delay=0)
    assert_same(store, local)
    assert store.holder() is None and not store.unfinished()
    assert communities.plan(remote).done


def test_the_demo_is_the_same_with_workers_and_lost_requests(server, tmp_path):
    """Through the command line, with worker processes that reach the server for themselves."""
    server.faults(drop=0, delay=0)
    draw(tmp_path)
    upload(tmp_path / "frames", f"s3://{BUCKET}/demo/frames")
    local, remote = str(tmp_path), f"s3://{BUCKET}/demo"
    for where, drop in ((local, 0), (remote, 0.05)):
        server.faults(drop=drop, delay=drop)
        code, said, complaint = finish(demo_job(tmp_path, where))
        assert code == 0, complaint
        assert f"results: {where}/demo.icechunk" in said
    assert server.faults(drop=0, delay=0)["dropped"] > 0
    stores = [RegionStore(f"{where}/demo.icechunk") for where in (local, remote)]
    assert_same(*stores)
    code, said, complaint = finish(demo_job(tmp_path, remote), command="verify")
    assert code == 0, said + complaint


def demo_job(folder, where):
    """Write the demo's job file, with frames and store elsewhere and exports here."""
    text = (Path(__file__).parents[2] / "jobs" / "demo.toml").read_text()
    text = text.replace("../out/demo/frames", f"{where}/frames")
    text = text.replace("../out/demo/demo.icechunk", f"{where}/demo.icechunk")
    file = folder / f"{'remote' if '://' in where else 'local'}.toml"
    file.write_text(f'{text}\nfolder = "exports-{file.stem}"\n')
    return file


def test_two_runs_at_once_and_one_that_was_killed(server, frames, local, tmp_path):
    server.faults(drop=0, delay=0)
    upload(frames, f"s3://{BUCKET}/frames")
    store = RegionStore(f"s3://{BUCKET}/two.icechunk")
    file = write_job(tmp_path / "small.toml", f"s3://{BUCKET}/frames", store.path)
    with running(file) as first:
        first.wait_for_stage("population")
        code, _, complaint = finish(file)
        assert code == 75 and f"process {first.pid}" in complaint and "Traceback" not in complaint
        assert store.holder().process == first.pid
        first.wait_for_stage("classes")
        first.kill()
    assert store.holder() is None and store.unfinished()
    code, said, complaint = finish(file)
    assert code == 0 and "· population" not in said
    assert f"process {first.pid}" in complaint and "taken over" in complaint
    assert_same(store, local)
