"""The flow equals Horn & Schunck's formula, in any chunks, and sees motions that are known."""

import os
from itertools import product
from pathlib import Path

import dask.array as da
import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from popdask.errors import InputError
from popdask.tracking.flow import moving_cells, optical_flow
from tests.tracking.worlds import two_frame_flow

OFFSETS = {0: (-1, 1), 1: (0, 1), -1: (-1, 0)}
YEARS = np.arange("2000", "2100", dtype="datetime64[Y]").astype("datetime64[ns]")
centerings = st.tuples(*[st.sampled_from([-1, 0, 1])] * 3)


def shifted(a, dt, dy, dx):
    """Give the cells at an offset, beyond the edges the nearest ones."""
    t, y, x = (
        np.clip(np.arange(n) + d, 0, n - 1) for n, d in zip(a.shape, (dt, dy, dx), strict=True)
    )
    return a[np.ix_(t, y, x)]


def plain_gradient(frames, centering):
    """E_x, E_y and E_t of all frames, each the sum over the eight corners of a cube.

    A corner without data is the one of the other frame, and 0 where that has none either.
    """
    x_offsets, y_offsets, t_offsets = (OFFSETS[c] for c in centering)
    gradient = np.zeros((3, *frames.shape))
    for (k, dt), (j, dy), (i, dx) in product(
        enumerate(t_offsets), enumerate(y_offsets), enumerate(x_offsets)
    ):
        cell, other = (shifted(frames, t, dy, dx) for t in (dt, t_offsets[1 - k]))
        corner = np.nan_to_num(np.where(np.isnan(cell), other, cell)) / 4
        gradient[0] += corner * (2 * i - 1) / (x_offsets[1] - x_offsets[0])
        gradient[1] += corner * (2 * j - 1) / (y_offsets[1] - y_offsets[0])
        gradient[2] += corner * (2 * k - 1) / (t_offsets[1] - t_offsets[0])
    return gradient


def plain_mean(field):
    """Mean of the neighbours: 1/6 for each of the four beside, 1/12 for each at a corner."""
    field = field[None]
    beside = sum(shifted(field, 0, j, i) for j, i in [(-1, 0), (1, 0), (0, -1), (0, 1)])
    corners = sum(shifted(field, 0, j, i) for j, i in product([-1, 1], [-1, 1]))
    return (beside / 6 + corners / 12)[0]


def plain_flow(people, iterations=1, alpha=10.0, centering=(0, 0, 0), warm_start=True):
    """The formula of the docstring, frame by frame in float64."""
    gradient = plain_gradient(people.astype(float), centering)
    u, v = np.zeros((2, *people.shape))
    for t, (e_x, e_y, e_t) in enumerate(gradient.swapaxes(0, 1)):
        if warm_start and t > 0:
            u[t], v[t] = u[t - 1], v[t - 1]
        for _ in range(iterations):
            mean_u, mean_v = plain_mean(u[t]), plain_mean(v[t])
            step = (e_x * mean_u + e_y * mean_v + e_t) / (alpha**2 + e_x**2 + e_y**2)
            u[t], v[t] = mean_u - e_x * step, mean_v - e_y * step
    return u, v


def cube(people, chunks=None):
    """Wrap people (time, y, x) as the DataArray that the verbs take."""
    data = people if chunks is None else da.from_array(people, chunks=chunks)
    return xr.DataArray(data, {"time": YEARS[: len(data)]}, ("time", "y", "x"))


def invent(shape, seed=0, most=1000.0, empty=0.1):
    """Clustered people up to about `most` per cell, a share of the cells without data."""
    rng = np.random.default_rng(seed)
    people = (rng.gamma(0.3, 1.0, shape) * most / 5).astype(np.float32)
    people[rng.random(shape) < empty] = np.nan
    return people


def assert_matches_formula(flow, people, **settings):
    """Compare with the formula, to 1e-5 of the fastest or the rounding of the formula."""
    rounding = 1e-14 * np.nanmax(people, initial=0.0) / settings.get("alpha", 10.0)
    for component, expected in zip((flow.u, flow.v), plain_flow(people, **settings), strict=True):
        tolerance = 1e-5 * np.abs(expected).max() + rounding
        np.testing.assert_allclose(component, expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize("centering", list(product([-1, 0, 1], repeat=3)))
def test_equals_the_formula_in_every_centering(centering):
    people = invent((3, 9, 11))
    flow = optical_flow(cube(people), centering=centering)
    assert_matches_formula(flow, people, centering=centering)


@pytest.mark.parametrize("log", [False, True])
def test_nobody_moves_for_a_year_that_is_missing(log):
    """What has no data in one of two frames is the same in both; what never has is nobody."""
    people = invent((4, 12, 14), empty=0.0)
    people[1:], people[:, :, :3] = people[0], np.nan
    settings = {"iterations": 3, "log": log}
    still = optical_flow(cube(people), **settings)
    people[2] = np.nan
    missing = optical_flow(cube(people), **settings)
    for t in (0, 1, 3):
        np.testing.assert_array_equal(missing.u[t], still.u[t])
        np.testing.assert_array_equal(missing.v[t], still.v[t])


@pytest.mark.parametrize("warm_start", [True, False])
@pytest.mark.parametrize("iterations", [1, 3, 20, 40])
def test_equals_the_formula_after_iterations(iterations, warm_start):
    people = invent((4, 23, 19), seed=1)
    given_settings = {"iterations": iterations, "alpha": 10.0, "warm_start": warm_start}
    flow = optical_flow(cube(people, (1, 10, 10)), **given_settings)
    assert_matches_formula(flow, people, **given_settings)


@settings(max_examples=30)
@given(
    shape=st.tuples(st.integers(1, 4), st.integers(1, 12), st.integers(1, 12)),
    seed=st.integers(0, 99),
    most=st.sampled_from([1.0, 300.0, 1e5]),
    iterations=st.integers(1, 20),
    alpha=st.sampled_from([1e-9, 0.5, 10.0, 1e9]),
    centering=centerings,
    warm_start=st.booleans(),
)
def test_equals_the_formula_anywhere(shape, seed, most, iterations, alpha, centering, warm_start):
    people = invent(shape, seed, most)
    given_settings = {
        "iterations": iterations,
        "alpha": alpha,
        "centering": centering,
        "warm_start": warm_start,
    }
    flow = optical_flow(cube(people), **given_settings)
    assert_matches_formula(flow, people, **given_settings)


@st.composite
def chunked_shapes(draw):
    """A shape, small to wide, and ragged chunks of it, down to single cells."""
    chunks = [draw(st.lists(st.integers(1, most), min_size=1, max_size=5)) for most in (3, 12, 12)]
    return tuple(sum(c) for c in chunks), tuple(tuple(c) for c in chunks)


@settings(max_examples=20)
@given(
    chunked=chunked_shapes(),
    seed=st.integers(0, 99),
    empty=st.sampled_from([0.0, 0.5, 1.0]),
    iterations=st.sampled_from([1, 2, 5, 17, 40]),
    centering=centerings,
    warm_start=st.booleans(),
)
def test_identical_in_any_chunks(chunked, seed, empty, iterations, centering, warm_start):
    shape, chunks = chunked
    people = invent(shape, seed, empty=empty)
    given_settings = {
        "iterations": iterations,
        "centering": centering,
        "warm_start": warm_start,
    }
    whole = optical_flow(cube(people), **given_settings)
    in_chunks = optical_flow(cube(people, chunks), **given_settings)
    assert in_chunks.u.chunks == in_chunks.v.chunks == chunks
    np.testing.assert_array_equal(in_chunks.u, whole.u)
    np.testing.assert_array_equal(in_chunks.v, whole.v)


def hill(times, velocity, size=64, width=6.0, height=100.0):
    """People on a smooth hill that moves by velocity (x, y) cells per frame."""
    t, y, x = np.ogrid[:times, :size, :size]
    x, y = x - size / 2 - velocity[0] * t, y - size / 2 - velocity[1] * t
    return (height * np.exp(-(x**2 + y**2) / (2 * width**2))).astype(np.float32)


@pytest.mark.parametrize("velocity", [(0.4, 0.0), (0.0, -0.4), (0.3, 0.2), (-0.25, 0.3)])
def test_recovers_a_known_motion(velocity):
    """Where the hill is steep, the flow is its true displacement to a few percent."""
    people = hill(3, velocity)
    flow = optical_flow(cube(people), iterations=500, alpha=0.5).isel(time=1)
    steep = people[1] > 30
    assert flow.u.values[steep].mean() == pytest.approx(velocity[0], abs=0.03)
    assert flow.v.values[steep].mean() == pytest.approx(velocity[1], abs=0.03)


def test_two_frames_recover_a_known_motion():
    before, after = cube(hill(2, (0.3, -0.2)))
    flow = two_frame_flow(before, after, iterations=500, alpha=0.5)
    steep = before.values > 30
    assert flow.u.values[steep].mean() == pytest.approx(0.3, abs=0.03)
    assert flow.v.values[steep].mean() == pytest.approx(-0.2, abs=0.03)


@pytest.mark.parametrize("frames", [1, 3])
def test_no_change_is_exactly_no_motion(frames):
    people = np.repeat(invent((1, 20, 20), seed=3), frames, axis=0)
    flow = optical_flow(cube(people, (1, 7, 6)), iterations=20)
    assert not flow.u.values.any()
    assert not flow.v.values.any()


@settings(max_examples=5)
@given(seed=st.integers(0, 99), iterations=st.sampled_from([1, 4, 20]))
def test_forward_flow_equals_backward_flow(seed, iterations):
    """Forward flow of frame t and backward flow of frame t + 1 see the same differences."""
    people = cube(invent((4, 15, 13), seed), (2, 6, 13))
    cold = {"iterations": iterations, "warm_start": False}
    forward = optical_flow(people, centering=(0, 0, 1), **cold)
    backward = optical_flow(people, centering=(0, 0, -1), **cold)
    for t in range(3):
        between = two_frame_flow(people[t], people[t + 1], iterations=iterations)
        xr.testing.assert_equal(between, forward.isel(time=t))
        after = backward.isel(time=t + 1).assign_coords(time=between.time)
        xr.testing.assert_equal(between, after)
    moves = (forward.u != 0) | (forward.v != 0)
    np.testing.assert_array_equal(moving_cells(people, iterations=iterations), moves[:3])


@pytest.mark.parametrize(("time_centering", "kept"), [(-1, 4), (0, 3), (1, 3)])
@pytest.mark.parametrize("warm_start", [True, False])
def test_an_appended_frame_changes_only_what_sees_it(time_centering, kept, warm_start):
    people = cube(invent((5, 16, 16), seed=5), (1, 8, 8))
    given_settings = {"centering": (0, 0, time_centering), "warm_start": warm_start}
    before = optical_flow(people[:4], **given_settings)
    after = optical_flow(people, **given_settings)
    for name in ("u", "v"):
        changed = (before[name].values != after[name].values[:4]).any(axis=(1, 2))
        assert changed.tolist() == [False] * kept + [True] * (4 - kept)


def test_building_the_graph_reads_nothing():
    def read():
        raise RuntimeError("a chunk was read")

    unread = da.map_blocks(
        read, chunks=((1,) * 3, (20, 20), (20, 5)), dtype="float32", meta=np.empty((0, 0, 0))
    )
    flow = optical_flow(cube(unread), iterations=40)
    pair = two_frame_flow(cube(unread)[0], cube(unread)[1])
    with pytest.raises(RuntimeError, match="a chunk was read"):
        flow.u.compute()
    with pytest.raises(RuntimeError, match="a chunk was read"):
        pair.v.compute()


@pytest.mark.parametrize("settings", [{}, {"iterations": 40}, {"warm_start": False}])
def test_tasks_grow_linearly_with_chunks_and_frames(settings):
    def tasks_per_chunk(frames, side):
        population = cube(da.zeros((frames, 20 * side, 20 * side), chunks=(1, 20, 20)))
        flow = optical_flow(population, **settings)
        return len(dict(flow.u.__dask_graph__())) / population.data.npartitions

    assert tasks_per_chunk(3, 8) < 1.25 * tasks_per_chunk(3, 4)
    assert tasks_per_chunk(12, 4) < 1.25 * tasks_per_chunk(3, 4)
    assert tasks_per_chunk(12, 8) < 40 * (1 + settings.get("iterations", 1) // 10)


def test_keeps_coordinates_and_reads_other_layouts():
    people = invent((2, 6, 7), empty=0.0)
    population = cube(people).assign_coords(
        time=np.array(["2000", "2005"], "datetime64[ns]"), x=np.arange(7.0), y=np.arange(6.0)
    )
    population = population.assign_coords(spatial_ref=xr.Variable((), 0, {"crs_wkt": "LOCAL"}))
    flow = optical_flow(population)
    assert set(flow.coords) == {"time", "y", "x", "spatial_ref"}
    assert flow.spatial_ref.attrs == {"crs_wkt": "LOCAL"}
    assert flow.u.attrs["units"] == "cells per frame"
    assert flow.u.dtype == flow.v.dtype == np.float32
    xr.testing.assert_equal(optical_flow(population.transpose("x", "time", "y")), flow)
    whole_people = population.round()
    xr.testing.assert_equal(
        optical_flow(whole_people.astype("int16")), optical_flow(whole_people.astype("float64"))
    )


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("iterations", 0),
        ("iterations", 1.5),
        ("alpha", 0.0),
        ("alpha", -1.0),
        ("alpha", 1e-200),
        ("alpha", float("inf")),
        ("alpha", float("nan")),
        ("centering", (0, 0, 2)),
        ("centering", (0, 0)),
    ],
)
def test_a_wrong_setting_is_named(setting, value):
    with pytest.raises(InputError, match=f"^{setting} is "):
        optical_flow(cube(invent((2, 4, 4))), **{setting: value})


def test_wrong_dimensions_are_named():
    people = cube(invent((2, 4, 4)))
    with pytest.raises(InputError, match="'band'"):
        optical_flow(people.rename(time="band"))
    with pytest.raises(InputError, match="at least one cell"):
        optical_flow(people[:0])


def test_real_towns_match_the_formula():
    folder = Path(os.environ.get("POPDASK_DATA", "")) / "oslo_250m"
    if not os.environ.get("POPDASK_DATA") or not folder.is_dir():
        pytest.skip("POPDASK_DATA does not hold the Oslo grid")
    rasterio = pytest.importorskip("rasterio")
    people = []
    for year in (2017, 2018, 2019):
        with rasterio.open(folder / f"oslo_pop_250m_{year}.tif") as raster:
            people.append(raster.read(1).astype(np.float32))
    flow = optical_flow(cube(np.stack(people), (1, 150, 170)), iterations=3)
    assert_matches_formula(flow, np.stack(people), iterations=3)
    assert float(np.hypot(flow.u, flow.v).max()) > 0


@pytest.mark.parametrize("iterations", [1, 3])
@pytest.mark.parametrize("time_centering", [-1, 0, 1])
def test_a_chain_goes_on_from_a_known_frame(iterations, time_centering):
    """The last frames of a cube, begun at a known one, are those of the whole cube to the bit."""
    rng = np.random.default_rng(5)
    people = rng.poisson(20, (5, 11, 13)).astype(np.float32)
    population = cube(people, (1, 4, 6))
    settings = {"iterations": iterations, "centering": (0, 0, time_centering)}
    whole = optical_flow(population, **settings).compute()
    rest = optical_flow(population[2:], first=whole.isel(time=2), **settings)
    assert rest.u.chunks == population[2:].chunks
    xr.testing.assert_identical(rest.compute(), whole.isel(time=slice(2, None)))


def test_a_known_frame_must_lie_on_the_grid():
    population = cube(np.zeros((2, 4, 5), np.float32))
    first = optical_flow(population[:, :3]).isel(time=0)
    with pytest.raises(InputError, match="first frame's flow has the sizes"):
        optical_flow(population, first=first)
