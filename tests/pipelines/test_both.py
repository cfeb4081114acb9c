"""A communities job finds settlements, too, and its communities are told by their names."""

import shutil

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import xarray as xr

from popdask.config import CommunitiesJob
from popdask.workflow import communities, settlements
from popdask.workflow.operations import status, verify
from tests.pipelines import test_settlements as alone

FORMATS = ("cog", "geoparquet", "gpkg", "stac", "report")


def job(folder, store, **tables):
    found = {
        "name": "country",
        "input": {"frames": f"{folder}/pop_{{time:%Y}}.tif"},
        "encoder": {"epochs": 3},
        "classes": {"k": 3, "sample": 2000},
        "communities": {"eps": 2, "min_samples": 4},
        "settlements": {"names": f"{folder}/places.gpkg", "column": "navn"},
        "output": {"store": str(store), "export": FORMATS},
    }
    for name, table in tables.items():
        found[name] = found.get(name, {}) | table
    return CommunitiesJob.model_validate(found)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("country")
    for year in range(2000, 2003):
        alone.write_raster(folder / f"pop_{year}.tif", alone.country(year))
    points = gpd.points_from_xy([4_329_000, 4_328_500], [3_201_000, 3_188_500], crs="EPSG:3035")
    named = {"navn": ["Storby", "Småby"], "population": [250_000, 9_000]}
    gpd.GeoDataFrame(named, geometry=points).to_file(folder / "places.gpkg")
    return folder


@pytest.fixture(scope="module")
def finished(folder, tmp_path_factory):
    return communities.run(job(folder, tmp_path_factory.mktemp("both") / "country.icechunk"))


def test_the_settlements_are_those_of_a_settlements_job(finished, folder, tmp_path):
    single = alone.job(folder, tmp_path / "alone.icechunk", output={"export": ()})
    other = settlements.run(single).store
    names = ["population", "degurba", "settlement"]
    both, single = (store.dataset()[names].compute() for store in (finished.store, other))
    for name in names:
        xr.testing.assert_identical(both[name], single[name])
    for name in alone.TABLES[:-1]:
        pd.testing.assert_frame_equal(finished.store.table(name), other.table(name))
    balance = finished.store.table("settlement_balance")
    pd.testing.assert_frame_equal(balance, other.table("balance"))


def test_a_community_names_its_settlement(finished):
    arrays, table = finished.store.dataset().compute(), finished.communities
    named = finished.store.table("settlements").set_index(["time", "settlement"])["name"]
    assert set(table["settlement"]) & {"Storby", "Småby"}
    for row in table.itertuples():
        now = arrays.sel(time=row.time)
        here = (now["community"] == row.community).values & (now["settlement"] >= 0).values
        people = np.bincount(now["settlement"].values[here], now["population"].values[here])
        most = people.size and people.max() > row.population / 2
        assert row.settlement == (named[row.time, people.argmax()] if most else "")


def test_both_are_exported_reported_and_verified(finished, folder):
    settings = job(folder, finished.store.path)
    place = settings.export_folder
    written = {path.name for path in place.iterdir() if not path.name.endswith(".aux.xml")}
    files = communities.PIPELINE.files(settings, {})
    assert written == set(communities.PIPELINE.exports(settings, files))
    layers = gpd.list_layers(place / "country.gpkg")["name"].tolist()
    one = ["communities", "tracks", "links"]
    assert layers == [*one, "settlements", "settlement_tracks", "settlement_links"]
    assert verify(settings).differences == ()
    assert "1 city, 1 town, 1 village" in status(settings).found


def test_an_appended_frame_costs_the_settlements_one_frame(folder, tmp_path):
    store, plain = tmp_path / "grown.icechunk", {"output": {"export": ()}}
    communities.run(job(folder, store, input={"end": "2001"}, **plain))
    outcome = communities.run(job(folder, store, **plain))
    stale = {stage.name: stage.stale for stage in outcome.plan}
    assert all(stale[name] == (2,) for name in stale if name.startswith("settlement")), stale


def test_without_settlements_theirs_are_taken_away(finished, folder, tmp_path):
    store = shutil.copytree(finished.store.path, tmp_path / "none.icechunk")
    shutil.copytree(
        job(folder, finished.store.path).export_folder, job(folder, store).export_folder
    )
    again = {"settlements": {"find": False}, "output": {"export": FORMATS[:-1]}}  # no new page
    outcome = communities.run(job(folder, store, **again))
    assert set(outcome.store.dataset().data_vars).isdisjoint({"degurba", "settlement"})
    assert set(outcome.communities["settlement"]) == {""}
    with pytest.raises(KeyError):
        outcome.store.table("settlements")
    folder = job(folder, store).export_folder
    assert not list(folder.glob("*settlement*")) and list(folder.glob("*community*"))


def test_growth_and_movement_of_places_add_up_to_their_change(tmp_path):
    """The town lies 4 cells (2 km) aside in 2002, and has 5 % more people."""
    rng = np.random.default_rng(0)
    around, town = np.zeros((60, 72)), rng.poisson(rng.gamma(2.0, 150.0, (14, 14)))
    around[2:14, 40:60] = 1000
    for year in (2000, 2001, 2002):
        people, left = around.astype(np.float32), 20 + 4 * (year == 2002)
        people[30:44, left : left + 14] = town * (1.05 if year == 2002 else 1.0)
        alone.write_raster(tmp_path / f"pop_{year}.tif", people)
    asked = {"settlements": {"names": None}, "tracks": {"movement": True}}
    formats = {"output": {"export": ("geoparquet", "gpkg")}}
    whole = job(tmp_path, tmp_path / "whole.icechunk", **asked, **formats)
    found = communities.run(whole)
    for array, tables in (("settlement", "settlements"), ("community", "communities")):
        prefix = "settlement_" if array == "settlement" else ""
        moves = found.store.table(f"{prefix}movement").set_index(["time", "label"])
        table = found.store.table(tables).set_index(["time", array])
        arrays = found.store.dataset()[[array, "population"]].compute()
        for (time, number), row in moves.iterrows():
            here = arrays[array].sel(time=time).values == number
            now = list(arrays["time"].values).index(np.datetime64(time))
            before, after = arrays["population"].values[now - 1 : now + 1].astype(float)
            change = after[here].sum() - before[here].sum()
            assert row.moved_in - row.moved_out + row.grown_here == pytest.approx(change, rel=1e-9)
            assert table.loc[(time, number), "moved_in"] == row.moved_in
        assert table.loc[pd.Timestamp("2000"), "moved_in"].isna().all()
    table = found.store.table("settlements")
    moved = table[table["time"] == "2002"].nlargest(2, "population").iloc[1]
    newcomers = town[:, :4].sum()  # the others stood on its ground before
    assert 0.75 * newcomers < moved.moved_in < 1.1 * newcomers and moved.moved_out == 0
    layer = gpd.read_file(whole.export_folder / "country.gpkg", layer="settlements")
    assert {"moved_in", "moved_out", "grown_here"} <= set(layer)
    assert verify(whole).differences == ()
    grown = tmp_path / "grown.icechunk"
    for end, fresh in (("2000", (0,)), ("2002", (1, 2))):  # a first frame has nobody who moved
        plain = {"input": {"end": end}, "output": {"export": ()}}
        last = communities.run(job(tmp_path, grown, **plain, **asked))
        stale = {stage.name: stage.stale for stage in last.plan}
        assert stale["settlement_movement"] == fresh
    for name in ("settlement_movement", "settlements"):
        pd.testing.assert_frame_equal(last.store.table(name), found.store.table(name))
