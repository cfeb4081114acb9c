"""Passwords of URLs and keys of the environment are in nothing that a run leaves or says."""

import json
import re
import subprocess
import sys

import pytest

from popdask.store import RegionStore
from tests.faults.process import finish
from tests.object_store.conftest import BUCKET
from tests.object_store.test_store import objects
from tests.pipelines.small import small_world, write_job

PASSWORD = "open-sesame"
EXPORTS = ["cog", "geoparquet"]


@pytest.fixture
def frames(tmp_path):
    """The URL, with a password, of a server that has the frames."""
    folder = tmp_path / "frames"
    small_world().write(folder)
    command = [sys.executable, "-u", "-m", "http.server", "0", "--bind", "127.0.0.1"]
    with subprocess.Popen(
        [*command, "--directory", folder],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as server:
        port = re.search(r"port (\d+)", server.stdout.readline())[1]
        yield f"http://me:{PASSWORD}@127.0.0.1:{port}"
        server.terminate()


def told_by(store):
    """What a repository holds beside arrays, as text: it lies there compressed."""
    runs = [str(run) for run in [*store.history(), *store.kept_runs()]]
    notes = [
        json.dumps([snapshot.message, snapshot.metadata], default=str)
        for snapshot in store.repository().ancestry(branch="main")
    ]
    return json.dumps([store.records(), store.run_record(), runs, notes], default=str)


def test_no_secret_is_left_behind(reliable, frames, tmp_path):
    secrets = (PASSWORD, reliable.environment["AWS_SECRET_ACCESS_KEY"])
    url = f"s3://{BUCKET}/secret/small.icechunk"
    texts, output = [], tmp_path / "output"
    output.mkdir()
    for name, place in (("local", output / "small.icechunk"), ("remote", url)):
        tables = {"output": {"export": EXPORTS, "folder": str(output / name)}}
        file = write_job(tmp_path / f"{name}.toml", frames, place, **tables)
        for command in ("plan", "run", "status"):
            code, said, complaint = finish(file, command=command)
            assert code == 0, complaint
            texts += [said, complaint]
        texts.append(told_by(RegionStore(place)))
    wrong = write_job(tmp_path / "wrong.toml", f"{frames}/nowhere", output / "wrong.icechunk")
    code, said, complaint = finish(wrong)
    assert code == 2 and "Traceback" not in complaint
    texts += [said, complaint]
    left = [path.read_bytes() for path in output.rglob("*") if path.is_file()]
    left += objects(f"s3://{BUCKET}/secret").values()
    assert len(left) > 50
    for secret in secrets:
        assert not [text for text in texts if secret in text]
        assert not [content for content in left if secret.encode() in content]
