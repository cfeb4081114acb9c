"""Cells that look alike are grouped, the same in any chunks, and other cells apart."""

import os
from pathlib import Path

import dask
import dask.array as da
import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from odc.geo.xr import xr_coords, xr_zeros
from sklearn.decomposition import PCA
from sklearn.metrics import adjusted_rand_score

from popdask.errors import InputError
from popdask.imagery.cutting import cut_cells
from popdask.imagery.grid import CellGrid
from popdask.imagery.scenes import (
    MEAN,
    STD,
    _principal,
    load_efficientnet,
    scene_examples,
    scene_features,
    scene_groups,
    scene_map,
    scene_table,
)

GRID = CellGrid(100)
SMALL = {"pca": 10, "dimensions": 3, "neighbours": 6, "epochs": 100}
SMALL |= {"min_cluster_size": 5, "min_samples": 2}


def drawn(side, rng):
    """Water, fields and scrub: flat, in blocks, and rough; (3, side, side)."""
    water = 45 + rng.integers(0, 9, (side, side))
    blocks = rng.integers(40, 220, (side // 8 + 1,) * 2)
    fields = np.kron(blocks, np.ones((8, 8)))[:side, :side]
    return np.array([water, fields, rng.integers(0, 255, (side, side))], np.uint8)


def cells_of(images, chunk=None):
    """Wrap images (n, row, col) or (n, band, row, col) as cells."""
    images = images if images.ndim == 4 else images[:, None]
    data = images if chunk is None else da.from_array(images, chunks=(chunk, -1, -1, -1))
    return xr.Dataset({"images": (("cell", "band", "row", "col"), data)})


def mosaic(rows=3, cols=4, pixels=12, bands=1, seed=0, start=(7, 5)):
    """A mosaic of whole cells of noise, (band, y, x) uint8, in EPSG:25832."""
    box = GRID.geobox(
        range(start[0], start[0] + rows), range(start[1], start[1] + cols), pixels=pixels
    )
    image = xr_zeros(box, "uint8").expand_dims(band=bands).copy()
    image.values[:] = np.random.default_rng(seed).integers(1, 255, image.shape)
    return image


def plain_features(image, size, network):
    """The formula of the docstring for one image (row, col) of uint8."""
    picture = torch.from_numpy(image / np.float32(255))[None, None]
    picture = torch.nn.functional.interpolate(picture, (size, size), mode="bicubic", antialias=True)
    picture = picture.numpy()[0, 0].clip(0, 1)
    bands = [(picture - mean) / std for mean, std in zip(MEAN, STD, strict=True)]
    with torch.inference_mode():
        features = network.embed(torch.from_numpy(np.stack(bands)[None].astype("float32")))[0]
    return features.numpy() / np.linalg.norm(features.numpy())


@pytest.fixture(scope="module")
def land():
    """Eight cells of each kind, and which they are."""
    rng = np.random.default_rng(0)
    images = np.concatenate([drawn(64, rng) for _ in range(8)])
    return images, np.tile([0, 1, 2], 8)


@pytest.fixture(scope="module")
def described(land):
    return scene_features(cells_of(land[0], 5), size=64).compute()


@pytest.fixture(scope="module")
def clouds():
    """Forty cells around each of three points, features (n, 16), and which they are."""
    rng = np.random.default_rng(1)
    sizes = np.array([50, 40, 30])
    middles = np.repeat(rng.normal(0, 1, (3, 16)), sizes, axis=0)
    order = rng.permutation(sizes.sum())
    values = (middles + rng.normal(0, 0.05, middles.shape))[order].astype("float32")
    return xr.DataArray(values, dims=("cell", "feature")), np.repeat([0, 1, 2], sizes)[order]


def test_features_equal_the_formula(land, described):
    network = load_efficientnet(seed=0)
    expected = [plain_features(image, 64, network) for image in land[0][:4]]
    np.testing.assert_allclose(described[:4], expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_resized_features_equal_the_formula(land):
    found = scene_features(cells_of(land[0][:3]), size=48, seed=3)
    expected = [plain_features(image, 48, load_efficientnet(seed=3)) for image in land[0][:3]]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_features_have_length_one(described):
    assert described.dtype == np.float32
    assert described.dims == ("cell", "feature")
    np.testing.assert_allclose(np.linalg.norm(described, axis=1), 1, rtol=1e-6)


@settings(max_examples=3)
@given(chunks=st.lists(st.integers(1, 7), min_size=2, max_size=3, unique=True))
def test_cells_are_described_identically_in_any_chunks(chunks):
    images = np.random.default_rng(0).integers(0, 255, (7, 3, 10, 10)).astype("uint8")
    lazy = [scene_features(cells_of(images, chunk), size=32) for chunk in chunks]
    for chunk, found in zip(chunks, lazy, strict=True):
        assert found.chunks[0][0] == chunk
    first, *others = dask.compute(*lazy)
    for other in others:
        np.testing.assert_array_equal(other, first)


@settings(max_examples=3)
@given(chunks=st.lists(st.integers(5, 48), min_size=3, max_size=3, unique=True))
def test_a_mosaic_is_described_identically_in_any_chunks(chunks):
    image = mosaic()
    lazy = [
        scene_features(image.chunk({"y": y, "x": x}), cell_size=100, size=32)
        for y, x in zip(chunks, chunks[::-1], strict=True)
    ]
    first, *others = dask.compute(*lazy)
    assert np.isfinite(first).all()
    for other in others:
        xr.testing.assert_identical(other, first)


def test_a_mosaic_is_described_as_its_cells():
    image = mosaic(bands=3)
    whole = scene_features(image, cell_size=100, size=32)
    by_cell = scene_features(cut_cells(image, None, GRID), size=32)
    whole, by_cell = dask.compute(whole, by_cell)
    assert whole.shape == (3, 4, 1536)
    x, y = 100 * (by_cell.east + 0.5), 100 * (by_cell.north + 0.5)
    np.testing.assert_array_equal(whole.sel(x=x, y=y), by_cell)
    assert whole.rio.crs == by_cell.rio.crs == "EPSG:25832"
    assert whole.attrs["cell_size"] == by_cell.attrs["cell_size"] == 100


def test_a_mosaic_in_degrees_is_described_as_its_cells():
    grid = CellGrid(0.01, "EPSG:4326")
    places = xr_coords(grid.geobox(range(-7, -5), range(3), pixels=12), dims=("y", "x"))
    image = mosaic(2, 3).drop_vars("spatial_ref").assign_coords(places)
    whole = scene_features(image, cell_size=grid, size=32)
    cells = cut_cells(image, None, grid).drop_vars(["images", "people", "covered"])
    laid = scene_map(cells.assign(plot_x=("cell", np.arange(6.0))))
    for found in (whole, laid):
        assert set(found.coords) == {"y", "x", "spatial_ref"}
        np.testing.assert_allclose(found.y, [-0.055, -0.065])
        np.testing.assert_allclose(found.x, [0.005, 0.015, 0.025])


def test_only_whole_cells_are_described():
    image = mosaic(rows=12, cols=11)
    part = scene_features(image[:, 5:, 7:-1], cell_size=GRID, size=32)
    assert part.shape == (11, 9, 1536)
    assert part.y[[0, -1]].values.tolist() == [1750, 750]
    assert part.x[[0, -1]].values.tolist() == [650, 1450]
    corner = scene_features(image[:, 12:24, 12:24], cell_size=100, size=32)
    assert part.data.numblocks[:2] == (3, 2), "squares of the grid"
    np.testing.assert_array_equal(part[0, 0], corner[0, 0])


def test_cells_without_data_have_no_features():
    image = mosaic(rows=2, cols=2)
    image[0, 3, 5] = 0
    image.attrs["nodata"] = 0
    found = scene_features(image, cell_size=100, size=32).compute()
    assert np.isnan(found[0, 0]).all() and np.isfinite(found.values.reshape(4, -1)[1:]).all()
    cells = cut_cells(image, None, GRID)
    by_cell = scene_features(cells, size=32)
    np.testing.assert_array_equal(np.isnan(by_cell).all("feature"), cells.covered < 1)
    floats = image.astype("float32").where(image > 0)
    floats.attrs = {}
    found = scene_features(floats, cell_size=100, size=32, white=255).compute()
    assert np.isnan(found[0, 0]).all() and np.isfinite(found.values.reshape(4, -1)[1:]).all()


def test_grey_is_shown_in_three_bands_and_bands_can_be_chosen():
    grey = np.random.default_rng(2).integers(0, 255, (2, 1, 40, 40)).astype("uint8")
    other = 255 - grey
    five = cells_of(np.concatenate([other, grey, other, grey, grey], axis=1))
    given_settings = {"size": 32, "seed": 2}
    found = dask.compute(
        scene_features(cells_of(grey), **given_settings),
        scene_features(five, bands=(1,), **given_settings),
        scene_features(five, bands=(1, 3, 4), **given_settings),
        scene_features(five, bands=(1, 2, 3), **given_settings),
    )
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_allclose(found[0], found[2], atol=1e-6)
    assert np.abs(found[0] - found[3]).max() > 1e-3


@pytest.mark.parametrize("bands", [None, (0, 1), (0, 1, 5), (-1,), ()])
def test_other_numbers_of_bands_are_refused(bands):
    cells = cells_of(np.zeros((2, 5, 40, 40), np.uint8))
    with pytest.raises(InputError, match=r"^bands .* of 5 are to be shown"):
        scene_features(cells, bands=bands)


def test_white_is_that_of_the_type_or_what_is_said():
    bytes_ = np.random.default_rng(4).integers(0, 255, (2, 40, 40)).astype("uint8")
    found = dask.compute(
        scene_features(cells_of(bytes_), size=32),
        scene_features(cells_of(bytes_.astype("uint16") * 257), size=32),
        scene_features(cells_of(bytes_.astype("uint16")), size=32, white=255),
        scene_features(cells_of(bytes_ / np.float32(255)), size=32),
    )
    for other in found[1:]:
        np.testing.assert_allclose(other, found[0], rtol=0, atol=1e-5)


def test_building_the_graph_reads_nothing_and_holds_one_network():
    def read(*_):
        raise RuntimeError("a chunk was read")

    unread = da.map_blocks(
        read, chunks=((1,), (24, 12), (24, 12)), dtype="uint8", meta=np.empty((0, 0, 0), "uint8")
    )
    found = scene_features(mosaic(rows=3, cols=3).copy(data=unread), cell_size=100)
    loads = [key for key in dict(found.__dask_graph__()) if str(key).startswith("load_")]
    assert len(loads) == 1
    with pytest.raises(RuntimeError, match="a chunk was read"):
        found.compute()


def test_weights_are_read_on_computing_and_named_if_they_are_not_there(tmp_path):
    found = scene_features(cells_of(np.zeros((2, 40, 40), np.uint8)), weights=tmp_path / "none.pth")
    with pytest.raises(InputError, match=r"none\.pth cannot be read"):
        found.compute()


@pytest.mark.parametrize(
    ("problem", "wrong"),
    [
        ("cell_size is not given", {}),
        ("size is 8", {"cell_size": 100, "size": 8}),
        ("batch_size is 0", {"cell_size": 100, "batch_size": 0}),
        ("do not fit into cells", {"cell_size": 95}),
        ("holds no whole cell", {"cell_size": 10_000}),
    ],
)
def test_wrong_settings_of_features_are_named(problem, wrong):
    with pytest.raises(InputError, match=problem):
        scene_features(mosaic(), **wrong)


@pytest.mark.parametrize("seed", [0, 1])
def test_cells_of_clearly_different_textures_are_grouped_apart(land, seed):
    """With a random network: water, fields and scrub, drawn by hand."""
    features = scene_features(cells_of(land[0], 5), size=64, seed=seed)
    groups = scene_groups(features, k=[3], **SMALL, seed=seed)
    assert adjusted_rand_score(land[1], groups.kmeans_3) == 1
    assert adjusted_rand_score(land[1], groups.hdbscan) == 1


def test_groups_are_found_and_numbered_by_size(clouds):
    groups = scene_groups(clouds[0], k=[2, 3], **SMALL)
    assert list(groups.data_vars) == ["kmeans_2", "kmeans_3", "hdbscan", "plot_x", "plot_y"]
    np.testing.assert_array_equal(groups.kmeans_3, clouds[1])
    np.testing.assert_array_equal(groups.hdbscan, clouds[1])
    assert groups.kmeans_3.dtype == np.int16
    assert (np.diff(np.bincount(groups.kmeans_2)) <= 0).all()


def test_places_in_the_plot_are_near_those_of_cells_that_look_alike(clouds):
    groups = scene_groups(clouds[0], **SMALL)
    places = np.stack([groups.plot_x, groups.plot_y], axis=1)
    distance = np.linalg.norm(places[:, None] - places[None], axis=-1)
    np.fill_diagonal(distance, np.inf)
    assert (clouds[1][distance.argmin(1)] == clouds[1]).all()


@pytest.mark.parametrize("chunks", [(7, 16), (120, 5), (50, 16)])
def test_groups_are_identical_in_any_chunks(clouds, chunks):
    whole = scene_groups(clouds[0], **SMALL)
    in_chunks = scene_groups(
        clouds[0].chunk(dict(zip(("cell", "feature"), chunks, strict=True))), **SMALL
    )
    xr.testing.assert_identical(in_chunks, whole)


def test_principal_components_are_those_of_scikit_learn():
    rng = np.random.default_rng(5)
    rows = (rng.normal(0, 0.5 ** np.arange(12), (9000, 12)) + 1).astype("float32")
    found = _principal(da.from_array(rows, chunks=(4000, 5)), 4, seed=0)
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    expected = PCA(4, svd_solver="full").fit_transform(unit)
    np.testing.assert_allclose(np.abs(found), np.abs(expected), rtol=0, atol=1e-4)


def test_fewer_components_are_used_with_a_warning(clouds):
    with pytest.warns(
        UserWarning, match="16 principal components are used instead of 128, because"
    ):
        groups = scene_groups(clouds[0], **SMALL | {"pca": 128})
    assert groups.attrs["pca"] == 16
    np.testing.assert_array_equal(groups.kmeans_3, clouds[1])


def test_cells_without_features_are_in_no_group(clouds):
    features = clouds[0].copy(deep=True)
    features[[3, 50]] = np.nan
    groups = scene_groups(features.chunk({"cell": 40}), **SMALL)
    for name in ("kmeans_3", "hdbscan"):
        assert (groups[name][[3, 50]] == -1).all()
    assert np.isnan(groups.plot_x).sum() == np.isnan(groups.plot_y).sum() == 2
    known = clouds[0].drop_isel(cell=[3, 50])
    np.testing.assert_array_equal(
        groups.kmeans_3.drop_isel(cell=[3, 50]), scene_groups(known, **SMALL).kmeans_3
    )


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("neighbours", 120),
        ("neighbours", 1),
        ("dimensions", 119),
        ("min_cluster_size", 500),
        ("min_samples", 0),
        ("epochs", 0),
        ("pca", 0),
        ("pca", 0.9),
        ("k", [3, 0]),
        ("k", [121]),
        ("min_dist", 2.0),
    ],
)
def test_a_setting_that_so_few_cells_do_not_allow_is_named(clouds, setting, value):
    with pytest.raises(InputError, match=rf"^{setting} (= \d+ )?is ") as caught:
        scene_groups(clouds[0], **SMALL | {setting: value})
    assert str(caught.value).count(". ") == 0


def on_a_map(rows=3, cols=4):
    """Features of a mosaic's cells, in two kinds by row."""
    image = mosaic(rows=rows, cols=cols)
    features = scene_features(image, cell_size=100, size=32)
    kind = (np.arange(rows) % 2)[:, None, None] * np.ones((rows, cols, 1))
    values = np.random.default_rng(0).normal(kind * 2 - 1, 0.1, features.shape)
    return image, features.copy(data=values.astype("float32"))


FEW = SMALL | {"k": [2], "dimensions": 2, "neighbours": 4, "min_cluster_size": 3}


def test_groups_of_a_map_and_of_its_cells_are_the_same_map():
    _, features = on_a_map()
    features[1, 2] = np.nan
    groups = scene_groups(features, **FEW)
    assert groups.kmeans_2.dims == ("y", "x")
    assert groups.rio.crs == "EPSG:25832"
    table = scene_table(groups)
    assert list(table) == ["north", "east", "kmeans_2", "hdbscan", "plot_x", "plot_y"]
    assert len(table) == 11
    assert table.iloc[0][["north", "east"]].tolist() == [9, 5]
    by_cell = xr.Dataset.from_dataframe(table.rename_axis("cell")).set_coords(["north", "east"])
    by_cell = by_cell.drop_vars("cell").assign_coords(spatial_ref=groups.spatial_ref)
    by_cell.attrs = groups.attrs
    laid = scene_map(by_cell)
    xr.testing.assert_equal(laid, groups)
    assert scene_map(groups) is groups


def test_the_table_keeps_what_goes_by_cell(clouds):
    features = clouds[0].assign_coords(
        north=("cell", np.arange(120)),
        east=("cell", np.zeros(120, int)),
        people=("cell", np.arange(120.0)),
        spatial_ref=0,
    )
    features[7] = np.nan
    table = scene_table(scene_groups(features, **SMALL))
    assert list(table)[:3] == ["north", "east", "people"]
    assert table["north"].tolist() == [n for n in range(120) if n != 7]
    assert isinstance(table, pd.DataFrame) and (table["kmeans_3"] >= 0).all()


def test_examples_are_images_of_their_cells():
    image, features = on_a_map(rows=4, cols=5)
    groups = scene_groups(features, **FEW)
    from_mosaic = scene_examples(groups, image.chunk({"y": 20}), count=12)
    cells = cut_cells(image, None, GRID)
    from_cells = scene_examples(groups, cells, count=12)
    xr.testing.assert_equal(from_mosaic.images, from_cells.images)
    assert 3 <= from_mosaic.sizes["cell"] <= 12
    for i in range(from_mosaic.sizes["cell"]):
        one = from_mosaic.isel(cell=i)
        y, x = 100 * (one.north + 0.5), 100 * (one.east + 0.5)
        there = groups.sel(y=y, x=x)
        for name in groups.data_vars:
            assert one[name] == there[name]
        window = image.sel(y=slice(y + 50, y - 50), x=slice(x - 50, x + 50))
        np.testing.assert_array_equal(one.images, window)


def test_real_land_is_grouped():
    folder = Path(os.environ.get("POPDASK_DATA", "")) / "flanders_s2_10m"
    if not os.environ.get("POPDASK_DATA") or not folder.is_dir():
        pytest.skip("POPDASK_DATA does not hold the images of Flanders")
    rioxarray = pytest.importorskip("rioxarray")
    name = "BEFL-TEST_s2_2023-06-05_2023-06-11_B08-B04-B03.tif"
    image = rioxarray.open_rasterio(folder / name, chunks={"y": 300, "x": 400})
    features = scene_features(image[:, :250], cell_size=1000, size=64)
    assert features.shape == (2, 14, 1536)
    groups = scene_groups(features, **SMALL)
    assert (groups.kmeans_5 >= 0).all()
    assert np.unique(groups.kmeans_5).tolist() == [0, 1, 2, 3, 4]
    assert np.isfinite(groups.plot_x).all()
