"""Overlays: every cell beside its maps, in the row of its group, and nothing is left out."""

import numpy as np
import pytest

from popdask.errors import InputError
from popdask.plot.imagery import gradcam_figure
from popdask.plot.style import save_figure


def cells(n, bands=1, dtype="uint8", side=12):
    rng = np.random.default_rng(0)
    return (rng.random((n, bands, side, side)) * 200).astype(dtype)


def heat(n, side=12):
    """A map that is strongest in the upper left corner of each cell."""
    values = np.zeros((n, side, side), np.float32)
    values[:, 0, 0] = 1
    return values


def drawn(figure):
    """The axes that hold an image, by rows of the figure."""
    return [axes for axes in figure.axes if axes.get_images()]


def test_every_cell_stands_beside_its_maps_in_the_row_of_its_group():
    images, maps = cells(5), {"presence": heat(5), "people": heat(5)}
    labels = [f"{i} people" for i in range(5)]
    groups = ["best", "best", "worst", "worst", "worst"]
    figure = gradcam_figure(images, maps, labels, groups)
    panels = drawn(figure)
    assert len(panels) == 15
    assert [len(axes.get_images()) for axes in panels] == [1, 2, 2] * 5
    told = [text.get_text() for axes in figure.axes for text in axes.texts]
    assert told == labels
    titles = [axes.get_title("left") for axes in panels]
    assert titles[:3] == ["best", "presence", "people"]
    assert titles[6] == "worst"


def test_a_map_is_drawn_where_it_is_strong_and_lets_the_image_through_elsewhere():
    figure = gradcam_figure(cells(1), {"people": heat(1)}, ["a"])
    overlay = drawn(figure)[1].get_images()[1]
    alpha = np.asarray(overlay.get_alpha())
    assert alpha[0, 0] > 0.5
    assert not alpha[1:].any()


@pytest.mark.parametrize("bands", [1, 2, 3, 4])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_images_of_any_bands_and_type_are_drawn(bands, dtype, tmp_path):
    images = cells(2, bands, dtype)
    if dtype == "float32":
        images[0, :, 3] = np.nan
    figure = gradcam_figure(images, {"people": heat(2)}, ["a", "b"])
    shown = np.asarray(drawn(figure)[0].get_images()[0].get_array())
    assert shown.shape == (12, 12, 3)
    assert np.isfinite(shown).all()
    assert (shown[..., 0] == shown[..., 1]).all() == (bands < 3)
    assert save_figure(figure, tmp_path / "why.png").stat().st_size > 1000


def test_a_map_of_nothing_says_so():
    maps = {"presence": heat(1), "people": np.zeros((1, 12, 12), np.float32)}
    panels = drawn(gradcam_figure(cells(1), maps, ["a"]))
    assert [[text.get_text() for text in axes.texts] for axes in panels] == [["a"], [], ["nothing"]]


def test_black_cells_are_drawn_black():
    figure = gradcam_figure(np.zeros((1, 1, 6, 6), np.uint8), {}, ["a"])
    assert not np.asarray(drawn(figure)[0].get_images()[0].get_array()).any()


def test_the_cell_is_outlined_within_its_ring():
    figure = gradcam_figure(cells(1), {"people": heat(1)}, ["a"], ring=4)
    for axes in drawn(figure):
        (outline,) = axes.patches
        assert outline.get_bbox().bounds == (3.5, 3.5, 4, 4)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"labels": ["a"]}, "2 images and 1 labels"),
        ({"groups": ["best"]}, "2 images and 1 groups"),
        ({"maps": {"people": heat(3)}}, "2 images and 3 maps of people"),
        ({"images": cells(0), "maps": {}, "labels": []}, "0 images and 0 labels"),
    ],
)
def test_what_does_not_go_together_is_named(change, words):
    given = {"images": cells(2), "maps": {"people": heat(2)}, "labels": ["a", "b"], **change}
    with pytest.raises(InputError, match=words):
        gradcam_figure(**given)
