"""Maps of change: arrows point where people go, and nobody is lost between two frames."""

import numpy as np
import pytest
import xarray as xr
from matplotlib.collections import PathCollection
from matplotlib.quiver import Quiver

from popdask.plot import change_figure, flow_figure, journey_figure, means_figure, save_figure
from popdask.synthetic import City, World, moving_cities
from popdask.tracking.describe import summarize
from popdask.tracking.diagnostics import community_means
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
    return summary, tracks(link(world.labels, population, rule="overlap"), summary)


def arrows(figure):
    found = [item for item in figure.axes[0].collections if isinstance(item, Quiver)]
    return found[0] if found else None


def drift(population, u, v):
    """A flow that is the same everywhere."""
    still = xr.zeros_like(population)
    return xr.Dataset({"u": still + u, "v": still + v})


@pytest.mark.parametrize("upright", [True, False])
def test_arrows_point_down_the_rows(upright):
    """v counts rows: south where the first row is the northernmost, north otherwise."""
    city = City(0, ((30.0, 12.0),), (9000,), ((8.0, 8.0),))
    people = World((city,), shape=(40, 50), frames=1).population.population[0]
    people = people if upright else people[::-1]
    quiver = arrows(flow_figure(people, drift(people, 1.0, 0.5), arrows=10))
    assert (quiver.U > 0).all()
    assert (quiver.V < 0).all() if upright else (quiver.V > 0).all()
    np.testing.assert_allclose(np.abs(quiver.V / quiver.U), 0.5)
    assert quiver.X.mean() == pytest.approx(12.5, abs=2)
    assert quiver.Y.mean() == pytest.approx(9.5, abs=2)


def test_an_arrow_is_the_mean_of_the_people_around():
    people = xr.DataArray(np.zeros((4, 4), np.float32), {"y": [3, 2, 1, 0], "x": range(4)})
    people[0, :2] = [1, 3]
    flow = drift(people, 0.0, 0.0)
    flow["u"][0, :2] = [4.0, 0.0]
    flow["v"][0, :2] = [0.0, 4.0]
    quiver = arrows(flow_figure(people, flow, arrows=2))
    assert len(quiver.U) == 1
    assert quiver.U[0] / -quiver.V[0] == pytest.approx(1 / 3)


def test_still_people_have_no_arrows(population, tmp_path):
    figure = flow_figure(population[0], drift(population[0], 0.0, 0.0))
    assert arrows(figure) is None
    assert figure.axes[0].get_xlabel() == "nothing moves"
    save_figure(figure, tmp_path / "flow.png", dpi=40)


def test_the_map_of_change_adds_up(world, population):
    figure = change_figure(population[0], population[-1], max_cells=50)
    shown = figure.axes[0].images[0].get_array()
    assert max(shown.shape) <= 50
    true = float((population[-1] - population[0]).sum(dtype=np.float64))
    assert shown.sum() == pytest.approx(true)
    assert np.ma.getmaskarray(shown).any(), "the sea has no data"
    assert figure.axes[1].get_xlabel().endswith("per 7 × 7 km")


def test_no_change_is_drawn(population, tmp_path):
    figure = change_figure(population[0], population[0])
    assert (figure.axes[0].images[0].get_array() == 0).all()
    save_figure(figure, tmp_path / "change.png", dpi=40)


def test_lazy_rasters_give_the_same_maps(world, population):
    lazy = world.lazy(chunks=(1, 70, 90)).population
    flow = drift(population[2], 1.0, 2.0)
    one, other = (flow_figure(people[2], flow) for people in (lazy, population))
    np.testing.assert_array_equal(arrows(one).U, arrows(other).U)
    one, other = (change_figure(people[0], people[1]) for people in (lazy, population))
    np.testing.assert_array_equal(*(f.axes[0].images[0].get_array() for f in (one, other)))


def test_a_journey_begins_and_ends(world, population, tables):
    figure = journey_figure(population, world.labels, *tables)
    first, last, paths = figure.axes
    assert paths.get_title("left") == "tracks 2000 to 2007"
    assert paths.get_xlabel().endswith("grey lines lead from tracks that split or merged")
    (dots,) = (item for item in paths.collections if isinstance(item, PathCollection))
    assert len(dots.get_offsets()) == sum(city.last == 7 for city in world.cities)
    stayer = next(c for c in world.cities if len({*c.centres}) == 1 and len(c.people) == 8)
    y, x = map(round, stayer.centres[0])
    assert (first.images[0].get_array()[y, x] == last.images[0].get_array()[y, x]).all()


def test_a_journey_of_one_frame_or_of_nobody(world, population, tables, tmp_path):
    summary, table = tables
    now = [each[each["time"] == population.time.values[0]] for each in (summary, table)]
    one = journey_figure(population[:1], world.labels[:1], *now)
    assert len(one.axes) == 2 and one.axes[1].get_title("left") == "tracks 2000"
    nothing = xr.full_like(world.labels, -1)
    nobody = journey_figure(population * 0, nothing, summary.iloc[:0], table.iloc[:0])
    for name, figure in {"one": one, "nobody": nobody}.items():
        save_figure(figure, tmp_path / f"{name}.png", dpi=40)


def test_communities_are_mapped_at_their_centroids(world, population, tables):
    summary, table = tables
    number = table.drop_duplicates(["time", "community"])[["time", "community", "track"]]
    means = community_means(summary).merge(number, on=["time", "community"])
    figure = means_figure(means, population[-1], most=5)
    dots = figure.axes[0].collections[0]
    now = means[means["time"] == world.times[-1]]
    assert len(dots.get_offsets()) == len(now)
    x, y = dots.get_offsets()[0].tolist()
    largest = now.loc[now["population"].idxmax()]
    centre = world.cities[int(largest["track"])].centres[-1]
    assert (240 - y - 0.5, x - 0.5) == pytest.approx(centre, abs=1)
    assert len(figure.axes[1].get_yticks()) == 5


def test_where_nobody_lives_together_there_is_a_map_alone(population, tables, tmp_path):
    means = community_means(tables[0].iloc[:0]).assign(track=0)
    figure = means_figure(means, population[0])
    assert sum(len(drawn.get_offsets()) for drawn in figure.axes[0].collections) == 0
    assert save_figure(figure, tmp_path / "means.png", dpi=40).stat().st_size > 0
