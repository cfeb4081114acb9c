"""What a plan says that a run costs: tasks as in the real graphs, and arithmetic that adds up."""

import tracemalloc
from pathlib import Path

import dask
import pytest
from dask._task_spec import Alias, DataNode
from dask.callbacks import Callback
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
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
from popdask.imagery.training import image_shape
from popdask.io.cube import CHUNK
from popdask.synthetic import moving_cities
from popdask.workflow import (
    communities,
    population,
    scenes,
)
from popdask.workflow.communities import PIPELINE
from popdask.workflow.frames import basis
from popdask.workflow.plan import (
    BASE,
    PIXEL_OPERATIONS,
    Costs,
    Extent,
    Resources,
    StageCost,
    decide,
)
from popdask.workflow.population_inputs import Sources, labelled_cells
from popdask.workflow.population_stages import (
    _images,
    following,
    operations,
    shape_of,
    training_configs,
)
from popdask.workflow.progress import Reporter
from popdask.workflow.runner import count, read_inputs
from tests.pipelines import dots, small

GIB = 2**30


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
    return decide(PIPELINE.stages, basis(job, inputs, records or {}))


@pytest.mark.parametrize("chunks", [128, 512], ids=["several chunks", "one chunk"])
def test_the_tasks_of_a_plan_are_those_of_the_graphs(tmp_path, chunks):
    moving_cities(frames=6).write(tmp_path)
    job = small_job(tmp_path, input={"chunks": chunks}, tracks={"movement": True})
    # A plan that is shown has seen how frames lie, and the run in the same process would know.
    told = PIPELINE.costs(job, PIPELINE.decide(job, *read_inputs(PIPELINE, job)))
    counter = Counter()
    with dask.config.set(scheduler="single-threaded"), counter:
        communities.run(job, counter)
    assert told.tasks == pytest.approx(sum(counter.tasks.values()), rel=0.15)
    for name, cost in told.stages.items():
        # Single chunks are fused in one way or another, as their random names are sorted: classes
        # have been seen with two tasks more for a frame.
        few = 12 if name == "classes" else 6
        assert cost.tasks == pytest.approx(counter.tasks.get(name, 0), rel=0.2, abs=few), name


def test_a_plan_of_100_000_chunks_builds_no_graph(tmp_path):
    job = small_job(tmp_path)
    tracemalloc.start()
    told = count(PIPELINE.stages, job, planned(job, 100), Extent(100, 32_000, 32_000, 1000))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert told.chunks == 102_400
    assert told.tasks > 30 * told.chunks
    assert peak < 10 * 2**20


def test_bytes_are_those_of_the_stored_arrays(tmp_path):
    moving_cities(frames=6).write(tmp_path)
    job = small_job(tmp_path)
    told = PIPELINE.costs(job, communities.plan(job)).stages
    communities.run(job)
    stored = communities.run(job).store.dataset()
    names = {"population": ["population"], "flow": ["u", "v"]}
    names |= {"classes": ["classes"], "communities": ["community"]}
    for stage, arrays in names.items():
        assert told[stage].written == sum(stored[name].nbytes for name in arrays)


def test_a_pyramid_is_counted_with_its_levels(tmp_path):
    def cost(*formats):
        job = small_job(tmp_path, output={"export": formats})
        return count(PIPELINE.stages, job, planned(job), Extent(18, 900, 900, 512)).stages["export"]

    cog, pyramid, both = cost("cog"), cost("zarr"), cost("cog", "zarr")
    assert pyramid.read == cog.read > 0 and pyramid.tasks == cog.tasks > 0
    assert pyramid.written == pytest.approx(cog.written * 4 / 3, rel=0.05)
    assert both.written == cog.written + pyramid.written


def test_only_what_is_stale_costs_something(tmp_path):
    job, extent = small_job(tmp_path, flow={"centering": (0, 0, -1)}), Extent(6, 400, 400, 128)
    whole = planned(job, 6)
    records = {stage.name: dict(stage.record) for stage in planned(job, 5)}
    one = count(PIPELINE.stages, job, planned(job, 6, records), extent).stages
    assert set(one).isdisjoint({"encoder", "classifier"})
    assert (
        one["classes"].read * 6 == count(PIPELINE.stages, job, whole, extent).stages["classes"].read
    )
    records = {stage.name: dict(stage.record) for stage in whole}
    done = count(PIPELINE.stages, job, planned(job, 6, records), extent)
    assert done.stages == {} and done.tasks == 0


@pytest.mark.parametrize(
    ("cells", "window"), [("settled", 7), ("settled", 11), ("data", 7), ("inhabited", 7)]
)
def test_the_share_of_the_domain_is_that_of_the_frame(tmp_path, cells, window):
    world = moving_cities(frames=6)
    world.write(tmp_path)
    job = small_job(tmp_path, domain={"cells": cells}, encoder={"window": window})
    inside = domain(world.population.population[3], cells, window=window)
    extent = PIPELINE.size(job)
    assert extent.settled == pytest.approx(float(inside.mean()), abs=1e-3)
    assert extent.settled <= extent.encoded <= 1


@settings(max_examples=25)
@given(
    rows=st.integers(1, 50_000),
    edge=st.integers(128, 40_000),
    threads=st.integers(1, 8),
    memory=st.integers(GIB, 64 * GIB),
)
def test_what_is_proposed_fits(rows, edge, threads, memory):
    job, resources = small_job(Path("nowhere")), Resources(1, threads, memory)
    told = count(PIPELINE.stages, job, planned(job), Extent(18, rows, 50_000, edge))
    advice = told.advice(resources)
    assert (advice is None) == told.fits(resources)
    proposed = told.proposed(resources)
    if proposed:
        assert count(PIPELINE.stages, job, planned(job), Extent(18, rows, 50_000, proposed)).fits(
            resources
        )
    if advice and proposed:
        assert f"chunks = {proposed}," in advice and proposed < edge


def test_where_no_chunk_fits_more_memory_is_proposed():
    told = Costs({"a": StageCost("a", memory=100)}, chunks=1, edge=10)
    resources = Resources(1, 1, memory=BASE)
    assert told.proposed(resources) is None
    assert told.advice(resources).endswith("give each worker 0.8 GB")


def test_tasks_of_an_estimate_are_those_of_its_graph(tmp_path):
    dots.write_world(tmp_path)
    job = dots.job(tmp_path, tmp_path / "dots.icechunk")
    told = population.PIPELINE.costs(job, population.plan(job)).stages["estimate"]
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


@pytest.fixture(scope="module")
def dotted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dotted")
    dots.write_world(folder)
    return folder


@settings(max_examples=20)
@given(
    context=st.integers(0, 2),
    resolution=st.sampled_from([None, 25.0, 12.5]),
    join=st.sampled_from([1, 2]),
    kind=st.sampled_from(["count", "transformer", "weighted"]),
    network=st.sampled_from(["default", "features", 1, 2, 4, 5]),
)
def test_plan_and_run_build_the_same_network_or_refuse_alike(
    dotted, context, resolution, join, kind, network
):
    blocks = network if isinstance(network, int) else 1
    if isinstance(network, int):
        network = {"patch": 4} if kind == "transformer" else {"blocks": blocks, "base": 4}
    elif network == "default":
        network = {}
    tables = {
        "cells": {"context": context, "resolution": resolution, "join": join},
        "count": {"kind": kind, "network": network},
        "presence": {"network": {"widths": [4] * blocks, "hidden": [8]}},
    }
    if context and join > 1:
        with pytest.raises(ValidationError, match="joined cells show no neighbours"):
            dots.job(dotted, dotted / "dots.icechunk", **tables)
        return
    job = dots.job(dotted, dotted / "dots.icechunk", **tables)
    sources = Sources.of(job)

    def told(of):
        try:
            return of()
        except InputError as error:
            return str(error)

    def planned():
        (images,) = {_images(job, paths) for paths in sources.mosaics.values()}
        return networks(shape_of(job, images))

    def networks(shape):
        configs = training_configs(kind, job.count, shape["pixels"])
        return [config.network_for(kind, **shape) for config in configs]

    cells, *_ = labelled_cells(job, sources)
    assert told(planned) == told(lambda: networks(image_shape(cells)))


@pytest.mark.parametrize("join", [1, 2])
def test_training_costs_what_joined_cells_do(dotted, join):
    presence = {"network": {"widths": [4], "hidden": [8]}, "epochs": 1000}
    tables = {"cells": {"join": join}, "presence": presence}
    job = dots.job(dotted, dotted / "dots.icechunk", **tables)
    told = population.PIPELINE.costs(job, population.plan(job)).stages["presence"]
    pixels, cells = dots.PIXELS * join, (dots.SIDE // join) ** 2
    network = training_configs("presence", job.presence, pixels)[0].network_for(
        "presence", bands=1, pixels=pixels, ring=0
    )
    each = operations(network, pixels)[0]
    assert told.amount == 3 * each * cells * 1000 // PIXEL_OPERATIONS


def test_a_job_says_how_much_memory_images_may_take_in_training(dotted):
    job = dots.job(dotted, dotted / "dots.icechunk", count={"memory": 2**20})
    (config,) = training_configs("count", job.count, 64)
    assert config.memory == 2**20
    assert training_configs("presence", job.presence, 64)[0].memory == 2**31


def test_a_mosaic_of_30_by_30_km_is_planned_by_its_header(tmp_path):
    job, side = mosaic_job(tmp_path, quick=True), 60_000  # pixels of half a metre
    told = population.PIPELINE.costs(job, population.plan(job))
    estimated = told.stages["estimate"]
    assert estimated.read == side**2 * 3 and estimated.written == 2 * 4 * 90_000
    one = Resources(workers=1, threads=1, memory=GIB)
    assert told.fits(one)
    ops = sum(operations(model.config, 200)[0] for model in small_models())
    each = 200**2 + ops // PIXEL_OPERATIONS
    assert estimated.amount == pytest.approx(90_000 * each, rel=1e-4)


def test_a_plan_counts_what_follows_the_estimates(tmp_path):
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
    told = count(PIPELINE.stages, then.job, planned(then.job, 2), cells).stages
    assert then.costs.stages == told and set(told) >= {"flow", "communities", "tracks"}
    assert alike.costs == scenes.PIPELINE.costs(job.grouped, scenes.plan(job.grouped))
    shown = CliRunner().invoke(commands.app, ["plan", str(path)])
    assert shown.exit_code == 0
    assert "then dots-communities" in shown.output and "then dots-scenes" in shown.output
    assert "the rasters are still to come" in " ".join(shown.output.split())
