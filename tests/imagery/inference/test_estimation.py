"""Estimates equal the models on cut cells, in any chunks, and are right where one knows."""

import os
import weakref
from dataclasses import replace
from pathlib import Path

import dask
import dask.array as da
import numpy as np
import pytest
import rioxarray  # noqa: F401
import torch
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from odc.geo.xr import xr_coords

from popdask.errors import InputError
from popdask.imagery import estimate as estimation
from popdask.imagery.cells import split_cells
from popdask.imagery.cutting import cut_cells, drop_padding
from popdask.imagery.estimate import batch_of, estimate, tile_cells
from popdask.imagery.grid import CellGrid
from popdask.imagery.loading import TrainingConfig
from popdask.imagery.model import Normalisation, TrainedModel
from popdask.imagery.mosaic import open_mosaic
from popdask.imagery.networks import CountCNN, PresenceCNN
from popdask.imagery.training import train

SIZE, PIXELS = 100.0, 20
GRID = CellGrid(SIZE)
NETWORKS = {
    "presence": {"network": "PresenceCNN", "widths": (4, 8), "pool": 2, "hidden": (8,)},
    "count": {"network": "CountCNN", "blocks": 2, "base": 4, "hidden": 8, "extra": False},
    "weighted": {"network": "CountCNN", "blocks": 2, "base": 6, "hidden": 8},
    "transformer": {
        "network": "PopulationViT", "pixels": PIXELS, "patch": 10, "width": 12, "layers": 2,
    },
}  # fmt: skip


def model(kind, *, bands=1, context=0, seed=0):
    """A small model with random weights."""
    ring = context * PIXELS
    network = {**NETWORKS[kind], "bands": bands}
    if kind != "transformer":
        network["ring"] = ring
    return TrainedModel.untrained(
        kind, network, pixels=PIXELS + 2 * ring, seed=seed,
        cell_size=SIZE, resolution=SIZE / PIXELS, context=context,
    )  # fmt: skip


def halved(trained, image):
    """Shift and spread a model's answers, so that about half of an image's cells are above 0."""
    images = cut_cells(image, None, GRID, context=trained.context).images.values
    inputs, last = trained.normalisation(torch.from_numpy(images)), trained.module.head[-1]
    with torch.inference_mode():
        last.weight *= 2 / trained.module(inputs).std(correction=0).clamp(min=1e-3)
        last.bias -= trained.module(inputs).sort().values[len(images) // 2 - 1 :][:2].mean()
    return trained


def mosaic(rows=5, columns=6, *, bands=1, top=0, left=0, chunks=None, seed=0):
    """A mosaic of cells of different brightness, that begins some pixels before a whole cell."""
    rng = np.random.default_rng(seed)
    light = rng.integers(20, 220, (bands, rows + 1, columns + 1))
    light = light.repeat(PIXELS, axis=1).repeat(PIXELS, axis=2)
    values = (light + rng.normal(0, 15, light.shape)).clip(1, 255).astype("uint8")
    box = GRID.geobox(range(40, 41 + rows), range(70, 71 + columns), pixels=PIXELS)
    part = (slice(PIXELS - top, None), slice(PIXELS - left, None))
    image = xr.DataArray(values[:, *part], dims=("band", "y", "x"), coords=xr_coords(box[part]))
    return image if chunks is None else image.copy(data=da.from_array(image.values, chunks))


def by_cell(image, presence, count, threshold=0.5):
    """Cut the cells, ask the models for each, and join their answers on the grid: the reference."""
    lattice = cut_cells(image, None, GRID)
    north, east = lattice.north.values, lattice.east.values
    at = (north.max() - north, east - east.min())
    shape = tuple(int(axis.max()) + 1 for axis in at)
    answers = {}
    for name, trained in (("presence", presence), ("population", count)):
        answers[name] = np.full(shape, np.nan, np.float32)
        if trained is not None:
            cells = cut_cells(image, None, GRID, context=trained.context)
            answers[name][at] = trained.predict(
                cells.images.values, batch_size=batch_of(trained, 64, "cpu")
            )
    if presence is not None and count is not None:
        answers["population"][answers["presence"] <= threshold] = 0
    return answers


def assert_equal_to(found, expected, names=("presence", "population")):
    assert set(found) == set(names)
    for name in names:
        np.testing.assert_array_equal(found[name], expected[name])
        assert found[name].dtype == np.float32


@pytest.mark.parametrize("kind", ["count", "weighted", "transformer"])
def test_equals_the_models_on_cut_cells(kind):
    image = mosaic(bands=3)
    presence = halved(model("presence", bands=3), image)
    count = halved(model(kind, bands=3), image)
    found = estimate(image, presence, count, cell_size=SIZE).compute()
    expected = by_cell(image, presence, count)
    assert_equal_to(found, expected)
    inhabited = found.presence.values > 0.5
    assert 0 < inhabited.sum() < inhabited.size
    assert (found.population.values[~inhabited] == 0).all()
    assert (found.population.values[inhabited] > 0).any()
    assert (found.population.values >= 0).all()


def test_each_model_sees_its_own_ring():
    image = mosaic(top=7, left=3)
    presence = halved(model("presence", context=1), image)
    count = halved(model("count", seed=1), image)
    for first, second in ((presence, count), (presence, None)):
        found = estimate(image, first, second, cell_size=GRID).compute()
        names = ("presence", "population") if second else ("presence",)
        assert_equal_to(found, by_cell(image, first, second), names)
    seen_alone = estimate(image, model("presence"), None, cell_size=SIZE).presence
    assert np.abs(found.presence.values - seen_alone.values).max() > 0.01


def test_a_model_trained_with_context_estimates():
    """What training says of the ring is what estimating reads."""
    image = mosaic(6, 7)
    cells = cut_cells(image, None, GRID, context=1)
    people = np.random.default_rng(1).integers(1, 90, cells.sizes["cell"]).astype(float)
    cells = split_cells(cells.assign(people=("cell", people)), kind="random", validation=0.3)
    config = TrainingConfig({"blocks": 2, "base": 4, "hidden": 8}, epochs=1, threads=1)
    count = train(cells, "count", config, device="cpu")
    assert (count.context, count.pixels) == (1, 3 * PIXELS)
    presence = halved(model("presence"), image)
    found = estimate(image, presence, count, cell_size=SIZE).compute()
    expected = by_cell(image, presence, count)
    assert_equal_to(found, expected)
    assert (found.population > 0).any()


def test_a_ring_may_be_wider_than_the_mosaic():
    image = mosaic(1, 2)
    presence = model("presence", context=2)
    found = estimate(image, presence, None, cell_size=SIZE).compute()
    assert_equal_to(found, by_cell(image, presence, None), ("presence",))


@st.composite
def chunked_mosaics(draw):
    """A mosaic that begins anywhere in a cell, and ragged chunks of it."""
    top, left = draw(st.tuples(*[st.integers(0, PIXELS - 1)] * 2))
    rows, columns = draw(st.tuples(*[st.integers(1, 5)] * 2))
    image = mosaic(rows, columns, bands=2, top=top, left=left, seed=draw(st.integers(0, 99)))
    cuts = [draw(st.sets(st.integers(1, n - 1), max_size=4)) for n in image.shape[1:]]
    chunks = tuple(
        tuple(np.diff([0, *sorted(cut), n]).tolist())
        for cut, n in zip(cuts, image.shape[1:], strict=True)
    )
    return image, image.copy(data=da.from_array(image.values, chunks=((1, 1), *chunks)))


@settings(max_examples=20)
@given(
    mosaics=chunked_mosaics(),
    context=st.sampled_from([0, 1, 2]),
    batch_size=st.sampled_from([1, 7, 64]),
    side=st.integers(1, 4),
    rule=st.sampled_from(["gate", "expected"]),
)
def test_the_same_to_the_bit_in_any_chunks(mosaics, context, batch_size, side, rule):
    """Also with tiles of any size, for the tiles of small mosaics would hold all of it."""
    whole, chunked = mosaics
    presence = halved(model("presence", bands=2, context=context), whole)
    count = model("count", bands=2)
    given_settings = {"cell_size": SIZE, "batch_size": batch_size, "rule": rule}
    expected = estimate(whole, presence, count, **given_settings).compute()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(estimation, "TILE_CELLS", side)
        patch.setattr(estimation, "TILE_BYTES", 2 * (side * PIXELS) ** 2)
        found = estimate(chunked, presence, count, **given_settings)
    xr.testing.assert_identical(found.compute(), expected)


def counts_brightness(less=0.0):
    """A regressor that counts the brightness of a cell, less something."""
    module = CountCNN(blocks=1, base=1, double=False, hidden=1, extra=False)
    _look_at_brightness(module)
    module.head[-1].bias.data[:] = -less
    return module


def sees_brightness(above):
    """A classifier whose logit is the brightness of a cell above some level."""
    module = PresenceCNN(widths=(1,), pool=1, hidden=(1,))
    _look_at_brightness(module)
    module.head[-1].bias.data[:] = -above
    return module


def _look_at_brightness(module):
    """Pass the middle pixel on through every convolution: normalised + 1, times 127.5."""
    for values in module.parameters():
        values.data.zero_()
        if values.ndim == 4:
            values.data[..., 1, 1] = 1
    for part in module.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            part.weight.data[:], part.eps = 1, 0.0
        if isinstance(part, torch.nn.Linear):
            part.weight.data[:] = 1
    first = next(p for p in module.modules() if isinstance(p, torch.nn.BatchNorm2d))
    first.bias.data[:] = 1
    next(p for p in module.modules() if isinstance(p, torch.nn.Linear)).weight.data[:] = 127.5


def evenly_lit(light):
    """A mosaic of evenly bright cells."""
    light = np.asarray(light, "uint8")
    box = GRID.geobox(range(len(light)), range(light.shape[1]), pixels=PIXELS)
    values = light.repeat(PIXELS, axis=0).repeat(PIXELS, axis=1)
    return xr.DataArray(values, dims=("y", "x"), coords=xr_coords(box))


def test_counts_what_is_there_and_nobody_where_nobody_is_seen():
    light = [[10, 99, 101, 250], [98, 180, 5, 120]]
    found = estimate(
        evenly_lit(light), sees_brightness(above=100), counts_brightness(less=110), cell_size=SIZE
    ).compute()
    np.testing.assert_array_equal(found.presence > 0.5, np.array(light) > 100)
    # 101 is seen, but counted as -9: people are at least 0.
    np.testing.assert_allclose(found.population, [[0, 0, 0, 140], [0, 70, 0, 10]], atol=1e-3)


def test_a_cell_at_the_threshold_is_empty():
    """Of two halves nobody is the answer, as in the work that this follows."""
    module = sees_brightness(above=0)
    module.head[-1].weight.data.zero_()
    image = evenly_lit([[200]])
    found = estimate(image, module, counts_brightness(), cell_size=SIZE).compute()
    assert found.presence.item() == 0.5
    assert found.population.item() == 0


def test_a_threshold_moves_the_border():
    image, presence = evenly_lit([[98, 99, 101, 102]]), sees_brightness(above=100)
    for threshold, seen in ((0.0, 4), (0.2, 3), (0.5, 2), (0.8, 1), (1.0, 0)):
        found = estimate(image, presence, counts_brightness(), cell_size=SIZE, threshold=threshold)
        assert int((found.population > 0).sum()) == seen


def test_one_stage_counts_everywhere():
    found = estimate(evenly_lit([[7, 200]]), None, counts_brightness(), cell_size=SIZE)
    assert set(found) == {"population"}
    np.testing.assert_allclose(found.population, [[7, 200]], atol=1e-3)


def test_keeps_the_grid_and_turns_it_north_up():
    light = [[10, 99, 101], [100, 180, 5]]
    image = evenly_lit(light)
    found = estimate(image, None, counts_brightness(), cell_size=SIZE)
    assert found.rio.crs == image.rio.crs
    assert found.rio.transform() == GRID.geobox(range(2), range(3)).transform
    assert found.y.values.tolist() == [150, 50]
    assert found.x.values.tolist() == [50, 150, 250]
    assert found.population.attrs["units"] == "people per cell"
    southward = estimate(image[::-1], None, counts_brightness(), cell_size=SIZE)
    xr.testing.assert_identical(southward.compute(), found.compute())


def test_cells_in_degrees_have_their_places_along_y_and_x():
    grid = CellGrid(0.01, "EPSG:4326")
    box = grid.geobox(range(-1230, -1228), range(-5843, -5840), pixels=PIXELS)
    image = evenly_lit([[10, 99, 101], [100, 180, 5]]).drop_vars("spatial_ref")
    image = image.assign_coords(xr_coords(box, dims=("y", "x")))
    found = estimate(image, None, counts_brightness(), cell_size=grid)
    assert set(found.coords) == {"y", "x", "spatial_ref"}
    np.testing.assert_allclose(found.y, [-12.285, -12.295])
    np.testing.assert_allclose(found.x, [-58.425, -58.415, -58.405])


def test_the_whole_cells_of_an_image_from_another_origin():
    grid = CellGrid(SIZE, origin=(3 * SIZE / PIXELS, 0.0))
    image = mosaic(4, 5)
    found = estimate(image, None, counts_brightness(), cell_size=grid)
    assert dict(found.sizes) == {"y": 4, "x": 4}
    assert found.x.values[0] == 71 * SIZE + 15 + SIZE / 2
    own = found.x.values[1] - SIZE / 2
    pixels = image.sel(x=slice(own, own + SIZE), y=slice(43 * SIZE, 42 * SIZE)).values
    brightest = pixels.reshape(PIXELS // 2, 2, PIXELS // 2, 2).max((1, 3))  # as the pooling does
    assert found.population.values[1, 1] == pytest.approx(brightest.mean(), abs=0.01)


@pytest.mark.parametrize("declared", [False, True])
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
@pytest.mark.parametrize("context", [0, 1])
def test_padding_is_no_data_as_in_training(declared, dtype, context):
    image = mosaic(4, 5).astype(dtype).chunk({"y": 33, "x": 50})
    empty = np.nan if dtype == "float32" else 0
    values = image.values
    values[:, :PIXELS, : 3 * PIXELS] = empty  # three cells
    values[:, PIXELS : 2 * PIXELS, 0] = empty  # an edge of one
    values[:, 2 * PIXELS + 3, 2 * PIXELS + 3] = empty  # a pixel of one
    image = image.copy(data=da.from_array(values, chunks=image.chunks))
    if declared:
        image.attrs["nodata"] = empty
    scaling = Normalisation.half(dtype, white=255.0)
    presence = replace(model("presence", context=context), normalisation=scaling)
    count = replace(model("count"), normalisation=scaling)
    found = estimate(image, presence, count, cell_size=SIZE).compute()
    kept, dropped = drop_padding(cut_cells(image, None, GRID))
    assert dropped == 4 + (declared or dtype == "float32")
    assert int(found.presence.isnull().sum()) == dropped
    np.testing.assert_array_equal(found.presence.isnull(), found.population.isnull())
    known = found.presence.sel(
        y=(kept.north + 0.5) * SIZE, x=(kept.east + 0.5) * SIZE, method="nearest"
    )
    assert known.notnull().all()


def test_a_mask_of_the_mosaic_says_what_has_data():
    image = mosaic(2, 3)
    valid = xr.ones_like(image[0], bool).copy()
    valid[5, 5] = False
    found = estimate(image.assign_coords(valid=valid), None, counts_brightness(), cell_size=SIZE)
    assert found.population.isnull().values.tolist() == [[True, False, False], [False] * 3]


def unread(shape, chunks):
    def read():
        raise RuntimeError("a chunk was read")

    chunks = da.core.normalize_chunks(chunks, shape)
    return da.map_blocks(read, chunks=chunks, dtype="uint8", meta=np.empty((0, 0, 0), "uint8"))


def test_building_the_graph_reads_nothing_and_holds_each_model_once():
    image = mosaic(40, 40)
    image = image.copy(data=unread(image.shape, (1, 160, 160)))
    found = estimate(image, model("presence", context=1), model("count"), cell_size=SIZE)
    assert found.presence.chunks == found.population.chunks == ((16, 24), (16, 24))
    for graph in (found.presence.__dask_graph__(), found.__dask_graph__()):
        assert sum(str(key).startswith("TrainedModel") for key in graph) == 2
    with pytest.raises(RuntimeError, match="a chunk was read"):
        found.presence.compute(scheduler="sync")


def most_chunks_held(cells):
    """Estimate a square mosaic, and tell how many of its chunks were in memory at once."""
    held = most = 0

    def let_go():
        nonlocal held
        held -= 1

    def read(block_info=None):
        nonlocal held, most
        shape = block_info[None]["chunk-shape"]
        pixels = np.full(shape, 9, "uint8")
        weakref.finalize(pixels, let_go)
        held += 1
        most = max(most, held)
        return pixels

    image = mosaic(cells, cells)
    chunks = da.core.normalize_chunks((1, 160, 160), image.shape)
    made = da.map_blocks(read, chunks=chunks, dtype="uint8", meta=np.empty((0, 0, 0), "uint8"))
    found = estimate(image.copy(data=made), None, counts_brightness(), cell_size=SIZE)
    with dask.config.set(scheduler="sync"):
        found.population.data.sum().compute()
    return most, made.npartitions


def test_memory_does_not_grow_with_the_mosaic():
    (few, of_few), (many, of_many) = most_chunks_held(32), most_chunks_held(64)
    assert (of_few, of_many) == (16, 64)
    assert few == many < 16


@settings(max_examples=40)
@given(
    sizes=st.lists(st.integers(1, 200), min_size=1, max_size=12),
    pixels=st.integers(1, 9),
    room=st.integers(1, 40),
    rim=st.integers(0, 3),
)
def test_tiles_are_whole_cells_of_a_fair_size(sizes, pixels, room, rim):
    sizes = [*sizes, -sum(sizes) % pixels or pixels]
    tiles = tile_cells(sizes, pixels, room=room, rim=rim)
    assert sum(tiles) * pixels == sum(sizes)
    assert max(tiles) <= max(room, 2 * rim)
    if len(tiles) > 1:
        assert min(tiles) >= max(rim, 1)


def test_tiles_end_with_chunks_of_whole_cells():
    assert tile_cells([1600] * 12, 200, room=28, rim=1) == (16,) * 6
    assert tile_cells([4000] * 3, 200, room=28, rim=0) == (20, 20, 20)
    assert tile_cells([90] * 3 + [30], 100, room=28, rim=0) == (3,)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"presence": None, "count": None}, "both None"),
        ({"presence": model("count")}, "^presence is a model of the kind 'count'"),
        ({"count": model("presence")}, "^count is a model of the kind 'presence'"),
        ({"presence": torch.nn.Linear(1, 1)}, "^the model is a Linear"),
        ({"presence": model("presence", bands=3)}, "image has 1 bands .* on 3"),
        ({"cell_size": 200.0}, "cells are 200 wide .* cells 100 wide"),
        ({"cell_size": 3.0}, "cells no smaller than a pixel"),
        ({"cell_size": 93.0}, "whole number of pixels in each cell"),
        ({"cell_size": -1.0}, "cell size is -1"),
        ({"cell_size": CellGrid(SIZE, "EPSG:3035")}, "EPSG:25832 and the cells in EPSG:3035"),
        ({"cell_size": CellGrid(SIZE, origin=(1.0, 0.0))}, "do not fit into cells"),
        ({"image": mosaic().drop_vars("spatial_ref")}, "has no CRS"),
        ({"image": mosaic().expand_dims("time")}, "dimensions .*time"),
        ({"image": mosaic()[:, : PIXELS - 1]}, "hold no whole cell"),
        ({"threshold": 1.5}, "^threshold is 1.5"),
        ({"threshold": float("nan")}, "^threshold is nan"),
        ({"batch_size": 0}, "^batch_size is 0"),
    ],
)
def test_what_does_not_fit_is_named(change, words):
    asked = {
        "image": mosaic(), "presence": model("presence"), "count": model("count"),
        "cell_size": SIZE, **change,
    }  # fmt: skip
    with pytest.raises(InputError, match=words) as error:
        estimate(asked.pop("image"), asked.pop("presence"), asked.pop("count"), **asked)
    assert "\n" not in str(error.value)


def test_a_missing_gpu_is_named():
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    found = estimate(mosaic(), model("presence"), None, cell_size=SIZE, device="cuda")
    with pytest.raises(InputError, match="torch finds no GPU here"):
        found.compute(scheduler="sync")


def test_real_images_are_estimated_as_cut_cells_are():
    folder = Path(os.environ.get("POPDASK_DATA", "")) / "flanders_s2_10m"
    if not os.environ.get("POPDASK_DATA") or not folder.is_dir():
        pytest.skip("POPDASK_DATA does not hold the images of Flanders")
    path = folder / "BEFL-TEST-s2_2023-05-01_2023-07-01_B08-B04-B03_min_byte.tif"
    grid = CellGrid.preset("eu_1km")
    image = open_mosaic(path, grid=grid, resolution=50, align=True, chunks=(130, 220))
    known = {"pixels": PIXELS, "cell_size": 1000.0, "resolution": 50.0}
    network = {**NETWORKS["presence"], "bands": 3}
    presence = TrainedModel.untrained("presence", network, **known)
    network = {**NETWORKS["weighted"], "bands": 3, "ring": PIXELS}
    known |= {"pixels": 3 * PIXELS, "context": 1}
    count = TrainedModel.untrained("weighted", network, **known)
    found = estimate(image, presence, count, cell_size=grid, threshold=0).compute()
    kept, _ = drop_padding(cut_cells(image, None, grid))
    at = {
        "y": xr.DataArray((kept.north + 0.5).values * 1000, dims="cell"),
        "x": xr.DataArray((kept.east + 0.5).values * 1000, dims="cell"),
    }
    assert 0 < kept.sizes["cell"] < found.presence.size
    assert int(found.presence.count()) == int(found.population.count()) == kept.sizes["cell"]
    expected = presence.predict(kept.images.values, batch_size=batch_of(presence, 64, "cpu"))
    np.testing.assert_array_equal(found.presence.sel(at), expected)
    with_ring = cut_cells(image, None, grid, context=1)
    with_ring = with_ring.isel(cell=np.isin(_codes(with_ring), _codes(kept)))
    expected = count.predict(with_ring.images.values, batch_size=batch_of(count, 64, "cpu"))
    np.testing.assert_array_equal(found.population.sel(at), expected)


def _codes(cells):
    return cells.north.values * 10**5 + cells.east.values
