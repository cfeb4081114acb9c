"""Displacements are those that were made, in any chunks, and nothing else is called one."""

import os
import warnings
from pathlib import Path

import dask.array as da
import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter

from popdask.errors import InputError
from popdask.io.frames import displacement_warnings
from popdask.synthetic import moving_cities
from popdask.tracking.registration import displacement, shift_frame
from tests.tracking.worlds import country, moved

DATA = Path(os.environ.get("POPDASK_DATA", "../shared/data"))
SHAPE = (300, 280)
COLUMNS = ["dy", "dx", "response"]


def cube(*frames, chunks=None):
    stack = np.stack(frames)
    data = stack if chunks is None else da.from_array(stack, chunks=chunks)
    times = {"time": np.arange(len(frames)) + 2001}
    return xr.DataArray(data, dims=("time", "y", "x"), coords=times, name="population")


def plain_shift(first, second):
    """The whole shift at which log(1 + people) correlate best on a torus."""
    one, two = (np.fft.fft2(np.log1p(frame) - np.log1p(frame).mean()) for frame in (first, second))
    surface = np.fft.ifft2(np.conj(one) * two).real
    place = np.unravel_index(surface.argmax(), surface.shape)
    return [(p + n // 2) % n - n // 2 for p, n in zip(place, surface.shape, strict=True)]


def redrawn(frame, seed):
    return np.random.default_rng(seed).poisson(frame).astype("float32")


@pytest.mark.parametrize("shift", [(0, 1), (1, 0), (-2, 3), (0, 4), (5, -8), (8, 8), (-7, -1)])
def test_names_a_whole_shift_within_a_tenth_and_equals_plain_correlation(shift):
    people = country(SHAPE)
    after = moved(redrawn(people, 1), *shift)
    (row,) = displacement(cube(people, after)).itertuples()
    assert row.suspicious
    np.testing.assert_allclose((row.dy, row.dx), shift, atol=0.1)
    assert [round(row.dy), round(row.dx)] == plain_shift(people, after)


def test_finds_half_cells():
    people = country(SHAPE)
    between = (people + moved(people, 0, 1)) / 2
    (row,) = displacement(cube(people, between)).itertuples()
    assert row.dx == pytest.approx(0.5, abs=0.1)
    assert row.dy == pytest.approx(0, abs=0.05)


@pytest.mark.parametrize("seed", range(5))
def test_nothing_is_suspicious_where_nothing_happens(seed):
    people = country(SHAPE, seed)
    found = displacement(cube(*(redrawn(people, seed + draw) for draw in range(4))))
    assert not found["suspicious"].any()
    assert (found["response"] > 0.9).all()


def test_smooth_rasters_with_noise_stand_still_and_move():
    rng = np.random.default_rng(0)
    waves = gaussian_filter(rng.normal(size=(320, 320)), 4)
    field = np.exp(3 + waves / waves.std())
    here, there = (slice(20, 300), slice(20, 300)), (slice(17, 297), slice(24, 304))
    for other, shift in ((here, (0, 0)), (there, (3, -4))):
        pair = cube(redrawn(field, 1)[here], redrawn(field, 2)[other])
        (row,) = displacement(pair).itertuples()
        assert row.suspicious == any(shift)
        np.testing.assert_allclose((row.dy, row.dx), shift, atol=0.2)


@settings(max_examples=15)
@given(
    chunks=st.tuples(st.integers(1, 3), st.integers(40, 400), st.integers(40, 400)),
    seed=st.integers(0, 9),
    missing=st.booleans(),
)
def test_identical_in_any_chunks(chunks, seed, missing):
    frames = [country((370, 290), seed), moved(country((370, 290), seed), 2, -1)]
    if missing:
        frames[0][:, 200:] = np.nan
    whole = displacement(cube(*frames))
    in_chunks = displacement(cube(*frames, chunks=chunks))
    np.testing.assert_array_equal(whole[COLUMNS], in_chunks[COLUMNS])


def test_an_empty_frame_has_no_place():
    found = displacement(cube(country(SHAPE), np.full(SHAPE, np.nan), country(SHAPE)))
    assert found["dy"].isna().all() and found["dx"].isna().all()
    assert not found["suspicious"].any()
    assert displacement(cube(country(SHAPE))).empty


def test_a_single_cell_has_no_place():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        (row,) = displacement(cube(*np.float32([[[5]], [[7]]]))).itertuples()
    assert np.isnan([row.dy, row.dx]).all() and row.response == 0 and not row.suspicious


def test_says_in_a_sentence_which_year_lies_where():
    people = country(SHAPE)
    found = displacement(cube(people, moved(people, 0, -4), moved(people, 2, -4)))
    first, second = displacement_warnings(found)
    assert first.startswith("2001 lies 4.0 cells east of 2002: ")
    assert second.startswith("2002 lies 2.0 cells north of 2003: ")
    assert displacement_warnings(displacement(cube(people, people))) == []


@settings(max_examples=30)
@given(
    dy=st.integers(-5, 5),
    dx=st.integers(-4, 4),
    chunks=st.one_of(st.none(), st.tuples(st.integers(1, 6), st.integers(1, 5))),
)
def test_a_shift_keeps_people_or_counts_them(dy, dx, chunks):
    people = country((6, 5)) + np.float32(0.1)
    data = people if chunks is None else da.from_array(people, chunks=chunks)
    frame = xr.DataArray(data, dims=("y", "x"))
    found = shift_frame(frame, dy=dy, dx=dx)
    np.testing.assert_array_equal(found.population.fillna(0), moved(people, dy, dx))
    total = found.left + float(found.population.sum(dtype=np.float64))
    assert total == pytest.approx(people.sum(dtype=np.float64), rel=1e-12)
    assert found.population.chunks == frame.chunks


@pytest.mark.parametrize("part", [0.2, 0.4])
def test_a_part_of_a_cell_is_told_and_towns_that_move_are_not(part):
    """People of each cell are shared with its neighbour, and drawn by Poisson's law."""
    mean = country(SHAPE).astype(float)
    town = np.where(mean > np.quantile(mean, 0.999), mean, 0)
    aside = (1 - part) * mean + part * np.roll(mean, 1, axis=1)
    moved = mean - town + np.roll(town, 2, axis=1)
    found = [
        displacement(cube(redrawn(mean, 1), redrawn(other, 2))) for other in (aside, moved, mean)
    ]
    assert [table["suspicious"].item() for table in found] == [True, False, False]
    (said,) = displacement_warnings(found[0])
    assert "cells west of" in said and "at their borders" in said
    assert found[0]["dx"].item() == pytest.approx(part, abs=0.15)  # shared cells are blurred


@pytest.mark.parametrize("cells", [0.5, 6])
def test_refuses_shifts_that_are_not_whole_or_too_far(cells):
    with pytest.raises(InputError, match=r"dy is .* expected whole cells, fewer than the 6"):
        shift_frame(xr.DataArray(np.zeros((6, 5)), dims=("y", "x")), dy=cells)


def test_moving_a_frame_reads_only_what_leaves():
    def never(block):
        raise AssertionError("read")

    whole = da.zeros((4, 8), chunks=(4, 4)).map_blocks(never, dtype=float, meta=np.empty((0, 0)))
    calm = da.concatenate([da.zeros((4, 2), chunks=4), whole], axis=1)
    found = shift_frame(xr.DataArray(calm, dims=("y", "x")), dx=-2)
    assert found.left == 0
    with pytest.raises(AssertionError):
        found.population.compute()


@pytest.mark.skipif(not (DATA / "oslo_250m").exists(), reason="needs the real grids")
def test_oslo_lies_still_and_a_year_that_does_not_is_named():
    rasterio = pytest.importorskip("rasterio")
    frames = []
    for path in sorted((DATA / "oslo_250m").glob("*.tif")):
        with rasterio.open(path) as raster:
            frames.append(raster.read(1).clip(0).astype("float32"))
    found = displacement(cube(*frames))
    assert len(found) == 17 and not found["suspicious"].any()
    frames[3] = moved(frames[3], 0, 4)
    first, second = displacement_warnings(displacement(cube(*frames[2:5])))
    assert "lies 4.0 cells west" in first and "lies 4.0 cells east" in second


@pytest.mark.parametrize("side", [16, 40, 100, 270])
def test_draws_of_even_land_are_not_called_displaced(side):
    """Nothing but noise has a highest peak, too."""
    land = np.full((side, side + 10), 8.0)
    found = displacement(cube(*(redrawn(land, draw) for draw in range(8))))
    assert np.hypot(found["dy"], found["dx"]).max() > 1
    assert not found["suspicious"].any()


def test_a_few_towns_on_a_small_map_stand_still_and_move():
    """The texture of towns is wide and their noise is fine: the peak may be anywhere near."""
    rng = np.random.default_rng(7)
    land = np.full((64, 64), 2.0)
    for row, column in rng.integers(4, 55, (4, 2)):
        land[row : row + 5, column : column + 5] = 600
    still = displacement(cube(*(redrawn(land, draw) for draw in range(8))))
    assert not still["suspicious"].any()
    (row,) = displacement(cube(redrawn(land, 1), redrawn(moved(land, 3, -2), 2))).itertuples()
    assert row.suspicious and [round(row.dy), round(row.dx)] == [3, -2]


def test_towns_that_move_displace_no_country():
    """Two of eleven cities move by 3 cells a year, and are the largest of this one."""
    population = moving_cities(seed=5).population["population"]
    assert (displacement(population)["dx"] > 1).all()
    assert not displacement(population)["suspicious"].any()
    there = population.copy()
    there[1:] = population[1:].shift(x=4)
    assert displacement(there[:2])["suspicious"].all()


def test_what_is_no_count_of_people_is_refused():
    flags = xr.DataArray(np.ones((2, 4, 4), bool), dims=("time", "y", "x"))
    with pytest.raises(InputError, match="holds bool; expected numbers of people"):
        displacement(flags)
