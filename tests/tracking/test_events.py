"""Events are told where nothing else explains what is seen: noise, borders, lists, holes, gaps."""

from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from popdask.errors import InputError
from popdask.tracking.link import compare_frames, match
from popdask.tracking.tracks import EventRules, tracks, verify_tracks

YEARS = pd.date_range("2000", periods=8, freq="YS")


def world(*frames):
    """One row of cells per frame; a digit is a community, anything else none."""
    values = [[[int(cell) if cell.isdigit() else -1 for cell in frame]] for frame in frames]
    return stack(values)


def stack(values):
    array = np.asarray(values)
    return xr.DataArray(array, {"time": YEARS[: len(array)]}, ("time", "y", "x"))


def listed(community, population):
    people = population.fillna(0).values
    rows = [
        (time, number, people[t][labels == number].sum())
        for t, time in enumerate(community["time"].values)
        for labels in [community.values[t]]
        for number in np.unique(labels[labels >= 0]).tolist()
    ]
    table = pd.DataFrame(rows, columns=["time", "community", "population"])
    return table.astype({"time": "datetime64[ns]", "community": int, "population": float})


def history(community, population, *, memory=0, error="poisson", share=0.0, **options):
    """The tracks, checked against the links."""
    settings = {"memory": memory, "error": error, "share": share}
    links, ends = compare_frames(community, population, rule="overlap", **settings)
    times = community["time"].values
    table = tracks(
        links, listed(community, population), ends=ends, memory=memory, times=times, **options
    )
    verify_tracks(table, links, times=times)
    return table


def events(table):
    """(frame, community, track, event) of every row."""
    frame = YEARS.get_indexer(table["time"])
    return list(zip(frame, table["community"], table["track"], table["event"], strict=True))


def people(community, count=1000.0):
    return xr.full_like(community, count, dtype=float)


def test_growth_is_beyond_the_noise_of_the_counts():
    community = world("0", "0", "0")
    population = stack([[[1000.0]], [[1100.0]], [[1300.0]]])
    table = history(community, population)
    assert [event for *_, event in events(table)] == ["appear", "continue", "grow"]
    assert table["growth"].tolist()[1:] == [0.1, 200 / 1100]
    assert table["sigma"].tolist()[1:] == [100 / np.sqrt(2100), 200 / np.sqrt(2400)]
    assert np.isnan(table["growth"][0]) and np.isnan(table["sigma"][0])


def test_growth_is_beyond_the_error_that_is_given():
    community, population = world("0", "0"), stack([[[1e6]], [[1.3e6]]])
    for error, event in ((0.02, "grow"), (0.1, "continue")):
        assert history(community, population, error=error)["event"].tolist() == ["appear", event]


def test_a_border_that_moves_is_no_growth():
    community, population = world("000000...", "000000000"), people(world("0" * 9, "0" * 9))
    assert history(community, population)["event"].tolist() == ["appear", "continue"]
    table = history(community, population, rules=EventRules(like_for_like=False))
    assert table["event"].tolist() == ["appear", "grow"]


def test_a_piece_is_large_enough_to_be_one():
    population, rules = people(world("0" * 20, "0" * 20)), EventRules(changed=False)
    crumb = history(world("0" * 20, "0" * 19 + "1"), population, rules=rules)
    assert [event for *_, event in events(crumb)] == ["appear", "continue", "continue"]
    assert crumb["track"].tolist() == [0, 0, 1] and crumb["parent"][2] == [0]
    piece = history(world("0" * 20, "0" * 17 + "111"), population, rules=rules)
    assert [event for *_, event in events(piece)] == ["appear", "continue", "split", "split"]
    joined = history(world("0" * 17 + "111", "0" * 20), population, rules=rules)
    assert [event for *_, event in events(joined)] == ["appear"] * 2 + ["continue", "merge"]
    swallowed = history(world("0" * 19 + "1", "0" * 20), population, rules=rules)
    assert [event for *_, event in events(swallowed)] == ["appear"] * 2 + ["continue"]


@pytest.mark.parametrize("between", [1000.0, 900.0, 400.0])
def test_pieces_part_and_join_where_people_came_or_went(between):
    """Between two towns; that a cell is counted among them, or not, is no event."""
    apart, joined = "0000.1111", "000000000"
    population = people(world(apart, joined))
    population[0, 0, 4] = between
    table = history(world(apart, joined), population)
    assert ("merge" in set(table["event"])) == (between == 400)
    assert "vanish" not in set(table["event"])
    table = history(world(joined, apart), population[::-1].assign_coords(time=YEARS[:2]))
    assert ("split" in set(table["event"])) == (between == 400)


def test_a_piece_that_grows_out_of_the_rest_has_grown_and_nothing_has_split():
    population = people(world("0" * 8, "0" * 8))
    population[1, 0, 5:] = 1400.0
    table = history(world("00000000", "00000111"), population)
    assert table["event"].tolist() == ["appear", "grow", "grow"]
    assert table["track"].tolist() == [0, 0, 1] and table["parent"][2] == [0]
    rules = EventRules(changed=False)
    table = history(world("00000000", "00000111"), population, rules=rules)
    assert table["event"].tolist().count("split") == 2


@pytest.mark.parametrize("way", ["merge", "split"])
def test_cities_whose_cores_join_have_merged_whatever_ring_takes_most_of_their_cells(way):
    """Of each core two cells in three become ring, and lose their people; apart they have split."""
    apart, joined = [[0, 0, 0, -1, 1, 1, 1]] * 3, [[1] * 7, [0] * 7, [1] * 7]
    few = [20.0] * 7
    years = [stack([apart, joined]), stack([[[100.0] * 7] * 3, [few, [300.0] * 7, few]])]
    years[1][0, :, 3] = 0
    if way == "split":
        years = [array[::-1].assign_coords(time=YEARS[:2]) for array in years]
    table = history(*years, share=0.25)
    then = table[table["time"] == YEARS[1]]
    told = then[then["event"] == way]
    if way == "merge":
        assert told[["community", "track"]].values.tolist() == [[0, 0]]
        assert told["parent"].tolist() == [[0, 1]]
    else:
        assert told["community"].tolist() == [0, 1]
        assert all(0 in parents for parents in told["parent"])
    assert 0 in then.loc[then["community"] == 0, "track"].tolist(), "the core goes on"


def test_what_is_born_of_noise_is_not():
    community = world("00.", "001")
    for now, event in ((12.0, "continue"), (20.0, "appear")):
        population = stack([[[9e3, 9e3, 0.0]], [[9e3, 9e3, now]]])
        assert history(community, population)["event"].iloc[-1] == event


def test_what_lived_below_the_least_size_is_not_born():
    community = world("00.", "00.", "001")
    rules = EventRules(min_people=5000)
    for before, event in ((4900.0, "continue"), (3000.0, "grow"), (2000.0, "appear")):
        population = stack([[[9e3, 9e3, before]]] * 2 + [[[9e3, 9e3, 5100.0]]])
        assert history(community, population, rules=rules)["event"].iloc[-1] == event


def test_a_town_beside_whom_next_to_nobody_lived_has_appeared_and_so_it_dies():
    """With a tenth of its people it has grown, however many would be listed alone."""
    rules = EventRules(min_people=500)
    for town, few, events in (
        (9e3, 910.0, ["grow"]),
        (9e3, 890.0, ["appear", "vanish"]),
        (9e3, 510.0, ["appear", "vanish"]),
        (4e3, 410.0, ["grow"]),
        (4e3, 390.0, ["appear", "vanish"]),
        (4e3, 245.0, ["appear", "vanish"]),
    ):
        population = stack([[[9e3, 9e3, few]], [[9e3, 9e3, town]], [[9e3, 9e3, few]]])
        table = history(world("00.", "001", "00."), population, rules=rules)
        told = table.loc[table["community"] == 1, "event"].tolist()
        assert told == events


def test_what_moves_and_is_not_alike_all_round_neither_grows_nor_shrinks():
    """All cells hold 20,000 people before and 11,000 after; the community has 11,000 in both."""
    there, on = [[2e3, 9e3, 9e3, 0.0]], [[0.0, 2e3, 9e3, 9e3]]
    labels = "00..", ".00."
    for first, then, event in (
        (there, on, "continue"),
        (there, [[0.0, 1e3, 4.5e3, 4.5e3]], "shrink"),
        (there, [[0.0, 3e3, 27e3, 27e3]], "grow"),
    ):
        table = history(world(*labels), stack([first, then]))
        assert events(table)[1:] == [(1, 0, 0, event)]


def test_what_grows_and_loses_a_cell_to_another_class_has_grown():
    """It has fewer people, but takes no cells: it has not moved."""
    table = history(world("000", "00."), stack([[[2e3, 2e3, 2e3]], [[2.6e3, 2.6e3, 2.6e3]]]))
    assert events(table)[1:] == [(1, 0, 0, "grow")]


def test_what_falls_below_the_least_size_is_not_dead():
    community = world("001", "00.")
    rules = EventRules(min_people=5000)
    for after, died in ((4900.0, False), (2600.0, False), (2400.0, True)):
        population = stack([[[9e3, 9e3, 5100.0]], [[9e3, 9e3, after]]])
        table = history(community, population, rules=rules)
        assert ("vanish" in set(table["event"])) == died


def test_a_town_that_dies_in_the_land_of_another_vanishes():
    """Its cells are community 0's, but nobody lives in them: it has merged with nobody."""
    population = stack([[[2e4, 100.0, 9e3]], [[2e4, 100.0, 5.0]], [[2e4, 100.0, 9e3]]])
    table = history(world("001", "000", "001"), population)
    assert events(table)[2] == (0, 1, 1, "vanish") and table["growth"][2] == 5 / 9e3 - 1
    assert events(table)[-1] == (2, 1, 2, "appear")
    assert not {"merge", "split"} & set(table["event"])


def test_a_community_that_comes_back_keeps_its_number():
    community = world("00.11", "00...", "00.11", "00.11")
    population = people(community)
    gone = history(community, population)
    assert gone["track"].nunique() == 3
    back = history(community, population, memory=1)
    assert back["track"].nunique() == 2 and "vanish" not in set(back["event"])
    assert back.loc[back["gap"] > 0, ["time", "community", "gap"]].to_numpy().tolist() == [
        [YEARS[2], 1, 1]
    ]


def test_vanish_is_told_when_memory_has_run_out():
    community = world("00.11", "00...", "00...", "00...")
    population = xr.where(community >= 0, 1000.0, 0.0)
    for frames in (2, 3, 4):
        for memory in (0, 1, 2):
            some = community[:frames], population[:frames]
            vanished = "vanish" in set(history(*some, memory=memory)["event"])
            assert vanished == (frames - 2 >= memory)


def test_nobody_vanishes_or_appears_for_a_frame_without_data():
    community = world("00.11", ".....", "00.11")
    population = people(community).where(community["time"] != YEARS[1])
    table = history(community, population, memory=1)
    assert [event for *_, event in events(table)] == ["appear"] * 2 + ["continue"] * 2
    assert table["gap"].tolist() == [0, 0, 1, 1] and table["track"].tolist() == [0, 1, 0, 1]
    for memory in (0, 1):
        table = history(community, population, memory=memory)
        assert set(table["event"][2:]) == {"continue"}


def test_nobody_shrinks_or_grows_for_half_a_frame_without_data():
    community = world("000011", "00....", "000011")
    population = people(community)
    population[1, 0, 2:] = np.nan
    table = history(community, population, memory=1)
    assert [event for *_, event in events(table)] == ["appear"] * 2 + ["continue"] * 3
    assert table["growth"].tolist()[2:] == [0, 0, 0]
    assert table["track"].tolist() == [0, 1, 0, 0, 1]


@given(
    community=hnp.arrays(np.int32, (6, 4, 5), elements=st.integers(-1, 3)),
    memory=st.integers(0, 2),
    seed=st.integers(0, 2**32 - 1),
)
@settings(max_examples=8)
def test_an_appended_frame_changes_nothing_that_was_told(community, memory, seed):
    population = np.random.default_rng(seed).gamma(0.5, 400, community.shape)
    cube = stack(community), stack(population)
    tables = [history(*(part[:n] for part in cube), memory=memory) for n in (4, 5, 6)]
    for before, after in pairwise(tables):
        key = ["time", "community", "event"]
        told = after.merge(before[key], "left", key, indicator=True)
        pd.testing.assert_frame_equal(
            told[told["_merge"] == "both"].drop(columns="_merge").reset_index(drop=True), before
        )
        more = told[(told["_merge"] != "both") & (told["time"] <= before["time"].max())]
        assert set(more["event"]) <= {"vanish"}, "which is told when it is certain"


edits = st.lists(
    st.tuples(st.sampled_from(["insert", "remove", "replace"]), st.integers(0, 7)), max_size=6
)


@given(
    frames=hnp.arrays(np.int32, (8, 4, 5), elements=st.integers(-1, 3)),
    edits=edits,
    memory=st.integers(0, 1),
)
@settings(max_examples=8)
def test_edited_histories_are_those_from_scratch_but_for_numbers(frames, edits, memory):
    """Frames come, go and are replaced; numbers stay, and none is given twice."""
    labels = {t: frames[t] for t in range(0, 8, 2)}
    known, given, owner = None, 0, {}
    for edit, t in [("", 0), *edits]:
        if edit == "remove" and len(labels) > 1:
            labels.pop(t, None)
        elif edit == "insert" or (edit == "replace" and t in labels):
            labels[t] = frames[t] if edit == "insert" else frames[(t + 3) % 8]
        order = sorted(labels)
        community = stack([labels[t] for t in order]).assign_coords(time=YEARS[order])
        scratch = history(community, people(community), memory=memory)
        if known is not None:
            still = listed(community, people(community))[["time", "community"]]
            known = known.merge(still)
        table = history(
            community, people(community), memory=memory, known=known, first_number=given
        )
        both = scratch[["track"]].assign(other=table["track"]).drop_duplicates()
        assert both["track"].is_unique and both["other"].is_unique
        pd.testing.assert_frame_equal(
            scratch.drop(columns=["track", "parent"]), table.drop(columns=["track", "parent"])
        )
        fresh = set(table["track"]) - set(known["track"] if known is not None else [])
        assert not fresh & set(owner)
        owner |= dict.fromkeys(table["track"])
        known = table[["time", "community", "track"]].drop_duplicates()
        given = max(given, table["track"].max() + 1 if len(table) else 0)


def test_a_number_goes_to_the_first_that_claims_it():
    """A frame comes between, and a track falls apart: the earlier part keeps the number."""
    community = world("00..", "....", "00..")
    known = pd.DataFrame({"time": YEARS[[0, 2]], "community": 0, "track": 5})
    table = history(community, people(community), known=known, first_number=9)
    assert table["track"].unique().tolist() == [5, 9]


def test_a_number_goes_to_those_who_hold_most_of_its_people():
    """By the people of all frames: not the first that claims it, where a later one has more."""
    community = world("0.1111", "0.1111")
    known = pd.DataFrame({"time": YEARS[:2], "community": [0, 1], "track": 5})
    for shared, numbers in (({}, [9, 5]), ({"people": [50.0, 40.0], "overlap": 1}, [5, 9])):
        table = history(community, people(community), known=known.assign(**shared), first_number=9)
        assert table["track"].tolist() == numbers * 2


grids = hnp.arrays(np.int32, (3, 4, 5), elements=st.integers(-1, 3))


@given(old=grids, new=grids, seed=st.integers(0, 9))
@settings(max_examples=20)
def test_numbers_of_frames_labelled_anew_are_those_of_a_plain_count(old, new, seed):
    counts = stack(np.random.default_rng(seed).integers(0, 4, old.shape).astype(np.float32))
    old, new = stack(old), stack(new)
    before, scratch = history(old, counts), history(new, counts)
    tracks_of = before[["time", "community", "track"]].drop_duplicates()
    pairs = match(old, new, counts).rename(columns={"source": "community"})
    known = pairs.merge(tracks_of, on=["time", "community"]).assign(community=pairs["target"])
    table = history(new, counts, known=known, first_number=99)
    numbers = []
    for labels, told in ((old, before), (new, scratch), (new, table)):
        of = told.drop_duplicates(["time", "community"]).set_index(["time", "community"])["track"]
        numbers.append(
            [of.get((YEARS[t], label), -1) for (t, *_), label in np.ndenumerate(labels.values)]
        )
    shared = {}
    for was, now, count in zip(*numbers[:2], counts.values.ravel(), strict=True):
        if was >= 0 and now >= 0:
            weight = shared.setdefault((now, was), [0, 0])
            weight[:] = weight[0] + count, weight[1] + 1
    wanted, ends = {}, {}
    for pair, (count, _) in shared.items():
        for end in enumerate(pair):
            ends[end] = ends.get(end, 0) + count
    shared = {
        pair: weight
        for pair, weight in shared.items()
        if 4 * weight[0] >= min(ends[end] for end in enumerate(pair))
    }
    for now, was in sorted(shared, key=lambda pair: ([-part for part in shared[pair]], pair)):
        if now not in wanted and was not in wanted.values():
            wanted[now] = was
    for now, number in zip(*numbers[1:], strict=True):
        assert number == wanted[now] if now in wanted else (number >= 99 or now < 0)


@pytest.mark.parametrize("change", [{"growth": -0.1}, {"part": 1.5}, {"held": -1}, {"sigma": -1}])
def test_rules_out_of_range_are_refused(change):
    with pytest.raises(InputError, match=f"^{next(iter(change))} is"):
        EventRules(**change)


def test_a_step_without_a_link_is_found():
    community = world("00.11", "00.11", "00.11")
    links, _ = compare_frames(community, people(community), rule="overlap")
    table = history(community, people(community))
    with pytest.raises(InputError, match="no link"):
        verify_tracks(table, links[links["source"] == 0])
    skipping = table[(table["time"] != YEARS[1]) | (table["community"] == 0)]
    with pytest.raises(InputError, match="absent"):
        verify_tracks(skipping, links)
    with pytest.raises(InputError, match="no link"):
        verify_tracks(
            skipping.assign(gap=(skipping["time"] == YEARS[2]) * skipping["track"]), links
        )


def followed(labels, people):
    """Follow three frames of labels, with a memory of one frame."""
    years = {"time": [0, 1, 2]}
    community = xr.DataArray(labels, years, ("time", "y", "x"))
    population = xr.DataArray(people, years, ("time", "y", "x"))
    links, ends = compare_frames(community, population, rule="overlap", share=0.25, memory=1)
    there = labels >= 0
    table = pd.DataFrame({"time": np.nonzero(there)[0], "community": labels[there]})
    table = table.assign(population=people[there]).groupby(["time", "community"]).sum()
    told = tracks(links, table.reset_index(), ends=ends, memory=1, times=[0, 1, 2])
    verify_tracks(told, links, times=[0, 1, 2])
    return told


def test_what_parts_while_there_is_no_data_is_told_behind_the_gap():
    """A town of two halves parts, and two towns join, in a frame that has no data."""
    people = np.zeros((3, 12, 20), np.float32)
    for left in (1, 6):
        people[:, 2:5, left : left + 4] = 900.0
    people[0, 2:5, 5] = 900.0  # the bridge, which goes
    for left in (11, 15):
        people[:, 8:11, left : left + 3] = 900.0
    people[2, 8:11, 14] = 900.0  # the bridge, which comes
    labels = np.full(people.shape, -1)
    labels[0, 2:5, 1:10], labels[0, 8:11, 11:14], labels[0, 8:11, 15:18] = 0, 1, 2
    labels[2, 2:5, 1:5], labels[2, 2:5, 6:10], labels[2, 8:11, 11:18] = 0, 1, 2
    people[1] = np.nan
    told = followed(labels, people)
    last = told[(told["time"] == 2) & told["event"].isin(["split", "merge", "appear", "vanish"])]
    assert last[["community", "event"]].to_numpy().tolist() == [
        [0, "split"],
        [1, "split"],
        [2, "merge"],
    ]
    assert last["parent"].tolist() == [[0], [0], [1, 2]]
    assert not told["event"].eq("vanish").any()


@pytest.mark.parametrize("missing", [0, 4, 12], ids=["known", "a third missing", "all missing"])
@pytest.mark.parametrize("parts", ["after", "before"])
@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=10)
def test_noise_makes_no_pieces_of_what_comes_back(missing, parts, seed):
    """People are drawn anew; a town is away for a frame, and two labels that touch are one town."""
    people = np.random.default_rng(seed).poisson(500.0, (3, 4, 12)).astype(np.float32)
    people[1, :, :missing] = np.nan
    labels = np.full(people.shape, -1)
    whole, halves = (0, 2) if parts == "after" else (2, 0)
    labels[whole, :, 1:11] = 0
    labels[halves, :, 1:6], labels[halves, :, 6:11] = 0, 1
    told = followed(labels, people)
    assert (
        not told["event"]
        .isin(["split", "merge", "appear", "vanish", "grow", "shrink"])[told["time"] > 0]
        .any()
    )
