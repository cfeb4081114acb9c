import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from odc.geo.xr import xr_coords
from shapely.geometry import LineString, Point

from popdask.errors import InputError
from popdask.imagery.cutting import (
    counts_from_points,
    counts_from_raster,
    counts_from_table,
    people_of_cells,
)
from popdask.imagery.grid import CellGrid
from tests.imagery.image_files import write_image

GRID = CellGrid(100.0)
CODES = ["100m_61397_6775", "100m_61397_6776", "100m_61398_6775"]


def raster(people, norths, easts, grid=GRID):
    box = grid.geobox(norths, easts)
    array = xr.DataArray(people, dims=("y", "x"), coords=xr_coords(box, dims=("y", "x")))
    return array.rio.write_crs(grid.crs)


def test_a_raster_on_the_grid_is_exact():
    people = np.array([[5.0, np.nan], [0.0, 7.5]])
    counts = counts_from_raster(raster(people, range(61397, 61399), range(6775, 6777)), GRID)
    assert counts.to_numpy().tolist() == [[61398, 6775, 5], [61397, 6775, 0], [61397, 6776, 7.5]]
    assert [str(t) for t in counts.dtypes] == ["int64", "int64", "float64"]


@pytest.mark.parametrize("dtype", ["uint16", "float64"])
def test_declared_nodata_of_an_array_is_no_count(dtype):
    people = raster(np.array([[5, 65535], [0, 7]], dtype), range(2), range(2))
    counts = counts_from_raster(people.rio.write_nodata(65535), GRID)
    assert counts.to_numpy().tolist() == [[1, 0, 5], [0, 0, 0], [0, 1, 7]]


def test_rows_from_south_to_north_are_turned():
    people = raster(np.arange(6.0).reshape(3, 2), range(-2, 1), range(-4, -2))
    expected = counts_from_raster(people, GRID)
    turned = counts_from_raster(people.isel(y=slice(None, None, -1)), GRID)
    pd.testing.assert_frame_equal(turned, expected)
    assert expected.to_numpy()[0].tolist() == [0, -4, 0]


def test_a_raster_file_is_the_same(tmp_path):
    people = np.random.default_rng(0).integers(0, 900, (1, 12, 9), dtype=np.int32)
    people[0, 3, 4] = -1
    path = write_image(tmp_path / "people.tif", people, pixel=100.0, nodata=-1)
    counts = counts_from_raster(path, GRID)
    assert len(counts) == 12 * 9 - 1
    found = people_of_cells(counts, GRID, counts.north.to_numpy(), counts.east.to_numpy())
    np.testing.assert_array_equal(found, people[people >= 0])
    assert counts.north.max() == 61398
    assert counts.east.min() == 6775


def test_a_raster_on_another_grid_is_shared_only_when_asked():
    fine = raster(np.full((6, 4), 3.0), range(10, 16), range(4), CellGrid(50.0))
    with pytest.raises(InputError, match=r"6 × 4 cells of 50 × 50 .*pass share=True"):
        counts_from_raster(fine, GRID)
    counts = counts_from_raster(fine, GRID, share=True)
    expected = [[n, e, 12] for n in (7, 6, 5) for e in (0, 1)]
    np.testing.assert_allclose(counts.to_numpy(), expected, rtol=1e-12)


def test_nobody_is_lost_between_two_crs():
    people = np.random.default_rng(1).integers(0, 50, (20, 30)).astype(float)
    source = raster(people, range(3108, 3128), range(3834, 3864), CellGrid.preset("eu_1km"))
    counts = counts_from_raster(source, CellGrid(500.0, "EPSG:32631"), share=True)
    assert counts.people.sum() == pytest.approx(people.sum(), rel=1e-12)


def test_wrong_rasters_get_one_sentence(tmp_path):
    negative = raster(np.array([[1.0, -2.0]]), range(1), range(2))
    with pytest.raises(InputError, match="holds -2 at row 0, column 1"):
        counts_from_raster(negative, GRID)
    density = raster(np.ones((1, 1)), range(1), range(1)).assign_attrs(units="people per km²")
    with pytest.raises(InputError, match="is a density"):
        counts_from_raster(density, GRID)
    with pytest.raises(InputError, match="expected y and x; select one band"):
        counts_from_raster(negative.expand_dims("band"), GRID)
    path = write_image(tmp_path / "people.tif", np.ones((1, 2, 2), np.int16), crs=None)
    with pytest.raises(InputError, match=r"people\.tif has no CRS"):
        counts_from_raster(path, GRID)


@pytest.mark.parametrize("kind", ["frame", "csv", "parquet"])
def test_a_table_of_codes_is_read(tmp_path, kind):
    table = pd.DataFrame({"cell": CODES, "people": [12, 0, 3.5], "name": ["a", "b", "c"]})
    if kind == "csv":
        table.to_csv(tmp_path / "t.csv", index=False)
    if kind == "parquet":
        table.to_parquet(tmp_path / "t.parquet")
    counts = counts_from_table(table if kind == "frame" else tmp_path / f"t.{kind}", GRID)
    assert counts.north.tolist() == [61397, 61397, 61398]
    assert counts.east.tolist() == [6775, 6776, 6775]
    assert counts.people.tolist() == [12, 0, 3.5]
    assert [str(t) for t in counts.dtypes] == ["int64", "int64", "float64"]


def test_columns_may_have_other_names_or_be_positions():
    table = pd.DataFrame({"kn100m": CODES, "antal": ["1", "2", "3"]})
    assert counts_from_table(table, GRID, cell="kn100m", people="antal").people.sum() == 6
    positions = pd.DataFrame({"north": [1, 2], "east": [5, 5], "people": [7, 8]})
    assert counts_from_table(positions, GRID).to_numpy().tolist() == [[1, 5, 7], [2, 5, 8]]


@pytest.mark.parametrize(
    ("cells", "people", "sentence"),
    [
        (CODES, [1, -2, 3], r"1 counts that are negative or not numbers, first -2 in row 1"),
        (CODES, [1, 2, np.nan], r"not numbers, first nan in row 2"),
        (CODES, [1, 2, np.inf], r"not numbers, first inf in row 2"),
        (CODES, ["1", "few", "3"], r"not numbers, first few in row 1"),
        ([*CODES[:2], CODES[0]], [1, 2, 3], r"1 cells twice, first 100m_61397_6775"),
        ([*CODES[:2], "1km_6139_677"], [1, 2, 3], r"of counts: '1km_6139_677' is not the code of"),
        ([*CODES[:2], None], [1, 2, 3], r"is not the code of a cell"),
    ],
)
def test_wrong_tables_get_one_sentence(cells, people, sentence):
    with pytest.raises(InputError, match=sentence):
        counts_from_table(pd.DataFrame({"cell": cells, "people": people}), GRID)


@pytest.mark.parametrize(
    ("north", "sentence"),
    [
        ([1, np.nan], "nan as north in row 1; expected whole numbers"),
        ([1.5, 2], "1.5 as north in row 0"),
        (["1", "two"], "two as north in row 1"),
        ([3, 3], "1 cells twice, first 100m_3_5"),
    ],
)
def test_wrong_positions_get_one_sentence(north, sentence):
    with pytest.raises(InputError, match=sentence):
        counts_from_table(pd.DataFrame({"north": north, "east": 5, "people": 1}), GRID)


def test_people_are_not_looked_up_in_a_table_that_has_a_cell_twice():
    counts = pd.DataFrame({"north": [1, 1], "east": [5, 5], "people": [7.0, 8.0]})
    with pytest.raises(InputError, match="1 cells twice, first 100m_1_5"):
        people_of_cells(counts, GRID, np.array([1]), np.array([5]))


def test_wrong_table_files_get_one_sentence(tmp_path):
    pd.DataFrame({"code": CODES, "n": 1}).to_csv(tmp_path / "t.csv")
    with pytest.raises(InputError, match=r"t\.csv has the columns .*code, n; expected cell and"):
        counts_from_table(tmp_path / "t.csv", GRID)
    with pytest.raises(
        InputError, match=r"none\.parquet does not exist; expected a table of cells"
    ):
        counts_from_table(tmp_path / "none.parquet", GRID)
    (tmp_path / "junk.parquet").write_bytes(b"junk")
    with pytest.raises(InputError, match=r"junk\.parquet cannot be read .* table of cells and peo"):
        counts_from_table(tmp_path / "junk.parquet", GRID)


def test_points_are_counted_by_cell_in_any_crs(tmp_path):
    rng = np.random.default_rng(0)
    x, y = rng.uniform(677_500, 678_000, 200), rng.uniform(6_139_700, 6_140_000, 200)
    people = rng.integers(0, 9, 200)
    points = gpd.GeoDataFrame(
        {"people": people}, geometry=gpd.points_from_xy(x, y, crs="EPSG:25832")
    )
    expected, _, _ = np.histogram2d(
        y, x, [np.arange(61397, 61401) * 100, np.arange(6775, 6781) * 100], weights=people
    )
    path = tmp_path / "points.gpkg"
    points.to_crs("EPSG:4326").to_file(path)
    for given in (points, path):
        counts = counts_from_points(given, GRID, weight="people")
        found = counts.pivot_table(index="north", columns="east", values="people")
        np.testing.assert_array_equal(found, expected)
    assert counts_from_points(points, GRID).people.sum() == 200


def test_wrong_points_get_one_sentence(tmp_path):
    here = [Point(677_510, 6_139_710), Point(677_520, 6_139_710)]
    with pytest.raises(InputError, match="the points have no CRS"):
        counts_from_points(gpd.GeoDataFrame(geometry=here), GRID)
    points = gpd.GeoDataFrame({"n": [1, -3]}, geometry=here, crs="EPSG:25832")
    with pytest.raises(InputError, match="first -3 in row 1"):
        counts_from_points(points, GRID, weight="n")
    with pytest.raises(InputError, match="have the columns n, geometry; expected people"):
        counts_from_points(points, GRID, weight="people")
    lines = gpd.GeoDataFrame(geometry=[here[0], LineString(here)], crs="EPSG:25832")
    with pytest.raises(InputError, match="hold 1 geometries that are not points, first LineStr"):
        counts_from_points(lines, GRID)
    beyond = gpd.GeoDataFrame(geometry=[Point(9, 55), Point(9, 95)], crs="EPSG:4326")
    with pytest.raises(InputError, match=r"1 points that have no place in EPSG:25832, first POIN"):
        counts_from_points(beyond, GRID)
    with pytest.raises(InputError, match=r"none\.gpkg does not exist; expected points"):
        counts_from_points(tmp_path / "none.gpkg", GRID)
    (tmp_path / "junk.parquet").write_bytes(b"junk")
    with pytest.raises(InputError, match=r"junk\.parquet cannot be read .* expected points"):
        counts_from_points(tmp_path / "junk.parquet", GRID)
