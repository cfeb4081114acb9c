"""Links follow a flow: labels are moved to the cell that each goes to, in any chunks."""

import os
from pathlib import Path

import dask.array as da
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import label

from popdask.errors import InputError
from popdask.tracking.flow import UNIT, agreement, ahead, farthest, optical_flow
from popdask.tracking.link import link
from tests.tracking.worlds import moved

DATA = Path(os.environ.get("POPDASK_DATA", "../shared/data"))
FAR = {"scales": 3, "log": True}


def cube(values, chunks=None):
    data = values if chunks is None else da.from_array(values, chunks=chunks)
    years = pd.date_range("2000", periods=len(data), freq="YS")
    return xr.DataArray(data, {"time": years}, ("time", "y", "x"))


def still(shape, u=0.0, v=0.0, chunks=None):
    """A flow that is the same everywhere."""
    layers = [np.full(shape, value, np.float32) for value in (u, v)]
    return xr.Dataset({"u": cube(layers[0], chunks), "v": cube(layers[1], chunks)})


def plain_ahead(labels, u, v):
    """Cell by cell, as one would say it."""
    found = np.full_like(labels, -1)
    for t, y, x in np.ndindex(*labels.shape):
        row, column = y + round(float(v[t, y, x])), x + round(float(u[t, y, x]))
        if 0 <= row < labels.shape[1] and 0 <= column < labels.shape[2]:
            found[t, y, x] = labels[t, row, column]
    return found


@settings(max_examples=25)
@given(
    shape=st.tuples(st.integers(1, 2), st.integers(1, 14), st.integers(1, 14)),
    chunks=st.tuples(st.just(1), st.integers(1, 14), st.integers(1, 14)),
    far=st.sampled_from([0.0, 1.4, 5.0, 20.0]),
    seed=st.integers(0, 99),
)
def test_labels_are_read_where_each_cell_goes_in_any_chunks(shape, chunks, far, seed):
    rng = np.random.default_rng(seed)
    labels = rng.integers(-1, 4, shape).astype(np.int32)
    u, v = rng.uniform(-far, far, (2, *shape)).astype(np.float32)
    lazy = [da.from_array(each, chunks=chunks) for each in (labels, u, v)]
    reach = int(np.ceil(far))
    found = ahead(lazy[0], (lazy[1], lazy[2]), reach)
    np.testing.assert_array_equal(found, plain_ahead(labels, u, v))
    turned = agreement((lazy[1], lazy[2]), (lazy[1], lazy[2]), reach)
    whole = agreement(
        (da.from_array(u), da.from_array(v)), (da.from_array(u), da.from_array(v)), reach
    )
    np.testing.assert_array_equal(turned, whole)


def test_the_cosine_is_that_of_the_flow_where_a_cell_goes():
    u, v = np.zeros((2, 1, 1, 4), np.float32)
    u[0, 0, 0] = 2
    back_u, back_v = np.zeros((2, 1, 1, 4), np.float32)
    back_u[0, 0, 2], back_v[0, 0, 2] = 1, 1
    flows = [tuple(map(da.from_array, pair)) for pair in ((u, v), (back_u, back_v))]
    found = agreement(*flows, reach=2).compute() / UNIT
    np.testing.assert_allclose(found, [[[np.sqrt(0.5), 0, 0, 0]]], atol=1e-9)


def test_a_flow_at_rest_changes_no_link():
    rng = np.random.default_rng(0)
    labels = cube(np.kron(rng.integers(-1, 6, (3, 5, 5)), np.ones((1, 4, 4), int)))
    people = cube(rng.gamma(1.0, 50.0, (3, 20, 20)))
    for rule in ("overlap", "cosine", "cosine+overlap"):
        plain = link(labels, people, rule=rule)
        pd.testing.assert_frame_equal(
            link(labels, people, rule=rule, flow=still((3, 20, 20))), plain
        )


@settings(max_examples=8)
@given(
    chunks=st.tuples(st.integers(1, 3), st.integers(3, 30), st.integers(3, 30)),
    rule=st.sampled_from(["overlap", "direction"]),
)
def test_links_with_a_flow_are_identical_in_any_chunks(chunks, rule):
    rng = np.random.default_rng(1)
    labels = np.kron(rng.integers(-1, 6, (3, 6, 7)), np.ones((1, 4, 4), int))
    people = rng.gamma(1.0, 50.0, labels.shape).astype("float32")
    ways = [[cube(rng.uniform(-4, 4, labels.shape).astype("float32")) for _ in "uv"] for _ in "ab"]
    flows = [xr.Dataset(dict(zip("uv", way, strict=True))) for way in ways]
    flows = dict(zip(("flow", "backward"), flows, strict=True))
    whole = link(cube(labels), cube(people), rule=rule, **flows)
    pieces = dict(zip(("time", "y", "x"), chunks, strict=True))
    lazy = {name: each.chunk(pieces) for name, each in flows.items()}
    found = link(cube(labels, chunks), cube(people, chunks), rule=rule, **lazy)
    pd.testing.assert_frame_equal(found, whole)


def test_direction_links_what_moves_together_and_nothing_against_it():
    labels = cube(np.array([[[0, 0, 1, 1]], [[5, 5, 6, 6]]]))
    people = cube(np.full((2, 1, 4), 10.0))
    flow = still((2, 1, 4), u=0.2)
    back = still((2, 1, 4), u=0.2)
    back["u"] = back["u"] * xr.DataArray([1, 1, -1, -1], dims="x")
    links = link(labels, people, rule="direction", flow=flow, backward=back)
    assert links[["source", "target", "similarity"]].to_numpy().tolist() == [[0, 5, 2.0]]
    assert links["forward"].all() and links["backward"].all()
    assert links["mean_similarity"].tolist() == [1.0]


def test_direction_needs_both_flows_and_a_flow_the_same_cells():
    labels, people = cube(np.zeros((2, 3, 4), int)), cube(np.ones((2, 3, 4)))
    with pytest.raises(InputError, match="rule is 'direction' without its flows"):
        link(labels, people, rule="direction", flow=still((2, 3, 4)))
    with pytest.raises(InputError, match="flow has the sizes"):
        link(labels, people, flow=still((2, 3, 5)))
    with pytest.raises(InputError, match="flow is not finite"):
        link(labels, people, flow=still((2, 3, 4), u=np.nan))


def test_reading_ahead_is_lazy():
    def never(block):
        raise AssertionError("read")

    unread = da.zeros((1, 8, 8), chunks=(1, 4, 4)).map_blocks(
        never, dtype=int, meta=np.empty((0, 0, 0), int)
    )
    flow = da.zeros((1, 8, 8), chunks=(1, 4, 4))
    found = ahead(unread, (flow, flow), 2)
    assert farthest(still((1, 2, 2)).assign_attrs(bound=16)) == 16
    with pytest.raises(AssertionError, match="read"):
        found.compute()


def settlements(people):
    """Clusters of cells with 300 people and more, of 500 people or more in all."""
    found, _ = label(people >= 300, np.ones((3, 3)))
    sums = np.bincount(found.ravel(), weights=people.ravel())
    return np.where((found > 0) & (sums[found] >= 500), found, -1)


@pytest.mark.skipif(not (DATA / "norway_250m").exists(), reason="needs the real grids")
@pytest.mark.parametrize("shift", [(0, 4), (8, -8)])
def test_links_of_a_year_that_lies_elsewhere_are_those_in_place(shift):
    rasterio = pytest.importorskip("rasterio")
    frames = []
    window = rasterio.windows.Window(0, 4400, 1200, 1200)
    for year in (2002, 2003):
        with rasterio.open(DATA / "norway_250m" / f"norway_pop_250m_{year}.tif") as raster:
            fine = raster.read(1, window=window).clip(0)
        frames.append(fine.reshape(300, 4, 300, 4).sum(axis=(1, 3)).astype("float32"))
    labels = [settlements(frame) for frame in frames]
    in_place = link(cube(np.stack(labels)), cube(np.stack(frames)), rule="overlap")
    people = cube(np.stack([frames[0], moved(frames[1], *shift)]))
    elsewhere = cube(np.stack([labels[0], moved(labels[1], *shift, empty=-1)]))
    forward = optical_flow(people, centering=(0, 0, 1), **FAR)
    back = optical_flow(people, centering=(0, 0, -1), **FAR)
    gone = np.setdiff1d(labels[1], elsewhere[1])
    true = set(map(tuple, in_place[~in_place["target"].isin(gone)][["source", "target"]].values))
    for rule in ("overlap", "direction"):
        links = link(elsewhere, people, rule=rule, flow=forward, backward=back)
        found = set(map(tuple, links[["source", "target"]].to_numpy()))
        assert len(found & true) >= 0.98 * len(true)
        assert len(found & true) >= 0.99 * len(found)
    unmoved = link(elsewhere, people, rule="overlap")
    assert len(set(map(tuple, unmoved[["source", "target"]].values)) & true) < 0.5 * len(true)
