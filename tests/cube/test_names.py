"""Rasters whose names are no paths: archives, subdatasets, bands, and the years that they tell."""

import gzip
import shutil
import tarfile
import zipfile
from calendar import monthrange
from pathlib import Path

import cftime
import numpy as np
import pytest
import rasterio
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from popdask.config import load_job
from popdask.errors import InputError
from popdask.io import find_frames, frame_fingerprint, frame_version, open_frames
from popdask.io.frames import _moment
from popdask.io.paths import file_of, parse_name, rebased
from tests.cube.raster_files import write_raster

YEARS = (2000, 2005, 2010)
VALUES = {year: np.full((3, 4), year - 1990, "float32") for year in YEARS}


def people(frames, **options):
    """The people of each year."""
    cube = open_frames(frames, **options)["population"]
    return dict(zip(cube["time"].dt.year.values.tolist(), cube.sum(("y", "x")).values, strict=True))


EXPECTED = {year: float(values.sum()) for year, values in VALUES.items()}


@pytest.fixture
def rasters(tmp_path):
    for year, values in VALUES.items():
        write_raster(tmp_path / f"pop_{year}.tif", values)
    return tmp_path


@pytest.fixture
def bands(tmp_path):
    """One file with a band for each year, described as in `form`."""

    def write(form="pop_{}"):
        path = tmp_path / "bands.tif"
        write_raster(path, np.stack(list(VALUES.values())))
        with rasterio.open(path, "r+") as file:
            file.descriptions = [form.format(year) for year in YEARS]
        return path

    return write


def degrees(north, east):
    """Axes in degrees, and the variable of their CRS, as CF conventions want them."""
    axes = {
        "latitude": ("latitude", north, {"units": "degrees_north"}),
        "longitude": ("longitude", east, {"units": "degrees_east"}),
    }
    return axes, xr.DataArray(0, attrs={"crs_wkt": rasterio.crs.CRS.from_epsg(4326).to_wkt()})


@pytest.fixture
def gpw(tmp_path):
    """A netCDF file as GPW v4.11 is published: twenty layers, of which five are of people."""
    layers = np.stack([np.full((3, 4), layer, "float32") for layer in range(1, 21)])
    name = "Population Count, v4.11 (2000, 2005, 2010, 2015, 2020): 30 arc-minutes"
    axes, crs = degrees([59.75, 59.25, 58.75], [10.25, 10.75, 11.25, 11.75])
    axes["raster"] = np.arange(1, 21)
    dims = ("raster", "latitude", "longitude")
    array = xr.DataArray(layers, dims=dims, coords=axes, attrs={"units": "Persons"})
    array.attrs["grid_mapping"] = "crs"
    path = tmp_path / "gpw_v4_population_count_rev11_30_min.nc"
    xr.Dataset({name: array, "crs": crs}).to_netcdf(path)
    return path


def test_archives_are_opened_as_they_are_downloaded(rasters):
    for year in YEARS:
        tif = rasters / f"pop_{year}.tif"
        with zipfile.ZipFile(rasters / f"pop_{year}.zip", "w") as file:
            file.write(tif, f"GHS/pop_{year}.tif")
            file.writestr("readme.txt", "whom to credit")
        with tif.open("rb") as source, gzip.open(f"{tif}.gz", "wb") as packed:
            shutil.copyfileobj(source, packed)
        tif.unlink()
    before = sorted(rasters.iterdir())
    for name in ("pop_{year}.zip", "pop_{year}.tif.gz", "*{year}.zip"):
        assert people(f"{rasters}/{name}") == EXPECTED
    assert people(f"/vsizip/{rasters}/pop_{{year}}.zip/GHS/pop_{{year}}.tif") == EXPECTED
    assert people(f"/vsigzip/{rasters}/pop_{{year}}.tif.gz") == EXPECTED
    assert sorted(rasters.iterdir()) == before  # GDAL would leave files beside


def test_files_of_one_archive_are_frames(rasters):
    with zipfile.ZipFile(rasters / "all.zip", "w") as file:
        for year in YEARS:
            file.write(rasters / f"pop_{year}.tif", f"pop_{year}.tif")
    assert people(f"/vsizip/{rasters}/all.zip/pop_{{year}}.tif") == EXPECTED
    with pytest.raises(InputError, match=r"holds 3 rasters \(pop_2000.tif, .*/vsizip/"):
        open_frames([f"{rasters}/all.zip"], times=["2000"])


@pytest.mark.parametrize("end", ["tar", "tar.gz", "tgz"])
def test_tar_archives_are_opened_too(rasters, end):
    for year in YEARS:
        with tarfile.open(rasters / f"one_{year}.{end}", "w:gz" if "g" in end else "w") as file:
            file.add(rasters / f"pop_{year}.tif", "pop.tif")
            file.add(rasters / f"pop_{year}.tif", "._pop.tif")  # as macOS does
    with tarfile.open(rasters / f"all.{end}", "w:gz" if "g" in end else "w") as file:
        for year in YEARS:
            file.add(rasters / f"pop_{year}.tif", f"pop_{year}.tif")
    assert people(f"{rasters}/one_{{year}}.{end}") == EXPECTED
    assert people(f"/vsitar/{rasters}/all.{end}/pop_{{year}}.tif") == EXPECTED
    with pytest.raises(InputError, match=r"holds 3 rasters .*/vsitar/"):
        open_frames([f"{rasters}/all.{end}"], times=["2000"])


@pytest.mark.parametrize(("end", "kind"), [("zip", "ZIP"), ("tar", "tar"), ("tar.gz", "tar")])
def test_an_archive_that_is_none_is_named(tmp_path, end, kind):
    (tmp_path / f"pop_2000.{end}").write_text("<html>please log in</html>")
    with pytest.raises(InputError, match=f"expected a {kind} archive"):
        open_frames(f"{tmp_path}/pop_{{year}}.{end}")


def test_archives_that_hold_no_raster_by_themselves_say_what_they_are(tmp_path):
    with zipfile.ZipFile(tmp_path / "pop.zip", "w") as file:
        file.writestr("pop_2020.zip", "another archive")
    with pytest.raises(InputError, match=r"holds no raster \(pop_2020.zip\); .*unpack it"):
        open_frames({"2020": f"{tmp_path}/pop.zip"})
    content = bytearray((tmp_path / "pop.zip").read_bytes())
    for header, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(header) + flags] |= 1  # says that it is encrypted
    (tmp_path / "pop.zip").write_bytes(content)
    with pytest.raises(InputError, match=r"pop.zip is encrypted; .*password"):
        open_frames({"2020": f"{tmp_path}/pop.zip"})


def axis_of(path, values, units, calendar=None, name="time"):
    """A netCDF file with a frame for each of some values of an axis, on axes in degrees alone."""
    axes, _ = degrees([59.5, 58.5, 57.5], [10.5, 11.5, 12.5, 13.5])
    told = ({"units": units} if units else {}) | ({"calendar": calendar} if calendar else {})
    frames = np.stack([np.full((3, 4), i + 1, "float32") for i in range(len(values))])
    axes[name] = (name, np.array(values), told)
    array = xr.DataArray(frames, dims=(name, "latitude", "longitude"), coords=axes)
    array.to_dataset(name="people").to_netcdf(path)
    return str(path)


@pytest.mark.parametrize(
    ("values", "units", "calendar", "name"),
    [
        ([0, 5], "years since 2000-01-01", None, "time"),
        ([2000.0, 2005.0], "common_years since 0000-01-01", "365_day", "time"),
        ([6, 66], "months since 2000-01-01", None, "time"),
        ([0, 2630880], "minutes since 2000-01-01", "standard", "time"),
        ([730121, 731948], "days since 1-1-1", None, "time"),
        ([2000, 2005], "year", None, "year"),
        ([2000, 2005], "", None, "time"),
        ([59, 59 + 5 * 360], "days since 2000-01-01", "360_day", "time"),  # 30 February
        ([876581.0, 920430.0], "hours since 1900-01-01 00:00:00.0", "gregorian", "t"),
    ],
)
def test_times_of_netcdf_files_are_read_in_their_units_and_calendars(
    tmp_path, values, units, calendar, name
):
    path = axis_of(tmp_path / "pop.nc", values, units, calendar, name)
    assert people(f"{path}#{{year}}") == {2000: 12.0, 2005: 24.0}


@given(
    st.sampled_from(["standard", "proleptic_gregorian", "noleap", "360_day", "julian"]),
    st.integers(-150_000, 80_000),
    st.integers(0, 86399),
)
def test_a_moment_is_that_of_cftime(calendar, day, second):
    since = "since 2000-01-01"
    at = cftime.num2date(86400 * day + second, f"seconds {since}", calendar)
    text = _moment(day + second / 86400, f"days {since}", calendar)
    whole = f"{text}{'T00:00:00'[len(text) - 10 :]}"
    last = monthrange(at.year, at.month)[1]  # 30 February is the 29th, or the 28th
    shown = f"{at.year:04d}-{at.month:02d}-{min(at.day, last):02d}"
    assert whole == f"{shown}T{at.hour:02d}:{at.minute:02d}:{at.second:02d}"


def test_no_day_of_a_calendar_is_left_out(tmp_path):
    path = axis_of(tmp_path / "pop.nc", [58, 59, 60], "days since 2000-01-01", "360_day")
    with pytest.raises(InputError, match=r"finds both .*#band=1 and .*#band=2 for 2000-02-29"):
        find_frames(f"{path}#{{time:%Y-%m-%d}}")


@pytest.mark.parametrize(
    ("form", "pattern"),
    [("pop_{}", "pop_{year}"), ("{}", "{year}"), ("E{}_m", "*{year}*"), ("{}-07", "{time:%Y-%m}")],
)
def test_the_bands_of_one_file_are_years(bands, form, pattern):
    path = bands(form)
    assert people(f"{path}#{pattern}") == EXPECTED
    found = find_frames(f"{path}#{pattern}", start=2005)
    assert list(found.values()) == [f"{path}#band=2", f"{path}#band=3"]


def test_one_band_of_each_file_is_named_by_its_number(bands):
    bands().rename(bands().with_name("pop_2000.tif"))
    pattern = f"{bands().with_name('pop_{year}.tif')}#band=2"
    assert people(pattern) == {2000: EXPECTED[2005]}


def test_two_bands_of_one_year_are_refused(bands):
    with pytest.raises(InputError, match=r"finds both .*#band=1 and .*#band=2 for 2000-01-01"):
        find_frames(f"{bands('people in 2000')}#people in {{year}}")


def test_bands_are_told_apart_and_the_file_is_on_record(bands):
    path = bands()
    first, second = (frame_fingerprint(f"{path}#band={band}") for band in (1, 2))
    assert first["sha256"] == second["sha256"] == frame_fingerprint(str(path))["sha256"]
    assert frame_version(first) != frame_version(second)


def test_several_bands_without_a_choice_say_how_to_choose(bands):
    path = bands()
    with pytest.raises(InputError, match=r"3 bands; .*#band=1, or give \[input\] times") as caught:
        open_frames([path], times=["2000"])
    assert "gdal_translate" not in str(caught.value)
    for name, message in (("#band=4", "one of the 3"), ("#people", "expected its number")):
        with pytest.raises(InputError, match=message):
            open_frames([f"{path}{name}"], times=["2000"])


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_subdatasets_are_frames(tmp_path):
    axes, crs = degrees([59.75, 59.25], [10.25, 10.75])
    arrays = {
        f"pop_{year}": xr.DataArray(
            values[:2, :2],
            dims=("latitude", "longitude"),
            coords=axes,
            attrs={"grid_mapping": "crs"},
        )
        for year, values in VALUES.items()
    }
    path = tmp_path / "pop.nc"
    xr.Dataset(arrays | {"crs": crs}).to_netcdf(path)
    expected = {year: float(values[:2, :2].sum()) for year, values in VALUES.items()}
    assert people(f'NETCDF:"{path}":pop_{{year}}') == expected
    assert people({"2000": f'NETCDF:"{path}":pop_2000'}) == {2000: expected[2000]}
    with pytest.raises(InputError, match=r"holds \d rasters; expected one; name the one"):
        open_frames([path], times=["2000"])


def test_the_twenty_layers_of_gpw_are_five_years(gpw):
    cells = 12
    years = {2000 + 5 * band: float((band + 1) * cells) for band in range(5)}
    assert people(f"{gpw}#{{year}}") == years
    with zipfile.ZipFile(gpw.with_suffix(".zip"), "w") as file:
        file.write(gpw, gpw.name)
    gpw.unlink()
    assert people(f"{gpw.with_suffix('.zip')}#{{year}}") == years


JOB = """
name = "small"
pipeline = "settlements"
[input]
{input}
[output]
store = "out.icechunk"
"""


def test_times_of_a_job_are_those_of_a_name_without_any(bands, tmp_path):
    from popdask.workflow.frames import frame_paths

    path, file = bands(), tmp_path / "job.toml"
    for times, expected in (('["2020"]', [str(path)]), ("2020", [str(path)])):
        file.write_text(JOB.format(input=f'frames = "bands.tif"\ntimes = {times}'))
        assert list(frame_paths(load_job(file)).values()) == expected
    file.write_text(JOB.format(input='frames = "bands.tif"\ntimes = [2000, 2005, 2010]'))
    frames = frame_paths(load_job(file))
    assert people(frames) == EXPECTED


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ('frames = "p_{year}.tif"\ntimes = ["2020"]', "whose name tells them: leave one"),
        ('frames = "p.tif"\ntimes = []', "names all times"),
        ('frames = "p.tif"\ntimes = ["2020"]\nend = "2021"', "without start or end"),
    ],
)
def test_times_beside_what_they_replace_are_refused(tmp_path, lines, message):
    file = tmp_path / "job.toml"
    file.write_text(JOB.format(input=lines))
    with pytest.raises(InputError, match=message):
        load_job(file)


def test_names_in_a_job_are_relative_to_it(tmp_path):
    file = tmp_path / "job.toml"
    for name, expected in {
        "pop_{year}.tif": f"{tmp_path}/pop_{{year}}.tif",
        'NETCDF:"gpw.nc":pop_{year}': f'NETCDF:"{tmp_path}/gpw.nc":pop_{{year}}',
        "/vsizip/a.zip/{year}.tif": f"/vsizip/{tmp_path}/a.zip/{{year}}.tif",
        "/vsizip//data/a.zip/{year}.tif": "/vsizip//data/a.zip/{year}.tif",
        "gpw.nc#{year}": f"{tmp_path}/gpw.nc#{{year}}",
    }.items():
        file.write_text(JOB.format(input=f"frames = '{name}'"))
        assert load_job(file).input.frames == expected


WORDS = st.text("abcXYZ019 #_-.[]", min_size=1, max_size=12).filter(lambda text: text.strip(". "))


@given(WORDS, st.integers(1, 40), st.sampled_from(["{}", 'NETCDF:"{}":people', "/vsigzip/{}.gz"]))
def test_the_file_of_a_name_is_found_whatever_it_is_called(word, band, form):
    file = f"/nowhere/{word}.tif"
    name = form.format(file)
    held = f"{file}.gz" if form.endswith(".gz") else file
    assert file_of(name) == held and file_of(f"{name}#band={band}") == held
    assert parse_name(f"{name}#band={band}").band == band
    assert rebased(name, Path("/elsewhere")) == name
