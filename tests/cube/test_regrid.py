import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox
from rasterio.transform import Affine
from rasterio.warp import Resampling, reproject

from popdask.io.grids import share_out, source_window

SOURCE = GeoBox((30, 40), Affine(1000, 0, 500_000, 0, -1000, 6_600_000), "EPSG:25833")
TARGETS = {
    "shifted": GeoBox((60, 70), Affine(700, 0, 496_300, 0, -700, 6_603_300), "EPSG:25833"),
    "equal-area": GeoBox((60, 70), Affine(900, 0, 4_600_000, 0, -900, 4_065_000), "EPSG:3035"),
    "geographic": GeoBox((70, 100), Affine(0.01, 0, 14.9, 0, -0.01, 59.7), "EPSG:4326"),
    "much finer": GeoBox((320, 420), Affine(99, 0, 499_500, 0, -99, 6_600_500), "EPSG:25833"),
    "much coarser": GeoBox((6, 6), Affine(1e4, 0, 49e4, 0, -1e4, 6.61e6), "EPSG:25833"),
}


def move(people: np.ndarray, target: GeoBox, rows: slice, columns: slice) -> np.ndarray:
    window = source_window(SOURCE, target, rows, columns)
    return share_out(people[window], SOURCE, window, target, rows, columns)


def everywhere(target: GeoBox) -> tuple[slice, slice]:
    return slice(0, target.shape[0]), slice(0, target.shape[1])


def slices_of(size: int) -> st.SearchStrategy[slice]:
    ends = st.lists(st.integers(0, size), min_size=2, max_size=2, unique=True)
    return ends.map(lambda both: slice(min(both), max(both)))


@pytest.fixture
def people() -> np.ndarray:
    counts = np.random.default_rng(0).poisson(5, SOURCE.shape).astype("float64")
    counts[3:6, 10:20] = np.nan
    return counts


@pytest.mark.parametrize("name", TARGETS)
def test_every_person_arrives(people, name):
    moved = move(people, TARGETS[name], *everywhere(TARGETS[name]))
    assert np.nansum(moved) == pytest.approx(np.nansum(people), rel=1e-12)


@pytest.mark.parametrize("name", TARGETS)
@settings(max_examples=10)
@given(data=st.data())
def test_a_window_is_cut_from_the_whole_to_the_bit(name, data):
    target = TARGETS[name]
    counts = np.random.default_rng(0).poisson(5, SOURCE.shape).astype("float64")
    rows, columns = (data.draw(slices_of(size)) for size in target.shape)
    whole = move(counts, target, *everywhere(target))[rows, columns]
    np.testing.assert_array_equal(move(counts, target, rows, columns), whole)


FIJI = GeoBox((40, 60), Affine(1000, 0, 795_000, 0, -1000, 8_170_000), "EPSG:32760")


@pytest.mark.parametrize("west", [175.0, 175.03, -180.0])
def test_cells_on_the_antimeridian_stay_there(west):
    """Taveuni lies on both sides of it; the second grid has it in its very middle."""
    people = np.random.default_rng(2).poisson(5, FIJI.shape).astype("float64")
    columns = 3600 if west == -180 else 100
    target = GeoBox((40, columns), Affine(0.1, 0, west, 0, -0.1, -15), "EPSG:4326")
    window = source_window(FIJI, target, *everywhere(target))
    moved = share_out(people[window], FIJI, window, target, *everywhere(target))
    assert np.nansum(moved) == pytest.approx(people.sum(), rel=1e-12)
    held = np.flatnonzero((moved > 0).any(axis=0)) * 0.1 + west
    assert ((held + 0.1) % 360 > 179.6).all()
    assert (held % 360 < 180.5).all()
    rows, half = slice(10, 33), slice(columns // 2, columns)
    window = source_window(FIJI, target, rows, half)
    part = share_out(people[window], FIJI, window, target, rows, half)
    np.testing.assert_array_equal(part, moved[rows, half])


def test_a_source_that_ends_on_the_antimeridian_is_read_at_both_ends():
    """Cells of a tenth of the target's: those beside the seam lie far from the window's rim."""
    source = GeoBox((100, 18_000), Affine(0.02, 0, -180, 0, -0.02, -16), "EPSG:4326")
    target = GeoBox((4, 6), Affine(20_000, 0, 740_000, 0, -20_000, 8_180_000), "EPSG:32760")
    assert source_window(source, target, *everywhere(target))[1] == slice(0, 18_000)


def test_cells_within_one_of_the_target_are_added_up_to_the_bit(people):
    np.testing.assert_array_equal(move(people, SOURCE, *everywhere(SOURCE)), people)
    aside = GeoBox((30, 40), SOURCE.transform @ Affine.translation(3, -2), SOURCE.crs)
    moved = move(people, aside, *everywhere(aside))
    np.testing.assert_array_equal(moved[2:, :-3], people[:-2, 3:])
    coarse = GeoBox((6, 8), SOURCE.transform @ Affine.scale(5), SOURCE.crs)
    sums = np.nansum(people.reshape(6, 5, 8, 5), (1, 3))
    np.testing.assert_array_equal(move(people, coarse, *everywhere(coarse)), sums)


def test_a_cell_is_shared_by_area():
    """A cell of 100 people, moved by 3/10 of a cell right and 1/2 down, meets four cells."""
    people = np.full(SOURCE.shape, np.nan)
    people[10, 10] = 100
    shift = Affine.translation(-300, 500)
    target = GeoBox(SOURCE.shape, shift @ SOURCE.transform, SOURCE.crs)
    moved = move(people, target, *everywhere(target))
    np.testing.assert_allclose(moved[10:12, 10:12], [[35, 15], [35, 15]])
    assert np.isnan(moved).sum() == moved.size - 4


def test_shares_agree_with_gdal_where_gdal_loses_nobody():
    """On one CRS GDAL's sum is exact; parts of 1/20 of a cell come within 1/20 of its people."""
    people = np.random.default_rng(1).poisson(5, SOURCE.shape).astype("float64")
    target = TARGETS["shifted"]
    expected = np.full(target.shape, np.nan)
    reproject(
        people,
        expected,
        src_transform=SOURCE.transform,
        src_crs="EPSG:25833",
        dst_transform=target.transform,
        dst_crs="EPSG:25833",
        src_nodata=np.nan,
        dst_nodata=np.nan,
        resampling=Resampling.sum,
    )
    moved = move(people, target, *everywhere(target))
    np.testing.assert_array_equal(np.isnan(moved), np.isnan(expected))
    assert np.nanmax(np.abs(moved - expected)) < people.max() / 20


def test_grids_that_do_not_meet_give_an_empty_window():
    far = GeoBox((5, 5), Affine(1000, 0, 0, 0, -1000, 0), "EPSG:25833")
    rows, columns = source_window(SOURCE, far, slice(0, 5), slice(0, 5))
    assert rows.start == rows.stop or columns.start == columns.stop
