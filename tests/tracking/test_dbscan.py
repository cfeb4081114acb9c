"""Communities: equal to scikit-learn's DBSCAN, class by class, at any chunking."""

import math
import os
from pathlib import Path

import dask
import dask.array as da
import numpy as np
import pytest
import rioxarray
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter
from sklearn.cluster import DBSCAN

from popdask.errors import InputError
from popdask.tracking.dbscan import dbscan

DATA = Path(os.environ.get("POPDASK_DATA") or "/nonexistent")
OSLO = DATA / "oslo_250m" / "oslo_pop_250m_2019.tif"


def reference(classes: np.ndarray, eps: float, min_samples: int) -> np.ndarray:
    """Scikit-learn's labels of one frame, continued from class to class."""
    community = np.full(classes.shape, -1, np.int32)
    for kind in np.unique(classes[classes >= 0]):
        cells = np.argwhere(classes == kind)
        label = DBSCAN(eps=eps, min_samples=min_samples).fit_predict(cells)
        community[tuple(cells.T)] = np.where(label < 0, -1, label + community.max() + 1)
    return community


def grid(classes: np.ndarray, *chunks: int | tuple[int, ...]) -> xr.DataArray:
    dims = ("time", "y", "x")[-classes.ndim :]
    array = xr.DataArray(classes, dims=dims)
    return array.chunk(dict(zip(dims, chunks, strict=True))) if chunks else array


def drawn(picture: str) -> np.ndarray:
    """Classes from a drawing: digits are classes, dots have no data."""
    rows = [line.strip() for line in picture.strip().splitlines()]
    return np.array([[-1 if cell == "." else int(cell) for cell in row] for row in rows])


def bands(shape: tuple[int, int], count: int, smooth: float, seed: int) -> np.ndarray:
    """Spatially coherent classes: the quantiles of a smoothed random field."""
    field = gaussian_filter(np.random.default_rng(seed).standard_normal(shape), smooth)
    edges = np.quantile(field, np.linspace(0, 1, count + 1)[1:-1])
    return np.digitize(field, edges).astype(np.int16)


def cut(size: int) -> st.SearchStrategy[tuple[int, ...]]:
    """Ragged chunks of an axis, many of them far smaller than a halo."""
    cuts = st.sets(st.integers(1, size - 1), max_size=6)
    return cuts.map(lambda at: tuple(np.diff([0, *sorted(at), size]).tolist()))


@st.composite
def worlds(draw: st.DrawFn) -> tuple[np.ndarray, tuple[int, ...], tuple[int, ...]]:
    height, width = draw(st.integers(2, 70)), draw(st.integers(2, 70))
    seed = draw(st.integers(0, 2**32 - 1))
    classes = bands(
        (height, width), draw(st.integers(1, 5)), draw(st.sampled_from([0, 1, 3])), seed
    )
    bare = np.random.default_rng(seed).random(classes.shape) < draw(st.sampled_from([0, 0.3, 0.8]))
    return np.where(bare, np.int16(-1), classes), draw(cut(height)), draw(cut(width))


@settings(max_examples=30)
@given(
    worlds(),
    st.sampled_from([0.5, 1, 1.5, 2, math.sqrt(2), 3.7, 10]),
    st.sampled_from([1, 2, 3, 5, 9, 20, 50]),
)
def test_labels_equal_scikit_learn_at_any_chunking(world, eps, min_samples):
    classes, rows, columns = world
    expected = reference(classes, eps, min_samples)
    for array in (grid(classes), grid(classes, rows, columns)):
        np.testing.assert_array_equal(dbscan(array, eps=eps, min_samples=min_samples), expected)


@settings(max_examples=30)
@given(worlds(), st.sampled_from([1, 1.2, 1.4, math.sqrt(2), 1.5, 1.99]))
def test_plain_contiguity_equals_scikit_learn_at_any_chunking(world, eps):
    classes, rows, columns = world
    expected = reference(classes, eps, 1)
    for array in (grid(classes), grid(classes, rows, columns)):
        np.testing.assert_array_equal(dbscan(array, eps=eps, min_samples=1), expected)


def test_default_settings_equal_scikit_learn():
    classes = bands((150, 130), 4, 3, seed=1)
    expected = reference(classes, 10, 50)
    assert expected.max() > 5
    assert (expected < 0).any()
    np.testing.assert_array_equal(dbscan(grid(classes, 40, 50)), expected)


@pytest.mark.parametrize("chunk", [60, 13, 5])
def test_two_discs_apart_are_two_communities_and_a_bridge_joins_them(chunk):
    y, x = np.ogrid[:40, :60]
    discs = (np.hypot(y - 20, x - 14) <= 9) | (np.hypot(y - 20, x - 45) <= 9)
    classes = np.where(discs, 3, -1)
    community = dbscan(grid(classes, chunk, chunk), eps=3, min_samples=8).values
    np.testing.assert_array_equal(community, np.where(discs, np.where(x < 30, 0, 1), -1))

    classes[19:22, 14:45] = 3
    community = dbscan(grid(classes, chunk, chunk), eps=3, min_samples=8).values
    np.testing.assert_array_equal(community, np.where(classes == 3, 0, -1))


def test_a_snake_through_every_chunk_is_one_community():
    classes = np.full((90, 90), -1)
    classes[::10] = 1
    classes[:, 0] = np.where(np.arange(90) // 10 % 2, 1, -1)
    classes[:, -1] = np.where(np.arange(90) // 10 % 2, -1, 1)
    classes[::10, [0, -1]] = 1
    classes[81:] = -1
    community = dbscan(grid(classes, 9, 9), eps=1, min_samples=2).values
    np.testing.assert_array_equal(community, np.where(classes == 1, 0, -1))


def test_a_ring_around_a_chunk_is_one_community_and_its_middle_another():
    classes = np.full((36, 36), -1)
    classes[10:26, 10:26] = 0
    classes[12:24, 12:24] = -1
    classes[16:20, 16:20] = 0
    expected = np.where(classes == 0, 0, -1)
    expected[16:20, 16:20] = 1
    community = dbscan(grid(classes, 12, 12), eps=2, min_samples=5)
    np.testing.assert_array_equal(community, expected)


@pytest.mark.parametrize("chunk", [11, 4, 3])
@pytest.mark.parametrize("turns", [0, 1, 2, 3])
def test_a_contested_border_cell_belongs_to_the_lowest_community(chunk, turns):
    """The cell in the middle is no core and reaches one core of either square."""
    picture = """
        .........
        ...555...
        ...555...
        ...555...
        .........
        ....5....
        .........
        ...555...
        ...555...
        ...555...
        .........
        """
    classes = np.rot90(drawn(picture), turns).copy()
    community = dbscan(grid(classes, chunk, chunk), eps=2, min_samples=5).values
    np.testing.assert_array_equal(community, reference(classes, 2, 5))
    middle = tuple(np.array(classes.shape) // 2)
    assert community.max() == 1
    assert community[middle] == 0


@pytest.mark.parametrize("chunk", [8, 4])
def test_labels_of_different_classes_never_collide(chunk):
    """The original took its running offset over cells not yet written, so that they did."""
    classes = drawn(
        """
        33..22..
        33..22..
        ........
        22..00..
        22..00..
        ........
        33..33..
        33..33..
        """
    )
    expected = drawn(
        """
        33..11..
        33..11..
        ........
        22..00..
        22..00..
        ........
        44..55..
        44..55..
        """
    )
    community = dbscan(grid(classes, chunk, chunk), eps=1.5, min_samples=4)
    np.testing.assert_array_equal(community, expected)


def test_cells_without_data_take_no_part():
    """Neither as a class of their own nor as neighbours that help a cell to become a core."""
    classes = np.full((20, 20), -1)
    assert (dbscan(grid(classes, 7, 7), eps=2, min_samples=1) == -1).all()
    classes[10, 10] = 0
    assert (dbscan(grid(classes, 7, 7), eps=2, min_samples=2) == -1).all()
    assert dbscan(grid(classes, 7, 7), eps=2, min_samples=1).values[10, 10] == 0


def test_reach_is_a_euclidean_distance_and_its_end_counts():
    diagonal = np.where(np.eye(12, dtype=bool), 0, -1)
    assert (dbscan(grid(diagonal, 5, 5), eps=1.4, min_samples=2) == -1).all()
    assert dbscan(grid(diagonal, 5, 5), eps=math.sqrt(2), min_samples=2).max() == 0
    pair = drawn("0..0")
    assert (dbscan(grid(pair), eps=2.999, min_samples=2) == -1).all()
    np.testing.assert_array_equal(dbscan(grid(pair), eps=3, min_samples=2), [[0, -1, -1, 0]])


def test_reach_beyond_the_frame_takes_all_of_it():
    classes = np.array([[0, -1, 1], [1, -1, 0]])
    community = dbscan(grid(classes, 1, 1), eps=1e9, min_samples=2)
    np.testing.assert_array_equal(community, classes)


@pytest.mark.parametrize("chunks", [(3, 60, 50), (2, 17, 21), (1, 60, 50)])
def test_frames_are_numbered_on_their_own(chunks):
    classes = np.stack([bands((60, 50), 3, 2, seed) for seed in range(3)])
    array = grid(classes, *chunks)
    community = dbscan(array, eps=2, min_samples=9)
    assert community.chunks == array.chunks
    np.testing.assert_array_equal(community, [reference(frame, 2, 9) for frame in classes])


def test_dimensions_and_coordinates_stay():
    classes = xr.DataArray(
        bands((8, 6), 2, 1, seed=0).astype("uint8"),
        dims=("x", "y"),
        coords={"x": np.arange(8.0), "y": -np.arange(6.0), "spatial_ref": 0},
        attrs={"long_name": "class"},
    )
    community = dbscan(classes, eps=2, min_samples=3)
    assert community.dims == ("x", "y")
    assert community.dtype == np.int32
    assert community.name == "community"
    assert community.attrs == {"long_name": "community of the cell, −1 = none", "units": "1"}
    xr.testing.assert_equal(community.coords.to_dataset(), classes.coords.to_dataset())
    np.testing.assert_array_equal(community.T, reference(classes.values.T, 2, 3))


def test_nothing_is_read_until_asked():
    def refuse(block: np.ndarray) -> np.ndarray:
        raise AssertionError("read")

    zeros = da.zeros((2, 80, 80), chunks=(1, 30, 40), dtype="int16")
    unread = zeros.map_blocks(refuse, dtype="int16", meta=zeros._meta)
    community = dbscan(xr.DataArray(unread, dims=("time", "y", "x")))
    assert dask.is_dask_collection(community)
    with pytest.raises(AssertionError, match="read"):
        community.compute()


def test_the_graph_grows_with_the_number_of_chunks():
    def tasks(frames: int, side: int) -> int:
        zeros = da.zeros((frames, 40 * side, 40 * side), chunks=(1, 40, 40), dtype="int16")
        return len(dbscan(xr.DataArray(zeros, dims=("time", "y", "x"))).__dask_graph__())

    assert all(tasks(1, side) <= 16 * side**2 for side in (1, 2, 8, 24))
    assert tasks(5, 6) == 5 * tasks(1, 6)


def test_one_frame_of_many_is_computed_alone():
    zeros = da.zeros((9, 80, 80), chunks=(1, 40, 40), dtype="int16")
    frame = dbscan(xr.DataArray(zeros, dims=("time", "y", "x"))).isel(time=4).data
    (optimized,) = dask.optimize(frame)
    alone = dbscan(xr.DataArray(zeros[4], dims=("y", "x"))).data
    assert len(optimized.__dask_graph__()) <= len(alone.__dask_graph__())


@pytest.mark.parametrize(
    ("setting", "named"),
    [
        ({"eps": 0}, "eps is 0"),
        ({"eps": -2.5}, "eps is -2.5"),
        ({"eps": math.nan}, "eps is nan"),
        ({"eps": math.inf}, "eps is inf"),
        ({"eps": "2.5 km"}, "eps is '2.5 km'"),
        ({"min_samples": 0}, "min_samples is 0"),
        ({"min_samples": 2.5}, "min_samples is 2.5"),
    ],
)
def test_bad_settings_are_named(setting, named):
    with pytest.raises(InputError, match=named):
        dbscan(grid(np.zeros((4, 4), int)), **setting)


def test_classes_must_be_integers_on_a_grid():
    with pytest.raises(InputError, match=r"float64.*fillna"):
        dbscan(grid(np.array([[0, np.nan]])))
    with pytest.raises(InputError, match="'row', 'column'"):
        dbscan(xr.DataArray(np.zeros((4, 4), int), dims=("row", "column")))


@pytest.mark.skipif(not OSLO.is_file(), reason=f"POPDASK_DATA has no {OSLO.name}")
def test_population_of_oslo_equals_scikit_learn():
    population = np.nan_to_num(rioxarray.open_rasterio(OSLO, masked=True).values[0])
    smooth = gaussian_filter(population, 2)
    edges = np.quantile(smooth[smooth > 1], np.linspace(0, 1, 10)[:-1])
    classes = np.digitize(smooth, edges).astype(np.int16) - 1
    expected = reference(classes, 10, 50)
    assert expected.max() > 5
    np.testing.assert_array_equal(dbscan(grid(classes)), expected)
    np.testing.assert_array_equal(dbscan(grid(classes, 64, 100)), expected)
