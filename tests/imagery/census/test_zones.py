"""Cells get the zone of their centre: every cell one at most, in any chunks, in any CRS."""

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import rasterio.features
import shapely
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox
from odc.geo.xr import wrap_xr

from popdask.errors import InputError
from popdask.imagery.dasymetric import read_zones

CRS = "EPSG:25832"


def raster(rows, columns, size=100, chunks=None):
    grid = GeoBox.from_bbox((0, 0, columns * size, rows * size), CRS, resolution=size)
    array = wrap_xr(np.zeros((rows, columns), np.float32), grid)
    return array if chunks is None else array.chunk(dict(zip("yx", chunks, strict=True)))


def voronoi(seed, count, width, height):
    """Polygons that fill a box without gaps or overlaps, of many corners."""
    points = np.random.default_rng(seed).random((count, 2)) * (width, height)
    box = shapely.box(0, 0, width, height)
    cells = shapely.get_parts(shapely.voronoi_polygons(shapely.MultiPoint(points), extend_to=box))
    cells = shapely.intersection(cells, box)
    return gpd.GeoDataFrame({"people": np.arange(len(cells))}, geometry=cells, crs=CRS)


def numbers(zones, like, **options):
    return read_zones(zones, "people", like, **options).number


@settings(max_examples=15)
@given(seed=st.integers(0, 99), rows=st.integers(2, 40), columns=st.integers(2, 40))
def test_zones_are_those_in_which_shapely_finds_the_centres(seed, rows, columns):
    like = raster(rows, columns)
    zones = voronoi(seed, 7, columns * 100, rows * 100)
    x, y = np.meshgrid(like.x, like.y)
    within = np.array([shapely.contains_xy(zone, x, y) for zone in zones.geometry])
    found = numbers(zones, like).values
    assert (within.sum(axis=0) == 1).all()
    np.testing.assert_array_equal(found, within.argmax(axis=0))
    assert found.dtype == np.int32


def test_holes_parts_and_gaps_are_as_rasterio_burns_them():
    ring = shapely.Point(1500, 1500).buffer(1210).difference(shapely.Point(1490, 1500).buffer(520))
    parts = shapely.MultiPolygon(
        [shapely.box(10, 10, 330, 470), shapely.Point(1490, 1500).buffer(200)]
    )
    zones = gpd.GeoDataFrame({"people": [1, 2]}, geometry=[ring, parts], crs=CRS)
    like = raster(30, 30)
    burned = rasterio.features.rasterize(
        zip(zones.geometry, [0, 1], strict=True),
        like.shape, fill=-1, transform=like.odc.geobox.transform, dtype="int32",
    )  # fmt: skip
    assert set(np.unique(burned)) == {-1, 0, 1}
    np.testing.assert_array_equal(numbers(zones, like), burned)


@settings(max_examples=15)
@given(
    seed=st.integers(0, 99),
    chunks=st.tuples(st.integers(1, 20), st.integers(1, 20)),
    flip=st.sampled_from([{}, {"y": slice(None, None, -1)}, {"x": slice(None, None, -1)}]),
)
def test_equal_in_any_chunks_and_any_direction(seed, chunks, flip):
    zones = voronoi(seed, 5, 2000, 1700)
    whole = numbers(zones, raster(17, 20))
    lazy = numbers(zones, raster(17, 20).isel(flip).chunk(dict(zip("yx", chunks, strict=True))))
    assert lazy.chunks is not None
    np.testing.assert_array_equal(lazy, whole.isel(flip))


def test_a_centre_on_a_shared_border_has_one_zone():
    """Borders run through the centres: right and above are inside, left and below are not."""
    boxes = [shapely.box(50 + 100 * i, 50 + 100 * j, 150 + 100 * i, 150 + 100 * j)
             for j in range(3) for i in range(3)]  # fmt: skip
    zones = gpd.GeoDataFrame({"people": range(9)}, geometry=boxes, crs=CRS)
    found = numbers(zones, raster(4, 4)).values
    assert found.tolist() == [[-1] * 4, [6, 7, 8, -1], [3, 4, 5, -1], [0, 1, 2, -1]]


def test_a_centre_on_a_slanting_border_belongs_to_the_zone_on_its_right():
    below, above = [(0, 0), (400, 0), (400, 400)], [(0, 0), (400, 400), (0, 400)]
    triangles = [shapely.Polygon(corners) for corners in (below, above)]
    zones = gpd.GeoDataFrame({"people": [1, 2]}, geometry=triangles, crs=CRS)
    whole = numbers(zones, raster(4, 4))
    assert whole.values.tolist() == [[1, 1, 1, 0], [1, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]]
    np.testing.assert_array_equal(numbers(zones, raster(4, 4, chunks=(1, 3))), whole)


def test_overlapping_zones_are_named():
    boxes = [shapely.box(0, 0, 1000, 1000), shapely.box(750, 300, 1500, 1000)]
    zones = gpd.GeoDataFrame({"people": [1, 2], "id": ["A", "B"]}, geometry=boxes, crs=CRS)
    with pytest.raises(InputError, match=r"zones A and B overlap at \(750, 350\)"):
        numbers(zones, raster(10, 20), name="id")
    lazy = numbers(zones, raster(10, 20, chunks=(5, 5)), name="id")
    with pytest.raises(InputError, match="zones A and B overlap"):
        lazy.compute()


def test_polygons_of_another_crs_are_reprojected(tmp_path):
    like = raster(30, 40).assign_coords(x=lambda a: a.x + 500_000, y=lambda a: a.y + 6_200_000)
    like = like.rio.write_crs(CRS)
    zones = voronoi(3, 6, 4000, 3000)
    zones = zones.set_geometry(zones.translate(500_000, 6_200_000))
    path = tmp_path / "zones.gpkg"
    zones.to_crs("EPSG:3035").to_file(path)
    same = numbers(path, like).values == numbers(zones, like).values
    assert same.mean() > 0.99, "but for centres on borders that rounding moves"


@pytest.mark.parametrize("suffix", ["gpkg", "geojson", "parquet"])
def test_files_of_polygons_are_read(suffix, tmp_path):
    zones, path = voronoi(1, 4, 1000, 800), tmp_path / f"zones.{suffix}"
    zones.to_parquet(path) if suffix == "parquet" else zones.to_file(path)
    if suffix == "geojson":
        assert gpd.read_file(path).crs == CRS
    found = read_zones(path, "people", raster(8, 10))
    assert found.totals.tolist() == [0, 1, 2, 3]
    np.testing.assert_array_equal(found.number, numbers(zones, raster(8, 10)))


def test_zones_of_cells_are_looked_up(tmp_path):
    like = raster(2, 3)
    cells = like.copy(data=np.array([[7, 7, 0], [3, -5, 9]], np.int16)).rio.write_nodata(9)
    cells.rio.to_raster(tmp_path / "zones.tif")
    pd.DataFrame({"zone": [9, 7, 3], "total": [1, 10, 20]}).to_csv(tmp_path / "t.csv", index=False)
    expected = [[1, 1, -1], [2, -1, -1]]
    for zones in (cells, tmp_path / "zones.tif", cells.astype(float).where(cells != 9)):
        found = read_zones(zones, tmp_path / "t.csv", like)
        assert found.number.values.tolist() == expected
        assert found.names.tolist() == [9, 7, 3] and found.totals.tolist() == [1, 10, 20]
    zero = read_zones(cells, {0: 5, 7: 10, 3: 20}, like).number
    assert zero.values.tolist() == [[1, 1, 0], [2, -1, -1]], "0 is a zone where it has a total"


def test_a_zone_of_cells_without_a_total_is_named():
    cells = raster(1, 3).copy(data=np.array([[1, 2, 4]]))
    with pytest.raises(InputError, match="zone 4 has cells but no total"):
        read_zones(cells, {1: 10, 2: 20}, raster(1, 3))


def test_how_much_of_a_zone_lies_beyond_is_told():
    boxes = [shapely.box(0, 0, 1000.01, 500), shapely.box(500, 500, 1500, 1000),
             shapely.box(2000, 0, 2010, 10)]  # fmt: skip
    zones = gpd.GeoDataFrame({"people": [1, 1, 1]}, geometry=boxes, crs=CRS)
    assert read_zones(zones, "people", raster(10, 10)).beyond == pytest.approx([0, 0.5, 1])


def test_a_ring_that_crosses_itself_has_both_its_loops():
    bow = shapely.Polygon([(0, 0), (1000, 1000), (1000, 0), (0, 1000)])
    zones = gpd.GeoDataFrame({"people": [1]}, geometry=[bow], crs=CRS)
    whole = read_zones(zones, "people", raster(20, 20))
    assert whole.beyond == pytest.approx([0])
    assert int((whole.number == 0).sum()) == 50
    half = read_zones(zones, "people", raster(10, 5))
    assert half.beyond == pytest.approx([0.5])


def boxes(**columns):
    squares = [shapely.box(0, 0, 200, 200), shapely.box(200, 0, 400, 200)]
    return gpd.GeoDataFrame(
        {"people": [1, 2], "id": ["A", "B"]} | columns, geometry=squares, crs=CRS
    )


@pytest.mark.parametrize(
    ("zones", "message"),
    [
        (boxes(people=[1, None]), "zone B has the total nan; a number of people, 0 or more"),
        (boxes(people=[-3, 2]), "zone A has the total -3"),
        (boxes(people=[1, np.inf]), "zone B has the total inf"),
        (boxes(people=["many", "2"]), "zone A has the total many"),
        (boxes(id=["A", "A"]), "zone A comes 2 times"),
        (boxes().drop(columns="people"), "no column 'people'; they have id, geometry"),
        (boxes().set_crs(None, allow_override=True), "no CRS"),
        (boxes().set_geometry(boxes().centroid), "zone A is not a polygon but POINT"),
        (boxes()[:0], "there are no zones"),
    ],
)
def test_wrong_zones_are_named(zones, message):
    with pytest.raises(InputError, match=message):
        read_zones(zones, "people", raster(2, 4), name="id")


def test_wrong_tables_and_grids_are_named(tmp_path):
    like, cells = raster(2, 4), raster(2, 4).astype(int)
    with pytest.raises(InputError, match="10 × 4 cells"):
        read_zones(raster(10, 4).astype(int), {0: 1}, like)
    with pytest.raises(
        InputError, match="DataFrame with id; expected a table with the columns zone"
    ):
        read_zones(cells, pd.DataFrame({"id": [1]}), like)
    with pytest.raises(InputError, match="zones of the table are"):
        read_zones(cells, {"A": 1}, like)
    with pytest.raises(InputError, match=r"nowhere\.gpkg does not exist"):
        read_zones(tmp_path / "nowhere.gpkg", "people", like)
    for name, words in (
        ("zones.parquet", "polygons"),
        ("zones.gpkg", "polygons"),
        ("zones.tif", "a raster of zone numbers"),
    ):
        (tmp_path / name).write_bytes(b"junk")
        with pytest.raises(InputError, match=f"{name} cannot be read .*expected {words}"):
            read_zones(tmp_path / name, "people", like)
    with pytest.raises(InputError, match=r"zones\.parquet cannot be read .* columns zone and tot"):
        read_zones(cells, tmp_path / "zones.parquet", like)
    with pytest.raises(InputError, match=r"nowhere\.csv does not exist; expected a table with"):
        read_zones(cells, tmp_path / "nowhere.csv", like)
    nowhere = xr.DataArray(np.zeros((2, 2)), {"y": [1, 0], "x": [0, 1]}, ("y", "x"))
    with pytest.raises(InputError, match="has no CRS"):
        read_zones(boxes(), "people", nowhere)
