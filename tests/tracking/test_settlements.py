"""Settlements: equal to the rules written plainly, at any chunking and frame by frame."""

import dask.array as da
import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords
from scipy import ndimage

import popdask
from popdask.errors import InputError


def on_grid(values, resolution=1000.0, crs="EPSG:3035"):
    rows, columns = values.shape[-2:]
    box = (0, 0, columns * resolution, rows * resolution)
    coords = dict(xr_coords(GeoBox.from_bbox(box, crs, resolution=resolution), dims=("y", "x")))
    if values.ndim == 3:
        coords["time"] = 2000 + np.arange(len(values))
    return xr.DataArray(values, coords, ("time", "y", "x")[-values.ndim :])


def labelled(inside, people, lay, unknown, rule, held):
    """Number what is large enough, or was."""
    label, count = ndimage.label(inside, np.ones((3, 3)) if rule["contiguity"] == 8 else None)
    found, number = np.full(inside.shape, -1), 0
    for component in range(1, count + 1):
        here = label == component
        total, least = np.nansum(people[here]), rule["min_people"]
        lived = (here & lay).any() and ((here & unknown).any() or total >= least / 2)
        new = least + 3 * np.sqrt(least) if held else least
        if total >= new or lived:
            found[here] = number
            number += 1
    return found


def summed(values, step):
    """Cells of 1 km: the sum of their parts with data, NaN where none has."""
    rows, columns = (-n % step for n in values.shape)
    wide = np.pad(values.astype(float), ((0, rows), (0, columns)), constant_values=np.nan)
    parts = wide.reshape(wide.shape[0] // step, step, wide.shape[1] // step, step)
    return np.where(np.isnan(parts).all((1, 3)), np.nan, np.nansum(parts, (1, 3)))


def plain(people, land, step, rule, hold):
    """The rules as one would say them."""
    found, lay = np.full(people.shape, -1), None
    least = rule["density"] * summed(land * (rule["resolution"] / 1000) ** 2, step)
    for t, frame in enumerate(people):
        count = summed(frame, step)
        if lay is None:
            lay = unknown = np.zeros(count.shape, bool)
            inside = (count >= least) & (count > 0)
        else:
            unknown = lay & np.isnan(count)
            stays = lay & (count >= least - 4 * np.sqrt(least))
            enters = ~lay & (count >= least + 4 * np.sqrt(least))
            inside = (stays | enters) & (count > 0) | unknown
        label = labelled(inside, count, lay, unknown, rule, hold and t > 0)
        found[t] = label.repeat(step, 0).repeat(step, 1)[: frame.shape[0], : frame.shape[1]]
        lay = label >= 0 if hold else None
    return found


@st.composite
def worlds(draw):
    """A few years of a country that wavers around the threshold, with gaps and a coast."""
    step = draw(st.sampled_from([1, 1, 2, 3]))
    shape = draw(st.integers(1, 4)), draw(st.integers(1, 19)), draw(st.integers(1, 23))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    base = ndimage.gaussian_filter(rng.standard_normal(shape[1:]), 1) * 3
    people = rng.poisson(np.exp(5.5 + base + 0.15 * rng.standard_normal(shape)) / step**2)
    people = people.astype(np.float32)
    people[rng.random(shape) < draw(st.sampled_from([0, 0.1]))] = np.nan
    if draw(st.booleans()):
        people[draw(st.integers(0, shape[0] - 1))] = np.nan
    land = rng.choice([0, 0.5, 1.0], shape[1:], p=[0.1, 0.1, 0.8])
    chunks = tuple(draw(st.integers(1, n)) for n in shape)
    rule = {
        "density": draw(st.sampled_from([300.1, 200.1, 555.5])),  # no tie of rounded sums
        "min_people": draw(st.sampled_from([0, 500, 2000])),
        "contiguity": draw(st.sampled_from([4, 8])),
    }
    return people, land if draw(st.booleans()) else None, step, chunks, rule


@settings(max_examples=30)
@given(worlds(), st.booleans())
def test_settlements_equal_the_rules_at_any_chunking(world, hold):
    people, land, step, chunks, rule = world
    resolution = {1: 1000, 2: 500, 3: 300}[step]
    population = on_grid(people, resolution)
    ground = None if land is None else on_grid(land, resolution)
    share = np.ones(people.shape[1:]) if land is None else land
    expected = plain(people, share, step, rule | {"resolution": resolution}, hold)
    cut = population.chunk(dict(zip(population.dims, chunks, strict=True)))
    found = popdask.settlements(cut, land=ground, hold=hold, **rule)
    assert found.chunks == cut.chunks
    np.testing.assert_array_equal(found.compute(scheduler="sync"), expected)


@settings(max_examples=10)
@given(worlds(), st.integers(1, 3))
def test_frames_can_be_found_one_after_another(world, before):
    people, _, step, chunks, rule = world
    population = on_grid(people, 1000 / step).chunk(y=chunks[1], x=chunks[2])
    whole = popdask.settlements(population, **rule).compute(scheduler="sync")
    early = popdask.settlements(population[:before], **rule).compute(scheduler="sync")
    xr.testing.assert_identical(early, whole[:before])
    if before < len(people):
        later = popdask.settlements(population[before:], first=early[-1], **rule)
        xr.testing.assert_identical(later.compute(scheduler="sync"), whole[before:])
        one = popdask.settlements(population[before], first=early[-1], **rule)
        xr.testing.assert_identical(one.compute(scheduler="sync"), whole[before])


def cells(*rows):
    return on_grid(np.array(rows, np.float32)[:, None])


def test_a_settlement_is_held_until_it_has_lost_half():
    villages = cells([900, 0, 499], [360, 0, 499], [260, 0, 499], [240, 0, 565], [229, 0, 570])
    found = popdask.settlements(villages).values[:, 0]
    assert found.tolist() == [[0, -1, -1], [0, -1, -1], [0, -1, -1], [-1, -1, -1], [-1, -1, 0]]


def test_cells_without_data_are_not_empty():
    gap = cells([900, 700, 0], [np.nan] * 3, [900, 240, 0], [900, np.nan, 400])
    found = popdask.settlements(gap).values[:, 0]
    assert found.tolist() == [[0, 0, -1], [0, 0, -1], [0, 0, -1], [0, 0, 0]]


def test_nothing_happens_where_people_are_only_counted_again():
    rng = np.random.default_rng(7)
    mean = np.exp(5.5 + 3 * ndimage.gaussian_filter(rng.standard_normal((120, 150)), 1.5))
    drawn = on_grid(rng.poisson(mean, (6, 120, 150)).astype(np.float32))
    held, free = (popdask.settlements(drawn, hold=hold).values >= 0 for hold in (True, False))
    assert (held[1:] != held[:-1]).sum() < 0.05 * (free[1:] != free[:-1]).sum()
    assert held.mean() == pytest.approx(free.mean(), rel=0.1)


def test_their_number_does_not_creep_where_people_are_only_counted_again():
    mean = np.zeros((160, 160))
    mean[::4, ::4] = np.linspace(380, 620, 1600).reshape(40, 40)  # villages of one cell
    drawn = np.random.default_rng(7).poisson(mean, (8, 160, 160)).astype(np.float32)
    count = popdask.settlements(on_grid(drawn)).max(("y", "x")).values + 1
    assert count[0] == pytest.approx((mean >= 500).sum(), rel=0.05)
    assert abs(count[1:] - count[0]).max() <= 0.05 * count[0]


def test_degrees_have_cells_of_their_own_area():
    people = on_grid(np.full((3, 1), 250, np.float32), 1 / 120, "EPSG:4326")
    north = people.assign_coords(y=people.y + 60)
    assert (popdask.settlements(people, min_people=0) < 0).all()  # 0.85 km² at the equator
    assert (popdask.settlements(north, min_people=0) == 0).all()  # 0.43 km² at 60°


def test_on_mercators_map_cells_are_those_of_the_ground():
    """At 60° north a metre of the map is half a metre, and a cell of 1 km a quarter of a km²."""
    people = on_grid(np.full((16, 16), 10, np.float32), 250, "EPSG:3857")
    assert popdask.to_1km(people).shape == (4, 4)  # 160 people per km² at the equator
    assert (popdask.settlements(people, min_people=0) < 0).all()
    north = people.assign_coords(y=people.y + 8.42e6)
    assert popdask.to_1km(north).shape == (2, 2)  # each of 8 × 125 m, and 640 people
    assert (popdask.settlements(north) == 0).all()
    assert (popdask.degree_of_urbanisation(popdask.to_1km(north)) == 13).all()
    table = popdask.summarize(xr.zeros_like(north, "int64").expand_dims(time=[2000]), north)
    assert table["area_km2"][0] == pytest.approx(4, rel=0.02)


def test_finer_cells_are_summed_and_drawn_back():
    fine = on_grid(np.arange(2 * 7 * 9, dtype=np.float32).reshape(2, 7, 9), 400)
    fine[0, :2, :2] = np.nan
    fine[1, 6, 8] = np.nan
    coarse = popdask.to_1km(fine)
    assert coarse.shape == (2, 4, 5)
    assert popdask.io.grid_of(coarse).transform.a == 800
    assert np.isnan(coarse.values[0, 0, 0])
    assert float(coarse.sum()) == float(fine.sum())
    chunked = popdask.to_1km(fine.chunk(time=1, y=3, x=5))
    xr.testing.assert_identical(chunked.compute(), coarse)
    back = popdask.from_1km(chunked, fine.chunk(y=3, x=5))
    assert back.chunksizes["y"] == (3, 3, 1)
    np.testing.assert_array_equal(back, popdask.from_1km(coarse, fine))
    np.testing.assert_array_equal(back[:, ::2, ::2], coarse)
    shares = popdask.to_1km(fine * 0 + 0.25, mean=True)
    assert np.nanmin(shares) == np.nanmax(shares) == 0.25
    xr.testing.assert_identical(popdask.to_1km(coarse), coarse)
    with pytest.raises(InputError, match="7 × 9 cells; expected 4 × 5, the cells of 1 km"):
        popdask.from_1km(fine, fine)


def test_nothing_is_read_before_it_is_asked_for():
    def read(block):
        raise AssertionError("a cell was read")

    people = on_grid(np.ones((2, 8, 8), np.float32), 500)
    lazy = people.copy(data=da.from_array(people.values, 3).map_blocks(read, dtype="f4"))
    assert popdask.settlements(lazy, land=lazy[0]).shape == (2, 8, 8)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"density": 0}, "density is 0; expected people per km²"),
        ({"min_people": -1}, "min_people is -1; expected a number"),
        ({"contiguity": 6}, "contiguity is 6; expected 4"),
        ({"land": on_grid(np.ones((4, 4)))}, "land has the grid 4 × 4"),
        ({"first": on_grid(np.ones((4, 4), int))}, "first has the sizes .*; expected"),
        ({"first": on_grid(np.ones((3, 5)))}, "first holds float64"),
    ],
)
def test_faults_are_told_in_one_sentence(options, message):
    with pytest.raises(InputError, match=message):
        popdask.settlements(on_grid(np.ones((2, 3, 5), np.float32)), **options)
