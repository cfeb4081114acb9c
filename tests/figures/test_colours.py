"""Colours of numbers."""

import numpy as np

from popdask.plot import number_colours


def test_colours_belong_to_numbers_and_neighbours_differ():
    colours = number_colours(np.arange(60))
    assert (colours >= 0).all() and (colours <= 1).all()
    np.testing.assert_array_equal(number_colours([59, 7]), colours[[59, 7]])
    assert np.abs(np.diff(colours, axis=0)).max(axis=1).min() > 0.2
    apart = np.abs(colours[:12, None] - colours[None, :12]).max(axis=-1) + np.eye(12)
    assert apart.min() > 0.1
