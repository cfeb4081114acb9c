"""Blocks with the cells around them: those of Dask's own overlap, in two tasks per block."""

import dask
import dask.array as da
import numpy as np
import pytest
from dask.array.overlap import overlap
from hypothesis import given, settings
from hypothesis import strategies as st

from popdask.blocks.overlap import add_overlap, merge_thin_chunks
from popdask.errors import InputError

SHAPE = (2, 17, 13)


@st.composite
def chunked(draw, shape=SHAPE):
    chunks = []
    for length in shape:
        cuts = draw(st.sets(st.integers(1, length - 1), max_size=length - 1))
        chunks.append(tuple(np.diff([0, *sorted(cuts), length]).tolist()))
    return tuple(chunks)


def numbered(chunks):
    return da.from_array(np.arange(np.prod(SHAPE)).reshape(SHAPE), chunks=chunks)


@given(chunks=chunked(), depth=st.tuples(st.integers(0, 5), st.integers(0, 5)))
@settings(max_examples=25)
def test_without_filling_it_is_the_overlap_of_dask(chunks, depth):
    array = merge_thin_chunks(numbered(chunks), depth)
    many = [count > 1 for count in array.numblocks[1:]]
    asked = {0: 0, 1: depth[0] * many[0], 2: depth[1] * many[1]}
    expected = overlap(array, asked, "none", allow_rechunk=False)
    found = add_overlap(array, depth)
    assert found.chunks == expected.chunks
    np.testing.assert_array_equal(found, expected)


@given(chunks=chunked(), depth=st.tuples(st.integers(1, 5), st.integers(1, 5)))
@settings(max_examples=25)
def test_filled_blocks_are_windows_of_the_padded_raster(chunks, depth):
    array = merge_thin_chunks(numbered(chunks), depth)
    padded = np.pad(array, [(0, 0), *((cells, cells) for cells in depth)], constant_values=-7)
    found = add_overlap(array, depth, fill=-7)
    rows, columns = (np.cumsum([0, *sizes]) for sizes in array.chunks[1:])
    for j, i in np.ndindex(*array.numblocks[1:]):
        window = np.s_[:, rows[j] : rows[j + 1] + 2 * depth[0]]
        expected = padded[window][:, :, columns[i] : columns[i + 1] + 2 * depth[1]]
        np.testing.assert_array_equal(found.blocks[:, j, i], expected)


def test_beyond_the_raster_every_layer_may_hold_something_else():
    found = add_overlap(
        da.zeros((2, 4, 6), chunks=(2, 4, 3)), 1, fill=np.reshape([5, 6], (-1, 1, 1))
    )
    assert found.compute()[:, 0, 0].tolist() == [5, 6]


@given(chunks=chunked(), depth=st.integers(1, 6))
@settings(max_examples=25)
def test_roomy_blocks_are_whole_blocks_with_room_for_the_halo(chunks, depth):
    array = merge_thin_chunks(numbered(chunks), depth)
    for merged, sizes in zip(array.chunks[1:], chunks[1:], strict=True):
        assert len(merged) == 1 or min(merged) >= depth
        assert set(np.cumsum(merged)) <= set(np.cumsum(sizes))
    assert array.chunks[0] == chunks[0]


def test_a_chunk_smaller_than_the_halo_is_refused():
    with pytest.raises(InputError, match="a chunk of 2 cells cannot lend its neighbour 3"):
        add_overlap(da.zeros((6, 6), chunks=(6, 2)), 3)


def test_two_tasks_per_block_and_only_rims_travel():
    array = da.ones((40, 40), chunks=10)
    graph = add_overlap(array, 2).dask
    assert len(graph) - len(array.dask) == 2 * array.npartitions
    (key,) = (key for key in graph if key[0].startswith("rims-") and key[1:] == (1, 1))
    (rims,) = dask.get(graph, [key])
    assert [rim.shape for rim in rims] == [(2, 10), (2, 10), (10, 2), (10, 2)]
    assert all(rim.base is None for rim in rims)  # not the block in disguise


def test_it_is_lazy():
    def refuse(block):
        raise AssertionError("it was read")

    array = da.zeros((8, 8), chunks=4).map_blocks(refuse, dtype=float, meta=np.empty((0, 0)))
    assert add_overlap(array, 2).shape == (12, 12)
