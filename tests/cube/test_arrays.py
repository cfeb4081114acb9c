"""Arrays of one's own are taken as files are."""

import dask.array as da
import numpy as np
import pandas as pd
import pytest
import rioxarray
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from popdask.errors import InputError
from popdask.io.conventions import check_population, declared_nodata
from tests.cube.raster_files import write_raster

TIMES = pd.to_datetime(["2000", "2001"])
INTEGERS = ["int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"]


def cube(values, **attrs):
    return xr.DataArray(values, {"time": TIMES}, ("time", "y", "x"), attrs=attrs)


def unread():
    def fail(block):
        raise AssertionError("a cell was read")

    return cube(da.zeros((2, 3, 4), dtype="float32").map_blocks(fail, meta=np.empty((0, 0, 0))))


@given(
    dtype=st.sampled_from([*INTEGERS, "float16", "float32", "float64"]),
    value=st.sampled_from([-9999, -99999, -200, -1, 0, 99, "largest", np.nan, -3.4e38, -5]),
    declared=st.sampled_from(["attrs", "missing_value", "nodata", "encoding", "rio", None]),
    cells=st.sets(st.tuples(st.integers(0, 1), st.integers(0, 2), st.integers(0, 3)), min_size=1),
    chunks=st.none() | st.integers(1, 4),
)
def test_nodata_is_nan_where_declared_and_refused_where_it_cannot_be_people(
    dtype, value, declared, cells, chunks
):
    whole = np.dtype(dtype).kind in "iu"
    bounds = np.iinfo(dtype) if whole else np.finfo(dtype)
    value = bounds.max if value == "largest" else value
    if whole and (np.isnan(value) or not bounds.min <= value <= bounds.max):
        return
    if dtype == "float16" and abs(value) > bounds.max:
        return
    values = np.full((2, 3, 4), 7, dtype)
    for cell in cells:
        values[cell] = value
    population = cube(values)
    value = values.dtype.type(value)
    if declared in ("attrs", "missing_value", "nodata"):
        population.attrs[{"attrs": "_FillValue"}.get(declared, declared)] = value
    elif declared == "encoding":
        population.encoding["_FillValue"] = value
    if declared == "rio":
        population = population.rio.write_nodata(value)
    if chunks:
        population = population.chunk(chunks)
    held = np.array([(frame == value).sum() for frame in values])
    largest = whole and value == bounds.max and (held > 1).any()
    silent = np.isnan(value) or value in (-99999, np.float32(-3.4e38), -3.4e38)
    impossible = value < 0 or value > 2.0**64 or largest
    if declared is None and impossible and not silent:
        with pytest.raises(InputError, match=r"^population holds "):
            check_population("population", population).compute()
        return
    before = population.attrs.copy(), population.encoding.copy()
    found = check_population("population", population)
    assert (population.attrs, population.encoding) == before
    expected = values.astype("float64")
    if declared or silent:
        expected[values == value] = np.nan
    np.testing.assert_array_equal(found.values, expected)
    assert found.dtype.kind == "f" and not declared_nodata(found)
    np.testing.assert_array_equal(check_population("population", found).values, expected)


def test_what_rioxarray_opens_unmasked_is_what_it_opens_masked(tmp_path):
    values = np.array([[5, -200, 3], [0, 8, -200]], "float32")
    path = write_raster(tmp_path / "pop.tif", values, nodata=-200)
    for options in ({}, {"masked": True}, {"chunks": 2}, {"masked": True, "chunks": 2}):
        people = rioxarray.open_rasterio(path, **options).squeeze("band")
        found = check_population("population", people)
        np.testing.assert_array_equal(found, [[5, np.nan, 3], [0, 8, np.nan]])


@pytest.mark.parametrize("chunks", [None, 1, 3])
def test_a_bad_cell_is_named_where_it_lies(chunks):
    values = np.ones((2, 3, 4))
    values[1, 2, 3] = -5
    people = cube(values) if chunks is None else cube(values).chunk(chunks)
    with pytest.raises(InputError, match=r"holds -5 at row 2, column 3, frame 1; .* rio.write_nod"):
        check_population("population", people).compute()


def test_nothing_is_read_before_it_is_asked_for():
    found = check_population("population", unread())
    with pytest.raises(AssertionError, match="a cell was read"):
        found.compute()


@pytest.mark.parametrize(
    ("population", "message"),
    [
        (cube(np.full((2, 1, 1), "many")), "holds <U4; expected numbers"),
        (cube(np.ones((2, 1, 1), complex)), "holds complex128"),
        (cube(np.ones((2, 1, 1), bool)), "holds bool"),
        (cube(np.ones((2, 1, 1)), units="people per km2"), "is a density"),
        (cube(np.ones((2, 1, 1))).rename("population_density"), "is a density"),
        (cube(np.ones((2, 1, 1)), scale_factor=0.1), r"has the scale 0\.1"),
        (cube(np.ones((2, 1, 1)))[::-1], "the time 2001-01-01 before 2000-01-01"),
        (cube(np.ones((2, 1, 1)))[[0, 0]], "the time 2000-01-01 before 2000-01-01"),
        (cube(np.ones((2, 1, 1))).assign_coords(time=["2000", "2001"]), "the text '2000'"),
        (
            cube(np.ones((2, 1, 1))).assign_coords(time=TIMES[:2].date),
            "the date '2000-01-01' as a time",
        ),
        (
            cube(np.ones((2, 1, 1))).assign_coords(time=[TIMES[0], pd.NaT]),
            "has no time for frame 1",
        ),
        (
            cube(np.ones((2, 1, 1))).assign_coords(time=TIMES.tz_localize("UTC").astype(object)),
            r"times of the zone UTC.*tz_convert",
        ),
        (cube(np.ones((2, 0, 1))), "the sizes .*; expected at least one cell"),
        (cube(np.ones((2, 1, 1)))[:0], "the sizes .*; expected at least one cell and one frame"),
        (cube(np.ones((2, 1, 1))).drop_vars("time"), "2 frames without times"),
    ],
)
def test_what_is_no_stack_of_people_is_refused(population, message):
    with pytest.raises(InputError, match=message):
        check_population("population", population, timed=True)


def test_frames_without_times_will_do_where_their_order_says_nothing():
    people = cube(np.ones((2, 1, 1))).drop_vars("time")
    assert check_population("population", people).identical(people)
