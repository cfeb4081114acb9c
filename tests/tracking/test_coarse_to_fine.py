"""Flow across many cells: what moved is found, in any chunks, and one scale is what it was."""

import dask.array as da
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from popdask.errors import InputError
from popdask.tracking._horn_schunck import (
    AROUND,
    CLEAR,
    SQUARE,
    TOP,
    Scheme,
    bound,
    refine,
    whole_cells,
)
from popdask.tracking.flow import optical_flow
from tests.tracking.worlds import country, moved, two_frame_flow

FAR = {"scales": 3, "log": True}


def redrawn(people, seed):
    return np.random.default_rng(seed).poisson(people).astype("float32")


def frame(people, chunks=None):
    data = people if chunks is None else da.from_array(people, chunks=chunks)
    return xr.DataArray(data, dims=("y", "x"))


def cube(people, chunks=None):
    data = people if chunks is None else da.from_array(people, chunks=chunks)
    years = pd.date_range("2000", periods=len(data), freq="YS")
    return xr.DataArray(data, {"time": years}, ("time", "y", "x"))


def near(flow, where, dy, dx):
    """The share of cells within a quarter of a cell of a motion."""
    miss = np.hypot(flow.u.values - dx, flow.v.values - dy)[where]
    return (miss < 0.25).mean()


@pytest.mark.parametrize("shift", [(0, 0), (0, 1), (4, 0), (8, -8), (-7, 3)])
def test_finds_a_frame_that_lies_elsewhere(shift):
    before = country((120, 130))
    after = moved(redrawn(before, 1), *shift)
    flow = two_frame_flow(frame(before), frame(after), **FAR)
    inner = before > 0
    inner[:9], inner[-9:], inner[:, :9], inner[:, -9:] = False, False, False, False
    assert near(flow, inner, *shift) >= 0.99
    assert np.isfinite(flow.u).all() and np.isfinite(flow.v).all()
    assert max(abs(flow.u).max(), abs(flow.v).max()) <= flow.attrs["bound"] == bound(3)


def towns():
    """Two towns, the first of which moves 3 cells right, the other 2 up and 4 left."""
    rng = np.random.default_rng(1)
    down, right = np.mgrid[:200, :300]
    pair = []
    for (row, column), shift in (((100, 90), (0, 3)), ((90, 210), (-2, -4))):
        hill = 2000 * np.exp(-np.hypot(down - row, right - column) / 6)
        level = hill * rng.gamma(1.0, 1.0, hill.shape)
        pair.append((rng.poisson(np.where(level < 3, 0, level)).astype("float32"), shift))
    return pair


def test_finds_towns_that_move_differently():
    pair = towns()
    before = sum(town for town, _ in pair)
    after = sum(moved(redrawn(town, 2), *shift) for town, shift in pair)
    flow = two_frame_flow(frame(before), frame(after), **FAR)
    for town, shift in pair:
        assert near(flow, town > 0, *shift) >= 0.95


def test_finds_fractions_of_a_cell_where_the_raster_is_smooth():
    down, right = np.mgrid[:90, :90]

    def waves(dx):
        return np.exp(4 + np.sin((right - dx) / 3) + np.sin(down / 3 + (right - dx) / 5))

    pair = frame(waves(0)), frame(waves(3.4))
    flow = two_frame_flow(*pair, **FAR, iterations=200, alpha=0.5)
    inner = np.s_[12:-12, 12:-12]
    assert float(abs(flow.u.values[inner] - 3.4).mean()) < 0.1
    assert float(abs(flow.v.values[inner]).mean()) < 0.1


@pytest.mark.parametrize("time", [-1, 0, 1])
def test_a_steady_motion_is_seen_in_every_centering(time):
    people = country((90, 100))
    steady = np.stack([moved(people, 2 * t, -3 * t) for t in range(3)])
    flow = optical_flow(cube(steady), centering=(0, 0, time), **FAR).isel(time=1)
    where = steady[1] > 0
    where[:12], where[-12:], where[:, :12], where[:, -12:] = False, False, False, False
    assert near(flow, where, 2, -3) >= 0.99


def plain_whole_cells(before, after, scales):
    """Every square of every scale compared in full, with its shift looked up cell by cell."""
    pyramid = [(before, after)]
    for _ in range(scales - 1):
        halved = []
        for image in pyramid[-1]:
            padded = np.pad(image, [(0, n % 2) for n in image.shape])
            halved.append(
                padded.reshape(padded.shape[0] // 2, 2, -1, 2).astype(float).mean(axis=(1, 3))
            )
        pyramid.append(tuple(halved))
    found, most = {}, TOP
    for scale in reversed(range(scales)):
        one, two = pyramid[scale]
        coarse, found = found, {}
        for j, i in np.ndindex(*(-(-n // SQUARE) for n in one.shape)):
            y, x = (
                np.arange(max(k * SQUARE - AROUND, 0), min(k * SQUARE + SQUARE + AROUND, n))
                for k, n in ((j, one.shape[0]), (i, one.shape[1]))
            )
            start = 2 * np.array(coarse.get((j // 2, i // 2), (0, 0)))
            shifts = [start + np.array(at) - most for at in np.ndindex(2 * most + 1, 2 * most + 1)]
            costs = {}
            for at in [*shifts, np.array([0, 0])]:
                rows, columns = y + at[0], x + at[1]
                inside = np.outer(
                    (rows >= 0) & (rows < two.shape[0]), (columns >= 0) & (columns < two.shape[1])
                )
                there = two[np.ix_(rows % two.shape[0], columns % two.shape[1])] * inside
                costs[tuple(at)] = abs(one[np.ix_(y, x)] - there).sum()
            least = min(costs.values())
            better = least < CLEAR * costs[tuple(start)]
            found[j, i] = (
                next(at for at, cost in costs.items() if cost == least) if better else tuple(start)
            )
        most = 1
    y, x = np.indices(before.shape) // SQUARE
    return np.array(
        [[found[at][::-1] for at in zip(*row, strict=True)] for row in zip(y, x, strict=True)]
    )


@pytest.mark.parametrize("scales", [2, 3])
def test_whole_cells_equal_a_plain_search(scales):
    before = np.log1p(country((41, 38))).astype("float32")
    after = np.log1p(moved(redrawn(country((41, 38)), 3), -3, 5)).astype("float32")
    found = whole_cells(before, after, (0, 0), (0, 41, 0, 38), (0, 1), scales)
    np.testing.assert_array_equal(
        found.transpose(1, 2, 0), plain_whole_cells(before, after, scales)
    )


def test_refining_equals_the_formula():
    rng = np.random.default_rng(0)
    before, after = rng.gamma(2.0, 1.0, (2, 9, 11)).astype("float32")
    flow = rng.integers(-1, 2, (2, 9, 11)).astype("float32")
    warped, (y, x) = before.astype(float), np.indices(before.shape)
    rows, columns = (y + flow[1]).astype(int), (x + flow[0]).astype(int)
    inside = (rows >= 0) & (rows < 9) & (columns >= 0) & (columns < 11)
    warped[inside] = after[rows[inside], columns[inside]]

    def around(field, dy, dx):
        return np.pad(field, 1, mode="edge")[1 + dy : 10 + dy, 1 + dx : 12 + dx]

    corners = [(dy, dx) for dy in (-1, 1) for dx in (-1, 1)]
    both, gain = before + warped, warped - before
    e_x = sum(dx * around(both, dy, dx) for dy, dx in corners) / 8
    e_y = sum(dy * around(both, dy, dx) for dy, dx in corners) / 8
    e_t = sum(around(gain, dy, dx) for dy, dx in corners) / 4
    u, v = flow.astype(float)
    for _ in range(5):
        mean_u, mean_v = (
            sum(around(field, dy, dx) for dy, dx in corners) / 12
            + sum(around(field, *at) for at in ((0, 1), (1, 0), (0, -1), (-1, 0))) / 6
            for field in (u, v)
        )
        miss = e_x * (mean_u - flow[0]) + e_y * (mean_v - flow[1]) + e_t
        step = miss / (1.5**2 + e_x**2 + e_y**2)
        u, v = mean_u - e_x * step, mean_v - e_y * step
    expected = flow + np.clip(np.stack([u, v]) - flow, -0.5, 0.5)
    core = (0, 9, 0, 11)
    found = refine(before, after, flow, Scheme(5, 1.5, (0, 0, 1), 1, False), core)
    np.testing.assert_allclose(found, expected, atol=1e-5)


@settings(max_examples=6)
@given(
    chunks=st.tuples(st.integers(1, 3), st.integers(20, 200), st.integers(20, 200)),
    seed=st.integers(0, 9),
    time=st.sampled_from([-1, 0, 1]),
    scales=st.sampled_from([2, 3]),
    log=st.booleans(),
)
def test_identical_in_any_chunks(chunks, seed, time, scales, log):
    people = country((211, 190), seed)
    frames = np.stack([people, moved(redrawn(people, 1), 3, -2), moved(people, 5, 1)])
    frames[1, 60:90, 50:] = np.nan
    options = {"centering": (0, 0, time), "scales": scales, "log": log, "iterations": 10}
    whole = optical_flow(cube(frames), **options)
    in_chunks = optical_flow(cube(frames, chunks), **options)
    assert in_chunks.u.chunks == cube(frames, chunks).chunks
    xr.testing.assert_identical(whole.compute(), in_chunks.compute())


def test_blocks_are_many_and_still_the_same():
    people = country((420, 400))
    pair = people, moved(redrawn(people, 1), -6, 7)
    whole = two_frame_flow(*map(frame, pair), **FAR, iterations=5)
    in_chunks = two_frame_flow(*(frame(each, (101, 70)) for each in pair), **FAR, iterations=5)
    xr.testing.assert_identical(whole.compute(), in_chunks.compute())


def test_one_scale_is_the_first_works_to_the_bit():
    people = country((40, 50))
    frames = np.stack([people, moved(people, 1, 0), people])
    plain = optical_flow(cube(frames)).compute()
    named = optical_flow(cube(frames), scales=1, iterations=1, alpha=10.0, log=False).compute()
    xr.testing.assert_identical(plain, named)
    logs = optical_flow(cube(np.log1p(frames)), alpha=0.5)
    xr.testing.assert_allclose(optical_flow(cube(frames), alpha=0.5, log=True), logs, atol=1e-5)


def test_goes_on_from_a_first_flow_that_is_known():
    people = country((80, 90))
    frames = cube(np.stack([people, moved(people, 2, 2), people]), (1, 40, 90))
    whole = optical_flow(frames, **FAR)
    later = optical_flow(frames, first=whole.isel(time=0), **FAR)
    xr.testing.assert_identical(whole.compute(), later.compute())


def test_reads_nothing_until_asked():
    def never(block):
        raise AssertionError("read")

    unread = da.zeros((3, 200, 200), chunks=(1, 90, 90)).map_blocks(
        never, dtype=float, meta=np.empty((0, 0, 0))
    )
    flow = optical_flow(cube(unread), **FAR)
    with pytest.raises(AssertionError, match="read"):
        flow.u.compute()


@pytest.mark.parametrize("scales", [0, 7, 2.5])
def test_refuses_scales_out_of_range(scales):
    with pytest.raises(InputError, match=r"scales is .* expected a whole number from 1 to 6"):
        optical_flow(cube(np.zeros((2, 5, 5))), scales=scales)
