"""Faults take minutes: they are tried only when asked for by name, as `make test-faults` does."""

import shutil

import pytest

from popdask.store import RegionStore
from popdask.workflow import communities
from tests.faults.jobs import tables
from tests.pipelines.small import job, small_world, write_job


def pytest_ignore_collect(config):
    asked = any("faults" in argument for argument in config.args)
    return None if asked else True


@pytest.fixture(scope="package")
def frames(tmp_path_factory):
    """The folder of the frames of the small world."""
    folder = tmp_path_factory.mktemp("frames")
    small_world().write(folder)
    return folder


@pytest.fixture(scope="package")
def undisturbed(frames, tmp_path_factory):
    """The store of a run that nothing happened to."""
    store = tmp_path_factory.mktemp("undisturbed") / "small.icechunk"
    return communities.run(job(frames, store, **tables(frames))).store


@pytest.fixture
def place(frames, tmp_path):
    """A job file and the store that it names, which is not there yet."""
    store = tmp_path / "small.icechunk"
    return write_job(tmp_path / "small.toml", frames, store, **tables(frames)), RegionStore(store)


@pytest.fixture
def finished_place(place, undisturbed):
    """The same, with a finished run."""
    shutil.copytree(undisturbed.path, place[1].path)
    return place
