"""The sentences that the page on troubleshooting explains are those that are said."""

import os
import re
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import rasterio
import xarray as xr
from rasterio.control import GroundControlPoint

from popdask import RegionStore, open_frames, optical_flow
from popdask.cluster import connect
from popdask.config import CommunitiesJob, load_job
from popdask.config.jobs import Links
from popdask.config.load import load_job_with
from popdask.config.propose import propose_job
from popdask.errors import InputError
from popdask.io import find_frames, frame_fingerprint, grid_of, in_cells
from popdask.io.conventions import check_population
from popdask.io.tables import read_features
from popdask.store import RegionBusyError
from popdask.workflow import communities
from tests.cube.claims import tiff_of_claims
from tests.cube.raster_files import write_raster
from tests.pipelines import small

PAGE = Path(__file__).parents[1] / "docs" / "troubleshooting.md"
JOB = 'name = "a"\n[input]\nframes = "pop_{year}.tif"\n[output]\nstore = "out"\n'


def raster(path, columns=2, value=1.0, crs="EPSG:25833", dtype="float32", **tags):
    """A small raster of people, with a value in its first row."""
    people = np.ones((2, columns), dtype)
    people[0] = value
    transform = rasterio.transform.from_origin(0, 10, 1, 1)
    profile = {"width": columns, "height": 2, "count": 1, "dtype": dtype}
    with rasterio.open(path, "w", "GTiff", crs=crs, transform=transform, **profile) as file:
        file.write(people, 1)
        file.update_tags(**tags)


def written(path, text):
    path.write_text(text, encoding="utf-8")
    return path


def wrong_jobs(folder):
    yield lambda: load_job(folder / "none.toml")
    yield lambda: load_job(written(folder / "1.toml", "name = oslo"))
    yield lambda: load_job(written(folder / "2.toml", f"{JOB}[flow]\nalpa = 1\n"))
    yield lambda: load_job(written(folder / "3.toml", JOB.replace("frames", "nodata")))
    yield lambda: load_job(written(folder / "4.toml", JOB.replace("pop_", "${POPDASK_DATA}/")))
    yield lambda: load_job(written(folder / "5.toml", f'{JOB}[classes]\nk = "six"\n'))
    yield lambda: load_job(written(folder / "8.toml", f"{JOB}[flow]\nalpha = true\n"))
    yield lambda: load_job(written(folder / "9.toml", f"{JOB}[flow]\nlog = 1\n"))
    os.mkfifo(folder / "pipe.toml")
    yield lambda: load_job(folder / "pipe.toml")
    yield lambda: load_job_with(written(folder / "6.toml", JOB), ["classes.k"])
    yield lambda: connect("slrum").__enter__()
    long = JOB.replace("pop_", "p" * 300)
    yield lambda: load_job(written(folder / "7.toml", long))


def wrong_frames(folder):
    raster(folder / "men_2002.tif")
    raster(folder / "women_2002.tif")
    yield lambda: open_frames(str(folder / "none_{year}.tif"))
    yield lambda: open_frames(str(folder / "men.tif"))
    yield lambda: propose_job(folder)
    yield lambda: open_frames({"1500": folder / "men_2002.tif"})
    with zipfile.ZipFile(folder / "both.zip", "w") as archive:
        archive.write(folder / "men_2002.tif", "men_2002.tif")
        archive.write(folder / "women_2002.tif", "women_2002.tif")
    yield lambda: open_frames({"2002": folder / "both.zip"})
    write_raster(folder / "bands.tif", np.ones((2, 3, 3), "float32"))
    yield lambda: open_frames({"2002": folder / "bands.tif"})
    yield lambda: find_frames(str(folder / "men_{year}.tif"), start="2010")
    yield lambda: find_frames(str(folder / "men_{year}.tif"), start="2010", end="2002")
    yield lambda: open_frames(str(folder / "*_{year}.tif"))
    raster(folder / "density_2002.tif", units="people per km2")
    yield lambda: open_frames(str(folder / "density_{year}.tif"))
    raster(folder / "oslo_pd_2002.tif", value=2.5)
    yield lambda: open_frames(str(folder / "oslo_pd_{year}.tif")).compute()
    raster(folder / "negative_2002.tif", value=-5)
    yield lambda: open_frames(str(folder / "negative_{year}.tif")).compute()
    people = xr.DataArray(np.full((2, 1, 1), -5.0), dims=("time", "y", "x"))
    yield lambda: optical_flow(people)
    dated = people.assign_coords(time=pd.to_datetime(["2002", "2001"]))
    yield lambda: optical_flow(dated)
    yield lambda: optical_flow(dated.sortby("time"))
    raster(folder / "sea_2002.tif", value=65535, dtype="uint16")
    yield lambda: open_frames(str(folder / "sea_{year}.tif")).compute()
    raster(folder / "grid_2002.tif")
    raster(folder / "grid_2003.tif", columns=3)
    yield lambda: open_frames(str(folder / "grid_{year}.tif"))
    small_first = small.job(
        folder, folder / "store", input={"frames": f"{folder}/grid_{{year}}.tif", "align": True}
    )
    yield lambda: communities.run(small_first)
    raster(folder / "nowhere_2002.tif", crs=None)
    yield lambda: open_frames(str(folder / "nowhere_{year}.tif"))
    written(folder / "broken_2002.tif", "nothing")
    yield lambda: open_frames(str(folder / "broken_{year}.tif"))
    yield from wrong_kinds(folder)
    yield from wrong_headers(folder)
    raster(folder / "degrees_2002.tif", crs="EPSG:4326")
    degrees = open_frames(str(folder / "degrees_{year}.tif"))["population"]
    yield lambda: in_cells("2.5 km", degrees)
    yield lambda: grid_of(people)
    yield lambda: check_population("population", people[:0])
    metres = write_raster(folder / "metres.tif", np.ones((2, 2), "float32"), crs="EPSG:4326")
    yield lambda: open_frames({"2002": metres})
    with rasterio.open(folder / "bands.tif", "r+") as file:
        file.descriptions = ["2002-01-01", "2002-07-01"]
    yield lambda: find_frames(str(folder / "bands.tif#{year}"))
    yield lambda: open_frames({"2002": "https://me:p@ss/word@host/pop.tif"})
    yield lambda: open_frames({"2002": "s3://key:word@bucket/pop.tif"})
    yield lambda: open_frames({"2002": "http://host:port/pop.tif"})
    yield lambda: open_frames(str(folder / "men_{time:%YQ%q}.tif"))


def wrong_headers(folder):
    """Rasters that have no place, or values that are no counts."""
    os.mkfifo(folder / "pipe.tif")
    yield lambda: open_frames({"2002": folder / "pipe.tif"})
    points = [GroundControlPoint(*corner) for corner in ((0, 0, 10, 60), (0, 2, 12, 60))]
    write_raster(
        folder / "points.tif", np.ones((2, 2)), crs=None, transform=rasterio.Affine.identity()
    )
    with rasterio.open(folder / "points.tif", "r+") as file:
        file.gcps = points, rasterio.crs.CRS.from_epsg(4326)
    yield lambda: open_frames({"2002": folder / "points.tif"})
    raster(folder / "site.tif", crs='LOCAL_CS["site",UNIT["metre",1]]')
    yield lambda: open_frames({"2002": folder / "site.tif"})
    axes = {
        "lon": ("lon", [10.0, 11.0], {"units": "degrees_east"}),
        "lat": ("lat", [60.0, 59.0], {"units": "degrees_north"}),
    }
    xr.Dataset({"people": (("lon", "lat"), np.ones((2, 2)))}, axes).to_netcdf(folder / "turned.nc")
    yield lambda: open_frames({"2002": folder / "turned.nc"})
    axes["lat"] = ("lat", [60.0, 59.0, 57.0], {"units": "degrees_north"})
    xr.Dataset({"people": (("lat", "lon"), np.ones((3, 2)))}, axes).to_netcdf(folder / "gap.nc")
    yield lambda: open_frames({"2002": folder / "gap.nc"})
    write_raster(folder / "picture.tif", np.ones((8, 8), "uint8"), compress="JPEG")
    yield lambda: open_frames({"2002": folder / "picture.tif"})
    raster(folder / "scaled.tif")
    with rasterio.open(folder / "scaled.tif", "r+") as file:
        file.scales = (0,)
    yield lambda: open_frames({"2002": folder / "scaled.tif"})


def wrong_kinds(folder):
    """Files that only tell of others, under names of their own and of others."""
    raster(folder / "thousands_2000.tif", units="thousands of people")
    yield lambda: open_frames(str(folder / "thousands_{year}.tif"))
    raster(folder / "classes_2000.tif", dtype="uint8")
    with rasterio.open(folder / "classes_2000.tif", "r+") as file:
        file.write_colormap(1, {1: (255, 0, 0, 255)})
    yield lambda: open_frames(str(folder / "classes_{year}.tif"))
    (folder / "folder_2000.tif").mkdir()
    yield lambda: frame_fingerprint(str(folder / "folder_2000.tif"))
    yield lambda: open_frames(str(folder / "pop.zarr#{year}"))
    source = "<SimpleSource><SourceFilename>{}</SourceFilename></SimpleSource>"
    vrt = (
        '<VRTDataset rasterXSize="2" rasterYSize="2"><VRTRasterBand dataType="Byte" band="1">'
        f"{source.format(folder / 'gone.tif')}</VRTRasterBand></VRTDataset>"
    )
    planted = written(folder / "planted_2002.tif", vrt)
    yield lambda: open_frames([str(planted)], times=["2002"])
    hollow = tiff_of_claims(folder / "hollow_2002.tif", 10**6)
    yield lambda: open_frames([str(hollow)], times=["2002"])
    yield lambda: frame_fingerprint(str(written(folder / "lost_2002.vrt", vrt)))
    for number, text in enumerate(("<html>", "version https://git-lfs.github.com", "7z\xbc\xaf")):
        other = folder / f"other_{number}.tif"
        other.write_bytes(text.encode("latin-1"))
        yield lambda other=other: open_frames({"2002": other})
    for number, cells in enumerate(("1", "1 x")):
        grid = f"ncols 2\nnrows 1\nxllcorner 0\nyllcorner 0\ncellsize 1\n{cells}\n"
        ascii_grid = written(folder / f"{number}.asc", grid)
        yield lambda ascii_grid=ascii_grid: open_frames({"2002": ascii_grid})
    for flag in (0, 1):
        with zipfile.ZipFile(folder / f"packed_{flag}.zip", "w") as archive:
            archive.writestr("pop.7z", "")
        content = bytearray((folder / f"packed_{flag}.zip").read_bytes())
        content[content.index(b"PK\x01\x02") + 8] |= flag
        (folder / f"packed_{flag}.zip").write_bytes(content)
        yield lambda flag=flag: open_frames({"2002": folder / f"packed_{flag}.zip"})
    yield lambda: read_features(written(folder / "zones.gpkg", "<OGRVRTDataSource/>"))


def wrong_regions(folder):
    small.small_world().write(folder)
    settings = small.settings(folder, folder / "region", encoder={"epochs": 1})
    job = CommunitiesJob.model_validate(settings | {"name": "oslo"})
    yield lambda: RegionStore(folder / "region").dataset()
    communities.run_only(job, "population")
    yield lambda: RegionStore(folder / "region").dataset()
    yield lambda: communities.run(job.model_copy(update={"name": "bergen"}))
    communities.run(job)
    yield lambda: RegionStore(folder / "region").table("lanks")
    with RegionStore(folder / "region").lock():
        yield lambda: communities.run(job)
    yield lambda: RegionStore("/proc/self/region").lock().__enter__()
    (folder / "linked.lock").symlink_to(folder / "other")
    yield lambda: RegionStore(folder / "linked").lock().__enter__()
    (folder / "other").mkdir()
    written(folder / "other" / "file", "")
    yield from wrong_exports(folder)
    yield lambda: RegionStore(folder / "other")
    shutil.copytree(folder / "region", folder / "bare", ignore=shutil.ignore_patterns("refs"))
    yield lambda: RegionStore(folder / "bare")
    for snapshot in (folder / "region" / "snapshots").iterdir():
        written(snapshot, "")
    yield lambda: RegionStore(folder / "region").dataset()


def wrong_exports(folder):
    output = {
        "store": str(folder / "oslo"),
        "export": ["geoparquet"],
        "folder": str(folder / "out"),
    }
    settings = small.settings(folder, folder / "oslo", encoder={"epochs": 1}, output=output)
    job = CommunitiesJob.model_validate(settings)
    (folder / "out").touch()
    yield lambda: communities.run(job)
    (folder / "out").unlink()
    table = folder / "out" / "small_links.parquet"
    table.parent.mkdir()
    written(table, "mine")
    yield lambda: communities.run(job)
    table.unlink()
    communities.run(job)
    written(table, "edited")
    yield lambda: communities.run(job.model_copy(update={"links": Links(rule="cosine")}))
    there = folder / "out" / "small_population_2000.tif"
    there.symlink_to(folder / "world_2000.tif")
    cogs = job.output.model_copy(update={"export": ("cog",)})
    yield lambda: communities.run(job.model_copy(update={"output": cogs}))


def explained(section):
    """The sentences in the first column of a section's table, as the parts that are always said."""
    text = PAGE.read_text(encoding="utf-8").split(f"## {section}")[1].split("\n## ")[0]
    rows = re.findall(r"^\| (.*?) \|", text, re.MULTILINE)
    quoted = [quote for row in rows for quote in re.findall(r"`([^`]+)`", row)]
    quoted = [quote for quote in quoted if not quote.startswith("popdask ")]
    return [[part.strip() for part in quote.split("…") if part.strip()] for quote in quoted]


SECTIONS = {
    "The job file": wrong_jobs,
    "Frames": wrong_frames,
    "The region": wrong_regions,
}


@pytest.mark.parametrize("section", SECTIONS)
def test_the_sentences_are_those_that_are_said(section, tmp_path, monkeypatch):
    monkeypatch.delenv("POPDASK_DATA", raising=False)
    said = []
    for fails in SECTIONS[section](tmp_path):
        with pytest.raises((InputError, RegionBusyError)) as caught:
            fails()
        said.append(str(caught.value))
    sentences = explained(section)
    assert len(sentences) >= 4
    for parts in sentences:
        assert any(all(part in text for part in parts) for text in said), parts
