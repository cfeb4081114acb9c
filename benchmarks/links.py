"""Links of two frames: one pass over the cells, beside the loop over all pairs of communities.

The pairwise method is the original's, spared its two flows: one mask for each pair of communities.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import dask
import numpy as np
import pandas as pd
import xarray as xr
from scipy import ndimage

from benchmarks.machine import Machine, Row, best, duration, timed, times
from popdask.tracking.flow import two_frame_flow
from popdask.tracking.linking import link

YEARS = pd.to_datetime(["2000", "2001"])
SIZES = ((449, 276, 380, True), (1796, 1105, 5000, False))


def rows(machine: Machine, *, quick: bool) -> Iterator[Row]:
    """Compare with the peer on a small frame; the large one would take it half a day."""
    for height, width, count, with_peer in ((60, 50, 9, True),) if quick else SIZES:
        community, population = world(height, width, count)
        with dask.config.set(scheduler="sync"):
            links = link(community, population, rule="cosine")
            ours = best(lambda a=community, b=population: link(a, b, rule="cosine"))
        on = f"{height} × {width}, {len(np.unique(community[0])) - 1} communities"
        row = Row("links", on, duration(ours.cpu), also=f"{len(links)} links")
        if with_peer:
            flow = two_frame_flow(population[0], population[1])
            cosine = ((flow["u"] != 0) | (flow["v"] != 0)).values.astype(np.float32)
            expected, peer = timed(pairwise, *community.values, cosine)
            assert links[["source", "target", "similarity"]].values.tolist() == expected
            against = f"pair by pair {duration(peer.cpu)}"
            also = f"{row.also}, equal"
            row = replace(row, peer=against, ratio=times(peer.cpu / ours.cpu), also=also)
        yield row


def world(height: int, width: int, count: int) -> tuple[xr.DataArray, xr.DataArray]:
    """Draw two frames: some ``count`` ragged communities that shift by a cell, and their people."""
    rng = np.random.default_rng(0)
    side = max(1, int(np.sqrt(height * width / count)))
    tiles = np.arange(height)[:, None] // side * -(-width // side) + np.arange(width) // side
    settled = ndimage.gaussian_filter(rng.random((height, width)), 2) > 0.48
    before = np.where(settled, tiles, -1).astype(np.int32)
    community = np.stack([before, np.roll(before, 1, axis=1)])
    people = rng.gamma(0.5, 40, community.shape).astype(np.float32)
    grid = {"time": YEARS}
    dims = ("time", "y", "x")
    return xr.DataArray(community, grid, dims), xr.DataArray(people, grid, dims)


def pairwise(before: np.ndarray, after: np.ndarray, cosine: np.ndarray) -> list[list[int]]:
    """Add up the cosines of every pair, a mask for each; the best of every row and column."""
    sources, targets = (np.unique(labels[labels >= 0]) for labels in (before, after))
    similarity = np.array(
        [[cosine[(before == a) & (after == b)].sum() for b in targets] for a in sources]
    )
    best_target, best_source = similarity.argmax(axis=1), similarity.argmax(axis=0)
    pairs = {(i, j) for i, j in enumerate(best_target)} | {
        (i, j) for j, i in enumerate(best_source)
    }
    return [
        [int(sources[i]), int(targets[j]), int(similarity[i, j])]
        for i, j in sorted(pairs)
        if similarity[i, j] > 0
    ]
