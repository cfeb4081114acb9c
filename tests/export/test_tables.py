"""Tables open elsewhere as they are, with their places."""

import json

import duckdb
import geopandas as gpd
import geopandas.testing
import pandas as pd
import pyarrow.parquet
import pytest
from shapely.geometry import box

from popdask.io import write_geoparquet

TABLE = pd.DataFrame({"time": pd.to_datetime(["2006", "2011"]), "people": [3.5, 4]})
PLACES = gpd.GeoDataFrame(TABLE, geometry=[box(0, 0, 1, 1), box(1, 1, 3, 3)], crs="EPSG:25833")


def test_tables_survive_parquet(tmp_path):
    path = write_geoparquet(PLACES, tmp_path / "new" / "communities.parquet")
    again = gpd.read_parquet(path)
    geopandas.testing.assert_geodataframe_equal(again, PLACES)
    assert again.crs.to_epsg() == 25833
    pd.testing.assert_frame_equal(pd.read_parquet(write_geoparquet(TABLE, path)), TABLE)
    assert [entry.name for entry in path.parent.iterdir()] == ["communities.parquet"]


def test_geoparquet_tells_where_its_rows_lie(tmp_path):
    path = write_geoparquet(PLACES, tmp_path / "communities.parquet")
    told = json.loads(pyarrow.parquet.read_schema(path).metadata[b"geo"])
    assert told["version"] == "1.1.0" and told["primary_column"] == "geometry"
    assert told["columns"]["geometry"]["covering"]["bbox"]["xmin"] == ["bbox", "xmin"]
    assert gpd.read_parquet(path, bbox=(2, 2, 9, 9))["people"].tolist() == [4]
    found = duckdb.sql(f"select people from '{path}' where bbox.xmin >= 1 and year(time) = 2011")
    assert found.fetchall() == [(4,)]


def test_the_same_table_gives_the_same_bytes(tmp_path):
    one, other = (write_geoparquet(PLACES, tmp_path / f"{i}.parquet") for i in range(2))
    assert one.read_bytes() == other.read_bytes()


def test_a_table_that_cannot_be_written_leaves_the_old_one(tmp_path):
    path = write_geoparquet(TABLE, tmp_path / "communities.parquet")
    with pytest.raises(Exception, match="people"):
        write_geoparquet(pd.DataFrame({"people": [3.5, "many"]}), path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["communities.parquet"]
    pd.testing.assert_frame_equal(pd.read_parquet(path), TABLE)
