"""Links of two frames: one pass over the cells, beside the loop over all pairs of communities.

The pairwise method goes over all pairs, once for each direction, and takes the cosines of two
masked flows for each; it is timed on every tenth community of one direction, against all of the
other frame. Spared the cosines, the loop has a mask for each pair and adds up what is known.
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
from popdask.tracking.flow import optical_flow
from popdask.tracking.link import link

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
        if not with_peer:
            yield row
            continue
        flow = optical_flow(population, centering=(0, 0, 1)).isel(time=0).to_dataarray().values
        similar, original = timed(masked_flows, *community.values, flow, slice(None, None, 10))
        found, peer = timed(pairwise, *community.values, flow)
        np.testing.assert_array_equal(np.rint(similar), found[::10])
        assert links[["source", "target", "similarity"]].values.tolist() == chosen(
            *community, found
        )
        for name, seconds in (
            (
                "the pairwise method, one direction, from a tenth of its rows",
                original.cpu * len(found) / len(similar),
            ),
            ("a mask for each pair", peer.cpu),
        ):
            against = f"{name} {duration(seconds)}"
            also = f"{row.also}, equal"
            yield replace(row, peer=against, ratio=times(seconds / ours.cpu), also=also)


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


def masked_flows(
    before: np.ndarray, after: np.ndarray, flow: np.ndarray, some: slice
) -> np.ndarray:
    """Similarity of some communities with all of the next frame: cosines anew for each pair."""
    sources, targets = (np.unique(labels[labels >= 0]) for labels in (before, after))
    similarity = np.zeros((len(sources[some]), len(targets)))
    for i, a in enumerate(sources[some]):
        v = flow * (before == a)
        length = np.sqrt(v[0] * v[0] + v[1] * v[1])
        for j, b in enumerate(targets):
            w = flow * (after == b)
            norms = length * np.sqrt(w[0] * w[0] + w[1] * w[1])
            dot = v[0] * w[0] + v[1] * w[1]
            similarity[i, j] = np.divide(dot, norms, out=np.zeros_like(dot), where=norms > 0).sum()
    return similarity


def pairwise(before: np.ndarray, after: np.ndarray, flow: np.ndarray) -> np.ndarray:
    """Similarity of all communities: a mask for each pair, as both flows are one."""
    sources, targets = (np.unique(labels[labels >= 0]) for labels in (before, after))
    cosine = (flow != 0).any(axis=0).astype(np.float32)
    return np.array(
        [[cosine[(before == a) & (after == b)].sum() for b in targets] for a in sources]
    )


def chosen(before: xr.DataArray, after: xr.DataArray, similarity: np.ndarray) -> list[list[int]]:
    """The pairs that are best for their source or their target: source, target, similarity."""
    sources, targets = (np.unique(labels.values[labels >= 0]) for labels in (before, after))
    pairs = set(enumerate(similarity.argmax(axis=1)))
    pairs |= {(i, j) for j, i in enumerate(similarity.argmax(axis=0))}
    return [
        [int(sources[i]), int(targets[j]), int(similarity[i, j])]
        for i, j in sorted(pairs)
        if similarity[i, j] > 0
    ]
