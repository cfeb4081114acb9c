"""Communities are described by sums over their cells; and nobody gets lost."""

import os
from collections import Counter
from itertools import product
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import rioxarray  # noqa: F401  (the accessor that carries the CRS)
import shapely
import xarray as xr
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pyproj import Geod

from popdask.errors import InputError
from popdask.io import open_frames
from popdask.tracking.describe import (
    LostPeopleError,
    check_balance,
    follow,
    people_balance,
    summarize,
)
from popdask.tracking.link import link
from popdask.tracking.tracks import tracks

UTM33 = Affine(250, 0, 212_000, 0, -250, 6_691_000)
DEGREES = Affine(1 / 120, 0, 97, 0, -1 / 120, 20.6)


def grid(
    values: object,
    *,
    crs: int = 25833,
    transform: Affine = UTM33,
    years: tuple[str, ...] = ("2000", "2001", "2002"),
    chunks: object = None,
) -> xr.DataArray:
    array = np.asarray(values)
    frames, rows, columns = array.shape
    coords = {
        "time": pd.to_datetime(list(years[:frames])),
        "y": transform.f + transform.e * (np.arange(rows) + 0.5),
        "x": transform.c + transform.a * (np.arange(columns) + 0.5),
    }
    data = array if chunks is None else da.from_array(array, chunks=chunks)
    stack = xr.DataArray(data, coords, ("time", "y", "x"))
    return stack.rio.write_crs(crs).rio.write_transform(transform)


def square(
    *corners: tuple[int, int], shape: tuple[int, int] = (12, 14), side: int = 3
) -> np.ndarray:
    """A community that is a square of cells, its upper left corner given for each frame."""
    labels = np.full((len(corners), *shape), -1, np.int32)
    for frame, (row, column) in zip(labels, corners, strict=True):
        frame[row : row + side, column : column + side] = 0
    return labels


def test_a_moving_square() -> None:
    """2 cells of 250 m a year to the east are 0.5 km per year."""
    community = grid(square((4, 2), (4, 4), (2, 4)), years=("2000", "2001", "2004"))
    table = summarize(community, xr.full_like(community, 10.0, dtype=np.float32))
    assert table["population"].tolist() == [90.0] * 3
    assert table["cells"].tolist() == [9] * 3
    assert table["area_km2"].tolist() == [0.5625] * 3
    np.testing.assert_allclose(table["velocity"], [np.nan, 0.5, 1 / 6], rtol=1e-12)
    np.testing.assert_allclose(table["heading"], [np.nan, 90.0, 0.0])
    first = shapely.box(212_500, 6_689_250, 213_250, 6_690_000)
    assert table["geometry"][0].equals(first)
    assert table["centroid"][0].equals(first.centroid)
    assert table.crs == table["centroid"].crs == "EPSG:25833"


@given(
    labels=hnp.arrays(np.int32, (2, 9, 11), elements=st.integers(-1, 3)),
    seed=st.integers(0, 2**32 - 1),
)
@settings(max_examples=20)
def test_every_column_equals_its_formula(labels: np.ndarray, seed: int) -> None:
    rng = np.random.default_rng(seed)
    people, u, v = rng.gamma(0.5, 40, (3, *labels.shape)).astype(np.float32)
    people[rng.random(labels.shape) < 0.1] = np.nan
    community = grid(labels)
    flow = xr.Dataset({"u": grid(u), "v": grid(-v)})
    table = summarize(community, grid(people), flow)
    x, y = np.meshgrid(community.x, community.y)
    places = [(t, n) for t in range(2) for n in sorted(set(labels[t][labels[t] >= 0].tolist()))]
    assert len(table) == len(places)
    for (t, number), row in zip(places, table.itertuples(), strict=True):
        cells = labels[t] == number
        assert (row.time, row.community) == (community.time.values[t], number)
        assert row.cells == cells.sum()
        assert row.population == pytest.approx(np.nansum(people[t][cells], dtype=float), abs=1e-9)
        assert row.area_km2 == pytest.approx(cells.sum() * 0.0625, rel=1e-12)
        assert (row.centroid.x, row.centroid.y) == pytest.approx((x[cells].mean(), y[cells].mean()))
        assert row.mean_u == pytest.approx(u[t][cells].mean(dtype=float))
        assert row.mean_v == pytest.approx(-v[t][cells].mean(dtype=float))
        assert row.geometry.is_valid
        assert row.geometry.area == cells.sum() * 250**2
        assert shapely.contains_xy(row.geometry, x, y).tolist() == cells.tolist()


@given(
    labels=hnp.arrays(np.int32, (2, 6, 7), elements=st.integers(-1, 2)),
    chunks=st.tuples(st.integers(1, 2), st.integers(1, 6), st.integers(1, 7)),
    seed=st.integers(0, 2**32 - 1),
)
@settings(max_examples=15)
def test_the_table_is_identical_under_any_chunking(
    labels: np.ndarray, chunks: tuple[int, int, int], seed: int
) -> None:
    people = np.random.default_rng(seed).gamma(0.5, 40, labels.shape).astype(np.float32)
    degrees: dict[str, Any] = {"crs": 4326, "transform": DEGREES}
    flow = xr.Dataset({"u": grid(people, **degrees), "v": grid(people, **degrees)})
    whole = summarize(grid(labels, **degrees), grid(people, **degrees), flow)
    cut = summarize(
        grid(labels, **degrees, chunks=chunks),
        grid(people, **degrees, chunks=chunks[::-1]),
        flow.chunk(dict(zip(("time", "y", "x"), chunks, strict=True))),
    )
    geometry = ["geometry", "centroid"]
    pd.testing.assert_frame_equal(
        pd.DataFrame(cut.drop(columns=geometry)),
        pd.DataFrame(whole.drop(columns=geometry)),
        check_exact=True,
    )
    for name in geometry:
        assert cut[name].to_wkb().tolist() == whole[name].to_wkb().tolist()


def test_areas_and_velocities_on_the_ellipsoid() -> None:
    community = grid(square((4, 2), (4, 4), (5, 4)), crs=4326, transform=DEGREES)
    table = summarize(community, xr.full_like(community, 1.0, dtype=np.float32))
    ellipsoid = Geod(ellps="WGS84")
    for row in table.itertuples():
        # an edge along a parallel is no geodesic: short segments come close to it
        area, _ = ellipsoid.geometry_area_perimeter(shapely.segmentize(row.geometry, 1e-3))
        assert row.area_km2 == pytest.approx(abs(area) / 1e6, rel=1e-7)
    x, y = table["centroid"].x, table["centroid"].y
    azimuth, _, metres = ellipsoid.inv(x[:-1], y[:-1], x[1:], y[1:])
    np.testing.assert_allclose(table["velocity"][1:], metres / 1000, rtol=1e-12)
    np.testing.assert_allclose(table["heading"][1:], azimuth % 360)
    np.testing.assert_allclose(table["heading"], [np.nan, 90, 180], atol=0.01)


@pytest.mark.parametrize("tracked", [False, True])
def test_the_summary_is_one_pass_over_the_blocks(tracked: bool) -> None:
    """One call of dask.compute, in which no block of any input is computed twice."""
    reads: Counter[tuple] = Counter()
    passes = []

    def noted(name: str) -> xr.DataArray:
        def note(block: np.ndarray, block_info: dict) -> np.ndarray:
            reads[(name, *block_info[0]["chunk-location"])] += 1
            return block

        values = grid(np.zeros((3, 8, 9), np.float32), chunks=(1, 4, 3))
        meta = np.empty((0, 0, 0), np.float32)
        return values.copy(data=values.data.map_blocks(note, dtype=np.float32, meta=meta))

    def counting(graph: object, keys: object, **options: object) -> object:
        reads.clear()
        found = dask.get(graph, keys, **options)
        passes.append(dict(reads))
        return found

    times = grid(np.zeros((3, 1, 1))).time.values
    ids = pd.DataFrame({"time": times, "community": 0, "track": 0}) if tracked else None
    flow = xr.Dataset({"u": noted("u"), "v": noted("v")})
    with dask.config.set(scheduler=counting):
        summarize(noted("community").astype(np.int32), noted("population"), flow, tracks=ids)
    blocks = product(["community", "population", "u", "v"], range(3), range(2), range(3))
    assert passes == [dict.fromkeys(blocks, 1)]


def test_a_community_at_rest_has_no_heading() -> None:
    community = grid(square((4, 2), (4, 2)))
    table = summarize(community, xr.full_like(community, 1.0, dtype=np.float32))
    np.testing.assert_array_equal(table["velocity"], [np.nan, 0])
    assert table["heading"].isna().all()


def test_velocity_follows_the_track_where_tracks_are_given() -> None:
    """Town 1 is swallowed by a larger one: its successor in cells is not its track."""
    labels = np.full((2, 3, 12), -1, np.int32)
    labels[0, :, 0:2], labels[0, :, 4:9] = 0, 1
    labels[1, :, 2:4], labels[1, :, 4:9] = 0, 1
    community = grid(labels)
    population = xr.full_like(community, 1.0, dtype=np.float32)
    ids = pd.DataFrame(
        {
            "time": np.repeat(community.time.values, 2),
            "community": [0, 1, 0, 1],
            "track": [0, 1, 0, 1],
            "event": "continue",
        }
    )
    by_cells = summarize(community, population)
    by_track = summarize(community, population, tracks=pd.concat([ids, ids[:1]]))
    np.testing.assert_array_equal(by_cells["velocity"], [np.nan, np.nan, np.nan, 0])
    np.testing.assert_array_equal(by_track["velocity"], [np.nan, np.nan, 0.5, 0])
    pd.testing.assert_frame_equal(follow(by_cells.iloc[[3, 0, 2, 1]], ids).sort_index(), by_track)


def test_rows_turned_upside_down_stay_where_they_are() -> None:
    """The GeoTransform in spatial_ref is out of date then; the coordinates are not."""
    community = grid(square((2, 3), (2, 5)))
    population = xr.full_like(community, 10.0, float)
    upright = summarize(community, population)
    turned = summarize(community[:, ::-1], population[:, ::-1])
    assert turned["centroid"].tolist() == upright["centroid"].tolist()
    assert turned["geometry"].geom_equals(upright["geometry"]).all()


def test_the_predecessor_is_the_one_that_leaves_most_people() -> None:
    community = grid([[[0, 0, 0, 1, 1]], [[7, 7, 7, 7, 7]]])
    population = grid(np.array([[[1, 1, 1, 5, 5]], [[1, 1, 1, 1, 1]]], np.float32))
    velocity = summarize(community, population)["velocity"]
    assert velocity[2] == pytest.approx(1.5 * 0.25)


def test_summary_links_and_tracks_fit_together() -> None:
    community = grid(square((4, 2), (4, 4), (4, 6)))
    population = xr.where(community < 0, 0.0, 10.0).astype(np.float32)
    population = population.rio.write_crs(25833)
    communities = summarize(community, population)
    table = tracks(link(community, population), communities)
    assert table["track"].tolist() == [0, 0, 0]
    assert follow(communities, table)["velocity"].tolist()[1:] == [0.5, 0.5]


def test_frames_without_communities() -> None:
    labels = square((4, 2), (4, 4), (4, 4))
    labels[1] = -1
    table = summarize(grid(labels), grid(np.ones_like(labels, np.float32)))
    assert len(table) == 2
    assert table["velocity"].isna().all()
    nothing = summarize(grid(labels[1:2]), grid(np.ones_like(labels[1:2], np.float32)))
    assert isinstance(nothing, gpd.GeoDataFrame)
    assert len(nothing) == 0
    assert nothing.crs == table.crs
    pd.testing.assert_series_equal(nothing.dtypes, table.dtypes)


def test_a_grid_without_crs_is_refused() -> None:
    bare = xr.DataArray(np.zeros((1, 3, 3), int), dims=("time", "y", "x"))
    with pytest.raises(InputError):
        summarize(bare, bare.astype(np.float32))


@given(
    labels=hnp.arrays(np.int32, (2, 9, 7), elements=st.integers(-1, 3)),
    chunks=st.tuples(st.integers(1, 2), st.integers(1, 9), st.integers(1, 7)),
    scale=st.floats(1e-3, 1e6),
    seed=st.integers(0, 2**32 - 1),
)
@settings(max_examples=12)
def test_nobody_gets_lost(
    labels: np.ndarray, chunks: tuple[int, int, int], scale: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    people = (scale * rng.random(labels.shape)).astype(np.float32)
    people[rng.random(labels.shape) < 0.2] = np.nan
    population = grid(people, chunks=chunks)
    balance = people_balance(grid(labels, chunks=chunks), population)
    check_balance(balance)
    for t, row in enumerate(balance.itertuples()):
        assert row.raster == pytest.approx(np.nansum(people[t], dtype=float), rel=1e-12)
        inside = np.nansum(people[t][labels[t] >= 0], dtype=float)
        assert row.inside == pytest.approx(inside, rel=1e-12)
        assert row.missing == np.isnan(people[t]).mean()
    described = summarize(grid(labels), population).groupby("time")["population"].sum()
    inside = balance.set_index("time")["inside"]
    np.testing.assert_allclose(described, inside[described.index], rtol=1e-12)


def test_a_frame_that_loses_people_is_named() -> None:
    community = grid(square((4, 2), (4, 4)))
    balance = people_balance(community, xr.full_like(community, 1.0, dtype=np.float32))
    balance.loc[1, "difference"] = 2e-9
    with pytest.raises(LostPeopleError, match="2001"):
        check_balance(balance)
    balance.loc[1, "difference"] = np.nan
    with pytest.raises(LostPeopleError, match="2001"):
        check_balance(balance)


def test_oslo_between_two_years() -> None:
    """Squares of 2.5 km as communities: their people are those of the raster."""
    folder = Path(os.environ.get("POPDASK_DATA") or "/nonexistent") / "oslo_250m"
    if not folder.is_dir():
        pytest.skip("POPDASK_DATA has no oslo_250m")
    files = {year: folder / f"oslo_pop_250m_{year}.tif" for year in ("2018", "2019")}
    population = open_frames(files)["population"]
    rows, columns = np.mgrid[0:400, 0:400]
    tiles = xr.DataArray((rows // 10 * 40 + columns // 10).astype(np.int32), dims=("y", "x"))
    community = tiles.where(population > 0, -1).astype(np.int32).transpose("time", "y", "x")
    balance = people_balance(community, population)
    check_balance(balance)
    assert balance["raster"].iloc[1] == 1_679_604
    communities = summarize(community, population)
    assert communities.groupby("time")["population"].sum().iloc[1] == 1_679_604
    assert communities["geometry"].is_valid.all()
    np.testing.assert_allclose(communities["geometry"].area / 1e6, communities["area_km2"])
    links = link(community, population)
    moved = links[links["source"] == links["target"]]["people"].sum()
    stayed = population.isel(time=0).where(population.isel(time=1) > 0).sum()
    assert moved == pytest.approx(float(stayed), rel=1e-6)
