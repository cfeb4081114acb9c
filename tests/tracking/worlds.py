"""Drawn countries that several tests move."""

import numpy as np
import xarray as xr

from popdask.tracking.flow import optical_flow


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


def two_frame_flow(before, after, **settings):
    """The motion from one frame to the next."""
    pair = xr.concat([before, after], "time")
    pair = pair if "time" in pair.coords else pair.assign_coords(time=[2000, 2001])
    return optical_flow(pair, centering=(0, 0, 1), warm_start=False, **settings).isel(time=0)
