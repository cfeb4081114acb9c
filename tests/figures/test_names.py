"""The names on a map: the largest first, none over another, none beyond the frame."""

import geopandas as gpd
import numpy as np
import xarray as xr

from popdask.plot.maps import map_figure


def written(*places):
    """The names on a map of 100 by 100 cells of 1 km, for (name, people, x, y in cells)."""
    axis = 500 + 1000.0 * np.arange(100)
    people = xr.DataArray(
        np.ones((100, 100), np.float32), {"y": axis[::-1], "x": axis}, ("y", "x")
    ).rio.write_crs(3035)
    names, counts, x, y = zip(*places, strict=True)
    points = gpd.points_from_xy(1000 * np.array(x), 1000 * np.array(y), crs=3035)
    table = gpd.GeoDataFrame({"name": names, "population": counts}, geometry=points)
    (axes, *_) = map_figure(people, places=table).axes
    return {text.get_text(): text.xy for text in axes.texts if text.get_text() in names}


def test_the_largest_of_two_that_would_meet_is_written():
    found = written(("Storby", 9, 40, 50), ("Småby", 5, 41, 50), ("Langtborte", 1, 40, 20))
    assert set(found) == {"Storby", "Langtborte"}
    assert found["Langtborte"][0] > 40 and abs(found["Langtborte"][1] - 20) < 1


def test_a_name_that_would_leave_the_map_is_left_out():
    assert set(written(("Innenfor", 1, 10, 50), ("Utenfor", 9, 99, 50))) == {"Innenfor"}


def test_where_a_settlement_lies_is_not_written():
    """The map shows it."""
    unnamed = ("town 5 km east of Storby", 8, 60, 50), ("village at 3.00° N, 4.00° E", 7, 20, 70)
    assert set(written(("Storby", 9, 40, 50), *unnamed)) == {"Storby"}


def test_settlements_are_called_settlements():
    axis = 500 + 1000.0 * np.arange(10)
    labels = xr.DataArray(
        np.zeros((10, 10), np.int32), {"y": axis[::-1], "x": axis}, ("y", "x"), "settlement"
    ).rio.write_crs(3035)
    (axes, *_) = map_figure(labels).axes
    assert axes.get_title("left") == "settlements"
    assert axes.get_xlabel() == "one colour per settlement"


def test_so_many_names_and_no_more():
    places = [(f"by {number}", number, 20 * (number % 4), 3 * number) for number in range(30)]
    assert len(written(*places)) == 25
