import os
import re
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import dask
import dask.array as da
import numpy as np
import pandas as pd
import pytest
import rasterio
import xarray as xr
import zarr
from distributed import Client, LocalCluster
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.transform import from_origin

from popdask.errors import InputError
from popdask.io import find_frames, open_cube, open_frames, pixel_area_km2, write_cube
from popdask.io.grids import grid_of, same_grid
from tests.cube.raster_files import TRANSFORM, write_raster

YEARS = (2000, 2005, 2010)
OSLO = Path(os.environ.get("POPDASK_DATA") or "/nonexistent") / "oslo_250m"


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Three frames of 37 × 53 cells with a corner of no data."""
    folder = tmp_path_factory.mktemp("frames")
    random = np.random.default_rng(0)
    for year in YEARS:
        counts = random.poisson(20, (37, 53)).astype("int16")
        counts[:5, :7] = -1
        write_raster(folder / f"pop_{year}.tif", counts, nodata=-1)
    return folder


@pytest.fixture
def paths(folder) -> list[str]:
    return [str(folder / f"pop_{year}.tif") for year in YEARS]


def test_a_cube_is_what_rasterio_reads(folder, paths):
    cube = open_frames(f"{folder}/pop_{{year}}.tif")
    expected = []
    for path in paths:
        with rasterio.open(path) as file:
            expected.append(file.read(1, masked=True).astype("float32").filled(np.nan))
    population = cube.population
    assert population.dims == ("time", "y", "x")
    assert population.dtype == np.float32
    np.testing.assert_array_equal(population, expected)
    assert list(population.time.dt.year) == list(YEARS)
    assert population.time.dtype == "datetime64[ns]"
    assert cube.rio.crs.to_epsg() == population.rio.crs.to_epsg() == 3035
    assert population.rio.transform() == TRANSFORM
    np.testing.assert_array_equal(population.x[:2], [4_321_500, 4_322_500])
    np.testing.assert_array_equal(population.y[:2], [3_209_500, 3_208_500])
    assert population.attrs["units"] == "people per cell"


def test_frames_may_come_as_pattern_mapping_or_list(folder, paths):
    expected = open_frames(f"{folder}/pop_{{year}}.tif")
    mixed = {"2010": Path(paths[2]), 2000: paths[0], datetime(2005, 1, 1): paths[1]}
    for cube in (
        open_frames(folder / "pop_{time:%Y}.tif"),
        open_frames(mixed),
        open_frames(paths, times=["2000", "2005", "2010"]),
        open_frames(reversed(paths), times=(2010, 2005, 2000)),
        open_frames(paths, times=pd.to_datetime(["2000", "2005", "2010"])),
        open_frames(find_frames(f"{folder}/pop_{{year}}.tif")),
    ):
        xr.testing.assert_identical(cube, expected)


def test_one_block_is_one_time_step(folder):
    pattern = f"{folder}/pop_{{year}}.tif"
    assert open_frames(pattern).population.chunks == ((1, 1, 1), (37,), (53,))
    assert open_frames(pattern, chunks=20).population.chunks[1:] == ((20, 17), (20, 20, 13))
    assert open_frames(pattern, chunks=(-1, 30)).population.chunks[1:] == ((37,), (30, 23))
    assert open_frames(pattern, chunks={"x": 30}).population.chunks[1:] == ((37,), (30, 23))
    assert open_frames(pattern, chunks={"time": 2}).population.chunks[0] == (2, 1)
    wide = write_raster(folder / "wide.tif", np.ones((1500, 1100), "uint8"), tiled=True)
    assert open_frames({2000: wide}).population.chunks == ((1,), (1024, 476), (1024, 76))


@pytest.mark.parametrize("chunks", ["much", 0, {"lat": 5}, (1, 2, 3, 4), (20, (5, 5))])
def test_chunks_that_do_not_fit_are_refused(folder, chunks):
    with pytest.raises(InputError, match=r"chunks=.* does not fit"):
        open_frames(f"{folder}/pop_{{year}}.tif", chunks=chunks)


@settings(max_examples=15)
@given(height=st.integers(7, 40), width=st.integers(9, 60), align=st.booleans())
def test_any_chunking_gives_the_same_cells(folder, height, width, align):
    frames = {2000: folder / "pop_2000.tif", 2005: folder / "pop_2005.tif"}
    if align:
        frames[1990] = _shifted(folder)
    cube = open_frames(frames, chunks=(height, width), align=align)
    xr.testing.assert_identical(cube.compute(), open_frames(frames, align=align).compute())


def _shifted(folder: Path) -> str:
    path = folder / "shifted.tif"
    if not path.exists():
        counts = np.random.default_rng(1).poisson(20, (40, 60)).astype("int16")
        counts[20:25, 30:] = -1
        moved = from_origin(4_319_600, 3_210_700, 1100, 900)
        write_raster(path, counts, transform=moved, nodata=-1)
    return str(path)


def test_a_world_of_known_people_is_counted_right(tmp_path):
    """A city of 1000 people on empty land grows by 500 in ten years and moves one cell right."""
    for year, people in ((2000, 1000), (2010, 1500)):
        world = np.zeros((20, 30), "int32")
        world[10, 15 + (year == 2010)] = people
        write_raster(tmp_path / f"pop_{year}.tif", world)
    population = open_frames(f"{tmp_path}/pop_{{year}}.tif").population
    assert population.sum(("y", "x")).values.tolist() == [1000, 1500]
    city = population.where(population > 0)
    assert (city.x * city / city.sum(("y", "x"))).sum(("y", "x")).diff("time") == 1000
    np.testing.assert_array_equal(pixel_area_km2(population), np.ones(20))


def test_building_reads_headers_alone(tmp_path):
    """With the cells of every file destroyed after their headers, a cube is still built."""
    for year in YEARS:
        counts = np.random.default_rng(year).integers(0, 9999, (512, 512)).astype("int32")
        path = Path(write_raster(tmp_path / f"pop_{year}.tif", counts, driver="COG"))
        whole = path.read_bytes()
        path.write_bytes(whole[: len(whole) // 2])
    cube = open_frames(f"{tmp_path}/pop_{{year}}.tif", chunks=256)
    assert isinstance(cube.population.data, da.Array)
    assert open_frames(f"{tmp_path}/pop_{{year}}.tif", align=True).sizes["time"] == 3
    with pytest.raises(InputError, match=r"pop_2005.tif cannot be read"):
        cube.population.sel(time="2005").compute()


def test_a_slice_reads_only_its_blocks(tmp_path):
    counts = np.ones((40, 40))
    counts[30, 30] = -7
    population = open_frames({2000: write_raster(tmp_path / "pop.tif", counts)}, chunks=20)
    assert population.population[0, :20].sum() == 800
    with pytest.raises(InputError, match=r"pop.tif holds -7 at row 30, column 30"):
        population.compute()


def test_an_error_keeps_its_kind_across_processes(tmp_path):
    counts = np.random.default_rng(0).integers(0, 9999, (512, 512)).astype("int32")
    path = Path(write_raster(tmp_path / "pop.tif", counts, driver="COG"))
    path.write_bytes(path.read_bytes()[:200_000])
    population = open_frames({2000: path}).population
    with (
        LocalCluster(1, threads_per_worker=1, dashboard_address=":0") as cluster,
        Client(cluster),
        pytest.raises(InputError, match=r"pop.tif cannot be read .* copy or download it again"),
    ):
        population.compute()


def test_a_changed_file_is_another_graph(tmp_path):
    path = write_raster(tmp_path / "pop.tif", np.ones((2, 3)))
    before = open_frames({2000: path}).population.data.name
    assert open_frames({2000: path}).population.data.name == before
    os.utime(path, ns=(0, 0))
    assert open_frames({2000: path}).population.data.name != before


def test_frames_on_other_grids_are_refused_by_name(tmp_path):
    first = write_raster(tmp_path / "a.tif", np.ones((4, 5)))
    others = {
        "shape": write_raster(tmp_path / "b.tif", np.ones((4, 6))),
        "place": write_raster(
            tmp_path / "c.tif",
            np.ones((4, 5)),
            transform=from_origin(4_321_500, 3_210_000, 1e3, 1e3),
        ),
        "crs": write_raster(tmp_path / "d.tif", np.ones((4, 5)), crs="EPSG:25833"),
    }
    for other in others.values():
        name = Path(other).name
        with pytest.raises(
            InputError, match=rf"{name} has .*a.tif has 4 × 5 cells of .*align=True"
        ):
            open_frames({2000: first, 2005: other})


def test_align_keeps_every_person(folder, tmp_path):
    """The city lies within the first grid, in degrees, with no data around it."""
    counts = np.full((80, 60), -1, "int16")
    counts[20:40, 15:35] = np.random.default_rng(2).poisson(9, (20, 20))
    with rasterio.open(folder / "pop_2000.tif") as file:
        west, south, east, north = rasterio.warp.transform_bounds(3035, 4326, *file.bounds)
    degrees = from_origin(west, north, (east - west) / 60, (north - south) / 80)
    city = write_raster(
        tmp_path / "city.tif", counts, transform=degrees, crs="EPSG:4326", nodata=-1
    )
    cube = open_frames({2000: folder / "pop_2000.tif", 2005: city}, align=True, chunks=16)
    moved = cube.population[1].values
    assert np.nansum(moved, dtype="f8") == pytest.approx(counts[counts >= 0].sum(), rel=1e-6)
    assert np.isnan(moved).any()
    assert same_grid(
        grid_of(cube.population), grid_of(open_frames({1990: folder / "pop_2000.tif"}).population)
    )


@pytest.mark.parametrize("chunks", ["auto", 17])
def test_longitudes_up_to_360_are_those_of_the_west_when_aligned(tmp_path, chunks):
    counts = np.random.default_rng(3).poisson(9, (18, 36)).astype("int16")
    west = write_raster(
        tmp_path / "a.tif", counts, transform=from_origin(-180, 90, 10, 10), crs="EPSG:4326"
    )
    east = write_raster(
        tmp_path / "b.tif", counts, transform=from_origin(5, 90, 10, 10), crs="EPSG:4326"
    )
    cube = open_frames({2000: west, 2005: east}, align=True, chunks=chunks)
    half = np.roll(counts, 18, axis=1) / 2  # both frames' cells lie half a cell apart
    np.testing.assert_allclose(cube.population[1], half + np.roll(half, 1, axis=1), rtol=1e-6)


def test_a_frame_that_lies_elsewhere_is_no_data_when_aligned(folder, tmp_path):
    far = write_raster(tmp_path / "far.tif", np.ones((3, 3)), transform=from_origin(0, 0, 1e3, 1e3))
    cube = open_frames({2000: folder / "pop_2000.tif", 2005: far}, align=True)
    assert np.isnan(cube.population[1]).all()


def test_frames_and_times_that_do_not_go_together_are_refused(paths):
    with pytest.raises(InputError, match="there are 3 frames and 0 times"):
        open_frames(paths)
    with pytest.raises(InputError, match="there are 3 frames and 2 times"):
        open_frames(paths, times=[2000, 2005])
    with pytest.raises(InputError, match=r"pop_2000.tif and .*pop_2010.tif are both of 2000-01-01"):
        open_frames(paths, times=[2000, 2005, "2000-01-01"])
    with pytest.raises(InputError, match="there are no frames"):
        open_frames({})


def test_zero_is_no_data_on_request(tmp_path):
    path = write_raster(tmp_path / "pop.tif", np.int16([[0, 4]]))
    assert not np.isnan(open_frames({2000: path}).population).any()
    assert np.isnan(open_frames({2000: path}, nodata=0).population).sum() == 1


def test_frames_are_read_from_a_url(folder):
    """The server has a process of its own: GDAL holds the interpreter while it asks for bytes."""
    command = [sys.executable, "-u", "-m", "http.server", "0", "--bind", "127.0.0.1"]
    with subprocess.Popen(
        [*command, "--directory", folder],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as server:
        try:
            port = re.search(r"port (\d+)", server.stdout.readline())[1]
            url = f"http://127.0.0.1:{port}"
            cube = open_frames({year: f"{url}/pop_{year}.tif" for year in YEARS}).compute()
            with pytest.raises(InputError, match=r"pop_1999.tif cannot be read .*404"):
                open_frames({1999: f"{url}/pop_1999.tif"})
        finally:
            server.terminate()
    xr.testing.assert_identical(cube, open_frames(f"{folder}/pop_{{year}}.tif").compute())


def test_a_cube_survives_zarr(folder, tmp_path):
    cube = open_frames(f"{folder}/pop_{{year}}.tif", chunks=(11, 29))
    write_cube(cube, tmp_path / "new" / "cube.zarr")
    again = open_cube(tmp_path / "new" / "cube.zarr")
    xr.testing.assert_equal(again.compute(), cube.compute())
    assert same_grid(grid_of(again.population), grid_of(cube.population))
    assert isinstance(again.population.data, da.Array)
    assert again.rio.crs.to_epsg() == 3035
    assert [entry.name for entry in (tmp_path / "new").iterdir()] == ["cube.zarr"]
    with pytest.raises(InputError, match=r"cube.zarr exists"):
        write_cube(cube, tmp_path / "new" / "cube.zarr")


@pytest.mark.parametrize(
    "said",
    [
        [{"version": "0.4", "datasets": [{"path": "0"}]}],  # OME-Zarr
        {"layout": []},
        {"layout": [{"derived_from": "0"}]},
        {"layout": [{"asset": "../other.zarr"}]},
        {"layout": "0"},
    ],
)
def test_a_group_that_names_no_level_is_a_cube_of_its_own(folder, tmp_path, said):
    cube = open_frames(f"{folder}/pop_{{year}}.tif")
    write_cube(cube, tmp_path / "cube.zarr")
    write_cube(cube + 1, tmp_path / "other.zarr")
    zarr.open_group(tmp_path / "cube.zarr").attrs["multiscales"] = said
    xr.testing.assert_equal(open_cube(tmp_path / "cube.zarr").compute(), cube.compute())


def test_a_cube_is_stored_behind_a_url_once(folder):
    cube = open_frames(f"{folder}/pop_{{year}}.tif")
    write_cube(cube, "memory://once/cube.zarr")
    with pytest.raises(InputError, match=r"once/cube.zarr exists; expected a new folder for the c"):
        write_cube(-cube, "memory://once/cube.zarr")
    xr.testing.assert_equal(open_cube("memory://once/cube.zarr").compute(), cube.compute())


def test_a_zarr_write_that_fails_leaves_nothing(tmp_path):
    path = write_raster(tmp_path / "pop.tif", np.full((4, 4), -7))
    with pytest.raises(InputError, match="holds -7"):
        write_cube(open_frames({2000: path}), tmp_path / "cube.zarr")
    assert [entry.name for entry in tmp_path.iterdir()] == ["pop.tif"]


def test_any_plain_zarr_cube_is_taken(tmp_path):
    """Transposed, unsorted, with years for times and the usual no-data values."""
    values = np.full((3, 4, 2), 5.0)
    values[0, 0] = -99999, np.nan
    coords = {"time": [2010, 2000], "y": [3.5, 2.5, 1.5], "x": [0.5, 1.5, 2.5, 3.5]}
    cube = xr.Dataset({"population": (("y", "x", "time"), values)}, coords).rio.write_crs(3035)
    cube.to_zarr(tmp_path / "cube.zarr", consolidated=False)
    population = open_cube(tmp_path / "cube.zarr").population
    assert population.dims == ("time", "y", "x")
    assert population.dtype == np.float32
    assert list(population.time.dt.year) == [2000, 2010]
    assert population.sum() == 110
    assert np.isnan(population).sum() == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda cube: cube.rename(population="people"), r"holds \{'people': .*expected a variable"),
        (lambda cube: cube.isel(time=0), r"holds \{'population': \('y', 'x'\)\}"),
        (lambda cube: cube.drop_vars("spatial_ref"), "has no CRS"),
        (lambda cube: cube.assign_coords(time=[2001, 2001, 2002]), "3 frames for 2 times"),
        (lambda cube: -cube - 1, "cube.zarr holds -[0-9]+ at row 0, column 7"),
    ],
)
def test_a_zarr_of_another_form_is_refused(folder, tmp_path, change, message):
    cube = open_frames(f"{folder}/pop_{{year}}.tif").compute()
    cube.population.encoding.clear()
    for name in ("x", "y"):
        cube[name].attrs.clear()
    change(cube).to_zarr(tmp_path / "cube.zarr", consolidated=False)
    with pytest.raises(InputError, match=message):
        open_cube(tmp_path / "cube.zarr").compute()


def test_no_zarr_at_all_is_refused(tmp_path):
    with pytest.raises(InputError, match="nowhere cannot be opened as Zarr"):
        open_cube(tmp_path / "nowhere")


def test_a_zarr_of_a_server_that_does_not_answer_is_refused():
    with pytest.raises(InputError, match=r"cube\.zarr cannot be opened as Zarr \(Cannot connect"):
        open_cube("http://127.0.0.1:9/cube.zarr")


@pytest.mark.skipif(
    not all((OSLO / f"oslo_pop_250m_{year}.tif").is_file() for year in range(2002, 2020)),
    reason="POPDASK_DATA has no oslo_250m from 2002 to 2019",
)
def test_oslo_has_its_people():
    pattern = f"{OSLO}/oslo_pop_250m_{{time:%Y}}.tif"
    with dask.config.set(scheduler="threads"):
        people = open_frames(pattern).population.sum(("y", "x"), dtype="float64").compute()
    assert people.sizes["time"] == 18
    assert people.sel(time=["2002-01-01", "2019-01-01"]).values.tolist() == [1_304_483, 1_679_604]
