"""Movement and growth add up to the change, whoever moves, in any chunks."""

import dask.array as da
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from popdask.errors import InputError
from popdask.tracking.flow import optical_flow
from popdask.tracking.growth import PARTS, growth, growth_by_label


def cube(values, chunks=None):
    data = values if chunks is None else da.from_array(values, chunks=chunks)
    years = pd.date_range("2000", periods=len(data), freq="YS")
    return xr.DataArray(data, {"time": years}, ("time", "y", "x"))


def flow_of(u, v, chunks=None):
    return xr.Dataset({"u": cube(u, chunks), "v": cube(v, chunks)})


def invent(shape, seed, far, empty=0.1):
    rng = np.random.default_rng(seed)
    people = rng.gamma(0.3, 100.0, shape).astype("float32")
    people[rng.random(shape) < empty] = np.nan
    return people, *rng.uniform(-far, far, (2, *shape)).astype("float32")


def plain_moved(people, u, v, whole):
    """Who moves into and out of each cell, one cell after the other in float64."""
    people = np.nan_to_num(people.astype(float))
    moved_in, moved_out = np.zeros((2, *people.shape))
    for t, y, x in np.ndindex(*people.shape):
        down, right = float(v[t, y, x]), float(u[t, y, x])
        if whole:
            down, right = round(down), round(right)
        for j in (0, 1):
            for i in (0, 1):
                row, column = int(np.floor(down)) + j, int(np.floor(right)) + i
                share = max(1 - abs(down - row), 0) * max(1 - abs(right - column), 0)
                if (row, column) == (0, 0):
                    continue
                moved_out[t, y, x] += share * people[t, y, x]
                if 0 <= y + row < people.shape[1] and 0 <= x + column < people.shape[2]:
                    moved_in[t, y + row, x + column] += share * people[t, y, x]
    return moved_in, moved_out


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("far", [0.4, 3.3, 20.0])
def test_equals_people_carried_one_cell_after_the_other(whole, far):
    people, u, v = invent((3, 9, 11), 0, far)
    found = growth(cube(people), flow_of(u, v), whole=whole)
    moved_in, moved_out = plain_moved(people[:-1], u[:-1], v[:-1], whole)
    np.testing.assert_allclose(found.moved_in, moved_in, atol=1e-6)
    np.testing.assert_allclose(found.moved_out, moved_out, atol=1e-6)


@settings(max_examples=15)
@given(
    shape=st.tuples(st.integers(2, 3), st.integers(1, 12), st.integers(1, 12)),
    chunks=st.tuples(st.integers(1, 3), st.integers(1, 12), st.integers(1, 12)),
    seed=st.integers(0, 99),
    far=st.sampled_from([0.0, 0.6, 2.5, 9.0]),
    whole=st.booleans(),
)
def test_identical_in_any_chunks_and_adds_up(shape, chunks, seed, far, whole):
    people, u, v = invent(shape, seed, far)
    found = growth(cube(people), flow_of(u, v), whole=whole).compute()
    in_chunks = growth(cube(people, chunks), flow_of(u, v, chunks), whole=whole)
    xr.testing.assert_identical(found, in_chunks.compute())
    change = np.diff(people.astype(float), axis=0)
    np.testing.assert_array_equal(found.change, change)
    np.testing.assert_allclose(
        found.moved_in - found.moved_out + found.grown, change, rtol=1e-9, atol=1e-9
    )
    tables = [growth_by_label(each) for each in (found, in_chunks)]
    pd.testing.assert_frame_equal(*tables)


def test_whoever_leaves_a_cell_arrives_in_another():
    people, u, v = invent((2, 30, 30), 1, 2.0, empty=0.0)
    people[:, :4], people[:, -4:], people[:, :, :4], people[:, :, -4:] = 0, 0, 0, 0
    found = growth(cube(people), flow_of(u, v), whole=False)
    assert float(found.moved_in.sum()) == pytest.approx(float(found.moved_out.sum()), rel=1e-12)


def test_a_town_that_moves_has_not_grown():
    rng = np.random.default_rng(0)
    town = np.zeros((60, 70), np.float32)
    town[20:32, 20:34] = rng.poisson(300, (12, 14))
    farms = rng.poisson(rng.gamma(0.05, 60.0, town.shape)) * (town == 0)
    farms[:, :45] = 0
    frames = np.stack([town + farms, np.roll(town, (3, -5), (0, 1)) + farms]).astype("float32")
    flow = optical_flow(cube(frames), centering=(0, 0, 1), scales=3, log=True)
    found = growth(cube(frames), flow)
    (row,) = growth_by_label(found).itertuples()
    assert row.explained > 0.99
    arrived = np.where(np.roll(town, (3, -5), (0, 1)) > 0, 7, -1)[None]
    (row,) = growth_by_label(found, cube(arrived)).itertuples()
    assert row.label == 7
    assert row.change == pytest.approx(row.moved_in - row.moved_out + row.grown, rel=1e-9)
    assert abs(row.grown) < 0.01 * row.change
    in_place = growth_by_label(growth(cube(frames), flow * 0))
    assert in_place["explained"].tolist() == [0.0]


def test_labels_add_up_to_the_raster():
    people, u, v = invent((3, 20, 20), 2, 1.5, empty=0.0)
    found = growth(cube(people), flow_of(u, v))
    labels = cube(np.random.default_rng(0).integers(0, 5, (2, 20, 20)))
    parts = growth_by_label(found, labels)
    whole = growth_by_label(found)
    assert len(parts) == 10 and len(whole) == 2
    np.testing.assert_allclose(
        parts.groupby("time")[list(PARTS)].sum(), whole[list(PARTS)], rtol=1e-9, atol=1e-7
    )
    assert whole["time"].dt.year.tolist() == [2000, 2001]
    assert whole["next"].dt.year.tolist() == [2001, 2002]


def test_reads_nothing_until_asked():
    def never(block):
        raise AssertionError("read")

    unread = da.zeros((2, 20, 20), chunks=(1, 10, 10)).map_blocks(
        never, dtype=float, meta=np.empty((0, 0, 0))
    )
    flow = flow_of(*np.zeros((2, 2, 20, 20))).assign_attrs(bound=3)
    for found in (growth(cube(unread), flow), growth(cube(unread), flow, reach=2)):
        with pytest.raises(AssertionError, match="read"):
            found.grown.compute()


def test_refuses_other_frames_and_labels():
    people, u, v = invent((2, 5, 5), 0, 1.0)
    with pytest.raises(InputError, match="flow has the sizes"):
        growth(cube(people), flow_of(u[:1], v[:1]))
    with pytest.raises(InputError, match="labels have the sizes"):
        growth_by_label(growth(cube(people), flow_of(u, v)), cube(np.zeros((2, 5, 5), int)))


def test_who_moves_within_a_place_has_not_left_it_and_what_is_unknown_is_left_out():
    people = cube(np.array([[[10.0, 20, 0, 5, 7]], [[0, 10, 20, np.nan, 9]]]))
    flow = flow_of(np.array([[[1.0, 1, 0, -1, 0]]] * 2), np.zeros((2, 1, 5)))
    labels = cube(np.array([[[-1, 0, 0, 0, 1]]]))
    found = growth(people, flow, labels=labels)
    assert found.moved_in.values.tolist() == [[[0, 10, 0, 0, 0]]]  # 20 and 5 stay within
    assert found.moved_out.values.tolist() == [[[10, 0, 0, 0, 0]]]
    assert found.grown.values[~np.isnan(found.grown)].tolist() == [0, 0, -5, 2]
    table = growth_by_label(found, labels)
    assert table[list(PARTS)].to_numpy().tolist() == [[10, 0, 0, 10], [0, 0, 2, 2]]
    assert table["explained"].tolist() == [1 - 5 / 30, 0]
    nobody = people.copy(data=np.where([[[1]], [[0]]], people, np.nan))
    assert growth_by_label(growth(nobody, flow), labels)[list(PARTS)].isna().all(axis=None)


@settings(max_examples=5)
@given(
    chunks=st.tuples(st.integers(1, 3), st.integers(1, 12), st.integers(1, 12)),
    seed=st.integers(0, 99),
    far=st.sampled_from([0.6, 2.5, 9.0]),
)
def test_places_add_up_with_their_labels_in_any_chunks(chunks, seed, far):
    people, u, v = invent((3, 11, 12), seed, far)
    labels = cube(np.random.default_rng(seed).integers(-1, 4, (2, 11, 12)))
    found = growth(cube(people), flow_of(u, v), whole=False, labels=labels)
    plain = growth(cube(people), flow_of(u, v), whole=False)
    xr.testing.assert_identical(found.grown.compute(), plain.grown.compute())
    in_chunks = growth(
        cube(people, chunks), flow_of(u, v, chunks), whole=False, labels=labels.chunk(y=5)
    )
    table = growth_by_label(found, labels)
    pd.testing.assert_frame_equal(table, growth_by_label(in_chunks, labels))
    np.testing.assert_allclose(
        table["moved_in"] - table["moved_out"] + table["grown"], table["change"], atol=1e-6
    )
    assert (table["moved_in"] >= 0).all() and (table["moved_out"] >= 0).all()


def test_a_single_frame_has_no_change_yet():
    people, u, v = invent((1, 4, 5), 0, 1.0)
    found = growth(cube(people), flow_of(u, v)).compute()
    assert found.moved_in.shape == (0, 4, 5) and growth_by_label(found).empty
