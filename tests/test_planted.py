"""Planted worlds: the same by seed, drawn from the law that they name, events where they say."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from scipy import ndimage

from popdask.errors import InputError
from popdask.metrics import planted_scores, visible_events
from popdask.synthetic import planted

QUEEN = np.ones((3, 3))
EVENTS = {"grow": 2, "shrink": 2, "appear": 1, "vanish": 1, "merge": 1, "split": 2, "shift": 1}


@pytest.fixture(scope="module")
def ground():
    """Twelve towns of 5 × 5 cells on thinly settled land, the sea in the west."""
    people = np.full((140, 150), 8.0)
    for row in range(3):
        for column in range(4):
            people[10 + 15 * row :, 10 + 15 * column :][:5, :5] = 600 + 100 * row
    people[:, :3] = np.nan
    y, x = 1e6 - 1000.0 * np.arange(140), 5e5 + 1000.0 * np.arange(150)
    return xr.DataArray(people, {"y": y, "x": x}, ("y", "x")).rio.write_crs(25833)


@pytest.fixture(scope="module")
def world(ground):
    return planted(ground, 3, events=EVENTS)


def towns(people):
    return ndimage.label(np.nan_to_num(people) >= 300, QUEEN)


def test_a_seed_gives_one_world_and_another_seed_another(ground, world):
    again, other = planted(ground, 3, events=EVENTS), planted(ground, 4, events=EVENTS)
    assert again.population.identical(world.population)
    pd.testing.assert_frame_equal(again.events, world.events)
    assert not other.population.equals(world.population)


def test_in_the_null_world_nothing_happens_but_noise(ground):
    null = planted(ground, 0, frames=40, events={})
    assert len(null.events) == 0 and (null.places == -1).all()
    assert (null.expected == ground).sum() == 40 * np.isfinite(ground).sum()
    assert null.population.rio.crs == ground.rio.crs
    assert (np.isnan(null.population) == np.isnan(ground)).all()
    dense = ground.values == 600
    drawn = null.population.values[:, dense]
    assert (drawn % 1 == 0).all()
    assert drawn.mean() == pytest.approx(600, abs=5 * np.sqrt(600 / drawn.size))
    assert drawn.var() == pytest.approx(600, rel=0.1)


def test_a_relative_error_is_one(ground):
    drawn = planted(ground, 0, frames=40, events={}, error=0.1).population.values
    assert drawn[:, ground.values == 600].std() == pytest.approx(60, rel=0.1)
    assert (planted(ground, 0, events={}, error=0.0).population == ground).sum() > 0


def test_every_event_is_where_and_when_it_says(world):
    counts = world.events["event"].value_counts().to_dict()
    assert counts == EVENTS
    mean, places = world.expected.values, world.places.values
    for event in world.events.itertuples():
        here = places == event.place
        before, after = mean[event.frame - 1][here].sum(), mean[event.frame][here].sum()
        assert before == pytest.approx(event.people)
        factor = {"grow": 1.25, "shrink": 0.8, "vanish": 0.0}.get(event.event)
        if factor is not None:
            assert after == pytest.approx(factor * before)
        elif event.event == "appear":
            assert after > 5000 + before
        else:
            assert after == pytest.approx(before)
        middle = world.places.sel(y=event.y, x=event.x, method="nearest")
        assert event.event in ("split", "merge") or middle == event.place
        for frame in set(range(1, 6)) - {event.frame}:
            assert (mean[frame][here] == mean[frame - 1][here]).all()


def test_bridges_join_and_part_as_many_towns_as_they_say(world):
    mean = world.expected.values
    for event in world.events[world.events["event"].isin(["merge", "split"])].itertuples():
        here = world.places.values == event.place
        counts = [len(np.unique(towns(mean[t])[0][here & (mean[t] >= 300)])) for t in range(6)]
        apart = counts[: event.frame] if event.event == "merge" else counts[event.frame :]
        joined = counts[event.frame :] if event.event == "merge" else counts[: event.frame]
        assert set(apart) == {event.parts} and set(joined) == {1}
    splits = world.events[world.events["event"] == "split"]
    assert sorted(splits["parts"]) == [2, 3]


@pytest.mark.parametrize("error", ["poisson", 0.1])
def test_what_is_built_is_beyond_the_noise(error):
    """Towns whose rims hold just enough are joined by bridges, and parted, in every draw."""
    people = np.zeros((140, 150))
    for corner in range(10, 100, 15):
        people[corner : corner + 5, 10:15] = 305  # as the official rule has it, and no more
        people[corner + 1 : corner + 4, 11:14] = 1200
        people[corner, 12] = 0
    ground = xr.DataArray(people, dims=("y", "x"))
    world = planted(ground, 0, events={"appear": 2, "merge": 2, "split": 2}, error=error)
    for event in world.events.itertuples():
        here = world.places.values == event.place
        built = world.expected.values[:, here]
        assert built[built > 0].min() >= 450 * (1 - 1e-9)
        counts = [
            len(np.unique(towns(people)[0][here & (people >= 300)]))
            for people in world.population.values
        ]
        before, after = {"appear": (0, 1), "merge": (2, 1), "split": (1, event.parts)}[event.event]
        assert counts == [before] * event.frame + [after] * (6 - event.frame)


def test_cells_finer_than_one_kilometre_make_towns_of_such_cells(ground):
    fine = np.repeat(np.repeat(ground.values, 4, axis=0), 4, axis=1) / 16
    y, x = 1e6 - 250.0 * np.arange(560), 5e5 + 250.0 * np.arange(600)
    fine = xr.DataArray(fine[:-1], {"y": y[:-1], "x": x}, ("y", "x")).rio.write_crs(25833)
    world = planted(fine, 3, events=EVENTS)
    assert world.population.shape == (6, 559, 600)
    for event in world.events.itertuples():
        where = np.argwhere(world.places.values == event.place)
        assert len(where) % 16 == 0 and ((where.min(0) % 4) == 0).all()
        assert event.dy % 4 == event.dx % 4 == 0
        if event.event in ("merge", "split"):
            mean = world.expected.values[:, : 4 * 139].reshape(6, 139, 4, 150, 4).sum((2, 4))
            lived = mean * (world.places.values[: 4 * 139 : 4, ::4] == event.place)
            counts = [towns(people)[1] for people in lived]
            before, after = (event.parts, 1) if event.event == "merge" else (1, event.parts)
            assert counts == [before] * event.frame + [after] * (6 - event.frame)


def test_what_noise_hides_is_not_planted():
    people = np.zeros((40, 40))
    people[4:14, 4:14] = 2000
    people[4:8, 16:20] = 400  # 6,400 people, a cell away from the city
    alone = xr.DataArray(people, dims=("y", "x"))
    joined = alone.copy()
    joined[5, 14:16] = 295  # the least of a town's cell, in every other draw
    assert len(planted(alone, events={"grow": 2}).events) == 2
    with pytest.raises(InputError, match="no town is left"):
        planted(joined, events={"grow": 2})
    with pytest.raises(InputError, match="no town is left"):
        planted(alone, events={"grow": 2}, error=0.6)


def test_places_do_not_touch(world):
    labels, count = ndimage.label(world.places.values >= 0, QUEEN)
    for number in range(1, count + 1):
        assert len(np.unique(world.places.values[labels == number])) == 1


def test_a_year_is_displaced_and_the_others_are_not(ground):
    world = planted(ground, 1, events={"displace": 1})
    (event,) = world.events.itertuples()
    mean = world.expected.values
    inner = np.s_[20:-20, 20:-20]
    moved = np.roll(np.nan_to_num(mean[event.frame]), (-event.dy, -event.dx), (0, 1))
    assert (moved[inner] == mean[event.frame - 1][inner]).all()
    others = [t for t in range(6) if t != event.frame]
    assert (np.nan_to_num(mean[others]) == np.nan_to_num(ground.values)).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"events": {"grew": 1}}, "events name"),
        ({"events": {"grow": 13}}, "no town is left"),
        ({"events": {"appear": 500}}, "no free land"),
        ({"frames": 1}, "frames is 1"),
        ({"error": "normal"}, "error is 'normal'"),
    ],
)
def test_what_cannot_be_planted_is_refused(ground, change, message):
    with pytest.raises(InputError, match=message):
        planted(ground, **change)
    with pytest.raises(InputError, match="has the dimensions"):
        planted(ground.expand_dims("time"))


# --- scores ------------------------------------------------------------------------------------


def table(*rows):
    return pd.DataFrame(rows, columns=["time", "community", "track", "event"])


LABELS = xr.DataArray(
    np.array([[[0, 0, -1, 1]], [[0, 0, -1, 1]], [[0, 0, -1, 1]]]),
    {"time": [2000, 2001, 2002]},
    ("time", "y", "x"),
)
PLACES = xr.DataArray([[0, -1, -1, 1]], dims=("y", "x"))
PLANTED = pd.DataFrame({"frame": [1, 2], "event": ["grow", "vanish"], "place": [0, 1]})
STAY = [(time, community, community, "continue") for time in (2000, 2001) for community in (0, 1)]


def test_the_truth_scores_full_marks():
    told = table(*STAY, (2001, 0, 0, "grow"), (2001, 1, 1, "vanish"), (2002, 0, 0, "continue"))
    scores = planted_scores(told, LABELS, PLANTED, PLACES)
    assert (scores.recall, scores.false_per_100, scores.steps) == (1.0, 0.0, 3)
    assert scores.kinds.loc["vanish"].tolist() == [1, 1, 1.0, 0]


@pytest.mark.parametrize(
    ("row", "recall", "false"),
    [
        ((2001, 0, 0, "grow"), 0.5, 0),
        ((2002, 0, 0, "grow"), 0.0, 1),  # late
        ((2001, 1, 1, "grow"), 0.0, 1),  # elsewhere
        ((2001, 0, 0, "shrink"), 0.0, 1),  # another kind
        ((2000, 0, 0, "appear"), 0.0, 0),  # where the record starts
        ((2000, 1, 1, "vanish"), 0.0, 1),  # a frame early: it is gone in the next
        ((2001, 1, 1, "vanish"), 0.5, 0),
    ],
)
def test_an_event_must_be_of_its_kind_frame_and_place(row, recall, false):
    scores = planted_scores(table(*STAY, row), LABELS, PLANTED, PLACES)
    assert (scores.recall, len(scores.false)) == (recall, false)
    assert scores.false_per_100 == 100 * false / scores.steps


def test_a_tolerance_allows_a_frame_early_or_late():
    late = table(*STAY, (2002, 0, 0, "grow"))
    assert planted_scores(late, LABELS, PLANTED, PLACES, tolerance=1).recall == 0.5


def test_what_is_gone_may_come_back_as_long_as_it_is_remembered():
    nothing = table(*STAY)
    open_at = {m: planted_scores(nothing, LABELS, PLANTED, PLACES, memory=m) for m in (0, 1)}
    assert open_at[0].planted["event"].tolist() == ["grow", "vanish"]
    assert open_at[1].planted["event"].tolist() == ["grow"]


@pytest.mark.parametrize(
    ("event", "missing", "row", "recall", "false"),
    [
        ("grow", {}, (2001, 0, 0, "grow"), 1, 0),
        ("grow", {1: [0, 1]}, (2001, 0, 0, "grow"), 0, 1),  # told where nobody could know
        ("grow", {1: [0, 1]}, (2002, 0, 0, "grow"), 1, 0),
        ("grow", {1: [0]}, (2001, 0, 0, "grow"), 1, 0),  # half of the place has data
        ("grow", {1: [3], 2: [3]}, (2001, 0, 0, "grow"), 1, 0),  # data lack elsewhere
        ("grow", {1: [0, 1], 2: [0, 1]}, STAY[0], None, 0),
        ("vanish", {1: [0, 1]}, (2000, 0, 0, "vanish"), 1, 0),
        ("vanish", {1: [0, 1]}, (2001, 0, 0, "vanish"), 1, 0),  # held over the gap
        ("vanish", {}, (2001, 0, 0, "vanish"), 0, 1),
        ("vanish", {1: [0, 1], 2: [0, 1]}, STAY[0], None, 0),
    ],
)
def test_what_happens_without_data_is_scored_where_data_follow(event, missing, row, recall, false):
    population = LABELS.where(False, 9.0)
    for frame, cells in missing.items():
        population[frame, 0, cells] = np.nan
    events = pd.DataFrame({"frame": [1], "event": [event], "place": [0]})
    places = xr.DataArray([[0, 0, -1, 1]], dims=("y", "x"))
    scores = planted_scores(table(row), LABELS, events, places, population=population)
    assert scores.planted["found"].tolist() == ([] if recall is None else [recall == 1])
    assert len(scores.false) == false


def test_pieces_of_one_split_are_one_event():
    events = pd.DataFrame({"frame": [1], "event": ["split"], "place": [0]})
    told = table(*STAY, (2001, 0, 0, "split"), (2001, 1, 1, "split"))
    places = PLACES.where(PLACES < 0, 0)
    scores = planted_scores(told, LABELS, events, places)
    assert (scores.recall, len(scores.false)) == (1.0, 0)


def test_a_community_sees_what_is_large_beside_it():
    mean = np.repeat([[[2000.0, 2000.0, 0.0, 100.0]]], 3, axis=0)
    mean[1:, 0, 0] = 2600  # of 4000 people: 15 %, and 6.5 standard deviations
    mean[1:, 0, 3] = 125  # 25 %, but 1.7 standard deviations
    expected = LABELS.copy(data=mean)
    events = pd.DataFrame({"frame": [1, 1], "event": "appear", "place": [0, 1]}, index=[7, 8])
    (seen,) = visible_events(LABELS, expected, events, PLACES).to_dict("records")
    assert seen == {"frame": 1, "event": "grow", "place": 0, "planted": 7, "sure": True}
    mean[1:, 0, 1] = 1800  # 400 people more: 4.4 standard deviations
    (seen,) = visible_events(LABELS, expected, events, PLACES).to_dict("records")
    assert not seen["sure"]
    mean[1:, 0, 1] = 1400  # others leave
    assert visible_events(LABELS, expected, events, PLACES).empty


def test_a_time_that_is_no_frame_is_refused():
    with pytest.raises(InputError, match="1999"):
        planted_scores(table((1999, 0, 0, "grow")), LABELS, PLANTED, PLACES)


def test_what_a_community_lost_is_its_own_decline():
    """Its only town dies: what is left of it touches no place of an event, but did."""
    places = xr.DataArray([[0, 0, -1, -1]], dims=("y", "x"))
    labels = xr.DataArray([[[0, 0, 0, 0]], [[-1, -1, 0, 0]]], dims=("time", "y", "x"))
    labels = labels.assign_coords(time=[0, 1])
    tracks = pd.DataFrame({"time": [0, 1], "community": 0, "track": 7})
    tracks["event"], tracks["parent"] = ["appear", "shrink"], [[], [7]]
    events = pd.DataFrame({"frame": [1], "event": ["shrink"], "place": [0]})
    scores = planted_scores(tracks, labels, events, places)
    assert (scores.recall, scores.false_per_100) == (1.0, 0.0)
    strange = tracks.assign(parent=[[], []])
    assert planted_scores(strange, labels, events, places).false_per_100 == 100.0


def test_a_community_that_was_away_has_parents_from_before():
    """It comes back beside the place of an event, in which it stood two frames earlier."""
    places = xr.DataArray([[0, 0, -1, -1]], dims=("y", "x"))
    frames = [[[0, 0, 0, 0]], [[-1, -1, -1, -1]], [[-1, -1, 0, 0]]]
    labels = xr.DataArray(frames, {"time": [0, 1, 2]}, ("time", "y", "x"))
    tracks = pd.DataFrame({"time": [0, 2], "community": 0, "track": 7, "gap": [0, 1]})
    tracks["event"], tracks["parent"] = ["appear", "shrink"], [[], [7]]
    events = pd.DataFrame({"frame": [2], "event": ["shrink"], "place": [0]})
    for frame, found in ((0, 0), (1, 1), (2, 1)):  # it tells of all that happened meanwhile
        scores = planted_scores(tracks, labels, events.assign(frame=frame), places, memory=1)
        assert scores.recall == found and len(scores.false) == 1 - found
    labels[2, 0, 3] = 1  # a piece of it, which is new and was never away
    piece = {"time": 2, "community": 1, "track": 8, "gap": 0, "event": "split", "parent": [7]}
    tracks = pd.concat([tracks[:1], pd.DataFrame([piece])], ignore_index=True)
    scores = planted_scores(tracks, labels, events.assign(event="split"), places, memory=1)
    assert scores.recall == 1 and scores.false.empty


def test_several_events_together_are_what_a_community_sees():
    places = xr.DataArray([[0, 1, -1]], dims=("y", "x"))
    expected = np.array([[[1e4, 1e4, 1e5]], [[1.4e4, 1.4e4, 1e5]]])
    events = pd.DataFrame({"frame": [1, 1], "event": ["grow", "grow"], "place": [0, 1]})
    expected = xr.DataArray(expected, dims=("time", "y", "x"))
    found = visible_events(xr.zeros_like(expected, int), expected, events, places)
    assert found["planted"].tolist() == [0, 1] and not found["sure"].any()
    expected[1, 0, 1] = 1e4
    assert visible_events(xr.zeros_like(expected, int), expected, events, places).empty


def test_what_rounding_leaves_is_no_change():
    """Nobody comes to the left place or leaves it: its people lie otherwise, as in a merger."""
    places = xr.DataArray([[0, 0, 0, 1]], dims=("y", "x"))
    expected = np.array([[[0.1, 0.2, 0.7, 1e4]], [[0.7, 0.1, 0.2, 2e4]]])
    assert (expected[1] - expected[0])[0, :3].sum() > 0
    events = pd.DataFrame({"frame": [1, 1], "event": ["merge", "grow"], "place": [0, 1]})
    expected = xr.DataArray(expected, dims=("time", "y", "x"))
    found = visible_events(xr.zeros_like(expected, int), expected, events, places)
    assert found["planted"].tolist() == [1]
