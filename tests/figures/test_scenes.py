"""Scene groups in pictures: the right colours, places and examples."""

from itertools import combinations

import numpy as np
import pytest
import xarray as xr
from matplotlib.collections import PathCollection
from matplotlib.colors import to_rgb
from matplotlib.offsetbox import AnnotationBbox
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords

from popdask.errors import InputError
from popdask.plot.imagery import GROUPS, NOISE, scene_map_figure, scene_plot_figure
from popdask.plot.style import NO_DATA, save_figure

# What eyes without one kind of cone see of linear RGB: Machado, Oliveira and Fernandes (2009).
EYES = {
    "common": np.eye(3),
    "protanopia": [[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]],
    "deuteranopia": [[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]],
    "tritanopia": [[1.256, -0.077, -0.179], [-0.078, 0.931, 0.148], [0.005, 0.691, 0.304]],
}


@pytest.fixture
def groups():
    """Five groups on 6 × 8 cells of 1 km, a cell of noise in HDBSCAN, and one without data."""
    rng = np.random.default_rng(0)
    kmeans = (np.arange(48) % 5).reshape(6, 8).astype("int16")
    dense = kmeans.copy()
    dense[2, 3] = kmeans[0, 0] = dense[0, 0] = -1
    places = rng.normal(0, 0.2, (2, 6, 8)).astype("float32") + kmeans
    places[:, 0, 0] = np.nan
    box = GeoBox.from_bbox((0, 0, 8000, 6000), "EPSG:25832", resolution=1000)
    columns = {"kmeans_5": kmeans, "hdbscan": dense, "plot_x": places[0], "plot_y": places[1]}
    coords = xr_coords(box, crs_coord_name="spatial_ref")
    attrs = {"cell_size": 1000.0, "origin": [0.0, 0.0]}
    return xr.Dataset({n: (("y", "x"), c) for n, c in columns.items()}, coords, attrs)


def by_cell(groups):
    """The same groups on cells, those without data left out, in another order."""
    table = groups.drop_vars("spatial_ref").to_dataframe().dropna().reset_index()
    table = table.sample(frac=1, random_state=1).rename_axis("cell")
    cells = xr.Dataset.from_dataframe(table.reset_index(drop=True).rename_axis("cell"))
    north, east = ((cells[axis].values // 1000).astype(int) for axis in ("y", "x"))
    cells = cells.drop_vars(["y", "x", "cell"]).assign_coords(
        north=("cell", north), east=("cell", east), spatial_ref=groups.spatial_ref
    )
    return cells.assign_attrs(groups.attrs)


def examples_of(groups, count=5, bands=3):
    cells = by_cell(groups).isel(cell=slice(count))
    images = np.random.default_rng(0).integers(0, 255, (count, bands, 20, 20)).astype("uint8")
    return cells.assign(images=(("cell", "band", "row", "col"), images))


def seen(colours, eye):
    """CIE Lab of sRGB colours, as an eye sees them."""
    srgb = np.array([to_rgb(colour) for colour in colours])
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    linear = np.clip(linear @ np.transpose(eye), 0, 1)
    to_xyz = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    x, y, z = np.cbrt(linear @ np.transpose(to_xyz) / [0.9505, 1, 1.0888]).T
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=1)


@pytest.mark.parametrize("eye", EYES)
def test_five_groups_differ_for_every_eye(eye):
    """A difference of 2.3 in Lab is just seen; of 20, at a glance."""
    lab = seen([*GROUPS[:5], NOISE, NO_DATA], EYES[eye])
    assert min(np.linalg.norm(a - b) for a, b in combinations(lab[:5], 2)) > 25
    others = [np.linalg.norm(a - b) for a in lab[:5] for b in lab[5:]]
    assert min(others) > 10
    assert np.linalg.norm(lab[5] - lab[6]) > 8


def test_every_grouping_has_a_map(groups):
    figure = scene_map_figure(groups)
    panels = [ax for ax in figure.axes if ax.images]
    assert [ax.get_title("left") for ax in panels] == ["KMeans, 5 groups", "HDBSCAN"]
    kmeans, dense = (ax.images[0].get_array() for ax in panels)
    assert (kmeans[1, 1] == to_rgb(GROUPS[groups.kmeans_5.values[1, 1]])).all()
    assert (kmeans[0, 0] == to_rgb(NO_DATA)).all()
    assert (dense[0, 0] == to_rgb(NO_DATA)).all()
    assert (dense[2, 3] == to_rgb(NOISE)).all()
    assert panels[0].get_xlim() == (0, 8)


def test_the_order_of_groupings_is_not_that_in_which_a_store_lists_them(groups):
    more = groups.assign(kmeans_12=groups["kmeans_5"])
    for names in (list(more), sorted(more), sorted(more, reverse=True)):
        panels = [ax.get_title("left") for ax in scene_map_figure(more[names]).axes if ax.images]
        assert panels == ["KMeans, 5 groups", "KMeans, 12 groups", "HDBSCAN"]
        plotted = scene_plot_figure(more[names]).axes[0]
        assert plotted.get_title("left") == "KMeans, 12 groups"


def test_a_map_s_key_counts_cells(groups):
    dense = scene_map_figure(groups).axes[1].get_legend()
    labels = groups.hdbscan.values[groups.plot_x.notnull()]
    counts = [f"{group}: {(labels == group).sum()}" for group in range(5)]
    assert [text.get_text() for text in dense.get_texts()] == [*counts, "noise: 1"]


def test_cells_are_mapped_to_their_places(groups):
    on_map, on_cells = scene_map_figure(groups), scene_map_figure(by_cell(groups))
    for one, other in zip(on_map.axes, on_cells.axes, strict=True):
        np.testing.assert_array_equal(one.images[0].get_array(), other.images[0].get_array())


def test_large_maps_are_reduced_to_the_commonest_group(groups):
    image = scene_map_figure(groups, max_cells=4).axes[0].images[0].get_array()
    assert image.shape == (3, 4, 3)


@pytest.mark.parametrize("form", [lambda groups: groups, by_cell])
def test_a_plot_has_a_dot_for_every_cell_in_the_colour_of_its_group(groups, form):
    ax = scene_plot_figure(form(groups)).axes[0]
    (dots,) = (item for item in ax.collections if isinstance(item, PathCollection))
    places = {tuple(place) for place in np.asarray(dots.get_offsets()).round(5).tolist()}
    known = groups.plot_x.notnull().values
    expected = np.stack([groups.plot_x.values[known], groups.plot_y.values[known]], axis=1)
    assert places == {tuple(place) for place in expected.astype(float).round(5).tolist()}
    colours, counts = np.unique(dots.get_facecolors()[:, :3].round(6), axis=0, return_counts=True)
    assert sorted(counts) == sorted(np.bincount(groups.kmeans_5.values[known]))
    assert {tuple(c) for c in colours} == {tuple(np.round(to_rgb(c), 6)) for c in GROUPS[:5]}


def test_groups_are_numbered_at_their_middle(groups):
    ax = scene_plot_figure(groups).axes[0]
    numbers = {text.get_text(): text.xy for text in ax.texts}
    assert sorted(numbers) == list("01234")
    for group, place in numbers.items():
        assert np.abs(np.subtract(place, int(group))).max() < 0.4


@pytest.mark.parametrize("bands", [1, 2, 3, 4])
def test_examples_lie_at_their_places_framed_in_their_colour(groups, bands, tmp_path):
    examples = examples_of(groups, bands=bands)
    figure = scene_plot_figure(groups, examples, by="hdbscan")
    boxes = [item for item in figure.axes[0].artists if isinstance(item, AnnotationBbox)]
    assert len(boxes) == 5
    for box, x, y, label in zip(
        boxes, examples.plot_x, examples.plot_y, examples.hdbscan.values, strict=True
    ):
        assert box.xy == pytest.approx((float(x), float(y)))
        frame = NOISE if label < 0 else GROUPS[label]
        assert box.patch.get_edgecolor()[:3] == pytest.approx(to_rgb(frame))
        picture = box.offsetbox.get_data()
        assert picture.shape == (20, 20, 3)
        assert (np.ptp(picture, axis=-1) == 0).all() == (bands < 3)
    assert save_figure(figure, tmp_path / "plot.png").stat().st_size > 1000


def test_noise_is_grey_and_without_a_number(groups):
    ax = scene_plot_figure(groups, by="hdbscan").axes[0]
    (dots,) = (item for item in ax.collections if isinstance(item, PathCollection))
    assert (dots.get_facecolors()[:, :3].round(6) == np.round(to_rgb(NOISE), 6)).all(1).sum() == 1
    assert len(ax.texts) == 5


def test_what_cannot_be_drawn_is_named(groups):
    with pytest.raises(InputError, match="no groups 'kmeans_9'; expected one of kmeans_5, hdbscan"):
        scene_plot_figure(groups, by="kmeans_9")
    with pytest.raises(InputError, match="has plot_x, plot_y; expected columns of labels"):
        scene_map_figure(groups[["plot_x", "plot_y"]])
