"""Sums of blocks: the same under any chunking, in a tree, lazily."""

import dask.array as da
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from popdask.blocks.sums import FAN_IN, first_cells, tree_reduce

CELLS = np.arange(3 * 11 * 7).reshape(3, 11, 7)


def blocks_of(array):
    return array.map_blocks(np.sum, dtype=object, meta=np.empty((0, 0, 0), object))


@given(chunks=st.tuples(st.integers(1, 3), st.integers(1, 11), st.integers(1, 7)))
@settings(max_examples=20)
def test_the_sum_is_that_of_the_cells_under_any_chunking(chunks):
    (total,) = tree_reduce(blocks_of(da.from_array(CELLS, chunks)), sum).compute()
    assert total == CELLS.sum()
    frames = blocks_of(da.from_array(CELLS, (1, *chunks[1:])))
    found = tree_reduce(frames, sum, by_frame=True, finish=str).compute()
    assert found.tolist() == [str(frame.sum()) for frame in CELLS]


def test_no_task_adds_more_than_a_few_parts():
    seen = []

    def add(parts):
        seen.append(len(parts))
        return sum(parts)

    tree_reduce(blocks_of(da.from_array(CELLS, 1)), add).compute(scheduler="sync")
    assert max(seen) <= FAN_IN
    assert sum(seen) < CELLS.size * FAN_IN / (FAN_IN - 1) + len(seen)


def test_it_is_lazy():
    def refuse(block):
        raise AssertionError("it was read")

    array = da.zeros((2, 4, 4), chunks=2).map_blocks(refuse, meta=np.empty((0, 0, 0)))
    total = tree_reduce(array, sum)
    with pytest.raises(AssertionError, match="it was read"):
        total.compute()


def test_first_cells_are_where_chunks_begin():
    rows, columns = first_cells([(3, 4), (7,)])
    assert rows.tolist() == [0, 3]
    assert columns.tolist() == [0]
