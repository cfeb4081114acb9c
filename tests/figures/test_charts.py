"""Charts: what they draw is what they were given, and nothing is no reason to fail."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb

from popdask.plot import (
    CLASSES,
    cosine_figure,
    error_figure,
    loss_figure,
    save_figure,
    silhouette_figure,
    sse_figure,
)
from popdask.tracking.diagnostics import cosine_by_speed, error_by_population


def texts(figure):
    return [text.get_text() for axes in figure.axes for text in axes.texts]


def test_the_loss_is_drawn_epoch_by_epoch():
    figure = loss_figure({"shared": [0.1, 0.02, 0.01]})
    raw, smooth = figure.axes[0].lines
    assert raw.get_xydata().tolist() == [[1, 0.1], [2, 0.02], [3, 0.01]]
    assert smooth.get_ydata().tolist() == [0.02] * 3
    assert figure.axes[0].get_yscale() == "log"
    assert figure.axes[0].get_legend() is None


def test_many_encoders_are_told_by_the_first_and_the_last():
    figure = loss_figure({str(year): [0.1, 0.2] for year in range(2002, 2020)})
    assert len(figure.axes[0].lines) == 36
    names = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert names == ["2002", "2019"]


def test_a_loss_of_nothing_is_drawn(tmp_path):
    figure = loss_figure({"shared": [0.0, 0.0]})
    assert figure.axes[0].get_yscale() == "linear"
    assert save_figure(figure, tmp_path / "loss.png").stat().st_size > 0


def test_the_curve_and_the_choice_are_drawn():
    curve = pd.Series([9.0, 4.0, 2.0], index=[2, 3, 4])
    figure = sse_figure(curve, 3, cells=1234)
    line, choice = figure.axes[0].lines
    assert line.get_xydata().tolist() == [[2, 9], [3, 4], [4, 2]]
    assert set(choice.get_xdata()) == {3}
    assert texts(figure) == ["k = 3, used"]
    assert "1,234 cells" in figure.axes[0].get_title("left")


def test_silhouettes_are_sorted_within_their_class():
    values, classes = [0.1, 0.9, 0.5, -0.4], [0, 0, 0, 7]
    figure = silhouette_figure(values, classes)
    ax = figure.axes[0]
    first, second = ax.collections
    assert first.get_facecolor()[0, :3].tolist() == list(to_rgb(CLASSES[0]))
    corners = first.get_paths()[0].vertices
    reached = [x for x, _ in sorted(corners.tolist(), key=lambda xy: (xy[1], -xy[0])) if x > 0]
    assert reached == sorted(reached, reverse=True) and set(reached) == {0.9, 0.5, 0.1}
    assert second.get_paths()[0].vertices[:, 0].min() == -0.4
    assert texts(figure) == ["+0.50,  75.0% of cells", "-0.40,  25.0% of cells"]
    assert ax.lines[0].get_xdata()[0] == pytest.approx(np.mean(values))


def test_the_mean_silhouette_counts_how_common_a_class_is():
    figure = silhouette_figure([1.0, 0.0], [0, 1], cells={0: 3, 1: 1})
    assert figure.axes[0].lines[0].get_xdata()[0] == 0.75


def test_one_class_has_no_silhouettes():
    assert texts(silhouette_figure([np.nan, np.nan], [0, 0])) == ["silhouettes need two classes"]


def test_errors_and_their_ratio_are_those_of_the_table():
    rng = np.random.default_rng(0)
    people = rng.poisson(40, 500)
    table = error_by_population(people, people + rng.normal(size=500))
    figure = error_figure(table)
    above, middle, below = figure.axes
    constant, encoder = above.lines
    np.testing.assert_array_equal(constant.get_ydata(), table["median_error"])
    np.testing.assert_array_equal(encoder.get_ydata(), table["error"])
    np.testing.assert_array_equal(middle.lines[0].get_ydata(), table["ratio"])
    assert [bar.get_height() for bar in below.patches] == table["cells"].tolist()


def test_cosines_are_those_of_the_table():
    rng = np.random.default_rng(0)
    table = cosine_by_speed(rng.normal(size=(500, 2)), rng.normal(size=(500, 2)))
    above, below = cosine_figure(table).axes
    np.testing.assert_array_equal(above.lines[0].get_ydata(), table["cosine"])
    assert [bar.get_height() for bar in below.patches] == table["cells"].tolist()


@pytest.mark.parametrize("people, guess", [([0, 0], [0, 0]), ([5, 5], [5, 5]), ([7], [1])])
def test_errors_of_a_constant_are_drawn(people, guess, tmp_path):
    path = save_figure(error_figure(error_by_population(people, guess)), tmp_path / "error.png")
    assert path.stat().st_size > 1000


def test_where_nothing_moves_the_chart_says_so(tmp_path):
    figure = cosine_figure(cosine_by_speed(np.zeros((3, 2)), np.zeros((3, 2))))
    assert "nothing moves" in texts(figure)
    save_figure(figure, tmp_path / "direction.png")
