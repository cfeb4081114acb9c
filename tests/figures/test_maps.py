"""Maps: the right panels, places and colours."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from matplotlib.collections import LineCollection, PathCollection
from matplotlib.colors import to_rgb

from popdask.errors import InputError
from popdask.plot import CLASSES, NO_DATA, NOBODY, map_figure, number_colours, world_figure
from popdask.synthetic import moving_cities
from popdask.tracking.describe import summarize
from popdask.tracking.link import link
from popdask.tracking.tracks import tracks


@pytest.fixture(scope="module")
def world():
    return moving_cities(seed=4)


@pytest.fixture(scope="module")
def population(world):
    return world.population.population


@pytest.fixture(scope="module")
def tables(world, population):
    summary = summarize(world.labels, population)
    return summary, tracks(link(world.labels, population), summary)


def fake_classes(population):
    values = np.digitize(np.nan_to_num(population.values), [1, 200, 500, 700]) - 1
    return population.copy(data=values.astype(np.int16)).rename("classes")


def images(figure):
    """The pictures of the panels that hold one, in order."""
    return [axes.images[0].get_array() for axes in figure.axes if axes.images]


def test_a_world_has_a_row_per_frame_and_a_column_per_raster(world, population, tables):
    figure = world_figure(population, fake_classes(population), world.labels, *tables, frames=3)
    panels = [axes for axes in figure.axes if axes.images]
    assert len(panels) == 12
    assert [axes.get_title("left") for axes in panels[::4]] == ["2000", "2004", "2007"]
    names = ["population", "classes", "communities", "tracks"]
    assert [axes.get_title() for axes in panels[:4]] == names
    keys = [axes.get_xlabel() for axes in figure.axes if axes not in panels]
    assert keys == ["people per cell", "class"]


def test_columns_come_with_what_is_given(world, population, tables):
    assert len(images(world_figure(population, frames=2))) == 2
    assert len(images(world_figure(population, communities=world.labels, frames=2))) == 4
    summary, _ = tables
    assert len(images(world_figure(population, None, world.labels, summary, frames=1))) == 2


def test_panels_measure_kilometres(population):
    fine = moving_cities(seed=4, resolution=250).population.population
    for raster, width, height in [(population, 320, 240), (fine, 80, 60)]:
        axes = world_figure(raster, frames=1).axes[0]
        assert (axes.get_xlim(), axes.get_ylim()) == ((0, width), (0, height))


def test_degrees_become_kilometres_in_the_middle_of_the_map():
    coords = {"y": [60.5, 59.5], "x": [10.5, 11.5, 12.5]}
    degrees = xr.DataArray(np.ones((2, 3), np.float32), coords, ("y", "x")).rio.write_crs(4326)
    axes = map_figure(degrees).axes[0]
    assert axes.get_xlim()[1] == pytest.approx(3 * 111.32 / 2)
    assert axes.get_ylim()[1] == pytest.approx(2 * 110.57)


def test_colours_tell_labels_empty_land_and_missing_data_apart(world, population):
    figure = world_figure(population, fake_classes(population), world.labels, frames=1)
    people, classes, communities = images(figure)
    labels = world.labels.values[0]
    sea = np.isnan(population.values[0])
    for image in (people, classes, communities):
        assert (image[sea] == to_rgb(NO_DATA)).all()
    row, col = world.villages[0][:2]
    assert (communities[row, col] == to_rgb(NOBODY)).all()
    assert (people[row, col] != to_rgb(NOBODY)).any()
    for city in np.unique(labels[labels >= 0]):
        assert (communities[labels == city] == number_colours([city])).all()
    assert (classes[fake_classes(population).values[0] == 3] == to_rgb(CLASSES[3])).all()


def test_a_track_keeps_its_colour_whatever_its_community_is_called(world, population):
    renamed = world.labels.copy()
    renamed[1] = renamed[1].where(renamed[1] < 0, 30 - renamed[1])
    summary = summarize(renamed[:2], population[:2])
    table = tracks(link(renamed[:2], population[:2]), summary)
    figure = world_figure(population[:2], None, renamed[:2], summary, table)
    before, after = images(figure)[1::3]
    both = (world.labels.values[0] >= 0) & (world.labels.values[0] == world.labels.values[1])
    assert both.any()
    assert (before[both] == after[both]).all()


def test_paths_lead_to_the_cities(world, population, tables):
    figure = world_figure(population, None, world.labels, *tables, frames=2)
    axes = [axes for axes in figure.axes if axes.images][-1]
    (dots,) = (item for item in axes.collections if isinstance(item, PathCollection))
    alive = [city for city in world.cities if city.last == world.frames - 1]
    places = [(x + 0.5, 240 - (y + 0.5)) for y, x in (city.centres[-1] for city in alive)]
    drawn = np.asarray(dots.get_offsets())
    assert len(drawn) == len(places)
    assert all(np.abs(drawn - place).max(axis=1).min() < 1 for place in places)
    joints, trails = (item for item in axes.collections if isinstance(item, LineCollection))
    assert len(joints.get_segments()) == 2, "one split and one merger"
    assert len(trails.get_segments()) == len(world.cities)
    assert axes.get_xlabel().endswith("grey lines lead from tracks that split or merged")


def test_only_the_past_is_drawn(world, population, tables):
    figure = world_figure(population, None, world.labels, *tables, frames=1)
    axes = [axes for axes in figure.axes if axes.images][-1]
    joints, trails = (item for item in axes.collections if isinstance(item, LineCollection))
    assert len(joints.get_segments()) == 0
    assert len(trails.get_segments()) == sum(city.start == 0 for city in world.cities)


def test_a_map_draws_one_raster_of_each_kind(world, population):
    people = map_figure(population[3], outlines=world.labels[3])
    assert people.axes[0].get_title("left") == "population 2003"
    (outlines,) = (item for item in people.axes[0].collections if isinstance(item, LineCollection))
    labels = world.labels.values[3]
    changes = (np.diff(labels, axis=0) != 0).sum() + (np.diff(labels, axis=1) != 0).sum()
    assert len(outlines.get_segments()) == changes
    classes = map_figure(fake_classes(population)[3], population[3], title="Kinds of place")
    assert classes.axes[0].get_title("left") == "Kinds of place"
    assert classes.axes[1].get_xlabel() == "class"
    communities = map_figure(world.labels[3])
    assert communities.axes[0].get_title("left") == "communities 2003"


def test_rare_classes_are_seen_on_a_reduced_map():
    classes = np.zeros((40, 40), np.int16)
    classes[7, 21] = 3
    metres = np.arange(40) * 1000 + 500
    raster = xr.DataArray(classes, {"y": metres[::-1], "x": metres}, ("y", "x"), name="classes")
    image = map_figure(raster, max_cells=10).axes[0].images[0].get_array()
    assert (image[1, 5] == to_rgb(CLASSES[3])).all()
    assert (image[1, 4] == to_rgb(CLASSES[0])).all()


def test_outlines_run_around_the_cells_of_a_reduced_map():
    labels = np.full((40, 40), -1, np.int32)
    labels[12:16, 20:28] = 0
    metres = np.arange(40) * 1000 + 500
    coords = {"y": metres[::-1], "x": metres}
    raster = xr.DataArray(labels, coords, ("y", "x"))
    figure = map_figure(raster, outlines=raster, max_cells=10)
    (outlines,) = figure.axes[0].collections
    corners = np.concatenate(outlines.get_segments())
    assert corners.min(axis=0).tolist() == [20, 24]
    assert corners.max(axis=0).tolist() == [28, 28]


def test_lazy_rasters_are_drawn_frame_by_frame(world, population):
    lazy = world.lazy(chunks=(1, 100, 100)).population
    drawn = zip(images(world_figure(lazy)), images(world_figure(population)), strict=True)
    assert all((a == b).all() for a, b in drawn)


def test_a_strip_of_cells_is_no_tall_sheet():
    strip = xr.DataArray(
        np.ones((300, 1)), dims=("y", "x"), coords={"y": -1000.0 * np.arange(300), "x": [0.0]}
    )
    width, height = map_figure(strip).get_size_inches()
    assert height < 4 * width


def test_a_world_of_nobody_is_drawn(population, tables):
    nobody = population[:2] * 0
    nothing = xr.full_like(nobody, -1, dtype=np.int32)
    summary, table = (table.iloc[:0] for table in tables)
    assert len(images(world_figure(nobody, nothing, nothing, summary, table))) == 8


def test_rasters_on_different_grids_are_refused(world, population):
    with pytest.raises(InputError, match="share frames and grid"):
        world_figure(population, communities=world.labels[:, :-1])


def test_dates_within_a_year_are_written_out(population):
    quarters = population[:2].assign_coords(time=pd.to_datetime(["2020-01-01", "2020-04-01"]))
    titles = [axes.get_title("left") for axes in world_figure(quarters).axes[:2]]
    assert titles == ["2020", "2020-04-01"]


@pytest.mark.parametrize("free", ["lower right", "upper left"])
def test_the_scale_bar_takes_the_empty_corner(free):
    people = np.ones((40, 40), np.float32)
    people[np.s_[-10:, -20:] if free == "lower right" else np.s_[:10, :20]] = 0
    metres = np.arange(40) * 1000 + 500
    raster = xr.DataArray(people, {"y": metres[::-1], "x": metres}, ("y", "x"))
    (bar,) = map_figure(raster).axes[0].artists
    assert bar.loc == bar.codes[free]
    assert bar.txt_label.get_text() == "5 km"
