"""Totals are kept to the last person, whatever the chunks, and nobody appears without a reason."""

import os
from pathlib import Path

import dask.array as da
import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import rioxarray
import shapely
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox
from odc.geo.xr import wrap_xr

from popdask.errors import InputError
from popdask.imagery.dasymetric import HOW, adjust_to_totals, round_to_totals, zone_report

CRS = "EPSG:25832"


def on_grid(values, chunks=None):
    rows, columns = values.shape
    grid = GeoBox.from_bbox((0, 0, columns * 100, rows * 100), CRS, resolution=100)
    array = wrap_xr(values, grid)
    return array if chunks is None else array.chunk(dict(zip("yx", chunks, strict=True)))


def invent(seed, rows=23, columns=19, zones=6):
    """People in a few cells, gaps, zones of all kinds: 0 none, 1 without estimates, 2 nobody."""
    rng = np.random.default_rng(seed)
    number = rng.integers(0, zones + 1, (rows, columns))
    presence = rng.random((rows, columns), np.float32)
    people = np.where(presence > 0.6, rng.gamma(0.7, 20, (rows, columns)), 0).astype(np.float32)
    people[number == 1] = 0
    people[rng.random((rows, columns)) < 0.05] = np.nan
    totals = {zone: int(rng.integers(1, 5000)) for zone in range(1, zones + 1)} | {2: 0}
    return people, presence, number, totals


def by_hand(people, presence, number, totals, floor=0.1):
    """The rule written plainly, zone by zone."""
    result, presence = people.astype(np.float64), presence.astype(np.float64)
    for zone, total in totals.items():
        inside = (number == zone) & ~np.isnan(people)
        looks = inside & (presence >= floor)
        if people[inside].sum() > 0:
            result[inside] *= total / people[inside].sum(dtype=np.float64)
        elif looks.any():
            result[inside] = 0
            result[looks] = total * presence[looks] / presence[looks].sum()
        else:
            result[inside] = total / inside.sum()
    return result


@settings(max_examples=15)
@given(seed=st.integers(0, 99))
def test_equals_the_rule_written_plainly(seed):
    people, presence, number, totals = invent(seed)
    kept = adjust_to_totals(on_grid(people), on_grid(number), totals, presence=on_grid(presence))
    expected = by_hand(people, presence, number, totals)
    np.testing.assert_allclose(kept.population, expected, rtol=1e-9)
    assert kept.population.dtype == np.float64
    np.testing.assert_allclose(kept.adjusted, list(totals.values()), rtol=1e-9)
    report = zone_report(kept).set_index("zone")
    assert report.loc[1, "how"] == "spread by presence" and report.loc[2, "adjusted"] == 0
    assert (report.loc[3:, "how"] == "scaled").all()
    inside = [(number == zone) for zone in totals]
    assert report["no_data"].tolist() == [int(np.isnan(people[cells]).sum()) for cells in inside]
    assert (report["cells"] + report["no_data"]).tolist() == [int(cells.sum()) for cells in inside]


@settings(max_examples=15)
@given(seed=st.integers(0, 99), chunks=st.tuples(st.integers(3, 23), st.integers(4, 19)))
def test_identical_in_any_chunks(seed, chunks):
    people, presence, number, totals = invent(seed)
    whole = adjust_to_totals(on_grid(people), on_grid(number), totals, presence=on_grid(presence))
    lazy = adjust_to_totals(
        on_grid(people, chunks), on_grid(number, chunks[::-1]), totals, presence=on_grid(presence)
    )
    assert lazy.population.chunks == on_grid(people, chunks).chunks
    rounded = round_to_totals(lazy)
    assert rounded.chunks == lazy.population.chunks
    xr.testing.assert_identical(rounded.compute(), round_to_totals(whole))
    xr.testing.assert_identical(lazy.compute(), whole)


@settings(max_examples=15)
@given(seed=st.integers(0, 99))
def test_whole_people_add_up_and_stay_near(seed):
    people, presence, number, totals = invent(seed)
    kept = adjust_to_totals(on_grid(people), on_grid(number), totals, presence=on_grid(presence))
    whole, before = round_to_totals(kept).values, kept.population.values
    sums = [np.nansum(whole[number == zone]) for zone in totals]
    assert sums == list(totals.values())
    assert np.nansum(whole[number == 0]) == round(np.nansum(before[number == 0]))
    np.testing.assert_array_equal(np.isnan(whole), np.isnan(before))
    some = ~np.isnan(before)
    assert (np.abs(whole - before)[some] < 1).all() and (whole[some] == np.rint(whole[some])).all()
    assert (whole[some & (before == 0)] == 0).all(), "nobody comes to live where nobody did"


def test_whole_people_go_to_the_largest_remainders():
    people = np.array([[1.0, 2.6, 0.7, 0.7], [3.0, 0.5, 0.5, np.nan]])
    number = np.array([[1, 1, 1, 1], [2, 2, 2, 2]])
    kept = adjust_to_totals(on_grid(people), on_grid(number), {1: 5, 2: 4})
    assert round_to_totals(kept).values[0].tolist() == [1, 2, 1, 1]
    assert round_to_totals(kept).values[1, :3].tolist() == [3, 1, 0], "of equals, the first cell"


def test_where_nothing_looks_inhabited_people_are_spread_evenly():
    people = on_grid(np.array([[0.0, 0.0, np.nan], [0.0, 0.0, 7.0]]))
    presence = on_grid(np.array([[0.09, 0.01, 0.9], [0.3, 0.1, 0.9]]))
    number = on_grid(np.array([[1, 1, 1], [2, 2, 0]]))
    kept = adjust_to_totals(people, number, {1: 8, 2: 8}, presence=presence)
    np.testing.assert_allclose(kept.population, [[4, 4, np.nan], [6, 2, 7]])
    assert zone_report(kept)["how"].tolist() == ["spread evenly", "spread by presence"]
    strict = adjust_to_totals(people, number, {1: 8, 2: 8}, presence=presence, inhabited_from=0.2)
    np.testing.assert_allclose(strict.population, [[4, 4, np.nan], [8, 0, 7]])
    blind = adjust_to_totals(people, number, {1: 8, 2: 8})
    np.testing.assert_allclose(blind.population, [[4, 4, np.nan], [4, 4, 7]])


def test_cells_in_no_zone_are_kept_or_dropped():
    people, number = on_grid(np.array([[2.0, 3.0, 4.0]])), on_grid(np.array([[1, 0, 0]]))
    assert adjust_to_totals(people, number, {1: 1}).population.values.tolist() == [[1, 3, 4]]
    dropped = adjust_to_totals(people, number, {1: 1}, unzoned="drop")
    np.testing.assert_array_equal(dropped.population, [[1, np.nan, np.nan]])
    assert np.nansum(round_to_totals(dropped)) == 1


def test_the_sums_are_exact():
    """0.1 as float32, a million times, beside a city: float64 rounds it in every order."""
    values = np.full((1000, 1000), 0.1, np.float32)
    values[0, 0] = 1.5e9
    kept = adjust_to_totals(
        on_grid(values, (77, 1000)), on_grid(np.ones(values.shape, int)), {1: 3e9}
    )
    exact = 1.5e9 + 999_999 * float(np.float32(0.1))
    assert float(kept.estimated[0]) == exact
    assert float(kept.adjusted[0]) == pytest.approx(3e9, rel=1e-12)


def strips(totals=(30, 12), width=500):
    shapes = [shapely.box(i * width, 0, (i + 1) * width, 1000) for i in range(len(totals))]
    return gpd.GeoDataFrame(
        {"people": totals, "id": list("ABCD")[: len(totals)]}, geometry=shapes, crs=CRS
    )


def test_zones_of_polygons_keep_their_totals(tmp_path):
    people = np.random.default_rng(0).random((10, 10))
    strips().to_file(tmp_path / "zones.gpkg")
    kept = adjust_to_totals(on_grid(people, (4, 3)), tmp_path / "zones.gpkg", "people", name="id")
    assert float(kept.population[:, :5].sum()) == pytest.approx(30, rel=1e-12)
    assert float(kept.population[:, 5:].sum()) == pytest.approx(12, rel=1e-12)
    assert zone_report(kept)["zone"].tolist() == ["A", "B"]
    assert kept.population.rio.crs == CRS and kept.population.attrs["units"] == "people per cell"


def test_zones_beyond_the_raster_are_refused_left_or_fitted():
    people, zones = on_grid(np.ones((10, 8))), strips((30, 12, 7))
    with pytest.raises(InputError, match=r"zones 1 \(40% of its area\), 2 \(100%"):
        adjust_to_totals(people, zones, "people")
    left = adjust_to_totals(people, zones, "people", partial="skip")
    assert zone_report(left)["how"].tolist() == ["scaled", "left out", "left out"]
    assert float(left.population[:, :5].sum()) == pytest.approx(30)
    assert (left.population[:, 5:] == 1).all()
    assert zone_report(left)["adjusted"].tolist() == pytest.approx([30, 30, 0])
    dropped = adjust_to_totals(people, zones, "people", partial="skip", unzoned="drop")
    assert np.isnan(dropped.population[:, 5:]).all()
    fitted = adjust_to_totals(people, zones[:2], "people", partial="scale")
    assert fitted.adjusted.values == pytest.approx([30, 12])
    with pytest.raises(InputError, match="zone 2 has the total 7 but no cell with data"):
        adjust_to_totals(people, zones, "people", partial="scale")


def test_a_zone_without_data_is_refused_or_left():
    people, number = on_grid(np.array([[1.0, np.nan]])), on_grid(np.array([[1, 2]]))
    with pytest.raises(InputError, match="zone 2 has the total 5 but no cell with data"):
        adjust_to_totals(people, number, {1: 4, 2: 5})
    assert adjust_to_totals(people, number, {1: 4, 2: 0}).adjusted.values.tolist() == [4, 0]
    left = adjust_to_totals(people, number, {1: 4, 2: 5}, partial="skip")
    assert zone_report(left)["how"].tolist() == ["scaled", "left out"]


def test_building_reads_nothing():
    def read():
        raise RuntimeError("a chunk was read")

    unread = da.map_blocks(read, chunks=((5, 5), (5, 5)), dtype="float32", meta=np.empty((0, 0)))
    people = on_grid(np.zeros((10, 10))).copy(data=unread)
    kept = adjust_to_totals(people, strips(), "people", presence=people)
    rounded = round_to_totals(kept)
    for lazy in (kept.population, rounded, kept.adjusted):
        with pytest.raises(RuntimeError, match="a chunk was read"):
            lazy.compute()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"unzoned": "lose"}, "unzoned is 'lose', expected one of keep, drop"),
        ({"partial": "maybe"}, "partial is 'maybe', expected one of raise, skip, scale"),
        ({"inhabited_from": 0}, "inhabited_from is 0, expected a probability above 0"),
        ({"presence": xr.DataArray(np.zeros((3, 3)), dims=("y", "x"))}, "presence has {'y': 3"),
        ({"population": on_grid(np.full((10, 10), -2.0))}, "a cell of -2; people per cell"),
        ({"population": on_grid(np.full((10, 10), np.inf))}, "a cell of inf|inf in one chunk"),
        ({"population": on_grid(np.zeros((10, 10))).expand_dims("time")}, "dimensions .'time'"),
    ],
)
def test_mistakes_are_named(given, message):
    settings = {"population": on_grid(np.ones((10, 10))), "zones": strips(), "totals": "people"}
    with pytest.raises(InputError, match=message):
        adjust_to_totals(**(settings | given))


def test_parts_of_people_cannot_be_whole():
    kept = adjust_to_totals(on_grid(np.ones((10, 10))), strips((30, 12.5)), "people", name="id")
    with pytest.raises(InputError, match=r"zone B has the total 12\.5; whole people"):
        round_to_totals(kept)


def test_a_stored_result_is_read_again(tmp_path):
    people, presence, number, totals = invent(4)
    kept = adjust_to_totals(
        on_grid(people, (10, 10)), on_grid(number), totals, presence=on_grid(presence)
    )
    kept.to_zarr(tmp_path / "kept.zarr", consolidated=False)
    again = xr.open_zarr(tmp_path / "kept.zarr", consolidated=False)
    pd.testing.assert_frame_equal(zone_report(again), zone_report(kept))
    np.testing.assert_array_equal(round_to_totals(again), round_to_totals(kept))
    assert again["how"].attrs["flag_meanings"].replace("_", " ") == " ".join(HOW)


def squares(raster, size=10_000):
    west, south, east, north = raster.rio.bounds()
    corners = [(x, y) for x in np.arange(west, east, size) for y in np.arange(south, north, size)]
    shapes = [shapely.box(x, y, x + size, y + size) for x, y in corners]
    return gpd.GeoDataFrame(
        {"people": 1}, index=range(len(shapes)), geometry=shapes, crs=raster.rio.crs
    )


def test_real_towns_keep_their_totals():
    """Norwegian cells with made-up errors, of each cell and of each square of 10 km."""
    path = Path(os.environ.get("POPDASK_DATA", "")) / "oslo_250m" / "oslo_pop_250m_2019.tif"
    if not os.environ.get("POPDASK_DATA") or not path.is_file():
        pytest.skip("POPDASK_DATA does not hold the Oslo grid")
    truth = rioxarray.open_rasterio(path).isel(band=0, drop=True).astype("float64")
    zones = squares(truth)
    number = adjust_to_totals(truth, zones, "people").zone_number
    zones["people"] = np.bincount(number.values.ravel(), truth.values.ravel(), len(zones))
    rng = np.random.default_rng(0)
    wrong = rng.lognormal(0, 0.5, len(zones))[number.values] * rng.lognormal(0, 0.3, truth.shape)
    estimate = (truth * wrong).astype(np.float32).chunk(150)
    kept = adjust_to_totals(estimate, zones.to_crs("EPSG:3035"), "people").compute()
    np.testing.assert_allclose(kept.adjusted, kept.total, rtol=1e-9)
    assert float(round_to_totals(kept).sum()) == float(truth.sum()) == 1_679_604
    before, after = (float(abs(people - truth).sum()) for people in (estimate, kept.population))
    assert after < 0.75 * before
