"""What a store says of itself, and how xarray opens it."""

import numpy as np
import pytest
import xarray as xr
import zarr

from popdask.errors import InputError
from popdask.io import open_cube, open_frames, write_cube
from popdask.store import NoResultError, RegionStore
from popdask.store.content import stored_checksum
from popdask.store.xarray_backend import PopdaskBackend
from popdask.tracking.urbanisation import degree_of_urbanisation
from popdask.workflow import communities
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
    xr.testing.assert_identical(opened.load(), held.load())


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
    attributes = RegionStore(outcome.store.path).dataset().attrs
    assert attributes["title"] == "small" and "institution" not in attributes
