"""Sums of words are exact, and both ways of writing them agree."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from popdask.blocks.sums import from_fixed, pair, to_fixed
from popdask.errors import InputError

people = st.floats(2.0**-33, 2.0**17, width=32) | st.just(0.0)


@given(hnp.arrays(np.float32, st.integers(1, 60), elements=people))
@settings(max_examples=30)
def test_words_hold_every_float32_without_rounding(values: np.ndarray) -> None:
    coarse, fine = to_fixed(values)
    exact = sum((Fraction(float(value)) for value in values), Fraction(0))
    assert Fraction(int(coarse.sum()), 2**28) + Fraction(int(fine.sum()), 2**56) == exact


@given(hnp.arrays(np.float64, (3, 4), elements=st.floats(-1e8, 1e8)), st.sampled_from("CF"))
@settings(max_examples=30)
def test_words_are_the_whole_part_and_the_rest(values: np.ndarray, order: str) -> None:
    coarse, fine = to_fixed(np.asarray(values, order=order))
    whole = np.rint(values * 2.0**28)
    np.testing.assert_array_equal(coarse, whole.astype(np.int64))
    np.testing.assert_array_equal(fine, np.rint((values * 2.0**28 - whole) * 2.0**28))
    assert pair(values[1, 2]) == (coarse[1, 2], fine[1, 2])


def test_words_read_no_data_as_nobody() -> None:
    coarse, fine = to_fixed(np.array([np.nan, 2.0], np.float32))
    assert coarse.tolist() == [0, 2**29]
    assert fine.tolist() == [0, 0]


@pytest.mark.parametrize("value", [np.inf, -np.inf, 1e11, -1e11])
def test_words_refuse_what_could_overflow(value: float) -> None:
    with pytest.raises(InputError, match="unit and its nodata"):
        to_fixed(np.array([value, 1.0]))


def test_words_leave_room_for_the_peoples_of_the_earth() -> None:
    coarse, fine = to_fixed(np.full(2, 8.25e9))
    assert from_fixed(coarse.sum(), fine.sum()) == 1.65e10
