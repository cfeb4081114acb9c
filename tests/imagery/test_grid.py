import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox

from popdask.errors import InputError
from popdask.imagery.grid import CellGrid, as_grid, block_side, crs_text, z_order

whole = st.integers(-(2**31), 2**31 - 1)


def test_the_danish_grid_has_its_codes_and_corners():
    grid = CellGrid.preset("dk_100m")
    assert grid.code(61397, 6775) == "100m_61397_6775"
    assert grid.parse("100m_61397_6775") == (61397, 6775)
    assert grid.corner(61397, 6775) == (677_500.0, 6_139_700.0)
    assert CellGrid.preset("dk_1km").code(6139, 677) == "1km_6139_677"
    assert CellGrid.preset("dk_10km").label == "10km"


@settings(max_examples=25)
@given(size=st.sampled_from([0.5, 62.5, 100.0, 250.0, 1000.0, 12_500.0]), north=whole, east=whole)
def test_codes_are_read_as_written(size, north, east):
    grid = CellGrid(size)
    assert grid.parse(grid.code(north, east)) == (north, east)


@settings(max_examples=25)
@given(
    size=st.sampled_from([0.5, 100.0, 1000.0]),
    origin=st.tuples(st.integers(-500, 500), st.integers(-500, 500)),
    north=st.integers(-9000, 9000),
    east=st.integers(-9000, 9000),
)
def test_a_cell_holds_its_corner_and_its_middle(size, origin, north, east):
    grid = CellGrid(size, origin=origin)
    x, y = grid.corner(north, east)
    for shift in (0, size / 2):
        found = grid.cells_at(x + shift, y + shift)
        assert (int(found[0]), int(found[1])) == (north, east)


def test_sizes_are_named_in_the_units_of_the_crs():
    assert CellGrid(0.01, "EPSG:4326").code(5100, 300) == "0.01deg_5100_300"
    assert CellGrid(100, "EPSG:2263").label == "100US-survey-foot"
    assert CellGrid(1250.0).label == "1250m"


def test_codes_in_the_form_of_inspire_are_read():
    grid = CellGrid.preset("eu_1km")
    assert grid.parse("CRS3035RES1000mN3124000E3814000") == (3124, 3814)
    for other in ("CRS3035RES100mN3124000E3814000", "CRS25832RES1000mN3124000E3814000"):
        with pytest.raises(InputError, match="is not the code of a cell of 1km in EPSG:3035"):
            grid.parse(other)


@pytest.mark.parametrize("code", ["1km_61397_6775", "100m_61397", "100m_a_b", "", "100m_1_2_3"])
def test_other_codes_are_refused(code):
    with pytest.raises(InputError, match="expected a code such as 100m_61397_6775"):
        CellGrid(100.0).parse(code)


def test_wrong_grids_are_refused():
    with pytest.raises(InputError, match="the cell size is 0"):
        CellGrid(0)
    with pytest.raises(InputError, match="'EPSG:1', which pyproj does not know"):
        CellGrid(100, "EPSG:1")
    with pytest.raises(InputError, match="no cell grid 'dk_99m'; expected one of dk_100m"):
        CellGrid.preset("dk_99m")


def test_a_raster_of_whole_cells_is_north_up():
    box = CellGrid(100).geobox(range(61397, 61399), range(6775, 6778), pixels=200)
    assert box.shape == (400, 600)
    assert tuple(box.boundingbox) == (677_500, 6_139_700, 677_800, 6_139_900)
    assert box.transform.e == -0.5


def test_cells_cover_an_area_to_the_pixel_but_no_more():
    grid = CellGrid(100)
    assert grid.covering((100, 200, 300, 500)) == (range(2, 5), range(1, 3))
    assert grid.covering((100 - 1e-9, 200, 300 + 1e-9, 500)) == (range(2, 5), range(1, 3))
    assert grid.covering((99, 200, 301, 500)) == (range(2, 5), range(0, 4))


def test_cells_cover_an_area_of_another_crs():
    grid = CellGrid.preset("eu_1km")
    box = GeoBox.from_bbox((484_500, 5_642_970, 499_500, 5_651_030), "EPSG:32631", resolution=10)
    norths, easts = grid.covering(tuple(box.boundingbox), box.crs)
    corners = box.footprint("EPSG:3035", npoints=200).boundingbox
    assert norths.start * 1000 <= corners.bottom < (norths.start + 1) * 1000
    assert (easts.stop - 1) * 1000 < corners.right <= easts.stop * 1000


def test_a_grid_comes_from_a_name_a_size_or_itself():
    assert as_grid(100, "EPSG:25832") == as_grid("dk_100m") == as_grid(CellGrid(100.0))
    assert crs_text("+proj=laea +lat_0=50 +lon_0=9").startswith("PROJCRS")
    assert crs_text("EPSG:3035") == "EPSG:3035"


@settings(max_examples=20)
@given(
    north=st.integers(-20, 20),
    east=st.integers(-20, 20),
    shape=st.tuples(st.integers(1, 20), st.integers(1, 20)),
    side=st.sampled_from([1, 2, 4, 8]),
)
def test_cells_of_an_aligned_square_follow_one_another(north, east, shape, side):
    norths, easts = np.meshgrid(north + np.arange(shape[0]), east + np.arange(shape[1]))
    norths, easts = norths.ravel(), easts.ravel()
    order = z_order(norths, easts)
    assert sorted(order) == list(range(len(norths)))
    squares = np.stack([(-1 - norths[order]) // side, easts[order] // side], axis=1)
    changes = np.any(np.diff(squares, axis=0), axis=1).sum()
    assert changes + 1 == len(np.unique(squares, axis=0))


def test_z_order_begins_in_the_north_west():
    norths, easts = np.array([0, 1, 0, 1]), np.array([0, 0, 1, 1])
    order = z_order(norths, easts)
    assert list(zip(norths[order], easts[order], strict=True)) == [(1, 0), (1, 1), (0, 0), (0, 1)]


@pytest.mark.parametrize(
    ("pixels", "context", "side"),
    [(200, 0, 8), (200, 3, 8), (600, 0, 2), (3000, 0, 1), (3000, 3, 4)],
)
def test_blocks_are_small_but_lend_a_ring(pixels, context, side):
    assert block_side(pixels, context) == side
