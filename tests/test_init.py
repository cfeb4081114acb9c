"""`popdask init`: a job from the rasters of a folder, which a run takes as it is."""

import re
import zipfile

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import rioxarray
import shapely
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.transform import from_origin

from popdask import __main__ as entry
from popdask.api import run_job
from popdask.config import load_job
from popdask.config.propose import _patterns, propose_job, write_job
from popdask.errors import InputError
from popdask.io import open_frames
from popdask.store import RegionStore
from popdask.workflow.frames import frame_paths
from tests.cube.raster_files import write_raster

PEOPLE = np.arange(12.0, dtype="float32").reshape(3, 4)


def rasters(folder, *names, **options):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        write_raster(folder / name, PEOPLE, **options)
    return folder


def times(folder, **options):
    """The times of the job that is proposed for a folder, and the proposal."""
    proposal = propose_job(folder, beside=folder, **options)
    job = load_job(write_job(proposal, folder / "found.toml"))
    return [str(time)[:10] for time in frame_paths(job)], job, proposal


@pytest.mark.parametrize(
    ("names", "pattern"),
    [
        (["pop_2000.tif", "pop_2010.tif"], "pop_{year}.tif"),
        (["GHS_POP_E2020_R2023A_4326.tif", "GHS_POP_E2015_R2023A_4326.tif"], "E{year}_R2023A_4326"),
        (["GHS_POP_E2020_GLOBE_R2023A_54009_1000.tif"], "GHS_POP_E{year}_GLOBE_R2023A_54009_1000"),
        (["2000/pop_2000.tif", "2001/pop_2001.tif"], "{year}/pop_{year}.tif"),
        (["pop_2020-01.tif", "pop_2020-02.tif"], "pop_{time:%Y-%m}.tif"),
        (["p20200101_30m.tif", "p20200201_30m.tif"], "p{time:%Y%m%d}_30m.tif"),
        (["a{b}_2000.tif", "a{b}_2001.tif"], "a{{b}}_{year}.tif"),
        (["in/POP:2000.tif", "in/POP:2001.tif"], "in/POP:{year}.tif"),
        (["pop_2000.tif", "pop_2001.tif", "old_1999.tif"], "pop_{year}.tif"),
    ],
)
def test_the_years_are_what_differs_between_names(tmp_path, names, pattern):
    found, job, proposal = times(rasters(tmp_path, *names))
    kept = [name for name in names if "old" not in name]
    assert len(found) == len(kept) and pattern in job.input.frames
    assert proposal.notes[0].startswith(f"found {len(kept)} frame")
    assert ("not used: old_{year}.tif" in proposal.notes) == (kept != names)


WORDS = st.text("abcxyz_-.{}", max_size=8)


@settings(max_examples=200)
@given(WORDS, WORDS, st.lists(st.integers(1700, 2200), min_size=1, max_size=8, unique=True))
def test_names_that_differ_by_their_year_are_one_pattern(begin, end, years):
    (pattern,) = _patterns(f"{begin}{year}{end}.tif" for year in years)
    assert {pattern.format(year=year) for year in years} == {f"{begin}{y}{end}.tif" for y in years}


def test_bands_and_archives_have_years_too(tmp_path):
    (tmp_path / "a").mkdir()
    write_raster(tmp_path / "a" / "pop.tif", np.stack([PEOPLE, PEOPLE + 1]))
    with rasterio.open(tmp_path / "a" / "pop.tif", "r+") as file:
        file.descriptions = ["pop_2000", "pop_2001"]
    assert times(tmp_path / "a")[0] == ["2000-01-01", "2001-01-01"]
    folder = rasters(tmp_path / "b", "pop_2000.tif")
    with zipfile.ZipFile(folder / "GHS_2000.zip", "w") as file:
        file.write(folder / "pop_2000.tif", "pop_2000.tif")
    (folder / "pop_2000.tif").unlink()
    assert times(folder)[0] == ["2000-01-01"]


def geopackage(path, *tables):
    """A GeoPackage with a table of tiles for each name, as GDAL writes them."""
    for table in tables:
        more = {"APPEND_SUBDATASET": "YES"} if path.exists() else {}
        kind = {"driver": "GPKG", "TILE_FORMAT": "TIFF", "RASTER_TABLE": table}
        write_raster(path, PEOPLE, **kind, **more)


def netcdf(path, *names):
    """A netCDF file with a variable for each name, of two years."""
    write_raster(path.with_suffix(".tif"), np.stack([PEOPLE, PEOPLE + 1]))
    with rioxarray.open_rasterio(path.with_suffix(".tif")) as bands:
        years = np.array(["2000-01-01", "2010-01-01"], "datetime64[ns]")
        frames = bands.rename(band="time").assign_coords(time=years).load()
    path.with_suffix(".tif").unlink()
    frames.attrs.clear()
    xr.Dataset(dict.fromkeys(names, frames)).to_netcdf(path)


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_files_that_hold_several_rasters_are_looked_into(tmp_path):
    """What a job can name is found, and opens as the same frames from the job's own folder."""
    both, ends = ["2000-01-01", "2010-01-01"], {}
    for name in ("tables", "files", "variables", "archive"):
        (tmp_path / name).mkdir()
    geopackage(tmp_path / "tables" / "pop.gpkg", "pop_2000", "pop_2010")
    ends["tables"] = 'pop.gpkg":pop_{year}'
    for year in (2000, 2010):
        geopackage(tmp_path / "files" / f"pop_{year}.gpkg", "people")
    ends["files"] = "pop_{year}.gpkg"
    netcdf(tmp_path / "variables" / "pop.nc", "people", "built")
    ends["variables"] = 'pop.nc":people#{year}-01-01'
    rasters(tmp_path / "loose", "pop_2000.tif", "pop_2010.tif")
    with zipfile.ZipFile(tmp_path / "archive" / "all.zip", "w") as file:
        for raster in (tmp_path / "loose").iterdir():
            file.write(raster, f"in/{raster.name}")
        file.writestr("in/read_2000.txt", "no raster")
    ends["archive"] = "all.zip/in/pop_{year}.tif"
    rasters(tmp_path / "flat", "pop_2000.dat", "pop_2010.dat", driver="ENVI")
    (tmp_path / "flat" / "notes_2005.dat").write_text("no raster")
    ends["flat"] = "pop_{year}.dat"
    for name, end in ends.items():
        found, job, _ = times(tmp_path / name)
        assert found == both and job.input.frames.endswith(end)
        cube = open_frames(frame_paths(job))["population"]
        np.testing.assert_array_equal(cube[0], PEOPLE)


def test_a_geopackage_of_outlines_is_no_raster(tmp_path):
    outlines = gpd.GeoSeries([shapely.box(0, 0, 1, 1)], crs=4326)
    outlines.to_file(tmp_path / "towns_2000.gpkg")
    with pytest.raises(InputError, match="holds no raster"):
        propose_job(tmp_path)
    found, *_ = times(rasters(tmp_path, "pop_2000.tif", "pop_2010.tif"))
    assert found == ["2000-01-01", "2010-01-01"]


@pytest.mark.parametrize("version", [2, 3])
def test_a_zarr_group_is_named_with_the_way_to_files(tmp_path, version):
    cube = xr.Dataset({"population": (("time", "y", "x"), PEOPLE[None])})
    cube.to_zarr(tmp_path / "pop.zarr", zarr_format=version, consolidated=False)
    for folder in (tmp_path, tmp_path / "pop.zarr"):
        with pytest.raises(InputError, match=r"pop\.zarr is a Zarr group; .*to_raster"):
            propose_job(folder)


def test_rasters_side_by_side_are_to_be_joined(tmp_path):
    rasters(tmp_path, "pop_2000_C1.tif", "pop_2010_C1.tif")
    beside = from_origin(4_325_000, 3_210_000, 1000, 1000)
    rasters(tmp_path, "pop_2000_C2.tif", "pop_2010_C2.tif", transform=beside)
    with pytest.raises(InputError, match=r"side by side .*gdalbuildvrt.*--frames 'pop_\{year\}_C1"):
        propose_job(tmp_path)
    within = from_origin(4_324_000, 3_210_000, 1000, 1000)
    rasters(tmp_path, "pop_2000_C2.tif", transform=within)
    with pytest.raises(InputError, match="several kinds"):
        propose_job(tmp_path)


def test_bands_without_names_take_their_times_in_order(tmp_path):
    write_raster(tmp_path / "people.tif", np.stack([PEOPLE, PEOPLE + 1]))
    found, job, _ = times(tmp_path, time="2000, 2010")
    assert found == ["2000-01-01", "2010-01-01"] and job.input.times == ("2000", "2010")


def test_a_name_without_a_year_asks_for_it(tmp_path):
    rasters(tmp_path, "people.tif")
    with pytest.raises(InputError, match=r"people\.tif\) has a year in it; .*--time 2020"):
        propose_job(tmp_path)
    found, job, _ = times(tmp_path, time="2020")
    assert found == ["2020-01-01"] and job.input.times == ("2020",)


def test_what_a_run_would_refuse_is_told_before_a_job_is_written(tmp_path):
    dense = rasters(tmp_path / "dense", "pop_2000.tif", units="people per km2")
    with pytest.raises(InputError, match="is a density"):
        propose_job(dense)
    filled = tmp_path / "filled"
    filled.mkdir()
    write_raster(filled / "pop_2000.tif", PEOPLE - 5)
    with pytest.raises(InputError, match="holds -5 at row 0"):
        propose_job(filled)
    assert times(rasters(tmp_path / "fill", "pop_2000.tif"), nodata=11)[1].input.nodata == 11
    with pytest.raises(InputError, match=r"is no folder.*correct the path"):
        propose_job(tmp_path / "none")
    with pytest.raises(InputError, match=f"is no folder.*give {re.escape(str(filled))}$"):
        propose_job(filled / "pop_2000.tif")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no raster"):
        propose_job(tmp_path / "empty")


def test_several_kinds_of_frames_are_asked_for(tmp_path):
    rasters(tmp_path, "men_2000.tif", "women_2000.tif", "land.tif", "BUILT_S_2000.tif")
    with pytest.raises(InputError, match=r"men_\{year\}.tif, women_\{year\}.tif.*--frames 'men_"):
        propose_job(tmp_path)
    found, job, proposal = times(tmp_path, frames="women_{year}.tif")
    assert found == ["2000-01-01"] and "women" in job.input.frames
    assert (
        '# land = "land.tif"' in proposal.text and '# built = "BUILT_S_2000.tif"' in proposal.text
    )
    told = [
        line[2:] for line in proposal.text.splitlines() if line.startswith(("# cent", "# unit"))
    ]
    assert len(told) == 2
    (tmp_path / "found.toml").write_text(  # what stands there as a remark is what a job takes
        proposal.text.replace("names = ", "\n".join([*told, "names = "]), 1)
    )
    rules = load_job(tmp_path / "found.toml").settlements
    assert rules.centres and rules.units == "m2"


def test_stores_and_their_exports_are_no_frames(tmp_path):
    rasters(tmp_path, "pop_2000.tif", "pop_2001.tif", "deep/out/oslo/oslo_population_2000.tif")
    rasters(tmp_path, "deep/out/oslo.icechunk/chunks/2000.tif", "deep/out/oslo/old/pop_1999.tif")
    _, job, proposal = times(tmp_path)
    assert job.input.frames.endswith("/pop_{year}.tif")
    assert not any("not used" in line for line in proposal.notes)


def test_frames_on_several_grids_are_aligned(tmp_path):
    rasters(tmp_path, "pop_2000.tif")
    rasters(tmp_path, "pop_2001.tif", transform=from_origin(4_322_000, 3_210_000, 1000, 1000))
    _, job, proposal = times(tmp_path)
    assert job.input.align == "cover"
    assert "1 of 2 frames lie on another grid than the first: align is set" in proposal.notes


@pytest.mark.parametrize(("side", "asked"), [(100, (10, 50)), (250, (3, 10)), (1000, (3, 10))])
def test_communities_of_coarse_cells_are_of_fewer_cells(tmp_path, side, asked):
    rasters(tmp_path, "pop_2000.tif", transform=from_origin(4_321_000, 3_210_000, side, side))
    _, job, _ = times(tmp_path, pipeline="communities")
    assert (job.communities.eps, job.communities.min_samples) == asked


def test_a_job_is_never_overwritten(tmp_path, monkeypatch, capsys):
    rasters(tmp_path / "oslo", "pop_2000.tif", "pop_2001.tif")
    monkeypatch.chdir(tmp_path)

    def call(*words):
        monkeypatch.setattr("sys.argv", ["popdask", *words])
        with pytest.raises(SystemExit) as end:
            entry.main()
        said = capsys.readouterr()
        return end.value.code or 0, said.out, said.err

    code, said, _ = call("init", "oslo", "--pipeline", "communities")
    assert code == 0 and "found 2 frames, 2000 to 2001: pop_{year}.tif" in said
    assert said.endswith("next: popdask plan oslo.toml, and then popdask run oslo.toml\n")
    text = (tmp_path / "oslo.toml").read_text()
    assert 'frames = "oslo/pop_{year}.tif"' in text and 'pipeline = "communities"' in text
    code, _, complaint = call("init", "oslo")
    assert code == 2 and "oslo.toml is there already; expected a new file" in complaint
    assert (tmp_path / "oslo.toml").read_text() == text
    assert call("init", "oslo", "--pipeline", "scenes")[0] == 2


def test_what_is_written_runs_as_it_is(tmp_path, monkeypatch):
    town = np.zeros((40, 40), "float32")
    town[10:20, 10:20] = 900
    (tmp_path / "towns").mkdir()
    for year in (2000, 2001):
        write_raster(tmp_path / "towns" / f"pop_{year}.tif", town)
    monkeypatch.chdir(tmp_path)
    write_job(propose_job("towns"))
    job = load_job("towns.toml", {"output.export": ["geoparquet"]})
    run_job(job)
    found = RegionStore(job.output.store).table("settlements")
    assert found.groupby("time").size().tolist() == [1, 1]
    assert (tmp_path / "out" / "towns" / "towns_settlements.parquet").exists()


def test_a_folder_that_is_no_place_for_rasters_is_refused_soon(tmp_path, monkeypatch):
    monkeypatch.setattr("popdask.config.propose.MOST_FILES", 3)
    for number in range(5):
        (tmp_path / f"{number}.txt").touch()
    with pytest.raises(InputError, match="more than 3 files"):
        propose_job(tmp_path)
    with pytest.raises(InputError, match=r"cannot be listed|more than 3 files"):
        propose_job("/proc")
