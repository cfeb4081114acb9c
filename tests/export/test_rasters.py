import os
from pathlib import Path

import dask.array as da
import numpy as np
import pandas as pd
import pytest
import rasterio
import xarray as xr
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords
from rasterio.transform import Affine

from popdask.errors import InputError
from popdask.io import open_frames, write_cogs, write_geotiff

DATA = Path(os.environ.get("POPDASK_DATA") or "/nonexistent")
OSLO = DATA / "oslo_250m" / "oslo_pop_250m_2019.tif"
GRID = GeoBox((1100, 700), Affine(250, 0, 212_000, 0, -250, 6_691_000), "EPSG:25833")


def frames(values: np.ndarray, times: list[str], grid: GeoBox = GRID) -> xr.DataArray:
    coords = {"time": pd.to_datetime(times), **xr_coords(grid, dims=("y", "x"))}
    return xr.DataArray(values, dims=("time", "y", "x"), coords=coords, attrs={"units": "people"})


def held(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def test_every_time_step_is_a_cloud_optimized_geotiff(tmp_path):
    community = np.random.default_rng(0).integers(-1, 9, (2, *GRID.shape)).astype("int32")
    paths = write_cogs(frames(community, ["2006", "2011"]), tmp_path / "new", "community")
    assert held(tmp_path / "new") == ["community_2006.tif", "community_2011.tif"]
    for path, expected in zip(paths, community, strict=True):
        with rasterio.open(path) as file:
            assert file.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
            assert file.compression.value == "DEFLATE"
            assert file.block_shapes == [(512, 512)]
            assert file.overviews(1) == [2, 4]
            assert (file.crs.to_epsg(), file.transform) == (25833, GRID.transform)
            assert (file.dtypes, file.nodata) == (("int32",), -1)
            assert file.descriptions == ("community",)
            assert file.tags()["time"].startswith(path.stem[-4:])
            np.testing.assert_array_equal(file.read(1), expected)


def overview(path: Path) -> np.ndarray:
    with rasterio.open(path, overview_level=0) as file:
        return file.read(1)


def test_overviews_of_labels_keep_labels_and_of_amounts_the_mean(tmp_path):
    block = np.tile([[1, 7], [7, 7]], (550, 350))
    labels, amounts = (frames(block[None].astype(kind), ["2006"]) for kind in ("int16", "float32"))
    assert (overview(write_cogs(labels, tmp_path, "labels")[0]) == 7).all()
    assert (overview(write_cogs(amounts, tmp_path, "amounts")[0]) == 5.5).all()


@pytest.mark.parametrize("chunks", [(1, 300, 700), (1, 1100, 199), (2, 513, 350)])
def test_any_chunks_and_strips_give_the_same_file(tmp_path, chunks):
    people = np.random.default_rng(0).random((2, *GRID.shape)).astype("float32")
    people[:, :100] = np.nan
    array = frames(people, ["2006", "2011"])
    whole = write_cogs(array, tmp_path / "whole", "people")
    parts = write_cogs(
        array.copy(data=da.from_array(people, chunks=chunks)),
        tmp_path / "b",
        "people",
        strip_cells=1,
    )
    for a, b in zip(whole, parts, strict=True):
        assert a.read_bytes() == b.read_bytes()
    with rasterio.open(whole[0]) as file:
        assert np.isnan(file.nodata)
        np.testing.assert_array_equal(file.read(1), people[0])


def test_an_exported_population_opens_as_a_cube(tmp_path):
    people = np.random.default_rng(0).random((2, 30, 40)).astype("float32")
    array = frames(people, ["2006", "2011"], GRID[:30, :40])
    write_cogs(array, tmp_path, "people")
    cube = open_frames(f"{tmp_path}/people_{{year}}.tif")
    np.testing.assert_array_equal(cube.population, people)
    np.testing.assert_array_equal(cube.x, array.x)


def test_names_carry_as_much_of_the_time_as_they_need(tmp_path):
    small = GRID[:4, :4]
    array = frames(np.zeros((2, 4, 4), bool), ["2006-05-01", "2006-06-01"], small)
    write_cogs(array, tmp_path / "months", "domain")
    assert held(tmp_path / "months") == ["domain_2006-05-01.tif", "domain_2006-06-01.tif"]
    hours = array.assign_coords(time=pd.to_datetime(["2006-05-01T06", "2006-05-01T18"]))
    assert write_cogs(hours, tmp_path, "domain")[1].name == "domain_2006-05-01T180000.tif"
    assert write_cogs(array[0].drop_vars("time"), tmp_path, "domain") == [tmp_path / "domain.tif"]


def test_a_write_that_fails_keeps_the_file_that_was_there(tmp_path):
    (before,) = write_cogs(frames(np.ones((1, *GRID.shape)), ["2006"]), tmp_path, "people")
    contents = before.read_bytes()

    def fail(block: np.ndarray, block_info: dict) -> np.ndarray:
        if block_info[0]["chunk-location"][1] == 1:
            raise OSError("the store is gone")
        return block

    broken = da.ones((1, *GRID.shape), chunks=(1, 600, 700)).map_blocks(fail, dtype="float64")
    with pytest.raises(OSError, match="the store is gone"):
        write_cogs(frames(broken, ["2006"]), tmp_path, "people", strip_cells=1)
    assert held(tmp_path) == ["people_2006.tif"]
    assert before.read_bytes() == contents


def test_an_array_without_place_or_of_other_dimensions_is_refused(tmp_path):
    array = frames(np.zeros((1, 4, 4)), ["2006"], GRID[:4, :4])
    with pytest.raises(InputError, match=r"has the dimensions \('y', 'x', 'time'\)"):
        write_cogs(array.transpose("y", "x", "time"), tmp_path, "people")
    bare = array.drop_vars(["spatial_ref", "x", "y"])
    with pytest.raises(InputError, match="has no grid"):
        write_cogs(bare, tmp_path, "people")
    assert held(tmp_path) == []


def test_one_geotiff_has_a_band_for_each_frame(tmp_path):
    community = np.random.default_rng(0).integers(-1, 9, (2, *GRID.shape)).astype("int32")
    array = frames(community, ["2006", "2011"])
    path = write_geotiff(array, tmp_path / "new" / "community.tif", strip_cells=1)
    with rasterio.open(path) as file:
        assert file.descriptions == ("2006", "2011") and file.nodata == -1
        assert (file.crs.to_epsg(), file.transform) == (25833, GRID.transform)
        np.testing.assert_array_equal(file.read(), community)
    whole = write_geotiff(array, tmp_path / "community.tif")
    assert whole.read_bytes() == path.read_bytes()
    single = write_geotiff(array[0].drop_vars("time"), tmp_path / "single.tif")
    with rasterio.open(single) as file:
        assert file.descriptions == ("single",)


def test_notes_of_other_programs_go_with_the_file_that_they_are_about(tmp_path):
    array = frames(np.ones((1, 8, 8)), ["2006"], GRID[:8, :8])
    (path,) = write_cogs(array, tmp_path, "people")
    notes = path.with_name(f"{path.name}.aux.xml")
    notes.write_text("<PAMDataset/>")
    write_cogs(array * 2, tmp_path, "people")
    assert not notes.exists()


@pytest.mark.skipif(not OSLO.is_file(), reason=f"POPDASK_DATA has no {OSLO.name}")
def test_oslo_is_exported_as_it_is(tmp_path):
    (path,) = write_cogs(open_frames({2019: OSLO}).population, tmp_path, "people")
    with rasterio.open(OSLO) as expected, rasterio.open(path) as file:
        assert (file.crs, file.transform) == (expected.crs, expected.transform)
        np.testing.assert_array_equal(file.read(1), expected.read(1))
