"""Levels of a pyramid have all people, the most frequent labels, and lie where they say."""

import json

import dask
import dask.array as da
import numpy as np
import pytest
import xarray as xr
import zarr
import zarr_cm
from hypothesis import given, settings
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_zeros

from popdask.errors import InputError
from popdask.io import open_cube, write_pyramid
from popdask.io.conventions import is_grid_attribute
from popdask.io.grids import grid_of
from tests.store.test_conventions import errors_of

SHAPE = (1301, 777)  # odd on every level that follows


def arrays(shape=SHAPE, chunks=(1, 400, 300)):
    """People, some of them unknown, and codes and labels on the same cells."""
    rng = np.random.default_rng(5)
    grid = GeoBox.from_bbox((0, 0, 250 * shape[1], 250 * shape[0]), "EPSG:3035", resolution=250)
    like = xr_zeros(grid, "float32", time=["2006-01-01", "2011-07-01"])
    people = rng.gamma(0.3, 200, like.shape).astype("float32")
    people[:, :40, :50] = np.nan
    found = {
        "population": like.copy(data=people).assign_attrs(units="people per cell"),
        "presence": like.copy(data=rng.random(like.shape, "float32")),
        "degurba": like.copy(data=rng.choice([10, 11, 21, 30], like.shape).astype("int8")),
        "settlement": like.copy(data=rng.integers(-1, 3, like.shape, "int32")),
    }
    for name, array in found.items():
        array.attrs["long_name"] = name
    about = {"title": "Two towns", "source": "dice", "history": "thrown once"}
    return xr.Dataset(found, attrs=about).chunk(dict(zip(like.dims, chunks, strict=True)))


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    return write_pyramid(arrays(), tmp_path_factory.mktemp("out") / "small.zarr")


@pytest.fixture(scope="module")
def tree(written):
    return xr.open_datatree(written, engine="zarr", mask_and_scale=False).load()


def test_a_reader_that_knows_xarray_alone_finds_the_levels(tree):
    shapes = {name: (level.sizes["y"], level.sizes["x"]) for name, level in tree.children.items()}
    assert shapes == {"0": SHAPE, "1": (651, 389), "2": (326, 195)}
    for level in tree.children.values():
        assert set(level.data_vars) == {"population", "presence", "degurba", "settlement"}
        assert level["time"].dt.year.values.tolist() == [2006, 2011]


def test_every_level_has_all_people(tree):
    people = [level["population"].values.astype("float64") for level in tree.children.values()]
    sums = [np.nansum(one, axis=(1, 2)) for one in people]
    for total in sums[1:]:
        np.testing.assert_allclose(total, sums[0], rtol=1e-14)
    assert np.isnan(people[1][:, :20, :25]).all() and not np.isnan(people[1][:, 20:]).any()


@pytest.mark.parametrize("name", ["degurba", "settlement"])
def test_labels_are_the_most_frequent_of_four(tree, name):
    for finer, coarser in (("0", "1"), ("1", "2")):
        cells, found = tree[finer][name].values, tree[coarser][name].values
        assert found.dtype == cells.dtype
        for row, column in ((0, 0), (17, 91), (found.shape[1] - 1, found.shape[2] - 1)):
            four = cells[1, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
            values, counts = np.unique(four, return_counts=True)
            assert found[1, row, column] == values[counts == counts.max()].max()


def test_other_numbers_are_means(tree):
    cells = tree["0"]["presence"].values.astype("float64")[:, :1300, :776]
    means = cells.reshape(2, 650, 2, 388, 2).mean(axis=(2, 4))
    np.testing.assert_allclose(tree["1"]["presence"].values[:, :650, :388], means, rtol=1e-6)


def test_levels_lie_where_geozarr_says(written, tree):
    said = zarr.open_group(written, mode="r").attrs.asdict()
    zarr_cm.validate_all(said)
    assert set(zarr_cm.detect_revisions(said)) == {"proj", "spatial", "multiscales"}
    assert said["zarr_conventions"][-1].items() <= zarr_cm.multiscales.CMO.items()
    for entry in said["multiscales"]["layout"]:
        level = tree[entry["asset"]]
        grid = grid_of(level["population"])
        assert entry["spatial:shape"] == list(grid.shape)
        assert entry["spatial:transform"] == list(grid.transform)[:6]
        assert level.attrs["spatial:transform"] == entry["spatial:transform"]
        assert grid.boundingbox.left == 0 and grid.boundingbox.top == 250 * SHAPE[0]
    assert json.loads((written / "zarr.json").read_text())["consolidated_metadata"]


def test_levels_say_by_cf_how_their_cells_were_made(tree):
    said = {name: array.attrs.get("cell_methods") for name, array in tree["1"].data_vars.items()}
    modes = {"degurba": "area: mode", "settlement": "area: mode"}
    assert said == {"population": "area: sum", "presence": "area: mean", **modes}
    assert tree["0"].attrs["title"] == "Two towns" and tree["0"].attrs["Conventions"][:3] == "CF-"


@pytest.mark.parametrize("level", ["0", "1"])
def test_a_level_passes_the_checker_of_cf(written, tmp_path, level):
    found = xr.open_dataset(written, engine="zarr", group=level).isel(y=slice(9), x=slice(9))
    found.attrs = {key: said for key, said in found.attrs.items() if not is_grid_attribute(key)}
    for axis in "yx":
        found[axis].encoding["_FillValue"] = None  # else xarray writes NaN
    found.to_netcdf(tmp_path / "level.nc")
    assert errors_of(tmp_path / "level.nc") == {}


def test_the_finest_level_is_a_cube(written):
    found = open_cube(written)["population"]
    np.testing.assert_array_equal(found, arrays()["population"])


def test_what_has_no_overview_is_on_the_finest_level_alone(tmp_path):
    place = write_pyramid(arrays(), tmp_path / "a.zarr", finest=["presence"])
    tree = xr.open_datatree(place, engine="zarr")
    assert ["presence" in level for level in tree.children.values()] == [True, False, False]


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    """A pyramid of arrays that are not chunked."""
    return write_pyramid(arrays((600, 531)), tmp_path_factory.mktemp("one") / "one.zarr")


@settings(max_examples=8)
@given(st.tuples(st.integers(1, 2), st.integers(90, 700), st.integers(90, 700)))
def test_chunks_change_nothing(one, tmp_path_factory, chunks):
    place = tmp_path_factory.mktemp("chunks") / "other.zarr"
    other = write_pyramid(arrays((600, 531), chunks), place)
    files = [sorted(path.relative_to(place) for path in place.rglob("*")) for place in (one, other)]
    assert files[0] == files[1]
    for name in files[0]:
        assert (one / name).is_dir() or (one / name).read_bytes() == (other / name).read_bytes()


def test_tasks_need_not_see_the_folder_that_is_written(written, tmp_path):
    """As on a cluster whose workers have other disks."""
    place, away = tmp_path / "here", tmp_path / "away"
    place.mkdir()

    def get_elsewhere(*graph, **how):
        place.rename(away)
        found = dask.threaded.get(*graph, **how)
        away.rename(place)
        return found

    with dask.config.set(scheduler=get_elsewhere):
        other = write_pyramid(arrays(), place / "small.zarr")
    files = [path.relative_to(written) for path in written.rglob("*") if path.is_file()]
    assert all((other / name).read_bytes() == (written / name).read_bytes() for name in files)


def test_what_has_no_place_is_refused(tmp_path):
    with pytest.raises(InputError, match="there are no arrays; expected at least one"):
        write_pyramid(xr.Dataset(), tmp_path / "a.zarr")
    with pytest.raises(InputError, match="'people' has no CRS"):
        people = xr.DataArray(da.zeros((2, 3)), {"y": [2.0, 1.0], "x": [0.0, 1, 2]}, ("y", "x"))
        write_pyramid(people.to_dataset(name="people"), tmp_path / "a.zarr")
    assert list(tmp_path.iterdir()) == []
