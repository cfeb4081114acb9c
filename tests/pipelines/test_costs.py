"""What a plan says that a run costs: tasks as in the real graphs, and arithmetic that adds up."""

import tracemalloc
from pathlib import Path

import dask
import numpy as np
import pytest
from dask._task_spec import Alias, DataNode
from dask.callbacks import Callback
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from benchmarks.estimate import small_models
from benchmarks.plan import mosaic_job
from popdask.blocks.sampling import domain
from popdask.cli import commands
from popdask.config import load_job
from popdask.errors import InputError
from popdask.imagery.estimate import estimate
from popdask.imagery.model import TrainedModel
from popdask.imagery.mosaic import open_mosaic
from popdask.io.cube import CHUNK
from popdask.synthetic import moving_cities
from popdask.workflow import communities as communities_module
from popdask.workflow import communities_costs as communities
from popdask.workflow import population, population_costs, scenes
from popdask.workflow.calibration import Trial, calibrate, explain
from popdask.workflow.communities import plan_communities
from popdask.workflow.communities_costs import Extent, count
from popdask.workflow.communities_costs import costs as communities_costs
from popdask.workflow.plan import (
    BASE,
    Costs,
    Rates,
    Resources,
    StageCost,
    load_rates,
    rates_file,
    save_rates,
)
from popdask.workflow.population_costs import following, operations
from popdask.workflow.runlog import Reporter
from tests.pipelines import dots, small

GIB = 2**30
CREW = Resources(workers=2, threads=1, memory=4 * GIB)


class Counter(Callback, Reporter):
    """Counts the tasks that each stage hands to the "single-threaded" scheduler.

    The fit of the classes goes to one called "synchronous", in one place and in as many steps as
    k-means happens to take: no cluster sees those.
    """

    def __init__(self):
        Callback.__init__(self)
        self.tasks, self.name = {}, None

    def stage(self, name, work):
        self.name = name
        return Reporter.stage(self, name, work)

    def _start(self, dsk):
        if dask.config.get("scheduler") != "single-threaded":
            return
        real = sum(not isinstance(node, Alias | DataNode) for node in dsk.values())
        self.tasks[self.name] = self.tasks.get(self.name, 0) + real


def small_job(folder, **tables):
    tables = {"classes": {"k": 3, "sample": 20_000}, "domain": {"cells": "data"}} | tables
    return small.job(folder, folder / "store.icechunk", **tables)


def planned(job, frames=18, records=None):
    inputs = {f"{2000 + year}-01-01T00:00:00": str(year) for year in range(frames)}
    return plan_communities(job, inputs, records or {})


def rates(**seconds):
    return Rates(seconds, 0.001, 3.0, "here", 2, "2026-01-01", {})


@pytest.mark.parametrize("chunks", [128, 512], ids=["several chunks", "one chunk"])
def test_the_tasks_of_a_plan_are_those_of_the_graphs(tmp_path, chunks):
    moving_cities(frames=6).write(tmp_path)
    job = small_job(tmp_path, input={"chunks": chunks})
    told = communities.costs(job, communities_module.plan(job))
    counter = Counter()
    with dask.config.set(scheduler="single-threaded"), counter:
        communities_module.run(job, counter)
    assert told.tasks == pytest.approx(sum(counter.tasks.values()), rel=0.15)
    for name, cost in told.stages.items():
        # Single chunks are fused in one way or another, as their random names are sorted: classes
        # have been seen with two tasks more for a frame.
        few = 12 if name == "classes" else 6
        assert cost.tasks == pytest.approx(counter.tasks.get(name, 0), rel=0.2, abs=few), name


def test_a_plan_of_100_000_chunks_builds_no_graph(tmp_path):
    job = small_job(tmp_path)
    tracemalloc.start()
    told = count(job, planned(job, 100), Extent(100, 32_000, 32_000, 1000))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert told.chunks == 102_400
    assert told.tasks > 30 * told.chunks
    assert peak < 10 * 2**20


def test_bytes_are_those_of_the_stored_arrays(tmp_path):
    moving_cities(frames=6).write(tmp_path)
    job = small_job(tmp_path)
    told = communities.costs(job, communities_module.plan(job)).stages
    communities_module.run(job)
    stored = communities_module.run(job).store.dataset()
    names = {"population": ["population"], "flow": ["u", "v"]}
    names |= {"classes": ["classes"], "communities": ["community"]}
    for stage, arrays in names.items():
        assert told[stage].written == sum(stored[name].nbytes for name in arrays)


def test_only_what_is_stale_costs_something(tmp_path):
    job, extent = small_job(tmp_path, flow={"centering": (0, 0, -1)}), Extent(6, 400, 400, 128)
    whole = planned(job, 6)
    records = {stage.name: dict(stage.record) for stage in planned(job, 5)}
    one = count(job, planned(job, 6, records), extent).stages
    assert set(one).isdisjoint({"encoder", "classifier"})
    assert one["classes"].read * 6 == count(job, whole, extent).stages["classes"].read
    records = {stage.name: dict(stage.record) for stage in whole}
    done = count(job, planned(job, 6, records), extent)
    assert done.stages == {} and done.tasks == 0


@pytest.mark.parametrize("cells", ["settled", "data", "inhabited"])
def test_the_share_of_the_domain_is_that_of_the_frame(tmp_path, cells):
    world = moving_cities(frames=6)
    world.write(tmp_path)
    job = small_job(tmp_path, domain={"cells": cells})
    told = communities_costs(job, communities_module.plan(job)).stages["classes"].shared
    middle = world.population.population[3]
    assert told["classes per settled cell"] / told["classes per cell"] == pytest.approx(
        float(domain(middle, cells).mean()), abs=1e-3
    )
    assert told["classes per settled cell"] <= told["classes per encoded cell"]
    assert told["classes per encoded cell"] <= told["classes per cell"]


def test_more_cores_help_what_can_be_shared_and_no_more():
    cost = StageCost("x", tasks=10, parts=2, shared={"cell": 100}, alone={"run": 1})
    known = rates(cell=0.1, run=5.0)
    assert cost.seconds(known, cores=1) == pytest.approx(10 + 5 + 0.01)
    assert cost.seconds(known, cores=2) == pytest.approx(5 + 5 + 0.01)
    assert cost.seconds(known, cores=8) == cost.seconds(known, cores=2)


def test_the_time_is_not_known_where_one_rate_is_missing():
    known, unknown = StageCost("a", alone={"a": 1}), StageCost("b", alone={"b": 1})
    told = rates(a=1.0)
    assert Costs({"a": known}, 1).seconds(told, CREW) == pytest.approx(4.0)
    assert Costs({"a": known, "b": unknown}, 1).seconds(told, CREW) is None


@settings(max_examples=25, deadline=None)
@given(
    rows=st.integers(1, 50_000),
    edge=st.integers(128, 40_000),
    threads=st.integers(1, 8),
    memory=st.integers(GIB, 64 * GIB),
)
def test_what_is_proposed_fits(rows, edge, threads, memory):
    job, crew = small_job(Path("nowhere")), Resources(1, threads, memory)
    told = count(job, planned(job), Extent(18, rows, 50_000, edge))
    advice = told.advice(crew)
    assert (advice is None) == told.fits(crew)
    proposed = told.proposed(crew)
    if proposed:
        assert count(job, planned(job), Extent(18, rows, 50_000, proposed)).fits(crew)
    if advice and proposed:
        assert f"chunks = {proposed}," in advice and proposed < edge


def test_where_no_chunk_fits_more_memory_is_proposed():
    told = Costs({"a": StageCost("a", memory=100)}, chunks=1, edge=10)
    crew = Resources(1, 1, memory=BASE)
    assert told.proposed(crew) is None
    assert told.advice(crew).endswith("give each worker 0.8 GB")


def test_rates_are_kept_and_found(tmp_path):
    path = rates_file({"XDG_CONFIG_HOME": str(tmp_path)})
    assert load_rates(path) is None
    assert load_rates(save_rates(rates(cell=1.0), path)) == rates(cell=1.0)
    assert rates_file({"POPDASK_RATES": "/there/r.json"}).as_posix() == "/there/r.json"


@pytest.mark.parametrize("content", ["{", "{}", '{"seconds": {}}', "[1]"])
def test_a_file_without_rates_is_named(tmp_path, content):
    path = tmp_path / "rates.json"
    path.write_text(content)
    with pytest.raises(InputError, match=r"rates\.json holds no rates"):
        load_rates(path)


@settings(max_examples=25, deadline=None)
@given(st.floats(1e-9, 1e-6), st.floats(0, 10), st.integers(0, 99))
def test_rates_explain_the_times_that_they_made(cell, run, seed):
    cells = [*np.random.default_rng(seed).integers(10**5, 10**7, 4).tolist(), 10**4]
    work = [{"cell": n, "run": 1} for n in cells]
    found = explain(work, [cell * n + run for n in cells])
    assert found["cell"] == pytest.approx(cell, rel=1e-6)
    assert found["run"] == pytest.approx(run, abs=1e-6 * (1 + run))


def test_a_measured_machine_tells_every_time_of_a_plan(tmp_path):
    found = calibrate(trials=[Trial((1, 1), 512, "settled", 1, 1000)])
    assert all(seconds >= 0 for seconds in found.seconds.values())
    job = small_job(tmp_path, output={"export": ["cog"]})
    told = count(job, planned(job), Extent(18, 400, 400, 1024, 0.5, 0.7))
    assert told.seconds(found, CREW) > found.start
    dots.write_world(tmp_path)
    images = dots.job(tmp_path, tmp_path / "dots.icechunk")
    assert population_costs.costs(images, population.plan(images)).seconds(found, CREW) > 0


def test_tasks_of_an_estimate_are_those_of_its_graph(tmp_path):
    dots.write_world(tmp_path)
    job = dots.job(tmp_path, tmp_path / "dots.icechunk")
    told = population_costs.costs(job, population.plan(job)).stages["estimate"]
    image = open_mosaic(tmp_path / "mosaic_2015.tif", grid=dots.GRID)
    model = TrainedModel.untrained(
        "presence",
        {"network": "PresenceCNN", "widths": (4,), "hidden": (8,)},
        pixels=dots.PIXELS,
        cell_size=100.0,
        resolution=100 / dots.PIXELS,
    )
    (graph,) = dask.optimize(estimate(image, model, None, cell_size=dots.GRID))
    nodes = dict(graph.__dask_graph__()).values()
    real = sum(not isinstance(node, Alias | DataNode) for node in nodes)
    assert told.tasks == pytest.approx(2 * real, rel=0.15)


def test_a_mosaic_of_30_by_30_km_is_planned_by_its_header(tmp_path):
    job, side = mosaic_job(tmp_path, quick=True), 60_000  # pixels of half a metre
    told = population_costs.costs(job, population.plan(job))
    estimated = told.stages["estimate"]
    assert estimated.read == side**2 * 3 and estimated.written == 2 * 4 * 90_000
    one = Resources(workers=1, threads=1, memory=GIB)
    assert told.fits(one)
    ops = sum(operations(model.config, 200)[0] for model in small_models())
    known = rates(**{"network per operation": 1e-9, "image per pixel": 1e-8})
    each = ops * 1e-9 + 200**2 * 1e-8
    rest = known.start + known.task * told.tasks
    assert told.seconds(known, one) == pytest.approx(90_000 * each + rest, rel=1e-6)


def test_a_plan_counts_what_follows_the_estimates(tmp_path, monkeypatch):
    monkeypatch.setenv("POPDASK_RATES", str(tmp_path / "rates.json"))
    dots.write_world(tmp_path)
    path = dots.write_job(
        tmp_path / "job.toml",
        tmp_path,
        tmp_path / "dots.icechunk",
        output={"export": ["cog"]},
        follow={"store": str(tmp_path / "communities.icechunk")},
        scenes={"store": str(tmp_path / "scenes.icechunk")},
    )
    job = load_job(path)
    then, alike = following(job, population.plan(job))
    cells = Extent(2, dots.SIDE, dots.SIDE, CHUNK)  # there is no raster yet
    told = count(then.job, planned(then.job, 2), cells).stages
    assert then.costs.stages == told and set(told) >= {"flow", "communities", "tracks"}
    assert alike.costs == scenes.costs(job.grouped, scenes.plan(job.grouped))
    shown = CliRunner().invoke(commands.app, ["plan", str(path)])
    assert shown.exit_code == 0
    assert "then dots-communities" in shown.output and "then dots-scenes" in shown.output
    assert "the rasters are still to come" in " ".join(shown.output.split())


def test_the_command_says_how_the_time_becomes_known(tmp_path, monkeypatch):
    monkeypatch.setenv("POPDASK_RATES", str(tmp_path / "rates.json"))
    moving_cities(frames=6).write(tmp_path)
    job = small.write_job(tmp_path / "job.toml", tmp_path, tmp_path / "store.icechunk")
    shown = CliRunner().invoke(commands.app, ["plan", str(job)])
    assert shown.exit_code == 0
    assert "6 chunks" in shown.output and "popdask calibrate" in shown.output
    settings = load_job(job)
    stages = communities.costs(settings, communities_module.plan(settings)).stages.values()
    names = {name for cost in stages for name in (*cost.shared, *cost.alone)}
    save_rates(rates(**dict.fromkeys(names, 1e-9)))
    shown = CliRunner().invoke(commands.app, ["plan", str(job)])
    assert "by the rates of 2026-01-01" in shown.output
