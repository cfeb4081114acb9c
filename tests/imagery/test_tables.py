"""Tables are read whatever wrote them, and what is none is told in one sentence."""

import geopandas as gpd
import pandas as pd
import pytest
from shapely.geometry import Point

from popdask.errors import InputError
from popdask.io.tables import has_geometry, read_features, read_table

TABLE = pd.DataFrame({"cell": ["007", "008"], "people": [1.5, 2.0]})
POINTS = gpd.GeoDataFrame({"people": [3]}, geometry=[Point(1, 2)], crs="EPSG:25832")


@pytest.mark.parametrize("name", ["t.parquet", "t.PQ", "t.csv", "t.txt"])
def test_a_table_comes_back(tmp_path, name):
    path = tmp_path / name
    if name.startswith("t.p") or name.startswith("t.P"):
        TABLE.to_parquet(path)
    else:
        TABLE.to_csv(path, index=False)
    found = read_table(path, dtype={"cell": str})
    assert found.cell.tolist() == ["007", "008"]
    assert found.people.tolist() == [1.5, 2.0]


@pytest.mark.parametrize("name", ["points.parquet", "points.gpkg", "points.geojson"])
def test_features_come_back(tmp_path, name):
    path = tmp_path / name
    POINTS.to_parquet(path) if name.endswith("parquet") else POINTS.to_file(path)
    found = read_features(str(path))
    assert found.people.tolist() == [3]
    assert found.crs == POINTS.crs
    assert found.geometry.iloc[0] == Point(1, 2)


def test_geometry_is_told_by_the_header(tmp_path):
    TABLE.to_parquet(tmp_path / "table.parquet")
    POINTS.to_parquet(tmp_path / "points.parquet")
    assert not has_geometry(tmp_path / "table.parquet")
    assert has_geometry(str(tmp_path / "points.parquet"))


@pytest.mark.parametrize("read", [read_table, read_features, has_geometry])
def test_what_cannot_be_read_gets_one_sentence(tmp_path, read):
    junk, folder = tmp_path / "junk.parquet", tmp_path / "folder.parquet"
    junk.write_bytes(b"junk")
    folder.mkdir()
    (folder / "junk").write_bytes(b"junk")
    for path in (junk, folder):
        with pytest.raises(InputError, match=f"{path.name} cannot be read") as told:
            read(path)
        assert "\n" not in str(told.value)
    with pytest.raises(InputError, match=r"none\.parquet does not exist; expected"):
        read(tmp_path / "none.parquet")


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00a,", b'a,b\n1,2,3\n"4'])
def test_what_is_no_csv_gets_one_sentence(tmp_path, content):
    path = tmp_path / "junk.csv"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"junk\.csv cannot be read .*expected people"):
        read_table(path, "people")


def test_a_table_is_no_features(tmp_path):
    TABLE.to_parquet(tmp_path / "table.parquet")
    TABLE.to_csv(tmp_path / "table.csv", index=False)
    with pytest.raises(InputError, match=r"table\.parquet cannot be read .*expected zones"):
        read_features(tmp_path / "table.parquet", "zones")
    with pytest.raises(InputError, match=r"table\.csv has no geometry; expected zones"):
        read_features(tmp_path / "table.csv", "zones")
