"""Intervals are those of a plain bootstrap over blocks, and cover a truth that is known."""

from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import f1_score

from popdask.errors import InputError
from popdask.metrics import block_intervals, count_scores, presence_scores


def invent(blocks=8, each=30, seed=0):
    rng = np.random.default_rng(seed)
    truth = rng.poisson(4, blocks * each) * (rng.random(blocks * each) < 0.5)
    block = np.repeat(np.arange(blocks), each)
    estimate = np.clip(truth + rng.normal(0, 1, blocks)[block] + rng.normal(0, 1, len(truth)), 0, 9)
    presence = np.clip((truth > 0) + rng.normal(0, 0.4, len(truth)), 0, 1)
    return estimate, truth.astype(float), block, presence


def test_draws_are_scored_as_the_metrics_score_them():
    estimate, truth, block, presence = invent()
    found = block_intervals(estimate, truth, block, presence=presence, repeats=200, seed=3)
    drawn = np.random.default_rng(3).multinomial(8, np.full(8, 1 / 8), 200)
    draws = []
    for counts in drawn:
        cells = np.concatenate(
            [np.tile(np.flatnonzero(block == b), c) for b, c in enumerate(counts)]
        )
        scores = asdict(count_scores(estimate[cells], truth[cells]))
        draws.append(scores | asdict(presence_scores(presence[cells], truth[cells])))
    for name, (low, high) in found.items():
        values = [draw[name] for draw in draws]
        assert (low, high) == pytest.approx(tuple(np.quantile(values, (0.05, 0.95))), abs=1e-9)


@settings(max_examples=15)
@given(seed=st.integers(0, 99), order=st.randoms(use_true_random=False))
def test_the_order_of_the_cells_and_names_of_blocks_do_not_matter(seed, order):
    estimate, truth, block, presence = invent(seed=seed)
    shuffled = list(range(len(truth)))
    order.shuffle(shuffled)
    here = block_intervals(estimate, truth, block, presence=presence)
    names = np.array([f"square {b}" for b in block])
    there = block_intervals(
        estimate[shuffled], truth[shuffled], names[shuffled], presence=presence[shuffled]
    )
    assert here == there


def test_the_interval_of_a_total_covers_its_error_about_as_often_as_it_says():
    covered, rng = 0, np.random.default_rng(0)
    for trial in range(150):
        truth = np.full(400, 10.0)
        block = np.repeat(np.arange(20), 20)
        estimate = truth + rng.normal(0, 2, 20)[block]
        low, high = block_intervals(estimate, truth, block, repeats=200, seed=trial)[
            "relative_error"
        ]
        covered += low <= 0 <= high
    assert 0.8 <= covered / 150 <= 0.97


def test_without_presence_a_cell_is_inhabited_where_people_are_estimated():
    estimate, truth, block, _ = invent()
    one = block_intervals(estimate, truth, block)
    assert one == block_intervals(estimate, truth, block, presence=(estimate > 0) * 1.0)


def test_of_one_block_nothing_is_said_and_nonsense_is_refused():
    estimate, truth, block, _ = invent(blocks=1)
    assert all(np.isnan(ends).all() for ends in block_intervals(estimate, truth, block).values())
    with pytest.raises(InputError, match="expected one shape"):
        block_intervals(estimate, truth[1:], block)
    with pytest.raises(InputError, match=r"level is 1.2 and repeats 1000; expected a share"):
        block_intervals(estimate, truth, block, level=1.2)


def test_shares_and_quantiles_of_the_error_are_numpy_s():
    estimate, truth, _, presence = invent()
    off = np.abs(estimate - truth)
    scores = count_scores(estimate, truth)
    assert scores.rmse == pytest.approx(np.sqrt(np.mean(off**2)))
    assert scores.median_error == np.median(off)
    assert scores.p90_error == np.quantile(off, 0.9)
    assert (scores.within_1, scores.within_2) == ((off <= 1).mean(), (off <= 2).mean())
    assert presence_scores(presence, truth).f1 == pytest.approx(f1_score(truth > 0, presence > 0.5))
