"""Tracks and links as lines, on three towns of which the story is known."""

import duckdb
import geopandas as gpd
import numpy as np
import pandas as pd
import pyogrio
import pytest
from shapely.geometry import LineString, Point

from popdask.io import link_lines, track_lines, with_tracks, write_geoparquet, write_gpkg
from popdask.tracking.tracks import EventRules, tracks

YEARS = pd.to_datetime(["2000", "2001", "2002"])
#: Town 0 moves east and takes in town 1 in 2002; town 2 stays where it is; town 3 lives in 2000.
STORY = [
    (0, 0, 60.0, (0, 0)), (0, 1, 40.0, (9, 0)), (0, 2, 10.0, (5, 50)), (0, 3, 7.0, (90, 90)),
    (1, 0, 62.0, (2, 0)), (1, 1, 39.0, (8, 0)), (1, 2, 10.0, (5, 50)),
    (2, 0, 103.0, (5, 0)), (2, 1, 10.0, (5, 50)),
]  # fmt: skip
LINKS = [(0, 0, 0), (0, 1, 1), (0, 2, 2), (1, 0, 0), (1, 1, 0), (1, 2, 1)]


@pytest.fixture(scope="module")
def communities():
    frame, community, people, places = zip(*STORY, strict=True)
    centroid = gpd.GeoSeries([Point(place) for place in places], crs="EPSG:25833")
    table = {"time": YEARS[list(frame)], "community": community, "population": people}
    return gpd.GeoDataFrame({**table, "centroid": centroid}, geometry=centroid.buffer(1))


@pytest.fixture(scope="module")
def links(communities):
    frame, source, target = (np.array(column) for column in zip(*LINKS, strict=True))
    people = communities.set_index(["time", "community"])["population"]
    moved = people.loc[list(zip(YEARS[frame], source, strict=True))].to_numpy()
    told = {"time": YEARS[frame], "source": source, "target": target, "people": moved}
    return pd.DataFrame({**told, "overlap": 9})


@pytest.fixture(scope="module")
def events(links, communities):
    return tracks(links, communities, rules=EventRules(sigma=0))


def test_every_track_is_a_line_of_its_centroids(communities, events):
    lines = track_lines(communities, events)
    assert lines["track"].tolist() == [0, 1, 2, 3] and lines.crs.to_epsg() == 25833
    assert lines.geometry[0].equals_exact(LineString([(0, 0), (2, 0), (5, 0)]), 0)
    assert lines.geometry[1].equals_exact(LineString([(9, 0), (8, 0)]), 0)
    assert lines.geometry[2].equals_exact(Point(5, 50), 0)  # it never moves
    assert lines.geometry[3].equals_exact(Point(90, 90), 0)
    assert lines["frames"].tolist() == [3, 2, 3, 1]
    assert lines["first"].tolist() == [YEARS[0]] * 4
    assert lines["last"].tolist() == [YEARS[2], YEARS[1], YEARS[2], YEARS[0]]
    assert lines["people_first"].tolist() == [60, 40, 10, 7]
    assert lines["people_last"].tolist() == [103, 39, 10, 7]
    assert lines["events"].tolist() == ["appear, grow, merge", "appear", "appear", "appear, vanish"]
    assert lines["parents"].tolist() == [[1], [], [], []]


def test_communities_know_their_track(communities, events):
    found = with_tracks(communities, events)
    assert found["track"].tolist() == [0, 1, 2, 3, 0, 1, 2, 0, 2]
    assert found.columns[:3].tolist() == ["time", "community", "track"]


def test_every_link_is_a_line_to_the_next_frame(communities, links):
    lines = link_lines(links, communities)
    assert lines["until"].tolist() == [YEARS[1]] * 3 + [YEARS[2]] * 3
    assert lines.geometry[4].equals_exact(LineString([(8, 0), (5, 0)]), 0)
    assert lines.geometry[2].equals_exact(Point(5, 50), 0)
    assert lines["people"].tolist() == links["people"].tolist()


def test_a_world_without_communities_has_no_lines(communities, links, events, tmp_path):
    nobody, nothing, never = communities[:0], links[:0], events[:0]
    layers = {
        "communities": with_tracks(nobody, never),
        "tracks": track_lines(nobody, never),
        "links": link_lines(nothing, nobody, YEARS),
    }
    assert [len(layer) for layer in layers.values()] == [0, 0, 0]
    assert {layer.crs.to_epsg() for layer in layers.values()} == {25833}
    assert len(pyogrio.list_layers(write_gpkg(layers, tmp_path / "nobody.gpkg"))) == 3
    for name, layer in layers.items():
        path = write_geoparquet(layer, tmp_path / f"{name}.parquet")
        assert list(gpd.read_parquet(path).columns) == list(layer.columns)


def test_one_frame_has_no_links(communities, links):
    town = communities[communities["time"] == YEARS[0]]
    for lines in (link_lines(links[:0], town), link_lines(links[:0], town, YEARS[:1])):
        assert not len(lines) and lines.columns[:2].tolist() == ["time", "until"]
        assert lines["until"].dtype.kind == "M"


def test_a_geopackage_has_them_as_layers(communities, links, events, tmp_path):
    lines = track_lines(communities, events)
    layers = {"communities": communities, "tracks": lines, "links": link_lines(links, communities)}
    one, other = (write_gpkg(layers, tmp_path / f"{i}" / "towns.gpkg") for i in range(2))
    assert one.read_bytes() == other.read_bytes()
    assert pyogrio.list_layers(one)[:, 0].tolist() == list(layers)
    found = gpd.read_file(one, layer="tracks")
    assert found.crs.to_epsg() == 25833
    assert found["parents"].tolist() == ["1", "", "", ""]
    assert found["first"].tolist() == lines["first"].tolist()
    assert (found.geometry.to_numpy() == lines.geometry.to_numpy()).all()
    assert "centroid" not in pyogrio.read_info(one, layer="communities")["fields"]
    assert pyogrio.get_gdal_config_option("OGR_CURRENT_DATE") is None


def test_duckdb_asks_for_the_children_of_a_track(communities, events, tmp_path):
    path = write_geoparquet(track_lines(communities, events), tmp_path / "tracks.parquet")
    query = f"select track from '{path}' where list_contains(parents, 1) and events like '%merge%'"
    assert duckdb.sql(query).fetchall() == [(0,)]
