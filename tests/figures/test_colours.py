"""Colours of numbers."""

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from popdask.plot import CLASSES, NO_DATA, NOBODY, number_colours


def test_colours_belong_to_numbers_and_neighbours_differ():
    colours = number_colours(np.arange(60))
    assert (colours >= 0).all() and (colours <= 1).all()
    np.testing.assert_array_equal(number_colours([59, 7]), colours[[59, 7]])
    assert np.abs(np.diff(colours, axis=0)).max(axis=1).min() > 0.2
    apart = np.abs(colours[:12, None] - colours[None, :12]).max(axis=-1) + np.eye(12)
    assert apart.min() > 0.1


#: What eyes without one kind of cones see of linear sRGB (Machado, Oliveira and Fernandes 2009).
EYES = {
    "deuteranopia": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "protanopia": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
}


def lab(colours, eyes):
    """CIELAB (D65) of sRGB colours as such eyes see them."""
    colours = np.array([to_rgb(colour) for colour in colours])
    linear = np.where(colours <= 0.04045, colours / 12.92, ((colours + 0.055) / 1.055) ** 2.4)
    to_xyz = [[0.4125, 0.3576, 0.1804], [0.2127, 0.7152, 0.0722], [0.0193, 0.1192, 0.9503]]
    seen = np.clip(linear @ np.transpose(EYES[eyes]), 0, 1) @ np.transpose(to_xyz)
    x, y, z = np.cbrt(seen / [0.9505, 1, 1.089]).T  # the linear part near black does not matter
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)


@pytest.mark.parametrize("eyes", EYES)
def test_classes_differ_for_colour_blind_eyes(eyes):
    found = lab([*CLASSES[:10], NOBODY, NO_DATA], eyes)
    apart = np.linalg.norm(found[:, None] - found[None], axis=-1) + 100 * np.eye(len(found))
    apart[-2:, -2:] = 100  # no people and no data are both background
    assert apart.min() > 10
