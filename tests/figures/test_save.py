"""Figures as files: whole, or as they were."""

import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread

from popdask.errors import InputError
from popdask.plot import map_figure, save_figure, world_figure
from popdask.synthetic import moving_cities


@pytest.fixture(scope="module")
def population():
    return moving_cities(seed=4).population.population


def test_a_file_is_a_whole_png_of_the_size_asked(population, tmp_path):
    figure = map_figure(population[0], size=4)
    path = save_figure(figure, tmp_path / "new" / "map.png", dpi=50)
    height, width = imread(path).shape[:2]
    assert (width, height) == (200, int((4 * 240 / 320 + 0.7) * 50))
    assert [file.name for file in path.parent.iterdir()] == ["map.png"]


def test_a_figure_that_fails_leaves_the_old_file(population, tmp_path):
    path = tmp_path / "map.png"
    path.write_bytes(b"old")
    figure = map_figure(population[0], size=2)
    figure.axes[0].set_title("$\\frac{$")
    with pytest.raises(ValueError, match="frac"):
        save_figure(figure, path)
    assert [file.name for file in tmp_path.iterdir()] == ["map.png"]
    assert path.read_bytes() == b"old"


def test_the_same_figure_is_the_same_file(population, tmp_path):
    files = [
        save_figure(world_figure(population, frames=2, size=1.5), tmp_path / f"{i}.png", dpi=60)
        for i in "ab"
    ]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_a_form_that_matplotlib_does_not_write_is_named(tmp_path):
    with pytest.raises(InputError, match=r"map\.txt ends with '\.txt'; expected a form such as"):
        save_figure(Figure(), tmp_path / "map.txt")
    assert not list(tmp_path.iterdir())


def test_a_figure_keeps_its_dots_and_its_canvas(tmp_path):
    figure = Figure(dpi=100)
    canvas = figure.canvas
    save_figure(figure, tmp_path / "map.svg", dpi=50)
    assert (figure.dpi, figure.canvas) == (100, canvas)
