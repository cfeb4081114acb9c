import gzip
import os
import pickle
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import rasterio
import xarray as xr
from hypothesis import assume, given
from hypothesis import strategies as st
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS
from rasterio.transform import Affine

from popdask.errors import InputError
from popdask.io.rasters import check_is_count, check_scale, read_counts, read_grid
from tests.cube.raster_files import TRANSFORM, write_raster


def read_all(path: str, **options) -> np.ndarray:
    height, width = read_grid(path).shape
    return read_counts(path, slice(0, height), slice(0, width), **options)


def test_a_grid_is_the_headers(tmp_path):
    grid = read_grid(write_raster(tmp_path / "pop.tif", np.ones((2, 3))))
    assert grid.shape == (2, 3)
    assert grid.transform == TRANSFORM
    assert grid.crs.epsg == 3035


def test_a_window_is_what_rasterio_reads(tmp_path):
    values = np.arange(12, dtype="int16").reshape(3, 4)
    path = write_raster(tmp_path / "pop.tif", values)
    counts = read_counts(path, slice(1, 3), slice(2, 4))
    assert counts.dtype == np.float32
    np.testing.assert_array_equal(counts, values[1:3, 2:4])


def test_no_data_becomes_nan(tmp_path):
    declared = write_raster(tmp_path / "a.tif", np.uint16([[65535, 0, 7]]), nodata=65535)
    np.testing.assert_array_equal(read_all(declared), [[np.nan, 0, 7]])
    undeclared = write_raster(tmp_path / "b.tif", np.uint16([[65535, 0, 7]]))
    np.testing.assert_array_equal(read_all(undeclared), [[65535, 0, 7]])
    usual = write_raster(tmp_path / "c.tif", np.array([[-99999, -3.4e38, -1.7e308, np.nan, 2.5]]))
    np.testing.assert_array_equal(read_all(usual), [[np.nan] * 4 + [2.5]])
    both = write_raster(tmp_path / "d.tif", np.int32([[-99999, -9999, 3]]), nodata=-9999)
    np.testing.assert_array_equal(read_all(both), [[np.nan, np.nan, 3]])


def test_zero_is_no_data_only_on_request(tmp_path):
    path = write_raster(tmp_path / "pop.tif", np.int16([[0, 4]]))
    np.testing.assert_array_equal(read_all(path), [[0, 4]])
    np.testing.assert_array_equal(read_all(path, nodata=0), [[np.nan, 4]])


def test_a_mask_band_says_no_data(tmp_path):
    path = write_raster(tmp_path / "pop.tif", np.int16([[5, 4]]))
    with rasterio.open(path, "r+") as file:
        file.write_mask(np.array([[0, 255]], "uint8"))
    np.testing.assert_array_equal(read_all(path), [[np.nan, 4]])


def test_scale_and_offset_are_applied(tmp_path):
    path = write_raster(tmp_path / "pop.tif", np.int16([[-1, 40]]), nodata=-1)
    with rasterio.open(path, "r+") as file:
        file.scales, file.offsets = (0.5,), (2,)
    np.testing.assert_array_equal(read_all(path), [[np.nan, 22]])


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (-5, "pop.tif holds -5 at row 1, column 2; .* pass nodata=-5"),
        (np.inf, "pop.tif holds inf at row 1, column 2"),
        (-np.inf, "pop.tif holds -inf at row 1, column 2"),
        (1e200, "pop.tif holds inf at row 1, column 2"),
    ],
)
def test_impossible_counts_are_refused_with_their_place(tmp_path, value, message):
    values = np.ones((3, 4))
    values[1, 2] = value
    path = write_raster(tmp_path / "pop.tif", values)
    with pytest.raises(InputError, match=message):
        read_counts(path, slice(1, 3), slice(1, 4))
    assert read_counts(path, slice(0, 1), slice(0, 4)).sum() == 4


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"nowhere.tif does not exist"):
        read_grid(str(tmp_path / "nowhere.tif"))


def test_a_file_that_is_no_raster_is_refused(tmp_path):
    path = tmp_path / "pop.tif"
    path.write_text("people")
    with pytest.raises(InputError, match=r"pop.tif cannot be read .*not recognized"):
        read_grid(str(path))


def test_a_truncated_file_is_refused_when_read(tmp_path):
    random = np.random.default_rng(0).integers(0, 9999, (512, 512)).astype("int32")
    path = Path(write_raster(tmp_path / "pop.tif", random, driver="COG"))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) * 2 // 3])
    read_grid(str(path))
    with pytest.raises(InputError, match=r"pop.tif cannot be read .*truncated") as caught:
        read_all(str(path))
    again = pickle.loads(pickle.dumps(caught.value))
    assert (type(again), str(again)) == (InputError, str(caught.value))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"values": np.ones((2, 2, 3))}, "has 2 bands"),
        ({"crs": None}, "has no CRS"),
        ({"values": np.ones((2, 3), "complex64")}, "holds complex64"),
        ({"transform": Affine(1000, 170, 4_321_000, 170, -1000, 3_210_000)}, "has a rotated grid"),
        ({"transform": Affine.identity()}, "has no position"),
        ({"units": "persons/km2"}, "is a density .'persons/km2'"),
        ({"tags": {"units": "people per square kilometre"}}, "is a density"),
        ({"description": "Population_Density"}, "is a density .*pixel_area_km2"),
        ({"units": "Thousands of people"}, "has the units 'Thousands of people'"),
        ({"values": np.ones((2, 3), "uint8"), "photometric": "palette"}, "has a table of colours"),
        ({"transform": Affine(1000, 0, np.nan, 0, -1000, 0)}, r"has the position .*gdal_edit.py"),
    ],
)
@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_a_raster_of_another_form_is_refused(tmp_path, options, message):
    path = write_raster(tmp_path / "pop.tif", **({"values": np.ones((2, 3))} | options))
    with pytest.raises(InputError, match=message):
        read_grid(path)


@pytest.mark.parametrize(
    ("units", "name"),
    [
        ("persons per cell", "population_2019"),
        ("", "gpw_v4_population_count_rev11_2000_30_sec"),
        ("people per grid cell of 1 km²", "density_2000"),
        ("persons", "pop_1km-2019"),
        ("", "pop_250m-1km"),
    ],
)
def test_counts_are_taken_for_counts(units, name):
    check_is_count("a.tif", units, [name])


@pytest.mark.parametrize(
    ("units", "name"),
    [
        ("", "gpw_v4_population_density_rev11_2000_30_sec"),
        ("persons km-2", "pop"),
        ("inhabitants/ha", "pop"),
        ("km^-2", "pop"),
        ("persons per sq. km", "pop"),
        ("", "pop_per_km2_2000"),
        ("Einwohner / km²", "pop"),
    ],
)
def test_densities_are_refused(units, name):
    with pytest.raises(InputError, match=r"a.tif is a density"):
        check_is_count("a.tif", units, [name])


@pytest.mark.parametrize(
    "units",
    [
        *("1000 persons", "10^3 persons", "1e3 people", "10**3 people", "10³ inhabitants"),
        *("1,000 persons", "1 000 people per cell", "1000s of people", "'000 persons"),
        *("100 people", "people x 1000", "persons (1000)", "Population_in_1000", "people * 10^6"),
        *("hundreds of people", "people (in thousands)", "million_people", "ln people"),
        *("log(people)", "log10 of counts", "10000 persons"),
        *("Thousands of people, not of households",),
    ],
)
def test_scaled_people_are_refused(units):
    with pytest.raises(InputError, match=r"a.tif has the units .*gdal_calc.py.* attribute"):
        check_scale("a.tif", units)


@pytest.mark.parametrize(
    "units",
    [
        *("", "1", "people", "persons per cell", "people per cell (not in thousands)", "1 person"),
        *("people per cell, not logarithms", "people per 100 m cell", "people per 1000 m cell"),
        *("people, 100x100 m", "population 10000 BC", "people, 1000 metres"),
        *("people in 2000", "persons 2010", "people in 1000 AD", "counts, 1000 m", "1/cell"),
        *("people per pixel of 30 arc seconds", "count 100 m", "inhabitants per grid cell (1 km)"),
    ],
)
def test_people_as_they_are_are_taken(units):
    check_scale("a.tif", units)


@pytest.mark.parametrize("crs", ["EPSG:4978", "EPSG:5730", 'LOCAL_CS["site",UNIT["metre",1]]'])
def test_a_crs_that_tells_no_place_is_refused(tmp_path, crs):
    path = write_raster(tmp_path / "pop.tif", np.ones((2, 3)), crs=crs)
    with pytest.raises(InputError, match=r"pop.tif has the CRS .*neither geographic nor projected"):
        read_grid(path)


def test_control_points_are_no_grid(tmp_path):
    path = write_raster(
        tmp_path / "pop.tif", np.ones((2, 3)), crs=None, transform=Affine.identity()
    )
    with rasterio.open(path, "r+") as file:
        points = [
            GroundControlPoint(*place) for place in ((0, 0, 10, 60), (0, 3, 13, 60), (2, 0, 10, 58))
        ]
        file.gcps = points, rasterio.crs.CRS.from_epsg(4326)
    with pytest.raises(
        InputError, match="it has control points: bring it onto a grid with gdalwarp"
    ):
        read_grid(path)


def test_a_turn_by_rounding_is_none(tmp_path):
    turned = Affine(1000, 1e-9, 4_321_000, 1e-10, -1000, 3_210_000)
    assert read_grid(
        write_raster(tmp_path / "pop.tif", np.ones((2, 3)), transform=turned)
    ) == read_grid(write_raster(tmp_path / "even.tif", np.ones((2, 3))))


@pytest.mark.parametrize(("scale", "offset"), [(0, 0), (np.nan, 0), (-1, 0), (1, np.inf)])
def test_scales_that_are_none_are_refused(tmp_path, scale, offset):
    path = write_raster(tmp_path / "pop.tif", np.ones((2, 3), "int16"))
    with rasterio.open(path, "r+") as file:
        file.scales, file.offsets = (scale,), (offset,)
    with pytest.raises(InputError, match=r"pop.tif has the scale .*; expected a scale above 0"):
        read_grid(path)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("pop.jpg", {"driver": "JPEG"}),
        ("pop.tif", {"compress": "JPEG"}),
        ("pop.jp2", {"driver": "JP2OpenJPEG"}),
    ],
)
def test_pictures_compressed_with_loss_are_no_counts(tmp_path, name, options):
    path = write_raster(tmp_path / name, np.arange(64, dtype="uint8").reshape(8, 8), **options)
    with pytest.raises(InputError, match="is compressed as pictures are, with other values"):
        read_grid(path)


@pytest.mark.parametrize("rising", [True, False])
def test_a_netcdf_file_with_longitudes_along_its_rows_is_refused(tmp_path, rising):
    axes = {
        "lat": ("lat", np.arange(60.0, 57, -1)[:: -1 if rising else 1], {"units": "degrees_north"}),
        "lon": ("lon", np.arange(10.0, 14), {"units": "degrees_east"}),
    }
    people = xr.Dataset({"people": (("lat", "lon"), np.arange(12.0).reshape(3, 4))}, axes)
    people.to_netcdf(tmp_path / "even.nc")
    assert read_grid(str(tmp_path / "even.nc")).boundingbox.bbox == (9.5, 57.5, 13.5, 60.5)
    people.transpose("lon", "lat").to_netcdf(tmp_path / "turned.nc")
    with pytest.raises(InputError, match="has its longitudes along the rows"):
        read_grid(str(tmp_path / "turned.nc"))


def test_a_netcdf_file_may_say_where_it_lies_in_other_attributes_too(tmp_path):
    axes = {
        "lat": ("lat", np.arange(60.0, 57, -1), {"units": "degrees_north"}),
        "lon": ("lon", np.arange(10.0, 14), {"units": "degrees_east"}),
    }
    said = {"geospatial_lat_units": "degrees_north", "geospatial_lon_units": "degrees_east"}
    people = xr.Dataset({"people": (("lat", "lon"), np.arange(12.0).reshape(3, 4))}, axes, said)
    people.to_netcdf(tmp_path / "told.nc")
    grid = read_grid(str(tmp_path / "told.nc"))
    assert (grid.crs.epsg, grid.boundingbox.bbox) == (4326, (9.5, 57.5, 13.5, 60.5))
    with rasterio.open(tmp_path / "told.nc") as source:
        profile = source.profile | {"driver": "GTiff", "crs": None}
        with rasterio.open(tmp_path / "made.tif", "w", **profile) as made:
            made.write(source.read())
            made.update_tags(**source.tags())
    assert read_grid(str(tmp_path / "made.tif")) == grid


ASCII_HEAD = "ncols 3\nnrows 2\nxllcorner 4321000\nyllcorner 3210000\n{}\nNODATA_value -9999\n"
NUMBERS = st.sampled_from(["1", "2.5", "1e2", "3,5", "-9999", "nan"])


@given(
    st.lists(NUMBERS, max_size=9),
    st.sampled_from([" ", "\n", "\r\n", "  ", "\t"]),
    st.sampled_from(["", "\n", " \r\n"]),
    st.sampled_from(["cellsize 1000", "dx 1000\ndy 500"]),
    st.none() | st.tuples(st.integers(0, 8), st.sampled_from(["x", "*", "1;2", "<b>"])),
)
def test_an_ascii_grid_has_a_number_in_every_cell(
    tmp_path_factory, numbers, between, after, sides, wrong
):
    assume(numbers[:1] != ["nan"])  # of which GDAL may or may not know that numbers begin there
    folder = tmp_path_factory.mktemp("ascii")
    known = [float(number.replace(",", ".")) for number in numbers]
    if wrong and wrong[0] < len(numbers):
        numbers[wrong[0]] = wrong[1]
    (folder / "pop.prj").write_text(CRS.from_epsg(3035).to_wkt())
    (folder / "pop.asc").write_bytes(
        (ASCII_HEAD.format(sides) + between.join(numbers) + after).encode()
    )
    unread = "nan" in numbers and {"1", "-9999", "nan"}.issuperset(numbers)  # 0 among whole ones
    if len(numbers) == 6 and not unread and not {"x", "*", "1;2", "<b>"}.intersection(numbers):
        expected = np.array([value if value >= 0 else np.nan for value in known])
        np.testing.assert_array_equal(
            read_all(f"{folder}/pop.asc").ravel(), expected.astype("float32")
        )
        return
    with pytest.raises(InputError, match=r"pop.asc (holds|cannot be read)"):
        read_all(f"{folder}/pop.asc")


def packed(folder: Path, name: str, content: bytes) -> dict[str, str]:
    """Paths by which a file may be called: itself, a band of it, and packed in two ways."""
    (folder / name).write_bytes(content)
    (folder / f"{name}.gz").write_bytes(gzip.compress(content))
    with zipfile.ZipFile(folder / f"{name}.zip", "w") as archive:
        archive.writestr(name, content)
    ends = ("", "#band=1", ".gz", ".zip")
    return {end: f"{folder}/{name}{end}" for end in ends}


def test_an_ascii_grid_is_checked_where_it_is_a_file_of_its_own(tmp_path):
    head = ASCII_HEAD.format("cellsize 1000")
    for path in packed(tmp_path, "pop.asc", f"{head}1 2 3\n4 5 6\n".encode()).values():
        rows, columns = slice(0, 2), slice(0, 3)
        assert read_counts(path, rows, columns).ravel().tolist() == [1, 2, 3, 4, 5, 6]
        with pytest.raises(InputError, match="has no CRS"):  # and nothing else is wrong
            read_grid(path)
    wrong = packed(tmp_path, "wrong.asc", f"{head}1 x 3\n4 5 6\n".encode())
    for end in ("", "#band=1"):
        with pytest.raises(InputError, match=r"wrong\.asc holds 'x' among its numbers"):
            read_grid(wrong[end])


def test_what_is_packed_is_not_blamed_for_its_packing(tmp_path):
    for end, path in packed(tmp_path, "pop.tif", b"<html>404").items():
        said = "page of the web" if end in ("", "#band=1") else "may be truncated or of another"
        with pytest.raises(InputError, match=said):
            read_grid(path)


@contextmanager
def nobody() -> Iterator[None]:
    """Be a user without rights, where the tests are root's."""
    own = os.geteuid()
    if own == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        if own == 0:
            os.seteuid(own)


def test_a_raster_that_may_not_be_read_is_a_wrong_input():
    with TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        path = Path(write_raster(f"{folder}/pop.tif", np.ones((2, 2))))
        path.chmod(0)
        with nobody(), pytest.raises(InputError, match=r"cannot be read \(.*Permission denied\)"):
            read_grid(str(path))


@pytest.mark.parametrize("axis", ["lat", "lon"])
@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_a_netcdf_file_of_uneven_axes_is_refused(tmp_path, axis):
    places = {"lat": np.arange(60.0, 50, -1), "lon": np.arange(5.0, 15)}
    told = {"lat": {"units": "degrees_north"}, "lon": {"units": "degrees_east"}}
    for gap in (0, 1):
        moved = places | {axis: places[axis] + gap * np.sign(places["lat"] - 55.5)}
        frame = xr.DataArray(np.ones((10, 10), "float32"), moved, ("lat", "lon"), name="people")
        for name, attrs in told.items():
            frame[name].attrs = attrs
        frame.to_netcdf(tmp_path / f"{gap}.nc")
    assert read_all(f"{tmp_path}/0.nc").sum() == 100
    with pytest.raises(InputError, match=f"1.nc has uneven steps along {axis}, from 1 to "):
        read_grid(f"{tmp_path}/1.nc")


@pytest.mark.parametrize(
    ("head", "kind"),
    [
        (b"<!DOCTYPE html><html>404", "a page of the web"),
        (b"version https://git-lfs.github.com/spec/v1", "Git LFS"),
        (b"PK\x03\x04", "an archive"),
        (b"\x1f\x8b\x08", "gzip"),
    ],
)
def test_what_is_no_raster_is_called_what_it_is(tmp_path, head, kind):
    (tmp_path / "pop.tif").write_bytes(head)
    with pytest.raises(InputError, match=f"pop.tif cannot be read .* it is .*{kind}"):
        read_grid(f"{tmp_path}/pop.tif")
