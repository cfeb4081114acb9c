"""GPW by Earth Engine: what is asked for, and what becomes of the answers; Google is not asked."""

import sys

import numpy as np
import pytest
import rasterio
from rasterio.transform import Affine

import popdask
from popdask.datasets import FetchError, fetch_gpw, gpw
from popdask.datasets.gpw import MOST_BYTES, MOST_PIXELS, pixel_requests
from popdask.errors import InputError
from tests.fetch.rasters import raster

OSLO = (10.0, 59.5, 11.0, 60.0)


def pixels(request):
    """What Earth Engine is documented to give: a GeoTIFF of the grid, without nodata declared."""
    grid = request.grid["affineTransform"]
    transform = Affine(
        grid["scaleX"], grid["shearX"], grid["translateX"],
        grid["shearY"], grid["scaleY"], grid["translateY"],
    )  # fmt: skip
    rows, columns = np.indices((request.height, request.width))
    values = (request.row + rows) * 100.0 + (request.column + columns) % 100
    values[(request.row + rows) % 10 == 0] = -9999
    return raster(values, transform, request.grid["crsCode"], None)


def test_a_rectangle_is_widened_to_whole_cells_of_the_world_grid():
    (request,) = pixel_requests((10.001, 59.501, 10.999, 59.999), 2015)
    assert (request.width, request.height) == (120, 60)
    assert request.bounds == pytest.approx((10.0, 59.5, 11.0, 60.0))
    assert request.image == (
        "CIESIN/GPWv411/GPW_Population_Count/gpw_v4_population_count_rev11_2015_30_sec"
    )
    assert request.grid["affineTransform"]["translateX"] == 10.0
    assert request.grid["dimensions"] == {"width": 120, "height": 60}


@pytest.mark.parametrize("bounds", [(-180, -60, 180, 85), (-20, -35, 55, 38), OSLO])
def test_requests_stay_below_the_limits_and_cover_the_rectangle_once(bounds):
    requests = pixel_requests(bounds, 2000)
    for request in requests:
        assert request.width * request.height * 4 <= MOST_BYTES
        assert max(request.width, request.height) <= MOST_PIXELS
    covered = sum(request.width * request.height for request in requests)
    west, south, east, north = bounds
    assert covered == round((east - west) * 120) * round((north - south) * 120)
    corners = {(request.column, request.row) for request in requests}
    assert len(corners) == len(requests)
    assert min(request.bounds[0] for request in requests) == pytest.approx(west)
    assert max(request.bounds[3] for request in requests) == pytest.approx(north)
    sizes = {(request.width, request.height) for request in requests}
    assert np.ptp([width for width, _ in sizes]) <= 1 and np.ptp([h for _, h in sizes]) <= 1


def test_answers_become_a_cube(tmp_path):
    fetched = fetch_gpw("2000:2020", tmp_path, OSLO, pixels=pixels)
    assert sorted(fetched.frames) == [2000, 2005, 2010, 2015, 2020]
    cube = popdask.open_frames(fetched.pattern)
    assert cube.rio.crs.to_epsg() == 4326
    assert cube.population.shape == (5, 60, 120)
    assert np.isnan(cube.population[0].values).sum() == 120 * 6
    assert "10.7927/H4JW8BX5" in (tmp_path / "CREDITS.txt").read_text()


def test_several_answers_are_put_together(tmp_path, monkeypatch):
    monkeypatch.setattr(gpw, "MOST_BYTES", 4 * 120 * 7)
    assert len(pixel_requests(OSLO, 2000)) == 9
    fetched = fetch_gpw(2000, tmp_path / "parts", OSLO, pixels=pixels)
    monkeypatch.undo()
    whole = fetch_gpw(2000, tmp_path / "whole", OSLO, pixels=pixels)
    with (
        rasterio.open(fetched.frames[2000]) as parts,
        rasterio.open(whole.frames[2000]) as one,
    ):
        np.testing.assert_array_equal(parts.read(1), one.read(1))
        assert parts.transform.almost_equals(one.transform)


def test_fetching_again_asks_for_nothing(tmp_path):
    fetch_gpw(2000, tmp_path, OSLO, pixels=pixels)
    assert fetch_gpw(2000, tmp_path, OSLO).new == 0, "no credentials are needed"


def test_another_answer_than_was_asked_for(tmp_path):
    (other,) = pixel_requests((10, 59, 11, 60), 2000)
    with pytest.raises(FetchError, match=r"gave 120 × 120 cells of .*; expected 120 × 60"):
        fetch_gpw(2000, tmp_path, OSLO, pixels=lambda _: pixels(other))
    with pytest.raises(FetchError, match="did not answer with a raster"):
        fetch_gpw(2000, tmp_path, OSLO, pixels=lambda _: b'{"error": 403}')
    assert not list(tmp_path.glob("*.tif"))


def test_years_and_bounds_are_looked_at_before_google_is(tmp_path):
    with pytest.raises(InputError, match=r"GPW v4\.11 has 2000 to 2020, every 5 years"):
        fetch_gpw("2000:2025", tmp_path, OSLO)
    with pytest.raises(InputError, match="expected west, south, east and north"):
        fetch_gpw("2000:2020", tmp_path, (11, 59, 10, 60))


def test_without_the_package_its_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ee", None)
    with pytest.raises(
        InputError, match=r"missing; install .* pip install 'popdask\[earthengine\]'"
    ):
        fetch_gpw(2000, tmp_path, OSLO)
