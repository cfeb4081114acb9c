"""Faults take minutes: they are tried only when asked for by name, as `make test-faults` does."""

import shutil

import pytest

from popdask.store import RegionStore
from popdask.workflow import communities
from tests.faults.gate import Gates
from tests.faults.jobs import STAGES, tables
from tests.faults.standing import standing
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


@pytest.fixture(scope="package")
def cluster_of_others(tmp_path_factory):
    """A cluster that stands as long as the tests last."""
    with standing(tmp_path_factory.mktemp("gates")) as there:
        yield there


@pytest.fixture
def gates(tmp_path):
    """Those of the run of a test, and of its workers."""
    return Gates(tmp_path / "gates")


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


@pytest.fixture(scope="package")
def begun(frames, tmp_path_factory):
    """Stores of runs that were stopped before a stage, by its name."""
    store = tmp_path_factory.mktemp("begun") / "small.icechunk"
    stores = {}
    for stage in STAGES[: STAGES.index("classes")]:
        communities.run_only(job(frames, store, **tables(frames)), stage)
        stores[STAGES[STAGES.index(stage) + 1]] = store.with_name(f"{stage}.icechunk")
        shutil.copytree(store, stores[STAGES[STAGES.index(stage) + 1]])
    return stores


@pytest.fixture
def begin(place, begun):
    """Let a stage be the first that is left to compute."""

    def begin(stage):
        shutil.copytree(begun[stage], place[1].path)

    return begin
