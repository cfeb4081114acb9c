"""The analysis: equal to the formulas, the same in any order, right where the answer is known."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from popdask.errors import InputError
from popdask.synthetic import moving_cities
from popdask.tracking.describe import summarize
from popdask.tracking.diagnostics import (
    community_means,
    cosine_by_speed,
    error_by_population,
    silhouettes,
)


def plain_silhouettes(points, classes):
    """Rousseeuw's definition, cell by cell."""
    distance = np.sqrt(((points[:, None] - points[None]) ** 2).sum(axis=-1))
    values = []
    for i, own in enumerate(classes):
        mates = (classes == own) & (np.arange(len(classes)) != i)
        if not mates.any():
            values.append(0.0)
            continue
        a = distance[i, mates].mean()
        b = min(distance[i, classes == c].mean() for c in np.unique(classes) if c != own)
        values.append((b - a) / max(a, b))
    return np.array(values)


@settings(max_examples=25)
@given(st.integers(2, 40), st.integers(2, 5), st.integers(0, 2**32 - 1))
def test_silhouettes_are_those_of_the_definition(n, k, seed):
    rng = np.random.default_rng(seed)
    points, classes = rng.normal(size=(n, 3)), rng.integers(0, k, n)
    found = silhouettes(points, classes)
    if len(np.unique(classes)) < 2:
        assert np.isnan(found).all()
    else:
        np.testing.assert_allclose(found, plain_silhouettes(points, classes), atol=1e-9)


def test_silhouettes_of_odd_classes():
    assert np.isnan(silhouettes([[1.0], [2.0]], [3, 3])).all()
    assert silhouettes([[1.0], [2.0]], [0, 1]).tolist() == [0, 0]
    far = silhouettes([[0.0], [0.1], [100.0], [100.1]], [0, 0, 1, 1])
    assert (far > 0.99).all()
    assert (silhouettes([[0.0], [0.1], [100.0], [100.1]], [0, 1, 0, 1])[[0, 3]] < 0).all()


@settings(max_examples=25)
@given(st.integers(1, 300), st.integers(1, 50), st.integers(0, 2**32 - 1))
def test_errors_are_those_of_each_level(n, bins, seed):
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 60, n).astype(float)
    guess = truth + rng.normal(size=n)
    table = error_by_population(truth, guess, bins=bins)
    assert table["cells"].sum() == n
    top = max(truth.max(), 1) if truth.max() == 0 else truth.max()
    for row in table.itertuples():
        inside = (truth >= row.low) & ((truth < row.high) | (truth == top))
        inside &= (truth < top) | (row.high >= top)
        assert inside.sum() == row.cells
        error = np.mean((truth - guess)[inside] ** 2)
        constant = np.mean((truth - np.median(truth))[inside] ** 2)
        np.testing.assert_allclose([row.error, row.median_error], [error, constant], rtol=1e-9)
        if constant > 0:
            assert row.ratio == pytest.approx(error / constant)
        else:
            assert np.isnan(row.ratio)


def test_a_perfect_encoder_has_no_error_and_the_median_has_ratio_one():
    people = np.random.default_rng(0).poisson(30, 1000)
    assert (error_by_population(people, people)["error"] == 0).all()
    same = error_by_population(people, np.full(1000, np.median(people)))
    known = same["ratio"].dropna()
    assert len(known) > 10 and (known == 1).all()


def test_levels_reach_from_nobody_to_the_most():
    table = error_by_population([0, 1, 399, 400], [0, 0, 0, 0])
    assert table[["low", "high", "cells"]].values.tolist() == [[0, 2, 2], [398, 400, 2]]
    deserted = error_by_population([0, 0], [1, 3])
    assert deserted["error"].tolist() == [5] and deserted["ratio"].isna().all()


@settings(max_examples=20)
@given(st.permutations(range(60)))
def test_the_order_of_the_cells_does_not_matter(order):
    rng = np.random.default_rng(1)
    people, guess = rng.poisson(20, 60), rng.normal(20, 5, 60)
    flow, memory = rng.normal(size=(60, 2)), rng.normal(size=(60, 2))
    pd.testing.assert_frame_equal(
        error_by_population(people, guess, bins=9),
        error_by_population(people[order], guess[order], bins=9),
    )
    pd.testing.assert_frame_equal(
        cosine_by_speed(flow, memory, bins=9), cosine_by_speed(flow[order], memory[order], bins=9)
    )


@pytest.mark.parametrize("turn, cosine", [(0, 1), (60, 0.5), (90, 0), (180, -1)])
def test_a_turned_flow_has_the_cosine_of_the_turn(turn, cosine):
    angle, turn = np.linspace(0, 7, 500), np.radians(turn)
    speed = np.geomspace(1e-3, 1, 500)
    flow = speed[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    memory = 3 * np.stack([np.cos(angle + turn), np.sin(angle + turn)], axis=1)
    table = cosine_by_speed(flow, memory, bins=12)
    np.testing.assert_allclose(table[["cosine", "lower", "upper"]], cosine, atol=1e-12)
    assert table["cells"].sum() == 500
    assert table["high"].iloc[-1] == speed[-1] == np.hypot(*flow.T).max()


def test_only_what_moves_has_a_direction():
    flow = [[0, 0], [1e-9, 0], [1, 0], [0, -2]]
    table = cosine_by_speed(flow, [[1, 1], [1, 1], [0, 0], [0, -1]], bins=100)
    assert table["cells"].tolist() == [1, 1], "neither rest nor rounding"
    assert table["cosine"].tolist() == [0, 1], "a memory that stands still counts as 0"
    still = cosine_by_speed(np.zeros((5, 2)), np.ones((5, 2)))
    assert still.empty and list(still) == list(table)


def test_means_of_communities_are_those_of_their_cells():
    world = moving_cities(seed=2)
    people = world.population.population
    means = community_means(summarize(world.labels, people))
    for row in means[means["time"] == world.times[3]].itertuples():
        cells = world.labels.values[3] == row.community
        assert row.mean_population == pytest.approx(people.values[3][cells].mean(dtype=float))
        y, x = np.nonzero(cells)
        assert row.x == pytest.approx(people.x.values[x].mean())
        assert row.y == pytest.approx(people.y.values[y].mean())


def test_no_communities_have_no_means():
    world = moving_cities(seed=2)
    table = summarize(world.labels, world.population.population).iloc[:0]
    assert community_means(table).empty


def test_mistakes_are_named():
    with pytest.raises(InputError, match="3 cells are compared with 2"):
        error_by_population([1, 2, 3], [1, 2])
    with pytest.raises(InputError, match="2 cells are compared with 1"):
        silhouettes([[1.0], [2.0]], [1])
    for verb in (error_by_population, cosine_by_speed):
        with pytest.raises(InputError, match="bins is 0"):
            verb([[1.0, 1.0]], [[1.0, 1.0]], bins=0)
