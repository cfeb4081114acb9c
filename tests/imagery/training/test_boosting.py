"""Trees of arrays answer as scikit-learn's, and are chosen and estimated as networks are."""

from dataclasses import replace

import dask.array as da
import numpy as np
import pytest
from odc.geo.xr import xr_zeros
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from popdask.errors import InputError
from popdask.imagery.cells import make_cells, set_aside, split_cells
from popdask.imagery.estimate import estimate, gradcam
from popdask.imagery.features import PatchFeatures, cell_features, picture_features
from popdask.imagery.grid import CellGrid
from popdask.imagery.loading import TrainingConfig
from popdask.imagery.model import TrainedModel
from popdask.imagery.training import train

from .test_learning import cells_of, houses

FEW = {"network": "features", "trees": 40, "least": 5, "rate": 0.2, "l2": 0.0, "patches": 0}


def config(**network):
    return TrainingConfig({**FEW, **network}, threads=1)


@pytest.fixture(scope="module")
def cells():
    return set_aside(cells_of(*houses(400)))


@pytest.mark.parametrize("patches", [0, 8])
@pytest.mark.parametrize("head", ["boosting", "ridge"])
@pytest.mark.parametrize(
    ("kind", "figure", "least"), [("presence", "matthews", 0.8), ("count", "r2", 0.7)]
)
def test_each_kind_learns_a_world_that_can_be_known(cells, head, patches, kind, figure, least):
    network = config(head=head, patches=patches, components=6)
    model = train(cells, kind, network, device="cpu")
    assert model.figures[figure] > least
    again = TrainedModel.from_bytes(model.to_bytes())
    images = cells.images.values[:50]
    np.testing.assert_array_equal(model.predict(images), again.predict(images))
    assert again.config == model.config and tuple(again.history) == model.history


def features_of(cells):
    return picture_features(cells.images.values).astype(np.float32)


def trees_of_scikit_learn(cells, trees):
    return HistGradientBoostingRegressor(
        max_iter=trees, learning_rate=0.2, max_leaf_nodes=15, min_samples_leaf=5,
        early_stopping=False, random_state=0,
    ).fit(features_of(cells), cells.people.values)  # fmt: skip


def side(cells, *sides):
    return cells.isel(cell=np.flatnonzero(np.isin(cells.split, sides)))


def test_trees_answer_as_those_of_scikit_learn(cells):
    model = train(cells, "weighted", config(), device="cpu")
    theirs = trees_of_scikit_learn(side(cells, 0, 2), int(model.figures["epoch"]))
    everything = features_of(cells)
    np.testing.assert_allclose(
        model.module.answer(everything), theirs.predict(everything), atol=1e-4
    )


def test_a_ridge_answers_as_that_of_scikit_learn(cells):
    model = train(cells, "weighted", config(head="ridge", l2=3.0), device="cpu")
    learned = side(cells, 0, 2)
    features = features_of(learned)
    theirs = make_pipeline(StandardScaler(), Ridge(3.0)).fit(features, learned.people.values)
    np.testing.assert_allclose(model.module.answer(features), theirs.predict(features), atol=1e-2)


def test_as_many_trees_as_do_best_on_the_cells_to_choose_by(cells):
    model = train(cells, "weighted", config(), device="cpu")
    chosen = side(cells, 2)
    losses = [
        np.mean((said - chosen.people.values) ** 2)
        for said in trees_of_scikit_learn(side(cells, 0), 40).staged_predict(features_of(chosen))
    ]
    assert model.config["grown"] == model.figures["epoch"] == 1 + np.argmin(losses)
    assert model.figures["loss"] == pytest.approx(min(losses), rel=1e-6)


@pytest.mark.parametrize("head", ["boosting", "ridge"])
def test_nothing_is_learned_from_the_cells_that_are_scored(cells, head):
    for split in (cells, side(cells, 0, 1)):
        wrong = split.people.where(split.split != 1, 5 * (split.people == 0))
        models = [
            train(split.assign(people=people), "weighted", config(head=head, trees=1), device="cpu")
            for people in (split.people, wrong)
        ]
        images = cells.images.values[:40]
        np.testing.assert_array_equal(*(model.predict(images) for model in models))


@pytest.mark.parametrize("patches", [0, 8])
def test_a_cell_s_answer_does_not_depend_on_what_comes_with_it(cells, patches):
    model = train(cells, "count", config(patches=patches), device="cpu")
    images = cells.images.values[:70]
    together = model.predict(images, batch_size=64)
    for size in (1, 7, 16):
        np.testing.assert_array_equal(model.predict(images, batch_size=size), together)
    np.testing.assert_array_equal(model.predict(images[33:34]), together[33:34])


def test_a_mosaic_is_estimated_as_its_cells_are_in_any_chunks(cells):
    presence, count = (train(cells, kind, config(), device="cpu") for kind in ("presence", "count"))
    rows = cells.images.values[:24, 0].reshape(4, 6, 16, 16).transpose(0, 2, 1, 3).reshape(64, 96)
    box = CellGrid(100).geobox(range(4), range(6), pixels=16)
    image = xr_zeros(box, "uint8").copy(data=rows)
    whole = estimate(image, presence, count, cell_size=100, rule="expected").compute()
    first = cells.images.values[:24]
    expected = (presence.predict(first) * count.predict(first)).reshape(4, 6)
    np.testing.assert_array_equal(whole.population.values, expected)
    for chunks in (23, (64, 40)):
        lazy = image.copy(data=da.from_array(rows, chunks=chunks))
        found = estimate(lazy, presence, count, cell_size=100, rule="expected")
        np.testing.assert_array_equal(found.population.values, expected)


def test_a_cell_with_surroundings_is_described_by_itself_too():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 255, (5, 2, 24, 24)).astype(np.uint8)
    found = cell_features(images, ring=8)
    np.testing.assert_allclose(found[:, :28], picture_features(images), rtol=1e-5)
    own = images[:, :, 8:16, 8:16].astype(float)
    np.testing.assert_allclose(found[:, 28:30], own.mean((2, 3)), rtol=1e-5)
    np.testing.assert_array_equal(found[:, 34:36], own.max((2, 3)))


def test_patches_are_whitened_and_their_finds_uncorrelated():
    rng = np.random.default_rng(0)
    smooth = np.cumsum(rng.normal(size=(300, 2, 24, 24)), 3).astype(np.float32)
    seen = PatchFeatures(2, 8, patches=10, components=12).fit(smooth, others=1, seed=0)
    assert not seen.filters[:, 1].any()  # the second band is no image
    views = np.lib.stride_tricks.sliding_window_view(smooth[:40, 0], (5, 5), (1, 2))
    filters, shift = seen.filters[:, 0].numpy(), seen.shift.numpy()
    found = np.einsum("nijab,kab->nkij", views, filters) + shift[:, None, None]
    expected = [
        np.maximum(sign * found - 1, 0)[:, :, rim : 20 - rim, rim : 20 - rim].mean((2, 3))
        for sign in (1, -1)
        for rim in (6, 2, 0)
    ]
    np.testing.assert_allclose(seen.responses(smooth[:40]), np.concatenate(expected, 1), atol=1e-4)
    components = seen.describe(smooth)
    np.testing.assert_allclose(np.cov(components.T, bias=True), np.eye(12), atol=1e-2)


@pytest.mark.parametrize("patches", [0, 8])
def test_features_are_of_full_precision_beside_networks_that_are_not(patches):
    images = np.random.default_rng(0).integers(0, 255, (5, 1, 20, 20)).astype(np.uint8)
    plain = TrainedModel.untrained(
        "count", {"network": "features", "head": "ridge", "patches": patches}, pixels=20
    )
    if patches:
        plain.module.patches.fit(images, others=0, seed=0)
        plain.module.value[-5:] = 1.0
    half = replace(plain, settings={"precision": "bfloat16"})
    np.testing.assert_array_equal(half.predict(images), plain.predict(images))


def test_as_many_components_as_few_images_tell_of():
    images = np.random.default_rng(0).integers(0, 255, (40, 1, 16, 16)).astype(np.uint8)
    seen = PatchFeatures(1, 0, patches=64, components=64).fit(images[:12], others=0, seed=0)
    assert np.count_nonzero(np.ptp(seen.describe(images), 0)) == 11
    assert abs(seen.describe(images)).max() < 100


def test_the_penalty_of_a_ridge_is_chosen_on_cells_set_aside(cells):
    wanted = config(head="ridge", l2=None)
    model = train(cells, "weighted", wanted, device="cpu")
    losses = [row["validation"] for row in model.history]
    assert len(losses) == 5 and model.figures["loss"] == min(losses)
    penalty = 10.0 ** (model.figures["epoch"] - 1)
    same = train(cells, "weighted", config(head="ridge", l2=penalty), device="cpu")
    np.testing.assert_array_equal(same.module.value.detach(), model.module.value.detach())


def test_images_of_one_colour_have_nothing_to_find():
    plain = np.full((20, 1, 16, 16), 7, np.uint8)
    seen = PatchFeatures(1, 0, patches=4, components=3).fit(plain, others=0, seed=0)
    np.testing.assert_array_equal(seen.describe(plain), 0)


def test_what_plain_features_cannot_do_is_refused(cells):
    with pytest.raises(InputError, match="kind is 'transformer' for the network 'features'"):
        train(cells, "transformer", config(), device="cpu")
    for patches, pixels, least in ((0, 1, 2), (8, 4, 5)):
        found = f"{pixels} x {pixels} pixels, expected at least {least} for the edges and patches"
        with pytest.raises(InputError, match=found):
            train(small_cells(pixels), "count", config(patches=patches), device="cpu")
        train(small_cells(least), "count", config(patches=patches, head="ridge"), device="cpu")
    with pytest.raises(InputError, match="head is 'forest', expected 'boosting' or 'ridge'"):
        train(cells, "count", config(head="forest"), device="cpu")
    model = train(cells, "count", config(trees=1), device="cpu")
    with pytest.raises(InputError, match="Grad-CAM explains networks that learn from pixels"):
        gradcam(model, cells.images.values[0])


def small_cells(pixels):
    place = np.arange(20)
    images = da.zeros((20, 1, pixels, pixels), dtype="uint8")
    return split_cells(make_cells(images, place * 1.0, place, place, CellGrid(100)), kind="random")
