"""Sums by community are exact, and the same in any order."""

import dask
import dask.array as da
import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from popdask.blocks.sums import (
    LabelSums,
    add_up,
    argmax_by_group,
    frames_of,
    pair_keys,
    split_keys,
    sum_frames,
    tabulate,
    to_fixed,
)
from popdask.errors import InputError

people = st.floats(2.0**-33, 2.0**17, width=32) | st.just(0.0)


def count(labels: np.ndarray, population: np.ndarray) -> LabelSums:
    return tabulate(labels.ravel().astype(np.int64), to_fixed(population.ravel()))


@given(
    hnp.arrays(np.int64, st.integers(0, 80), elements=st.integers(-1, 5)),
    st.integers(0, 2**32 - 1),
)
@settings(max_examples=30)
def test_tabulate_equals_a_sum_for_each_key(keys: np.ndarray, seed: int) -> None:
    column = np.random.default_rng(seed).integers(-9, 9, keys.size)
    table = tabulate(keys, [column, np.ones_like(column)])
    assert table.keys.tolist() == sorted(set(keys.tolist()))
    for place, key in enumerate(table.keys):
        assert table.sums[:, place].tolist() == [column[keys == key].sum(), (keys == key).sum()]


@given(
    labels=hnp.arrays(np.int32, (11, 9), elements=st.integers(-1, 4)),
    rows=st.integers(1, 11),
    columns=st.integers(1, 9),
    seed=st.integers(0, 2**32 - 1),
)
@settings(max_examples=25)
def test_the_tree_gives_the_same_table_under_any_chunking(
    labels: np.ndarray, rows: int, columns: int, seed: int
) -> None:
    population = np.random.default_rng(seed).lognormal(0, 9, labels.shape).astype(np.float32)
    population = np.minimum(population, 1e6)
    lazy = da.from_array(labels[None], chunks=(1, rows, columns))
    values = da.from_array(population[None], chunks=(1, columns, rows))
    (table,) = sum_frames(count, lazy, values).compute()
    whole = count(labels, population)
    np.testing.assert_array_equal(table.keys, whole.keys)
    np.testing.assert_array_equal(table.sums, whole.sums)


def test_tables_without_rows_add_up() -> None:
    empty = tabulate(np.zeros(0, np.int64), [np.zeros(0, np.int64)])
    one = tabulate(np.array([3]), [np.array([4])])
    assert add_up([empty, empty]).keys.size == 0
    assert add_up([empty, one, one]).sums.tolist() == [[8]]


def test_the_graph_grows_with_the_chunks() -> None:
    """Tasks per chunk stay the same, and none is run at build."""

    def refuse(block: np.ndarray) -> np.ndarray:
        raise AssertionError("read while the graph was built")

    tasks = []
    for side in (8, 16):
        labels = da.zeros((1, side, side), chunks=1, dtype=np.int32).map_blocks(
            refuse, dtype=np.int32, meta=np.empty((0, 0, 0), np.int32)
        )
        tasks.append(len(dict(sum_frames(count, labels, labels).__dask_graph__())))
    assert tasks[1] <= 4.1 * tasks[0]


def test_pair_keys_come_apart_again() -> None:
    source, target = np.array([0, 7, 2**31 - 1], np.int32), np.array([2**31 - 1, 0, 5], np.int32)
    keys = pair_keys(source, target)
    assert (keys >= 0).all()
    np.testing.assert_array_equal(split_keys(keys), (source, target))


@given(
    st.lists(
        st.tuples(*[st.integers(0, 3)] * 4), max_size=20, unique_by=lambda row: (row[0], row[1])
    )
)
@settings(max_examples=30)
def test_heaviest_equals_the_rule_written_plainly(rows: list[tuple[int, int, int, int]]) -> None:
    group, other, weight, second = np.array(rows, dtype=np.int64).reshape(-1, 4).T
    best: dict[int, tuple[int, int, int]] = {}
    for g, o, w, s in rows:
        best[g] = max(best.get(g, (-1, 0, 0)), (w, s, -o))
    expected = [best[g] == (w, s, -o) for g, o, w, s in rows]
    assert argmax_by_group(group, other, weight, second).tolist() == expected


def test_arrays_on_different_grids_are_refused() -> None:
    labels = xr.DataArray(np.zeros((1, 3, 4), int), dims=("time", "y", "x"), name="community")
    with pytest.raises(InputError, match=r"1 frames .* of 3 × 5 cells"):
        frames_of(labels, xr.DataArray(np.zeros((1, 3, 5)), dims=("time", "y", "x")))
    with pytest.raises(InputError, match="dimensions"):
        frames_of(labels, xr.DataArray(np.zeros((1, 3, 4)), dims=("time", "row", "column")))
    with pytest.raises(InputError, match="same frames"):
        frames_of(
            labels.assign_coords(time=[2000]),
            xr.DataArray(np.zeros((1, 3, 4)), {"time": [2001]}, ("time", "y", "x")),
        )


def test_one_frame_is_a_stack_of_one() -> None:
    labels = xr.DataArray(np.zeros((3, 4), int), {"time": 2000}, ("y", "x"))
    times, (stack,) = frames_of(labels)
    assert times.tolist() == [2000]
    assert stack.shape == (1, 3, 4)
    assert dask.is_dask_collection(stack)
