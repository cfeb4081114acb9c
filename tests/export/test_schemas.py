"""An exported table has the same columns and types whatever is in it: regions are read as one."""

import duckdb
import pandas as pd
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet
import pyogrio
import pytest
from hypothesis import given
from hypothesis import settings as how
from hypothesis import strategies as st

from popdask.io import write_geoparquet
from popdask.workflow import communities
from tests.pipelines.small import job

TABLES = ("communities", "tracks", "events", "links")


@pytest.fixture(scope="module")
def folder(frames, tmp_path_factory):
    """The exports of regions: of four frames, of one, and of one in which there is no community."""
    place = tmp_path_factory.mktemp("regions")
    regions = {
        "many": {"input": {"end": "2003"}},
        "single": {"input": {"end": "2000"}},
        "none": {
            "input": {"end": "2001"},
            "communities": {"eps": 3, "min_samples": 8, "min_people": 1e9},
        },
    }
    for name, tables in regions.items():
        output = {"export": ["geoparquet", "gpkg"], "folder": str(place / name)}
        settings = {"output": output, "encoder": {"epochs": 1}, **tables}
        communities.run(job(frames, place / f"{name}.icechunk", **settings))
    return place


@pytest.mark.parametrize("table", TABLES)
def test_the_tables_of_all_regions_are_one(folder, table):
    files = sorted(folder.glob(f"*/small_{table}.parquet"))
    assert len(files) == 3
    schemas = [pyarrow.parquet.read_schema(file).remove_metadata() for file in files]
    assert schemas[0].equals(schemas[1]) and schemas[0].equals(schemas[2])
    for name in {"parent", "parents"}.intersection(schemas[0].names):
        assert schemas[0].field(name).type == pa.list_(pa.int64())
    rows = sum(len(pd.read_parquet(file)) for file in files)
    assert pyarrow.dataset.dataset(files).to_table().num_rows == rows
    paths = [str(file) for file in files]
    assert duckdb.sql(f"select count(*) from read_parquet({paths})").fetchall() == [(rows,)]


def test_the_layers_of_all_regions_are_one(folder):
    for layer in ("communities", "tracks", "links"):
        told = [
            pyogrio.read_info(file, layer=layer) for file in sorted(folder.glob("*/small.gpkg"))
        ]
        fields = [dict(zip(one["fields"], one["dtypes"], strict=True)) for one in told]
        assert len(fields) == 3 and fields[0] == fields[1] == fields[2], layer


LISTS = st.lists(st.integers(0, 2**40), max_size=2)


@how(max_examples=40)
@given(st.lists(st.tuples(LISTS, st.text("abc", max_size=2)), max_size=4))
def test_types_do_not_depend_on_values(tmp_path_factory, rows):
    table = pd.DataFrame({"track": range(len(rows))})
    table["parents"] = pd.Series([parents for parents, _ in rows], dtype=object)
    table["events"] = pd.Series([events for _, events in rows], dtype=object)
    path = write_geoparquet(table, tmp_path_factory.mktemp("a") / "tracks.parquet")
    found = pyarrow.parquet.read_table(path)
    assert found.schema.field("parents").type == pa.list_(pa.int64())
    assert found.schema.field("events").type == pa.large_string()
    assert found["parents"].to_pylist() == [parents for parents, _ in rows]
    assert found["events"].to_pylist() == [events for _, events in rows]
    assert [list(parents) for parents in pd.read_parquet(path)["parents"]] == [
        parents for parents, _ in rows
    ]
