"""Intervals hold what they promise, of places that are like those that they were learned from."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from popdask.errors import InputError
from popdask.imagery.evaluation import (
    ConformalIntervals,
    deal_squares,
    held_out_intervals,
    least_cases,
    sums_by_square,
)


def drawn(n, seed):
    """Estimates from empty to dense, and truths around them, wider where more people live."""
    rng = np.random.default_rng(seed)
    said = rng.gamma(0.6, 20.0, n)
    return said, rng.poisson(said * rng.gamma(4.0, 0.25, n)).astype(float)


@pytest.mark.parametrize("level", [0.5, 0.8, 0.9])
def test_as_many_truths_as_promised_are_held_in_every_bin(level):
    intervals = ConformalIntervals.fit(*drawn(8000, 0), level=level, bins=5)
    said, truth = drawn(40_000, 1)
    low, high = intervals.predict(said)
    held = (low <= truth) & (truth <= high)
    which = np.searchsorted(intervals.edges, said, side="right")
    shares = np.array([held[which == number].mean() for number in range(5)])
    # Whole people cannot be left out by halves: the emptiest bin holds more.
    assert (shares[1:] > level - 0.03).all() and (shares[2:] < level + 0.03).all()


def test_known_ends():
    errors = np.arange(-9.0, 10.0)  # 19 cases, the fewest that 90 % can be told of
    intervals = ConformalIntervals.fit(np.full(19, 100.0), 100 + errors)
    assert intervals.predict(100.0) == (91.0, 109.0)
    assert intervals.cases.tolist() == [19]


@given(st.integers(0, 2**32), st.integers(1, 12), st.integers(19, 400))
def test_ends_enclose_the_estimate_and_survive_a_table(seed, bins, n):
    said, truth = drawn(n, seed)
    size = np.random.default_rng(seed).integers(1, 50, n)
    intervals = ConformalIntervals.fit(said, truth, size, bins=bins)
    assert intervals.cases.sum() == n and intervals.cases.min() >= 19
    asked = np.append(said, np.nan)
    low, high = intervals.predict(asked, np.append(size, 3))
    assert (low[:-1] >= 0).all() and (low[:-1] <= said).all() and (said <= high[:-1]).all()
    assert np.isnan([low[-1], high[-1]]).all()
    again = ConformalIntervals.of_table(intervals.table())
    np.testing.assert_array_equal(again.predict(asked, np.append(size, 3)), (low, high))


def test_intervals_of_zones_do_not_depend_on_how_large_they_are():
    said, truth = drawn(400, 2)
    one = ConformalIntervals.fit(said, truth).predict(said)
    many = ConformalIntervals.fit(said * 25, truth * 25, 25).predict(said * 25, 25)
    np.testing.assert_allclose(many, np.multiply(one, 25))


def test_a_place_is_not_told_its_own_error():
    said, truth = drawn(200, 3)
    groups = np.arange(200) % 4
    low, high = held_out_intervals(said, truth, groups)
    changed = np.where(groups == 2, 1e6, truth)
    for ends, others in zip((low, high), held_out_intervals(said, changed, groups), strict=True):
        np.testing.assert_array_equal(ends[groups == 2], others[groups == 2])
    assert ((low <= truth) & (truth <= high)).mean() > 0.85


def test_squares_add_up_and_those_of_two_groups_are_left_out():
    table = pd.DataFrame({"north": [0, 1, 2, 3], "east": 0, "group": [0, 0, 1, 2]})
    sums = sums_by_square(table.assign(prediction=[1.0, 2, 3, 4], truth=[2.0, 2, 2, 2]), 2)
    assert sums[["prediction", "truth", "cells", "group"]].values.tolist() == [[3, 4, 2, 0]]
    groups = deal_squares(np.arange(100), np.zeros(100, int), 10)
    assert len(np.unique(groups)) == 4 and all(len(set(groups[i : i + 10])) == 1 for i in [0, 50])


def test_too_few_places_and_wrong_settings_are_refused_in_a_sentence():
    assert [least_cases(level) for level in (0.5, 0.8, 0.9, 0.95)] == [3, 9, 19, 39]
    with pytest.raises(InputError, match="errors of 13 places; expected at least 19"):
        ConformalIntervals.fit(np.ones(13), np.ones(13))
    with pytest.raises(InputError, match="level is 1"):
        ConformalIntervals.fit(np.ones(50), np.ones(50), level=1.0)
    with pytest.raises(InputError, match="bins is 0"):
        ConformalIntervals.fit(np.ones(50), np.ones(50), bins=0)
