"""The inner split takes training cells alone, in squares, and its share of them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from popdask.errors import InputError
from popdask.imagery.cells import (
    SELECTION,
    GapWarning,
    fold_cells,
    select_fold,
    set_aside,
    split_cells,
    split_fingerprint,
)

from .test_split import some_cells


@settings(max_examples=15)
@given(
    kind=st.sampled_from(["random", "blocks"]),
    share=st.sampled_from([0.1, 0.25, 0.5]),
    seed=st.integers(0, 9),
)
def test_only_training_cells_are_set_aside(kind, share, seed):
    cells = split_cells(some_cells(40, 40, unknown=0.1), kind=kind, block=8, seed=seed)
    inner = set_aside(cells, share).split.values
    before = cells.split.values
    chosen = inner == SELECTION
    assert (before[chosen] == 0).all()
    np.testing.assert_array_equal(inner[~chosen], before[~chosen])
    allowed = 0.5 / (before == 0).sum() if kind == "random" else 16 / (before == 0).sum()
    assert abs(chosen.sum() / (before == 0).sum() - share) <= allowed


def test_squares_half_as_wide_are_set_aside_whole():
    cells = set_aside(split_cells(some_cells(40, 40), block=8))
    squares = {}
    for north, east, side in zip(cells.north, cells.east, cells.split.values, strict=True):
        squares.setdefault((int(north) // 4, int(east) // 4), set()).add(int(side))
    assert not any({0, 2} <= sides for sides in squares.values())


def test_each_fold_sets_its_own_cells_aside_and_the_order_does_not_matter():
    cells = fold_cells(some_cells(40, 40), 4, block=8)
    shuffled = cells.isel(cell=np.random.default_rng(0).permutation(cells.sizes["cell"]))
    prints = set()
    for fold in range(4):
        one = set_aside(select_fold(cells, fold))
        assert not (one.split.values[cells.fold.values == fold] != 1).any()
        assert split_fingerprint(one) == split_fingerprint(set_aside(select_fold(shuffled, fold)))
        prints |= {split_fingerprint(one), split_fingerprint(select_fold(cells, fold))}
    assert len(prints) == 8


def test_nothing_is_set_aside_for_the_first_work_s_protocol():
    cells = split_cells(some_cells(), kind="random")
    assert set_aside(cells, 0) is cells


def test_a_costly_gap_warns():
    cells = some_cells(40, 40)
    with pytest.warns(GapWarning, match=r"gap of 4 cells costs [\d,]+ of [\d,]+ training cells"):
        split_cells(cells, block=5, gap=4)


def test_what_makes_no_sense_is_refused():
    cells = split_cells(some_cells(), kind="random")
    with pytest.raises(InputError, match=r"to choose by is 1.5; expected 0 or more and less"):
        set_aside(cells, 1.5)
    with pytest.raises(InputError, match="have no split"):
        set_aside(some_cells())
