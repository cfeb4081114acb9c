"""Units: cells shared by area as overlays share them, nobody lost, and the rules of 2021."""

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox
from odc.geo.xr import wrap_xr

import popdask
from popdask.blocks.area_shares import lay_out, shares_of_tile
from popdask.errors import InputError

CODES = [10, 11, 12, 13, 21, 22, 23, 30]
PEOPLE = ["very_low_density", "low_density", "rural_cluster", "suburban", "semidense_cluster"]
PEOPLE += ["dense_cluster", "urban_centre"]


def grid_of(shape, resolution=1000.0, crs="EPSG:3035"):
    rows, columns = shape
    west, south = 4_000_000, 3_000_000
    box = (west, south, west + columns * resolution, south + rows * resolution)
    return GeoBox.from_bbox(box, crs, resolution=resolution)


def cells_of(grid):
    """The cells of a grid as polygons, row by row."""
    (rows, columns), t = grid.shape, grid.transform
    row, column = np.indices((rows, columns))
    west, north = t.c + column * t.a, t.f + row * t.e
    return shapely.box(west, north + t.e, west + t.a, north)


def outlines(rng, grid, count, snapped):
    """Polygons that fill more than a grid: what is nearest to each of some places."""
    west, south, east, north = grid.extent.boundingbox
    corners = rng.uniform(0, 1, (count, 2)) * [east - west, north - south]
    if snapped:  # to corners of cells, so that borders run along them
        corners = np.round(corners / grid.resolution.x) * grid.resolution.x
    places = shapely.multipoints(np.unique(corners + np.array([west, south]), axis=0))
    around = shapely.box(*grid.extent.boundingbox).buffer(3000)
    parts = shapely.get_parts(shapely.voronoi_polygons(places, extend_to=around))
    return gpd.GeoDataFrame(
        {"code": [f"u{i}" for i in range(len(parts))]}, geometry=parts, crs=3035
    )


@settings(max_examples=40)
@given(st.integers(0, 10**6), st.sampled_from([1, 2]), st.booleans())
def test_shares_are_those_of_an_overlay_in_any_tiles(seed, step, holes):
    rng = np.random.default_rng(seed)
    grid = grid_of((7, 9), resolution=1.0)
    west, south = grid.transform.c, grid.transform.f - 7
    ring = rng.uniform(-2, 10, (rng.integers(3, 12), 2))
    ring = np.round(ring * step) / step if seed % 3 else ring  # along cells, or through them
    shape = shapely.make_valid(shapely.Polygon(ring + np.array([west, south])))
    if holes:
        shape = shapely.box(west - 1, south - 1, west + 8, south + 6).difference(shape)
    parts = [part for part in shapely.get_parts(shape) if part.area > 0]
    if not parts:
        return
    shape = shapely.union_all(parts)
    expected = shapely.area(shapely.intersection(shape, cells_of(grid)))
    laid = lay_out(gpd.GeoDataFrame(geometry=[shape], crs=3035), pd.Series(["a"]), grid)
    found = np.zeros((7, 9))
    for top, rows in ((0, 3), (3, 4)):
        for left, columns in ((0, 5), (5, 4)):
            tile = shares_of_tile(laid, (top, left), (rows, columns))
            window = found[top : top + rows, left : left + columns]
            window[np.divmod(tile.cells, columns)] = tile.shares
    np.testing.assert_allclose(found, expected, atol=1e-8)


@settings(max_examples=12)
@given(
    st.integers(0, 10**6),
    st.sampled_from([(30, 40), (4, 1100)]),  # the second goes over the border of a tile
    st.tuples(st.integers(3, 40), st.integers(7, 900)),
    st.booleans(),
)
def test_people_by_class_are_those_of_an_overlay_and_nobody_is_lost(seed, shape, chunks, snapped):
    rng = np.random.default_rng(seed)
    grid = grid_of(shape)
    people = rng.gamma(0.3, 500, (2, *shape)).astype("float32")
    people[:, rng.uniform(size=shape) < 0.1] = np.nan
    codes = rng.choice(CODES, (2, *shape)).astype("int8")
    times = pd.to_datetime(["2000", "2002"])
    population, coded = (
        wrap_xr(array, grid, time=times).rename({"time": "time"}) for array in (people, codes)
    )
    units = outlines(rng, grid, 7, snapped)
    found = popdask.classify_units(population, coded, units, name="code")
    lazy = [array.chunk({"y": chunks[0], "x": chunks[1]}) for array in (population, coded)]
    pd.testing.assert_frame_equal(popdask.classify_units(*lazy, units, name="code"), found)

    share = (
        shapely.area(
            shapely.intersection(np.asarray(units.geometry)[:, None, None], cells_of(grid))
        )
        / 1e6
    )
    for frame, time in enumerate(times):
        table = found[found["time"] == time]
        parts = np.nan_to_num(people[frame]) * share
        np.testing.assert_allclose(table["population"], parts.sum((1, 2)), rtol=1e-9, atol=1e-6)
        for code, column in zip(CODES[1:], PEOPLE, strict=True):
            here = (parts * (codes[frame] == code)).sum((1, 2))
            np.testing.assert_allclose(table[column], here, rtol=1e-9, atol=1e-6)
        whole = np.nansum(people[frame], dtype=np.float64)
        assert table["population"].sum() == pytest.approx(whole, rel=1e-12)
    old, new = (found[found["time"] == time].set_index("unit") for time in times)
    change = new["population"] - old["population"]
    np.testing.assert_allclose(new["change"], change)
    rate = 100 * (np.sqrt(new["population"] / old["population"]) - 1)
    np.testing.assert_allclose(new["growth"], rate.where(old["population"] > 0), atol=1e-9)
    assert old["change"].isna().all() and old["growth"].isna().all()


#: People in cells of 11, 12, 13, 21, 22, 23 and 30, and the unit's class at level 1, and at level 2
#: by the rules of 2021 and of 2024.
RULES = [
    ([5, 0, 0, 0, 0, 0, 5], 3, 30, 30),  # half of the people are enough for a city
    ([0, 0, 0, 0, 0, 6, 4], 2, 23, 23),
    ([5, 0, 0, 5, 0, 0, 0], 2, 21, 21),  # half of them are not enough for a rural area
    ([6, 0, 0, 4, 0, 0, 0], 1, 11, 11),
    ([0, 0, 0, 4, 2, 3, 1], 2, 23, 22),  # dense and semi-dense together outweigh the suburbs
    ([0, 0, 0, 4, 3, 2, 1], 2, 22, 22),
    ([0, 0, 0, 5, 2, 3, 0], 2, 21, 21),  # but not where there are as many
    ([0, 0, 0, 5, 0, 5, 0], 2, 21, 23),  # of two halves the rules of 2024 take the denser
    ([0, 0, 0, 0, 3, 3, 4], 2, 23, 23),
    ([3, 3, 4, 0, 0, 0, 0], 1, 13, 12),  # the largest part is not half
    ([3, 4, 3, 0, 0, 0, 0], 1, 12, 12),
    ([2, 4, 4, 0, 0, 0, 0], 1, 13, 12),
    ([4, 4, 2, 0, 0, 0, 0], 1, 12, 12),
    ([5, 0, 5, 0, 0, 0, 0], 1, 13, 13),
    ([5, 5, 0, 0, 0, 0, 0], 1, 12, 11),
    ([0, 0, 6, 0, 0, 0, 4], 1, 13, 13),  # rural, although its largest part is not
]


@pytest.mark.parametrize("rules", [2021, 2024])
def test_classes_are_those_of_the_manual(rules):
    grid = grid_of((len(RULES), 7))
    people = np.array([row for row, *_ in RULES], "float32")
    codes = np.tile(np.array(CODES[1:], "int8"), (len(RULES), 1))
    rows = [
        shapely.box(4e6, 3e6 + 1000 * (len(RULES) - i - 1), 4.007e6, 3e6 + 1000 * (len(RULES) - i))
        for i in range(len(RULES))
    ]
    units = gpd.GeoDataFrame(geometry=rows, crs=3035)
    arrays = wrap_xr(people, grid), wrap_xr(codes, grid)
    found = popdask.classify_units(*arrays, units, rules=rules)
    assert found["level1"].tolist() == [level for _, level, *_ in RULES]
    assert found["level2"].tolist() == [row[2 if rules == 2021 else 3] for row in RULES]
    with pytest.raises(InputError, match="rules is 2020; expected 2021 or 2024"):
        popdask.classify_units(*arrays, units, rules=2020)
    assert (found["covered"] == 1).all()


def test_a_unit_without_people_is_what_its_land_is_and_one_without_land_is_nothing():
    people, codes = np.zeros((2, 4), "float32"), np.array([[11, 11, 10, 13]] * 2, "int8")
    people[1], grid = np.nan, grid_of((2, 4))
    north, west = 3.002e6, 4e6
    units = gpd.GeoDataFrame(
        {"code": [7, 8, 9, 10]},
        geometry=[
            shapely.box(west + left, north - 2000, west + right, north)
            for left, right in ((0, 2000), (2000, 3000), (3000, 5000), (9000, 9500))
        ],
        crs=3035,
    )
    found = popdask.classify_units(wrap_xr(people, grid), wrap_xr(codes, grid), units, name="code")
    assert found["unit"].tolist() == [7, 8, 9, 10] and "time" not in found
    assert found["level2"].tolist() == [11, pd.NA, 13, pd.NA]
    assert found["class"].isna().tolist() == [False, True, False, True]
    assert found["covered"].tolist() == [0.5, 0.5, 0.25, 0]


def test_a_year_without_data_is_no_change():
    grid, times = grid_of((4, 4)), pd.date_range("2001", periods=4, freq="YS")
    people = np.full((4, 4, 4), 100.0, np.float32)
    people[1] = np.nan
    people[2, 0] = np.nan  # a quarter of the unit
    found = popdask.classify_units(
        wrap_xr(people, grid, time=times),
        wrap_xr(np.full((4, 4, 4), 21, np.int8), grid, time=times),
        gpd.GeoDataFrame({"code": ["u"]}, geometry=[shapely.box(*grid.boundingbox)], crs=3035),
        name="code",
    )
    assert found["population"].tolist() == [1600, 0, 1200, 1600]
    assert found["covered"].tolist() == [1, 0, 0.75, 1]
    assert found["change"].isna().all() and found["growth"].isna().all()


def test_units_in_another_crs_lie_where_they_are():
    rng, grid = np.random.default_rng(1), grid_of((40, 50))
    people = wrap_xr(rng.gamma(0.3, 500, (40, 50)).astype("float32"), grid)
    codes = popdask.degree_of_urbanisation(people)
    units = outlines(rng, grid, 5, False)
    here = popdask.classify_units(people, codes, units, name="code")
    elsewhere = units.set_geometry(units.segmentize(500)).to_crs(4326)
    there = popdask.classify_units(people, codes, elsewhere, name="code")
    np.testing.assert_allclose(there["population"], here["population"], rtol=1e-4)
    assert there["level2"].tolist() == here["level2"].tolist()


def square(west, south, side=2000):
    return shapely.box(4e6 + west, 3e6 + south, 4e6 + west + side, 3e6 + south + side)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda z: z.rename(columns={"code": "KOMM"}), r"no column 'code'; they have KOMM: name"),
        (lambda z: z.iloc[:0], "no zones; expected at least one"),
        (lambda z: z.assign(code=["a", "a"]), "the zone a comes 2 times"),
        (lambda z: z.assign(code=["a", None]), "1 of the 2 zones have no name, first that of row"),
        (lambda z: z.assign(code=[np.nan, 1]), "no name, first that of row 0; expected a name or"),
        (lambda z: z.assign(code=["a", " "]), "no name, first that of row 1"),
        (lambda z: z.set_geometry([square(0, 0), square(1500, 500)]), "zones a and b overlap, in"),
        (
            lambda z: z.set_geometry([square(0, 0), square(0, 0).boundary]),
            "zone b is not a polygon",
        ),
        (lambda z: z.set_crs(None, allow_override=True), "have no CRS"),
        (lambda z: z.set_geometry(z.translate(9e5)), "none of the 2 zones lies on the raster"),
    ],
)
def test_bad_units_are_one_sentence(change, words):
    grid = grid_of((5, 5))
    people = wrap_xr(np.ones((5, 5), "float32"), grid)
    codes = wrap_xr(np.full((5, 5), 11, "int8"), grid)
    right = {"code": ["a", "b"], "geometry": [square(0, 0), square(2000, 0)]}
    zones = change(gpd.GeoDataFrame(right, crs=3035))
    with pytest.raises(InputError, match=words):
        popdask.classify_units(people, codes, zones, name="code")
    with pytest.raises(InputError, match=r"codes hold 3; expected the Degree of Urbanisation"):
        popdask.classify_units(people, codes * 0 + 3, gpd.GeoDataFrame(right, crs=3035))


def test_outlines_that_cross_a_little_count_nobody_twice():
    grid = grid_of((5, 5))
    people = wrap_xr(np.ones((5, 5), "float32"), grid)
    codes = wrap_xr(np.full((5, 5), 11, "int8"), grid)
    zones = gpd.GeoDataFrame(geometry=[square(0, 0), square(1995, 0)], crs=3035)
    found = popdask.classify_units(people, codes, zones)
    assert found["population"].sum() == pytest.approx(2 * 3.995, rel=1e-12)
