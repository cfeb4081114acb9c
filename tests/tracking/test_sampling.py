"""Drawing cells and reading windows: the same cells and values, whatever the chunks."""

import os
from pathlib import Path

import dask.array as da
import numpy as np
import pytest
import rioxarray
import xarray as xr
from dask.callbacks import Callback
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from popdask.blocks.sampling import gather_cells, gather_windows, sample_cells
from popdask.errors import InputError

FILL = [-1.0, -2.0, -3.0]


def splitmix64(index: int, seed: int) -> int:
    """The published algorithm in plain Python integers."""

    def mix(z: int) -> int:
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        z = (z ^ (z >> 27)) * 0x94D049BB133111EB % 2**64
        return z ^ (z >> 31)

    return mix((mix(seed % 2**64) + index * 0x9E3779B97F4A7C15) % 2**64)


def draw_plainly(mask: np.ndarray, n: int, seed: int) -> list[list[int]]:
    index = sorted(np.flatnonzero(mask).tolist(), key=lambda i: splitmix64(i, seed))[:n]
    return np.stack(np.unravel_index(index, mask.shape), axis=1).tolist()


def cut_plainly(features: np.ndarray, cells: np.ndarray, size: int) -> np.ndarray:
    """Windows of (time, channel, y, x) features, one Python loop per cell."""
    half = size // 2
    out = np.empty((len(cells), features.shape[1], size, size), np.float32)
    for row, (t, y, x) in enumerate(cells):
        for channel, fill in enumerate(FILL):
            padded = np.pad(features[t, channel], half, constant_values=fill)
            out[row, channel] = padded[y : y + size, x : x + size]
    return out


def cube(array: np.ndarray, *dims: str) -> xr.DataArray:
    return xr.DataArray(array, dims=dims)


def some_mask(shape: tuple[int, ...], share: float = 0.5) -> xr.DataArray:
    mask = np.random.default_rng(5).random(shape) < share
    return cube(mask, *("time", "y", "x")[-len(shape) :])


@st.composite
def chunked(draw, shape):
    """Ragged chunks of a shape, one tuple of sizes per axis."""
    chunks = []
    for length in shape:
        cuts = draw(st.sets(st.integers(1, length - 1), max_size=length - 1)) if length > 1 else []
        chunks.append(tuple(np.diff([0, *sorted(cuts), length]).tolist()))
    return tuple(chunks)


@pytest.mark.parametrize("seed", [0, 1, -7, 2**63])
def test_sample_equals_the_published_hash(seed):
    mask = some_mask((3, 13, 17))
    assert sample_cells(mask, 40, seed=seed).tolist() == draw_plainly(mask.values, 40, seed)


@given(chunks=chunked((3, 11, 9)), n=st.integers(1, 200), share=st.sampled_from([0, 0.1, 0.5, 1]))
@settings(max_examples=25)
def test_sample_is_the_same_under_any_chunking(chunks, n, share):
    mask = some_mask((3, 11, 9), share)
    lazy = mask.copy(data=da.from_array(mask.values, chunks=chunks))
    np.testing.assert_array_equal(sample_cells(lazy, n), sample_cells(mask, n))


def test_a_smaller_sample_is_a_prefix_of_a_larger_one():
    mask = some_mask((40, 50)).chunk(y=7, x=11)
    np.testing.assert_array_equal(sample_cells(mask, 25), sample_cells(mask, 300)[:25])


def test_sample_of_more_than_there_is_gives_every_cell_once():
    mask = some_mask((2, 20, 30)).chunk(time=1, y=6)
    cells = sample_cells(mask, 10**6)
    np.testing.assert_array_equal(np.sort(cells, axis=0), np.sort(np.argwhere(mask.values), axis=0))
    assert len(np.unique(cells, axis=0)) == int(mask.sum())


def test_sample_of_an_empty_mask_is_empty():
    cells = sample_cells(some_mask((6, 8), 0).chunk(y=2), 5)
    assert cells.shape == (0, 2)
    assert cells.dtype == np.int64


def test_sample_is_uniform():
    """Over many seeds every cell is drawn equally often (χ², fixed seeds, so it never flickers)."""
    mask = some_mask((8, 8), 1).chunk(y=3)
    drawn = np.concatenate([sample_cells(mask, 8, seed=seed) for seed in range(200)])
    counts = np.bincount(drawn[:, 0] * 8 + drawn[:, 1], minlength=64)
    assert stats.chisquare(counts).pvalue > 0.01


def test_sample_graph_grows_linearly_and_computes_once():
    """A second pass over the chunks, or pairs of chunks, would show in the number of tasks."""

    def tasks_of(chunks):
        starts, tasks = [], []
        mask = cube(da.ones((chunks, 64), chunks=(1, 64), dtype=bool), "y", "x")
        with Callback(start=starts.append, pretask=lambda key, *_: tasks.append(key)):
            sample_cells(mask, 10)
        assert len(starts) == 1
        return len(tasks)

    assert tasks_of(32) <= 4.5 * tasks_of(8)


@pytest.mark.parametrize("size", [1, 3, 7])
def test_windows_equal_the_plain_loop(size):
    features = np.random.default_rng(1).random((2, 3, 12, 10), np.float32)
    cells = np.argwhere(np.ones((2, 12, 10), bool))[::-1]
    found = gather_windows(
        cube(features, "time", "channel", "y", "x").chunk(y=5, x=4), cells, size=size, fill=FILL
    )
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, cut_plainly(features, cells, size))


@given(chunks=chunked((2, 3, 9, 8)))
@settings(max_examples=25)
def test_windows_are_the_same_under_any_chunking(chunks):
    """Chunks may be narrower than the window's reach, and cut time and channel too."""
    features = np.random.default_rng(2).random((2, 3, 9, 8), np.float32)
    cells = sample_cells(some_mask((2, 9, 8)), 30)
    lazy = cube(da.from_array(features, chunks=chunks), "time", "channel", "y", "x")
    np.testing.assert_array_equal(
        gather_windows(lazy, cells, fill=FILL), cut_plainly(features, cells, 7)
    )


@pytest.mark.parametrize("axis", ["x", "y"])
def test_windows_of_a_raster_smaller_than_the_window(axis):
    features = np.arange(6, dtype=np.float32).reshape(1, 1, 2, 3)
    lazy = cube(features, "time", "channel", "y", "x").chunk({axis: 1})
    window = gather_windows(lazy, np.array([[0, 0, 1]]), fill=[9])[0, 0]
    assert window[3:5, 2:5].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert (window == 9).sum() == 49 - 6


def test_windows_keep_nan_and_fit_one_frame():
    features = np.zeros((3, 5, 6), np.float32)
    features[0, 2, 2] = np.nan
    found = gather_windows(
        cube(features, "channel", "y", "x"), np.array([[2, 3], [0, 5]]), size=3, fill=FILL
    )
    assert np.isnan(found[0, 0, 1, 0])
    assert np.isnan(found).sum() == 1
    assert found[1, 1, 0].tolist() == [-2, -2, -2]


def test_only_chunks_with_cells_are_read():
    """A cell amid its chunk needs that chunk and its eight neighbours, and no other frame."""
    read = []

    def block(block_info=None):
        read.append(block_info[None]["chunk-location"])
        return np.zeros(block_info[None]["chunk-shape"], np.float32)

    features = da.map_blocks(block, chunks=((1,) * 4, (3,), (10,) * 6, (10,) * 6), dtype=np.float32)
    lazy = cube(features, "time", "channel", "y", "x")
    gather_windows(lazy, np.array([[2, 35, 35], [2, 31, 38]]), fill=FILL)
    assert sorted(set(read)) == [(2, 0, y, x) for y in (2, 3, 4) for x in (2, 3, 4)]
    read.clear()
    gather_cells(lazy.isel(channel=0), np.array([[1, 5, 5]]))
    assert read == [(1, 0, 0, 0)]


@given(chunks=chunked((3, 7, 6, 4)))
@settings(max_examples=20)
def test_cells_equal_numpy_indexing_under_any_chunking(chunks):
    values = np.random.default_rng(3).random((3, 7, 6, 4))
    cells = sample_cells(some_mask((3, 7, 6)), 20)
    lazy = cube(da.from_array(values, chunks=chunks), "time", "y", "x", "latent")
    expected = values[tuple(cells.T)]
    np.testing.assert_array_equal(gather_cells(lazy, cells), expected)
    np.testing.assert_array_equal(gather_cells(lazy.isel(latent=1), cells), expected[:, 1])


def test_no_cells_give_no_rows():
    features = cube(np.zeros((3, 5, 6), np.float32), "channel", "y", "x").chunk(y=2)
    none = np.empty((0, 2), np.int64)
    assert gather_windows(features, none, fill=FILL).shape == (0, 3, 7, 7)
    assert gather_cells(features.isel(channel=0), none).shape == (0,)


def test_wrong_input_is_refused_in_one_sentence():
    features = cube(np.zeros((3, 5, 6), np.float32), "channel", "y", "x")
    inside = np.array([[1, 1]])
    with pytest.raises(InputError, match=r"cell \(5, 0\) lies outside.*\(5, 6\)"):
        gather_windows(features, np.array([[1, 1], [5, 0]]), fill=FILL)
    with pytest.raises(InputError, match=r"cell \(-1, 2\) lies outside"):
        gather_cells(features.isel(channel=0), np.array([[-1, 2]]))
    with pytest.raises(InputError, match="size is 4"):
        gather_windows(features, inside, size=4, fill=FILL)
    with pytest.raises(InputError, match="fill has 1 values, expected 3"):
        gather_windows(features, inside, fill=[0])
    with pytest.raises(InputError, match=r"expected integers of shape \(n, 2\)"):
        gather_windows(features, np.array([[0, 1, 1]]), fill=FILL)
    with pytest.raises(InputError, match="n is 0"):
        sample_cells(some_mask((4, 4)), 0)
    with pytest.raises(InputError, match="mask holds float32"):
        sample_cells(features.isel(channel=0), 3)


def test_real_windows_hold_the_rasters_own_values():
    """Windows around sampled cells of Oslo hold what the file holds there."""
    folder = os.environ.get("POPDASK_DATA", "")
    path = Path(folder) / "oslo_250m" / "oslo_pop_250m_2019.tif"
    if not folder or not path.exists():
        pytest.skip("POPDASK_DATA is unset or has no oslo_250m")
    population = rioxarray.open_rasterio(path, masked=True, chunks={"y": 100, "x": 100})
    values = population.values[0]
    cells = sample_cells(population.isel(band=0) > 0, 200)
    windows = gather_windows(population.rename(band="channel"), cells, fill=[0])
    assert (values[tuple(cells.T)] > 0).all()
    np.testing.assert_array_equal(windows[:, 0, 3, 3], values[tuple(cells.T)])
