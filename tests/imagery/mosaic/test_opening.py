import os
import subprocess
import sys
import tracemalloc
from pathlib import Path

import dask
import numpy as np
import pytest
import rasterio
import rasterio.shutil
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from pyproj import Transformer
from rasterio.enums import ColorInterp

from popdask.errors import InputError
from popdask.imagery.cutting import cut_cells
from popdask.imagery.grid import CellGrid
from popdask.imagery.mosaic import open_mosaic
from tests.imagery.image_files import CRS, NORTH_WEST, invent, write_image

FLANDERS = Path(os.environ.get("POPDASK_DATA") or "/nonexistent") / "flanders_s2_10m"


def test_a_file_is_read_as_it_is(tmp_path):
    values = invent((3, 50, 70))
    image = open_mosaic(write_image(tmp_path / "a.tif", values))
    assert image.dims == ("band", "y", "x")
    assert image.dtype == np.uint8
    assert image.rio.crs.to_epsg() == 25832
    np.testing.assert_array_equal(image, values)
    np.testing.assert_array_equal(image.x[:2], NORTH_WEST[0] + np.array([2.5, 7.5]))
    np.testing.assert_array_equal(image.y[:2], NORTH_WEST[1] - np.array([2.5, 7.5]))
    assert image.valid.values.all()
    assert image.attrs["nodata"] == 0


def test_a_fresh_interpreter_opens_a_file(tmp_path):
    path = write_image(tmp_path / "a.tif", invent((3, 50, 70)))
    code = (
        f"from popdask.imagery.mosaic import open_mosaic; print(open_mosaic({str(path)!r}).rio.crs)"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "EPSG:25832", done.stderr


def test_geotiff_cog_vrt_and_zarr_are_one_image(tmp_path):
    values = invent((3, 90, 110))
    tif = write_image(tmp_path / "a.tif", values, nodata=7)
    rasterio.shutil.copy(tif, tmp_path / "cog.tif", driver="COG")
    rasterio.shutil.copy(tif, tmp_path / "a.vrt", driver="VRT")
    stored = open_mosaic(tif).drop_vars("valid").to_dataset(name="image")
    stored.to_zarr(tmp_path / "a.zarr", consolidated=False)
    for grid, resolution in ((None, None), ("dk_100m", 5.0), ("dk_100m", 10.0)):
        expected = open_mosaic(tif, grid=grid, resolution=resolution).compute()
        for name in ("cog.tif", "a.vrt", "a.zarr"):
            found = open_mosaic(tmp_path / name, grid=grid, resolution=resolution).compute()
            xr.testing.assert_identical(found, expected)


def test_on_its_own_lattice_nothing_is_resampled(tmp_path):
    values = invent((1, 45, 50))
    corner = (NORTH_WEST[0] + 15, NORTH_WEST[1] - 10)
    image = open_mosaic(write_image(tmp_path / "a.tif", values, corner=corner), grid="dk_100m")
    assert image.shape == (1, 60, 60)
    np.testing.assert_array_equal(image[:, 2:47, 3:53], values)
    assert int(image.valid.sum()) == 45 * 50
    assert int(image.where(~image.valid, 0).sum()) == 0


@pytest.mark.parametrize("times", [2, 4])
def test_coarsening_takes_the_average(tmp_path, times):
    values = invent((2, 40, 60))
    path = write_image(tmp_path / "a.tif", values)
    image = open_mosaic(path, grid="dk_100m", resolution=5.0 * times)
    parts = values.reshape(2, 40 // times, times, 60 // times, times).astype(float)
    np.testing.assert_allclose(image, parts.mean((2, 4)), atol=0.51)


def test_coarsening_averages_the_pixels_that_have_data(tmp_path):
    values = np.full((1, 40, 40), 100, np.uint8)
    values[0, :3] = 0
    path = write_image(tmp_path / "a.tif", values, nodata=0)
    image = open_mosaic(path, grid="dk_100m", resolution=10)
    assert not image.valid[0].any()
    np.testing.assert_array_equal(image[0, 1:], 100)


def test_refining_is_bilinear(tmp_path):
    slope = (np.arange(40)[:, None] * 2 + np.arange(40) * 3)[None].astype(np.float32)
    image = open_mosaic(write_image(tmp_path / "a.tif", slope), grid="dk_100m", resolution=2.5)
    inner = np.arange(80) / 2 - 0.25
    expected = inner[:, None] * 2 + inner * 3
    np.testing.assert_allclose(image[0, 1:-1, 1:-1], expected[1:-1, 1:-1], rtol=1e-5)


def test_sheets_across_a_seam_are_averaged_as_one(tmp_path):
    """The seam does not lie on a pixel of the result."""
    values = invent((1, 40, 40))
    whole = write_image(tmp_path / "whole.tif", values)
    left = write_image(tmp_path / "left.tif", values[:, :, :17])
    right = write_image(
        tmp_path / "right.tif", values[:, :, 17:], corner=(NORTH_WEST[0] + 85, NORTH_WEST[1])
    )
    expected = open_mosaic(whole, grid="dk_100m", resolution=20).compute()
    xr.testing.assert_identical(
        open_mosaic([left, right], grid="dk_100m", resolution=20).compute(), expected
    )


@pytest.mark.parametrize("shifted", [0.0, 1.3])
def test_later_files_fill_gaps_or_the_other_way_round(tmp_path, shifted):
    """Also where the files are on different lattices."""
    first = np.full((1, 20, 20), 10, np.uint8)
    first[:, :10] = 0
    second = np.full((1, 20, 20), 20, np.uint8)
    second[:, :, 10:] = 0
    a = write_image(tmp_path / "a.tif", first, nodata=0)
    corner = (NORTH_WEST[0] + shifted, NORTH_WEST[1])
    b = write_image(tmp_path / "b.tif", second, nodata=0, corner=corner)
    expected = np.array([[20, 0], [10, 10]], np.uint8)
    at = slice(4, None, 10)
    found = open_mosaic([a, b], grid="dk_100m")
    np.testing.assert_array_equal(found[0, :20, :20][at, at], expected)
    np.testing.assert_array_equal(found.valid[:20, :20][at, at], expected > 0)
    found = open_mosaic([a, b], grid="dk_100m", on_top="last")
    np.testing.assert_array_equal(found[0, :20, :20][at, at], [[20, 0], [20, 10]])


def test_alpha_is_no_band_but_tells_what_has_data(tmp_path):
    values = np.concatenate([invent((3, 20, 20), low=0), np.full((1, 20, 20), 255, np.uint8)])
    values[3, :5] = 0
    colours = [ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.alpha]
    image = open_mosaic(write_image(tmp_path / "a.tif", values, colours=colours))
    assert image.shape == (3, 20, 20)
    np.testing.assert_array_equal(image.valid, values[3] > 0)
    np.testing.assert_array_equal(image[:, 5:], values[:3, 5:])


@pytest.mark.parametrize(("bands", "nodata"), [(2, None), (4, None), (1, 7), (3, 7)])
def test_alpha_tells_what_has_data_beside_any_bands_and_nodata(tmp_path, bands, nodata):
    values = np.concatenate([invent((bands, 20, 20), low=8), np.full((1, 20, 20), 255, np.uint8)])
    values[-1, :5] = 0
    values[:-1, :, :3] = 7
    colours = [ColorInterp.gray, *[ColorInterp.undefined] * (bands - 1), ColorInterp.alpha]
    settings = {"colours": colours, "nodata": nodata, "photometric": "MINISBLACK"}
    image = open_mosaic(write_image(tmp_path / "a.tif", values, **settings))
    assert image.shape == (bands, 20, 20)
    expected = (values[-1] > 0) & (values[0] != 7 if nodata else True)
    np.testing.assert_array_equal(image.valid, expected)


def test_a_mask_tells_what_has_data(tmp_path):
    mask = np.full((20, 20), 255, np.uint8)
    mask[:, 7:] = 0
    path = write_image(tmp_path / "a.tif", invent((3, 20, 20), low=0), mask=mask)
    np.testing.assert_array_equal(open_mosaic(path).valid, mask > 0)


def test_undeclared_padding_can_be_named(tmp_path):
    values = invent((3, 20, 20))
    values[:, :4] = 0
    values[1, 10, 10] = 0
    path = write_image(tmp_path / "a.tif", values)
    assert open_mosaic(path).valid.values.all()
    np.testing.assert_array_equal(open_mosaic(path, nodata=0).valid, values.any(0))


def test_missing_floats_have_no_data(tmp_path):
    values = np.ones((2, 20, 20), np.float32)
    values[:, 3] = np.nan
    image = open_mosaic(write_image(tmp_path / "a.tif", values))
    assert np.isnan(image.attrs["nodata"])
    assert int(image.valid.sum()) == 19 * 20


@pytest.mark.parametrize("dtype", ["uint16", "int16", "int32", "float64"])
def test_other_kinds_of_numbers_stay(tmp_path, dtype):
    values = invent((1, 20, 20)).astype(dtype) * 100
    path = write_image(tmp_path / "a.tif", values)
    assert open_mosaic(path, grid="dk_100m", resolution=10).dtype == dtype
    np.testing.assert_array_equal(open_mosaic(path, grid="dk_100m"), values)


def test_a_reprojected_place_keeps_its_value(tmp_path):
    """The image says where it is: x in one band, y in the other."""
    corner = (500_000.0, 5_640_000.0)
    y, x = np.mgrid[:300, :400] * 10 + 5
    values = np.stack([corner[0] + x, corner[1] - y]).astype("float64")
    path = write_image(tmp_path / "a.tif", values, corner=corner, pixel=10, crs="EPSG:32631")
    image = open_mosaic(path, grid="eu_1km", align=True).compute()
    assert image.shape[1] % 100 == image.shape[2] % 100 == 0
    where = np.meshgrid(image.x, image.y)
    true = Transformer.from_crs(3035, 32631, always_xy=True).transform(*where)
    inside = image.valid.values
    assert 100_000 < inside.sum() < 130_000
    deep = inside & (np.abs(true[0] - 502_000) < 1900) & (np.abs(true[1] - 5_638_500) < 1400)
    for band, expected in zip(image.values, true, strict=True):
        np.testing.assert_allclose(band[deep], expected[deep], atol=0.01)


@pytest.fixture(scope="module")
def two_sheets(tmp_path_factory):
    """Two sheets of 10 m that overlap, on different lattices, with gaps."""
    folder = tmp_path_factory.mktemp("sheets")
    paths = []
    for seed, corner in enumerate([(500_000, 5_640_000), (500_403, 5_639_703)]):
        values = invent((2, 80, 90), seed)
        values[:, 40:60, 30:60] = 0
        path = folder / f"{seed}.tif"
        paths.append(write_image(path, values, corner=corner, pixel=10, crs="EPSG:32631", nodata=0))
    grid = CellGrid(500.0, "EPSG:3035")
    return paths, grid, open_mosaic(paths, grid=grid, resolution=10, align=True).compute()


@settings(max_examples=12)
@given(chunks=st.tuples(st.integers(40, 160), st.integers(40, 160)))
def test_identical_in_any_chunks(two_sheets, chunks):
    paths, grid, expected = two_sheets
    image = open_mosaic(paths, grid=grid, resolution=10, align=True, chunks=chunks)
    assert max(image.chunks[1]) <= chunks[0]
    xr.testing.assert_identical(image.compute(), expected)


def test_blocks_end_on_whole_cells(tmp_path):
    path = write_image(tmp_path / "a.tif", invent((1, 30, 400)), pixel=50)
    image = open_mosaic(path, grid="dk_1km")
    assert image.chunks[1:] == ((40,), (60, 160, 160, 40))


def test_opening_reads_headers_alone(tmp_path):
    path = write_image(tmp_path / "a.tif", invent((1, 40, 40)))
    image = open_mosaic(path, grid="dk_100m", resolution=10)
    path.unlink()
    with pytest.raises(InputError, match=r"a\.tif does not exist; expected an image"):
        image.compute()


def empty_photo(path, side):
    """A file of the full size that holds no block."""
    transform = rasterio.Affine(0.5, 0, NORTH_WEST[0], 0, -0.5, NORTH_WEST[1])
    form = {"width": side, "height": side, "count": 1, "dtype": "uint8", "crs": CRS}
    with rasterio.open(path, "w", "GTiff", transform=transform, tiled=True, sparse_ok=True, **form):
        return path


@pytest.mark.parametrize(("context", "growth"), [(0, 1.2), (1, 2.4)])
def test_memory_does_not_grow_with_the_mosaic(tmp_path, context, growth):
    """Four times the area; a ring keeps one row of blocks, which is twice as long."""

    def peak(side):
        path = empty_photo(tmp_path / f"{side}.tif", side)
        image = open_mosaic(path, grid="dk_100m", resolution=1.0)
        cells = cut_cells(image, None, "dk_100m", context=context)
        with dask.config.set(scheduler="synchronous"):
            tracemalloc.start()
            cells.images.max(("band", "row", "col")).compute()
            used = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
        return used

    assert peak(6400) < growth * peak(3200)


def test_wrong_files_get_one_sentence(tmp_path):
    ok = write_image(tmp_path / "ok.tif", invent((3, 20, 20)))
    with pytest.raises(InputError, match=r"none\.tif does not exist"):
        open_mosaic(tmp_path / "none.tif")
    no_crs = write_image(tmp_path / "no_crs.tif", invent((3, 20, 20)), crs=None)
    with pytest.raises(InputError, match=r"no_crs\.tif has no CRS; .*gdal_edit.py -a_srs"):
        open_mosaic(no_crs)
    ecw = tmp_path / "photo.ecw"
    ecw.write_bytes(b"e\x02")
    with pytest.raises(InputError, match=r"photo\.ecw is an ECW file.*no driver; .*GeoTIFF"):
        open_mosaic(ecw)
    (tmp_path / "text.tif").write_text("no image")
    with pytest.raises(InputError, match=r"text\.tif cannot be read"):
        open_mosaic(tmp_path / "text.tif")
    grey = write_image(tmp_path / "grey.tif", invent((1, 20, 20)))
    with pytest.raises(InputError, match=r"grey\.tif has 1 bands of uint8, but .*ok\.tif has 3"):
        open_mosaic([ok, grey])
    other = write_image(tmp_path / "other.tif", invent((3, 20, 20)), pixel=4)
    with pytest.raises(InputError, match=r"expected files on one lattice.*pass grid="):
        open_mosaic([ok, other])
    with pytest.raises(InputError, match="the mosaic has no files"):
        open_mosaic([])


def test_a_colour_table_is_no_brightness(tmp_path):
    path = write_image(tmp_path / "a.tif", invent((1, 4, 4)))
    with rasterio.open(path, "r+") as file:
        file.write_colormap(1, {1: (255, 0, 0, 255)})
    with pytest.raises(InputError, match="has a colour table"):
        open_mosaic(path)


def test_wrong_zarr_gets_one_sentence(tmp_path):
    (tmp_path / "empty.zarr").mkdir()
    with pytest.raises(InputError, match=r"empty\.zarr cannot be opened as Zarr"):
        open_mosaic(tmp_path / "empty.zarr")
    image = open_mosaic(write_image(tmp_path / "a.tif", invent((1, 4, 4)))).drop_vars("valid")
    xr.Dataset({"a": image, "b": image}).to_zarr(tmp_path / "two.zarr", consolidated=False)
    with pytest.raises(InputError, match=r"two\.zarr holds .*; expected one image"):
        open_mosaic(tmp_path / "two.zarr")
    bare = image.drop_vars("spatial_ref").to_dataset(name="a")
    bare.a.attrs.pop("grid_mapping", None)
    bare.a.encoding.clear()
    bare.to_zarr(tmp_path / "bare.zarr", consolidated=False)
    with pytest.raises(InputError, match=r"bare\.zarr has no CRS"):
        open_mosaic(tmp_path / "bare.zarr")


def test_wrong_grids_get_one_sentence(tmp_path):
    path = write_image(tmp_path / "a.tif", invent((1, 40, 40)))
    with pytest.raises(InputError, match=r"in EPSG:25832 and the cells in EPSG:3035.*align=True"):
        open_mosaic(path, grid="eu_1km")
    with pytest.raises(InputError, match="expected cells no smaller than a pixel"):
        open_mosaic(path, grid=CellGrid(2.0))
    with pytest.raises(InputError, match=r"resolution asked for is 200.*no smaller than a pixel"):
        open_mosaic(path, grid="dk_100m", resolution=200)
    with pytest.raises(InputError, match=r"resolution 7 does not divide .*take 7\.14"):
        open_mosaic(path, grid="dk_100m", resolution=7)
    with pytest.raises(InputError, match="without a grid"):
        open_mosaic(path, resolution=10)
    with pytest.raises(InputError, match="on_top is 'both'"):
        open_mosaic(path, on_top="both")
    with pytest.raises(InputError, match="chunks='many' does not fit"):
        open_mosaic(path, chunks="many")
    with pytest.raises(InputError, match=r"nodata is 300, but .* holds uint8"):
        open_mosaic(path, nodata=300)


def test_two_dates_of_flanders_are_on_one_grid():
    if not FLANDERS.is_dir():
        pytest.skip("POPDASK_DATA does not hold the images of Flanders")
    paths = sorted(FLANDERS.glob("BEFL*.tif"))
    dates = [open_mosaic(path, grid="eu_1km", align=True) for path in paths]
    for date in dates:
        assert date.shape == (3, 1000, 1700)
        assert float(date.valid.mean()) == pytest.approx(0.71, abs=0.01)
    np.testing.assert_array_equal(dates[0].x, dates[1].x)
