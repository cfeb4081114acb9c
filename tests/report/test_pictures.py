"""Figures within the page: they take its colours, however many marks they have."""

import numpy as np
import pytest
from matplotlib.figure import Figure

from popdask.plot.style import INK
from popdask.report import Picture
from popdask.report.page import LARGE, markup


def drawn(marks):
    """Marks on a map of as many cells, with a title."""
    figure = Figure((6, 6))
    axes = figure.subplots()
    x, y, shade = np.random.default_rng(0).random((3, marks))
    side = int(marks**0.5)
    axes.imshow(shade[: side**2].reshape(side, side), extent=(0, 1, 0, 1), cmap="gray")
    axes.scatter(x, y, c=shade, s=3)
    axes.set_title("people", color=INK)
    return Picture("a", "b", figure)


@pytest.mark.parametrize("marks", [40, 20_000])
def test_words_are_text_in_the_ink_of_the_page(marks):
    text = markup(drawn(marks), 3)
    assert text.startswith("<svg") and text == markup(drawn(marks), 3)
    title = text[text.rindex("<text", 0, text.index(">people</text>")) :].split(">")[0]
    assert "currentColor" in title
    assert 'id="f3-figure_1"' in text and "#ffffff" not in text


def test_many_marks_become_pixels():
    few, many = (markup(drawn(marks), 0) for marks in (40, 20_000))
    assert few.count("<use") > 40 > many.count("<use")
    assert many.count("<image") == 2 and len(many) < 4 * LARGE
