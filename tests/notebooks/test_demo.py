"""The demo, as a newcomer types it."""

import os
import subprocess
import sys

import pandas as pd
import pytest
from PIL import Image

from popdask.cli import commands
from popdask.store import RegionStore
from popdask.synthetic import moving_cities


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """One demo, as its own process, without any variable of ours; its folder and output."""
    folder = tmp_path_factory.mktemp("demo")
    environment = {k: v for k, v in os.environ.items() if not k.startswith("POPDASK")}
    done = subprocess.run(
        [sys.executable, "-m", "popdask", "demo", "--output", str(folder)],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return folder, done.stdout


def test_it_tells_of_the_dashboard_the_stages_and_the_people(run):
    _, output = run
    assert "dashboard at http://127.0.0.1:" in output
    assert all(stage in output for stage in ("population", "encoder", "communities", "tracks"))
    assert "3,430,623" in output


def test_it_finds_nearly_every_event_of_the_story(run):
    folder, _ = run
    store = RegionStore(folder / "demo.icechunk")
    world = moving_cities(seed=commands.DEMO_SEED)
    scores = commands.compare_demo(store.dataset()["community"], store.table("tracks"), world)
    seen = scores[scores["true"] > 0]
    assert (seen["recall"] >= 0.75).all() and (seen["precision"] >= 0.75).all()
    assert (seen.loc[["appear", "split", "merge", "vanish"], "recall"] == 1).all()


def test_it_leaves_a_picture_and_the_exports(run):
    folder, output = run
    with Image.open(folder / "demo.png") as picture:
        assert min(picture.size) > 1000
    assert str(folder / "demo.png") in output
    exports = {path.name for path in (folder / "demo").iterdir()}
    assert {"demo_community_2007.tif", "demo_communities.parquet"} <= exports
    assert len(pd.read_parquet(folder / "demo" / "demo_events.parquet")) > 100


def test_the_job_file_of_the_package_is_that_of_the_checkout(tmp_path):
    job = commands.demo_job(tmp_path)
    assert job.name == "demo" and job.output.store == str(tmp_path / "demo.icechunk")
