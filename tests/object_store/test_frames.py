"""Frames on S3 are found, read and told apart as files are; cubes and cells are stored there."""

import dask.array as da
import numpy as np
import pytest
import rasterio
import xarray as xr
from rasterio.transform import from_origin

from popdask import io
from popdask.errors import InputError
from popdask.imagery.cells import make_cells, open_cells, write_cells
from popdask.imagery.grid import CellGrid
from popdask.imagery.mosaic import open_mosaic
from popdask.io.cube import write_group
from popdask.io.paths import bucket_and_key, client


def put(url, content):
    bucket, key = bucket_and_key(url)
    client().put_object(Bucket=bucket, Key=key, Body=content)


def raster(path, value):
    """The bytes of a frame of 60 × 50 cells."""
    profile = {"width": 50, "height": 60, "count": 1, "dtype": "float32", "crs": "EPSG:3035"}
    with rasterio.open(path, "w", "GTiff", transform=from_origin(0, 60, 1, 1), **profile) as file:
        file.write(np.arange(3000, dtype="float32").reshape(1, 60, 50) + value)
    return path.read_bytes()


def test_frames_are_found_and_read(place, tmp_path):
    for year in (2000, 2010):
        put(f"{place}/pop_{year}.tif", raster(tmp_path / f"pop_{year}.tif", year))
    put(f"{place}/readme.txt", b"")
    remote = io.open_frames(f"{place}/pop_{{year}}.tif", chunks=32)
    local = io.open_frames(f"{tmp_path}/pop_{{year}}.tif", chunks=32)
    xr.testing.assert_identical(remote.compute(), local.compute())


def test_a_version_is_told_without_reading(place, server):
    url = f"{place}/pop_2000.tif"
    put(url, b"people" * 100_000)
    before = server.faults()["requests"]
    first = io.frame_fingerprint(url)
    assert set(first) == {"size", "mtime", "etag"} and first["size"] == 600_000
    assert server.faults()["requests"] == before + 1
    assert io.frame_version(io.frame_fingerprint(url)) == io.frame_version(first)
    put(url, b"peoplE" * 100_000)
    assert io.frame_version(io.frame_fingerprint(url)) != io.frame_version(first)


def test_a_frame_that_was_replaced_is_read_anew(place, tmp_path):
    """By the same process, which has read the other one."""
    url = f"{place}/pop_2000.tif"
    for value in (0, 5):
        put(url, raster(tmp_path / "pop.tif", value))
        assert io.open_frames({"2000": url})["population"].values[0, 0, 0] == value


def test_frames_that_come_are_noticed(place, tmp_path):
    content = raster(tmp_path / "pop.tif", 0)
    for count, year in enumerate((2000, 2010), 1):
        put(f"{place}/pop_{year}.tif", content)
        assert len(io.find_frames(f"{place}/pop_{{year}}.tif")) == count


def test_a_missing_frame_is_named(place):
    with pytest.raises(InputError, match=r"pop_2000\.tif does not exist"):
        io.frame_fingerprint(f"{place}/pop_2000.tif")
    with pytest.raises(InputError, match=r"pop_2000\.tif cannot be read"):
        io.open_frames({"2000": f"{place}/pop_2000.tif"})
    with pytest.raises(InputError, match="finds no frame"):
        io.find_frames(f"{place}/pop_{{year}}.tif")


def test_a_truncated_frame_is_named(place, tmp_path):
    url = f"{place}/pop_2000.tif"
    put(url, raster(tmp_path / "pop.tif", 0)[:6000])
    with pytest.raises(InputError, match=r"pop_2000\.tif cannot be read"):
        io.open_frames({"2000": url}).compute()


def test_a_cube_is_stored_and_opened(place, tmp_path):
    raster(tmp_path / "pop_2000.tif", 0)
    frames = io.open_frames(f"{tmp_path}/pop_{{year}}.tif")
    io.write_cube(frames, f"{place}/cube.zarr")
    xr.testing.assert_equal(io.open_cube(f"{place}/cube.zarr").compute(), frames.compute())
    with pytest.raises(InputError, match=r"cube\.zarr exists; expected a new folder for the cube"):
        io.write_cube(frames, f"{place}/cube.zarr")


def test_cells_are_stored_and_opened(place):
    images = da.from_array(np.arange(96, dtype="uint8").reshape(2, 3, 4, 4))
    where = np.array([4, 5]), np.array([7, 7])
    cells = make_cells(images, np.array([1.0, np.nan]), *where, CellGrid(100))
    write_cells(cells, f"{place}/cells.zarr")
    xr.testing.assert_equal(open_cells(f"{place}/cells.zarr").compute(), cells.compute())
    with pytest.raises(InputError, match=r"none\.zarr cannot be opened as Zarr"):
        open_cells(f"{place}/none.zarr")


def test_a_mosaic_is_read_from_zarr(place):
    y, x = 6_149_999.5 - np.arange(40), 600_000.5 + np.arange(60)
    image = xr.DataArray(
        np.arange(2400, dtype="uint16").reshape(1, 40, 60),
        coords={"y": y, "x": x},
        dims=("band", "y", "x"),
        name="image",
    ).rio.write_crs("EPSG:25832")
    write_group(image.to_dataset(), f"{place}/mosaic.zarr", "the mosaic")
    found = open_mosaic(f"{place}/mosaic.zarr", grid="dk_100m", resolution=1)
    np.testing.assert_array_equal(found.sel(y=y, x=x).values, image.values)
