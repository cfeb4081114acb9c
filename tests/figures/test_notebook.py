"""Figures in a notebook."""

import io

import pytest
from PIL import Image

from popdask import plot
from popdask.synthetic import moving_cities


def _chart():
    return plot.loss_figure({"shared": [0.5, 0.2, 0.1]})


def _map():
    return plot.map_figure(moving_cities(frames=6).population["population"][0])


@pytest.mark.parametrize("draw", [_chart, _map], ids=["chart", "map"])
def test_a_notebook_shows_a_figure_without_pyplot(draw):
    with Image.open(io.BytesIO(draw()._repr_png_())) as picture:
        assert picture.format == "PNG" and min(picture.size) > 200
