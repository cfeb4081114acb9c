"""What figures look like: one style, and colours that colour-blind eyes tell apart.

The colour of a track or a community is a function of its number alone: it is the same in every
frame, in every figure and after every run. Hues follow the golden angle at three lightnesses of the
OKLCH space, so that neighbouring numbers differ for colour-blind eyes too.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib import colormaps

INK, NOBODY, NO_DATA = "#3b3f45", "#f5f4f0", "#d5e0e8"
INK_ON_MAP = "#3a3f46"  # maps stay light where a page turns dark, and INK with it
MAIN, ACCENT = "#332288", "#cc6677"
PEOPLE = colormaps["viridis_r"]
STYLE: Any = {
    "font.size": 8,
    "text.color": INK,
    "axes.edgecolor": "#c4c4be",
    "axes.labelcolor": INK,
    "axes.linewidth": 0.6,
    "axes.titlesize": 9,
    "axes.titlecolor": INK,
    "xtick.color": INK,
    "xtick.labelsize": 7,
    "ytick.color": INK,
    "ytick.labelsize": 7,
}
# Paul Tol's "muted" scheme, then his "light" and "medium" ones for more than ten classes.
CLASSES = (
    "#332288", "#88ccee", "#44aa99", "#117733", "#999933", "#ddcc77", "#cc6677", "#882255",
    "#aa4499", "#9a9a9a", "#77aadd", "#ee8866", "#eedd88", "#ffaabb", "#6699cc", "#bbcc33",
    "#aaaa00", "#225555", "#663333", "#004488",
)  # fmt: skip


def number_colours(numbers: np.ndarray) -> np.ndarray:
    """Return the colour of tracks or communities, a function of their number alone.

    Parameters
    ----------
    numbers
        Integers (n,).

    Returns
    -------
    numpy.ndarray
        sRGB in [0, 1], float64 (n, 3).

    References
    ----------
    Ottosson, B. (2020). A perceptual color space for image processing.
    https://bottosson.github.io/posts/oklab/

    Examples
    --------
    >>> number_colours(np.array([0, 1])).round(2)
    array([[0.73, 0.33, 0.41],
           [0.16, 0.65, 0.86]])
    """
    numbers = np.asarray(numbers, dtype=np.int64)
    hue = 2 * np.pi * ((numbers * 0.6180339887498949 + 0.03) % 1)
    light = np.array([0.58, 0.68, 0.78])[numbers % 3]
    a, b = 0.13 * np.cos(hue), 0.13 * np.sin(hue)
    cones = [
        (light + 0.3963377774 * a + 0.2158037573 * b) ** 3,
        (light - 0.1055613458 * a - 0.0638541728 * b) ** 3,
        (light - 0.0894841775 * a - 1.2914855480 * b) ** 3,
    ]
    to_linear = np.array(
        [
            [4.0767416621, -3.3077115913, 0.2309699292],
            [-1.2684380046, 2.6097574011, -0.3413193965],
            [-0.0041960863, -0.7034186147, 1.7076147010],
        ]
    )
    linear = np.clip(np.stack(cones, axis=-1) @ to_linear.T, 0, 1)
    srgb = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return srgb.round(4)  # the last bits depend on how many numbers there are
