"""What a store says of itself, and how xarray opens it."""

import numpy as np
import pytest
import rasterio
import xarray as xr
import zarr
import zarr_cm
from compliance_checker.suite import CheckSuite
from pyproj import CRS

from popdask.config import SettlementsJob
from popdask.errors import InputError
from popdask.io import open_cube, open_frames, write_cube
from popdask.io.conventions import grid_attributes, with_axes
from popdask.io.grids import grid_of
from popdask.store import NoResultError, RegionStore
from popdask.store.content import stored_checksum
from popdask.store.xarray_backend import PopdaskBackend
from popdask.tracking.urbanisation import degree_of_urbanisation
from popdask.workflow import communities, settlements
from tests.pipelines import small


@pytest.fixture(scope="module")
def job(frames, tmp_path_factory):
    about = {"title": "Two towns", "institution": "the office of numbers"}
    settings = small.settings(frames, tmp_path_factory.mktemp("out") / "small.icechunk")
    return communities.CommunitiesJob.model_validate(settings | about)


@pytest.fixture(scope="module")
def store(job):
    return communities.run(job).store


@pytest.fixture(scope="module")
def towns(frames, tmp_path_factory):
    """The store of a settlements job."""
    tables = {"input": {"frames": f"{frames}/world_{{time:%Y}}.tif"}}
    tables["output"] = {"store": str(tmp_path_factory.mktemp("towns") / "towns.icechunk")}
    return settlements.run(SettlementsJob.model_validate({"name": "towns", **tables})).store


@pytest.fixture(scope="module")
def plain(store):
    """The arrays as a program sees them that knows Zarr and CF, but not popdask."""
    return xr.open_zarr(store.session().store, consolidated=False)


def test_the_store_says_what_it_is_whose_it_is_and_how_it_came_to_be(plain, store):
    run = store.history()[0]
    assert plain.attrs["Conventions"].startswith("CF-1.")
    assert (plain.attrs["title"], plain.attrs["institution"]) == (
        "Two towns",
        "the office of numbers",
    )
    assert plain.attrs["source"] == f"popdask {run.versions['popdask']}"
    (line,) = plain.attrs["history"].splitlines()
    assert line.startswith(run.finished) and "population, flow, encoder" in line


def test_coordinates_have_their_axis_and_standard_name(plain):
    said = {name: (plain[name].attrs["axis"], plain[name].attrs["standard_name"]) for name in "xy"}
    assert said == {"x": ("X", "projection_x_coordinate"), "y": ("Y", "projection_y_coordinate")}
    assert plain["time"].attrs["axis"] == "T" and plain["time"].attrs["standard_name"] == "time"
    assert all(plain[name].attrs["units"] == "metre" for name in "xy")


def test_labels_are_missing_to_programs_that_know_cf(plain, store):
    held = store.dataset()
    for name in ("classes", "community"):
        assert held[name].dtype.kind == "i"
        nobody = held[name].values == -1
        assert nobody.any() and (np.isnan(plain[name].values) == nobody).all()
        np.testing.assert_array_equal(plain[name].values[~nobody], held[name].values[~nobody])


def test_codes_of_classes_have_names(plain, store):
    said = store.dataset()["classes"].attrs
    assert said["flag_values"] == [0, 1, 2]
    assert said["flag_meanings"].split() == ["class_0", "class_1", "class_2"]
    assert set(np.unique(store.dataset()["classes"])) <= {-1, *said["flag_values"]}


def test_other_classes_have_other_names(job, store, tmp_path):
    changed = small.settings(str(job.input.frames).rpartition("/")[0], tmp_path / "s.icechunk")
    for k in (3, 4):
        run = communities.CommunitiesJob.model_validate(changed | {"classes": {"k": k}})
        outcome = communities.run(run)
        assert outcome.store.dataset()["classes"].attrs["flag_values"] == list(range(k))
    lines = xr.open_zarr(outcome.store.session().store, consolidated=False).attrs["history"]
    assert len(lines.splitlines()) == 2


def test_checksums_do_not_see_what_is_said(store):
    root = store.session().store
    array = zarr.open_group(root, mode="r")["classes"]
    recorded = list(store.records()["classes"]["checksums"].values())
    assert stored_checksum(array, 0) == recorded[0]["classes"]


def test_codes_of_urbanisation_have_names():
    population = small.small_world().population["population"]
    for level, names in ((1, 4), (2, 8)):
        said = degree_of_urbanisation(population, level=level).attrs
        assert len(said["flag_values"]) == len(said["flag_meanings"].split()) == names
    assert said["flag_meanings"].startswith("urban_centre dense_urban_cluster")


def test_a_cube_says_what_it_is(frames, tmp_path):
    cube = open_frames(f"{frames}/world_{{time:%Y}}.tif")
    write_cube(cube, tmp_path / "cube.zarr")
    written = xr.open_zarr(tmp_path / "cube.zarr", consolidated=False)
    assert written.attrs["Conventions"].startswith("CF-1.")
    assert written["y"].attrs["standard_name"] == "projection_y_coordinate"
    xr.testing.assert_identical(open_cube(tmp_path / "cube.zarr").compute(), cube.compute())


def test_xarray_opens_a_store_by_its_engine(store):
    opened = xr.open_dataset(store.path, engine=PopdaskBackend)
    held = store.dataset()
    assert opened.attrs["history"] and opened["community"].dtype == np.int32
    assert all(opened[name].chunks is None for name in opened.data_vars)
    opened.attrs.pop("history")
    xr.testing.assert_equal(opened.load(), held.load())


def test_xarray_gives_the_chunks_and_variables_that_are_asked_for(store):
    opened = xr.open_dataset(
        store.path, engine=PopdaskBackend, chunks={}, drop_variables=["u", "v"]
    )
    assert opened["population"].chunks == store.dataset()["population"].chunks
    assert set(opened.data_vars) == {"population", "classes", "community"}
    masked = xr.open_dataset(store.path, engine=PopdaskBackend, mask_and_scale=True)
    assert masked["community"].dtype.kind == "f" and masked["community"].isnull().any()


def test_what_is_not_there_is_said_in_a_sentence(store, tmp_path):
    with pytest.raises(InputError, match="holds no results yet: run the job first"):
        xr.open_dataset(tmp_path / "nowhere.icechunk", engine=PopdaskBackend)
    with pytest.raises(NoResultError, match="has no group 'cells'"):
        xr.open_dataset(store.path, engine=PopdaskBackend, group="cells")


def test_the_engine_knows_a_store_by_its_name():
    engine = PopdaskBackend()
    assert engine.guess_can_open("out/oslo.icechunk")
    assert not engine.guess_can_open("out/oslo.zarr") and not engine.guess_can_open(b"CDF")


def test_a_title_is_not_needed(frames, tmp_path):
    outcome = communities.run(small.job(frames, tmp_path / "small.icechunk"))
    store = RegionStore(outcome.store.path)
    assert store.dataset().attrs["title"] == "small"
    assert "institution" not in store.dataset().attrs


def test_another_title_is_told_without_computing(frames, tmp_path):
    place = tmp_path / "small.icechunk"
    first = communities.run(small.job(frames, place)).store
    stages, checksums = first.records(), first.frame_checksums()
    for about in ({"title": "Two towns", "institution": "an office"}, {"title": "Towns"}, {}):
        job = communities.CommunitiesJob.model_validate(small.settings(frames, place) | about)
        outcome = communities.run(job)
        told = outcome.store.dataset().attrs
        assert outcome.plan.done and told["title"] == about.get("title", "small")
        assert told.get("institution") == about.get("institution")
        runs = len(outcome.store.history())
        assert len(communities.run(job).store.history()) == runs  # nothing is left to tell
    assert first.records() == stages and first.frame_checksums() == checksums
    assert not list(first.other_problems())


def errors_of(path):
    """What compliance-checker finds, by the name of the check."""
    suite = CheckSuite()
    suite.load_all_available_checkers()
    found = suite.run_all(suite.load_dataset(str(path)), ["cf:1.11"], skip_checks=[])
    (results, failures) = found["cf:1.11"]
    assert len(results) > 20 and not failures
    return {result.name: result.msgs for result in results if not passed(result.value)}


def passed(value):
    """Whether a check found nothing: some tell how many of how many were right."""
    return value[0] == value[1] if isinstance(value, tuple) else value


@pytest.mark.parametrize("masked", [False, True], ids=["whole numbers", "masked"])
@pytest.mark.parametrize("labels", ["community", "settlement"])
def test_a_store_passes_the_checker_of_cf(store, towns, tmp_path, labels, masked):
    held = store if labels == "community" else towns
    found = xr.open_dataset(held.path, engine="popdask", mask_and_scale=masked)
    found.to_netcdf(tmp_path / "store.nc")
    assert errors_of(tmp_path / "store.nc") == {}
    with xr.open_dataset(tmp_path / "store.nc") as read:
        np.testing.assert_array_equal(read[labels].isnull(), held.dataset()[labels] < 0)


def test_the_checker_finds_what_is_wrong(store, tmp_path):
    found = xr.open_dataset(store.path, engine="popdask")
    found["population"].attrs["units"] = "people per cell"
    found.to_netcdf(tmp_path / "store.nc")
    assert any("people per cell" in str(told) for told in errors_of(tmp_path / "store.nc").values())


def test_the_store_says_where_its_cells_lie_by_geozarr(plain, store):
    attributes = zarr.open_group(store.session().store, mode="r").attrs.asdict()
    said = {"zarr_conventions": attributes["zarr_conventions"]}
    said |= {name: attributes[name] for name in attributes if name.startswith(("proj", "spatial"))}
    assert set(zarr_cm.detect_revisions(said)) == {"proj", "spatial"}
    zarr_cm.validate_all(said)
    declared = [zarr_cm.proj.CMO, zarr_cm.spatial.CMO]
    for one, other in zip(said["zarr_conventions"], declared, strict=True):
        assert one == {key: other[key] for key in one} and {"uuid", "schema_url"} <= set(one)
    grid = grid_of(store.dataset()["population"])
    assert CRS.from_user_input(said["proj:code"]) == CRS.from_user_input(plain.rio.crs)
    assert said["spatial:transform"] == list(grid.transform)[:6]
    assert said["spatial:shape"] == [plain.sizes["y"], plain.sizes["x"]]
    left, bottom, right, top = said["spatial:bbox"]
    assert (left, top) == (grid.transform.c, grid.transform.f)
    assert (right - left, top - bottom) == (1000 * plain.sizes["x"], 1000 * plain.sizes["y"])
    assert not [name for name in store.dataset().attrs if name in said]


def test_counts_are_numbers_to_cf_and_people_to_popdask(plain, store):
    assert {plain[name].attrs["units"] for name in ("population", "u", "v")} == {"1"}
    assert plain["population"].attrs["comment"] == "counted in people per cell"
    held = store.dataset()
    assert held["population"].attrs["units"] == "people per cell"
    assert held["u"].attrs["units"] == "cells per frame"


def test_a_tree_has_the_people_at_its_root_and_a_layer_for_each_stage(store):
    tree = xr.open_datatree(store.path, engine="popdask")
    assert list(tree.data_vars) == ["population"] and tree.attrs["title"] == "Two towns"
    layers = {name: set(map(str, layer.dataset.data_vars)) for name, layer in tree.children.items()}
    assert layers == {"flow": {"u", "v"}, "classes": {"classes"}, "communities": {"community"}}
    flat = xr.open_dataset(store.path, engine="popdask")
    for name, variables in layers.items():
        for variable in variables:
            xr.testing.assert_identical(tree[name][variable], flat[variable])


def test_the_licence_of_the_data_is_told(tmp_path):
    folder = tmp_path / "frames"
    small.small_world().write(folder)
    for path in folder.glob("*.tif"):
        with rasterio.open(path, "r+") as file:
            file.update_tags(licence="CC BY 4.0, the office of numbers")
    held = communities.run(small.job(folder, tmp_path / "s.icechunk")).store.dataset()
    assert held.attrs["license"] == "CC BY 4.0, the office of numbers"


def test_a_crs_without_a_number_is_told_in_full():
    crs = CRS.from_proj4("+proj=laea +lat_0=12 +lon_0=34 +datum=WGS84")
    cells = small.small_world().population["population"][0].rio.write_crs(crs)
    said = grid_attributes(with_axes(cells.to_dataset()))
    zarr_cm.validate_all(said)
    assert "proj:code" not in said and CRS.from_wkt(said["proj:wkt2"]) == crs
