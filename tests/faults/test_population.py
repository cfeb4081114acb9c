"""Disturbed runs of the population job end as the undisturbed one: its models too."""

import json

import pytest
import xarray as xr

from popdask.store import RegionStore
from popdask.store.content import RUN_FILE
from popdask.workflow import population
from tests.faults.jobs import PUBLISH
from tests.faults.process import running
from tests.pipelines.dots import job, settings, write_world

#: Those of a job without zones, totals and intervals.
STAGES = [
    stage.name
    for stage in population.PIPELINE.stages
    if stage.name not in ("totals", "intervals", "census", "export", "tables")
]

#: The gates in their midst.
MIDST = {stage: "store" if stage in ("cells", "estimate") else "task" for stage in STAGES}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    write_world(folder)
    return folder


@pytest.fixture(scope="module")
def undisturbed(world, tmp_path_factory):
    """The store of a run that nothing happened to."""
    store = tmp_path_factory.mktemp("undisturbed") / "dots.icechunk"
    return population.run(job(world, store)).store


@pytest.fixture
def place(world, tmp_path):
    """A job file and the store that it names, which is not there yet."""
    store = tmp_path / "dots.icechunk"
    file = tmp_path / "dots.toml"
    tables = settings(world, store).items()
    file.write_text("\n".join(f"{key} = {inline(value)}" for key, value in tables))
    return file, RegionStore(store)


def inline(value):
    """Write a setting as TOML does, tables in one line."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {inline(inner)}" for key, inner in value.items()) + "}"
    return json.dumps(value)


def assert_same(one, other):
    """Two stores hold the same cells, models, estimates and tables, bit for bit."""
    for open_ in (RegionStore.dataset, lambda store: store.group("cells")):
        xr.testing.assert_identical(open_(one).compute(), open_(other).compute())
    files = [store.files() for store in (one, other)]
    assert "presence.safetensors" in files[0] and files[0].keys() == files[1].keys()
    for name in files[0].keys() - {RUN_FILE}:
        assert files[0][name] == files[1][name], name


def test_killed_at_each_gate_of_each_stage_in_turn_it_ends_the_same(
    place, undisturbed, cluster_of_others
):
    file, store = place
    finished = []
    for stage in [*STAGES, PUBLISH]:
        for point in filter(None, ("start", MIDST.get(stage), "commit")):
            cluster_of_others.kill(file, stage, point)
            assert [done.stage for done in store.stages_since()] == finished, (stage, point)
            assert store.holder() is None and not store.history()
        finished.append(stage)
    code, said, complaint = cluster_of_others.finish(file)
    assert code == 0 and "✓" not in said, complaint
    assert_same(store, undisturbed)


def test_workers_killed_in_each_stage_of_one_run(place, undisturbed, gates):
    """While one learns to count, all of them: nobody is left who has the labelled cells."""
    file, store = place
    for stage, point in MIDST.items():
        gates.shut(stage, point)
    with running(file, gates=gates) as run:
        for stage, point in MIDST.items():
            if stage == "count":
                run.wait_at(stage, point)
                run.kill_workers()
                gates.open(stage, point)
            else:
                run.kill_worker_at(stage, point)
        code, _, complaint = run.end()
    assert code == 0, complaint
    assert [done.stage for done in store.history()[0].stages] == STAGES
    assert_same(store, undisturbed)
