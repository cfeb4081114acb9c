"""Tables of statistical offices: however the same table is written, the same people are read."""

import gzip
import zipfile

import geopandas as gpd
import numpy as np
import pandas as pd
import pyogrio
import pytest
from hypothesis import given
from hypothesis import strategies as st
from shapely.geometry import Point, box

from popdask.config.settings import Cells
from popdask.errors import InputError
from popdask.imagery.cutting import counts_from_features, counts_from_table
from popdask.imagery.grid import CellGrid
from popdask.io import frame_fingerprint, tables
from popdask.io.tables import read_features, read_table, read_text_table
from popdask.workflow.population_inputs import read_counts

GRID = CellGrid.preset("eu_1km")
CELLS = [(3124, 3814), (3124, 3815), (3125, 3814)]
PEOPLE = [1234567.5, 0.0, 12.25]
CODES = ["1kmN3124E3814", "CRS3035RES1000mN3124000E3815000", "1km_3125_3814"]
EXPECTED = [[north, east, people] for (north, east), people in zip(CELLS, PEOPLE, strict=True)]


def number(value, decimal, mark):
    """As an office writes it, thousands set apart by a mark."""
    return f"{value:,.2f}".replace(",", "_").replace(".", decimal).replace("_", mark)


def written(separator, decimal, mark, blank, quote, end):
    rows = [("GRD_ID", "Größe", "TOT_P")]
    rows += [
        (code, "Tromsø", number(people, decimal, mark))
        for code, people in zip(CODES, PEOPLE, strict=True)
    ]
    return end.join(
        separator.join(f"{blank}{quote}{text}{quote}{blank}" for text in row) for row in rows
    )


FORMS = st.one_of(
    st.tuples(st.just(","), st.just("."), st.sampled_from(["", "\u00a0", "'", "’"])),
    st.tuples(
        st.sampled_from([";", "\t", "|"]),
        st.just(","),
        st.sampled_from(["", ".", " ", "\u00a0", "'"]),
    ),
    st.tuples(st.sampled_from([";", "\t", "|"]), st.just("."), st.sampled_from(["", " ", "'"])),
)
ENCODINGS = ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "cp1252"]


@given(
    FORMS,
    st.sampled_from(ENCODINGS),
    st.sampled_from(["", " ", "  "]),
    st.sampled_from(["", '"']),
    st.sampled_from(["\n", "\r\n"]),
)
def test_a_table_is_read_however_it_is_written(tmp_path_factory, form, encoding, blank, quote, end):
    path = tmp_path_factory.mktemp("office") / "people.csv"
    text = written(*form, blank=blank if not quote else "", quote=quote, end=end)
    path.write_bytes(text.encode(encoding))
    counts = counts_from_table(path, GRID, people="TOT_P")
    assert counts.to_numpy().tolist() == EXPECTED
    assert read_table(path).columns.tolist() == ["GRD_ID", "Größe", "TOT_P"]
    assert set(read_table(path)["Größe"]) == {"Tromsø"}


def test_quoted_commas_between_commas_set_thousands_apart(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text('zone,total\nA,"1,234"\nB,"1,234,567.5"\nC,8\n')
    assert read_table(path)["total"].tolist() == [1234, 1234567.5, 8]
    path.write_text("zone;total\nA;1,5E+03\nB;2,5e-1\n")
    assert read_table(path)["total"].tolist() == [1500, 0.25]


@pytest.mark.parametrize(
    ("remarks", "header"),
    [
        ("# of an office\n# 2024, all\n\n", ""),
        ("# of an office\n", "# "),
        ("", "#"),
        ("# of an office; as of 2024\n", ""),
        ("sep=;\n", ""),
        ('"sep=;"\r\n', ""),
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_remarks_before_the_header_are_passed_over(tmp_path, remarks, header, encoding):
    path = tmp_path / "t.csv"
    path.write_text(f"{remarks}{header}zone;total\nA;3\nB;4\n", encoding=encoding)
    assert read_table(path).to_dict("list") == {"zone": ["A", "B"], "total": [3, 4]}


@pytest.mark.parametrize("code", [*CODES, "0.5deg_-3_12"])
def test_a_remark_names_the_columns_of_codes(tmp_path, code):
    path = tmp_path / "t.csv"
    path.write_text(f"# cell,place\n{code},Oslo\n", encoding="utf-8")
    assert read_table(path).to_dict("list") == {"cell": [code], "place": ["Oslo"]}


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"PK\x03\x04 sheet", "an Excel file or an archive"),
        (b"PAR1 rows PAR1", "a Parquet file"),
        (b'[{"zone": "A"}]', "JSON"),
        (b"\n<!DOCTYPE html><html>log in</html>", "a page of the web"),
        (b"\x01\x02,\x03\n1,2\n", "it is no text"),
        (
            b"Table 1, of all\nzone,total,share\nA,3,1\n",
            "'Table 1, of all': that is to name them all",
        ),
    ],
)
def test_what_is_no_table_of_text_says_so(tmp_path, content, told):
    (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(InputError, match=told):
        read_table(tmp_path / "t.csv")


def test_a_table_is_found_in_its_archive(tmp_path):
    path = tmp_path / "t.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("readme.txt", "data/people.csv", "__MACOSX/data/._people.csv"):
            archive.writestr(name, "zone,total\nA,3\n" if "people" in name else "whom to credit")
    assert read_table(path)["total"].tolist() == [3]


def test_numbers_and_codes_stay_what_they_are(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("cell; people;share;name\n 007 ;5;1,25;1,2,3\n 008;6;,5;4\n")
    found = read_table(path, dtype={"cell": str})
    assert found.cell.tolist() == ["007", "008"] and found.people.tolist() == [5, 6]
    assert found.share.tolist() == [1.25, 0.5] and found.people.dtype == np.int64
    path.write_text("zone,total\n1,1.234\n2,5\n")  # three decimals are no thousands
    assert read_table(path)["total"].tolist() == [1.234, 5]


def test_points_may_set_thousands_apart(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("zone;total\n1;1.234.567\n2;5\n3;1.250\n")
    assert read_table(path)["total"].tolist() == [1_234_567, 5, 1250]
    path.write_text("zone;total\n1;1.234\n2;0.5\n")
    assert read_table(path)["total"].tolist() == [1.234, 0.5]
    path.write_text("zone;total\n1;1.234\n2;5\n")
    with pytest.raises(InputError, match=r"1\.234 may be 1234"):
        read_table(path)


def test_commas_that_may_set_thousands_apart_are_refused(tmp_path):
    path = tmp_path / "t.tsv"
    path.write_text("zone\ttotal\nA\t1,234\nB\t12,345\nC\t987\n")
    with pytest.raises(InputError, match=r"1,234 may be 1234 or have decimals"):
        read_table(path)
    path.write_text("zone\ttotal\nA\t1,234\nB\t0,5\n")
    assert read_table(path)["total"].tolist() == [1.234, 0.5]


def test_rows_longer_than_the_header_and_damaged_archives_are_one_sentence(tmp_path):
    (tmp_path / "long.csv").write_text("zone,total\nA,3,5\n")
    content = gzip.compress(b"zone,total\n" + b"A,3\n" * 999)
    (tmp_path / "cut.csv.gz").write_bytes(content[: len(content) // 2])
    (tmp_path / "bad.zip").write_bytes(b"PK\x03\x04 nothing")
    with zipfile.ZipFile(tmp_path / "two.zip", "w") as archive:
        for name in ("places.csv", "people.csv"):
            archive.writestr(name, "zone,total\nA,3\n")
    for name in ("long.csv", "cut.csv.gz", "bad.zip", "two.zip"):
        with pytest.raises(InputError, match=name):
            read_table(tmp_path / name)
    outline = f"POLYGON (({', '.join(['0 0'] * 60_000)}))"
    (tmp_path / "wide.csv").write_text(f'zone;outline\n1;"{outline}"\n')
    assert read_table(tmp_path / "wide.csv")["outline"][0] == outline


@pytest.mark.parametrize(
    ("code", "size"),
    [("100mN31240E38140", 100), ("250mN312400E381400", 250), ("1kmN3124E3814", 1000)],
)
def test_codes_of_geostat_are_those_of_every_size(code, size):
    north, east = CellGrid(size, "EPSG:3035").parse(f" {code} ")
    assert (north * size, east * size) == (3_124_000, 3_814_000)
    with pytest.raises(InputError, match="is not the code of a cell"):
        CellGrid(500, "EPSG:3035").parse(code)


@pytest.mark.parametrize("name", ["cells.gpkg", "cells.shp", "cells.geojson", "cells.parquet"])
@pytest.mark.parametrize("codes", [True, False])
@pytest.mark.parametrize("crs", ["EPSG:3035", "EPSG:4326"])
def test_squares_are_cells(tmp_path, name, codes, crs):
    squares = [box(1000 * e, 1000 * n, 1000 * (e + 1), 1000 * (n + 1)) for n, e in CELLS]
    table = gpd.GeoDataFrame({"TOT_P": PEOPLE}, geometry=squares, crs="EPSG:3035")
    table = table.assign(GRD_ID=CODES) if codes else table
    table = table.to_crs(crs)
    path = tmp_path / name
    table.to_parquet(path) if name.endswith("parquet") else table.to_file(path)
    counts = read_counts(str(path), GRID, Cells(column="TOT_P"))
    assert counts.to_numpy().tolist() == EXPECTED


def test_shapes_that_are_no_cells_are_refused():
    shapes = gpd.GeoDataFrame({"people": [3]}, geometry=[box(0, 0, 1500, 1000)], crs="EPSG:3035")
    with pytest.raises(InputError, match="1 shapes that are no cells of 1km"):
        counts_from_features(shapes, GRID)
    points = gpd.GeoDataFrame({"people": [3]}, geometry=[Point(500, 1500)], crs="EPSG:3035")
    assert counts_from_features(points, GRID).to_numpy().tolist() == [[1, 0, 3]]


@pytest.mark.parametrize("geometry", [True, False])
def test_a_folder_of_parts_is_a_table(tmp_path, geometry):
    table = pd.DataFrame({"cell": CODES, "people": PEOPLE})
    if geometry:
        places = [Point(1000 * e + 1, 1000 * n + 1) for n, e in CELLS]
        table = gpd.GeoDataFrame(table, geometry=places, crs="EPSG:3035")
    folder = tmp_path / "people.parquet"
    (folder / "year=2020").mkdir(parents=True)
    (folder / "_SUCCESS").touch()
    (folder / "._part.parquet").write_bytes(b"")
    table[:2].to_parquet(folder / "part-0.parquet")
    table[2:].to_parquet(folder / "year=2020" / "part-1.parquet")
    assert read_counts(str(folder), GRID, Cells()).to_numpy().tolist() == EXPECTED


def test_parts_of_other_columns_are_refused_and_an_index_is_a_column(tmp_path):
    table = pd.DataFrame({"cell": CODES, "people": PEOPLE})
    table.set_index("cell").to_parquet(tmp_path / "t.parquet")
    assert counts_from_table(tmp_path / "t.parquet", GRID).to_numpy().tolist() == EXPECTED
    (tmp_path / "parts").mkdir()
    table[:1].to_parquet(tmp_path / "parts" / "0.parquet")
    table[1:].rename(columns={"people": "pop"}).to_parquet(tmp_path / "parts" / "1.parquet")
    with pytest.raises(
        InputError, match=r"1.parquet has other columns than 0.parquet \(people, pop"
    ):
        read_table(tmp_path / "parts")


def test_one_layer_of_several_is_named(tmp_path):
    path = tmp_path / "office.gpkg"
    squares = [box(1000 * e, 1000 * n, 1000 * (e + 1), 1000 * (n + 1)) for n, e in CELLS]
    cells = gpd.GeoDataFrame({"people": PEOPLE}, geometry=squares, crs="EPSG:3035")
    cells.to_file(path, layer="cells")
    pyogrio.write_dataframe(pd.DataFrame({"source": ["office"]}), path, layer="about")
    assert read_counts(str(path), GRID, Cells()).to_numpy().tolist() == EXPECTED
    cells[:1].assign(people=9.0).to_file(path, layer="a frame")
    with pytest.raises(InputError, match=r"2 layers \(cells, a frame\).*office.gpkg#cells"):
        read_counts(str(path), GRID, Cells())
    assert read_counts(f"{path}#cells", GRID, Cells()).to_numpy().tolist() == EXPECTED
    assert frame_fingerprint(f"{path}#cells")["sha256"] == frame_fingerprint(str(path))["sha256"]
    with pytest.raises(InputError, match=r"cannot be read .*Layer 'towns' could not be opened"):
        read_features(f"{path}#towns")


def test_features_without_a_place_are_refused(tmp_path):
    table = gpd.GeoDataFrame({"people": [3, 4]}, geometry=[Point(1, 1), None], crs="EPSG:3035")
    table.to_file(tmp_path / "t.gpkg")
    with pytest.raises(InputError, match="1 rows without a geometry, first row 1"):
        read_features(tmp_path / "t.gpkg")


def test_a_table_without_rows_is_refused(tmp_path):
    (tmp_path / "t.csv").write_text("cell,people\n")
    pd.DataFrame({"cell": [], "people": []}).to_parquet(tmp_path / "t.parquet")
    empty = gpd.GeoDataFrame({"people": []}, geometry=[], crs="EPSG:3035")
    empty.to_file(tmp_path / "t.gpkg")
    for name in ("t.csv", "t.parquet", "t.gpkg"):
        with pytest.raises(InputError, match=r"has no (rows|features)"):
            read_counts(str(tmp_path / name), GRID, Cells())
    with pytest.raises(InputError, match="has no rows"):
        counts_from_table(pd.DataFrame({"cell": [], "people": []}), GRID)
    (tmp_path / "parts").mkdir()
    with pytest.raises(InputError):
        read_features(tmp_path / "parts")


@pytest.mark.parametrize("name", ["t.csv.gz", "t.csv.zip"])
def test_a_compressed_table_is_read_up_to_a_bound(tmp_path, name, monkeypatch):
    path = tmp_path / name

    def pack(text):
        if name.endswith("gz"):
            path.write_bytes(gzip.compress(text))
            return
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("t.csv", text)

    pack(b"cell;people\n1kmN3124E3814;3\n")
    assert read_counts(str(path), GRID, Cells()).people.tolist() == [3]
    monkeypatch.setattr(tables, "LARGE", 1 << 20)
    pack(b"cell;people\n" + b"0" * (4 << 20))
    with pytest.raises(InputError, match=r"unpacks from .* to more than 1,048,576"):
        read_text_table(path)
