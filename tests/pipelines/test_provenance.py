"""A run is on record with what it was made from and with, and without secrets."""

import hashlib
import json
import os
import platform

import numpy as np
import pytest

from popdask.io.paths import without_secrets
from popdask.store import RegionStore
from popdask.workflow import communities
from popdask.workflow.inputs import file_fingerprints, versions
from tests.pipelines.small import job


@pytest.fixture(scope="module")
def record(frames, tmp_path_factory):
    store = tmp_path_factory.mktemp("run") / "small.icechunk"
    os.environ["POPDASK_TEST_SECRET"] = "open sesame"
    communities.run(job(frames, store, encoder={"seed": 7}))
    del os.environ["POPDASK_TEST_SECRET"]
    return RegionStore(store).run_record()


def test_the_inputs_are_on_record_with_their_checksums(record, frames):
    file = frames / "world_2001.tif"
    told = record["inputs"]["2001-01-01T00:00:00"]
    assert told["path"] == str(file) and told["size"] == file.stat().st_size
    assert told["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    assert told["mtime"].startswith("20") and len(record["inputs"]) == 4


def test_settings_seeds_and_versions_are_on_record(record):
    assert record["settings"]["communities"]["min_samples"] == 8
    assert record["seeds"] == {"encoder": 7, "classes": 0}
    assert record["versions"]["python"] == platform.python_version()
    assert record["versions"]["numpy"] == np.__version__
    assert record["machine"]["host"] == platform.node()


def test_time_and_bytes_of_each_stage_are_on_record(record):
    stages = {stage["stage"]: stage for stage in record["stages"]}
    assert list(stages)[:3] == ["population", "flow", "encoder"] and len(stages) == 9
    assert all(stage["seconds"] > 0 and stage["bytes"] > 0 for stage in stages.values())
    assert stages["flow"]["work"] == "all 4 frames"
    assert record["started"] <= record["finished"]


def test_the_balance_of_people_is_on_record(record):
    assert len(record["balance"]) == 4
    for frame in record["balance"]:
        assert frame["inside"] + frame["outside"] == pytest.approx(frame["raster"], rel=1e-9)


def test_the_environment_is_not_on_record(record):
    assert "open sesame" not in json.dumps(record)


@pytest.mark.parametrize(
    ("place", "clean"),
    [
        ("https://me:word@host/a/{year}.tif", "https://host/a/{year}.tif"),
        ("https://host/a.tif?token=x&y=1#part", "https://host/a.tif"),
        ("s3://bucket/a.tif", "s3://bucket/a.tif"),
        ("/data/a?b.tif", "/data/a?b.tif"),
    ],
)
def test_urls_keep_their_secrets(place, clean):
    assert without_secrets(place) == clean


def test_a_file_on_record_is_read_again_only_if_it_changed(tmp_path):
    file = tmp_path / "a.tif"
    file.write_bytes(b"people")
    time = np.datetime64("2001-01-01")
    first = file_fingerprints({time: str(file)}, {})
    known = {"2001-01-01T00:00:00": first["2001-01-01T00:00:00"] | {"sha256": "as on record"}}
    assert file_fingerprints({time: str(file)}, known) == known
    file.write_bytes(b"other people")
    found = file_fingerprints({time: str(file)}, known)["2001-01-01T00:00:00"]
    assert found["sha256"] == hashlib.sha256(b"other people").hexdigest()


def test_versions_are_known_without_importing():
    assert set(versions()) >= {"popdask", "torch", "dask"} and "unknown" not in versions().values()
