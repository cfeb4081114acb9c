"""Estimates against the truth: no cell is lost on the way into the picture."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import SymLogNorm

from popdask.errors import InputError
from popdask.plot import save_figure
from popdask.plot.imagery import agreement_figure, error_map_figure
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
def test_few_cells_are_drawn(rows, tmp_path):
    path = save_figure(agreement_figure(invent()[:rows]), tmp_path / "few.png")
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


def test_mistakes_are_named(population):
    with pytest.raises(InputError, match="one grid was expected"):
        error_map_figure(population[1:], population)
    with pytest.raises(InputError, match="no column prediction and no truth"):
        agreement_figure(pd.DataFrame({"cell": [1]}))
