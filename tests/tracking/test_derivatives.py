"""Speed, divergence and Laplacian are those of calculus, in any chunks."""

import dask.array as da
import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import convolve

from popdask.errors import InputError
from popdask.tracking.growth import divergence, laplacian, speed

Y, X = np.mgrid[:20, :24] / 4.0
DIMS = ("time", "y", "x")


def cube(values, chunks=None):
    data = values if chunks is None else da.from_array(values, chunks=chunks)
    return xr.DataArray(data, dims=DIMS)


def test_equal_scipys_stencils():
    rng = np.random.default_rng(0)
    u, v, people = rng.normal(size=(3, 2, 9, 11))
    flow = xr.Dataset({"u": cube(u), "v": cube(v)})
    slope = np.array([[0.5, 0, -0.5]])  # convolve turns its kernel round
    bend = np.array([[1, 2, 1], [2, -12, 2], [1, 2, 1]]) / 4
    for t in range(2):
        expected = convolve(u[t], slope, mode="nearest") + convolve(v[t], slope.T, mode="nearest")
        np.testing.assert_allclose(divergence(flow)[t], expected, atol=1e-12)
        expected = convolve(people[t], bend, mode="nearest")
        np.testing.assert_allclose(laplacian(cube(people))[t], expected, atol=1e-12)
    np.testing.assert_allclose(speed(flow) ** 2, u**2 + v**2)


def test_are_those_of_calculus_on_smooth_fields():
    inner = np.s_[0, 2:-2, 2:-2]
    source = xr.Dataset({"u": cube(X[None]), "v": cube(Y[None])})  # runs apart by 1/4 + 1/4
    np.testing.assert_allclose(divergence(source).values[inner], 0.5)
    whirl = xr.Dataset({"u": cube(-Y[None]), "v": cube(X[None])})
    np.testing.assert_allclose(divergence(whirl).values[inner], 0, atol=1e-12)
    bowl = cube((X**2 + Y**2)[None])
    np.testing.assert_allclose(laplacian(bowl).values[inner], 4 / 16)


@settings(max_examples=25)
@given(
    shape=st.tuples(st.integers(1, 3), st.integers(1, 12), st.integers(1, 12)),
    chunks=st.tuples(st.integers(1, 3), st.integers(1, 12), st.integers(1, 12)),
    seed=st.integers(0, 99),
)
def test_identical_in_any_chunks(shape, chunks, seed):
    rng = np.random.default_rng(seed)
    u, v, people = rng.normal(size=(3, *shape)).astype("float32")
    people[people < -1] = np.nan
    whole = xr.Dataset({"u": cube(u), "v": cube(v)})
    parts = xr.Dataset({"u": cube(u, chunks), "v": cube(v, chunks)})
    for verb in (speed, divergence):
        xr.testing.assert_identical(verb(whole), verb(parts).compute())
    found = laplacian(cube(people, chunks))
    assert found.chunks == cube(people, chunks).chunks
    xr.testing.assert_identical(laplacian(cube(people)), found.compute())
    np.testing.assert_array_equal(found.isnull(), np.isnan(people))


def test_keep_the_order_of_dimensions():
    people = cube(np.random.default_rng(0).normal(size=(2, 5, 6)))
    turned = laplacian(people.transpose("x", "time", "y"))
    assert turned.dims == ("x", "time", "y")
    np.testing.assert_array_equal(turned.transpose(*DIMS), laplacian(people))


def test_read_nothing_until_asked():
    def never(block):
        raise AssertionError("read")

    unread = cube(
        da.zeros((2, 8, 8), chunks=(1, 4, 4)).map_blocks(
            never, dtype=float, meta=np.empty((0, 0, 0))
        )
    )
    flow = xr.Dataset({"u": unread, "v": unread})
    for found in (speed(flow), divergence(flow), laplacian(unread)):
        with pytest.raises(AssertionError, match="read"):
            found.compute()


def test_refuse_what_is_no_flow():
    with pytest.raises(InputError, match="u has the dimensions"):
        divergence(xr.Dataset({"u": ("row", [1.0]), "v": ("row", [1.0])}))
    with pytest.raises(InputError, match="expected the Dataset of u and v"):
        speed(xr.Dataset())
