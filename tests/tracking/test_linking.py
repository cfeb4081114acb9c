"""Links equal the pairwise rule, and tiny worlds have the tracks that anyone would draw."""

import tracemalloc
from collections import Counter
from itertools import pairwise, product

import dask
import dask.array as da
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from popdask.errors import InputError
from popdask.synthetic import moving_cities
from popdask.tracking.describe import summarize
from popdask.tracking.flow import optical_flow
from popdask.tracking.link import OF_MOTION, RULES, compare_frames, largest_share, link, match
from popdask.tracking.tracks import EventRules, tracks, verify_tracks

YEARS = pd.to_datetime(["2000-01-01", "2005-01-01", "2010-01-01", "2011-01-01"])


def stack(values: object, chunks: object = None) -> xr.DataArray:
    array = np.asarray(values)
    data = array if chunks is None else da.from_array(array, chunks=chunks)
    return xr.DataArray(data, {"time": YEARS[: len(array)]}, ("time", "y", "x"))


def cosines(
    before: np.ndarray, after: np.ndarray, alpha: float = 10.0, iterations: int = 1
) -> np.ndarray:
    """cos(v, w) in every cell: v is the first frame's flow ahead, w the second's flow behind."""
    frames = stack([before, after])
    options = {"alpha": alpha, "iterations": iterations, "warm_start": False}
    ahead = optical_flow(frames, centering=(0, 0, 1), **options).isel(time=0)
    behind = optical_flow(frames, centering=(0, 0, -1), **options).isel(time=1)
    v, w = (np.stack([flow.u, flow.v]).astype(np.float64) for flow in (ahead, behind))
    lengths = np.hypot(*v) * np.hypot(*w)
    return np.divide((v * w).sum(axis=0), lengths, out=np.zeros_like(lengths), where=lengths > 0)


def plain_links(
    source: np.ndarray, target: np.ndarray, frames: np.ndarray, cosine: np.ndarray, rule: str
) -> set:
    """The rules as one would say them, over all pairs of communities."""
    people, later = frames
    later = np.where(np.isnan(people), np.nan, later)
    sources = sorted(set(source[source >= 0].tolist()))
    targets = sorted(set(target[target >= 0].tolist()))
    cells = {(a, b): (source == a) & (target == b) for a in sources for b in targets}
    sums = {pair: float(cosine[common].sum()) for pair, common in cells.items()}
    similarity = {pair: round(total) for pair, total in sums.items()}
    assert sums == pytest.approx(similarity, abs=1e-9), "a sum of cosines is a whole number"
    weight = {
        pair: (float(np.nansum(people[common])), int(common.sum()))
        for pair, common in cells.items()
    }

    def best(score: dict, nothing: object) -> tuple[set, set]:
        forward, backward = set(), set()
        for a in sources:
            if targets and (b := max(targets, key=lambda b: (score[a, b], -b))) is not None:
                forward |= {(a, b)} if score[a, b] > nothing else set()
        for b in targets:
            if sources and (a := max(sources, key=lambda a: (score[a, b], -a))) is not None:
                backward |= {(a, b)} if score[a, b] > nothing else set()
        return forward, backward

    forward, backward = best(similarity, 0)
    in_both = {
        pair: (weight[pair][0] + float(np.nansum(later[common])), weight[pair][1])
        for pair, common in cells.items()
    }
    heavy_forward, heavy_backward = best(in_both, (0.0, 0))
    similar = forward | backward
    if rule == "cosine":
        kept = similar
    elif rule == "overlap":
        kept = heavy_forward | heavy_backward
    else:
        linked = {a for a, _ in similar}, {b for _, b in similar}
        kept = similar | {(a, b) for a, b in heavy_forward if a not in linked[0]}
        kept |= {(a, b) for a, b in heavy_backward if b not in linked[1]}
    return {
        (
            a,
            b,
            similarity[a, b],
            weight[a, b][1],
            weight[a, b][0],
            (a, b) in forward,
            (a, b) in backward,
        )
        for a, b in kept
    }


labels = hnp.arrays(np.int32, (2, 7, 8), elements=st.integers(-1, 3))
counts = hnp.arrays(
    np.float32, (2, 7, 8), elements=st.sampled_from([0.0, 0.0, 1.0, 2.5, 40.0, np.nan])
)


def scattered(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels and people of two frames that have little to do with each other; people with gaps."""
    rng = np.random.default_rng(seed)
    community = rng.integers(-1, 4, (2, 7, 8)).astype(np.int32)
    people = rng.choice([0.0, 1.0, 2.5, 40.0], (2, 7, 8)).astype(np.float32)
    return community, people, np.where(rng.random(people.shape) < 0.2, np.float32(np.nan), people)


@given(
    community=labels,
    population=counts,
    rule=st.sampled_from(RULES),
    alpha=st.sampled_from([0.5, 10.0, 300.0]),
    iterations=st.integers(1, 4),
)
@example(*scattered(0)[::2], "overlap", 10.0, 1)
@example(*scattered(1)[::2], "overlap", 10.0, 1)
@settings(max_examples=30)
def test_links_equal_the_rule_over_all_pairs(
    community: np.ndarray, population: np.ndarray, rule: str, alpha: float, iterations: int
) -> None:
    options = {"alpha": alpha, "iterations": iterations}
    found = link(stack(community), stack(population), rule=rule, **options)
    columns = ["source", "target", "similarity", "overlap", "people", "forward", "backward"]
    cosine = cosines(*population, **options)
    expected = plain_links(community[0], community[1], population, cosine, rule)
    assert set(found[columns].itertuples(index=False, name=None)) == expected
    assert len(found) == len(expected)
    assert (found["mean_similarity"] == found["similarity"] / found["overlap"]).all()
    assert found["similarity"].dtype == np.int64 and found["mean_similarity"].dtype == np.float64
    assert (found["time"] == YEARS[0]).all()


@given(
    community=hnp.arrays(np.int32, (3, 6, 7), elements=st.integers(-1, 3)),
    chunks=st.tuples(st.integers(1, 3), st.integers(1, 6), st.integers(1, 7)),
    seed=st.integers(0, 2**32 - 1),
)
@settings(max_examples=8)
def test_links_are_identical_under_any_chunking(
    community: np.ndarray, chunks: tuple[int, int, int], seed: int
) -> None:
    population = np.random.default_rng(seed).gamma(0.5, 40, community.shape).astype(np.float32)
    whole = link(stack(community), stack(population))
    cut = link(stack(community, chunks), stack(population, chunks[::-1]))
    pd.testing.assert_frame_equal(cut, whole, check_exact=True)


def test_links_are_one_pass_over_the_blocks() -> None:
    """One call of dask.compute, in which no block of either input is computed twice."""
    reads: Counter[tuple] = Counter()
    passes = []

    def noted(name: str) -> xr.DataArray:
        def note(block: np.ndarray, block_info: dict) -> np.ndarray:
            reads[(name, *block_info[0]["chunk-location"])] += 1
            return block

        values = stack(np.ones((3, 8, 9), np.float32), (1, 4, 3))
        meta = np.empty((0, 0, 0), np.float32)
        return values.copy(data=values.data.map_blocks(note, dtype=np.float32, meta=meta))

    def counting(graph: object, keys: object, **options: object) -> object:
        reads.clear()
        found = dask.get(graph, keys, **options)
        passes.append(dict(reads))
        return found

    with dask.config.set(scheduler=counting):
        link(noted("community").astype(np.int32), noted("population"))
    blocks = product(["community", "population"], range(3), range(2), range(3))
    assert passes == [dict.fromkeys(blocks, 1)]


@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=20)
def test_people_are_linked_alike_back_and_forth_in_time(seed: int) -> None:
    community, people, _ = scattered(seed)
    ahead, back = (
        link(stack(community[way]), stack(people[way]), rule="overlap")
        for way in (slice(None), slice(None, None, -1))
    )
    pairs = set(zip(ahead["source"], ahead["target"], strict=True))
    assert pairs == set(zip(back["target"], back["source"], strict=True))


@given(community=hnp.arrays(np.int32, (3, 6, 7), elements=st.integers(-1, 3)), people=st.data())
@settings(max_examples=20)
def test_without_similarity_all_else_is_the_same(
    community: np.ndarray, people: st.DataObject
) -> None:
    counts = people.draw(
        hnp.arrays(np.float32, (3, 6, 7), elements=st.sampled_from([0, 1, 2.5, 40, np.nan]))
    )
    arrays = stack(community, (1, 4, 5)), stack(counts, (1, 4, 5))
    whole, parts = (
        compare_frames(*arrays, rule="overlap", memory=1, similarity=each) for each in (True, False)
    )
    pd.testing.assert_frame_equal(whole[0].drop(columns=list(OF_MOTION)), parts[0])
    pd.testing.assert_frame_equal(whole[1], parts[1])
    with pytest.raises(InputError, match="only the rule 'overlap' needs none"):
        compare_frames(*arrays, rule="cosine", similarity=False)


def test_where_the_error_is_not_known_it_is_that_of_counts() -> None:
    community = stack(np.zeros((2, 2, 3), np.int32))
    population = stack(np.array([[[100.0] * 3] * 2, [[110.0] * 3] * 2], np.float32))
    partly = xr.DataArray([[0.1, 0.2, np.nan], [np.nan, np.nan, np.nan]], dims=("y", "x"))
    (variance,) = link(community, population, error=partly)["variance"]
    known = sum((error * people) ** 2 for error in (0.1, 0.2) for people in (100, 110))
    assert variance == pytest.approx(known + 4 * (100 + 110), rel=1e-6)


@given(labels=hnp.arrays(np.int32, (2, 2, 5, 6), elements=st.integers(-1, 3)), seed=st.integers(0))
@settings(max_examples=20)
def test_the_largest_share_is_that_of_a_plain_count(labels: np.ndarray, seed: int) -> None:
    people = np.random.default_rng(seed).integers(0, 4, (2, 5, 6)).astype(np.float32)
    arrays = [stack(each, (1, 3, 4)) for each in (*labels, people)]
    found = largest_share(*arrays)
    wanted = []
    for frame in range(2):
        mine, other = labels[:, frame]
        for one in np.unique(mine[(mine >= 0) & (other >= 0)]):
            here = (mine == one) & (other >= 0)
            keys = [
                (people[frame][here & (other == k)].sum(), (here & (other == k)).sum(), -k)
                for k in np.unique(other[here])
            ]
            wanted.append((one, -max(keys)[2]))
    assert list(zip(found["source"], found["target"], strict=True)) == wanted


def test_empty_frames_give_no_links_but_the_same_columns() -> None:
    community = np.full((3, 4, 4), -1)
    community[0, 0, 0] = community[2, 0, 0] = 0
    nothing = link(stack(community), stack(np.ones((3, 4, 4))))
    something = link(stack(np.zeros((2, 4, 4), int)), stack(np.ones((2, 4, 4))))
    assert len(nothing) == 0
    pd.testing.assert_series_equal(nothing.dtypes, something.dtypes)
    single = link(stack(community[:1]), stack(np.ones((1, 4, 4))))
    pd.testing.assert_series_equal(single.dtypes, something.dtypes)


def test_an_unknown_rule_is_refused() -> None:
    with pytest.raises(InputError, match=r"^rule is 'cosin'"):
        link(stack(np.zeros((2, 3, 3), int)), stack(np.ones((2, 3, 3))), rule="cosin")


def test_a_community_without_any_match_is_linked_to_none() -> None:
    """Regression: the original linked it to the last community of the other frame."""
    community = np.full((2, 5, 12), -1)
    community[0, 1:4, 1:3], community[0, 1:4, 8:10] = 0, 1
    community[1, 1:4, 2:4] = 0
    population = np.where(community >= 0, 10.0, 0.0) * [[[1]], [[2]]]
    for rule in RULES:
        assert link(stack(community), stack(population), rule=rule)["source"].tolist() == [0]


def test_similarity_counts_moving_cells_whatever_their_direction() -> None:
    """Regression: a crowd that walks back is as similar as one that goes on: it is a count."""
    community = np.zeros((2, 9, 9), int)
    there = np.zeros((9, 9))
    there[3:6, 2:5] = 50.0
    towards, away = np.roll(there, 1, axis=1), np.roll(there, -1, axis=1)
    found = [link(stack(community), stack([there, after])) for after in (towards, away)]
    for links, after in zip(found, (towards, away), strict=True):
        assert links["similarity"].tolist() == [round(cosines(there, after).sum())]
        assert 0 < links["mean_similarity"][0] < 1
    assert found[0]["similarity"].tolist() == found[1]["similarity"].tolist()


def test_iterations_carry_motion_further_into_the_links() -> None:
    """A flow of more iterations reaches cells where nothing changed."""
    community = np.zeros((2, 15, 15), int)
    population = np.zeros((2, 15, 15))
    population[0, 7, 7], population[1, 7, 8] = 50.0, 50.0
    similarity = [
        link(stack(community), stack(population), iterations=n)["similarity"][0] for n in (1, 3)
    ]
    assert similarity == [round(cosines(*population, iterations=n).sum()) for n in (1, 3)]
    assert similarity[0] < similarity[1]


def test_alpha_reaches_the_flow_of_the_links() -> None:
    """Against a billion people, a difference of 1e-14 is no motion that float32 can hold."""
    community = np.zeros((2, 9, 9), int)
    population = np.zeros((2, 9, 9), np.float32)
    population[0, 4, 4], population[1, 4, 5] = 1e-14, 1e-14
    for alpha, moves in ((10.0, True), (1e9, False)):
        links = link(stack(community), stack(population), alpha=alpha)
        assert (links["similarity"][0] > 0) == moves
        assert links["similarity"].tolist() == [round(cosines(*population, alpha=alpha).sum())]


def test_memory_does_not_grow_with_the_pairs_of_communities() -> None:
    """Regression: 25 million pairs, of which a thousandth share cells: no byte for each of them."""
    rows, columns = np.mgrid[0:350, 0:350]
    before = rows // 5 * 70 + columns // 5
    after = (rows + 2) // 5 * 71 + (columns + 2) // 5
    population = np.random.default_rng(0).gamma(0.5, 40, (2, 350, 350)).astype(np.float32)
    community, people = stack([before, after], (1, 100, 100)), stack(population, (1, 100, 100))
    link(community[:, :9, :9], people[:, :9, :9])  # what is imported and compiled comes first
    tracemalloc.start()
    try:
        with dask.config.set(scheduler="sync"):
            links = link(community, people, rule="overlap")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert links["source"].nunique() == before.max() + 1 == 4900
    assert links["target"].nunique() == after.max() + 1 == 5041
    assert peak < 4900 * 5041, f"{peak / 1e6:.1f} MB"


def test_people_are_those_of_the_source_frame_in_shared_cells() -> None:
    community = [[[0, 0, 0, -1]], [[-1, 2, 2, 2]]]
    links = link(stack(community), stack([[[1, 2, 4, 8]], [[100, 100, 100, 100]]]), rule="overlap")
    assert links[["source", "target", "overlap", "people"]].to_numpy().tolist() == [[0, 2, 2, 6]]


# --- tracks: worlds with an obvious answer ---------------------------------------------------


def world(*frames: str) -> xr.DataArray:
    """One row of cells per frame; a digit is a community, anything else none."""
    return stack([[[int(cell) if cell.isdigit() else -1 for cell in frame]] for frame in frames])


def listed(community: xr.DataArray, population: xr.DataArray) -> pd.DataFrame:
    rows = []
    for time, labels, people in zip(YEARS, community.values, population.values, strict=False):
        for number in sorted(set(labels[labels >= 0].tolist())):
            rows.append((time, number, float(people[labels == number].sum())))
    return pd.DataFrame(rows, columns=["time", "community", "population"])


#: Every difference counts, and every community without a link is born or dead.
PLAIN = EventRules(sigma=0, part=0, like_for_like=False, held=1)


def told(
    community: xr.DataArray, population: xr.DataArray | None = None
) -> list[tuple[int, int, int, list[int], str]]:
    """The tracks as (frame, community, track, parents, event)."""
    if population is None:
        population = xr.full_like(community, 10.0, dtype=float)
    links = link(community, population)
    table = tracks(links, listed(community, population), rules=PLAIN)
    verify_tracks(table, links)
    frame = [YEARS.get_loc(time) for time in table["time"]]
    return list(
        zip(
            frame, *(table[name] for name in ("community", "track", "parent", "event")), strict=True
        )
    )


def test_a_town_that_stands_still_is_followed() -> None:
    """Nobody moves: the cosine rule leaves it alone, the overlap links it."""
    community = world("..000..", "..000..")
    people = xr.full_like(community, 10.0, dtype=float)
    assert len(link(community, people, rule="cosine")) == 0
    assert told(community) == [(0, 0, 0, [], "appear"), (1, 0, 0, [0], "continue")]


def test_two_towns_merge() -> None:
    assert told(world("0000.11", "0000000")) == [
        (0, 0, 0, [], "appear"),
        (0, 1, 1, [], "appear"),
        (1, 0, 0, [0, 1], "grow"),
        (1, 0, 0, [0, 1], "merge"),
    ]


def test_a_town_splits() -> None:
    assert told(world("0000000", "00.1111")) == [
        (0, 0, 0, [], "appear"),
        (1, 0, 1, [0], "split"),
        (1, 1, 0, [0], "shrink"),
        (1, 1, 0, [0], "split"),
    ]


def test_towns_appear_and_vanish() -> None:
    assert told(world("00....", "00..11", "....11")) == [
        (0, 0, 0, [], "appear"),
        (1, 0, 0, [0], "continue"),
        (1, 0, 0, [0], "vanish"),
        (1, 1, 1, [], "appear"),
        (2, 1, 1, [1], "continue"),
    ]


@pytest.mark.parametrize(
    ("people", "event"),
    [(105.0, "continue"), (105.5, "grow"), (95.0, "continue"), (94.5, "shrink"), (0.0, "shrink")],
)
def test_growth_means_more_than_five_percent(people: float, event: str) -> None:
    community = stack(np.zeros((2, 1, 4), int))
    population = stack(np.array([[[25.0] * 4], [[people / 4] * 4]]))
    assert told(community, population)[1][-1] == event


def test_one_piece_splits_off_and_merges_elsewhere() -> None:
    """Part of town 0 joins town 1; both tracks go on."""
    assert told(world("00000.111", "000.11111")) == [
        (0, 0, 0, [], "appear"),
        (0, 1, 1, [], "appear"),
        (1, 0, 0, [0], "shrink"),
        (1, 1, 1, [1], "grow"),
    ], "the piece is neither community's heaviest link, so there is no link to tell of"


def test_a_frame_without_communities_ends_all_tracks() -> None:
    assert told(world("00", "..", "00")) == [
        (0, 0, 0, [], "appear"),
        (0, 0, 0, [], "vanish"),
        (2, 0, 1, [], "appear"),
    ]


def test_an_empty_last_frame_is_known_by_its_time() -> None:
    community = world("00", "..")
    population = xr.full_like(community, 10.0, dtype=float)
    links, communities = link(community, population), listed(community, population)
    assert tracks(links, communities)["event"].tolist() == ["appear"]
    assert tracks(links, communities, times=YEARS[:2])["event"].tolist() == ["appear", "vanish"]


def test_no_communities_at_all() -> None:
    community = world("..", "..")
    population = xr.full_like(community, 10.0, dtype=float)
    table = tracks(link(community, population), listed(community, population))
    assert len(table) == 0
    verify_tracks(table)
    some = listed(world("00"), stack(np.ones((1, 1, 2))))
    expected = tracks(link(community, population), some).dtypes
    pd.testing.assert_series_equal(table.dtypes.drop("time"), expected.drop("time"))


@given(
    community=hnp.arrays(np.int32, (4, 5, 6), elements=st.integers(-1, 4)),
    seed=st.integers(0, 2**32 - 1),
)
@settings(max_examples=12)
def test_appending_a_frame_leaves_existing_tracks_alone(community: np.ndarray, seed: int) -> None:
    population = stack(np.random.default_rng(seed).gamma(0.5, 40, community.shape))
    communities = listed(stack(community), population)
    links = link(stack(community), population)
    tables = [
        tracks(links[links["time"] < YEARS[n - 1]], communities[communities["time"] < YEARS[n]])
        for n in (2, 3)
    ] + [tracks(links, communities)]
    for before, after in pairwise(tables):
        verify_tracks(after)
        merged = after[after["time"] <= before["time"].max()]
        old = merged[merged["event"] != "vanish"].reset_index(drop=True)
        expected = before[before["event"] != "vanish"].reset_index(drop=True)
        pd.testing.assert_frame_equal(old, expected)
        again = tracks(links, communities, known=before)
        pd.testing.assert_frame_equal(again, tables[-1])


def test_known_tracks_keep_their_numbers() -> None:
    community = world("00.11", "00.11", "00.11")
    population = xr.full_like(community, 10.0, dtype=float)
    links, communities = link(community, population), listed(community, population)
    known = pd.DataFrame({"time": YEARS[1], "community": [0, 1], "track": [7, 3]})
    table = tracks(links, communities, known=known)
    assert table.set_index(["time", "community"])["track"].to_dict() == {
        (YEARS[0], 0): 7,
        (YEARS[0], 1): 3,
        (YEARS[1], 0): 7,
        (YEARS[1], 1): 3,
        (YEARS[2], 0): 7,
        (YEARS[2], 1): 3,
    }


def test_a_frame_labelled_anew_keeps_its_tracks() -> None:
    """Frame 1 is numbered differently once frame 2 is there, and finds a third town."""
    community = world("00.11...", "00.11...")
    population = xr.full_like(community, 10.0, dtype=float)
    before = tracks(link(community, population), listed(community, population))
    anew = world("00.11...", "11.00.22", "11.00.22")
    population = xr.full_like(anew, 10.0, dtype=float)
    pairs = match(community[1:], anew[1:2], population[1:2])
    shared = ["source", "target", "people", "overlap"]
    assert pairs[shared].to_numpy().tolist() == [[0, 1, 20, 2], [1, 0, 20, 2]]
    kept = before.merge(pairs, left_on=["time", "community"], right_on=["time", "source"])
    kept = kept.assign(community=kept["target"])
    known = pd.concat([before[before["time"] < YEARS[1]], kept])
    known = known[["time", "community", "track", "people", "overlap"]]
    after = tracks(link(anew, population), listed(anew, population), known=known)
    verify_tracks(after)
    ids = after.set_index(["time", "community"])["track"].to_dict()
    assert [ids[YEARS[1], n] for n in range(3)] == [1, 0, 2]
    assert [ids[YEARS[2], n] for n in range(3)] == [1, 0, 2]


def test_tracks_survive_parquet(tmp_path: object) -> None:
    community = world("0000.11", "0000000")
    population = xr.full_like(community, 10.0, dtype=float)
    table = tracks(link(community, population), listed(community, population))
    table.to_parquet(f"{tmp_path}/tracks.parquet")
    back = pd.read_parquet(f"{tmp_path}/tracks.parquet")
    assert [list(parents) for parents in back["parent"]] == table["parent"].tolist()
    verify_tracks(back)
    pd.testing.assert_frame_equal(back.drop(columns="parent"), table.drop(columns="parent"))


def test_tables_that_do_not_belong_together_are_refused() -> None:
    community = world("00.11", "00.11")
    population = xr.full_like(community, 10.0, dtype=float)
    links, communities = link(community, population), listed(community, population)
    with pytest.raises(InputError, match="names the target 1"):
        tracks(links, communities[:3])
    with pytest.raises(InputError, match="no frame after it"):
        tracks(links, communities[:2])
    with pytest.raises(InputError, match="listed twice"):
        tracks(links, pd.concat([communities, communities[:1]]))
    with pytest.raises(InputError, match="known tracks"):
        tracks(
            links, communities, known=pd.DataFrame({"time": YEARS[:1], "community": 5, "track": 0})
        )


@pytest.mark.parametrize(
    ("fault", "change"),
    [
        ("two tracks", {"community": [0, 0, 0, 1]}),
        ("two communities", {"track": [0, 0, 0, 1]}),
        ("absent", {"track": [0, 1, 2, 0], "parent": [[], [], [], []]}),
        ("parent", {"parent": [[], [], [9], [1]]}),
        ("event", {"event": ["appear", "appear", "explode", "continue"]}),
    ],
)
def test_a_broken_table_of_tracks_is_found(fault: str, change: dict) -> None:
    table = pd.DataFrame(
        {
            "time": [2000, 2000, 2001, 2002],
            "community": [0, 1, 0, 1],
            "track": [0, 1, 0, 2],
            "parent": [[], [], [0], [1]],
            "event": ["appear", "appear", "continue", "continue"],
        }
    )
    verify_tracks(table)
    with pytest.raises(InputError, match=fault):
        verify_tracks(table.assign(**change))


@pytest.mark.parametrize("rule", ["overlap", "cosine+overlap"])
def test_the_tracks_of_an_invented_country_are_known(rule: str) -> None:
    """Cities that rest, move, grow, shrink, split, merge, appear and vanish, one of each."""
    country = moving_cities(seed=3)
    population = country.population["population"]
    links = link(country.labels, population, rule=rule)
    found = tracks(links, summarize(country.labels, population), rules=PLAIN)
    columns = ["time", "community", "track", "parent", "event"]
    order = ["time", "community", "event"]
    pd.testing.assert_frame_equal(
        found[columns].sort_values(order, ignore_index=True),
        country.truth[columns].sort_values(order, ignore_index=True),
        check_dtype=False,
    )
