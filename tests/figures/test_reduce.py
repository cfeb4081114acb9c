"""Reduced rasters: nothing invented, nothing lost, the same under any chunking."""

import dask.array as da
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from popdask.plot import reduced
from popdask.plot.style import shrink


@settings(max_examples=30)
@given(
    st.integers(1, 40),
    st.integers(1, 40),
    st.integers(3, 40),
    st.integers(0, 2**32 - 1),
    st.sampled_from([np.int16, np.int32]),
)
def test_reducing_keeps_labels_and_people(rows, cols, cells, seed, dtype):
    """No label appears from nowhere, none disappears into emptiness; the maximum stays."""
    rng = np.random.default_rng(seed)
    labels = np.where(rng.random((rows, cols)) < 0.1, rng.integers(0, 5, (rows, cols)), -1)
    people = np.where(rng.random((rows, cols)) < 0.2, np.nan, rng.random((rows, cols)))
    factor = -(-max(rows, cols) // cells)
    small, most = reduced(labels.astype(dtype), cells), reduced(people.astype(np.float32), cells)
    assert small.dtype == dtype
    assert max(small.shape) <= cells
    for row, col in np.ndindex(small.shape):
        block = np.s_[row * factor : (row + 1) * factor, col * factor : (col + 1) * factor]
        votes = np.bincount(labels[block][labels[block] >= 0])
        assert small[row, col] == (votes.argmax() if votes.size else -1)
        known = people[block][~np.isnan(people[block])]
        expected = np.float32(known.max()) if known.size else np.nan
        np.testing.assert_equal(most[row, col], expected)


@settings(max_examples=30)
@given(
    st.lists(st.integers(1, 13), min_size=1, max_size=5),
    st.lists(st.integers(1, 13), min_size=1, max_size=5),
    st.integers(2, 40),
    st.sampled_from(["max", "sum", "mode"]),
)
def test_chunks_do_not_matter(rows, cols, cells, by):
    rng = np.random.default_rng(len(rows))
    values = rng.integers(-1, 4, (sum(rows), sum(cols)))
    if by != "mode":
        values = np.where(values < 0, np.nan, values).astype(np.float32)
    lazy = da.from_array(values, chunks=(tuple(rows), tuple(cols)))
    small = shrink(lazy, cells, by)
    assert isinstance(small, da.Array)
    whole = reduced(values, cells, by=by)
    assert (small.shape, small.dtype) == (whole.shape, whole.dtype)
    np.testing.assert_array_equal(small.compute(), whole)


def test_a_sum_keeps_everyone():
    people = np.random.default_rng(0).poisson(3, (37, 50)).astype(np.float32)
    people[:8, :8] = np.nan
    small = reduced(people, 7, by="sum")
    assert np.nansum(small) == np.nansum(people)
    assert np.isnan(small[0, 0]) and not np.isnan(small[1:]).any()


def test_a_large_raster_is_never_in_memory():
    """40 GB of labels, of which each chunk is drawn where it is needed."""
    labels = da.full((100_000, 100_000), 7, chunks=2500, dtype=np.int32)
    assert (shrink(labels, 100)[-1, -3:] == 7).all().compute()
