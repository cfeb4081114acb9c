import numpy as np
import pyproj
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords, xr_zeros
from rasterio.transform import Affine

from popdask.errors import InputError
from popdask.io.grids import (
    cell_size_m,
    check_degrees,
    grid_of,
    in_cells,
    pixel_area_km2,
    same_grid,
)
from popdask.io.rasters import read_grid

METRIC = GeoBox((4, 6), Affine(250, 0, 212_000, 0, -250, 6_691_000), "EPSG:25833")
ARCSEC = GeoBox((600, 9), Affine(1 / 12, 0, 97.0, 0, -1 / 12, 30.0), "EPSG:4326")


def on(grid: GeoBox) -> xr.DataArray:
    return xr.DataArray(
        np.zeros(grid.shape), dims=("y", "x"), coords=xr_coords(grid, dims=("y", "x"))
    )


def test_the_grid_of_a_slice_is_its_own():
    part = on(METRIC)[1:3, 2:5]
    assert same_grid(grid_of(part), METRIC[1:3, 2:5])


def test_an_array_without_crs_or_grid_is_refused():
    array = xr.DataArray(np.zeros((2, 2)), dims=("y", "x"), coords={"y": [1.0, 0], "x": [0.0, 1]})
    with pytest.raises(InputError, match="has no CRS"):
        grid_of(array)
    with pytest.raises(InputError, match="has no grid"):
        grid_of(array.drop_vars(["y", "x"]))


@given(st.sets(st.integers(0, 9), min_size=2), st.booleans())
def test_cells_that_are_not_even_are_no_grid(columns, rounded):
    fine = GeoBox((4, 10), Affine(1 / 120, 0, 170, 0, -1 / 120, 54), "EPSG:4326")
    chosen = on(fine).isel(x=sorted(columns))
    if rounded:
        chosen = chosen.assign_coords(x=chosen.x.astype("float32"))
    steps = set(np.diff(sorted(columns)).tolist())
    if len(steps) == 1:
        assert grid_of(chosen).resolution.x == pytest.approx(steps.pop() / 120, rel=2e-3)
    else:
        with pytest.raises(InputError, match="no grid; expected evenly spaced"):
            grid_of(chosen)


@pytest.mark.parametrize("cell", [1 / 120, 1 / 24, 0.1])
def test_the_grid_of_coordinates_in_float32_is_that_of_all_of_them(cell):
    wide = GeoBox((900, 3400), Affine(cell, 0, -179.9, 0, -cell, 89.9), "EPSG:4326")
    rounded = {axis: on(wide)[axis].astype("float32") for axis in ("x", "y")}
    found = grid_of(on(wide).assign_coords(rounded))
    assert found.transform.almost_equals(wide.transform, 2e-5)
    assert found.resolution.x == pytest.approx(cell, rel=1e-6)
    assert grid_of(on(wide)) == on(wide).odc.geobox


def test_the_grid_of_ghs_pop_goes_around():
    header = Affine(1 / 120, 0, -180.00791666666666, 0, -1 / 120, 89.09958333333333)
    assert GeoBox((21_384, 43_202), header, "EPSG:4326").boundingbox.right > 180.008
    check_degrees("GHS-POP", GeoBox((21_384, 43_202), header, "EPSG:4326"))
    with pytest.raises(InputError, match="are no degrees"):
        check_degrees("GHS-POP", GeoBox((21_384, 43_204), header, "EPSG:4326"))


@pytest.mark.parametrize("box", [(0, 0, 4e6, 10), (0, 89, 10, 93), (-180, -10, 190, 10)])
def test_metres_are_no_degrees(tmp_path, box):
    grid = GeoBox.from_bbox(box, "EPSG:4326", shape=(4, 40))
    array = on(grid)
    with pytest.raises(InputError, match="are no degrees, and its CRS is WGS 84"):
        grid_of(array)
    array.rio.to_raster(tmp_path / "pop.tif")
    with pytest.raises(InputError, match=r"pop.tif lies .* are no degrees"):
        read_grid(str(tmp_path / "pop.tif"))
    around = GeoBox.from_bbox((0, -90, 360, 90), "EPSG:4326", resolution=5)
    assert grid_of(on(around)) == around


def test_grids_are_the_same_up_to_rounding():
    def shifted(metres: float) -> GeoBox:
        return GeoBox(METRIC.shape, Affine.translation(metres, 0) @ METRIC.transform, METRIC.crs)

    assert same_grid(METRIC, shifted(0.01))
    assert not same_grid(METRIC, shifted(1))
    assert not same_grid(METRIC, METRIC[:3])
    assert not same_grid(METRIC, GeoBox(METRIC.shape, METRIC.transform, "EPSG:25832"))


def test_areas_on_the_ellipsoid_equal_geodesic_polygons():
    """Each cell's outline is followed in small steps, since a parallel is no geodesic."""
    area = pixel_area_km2(on(ARCSEC))
    geod = pyproj.Geod(ellps="WGS84")
    for row in (0, 200, 359, 360, 599):
        south, north = 30 - (row + 1) / 12, 30 - row / 12
        along = np.linspace(97, 97 + 1 / 12, 50)
        lon, lat = np.r_[along, along[::-1]], np.r_[np.full(50, south), np.full(50, north)]
        assert area[row] == pytest.approx(abs(geod.polygon_area_perimeter(lon, lat)[0]) / 1e6, 1e-8)


def test_the_areas_of_the_world_add_up_to_the_ellipsoid():
    world = GeoBox.from_bbox((-180, -90, 180, 90), "EPSG:4326", resolution=1)
    assert pixel_area_km2(on(world)).sum() * 360 == pytest.approx(510_065_621.7, rel=1e-9)
    sphere = GeoBox.from_bbox((-180, -90, 180, 90), "EPSG:4047", resolution=1)
    assert pixel_area_km2(on(sphere)).sum() * 360 == pytest.approx(4 * np.pi * 6371.007**2)


@pytest.mark.parametrize(
    "crs",
    [
        "EPSG:3857",
        pyproj.CRS("EPSG:3857+5773").to_wkt(),
        "EPSG:3395",
        "EPSG:4087",
        "+proj=merc +ellps=WGS84 +towgs84=0,0,0 +type=crs",
        "+proj=merc +lon_0=180 +ellps=WGS84 +type=crs",
    ],
)
@pytest.mark.parametrize("north", [8e6, 1e6, 500, -6e6])
def test_areas_where_rows_are_parallels_are_those_of_the_ground(crs, north):
    """On Mercator's map a cell at 60° north is a quarter of what it measures in the plane."""
    grid = GeoBox((5, 3), Affine(1000, 0, 7e5, 0, -1000, north), crs)
    globe = pyproj.Transformer.from_crs(crs, "EPSG:4326", always_xy=True)
    along = np.linspace(7e5, 7.01e5, 50)
    for row, area in enumerate(pixel_area_km2(on(grid))):
        south = north - 1000 * (row + 1)
        x, y = np.r_[along, along[::-1]], np.r_[np.full(50, south), np.full(50, south + 1000)]
        around = pyproj.Geod(ellps="WGS84").polygon_area_perimeter(*globe.transform(x, y))[0]
        assert area == pytest.approx(abs(around) / 1e6, rel=1e-7)


def test_areas_and_sizes_in_feet():
    feet = GeoBox((2, 2), Affine(1000, 0, 0, 0, -1000, 0), "EPSG:2263")
    assert cell_size_m(on(feet)) == pytest.approx(1000 * 1200 / 3937)
    np.testing.assert_allclose(pixel_area_km2(on(feet)), (1.2 / 3.937) ** 2)


def test_distances_become_cells():
    population = on(METRIC)
    assert in_cells("2.5 km", population) == 10
    assert in_cells("500m", population) == 2
    assert in_cells("7 cells", on(ARCSEC)) == in_cells(7, on(ARCSEC)) == 7
    assert in_cells("1.5", population) == in_cells(1.5, population) == 1.5


def test_distances_are_those_of_the_ground_on_mercators_map():
    """At 60° north a cell of 250 m is half as wide as in the plane."""
    north = pyproj.Transformer.from_crs(4326, 3857, always_xy=True).transform(10, 60)[1]
    grid = GeoBox((5, 5), Affine(250, 0, 1e6, 0, -250, north + 625), "EPSG:3857")
    west, east = (grid.transform * (column, 2.5) for column in (0, 1))
    globe = pyproj.Transformer.from_crs(3857, 4326, always_xy=True)
    lon, lat = globe.transform(*zip(west, east, strict=True))
    side = pyproj.Geod(ellps="WGS84").line_length(lon, lat)
    assert cell_size_m(on(grid)) == pytest.approx(side, rel=3e-3)  # the ellipsoid's other axis
    assert in_cells("2.5 km", on(grid)) == pytest.approx(2500 / side, rel=3e-3)


@pytest.mark.parametrize("distance", ["far", "0", -3, "2 miles", "1.2.3 km", float("nan")])
def test_what_is_no_distance_is_refused(distance):
    with pytest.raises(InputError, match="the distance"):
        in_cells(distance, on(METRIC))


def test_metres_need_square_cells_on_a_projected_grid():
    oblong = GeoBox((4, 6), Affine(250, 0, 0, 0, -500, 0), "EPSG:25833")
    for grid in (ARCSEC, oblong):
        with pytest.raises(InputError, match="expected square cells in a projected CRS"):
            in_cells("2.5 km", xr_zeros(grid))


@pytest.mark.parametrize(
    ("distance", "size", "cells"), [("32.3 km", 100, 323), ("2.01 km", 30, 67)]
)
def test_a_distance_of_whole_cells_is_a_whole_number(distance, size, cells):
    grid = GeoBox.from_bbox((0, 0, 10 * size, 10 * size), "EPSG:25833", resolution=size)
    assert in_cells(distance, xr_zeros(grid)) == cells
