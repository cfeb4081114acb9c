"""Exports of a job open in other tools, follow its frames, and are verified."""

import hashlib
import json
import shutil
from pathlib import Path

import duckdb
import geopandas as gpd
import numpy as np
import pyogrio
import pystac
import pystac.validation
import pytest
import rasterio
import xarray as xr
import zarr_cm

import popdask
from popdask.errors import InputError
from popdask.plot import CLASSES, number_colours
from popdask.store import RegionStore
from popdask.workflow import communities, population
from popdask.workflow.operations import verify
from tests.pipelines import dots
from tests.pipelines.small import job

FORMATS = ("cog", "geotiff", "zarr", "geoparquet", "gpkg", "stac")


def settings(frames, store, formats=FORMATS, **years):
    return job(frames, store, output={"export": formats}, input=years)


def contents(folder):
    """The digest of every file that lies in a folder."""
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.iterdir())
        if path.is_file()
    }


def times(folder):
    return {path.name: path.stat().st_mtime_ns for path in folder.iterdir() if path.is_file()}


@pytest.fixture(scope="module")
def finished(frames, tmp_path_factory):
    """The first three frames, exported to everything."""
    done = settings(frames, tmp_path_factory.mktemp("done") / "small.icechunk", end="2002")
    communities.run(done)
    return done


@pytest.fixture
def copy(finished, frames, tmp_path):
    """The same elsewhere."""
    shutil.copytree(finished.output.store, tmp_path / "small.icechunk")
    shutil.copytree(finished.export_folder, tmp_path / "small")
    return settings(frames, tmp_path / "small.icechunk", end="2002")


def test_rasters_open_in_the_colours_of_the_figures(finished):
    folder, store = finished.export_folder, RegionStore(finished.output.store)
    community = store.dataset()["community"][1].values
    with rasterio.open(folder / "small_community_2001.tif") as file:
        np.testing.assert_array_equal(file.read(1), community)
        assert (file.dtypes, file.nodata) == (("int32",), -1)
        table = file.colormap(1)
    events = store.table("tracks")
    now = events[events["time"] == "2001"].drop_duplicates("community")
    assert len(table) == community.max() + 1 == len(now)
    for number, track in zip(now["community"], now["track"], strict=True):
        colour = np.rint(number_colours(np.array([track]))[0] * 255).astype(int)
        assert table[number] == (*colour, 255)
    with rasterio.open(folder / "small_classes_2001.tif") as file:
        found = ["#{:02x}{:02x}{:02x}".format(*rgba) for rgba in file.colormap(1).values()]
    assert found == list(CLASSES[:3])
    with rasterio.open(folder / "small_population.tif") as file:
        assert file.descriptions == ("2000", "2001", "2002")
        np.testing.assert_array_equal(file.read(2), store.dataset()["population"][1])


def test_tables_and_layers_open(finished):
    folder, store = finished.export_folder, RegionStore(finished.output.store)
    found = gpd.read_parquet(folder / "small_communities.parquet")
    assert found.crs == store.table("communities").crs and found.is_valid.all()
    assert {"time", "community", "track", "population"} <= set(found.columns)
    lines = gpd.read_parquet(folder / "small_tracks.parquet")
    assert sorted(lines["track"]) == sorted(store.table("tracks")["track"].unique())
    layers = pyogrio.list_layers(folder / "small.gpkg")[:, 0].tolist()
    assert layers == ["communities", "tracks", "links"]
    assert len(gpd.read_file(folder / "small.gpkg", layer="links")) == len(store.table("links"))
    people = duckdb.sql(
        f"select year(time), sum(population) from '{folder}/small_communities.parquet' "
        "group by 1 order by 1"
    ).fetchall()
    inside = store.table("balance")["inside"].tolist()
    assert [round(total, 6) for _, total in people] == [round(total, 6) for total in inside]


def test_the_catalogue_leads_to_every_file(finished):
    folder = finished.export_folder
    collection = pystac.Collection.from_file(str(folder / "small_collection.json"))
    items = list(collection.get_items())
    assert [item.id for item in items] == ["small_2000", "small_2001", "small_2002"]
    for part in (collection, *items):
        told = part.to_dict(include_self_link=False)
        pystac.validation.validate_dict(told, extensions=[])
    parts = [*collection.assets.values(), *(a for item in items for a in item.assets.values())]
    hrefs = {Path(asset.get_absolute_href()) for asset in parts}
    kinds = (".tif", ".parquet", ".gpkg", ".zarr")
    assert hrefs == {path for path in folder.iterdir() if path.suffix in kinds}
    assert set(collection.assets["arrays"].extra_fields) == set()
    for asset in parts:
        if asset.href.endswith(".zarr"):
            continue
        digest = hashlib.sha256(Path(asset.get_absolute_href()).read_bytes()).hexdigest()
        assert asset.extra_fields["file:checksum"] == f"1220{digest}"


def test_the_run_has_its_exports_on_record(finished):
    told = RegionStore(finished.output.store).run_record()["exports"]
    assert set(told) == {path.name for path in finished.export_folder.iterdir()}
    path = finished.export_folder / "small_links.parquet"
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert told[path.name] == {"size": path.stat().st_size, "sha256": digest}
    assert json.dumps(told)


def test_the_same_results_give_the_same_bytes(finished, copy):
    before = contents(finished.export_folder)
    assert contents(copy.export_folder) == before
    assert communities.run_only(copy, "export", force=True).done
    assert contents(copy.export_folder) == before


def test_a_moved_region_is_exported_already(copy, frames, tmp_path):
    before = contents(copy.export_folder)
    moved = shutil.move(tmp_path, tmp_path.with_name(f"{tmp_path.name}-moved"))
    there = settings(frames, f"{moved}/small.icechunk", end="2002")
    assert communities.plan(there).done and verify(there).differences == ()
    elsewhere = there.model_copy(
        update={"output": there.output.model_copy(update={"folder": f"{moved}/elsewhere"})}
    )
    assert [stage.name for stage in communities.plan(elsewhere) if not stage.done] == ["export"]
    communities.run(elsewhere)
    assert contents(there.export_folder) == contents(elsewhere.export_folder) == before


def test_changed_and_missing_files_are_named_and_mended(copy):
    assert verify(copy).differences == ()
    folder, before = copy.export_folder, contents(copy.export_folder)
    raster = folder / "small_classes_2001.tif"
    content = bytearray(raster.read_bytes())
    content[-1] ^= 1
    raster.write_bytes(content)
    (folder / "small.gpkg").write_bytes(b"nothing")
    (folder / "small_2002.json").unlink()
    notes = folder / "small_classes_2000.tif.aux.xml"
    notes.write_text(notes.read_text().replace("</PAMRasterBand>", "<!-- --></PAMRasterBand>"))
    verified = verify(copy)
    found = verified.differences
    what = ["is not there", "was changed: it has 7 bytes", "was changed: its SHA-256 is another"]
    names = ["small_2002.json", "small.gpkg", "small_classes_2001.tif"]
    assert len(found) == 3 and verified.exports == ("export",)
    for difference, name, problem in zip(
        sorted(found, key=what_first(what)), names, what, strict=True
    ):
        assert difference.startswith(f"the exported file {folder / name} {problem}")
        assert "`popdask run JOB --only export --force`" in difference
    communities.run_only(copy, "export", force=True)
    assert verify(copy).differences == () and contents(folder) == before


def what_first(what):
    return lambda difference: next(i for i, part in enumerate(what) if part in difference)


def test_an_appended_frame_rewrites_only_what_it_must(copy, frames):
    before, folder = times(copy.export_folder), copy.export_folder
    whole = settings(frames, copy.output.store)
    communities.run(whole)
    after = times(folder)
    old = ("2000.tif", "2001.tif", "2000.json", "2001.json", "2000.tif.aux.xml")
    for name in (name for name in before if name.endswith(old)):
        assert after[name] == before[name], name
    assert after["small_population_2002.tif"] == before["small_population_2002.tif"]
    assert {"small_community_2003.tif", "small_2003.json"} <= set(after)
    for name in ("small_communities.parquet", "small_population.tif", "small_collection.json"):
        assert after[name] > before[name], name
    assert verify(whole).differences == ()
    shorter = settings(frames, copy.output.store, start="2001")
    communities.run(shorter)
    left = set(times(folder))
    assert not [name for name in left if "2000" in name]
    collection = pystac.Collection.from_file(str(folder / "small_collection.json"))
    assert [item.id for item in collection.get_items()] == [
        f"small_{y}" for y in (2001, 2002, 2003)
    ]
    assert verify(shorter).differences == ()


def test_another_format_leaves_the_others(copy, frames):
    before, folder = times(copy.export_folder), copy.export_folder
    fewer = settings(frames, copy.output.store, ("cog", "stac"), end="2002")
    communities.run(fewer)
    assert not list(folder.glob("*.parquet")) and not (folder / "small.gpkg").exists()
    communities.run(copy)
    after = times(folder)
    assert set(after) == set(before)
    for name in (name for name in before if name.endswith("_2001.tif")):
        assert after[name] == before[name], name


def test_what_a_killed_run_leaves_is_swept_away(copy):
    left = copy.export_folder / ".small.gpkg-x4_k2lb0"
    left.mkdir()
    communities.run_only(copy, "export", force=True)
    assert not left.exists() and (copy.export_folder / "small.gpkg").exists()


def test_a_catalogue_without_rasters_is_refused(frames, tmp_path):
    with pytest.raises(ValueError, match='"stac" is a catalogue of the COGs: add "cog"'):
        settings(frames, tmp_path / "x.icechunk", ("stac", "geoparquet"))
    with pytest.raises(InputError, match="no stage 'export'"):
        communities.run_only(job(frames, tmp_path / "x.icechunk"), "export")


def test_arrays_lie_in_a_group_of_zarr_with_all_people_of_every_level(finished):
    tree = xr.open_datatree(
        finished.export_folder / "small.zarr", engine="zarr", mask_and_scale=False
    )
    zarr_cm.validate_all(tree.attrs)
    assert tree["0"].attrs["title"] == "small"
    assert tree["0"].attrs["history"] == f"written by popdask {popdask.__version__}"
    catalogue = pystac.Collection.from_file(str(finished.export_folder / "small_collection.json"))
    assert catalogue.assets["arrays"].media_type == pystac.MediaType.ZARR
    held = RegionStore(finished.output.store).dataset()
    for name in ("population", "classes", "community"):
        np.testing.assert_array_equal(tree["0"][name], held[name])


def test_arrays_are_written_again_under_another_title(copy):
    before, named = times(copy.export_folder), copy.model_copy(update={"title": "Two towns"})
    communities.run(named)
    tree = xr.open_datatree(copy.export_folder / "small.zarr", engine="zarr")
    assert tree["0"].attrs["title"] == "Two towns"
    after = times(copy.export_folder)
    assert all(after[name] == before[name] for name in before if name.endswith(".tif"))


def test_estimates_have_a_catalogue_a_cube_and_a_page(tmp_path):
    dots.write_world(tmp_path)
    formats = ["cog", "parquet", "zarr", "stac", "report"]
    settings = {"output": {"export": formats}, "truth": None}  # a page draws all scores
    done = dots.job(tmp_path, tmp_path / "dots.icechunk", **settings)
    population.run(done)
    folder = done.export_folder
    collection = pystac.Collection.from_file(str(folder / "dots_collection.json"))
    assert [item.id for item in collection.get_items()] == ["dots_2015", "dots_2025"]
    assert {"scores", "predictions"} <= set(collection.assets)
    item = next(iter(collection.get_items()))
    assert set(item.assets) == {"population", "presence"}
    assert item.assets["population"].extra_fields["file:checksum"].startswith("1220")
    assert verify(done).differences == ()
    page = (folder / "dots_report.html").read_bytes()
    tree = xr.open_datatree(folder / "dots.zarr", engine="zarr")
    people = RegionStore(done.output.store).dataset()["population"].assign_attrs({})
    np.testing.assert_array_equal(tree["0"]["population"], people)
    assert tree["0"].attrs["source"] == f"popdask {popdask.__version__}"
    part = next(
        path for path in (folder / "dots.zarr").rglob("*") if path.name == "0" and path.is_file()
    )
    part.write_bytes(part.read_bytes() + b"x")
    (difference,) = verify(done).differences
    assert difference.startswith(f"the exported file {folder / 'dots.zarr'} was changed")
    assert "--only tables --force" in difference
    population.run_only(done, "tables", force=True)
    assert verify(done).differences == () and (folder / "dots_report.html").read_bytes() == page
