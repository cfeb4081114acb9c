"""Classes: as good as scikit-learn's, the same under any chunking, right on known blobs."""

import copy
import os
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import dask
import dask.array as da
import numpy as np
import pandas as pd
import pytest
import rioxarray
import safetensors.numpy
import torch
import xarray as xr
from dask.distributed import Client
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score
from sklearn.preprocessing import StandardScaler

from popdask.blocks.sampling import gather_cells, sample_cells
from popdask.errors import InputError
from popdask.tracking.autoencoder import (
    EncoderConfig,
    FittedEncoder,
    Scaling,
    WindowAutoencoder,
)
from popdask.tracking.classify import (
    METHODS,
    ClassModel,
    classify,
    fit_classes,
    kmeans,
    knee,
    nearest,
    sse_curve,
    with_density,
    without_land,
)

CORNERS = 20 * np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 1]], float)


def blobs(n: int, corners: np.ndarray = CORNERS) -> tuple[np.ndarray, np.ndarray]:
    """Points in unit clouds around the corners, the first corner's cloud the most crowded."""
    rng = np.random.default_rng(8)
    share = np.arange(len(corners), 0, -1) / np.arange(len(corners) + 1).sum()
    truth = rng.choice(len(corners), size=n, p=share)
    return corners[truth] + rng.normal(size=(n, corners.shape[1])), truth


def world(shape: tuple[int, ...] = (2, 12, 15)) -> tuple[xr.DataArray, np.ndarray]:
    """Latents (time, y, x, latent) in five blobs, some cells without data, and their classes."""
    points, truth = blobs(int(np.prod(shape)))
    points[::7] = np.nan
    truth[::7] = -1
    dims = ("time", "y", "x", "latent")
    coords = {"y": np.arange(shape[1]) * 250.0, "spatial_ref": 0}
    latent = xr.DataArray(points.reshape(*shape, -1).astype(np.float32), dims=dims, coords=coords)
    return latent, truth.reshape(shape)


def skewed(seed: int, n: int = 8000) -> np.ndarray:
    """The same points (n, 2), few of them far out, each with noise of 2 % by the seed."""
    rng = np.random.default_rng(0)
    far = rng.gamma(0.3, size=n)
    points = np.column_stack([far, rng.normal(size=n) * np.sqrt(far) / 4])
    return points * (1 + np.random.default_rng(seed).normal(0, 0.02, points.shape))


@st.composite
def chunked(draw, shape):
    chunks = []
    for length in shape:
        cuts = draw(st.sets(st.integers(1, length - 1), max_size=length - 1)) if length > 1 else []
        chunks.append(tuple(np.diff([0, *sorted(cuts), length]).tolist()))
    return tuple(chunks)


@pytest.fixture(scope="module")
def nine() -> ClassModel:
    return fit_classes(blobs(500)[0], k=9)


def along_axes(model: ClassModel) -> ClassModel:
    """The same classes along other axes, more than there are latents."""
    turned = np.linalg.qr(np.random.default_rng(2).normal(size=(4, 4)))[0][:3]
    return replace(model, axes=model.axes @ turned, centers=model.centers @ turned)


# Equal to a reference


@pytest.mark.parametrize("turn", [lambda model: model, along_axes], ids=["own axes", "others"])
def test_classes_equal_scikit_learn_predict(turn):
    latent, _ = world()
    model = turn(fit_classes(blobs(500)[0], k=7))
    reference = KMeans(7, init=model.centers, n_init=1, max_iter=1).fit(model.centers)
    reference.cluster_centers_ = model.centers
    found = classify(latent, model).values
    rows = latent.values[found >= 0].astype(np.float64)
    expected = reference.predict(model.transform(rows))
    np.testing.assert_array_equal(found[found >= 0], expected)


def test_scaling_equals_scikit_learn():
    points = blobs(25_000)[0] * [1, 50, 1e-3] + [0, 1e4, 5]
    model = fit_classes(points, k=2)
    reference = StandardScaler().fit(points)
    np.testing.assert_allclose(model.mean, reference.mean_, rtol=1e-12)
    np.testing.assert_allclose(model.axes, np.diag(1 / reference.scale_), rtol=1e-9)


@pytest.mark.parametrize("k", [4, 10])
def test_fit_is_as_good_as_ten_starts_of_scikit_learn(k):
    """Overlapping clouds, more than the classes asked for: no start finds them by luck."""
    rng = np.random.default_rng(3)
    points = blobs(12_000, 2 * rng.normal(size=(20, 8)))[0]
    reference = KMeans(k, n_init=10, random_state=0).fit(StandardScaler().fit_transform(points))
    assert fit_classes(points, k).sse < 1.02 * reference.inertia_


def best_cut(part: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
    """Of all cuts of sorted numbers in two the one that lowers the sum of squares most."""
    cuts = [(part[:at], part[at:]) for at in range(1, len(part))]
    return max((part.var() * len(part) - sum(h.var() * len(h) for h in cut), *cut) for cut in cuts)


def test_bisecting_makes_the_best_of_all_cuts(monkeypatch):
    # Of few points some starts end short.
    monkeypatch.setattr("popdask.tracking.classify.SPLITS", 50)
    points = np.sort(np.random.default_rng(0).exponential(size=300))
    parts = [points]
    while len(parts) < 6:
        cuts = [best_cut(part) for part in parts]
        best = int(np.argmax([cut[0] for cut in cuts]))
        parts[best : best + 1] = cuts[best][1:]
    found = METHODS["bisecting"](points[:, None], [6], seed=0)[6]
    np.testing.assert_allclose(np.sort(found[:, 0]), [part.mean() for part in parts], rtol=1e-9)


def test_bisecting_splits_two_places_before_one_that_is_wider():
    rng = np.random.default_rng(0)
    wide = rng.normal(0, 1, (500, 3))
    places = rng.normal(0, 0.01, (200, 3)) + np.repeat([[50, 0, 0], [54, 0, 0]], 100, axis=0)
    assert wide.var() * wide.size > 1.1 * places.var(axis=0).sum() * len(places)
    found = METHODS["bisecting"](np.concatenate([wide, places]), [3], seed=0)[3]
    np.testing.assert_allclose(np.sort(found[:, 0]), [wide[:, 0].mean(), 50, 54], atol=0.01)


def test_rows_that_differ_by_rounding_alone_are_not_split():
    points = np.repeat([[1.0], [np.nextafter(1.0, 2.0)], [3.0]], 20, axis=0)
    found = METHODS["bisecting"](points, [2], seed=0)[2]
    np.testing.assert_array_equal(np.sort(found, axis=0), [[1], [3]])
    with pytest.raises(InputError, match="by no more than rounding, and falls into 2 classes"):
        METHODS["bisecting"](points, [3], seed=0)


def test_sse_is_the_sum_of_squared_distances():
    points = blobs(800)[0]
    model = fit_classes(points, k=3)
    z = model.transform(points)
    distances = np.linalg.norm(z[:, None] - model.centers[None], axis=-1).min(axis=1)
    assert model.sse == pytest.approx(np.sum(distances**2), rel=1e-12)


# Right where the answer is known


def test_blobs_are_recovered_in_the_order_of_their_frequency():
    latent, truth = world((2, 30, 40))
    np.testing.assert_array_equal(kmeans(latent.chunk(y=7, x=9), k=5).values, truth)


@pytest.mark.parametrize("method", METHODS)
def test_clouds_far_apart_are_found_by_either_method(method):
    points, truth = blobs(2000)
    model = fit_classes(points, k=5, method=method)
    np.testing.assert_array_equal(nearest(points, model.mean, model.axes, model.centers)[0], truth)


def test_bisecting_gives_the_same_where_points_differ_a_little():
    """Ten classes of what lies along one line, as density does: k-means takes others by chance."""
    alike = {}
    for method in METHODS:
        found = []
        for seed in range(4):
            points = skewed(seed=seed)
            centers = METHODS[method](points, [10], seed=0)[10]
            found.append(nearest(points, np.zeros(2), np.eye(2), centers)[0])
        alike[method] = min(adjusted_rand_score(*pair) for pair in combinations(found, 2))
    assert alike["bisecting"] > 0.9
    assert alike["bisecting"] > alike["kmeans"] + 0.1


@pytest.mark.parametrize("method", METHODS)
def test_auto_finds_the_five_blobs(method):
    points, truth = blobs(1500)
    model = fit_classes(points, k="auto", ks=range(2, 11), method=method)
    assert model.k == 5
    assert list(model.curve.index) == list(range(2, 11))
    assert model.curve[5] == model.sse
    np.testing.assert_array_equal(model.centers, fit_classes(points, k=5, method=method).centers)
    latent = xr.DataArray(points.reshape(30, 50, 3), dims=("y", "x", "latent"))
    assert adjusted_rand_score(classify(latent, model).values.ravel(), truth) == 1


def test_curve_falls_and_bends_at_the_five_blobs():
    curve = sse_curve(world()[0].chunk(x=4), ks=(9, 2, 5, 7, 3), sample=300)
    assert list(curve.index) == [2, 3, 5, 7, 9]
    assert curve.is_monotonic_decreasing
    assert knee(curve) == 5


def test_knee_of_known_curves():
    assert knee(pd.Series([90.0, 50, 10, 9, 8, 7], index=range(2, 8))) == 4
    assert knee(pd.Series([8.0, 6, 4, 2], index=[2, 4, 6, 8])) == 2
    assert knee(pd.Series([5.0, 5, 5], index=[2, 3, 4])) == 2
    assert knee(pd.Series([5.0], index=[3])) == 3


def test_the_density_of_a_class_is_its_people_by_its_area():
    points, truth = blobs(500)
    people, area = np.random.default_rng(0).uniform(0, [[90], [2]], (2, 500))
    found = with_density(fit_classes(points, k=5), points, people, area).density
    true = [people[truth == c].sum() / area[truth == c].sum() for c in range(5)]
    np.testing.assert_allclose(np.sort(found), np.sort(true), rtol=1e-12)


def test_classes_do_not_depend_on_how_a_fit_lays_its_codes_out():
    """Two encoders that describe every window alike, by other numbers: only windows are alike."""
    config = EncoderConfig(hidden=(8,), latent=3, activation="linear", latent_activation="linear")
    seen = Scaling((0, -1, -1), (9, 1, 1))
    weights = torch.Generator().manual_seed(0)
    one = FittedEncoder(config.network(3, weights), seen, height=20, width=30, config=config)
    mixed = np.array([[5, 1, 0], [0, 0.2, 0.1], [2, 0, 1]])
    other = replace(one, module=copy.deepcopy(one.module))
    other.module.decoder[0].weight.data @= torch.from_numpy(np.linalg.inv(mixed.T)).float()
    codes = np.random.default_rng(4).normal(size=(4000, 3)) * [3, 2, 1]
    with torch.inference_mode():
        windows = [
            e.module.decode(torch.from_numpy(c).float()).flatten(1).numpy()
            for e, c in ((one, codes), (other, codes @ mixed))
        ]
    np.testing.assert_allclose(*windows, atol=1e-4)

    def classes(codes, encoder=None):
        latent = xr.DataArray(codes[None], dims=("y", "x", "latent"))
        return classify(latent, fit_classes(codes, k=6, encoder=encoder)).values[0]

    by_windows = [classes(codes, one), classes(codes @ mixed, other)]
    by_codes = [classes(codes), classes(codes @ mixed)]
    assert adjusted_rand_score(*by_windows) > 0.999 and adjusted_rand_score(*by_codes) < 0.8
    true = KMeans(6, n_init=10, random_state=0).fit_predict(windows[0])
    assert adjusted_rand_score(by_windows[0], true) > 0.9


def test_a_model_of_before_has_its_standard_deviations_for_axes():
    model = fit_classes(blobs(200)[0] * [1, 50, 1e-3], k=3)
    arrays = safetensors.numpy.load(model.to_bytes())
    arrays["scale"] = 1 / arrays.pop("axes").diagonal()
    again = ClassModel.from_bytes(safetensors.numpy.save(arrays))
    np.testing.assert_allclose(again.axes, model.axes, rtol=1e-15)


def test_windows_that_are_all_alike_are_no_classes():
    encoder = FittedEncoder(WindowAutoencoder(), Scaling((0, 0, 0), (1, 1, 1)), 9, 9)
    encoder.module.decoder[-1].weight.data[:] = 0
    codes = np.random.default_rng(0).normal(size=(50, 16))
    with pytest.raises(InputError, match="1 distinct rows for 2 classes"):
        fit_classes(codes, k=2, encoder=encoder)
    assert fit_classes(codes, k=2).k == 2


def test_a_curve_is_of_the_distances_that_are_asked_for():
    encoder = FittedEncoder(WindowAutoencoder(), Scaling((0, 0, 0), (1, 1, 1)), 9, 9)
    codes = np.abs(np.random.default_rng(0).normal(size=(20, 30, 16))) * np.geomspace(0.1, 3, 16)
    latent = xr.DataArray(codes, dims=("y", "x", "latent"))
    curve = sse_curve(latent, ks=[3, 4], encoder=encoder)
    asked = fit_classes(codes.reshape(-1, 16), k=4, encoder=encoder)
    assert curve[4] == pytest.approx(asked.sse, rel=0.05)
    assert sse_curve(latent, ks=[3, 4])[4] > 1.5 * curve[4]


def test_an_encoder_of_other_latents_is_refused():
    with pytest.raises(InputError, match="3 latents; expected the 16 that the encoder writes"):
        fit_classes(blobs(50)[0], k=2, encoder=FittedEncoder(WindowAutoencoder(), None, 9, 9))


@given(chunks=chunked((2, 12, 15, 3)))
@settings(max_examples=10)
def test_land_is_taken_out_under_any_chunking_and_all_else_stays(nine, chunks):
    classes = classify(world()[0], nine)
    model = replace(nine, density=np.arange(9.0) * 10)
    lazy = classes.chunk(dict(zip(classes.dims, chunks, strict=False)))
    left = without_land(lazy, model, 35)
    assert isinstance(left.data, da.Array) and left.attrs == classes.attrs
    xr.testing.assert_identical(left.compute(), classes.where(classes >= 4, np.int16(-1)))
    assert left.dtype == np.int16


def test_what_is_land_is_not_guessed(nine):
    with pytest.raises(InputError, match="have no density; expected a model of with_density"):
        without_land(classify(world()[0], nine), nine, 50)


def test_dead_and_constant_latents_are_ignored():
    """A constant that is not exact in binary must not be blown up by its own rounding."""
    points = blobs(3000)[0]
    padded = np.column_stack([np.zeros(3000), points, np.full(3000, 0.1)])
    model = fit_classes(padded, k=5)
    assert model.axes.diagonal()[[0, -1]].tolist() == [1, 1]
    np.testing.assert_allclose(model.centers[:, [0, -1]], 0, atol=1e-12)
    np.testing.assert_allclose(model.centers[:, 1:-1], fit_classes(points, k=5).centers, rtol=1e-9)


@pytest.mark.parametrize("method", METHODS)
def test_as_many_classes_as_distinct_rows(method):
    points = np.repeat(CORNERS, [50, 40, 30, 20, 10], axis=0)
    model = fit_classes(points, k=5, method=method)
    np.testing.assert_allclose(
        model.centers / model.axes.diagonal() + model.mean, CORNERS, atol=1e-9
    )
    assert model.sse == pytest.approx(0, abs=1e-12)


# The same under any chunking, on any cluster


@given(chunks=chunked((2, 12, 15, 3)))
@settings(max_examples=25)
def test_classes_are_the_same_under_any_chunking(nine, chunks):
    latent, _ = world()
    lazy = latent.copy(data=da.from_array(latent.values, chunks=chunks))
    xr.testing.assert_identical(classify(lazy, nine).compute(), classify(latent, nine))


@given(chunks=chunked((2, 12, 15, 3)))
@settings(max_examples=8)
def test_the_fit_is_the_same_under_any_chunking(chunks):
    latent, _ = world()
    lazy = latent.copy(data=da.from_array(latent.values, chunks=chunks))
    for method in METHODS:
        how = {"sample": 200, "method": method}
        xr.testing.assert_identical(kmeans(lazy, 6, **how).compute(), kmeans(latent, 6, **how))


@pytest.mark.parametrize("method", METHODS)
def test_the_fit_is_the_same_with_a_cluster(recwarn, method):
    points = blobs(21_000)[0]
    alone = fit_classes(points, k=6, seed=4, method=method).to_bytes()
    with Client(n_workers=1, threads_per_worker=2, processes=False, dashboard_address=":0"):
        recwarn.clear()
        assert fit_classes(points, k=6, seed=4, method=method).to_bytes() == alone
        assert not [str(w.message) for w in recwarn if "distributed" in str(w.message)]


def test_the_fit_leaves_the_sample_and_the_settings_alone():
    points = blobs(300)[0]
    before = points.copy()
    with dask.config.set(scheduler="threads"):
        fit_classes(points, k=3)
        assert dask.config.get("scheduler") == "threads"
    np.testing.assert_array_equal(points, before)


# Lazy until asked


def test_classify_reads_nothing_and_fuses_with_its_source():
    """Encoding and classes become one layer: latents of a large region are never held."""
    read = []

    def encode(block):
        read.append(block.shape)
        return np.repeat(block[..., None], 3, axis=-1)

    people = da.ones((2, 40, 60), chunks=(1, 10, 20))
    latent = xr.DataArray(
        people.map_blocks(encode, new_axis=3, chunks=(*people.chunks, (3,)), meta=np.empty(())),
        dims=("time", "y", "x", "latent"),
        coords={"y": np.arange(40.0)},
    )
    classes = classify(latent, fit_classes(blobs(100)[0], k=3))
    assert read == []
    assert isinstance(classes.data, da.Array)
    assert (classes.dims, classes.dtype) == (("time", "y", "x"), np.int16)
    assert "y" in classes.coords
    (optimized,) = dask.optimize(classes.data)
    assert len(optimized.dask.layers) == 1
    assert classes.isel(time=0, y=slice(10), x=slice(20)).compute().shape == (10, 20)
    assert len(read) == 1


# Storage and wrong input


def test_model_survives_its_bytes():
    model = fit_classes(blobs(200)[0], k="auto", ks=(2, 3, 4))
    again = ClassModel.from_bytes(model.to_bytes())
    for field in ("mean", "axes", "centers"):
        np.testing.assert_array_equal(getattr(again, field), getattr(model, field))
    assert (again.sse, again.k) == (model.sse, model.k)
    pd.testing.assert_series_equal(again.curve, model.curve)
    assert again.to_bytes() == model.to_bytes() and again.density is None
    dense = replace(model, density=np.arange(float(model.k)))
    np.testing.assert_array_equal(ClassModel.from_bytes(dense.to_bytes()).density, dense.density)
    assert ClassModel.from_bytes(fit_classes(blobs(200)[0], k=2).to_bytes()).curve is None


def test_wrong_input_is_refused_in_one_sentence():
    points = blobs(50)[0]
    with pytest.raises(InputError, match="4 distinct rows for 5 classes"):
        fit_classes(np.repeat(CORNERS[:4], 10, axis=0), k=5)
    with pytest.raises(InputError, match="0 distinct rows for 10 classes"):
        kmeans(xr.DataArray(np.full((4, 5, 2), np.nan), dims=("y", "x", "latent")))
    with pytest.raises(InputError, match="1 values that are not finite"):
        fit_classes([[0.0], [np.nan], [2.0]], k=2)
    with pytest.raises(InputError, match="shape \\(3,\\)"):
        fit_classes([0.0, 1.0, 2.0], k=2)
    lazy = xr.DataArray(da.full((4, 5, 2), np.nan), dims=("y", "x", "latent"))
    with pytest.raises(InputError, match=r"\(4, 5, 2\); .* gather_cells\(latent, sample_cells"):
        fit_classes(lazy, k=2)
    for k in (0, -3, 2.5, "some"):
        with pytest.raises(InputError, match=f'k is .*{k}.* expected "auto" or a positive number'):
            fit_classes(points, k=k)
    with pytest.raises(InputError, match=r"k is \[\]"):
        fit_classes(points, k="auto", ks=())
    with pytest.raises(InputError, match="method is 'ward'; expected one of kmeans, bisecting"):
        fit_classes(points, method="ward")
    with pytest.raises(InputError, match="3 values per cell, expected the 2"):
        classify(world()[0], fit_classes(points[:, :2], k=2))


# Real data


def test_oslo_is_grouped_as_well_as_by_scikit_learn():
    """Means of people around a cell as latents; the crowded centre becomes a class of its own."""
    folder = os.environ.get("POPDASK_DATA", "")
    path = Path(folder) / "oslo_250m" / "oslo_pop_250m_2019.tif"
    if not folder or not path.exists():
        pytest.skip("POPDASK_DATA is unset or has no oslo_250m")
    population = rioxarray.open_rasterio(path, masked=True, chunks={"x": 150}).isel(band=0)
    people = np.log1p(population.clip(max=1000))
    around = [people.rolling(y=size, x=size, center=True).mean() for size in (1, 3, 5, 7)]
    latent = xr.concat(around, "latent").compute()
    with_data = np.isfinite(latent).all("latent")
    rows = gather_cells(latent, sample_cells(with_data, 20_000))
    reference = KMeans(6, n_init=10, random_state=0).fit(StandardScaler().fit_transform(rows))
    assert fit_classes(rows, 6).sse < 1.02 * reference.inertia_
    classes = kmeans(latent, k=6, sample=20_000)
    np.testing.assert_array_equal(classes != -1, with_data)
    crowded = classes.values[people.values > np.log1p(500)]
    assert (crowded[crowded >= 0] == np.bincount(crowded[crowded >= 0]).argmax()).mean() > 0.9
