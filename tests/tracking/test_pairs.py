"""What links say of people equals sums over cells, in any chunks, across gaps and missing data."""

import dask
import dask.array as da
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from popdask.errors import InputError
from popdask.tracking.flow import optical_flow
from popdask.tracking.link import compare_frames, link
from popdask.tracking.tracks import tracks, verify_tracks
from tests.tracking.worlds import country, moved

LINK = ["time", "next", "source", "target"]
END = ["time", "next", "side", "community"]
YEARS = pd.date_range("2000", periods=6, freq="YS")


def stack(values, chunks=None):
    array = np.asarray(values)
    data = array if chunks is None else da.from_array(array, chunks=chunks)
    return xr.DataArray(data, {"time": YEARS[: len(array)]}, ("time", "y", "x"))


labels = hnp.arrays(np.int32, (2, 6, 7), elements=st.integers(-1, 3))
counts = hnp.arrays(
    np.float32, (2, 6, 7), elements=st.sampled_from([0.0, 1.0, 2.5, 40.0, 3e5, np.nan])
)


def noise(error, before, after, cells):
    """The variance of a difference, cell by cell."""
    if error == "poisson":
        return before[cells].sum() + after[cells].sum()
    return ((error * before[cells]) ** 2 + (error * after[cells]) ** 2).sum()


def share(part, whole, people):
    total = people[whole].sum()
    return people[part].sum() / total if total else part.sum() / max(whole.sum(), 1)


@given(community=labels, population=counts, error=st.sampled_from(["poisson", 0.25]))
@settings(max_examples=40)
def test_people_are_sums_over_cells_known_in_both_frames(community, population, error):
    known = np.isfinite(population).all(axis=0)
    before, after = np.where(known, population, 0).astype(np.float64)
    links, ends = compare_frames(stack(community), stack(population), rule="overlap", error=error)
    for row in links.itertuples():
        a, b = community[0] == row.source, community[1] == row.target
        assert row.people_target == after[a & b].sum()
        assert row.union_source == before[a | b].sum() and row.union_target == after[a | b].sum()
        assert row.variance == pytest.approx(noise(error, before, after, a | b), rel=1e-6)
        assert row.share_source == pytest.approx(share(a & b & known, a & known, before))
        assert row.share_target == pytest.approx(share(a & b & known, b & known, after))
    numbers = [sorted(set(frame[frame >= 0].tolist())) for frame in community]
    assert ends["community"].tolist() == numbers[0] + numbers[1]
    for row in ends.itertuples():
        own = community[int(row.side == "target")] == row.community
        assert row.people_source == before[own].sum() and row.people_target == after[own].sum()
        assert row.variance == pytest.approx(noise(error, before, after, own), rel=1e-6)
        assert row.missing == pytest.approx(1 - known[own].mean())


@given(
    community=hnp.arrays(np.int32, (4, 6, 7), elements=st.integers(-1, 3)),
    chunks=st.tuples(st.integers(1, 4), st.integers(1, 6), st.integers(1, 7)),
    seed=st.integers(0, 2**32 - 1),
)
@settings(max_examples=8)
def test_tables_are_identical_under_any_chunking(community, chunks, seed):
    rng = np.random.default_rng(seed)
    population = rng.gamma(0.5, 40, community.shape).astype(np.float32)
    population[rng.random(population.shape) < 0.2] = np.nan
    error = rng.random(population.shape[1:]).astype(np.float32)
    options = {"memory": 2, "share": 0.3, "displaced": True}
    options["error"] = xr.DataArray(error, dims=("y", "x"))
    whole = compare_frames(stack(community), stack(population), **options)
    cut = compare_frames(stack(community, chunks), stack(population, chunks[::-1]), **options)
    for one, other in zip(cut, whole, strict=True):
        pd.testing.assert_frame_equal(one, other, check_exact=True)


@given(
    seed=st.integers(0, 2**32 - 1),
    chunks=st.tuples(st.integers(1, 5), st.integers(11, 40), st.integers(11, 40)),
    memory=st.integers(0, 2),
)
@settings(max_examples=5)
def test_towns_that_lie_aside_are_the_same_in_any_chunks_and_frame_by_frame(seed, chunks, memory):
    """Towns by the sea, of 2 × 2 cells, jump by up to four, and some are away for a year."""
    rng = np.random.default_rng(seed)
    community = np.full((5, 40, 40), -1)
    population = np.full(community.shape, 3.0, np.float32)
    for town, (row, column) in enumerate(np.ndindex(4, 4)):
        for frame in range(5):
            top, left = np.array([row, column]) * 10 + rng.integers(1, 6, 2)
            if frame == 0 or rng.random() < 0.8:
                community[frame, top : top + 2, left : left + 2] = town
                population[frame, top : top + 2, left : left + 2] = 700 + 50 * town
    population[:, rng.random(community.shape[1:]) < 0.05] = np.nan
    options = {"rule": "overlap", "displaced": True, "memory": memory}
    whole = compare_frames(stack(community), stack(population), **options)
    assert ((whole[0]["overlap"] == 0) & (whole[0]["source"] == whole[0]["target"])).any()
    cut = compare_frames(stack(community, chunks), stack(population, chunks[::-1]), **options)
    labels, people = stack(community), stack(population)
    parts = []
    for last in range(1, 5):
        frames = slice(max(last - memory - 1, 0), last + 1)
        found = compare_frames(labels[frames], people[frames], **options)
        parts.append([table[table["next"] == YEARS[last]] for table in found])
    by_frame = [pd.concat(tables) for tables in zip(*parts, strict=True)]
    for found in (cut, by_frame):
        for one, other, keys in zip(found, whole, (LINK, END), strict=True):
            one, other = (table.sort_values(keys, ignore_index=True) for table in (one, other))
            pd.testing.assert_frame_equal(one, other, check_exact=True)


def test_a_town_by_the_sea_that_lies_aside_is_the_same():
    """A cell of it is sea, which has no data in either frame."""
    before, after = np.full((2, 10, 12), -1)
    before[2, 1:11], after[3, 1:11] = 0, 0
    people = np.where(np.stack([before, after]) >= 0, 700.0, 3.0)
    people[:, :, 10] = np.nan
    links = link(stack(np.stack([before, after])), stack(people), rule="overlap", displaced=True)
    assert links[["source", "target", "union_source"]].to_numpy().tolist() == [[0, 0, 9 * 703]]


def test_a_raster_of_errors_counts_cell_by_cell():
    population = stack([[[10.0, 20.0]], [[20.0, 20.0]]])
    community = xr.zeros_like(population, dtype=int)
    even = link(community, population, error=0.5)
    raster = link(community, population, error=xr.full_like(population, 0.5))
    pd.testing.assert_frame_equal(even, raster)
    certain = xr.DataArray([[0.5, 0.0]], dims=("y", "x"))
    assert link(community, population, error=certain)["variance"].tolist() == [5**2 + 10**2]


@given(community=labels, population=counts, least=st.sampled_from([0.0, 0.3, 0.6, 1.0]))
@settings(max_examples=20)
def test_a_share_takes_links_away_and_changes_none(community, population, least):
    every = link(stack(community), stack(population))
    some = link(stack(community), stack(population), share=least)
    enough = every[["share_source", "share_target"]].max(axis=1) >= least
    pd.testing.assert_frame_equal(some, every[enough].reset_index(drop=True))


def test_a_community_that_comes_back_is_linked_across_the_gap():
    community = np.full((4, 1, 6), -1)
    community[:, :, :2] = 0
    community[[0, 3], :, 3:5] = 1
    population = stack(np.full((4, 1, 6), 10.0))
    columns = ["time", "next", "gap", "source", "target"]
    for memory, expected in ((0, []), (1, []), (2, [[YEARS[0], YEARS[3], 2, 1, 1]])):
        links = link(stack(community), population, memory=memory)
        assert links[links["gap"] > 0][columns].to_numpy().tolist() == expected
        assert (links["gap"] == 0).sum() == 3
        assert links["time"].is_monotonic_increasing


def test_only_those_without_a_link_are_compared_across_a_gap():
    """Town 0 goes on; 1 is away for a frame; nobody is compared who is not away."""
    community = np.full((3, 1, 6), -1)
    community[:, :, :2] = 0
    community[[0, 2], :, 3:5] = 1
    _, ends = compare_frames(stack(community), stack(np.ones((3, 1, 6))), memory=1)
    across = ends[ends["gap"] == 1]
    assert across[["side", "community"]].to_numpy().tolist() == [["source", 1], ["target", 1]]


def test_a_narrow_town_that_lies_aside_is_the_same_and_others_are_not():
    """A row of ten cells lies a row lower; no town far off, or larger, goes on as one that dies."""
    before, after = np.full((2, 40, 30), -1)
    before[3, 5:15], after[4, 5:15] = 0, 0
    before[20:22, 2:4], after[20:22, 24:26] = 1, 1  # as many people, eleven times its width away
    before[30:32, 10:12], after[33:35, 10:12] = 2, 2  # close by, with twice the people
    before[35:38, 20:23], after[37:40, 21:24] = 3, 3  # shares two of its nine cells
    labels = stack(np.stack([before, after]))
    people = stack(np.where(labels.values >= 0, 700.0, 3.0))
    people[1] = people[1].where(labels[1] != 2, 1400.0)
    links, ends = compare_frames(labels, people, rule="overlap", share=0.25, displaced=True)
    assert links[["source", "target", "overlap"]].to_numpy().tolist() == [[0, 0, 0], [3, 3, 2]]
    assert links["union_source"].tolist() == [7030, 9 * 700 + 7 * 3]
    assert links["union_target"].tolist() == links["union_source"].tolist()
    assert link(labels, people, rule="overlap", share=0.25).empty
    numbers = np.arange(4)
    sizes = [np.bincount(one.values[one.values >= 0], p.values[one.values >= 0])
             for one, p in zip(labels, people, strict=True)]  # fmt: skip
    listed = [pd.DataFrame({"time": time, "community": numbers, "population": size})
              for time, size in zip(labels["time"].values, sizes, strict=True)]  # fmt: skip
    told = tracks(links, pd.concat(listed), ends=ends)
    last = told[told["time"] == labels["time"].values[1]]
    assert last.groupby("event")["community"].agg(list).to_dict() == {
        "appear": [1, 2],
        "continue": [0, 3],
    }
    verify_tracks(told, links)


def test_with_a_flow_people_are_compared_where_it_takes_them():
    here = country((40, 44))
    there = moved(here, 0, 3)
    population = stack([here, there])
    community = stack([here > 20, there > 20]).astype(int) - 1
    flow = optical_flow(population, centering=(0, 0, 1), scales=3, log=True)
    flow = xr.Dataset({"u": xr.full_like(flow["u"], 3.0), "v": xr.zeros_like(flow["v"])})
    (moves,) = link(community, population, flow=flow).itertuples()
    assert moves.union_source == moves.union_target == here[:, :-3][here[:, :-3] > 20].sum()
    assert moves.share_source == moves.share_target == 1


def test_with_a_flow_errors_are_those_of_where_it_takes_people():
    """The town moves 15 cells: the later frame's error is that of the cells where it arrives."""
    community = np.full((2, 1, 40), -1)
    community[0, 0, 2:4], community[1, 0, 17:19] = 0, 0
    population = stack(np.where(community >= 0, 100.0, 1.0))
    error = np.full(population.shape, 0.9)
    error[0, 0, 2:4], error[1, 0, 17:19] = 0.5, 0.25
    still = xr.zeros_like(population)
    flow = xr.Dataset({"u": still + 15, "v": still})
    for chunks in (40, 3):
        cut = stack(error, (1, 1, chunks))
        links = link(stack(community), population.chunk(x=chunks), flow=flow, error=cut)
        assert links["variance"].tolist() == [2 * (50.0**2 + 25.0**2)]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"share": 1.5}, r"^share is 1.5; expected a part"),
        ({"memory": -1}, r"^memory is -1; expected a whole number"),
        ({"error": "normal"}, r"^error is 'normal'; expected"),
        ({"error": -0.1}, r"^error is -0.1; expected"),
    ],
)
def test_numbers_out_of_range_are_refused(change, message):
    with pytest.raises(InputError, match=message):
        link(stack(np.zeros((2, 3, 3), int)), stack(np.ones((2, 3, 3))), **change)


def test_gaps_read_every_frame_once():
    """However many frames may be away, the cells are read in one call of dask.compute."""
    calls = []

    def counting(graph, keys, **options):
        calls.append(keys)
        return dask.get(graph, keys, **options)

    with dask.config.set(scheduler=counting):
        link(stack(np.zeros((4, 3, 3), int), 2), stack(np.ones((4, 3, 3)), 2), memory=2)
    assert len(calls) == 1
