"""The baselines are the mean and plain regressions, and see what is easily seen."""

import dask.array as da
import numpy as np
import pytest
import xarray as xr
from sklearn.linear_model import LinearRegression
from sklearn.metrics import matthews_corrcoef

from popdask.errors import InputError
from popdask.imagery.cells import split_cells
from popdask.imagery.cutting import cut_cells
from popdask.imagery.evaluation import FeatureBaseline, MeanBaseline, fit_baselines
from popdask.imagery.features import FEATURES, picture_features
from popdask.synthetic import drawn_orthophoto


@pytest.fixture(scope="module")
def cells():
    world = drawn_orthophoto((0.8, 1.2), origin=(603_800, 6_204_400), resolution=1.0)
    return split_cells(
        cut_cells(world.image, world.people()), kind="random", validation=0.4
    ).compute()


@pytest.fixture
def pictures():
    return np.random.default_rng(3).integers(1, 255, (7, 2, 24, 32)).astype(np.uint8)


def test_features_are_what_they_are_called(pictures):
    features = picture_features(pictures).reshape(7, 2, len(FEATURES))
    for number in np.ndindex(7, 2):
        band = pictures[number].astype(float)
        named = dict(zip(FEATURES, features[number], strict=True))
        down, across = band[1:, 1:] - band[:-1, 1:], band[1:, 1:] - band[1:, :-1]
        length = np.sqrt(down**2 + across**2)
        halves = [
            [band[r : r + 2, c : c + 2].mean() for c in range(0, 32, 2)] for r in range(0, 24, 2)
        ]
        quarters = [band[:12, :12], band[:12, 12:24], band[12:, :12], band[12:, 12:24]]
        assert named["mean"] == pytest.approx(band.mean(), rel=1e-5)
        assert named["spread"] == pytest.approx(band.std(), rel=1e-5)
        assert named["dark"] == pytest.approx(np.percentile(band, 10), rel=1e-5)
        assert named["brightest"] == pytest.approx(np.percentile(band, 99), rel=1e-5)
        assert named["edges"] == pytest.approx(length.mean(), rel=1e-5)
        assert named["strong_edges"] == pytest.approx((length > 30).mean(), rel=1e-5)
        assert named["texture_2"] == pytest.approx(band.std() - np.std(halves), rel=1e-3)
        assert named["unevenness"] == pytest.approx(np.std([q.mean() for q in quarters]), rel=1e-3)


def test_pixels_without_data_are_zero(pictures):
    gaps = np.where(pictures < 40, np.nan, pictures)
    np.testing.assert_array_equal(picture_features(gaps), picture_features(np.nan_to_num(gaps)))


def test_stripes_point_one_way():
    stripes = np.zeros((2, 1, 32, 32))
    stripes[0, 0, ::4] = stripes[1, 0, :, ::4] = 100
    share = picture_features(stripes)[:, FEATURES.index("edges_down_share")]
    np.testing.assert_allclose(share, [1, 0], atol=1e-6)


@pytest.mark.parametrize("chunks", [(1, 1, 16, 16), (600, 2, 32, 32), (700, 1, 24, 32)])
def test_features_are_equal_under_any_chunking(pictures, chunks):
    many = np.tile(pictures, (90, 1, 1, 1))  # more than a batch
    expected = picture_features(pictures)
    found = picture_features(da.from_array(many, chunks=chunks))
    np.testing.assert_array_equal(found, np.tile(expected, (90, 1)))


def test_the_mean_is_the_training_cells_mean(cells):
    baseline = fit_baselines(cells)["mean per cell"]
    training = cells.people.values[cells.split.values == 0]
    presence, people = baseline.predict(cells.images.values)
    np.testing.assert_allclose(people, training.mean(), rtol=1e-6)
    np.testing.assert_allclose(presence, (training > 0).mean(), rtol=1e-6)


def test_the_regression_is_scikit_learns(cells):
    images, people = cells.images.values, cells.people.values
    baseline = FeatureBaseline.fit(images, people, threshold=0.3)
    presence, estimate = baseline.predict(images)
    features = picture_features(images)
    line = LinearRegression().fit(features[people > 0], people[people > 0]).predict(features)
    expected = np.where(presence > 0.3, np.clip(line, 0, None), 0)
    np.testing.assert_allclose(estimate, expected, atol=1e-3)
    assert (presence[estimate == 0] <= 0.3).mean() > 0.5


def test_the_regression_sees_more_than_the_mean_on_cells_not_seen(cells):
    unseen = cells.isel(cell=np.flatnonzero(cells.split == 1))
    truth = unseen.people.values
    errors = {}
    for name, baseline in fit_baselines(cells).items():
        presence, people = baseline.predict(unseen.images.data)
        errors[name] = float(((people - truth) ** 2).mean())
        if name == "regression":
            assert matthews_corrcoef(truth > 0, presence > 0.5) > 0.3
    assert errors["regression"] < 0.85 * errors["mean per cell"]


def test_without_a_split_all_known_cells_count(cells):
    some = cells.drop_vars("split").isel(cell=slice(None, None, 2))
    unknown = some.people.copy(
        data=np.where(np.arange(some.sizes["cell"]) < 3, np.nan, some.people)
    )
    baseline = fit_baselines(some.assign(people=unknown))["mean per cell"]
    assert baseline == MeanBaseline.fit(None, some.people.values[3:])


@pytest.mark.parametrize(
    ("people", "message"),
    [
        (np.array([0.0, np.nan]), "1 of 2 training cells have unknown people"),
        (np.zeros(0), "0 of 0 training cells"),
    ],
)
def test_cells_that_teach_nothing_are_refused(people, message):
    with pytest.raises(InputError, match=message):
        FeatureBaseline.fit(np.zeros((len(people), 1, 16, 16)), people)


@pytest.mark.parametrize("each", [0.0, 2.0])
def test_where_all_cells_or_none_are_inhabited_that_is_what_is_said(each):
    images = np.random.default_rng(0).integers(0, 255, (12, 1, 8, 8))
    baseline = FeatureBaseline.fit(images[:9], np.full(9, each))
    presence, people = baseline.predict(images[9:])
    assert (presence == (each > 0)).all()
    np.testing.assert_allclose(people, each, atol=1e-5)


def test_small_images_lose_all_to_squares_larger_than_they_are():
    images = np.random.default_rng(0).integers(0, 255, (9, 1, 5, 7))
    found = dict(zip(FEATURES, picture_features(images).T, strict=True))
    assert np.isfinite(list(found.values())).all() and (found["texture_8"] == 0).all()
    textures = found["texture_2"] + found["texture_4"] + found["texture_8"]
    np.testing.assert_allclose(textures, found["spread"], rtol=1e-5)
    with pytest.raises(InputError, match="images have 1 × 20 pixels, but edges need 2 × 2"):
        picture_features(np.zeros((1, 1, 1, 20)))


def test_a_dataset_of_cells_may_be_lazy(cells):
    lazy = cells.chunk(cell=10)
    assert isinstance(lazy.images.data, da.Array)
    eager = fit_baselines(cells)["regression"].predict(cells.images.values)
    found = fit_baselines(lazy)["regression"].predict(lazy.images.data)
    xr.testing.assert_equal(xr.DataArray(np.stack(found)), xr.DataArray(np.stack(eager)))
