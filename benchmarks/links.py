"""Links of two frames: one pass over the cells, beside the loop over all pairs of communities.

Run ``python benchmarks/links.py``. The pairwise method is the original's, spared its two flows: one
mask for each pair of communities.
"""

from time import perf_counter

import numpy as np
import pandas as pd
import xarray as xr
from scipy import ndimage

from popdask.tracking.linking import link

YEARS = pd.to_datetime(["2000", "2001"])


def world(rows: int, columns: int, count: int, seed: int = 0) -> tuple[xr.DataArray, xr.DataArray]:
    """Draw two frames: some ``count`` ragged communities that shift by a cell, and their people."""
    rng = np.random.default_rng(seed)
    side = max(1, int(np.sqrt(rows * columns / count)))
    tiles = np.arange(rows)[:, None] // side * -(-columns // side) + np.arange(columns) // side
    settled = ndimage.gaussian_filter(rng.random((rows, columns)), 2) > 0.48
    before = np.where(settled, tiles, -1).astype(np.int32)
    community = np.stack([before, np.roll(before, 1, axis=1)])
    people = rng.gamma(0.5, 40, community.shape).astype(np.float32)
    grid = {"time": YEARS}
    dims = ("time", "y", "x")
    return xr.DataArray(community, grid, dims), xr.DataArray(people, grid, dims)


def pairwise(before: np.ndarray, after: np.ndarray) -> int:
    """Count the cells of every pair, a mask for each; return the pairs that share cells."""
    masks = [after == b for b in np.unique(after[after >= 0])]
    return sum(
        int(np.count_nonzero((before == a) & mask) > 0)
        for a in np.unique(before[before >= 0])
        for mask in masks
    )


def main() -> None:
    """Time both methods on a small frame, and the one pass on a large one."""
    link(*world(64, 64, 9))  # compiles the flow
    for rows, columns, count, both in ((449, 276, 380, True), (1796, 1105, 5000, False)):
        community, population = world(rows, columns, count)
        start = perf_counter()
        links = link(community, population)
        seconds = perf_counter() - start
        told = f"{rows} × {columns}, {len(np.unique(community[0])) - 1} communities: "
        told += f"{len(links)} links in {seconds:.3f} s"
        if both:
            start = perf_counter()
            pairwise(*community.values)
            told += f", pair by pair in {perf_counter() - start:.1f} s"
        print(told)


if __name__ == "__main__":
    main()
