"""Scores of presence and counts: those of scikit-learn, and honest where it has none."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics

from popdask.errors import InputError
from popdask.metrics import count_scores, people_error, presence_scores

people = st.lists(st.integers(0, 40), min_size=2, max_size=30)


@settings(max_examples=25)
@given(truth=people, seed=st.integers(0, 99))
def test_counts_are_scored_as_by_scikit_learn(truth, seed):
    truth = np.array([*truth, 41.0])  # never all the same
    truth[0] = 0
    estimate = truth + np.random.default_rng(seed).normal(0, 9, len(truth))
    scores = count_scores(estimate, truth)
    assert scores.cells == len(truth)
    assert scores.mse == pytest.approx(metrics.mean_squared_error(truth, estimate), rel=1e-12)
    assert scores.mae == pytest.approx(metrics.mean_absolute_error(truth, estimate), rel=1e-12)
    assert scores.r2 == pytest.approx(metrics.r2_score(truth, estimate), rel=1e-12, abs=1e-12)
    assert scores.people == pytest.approx(estimate.sum(), rel=1e-12)
    assert scores.relative_error == people_error(estimate, truth)


@settings(max_examples=25)
@given(truth=people, seed=st.integers(0, 99), threshold=st.sampled_from([0.0, 0.5, 0.9]))
def test_presence_is_scored_as_by_scikit_learn(truth, seed, threshold):
    presence = np.random.default_rng(seed).random(len(truth)).round(1)
    scores = presence_scores(presence, truth, threshold=threshold)
    inhabited, called = np.array(truth) > 0, presence > threshold
    sure = {"zero_division": np.nan}
    expected = {
        "accuracy": metrics.accuracy_score(inhabited, called),
        "matthews": metrics.matthews_corrcoef(inhabited, called),
        "precision": metrics.precision_score(inhabited, called, **sure),
        "recall": metrics.recall_score(inhabited, called, **sure),
    }
    found = dataclasses.asdict(scores)
    assert {name: found[name] for name in expected} == pytest.approx(expected, nan_ok=True)
    both = metrics.confusion_matrix(inhabited, called, labels=[False, True])
    np.testing.assert_array_equal(scores.confusion, both)


def test_published_sums_of_many_cells_do_not_overflow():
    truth = np.repeat([0, 1], 200_000)
    scores = presence_scores(truth, truth)
    assert scores.matthews == scores.accuracy == 1


def test_half_is_not_inhabited():
    assert presence_scores([0.5, 0.5001], [3, 3]).confusion.tolist() == [[0, 0], [1, 1]]


def test_unknown_cells_are_left_out():
    estimate, truth = [1.0, np.nan, 4.0, 7.0], [1.0, 2.0, np.nan, 9.0]
    assert count_scores(estimate, truth) == count_scores([1.0, 7.0], [1.0, 9.0])
    assert presence_scores(estimate, truth) == presence_scores([1.0, 7.0], [1.0, 9.0])


def test_what_cannot_be_said_is_nan():
    constant = count_scores([1.0, 2.0], [3.0, 3.0])
    assert np.isnan(constant.r2) and constant.mae == 1.5
    assert np.isnan(count_scores([1.0, 2.0], [0.0, 0.0]).relative_error)
    nothing = count_scores([np.nan], [1.0])
    assert nothing.cells == 0 and np.isnan([nothing.mse, nothing.mae, nothing.r2]).all()
    silent = presence_scores([0.1, 0.2], [0, 5])
    assert np.isnan(silent.precision) and silent.recall == 0 and silent.matthews == 0
    assert np.isnan(presence_scores([], []).accuracy)


def test_any_shape_and_float32_will_do():
    truth = np.arange(12, dtype=np.float32).reshape(3, 4)
    assert count_scores(truth, truth).r2 == 1
    assert presence_scores(truth, truth).recall == 1


def test_mistakes_are_named():
    with pytest.raises(InputError, match=r"estimate has \(2,\), truth has \(3,\)"):
        count_scores([1, 2], [1, 2, 3])
    with pytest.raises(InputError, match="presence has 1 infinite values"):
        presence_scores([np.inf, 0], [1, 2])
