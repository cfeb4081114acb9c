"""The domain of a frame: settled, with data, or inhabited."""

import os
from pathlib import Path

import dask.array as da
import numpy as np
import pytest
import rioxarray
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from popdask.blocks.sampling import domain
from popdask.errors import InputError


def settled_plainly(population: np.ndarray) -> np.ndarray:
    """The definition, one window at a time."""
    out = np.zeros(population.shape, bool)
    for *frame, y, x in np.ndindex(*population.shape):
        window = population[(*frame, slice(max(y - 3, 0), y + 4), slice(max(x - 3, 0), x + 4))]
        out[(*frame, y, x)] = not np.isnan(population[(*frame, y, x)]) and (window > 0).any()
    return out


def sparse_world(*shape: int) -> xr.DataArray:
    rng = np.random.default_rng(4)
    people = np.where(rng.random(shape) < 0.03, rng.integers(1, 50, shape), 0).astype(np.float32)
    people[rng.random(shape) < 0.2] = np.nan
    return xr.DataArray(people, dims=("time", "y", "x")[-len(shape) :])


def oslo(**chunks: int) -> xr.DataArray:
    folder = os.environ.get("POPDASK_DATA", "")
    path = Path(folder) / "oslo_250m" / "oslo_pop_250m_2019.tif"
    if not folder or not path.exists():
        pytest.skip("POPDASK_DATA is unset or has no oslo_250m")
    return rioxarray.open_rasterio(path, masked=True, chunks=chunks or None)


def test_settled_equals_the_definition():
    world = sparse_world(2, 19, 23)
    np.testing.assert_array_equal(domain(world), settled_plainly(world.values))


@st.composite
def chunked(draw, shape):
    chunks = []
    for length in shape:
        cuts = draw(st.sets(st.integers(1, length - 1), max_size=length - 1)) if length > 1 else []
        chunks.append(tuple(np.diff([0, *sorted(cuts), length]).tolist()))
    return tuple(chunks)


@given(chunks=chunked((2, 17, 13)), cells=st.sampled_from(["settled", "data", "inhabited"]))
@settings(max_examples=25)
def test_domain_is_the_same_under_any_chunking(chunks, cells):
    """Chunks narrower than the halo included."""
    world = sparse_world(2, 17, 13)
    lazy = world.copy(data=da.from_array(world.values, chunks=chunks))
    xr.testing.assert_identical(domain(lazy, cells).compute(), domain(world, cells))


def test_one_city_is_seen_three_cells_away():
    people = np.zeros((21, 21), np.float32)
    people[10, 10] = 5
    people[8, 8] = np.nan
    found = domain(xr.DataArray(people, dims=("y", "x"))).values
    expected = np.zeros((21, 21), bool)
    expected[7:14, 7:14] = True
    expected[8, 8] = False
    np.testing.assert_array_equal(found, expected)


def test_settled_equals_data_where_every_cell_is_populated():
    world = sparse_world(12, 14)
    crowded = world.where(world.isnull(), 3.0)
    np.testing.assert_array_equal(domain(crowded), domain(crowded, "data"))


@pytest.mark.parametrize("width", [1, 2, 3, 4])
def test_raster_smaller_than_the_window(width):
    world = xr.DataArray(np.eye(1, width, dtype=np.float32), dims=("y", "x"))
    assert domain(world.chunk(x=1)).values.all()


def test_domain_is_lazy_and_keeps_the_grid():
    def explode(block):
        raise AssertionError("read while building the graph")

    people = da.ones((4, 30, 40), chunks=(1, 10, 10)).map_blocks(explode, dtype=np.float32)
    coords = {"y": np.arange(30.0), "x": np.arange(40.0), "spatial_ref": 0}
    for cells in ("settled", "data", "inhabited"):
        world = xr.DataArray(people, dims=("time", "y", "x"), coords=coords)
        found = domain(world, cells)
        assert isinstance(found.data, da.Array)
        assert found.dtype == bool
        assert set(found.coords) == {"y", "x", "spatial_ref"}
        assert found.dims == world.dims


def test_unknown_domain_offers_the_names():
    with pytest.raises(InputError, match='cells is "urban", expected one of settled, data, inhab'):
        domain(sparse_world(3, 3), "urban")


def test_oslo_nests_its_three_domains():
    """On real data: inhabited ⊂ settled ⊂ data, and settled agrees with the definition."""
    population = oslo(y=37, x=41)
    inhabited, settled, data = (
        domain(population, cells).values for cells in ("inhabited", "settled", "data")
    )
    assert (settled >= inhabited).all()
    assert (data >= settled).all()
    assert 0 < inhabited.sum() < settled.sum()
    np.testing.assert_array_equal(settled, settled_plainly(population.values))
