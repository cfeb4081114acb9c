"""Drawn countries that several tests move."""

import numpy as np


def country(shape, seed=0):
    """Towns and scattered farms."""
    rng = np.random.default_rng(seed)
    return rng.poisson(rng.gamma(0.08, 200.0, shape)).astype("float32")


def moved(values, dy, dx, empty=0):
    """Move what a frame holds by whole cells; nobody moves in."""
    found = np.full_like(values, empty)
    height, width = values.shape
    found[max(dy, 0) : height + min(dy, 0), max(dx, 0) : width + min(dx, 0)] = values[
        max(-dy, 0) : height + min(-dy, 0), max(-dx, 0) : width + min(-dx, 0)
    ]
    return found
