"""Metrics: full marks for the truth, known marks for known mistakes."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from sklearn.metrics import adjusted_rand_score

from popdask.errors import InputError
from popdask.metrics import city_events, event_scores, label_agreement, match_cities, people_error
from popdask.synthetic import moving_cities


@pytest.fixture(scope="module")
def world():
    return moving_cities(seed=2)


def rings(world):
    """Cut every city into a core and a ring, numbered anew in every frame."""
    people = world.population.population
    dense = np.nan_to_num(people.values) > 300
    labels = world.labels.values
    found = np.where(labels < 0, -1, 2 * (labels.max() - labels) + dense)
    return world.labels.copy(data=found.astype(np.int32))


def ring_tracks(world):
    """Tracks whose cores tell the truth, and whose rings tell nonsense."""
    cores = world.truth.assign(
        community=2 * (world.labels.values.max() - world.truth.community) + 1
    )
    nonsense = cores.assign(community=cores.community - 1, event="vanish")
    return pd.concat([cores, nonsense], ignore_index=True)


def test_the_truth_scores_full_marks(world):
    match = match_cities(world.labels, world.labels, world.population.population)
    assert match["core"].all()
    assert (match["community"] == match["city"]).all()
    scores = event_scores(city_events(world.truth, match), world.truth)
    assert (scores[["recall", "precision"]] == 1).all(axis=None)
    assert scores.loc["appear", "true"] == 1, "nine of ten are there from the start"


def test_only_cores_are_judged(world):
    people = world.population.population
    match = match_cities(rings(world), world.labels, people)
    assert match["core"].mean() == 0.5
    assert (match.loc[match["core"], "community"] % 2 == 1).all()
    found = city_events(ring_tracks(world), match)
    scores = event_scores(found, world.truth)
    assert (scores[["recall", "precision"]] == 1).all(axis=None)
    assert found.attrs == {"rings": len(world.truth), "within": 0, "elsewhere": 0}


def test_a_core_that_parts_from_its_ring_does_not_split_the_city():
    """Two cities, each a core (0, 2) and a ring (1, 3); then the second core breaks in two."""
    match = pd.DataFrame(
        {
            "time": [0, 0, 0, 0, 1, 1, 1, 1, 1],
            "community": [0, 1, 2, 3, 0, 1, 2, 3, 4],
            "city": [0, 0, 1, 1, 0, 0, 1, 1, 2],
            "core": [True, False, True, False, True, False, True, False, True],
        }
    )
    tracks = pd.DataFrame(
        [
            (1, 0, 0, [0, 1], "merge"),
            (1, 0, 0, [0, 1], "split"),
            (1, 1, 1, [0], "split"),
            (1, 2, 2, [2], "split"),
            (1, 3, 3, [2, 3], "split"),
            (1, 4, 4, [2, 3], "split"),
            (1, 9, 5, [], "appear"),
        ],
        columns=["time", "community", "track", "parent", "event"],
    )
    first = match[match["time"] == 0].assign(track=lambda table: table["community"], event="appear")
    first["parent"] = [[]] * 4
    found = city_events(pd.concat([first[tracks.columns], tracks]), match)
    later = found[found["time"] == 1]
    assert later[["track", "event"]].to_numpy().tolist() == [[1, "split"], [2, "split"]]
    assert found.attrs == {"rings": 4, "within": 2, "elsewhere": 1}


def test_people_shared_add_up_to_the_city(world):
    match = match_cities(rings(world), world.labels, world.population.population)
    first = match[match["time"] == world.times[0]].groupby("city")["people"].sum()
    alive = {city.track: city.people[0] for city in world.cities if city.start == 0}
    assert first.to_dict() == alive


def test_a_community_over_two_cities_stands_for_the_larger_only():
    shape = ("time", "y", "x")
    labels = xr.DataArray([[[0, 0, 1, 1, -1]]], dims=shape)
    community = xr.DataArray([[[4, 4, 4, 4, 9]]], dims=shape)
    people = xr.DataArray([[[5.0, 1.0, 7.0, np.nan, 3.0]]], {"time": [2000]}, shape)
    match = match_cities(community, labels, people)
    assert match.to_dict("records") == [
        {"time": 2000, "community": 4, "city": 1, "people": 7.0, "core": True}
    ]


def test_known_mistakes_have_known_scores():
    truth = pd.DataFrame(
        {
            "time": [0, 2, 3, 3, 4],
            "track": [0, 0, 0, 1, 1],
            "event": ["appear", "grow", "grow", "split", "vanish"],
        }
    )
    found = pd.DataFrame(
        {
            "time": [2, 4, 4, 4, 1],
            "track": [0, 0, 1, 1, 0],
            "event": ["grow", "grow", "split", "split", "appear"],
        }
    )
    strict = event_scores(found, truth, times=range(5))
    assert strict.loc["grow"].tolist() == [2, 2, 1, 0.5, 0.5]
    assert strict.loc["split"].tolist() == [1, 1, 0, 0, 0], "one event told twice is one event"
    assert strict.loc["appear", ["true", "found", "matched"]].tolist() == [0, 1, 0]
    assert np.isnan(strict.loc["appear", "recall"])
    assert strict.loc["vanish", "recall"] == 0
    assert np.isnan(strict.loc["vanish", "precision"])
    lenient = event_scores(found, truth, times=range(5), tolerance=1)
    assert lenient.loc["grow", "recall"] == lenient.loc["split", "recall"] == 1


def test_the_right_event_at_the_wrong_city_is_wrong():
    truth = pd.DataFrame({"time": [2], "track": [0], "event": ["split"]})
    scores = event_scores(truth.assign(track=1), truth, times=range(4))
    assert scores.loc["split"].tolist() == [1, 1, 0, 0, 0]


def test_an_event_answers_once():
    truth = pd.DataFrame({"time": [2, 3], "track": 0, "event": "grow"})
    scores = event_scores(truth[:1], truth, times=range(5), tolerance=1)
    assert scores.loc["grow"].tolist() == [2, 1, 1, 0.5, 1]


def test_label_agreement_is_the_adjusted_rand_index_inside():
    rng = np.random.default_rng(0)
    found, true = (
        xr.DataArray(rng.integers(-1, 3, (2, 20, 20)), dims=("time", "y", "x")) for _ in "ab"
    )
    expected = []
    for a, b in zip(found.values, true.values, strict=True):
        inside = (a >= 0) | (b >= 0)
        expected.append(adjusted_rand_score(b[inside], a[inside]))
    assert label_agreement(found, true) == pytest.approx(np.mean(expected), rel=1e-12)
    assert label_agreement(true, true.where(true < 0, 10 - true)) == 1
    assert np.isnan(label_agreement(-xr.ones_like(true), -xr.ones_like(true)))


def test_rings_agree_less_than_cities(world):
    assert label_agreement(world.labels, world.labels) == 1
    assert 0 < label_agreement(rings(world), world.labels) < 1


def test_people_error_leaves_unknown_cells_out():
    truth = np.array([[100.0, np.nan, 50.0]], np.float32)
    assert people_error([[90.0, 7.0, 30.0]], truth) == pytest.approx(-0.2)
    assert people_error([[90.0, 7.0, np.nan]], truth) == pytest.approx(-0.1)
    assert np.isnan(people_error([[1.0, 1.0, 1.0]], np.zeros((1, 3))))


def test_mistakes_are_named(world):
    with pytest.raises(InputError, match="shapes must be the same"):
        label_agreement(world.labels[0], world.labels)
    with pytest.raises(InputError, match="heart is 0"):
        match_cities(world.labels, world.labels, world.population.population, heart=0)
    with pytest.raises(InputError, match="tolerance is -1"):
        event_scores(world.truth, world.truth, tolerance=-1)
    with pytest.raises(InputError, match="not among the times"):
        event_scores(world.truth, world.truth, times=world.times[:3])
