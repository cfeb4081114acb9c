"""The rules are their formulas, and what is expected is chosen where it is less wrong."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from popdask.errors import InputError
from popdask.imagery.estimate import better_rule, estimate, joint_people

from .test_estimation import SIZE, counts_brightness, evenly_lit, sees_brightness

SHARES = st.lists(st.floats(0, 1, width=32), min_size=1, max_size=20)


@given(SHARES, st.floats(0, 1))
def test_rules_are_their_formulas(chances, threshold):
    chance = np.array(chances, np.float32)
    count = np.arange(1, len(chance) + 1, dtype=np.float32)
    gated = joint_people(chance, count, threshold=threshold)
    assert gated.tolist() == [c if p > threshold else 0 for p, c in zip(chance, count, strict=True)]
    expected = joint_people(chance, count, rule="expected", threshold=threshold)
    np.testing.assert_array_equal(expected, chance * count)
    assert gated.dtype == expected.dtype == np.float32


def test_a_mosaic_is_estimated_by_presence_times_count():
    image, presence = evenly_lit([[98, 99, 101, 102]]), sees_brightness(above=100)
    found = estimate(image, presence, counts_brightness(), cell_size=SIZE, rule="expected")
    np.testing.assert_allclose(
        found.population, found.presence * np.array([[98, 99, 101, 102]]), rtol=1e-4
    )
    assert (found.population > 0).all()


def test_the_less_wrong_rule_is_chosen():
    rng = np.random.default_rng(0)
    chance = rng.random(2000)
    inhabited = rng.random(2000) < chance
    assert better_rule(chance, np.full(2000, 10.0), inhabited * 10.0) == "expected"
    sure = np.where(inhabited, 0.6, 0.4)
    assert better_rule(sure, np.full(2000, 10.0), inhabited * 10.0) == "gate"
    assert better_rule(sure[:0], sure[:0], sure[:0]) == "gate"


def test_an_unknown_rule_is_refused():
    with pytest.raises(InputError, match="rule is 'mean'; expected 'gate' or 'expected'"):
        joint_people(np.ones(1), np.ones(1), rule="mean")
    with pytest.raises(InputError, match="rule is 'mean'; expected 'gate' or 'expected'"):
        estimate(evenly_lit([[7]]), None, counts_brightness(), cell_size=SIZE, rule="mean")
