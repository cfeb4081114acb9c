"""Fields, speeds, classes apart, assignments and reconstructions are drawn as they are."""

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from matplotlib.collections import LineCollection
from matplotlib.colors import SymLogNorm
from matplotlib.quiver import Quiver
from shapely import LineString, box

from popdask.errors import InputError
from popdask.plot import (
    assignment_figure,
    class_panels_figure,
    field_figure,
    growth_figure,
    reconstruction_figure,
    save_figure,
    speed_error_figure,
    speed_figure,
)
from popdask.plot.style import signed_ticks
from popdask.tracking.diagnostics import error_by_population, error_by_speed
from popdask.tracking.growth import divergence, growth, laplacian
from popdask.tracking.link import link


def raster(values, **more):
    values = np.asarray(values)
    y, x = 6e6 - 1000.0 * np.arange(values.shape[0]), 5e5 + 1000.0 * np.arange(values.shape[1])
    coords = {"y": y, "x": x}
    return xr.DataArray(values, coords, ("y", "x"), **more).rio.write_crs(25833)


def shown(figure):
    return np.ma.filled(figure.axes[0].images[0].get_array(), np.nan)


def test_a_field_keeps_its_signs_and_the_strongest_of_a_square(tmp_path):
    people = np.zeros((40, 40), np.float32)
    people[11, 11] = 120
    field = laplacian(raster(people, name="population"))
    np.testing.assert_array_equal(shown(field_figure(field)), field)
    values = shown(field_figure(field, max_cells=20))
    assert values.shape == (20, 20) and values.min() == field.min() and (values > 0).sum() == 3
    still = field_figure(divergence(xr.Dataset({"u": raster(people * 0), "v": raster(people * 0)})))
    assert save_figure(still, tmp_path / "still.png").stat().st_size > 0
    with pytest.raises(InputError, match="field has the dimensions"):
        field_figure(field.expand_dims("time"))


@pytest.mark.parametrize("most", [0.3, 7.0, 500.0, 2e4, 3e6])
def test_numbers_on_both_sides_of_zero_stand_apart(most):
    ticks = signed_ticks(SymLogNorm(most / 1000, vmin=-most, vmax=most, base=10))
    assert ticks == sorted(ticks) and ticks == [-tick for tick in ticks[::-1]]
    assert len(ticks) <= 5 and most / 10 < ticks[-1] <= most


def test_speed_has_arrows_of_one_length_and_borders_where_they_are(tmp_path):
    people = raster(np.full((30, 40), 10.0, np.float32))
    flow = xr.Dataset({"u": people * 0 + 3, "v": people * 0 - 4})
    west, south, east, north = people.rio.bounds()
    land = gpd.GeoSeries([box(west + 5000, south + 5000, east - 5000, north - 5000),
                          LineString([(west, south), (west, north)])], crs=25833)  # fmt: skip
    figure = speed_figure(people, flow, borders=land.to_crs(4326), arrows=10)
    assert (shown(figure) == 5).all()
    (quiver,) = (item for item in figure.axes[0].collections if isinstance(item, Quiver))
    lengths = np.hypot(quiver.U, quiver.V)
    np.testing.assert_allclose(lengths, lengths[0])
    np.testing.assert_allclose(quiver.V / quiver.U, 4 / 3)  # up where rows run southward
    lines = next(item for item in figure.axes[0].collections if isinstance(item, LineCollection))
    corners = np.concatenate(lines.get_segments())
    np.testing.assert_allclose(corners.min(0), [0, 0], atol=1e-6)
    np.testing.assert_allclose(corners.max(0), [35, 30], atol=1e-6)
    assert save_figure(figure, tmp_path / "speed.png").stat().st_size > 0
    with pytest.raises(InputError, match="the borders have no CRS"):
        speed_figure(people, flow, borders=gpd.GeoSeries([box(0, 0, 1, 1)]))


def test_every_class_has_a_panel_with_its_communities_alone():
    classes = raster([[0, 0, 1, 2, -1]])
    communities = raster([[4, 5, 6, -1, -1]])
    figure = class_panels_figure(classes, communities)
    said = [axes.get_title("left") for axes in figure.axes]
    assert said == ["class 0: 2 communities", "class 1: 1 community", "class 2: no community"]
    first, second, third = (axes.images[0].get_array() for axes in figure.axes)
    blank = third[0, 0]
    assert (first[0, 2:] == blank).all() and (first[0, :2] != blank).any(axis=-1).all()
    assert (second[0, 2] == figure.axes[1].images[0].get_array()[0, 2]).all()
    assert (third == blank).all()
    with pytest.raises(InputError, match="classes have the shape"):
        class_panels_figure(classes, communities[:, :2])


def test_an_assignment_is_on_the_diagonal_whatever_the_numbers():
    rng = np.random.default_rng(0)
    before = np.repeat(np.arange(8), 5)[None]
    after = rng.permutation(8)[before]
    labels = xr.DataArray(np.stack([before, after]), dims=("time", "y", "x"))
    people = xr.DataArray(rng.integers(1, 90, labels.shape).astype(float), dims=labels.dims)
    links = link(labels, people, rule="overlap")
    matrix = shown(assignment_figure(links))
    assert np.isnan(matrix[~np.eye(8, dtype=bool)]).all()
    sums = np.bincount(before[0], people[0, 0])
    np.testing.assert_array_equal(np.diag(matrix), np.sort(sums)[::-1])
    assert shown(assignment_figure(links, most=3, by="overlap")).shape == (3, 3)
    years = links.assign(time=pd.Timestamp(2000, 1, 1), next=pd.Timestamp(2001, 1, 1))
    assert assignment_figure(years).axes[0].get_title(loc="left") == "assignment 2000 to 2001"
    twice = pd.concat([links.assign(time=0), links.assign(time=1)])
    with pytest.raises(InputError, match="several pairs of frames"):
        assignment_figure(twice)
    with pytest.raises(InputError, match="by is 'people_target'"):
        assignment_figure(links, by="people_target")


def test_a_reconstruction_is_beside_the_truth_on_its_scale():
    people = raster([[1.0, 1000.0, np.nan]])
    figure = reconstruction_figure(people, people / 10)
    left, right = (axes.images[0].get_array() for axes in figure.axes[:2])
    assert (left[0, 2] == right[0, 2]).all() and (left[0, 1] != right[0, 1]).any()
    with pytest.raises(InputError, match="reconstruction"):
        reconstruction_figure(people, people[:, :2])


def test_errors_of_speed_are_those_of_the_cells_and_histograms_hold_all():
    rng = np.random.default_rng(1)
    true = rng.normal(0, 1, (500, 2))
    table = error_by_speed(true, true * 0.5, bins=30)
    assert table["cells"].sum() == table["reconstructed"].sum() == 500
    there = table[table["cells"] > 0]
    np.testing.assert_allclose(there["error"], there["rest_error"] / 4)
    total = np.nansum(table["error"] * table["cells"])
    np.testing.assert_allclose(total, ((true * 0.5) ** 2).sum())
    above, below = speed_error_figure(table).axes
    assert len(above.lines) == len(below.patches) == 2
    still = speed_error_figure(error_by_speed(true * 0, true * 0))
    assert still.axes[0].texts[0].get_text() == "nothing moves"


def test_the_measure_of_an_error_is_free():
    def measure(truth, guess):
        return np.abs(truth - guess)

    table = error_by_population([0.0, 2.0, 9.0], [1.0, 2.0, 6.0], bins=1, measure=measure)
    assert table[["error", "median_error"]].iloc[0].tolist() == [4 / 3, 3.0]


def test_maps_of_movement_and_growth_add_up_to_the_change():
    rng = np.random.default_rng(0)
    people = rng.poisson(rng.gamma(0.4, 90.0, (2, 60, 90))).astype(np.float32)
    cube = xr.DataArray(people, dims=("time", "y", "x")).chunk(y=25)
    motion = rng.integers(-3, 4, (2, 2, 60, 90)).astype(np.float32)
    flow = xr.Dataset({name: (cube.dims, motion[i]) for i, name in enumerate("uv")})
    parts = growth(cube, flow).isel(time=0)
    figure = growth_figure(parts, title="from one to the other", max_cells=30)
    moved_in, moved_out, grown = (np.ma.filled(ax.images[0].get_array(), np.nan)
                                  for ax in figure.axes[:3])  # fmt: skip
    assert moved_in.shape == (20, 30)
    whole = growth_figure(parts)
    for squares, cells in zip((moved_in, moved_out, grown), whole.axes[:3], strict=True):
        drawn = np.ma.filled(cells.images[0].get_array(), np.nan)
        assert np.nansum(squares) == pytest.approx(np.nansum(drawn))
    total = np.nansum(moved_in) - np.nansum(moved_out) + np.nansum(grown)
    left = float(parts["moved_out"].sum() - parts["moved_in"].sum())  # beyond the raster
    change = np.nansum(people[1].astype(float) - people[0])
    assert total == pytest.approx(change, abs=1) and left > 0
    with pytest.raises(InputError, match=r"expected \(y, x\) with moved_in, moved_out, grown"):
        growth_figure(growth(cube, flow))
