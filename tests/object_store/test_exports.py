"""Exports in a bucket are those of a folder, and are put, missed, checked and removed as these."""

import json

import fsspec
import geopandas as gpd
import numpy as np
import pytest
import rasterio

from popdask.errors import InputError
from popdask.io import open_cube
from popdask.io.paths import bucket_and_key, client, fsspec_options, gdal_options, gdal_path
from popdask.store import RegionStore
from popdask.workflow import communities, population
from popdask.workflow.operations import verify
from tests.pipelines import dots
from tests.pipelines.small import job

FORMATS = ("cog", "geoparquet", "stac")


def settings(frames, store, folder=None, formats=FORMATS, **years):
    return job(frames, store, output={"export": formats, "folder": folder}, input=years)


def objects(url):
    """The bytes of every object below a URL."""
    system, path = fsspec.core.url_to_fs(url, **fsspec_options(url))
    return {name.removeprefix(f"{path}/"): system.cat_file(name) for name in system.find(path)}


def files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def tag(url, names):
    """Mark objects; one that is put again loses its mark."""
    for name in names:
        bucket, key = bucket_and_key(f"{url}/{name}")
        tags = {"TagSet": [{"Key": "marked", "Value": "yes"}]}
        client().put_object_tagging(Bucket=bucket, Key=key, Tagging=tags)


def untagged(url, names):
    places = {name: bucket_and_key(f"{url}/{name}") for name in names}
    return {
        name
        for name, (bucket, key) in places.items()
        if not client().get_object_tagging(Bucket=bucket, Key=key)["TagSet"]
    }


@pytest.fixture(scope="module")
def local(frames, tmp_path_factory):
    """Two frames, exported to a folder."""
    done = settings(frames, tmp_path_factory.mktemp("local") / "small.icechunk", end="2001")
    communities.run(done)
    return done


def test_a_bucket_gets_the_same_files_though_requests_are_lost(
    place, server, frames, local, tmp_path, monkeypatch
):
    """Beside the store, which is there too; nothing is left in the working directory."""
    monkeypatch.chdir(tmp_path)
    server.faults(drop=0.05, delay=0.05)
    before = server.faults()["dropped"]
    store, formats = f"{place}/small.icechunk", (*FORMATS, "report")
    remote = settings(frames, store, formats=formats, end="2001")
    communities.run(remote)
    assert verify(remote).differences == ()
    assert server.faults(drop=0, delay=0)["dropped"] > before
    found, wanted = objects(f"{place}/small"), files(local.export_folder)
    assert b"</html>" in found.pop("small_report.html")
    assert found == wanted
    assert b"s3://" not in found["small_collection.json"] + found["small_2001.json"]
    assert not list(tmp_path.iterdir())
    assert_open(f"{place}/small", RegionStore(local.output.store))
    tag(f"{place}/small", [*found, "small_report.html"])
    assert communities.plan(remote).done
    communities.run(remote)
    assert not untagged(f"{place}/small", [*found, "small_report.html"])


def assert_open(url, store):
    """Readers find the values of a store where the objects are."""
    raster, table = f"{url}/small_community_2001.tif", f"{url}/small_communities.parquet"
    with rasterio.Env(**gdal_options()), rasterio.open(gdal_path(raster)) as file:
        np.testing.assert_array_equal(file.read(1), store.dataset()["community"][1].values)
        assert len(file.colormap(1)) > 0
    outlines = gpd.read_parquet(table, storage_options=fsspec_options(table))
    wanted = store.table("communities")
    assert outlines.geometry.geom_equals(wanted.geometry).all() and outlines.crs == wanted.crs


def test_changed_and_missing_objects_are_named_and_mended(place, frames, tmp_path):
    folder = f"{place}/maps"
    job_ = settings(frames, tmp_path / "small.icechunk", folder, ("cog", "geoparquet"), end="2001")
    communities.run(job_)
    before = objects(folder)
    tag(folder, before)
    bucket, key = bucket_and_key(folder)
    changed, lost = "small_classes_2001.tif", "small_links.parquet"
    content = before[changed][:-1] + bytes([before[changed][-1] ^ 1])
    client().put_object(Bucket=bucket, Key=f"{key}/{changed}", Body=content)
    client().delete_object(Bucket=bucket, Key=f"{key}/{lost}")
    first, second = sorted(verify(job_).differences)
    assert first.startswith(f"the exported file {folder}/{changed} was changed: its SHA-256")
    assert second.startswith(f"the exported file {folder}/{lost} is not there")
    communities.run_only(job_, "export", force=True)
    assert verify(job_).differences == () and objects(folder) == before
    assert untagged(folder, before) == {changed, f"{changed}.aux.xml", lost}


def test_another_frame_puts_only_what_is_other(place, frames, tmp_path):
    """The catalogue tells of rasters of a run before, which are not on this machine."""
    store, folder = tmp_path / "small.icechunk", f"{place}/maps"
    communities.run(settings(frames, store, folder, ("cog", "stac"), end="2001"))
    tag(folder, before := objects(folder))
    communities.run(settings(frames, store, folder, ("cog", "stac"), end="2002"))
    new = untagged(folder, objects(folder))
    assert not [name for name in new & set(before) if "2000" in name]
    assert {"small_community_2002.tif", "small_2002.json", "small_collection.json"} <= new
    shorter = settings(frames, store, folder, ("cog", "stac"), start="2001", end="2002")
    communities.run(shorter)
    found = objects(folder)
    assert not [name for name in found if "2000" in name]
    links = json.loads(found["small_collection.json"])["links"]
    items = [link["href"] for link in links if link["rel"] == "item"]
    assert items == ["./small_2001.json", "./small_2002.json"]
    assert verify(shorter).differences == ()


def test_a_bucket_that_is_not_there_is_named_at_once(reliable, frames, tmp_path):
    wrong = settings(frames, tmp_path / "small.icechunk", "s3://popdask-nowhere/maps")
    with pytest.raises(InputError, match="s3://popdask-nowhere/maps/ cannot be reached"):
        communities.run(wrong)
    assert not RegionStore(wrong.output.store).exists()


def test_a_cube_is_many_objects_and_its_rasters_are_followed(place, tmp_path):
    dots.write_world(tmp_path)
    job_ = dots.job(
        tmp_path,
        tmp_path / "dots.icechunk",
        estimate={"threshold": 0.0},  # somebody everywhere
        output={"export": ["cog", "zarr"], "folder": f"{place}/dots"},
        follow={
            "store": str(tmp_path / "followed.icechunk"),
            "encoder": {"epochs": 2},
            "classes": {"k": 2, "sample": 100},
            "communities": {"eps": 2, "min_samples": 3},
        },
        truth=None,
    )
    outcome = population.run(job_)
    people, url = outcome.store.dataset()["population"], f"{place}/dots/dots.zarr"
    np.testing.assert_array_equal(open_cube(url)["population"], people)
    estimated = people.sum(("y", "x"), dtype="float64").values
    np.testing.assert_allclose(outcome.followed.balance["raster"], estimated, rtol=1e-9)
    before = objects(url)
    part = max(before, key=lambda name: len(before[name]))
    bucket, key = bucket_and_key(url)
    for name in (part, "left"):
        client().put_object(Bucket=bucket, Key=f"{key}/{name}", Body=b"x")
    (difference,) = verify(job_).differences
    assert difference.startswith(f"the exported file {url} was changed")
    population.run_only(job_, "tables", force=True)
    assert objects(url) == before and verify(job_).differences == ()
