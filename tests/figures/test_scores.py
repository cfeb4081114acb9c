"""Charts of scores: what they show is what the tables say."""

import numpy as np
import pandas as pd
import pytest

from popdask.errors import InputError
from popdask.imagery.evaluation import evaluate, scores_by_density
from popdask.plot import save_figure
from popdask.plot.charts import (
    SCORES,
    confusion_figure,
    density_figure,
    history_figure,
    scores_figure,
)


@pytest.fixture(scope="module")
def tables():
    rng = np.random.default_rng(0)
    truth = np.where(rng.random(300) < 0.7, 0, rng.poisson(20, 300))
    ours = pd.DataFrame({"cell": range(300), "prediction": truth * 1.1, "truth": truth})
    return {"ours": ours, "mean": ours.assign(prediction=truth.mean(), presence=0.0)}


def texts(ax):
    return [text.get_text() for text in ax.texts]


def test_losses_are_drawn_and_the_best_epoch_is_marked():
    rows = [{"epoch": i, "training": 1 / i, "validation": 0.1 + (i - 3) ** 2} for i in range(1, 6)]
    (ax,) = history_figure(rows, title="presence").axes
    training, validation, best = ax.lines
    np.testing.assert_allclose(training.get_ydata(), [1, 1 / 2, 1 / 3, 1 / 4, 1 / 5])
    assert validation.get_xdata().tolist() == [1, 2, 3, 4, 5]
    assert set(best.get_xdata()) == {3} and texts(ax) == ["0.1 in epoch 3"]
    assert ax.get_yscale() == "log" and ax.get_title("left") == "presence"


def test_odd_histories_are_drawn(tmp_path):
    assert texts(history_figure([]).axes[0]) == ["not trained"]
    one = pd.DataFrame({"training": [0.0], "validation": [0.0]})
    save_figure(history_figure(one), tmp_path / "one.png")
    other = history_figure([{"loss": 0.3}, {"loss": 0.2}], losses=["loss"])
    assert texts(other.axes[0]) == ["0.2 in epoch 2"]
    with pytest.raises(InputError, match="no column validation but training"):
        history_figure([{"training": 0.3}])


def test_matrices_hold_the_counts_and_their_shares(tables):
    scores = evaluate(tables)
    ours, mean = confusion_figure(scores).axes
    empty, inhabited = (int((tables["ours"].truth > 0).eq(side).sum()) for side in (False, True))
    assert texts(ours) == [f"{empty}\n100.0%", "0\n0.0%", "0\n0.0%", f"{inhabited}\n100.0%"]
    assert texts(mean) == [f"{empty}\n100.0%", "0\n0.0%", f"{inhabited}\n100.0%", "0\n0.0%"]
    assert [ax.get_title("left") for ax in (ours, mean)] == ["ours", "mean"]


def test_every_score_of_every_model_has_its_bar(tables):
    scores = evaluate(tables)
    axes = scores_figure(scores).axes
    for ax, name in zip(axes, SCORES, strict=True):
        np.testing.assert_array_equal([bar.get_width() for bar in ax.patches], scores[name])
    assert texts(axes[0])[0] == "1" and texts(axes[-1])[0] == "+10.0%"
    assert [label.get_text() for label in axes[0].get_yticklabels()] == ["ours", "mean"]


def test_scores_that_are_not_defined_say_so(tables):
    scores = evaluate(tables)
    ax = scores_figure(scores, columns={"precision": "precision"}).axes[0]
    assert texts(ax) == ["1", "not defined"]


def test_errors_by_density_are_those_of_the_table(tables, tmp_path):
    table = scores_by_density(tables)
    figure = density_figure(table)
    above, middle, below = figure.axes
    for number, model in enumerate(tables):
        rows = table[table["model"] == model]
        np.testing.assert_array_equal(above.lines[number].get_ydata(), rows["mae"])
        np.testing.assert_array_equal(middle.lines[number].get_ydata(), rows["bias"])
    ours = table[table["model"] == "ours"]
    assert [bar.get_height() for bar in below.patches] == ours["cells"].tolist()
    labels = [label.get_text() for label in below.get_xticklabels()]
    assert labels[0] == "0–1" and len(labels) == len(ours)
    perfect = scores_by_density(tables["ours"].assign(prediction=tables["ours"].truth), edges=[0])
    figure = density_figure(perfect)
    assert figure.axes[2].get_xticklabels()[0].get_text() == "from 0"
    save_figure(figure, tmp_path / "perfect.png")
