"""Estimates against the truth: no cell is lost on the way into the picture."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import SymLogNorm

from popdask.errors import InputError
from popdask.plot import save_figure
from popdask.plot.imagery import (
    agreement_figure,
    error_map_figure,
    relative_error_figure,
    spread_figure,
)
from popdask.synthetic import moving_cities


def invent(cells=500):
    rng = np.random.default_rng(0)
    truth = np.where(rng.random(cells) < 0.7, 0, rng.poisson(20, cells))
    return pd.DataFrame({"prediction": truth + rng.normal(0, 3, cells), "truth": truth})


@pytest.fixture(scope="module")
def population():
    return moving_cities(seed=4).population.population[0]


def test_every_cell_lies_in_a_hexagon_of_both_panels():
    linear, logarithmic, bar = agreement_figure(invent(), title="ours").axes
    for ax in (linear, logarithmic):
        assert ax.collections[0].get_array().sum() == 500
    assert linear.get_title("left").startswith("ours: 500 cells, R² 0.")
    assert bar.get_ylabel() == "cells"


def test_logarithmic_axes_are_labelled_with_people():
    table = pd.DataFrame({"prediction": [0.0, 9.0, -4.0], "truth": [0.0, 99.0, 0.0]})
    ax = agreement_figure(table).axes[1]
    places = dict(zip([t.get_text() for t in ax.get_xticklabels()], ax.get_xticks(), strict=True))
    assert places["0"] == 0 and places["10"] == pytest.approx(np.log10(11))
    offsets = ax.collections[0].get_offsets()
    assert offsets[:, 0].max() == pytest.approx(2, abs=0.05), "1 + 99 people"
    assert ax.collections[0].get_array().max() == 2, "a negative prediction lies on 0"


@pytest.mark.parametrize("rows", [0, 1, 2])
@pytest.mark.parametrize("draw", [agreement_figure, spread_figure])
def test_few_cells_are_drawn(draw, rows, tmp_path):
    path = save_figure(draw(invent()[:rows]), tmp_path / "few.png")
    assert path.stat().st_size > 1000


def test_unknown_cells_are_left_out():
    table = pd.concat([invent(), pd.DataFrame({"prediction": [np.nan], "truth": [5.0]})])
    assert "500 cells" in agreement_figure(table).axes[0].get_title("left")


@pytest.mark.parametrize("lazy", [True, False])
def test_errors_are_the_difference_and_centred_at_zero(population, lazy):
    estimate = population + 2
    estimate = estimate.chunk(20) if lazy else estimate
    figure = error_map_figure(estimate, population, max_cells=1000)
    (image,) = figure.axes[0].images
    shown = np.asarray(image.get_array().filled(np.nan))
    np.testing.assert_allclose(shown, (estimate - population).values, rtol=1e-6)
    assert isinstance(image.norm, SymLogNorm) and image.norm.vmin == -image.norm.vmax
    assert image.norm(0.0) == 0.5
    people = 2 * np.isfinite(population.values).sum() / np.nansum(population)
    assert f"{people:+.1%} of the people" in figure.axes[0].get_title("left")


def test_errors_of_a_perfect_estimate_are_drawn(population, tmp_path):
    figure = error_map_figure(population, population)
    assert "+0.0%" in figure.axes[0].get_title("left")
    save_figure(figure, tmp_path / "error.png")


def test_a_relative_error_is_that_of_the_people_there_and_no_more_than_two(population):
    estimate = population.where(population == 0, population * 1.5)
    estimate[:20] = population[:20] + 1000
    figure = relative_error_figure(estimate, population, smoothing=0)
    (image,) = figure.axes[0].images
    shown = np.asarray(image.get_array().filled(np.nan))
    true = np.minimum(abs(estimate - population) / population.clip(min=1), 2).values
    np.testing.assert_allclose(shown, true, rtol=1e-6)
    assert np.nanmax(shown) == 2


def test_smoothing_takes_nothing_from_what_is_not_known(population):
    photo = np.full((3 * population.shape[0], 3 * population.shape[1], 3), 0.5)
    figure = relative_error_figure(
        population.clip(min=1) * 1.25, population.clip(min=1), image=photo
    )
    below, image = figure.axes[0].images
    shown = np.asarray(image.get_array().filled(np.nan))
    np.testing.assert_array_equal(np.isnan(shown), np.isnan(population))
    np.testing.assert_allclose(shown[np.isfinite(shown)], 0.25, rtol=1e-5)
    assert below.get_extent() == pytest.approx(image.get_extent()) and image.get_alpha() < 1


def test_every_cell_is_in_both_histograms():
    table = invent()
    people, errors = spread_figure(table, title="ours").axes
    assert [line.get_ydata().sum() for line in people.lines] == [500, 500]
    assert sum(bar.get_height() for bar in errors.patches) == 500
    assert f"mean {(table['prediction'] - table['truth']).mean():+.2f}" in errors.get_title("left")


def test_mistakes_are_named(population):
    with pytest.raises(InputError, match="one grid was expected"):
        error_map_figure(population[1:], population)
    with pytest.raises(InputError, match="no column prediction and no truth"):
        agreement_figure(pd.DataFrame({"cell": [1]}))
