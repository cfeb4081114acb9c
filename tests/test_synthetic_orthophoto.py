"""The drawn country is the same in every window, and shows the houses that it says it has."""

import numpy as np
import pytest
import rasterio
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from popdask.errors import InputError
from popdask.synthetic import drawn_orthophoto
from popdask.synthetic._buildings import COLOURS, Form, Material
from popdask.synthetic.orthophoto import paint, things_near

TOWN = (604_200, 6_204_800)  # the corner of a district that grows
ROOFS = {
    Material.RED_TILE,
    Material.DARK_TILE,
    Material.CEMENT,
    Material.METAL,
    Material.THATCH,
    Material.TAR,
}


@pytest.fixture(scope="module")
def town():
    return drawn_orthophoto((0.3, 0.4), origin=TOWN)


@pytest.fixture(scope="module")
def picture(town):
    return town.image.compute()


@pytest.fixture(scope="module")
def country():
    return drawn_orthophoto((12, 12))


def split(length):
    """Give any chunks along an axis of 24 steps, of so many pixels each."""
    return st.lists(st.integers(1, 24), min_size=1, max_size=3).map(
        lambda cuts: tuple(np.diff(sorted({0, 24, *(cut % 24 for cut in cuts)})) * (length // 24))
    )


@settings(max_examples=8)
@given(rows=split(600), cols=split(792))
def test_any_chunks_draw_the_same_picture(town, picture, rows, cols):
    cols = (*cols[:-1], cols[-1] + 8)
    drawn = town.lazy((1, tuple(map(int, rows)), tuple(map(int, cols))))
    xr.testing.assert_equal(drawn.compute(), picture)


@pytest.mark.parametrize("resolution", [0.5, 1.0, 2.5])
def test_a_smaller_window_is_a_part_of_a_larger_one(resolution):
    large = drawn_orthophoto((0.3, 0.4), origin=TOWN, resolution=resolution)
    small = drawn_orthophoto(
        (0.1, 0.2), origin=(TOWN[0] + 100, TOWN[1] + 100), resolution=resolution
    )
    part = large.image.sel(y=small.image.y, x=small.image.x)
    np.testing.assert_array_equal(small.image, part)
    np.testing.assert_array_equal(small.people(), large.people()[1:2, 1:3])


def test_coarser_pixels_are_means(picture):
    coarse = drawn_orthophoto((0.3, 0.4), origin=TOWN, resolution=2.0).image
    means = picture.astype(float).coarsen(y=4, x=4).mean()
    assert float(abs(coarse - means).max()) <= 1
    np.testing.assert_allclose(coarse.x, means.x)


def test_grey_is_the_brightness_of_the_colours(picture):
    colours = drawn_orthophoto((0.3, 0.4), origin=TOWN, bands=4).image.astype(float)
    grey = xr.dot(colours[:3], xr.DataArray([0.299, 0.587, 0.114], dims="band"), dim="band")
    difference = grey - picture[0]
    assert abs(float(difference.mean())) < 0.5
    assert float(difference.std()) < 8  # two grains of the camera
    assert COLOURS.shape == (len(Material), 4)


def test_every_house_lies_where_its_roof_is(town):
    west, _, _, north = town.bounds
    canvas = paint(round(-north * 2), round(west * 2), (600, 800), seed=town.seed, year=town.year)
    points = town.houses.geometry
    rows = np.floor((north - points.y) * 2).astype(int)
    cols = np.floor((points.x - west) * 2).astype(int)
    seen = canvas.material[rows, cols]
    assert len(points) > 50
    assert np.isin(seen, list(ROOFS)).mean() > 0.9  # crowns hang over the others
    assert np.isin(seen, [*ROOFS, Material.CROWN]).all()


def test_people_live_in_the_cells_of_their_houses(town):
    people, houses = town.people(), town.houses
    assert people.sum() == houses.people.sum() > 0
    for y in people.y.values:
        for x in people.x.values:
            box = houses.cx[x - 50 : x + 50, y - 50 : y + 50]
            assert people.sel(y=y, x=x) == box.people.sum()
    assert people.rio.crs == town.image.rio.crs
    assert people.rio.bounds() == town.image.rio.bounds() == town.bounds


@settings(max_examples=15)
@given(size=st.sampled_from([100, 200, 300, 400, 500, 600, 1000, 4000]))
def test_coarser_cells_keep_everybody(country, size):
    fine = country.people().coarsen(y=size // 100, x=size // 100).sum()
    np.testing.assert_array_equal(country.people(size), fine)
    np.testing.assert_allclose(country.people(size).x, fine.x)


def test_most_cells_are_empty(country):
    share = float((country.people() == 0).mean())
    assert share == pytest.approx(0.88, abs=0.015)
    assert set(country.houses.kind) == {"detached", "row", "flats", "farm"}
    assert set(country.houses.roof) == {"gable", "hip", "flat"}


def test_the_perfect_observer_is_unbiased_and_not_quite_right(country):
    people, expected = country.people(), country.expected()
    r2 = 1 - float(((people - expected) ** 2).mean() / people.var())
    assert 0.96 < r2 < 0.985
    assert float(expected.sum()) == pytest.approx(float(people.sum()), rel=0.02)


def test_what_confuses_is_there(country):
    things = things_near(country.bounds, 0, 0)
    empty = things[(things["people"] == 0) & (things["home"] < 0)]
    large = empty[(empty["length"] > 10) & (empty["form"] != Form.PATCH)]
    barns = np.isin(large["form"], [Form.GABLE, Form.FLAT])
    assert barns.sum() > 100
    assert (large["form"] == Form.ARC).sum() > 50
    assert (large["form"] == Form.ROCK).sum() > 100
    assert (empty["material"] == Material.PAINT).sum() > 1000  # cars
    homes = country.houses
    inside = np.minimum(homes.geometry.x % 100, 100 - homes.geometry.x % 100)
    assert (inside < 3).sum() > 50  # houses cut in two by the edge of a cell


def test_years_later_a_district_has_grown_and_most_houses_are_the_same(country):
    later = drawn_orthophoto((12, 12), year=20)
    before, after = (set(w.houses.geometry.to_wkt()) for w in (country, later))
    assert len(after - before) > 0.1 * len(before)
    assert 0 < len(before - after) < 0.05 * len(before)
    gain = (later.people() - country.people()).coarsen(y=4, x=4).sum()
    assert gain.max() > 100
    assert (gain == 0).mean() > 0.7


def test_another_seed_is_another_country(town, picture):
    other = drawn_orthophoto((0.3, 0.4), origin=TOWN, seed=1)
    assert (other.image != picture).mean() > 0.8


def test_nothing_is_drawn_until_asked_and_a_window_alone():
    world = drawn_orthophoto((30, 30))
    image = world.image
    assert image.shape == (1, 60_000, 60_000)
    assert image.data.npartitions == 900
    chunks = world.lazy((1, 200, 200))
    corner = chunks[:, -200:, :200]
    assert len(corner.data.__dask_graph__()) < 2 * chunks.data.npartitions + 2
    small = drawn_orthophoto((0.1, 0.1), origin=world.origin)
    np.testing.assert_array_equal(corner, small.image)


def test_the_file_holds_the_picture(town, picture, tmp_path):
    path = town.write(tmp_path / "new" / "town.tif", strip=512)
    with rasterio.open(path) as file:
        assert file.block_shapes == [(512, 512)]
        assert file.crs.to_epsg() == 25832
        assert file.transform == town.transform
        np.testing.assert_array_equal(file.read(), picture)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"bands": 2}, "bands is 2"),
        ({"resolution": 0.3}, "resolution is 0.3"),
        ({"resolution": 1.5}, "resolution is 1.5"),
        ({"shape_km": (0, 1)}, "shape_km is"),
        ({"shape_km": (1, 0.25)}, "shape_km is"),
        ({"origin": (600_050, 6_200_000)}, "origin is"),
        ({"year": -1}, "year is -1"),
        ({"seed": -1}, "seed -1"),
    ],
)
def test_wrong_settings_are_one_sentence(settings, message):
    with pytest.raises(InputError, match=message):
        drawn_orthophoto(**settings)


def test_cells_that_do_not_divide_the_window_are_refused(town):
    with pytest.raises(InputError, match="cell_size is 70"):
        town.people(70)
