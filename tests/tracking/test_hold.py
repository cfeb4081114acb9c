"""Classes held through time equal the rule told plainly, under any chunking and frame by frame."""

import dask
import dask.array as da
import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from popdask.errors import InputError
from popdask.tracking.classify import classify, fit_classes, kmeans

DIMS = ("time", "y", "x", "latent")
MODEL = fit_classes(np.random.default_rng(5).normal(0, 1, (300, 3)), k=5)


def walk(seed, frames=5, shape=(7, 9)):
    """Latents that wander about, some of them missing."""
    rng = np.random.default_rng(seed)
    steps = rng.normal(0, 0.4, (frames, *shape, 3)).cumsum(0) + rng.normal(0, 1, (*shape, 3))
    steps[rng.random(steps.shape[:3]) < 0.1] = np.nan
    return xr.DataArray(steps.astype(np.float32), dims=DIMS)


def plain(latent, hold, before):
    """The rule as one would say it, cell by cell."""
    found = np.full(latent.shape[:3], -1)
    for t, y, x in np.ndindex(found.shape):
        z = (latent.values[t, y, x].astype(float) - MODEL.mean) @ MODEL.axes
        if np.isnan(z).any():
            continue
        distance = np.sqrt(((z - MODEL.centers) ** 2).sum(1))
        best, past = distance.argmin(), [*before, *found[:t]][-2:]
        kept = next((classes[y, x] for classes in past[::-1] if classes[y, x] >= 0), -1)
        keeps = kept >= 0 and distance[kept] - distance[best] <= hold
        found[t, y, x] = kept if keeps else best
    return found


@given(st.integers(0, 2**31), st.sampled_from([0.1, 0.5, 2.0]))
@settings(max_examples=20)
def test_classes_are_held_by_the_rule(seed, hold):
    latent, nothing = walk(seed), np.full((1, 7, 9), -1)
    np.testing.assert_array_equal(classify(latent, MODEL, hold=hold), plain(latent, hold, nothing))


@given(
    st.integers(0, 2**31),
    st.tuples(st.integers(1, 5), st.integers(1, 7), st.integers(1, 9), st.integers(1, 3)),
)
@settings(max_examples=10)
def test_any_chunking_gives_the_same_classes(seed, chunks):
    latent = walk(seed)
    cut = classify(latent.chunk(dict(zip(DIMS, chunks, strict=True))), MODEL, hold=0.5)
    assert cut.chunks is not None
    xr.testing.assert_identical(cut.compute(), classify(latent, MODEL, hold=0.5))


def test_no_hold_is_the_nearest_centre():
    latent = walk(1)
    xr.testing.assert_identical(classify(latent, MODEL, hold=0), classify(latent, MODEL))
    alone = [classify(frame, MODEL) for frame in latent]
    xr.testing.assert_equal(classify(latent, MODEL), xr.concat(alone, "time"))
    xr.testing.assert_equal(kmeans(latent, 3, hold=0.0), kmeans(latent, 3))
    assert (kmeans(latent, 3, hold=9.0).diff("time") != 0).sum() < (
        kmeans(latent, 3).diff("time") != 0
    ).sum()


@pytest.mark.parametrize("lazy", [False, True])
def test_an_appended_frame_goes_on_from_the_last(lazy):
    latent = walk(2).chunk(y=4) if lazy else walk(2)
    whole = classify(latent, MODEL, hold=0.5)
    xr.testing.assert_equal(classify(latent[:3], MODEL, hold=0.5), whole[:3])
    rest = classify(latent[3:], MODEL, hold=0.5, first=whole[1:3])
    xr.testing.assert_equal(rest, whole[3:])
    one = classify(latent[3], MODEL, hold=0.5, first=whole[1:3])
    xr.testing.assert_equal(one, whole[3])
    (known,) = np.nonzero((whole[2] >= 0).values.ravel())[:1]
    alone = classify(latent[3], MODEL, hold=0.5, first=whole[2])
    np.testing.assert_array_equal(alone.values.flat[known], whole[3].values.flat[known])


@pytest.mark.parametrize("lazy", [False, True])
def test_a_class_is_held_over_a_year_without_data_and_not_over_two(lazy):
    latent = walk(3, frames=6)
    there = latent.where(xr.DataArray([True, False, True, False, False, True], dims="time"))
    found = classify(there.chunk(time=1, y=3) if lazy else there, MODEL, hold=0.5)
    assert (found[[1, 3, 4]] == -1).all()
    xr.testing.assert_equal(found[2], classify(latent[2], MODEL, hold=0.5, first=found[0]))
    xr.testing.assert_equal(found[5], classify(latent[5], MODEL))
    assert (found[2] != classify(latent[2], MODEL)).any()


def test_noise_changes_no_class_and_a_true_change_does():
    rng = np.random.default_rng(0)
    middle = (MODEL.centers[0] + MODEL.centers[1]) / 2 / MODEL.axes.diagonal() + MODEL.mean
    still = middle + rng.normal(0, 0.05, (6, 10, 10, 3))
    there = MODEL.centers[1] / MODEL.axes.diagonal() + MODEL.mean
    still[4:, :5] = there
    latent = xr.DataArray(still, dims=DIMS)
    assert (classify(latent, MODEL)[:4].diff("time") != 0).any()
    found = classify(latent, MODEL, hold=0.5)
    assert (found[:, 5:] == found[0, 5:]).all() and (found[:4] == found[0]).all()
    assert (found[4:, :5] == 1).all()


def test_it_is_lazy():
    def refuse(block):
        raise AssertionError("a block was read")

    data = da.zeros((3, 8, 8, 3), chunks=(1, 4, 4, 3)).map_blocks(refuse, dtype=float)
    with dask.config.set(scheduler="sync"):
        classes = classify(xr.DataArray(data, dims=DIMS), MODEL, hold=0.5)
    assert classes.shape == (3, 8, 8) and classes.dtype == np.int16


def test_every_frame_asks_for_the_workers_that_latents_ask_for():
    with dask.annotate(resources={"GPU": 1}):
        data = da.map_overlap(abs, da.zeros((3, 8, 8, 3), chunks=(1, 4, 4, 3)), depth=(0, 1, 1, 0))
    classes = classify(xr.DataArray(data, dims=DIMS), MODEL, hold=0.5).data
    asked = [layer for layer in classes.dask.layers.values() if layer.annotations]
    assert len(asked) == 3 * len(data.dask.layers)


def test_only_the_cells_of_one_frame_are_held_at_a_time():
    order = []

    def read(block, block_info=None):
        order.append(block_info[0]["chunk-location"][0])
        return block

    data = da.zeros((3, 8, 8, 3), chunks=(1, 4, 4, 3)).map_blocks(read, dtype=float)
    order.clear()
    classify(xr.DataArray(data, dims=DIMS), MODEL, hold=0.5).compute(scheduler="threads")
    assert order == sorted(order) and len(order) == 12


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"hold": -1.0}, "hold is -1.0"),
        ({"hold": float("nan")}, "hold is nan"),
        ({"hold": 0.5, "first": xr.DataArray(np.zeros((2, 2), int), dims=("y", "x"))}, "first has"),
    ],
)
def test_what_cannot_be_held_is_refused(settings, message):
    with pytest.raises(InputError, match=message):
        classify(walk(0), MODEL, **settings)
    with pytest.raises(InputError, match="held from frame to frame"):
        classify(walk(0).expand_dims("member"), MODEL, hold=0.5)
