"""Communities of too few people give up their cells; the others close up."""

import dask
import dask.array as da
import numpy as np
import pytest
import rioxarray  # noqa: F401  (registers .rio)
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from popdask.errors import InputError
from popdask.tracking.dbscan import remove_small_communities


def plainly(community, population, least):
    """The same, one community at a time."""
    result = np.full_like(community, -1)
    for t, frame in enumerate(community):
        stays = [
            c
            for c in np.unique(frame[frame >= 0])
            if np.nansum(population[t][frame == c], dtype=np.float64) >= least
        ]
        for number, old in enumerate(stays):
            result[t][frame == old] = number
    return result


def cube(values, chunks=None):
    data = values if chunks is None else da.from_array(values, chunks=chunks)
    return xr.DataArray(data, dims=("time", "y", "x"))


@given(
    seed=st.integers(0, 2**32 - 1),
    rows=st.integers(1, 9),
    columns=st.integers(1, 9),
    chunk=st.tuples(st.integers(1, 3), st.integers(1, 9), st.integers(1, 9)),
    least=st.sampled_from([0, 1, 7.5, 40, 1e9]),
)
@settings(max_examples=30)
def test_any_chunking_gives_the_plain_answer(seed, rows, columns, chunk, least):
    rng = np.random.default_rng(seed)
    community = rng.integers(-1, 5, (2, rows, columns)).astype(np.int32)
    population = rng.integers(0, 20, community.shape).astype(np.float32)
    population[rng.random(population.shape) < 0.1] = np.nan
    found = remove_small_communities(cube(community, chunk), cube(population, chunk), least)
    assert found.dtype == np.int32
    np.testing.assert_array_equal(found.values, plainly(community, population, least))


def test_a_hamlet_is_dissolved_and_the_town_keeps_its_cells():
    community = xr.DataArray([[0, 0, -1, 1, 1]], dims=("y", "x"))
    population = xr.DataArray([[1.0, 2.0, 50.0, 30.0, np.nan]], dims=("y", "x"))
    assert remove_small_communities(community, population, 10).values.tolist() == [
        [-1, -1, -1, 0, 0]
    ]


def test_a_frame_without_communities_stays_empty():
    community = cube(np.full((1, 3, 3), -1, np.int32))
    assert (remove_small_communities(community, cube(np.ones((1, 3, 3))), 1) == -1).all()


def test_building_the_graph_reads_nothing():
    def explode(block):
        raise AssertionError("the graph was computed while it was built")

    broken = da.zeros((2, 4, 4), chunks=(1, 2, 2), dtype=np.int32).map_blocks(explode, dtype="i4")
    found = remove_small_communities(
        xr.DataArray(broken, dims=("time", "y", "x")), cube(np.ones((2, 4, 4))), 1
    )
    assert dask.is_dask_collection(found)


def test_the_grid_rides_along():
    community = cube(np.zeros((1, 2, 2), np.int32)).assign_coords(x=[1.5, 2.5], y=[9.5, 8.5])
    found = remove_small_communities(community.rio.write_crs(25833), community, 0)
    assert found.rio.crs == "EPSG:25833" and found["x"].values.tolist() == [1.5, 2.5]


def test_a_negative_threshold_is_refused():
    zeros = cube(np.zeros((1, 2, 2), np.int32))
    with pytest.raises(InputError, match="min_people is -3"):
        remove_small_communities(zeros, zeros, -3)
